//! Activation functions, element by element.

use ndarray::{Dimension, IxDyn};

use super::lanes::Lanes;
use super::rows::{Input, for_elements, lend};
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape};
use crate::math::slice::{Function, GeluErf, GeluTanh, Silu};
use crate::tensor::{Floats, FloatsMut};

/// Which GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    Tanh,
    /// `x/2 (1 + erf(x / sqrt 2))`
    Erf,
}

/// `x / (1 + e^-x)` for every element; any shape, any strides, f32, f16 or bf16.
///
/// ```
/// use ndarray::{Array, arr1};
/// let mut out = arr1(&[0.0; 2]).into_dyn();
/// dgm_core::nn::silu(arr1(&[0.0, -200.0]).into_dyn().view(), out.view_mut())?;
/// assert_eq!(out, arr1(&[0.0, 0.0]).into_dyn());
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn silu<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apart(Kind::Silu, x.into(), out.into())
}

/// GELU for every element; any shape, any strides, f32, f16 or bf16.
///
/// ```
/// use dgm_core::nn::{Gelu, gelu};
/// use ndarray::arr1;
/// let mut out = arr1(&[0.0]).into_dyn();
/// gelu(arr1(&[1.0]).into_dyn().view(), Gelu::Tanh, out.view_mut())?;
/// assert!((out[0] - 0.841_192f32).abs() < 1e-6);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn gelu<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    kind: Gelu,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    apart(Kind::Gelu(kind), x.into(), out.into())
}

/// [`silu`] in place: a slice, or a view with any strides.
///
/// ```
/// let mut x = [0.0, -200.0];
/// dgm_core::nn::silu_inplace(&mut x[..])?;
/// assert_eq!(x, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// None: the signature is that of its siblings.
pub fn silu_inplace<'o, D: Dimension>(x: impl Into<FloatsMut<'o, D>>) -> Result<()> {
    in_place(Kind::Silu, x.into())
}

/// [`gelu`] in place: a slice, or a view with any strides.
///
/// ```
/// let mut x = [0.0, -40.0];
/// dgm_core::nn::gelu_inplace(&mut x[..], dgm_core::nn::Gelu::Erf)?;
/// assert_eq!(x, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// None: the signature is that of its siblings.
pub fn gelu_inplace<'o, D: Dimension>(x: impl Into<FloatsMut<'o, D>>, kind: Gelu) -> Result<()> {
    in_place(Kind::Gelu(kind), x.into())
}

/// `SiLU(gate) * up` for every element; any shape, any strides, each array f32, f16 or bf16. The halves of
/// one array are two views.
///
/// N. Shazeer, arXiv:2002.05202 (SwiGLU without its linear maps).
///
/// ```
/// use ndarray::{Array2, arr2, s};
/// let both = arr2(&[[0.0, 0.0, 5.0, 7.0]]);
/// let mut out = Array2::<f32>::zeros((1, 2));
/// dgm_core::nn::swiglu(both.slice(s![.., ..2]), both.slice(s![.., 2..]), out.view_mut())?;
/// assert_eq!(out, arr2(&[[0.0, 0.0]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn swiglu<'a, 'o, D: Dimension>(
    gate: impl Into<Floats<'a, D>>,
    up: impl Into<Floats<'a, D>>,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    gated(Kind::Silu, Some(gate.into()), Some(up.into()), out.into())
}

/// `GELU(gate) * up` for every element; as [`swiglu`].
///
/// N. Shazeer, arXiv:2002.05202 (GEGLU without its linear maps).
///
/// ```
/// use dgm_core::nn::{Gelu, geglu};
/// let (gate, up, mut out) = ([1.0, 0.0], [2.0, 3.0], [0.0; 2]);
/// geglu(&gate[..], &up[..], Gelu::Erf, &mut out[..])?;
/// assert!((out[0] - 1.682_689f32).abs() < 1e-6 && out[1] == 0.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn geglu<'a, 'o, D: Dimension>(
    gate: impl Into<Floats<'a, D>>,
    up: impl Into<Floats<'a, D>>,
    kind: Gelu,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    gated(Kind::Gelu(kind), Some(gate.into()), Some(up.into()), out.into())
}

/// [`swiglu`] that leaves its result in `gate`, with the same bits.
///
/// ```
/// let (mut gate, up) = ([0.0, 0.0], [2.0, 3.0]);
/// dgm_core::nn::swiglu_inplace(&mut gate[..], &up[..])?;
/// assert_eq!(gate, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn swiglu_inplace<'a, 'o, D: Dimension>(
    gate: impl Into<FloatsMut<'o, D>>,
    up: impl Into<Floats<'a, D>>,
) -> Result<()> {
    gated(Kind::Silu, None, Some(up.into()), gate.into())
}

/// [`swiglu`] that leaves its result in `up`, with the same bits. Without a gate, `up` is that as well.
///
/// ```
/// let (gate, mut up) = ([0.0, 0.0], [2.0, 3.0]);
/// dgm_core::nn::swiglu_onto_up(Some((&gate[..]).into()), &mut up[..])?;
/// assert_eq!(up, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn swiglu_onto_up<'o, D: Dimension>(
    gate: Option<Floats<D>>,
    up: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    gated(Kind::Silu, gate, None, up.into())
}

/// [`geglu`] that leaves its result in `gate`, with the same bits.
///
/// ```
/// use dgm_core::nn::{Gelu, geglu_inplace};
/// let (mut gate, up) = ([0.0, 0.0], [2.0, 3.0]);
/// geglu_inplace(&mut gate[..], &up[..], Gelu::Tanh)?;
/// assert_eq!(gate, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn geglu_inplace<'a, 'o, D: Dimension>(
    gate: impl Into<FloatsMut<'o, D>>,
    up: impl Into<Floats<'a, D>>,
    kind: Gelu,
) -> Result<()> {
    gated(Kind::Gelu(kind), None, Some(up.into()), gate.into())
}

/// [`geglu`] that leaves its result in `up`, with the same bits. Without a gate, `up` is that as well.
///
/// ```
/// use dgm_core::nn::{Gelu, geglu_onto_up};
/// let (gate, mut up) = ([0.0, 0.0], [2.0, 3.0]);
/// geglu_onto_up(Some((&gate[..]).into()), &mut up[..], Gelu::Erf)?;
/// assert_eq!(up, [0.0, 0.0]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ.
pub fn geglu_onto_up<'o, D: Dimension>(
    gate: Option<Floats<D>>,
    up: impl Into<FloatsMut<'o, D>>,
    kind: Gelu,
) -> Result<()> {
    gated(Kind::Gelu(kind), gate, None, up.into())
}

/// `f(x)`
#[derive(Clone, Copy)]
struct Plain<U>(U);

impl<U: Function> Lanes<1> for Plain<U> {
    const COST: u64 = U::COST;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [x]: [[S::F; K]; 1]) -> [S::F; K] {
        self.0.eval(s, x)
    }
}

/// `f(x) * y`
#[derive(Clone, Copy)]
struct Gated<U>(U);

impl<U: Function> Lanes<2> for Gated<U> {
    const COST: u64 = U::COST + 1;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [x, y]: [[S::F; K]; 2]) -> [S::F; K] {
        let mut out = self.0.eval(s, x);
        for k in 0..K {
            out[k] = s.mul(out[k], y[k]);
        }
        out
    }
}

/// One of the activations.
#[derive(Clone, Copy)]
enum Kind {
    Silu,
    Gelu(Gelu),
}

fn in_place<D: Dimension>(f: Kind, x: FloatsMut<D>) -> Result<()> {
    plain(f, None, x.into_dyn())
}

fn apart<D: Dimension>(f: Kind, x: Floats<D>, out: FloatsMut<D>) -> Result<()> {
    check_shape("out", out.shape(), x.shape())?;
    plain(f, lend(x), out.into_dyn())
}

/// `out` holds the operand where it is missing.
fn plain(f: Kind, x: Input, out: FloatsMut<IxDyn>) -> Result<()> {
    match f {
        Kind::Silu => for_elements(Plain(Silu), [x], out),
        Kind::Gelu(Gelu::Tanh) => for_elements(Plain(GeluTanh), [x], out),
        Kind::Gelu(Gelu::Erf) => for_elements(Plain(GeluErf), [x], out),
    }
}

/// Where an operand is missing, `out` holds it.
fn gated<D: Dimension>(
    f: Kind,
    gate: Option<Floats<D>>,
    up: Option<Floats<D>>,
    out: FloatsMut<D>,
) -> Result<()> {
    times(f, [gate.and_then(lend), up.and_then(lend)], out.into_dyn())
}

/// [`gated`] without type parameters.
fn times(f: Kind, [gate, up]: [Input; 2], out: FloatsMut<IxDyn>) -> Result<()> {
    let check = |arg, got: &[usize], gate: &[usize]| match got == gate {
        true => Ok(()),
        false => Err(Error::shape(arg, got, format!("{gate:?}, as gate"))),
    };
    let shape = gate.as_ref().map_or(out.shape(), Floats::shape);
    match &up {
        Some(up) => {
            check("up", up.shape(), shape)?;
            check("out", out.shape(), shape)?;
        }
        None => check("up", out.shape(), shape)?,
    }
    match f {
        Kind::Silu => for_elements(Gated(Silu), [gate, up], out),
        Kind::Gelu(Gelu::Tanh) => for_elements(Gated(GeluTanh), [gate, up], out),
        Kind::Gelu(Gelu::Erf) => for_elements(Gated(GeluErf), [gate, up], out),
    }
}
