//! Rounding to bfloat16.

use std::arch::x86_64::*;

use super::super::simd::Simd;
use super::{Avx512, N};

#[repr(align(64))]
struct Words([u16; 2 * N]);

/// The place of the upper word of every lane of two vectors.
static UPPER: Words = {
    let mut words = [0; 2 * N];
    let mut i = 0;
    while i < 2 * N {
        words[i] = 2 * i as u16 + 1;
        i += 1;
    }
    Words(words)
};

/// The places of words of the two halves of a vector, in turn.
static IN_TURN: Words = {
    let mut words = [0; 2 * N];
    let mut i = 0;
    while i < N {
        (words[2 * i], words[2 * i + 1]) = (i as u16, (N + i) as u16);
        i += 1;
    }
    Words(words)
};

impl<const BF16: bool> Avx512<BF16> {
    /// Whether the instruction that rounds to bfloat16 is at hand and right: it takes subnormal numbers for zeros. (So
    /// does this question where the caller's floating-point environment says so, which [`FpEnv`](super::super::FpEnv) ends.)
    #[inline(always)]
    fn rounds_at_once(self, [a, b]: [__m512; 2]) -> bool {
        const SUBNORMAL: i32 = 0x20;
        // SAFETY: the token proves the instructions.
        BF16 && unsafe {
            _mm512_fpclass_ps_mask::<SUBNORMAL>(a) | _mm512_fpclass_ps_mask::<SUBNORMAL>(b) == 0
        }
    }

    /// Lanes whose upper half is the number rounded to bfloat16 (nearest, ties to even; NaN quieted).
    #[inline(always)]
    fn rounded_bf16(self, v: __m512) -> __m512i {
        // SAFETY: the token proves the instructions.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x1_0000));
            let up = _mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_mask_add_epi32(up, odd, bits, _mm512_set1_epi32(0x8000));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            _mm512_mask_or_epi32(rounded, nan, bits, _mm512_set1_epi32(0x40_0000))
        }
    }

    /// Rounded by the instruction of the processor and brought together, `lower` in the lower halves of the lanes.
    #[inline(always)]
    fn paired_at_once(self, lower: __m512, upper: __m512) -> __m512i {
        assert!(BF16);
        // SAFETY: the token proves the instructions; the types are different views of 64 bytes.
        unsafe {
            let halves = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(upper, lower));
            _mm512_permutexvar_epi16(_mm512_load_si512(IN_TURN.0.as_ptr().cast()), halves)
        }
    }

    /// The upper halves of the lanes of both, those of `lower` in the lower halves.
    #[inline(always)]
    fn blended(self, lower: __m512i, upper: __m512i) -> __m512i {
        // SAFETY: the token proves the instructions.
        unsafe { _mm512_mask_blend_epi16(0xaaaa_aaaa, _mm512_srli_epi32::<16>(lower), upper) }
    }
}

/// The bits of a vector, rounded.
#[inline(always)]
pub(super) fn words<const BF16: bool>(s: Avx512<BF16>, v: __m512) -> __m256i {
    // SAFETY: the token proves the instructions; the types are different views of 32 bytes.
    unsafe {
        if s.rounds_at_once([v; 2]) {
            return std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(v));
        }
        _mm512_cvtepi32_epi16(s.ishr::<16>(s.rounded_bf16(v)))
    }
}

/// See [`Simd::pack_bf16`].
#[inline(always)]
pub(super) fn pack<const BF16: bool>(s: Avx512<BF16>, [a, b]: [__m512; 2]) -> __m512i {
    // SAFETY: the token proves the instructions; the types are different views of 64 bytes.
    unsafe {
        if s.rounds_at_once([a, b]) {
            return std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(b, a));
        }
        // The upper word of every lane of both.
        let upper = _mm512_load_si512(UPPER.0.as_ptr().cast());
        _mm512_permutex2var_epi16(s.rounded_bf16(a), upper, s.rounded_bf16(b))
    }
}

/// See [`Simd::pair_bf16`].
#[inline(always)]
pub(super) fn pair<const BF16: bool>(s: Avx512<BF16>, lower: __m512, upper: __m512) -> __m512i {
    if BF16 {
        return s.paired_at_once(lower, upper);
    }
    s.blended(s.round_bf16(lower), s.round_bf16(upper))
}

/// See [`Simd::pair_bf16_exactly`].
#[inline(always)]
pub(super) fn pair_exactly<const BF16: bool>(s: Avx512<BF16>, lower: __m512, upper: __m512) -> __m512i {
    if s.rounds_at_once([lower, upper]) {
        return s.paired_at_once(lower, upper);
    }
    s.blended(s.rounded_bf16(lower), s.rounded_bf16(upper))
}
