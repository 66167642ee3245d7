//! Exponentials: reduction to a power of two and a polynomial of degree six.
//!
//! Method: W. J. Cody and W. Waite, *Software Manual for the Elementary Functions* (1980), ch. 6;
//! coefficients are a minimax fit (Remez, by reweighted least squares) of relative error 3e-9,
//! each rounded to f32 before the higher ones were fitted again.

use crate::arch::Simd;

/// `2^x`: at most 0.80 ULP for `x >= -126`, 0 below (results that would be subnormal are
/// flushed), infinity from 128 on, NaN for NaN. `2^n` is exact for whole `n`.
///
/// `x = n + f` with `f` in [-1/2, 1/2]; `2^f = 1 + f*P(f)`; `n` is added to the exponent field.
/// The constant term is exactly 1, so that rescaling by `2^0` never changes a bit.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(s: S, x: S::F) -> S::F {
    exp2_above(s, x, -126.0)
}

/// [`exp2`], but 0 already below `least`, which is at least -126.
#[inline(always)]
pub(crate) fn exp2_above<S: Simd>(s: S, x: S::F, least: f32) -> S::F {
    // Both rules below let a NaN pass: the comparison is false and the second operand wins.
    let x = s.min(s.splat(128.0), x);
    let (p, n) = parts(s, x);
    s.select(s.lt(x, s.splat(least)), s.splat(0.0), s.add_exponent(p, n))
}

/// `2^x` for `x` in [-150.5, 128], rounded once more where the result is subnormal; NaN for NaN.
#[inline(always)]
pub(crate) fn exp2_gradual<S: Simd>(s: S, x: S::F) -> S::F {
    let (p, n) = parts(s, x);
    s.scale(p, n)
}

/// `2^f` and `n` of `x = n + f`.
#[inline(always)]
fn parts<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let n = s.round(x);
    let f = s.sub(x, n);
    let p = s.splat(1.5329264e-4);
    let p = s.fma(p, f, s.splat(1.3390969e-3));
    let p = s.fma(p, f, s.splat(9.618499e-3));
    let p = s.fma(p, f, s.splat(5.5503596e-2));
    let p = s.fma(p, f, s.splat(2.4022648e-1));
    let p = s.fma(p, f, s.splat(6.931472e-1));
    (s.fma(p, f, s.splat(1.0)), n)
}

/// `e^x`: at most 0.90 ULP everywhere, subnormal results included; overflow gives infinity,
/// underflow 0, NaN gives NaN. `e^0` is exactly 1.
///
/// `x = n ln 2 + r` with `ln 2` in two parts (the first product and difference are exact under
/// FMA); `e^r = 1 + r (1 + r Q(r))`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond this bound the result is infinity whatever the polynomial says.
    exp_below(s, s.min(s.splat(89.0), x))
}

/// [`exp`] of what is at most 89.
#[inline(always)]
pub(crate) fn exp_below<S: Simd>(s: S, x: S::F) -> S::F {
    // As above: 0.
    let x = s.max(s.splat(-104.0), x);
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN2_HI), x);
    let r = s.fma(n, s.splat(-LN2_LO), r);
    let q = s.splat(1.3820734e-3);
    let q = s.fma(q, r, s.splat(8.368677e-3));
    let q = s.fma(q, r, s.splat(4.1668266e-2));
    let q = s.fma(q, r, s.splat(1.6666521e-1));
    let q = s.fma(q, r, s.splat(4.9999994e-1));
    let q = s.fma(q, r, s.splat(1.0));
    s.scale(s.fma(q, r, s.splat(1.0)), n)
}

/// `ln 2` rounded to f32.
pub(super) const LN2_HI: f32 = std::f32::consts::LN_2;
/// `ln 2 - LN2_HI`.
pub(super) const LN2_LO: f32 = -1.904_654_2e-9;
