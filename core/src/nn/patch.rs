//! Images to sequences of patches and back (A. Dosovitskiy et al., arXiv:2010.11929).

use std::any::{Any, TypeId};

use ndarray::{
    ArrayView2, ArrayView3, ArrayView4, ArrayViewMut, ArrayViewMut2, ArrayViewMut3, ArrayViewMut4, Axis,
    Dimension, Ix3, Ix4, s,
};

use super::rows::{TASK, goes_past, task_size};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::tensor::{Element, Floats, FloatsMut, Row, RowMut, each};
use crate::threads;

/// Patch rows, patch columns and the shape `[B, T, C*p*p]` of the patches of an image batch.
fn patch_shape(arg: &'static str, image: &[usize], patch: usize) -> Result<([usize; 2], [usize; 3])> {
    if patch == 0 {
        return Err(Error::range("patch", patch, "at least 1"));
    }
    let [b, c, h, w] = *image else { return Err(Error::shape(arg, image, "[B, C, H, W]")) };
    if h % patch != 0 || w % patch != 0 {
        return Err(Error::shape(
            arg,
            image,
            format!("[B, C, H, W] with H and W multiples of patch {patch}"),
        ));
    }
    let overflow = || Error::Overflow { arg, got: format!("{image:?} with patch {patch}") };
    let features = patch.checked_mul(patch).and_then(|p| p.checked_mul(c)).ok_or_else(overflow)?;
    let (rows, columns) = (h / patch, w / patch);
    let tokens = rows.checked_mul(columns).ok_or_else(overflow)?;
    Ok(([rows, columns], [b, tokens, features]))
}

/// Cuts images `x` `[B, C, H, W]` into patches `out` `[B, T, C*p*p]`.
///
/// Token `t` is the patch at row `t / (W/p)`, column `t % (W/p)`; its features run over
/// (channel, row, column), the order of a convolution's weights. Both are f32, f16 or bf16 each.
///
/// ```
/// use ndarray::{Array, Array3};
/// let x = Array::from_iter((0..8).map(|i| i as f32)).into_shape_with_order((1, 1, 2, 4)).unwrap();
/// let mut out = Array3::<f32>::zeros((1, 2, 4));
/// dgm_core::nn::patchify(x.view(), 2, out.view_mut())?;
/// assert_eq!(out, ndarray::array![[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when `patch` is 0; [`Error::Shape`] when H or W is no multiple of it or
/// `out` does not fit; [`Error::Overflow`] when its size cannot be represented.
pub fn patchify<'a, 'o>(
    x: impl Into<Floats<'a, Ix4>>,
    patch: usize,
    out: impl Into<FloatsMut<'o, Ix3>>,
) -> Result<()> {
    cut_floats(x.into(), patch, out.into())
}

fn cut_floats(x: Floats<Ix4>, patch: usize, mut out: FloatsMut<Ix3>) -> Result<()> {
    let ([_, columns], shape) = patch_shape("x", x.shape(), patch)?;
    check_shape("out", out.shape(), &shape)?;
    let past = goes_past(&out);
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => cut(x, columns, patch, past, out)));
    Ok(())
}

/// `f::<P>(..)` for the largest `P`, known when it is compiled, of which the patch size is a multiple.
macro_rules! sized {
    ($patch:expr, $f:ident($($argument:expr),*)) => {
        match $patch {
            p if p % 16 == 0 => $f::<_, _, 16>($($argument),*),
            p if p % 8 == 0 => $f::<_, _, 8>($($argument),*),
            p if p % 4 == 0 => $f::<_, _, 4>($($argument),*),
            p if p % 2 == 0 => $f::<_, _, 2>($($argument),*),
            _ => $f::<_, _, 1>($($argument),*),
        }
    };
}

/// The outputs of images cut along an axis: the number of the image, where the part begins, and the part.
fn parts<'a, T: 'a, D: Dimension>(
    mut images: impl Iterator<Item = ArrayViewMut<'a, T, D>>,
    axis: Axis,
    size: usize,
) -> impl Iterator<Item = (usize, usize, ArrayViewMut<'a, T, D>)> {
    let (mut count, mut rest) = (0, None);
    std::iter::from_fn(move || {
        let (image, first, out) = match rest.take() {
            Some(rest) => rest,
            None => {
                count += 1;
                (count - 1, 0, images.next()?)
            }
        };
        let size = size.min(out.len_of(axis));
        let (part, after) = out.split_at(axis, size);
        rest = (!after.is_empty()).then_some((image, first + size, after));
        Some((image, first, part))
    })
}

/// Numbers of one type as numbers of another, or copied where that is the same.
#[inline(always)]
fn convert<T: Element, U: Element, const N: usize>(from: &[T; N], to: &mut [U; N]) {
    match (from as &dyn Any).downcast_ref() {
        Some(same) => *to = *same,
        None => to.iter_mut().zip(from).for_each(|(to, x)| *to = U::from_f32(x.to_f32())),
    }
}

fn cut<T: Element, U: Element>(
    x: &ArrayView4<T>,
    columns: usize,
    patch: usize,
    past: bool,
    out: &mut ArrayViewMut3<U>,
) {
    if out.is_empty() {
        return; // the other dimensions may be anything
    }
    let work = 4 * out.len() as u64;
    let rows = (task_size(past) / (columns * out.len_of(Axis(2)))).max(1);
    let tasks = parts(out.outer_iter_mut(), Axis(0), rows * columns);
    threads::for_each(tasks, work, |(image, first, out)| {
        let x = x.index_axis(Axis(0), image);
        sized!(patch, cut_rows(x, first / columns, columns, patch, past, out));
    });
}

/// Rows of patches of an image from its `first` on.
fn cut_rows<T: Element, U: Element, const P: usize>(
    x: ArrayView3<T>,
    first: usize,
    columns: usize,
    patch: usize,
    past: bool,
    mut out: ArrayViewMut2<U>,
) {
    let side_by_side = x.strides()[2] == 1 && out.is_standard_layout();
    let runs = patch / P;
    let (channels, height, width) = x.dim();
    // Lines of a slice are found much quicker than those of a view.
    let whole = x.to_slice();
    let mut lines = Vec::with_capacity(channels * patch);
    for (i, mut tokens) in (first..).zip(out.axis_chunks_iter_mut(Axis(0), columns)) {
        let rows = i * patch..(i + 1) * patch;
        if let (true, Some(tokens)) = (side_by_side, tokens.as_slice_mut()) {
            // A token has as many numbers of every line, each time from the same place.
            lines.clear();
            for channel in 0..channels {
                for row in rows.clone() {
                    lines.extend(match whole {
                        Some(x) => x[(channel * height + row) * width..].get(..width),
                        None => x.slice(s![channel, row, ..]).to_slice(),
                    });
                }
            }
            let done = if patch == 2 && TypeId::of::<T>() == TypeId::of::<U>() {
                let row = (patch * x.strides()[1].unsigned_abs() * size_of::<T>()).max(1);
                let next = row * AHEAD.div_ceil(row);
                dispatch(Twos { lines: &lines, next, out: U::row_mut(tokens), past })
            } else {
                0
            };
            if done == columns {
                continue;
            }
            let lines: Vec<&[[T; P]]> = lines.iter().map(|line: &&[T]| line.as_chunks().0).collect();
            let tokens = tokens.as_chunks_mut::<P>().0.chunks_exact_mut(runs * lines.len());
            for (j, token) in tokens.enumerate().skip(done) {
                if runs == 1 {
                    token.iter_mut().zip(&lines).for_each(|(to, line)| convert(&line[j], to));
                    continue;
                }
                for (to, line) in token.chunks_exact_mut(runs).zip(&lines) {
                    to.iter_mut().zip(&line[j * runs..]).for_each(|(to, x)| convert(x, to));
                }
            }
            continue;
        }
        let x = x.slice_axis(Axis(1), rows.into());
        for (k, row) in x.rows().into_iter().enumerate() {
            for (j, x) in row.iter().enumerate() {
                tokens[[j / patch, k * patch + j % patch]] = U::from_f32(x.to_f32());
            }
        }
    }
    if past {
        // Once a task: it waits for all that was written.
        dispatch(Settle);
    }
}

/// Bytes at least between a line and the one that is asked for when it is read: that of the next row of patches, or of
/// one behind it.
const AHEAD: usize = 2048;

/// Lines whose columns are taken at once: those of four channels.
const EIGHT: usize = 8;

/// Tokens of two numbers of every line, by squares of vectors of 32-bit words; returns how many, from the first on.
struct Twos<'a, 'b, T> {
    lines: &'a [&'a [T]],
    /// Bytes from a line to that which is asked for.
    next: usize,
    /// Tokens of the type of the lines.
    out: RowMut<'b>,
    /// Whether the output goes past the caches, which it does where it begins with a line.
    past: bool,
}

impl<T: Element> Kernel for Twos<'_, '_, T> {
    type Output = usize;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> usize {
        let Twos { lines, next, mut out, past } = self;
        // Words that a line has for a token, and all lines together.
        let words = size_of::<T>() / 2;
        let token = lines.len() * words;
        if token == 0 || (token > S::LANES && !token.is_multiple_of(S::LANES)) {
            return 0;
        }
        let tokens = lines[0].len() / 2;
        // Eight lines fill vectors by their columns; of 16-bit numbers more of them would leave gaps.
        let eights =
            S::LANES == 16 && lines.len().is_multiple_of(EIGHT) && (words == 2 || lines.len() == EIGHT);
        let step = if eights { S::LANES / words } else { S::LANES };
        let mut j = 0;
        while tokens - j >= step {
            if eights {
                for (group, lines) in lines.as_chunks().0.iter().enumerate() {
                    let rows = eight(s, lines, j, next);
                    let columns = if words == 2 { s.columns_of_twos(rows) } else { s.columns(rows) };
                    let apart = if words == 2 { token } else { S::LANES };
                    let mut at = j * token + group * S::LANES;
                    for column in columns {
                        put(s, column, &mut out, at, past);
                        at += apart;
                    }
                }
                j += step;
                continue;
            }
            for line in lines {
                let first = line[2 * j..].as_ptr().addr() + next;
                for line in (first..first + 2 * step * size_of::<T>()).step_by(64) {
                    s.prefetch_later_at(line);
                }
            }
            for (group, lines) in lines.chunks(S::LANES / words).enumerate() {
                let square = s.transpose(square(s, lines, j));
                if token >= S::LANES {
                    for (t, &row) in square[..S::LANES].iter().enumerate() {
                        put(s, row, &mut out, (j + t) * token + group * S::LANES, past);
                    }
                    continue;
                }
                // Shorter tokens: what a vector writes behind one is written over by the next.
                let mut together = [0.0; 17 * 16];
                for (t, &row) in square[..S::LANES].iter().enumerate() {
                    s.store(row, &mut together[t * token..]);
                }
                for i in 0..token {
                    let at = i * S::LANES;
                    put(s, s.load(&together[at..]), &mut out, j * token + at, past);
                }
            }
            j += step;
        }
        j
    }
}

/// What went past the caches is seen by all threads.
struct Settle;

impl Kernel for Settle {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        s.settle();
    }
}

/// A vector of each of eight lines, from token `j` on, and a request for the line that lies `next` bytes behind each.
#[inline(always)]
fn eight<S: Simd, T: Element>(s: S, lines: &[&[T]; EIGHT], j: usize, next: usize) -> [S::F; EIGHT] {
    let mut rows = [s.splat(0.0); EIGHT];
    for (row, line) in rows.iter_mut().zip(lines) {
        let line = &line[2 * j..];
        s.prefetch_later_at(line.as_ptr().addr().wrapping_add(next));
        *row = match T::row(line) {
            Row::F32(x) => s.load(x),
            Row::F16(x) | Row::Bf16(x) => s.bits_to_f32(s.load_pairs(x)),
        };
    }
    rows
}

/// What a vector of tokens from `j` on reads of the lines, a row for each word.
#[inline(always)]
fn square<S: Simd, T: Element>(s: S, lines: &[&[T]], j: usize) -> [S::F; 16] {
    let mut rows = [s.splat(0.0); 16];
    // To a known end, so that the rows are registers.
    for i in 0..S::LANES {
        let Some(line) = lines.get(i) else { break };
        match T::row(&line[2 * j..]) {
            Row::F16(x) | Row::Bf16(x) => rows[i] = s.bits_to_f32(s.load_pairs(x)),
            Row::F32(x) if 2 * i + 1 < S::LANES => [rows[2 * i], rows[2 * i + 1]] = s.load_twos(x),
            Row::F32(_) => break,
        }
    }
    rows
}

/// Writes a vector to the `at`-th word of a row.
#[inline(always)]
fn put<S: Simd>(s: S, v: S::F, out: &mut RowMut, at: usize, past: bool) {
    match out {
        RowMut::F32(to) if past => s.stream(v, &mut to[at..]),
        RowMut::F32(to) => s.store(v, &mut to[at..]),
        RowMut::F16(to) | RowMut::Bf16(to) if past => s.stream_pairs(s.to_bits(v), &mut to[2 * at..]),
        RowMut::F16(to) | RowMut::Bf16(to) => s.store_pairs(s.to_bits(v), &mut to[2 * at..]),
    }
}

/// Puts patches `x` `[B, T, p*p*C]` together to images `out` `[B, C, H, W]`.
///
/// Tokens are ordered as in [`patchify`], but the features of a token run over (row, column,
/// channel), the order of DiT's last layer. Both are f32, f16 or bf16 each.
///
/// ```
/// use ndarray::{Array4, array};
/// let x = array![[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]];
/// let mut out = Array4::<f32>::zeros((1, 1, 2, 4));
/// dgm_core::nn::unpatchify(x.view(), 2, out.view_mut())?;
/// assert_eq!(out, array![[[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when `patch` is 0; [`Error::Shape`] when the H or W of `out` is no multiple
/// of it or `x` does not fit; [`Error::Overflow`] when its size cannot be represented.
pub fn unpatchify<'a, 'o>(
    x: impl Into<Floats<'a, Ix3>>,
    patch: usize,
    out: impl Into<FloatsMut<'o, Ix4>>,
) -> Result<()> {
    join_floats(x.into(), patch, out.into())
}

fn join_floats(x: Floats<Ix3>, patch: usize, mut out: FloatsMut<Ix4>) -> Result<()> {
    let ([_, columns], shape) = patch_shape("out", out.shape(), patch)?;
    check_shape("x", x.shape(), &shape)?;
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => join(x, columns, patch, out)));
    Ok(())
}

fn join<T: Element, U: Element>(x: &ArrayView3<T>, columns: usize, patch: usize, out: &mut ArrayViewMut4<U>) {
    if out.is_empty() {
        return; // the other dimensions may be anything
    }
    let work = 4 * out.len() as u64;
    let rows = (TASK / (columns * x.len_of(Axis(2)))).max(1);
    let tasks = parts(out.outer_iter_mut(), Axis(1), rows * patch);
    threads::for_each(tasks, work, |(image, first, out)| {
        let x = x.index_axis(Axis(0), image);
        sized!(patch, join_rows(x.slice(s![first / patch * columns.., ..]), columns, patch, out));
    });
}

/// Rows of patches from the beginning of a sequence on.
fn join_rows<T: Element, U: Element, const P: usize>(
    x: ArrayView2<T>,
    columns: usize,
    patch: usize,
    mut out: ArrayViewMut3<U>,
) {
    let (channels, features, runs) = (out.len_of(Axis(0)), x.ncols(), patch / P);
    for (i, mut out) in out.axis_chunks_iter_mut(Axis(1), patch).enumerate() {
        let x = x.slice(s![i * columns..(i + 1) * columns, ..]);
        for (c, mut channel) in out.outer_iter_mut().enumerate() {
            for (k, mut row) in channel.outer_iter_mut().enumerate() {
                let first = k * patch * channels + c;
                if let (Some(tokens), Some(row)) = (x.to_slice(), row.as_slice_mut()) {
                    let row = row.as_chunks_mut::<P>().0.chunks_exact_mut(runs);
                    for (row, token) in row.zip(tokens.chunks_exact(features)) {
                        for (r, to) in row.iter_mut().enumerate() {
                            let first = first + r * P * channels;
                            convert(&std::array::from_fn(|q| token[first + q * channels]), to);
                        }
                    }
                    continue;
                }
                for (j, to) in row.iter_mut().enumerate() {
                    *to = U::from_f32(x[[j / patch, first + j % patch * channels]].to_f32());
                }
            }
        }
    }
}
