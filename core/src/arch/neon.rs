//! AArch64 NEON with four lanes.

use std::arch::aarch64::*;

use super::level::Kernel;
use super::simd::Simd;
const N: usize = 4;
/// Proof that the processor has these instructions; made only by [`Neon::new`].
#[derive(Clone, Copy)]
pub(crate) struct Neon(());
impl Neon {
    /// The token, where the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        // Every AArch64 target of Rust has NEON.
        Some(Neon(()))
    }
}
/// Runs `kernel` compiled for this level.
#[inline]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "neon")]
    fn inner<K: Kernel>(kernel: K, s: Neon) -> K::Output {
        kernel.run(s)
    }
    match Neon::new() {
        // SAFETY: the token proves that the enabled features are present.
        Some(s) => unsafe { inner(kernel, s) },
        None => super::level::portably(kernel),
    }
}
impl Simd for Neon {
    const LANES: usize = N;
    type F = float32x4_t;
    type I = int32x4_t;
    type M = uint32x4_t;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vdupq_n_f32(x) }
    }

    #[inline(always)]
    fn load(self, s: &[f32]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { vld1q_f32(p) }
    }

    #[inline(always)]
    fn store(self, v: Self::F, s: &mut [f32]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { vst1q_f32(p, v) }
    }

    #[inline(always)]
    fn store_quads(self, [a, b, c, d]: [Self::F; 4], s: &mut [f32]) {
        let p = s[..4 * N].as_mut_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { vst4q_f32(p, float32x4x4_t(a, b, c, d)) }
    }

    #[inline(always)]
    fn zip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe { [vzip1q_f32(a, b), vzip2q_f32(a, b)] }
    }

    #[inline(always)]
    fn unzip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe { [vuzp1q_f32(a, b), vuzp2q_f32(a, b)] }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vaddq_f32(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vsubq_f32(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vmulq_f32(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vdivq_f32(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vfmaq_f32(c, a, b) }
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vsqrtq_f32(a) }
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vbslq_f32(vcgtq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vbslq_f32(vcltq_f32(a, b), a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vrndnq_f32(a) }
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { vcltq_f32(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { vceqq_f32(a, b) }
    }

    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vbslq_f32(m, a, b) }
    }

    #[inline(always)]
    fn any(self, m: Self::M) -> bool {
        // SAFETY: the token proves the instructions.
        unsafe { vmaxvq_u32(m) != 0 }
    }

    #[inline(always)]
    fn all(self, m: Self::M) -> bool {
        // SAFETY: the token proves the instructions.
        unsafe { vminvq_u32(m) != 0 }
    }

    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vdupq_n_s32(x) }
    }

    #[inline(always)]
    fn iload(self, s: &[i32]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { vld1q_s32(p) }
    }

    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vaddq_s32(a, b) }
    }

    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vsubq_s32(a, b) }
    }

    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vandq_s32(a, b) }
    }

    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vorrq_s32(a, b) }
    }

    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { veorq_s32(a, b) }
    }

    #[inline(always)]
    fn ishl<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vshlq_s32(a, vdupq_n_s32(K)) }
    }

    #[inline(always)]
    fn ishr<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(a), vdupq_n_s32(-K))) }
    }

    #[inline(always)]
    fn isar<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vshlq_s32(a, vdupq_n_s32(-K)) }
    }

    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { vceqq_s32(a, b) }
    }

    #[inline(always)]
    fn mulhilo(self, a: Self::I, b: Self::I) -> (Self::I, Self::I) {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (x, y) = (vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b));
            let low = vreinterpretq_u32_u64(vmull_u32(vget_low_u32(x), vget_low_u32(y)));
            let high = vreinterpretq_u32_u64(vmull_high_u32(x, y));
            (vreinterpretq_s32_u32(vuzp2q_u32(low, high)), vreinterpretq_s32_u32(vuzp1q_u32(low, high)))
        }
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vreinterpretq_s32_f32(a) }
    }

    #[inline(always)]
    fn bits_to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vreinterpretq_f32_s32(a) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { vcvtq_f32_s32(a) }
    }

    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { vcvtnq_s32_f32(a) }
    }

    #[inline(always)]
    fn load_pairs(self, s: &[u16]) -> Self::I {
        let p = s[..2 * N].as_ptr();
        // SAFETY: the slice has 2 N elements (checked), the token proves the instructions.
        unsafe { vreinterpretq_s32_u16(vld1q_u16(p)) }
    }

    #[inline(always)]
    fn load_quads(self, s: &[i8]) -> Self::I {
        let p = s[..4 * N].as_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions.
        unsafe { vreinterpretq_s32_s8(vld1q_s8(p)) }
    }

    #[inline(always)]
    fn transpose(self, r: [Self::F; 16]) -> [Self::F; 16] {
        let mut t = r;
        // SAFETY: the token proves the instructions.
        unsafe {
            let double = |x| vreinterpretq_f64_f32(x);
            let single = |x| vreinterpretq_f32_f64(x);
            let (a, b) = (double(vtrn1q_f32(r[0], r[1])), double(vtrn1q_f32(r[2], r[3])));
            let (c, d) = (double(vtrn2q_f32(r[0], r[1])), double(vtrn2q_f32(r[2], r[3])));
            t[0] = single(vtrn1q_f64(a, b));
            t[1] = single(vtrn1q_f64(c, d));
            t[2] = single(vtrn2q_f64(a, b));
            t[3] = single(vtrn2q_f64(c, d));
        }
        t
    }

    #[inline(always)]
    fn prefetch_at(self, address: usize) {
        // SAFETY: a prefetch faults at no address and writes nothing.
        unsafe {
            std::arch::asm!("prfm pldl1keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }

    #[inline(always)]
    fn prefetch_later_at(self, address: usize) {
        // SAFETY: a prefetch faults at no address and writes nothing.
        unsafe {
            std::arch::asm!("prfm pldl2keep, [{}]", in(reg) address, options(nostack, readonly, preserves_flags));
        }
    }
}
