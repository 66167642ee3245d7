//! Rotary position embedding (J. Su et al., arXiv:2104.09864).

use ndarray::{ArrayView2, ArrayViewMut2, Axis, Ix4, s};

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::linalg::rows::{narrow, widen};
use crate::tensor::{Element, Floats, FloatsMut, each};
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

    /// Turns a row that stands at `position`.
    pub(crate) fn turn(&self, row: &mut [f32], position: usize) {
        dispatch(Turn { tables: self, row, position });
    }

    /// Pairs that lie in whole vectors; returns how many pairs that was.
    #[inline(always)]
    fn turn_vectors<S: Simd>(&self, s: S, row: &mut [f32], position: usize) -> usize {
        let (cos, sin) = (self.cos.row(position), self.sin.row(position));
        let (Some(cos), Some(sin)) = (cos.as_slice(), sin.as_slice()) else { return 0 };
        let half = cos.len();
        let mut i = 0;
        if self.interleaved {
            while i + S::LANES <= half {
                let both = turned(s, s.load_twos(&row[2 * i..]), &cos[i..], &sin[i..]);
                s.store_twos(both, &mut row[2 * i..]);
                i += S::LANES;
            }
        } else {
            let (low, high) = row.split_at_mut(half);
            while i + S::LANES <= half {
                let [a, b] = turned(s, [s.load(&low[i..]), s.load(&high[i..])], &cos[i..], &sin[i..]);
                s.store(a, &mut low[i..]);
                s.store(b, &mut high[i..]);
                i += S::LANES;
            }
        }
        i
    }

    #[inline(always)]
    fn turn_row<S: Simd>(&self, s: S, row: &mut [f32], position: usize) {
        let done = self.turn_vectors(s, row, position);
        let half = self.cos.ncols();
        let (step, apart) = if self.interleaved { (2, 1) } else { (1, half) };
        for i in done..half {
            let (cos, sin) = (self.cos[[position, i]], self.sin[[position, i]]);
            let (a, b) = (row[step * i], row[step * i + apart]);
            row[step * i] = a * cos - b * sin;
            row[step * i + apart] = b * cos + a * sin;
        }
    }
}

/// Pairs turned: every product and every sum rounded.
#[inline(always)]
fn turned<S: Simd>(s: S, [a, b]: [S::F; 2], cos: &[f32], sin: &[f32]) -> [S::F; 2] {
    let (cos, sin) = (s.load(cos), s.load(sin));
    [s.sub(s.mul(a, cos), s.mul(b, sin)), s.add(s.mul(b, cos), s.mul(a, sin))]
}

/// One row.
struct Turn<'a, 'b> {
    tables: &'b Rope<'a>,
    row: &'b mut [f32],
    position: usize,
}

impl Kernel for Turn<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        self.tables.turn_row(s, self.row, self.position);
    }
}

/// The tokens of a head, from position `first` on.
struct Head<'a, 'b, 'x, 'y, X, Y> {
    tables: &'b Rope<'a>,
    first: usize,
    x: ArrayView2<'x, X>,
    out: ArrayViewMut2<'y, Y>,
    row: &'b mut [f32],
}

impl<X: Element, Y: Element> Kernel for Head<'_, '_, '_, '_, X, Y> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Head { tables, first, x, mut out, row } = self;
        for (i, (from, mut to)) in x.outer_iter().zip(out.outer_iter_mut()).enumerate() {
            match from.as_slice() {
                Some(from) => widen(s, X::row(from), row),
                None => row.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_f32()),
            }
            tables.turn_row(s, row, first + i);
            match to.as_slice_mut() {
                Some(to) => narrow(s, row, Y::row_mut(to)),
                None => to.iter_mut().zip(&*row).for_each(|(to, x)| *to = Y::from_f32(*x)),
            }
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
    let (x, mut out) = (x.into(), out.into());
    let [batch, _, tokens, dim] = *x.shape() else { unreachable!("four axes") };
    check_shape("first", &[first.len()], &[batch])?;
    check_shape("out", out.shape(), x.shape())?;
    check_strides("x", x.shape(), x.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    let positions = first.iter().copied().max().unwrap_or(0).saturating_add(tokens);
    tables.check(dim, if tokens == 0 { 0 } else { positions })?;
    let work = 8 * x.shape()[1..].iter().product::<usize>() as u64;
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => {
        for ((x, mut out), &first) in x.outer_iter().zip(out.outer_iter_mut()).zip(first) {
            threads::for_each(x.outer_iter().zip(out.outer_iter_mut()), work, |(x, out)| {
                threads::with_scratch(dim, |row| dispatch(Head { tables, first, x, out, row }));
            });
        }
    }));
    Ok(())
}
