//! The natural logarithm.

use super::exp::{LN2_HI, LN2_LO};
use crate::arch::Simd;

/// `ln x`: at most 0.90 ULP for every positive x, subnormals included. 0 gives -infinity, a
/// negative number NaN, infinity infinity, NaN NaN; `ln 1` is +0.
///
/// `x = 2^e m` with `m` in [sqrt 1/2, sqrt 2); `ln m = f - f^2/2 + f^3 Q(f)`, `f = m - 1` (exact),
/// the form of Cephes `logf` (S. L. Moshier, 1989) with an own minimax `Q` of degree seven;
/// `e ln 2` enters in two parts.
#[inline(always)]
pub(crate) fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let subnormal = s.lt(x, s.splat(f32::MIN_POSITIVE));
    let bits = s.to_bits(s.select(subnormal, s.mul(x, s.splat(8_388_608.0)), x));
    let offset = s.isub(bits, s.isplat(SQRT_HALF_BITS));
    let e = s.to_f32(s.isar::<23>(offset));
    let e = s.select(subnormal, s.sub(e, s.splat(23.0)), e);
    let m = s.bits_to_f32(s.iadd(s.iand(offset, s.isplat(0x7f_ffff)), s.isplat(SQRT_HALF_BITS)));
    let f = s.sub(m, s.splat(1.0));
    let q = s.splat(-7.636395e-2);
    let q = s.fma(q, f, s.splat(1.2762198e-1));
    let q = s.fma(q, f, s.splat(-1.3159613e-1));
    let q = s.fma(q, f, s.splat(1.4201581e-1));
    let q = s.fma(q, f, s.splat(-1.6623409e-1));
    let q = s.fma(q, f, s.splat(2.0001242e-1));
    let q = s.fma(q, f, s.splat(-2.500082e-1));
    let q = s.fma(q, f, s.splat(3.333333e-1));
    let z = s.mul(f, f);
    let y = s.mul(s.mul(f, z), q);
    let y = s.fma(e, s.splat(LN2_LO), y);
    let y = s.fma(z, s.splat(-0.5), y);
    let y = s.fma(e, s.splat(LN2_HI), s.add(f, y));

    let y = s.select(s.lt(x, s.splat(f32::INFINITY)), y, x);
    let y = s.select(s.eq(x, s.splat(0.0)), s.splat(f32::NEG_INFINITY), y);
    s.select(s.lt(x, s.splat(0.0)), s.splat(f32::NAN), y)
}

/// The bits of sqrt(1/2) rounded down.
const SQRT_HALF_BITS: i32 = 0x3f35_04f3;
