//! Rotary position embedding (J. Su et al., arXiv:2104.09864).

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, Ix4, s};

use super::lanes::{Operand, Same, Target, ask, fill, one, two};
use super::rows::{TASKS_A_THREAD, goes_past, task_size};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::linalg::rows::widen;
use crate::tensor::{Dtype, Element, Floats, FloatsMut, Row, RowMut, each};
use crate::threads;

/// Cosines and sines by position, and which numbers are a pair.
#[derive(Debug, Clone)]
pub struct Rope<'a> {
    /// `[positions, R / 2]`: the first `R` numbers of a head are turned, the others stay.
    pub cos: ArrayView2<'a, f32>,
    /// As `cos`.
    pub sin: ArrayView2<'a, f32>,
    /// Pairs are `(2 i, 2 i + 1)` (GPT-J, original LLaMA); else `(i, i + R / 2)` (GPT-NeoX, Hugging Face).
    pub interleaved: bool,
}

impl Rope<'_> {
    /// Checks the tables for heads of `dim` numbers at positions below `positions`.
    pub(crate) fn check(&self, dim: usize, positions: usize) -> Result<()> {
        let (rows, half) = self.cos.dim();
        if 2 * half > dim {
            let expected = format!("[positions, R / 2] with R at most {dim}, the head size");
            return Err(Error::shape("cos", self.cos.shape(), expected));
        }
        check_shape("sin", self.sin.shape(), &[rows, half])?;
        check_strides("cos", self.cos.shape(), self.cos.strides(), false)?;
        check_strides("sin", self.sin.shape(), self.sin.strides(), false)?;
        if positions > rows {
            return Err(Error::shape("cos", self.cos.shape(), format!("{positions} positions or more")));
        }
        Ok(())
    }

    /// Turns the row `from`, which stands at `position`, into `to`.
    pub(crate) fn turn(&self, from: &[f32], to: &mut [f32], position: usize) {
        dispatch(Turn { tables: self, from, to, position });
    }

    /// Both tables as slices, of which parts are found much quicker than rows of views.
    fn whole(&self) -> Option<[&[f32]; 2]> {
        Some([self.cos.to_slice()?, self.sin.to_slice()?])
    }

    /// Cosines and sines of a position, unless they lie apart.
    #[inline(always)]
    fn at<'s>(&'s self, whole: Option<[&'s [f32]; 2]>, position: usize) -> Option<[&'s [f32]; 2]> {
        let half = self.cos.ncols();
        match whole {
            Some([cos, sin]) => Some([&cos[position * half..][..half], &sin[position * half..][..half]]),
            None => Some([self.cos.row(position).to_slice()?, self.sin.row(position).to_slice()?]),
        }
    }

    /// Whether rows of `dim` numbers can go past the caches as they are turned: they are lines, and so are the numbers
    /// that a vector of pairs becomes.
    fn in_lines(&self, rows: &[f32], dim: usize) -> bool {
        let begins = rows.as_ptr().addr().is_multiple_of(LINE * size_of::<f32>());
        self.interleaved && begins && dim == 2 * self.cos.ncols() && dim.is_multiple_of(LINE)
    }

    /// Past the caches only where rows are [`Rope::in_lines`].
    #[inline(always)]
    fn turn_row<S: Simd>(
        &self,
        s: S,
        from: Row,
        (to, past): (&mut [f32], bool),
        whole: Option<[&[f32]; 2]>,
        position: usize,
    ) {
        let half = self.cos.ncols();
        if let (Some(angles), true) = (self.at(whole, position), half >= S::LANES) {
            self.turn_vectors(s, from, (&mut *to, past), angles);
            return widen(s, from.slice(2 * half, to.len() - 2 * half), &mut to[2 * half..]);
        }
        widen(s, from, to);
        let (step, apart) = if self.interleaved { (2, 1) } else { (1, half) };
        for (i, (cos, sin)) in self.cos.row(position).iter().zip(self.sin.row(position)).enumerate() {
            let (a, b) = (to[step * i], to[step * i + apart]);
            to[step * i] = a * cos - b * sin;
            to[step * i + apart] = b * cos + a * sin;
        }
    }

    /// At least a vector of pairs. The last one reaches back over pairs that were turned before.
    #[inline(always)]
    fn turn_vectors<S: Simd>(
        &self,
        s: S,
        from: Row,
        (to, past): (&mut [f32], bool),
        [cos, sin]: [&[f32]; 2],
    ) {
        let half = cos.len();
        let (from, sin, to) = (from.slice(0, 2 * half), &sin[..half], &mut to[..2 * half]);
        let last = half - S::LANES;
        let mut next = 0;
        if self.interleaved {
            while next < half {
                let i = next.min(last);
                let pairs = turned(s, twos(s, from, 2 * i), s.load(&cos[i..]), s.load(&sin[i..]));
                let ([a, b], to) = (s.zip(pairs), &mut to[2 * i..][..2 * S::LANES]);
                if !past {
                    s.store(a, to);
                    s.store(b, &mut to[S::LANES..]);
                } else {
                    // A line is not written again: of a vector that reaches back, half is new.
                    if i == next {
                        s.stream(a, to);
                    }
                    s.stream(b, &mut to[S::LANES..]);
                }
                next = i + S::LANES;
            }
            return;
        }
        // As long as the angles, so that one comparison serves all.
        let (first, second) = (from.slice(0, half), from.slice(half, half));
        let (to_first, to_second) = to.split_at_mut(half);
        while next < half {
            let i = next.min(last);
            let pairs = [one(s, first, i), one(s, second, i)];
            let [a, b] = turned(s, pairs, s.load(&cos[i..]), s.load(&sin[i..]));
            s.store(a, &mut to_first[i..]);
            s.store(b, &mut to_second[i..]);
            next = i + S::LANES;
        }
    }
}

/// Pairs turned: every product and every sum rounded.
#[inline(always)]
fn turned<S: Simd>(s: S, [a, b]: [S::F; 2], cos: S::F, sin: S::F) -> [S::F; 2] {
    [s.sub(s.mul(a, cos), s.mul(b, sin)), s.add(s.mul(b, cos), s.mul(a, sin))]
}

/// A vector of elements `at`, `at + 2`, ... and one of those between.
#[inline(always)]
fn twos<S: Simd>(s: S, row: Row, at: usize) -> [S::F; 2] {
    match row {
        Row::F32(x) => s.load_twos(&x[at..]),
        Row::F16(_) => {
            let mut lanes = [0.0; 32];
            let [a, b] = two(s, row, at);
            s.store(a, &mut lanes);
            s.store(b, &mut lanes[S::LANES..]);
            s.load_twos(&lanes)
        }
        Row::Bf16(x) => {
            let pairs = s.load_pairs(&x[at..]);
            let odd = s.iand(pairs, s.isplat(0xffff_0000u32 as i32));
            [s.ishl::<16>(pairs), odd].map(|bits| s.bits_to_f32(bits))
        }
    }
}

/// One row.
struct Turn<'a, 'b> {
    tables: &'b Rope<'a>,
    from: &'b [f32],
    to: &'b mut [f32],
    position: usize,
}

impl Kernel for Turn<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.tables.turn_row(s, Row::F32(self.from), (self.to, false), None, self.position);
    }
}

/// Numbers of 32 bits in a line of a cache.
const LINE: usize = 16;

/// Numbers that are turned before they are rounded to the type of the output: they stay in the first cache, with the
/// tables. Rows of 16 bits may begin anywhere in a line, so that many are written at once.
const ROOM: usize = 1024;

/// The same where nothing is rounded: what goes past the caches is written while the next is turned.
const SHORT_ROOM: usize = 288;

/// Tokens between the one that is turned and the one that is asked for, where memory is waited for.
const AHEAD: usize = 16;

/// Bytes of tables that the tokens of a task share where memory is waited for: they stay in the second cache, and rows
/// of a head that follow each other are many.
const TABLES: usize = 256 * 1024;

/// Rounds turned rows to where they belong.
#[inline(always)]
fn write<S: Simd, Y: Element>(s: S, turned: &[f32], to: &mut [Y], past: bool) {
    fill(s, Same, [Operand::Row(Row::F32(turned))], &mut Target { row: Y::row_mut(to), past });
}

/// Some tokens of a head, from position `first` on.
struct Head<'a, 'b, X> {
    tables: &'b Rope<'a>,
    /// [`Rope::whole`].
    angles: Option<[&'b [f32]; 2]>,
    first: usize,
    x: ArrayView2<'b, X>,
    /// Rows that follow each other are parts of a slice, which is much quicker than parts of a view.
    whole: Option<&'b [X]>,
    /// The head after it, where memory is waited for.
    next: Option<ArrayView2<'b, X>>,
}

impl<X: Element> Head<'_, '_, X> {
    #[inline(always)]
    fn row(&self, token: usize) -> Option<&[X]> {
        let dim = self.x.ncols();
        match self.whole {
            Some(x) => x.get(token * dim..(token + 1) * dim),
            None => self.x.row(token).to_slice(),
        }
    }

    /// Turns a token, and asks for one that is turned later. `apart` has room for a row whose numbers lie apart.
    #[inline(always)]
    fn turn<S: Simd>(&self, s: S, token: usize, to: (&mut [f32], bool), apart: &mut [f32]) {
        let tokens = self.x.nrows();
        if let Some(next) = &self.next {
            let ahead = token + AHEAD;
            let row = match ahead < tokens {
                true => self.row(ahead),
                false => next.row((ahead - tokens).min(tokens - 1)).to_slice(),
            };
            ask(s, X::row(row.unwrap_or_default()));
        }
        let from = match self.row(token) {
            Some(from) => X::row(from),
            None => {
                apart.iter_mut().zip(self.x.row(token)).for_each(|(to, x)| *to = x.to_f32());
                Row::F32(apart)
            }
        };
        self.tables.turn_row(s, from, to, self.angles, self.first + token);
    }
}

/// Some tokens of all heads, from position `first` on, which share the rows of the tables.
struct Tokens<'a, 'b, 'x, 'y, X, Y> {
    tables: &'b Rope<'a>,
    first: usize,
    x: ArrayView3<'x, X>,
    out: ArrayViewMut3<'y, Y>,
    past: bool,
    room: &'b mut [f32],
}

impl<X: Element, Y: Element> Kernel for Tokens<'_, '_, '_, '_, X, Y> {
    type Output = ();
    const BF16: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Tokens { tables, first, x, mut out, past, room } = self;
        let (heads, _, dim) = x.dim();
        let (apart, room) = room.split_at_mut(dim);
        let run = room.len() / dim;
        let angles = tables.whole();
        for (h, mut out) in out.outer_iter_mut().enumerate() {
            let (x, after) = (x.index_axis(Axis(0), h), x.index_axis(Axis(0), (h + 1).min(heads - 1)));
            let (whole, next) = (x.to_slice(), past.then_some(after));
            let head = Head { tables, angles, first, x, whole, next };
            // Numbers that are not rounded are turned to where they belong.
            if let Some(RowMut::F32(out)) = out.as_slice_mut().map(Y::row_mut)
                && (!past || tables.in_lines(out, dim))
            {
                for (token, to) in out.chunks_exact_mut(dim).enumerate() {
                    head.turn(s, token, (to, past), apart);
                }
                continue;
            }
            for (i, mut out) in out.axis_chunks_iter_mut(Axis(0), run).enumerate() {
                let turned = &mut room[..out.len()];
                for (j, to) in turned.chunks_exact_mut(dim).enumerate() {
                    head.turn(s, i * run + j, (to, false), apart);
                }
                match out.as_slice_mut() {
                    Some(out) => write(s, turned, out, past),
                    None => out.iter_mut().zip(&*turned).for_each(|(to, x)| *to = Y::from_f32(*x)),
                }
            }
        }
        if past {
            s.settle();
        }
    }
}

fn check_theta(theta: f32) -> Result<()> {
    if theta.is_finite() && theta > 0.0 {
        Ok(())
    } else {
        Err(Error::range("theta", theta, "a finite positive number"))
    }
}

/// `theta^(-i / half)` for `i` below `half`.
pub(crate) fn exact_frequencies(theta: f32, half: usize) -> impl Iterator<Item = f64> {
    let rate = -libm::log(f64::from(theta));
    (0..half).map(move |i| libm::exp(rate * i as f64 / half as f64))
}

/// [`exact_frequencies`], rounded.
pub(crate) fn frequencies(theta: f32, half: usize) -> impl Iterator<Item = f32> {
    exact_frequencies(theta, half).map(|f| f as f32)
}

/// Fills the tables of positions `first`, `first + 1`, ...: row `n` holds cosine and sine of
/// `(first + n) * theta^(-i / (R / 2))` for `i` below `R / 2`.
///
/// The frequencies are rounded to f32; the angle, its cosine and sine are computed in f64 and rounded
/// once. Scaled variants are tables of the caller's own.
///
/// ```
/// use ndarray::Array2;
/// let (mut cos, mut sin) = (Array2::zeros((4, 8)), Array2::zeros((4, 8)));
/// dgm_core::nn::rope_tables(0, 10_000.0, cos.view_mut(), sin.view_mut())?;
/// assert_eq!((cos[[0, 0]], sin[[0, 0]]), (1.0, 0.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `sin` has not the shape of `cos`; [`Error::Range`] when `theta` is not a
/// finite positive number or a position not below 2^53.
pub fn rope_tables(first: usize, theta: f32, cos: ArrayViewMut2<f32>, sin: ArrayViewMut2<f32>) -> Result<()> {
    check_theta(theta)?;
    let (rows, half) = cos.dim();
    check_shape("sin", sin.shape(), &[rows, half])?;
    if first.checked_add(rows).is_none_or(|end| end as u64 > 1 << 53) {
        return Err(Error::range("first", first, "positions below 2^53"));
    }
    let frequencies: Vec<f32> = frequencies(theta, half).collect();
    fill_tables(first, &frequencies, cos, sin);
    Ok(())
}

/// [`rope_tables`] of frequencies, a table's column each.
pub(crate) fn fill_tables(
    first: usize,
    frequencies: &[f32],
    mut cos: ArrayViewMut2<f32>,
    mut sin: ArrayViewMut2<f32>,
) {
    let work = 200 * (cos.nrows() * frequencies.len()) as u64;
    let rows = cos.axis_iter_mut(Axis(0)).zip(sin.axis_iter_mut(Axis(0))).enumerate();
    threads::for_each(rows, work, |(n, (mut cos, mut sin))| {
        for (&f, (c, s)) in frequencies.iter().zip(cos.iter_mut().zip(&mut sin)) {
            let (sine, cosine) = libm::sincos((first + n) as f64 * f64::from(f));
            (*c, *s) = (cosine as f32, sine as f32);
        }
    });
}

/// Fills the tables of tokens with several coordinates: row `n` holds, one axis after the other, cosine and
/// sine of `positions[n][a] * theta^(-i / (dims[a] / 2))` for `i` below `dims[a] / 2`.
///
/// `positions` is `[tokens, axes]`, `dims` the numbers of a head that each axis turns, all even, and the tables
/// are `[tokens, sum of dims / 2]`: two axes for images, three for video or for images behind text. Positions
/// may be fractions. Frequencies, angles and roundings are those of [`rope_tables`]; [`rope()`] with `first` 0
/// uses row `n` for token `n`. B. Heo et al., arXiv:2403.13298 (axial frequencies); Flux takes
/// dims 16, 56, 56 and interleaved pairs.
///
/// ```
/// use ndarray::{Array2, array};
/// let (mut cos, mut sin) = (Array2::zeros((1, 3)), Array2::zeros((1, 3)));
/// let positions = array![[0.0, 0.5]];
/// dgm_core::nn::rope_axial_tables(positions.view(), &[2, 4], 10_000.0, cos.view_mut(), sin.view_mut())?;
/// assert_eq!((cos[[0, 0]], sin[[0, 1]]), (1.0, 0.479_425_55));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `dims` has not a number for each axis or a table does not fit; [`Error::Range`] when a
/// number of `dims` is odd or `theta` not finite and positive.
pub fn rope_axial_tables(
    positions: ArrayView2<f32>,
    dims: &[usize],
    theta: f32,
    cos: ArrayViewMut2<f32>,
    sin: ArrayViewMut2<f32>,
) -> Result<()> {
    check_theta(theta)?;
    let (rows, axes) = positions.dim();
    check_shape("dims", &[dims.len()], &[axes])?;
    if let Some(odd) = dims.iter().find(|&&d| d % 2 != 0) {
        return Err(Error::range("dims", odd, "even numbers"));
    }
    let half = dims.iter().try_fold(0usize, |sum, d| sum.checked_add(d / 2));
    let half = half.ok_or_else(|| Error::Overflow { arg: "dims", got: format!("{dims:?}") })?;
    check_shape("cos", cos.shape(), &[rows, half])?;
    check_shape("sin", sin.shape(), &[rows, half])?;
    let frequencies: Vec<f64> = dims.iter().flat_map(|d| frequencies(theta, d / 2)).map(f64::from).collect();
    fill_axial_tables(positions, dims, &frequencies, cos, sin);
    Ok(())
}

/// [`rope_axial_tables`] of frequencies, a table's column each.
pub(crate) fn fill_axial_tables(
    positions: ArrayView2<f32>,
    dims: &[usize],
    frequencies: &[f64],
    mut cos: ArrayViewMut2<f32>,
    mut sin: ArrayViewMut2<f32>,
) {
    let work = 200 * (positions.nrows() * frequencies.len()) as u64;
    let rows = cos.axis_iter_mut(Axis(0)).zip(sin.axis_iter_mut(Axis(0))).zip(positions.outer_iter());
    threads::for_each(rows, work, |((mut cos, mut sin), positions)| {
        let mut at = 0;
        for (&position, d) in positions.iter().zip(dims) {
            let end = at + d / 2;
            let tables = cos.slice_mut(s![at..end]).into_iter().zip(sin.slice_mut(s![at..end]));
            for (&f, (c, s)) in frequencies[at..end].iter().zip(tables) {
                let (sine, cosine) = libm::sincos(f64::from(position) * f);
                (*c, *s) = (cosine as f32, sine as f32);
            }
            at = end;
        }
    });
}

/// Turns queries or keys `x` `[B, H, L, D]`; token `i` of batch entry `b` stands at position
/// `first[b] + i`. `out` has the shape of `x`.
///
/// Computed in f32 (two products and a sum, each rounded) and rounded once to the type of `out`.
///
/// ```
/// use dgm_core::nn::{Rope, rope};
/// use ndarray::{Array4, array};
/// let x = Array4::<f32>::ones((1, 1, 1, 2));
/// let mut out = Array4::<f32>::zeros((1, 1, 1, 2));
/// let (cos, sin) = (array![[1.0], [0.0]], array![[0.0], [1.0]]);
/// let tables = Rope { cos: cos.view(), sin: sin.view(), interleaved: false };
/// rope(x.view(), &[1], &tables, out.view_mut())?;
/// assert_eq!((out[[0, 0, 0, 0]], out[[0, 0, 0, 1]]), (-1.0, 1.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] and [`Error::Stride`] name the argument that does not fit; tables that end before
/// the last position do not.
pub fn rope<'a>(
    x: impl Into<Floats<'a, Ix4>>,
    first: &[usize],
    tables: &Rope,
    out: impl Into<FloatsMut<'a, Ix4>>,
) -> Result<()> {
    turn_tokens(x.into(), first, tables, out.into())
}

fn turn_tokens(x: Floats<Ix4>, first: &[usize], tables: &Rope, mut out: FloatsMut<Ix4>) -> Result<()> {
    let [batch, heads, tokens, dim] = *x.shape() else { unreachable!("four axes") };
    check_shape("first", &[first.len()], &[batch])?;
    check_shape("out", out.shape(), x.shape())?;
    check_strides("x", x.shape(), x.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    let positions = first.iter().copied().max().unwrap_or(0).saturating_add(tokens);
    tables.check(dim, if tokens == 0 { 0 } else { positions })?;
    if x.shape().contains(&0) {
        return Ok(());
    }
    let past = goes_past(&out);
    let mut part = task_size(past).div_ceil(heads * dim);
    if past {
        let row = 2 * size_of::<f32>() * tables.cos.ncols().max(1);
        part = part.max((TABLES / row).min(tokens / (TASKS_A_THREAD * threads::num_threads())));
    }
    let work = 8 * x.shape()[1..].iter().product::<usize>() as u64;
    let room = if out.dtype() == Dtype::F32 { SHORT_ROOM } else { ROOM };
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => {
        for ((x, mut out), &first) in x.outer_iter().zip(out.outer_iter_mut()).zip(first) {
            let parts = x.axis_chunks_iter(Axis(1), part).zip(out.axis_chunks_iter_mut(Axis(1), part));
            threads::for_each(parts.enumerate(), work, |(i, (x, out))| {
                let first = first + i * part;
                threads::with_scratch(dim + room.max(dim), |room| {
                    dispatch(Tokens { tables, first, x, out, past, room });
                });
            });
        }
    }));
    Ok(())
}
