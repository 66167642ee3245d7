//! Modulation and gated residuals of adaptive layer norm (W. Peebles and S. Xie, arXiv:2212.09748).

use ndarray::{Ix2, Ix3};

use super::lanes::Lanes;
use super::rows::{Input, for_elements, lend};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};
use crate::tensor::{Floats, FloatsMut};

/// Checks `[B, d]` parameters and a `[B, T, d]` output against the shape `[B, T, d]` of `x`.
pub(super) fn check_modulation(
    x: &[usize],
    parameters: &[(&'static str, &[usize])],
    out: &[usize],
) -> Result<()> {
    for (name, p) in parameters {
        check_shape(name, p, &[x[0], x[2]])?;
    }
    check_shape("out", out, x)
}

/// `[B, d]` as `[B, 1, d]`, which every token of a batch entry repeats.
pub(super) fn by_batch<'a, 'b: 'a>(parameter: Floats<'b, Ix2>) -> Input<'a> {
    lend(parameter.insert_axis_at(1))
}

/// `x * (1 + scale) + shift`
#[derive(Clone, Copy)]
struct Modulate;

impl Lanes<3> for Modulate {
    const COST: u64 = 4;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x, scale, shift]: [[S::F; K]; 3]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.fma(x[k], s.add(s.splat(1.0), scale[k]), shift[k]);
        }
        x
    }
}

/// `out = x * (1 + scale) + shift`, one fused multiply-add; `x` and `out` `[B, T, d]`, `shift`
/// and `scale` `[B, d]`, each f32, f16 or bf16.
///
/// ```
/// use ndarray::{Array3, array};
/// let mut out = Array3::<f32>::zeros((1, 2, 1));
/// let x = array![[[1.0], [2.0]]];
/// dgm_core::nn::modulate(x.view(), array![[0.5]].view(), array![[1.0]].view(), out.view_mut())?;
/// assert_eq!(out, array![[[2.5], [4.5]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `shift`, `scale` or `out` does not fit `x`.
pub fn modulate<'a, 'o>(
    x: impl Into<Floats<'a, Ix3>>,
    shift: impl Into<Floats<'a, Ix2>>,
    scale: impl Into<Floats<'a, Ix2>>,
    out: impl Into<FloatsMut<'o, Ix3>>,
) -> Result<()> {
    let (x, out) = (x.into(), out.into());
    modulated(x.shape().to_vec(), Some(x), shift.into(), scale.into(), out)
}

fn modulated(
    shape: Vec<usize>,
    x: Option<Floats<Ix3>>,
    shift: Floats<Ix2>,
    scale: Floats<Ix2>,
    out: FloatsMut<Ix3>,
) -> Result<()> {
    check_modulation(&shape, &[("shift", shift.shape()), ("scale", scale.shape())], out.shape())?;
    for_elements(Modulate, [x.and_then(lend), by_batch(scale), by_batch(shift)], out.into_dyn())
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
pub fn modulate_inplace<'a, 'o>(
    x: impl Into<FloatsMut<'o, Ix3>>,
    shift: impl Into<Floats<'a, Ix2>>,
    scale: impl Into<Floats<'a, Ix2>>,
) -> Result<()> {
    let x = x.into();
    modulated(x.shape().to_vec(), None, shift.into(), scale.into(), x)
}

/// `gate * y + x`, where `x` is the residual.
#[derive(Clone, Copy)]
struct GateResidual;

impl Lanes<3> for GateResidual {
    const COST: u64 = 4;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [mut x, y, gate]: [[S::F; K]; 3]) -> [S::F; K] {
        for k in 0..K {
            x[k] = s.fma(gate[k], y[k], x[k]);
        }
        x
    }
}

/// `out = residual + gate * y`, one fused multiply-add; `residual`, `y` and `out` `[B, T, d]`,
/// `gate` `[B, d]`, each f32, f16 or bf16.
///
/// ```
/// use ndarray::{Array3, array};
/// let mut out = Array3::<f32>::zeros((1, 1, 2));
/// let (residual, y) = (array![[[1.0, 1.0]]], array![[[2.0, 4.0]]]);
/// dgm_core::nn::gate_residual(residual.view(), y.view(), array![[0.5, 0.0]].view(), out.view_mut())?;
/// assert_eq!(out, array![[[2.0, 1.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `y`, `gate` or `out` does not fit `residual`.
pub fn gate_residual<'a, 'o>(
    residual: impl Into<Floats<'a, Ix3>>,
    y: impl Into<Floats<'a, Ix3>>,
    gate: impl Into<Floats<'a, Ix2>>,
    out: impl Into<FloatsMut<'o, Ix3>>,
) -> Result<()> {
    let (residual, y, gate, out) = (residual.into(), y.into(), gate.into(), out.into());
    check_shape("y", y.shape(), residual.shape())?;
    check_modulation(residual.shape(), &[("gate", gate.shape())], out.shape())?;
    gated(Some(residual), Some(y), gate, out)
}

fn gated(
    residual: Option<Floats<Ix3>>,
    y: Option<Floats<Ix3>>,
    gate: Floats<Ix2>,
    out: FloatsMut<Ix3>,
) -> Result<()> {
    let inputs = [residual.and_then(lend), y.and_then(lend), by_batch(gate)];
    for_elements(GateResidual, inputs, out.into_dyn())
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
pub fn gate_residual_inplace<'a, 'o>(
    residual: impl Into<FloatsMut<'o, Ix3>>,
    y: impl Into<Floats<'a, Ix3>>,
    gate: impl Into<Floats<'a, Ix2>>,
) -> Result<()> {
    let (residual, y, gate) = (residual.into(), y.into(), gate.into());
    if residual.shape() != y.shape() {
        return Err(Error::shape("residual", residual.shape(), format!("{:?}, as y", y.shape())));
    }
    check_modulation(y.shape(), &[("gate", gate.shape())], residual.shape())?;
    gated(None, Some(y), gate, residual)
}

/// [`gate_residual`] that leaves its result in `y`, with the same bits. Without a residual, `y` is that
/// as well.
///
/// ```
/// use ndarray::array;
/// let mut y = array![[[2.0, 4.0]]];
/// let residual = array![[[1.0, 1.0]]];
/// dgm_core::nn::gate_residual_onto_y(Some(residual.view().into()), y.view_mut(), array![[0.5, 0.0]].view())?;
/// assert_eq!(y, array![[[2.0, 1.0]]]);
/// dgm_core::nn::gate_residual_onto_y(None, y.view_mut(), array![[0.5, 0.0]].view())?;
/// assert_eq!(y, array![[[3.0, 1.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `y` or `gate` does not fit `residual`, or `gate` not `y`.
pub fn gate_residual_onto_y<'a, 'o>(
    residual: Option<Floats<Ix3>>,
    y: impl Into<FloatsMut<'o, Ix3>>,
    gate: impl Into<Floats<'a, Ix2>>,
) -> Result<()> {
    let (y, gate) = (y.into(), gate.into());
    if let Some(residual) = &residual {
        check_shape("y", y.shape(), residual.shape())?;
    }
    check_modulation(y.shape(), &[("gate", gate.shape())], y.shape())?;
    gated(residual, None, gate, y)
}
