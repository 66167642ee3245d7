//! Scores of a key tile, keys in lanes: blocks of keys are transposed in registers, so that each
//! key's chain over d stays in its lane.

use std::f32::consts::LOG2_E;

use ndarray::s;

use super::super::KEY_TILE;
use super::super::scores::{Change, Ranges};
use super::stored::Stored;
use super::tile::Tile;
use crate::arch::{PagedRows, Simd};
use crate::math;

/// Writes `chain over d of k[j][d] * q[r][d]` to `p[r * KEY_TILE + j]` for every key of the tile
/// and asks for the rows of `soon`. Lanes behind the last key repeat it.
///
/// `q` has rows of `stride` numbers, zeros behind the last. With `DOT` they and the keys are pairs
/// of bfloat16, and a step of the chain is that of a pair.
#[inline(always)]
pub(super) fn products<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    k: PagedRows<T>,
    tile: &Tile,
    q: &[f32],
    stride: usize,
    p: &mut [f32],
    soon: PagedRows<T>,
) {
    let mut j = 0;
    // Bytes take more arithmetic than memory: two blocks of keys side by side have chains enough not to
    // wait for each other. Other types wait for the memory, and longer for more rows at a time.
    while T::PACK == 4 && j + S::LANES < tile.len {
        keys::<S, T, DOT, 2>(s, k, tile, j, q, stride, &mut p[j..], soon);
        j += 2 * S::LANES;
    }
    while j < tile.len {
        keys::<S, T, DOT, 1>(s, k, tile, j, q, stride, &mut p[j..], soon);
        j += S::LANES;
    }
}

/// `G` blocks of keys from key `j` on.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn keys<S: Simd, T: Stored, const DOT: bool, const G: usize>(
    s: S,
    k: PagedRows<T>,
    tile: &Tile,
    j: usize,
    q: &[f32],
    stride: usize,
    p: &mut [f32],
    soon: PagedRows<T>,
) {
    let (dim, step) = (k.cols(), T::PACK * S::LANES);
    let mut keys: [[&[T]; 16]; G] = [[&[]; 16]; G];
    for g in 0..G {
        let mut i = 0;
        while i < S::LANES {
            let slot = tile.slots[(j + g * S::LANES + i).min(tile.len - 1)];
            keys[g][i] = k.row(slot);
            prefetch_row(s, soon.row(slot));
            i += 1;
        }
    }
    let mut d = 0;
    while d < dim {
        let mut words = [[s.splat(0.0); 16]; G];
        for g in 0..G {
            let mut i = 0;
            if d + step <= dim {
                while i < S::LANES {
                    words[g][i] = T::words(s, &keys[g][i][d..]);
                    i += 1;
                }
            } else {
                while i < S::LANES {
                    words[g][i] = T::words_partial(s, &keys[g][i][d..]);
                    i += 1;
                }
            }
            words[g] = s.transpose(words[g]);
        }
        let (mut q, mut p) = (&q[if DOT { d / 2 } else { d }..], &mut p[..]);
        let mut left = tile.rows;
        while left >= 4 {
            (q, p) = block::<S, T, DOT, 4, G>(s, &words, q, stride, p, d == 0);
            left -= 4;
        }
        if left >= 2 {
            (q, p) = block::<S, T, DOT, 2, G>(s, &words, q, stride, p, d == 0);
            left -= 2;
        }
        if left >= 1 {
            block::<S, T, DOT, 1, G>(s, &words, q, stride, p, d == 0);
        }
        d += step;
    }
}

/// Continues the chains of `MR` query rows by the elements in `words`; gives back what follows
/// those rows in `q` and `p`.
#[inline(always)]
fn block<'q, 'p, S: Simd, T: Stored, const DOT: bool, const MR: usize, const G: usize>(
    s: S,
    words: &[[S::F; 16]; G],
    q: &'q [f32],
    stride: usize,
    p: &'p mut [f32],
    first: bool,
) -> (&'q [f32], &'p mut [f32]) {
    let mut acc = [[s.splat(0.0); G]; MR];
    let mut rows: [&[f32]; MR] = [&[]; MR];
    for r in 0..MR {
        rows[r] = &q[r * stride..r * stride + if DOT { 1 } else { T::PACK } * S::LANES];
        if !first {
            for g in 0..G {
                acc[r][g] = s.load(&p[r * KEY_TILE + g * S::LANES..]);
            }
        }
    }
    for i in 0..S::LANES {
        if DOT {
            for r in 0..MR {
                let weight = s.isplat(rows[r][i].to_bits() as i32);
                for g in 0..G {
                    acc[r][g] = s.dot_bf16(acc[r][g], s.to_bits(words[g][i]), weight);
                }
            }
            continue;
        }
        for n in 0..T::PACK {
            let mut x = [s.splat(0.0); G];
            for g in 0..G {
                x[g] = T::element(s, words[g][i], n);
            }
            for r in 0..MR {
                let weight = s.splat(rows[r][i * T::PACK + n]);
                for g in 0..G {
                    acc[r][g] = s.fma(x[g], weight, acc[r][g]);
                }
            }
        }
    }
    for r in 0..MR {
        for g in 0..G {
            s.store(acc[r][g], &mut p[r * KEY_TILE + g * S::LANES..]);
        }
    }
    (q.get(MR * stride..).unwrap_or_default(), p.get_mut(MR * KEY_TILE..).unwrap_or_default())
}

/// Asks for every cache line of a row.
#[inline(always)]
pub(super) fn prefetch_row<S: Simd, T>(s: S, row: &[T]) {
    let line = 64 / size_of::<T>();
    let mut at = 0;
    while at < row.len() {
        s.prefetch(&row[at..]);
        at += line;
    }
}

/// Applies scales and options to the scores of row `r`, hides what it may not see, and returns
/// the maximum.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn change_row<S: Simd>(
    s: S,
    tile: &Tile,
    r: usize,
    change: &Change,
    ranges: &Ranges,
    scales: Option<&[f32]>,
    bias: &[f32],
    p: &mut [f32],
) -> f32 {
    let hidden = s.splat(f32::NEG_INFINITY);
    let log2_e = s.splat(LOG2_E);
    let offset = tile.first - tile.origin;
    // Counted from the tile's origin; at most KEY_TILE, so exact.
    let from = s.splat(ranges.from[r].saturating_sub(tile.origin).min(KEY_TILE) as f32);
    let to = ranges.to[r].saturating_sub(tile.origin).min(offset + tile.len);
    let to = s.splat(to as f32);
    let alibi = change
        .alibi
        .as_ref()
        .map(|a| (s.splat(a.slope[r]), s.splat((a.position[r] - tile.origin as i64) as f32)));
    let plain = tile.inside && scales.is_none() && change.is_none();
    let mut m = hidden;
    let mut j = 0;
    while j < tile.len {
        let mut x = s.load(&p[j..]);
        if !plain || j + S::LANES > tile.len {
            let key = s.add(s.splat((offset + j) as f32), lane_numbers(s));
            if let Some(scales) = scales {
                x = s.mul(x, s.load(&scales[j..]));
            }
            if let Some(cap) = change.cap {
                x = s.mul(math::tanh(s, x), s.splat(cap));
            }
            if let Some((slope, position)) = alibi {
                x = s.fma(slope, s.abs(s.sub(position, key)), x);
            }
            if !bias.is_empty() {
                let b = s.load(&bias[j..]);
                x = s.select(s.eq(b, hidden), hidden, s.fma(b, log2_e, x));
            }
            x = s.select(s.lt(key, to), s.select(s.lt(key, from), hidden, x), hidden);
            s.store(x, &mut p[j..]);
        }
        m = s.max(x, m);
        j += S::LANES;
    }
    let mut lanes = [f32::NEG_INFINITY; 16];
    s.store(m, &mut lanes);
    let mut m = f32::NEG_INFINITY;
    let mut i = 0;
    while i < S::LANES {
        m = if lanes[i] > m { lanes[i] } else { m };
        i += 1;
    }
    m
}

/// 0, 1, 2, ...
#[inline(always)]
fn lane_numbers<S: Simd>(s: S) -> S::F {
    const NUMBERS: [f32; 16] =
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];
    s.load(&NUMBERS)
}

/// The tile's bias of row `r`, -inf where the mask hides the element.
pub(super) fn bias_row(change: &Change, tile: &Tile, r: usize, to: &mut [f32]) {
    let (h, i) = (r / tile.queries, r % tile.queries);
    let keys = tile.first..tile.first + tile.len;
    match &change.bias {
        Some(bias) => {
            let bias = bias.slice(s![h, i, keys.clone()]);
            match bias.as_slice() {
                Some(bias) => to[..tile.len].copy_from_slice(bias),
                None => bias.iter().zip(&mut *to).for_each(|(&b, to)| *to = b),
            }
        }
        None => to[..tile.len].fill(0.0),
    }
    if let Some(mask) = &change.mask {
        for (to, &seen) in to.iter_mut().zip(mask.slice(s![h, i, keys])) {
            if seen == 0 {
                *to = f32::NEG_INFINITY;
            }
        }
    }
}

/// Whether the mask hides the whole tile.
pub(super) fn all_masked(change: &Change, tile: &Tile) -> bool {
    let keys = tile.first..tile.first + tile.len;
    change.mask.as_ref().is_some_and(|mask| mask.slice(s![.., .., keys]).iter().all(|&seen| seen == 0))
}

/// Whether row `r` sees key `j` of the tile.
pub(super) fn sees(change: &Change, ranges: &Ranges, tile: &Tile, r: usize, j: usize) -> bool {
    let (h, i, key) = (r / tile.queries, r % tile.queries, tile.first + j);
    (ranges.from[r]..ranges.to[r]).contains(&key)
        && change.mask.as_ref().is_none_or(|mask| mask[[h, i, key]] != 0)
        && change.bias.as_ref().is_none_or(|bias| bias[[h, i, key]] != f32::NEG_INFINITY)
}
