//! Activation functions of the networks.

use super::exp::exp;
use super::hyper::erf;
use crate::arch::Simd;

/// `x / (1 + e^-z)` where `z` has the sign of `x`.
///
/// For negative `x` both sides are multiplied by `e^z`, so that no intermediate overflows and
/// the tail keeps its relative accuracy.
#[inline(always)]
fn times_sigmoid<S: Simd>(s: S, x: S::F, z: S::F) -> S::F {
    let e = exp(s, s.neg(s.abs(z)));
    let numerator = s.select(s.lt(z, s.splat(0.0)), s.mul(x, e), x);
    s.div(numerator, s.add(s.splat(1.0), e))
}

/// The logistic function `1 / (1 + e^-x)`, for negative `x` as `e^x / (1 + e^x)`: 0 and 1 at the infinities, NaN for
/// NaN; never above 1.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    times_sigmoid(s, s.splat(1.0), x)
}

/// SiLU (swish), `x / (1 + e^-x)`: at most 3.2 ULP, or an absolute 1e-43 where `e^x` is
/// subnormal (x < -87); -infinity gives -0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415; Ramachandran et al., arXiv:1710.05941.
#[inline(always)]
pub(crate) fn silu<S: Simd>(s: S, x: S::F) -> S::F {
    // From -200 down the result is -0, and -infinity * 0 must not arise.
    let x = s.max(s.splat(-200.0), x);
    times_sigmoid(s, x, x)
}

/// GELU with tanh, `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, computed as the identical
/// `x / (1 + e^-2u)` that does not cancel for negative `x`. Error at most
/// `3e-7 max(1, |gelu x|)`; -infinity gives -0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-30.0), x);
    // 2 sqrt(2/pi), and 0.044715 times it.
    let c = s.fma(s.mul(x, x), s.splat(0.071_354_814), s.splat(1.595_769_2));
    times_sigmoid(s, x, s.mul(x, c))
}

/// GELU with the error function, `x/2 (1 + erf(x / sqrt 2))`. Error at most
/// `3e-7 max(1, |gelu x|)`; -infinity gives 0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-30.0), x);
    let half = s.mul(x, s.splat(0.5));
    s.fma(half, erf(s, s.mul(x, s.splat(std::f32::consts::FRAC_1_SQRT_2))), half)
}
