//! Philox4x32-10, a counter-based generator.
//!
//! J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011.

use crate::arch::Simd;

const MULTIPLIER: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: u32 = 10;

/// Four random words from a counter and a key: a bijection of the counter for every key.
///
/// ```
/// // A known answer of the Random123 distribution.
/// let words = dgm_core::random::philox4x32_10([0; 4], [0; 2]);
/// assert_eq!(words, [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
/// ```
pub fn philox4x32_10(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    for round in 0..ROUNDS {
        let [k0, k1] = round_key(key, round);
        let p0 = u64::from(MULTIPLIER[0]) * u64::from(c0);
        let p1 = u64::from(MULTIPLIER[1]) * u64::from(c2);
        let (hi0, hi1) = ((p0 >> 32) as u32, (p1 >> 32) as u32);
        (c0, c1, c2, c3) = (hi1 ^ c1 ^ k0, p1 as u32, hi0 ^ c3 ^ k1, p0 as u32);
    }
    [c0, c1, c2, c3]
}

#[inline(always)]
fn round_key(key: [u32; 2], round: u32) -> [u32; 2] {
    [key[0].wrapping_add(WEYL[0].wrapping_mul(round)), key[1].wrapping_add(WEYL[1].wrapping_mul(round))]
}

/// What tells one stream of a row from another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// The row's seed: the key.
    pub seed: u64,
    /// Third word of the counter.
    pub purpose: u32,
    /// Second word of the counter.
    pub draw: u32,
}

impl Stream {
    #[inline(always)]
    fn key(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The words of one block.
    pub(super) fn words(self, block: u32) -> [u32; 4] {
        philox4x32_10([block, self.draw, self.purpose, 0], self.key())
    }
}

/// The words of blocks `first`, `first + 1`, ...: one block a lane, one word an array element.
#[inline(always)]
pub(super) fn blocks<S: Simd>(s: S, stream: Stream, first: u32) -> [S::I; 4] {
    let c0 = s.iadd(iota(s), s.isplat(first as i32));
    let (c1, c2) = (s.isplat(stream.draw as i32), s.isplat(stream.purpose as i32));
    rounds(s, [c0, c1, c2, s.isplat(0)], stream.key())
}

/// 0, 1, 2, ... in the lanes.
#[inline(always)]
pub(super) fn iota<S: Simd>(s: S) -> S::I {
    const IOTA: [i32; 16] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    s.iload(&IOTA)
}

/// [`philox4x32_10`] of a counter a lane.
#[inline(always)]
pub(super) fn rounds<S: Simd>(s: S, counter: [S::I; 4], key: [u32; 2]) -> [S::I; 4] {
    let mut c = counter;
    for round in 0..ROUNDS {
        let [k0, k1] = round_key(key, round);
        c = one_round(s, c, [s.isplat(k0 as i32), s.isplat(k1 as i32)]);
    }
    c
}

/// [`philox4x32_10`] of a counter and a key a lane.
#[inline(always)]
pub(super) fn keyed_rounds<S: Simd>(s: S, counter: [S::I; 4], key: [S::I; 2]) -> [S::I; 4] {
    let (mut c, [mut k0, mut k1]) = (counter, key);
    for _ in 0..ROUNDS {
        c = one_round(s, c, [k0, k1]);
        k0 = s.iadd(k0, s.isplat(WEYL[0] as i32));
        k1 = s.iadd(k1, s.isplat(WEYL[1] as i32));
    }
    c
}

#[inline(always)]
fn one_round<S: Simd>(s: S, [c0, c1, c2, c3]: [S::I; 4], [k0, k1]: [S::I; 2]) -> [S::I; 4] {
    let (hi0, lo0) = s.mulhilo(s.isplat(MULTIPLIER[0] as i32), c0);
    let (hi1, lo1) = s.mulhilo(s.isplat(MULTIPLIER[1] as i32), c2);
    [s.ixor(s.ixor(hi1, c1), k0), lo1, s.ixor(s.ixor(hi0, c3), k1), lo0]
}
