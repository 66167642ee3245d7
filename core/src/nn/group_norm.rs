//! Group norm (Y. Wu and K. He, arXiv:1803.08494).

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Dimension, Ix1};

use super::norm::{check_eps, shape_of};
use super::sum::{BLOCK, Plain, Squares, block_sum};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::linalg::rows::{narrow, widen};
use crate::math::silu;
use crate::tensor::{Element, Floats, FloatsMut, Row, RowMut, each};
use crate::threads;

/// Group norm of `x` `[B, C, ...]`: the channels are cut into `groups` runs, and each run of each batch
/// entry, over all that follows the channel axis, becomes
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, weight and bias `[C]` or absent; with `silu`, SiLU of
/// that. `out` has the shape of `x`; each array is f32, f16 or bf16.
///
/// The sums are those of [`layer_norm`](super::layer_norm) over the run in row-major order (channel, then
/// the rest).
///
/// ```
/// use ndarray::{Array3, array};
/// let x = array![[[1.0, 3.0], [5.0, 5.0]]];
/// let mut out = Array3::<f32>::zeros((1, 2, 2));
/// dgm_core::nn::group_norm(x.view(), 2, None, None, 0.0001, false, out.view_mut())?;
/// assert!((out[[0, 0, 1]] - 1.0f32).abs() < 1e-4);
/// assert_eq!(out[[0, 1, 0]], 0.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has less than two axes or its channels are no multiple of `groups`, or `out`,
/// `weight` or `bias` does not fit; [`Error::Range`] for no groups or an `eps` that is negative or not finite.
pub fn group_norm<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    groups: usize,
    weight: Option<Floats<Ix1>>,
    bias: Option<Floats<Ix1>>,
    eps: f32,
    silu: bool,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (x, out) = (x.into().into_dyn(), out.into().into_dyn());
    check_eps(eps)?;
    if groups == 0 {
        return Err(Error::range("groups", groups, "at least 1"));
    }
    let channels = match *x.shape() {
        [_, channels, ..] if channels % groups == 0 => channels,
        _ => {
            return Err(Error::shape(
                "x",
                x.shape(),
                format!("[B, C, ...] with C a multiple of groups {groups}"),
            ));
        }
    };
    check_shape("out", out.shape(), x.shape())?;
    for (name, shape) in [("weight", shape_of(&weight)), ("bias", shape_of(&bias))] {
        if let Some(shape) = shape {
            check_shape(name, shape, &[channels])?;
        }
    }
    let mut out = out;
    let (weight, bias) = (weight.map(Floats::reborrow), bias.map(Floats::reborrow));
    let options = Options { channels: channels / groups, weight, bias, eps, silu };
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => {
        if !x.is_empty() {
            run(x.view(), &options, out.view_mut());
        }
    }));
    Ok(())
}

struct Options<'a> {
    /// Channels of a group.
    channels: usize,
    weight: Option<Floats<'a, Ix1>>,
    bias: Option<Floats<'a, Ix1>>,
    eps: f32,
    silu: bool,
}

/// Every group of a tensor that is not empty.
fn run<T: Element, U: Element>(x: ArrayViewD<T>, o: &Options, mut out: ArrayViewMutD<U>) {
    let work = 12 * x.len() as u64 * if o.silu { 4 } else { 1 };
    let n = o.channels * x.shape()[2..].iter().product::<usize>();
    let mut images = x.outer_iter().zip(out.outer_iter_mut());
    let mut rest = None;
    let tasks = std::iter::from_fn(|| {
        let (first, x, out) = match rest.take() {
            Some(rest) => rest,
            None => images.next().map(|(x, out)| (0, x, out))?,
        };
        let (group, after) = out.split_at(Axis(0), o.channels);
        let next = first + o.channels;
        rest = (!after.is_empty()).then(|| (next, x.clone(), after));
        Some((first, x, group))
    });
    threads::for_each(tasks, work, |(first, x, mut out)| {
        let x = x.slice_axis_move(Axis(0), (first..first + o.channels).into());
        // Two blocks and the parameters, or the whole group where its elements lie apart.
        let blocks = if x.is_standard_layout() && out.is_standard_layout() { BLOCK } else { n };
        threads::with_scratch(2 * blocks + 2 * o.channels, |scratch| {
            let (from, rest) = scratch.split_at_mut(blocks);
            let (to, parameters) = rest.split_at_mut(blocks);
            let (weight, bias) = parameters.split_at_mut(o.channels);
            let weight = parameter(&o.weight, first, weight);
            let bias = parameter(&o.bias, first, bias);
            let group = Group { space: n / o.channels, weight, bias, eps: o.eps, silu: o.silu };
            match (x.to_slice(), out.as_slice_mut()) {
                (Some(x), Some(out)) => dispatch(Run { group, x: T::row(x), out: U::row_mut(out), from, to }),
                _ => {
                    from.iter_mut().zip(&x).for_each(|(to, x)| *to = x.to_f32());
                    let (x, target) = (Row::F32(from), RowMut::F32(to));
                    dispatch(Run { group, x, out: target, from: &mut [], to: &mut [] });
                    out.iter_mut().zip(&*to).for_each(|(out, &y)| *out = U::from_f32(y));
                }
            }
        });
    });
}

/// The parameters of a group, widened.
fn parameter<'b>(p: &Option<Floats<Ix1>>, first: usize, to: &'b mut [f32]) -> Option<&'b [f32]> {
    let p = p.as_ref()?;
    each!(Floats, p, p => to.iter_mut().zip(p.iter().skip(first)).for_each(|(to, p)| *to = Element::to_f32(*p)));
    Some(to)
}

#[derive(Clone, Copy)]
struct Group<'a> {
    /// Elements of a channel.
    space: usize,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
    silu: bool,
}

/// One group; 16-bit elements are widened to `from`, and rounded from `to`, a block at a time.
struct Run<'a> {
    group: Group<'a>,
    x: Row<'a>,
    out: RowMut<'a>,
    from: &'a mut [f32],
    to: &'a mut [f32],
}

/// `len` elements from `at` on as f32.
#[inline(always)]
fn block<'b, S: Simd>(s: S, x: Row<'b>, at: usize, len: usize, room: &'b mut [f32]) -> &'b [f32] {
    let part = match x {
        Row::F32(x) => return &x[at..at + len],
        Row::F16(x) => Row::F16(&x[at..at + len]),
        Row::Bf16(x) => Row::Bf16(&x[at..at + len]),
    };
    widen(s, part, &mut room[..len]);
    &room[..len]
}

impl Kernel for Run<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { group, x, mut out, from, to } = self;
        let n = match x {
            Row::F32(x) => x.len(),
            Row::F16(x) | Row::Bf16(x) => x.len(),
        };
        let (mut total, mut squares) = (0.0, 0.0);
        for at in (0..n).step_by(BLOCK) {
            let x = block(s, x, at, BLOCK.min(n - at), from);
            total += block_sum(s, x, Plain);
        }
        let mean = total / n as f32;
        let center = s.splat(mean);
        for at in (0..n).step_by(BLOCK) {
            let x = block(s, x, at, BLOCK.min(n - at), from);
            squares += block_sum(s, x, Squares(mean));
        }
        let inverse = s.splat(1.0 / (squares / n as f32 + group.eps).sqrt());
        for at in (0..n).step_by(BLOCK) {
            let len = BLOCK.min(n - at);
            let x = block(s, x, at, len, from);
            match &mut out {
                RowMut::F32(out) => group.finish(s, x, at, center, inverse, &mut out[at..at + len]),
                RowMut::F16(out) => {
                    group.finish(s, x, at, center, inverse, &mut to[..len]);
                    narrow(s, &to[..len], RowMut::F16(&mut out[at..at + len]));
                }
                RowMut::Bf16(out) => {
                    group.finish(s, x, at, center, inverse, &mut to[..len]);
                    narrow(s, &to[..len], RowMut::Bf16(&mut out[at..at + len]));
                }
            }
        }
    }
}

impl Group<'_> {
    /// The elements of a block that begins `at` inside the group.
    #[inline(always)]
    fn finish<S: Simd>(self, s: S, x: &[f32], at: usize, center: S::F, inverse: S::F, out: &mut [f32]) {
        let mut from = 0;
        while from < x.len() {
            let channel = (at + from) / self.space;
            let end = x.len().min((channel + 1) * self.space - at);
            let weight = self.weight.map(|w| w[channel]);
            let bias = self.bias.map(|b| b[channel]);
            let parts = x[from..end].chunks(S::LANES).zip(out[from..end].chunks_mut(S::LANES));
            for (x, out) in parts {
                let y = s.mul(s.sub(s.load_partial(x, 0.0), center), inverse);
                let y = match (weight, bias) {
                    (Some(w), Some(b)) => s.fma(y, s.splat(w), s.splat(b)),
                    (Some(w), None) => s.mul(y, s.splat(w)),
                    (None, Some(b)) => s.add(y, s.splat(b)),
                    (None, None) => y,
                };
                s.store_partial(if self.silu { silu(s, y) } else { y }, out);
            }
            from = end;
        }
    }
}
