//! Activation functions of the networks, of vectors side by side, as [`exp2_each`](super::exp2_each).

use super::exp::{exp_each, exp_minus, exp2_gradual, poly};
use crate::arch::Simd;

/// `x / (1 + e^-z)`.
#[inline(always)]
fn times_sigmoid<S: Simd, const K: usize>(s: S, x: [S::F; K], z: [S::F; K]) -> [S::F; K] {
    // From here on `e^-z` may be infinite, but 1 is nothing beside it.
    let least = s.splat(-87.0);
    let (mut y, mut below) = (z, false);
    for k in 0..K {
        y[k] = s.min(s.splat(87.0), s.max(least, z[k]));
        below |= s.any(s.lt(z[k], least));
    }
    y = exp_minus(s, y);
    for k in 0..K {
        y[k] = s.div(x[k], s.add(s.splat(1.0), y[k]));
    }
    if below {
        // Of lanes above 89, which are not selected, it is anything.
        let e = exp_each(s, z);
        for k in 0..K {
            // The power is 0 long before, and 0 times infinity must not arise.
            let x = s.max(s.splat(-200.0), x[k]);
            y[k] = s.select(s.lt(z[k], least), s.mul(x, e[k]), y[k]);
        }
    }
    y
}

/// The logistic function `1 / (1 + e^-x)`: 0 and 1 at the infinities, NaN for NaN; never above 1.
#[inline(always)]
pub(crate) fn sigmoid<S: Simd>(s: S, x: S::F) -> S::F {
    let [y] = times_sigmoid(s, [s.splat(1.0)], [x]);
    y
}

/// SiLU (swish), `x / (1 + e^-x)`: at most 3.2 ULP, or an absolute 1e-43 where `e^x` is
/// subnormal (x < -87); -infinity gives -0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415; Ramachandran et al., arXiv:1710.05941.
#[inline(always)]
pub(crate) fn silu<S: Simd, const K: usize>(s: S, x: [S::F; K]) -> [S::F; K] {
    times_sigmoid(s, x, x)
}

/// GELU with tanh, `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`, computed as the identical
/// `x / (1 + e^-2u)` that does not cancel for negative `x`. Error at most
/// `3e-7 max(1, |gelu x|)`; -infinity gives -0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415.
#[inline(always)]
pub(crate) fn gelu_tanh<S: Simd, const K: usize>(s: S, x: [S::F; K]) -> [S::F; K] {
    let mut z = x;
    for k in 0..K {
        // 2 sqrt(2/pi), and 0.044715 times it.
        let c = s.fma(s.mul(x[k], x[k]), s.splat(0.071_354_814), s.splat(1.595_769_2));
        z[k] = s.mul(x[k], c);
    }
    times_sigmoid(s, x, z)
}

/// GELU with the error function, `x/2 (1 + erf(x / sqrt 2))`, computed as `max(x, 0) - |x| 2^P(|x|)`, where `P`
/// is about the logarithm of the normal distribution below `-|x|`. Error at most `3e-7 max(1, |gelu x|)`;
/// -infinity gives 0.
///
/// Hendrycks and Gimpel, arXiv:1606.08415. `P` is a minimax fit, as the polynomials of the exponentials, of the
/// absolute error that it leaves in the result, 1e-8 up to 6; its constant term is exactly -1, so that small numbers
/// are halved exactly.
#[inline(always)]
pub(crate) fn gelu_erf<S: Simd, const K: usize>(s: S, x: [S::F; K]) -> [S::F; K] {
    const POLYNOMIAL: [f32; 9] = [
        -1.3440974e-6,
        2.1290467e-5,
        -9.8705656e-5,
        -3.53458e-4,
        7.356052e-3,
        -5.2708637e-2,
        -4.5913318e-1,
        -1.1511148,
        -1.0,
    ];
    let mut t = x;
    for k in 0..K {
        // From here on the power is 0.
        t[k] = s.min(s.splat(11.2175), s.abs(x[k]));
    }
    let mut p = exp2_gradual(s, poly(s, &POLYNOMIAL, t));
    for k in 0..K {
        // The second operand wins over NaN.
        p[k] = s.fma(s.neg(t[k]), p[k], s.max(s.splat(0.0), x[k]));
    }
    p
}
