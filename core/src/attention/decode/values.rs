//! The product of a tile's probabilities with its values, value elements in lanes: each chain over
//! the keys stays in its lane.

use std::ops::Range;

use super::super::KEY_TILE;
use super::soon::{ROWS, Soon};
use super::stored::{Stored, lanes_or_less};
use super::tile::Tile;
use crate::arch::{Columns, PagedRows, Simd, Strip};

/// Keys that are read whole before the next: few enough to stay in the nearest cache.
const STRIP: usize = ROWS;

/// `t[r * stride + e] = v[j][e] * p[r][j]` over j, in two chains, the second by way of `second`. Asks for the keys
/// of the tile `next`.
///
/// With `DOT` values are bfloat16, `p[r][i]` is the pair of the probabilities of keys `2 i` and
/// `2 i + 1`, and a step of the one chain is that of a pair.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn products<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    v: PagedRows<T>,
    tile: &Tile,
    p: &[f32],
    t: &mut [f32],
    second: &mut [f32],
    stride: usize,
    soon: PagedRows<T>,
    next: &Tile,
) {
    let middle = tile.middle();
    if DOT || middle == 0 || middle == tile.len {
        return chain::<S, T, DOT>(s, v, tile, 0..tile.len, p, t, stride, soon, next);
    }
    chain::<S, T, DOT>(s, v, tile, 0..middle, p, t, stride, soon, next);
    chain::<S, T, DOT>(s, v, tile, middle..tile.len, p, second, stride, soon, next);
    let mut i = 0;
    while i < tile.rows * stride {
        s.store(s.add(s.load(&t[i..]), s.load(&second[i..])), &mut t[i..]);
        i += S::LANES;
    }
}

/// The chains over some of the keys.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn chain<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    v: PagedRows<T>,
    tile: &Tile,
    keys: Range<usize>,
    p: &[f32],
    t: &mut [f32],
    stride: usize,
    soon: PagedRows<T>,
    next: &Tile,
) {
    let Range { start, end } = keys;
    let mut j = start;
    while j < end {
        let len = STRIP.min(end - j);
        let values = Strip::<T, STRIP>::new(v, &tile.slots[j..j + len]);
        let mut ahead = Soon::new(size_of::<T>() * soon.cols());
        for &slot in &next.slots[j.min(next.len)..next.len.min(j + len)] {
            ahead.add(soon.row(slot));
        }
        // Every row of the tile walks over the values once for each of these.
        let passes = v.cols().div_ceil(4 * S::LANES) * tile.rows.div_ceil(4);
        ahead.over(passes * len);
        let mut e = 0;
        while e < v.cols() {
            let (p, t) = (&p[if DOT { j / 2 } else { j }..], &mut t[e..]);
            let left = v.cols() - e;
            if 4 * S::LANES <= left {
                let values = values.columns(e, 4 * S::LANES);
                columns::<S, T, DOT, 4>(s, values, len, &mut ahead, tile.rows, p, t, stride, j == start);
                e += 4 * S::LANES;
            } else {
                let values = values.columns(e, S::LANES.min(left));
                columns::<S, T, DOT, 1>(s, values, len, &mut ahead, tile.rows, p, t, stride, j == start);
                e += S::LANES;
            }
        }
        j += STRIP;
    }
}

/// The product with `NV` vectors of columns of `len` values, for every row.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn columns<S: Simd, T: Stored, const DOT: bool, const NV: usize>(
    s: S,
    values: Columns<T, STRIP>,
    len: usize,
    ahead: &mut Soon,
    rows: usize,
    p: &[f32],
    t: &mut [f32],
    stride: usize,
    first: bool,
) {
    let mut r = 0;
    while r + 4 <= rows {
        block::<S, T, DOT, NV, 4>(
            s,
            values,
            len,
            ahead,
            &p[r * KEY_TILE..],
            &mut t[r * stride..],
            stride,
            first,
        );
        r += 4;
    }
    if r + 2 <= rows {
        block::<S, T, DOT, NV, 2>(
            s,
            values,
            len,
            ahead,
            &p[r * KEY_TILE..],
            &mut t[r * stride..],
            stride,
            first,
        );
        r += 2;
    }
    if r < rows {
        block::<S, T, DOT, NV, 1>(
            s,
            values,
            len,
            ahead,
            &p[r * KEY_TILE..],
            &mut t[r * stride..],
            stride,
            first,
        );
    }
}

/// `MR` rows of them.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn block<S: Simd, T: Stored, const DOT: bool, const NV: usize, const MR: usize>(
    s: S,
    values: Columns<T, STRIP>,
    len: usize,
    ahead: &mut Soon,
    p: &[f32],
    t: &mut [f32],
    stride: usize,
    first: bool,
) {
    let mut acc = [[s.splat(0.0); NV]; MR];
    let mut rows: [&[f32]; MR] = [&[]; MR];
    for r in 0..MR {
        let steps = if DOT { len.div_ceil(2) } else { len };
        rows[r] = &p[r * KEY_TILE..r * KEY_TILE + steps];
        if !first {
            for n in 0..NV {
                acc[r][n] = s.load(&t[r * stride + n * S::LANES..]);
            }
        }
    }
    if DOT {
        let mut i = 0;
        // What asks for less than a vector calls functions, across which no register keeps its sum.
        while NV > 1 && 2 * i + 1 < len {
            let (even, odd) = (values.row(2 * i), values.row(2 * i + 1));
            let mut x = [s.isplat(0); NV];
            ahead.ask(s, 2);
            for n in 0..NV {
                x[n] = T::interleave(s, &even[n * S::LANES..], &odd[n * S::LANES..]);
            }
            for r in 0..MR {
                let weights = s.isplat(rows[r][i].to_bits() as i32);
                for n in 0..NV {
                    acc[r][n] = s.dot_bf16(acc[r][n], x[n], weights);
                }
            }
            i += 1;
        }
        while 2 * i < len {
            let even = values.row(2 * i);
            let odd = if 2 * i + 1 < len { values.row(2 * i + 1) } else { &[] };
            for n in 0..NV {
                let at = n * S::LANES;
                let x = T::interleave_partial(s, &even[at..], odd.get(at..).unwrap_or_default());
                for r in 0..MR {
                    acc[r][n] = s.dot_bf16(acc[r][n], x, s.isplat(rows[r][i].to_bits() as i32));
                }
            }
            i += 1;
        }
    }
    let mut j = if DOT { len } else { 0 };
    while j < len {
        let value = values.row(j);
        ahead.ask(s, 1);
        let mut x = [s.splat(0.0); NV];
        if NV > 1 {
            for n in 0..NV {
                x[n] = T::lanes(s, &value[n * S::LANES..]);
            }
        } else {
            x[0] = lanes_or_less(s, value);
        }
        for r in 0..MR {
            let weight = s.splat(rows[r][j]);
            for n in 0..NV {
                acc[r][n] = s.fma(x[n], weight, acc[r][n]);
            }
        }
        j += 1;
    }
    for r in 0..MR {
        for n in 0..NV {
            s.store(acc[r][n], &mut t[r * stride + n * S::LANES..]);
        }
    }
}

/// One row's product with hidden keys left out of the chains, for values that are not finite.
#[inline(always)]
pub(super) fn seen_only<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    v: PagedRows<T>,
    tile: &Tile,
    p: &[f32],
    t: &mut [f32],
    sees: impl Fn(usize) -> bool,
) {
    let middle = if DOT { tile.len } else { tile.middle() };
    let mut e = 0;
    while e < v.cols() {
        let (mut acc, mut before) = (s.splat(0.0), s.splat(0.0));
        for step in 0..tile.len.next_multiple_of(2) {
            // The odd key of a pair comes first.
            let j = if DOT { step ^ 1 } else { step };
            if j == middle && !DOT {
                (before, acc) = (acc, s.splat(0.0));
            }
            if j < tile.len && sees(j) {
                let weight = if DOT {
                    let pair = p[j / 2].to_bits();
                    f32::from_bits(if j & 1 == 0 { pair << 16 } else { pair & 0xffff_0000 })
                } else {
                    p[j]
                };
                acc = s.fma(lanes_or_less(s, &v.row(tile.slots[j])[e..]), s.splat(weight), acc);
            }
        }
        s.store(s.add(before, acc), &mut t[e..]);
        e += S::LANES;
    }
}

/// Whether every number is finite.
#[inline(always)]
pub(super) fn all_finite<S: Simd>(s: S, t: &[f32]) -> bool {
    let zero = s.splat(0.0);
    let mut sum = zero;
    let mut i = 0;
    while i < t.len() {
        // 0 times an infinity or a NaN is a NaN, which stays one.
        sum = s.fma(s.load(&t[i..]), zero, sum);
        i += S::LANES;
    }
    let mut lanes = [0.0f32; 16];
    s.store(sum, &mut lanes);
    !lanes.iter().any(|x| x.is_nan())
}
