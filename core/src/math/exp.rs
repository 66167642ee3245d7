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
    exp2_above(s, x, Powers::EXACT)
}

/// How exact powers of two are, and from where on they are 0.
#[derive(Clone, Copy)]
pub(crate) struct Powers {
    least: f32,
    short: bool,
}

impl Powers {
    /// Those of [`exp2`].
    pub const EXACT: Powers = Powers { least: -126.0, short: false };
    /// For probabilities that are multiplied as bfloat16: a polynomial of degree four, whose relative error is 3e-6; 0 below 2^-64, so
    /// that the products of all but the tiniest numbers are normal.
    pub const SHORT: Powers = Powers { least: -64.0, short: true };
}

/// [`exp2`], or something close to it.
#[inline(always)]
pub(crate) fn exp2_above<S: Simd>(s: S, x: S::F, powers: Powers) -> S::F {
    // A NaN passes: the second operand wins.
    let [y] = exp2_each(s, [s.min(s.splat(128.0), x)], powers);
    y
}

/// [`exp2_above`] of vectors that are at most 128, step by step side by side: each step waits for the one before it,
/// and a processor does not look far enough ahead to fill the time with a vector that begins behind the last step.
#[inline(always)]
pub(crate) fn exp2_each<S: Simd, const K: usize>(s: S, x: [S::F; K], powers: Powers) -> [S::F; K] {
    let (mut p, n) = parts(s, x, powers.short);
    for k in 0..K {
        // A NaN passes: the comparison is false.
        p[k] = s.select(s.lt(x[k], s.splat(powers.least)), s.splat(0.0), s.add_exponent(p[k], n[k]));
    }
    p
}

/// `2^x` for `x` in [-150.5, 128], rounded once more where the result is subnormal; NaN for NaN.
#[inline(always)]
pub(super) fn exp2_gradual<S: Simd, const K: usize>(s: S, x: [S::F; K]) -> [S::F; K] {
    let (mut p, n) = parts(s, x, false);
    for k in 0..K {
        p[k] = s.scale(p[k], n[k]);
    }
    p
}

/// `2^f` and `n` of `x = n + f`.
#[inline(always)]
fn parts<S: Simd, const K: usize>(s: S, x: [S::F; K], short: bool) -> ([S::F; K], [S::F; K]) {
    const POLYNOMIAL: [f32; 7] =
        [1.5329264e-4, 1.3390969e-3, 9.618499e-3, 5.5503596e-2, 2.4022648e-1, 6.931472e-1, 1.0];
    const SHORT: [f32; 5] = [9.583128e-3, 5.590649e-2, 2.4024092e-1, 6.931242e-1, 1.0];
    let (mut n, mut f) = (x, x);
    for k in 0..K {
        n[k] = s.round(x[k]);
    }
    for k in 0..K {
        f[k] = s.sub(x[k], n[k]);
    }
    (if short { poly(s, &SHORT, f) } else { poly(s, &POLYNOMIAL, f) }, n)
}

/// Horner's rule, the highest coefficient first.
#[inline(always)]
pub(super) fn poly<S: Simd, const N: usize, const K: usize>(
    s: S,
    coefficients: &[f32; N],
    x: [S::F; K],
) -> [S::F; K] {
    let mut p = [s.splat(coefficients[0]); K];
    for c in &coefficients[1..] {
        for k in 0..K {
            p[k] = s.fma(p[k], x[k], s.splat(*c));
        }
    }
    p
}

/// `e^x`: at most 0.90 ULP everywhere, subnormal results included; overflow gives infinity,
/// underflow 0, NaN gives NaN. `e^0` is exactly 1.
///
/// `x = n ln 2 + r` with `ln 2` in two parts (the first product and difference are exact under
/// FMA); `e^r = 1 + r (1 + r Q(r))`.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Beyond this bound the result is infinity whatever the polynomial says.
    let [y] = exp_each(s, [s.min(s.splat(89.0), x)]);
    y
}

/// [`exp`] of vectors that are at most 89, side by side, as [`exp2_each`].
#[inline(always)]
pub(crate) fn exp_each<S: Simd, const K: usize>(s: S, mut x: [S::F; K]) -> [S::F; K] {
    for k in 0..K {
        // As above: 0.
        x[k] = s.max(s.splat(-104.0), x[k]);
    }
    let (mut p, n) = natural_parts(s, x, false);
    for k in 0..K {
        p[k] = s.scale(p[k], n[k]);
    }
    p
}

/// `e^-x` of vectors side by side, for `x` in [-87, 87]; NaN for NaN.
#[inline(always)]
pub(super) fn exp_minus<S: Simd, const K: usize>(s: S, x: [S::F; K]) -> [S::F; K] {
    let (mut p, n) = natural_parts(s, x, true);
    for k in 0..K {
        p[k] = s.add_exponent(p[k], n[k]);
    }
    p
}

/// `e^r` and `n` of `n ln 2 + r`, which is `x`, or `-x`.
#[inline(always)]
fn natural_parts<S: Simd, const K: usize>(s: S, x: [S::F; K], minus: bool) -> ([S::F; K], [S::F; K]) {
    const POLYNOMIAL: [f32; 7] =
        [1.3820734e-3, 8.368677e-3, 4.1668266e-2, 1.6666521e-1, 4.9999994e-1, 1.0, 1.0];
    // Of -x everything is the same but the signs of r and of the odd terms.
    const OF_MINUS: [f32; 7] = {
        let (mut c, mut i) = (POLYNOMIAL, 1);
        while i < c.len() {
            (c[i], i) = (-c[i], i + 2);
        }
        c
    };
    let sign = if minus { -1.0 } else { 1.0 };
    let (mut n, mut r) = (x, x);
    for k in 0..K {
        n[k] = s.mul(x[k], s.splat(sign * std::f32::consts::LOG2_E));
    }
    for k in 0..K {
        n[k] = s.round(n[k]);
    }
    for part in [LN2_HI, LN2_LO] {
        for k in 0..K {
            r[k] = s.fma(n[k], s.splat(-sign * part), r[k]);
        }
    }
    (if minus { poly(s, &OF_MINUS, r) } else { poly(s, &POLYNOMIAL, r) }, n)
}

/// `ln 2` rounded to f32.
pub(super) const LN2_HI: f32 = std::f32::consts::LN_2;
/// `ln 2 - LN2_HI`.
pub(super) const LN2_LO: f32 = -1.904_654_2e-9;
