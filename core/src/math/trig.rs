//! Sine and cosine.

use crate::arch::Simd;

/// Largest magnitude that the vector reduction handles; beyond it lanes go through f64.
const LARGE: f32 = 1_048_576.0;

/// `(sin x, cos x)`: at most 1.7 ULP for |x| <= 2^20, 0.51 ULP beyond; an infinity or NaN
/// gives NaN; `sin` of a zero is that zero.
///
/// Up to 2^20: `r = x - n pi/2` with pi/2 in three parts under FMA (Cody and Waite), then the
/// polynomials of [`sincos_octant`]. Beyond 2^20 a lane is computed by `libm` in f64, whose
/// Payne-Hanek reduction is exact, and rounded once: slow, rare, the same at every level.
#[inline(always)]
pub(crate) fn sincos<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let n = s.round(s.mul(x, s.splat(std::f32::consts::FRAC_2_PI)));
    let r = s.fma(n, s.splat(-PIO2_1), x);
    let r = s.fma(n, s.splat(-PIO2_2), r);
    let r = s.fma(n, s.splat(-PIO2_3), r);
    let (sin, cos) = sincos_quadrant(s, r, s.to_i32(n));
    // The odd polynomial turns -0 into +0.
    let sin = s.select(s.eq(x, s.splat(0.0)), x, sin);
    let large = s.lt(s.splat(LARGE), s.abs(x));
    if !s.any(large) {
        return (sin, cos);
    }
    let mut lanes = [[0.0; 16]; 3];
    s.store(x, &mut lanes[0]);
    sincos_f64(&mut lanes);
    (s.select(large, s.load(&lanes[1]), sin), s.select(large, s.load(&lanes[2]), cos))
}

#[cold]
#[inline(never)]
fn sincos_f64(lanes: &mut [[f32; 16]; 3]) {
    let [x, sin, cos] = lanes;
    for ((x, sin), cos) in x.iter().zip(sin).zip(cos) {
        let (s, c) = libm::sincos(f64::from(*x));
        (*sin, *cos) = (s as f32, c as f32);
    }
}

/// `(sin, cos)` of `k pi/2 + r` for |r| <= 0.83.
#[inline(always)]
pub(crate) fn sincos_quadrant<S: Simd>(s: S, r: S::F, k: S::I) -> (S::F, S::F) {
    let (sin, cos) = sincos_octant(s, r);
    let swap = s.ieq(s.iand(k, s.isplat(1)), s.isplat(1));
    let cos_sign = s.iadd(k, s.isplat(1));
    (flip(s, s.select(swap, cos, sin), k), flip(s, s.select(swap, sin, cos), cos_sign))
}

/// `v` with its sign changed where the second bit of `k` is set.
#[inline(always)]
fn flip<S: Simd>(s: S, v: S::F, k: S::I) -> S::F {
    s.bits_to_f32(s.ixor(s.to_bits(v), s.ishl::<30>(s.iand(k, s.isplat(2)))))
}

/// `(sin r, cos r)` for |r| <= 0.83 by odd and even minimax polynomials (relative errors 7e-9
/// and 3e-10): `r + r^3 S(r^2)` and `1 - r^2/2 + r^4 C(r^2)`.
#[inline(always)]
fn sincos_octant<S: Simd>(s: S, r: S::F) -> (S::F, S::F) {
    let z = s.mul(r, r);
    let p = s.fma(s.splat(-1.9474053e-4), z, s.splat(8.331842e-3));
    let p = s.fma(p, z, s.splat(-1.666665e-1));
    let sin = s.fma(p, s.mul(z, r), r);
    let c = s.fma(s.splat(2.4391418e-5), z, s.splat(-1.3886946e-3));
    let c = s.fma(c, z, s.splat(4.1666638e-2));
    let c = s.fma(c, z, s.splat(-0.5));
    (sin, s.fma(c, z, s.splat(1.0)))
}

/// pi/2 rounded to f32, and what remains, twice.
const PIO2_1: f32 = std::f32::consts::FRAC_PI_2;
const PIO2_2: f32 = -4.371_139e-8;
const PIO2_3: f32 = -1.715_124_5e-15;
