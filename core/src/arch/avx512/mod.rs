//! AVX-512 with sixteen lanes.

mod bf16;
mod squares;

use std::arch::x86_64::*;
use std::sync::OnceLock;

use super::level::Kernel;
use super::simd::Simd;
const N: usize = 16;
/// Proof that the processor has these instructions, with `BF16` those for bfloat16 among them; made only by [`Avx512::new`].
#[derive(Clone, Copy)]
pub(crate) struct Avx512<const BF16: bool>(());
impl<const BF16: bool> Avx512<BF16> {
    /// The token, where the processor has the instructions.
    pub(crate) fn new() -> Option<Self> {
        let ok = (!BF16 || is_x86_feature_detected!("avx512bf16"))
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512cd")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma");
        ok.then_some(Avx512(()))
    }
}
/// Runs `kernel` compiled for this level.
#[inline]
pub(super) fn run<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx2,fma")]
    fn inner<K: Kernel>(kernel: K, s: Avx512<false>) -> K::Output {
        kernel.run(s)
    }
    match Avx512::new() {
        // SAFETY: the token proves that the enabled features are present.
        Some(s) => unsafe { inner(kernel, s) },
        None => super::level::portably(kernel),
    }
}
/// Whether this is a processor of Intel.
fn is_intel() -> bool {
    // Asking a virtual processor takes microseconds.
    static INTEL: OnceLock<bool> = OnceLock::new();
    *INTEL.get_or_init(|| {
        let vendor = __cpuid(0);
        [vendor.ebx, vendor.edx, vendor.ecx].map(u32::to_le_bytes).as_flattened() == b"GenuineIntel"
    })
}
/// Whether products of pairs of bfloat16 take longer than those of their numbers: processors of Intel begin a vector of
/// them every other cycle and two fused multiply-adds each cycle, those of AMD one and two. Not timed, because the bits
/// of subnormal numbers depend on it.
pub(super) fn dots_are_slow() -> bool {
    #[cfg(test)]
    if let Some(slow) = super::other_dots_tests::chosen() {
        return slow;
    }
    is_intel()
}
/// Runs `kernel` with the instructions for bfloat16 where the processor has them.
#[inline]
pub(super) fn run_bf16<K: Kernel>(kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512bw,avx512cd,avx512dq,avx512vl,avx512bf16,avx2,fma")]
    fn inner<K: Kernel>(kernel: K, s: Avx512<true>) -> K::Output {
        kernel.run(s)
    }
    match Avx512::new() {
        // SAFETY: the token proves that the enabled features are present.
        Some(s) => unsafe { inner(kernel, s) },
        None => run(kernel),
    }
}
impl<const BF16: bool> Simd for Avx512<BF16> {
    const LANES: usize = N;
    const DOTS: bool = BF16;
    // Layers of bfloat16 come here only on other processors than those that ask.
    const MAY_ASK: bool = !BF16;
    type F = __m512;
    type I = __m512i;
    type M = __mmask16;

    #[inline(always)]
    fn asks_ahead(self) -> bool {
        Self::MAY_ASK && is_intel()
    }

    #[inline(always)]
    fn splat(self, x: f32) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_ps(x) }
    }

    #[inline(always)]
    fn load(self, s: &[f32]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_loadu_ps(p) }
    }

    #[inline(always)]
    fn store(self, v: Self::F, s: &mut [f32]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_storeu_ps(p, v) }
    }

    #[inline(always)]
    fn store_quads(self, [a, b, c, d]: [Self::F; 4], s: &mut [f32]) {
        let p = s[..4 * N].as_mut_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe {
            // Quads i, i + 4, i + 8 and i + 12, for i = 0 to 3.
            let ab = (_mm512_castps_pd(_mm512_unpacklo_ps(a, b)), _mm512_castps_pd(_mm512_unpackhi_ps(a, b)));
            let cd = (_mm512_castps_pd(_mm512_unpacklo_ps(c, d)), _mm512_castps_pd(_mm512_unpackhi_ps(c, d)));
            let q0 = _mm512_castpd_ps(_mm512_unpacklo_pd(ab.0, cd.0));
            let q1 = _mm512_castpd_ps(_mm512_unpackhi_pd(ab.0, cd.0));
            let q2 = _mm512_castpd_ps(_mm512_unpacklo_pd(ab.1, cd.1));
            let q3 = _mm512_castpd_ps(_mm512_unpackhi_pd(ab.1, cd.1));
            let (low, high) = (_mm512_shuffle_f32x4::<0x44>(q0, q1), _mm512_shuffle_f32x4::<0xee>(q0, q1));
            let (low2, high2) = (_mm512_shuffle_f32x4::<0x44>(q2, q3), _mm512_shuffle_f32x4::<0xee>(q2, q3));
            _mm512_storeu_ps(p, _mm512_shuffle_f32x4::<0x88>(low, low2));
            _mm512_storeu_ps(p.add(N), _mm512_shuffle_f32x4::<0xdd>(low, low2));
            _mm512_storeu_ps(p.add(2 * N), _mm512_shuffle_f32x4::<0x88>(high, high2));
            _mm512_storeu_ps(p.add(3 * N), _mm512_shuffle_f32x4::<0xdd>(high, high2));
        }
    }

    #[inline(always)]
    fn zip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
            [_mm512_permutex2var_ps(a, low, b), _mm512_permutex2var_ps(a, high, b)]
        }
    }

    #[inline(always)]
    fn unzip(self, [a, b]: [Self::F; 2]) -> [Self::F; 2] {
        // SAFETY: the token proves the instructions.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            [_mm512_permutex2var_ps(a, even, b), _mm512_permutex2var_ps(a, odd, b)]
        }
    }

    #[inline(always)]
    fn add(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn fma(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn sqrt(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sqrt_ps(a) }
    }

    #[inline(always)]
    fn max(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn round(self, a: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_roundscale_ps::<0x08>(a) }
    }

    #[inline(always)]
    fn scale(self, x: Self::F, n: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_scalef_ps(x, n) }
    }

    #[inline(always)]
    fn add_exponent(self, x: Self::F, n: Self::F) -> Self::F {
        self.scale(x, n)
    }

    #[inline(always)]
    fn lt(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b) }
    }

    #[inline(always)]
    fn eq(self, a: Self::F, b: Self::F) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b) }
    }

    #[inline(always)]
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_ps(m, b, a) }
    }

    #[inline(always)]
    fn any(self, m: Self::M) -> bool {
        m != 0
    }

    #[inline(always)]
    fn all(self, m: Self::M) -> bool {
        m == u16::MAX
    }

    #[inline(always)]
    fn isplat(self, x: i32) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_set1_epi32(x) }
    }

    #[inline(always)]
    fn iload(self, s: &[i32]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn load_u16(self, s: &[u16]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    fn load_u8(self, s: &[u8]) -> Self::I {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_cvtepu8_epi32(_mm_loadu_si128(p.cast())) }
    }

    #[inline(always)]
    fn load_pairs(self, s: &[u16]) -> Self::I {
        let p = s[..2 * N].as_ptr();
        // SAFETY: the slice has 2 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn load_f16(self, s: &[u16]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(p.cast())) }
    }

    #[inline(always)]
    fn load_partial(self, s: &[f32], fill: f32) -> Self::F {
        if s.len() >= N {
            return self.load(s);
        }
        if s.is_empty() {
            // Nothing to read, and an address that is not mapped: suppressing its fault takes
            // hundreds of cycles.
            return self.splat(fill);
        }
        let mask = ((1u32 << s.len()) - 1) as u16;
        // SAFETY: only the elements of the slice are read (masked), the token proves the instructions.
        unsafe { _mm512_mask_loadu_ps(_mm512_set1_ps(fill), mask, s.as_ptr()) }
    }

    #[inline(always)]
    fn store_partial(self, v: Self::F, s: &mut [f32]) {
        if s.len() >= N {
            return self.store(v, s);
        }
        let mask = ((1u32 << s.len()) - 1) as u16;
        // SAFETY: only the elements of the slice are written (masked), the token proves the instructions.
        unsafe { _mm512_mask_storeu_ps(s.as_mut_ptr(), mask, v) }
    }

    #[inline(always)]
    fn dot_bf16(self, acc: Self::F, a: Self::I, b: Self::I) -> Self::F {
        if BF16 {
            // SAFETY: the token proves the instructions; the types are different views of 64 bytes.
            unsafe {
                let (a, b) = std::mem::transmute::<(__m512i, __m512i), (__m512bh, __m512bh)>((a, b));
                _mm512_dpbf16_ps(acc, a, b)
            }
        } else {
            let acc = self.fma(self.upper_bf16(a), self.upper_bf16(b), acc);
            self.fma(self.lower_bf16(a), self.lower_bf16(b), acc)
        }
    }

    #[inline(always)]
    fn store_bf16(self, v: Self::F, s: &mut [u16]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe {
            _mm256_storeu_si256(p.cast(), bf16::words(self, v));
        }
    }

    #[inline(always)]
    fn store_f16(self, v: Self::F, s: &mut [u16]) {
        let p = s[..N].as_mut_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm256_storeu_si256(p.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }

    #[inline(always)]
    fn store_bf16_partial(self, v: Self::F, s: &mut [u16]) {
        let mask = u16::MAX.checked_shr((N - s.len().min(N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are written; the token proves the instructions.
        unsafe {
            _mm256_mask_storeu_epi16(s.as_mut_ptr().cast(), mask, bf16::words(self, v));
        }
    }

    #[inline(always)]
    fn store_f16_partial(self, v: Self::F, s: &mut [u16]) {
        let mask = u16::MAX.checked_shr((N - s.len().min(N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are written; the token proves the instructions.
        unsafe {
            let words = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v);
            _mm256_mask_storeu_epi16(s.as_mut_ptr().cast(), mask, words);
        }
    }

    #[inline(always)]
    fn pack_bf16(self, v: [Self::F; 2]) -> Self::I {
        bf16::pack(self, v)
    }

    #[inline(always)]
    fn pair_bf16(self, lower: Self::F, upper: Self::F) -> Self::I {
        bf16::pair(self, lower, upper)
    }

    #[inline(always)]
    fn pair_bf16_exactly(self, lower: Self::F, upper: Self::F) -> Self::I {
        bf16::pair_exactly(self, lower, upper)
    }

    #[inline(always)]
    fn pack_f16(self, [a, b]: [Self::F; 2]) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe {
            let a = _mm512_castsi256_si512(_mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(a));
            _mm512_inserti64x4::<1>(a, _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(b))
        }
    }

    #[inline(always)]
    fn store_pairs(self, v: Self::I, s: &mut [u16]) {
        let p = s[..2 * N].as_mut_ptr();
        // SAFETY: the slice has 2 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }

    #[inline(always)]
    fn stream(self, v: Self::F, s: &mut [f32]) {
        let p = s[..N].as_mut_ptr();
        if !p.addr().is_multiple_of(64) {
            return self.store(v, s);
        }
        // SAFETY: the slice has N elements (checked), aligned as the instruction needs; the token proves it.
        unsafe { _mm512_stream_ps(p, v) }
    }

    #[inline(always)]
    fn stream_pairs(self, v: Self::I, s: &mut [u16]) {
        let p = s[..2 * N].as_mut_ptr();
        if !p.addr().is_multiple_of(64) {
            return self.store_pairs(v, s);
        }
        // SAFETY: the slice has 2 N elements (checked), aligned as the instruction needs; the token proves it.
        unsafe { _mm512_stream_si512(p.cast(), v) }
    }

    #[inline(always)]
    fn settle(self) {
        // SAFETY: every processor of this architecture has the instruction.
        unsafe { _mm_sfence() }
    }

    #[inline(always)]
    fn iadd(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn isub(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sub_epi32(a, b) }
    }

    #[inline(always)]
    fn iand(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_and_si512(a, b) }
    }

    #[inline(always)]
    fn ior(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_or_si512(a, b) }
    }

    #[inline(always)]
    fn ixor(self, a: Self::I, b: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_xor_si512(a, b) }
    }

    #[inline(always)]
    fn ishl<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sll_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn ishr<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_srl_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn isar<const K: i32>(self, a: Self::I) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_sra_epi32(a, _mm_cvtsi32_si128(K)) }
    }

    #[inline(always)]
    fn ieq(self, a: Self::I, b: Self::I) -> Self::M {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cmpeq_epi32_mask(a, b) }
    }

    #[inline(always)]
    fn mulhilo(self, a: Self::I, b: Self::I) -> (Self::I, Self::I) {
        // SAFETY: the token proves the instructions.
        unsafe {
            let even = _mm512_mul_epu32(a, b);
            let odd = _mm512_mul_epu32(_mm512_srli_epi64::<32>(a), _mm512_srli_epi64::<32>(b));
            let hi = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64::<32>(even), odd);
            let lo = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64::<32>(odd));
            (hi, lo)
        }
    }

    #[inline(always)]
    fn to_bits(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castps_si512(a) }
    }

    #[inline(always)]
    fn bits_to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_castsi512_ps(a) }
    }

    #[inline(always)]
    fn to_f32(self, a: Self::I) -> Self::F {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cvtepi32_ps(a) }
    }

    #[inline(always)]
    fn to_i32(self, a: Self::F) -> Self::I {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_cvtps_epi32(a) }
    }

    #[inline(always)]
    fn load_quads(self, s: &[i8]) -> Self::I {
        let p = s[..4 * N].as_ptr();
        // SAFETY: the slice has 4 N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_loadu_si512(p.cast()) }
    }

    #[inline(always)]
    fn load_i8(self, s: &[i8]) -> Self::F {
        let p = s[..N].as_ptr();
        // SAFETY: the slice has N elements (checked), the token proves the instructions; unaligned is allowed.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast()))) }
    }

    #[inline(always)]
    fn transpose(self, rows: [Self::F; 16]) -> [Self::F; 16] {
        squares::transpose(self, rows)
    }

    #[inline(always)]
    fn columns(self, rows: [Self::F; 8]) -> [Self::F; 8] {
        squares::columns(self, rows)
    }

    #[inline(always)]
    fn columns_of_twos(self, rows: [Self::F; 8]) -> [Self::F; 8] {
        squares::columns_of_twos(self, rows)
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

    #[inline(always)]
    fn load_bf16_partial(self, s: &[u16]) -> Self::F {
        let mask = u16::MAX.checked_shr((N - s.len().min(N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are read; the token proves the instructions.
        let words = unsafe { _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, s.as_ptr().cast())) };
        self.bits_to_f32(self.ishl::<16>(words))
    }

    #[inline(always)]
    fn load_f16_partial(self, s: &[u16]) -> Self::F {
        let mask = u16::MAX.checked_shr((N - s.len().min(N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are read; the token proves the instructions.
        unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask, s.as_ptr().cast())) }
    }

    #[inline(always)]
    fn load_i8_partial(self, s: &[i8]) -> Self::F {
        let mask = u16::MAX.checked_shr((N - s.len().min(N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are read; the token proves the instructions.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_maskz_loadu_epi8(mask, s.as_ptr()))) }
    }

    #[inline(always)]
    fn load_pairs_partial(self, s: &[u16]) -> Self::I {
        let mask = u32::MAX.checked_shr((2 * N - s.len().min(2 * N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are read; the token proves the instructions.
        unsafe { _mm512_maskz_loadu_epi16(mask, s.as_ptr().cast()) }
    }

    #[inline(always)]
    fn load_quads_partial(self, s: &[i8]) -> Self::I {
        let mask = u64::MAX.checked_shr((4 * N - s.len().min(4 * N)) as u32).unwrap_or(0);
        // SAFETY: only the elements of the slice are read; the token proves the instructions.
        unsafe { _mm512_maskz_loadu_epi8(mask, s.as_ptr()) }
    }
}
