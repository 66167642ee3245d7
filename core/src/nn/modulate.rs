//! Modulation and gated residuals of adaptive layer norm (W. Peebles and S. Xie, arXiv:2212.09748).

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut3};

use super::rows::{Operands, Row, RowOp, for_rows};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};

/// Checks `[B, d]` parameters and a `[B, T, d]` output against `x` `[B, T, d]`.
pub(super) fn check_modulation(
    x: &ArrayView3<f32>,
    parameters: &[(&'static str, ArrayView2<f32>)],
    out: &ArrayViewMut3<f32>,
) -> Result<()> {
    let (batch, _, d) = x.dim();
    for (name, p) in parameters {
        check_shape(name, p.shape(), &[batch, d])?;
    }
    check_shape("out", out.shape(), x.shape())
}

#[derive(Clone, Copy)]
struct Modulate;

impl RowOp for Modulate {
    const COST: u64 = 4;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let (scale, shift) = (row.scale.unwrap_or_default(), row.shift.unwrap_or_default());
        let parameters = scale.chunks(S::LANES).zip(shift.chunks(S::LANES));
        let rows = row.x.chunks(S::LANES).zip(out.chunks_mut(S::LANES));
        for ((x, out), (scale, shift)) in rows.zip(parameters) {
            let scale = s.add(s.splat(1.0), s.load_partial(scale, 0.0));
            let y = s.fma(s.load_partial(x, 0.0), scale, s.load_partial(shift, 0.0));
            s.store_partial(y, out);
        }
    }
}

/// `out = x * (1 + scale) + shift`, one fused multiply-add; `x` and `out` `[B, T, d]`, `shift`
/// and `scale` `[B, d]`.
///
/// ```
/// use ndarray::{Array3, array};
/// let mut out = Array3::zeros((1, 2, 1));
/// let x = array![[[1.0], [2.0]]];
/// dgm_core::nn::modulate(x.view(), array![[0.5]].view(), array![[1.0]].view(), out.view_mut())?;
/// assert_eq!(out, array![[[2.5], [4.5]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `shift`, `scale` or `out` does not fit `x`.
pub fn modulate(
    x: ArrayView3<f32>,
    shift: ArrayView2<f32>,
    scale: ArrayView2<f32>,
    out: ArrayViewMut3<f32>,
) -> Result<()> {
    check_modulation(&x, &[("shift", shift), ("scale", scale)], &out)?;
    for_rows(Modulate, Operands { x, y: None, scale: Some(scale), shift: Some(shift) }, out);
    Ok(())
}

/// `gate * y + x`, where `x` is the residual.
#[derive(Clone, Copy)]
struct GateResidual;

impl RowOp for GateResidual {
    const COST: u64 = 4;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let terms = row.scale.unwrap_or_default().chunks(S::LANES).zip(row.y.chunks(S::LANES));
        let rows = row.x.chunks(S::LANES).zip(out.chunks_mut(S::LANES));
        for ((x, out), (gate, y)) in rows.zip(terms) {
            let y = s.fma(s.load_partial(gate, 0.0), s.load_partial(y, 0.0), s.load_partial(x, 0.0));
            s.store_partial(y, out);
        }
    }
}

/// `out = gate * x + out`.
#[derive(Clone, Copy)]
struct GateOnto;

impl RowOp for GateOnto {
    const COST: u64 = 4;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let terms = row.scale.unwrap_or_default().chunks(S::LANES).zip(row.x.chunks(S::LANES));
        for (out, (gate, y)) in out.chunks_mut(S::LANES).zip(terms) {
            let sum = s.fma(s.load_partial(gate, 0.0), s.load_partial(y, 0.0), s.load_partial(out, 0.0));
            s.store_partial(sum, out);
        }
    }
}

/// `out = residual + gate * y`, one fused multiply-add; `residual`, `y` and `out` `[B, T, d]`,
/// `gate` `[B, d]`.
///
/// ```
/// use ndarray::{Array3, array};
/// let mut out = Array3::zeros((1, 1, 2));
/// let (residual, y) = (array![[[1.0, 1.0]]], array![[[2.0, 4.0]]]);
/// dgm_core::nn::gate_residual(residual.view(), y.view(), array![[0.5, 0.0]].view(), out.view_mut())?;
/// assert_eq!(out, array![[[2.0, 1.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `y`, `gate` or `out` does not fit `residual`.
pub fn gate_residual(
    residual: ArrayView3<f32>,
    y: ArrayView3<f32>,
    gate: ArrayView2<f32>,
    out: ArrayViewMut3<f32>,
) -> Result<()> {
    check_shape("y", y.shape(), residual.shape())?;
    check_modulation(&residual, &[("gate", gate)], &out)?;
    for_rows(GateResidual, Operands { x: residual, y: Some(y), scale: Some(gate), shift: None }, out);
    Ok(())
}

/// [`gate_residual`] onto the residual itself, with the same bits.
///
/// ```
/// use ndarray::array;
/// let mut residual = array![[[1.0, 1.0]]];
/// dgm_core::nn::gate_residual_inplace(residual.view_mut(), array![[[2.0, 4.0]]].view(), array![[0.5, 0.0]].view())?;
/// assert_eq!(residual, array![[[2.0, 1.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `residual` or `gate` does not fit `y`.
pub fn gate_residual_inplace(
    residual: ArrayViewMut3<f32>,
    y: ArrayView3<f32>,
    gate: ArrayView2<f32>,
) -> Result<()> {
    if residual.shape() != y.shape() {
        return Err(Error::shape("residual", residual.shape(), format!("{:?}, as y", y.shape())));
    }
    check_modulation(&y, &[("gate", gate)], &residual)?;
    for_rows(GateOnto, Operands { x: y, y: None, scale: Some(gate), shift: None }, residual);
    Ok(())
}
