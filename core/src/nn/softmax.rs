//! Softmax and its logarithm.

use ndarray::Dimension;

use super::rows::{Operands, Row, RowOp, fill, for_rows, load};
use super::sum::{Plain, Term, row_sum};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};
use crate::math::{exp, log};
use crate::tensor::{Floats, FloatsMut};

#[derive(Clone, Copy)]
struct Softmax {
    /// Whether the logarithm is wanted.
    log: bool,
}

impl RowOp for Softmax {
    const COST: u64 = 50;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let x = row.x.unwrap_or(out);
        let largest = largest(s, x);
        // A row of -infinity alone has nothing to subtract.
        let base = if largest == f32::NEG_INFINITY { 0.0 } else { largest };
        if self.log {
            let sum = row_sum(s, x, Exps(base));
            let base = s.splat(base);
            let log = if sum == 0.0 { s.splat(0.0) } else { log(s, s.splat(sum)) };
            fill!(s, out, |at| s.sub(s.sub(load(s, row.x, out, at), base), log));
        } else {
            let base = s.splat(base);
            fill!(s, out, |at| exp(s, s.sub(load(s, row.x, out, at), base)));
            let sum = row_sum(s, out, Plain);
            let inverse = s.splat(if sum == 0.0 { 0.0 } else { 1.0 / sum });
            fill!(s, out, |at| s.mul(load(s, None, out, at), inverse));
        }
    }
}

/// The exponential of the distance from a number.
#[derive(Clone, Copy)]
struct Exps(f32);

impl Term for Exps {
    #[inline(always)]
    fn neutral(self) -> f32 {
        f32::NEG_INFINITY
    }
    #[inline(always)]
    fn add<S: Simd>(self, s: S, sum: S::F, x: S::F) -> S::F {
        s.add(sum, exp(s, s.sub(x, s.splat(self.0))))
    }
}

/// The largest element that is not NaN.
#[inline(always)]
fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut most = s.splat(f32::NEG_INFINITY);
    for part in x.chunks(S::LANES) {
        // The second operand wins over NaN.
        most = s.max(s.load_partial(part, f32::NEG_INFINITY), most);
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    s.store(most, &mut lanes);
    lanes.into_iter().fold(f32::NEG_INFINITY, |most, x| if x > most { x } else { most })
}

fn apply<D: Dimension>(log: bool, x: Floats<D>, out: FloatsMut<D>) -> Result<()> {
    if x.shape().is_empty() {
        return Err(Error::shape("x", x.shape(), "at least one axis"));
    }
    check_shape("out", out.shape(), x.shape())?;
    for_rows(Softmax { log }, Operands::new(Some(x)), out.into_dyn())
}

/// `e^x / sum e^x` over the last axis of `x`; `x` and `out` are f32, f16 or bf16 each.
///
/// The largest element is subtracted first, so no finite row overflows. A row of -infinity alone gives 0,
/// as attention does; a NaN or +infinity makes its row NaN.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::softmax(arr2(&[[1000.0, 1000.0]]).view(), out.view_mut())?;
/// assert_eq!(out, arr2(&[[0.5, 0.5]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has no axis or `out` not its shape.
pub fn softmax<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apply(false, x.into(), out.into())
}

/// `x - log sum e^x` over the last axis of `x`; `x` and `out` are f32, f16 or bf16 each.
///
/// A row of -infinity alone stays so; a NaN or +infinity makes its row NaN.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::log_softmax(arr2(&[[-7.0, -7.0]]).view(), out.view_mut())?;
/// assert_eq!(out, arr2(&[[-std::f32::consts::LN_2; 2]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has no axis or `out` not its shape.
pub fn log_softmax<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apply(true, x.into(), out.into())
}
