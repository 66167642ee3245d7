//! How the kernel reads a cache of each element type.

use half::{bf16, f16};

use crate::arch::{Simd, Words};

/// An element of a cache. Everything here is exact.
///
/// Keys are read as *words*: 32-bit lanes of [`PACK`](Stored::PACK) elements each, which are
/// transposed together and taken apart afterwards.
pub(super) trait Stored: Copy + Send + Sync + 'static {
    /// Elements a word.
    const PACK: usize;
    /// The first `PACK * LANES` elements of a row as words.
    fn words<S: Simd>(s: S, row: &[Self]) -> S::F;
    /// Element `n` of every word.
    fn element<S: Simd>(s: S, words: S::F, n: usize) -> S::F;
    /// The first `LANES` elements of a row.
    fn lanes<S: Simd>(s: S, row: &[Self]) -> S::F;
    /// [`words`](Stored::words) of a row that is shorter; missing elements are 0.
    fn words_partial<S: Simd>(s: S, row: &[Self]) -> S::F;
    /// [`lanes`](Stored::lanes) of a row that is shorter; missing elements are 0.
    fn lanes_partial<S: Simd>(s: S, row: &[Self]) -> S::F;
    /// The first `LANES` elements of two rows of bfloat16 as pairs.
    fn interleave<S: Simd>(_: S, _: &[Self], _: &[Self]) -> S::I {
        unreachable!("pairs are of bfloat16")
    }
    /// [`interleave`](Stored::interleave) of rows that may be shorter; missing elements are 0.
    fn interleave_partial<S: Simd>(_: S, _: &[Self], _: &[Self]) -> S::I {
        unreachable!("pairs are of bfloat16")
    }
}

impl Stored for f32 {
    const PACK: usize = 1;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[f32]) -> S::F {
        s.load(row)
    }
    #[inline(always)]
    fn element<S: Simd>(_: S, words: S::F, _: usize) -> S::F {
        words
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[f32]) -> S::F {
        s.load(row)
    }
    #[inline(always)]
    fn words_partial<S: Simd>(s: S, row: &[f32]) -> S::F {
        s.load_partial(row, 0.0)
    }
    #[inline(always)]
    fn lanes_partial<S: Simd>(s: S, row: &[f32]) -> S::F {
        s.load_partial(row, 0.0)
    }
}

/// Halves are widened on the way in: taking them apart afterwards would cost more than it saves.
impl Stored for f16 {
    const PACK: usize = 1;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16(row.words())
    }
    #[inline(always)]
    fn element<S: Simd>(_: S, words: S::F, _: usize) -> S::F {
        words
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16(row.words())
    }
    #[inline(always)]
    fn words_partial<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16_partial(row.words())
    }
    #[inline(always)]
    fn lanes_partial<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16_partial(row.words())
    }
}

impl Stored for bf16 {
    const PACK: usize = 2;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.bits_to_f32(s.load_pairs(row.words()))
    }
    #[inline(always)]
    fn element<S: Simd>(s: S, words: S::F, n: usize) -> S::F {
        let bits = s.to_bits(words);
        s.bits_to_f32(if n == 0 { s.ishl::<16>(bits) } else { s.iand(bits, s.isplat(0xffff_0000u32 as i32)) })
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.load_bf16(row.words())
    }
    #[inline(always)]
    fn words_partial<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.bits_to_f32(s.load_pairs_partial(row.words()))
    }
    #[inline(always)]
    fn lanes_partial<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.load_bf16_partial(row.words())
    }
    #[inline(always)]
    fn interleave<S: Simd>(s: S, even: &[bf16], odd: &[bf16]) -> S::I {
        s.interleave(even.words(), odd.words())
    }
    #[inline(always)]
    fn interleave_partial<S: Simd>(s: S, even: &[bf16], odd: &[bf16]) -> S::I {
        let (even, odd) = (s.to_bits(lanes_or_less(s, even)), s.to_bits(lanes_or_less(s, odd)));
        s.ior(s.iand(s.isar::<16>(even), s.isplat(0xffff)), odd)
    }
}

impl Stored for i8 {
    const PACK: usize = 4;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[i8]) -> S::F {
        s.bits_to_f32(s.load_quads(row))
    }
    #[inline(always)]
    fn element<S: Simd>(s: S, words: S::F, n: usize) -> S::F {
        let bits = s.to_bits(words);
        s.to_f32(s.isar::<24>(match n {
            0 => s.ishl::<24>(bits),
            1 => s.ishl::<16>(bits),
            2 => s.ishl::<8>(bits),
            _ => bits,
        }))
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[i8]) -> S::F {
        s.load_i8(row)
    }
    #[inline(always)]
    fn words_partial<S: Simd>(s: S, row: &[i8]) -> S::F {
        s.bits_to_f32(s.load_quads_partial(row))
    }
    #[inline(always)]
    fn lanes_partial<S: Simd>(s: S, row: &[i8]) -> S::F {
        s.load_i8_partial(row)
    }
}

/// The first elements of a row, as many as it has up to `LANES`; missing ones are 0.
#[inline(always)]
pub(super) fn lanes_or_less<S: Simd, T: Stored>(s: S, row: &[T]) -> S::F {
    if row.len() >= S::LANES { T::lanes(s, row) } else { T::lanes_partial(s, row) }
}
