//! What happens to the scores of a key tile before the softmax: soft-cap, ALiBi, bias, mask,
//! ranges.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use ndarray::ArrayView3;

use super::KEY_TILE;
use super::tiles::MAX_ROWS;
use crate::arch::{Matrix, Simd};
use crate::math;

/// The keys each lane sees: `from[lane] .. to[lane]`.
pub(super) struct Ranges {
    pub from: [usize; MAX_ROWS],
    pub to: [usize; MAX_ROWS],
    any: Range<usize>,
    every: Range<usize>,
}

impl Ranges {
    /// Asks for the range of each of `lanes` lanes.
    pub(super) fn new(lanes: usize, range: impl Fn(usize) -> Range<usize>) -> Self {
        let mut all = Ranges {
            from: [0; MAX_ROWS],
            to: [0; MAX_ROWS],
            any: Range { start: usize::MAX, end: 0 },
            every: 0..usize::MAX,
        };
        for lane in 0..lanes {
            let Range { start, end } = range(lane);
            (all.from[lane], all.to[lane]) = (start, end);
            all.every = all.every.start.max(start)..all.every.end.min(end);
            if start < end {
                all.any = all.any.start.min(start)..all.any.end.max(end);
            }
        }
        all
    }

    /// The keys from the first to the last that any lane sees.
    pub(super) fn any_lane(&self) -> Range<usize> {
        if self.any.end == 0 { 0..0 } else { self.any.clone() }
    }

    /// The keys that every lane sees.
    pub(super) fn every_lane(&self) -> Range<usize> {
        self.every.clone()
    }
}

/// One key tile: keys `first .. first + len` of the tile that begins at `origin`.
#[derive(Clone, Copy)]
pub(super) struct KeyTile<'a> {
    pub origin: usize,
    pub first: usize,
    pub len: usize,
    /// Present where not every lane sees every key.
    pub ranges: Option<&'a Ranges>,
}

/// Linear bias by distance, a lane each.
pub(super) struct Alibi {
    /// `fl(-slope * log2 e)`
    pub slope: [f32; MAX_ROWS],
    /// The key position a query stands at; negative before the first key.
    pub position: [i64; MAX_ROWS],
}

/// What happens to the scores of one query tile.
#[derive(Default)]
pub(super) struct Change<'a> {
    /// `fl(cap * log2 e)`: the queries carry `scale / cap`.
    pub cap: Option<f32>,
    pub alibi: Option<Alibi>,
    /// `[heads, queries, Lk]` of this tile.
    pub bias: Option<ArrayView3<'a, f32>>,
    /// `[heads, queries, Lk]` of this tile; 0 hides the element.
    pub mask: Option<ArrayView3<'a, u8>>,
    /// `fl(sink * log2 e)` of each lane.
    pub sinks: Option<[f32; MAX_ROWS]>,
}

impl Change<'_> {
    /// Whether scores stay as they are.
    #[inline(always)]
    pub(super) fn is_none(&self) -> bool {
        self.cap.is_none() && self.alibi.is_none() && !self.has_bias()
    }

    /// Whether a tile needs a buffer for bias or mask.
    #[inline(always)]
    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some() || self.mask.is_some()
    }

    /// Brings bias and mask of a key tile into `[key][lane]` order. False when the mask hides
    /// the whole tile.
    #[inline(always)]
    pub(super) fn load(&self, tile: KeyTile, width: usize, to: &mut [f32]) -> bool {
        !self.has_bias() || self.gather(tile, width, to)
    }

    fn gather(&self, tile: KeyTile, width: usize, to: &mut [f32]) -> bool {
        let to = &mut to[..tile.len * width];
        let mut lanes = 0;
        if let Some(bias) = &self.bias {
            lanes = bias.len_of(ndarray::Axis(0)) * bias.len_of(ndarray::Axis(1));
            for (h, head) in bias.outer_iter().enumerate() {
                let head = Matrix::new(head);
                transpose(head, tile, h * head.rows(), width, to, |to, x| *to = x);
            }
        }
        let mut kept = true;
        if let Some(mask) = &self.mask {
            lanes = mask.len_of(ndarray::Axis(0)) * mask.len_of(ndarray::Axis(1));
            if self.bias.is_none() {
                to.fill(0.0);
            }
            let mut seen = 0;
            for (h, head) in mask.outer_iter().enumerate() {
                let head = Matrix::new(head);
                transpose(head, tile, h * head.rows(), width, to, |to, x: u8| {
                    seen |= x;
                    *to = if x == 0 { f32::NEG_INFINITY } else { *to };
                });
            }
            kept = seen != 0;
        }
        // Lanes without a row: any number that is not left over from elsewhere.
        for row in to.chunks_exact_mut(width) {
            row[lanes..].fill(0.0);
        }
        kept
    }

    /// Changes the scores and takes their maximum. Hidden ones become -inf.
    #[inline(always)]
    pub(super) fn apply<S: Simd>(
        &self,
        s: S,
        tile: KeyTile,
        p: &mut [f32],
        width: usize,
        bias: &[f32],
        next: &mut [f32],
    ) {
        let hidden = s.splat(f32::NEG_INFINITY);
        let log2_e = s.splat(LOG2_E);
        let offset = tile.first - tile.origin;
        let mut lane = 0;
        while lane < width {
            let seen = tile.ranges.map(|r| visible(s, r, lane, tile.origin));
            let alibi = self.alibi.as_ref().map(|a| {
                let mut position = [0.0f32; 16];
                for (to, from) in position[..S::LANES].iter_mut().zip(&a.position[lane..]) {
                    *to = (from - tile.origin as i64) as f32;
                }
                (s.load(&a.slope[lane..]), s.load(&position))
            });
            let mut m = s.load(&next[lane..]);
            let mut row = 0;
            while row < tile.len {
                let at = row * width + lane;
                let key = s.splat((offset + row) as f32);
                let mut x = s.load(&p[at..]);
                if let Some(cap) = self.cap {
                    x = s.mul(math::tanh(s, x), s.splat(cap));
                }
                if let Some((slope, position)) = alibi {
                    x = s.fma(slope, s.abs(s.sub(position, key)), x);
                }
                if !bias.is_empty() {
                    let b = s.load(&bias[at..]);
                    x = s.select(s.eq(b, hidden), hidden, s.fma(b, log2_e, x));
                }
                if let Some((from, to)) = seen {
                    x = s.select(s.lt(key, to), s.select(s.lt(key, from), hidden, x), hidden);
                }
                s.store(x, &mut p[at..]);
                // Hidden scores are the second operand never: max(-inf, m) is m.
                m = s.max(x, m);
                row += 1;
            }
            s.store(m, &mut next[lane..]);
            lane += S::LANES;
        }
    }
}

/// Passes keys of `tile` of every row of `from` to the lanes from `lane`.
fn transpose<T: Copy>(
    from: Matrix<T>,
    tile: KeyTile,
    lane: usize,
    width: usize,
    to: &mut [f32],
    mut put: impl FnMut(&mut f32, T),
) {
    // Blocks small enough for the cache lines of `to` to stay near.
    const BLOCK: usize = 16;
    for (block, to) in to.chunks_mut(BLOCK * width).enumerate() {
        let start = tile.first + block * BLOCK;
        for i in 0..from.rows() {
            let column = to[lane + i..].iter_mut().step_by(width);
            match from.row(i) {
                Some(row) => column.zip(&row[start..]).for_each(|(to, &x)| put(to, x)),
                None => column.enumerate().for_each(|(j, to)| put(to, from.get(i, start + j))),
            }
        }
    }
}

/// The visible range of each of the lanes from `lane`, counted from `origin`, as f32 (exact: at
/// most [`KEY_TILE`]).
#[inline(always)]
fn visible<S: Simd>(s: S, ranges: &Ranges, lane: usize, origin: usize) -> (S::F, S::F) {
    let (mut from, mut to) = ([0.0f32; 16], [0.0f32; 16]);
    let mut i = 0;
    while i < S::LANES {
        from[i] = ranges.from[lane + i].saturating_sub(origin).min(KEY_TILE) as f32;
        to[i] = ranges.to[lane + i].saturating_sub(origin).min(KEY_TILE) as f32;
        i += 1;
    }
    (s.load(&from), s.load(&to))
}

#[inline(always)]
pub(super) fn all_finite(v: Matrix) -> bool {
    let mut ok = true;
    let mut j = 0;
    while j < v.rows() {
        match v.row(j) {
            Some(row) => {
                for x in row {
                    ok &= x.abs() < f32::INFINITY;
                }
            }
            None => {
                for d in 0..v.cols() {
                    ok &= v.get(j, d).abs() < f32::INFINITY;
                }
            }
        }
        j += 1;
    }
    ok
}

/// The product with the values where a masked key holds an infinity or a NaN: masked steps are
/// left out of the chain instead of adding 0.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn values_masked<S: Simd>(
    s: S,
    v: Matrix,
    p: &[f32],
    width: usize,
    tile: KeyTile,
    first: bool,
    bias: &[f32],
    alpha: &[f32],
    o: &mut [f32],
) {
    let offset = tile.first - tile.origin;
    let hidden = s.splat(f32::NEG_INFINITY);
    let mut lane = 0;
    while lane < width {
        let seen = tile.ranges.map(|r| visible(s, r, lane, tile.origin));
        for d in 0..v.cols() {
            let mut acc = s.splat(0.0);
            for j in 0..v.rows() {
                let at = j * width + lane;
                let mut x = s.fma(s.splat(v.get(j, d)), s.load(&p[at..]), acc);
                if let Some((from, to)) = seen {
                    let key = s.splat((offset + j) as f32);
                    x = s.select(s.lt(key, to), s.select(s.lt(key, from), acc, x), acc);
                }
                if !bias.is_empty() {
                    x = s.select(s.eq(s.load(&bias[at..]), hidden), acc, x);
                }
                acc = x;
            }
            let o = &mut o[d * width + lane..];
            if !first {
                acc = s.fma(s.load(o), s.load(&alpha[lane..]), acc);
            }
            s.store(acc, o);
        }
        lane += S::LANES;
    }
}
