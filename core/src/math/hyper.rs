//! Hyperbolic tangent and error function.

use super::exp::exp;
use crate::arch::Simd;

#[inline(always)]
fn with_sign_of<S: Simd>(s: S, magnitude: S::F, x: S::F) -> S::F {
    let sign = s.iand(s.to_bits(x), s.isplat(i32::MIN));
    s.bits_to_f32(s.ior(s.to_bits(magnitude), sign))
}

/// `tanh x`: at most 1.4 ULP everywhere; infinities give +-1, NaN NaN, a zero itself.
///
/// Below 0.625 an odd minimax polynomial (relative error 5e-9), above
/// `1 - 2 / (e^(2|x|) + 1)`: the split of Cephes `tanhf` (S. L. Moshier, 1989).
#[inline(always)]
pub(crate) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let z = s.mul(x, x);
    let p = s.splat(-5.694192e-3);
    let p = s.fma(p, z, s.splat(2.0629477e-2));
    let p = s.fma(p, z, s.splat(-5.3736784e-2));
    let p = s.fma(p, z, s.splat(1.3331407e-1));
    let p = s.fma(p, z, s.splat(-3.333328e-1));
    let small = s.fma(p, s.mul(z, x), x);
    let is_small = s.lt(a, s.splat(0.625));
    // The sign is set last because the odd polynomial turns -0 into +0.
    if s.all(is_small) {
        return with_sign_of(s, small, x);
    }
    let e = exp(s, s.add(a, a));
    let large = s.sub(s.splat(1.0), s.div(s.splat(2.0), s.add(e, s.splat(1.0))));
    with_sign_of(s, s.select(is_small, small, large), x)
}

/// The error function: at most 1 ULP everywhere; infinities give +-1, NaN NaN, a zero itself.
///
/// Below 0.9277 the odd form `x + x P(x^2)`, above `1 - exp(-(t + t Q(t)))` with `t = min(|x|, 4)`,
/// where a minimax polynomial stands for the logarithm of `erfc` (relative errors 1e-9 and 3e-9).
#[inline(always)]
pub(crate) fn erf<S: Simd>(s: S, x: S::F) -> S::F {
    let a = s.abs(x);
    let z = s.mul(x, x);
    let p = s.splat(7.99665e-5);
    let p = s.fma(p, z, s.splat(-8.0497697e-4));
    let p = s.fma(p, z, s.splat(5.192405e-3));
    let p = s.fma(p, z, s.splat(-2.6855731e-2));
    let p = s.fma(p, z, s.splat(1.1283626e-1));
    let p = s.fma(p, z, s.splat(-3.761263e-1));
    let p = s.fma(p, z, s.splat(1.2837917e-1));
    let small = s.fma(p, x, x);

    let t = s.min(s.splat(4.0), a);
    let q = s.splat(2.13993e-4);
    let q = s.fma(q, t, s.splat(-3.2150096e-3));
    let q = s.fma(q, t, s.splat(2.28901e-2));
    let q = s.fma(q, t, s.splat(-1.05262004e-1));
    let q = s.fma(q, t, s.splat(-6.357182e-1));
    let q = s.fma(q, t, s.splat(-1.2851438e-1));
    let large = s.sub(s.splat(1.0), exp(s, s.fma(q, t, s.neg(t))));
    s.select(s.lt(a, s.splat(0.927_734_4)), small, with_sign_of(s, large, x))
}
