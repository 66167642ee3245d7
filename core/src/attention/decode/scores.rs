//! Scores of a key tile, keys in lanes: blocks of keys are transposed, so that each key's chains over d
//! stay in its lane.

use std::f32::consts::LOG2_E;

use ndarray::s;

use super::super::scores::{Change, Ranges};
use super::super::{KEY_TILE, over_head};
use super::soon::Soon;
use super::stored::Stored;
use super::tile::Tile;
use crate::arch::{Matrix, PagedRows, Pairs, Simd, Store, Strip, multiply_lanes};
use crate::math;

/// Keys that are brought into lanes together: as many as give the product chains enough not to wait for
/// each other, and half of the nearest cache at most.
pub(super) const fn block(pairs: bool) -> usize {
    if pairs { 64 } else { 32 }
}

/// Writes `q[r][d] * k[j][d]` over d, in parts, times `factor` where there is one, to `p[r * KEY_TILE + j]`
/// for every key of the tile and asks for the rows of `soon`. Lanes behind the last key repeat it.
///
/// `q` has rows of `stride` numbers. With `DOT` they and the keys are pairs of bfloat16, and a step of the
/// one chain is that of a pair. `room` holds a [`block`] of keys.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn products<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    k: PagedRows<T>,
    tile: &Tile,
    q: &[f32],
    stride: usize,
    factor: Option<f32>,
    p: &mut [f32],
    soon: PagedRows<T>,
    room: &mut [f32],
) {
    let width = block(DOT);
    let mut first = 0;
    while first < tile.len {
        let lanes = width.min((tile.len - first).next_multiple_of(16));
        let mut lane = 0;
        while lane < lanes {
            pack::<S, T, DOT>(s, k, tile, first + lane, &mut room[lane..], width, soon);
            lane += S::LANES;
        }
        let mut to = Store { to: &mut p[first..], width: KEY_TILE, factor };
        if DOT {
            let q = Pairs::from_bits(q, tile.rows, stride).slice_pairs(0, k.cols().div_ceil(2));
            multiply_lanes(s, q, room, width, 0..lanes, &mut to);
        } else {
            let q = Matrix::from_slice(q, tile.rows, stride).slice_cols(0, k.cols());
            multiply_lanes(s, over_head(q, k.cols()), room, width, 0..lanes, &mut to);
        }
        first += lanes;
    }
}

/// Brings the keys from key `j` of the tile on into lanes: `to[d * width + lane]`.
#[inline(always)]
fn pack<S: Simd, T: Stored, const DOT: bool>(
    s: S,
    k: PagedRows<T>,
    tile: &Tile,
    j: usize,
    to: &mut [f32],
    width: usize,
    soon: PagedRows<T>,
) {
    // Where keys end before the lanes do, only the last one.
    let slots = &tile.slots[j.min(tile.len - 1)..tile.len.min(j + S::LANES)];
    let keys = Strip::<T, 16>::new(k, slots);
    let mut ahead = Soon::new(size_of::<T>() * soon.cols());
    for &slot in slots {
        ahead.add(soon.row(slot));
    }
    ahead.over(k.cols().div_ceil(T::PACK * S::LANES));
    let mut d = 0;
    while d < k.cols() {
        ahead.ask(s, 1);
        let mut words = [s.splat(0.0); 16];
        let left = k.cols() - d;
        let mut i = 0;
        if T::PACK * S::LANES <= left {
            let keys = keys.columns(d, T::PACK * S::LANES);
            while i < S::LANES {
                words[i] = T::words(s, keys.row(i));
                i += 1;
            }
        } else {
            let keys = keys.columns(d, left);
            while i < S::LANES {
                words[i] = T::words_partial(s, keys.row(i));
                i += 1;
            }
        }
        words = s.transpose(words);
        if DOT {
            for i in 0..S::LANES.min(left.div_ceil(2)) {
                s.store(words[i], &mut to[(d / 2 + i) * width..]);
            }
        } else {
            for i in 0..S::LANES.min(left.div_ceil(T::PACK)) {
                for n in 0..T::PACK.min(left - i * T::PACK) {
                    s.store(T::element(s, words[i], n), &mut to[(d + i * T::PACK + n) * width..]);
                }
            }
        }
        d += T::PACK * S::LANES;
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
    let mut alibi = None;
    if let Some(a) = &change.alibi {
        alibi = Some((s.splat(a.slope[r]), s.splat((a.position[r] - tile.origin as i64) as f32)));
    }
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
