//! From random words to numbers, a vector of blocks at a time.

use super::philox::{Stream, blocks, keyed_rounds};
use crate::arch::Simd;
use crate::math;

/// `(w + 1/2) / 2^32` rounded once to f32: in (0, 1], all 32 bits used.
#[inline(always)]
fn unit<S: Simd>(s: S, w: S::I) -> S::F {
    let high = s.to_f32(s.ishr::<16>(w));
    let low = s.add(s.to_f32(s.iand(w, s.isplat(0xffff))), s.splat(0.5));
    s.fma(high, s.splat(TWO_POW_M16), s.mul(low, s.splat(TWO_POW_M32)))
}

const TWO_POW_M16: f32 = 1.0 / 65_536.0;
const TWO_POW_M32: f32 = TWO_POW_M16 * TWO_POW_M16;

/// [`unit`] below 1: values that round to 1 become the largest f32 below it.
#[inline(always)]
fn open_unit<S: Simd>(s: S, w: S::I) -> S::F {
    s.min(unit(s, w), s.splat(1.0 - f32::EPSILON / 2.0))
}

/// Two independent normal numbers from two words.
///
/// G. E. P. Box and M. E. Muller, Ann. Math. Stat. 29 (1958). The angle `2 pi w1 / 2^32` is cut
/// into a quadrant and a remainder in integers, so no reduction error arises.
#[inline(always)]
fn box_muller<S: Simd>(s: S, w0: S::I, w1: S::I) -> (S::F, S::F) {
    let r = s.sqrt(s.mul(math::log(s, unit(s, w0)), s.splat(-2.0)));
    let quadrant = s.ishr::<30>(s.iadd(w1, s.isplat(1 << 29)));
    let remainder = s.to_f32(s.isub(w1, s.ishl::<30>(quadrant)));
    let angle = s.mul(remainder, s.splat(TWO_PI_OVER_TWO_POW_32));
    let (sin, cos) = math::sincos_quadrant(s, angle, quadrant);
    // Adding +0 makes every zero a +0.
    (s.fma(r, cos, s.splat(0.0)), s.fma(r, sin, s.splat(0.0)))
}

const TWO_PI_OVER_TWO_POW_32: f32 = std::f32::consts::TAU * TWO_POW_M32;

/// A distribution whose block of four words gives four numbers.
pub(super) trait Distribution: Copy + Send + Sync {
    /// Roughly how many operations a number costs.
    const COST: u64;
    /// The two numbers of half a block. Implementations are `#[inline(always)]`.
    fn pair<S: Simd>(self, s: S, words: [S::I; 2]) -> [S::F; 2];

    /// The four numbers of each lane's block.
    #[inline(always)]
    fn numbers<S: Simd>(self, s: S, [w0, w1, w2, w3]: [S::I; 4]) -> [S::F; 4] {
        let ([n0, n1], [n2, n3]) = (self.pair(s, [w0, w1]), self.pair(s, [w2, w3]));
        [n0, n1, n2, n3]
    }
}

/// Uniform in (0, 1).
#[derive(Clone, Copy)]
pub(super) struct Uniform;

impl Distribution for Uniform {
    const COST: u64 = 24;
    #[inline(always)]
    fn pair<S: Simd>(self, s: S, [w0, w1]: [S::I; 2]) -> [S::F; 2] {
        [open_unit(s, w0), open_unit(s, w1)]
    }
}

/// Normal with mean 0 and variance 1.
#[derive(Clone, Copy)]
pub(super) struct Normal;

impl Distribution for Normal {
    const COST: u64 = 60;
    #[inline(always)]
    fn pair<S: Simd>(self, s: S, [w0, w1]: [S::I; 2]) -> [S::F; 2] {
        box_muller(s, w0, w1).into()
    }
}

/// Fills `out` with the numbers of elements `first_element`, `first_element + 1`, ... of a row.
///
/// `first_element` is a multiple of four and element indices stay below 2^34.
#[inline(always)]
pub(super) fn fill<S: Simd, D: Distribution>(
    s: S,
    d: D,
    stream: Stream,
    first_element: usize,
    out: &mut [f32],
) {
    debug_assert_eq!(first_element % 4, 0);
    let mut block = (first_element / 4) as u32;
    for out in out.chunks_mut(4 * S::LANES) {
        let numbers = d.numbers(s, blocks(s, stream, block));
        if out.len() == 4 * S::LANES {
            s.store_quads(numbers, out);
        } else {
            let mut last = [0.0; 64];
            s.store_quads(numbers, &mut last);
            out.copy_from_slice(&last[..out.len()]);
        }
        block = block.wrapping_add(S::LANES as u32);
    }
}

/// Longest rows of which a vector takes one a lane; longer ones fill vectors with blocks of their own.
pub(crate) const SHORT: usize = 32;

/// Fills `[rows, elements]` with the numbers of whole rows, a row a lane.
#[inline(always)]
pub(super) fn fill_rows<S: Simd, D: Distribution>(
    s: S,
    d: D,
    seeds: &[u64],
    [purpose, draw]: [u32; 2],
    elements: usize,
    out: &mut [f32],
) {
    for (seeds, out) in seeds.chunks(S::LANES).zip(out.chunks_mut(S::LANES * elements)) {
        let (mut low, mut high) = ([0; 16], [0; 16]);
        for ((low, high), seed) in low.iter_mut().zip(&mut high).zip(seeds) {
            (*low, *high) = (*seed as i32, (*seed >> 32) as i32);
        }
        let key = [s.iload(&low), s.iload(&high)];
        let full = out.len() == S::LANES * elements;
        for first in (0..elements).step_by(4) {
            let counter = [(first / 4) as u32, draw, purpose, 0];
            let mut words = [s.isplat(0); 4];
            for (to, word) in words.iter_mut().zip(counter) {
                *to = s.isplat(word as i32);
            }
            let words = keyed_rounds(s, words, key);
            if elements == 2 && full {
                s.store_twos(d.pair(s, [words[0], words[1]]), out);
                continue;
            }
            let numbers = d.numbers(s, words);
            if elements == 4 && full {
                s.store_quads(numbers, out);
                continue;
            }
            let mut quads = [0.0; 64];
            s.store_quads(numbers, &mut quads);
            let width = (elements - first).min(4);
            for (out, quad) in out.chunks_exact_mut(elements).zip(quads.chunks_exact(4)) {
                out[first..first + width].copy_from_slice(&quad[..width]);
            }
        }
    }
}

/// [`normal_chunk`] of whole rows, `[rows, elements]`: the same bits, faster for rows up to [`SHORT`].
#[inline(always)]
pub(crate) fn normal_rows<S: Simd>(
    s: S,
    seeds: &[u64],
    purpose: u32,
    draw: u32,
    elements: usize,
    out: &mut [f32],
) {
    fill_rows(s, Normal, seeds, [purpose, draw], elements, out);
}

/// [`uniform_chunk`] of whole rows, `[rows, elements]`: the same bits, faster for rows up to [`SHORT`].
#[inline(always)]
pub(crate) fn uniform_rows<S: Simd>(
    s: S,
    seeds: &[u64],
    purpose: u32,
    draw: u32,
    elements: usize,
    out: &mut [f32],
) {
    fill_rows(s, Uniform, seeds, [purpose, draw], elements, out);
}

/// Uniform numbers of one row's elements from `first_element` (a multiple of four) on.
#[inline(always)]
pub(crate) fn uniform_chunk<S: Simd>(
    s: S,
    seed: u64,
    purpose: u32,
    draw: u32,
    first_element: usize,
    out: &mut [f32],
) {
    fill(s, Uniform, Stream { seed, purpose, draw }, first_element, out);
}

/// Normal numbers of one row's elements from `first_element` (a multiple of four) on: the
/// building block of kernels that add noise.
#[inline(always)]
pub(crate) fn normal_chunk<S: Simd>(
    s: S,
    seed: u64,
    purpose: u32,
    draw: u32,
    first_element: usize,
    out: &mut [f32],
) {
    fill(s, Normal, Stream { seed, purpose, draw }, first_element, out);
}
