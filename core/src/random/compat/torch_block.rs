//! Blocks of normal numbers as PyTorch makes them under AVX2.
//!
//! Logarithm, sine and cosine are those of Cephes in single precision (S. L. Moshier, 1989), whose
//! coefficients and order of operations PyTorch's vector code has; which products are fused with a sum is
//! what its builds for x86-64 do. The engine's own functions are more accurate and would give other bits.

use crate::arch::{Kernel, Simd, dispatch};

/// Numbers of a block.
pub(super) const BLOCK: usize = 16;

/// Uniform numbers in [0, 1) to normal numbers in blocks of 16; an incomplete block stays as it is.
pub(super) fn normal_blocks(numbers: &mut [f32]) {
    dispatch(Blocks(numbers));
}

struct Blocks<'a>(&'a mut [f32]);

impl Kernel for Blocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for pair in self.0.chunks_mut(2 * BLOCK) {
            // First halves of two blocks side by side, so that vectors of 16 are full.
            let (mut u1, mut u2) = ([0.5f32; BLOCK], [0.5f32; BLOCK]);
            for (i, block) in pair.chunks_exact(BLOCK).enumerate() {
                u1[8 * i..][..8].copy_from_slice(&block[..8]);
                u2[8 * i..][..8].copy_from_slice(&block[8..]);
            }
            for at in (0..BLOCK).step_by(S::LANES) {
                let (cos, sin) = normals(s, s.load(&u1[at..]), s.load(&u2[at..]));
                s.store(cos, &mut u1[at..]);
                s.store(sin, &mut u2[at..]);
            }
            for (i, block) in pair.chunks_exact_mut(BLOCK).enumerate() {
                block[..8].copy_from_slice(&u1[8 * i..][..8]);
                block[8..].copy_from_slice(&u2[8 * i..][..8]);
            }
        }
    }
}

#[inline(always)]
fn normals<S: Simd>(s: S, u1: S::F, u2: S::F) -> (S::F, S::F) {
    let radius = s.sqrt(s.mul(s.splat(-2.0), log(s, s.sub(s.splat(1.0), u1))));
    let (sin, cos) = sincos(s, s.mul(s.splat(std::f32::consts::TAU), u2));
    let zero = s.splat(0.0);
    (s.fma(s.mul(radius, cos), s.splat(1.0), zero), s.fma(s.mul(radius, sin), s.splat(1.0), zero))
}

/// `ln x` for `x` in (0, 1].
#[inline(always)]
fn log<S: Simd>(s: S, x: S::F) -> S::F {
    let bits = s.to_bits(x);
    let e = s.add(s.to_f32(s.isub(s.ishr::<23>(bits), s.isplat(127))), s.splat(1.0));
    let m = s.bits_to_f32(s.ior(s.iand(bits, s.isplat(0x7f_ffff)), s.isplat(0x3f00_0000)));
    let small = s.lt(m, s.splat(std::f32::consts::FRAC_1_SQRT_2));
    let extra = s.select(small, m, s.splat(0.0));
    let m = s.add(s.sub(m, s.splat(1.0)), extra);
    let e = s.sub(e, s.select(small, s.splat(1.0), s.splat(0.0)));
    let z = s.mul(m, m);
    let mut y = s.splat(LOG[0]);
    for &c in &LOG[1..] {
        y = s.fma(y, m, s.splat(c));
    }
    let y = s.fma(s.mul(y, m), z, s.mul(e, s.splat(-2.121_944_4e-4)));
    let y = s.fma(z, s.splat(-0.5), y);
    let m = s.add(m, y);
    s.fma(e, s.splat(0.693_359_4), m)
}

const LOG: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_84e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_4e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

/// `(sin x, cos x)` for `x` in [0, 2 pi].
#[inline(always)]
fn sincos<S: Simd>(s: S, x: S::F) -> (S::F, S::F) {
    let octant = s.mul(x, s.splat(4.0 / std::f32::consts::PI));
    // Down to an integer, then up to an even one.
    let whole = s.round(octant);
    let whole = s.select(s.lt(octant, whole), s.sub(whole, s.splat(1.0)), whole);
    let j = s.iand(s.iadd(s.to_i32(whole), s.isplat(1)), s.isplat(-2));
    let n = s.to_f32(j);
    let r = s.fma(n, s.splat(-0.785_156_25), x);
    let r = s.fma(n, s.splat(-2.418_756_5e-4), r);
    let r = s.fma(n, s.splat(-3.774_895e-8), r);
    let z = s.mul(r, r);
    let c = s.fma(s.splat(2.443_315_7e-5), z, s.splat(-1.388_731_6e-3));
    let c = s.fma(c, z, s.splat(4.166_664_6e-2));
    let c = s.fma(s.mul(c, z), z, s.mul(z, s.splat(-0.5)));
    let c = s.add(c, s.splat(1.0));
    let p = s.fma(s.splat(-1.951_529_6e-4), z, s.splat(8.332_161e-3));
    let p = s.fma(p, z, s.splat(-1.666_665_5e-1));
    let p = s.fma(s.mul(p, z), r, r);
    let even = s.ieq(s.iand(j, s.isplat(2)), s.isplat(0));
    let (sin, cos) = (s.select(even, p, c), s.select(even, c, p));
    (flip(s, sin, j), flip(s, cos, s.iadd(j, s.isplat(2))))
}

/// `-v` where bit 2 of `j` is set. A function and no closure: a closure would be compiled without the instruction set.
#[inline(always)]
fn flip<S: Simd>(s: S, v: S::F, j: S::I) -> S::F {
    s.bits_to_f32(s.ixor(s.to_bits(v), s.ishl::<29>(s.iand(j, s.isplat(4)))))
}
