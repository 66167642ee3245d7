//! The two products of a key tile, from the memory of the caller: as f32, or as pairs of bfloat16.

use std::marker::PhantomData;
use std::ops::Range;

use half::bf16;

use super::scores::{Factors, Hidden};
use super::{over_head, over_keys};
use crate::arch::{Matrix, Pairs, Simd, Sink, WidePairs, multiply_lanes};
use crate::linalg::rows::{paired, turned, widen, widened};
use crate::math::{Powers, exp2_each};
use crate::tensor::{Element, Row};

/// How scores, probabilities and values are multiplied.
pub(super) trait Products {
    /// What keys and values are stored as.
    type Stored: Element;
    /// Whether products are of pairs of bfloat16. Tiles then begin at even keys, the queries are
    /// as they came, and the scores are yet to be multiplied by the factor.
    const PAIRS: bool;
    /// Lanes that are asked for the keys they see together. Fewer would cut closer, but keys and values in
    /// another form are made again for each.
    const STEP: usize;
    /// What probabilities are as powers of two.
    const POWERS: Powers;

    /// `[key][lane]`: keys times queries, for some of the lanes.
    #[allow(clippy::too_many_arguments)]
    fn scores<S: Simd>(
        s: S,
        k: Matrix<Self::Stored>,
        q: &[f32],
        width: usize,
        lanes: Range<usize>,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    );

    /// The lanes at `lane`: scores become probabilities, as [`values`](Products::values) takes them;
    /// returns the sum of those before key `middle` plus the sum of the rest, each in the order of the keys. Of
    /// pairs `middle` is even, or the number of keys.
    fn probabilities<S: Simd>(
        s: S,
        p: &mut [f32],
        width: usize,
        lane: usize,
        base: S::F,
        middle: usize,
    ) -> S::F;

    /// `[value][lane]`: values times probabilities, for some of the lanes. `hidden` tells which to leave out; a
    /// second chain begins at key `middle`.
    #[allow(clippy::too_many_arguments)]
    fn values<S: Simd>(
        s: S,
        v: Matrix<Self::Stored>,
        p: &[f32],
        width: usize,
        lanes: Range<usize>,
        hidden: Option<Hidden>,
        middle: usize,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    );
}

/// Everything in f32; 16-bit numbers are widened a key tile at a time.
pub(super) struct Wide<T>(PhantomData<T>);

impl<T: Element> Products for Wide<T> {
    type Stored = T;
    const PAIRS: bool = false;
    const STEP: usize = if size_of::<T>() == 4 { 16 } else { 32 };
    const POWERS: Powers = Powers::EXACT;

    #[inline(always)]
    fn scores<S: Simd>(
        s: S,
        k: Matrix<T>,
        q: &[f32],
        width: usize,
        lanes: Range<usize>,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    ) {
        let dim = k.cols();
        multiply_lanes(s, over_head(widened(s, k, room), dim), q, width, lanes, sink);
    }

    #[inline(always)]
    fn probabilities<S: Simd>(
        s: S,
        p: &mut [f32],
        width: usize,
        lane: usize,
        base: S::F,
        middle: usize,
    ) -> S::F {
        let (first, second) = p.split_at_mut(middle * width);
        let first = exponentials(s, first, width, lane, base, Self::POWERS);
        s.add(first, exponentials(s, second, width, lane, base, Self::POWERS))
    }

    #[inline(always)]
    fn values<S: Simd>(
        s: S,
        v: Matrix<T>,
        p: &[f32],
        width: usize,
        lanes: Range<usize>,
        hidden: Option<Hidden>,
        middle: usize,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    ) {
        let v = widened(s, v, room);
        // A hidden probability is 0, and adding 0 times a finite value changes nothing.
        match hidden {
            Some(hidden) if !hidden.values_are_finite(s, v) => {
                hidden.leave_out(s, width, v.cols(), false, sink, OfNumbers { v, p, width })
            }
            _ => multiply_lanes(s, over_keys(v.transposed(), middle), p, width, lanes, sink),
        }
    }
}

/// [`Products::probabilities`] of some keys, with their sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, p: &mut [f32], width: usize, lane: usize, base: S::F, kind: Powers) -> S::F {
    let mut sum = s.splat(0.0);
    let mut at = lane;
    while at + 3 * width < p.len() {
        let e = powers::<S, 4>(s, p, width, at, base, kind);
        for k in 0..4 {
            s.store(e[k], &mut p[at..]);
            sum = s.add(sum, e[k]);
            at += width;
        }
    }
    while at < p.len() {
        let [e] = powers(s, p, width, at, base, kind);
        s.store(e, &mut p[at..]);
        sum = s.add(sum, e);
        at += width;
    }
    sum
}

/// `2^(p - base)` of `K` keys from `at` on, where `base` is the largest score since the last that was NaN. (Where one was,
/// the sum and with it the row are NaN, whatever the other powers are.)
#[inline(always)]
fn powers<S: Simd, const K: usize>(
    s: S,
    p: &[f32],
    width: usize,
    at: usize,
    base: S::F,
    kind: Powers,
) -> [S::F; K] {
    let mut x = [base; K];
    for k in 0..K {
        x[k] = s.sub(s.load(&p[at + k * width..]), base);
    }
    exp2_each(s, x, kind)
}

/// Values and probabilities as numbers.
struct OfNumbers<'a> {
    v: Matrix<'a>,
    p: &'a [f32],
    width: usize,
}

impl<S: Simd> Factors<S> for OfNumbers<'_> {
    #[inline(always)]
    fn get(&self, s: S, d: usize, key: usize, lane: usize) -> (f32, S::F) {
        (self.v.get(key, d), s.load(&self.p[key * self.width + lane..]))
    }
}

/// Values as they are stored, probabilities of two keys in one element.
struct OfPairs<'a> {
    v: Matrix<'a, bf16>,
    p: &'a [f32],
    width: usize,
}

impl<S: Simd> Factors<S> for OfPairs<'_> {
    #[inline(always)]
    fn get(&self, s: S, d: usize, key: usize, lane: usize) -> (f32, S::F) {
        let pair = s.to_bits(s.load(&self.p[key / 2 * self.width + lane..]));
        let p = if key.is_multiple_of(2) { s.lower_bf16(pair) } else { s.upper_bf16(pair) };
        (self.v.get(key, d).to_f32(), p)
    }
}

/// Products of pairs: along the head size for scores, of an even key and the next for values.
/// Probabilities are rounded to bfloat16; values and keys are what they are in memory, widened where products of pairs are
/// no instructions.
pub(super) struct Dots;

impl Products for Dots {
    type Stored = bf16;
    const PAIRS: bool = true;
    const STEP: usize = 32;
    /// The products of all but the tiniest values are normal numbers, which the instruction does not take for zeros.
    const POWERS: Powers = Powers::SHORT;

    #[inline(always)]
    fn scores<S: Simd>(
        s: S,
        k: Matrix<bf16>,
        q: &[f32],
        width: usize,
        lanes: Range<usize>,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    ) {
        if !S::DOTS {
            let keys = WidePairs::of_columns(turned(s, k, room).apart());
            return multiply_lanes(s, keys, q, width, lanes, sink);
        }
        let keys = match Pairs::of_rows(k) {
            Some(pairs) => pairs,
            None => paired(s, k, room),
        };
        multiply_lanes(s, keys, q, width, lanes, sink);
    }

    #[inline(always)]
    fn probabilities<S: Simd>(
        s: S,
        p: &mut [f32],
        width: usize,
        lane: usize,
        base: S::F,
        middle: usize,
    ) -> S::F {
        debug_assert!(middle.is_multiple_of(2) || middle * width >= p.len());
        let (mut from, mut to) = (lane, lane);
        let mut sums = [s.splat(0.0); 2];
        for (sum, end) in sums.iter_mut().zip([middle * width, p.len()]) {
            while from + 3 * width < end {
                let e = powers::<S, 4>(s, p, width, from, base, Self::POWERS);
                *sum = s.add(s.add(s.add(s.add(*sum, e[0]), e[1]), e[2]), e[3]);
                s.store(s.bits_to_f32(s.pair_bf16(e[0], e[1])), &mut p[to..]);
                s.store(s.bits_to_f32(s.pair_bf16(e[2], e[3])), &mut p[to + width..]);
                from += 4 * width;
                to += 2 * width;
            }
            while from < end {
                let [even] = powers(s, p, width, from, base, Self::POWERS);
                *sum = s.add(*sum, even);
                let mut odd = s.splat(0.0);
                if from + width < p.len() {
                    [odd] = powers(s, p, width, from + width, base, Self::POWERS);
                    *sum = s.add(*sum, odd);
                }
                s.store(s.bits_to_f32(s.pair_bf16(even, odd)), &mut p[to..]);
                from += 2 * width;
                to += width;
            }
        }
        s.add(sums[0], sums[1])
    }

    #[inline(always)]
    fn values<S: Simd>(
        s: S,
        v: Matrix<bf16>,
        p: &[f32],
        width: usize,
        lanes: Range<usize>,
        hidden: Option<Hidden>,
        _: usize,
        room: &mut [f32],
        sink: &mut impl Sink<S>,
    ) {
        match hidden {
            Some(hidden) if !hidden.values_are_finite(s, v) => {
                hidden.leave_out(s, width, v.cols(), true, sink, OfPairs { v, p, width })
            }
            _ if S::DOTS => {
                multiply_lanes(s, interleaved(s, v, room, v.cols()).transposed(), p, width, lanes, sink)
            }
            _ => {
                let values = WidePairs::of_columns(exchanged(s, v, room).transposed());
                multiply_lanes(s, values, p, width, lanes, sink)
            }
        }
    }
}

/// Rows as f32, the second of every two first, and a row of zeros before the last where their number is odd.
#[inline(always)]
fn exchanged<'a, S: Simd>(s: S, m: Matrix<bf16>, room: &'a mut [f32]) -> Matrix<'a> {
    let (rows, cols) = (m.rows().next_multiple_of(2), m.cols());
    for j in 0..rows {
        let to = &mut room[(j ^ 1) * cols..][..cols];
        if j == m.rows() {
            to.fill(0.0);
        } else if let Some(row) = m.row(j) {
            widen(s, bf16::row(row), to);
        } else {
            for (d, to) in to.iter_mut().enumerate() {
                *to = m.get(j, d).to_f32();
            }
        }
    }
    Matrix::from_slice(room, rows, cols)
}

/// Pairs of rows: `[row / 2][column]` of `m`, rows `stride` apart with zeros behind the last column, and a row
/// of zeros after an odd end.
#[inline(always)]
pub(super) fn interleaved<'a, S: Simd>(
    s: S,
    m: Matrix<bf16>,
    room: &'a mut [f32],
    stride: usize,
) -> Pairs<'a> {
    const ZEROS: [u16; 16] = [0; 16];
    let cols = m.cols();
    let pairs = m.rows().div_ceil(2);
    for i in 0..pairs {
        let to = &mut room[i * stride..(i + 1) * stride];
        let odd = (2 * i + 1 < m.rows()).then_some(2 * i + 1);
        let mut d = 0;
        if let (Some(Row::Bf16(lower)), upper) = (m.row(2 * i).map(bf16::row), odd.map(|j| m.row(j))) {
            let upper = match upper {
                Some(Some(row)) => bf16::row(row),
                _ => Row::Bf16(&[]),
            };
            let Row::Bf16(upper) = upper else { unreachable!("rows of bfloat16") };
            while d + S::LANES <= cols {
                let upper = if upper.is_empty() { &ZEROS } else { &upper[d..] };
                s.store(s.bits_to_f32(s.interleave(&lower[d..], upper)), &mut to[d..]);
                d += S::LANES;
            }
        }
        while d < cols {
            let upper = odd.map_or(0, |j| u32::from(m.get(j, d).to_bits()));
            to[d] = f32::from_bits(u32::from(m.get(2 * i, d).to_bits()) | upper << 16);
            d += 1;
        }
        to[cols..].fill(0.0);
    }
    Pairs::from_bits(room, pairs, stride)
}
