//! The products where what a hidden element meets may hold an infinity or a NaN: steps whose probability is 0
//! are left out instead of adding 0. Slow, and in the order of the products that add all.

use crate::arch::{Matrix, Simd, Sink};
use crate::tensor::Element;

/// Numbers `[row][lane]`.
pub(super) trait Table<S: Simd>: Copy {
    /// Whether the steps of a chain come in pairs, the second of each first.
    const PAIRS: bool;
    fn number(self, s: S, row: usize, lane: usize) -> f32;
    fn vector(self, s: S, row: usize, lane: usize) -> S::F;
}

/// As f32, rows of `width`.
#[derive(Clone, Copy)]
pub(super) struct Numbers<'a> {
    pub x: &'a [f32],
    pub width: usize,
}

impl<S: Simd> Table<S> for Numbers<'_> {
    const PAIRS: bool = false;

    #[inline(always)]
    fn number(self, _: S, row: usize, lane: usize) -> f32 {
        self.x[row * self.width + lane]
    }
    #[inline(always)]
    fn vector(self, s: S, row: usize, lane: usize) -> S::F {
        s.load(&self.x[row * self.width + lane..])
    }
}

/// As bfloat16, two neighbours of a row of `width` in an element.
#[derive(Clone, Copy)]
pub(super) struct Halves<'a> {
    pub x: &'a [f32],
    pub width: usize,
}

impl<S: Simd> Table<S> for Halves<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    fn number(self, _: S, row: usize, lane: usize) -> f32 {
        let at = row * self.width + lane;
        let pair = self.x[at / 2].to_bits();
        f32::from_bits(if at.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 })
    }
    #[inline(always)]
    fn vector(self, s: S, row: usize, lane: usize) -> S::F {
        let mut all = [0.0; 16];
        let mut i = 0;
        while i < S::LANES {
            all[i] = self.number(s, row, lane + i);
            i += 1;
        }
        s.load(&all)
    }
}

/// As bfloat16, two neighbours of a column in an element.
#[derive(Clone, Copy)]
pub(super) struct PairsOfRows<'a> {
    pub x: &'a [f32],
    pub width: usize,
}

impl<S: Simd> Table<S> for PairsOfRows<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    fn number(self, _: S, row: usize, lane: usize) -> f32 {
        let pair = self.x[row / 2 * self.width + lane].to_bits();
        f32::from_bits(if row.is_multiple_of(2) { pair << 16 } else { pair & 0xffff_0000 })
    }
    #[inline(always)]
    fn vector(self, s: S, row: usize, lane: usize) -> S::F {
        let pair = s.to_bits(s.load(&self.x[row / 2 * self.width + lane..]));
        if row.is_multiple_of(2) { s.lower_bf16(pair) } else { s.upper_bf16(pair) }
    }
}

/// The `n`th of `count` steps, if there is one.
#[inline(always)]
fn step(n: usize, count: usize, pairs: bool) -> Option<usize> {
    let step = if pairs { n ^ 1 } else { n };
    (step < count).then_some(step)
}

/// `x rows`: for each of `keys` the chain over `count` rows of `width` lanes.
#[inline(always)]
pub(super) fn keys_skipping<S: Simd, T: Table<S>>(
    s: S,
    p: T,
    x: T,
    rows: impl Table<S>,
    [keys, count, width]: [usize; 3],
    add: &mut impl Sink<S>,
) {
    for j in 0..keys {
        let mut lane = 0;
        while lane < width {
            let mut acc = s.splat(0.0);
            for n in 0..count.next_multiple_of(2) {
                if let Some(i) = step(n, count, T::PAIRS)
                    && p.number(s, j, i) != 0.0
                {
                    acc = s.fma(s.splat(x.number(s, j, i)), rows.vector(s, i, lane), acc);
                }
            }
            add.put(s, j, lane, [[acc]]);
            lane += S::LANES;
        }
    }
}

/// `k^T ds`: for each column of `k` and lane the chain over the keys, a second one from `middle` on.
#[inline(always)]
pub(super) fn queries_skipping<S: Simd, E: Element, T: Table<S>>(
    s: S,
    k: Matrix<E>,
    p: T,
    ds: T,
    middle: usize,
    width: usize,
    add: &mut impl Sink<S>,
) {
    let zero = s.splat(0.0);
    for d in 0..k.cols() {
        let mut lane = 0;
        while lane < width {
            let (mut acc, mut before) = (zero, zero);
            for n in 0..k.rows().next_multiple_of(2) {
                if let Some(j) = step(n, k.rows(), T::PAIRS) {
                    if j == middle {
                        (before, acc) = (acc, zero);
                    }
                    let x = s.fma(s.splat(k.get(j, d).to_f32()), ds.vector(s, j, lane), acc);
                    acc = s.select(s.eq(p.vector(s, j, lane), zero), acc, x);
                }
            }
            add.put(s, d, lane, [[s.add(before, acc)]]);
            lane += S::LANES;
        }
    }
}
