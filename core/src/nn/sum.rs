//! The sum over a row, in an order that is part of the definition.

use super::blocks::{Bf16, F16, F32, Type};
use super::lanes::part;
use crate::arch::Simd;
use crate::tensor::Row;

/// Virtual lanes of a row sum: a multiple of every vector width.
const LANES: usize = 32;

/// Elements summed before the lanes are combined.
const BLOCK: usize = 4096;

/// What an element adds to a sum. Implementations are `#[inline(always)]`, which a closure could not be.
pub(super) trait Term {
    /// Whether what an element adds does not depend on its place.
    const ANYWHERE: bool;
    /// What adds nothing.
    fn neutral(&self) -> f32;
    /// `sums` and the terms of `x`, which are the elements from `at` on.
    fn add<S: Simd, const K: usize>(&mut self, s: S, sums: [S::F; K], x: [S::F; K], at: usize) -> [S::F; K];
}

/// The element itself.
pub(super) struct Plain;

impl Term for Plain {
    const ANYWHERE: bool = true;
    #[inline(always)]
    fn neutral(&self) -> f32 {
        0.0
    }
    #[inline(always)]
    fn add<S: Simd, const K: usize>(
        &mut self,
        s: S,
        mut sums: [S::F; K],
        x: [S::F; K],
        _: usize,
    ) -> [S::F; K] {
        for k in 0..K {
            sums[k] = s.add(sums[k], x[k]);
        }
        sums
    }
}

/// The square of the distance from a number.
pub(super) struct Squares(pub f32);

impl Term for Squares {
    const ANYWHERE: bool = true;
    #[inline(always)]
    fn neutral(&self) -> f32 {
        self.0
    }
    #[inline(always)]
    fn add<S: Simd, const K: usize>(
        &mut self,
        s: S,
        mut sums: [S::F; K],
        x: [S::F; K],
        _: usize,
    ) -> [S::F; K] {
        for k in 0..K {
            let deviation = s.sub(x[k], s.splat(self.0));
            sums[k] = s.fma(deviation, deviation, sums[k]);
        }
        sums
    }
}

/// Sum over a row of what `term` adds to an accumulator for each element: element `i` goes to virtual
/// lane `i % 32`; a block of 4096 elements combines its lanes by halving (lane `i` += lane `i + 16`, then
/// 8, 4, 2, 1); block sums are added in order.
#[inline(always)]
pub(super) fn row_sum<S: Simd>(s: S, x: Row, mut term: impl Term) -> f32 {
    match x {
        Row::F32(_) => sum_of::<S, F32, _>(s, x, &mut term),
        Row::F16(_) => sum_of::<S, F16, _>(s, x, &mut term),
        Row::Bf16(_) => sum_of::<S, Bf16, _>(s, x, &mut term),
    }
}

/// [`row_sum`] of a row of `T`.
#[inline(always)]
fn sum_of<S: Simd, T: Type, X: Term>(s: S, x: Row, term: &mut X) -> f32 {
    let (mut total, mut at) = (0.0, 0);
    // Two blocks at a time: a chain of additions waits for itself.
    while x.len() - at >= 2 * BLOCK {
        let [a, b] = block_sums::<S, T, X, 2>(s, x, [at, at + BLOCK], BLOCK, term);
        total = total + a + b;
        at += 2 * BLOCK;
    }
    while at < x.len() {
        let len = BLOCK.min(x.len() - at);
        let [sum] = block_sums::<S, T, X, 1>(s, x, [at], len, term);
        total += sum;
        at += len;
    }
    total
}

/// The sums of the blocks of `len` elements that begin at `from`.
#[inline(always)]
fn block_sums<S: Simd, T: Type, X: Term, const R: usize>(
    s: S,
    x: Row,
    from: [usize; R],
    len: usize,
    term: &mut X,
) -> [f32; R] {
    let words = T::words(&x).unwrap_or_default();
    let steps = from.map(|from| words[from..from + len].as_chunks::<LANES>().0);
    // LANES / S::LANES of them are used; four lanes is the narrowest vector.
    let mut sums = [[s.splat(0.0); LANES / 4]; R];
    for step in 0..len / LANES {
        for v in (0..LANES / S::LANES).step_by(2) {
            for r in 0..R {
                let at = v * S::LANES;
                let words = &steps[r][step][at..];
                let two = if X::ANYWHERE { T::both(s, words) } else { T::two(s, words) };
                let both = [sums[r][v], sums[r][v + 1]];
                [sums[r][v], sums[r][v + 1]] = term.add(s, both, two, from[r] + step * LANES + at);
            }
        }
    }
    let mut totals = [0.0; R];
    for r in 0..R {
        let mut lanes = [0.0f32; LANES];
        for v in (0..LANES / S::LANES).step_by(2) {
            let (both, lanes) = ([sums[r][v], sums[r][v + 1]], &mut lanes[v * S::LANES..]);
            if X::ANYWHERE { T::store_both(s, both, lanes) } else { F32::put_two(s, both, lanes, false) }
        }
        let (mut at, end) = (from[r] + len / LANES * LANES, from[r] + len);
        for lanes in lanes.chunks_exact_mut(S::LANES) {
            if at < end {
                let count = S::LANES.min(end - at);
                let x = part(s, x, at, count, term.neutral());
                let [sum] = term.add(s, [s.load(lanes)], [x], at);
                s.store(sum, lanes);
                at += count;
            }
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
