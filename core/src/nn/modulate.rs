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

/// A vector of an operand, or of the output where that is the operand.
#[inline(always)]
fn load<S: Simd>(s: S, operand: Option<&[f32]>, out: &[f32], at: usize) -> S::F {
    let row = operand.unwrap_or(out);
    s.load_partial(&row[at..row.len().min(at + S::LANES)], 0.0)
}

/// `x * (1 + scale) + shift`
#[derive(Clone, Copy)]
struct Modulate;

impl RowOp for Modulate {
    const COST: u64 = 4;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let mut at = 0;
        while at < out.len() {
            let scale = s.add(s.splat(1.0), load(s, row.scale, out, at));
            let y = s.fma(load(s, row.x, out, at), scale, load(s, row.shift, out, at));
            let end = out.len().min(at + S::LANES);
            s.store_partial(y, &mut out[at..end]);
            at = end;
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
    for_rows(Modulate, Operands { x: Some(x), y: None, scale: Some(scale), shift: Some(shift) }, out);
    Ok(())
}

/// [`modulate`] in place, with the same bits.
///
/// ```
/// use ndarray::array;
/// let mut x = array![[[1.0], [2.0]]];
/// dgm_core::nn::modulate_inplace(x.view_mut(), array![[0.5]].view(), array![[1.0]].view())?;
/// assert_eq!(x, array![[[2.5], [4.5]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `shift` or `scale` does not fit `x`.
pub fn modulate_inplace(x: ArrayViewMut3<f32>, shift: ArrayView2<f32>, scale: ArrayView2<f32>) -> Result<()> {
    check_modulation(&x.view(), &[("shift", shift), ("scale", scale)], &x)?;
    for_rows(Modulate, Operands { x: None, y: None, scale: Some(scale), shift: Some(shift) }, x);
    Ok(())
}

/// `gate * y + x`, where `x` is the residual.
#[derive(Clone, Copy)]
struct GateResidual;

impl RowOp for GateResidual {
    const COST: u64 = 4;
    #[inline(always)]
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]) {
        let mut at = 0;
        while at < out.len() {
            let term = (load(s, row.scale, out, at), load(s, row.y, out, at));
            let sum = s.fma(term.0, term.1, load(s, row.x, out, at));
            let end = out.len().min(at + S::LANES);
            s.store_partial(sum, &mut out[at..end]);
            at = end;
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
    for_rows(GateResidual, Operands { x: Some(residual), y: Some(y), scale: Some(gate), shift: None }, out);
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
    for_rows(GateResidual, Operands { x: None, y: Some(y), scale: Some(gate), shift: None }, residual);
    Ok(())
}

/// [`gate_residual`] that leaves its result in `y`, with the same bits. Without a residual, `y` is that
/// as well.
///
/// ```
/// use ndarray::array;
/// let mut y = array![[[2.0, 4.0]]];
/// let residual = array![[[1.0, 1.0]]];
/// dgm_core::nn::gate_residual_onto_y(Some(residual.view()), y.view_mut(), array![[0.5, 0.0]].view())?;
/// assert_eq!(y, array![[[2.0, 1.0]]]);
/// dgm_core::nn::gate_residual_onto_y(None, y.view_mut(), array![[0.5, 0.0]].view())?;
/// assert_eq!(y, array![[[3.0, 1.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `y` or `gate` does not fit `residual`, or `gate` not `y`.
pub fn gate_residual_onto_y(
    residual: Option<ArrayView3<f32>>,
    y: ArrayViewMut3<f32>,
    gate: ArrayView2<f32>,
) -> Result<()> {
    if let Some(residual) = &residual {
        check_shape("y", y.shape(), residual.shape())?;
    }
    check_modulation(&y.view(), &[("gate", gate)], &y)?;
    for_rows(GateResidual, Operands { x: residual, y: None, scale: Some(gate), shift: None }, y);
    Ok(())
}
