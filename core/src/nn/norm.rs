//! Layer norm and RMS norm, with a learned affine map or a modulation.

use ndarray::{Dimension, Ix1, Ix2, Ix3, IxDyn};

use super::lanes::{Lanes, Operand, Same, Target, fill, one, part};
use super::modulate::{by_batch, check_modulation};
use super::row_loop::Run;
use super::rows::{Input, RowOp, Several, for_rows, lend};
use super::sum::{Plain, Squares, Term, row_sum};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};
use crate::tensor::{Floats, FloatsMut, Row, RowMut};

/// `(x - mean) * (1 / sqrt(variance + eps))`, then scale and shift.
#[derive(Clone, Copy)]
struct LayerNorm {
    eps: f32,
    /// Whether the scale is `1 + scale`.
    one_plus: bool,
}

impl LayerNorm {
    fn of_rows(self, inputs: [Input; 3], out: FloatsMut<IxDyn>) -> Result<()> {
        for_rows(self, inputs, None, out)
    }
}

/// What a layer norm takes from a row.
#[derive(Clone, Copy, Default)]
struct Moments {
    mean: f32,
    /// `1 / sqrt(variance + eps)`
    inverse: f32,
}

/// `x`, scale, shift.
impl RowOp<3> for LayerNorm {
    const COST: u64 = 8;
    fn task(task: Run<Self, 3>) {
        task.in_a_loop::<3>();
    }
    type Seen = Moments;
    #[inline(always)]
    fn look<S: Simd>(self, s: S, rows: &impl Several, seen: &mut [Moments]) {
        for (r, seen) in seen.iter_mut().enumerate() {
            let row = rows.row(r);
            seen.mean = row_sum(s, row, Plain) / row.len() as f32;
        }
        for (r, seen) in seen.iter_mut().enumerate() {
            let row = rows.row(r);
            seen.inverse = inverse_deviation(row_sum(s, row, Squares(seen.mean)), row.len(), self.eps);
        }
    }
    #[inline(always)]
    fn run<S: Simd>(
        self,
        s: S,
        Moments { mean, inverse }: Moments,
        [x, scale, shift]: [Operand; 3],
        _: Option<Target>,
        mut out: Target,
        _: &mut [f32],
    ) {
        let (one, scale) = if self.one_plus { (1.0, scale.or(0.0)) } else { (-0.0, scale.or(1.0)) };
        // What is missing changes no bit: 1 as a factor, -0 as a summand.
        fill(s, Affine { mean, inverse, one }, [x, scale, shift.or(-0.0)], &mut out);
    }
}

/// `x * (1 / sqrt(mean square + eps))`, then scale.
#[derive(Clone, Copy)]
struct RmsNorm {
    eps: f32,
}

impl RmsNorm {
    fn of_rows(self, inputs: [Input; 3], out: FloatsMut<IxDyn>) -> Result<()> {
        for_rows(self, inputs, None, out)
    }
}

/// `x`, scale; the third operand is missing.
impl RowOp<3> for RmsNorm {
    const COST: u64 = 8;
    fn task(task: Run<Self, 3>) {
        task.in_a_loop::<2>();
    }
    /// `1 / sqrt(mean square + eps)`
    type Seen = f32;
    #[inline(always)]
    fn look<S: Simd>(self, s: S, rows: &impl Several, seen: &mut [f32]) {
        for (r, inverse) in seen.iter_mut().enumerate() {
            let row = rows.row(r);
            *inverse = inverse_deviation(row_sum(s, row, Squares(0.0)), row.len(), self.eps);
        }
    }
    #[inline(always)]
    fn run<S: Simd>(
        self,
        s: S,
        inverse: f32,
        [x, scale, _]: [Operand; 3],
        _: Option<Target>,
        mut out: Target,
        _: &mut [f32],
    ) {
        fill(s, Scaled { inverse }, [x, scale.or(1.0), Operand::Same(-0.0)], &mut out);
    }
}

/// [`RmsNorm`] of a sum, which is kept.
#[derive(Clone, Copy)]
struct RmsNormOfSum(RmsNorm);

impl RmsNormOfSum {
    fn of_rows(self, inputs: [Input; 3], sum: FloatsMut<IxDyn>, out: FloatsMut<IxDyn>) -> Result<()> {
        for_rows(self, inputs, Some(sum), out)
    }
}

/// `x`, scale, and what is added to `x`: what the sum holds, where it is missing.
impl RowOp<3> for RmsNormOfSum {
    const COST: u64 = 9;
    fn needs_room(self) -> bool {
        true
    }
    /// The sum is yet to be.
    type Seen = ();
    #[inline(always)]
    fn look<S: Simd>(self, _: S, _: &impl Several, _: &mut [()]) {}
    #[inline(always)]
    fn run<S: Simd>(
        self,
        s: S,
        (): (),
        [x, scale, residual]: [Operand; 3],
        sum: Option<Target>,
        mut out: Target,
        room: &mut [f32],
    ) {
        let (Operand::Row(row), Some(mut sum)) = (x, sum) else { unreachable!("norms are not in place") };
        // What is read again stays near.
        let mut near = Target { row: sum.row.lend(room), past: false };
        // Only whole lines go past the caches.
        let lines = sum.past && sum.row.before_a_line() == 0;
        let squares = match (&mut near.row, &mut sum.row) {
            // One loop, where f32 memory is waited for: elsewhere those that are compiled for their types are quicker.
            (RowMut::F32(near), RowMut::F32(sum)) if lines => {
                let residual = if let Operand::Row(residual) = residual { Some(residual) } else { None };
                row_sum(s, row, Added { residual, near, sum })
            }
            _ => {
                if let (Operand::Held, true) = (residual, sum.past) {
                    near.row.copy_from(sum.row.read());
                }
                let to = if sum.past { &mut near } else { &mut sum };
                fill(s, Add, [x, residual], to);
                let squares = row_sum(s, to.row.read(), Squares(0.0));
                if sum.past {
                    fill(s, Same, [Operand::Row(near.row.read())], &mut sum);
                }
                squares
            }
        };
        let x = if sum.past { near.row.read() } else { sum.row.read() };
        let inverse = inverse_deviation(squares, x.len(), self.0.eps);
        fill(s, Scaled { inverse }, [Operand::Row(x), scale.or(1.0), Operand::Same(-0.0)], &mut out);
    }
}

/// `1 / sqrt(variance + eps)`, of the sum of `n` squares.
#[inline(always)]
pub(super) fn inverse_deviation(squares: f32, n: usize, eps: f32) -> f32 {
    1.0 / (squares / n as f32 + eps).sqrt()
}

/// The square of the sum with a residual, or with what `sum` holds. The sum goes past the caches on the way; a copy stays
/// near.
struct Added<'a, 'r> {
    residual: Option<Row<'r>>,
    near: &'a mut [f32],
    sum: &'a mut [f32],
}

impl Term for Added<'_, '_> {
    const ANYWHERE: bool = false;
    #[inline(always)]
    fn neutral(&self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<S: Simd, const K: usize>(
        &mut self,
        s: S,
        sums: [S::F; K],
        mut x: [S::F; K],
        at: usize,
    ) -> [S::F; K] {
        let Added { residual, near, sum } = self;
        for k in 0..K {
            let at = at + k * S::LANES;
            let residual = residual.unwrap_or(Row::F32(sum));
            if sum.len() - at >= S::LANES {
                x[k] = s.add(x[k], one(s, residual, at));
                s.store(x[k], &mut near[at..]);
                s.stream(x[k], &mut sum[at..]);
            } else {
                x[k] = s.add(x[k], part(s, residual, at, sum.len() - at, 0.0));
                s.store_partial(x[k], &mut near[at..]);
                s.store_partial(x[k], &mut sum[at..]);
            }
        }
        Squares(0.0).add(s, sums, x, at)
    }
}

/// `x + y`
#[derive(Clone, Copy)]
struct Add;

impl Lanes<2> for Add {
    const COST: u64 = 1;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x, y]: [[S::F; K]; 2]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.add(x[k], y[k]);
        }
        x
    }
}

/// `(x - mean) * inverse * (one + scale) + shift`
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub mean: f32,
    pub inverse: f32,
    pub one: f32,
}

impl Lanes<3> for Affine {
    const COST: u64 = 4;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x, scale, shift]: [[S::F; K]; 3]) -> [S::F; K] {
        for k in 0..K {
            let y = s.mul(s.sub(x[k], s.splat(self.mean)), s.splat(self.inverse));
            x[k] = s.fma(y, s.add(s.splat(self.one), scale[k]), shift[k]);
        }
        x
    }
}

/// `x * inverse * scale`. The third operand is not looked at: it is there because loops are compiled for three.
#[derive(Clone, Copy)]
struct Scaled {
    inverse: f32,
}

impl Lanes<3> for Scaled {
    const COST: u64 = 2;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x, scale, _]: [[S::F; K]; 3]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.mul(s.mul(x[k], s.splat(self.inverse)), scale[k]);
        }
        x
    }
}

pub(super) fn check_eps(eps: f32) -> Result<()> {
    if eps.is_finite() && eps >= 0.0 {
        Ok(())
    } else {
        Err(Error::range("eps", eps, "a finite number, at least 0"))
    }
}

/// The checks that all norms over the last axis share; a parameter may be absent.
fn check_norm(
    x: &[usize],
    parameters: &[(&'static str, Option<&[usize]>)],
    eps: f32,
    outputs: &[(&'static str, &[usize])],
) -> Result<()> {
    check_eps(eps)?;
    let Some(&d) = x.last() else {
        return Err(Error::shape("x", x, "at least one axis"));
    };
    for (name, shape) in outputs {
        check_shape(name, shape, x)?;
    }
    for (name, shape) in parameters {
        if let Some(shape) = shape {
            check_shape(name, shape, &[d])?;
        }
    }
    Ok(())
}

/// The shape of a parameter that may be absent.
pub(super) fn shape_of<'s>(parameter: &'s Option<Floats<Ix1>>) -> Option<&'s [usize]> {
    parameter.as_ref().map(Floats::shape)
}

/// Layer norm over the last axis of `x` `[..., d]`:
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, weight and bias `[d]` or absent. `out` has the
/// shape of `x`; each array is f32, f16 or bf16.
///
/// The variance is that of the population, computed in a second pass; the order of the sums is
/// part of the definition (32 lanes, blocks of 4096). J. L. Ba, J. R. Kiros, G. E. Hinton,
/// arXiv:1607.06450.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let x = arr2(&[[1.0, 3.0], [5.0, 5.0]]);
/// let mut out = Array2::<f32>::zeros((2, 2));
/// dgm_core::nn::layer_norm(x.view(), None, None, 1e-6, out.view_mut())?;
/// assert!((out[[0, 1]] - 1.0f32).abs() < 1e-6);
/// assert_eq!(out[[1, 0]], 0.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `out`, `weight` or `bias` does not fit `x`; [`Error::Range`] for a
/// negative or non-finite `eps`.
pub fn layer_norm<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    weight: Option<Floats<Ix1>>,
    bias: Option<Floats<Ix1>>,
    eps: f32,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    check_norm(
        x.shape(),
        &[("weight", shape_of(&weight)), ("bias", shape_of(&bias))],
        eps,
        &[("out", out.shape())],
    )?;
    let inputs = [lend(x), weight.and_then(lend), bias.and_then(lend)];
    LayerNorm { eps, one_plus: false }.of_rows(inputs, out.into_dyn())
}

/// RMS norm over the last axis of `x` `[..., d]`: `x / sqrt(mean(x^2) + eps) * weight`, weight `[d]`
/// or absent. `out` has the shape of `x`; each array is f32, f16 or bf16.
///
/// With queries or keys `[B, H, L, D]`, in whatever order their heads lie, this is QK-norm (A. Henry et al.,
/// arXiv:2010.04245; M. Dehghani et al., arXiv:2302.05442).
/// B. Zhang and R. Sennrich, arXiv:1910.07467; the order of the sum is that of [`layer_norm`].
///
/// ```
/// use ndarray::{Array2, arr2};
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::rms_norm(arr2(&[[3.0, -3.0]]).view(), None, 0.0, out.view_mut())?;
/// assert_eq!(out, arr2(&[[1.0, -1.0]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    weight: Option<Floats<Ix1>>,
    eps: f32,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    check_norm(x.shape(), &[("weight", shape_of(&weight))], eps, &[("out", out.shape())])?;
    let inputs = [lend(x), weight.and_then(lend), None];
    RmsNorm { eps }.of_rows(inputs, out.into_dyn())
}

/// The end of a residual branch and the norm before the next one, in one pass: `sum = x + residual`, then
/// `out = rms_norm(sum)`; everything `[..., d]`, weight `[d]` or absent.
///
/// The norm sees the sum as it is stored, rounded to the type of `sum`: the bits are those of an addition
/// followed by [`rms_norm`]. Each array is f32, f16 or bf16.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let (mut sum, mut out) = (Array2::<f32>::zeros((1, 2)), Array2::<f32>::zeros((1, 2)));
/// let (x, residual) = (arr2(&[[1.0, -1.0]]), arr2(&[[2.0, -2.0]]));
/// dgm_core::nn::rms_norm_residual(x.view(), residual.view(), None, 0.0, sum.view_mut(), out.view_mut())?;
/// assert_eq!((sum, out), (arr2(&[[3.0, -3.0]]), arr2(&[[1.0, -1.0]])));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm_residual<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    residual: impl Into<Floats<'a, D>>,
    weight: Option<Floats<Ix1>>,
    eps: f32,
    sum: impl Into<FloatsMut<'o, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (x, residual, sum, out) = (x.into(), residual.into(), sum.into(), out.into());
    check_shape("residual", residual.shape(), x.shape())?;
    let outputs = [("sum", sum.shape()), ("out", out.shape())];
    check_norm(x.shape(), &[("weight", shape_of(&weight))], eps, &outputs)?;
    let inputs = [lend(x), weight.and_then(lend), lend(residual)];
    RmsNormOfSum(RmsNorm { eps }).of_rows(inputs, sum.into_dyn(), out.into_dyn())
}

/// [`rms_norm_residual`] whose sum replaces the residual, with the same bits.
///
/// ```
/// use ndarray::{Array2, arr2};
/// let (mut residual, mut out) = (arr2(&[[2.0, -2.0]]), Array2::<f32>::zeros((1, 2)));
/// let x = arr2(&[[1.0, -1.0]]);
/// dgm_core::nn::rms_norm_residual_inplace(x.view(), residual.view_mut(), None, 0.0, out.view_mut())?;
/// assert_eq!((residual, out), (arr2(&[[3.0, -3.0]]), arr2(&[[1.0, -1.0]])));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`layer_norm`].
pub fn rms_norm_residual_inplace<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    residual: impl Into<FloatsMut<'o, D>>,
    weight: Option<Floats<Ix1>>,
    eps: f32,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (x, sum, out) = (x.into(), residual.into(), out.into());
    let outputs = [("residual", sum.shape()), ("out", out.shape())];
    check_norm(x.shape(), &[("weight", shape_of(&weight))], eps, &outputs)?;
    let inputs = [lend(x), weight.and_then(lend), None];
    RmsNormOfSum(RmsNorm { eps }).of_rows(inputs, sum.into_dyn(), out.into_dyn())
}

/// [`layer_norm`] without an affine map, then [`modulate`](super::modulate()): the same bits in one pass.
///
/// `x` and `out` are `[B, T, d]`, `shift` and `scale` `[B, d]`, each f32, f16 or bf16. W. Peebles and S. Xie,
/// arXiv:2212.09748 (adaLN).
///
/// ```
/// use ndarray::{Array2, Array3, array};
/// let x = array![[[1.0, 3.0]]];
/// let (shift, scale) = (array![[0.5, 0.5]], array![[1.0, 1.0]]);
/// let mut out = Array3::<f32>::zeros((1, 1, 2));
/// dgm_core::nn::layer_norm_modulate(x.view(), shift.view(), scale.view(), 0.0, out.view_mut())?;
/// assert_eq!(out, array![[[-1.5, 2.5]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `out`, `shift` or `scale` does not fit `x`; [`Error::Range`] for a
/// negative or non-finite `eps`.
pub fn layer_norm_modulate<'a, 'o>(
    x: impl Into<Floats<'a, Ix3>>,
    shift: impl Into<Floats<'a, Ix2>>,
    scale: impl Into<Floats<'a, Ix2>>,
    eps: f32,
    out: impl Into<FloatsMut<'o, Ix3>>,
) -> Result<()> {
    check_eps(eps)?;
    let (x, shift, scale, out) = (x.into(), shift.into(), scale.into(), out.into());
    check_modulation(x.shape(), &[("shift", shift.shape()), ("scale", scale.shape())], out.shape())?;
    let inputs = [lend(x), by_batch(scale), by_batch(shift)];
    LayerNorm { eps, one_plus: true }.of_rows(inputs, out.into_dyn())
}
