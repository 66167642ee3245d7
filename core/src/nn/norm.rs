//! Layer norm and RMS norm, with a learned affine map or a modulation.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis};

use super::modulate::check_modulation;
use super::rows::{Operands, Row, RowOp, for_rows};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};

/// Virtual lanes of a row sum: a multiple of every vector width.
const LANES: usize = 32;

/// Elements summed before the lanes are combined.
const BLOCK: usize = 4096;

/// Sum over a row of what `term` adds to an accumulator for each element, in an order that is
/// part of the definition: element `i` goes to virtual lane `i % 32`; a block of 4096 elements
/// combines its lanes by halving (lane `i` += lane `i + 16`, then 8, 4, 2, 1); block sums are
/// added in order. An element equal to `neutral` must add 0.
#[inline(always)]
fn row_sum<S: Simd>(s: S, x: &[f32], neutral: f32, term: impl Fn(S::F, S::F) -> S::F) -> f32 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        // LANES / S::LANES of them are used; four lanes is the narrowest vector.
        let mut sums = [s.splat(0.0); LANES / 4];
        let mut groups = block.chunks_exact(LANES);
        for group in &mut groups {
            for v in 0..LANES / S::LANES {
                sums[v] = term(sums[v], s.load(&group[v * S::LANES..]));
            }
        }
        for (sum, rest) in sums.iter_mut().zip(groups.remainder().chunks(S::LANES)) {
            *sum = term(*sum, s.load_partial(rest, neutral));
        }
        let mut lanes = [0.0f32; LANES];
        for v in 0..LANES / S::LANES {
            s.store(sums[v], &mut lanes[v * S::LANES..]);
        }
        for half in [16, 8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        total += lanes[0];
    }
    total
}

/// Which statistics a norm uses.
#[derive(Clone, Copy)]
enum Statistics {
    /// Mean and variance.
    Layer,
    /// Mean square.
    Rms,
}

/// `(x - mean) * (1 / sqrt(variance + eps))`, then scale and shift.
#[derive(Clone, Copy)]
struct Norm {
    statistics: Statistics,
    eps: f32,
    /// Whether the scale is `1 + scale`.
    one_plus: bool,
}

impl RowOp for Norm {
    const COST: u64 = 8;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let n = out.len() as f32;
        let x = row.x.unwrap_or_default();
        let mean = match self.statistics {
            Statistics::Layer => row_sum(s, x, 0.0, |sum, x| s.add(sum, x)) / n,
            Statistics::Rms => 0.0,
        };
        let center = s.splat(mean);
        let squares = row_sum(s, x, mean, |sum, x| {
            let deviation = s.sub(x, center);
            s.fma(deviation, deviation, sum)
        });
        let inverse = s.splat(1.0 / (squares / n + self.eps).sqrt());
        let one = s.splat(if self.one_plus { 1.0 } else { 0.0 });
        for (i, (x, out)) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)).enumerate() {
            let at = i * S::LANES;
            let load = |p: &[f32]| s.load_partial(&p[at..at + x.len()], 0.0);
            let y = s.mul(s.sub(s.load_partial(x, 0.0), center), inverse);
            let scale = row.scale.map(|w| s.add(one, load(w)));
            let y = match (scale, row.shift) {
                (Some(w), Some(b)) => s.fma(y, w, load(b)),
                (Some(w), None) => s.mul(y, w),
                (None, Some(b)) => s.add(y, load(b)),
                (None, None) => y,
            };
            s.store_partial(y, out);
        }
    }
}

fn check_eps(eps: f32) -> Result<()> {
    if eps.is_finite() && eps >= 0.0 {
        Ok(())
    } else {
        Err(Error::range("eps", eps, "a finite number, at least 0"))
    }
}

fn norm_rows(
    norm: Norm,
    x: ArrayView2<f32>,
    weight: Option<ArrayView1<f32>>,
    bias: Option<ArrayView1<f32>>,
    out: ArrayViewMut2<f32>,
) -> Result<()> {
    check_eps(norm.eps)?;
    let (_, d) = x.dim();
    check_shape("out", out.shape(), x.shape())?;
    if let Some(w) = weight {
        check_shape("weight", w.shape(), &[d])?;
    }
    if let Some(b) = bias {
        check_shape("bias", b.shape(), &[d])?;
    }
    let operands = Operands {
        x: Some(x.insert_axis(Axis(0))),
        y: None,
        scale: weight.map(|w| w.insert_axis(Axis(0))),
        shift: bias.map(|b| b.insert_axis(Axis(0))),
    };
    for_rows(norm, operands, out.insert_axis(Axis(0)));
    Ok(())
}

/// Layer norm of each row of `x` `[rows, d]`:
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, weight and bias `[d]` or absent.
///
/// The variance is that of the population, computed in a second pass; the order of the sums is
/// part of the definition (32 lanes, blocks of 4096). J. L. Ba, J. R. Kiros, G. E. Hinton,
/// arXiv:1607.06450.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let x = arr2(&[[1.0, 3.0], [5.0, 5.0]]);
/// let mut out = Array2::zeros((2, 2));
/// dgm_core::nn::layer_norm(x.view(), None, None, 1e-6, out.view_mut())?;
/// assert!((out[[0, 1]] - 1.0f32).abs() < 1e-6);
/// assert_eq!(out[[1, 0]], 0.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `out`, `weight` or `bias` does not fit `x`; [`Error::Range`] for a
/// negative or non-finite `eps`.
pub fn layer_norm(
    x: ArrayView2<f32>,
    weight: Option<ArrayView1<f32>>,
    bias: Option<ArrayView1<f32>>,
    eps: f32,
    out: ArrayViewMut2<f32>,
) -> Result<()> {
    norm_rows(Norm { statistics: Statistics::Layer, eps, one_plus: false }, x, weight, bias, out)
}

/// RMS norm of each row of `x` `[rows, d]`: `x / sqrt(mean(x^2) + eps) * weight`, weight `[d]`
/// or absent.
///
/// B. Zhang and R. Sennrich, arXiv:1910.07467; the order of the sum is that of [`layer_norm`].
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::zeros((1, 2));
/// dgm_core::nn::rms_norm(arr2(&[[3.0, -3.0]]).view(), None, 0.0, out.view_mut())?;
/// assert_eq!(out, arr2(&[[1.0, -1.0]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm(
    x: ArrayView2<f32>,
    weight: Option<ArrayView1<f32>>,
    eps: f32,
    out: ArrayViewMut2<f32>,
) -> Result<()> {
    norm_rows(Norm { statistics: Statistics::Rms, eps, one_plus: false }, x, weight, None, out)
}

/// [`layer_norm`] without an affine map, then [`modulate`](super::modulate()): the same bits in one pass.
///
/// `x` and `out` are `[B, T, d]`, `shift` and `scale` `[B, d]`. W. Peebles and S. Xie,
/// arXiv:2212.09748 (adaLN).
///
/// ```
/// use ndarray::{Array2, Array3, array};
/// let x = array![[[1.0, 3.0]]];
/// let (shift, scale) = (array![[0.5, 0.5]], array![[1.0, 1.0]]);
/// let mut out = Array3::zeros((1, 1, 2));
/// dgm_core::nn::layer_norm_modulate(x.view(), shift.view(), scale.view(), 0.0, out.view_mut())?;
/// assert_eq!(out, array![[[-1.5, 2.5]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `out`, `shift` or `scale` does not fit `x`; [`Error::Range`] for a
/// negative or non-finite `eps`.
pub fn layer_norm_modulate(
    x: ArrayView3<f32>,
    shift: ArrayView2<f32>,
    scale: ArrayView2<f32>,
    eps: f32,
    out: ArrayViewMut3<f32>,
) -> Result<()> {
    check_eps(eps)?;
    check_modulation(&x, &[("shift", shift), ("scale", scale)], &out)?;
    let operands = Operands { x: Some(x), y: None, scale: Some(scale), shift: Some(shift) };
    for_rows(Norm { statistics: Statistics::Layer, eps, one_plus: true }, operands, out);
    Ok(())
}
