//! The sum over a row, in an order that is part of the definition.

use crate::arch::Simd;

/// Virtual lanes of a row sum: a multiple of every vector width.
const LANES: usize = 32;

/// Elements summed before the lanes are combined.
pub(super) const BLOCK: usize = 4096;

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
pub(super) fn row_sum<S: Simd>(s: S, x: &[f32], term: impl Term) -> f32 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        total += block_sum(s, block, term);
    }
    total
}

/// The sum of one block.
#[inline(always)]
pub(super) fn block_sum<S: Simd>(s: S, block: &[f32], term: impl Term) -> f32 {
    // LANES / S::LANES of them are used; four lanes is the narrowest vector.
    let mut sums = [s.splat(0.0); LANES / 4];
    let mut groups = block.chunks_exact(LANES);
    for group in &mut groups {
        for v in 0..LANES / S::LANES {
            sums[v] = term.add(s, sums[v], s.load(&group[v * S::LANES..]));
        }
    }
    for (sum, rest) in sums.iter_mut().zip(groups.remainder().chunks(S::LANES)) {
        *sum = term.add(s, *sum, s.load_partial(rest, term.neutral()));
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
