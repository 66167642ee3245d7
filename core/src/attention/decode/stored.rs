//! How the kernel reads a cache of each element type.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::arch::Simd;

/// An element of a cache. Everything here is exact.
///
/// Keys are read as *words*: 32-bit lanes of [`PACK`](Stored::PACK) elements each, which are
/// transposed together and taken apart afterwards.
pub(super) trait Stored: Copy + Send + Sync + 'static {
    /// Elements a word.
    const PACK: usize;
    /// Zero.
    const ZERO: Self;
    /// The first `PACK * LANES` elements of a row as words.
    fn words<S: Simd>(s: S, row: &[Self]) -> S::F;
    /// Element `n` of every word.
    fn element<S: Simd>(s: S, words: S::F, n: usize) -> S::F;
    /// The first `LANES` elements of a row.
    fn lanes<S: Simd>(s: S, row: &[Self]) -> S::F;
}

impl Stored for f32 {
    const PACK: usize = 1;
    const ZERO: f32 = 0.0;

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
}

/// Halves are widened on the way in: taking them apart afterwards would cost more than it saves.
impl Stored for f16 {
    const PACK: usize = 1;
    const ZERO: f16 = f16::ZERO;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16(row.reinterpret_cast())
    }
    #[inline(always)]
    fn element<S: Simd>(_: S, words: S::F, _: usize) -> S::F {
        words
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[f16]) -> S::F {
        s.load_f16(row.reinterpret_cast())
    }
}

impl Stored for bf16 {
    const PACK: usize = 2;
    const ZERO: bf16 = bf16::ZERO;

    #[inline(always)]
    fn words<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.bits_to_f32(s.load_pairs(row.reinterpret_cast()))
    }
    #[inline(always)]
    fn element<S: Simd>(s: S, words: S::F, n: usize) -> S::F {
        let bits = s.to_bits(words);
        s.bits_to_f32(if n == 0 { s.ishl::<16>(bits) } else { s.iand(bits, s.isplat(0xffff_0000u32 as i32)) })
    }
    #[inline(always)]
    fn lanes<S: Simd>(s: S, row: &[bf16]) -> S::F {
        s.load_bf16(row.reinterpret_cast())
    }
}

impl Stored for i8 {
    const PACK: usize = 4;
    const ZERO: i8 = 0;

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
}

/// [`Stored::words`] of a row that may be shorter; missing elements are 0.
#[inline(always)]
pub(super) fn words_partial<S: Simd, T: Stored>(s: S, row: &[T]) -> S::F {
    if row.len() >= T::PACK * S::LANES {
        return T::words(s, row);
    }
    let mut full = [T::ZERO; 64];
    full[..row.len()].copy_from_slice(row);
    T::words(s, &full)
}

/// [`Stored::lanes`] of a row that may be shorter; missing elements are 0.
#[inline(always)]
pub(super) fn lanes_partial<S: Simd, T: Stored>(s: S, row: &[T]) -> S::F {
    if row.len() >= S::LANES {
        return T::lanes(s, row);
    }
    let mut full = [T::ZERO; 16];
    full[..row.len()].copy_from_slice(row);
    T::lanes(s, &full)
}
