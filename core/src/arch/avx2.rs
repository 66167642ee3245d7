//! AVX2 and FMA with eight lanes.

use std::arch::x86_64::*;

use super::level::Kernel;
use super::simd::Simd;
const N: usize = 8;
/// Proof that the processor has these instructions; made only by [`Avx2::new`].
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());
impl Avx2 {
    /// The token, where the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let ok = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("f16c");
        ok.then_some(Avx2(()))
    }

    /// Numbers rounded to bfloat16 (nearest, ties to even; NaN quieted), in the lower halves of lanes.
    #[inline(always)]
    fn rounded_bf16(self, v: __m256) -> __m256i {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40_0000));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
        }
    }
}
/// Runs `kernel` compiled for this level.
#[inline]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn inner<K: Kernel>(kernel: K, s: Avx2) -> K::Output {
        kernel.run(s)
    }
    match Avx2::new() {
        // SAFETY: the token proves that the enabled features are present.
        Some(s) => unsafe { inner(kernel, s) },
        None => super::level::portably(kernel),
    }
}
impl Simd for Avx2 {
    const LANES: usize = N;
    type F = __m256;
    type I = __m256i;
    type M = __m256;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, s: &[f32]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_loadu_ps(p) }
    }

    #[inline(always)]
    fn store(self, v: Self::F, s: &mut [f32]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn store_quads(self, [a, b, c, d]: [Self::F; 4], s: &mut [f32]) {
        let p = s[..4 * N].as_mut_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe {
            // Quads i and i + 4, for i = 0 to 3.
            let ab = (_mm256_castps_pd(_mm256_unpacklo_ps(a, b)), _mm256_castps_pd(_mm256_unpackhi_ps(a, b)));
            let cd = (_mm256_castps_pd(_mm256_unpacklo_ps(c, d)), _mm256_castps_pd(_mm256_unpackhi_ps(c, d)));
            let q0 = _mm256_castpd_ps(_mm256_unpacklo_pd(ab.0, cd.0));
            let q1 = _mm256_castpd_ps(_mm256_unpackhi_pd(ab.0, cd.0));
            let q2 = _mm256_castpd_ps(_mm256_unpacklo_pd(ab.1, cd.1));
            let q3 = _mm256_castpd_ps(_mm256_unpackhi_pd(ab.1, cd.1));
            _mm256_storeu_ps(p, _mm256_permute2f128_ps::<0x20>(q0, q1));
            _mm256_storeu_ps(p.add(N), _mm256_permute2f128_ps::<0x20>(q2, q3));
            _mm256_storeu_ps(p.add(2 * N), _mm256_permute2f128_ps::<0x31>(q0, q1));
            _mm256_storeu_ps(p.add(3 * N), _mm256_permute2f128_ps::<0x31>(q2, q3));
        }
    }

    #[inline(always)]
    fn zip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (low, high) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
        }
    }

    #[inline(always)]
    fn unzip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (low, high) = (_mm256_permute2f128_ps::<0x20>(a, b), _mm256_permute2f128_ps::<0x31>(a, b));
            [_mm256_shuffle_ps::<0x88>(low, high), _mm256_shuffle_ps::<0xdd>(low, high)]
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_round_ps::<0x08>(a) }
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_blendv_ps(b, a, m) }
    }

    #[inline(always)]
    fn any(self, m: Self::M) -> bool {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_movemask_ps(m) != 0 }
    }

    #[inline(always)]
    fn all(self, m: Self::M) -> bool {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_movemask_ps(m) == 0xff }
    }

    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_set1_epi32(x) }
    }

    #[inline(always)]
    fn iload(self, s: &[i32]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    fn load_u16(self, s: &[u16]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    fn load_u8(self, s: &[u8]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_cvtepu8_epi32(_mm_loadl_epi64(p.cast())) }
    }

    #[inline(always)]
    fn load_pairs(self, s: &[u16]) -> Self::I {
        let p = s[..2 * N].as_ptr();
        // SAFETY: the slice has 2 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    fn load_f16(self, s: &[u16]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    fn store_bf16(self, v: Self::F, s: &mut [u16]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_castsi256_si128(self.pack_bf16([v, v]))) }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::F, s: &mut [u16]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn pack_bf16(self, [a, b]: [Self::F; 2]) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            // Packs within halves of 128 bits.
            let packed = _mm256_packus_epi32(self.rounded_bf16(a), self.rounded_bf16(b));
            _mm256_permute4x64_epi64::<0b11_01_10_00>(packed)
        }
    }

    #[inline(always)]
    fn pack_f16(self, [a, b]: [Self::F; 2]) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let (a, b) = (
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a),
                _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(b),
            );
            _mm256_set_m128i(b, a)
        }
    }

    #[inline(always)]
    fn store_pairs(self, v: Self::I, s: &mut [u16]) {
        let p = s[..2 * N].as_mut_ptr();
        // SAFETY: the slice has 2 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }

    #[inline(always)]
    fn stream(self, v: Self::F, s: &mut [f32]) {
        let p = s[..N].as_mut_ptr();
        if !p.addr().is_multiple_of(32) {
            return self.store(v, s);
        }
        // SAFETY: the slice has N elements (checked), aligned as the instruction needs; the token proves it.
        unsafe { _mm256_stream_ps(p, v) }
    }

    #[inline(always)]
    fn stream_pairs(self, v: Self::I, s: &mut [u16]) {
        let p = s[..2 * N].as_mut_ptr();
        if !p.addr().is_multiple_of(32) {
            return self.store_pairs(v, s);
        }
        // SAFETY: the slice has 2 N elements (checked), aligned as the instruction needs; the token proves it.
        unsafe { _mm256_stream_si256(p.cast(), v) }
    }

    #[inline(always)]
    fn settle(self) {
        // SAFETY: every processor of this architecture has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_and_si256(a, b) }
    }

    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_or_si256(a, b) }
    }

    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_xor_si256(a, b) }
    }

    #[inline(always)]
    fn ishl<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn ishr<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_srl_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn isar<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(_mm256_cmpeq_epi32(a, b)) }
    }

    #[inline(always)]
    fn mulhilo(self, a: Self::I, b: Self::I) -> (Self::I, Self::I) {
        // SAFETY: the token proves the instructions.
        unsafe {
            let even = _mm256_mul_epu32(a, b);
            let odd = _mm256_mul_epu32(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
            let hi = _mm256_blend_epi32::<0xaa>(_mm256_srli_epi64::<32>(even), odd);
            let lo = _mm256_blend_epi32::<0xaa>(even, _mm256_slli_epi64::<32>(odd));
            (hi, lo)
        }
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castps_si256(a) }
    }

    #[inline(always)]
    fn bits_to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_castsi256_ps(a) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm256_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn load_quads(self, s: &[i8]) -> Self::I {
        let p = s[..4 * N].as_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_loadu_si256(p.cast()) }
    }

    #[inline(always)]
    fn load_i8(self, s: &[i8]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    fn transpose(self, r: [Self::F; 16]) -> [Self::F; 16] {
        let mut t = r;
        // SAFETY: the token proves the instructions.
        unsafe {
            // In 128-bit halves: pairs of rows, then squares of four, then the halves.
            for i in 0..4 {
                t[2 * i] = _mm256_unpacklo_ps(r[2 * i], r[2 * i + 1]);
                t[2 * i + 1] = _mm256_unpackhi_ps(r[2 * i], r[2 * i + 1]);
            }
            let mut u = t;
            for i in 0..2 {
                // Not by `map`: a closure would be compiled without the instruction set, and called.
                let (a, b) = (_mm256_castps_pd(t[4 * i]), _mm256_castps_pd(t[4 * i + 1]));
                let (c, d) = (_mm256_castps_pd(t[4 * i + 2]), _mm256_castps_pd(t[4 * i + 3]));
                u[4 * i] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, c));
                u[4 * i + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, c));
                u[4 * i + 2] = _mm256_castpd_ps(_mm256_unpacklo_pd(b, d));
                u[4 * i + 3] = _mm256_castpd_ps(_mm256_unpackhi_pd(b, d));
            }
            for c in 0..4 {
                t[c] = _mm256_permute2f128_ps::<0x20>(u[c], u[4 + c]);
                t[4 + c] = _mm256_permute2f128_ps::<0x31>(u[c], u[4 + c]);
            }
        }
        t
    }

    #[inline(always)]
    fn prefetch_at(self, address: usize) {
        // SAFETY: a prefetch faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
    }

    #[inline(always)]
    fn prefetch_later_at(self, address: usize) {
        // SAFETY: a prefetch faults at no address.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::without_provenance(address)) }
    }
}
