//! Rows exchanged with columns. The quarters of a vector are its four runs of four lanes: most instructions move lanes
//! within them, others move whole ones.

use std::arch::x86_64::*;

use super::Avx512;

/// See [`Simd::transpose`](super::Simd::transpose).
#[inline(always)]
pub(super) fn transpose<const BF16: bool>(_: Avx512<BF16>, r: [__m512; 16]) -> [__m512; 16] {
    let (mut t, mut u) = (r, r);
    // SAFETY: the token proves the instructions.
    unsafe {
        for i in 0..4 {
            [u[4 * i], u[4 * i + 1], u[4 * i + 2], u[4 * i + 3]] =
                fours(r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
        }
        // Then the quarters themselves: column c of quarter q is row 4 q + c.
        for c in 0..4 {
            let [low, high] = quarters(u[c], u[4 + c]);
            let [low2, high2] = quarters(u[8 + c], u[12 + c]);
            [t[c], t[8 + c]] = quarters(low, low2);
            [t[4 + c], t[12 + c]] = quarters(high, high2);
        }
    }
    t
}

/// See [`Simd::columns`](super::Simd::columns).
#[inline(always)]
pub(super) fn columns<const BF16: bool>(_: Avx512<BF16>, r: [__m512; 8]) -> [__m512; 8] {
    let (mut t, mut u) = (r, r);
    // SAFETY: the token proves the instructions.
    unsafe {
        // Quarter q of u[c] is column 4 q + c of the first four rows, that of u[4 + c] of the last four.
        for i in 0..2 {
            [u[4 * i], u[4 * i + 1], u[4 * i + 2], u[4 * i + 3]] =
                fours(r[4 * i], r[4 * i + 1], r[4 * i + 2], r[4 * i + 3]);
        }
        // Quarters 0 and 2 of a column's vector and of the next one's, then 1 and 3; two of each half of the rows make
        // two columns.
        let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
        let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
        for c in 0..2 {
            let [low, high] = quarters(u[2 * c], u[2 * c + 1]);
            let [low2, high2] = quarters(u[4 + 2 * c], u[4 + 2 * c + 1]);
            t[c] = pick(low, even, low2);
            t[4 + c] = pick(low, odd, low2);
            t[2 + c] = pick(high, even, high2);
            t[6 + c] = pick(high, odd, high2);
        }
    }
    t
}

/// See [`Simd::columns_of_twos`](super::Simd::columns_of_twos).
#[inline(always)]
pub(super) fn columns_of_twos<const BF16: bool>(_: Avx512<BF16>, r: [__m512; 8]) -> [__m512; 8] {
    let (mut t, mut u) = (r, r);
    // SAFETY: the token proves the instructions.
    unsafe {
        for i in 0..4 {
            [t[2 * i], t[2 * i + 1]] = twos(r[2 * i], r[2 * i + 1]);
        }
        // Quarter q of t[2 i] is column 2 q of rows 2 i and 2 i + 1, that of t[2 i + 1] column 2 q + 1.
        for odd in 0..2 {
            let [low, high] = quarters(t[odd], t[2 + odd]);
            let [low2, high2] = quarters(t[4 + odd], t[6 + odd]);
            [u[odd], u[4 + odd]] = quarters(low, low2);
            [u[2 + odd], u[6 + odd]] = quarters(high, high2);
        }
    }
    u
}

/// Rows and columns of the squares of four lanes exchanged, each within its quarter.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn fours(a: __m512, b: __m512, c: __m512, d: __m512) -> [__m512; 4] {
    // SAFETY: as the caller says.
    unsafe {
        let [first, second] = twos(_mm512_unpacklo_ps(a, b), _mm512_unpacklo_ps(c, d));
        let [third, fourth] = twos(_mm512_unpackhi_ps(a, b), _mm512_unpackhi_ps(c, d));
        [first, second, third, fourth]
    }
}

/// The first halves of the quarters of both, side by side, and the second ones.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn twos(a: __m512, b: __m512) -> [__m512; 2] {
    // SAFETY: as the caller says.
    unsafe {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        [_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))]
    }
}

/// Quarters 0 and 2 of both, one vector's after the other's, and quarters 1 and 3.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn quarters(a: __m512, b: __m512) -> [__m512; 2] {
    // SAFETY: as the caller says.
    unsafe { [_mm512_shuffle_f32x4::<0x88>(a, b), _mm512_shuffle_f32x4::<0xdd>(a, b)] }
}

/// Halves of quarters by their numbers, from 8 on those of `b`.
///
/// # Safety
/// The processor has the instructions.
#[inline(always)]
unsafe fn pick(a: __m512, numbers: __m512i, b: __m512) -> __m512 {
    // SAFETY: as the caller says.
    unsafe {
        let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
        _mm512_castpd_ps(_mm512_permutex2var_pd(a, numbers, b))
    }
}
