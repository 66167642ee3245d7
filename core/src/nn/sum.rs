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
    while at < x.len() {
        let end = x.len().min(at + BLOCK);
        total += block_sum(s, x, at, end, term);
        at = end;
    }
    total
}

/// The sum of one block, the elements from `at` to `end`.
#[inline(always)]
fn block_sum<S: Simd>(s: S, x: Row, mut at: usize, end: usize, term: impl Term) -> f32 {
    // LANES / S::LANES of them are used; four lanes is the narrowest vector.
    let mut sums = [s.splat(0.0); LANES / 4];
    while at + LANES <= end {
        for v in (0..LANES / S::LANES).step_by(2) {
            let [a, b] = two(s, x, at + v * S::LANES);
            sums[v] = term.add(s, sums[v], a);
            sums[v + 1] = term.add(s, sums[v + 1], b);
        }
        at += LANES;
    }
    for v in 0..LANES / S::LANES {
        if at < end {
            let count = S::LANES.min(end - at);
            sums[v] = term.add(s, sums[v], part(s, x, at, count, term.neutral()));
            at += count;
        }
    }
    let mut lanes = [0.0f32; LANES];
    for v in 0..LANES / S::LANES {
        s.store(sums[v], &mut lanes[v * S::LANES..]);
    }
    for half in [16, 8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}
