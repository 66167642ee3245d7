//! Activation functions of the networks.

use super::exp::{exp_below, exp2_gradual};
use crate::arch::Simd;

/// `x / (1 + e^-z)` where `z` has the sign of `x`.
///
/// For negative `x` both sides are multiplied by `e^z`, so that no intermediate overflows and
/// the tail keeps its relative accuracy.
#[inline(always)]
fn times_sigmoid<S: Simd>(s: S, x: S::F, z: S::F) -> S::F {
    let e = exp_below(s, s.below_zero(z));
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

/// GELU with the error function, `x/2 (1 + erf(x / sqrt 2))`, computed as `max(x, 0) - |x| 2^P(|x|)`, where `P`
/// is about the logarithm of the normal distribution below `-|x|`. Error at most `3e-7 max(1, |gelu x|)`;
/// -infinity gives 0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415. `P` is a minimax fit, as the polynomials of the exponentials, of the
/// absolute error that it leaves in the result, 1e-8 up to 6; its constant term is exactly -1, so that small numbers
/// are halved exactly.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd>(s: S, x: S::F) -> S::F {
    // From here on the power is 0.
    let t = s.min(s.splat(11.2175), s.abs(x));
    let p = s.splat(-1.3440974e-6);
    let p = s.fma(p, t, s.splat(2.1290467e-5));
    let p = s.fma(p, t, s.splat(-9.8705656e-5));
    let p = s.fma(p, t, s.splat(-3.53458e-4));
    let p = s.fma(p, t, s.splat(7.356052e-3));
    let p = s.fma(p, t, s.splat(-5.2708637e-2));
    let p = s.fma(p, t, s.splat(-4.5913318e-1));
    let p = s.fma(p, t, s.splat(-1.1511148));
    let p = s.fma(p, t, s.splat(-1.0));
    // The second operand wins over NaN.
    s.fma(s.neg(t), exp2_gradual(s, p), s.max(s.splat(0.0), x))
}
