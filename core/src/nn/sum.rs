//! The sum over a row, in an order that is part of the definition.

use super::lanes::{part, two};
use crate::arch::Simd;
use crate::tensor::Row;

/// Virtual lanes of a row sum: a multiple of every vector width.
const LANES: usize = 32;

/// Elements summed before the lanes are combined.
const BLOCK: usize = 4096;

/// What an element adds to a sum. Implementations are `#[inline(always)]`, which a closure could not be.
pub(super) trait Term: Copy {
    /// What adds nothing.
    fn neutral(self) -> f32;
    /// `sum` and the term of `x`.
    fn add<S: Simd>(self, s: S, sum: S::F, x: S::F) -> S::F;
}

/// The element itself.
#[derive(Clone, Copy)]
pub(super) struct Plain;

impl Term for Plain {
    #[inline(always)]
    fn neutral(self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<S: Simd>(self, s: S, sum: S::F, x: S::F) -> S::F {
        s.add(sum, x)
    }
}

/// The square of the distance from a number.
#[derive(Clone, Copy)]
pub(super) struct Squares(pub f32);

impl Term for Squares {
    #[inline(always)]
    fn neutral(self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn add<S: Simd>(self, s: S, sum: S::F, x: S::F) -> S::F {
        let deviation = s.sub(x, s.splat(self.0));
        s.fma(deviation, deviation, sum)
    }
}

/// Sum over a row of what `term` adds to an accumulator for each element: element `i` goes to virtual
/// lane `i % 32`; a block of 4096 elements combines its lanes by halving (lane `i` += lane `i + 16`, then
/// 8, 4, 2, 1); block sums are added in order.
#[inline(always)]
pub(super) fn row_sum<S: Simd>(s: S, x: Row, term: impl Term) -> f32 {
    let (mut total, mut at) = (0.0, 0);
    // Two blocks at a time: a chain of additions waits for itself.
    while x.len() - at >= 2 * BLOCK {
        let [a, b] = block_sums(s, [x.slice(at, BLOCK), x.slice(at + BLOCK, BLOCK)], term);
        total = total + a + b;
        at += 2 * BLOCK;
    }
    while at < x.len() {
        let len = BLOCK.min(x.len() - at);
        let [sum] = block_sums(s, [x.slice(at, len)], term);
        total += sum;
        at += len;
    }
    total
}

/// The sums of blocks of one length.
#[inline(always)]
fn block_sums<S: Simd, const R: usize>(s: S, x: [Row; R], term: impl Term) -> [f32; R] {
    let (len, mut at) = (x[0].len(), 0);
    // LANES / S::LANES of them are used; four lanes is the narrowest vector.
    let mut sums = [[s.splat(0.0); LANES / 4]; R];
    while at + LANES <= len {
        for v in (0..LANES / S::LANES).step_by(2) {
            for r in 0..R {
                let [a, b] = two(s, x[r], at + v * S::LANES);
                sums[r][v] = term.add(s, sums[r][v], a);
                sums[r][v + 1] = term.add(s, sums[r][v + 1], b);
            }
        }
        at += LANES;
    }
    let mut totals = [0.0; R];
    for r in 0..R {
        let mut at = at;
        for v in 0..LANES / S::LANES {
            if at < len {
                let count = S::LANES.min(len - at);
                sums[r][v] = term.add(s, sums[r][v], part(s, x[r], at, count, term.neutral()));
                at += count;
            }
        }
        let mut lanes = [0.0f32; LANES];
        for v in 0..LANES / S::LANES {
            s.store(sums[r][v], &mut lanes[v * S::LANES..]);
        }
        for half in [16, 8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        totals[r] = lanes[0];
    }
    totals
}
