//! One query tile against all its keys: queries in lanes, keys broadcast.
//!
//! Scores are `[key][lane]`, so maximum and sum run down the keys lane by lane; probabilities
//! overwrite them and are the packed operand of the product with the values. Only the queries
//! are packed.

use std::ops::Range;

use super::ahead::Ahead;
use super::lanes::{Lanes, TileResult, Work};
use super::products::Products;
use super::scores::{Change, Hidden, KeyTile, Ranges};
use super::{KEY_TILE, SPLIT};
use crate::arch::{Kernel, Matrix, Simd, Sink};
use crate::math;

/// The computation of one tile.
pub(super) struct QueryTile<'a, 'b, 'c, 'o, P: Products> {
    pub k: Matrix<'a, P::Stored>,
    pub v: Matrix<'a, P::Stored>,
    /// Keys each lane sees.
    pub ranges: &'a Ranges,
    /// What happens to the scores.
    pub change: &'a Change<'o>,
    /// What the scores of [`Products::PAIRS`] are multiplied by.
    pub factor: f32,
    pub lanes: Lanes,
    pub work: Work<'b>,
    pub result: &'c mut TileResult<'b>,
    /// What to ask for on the way.
    pub ahead: &'c mut Ahead,
}

impl<P: Products> Kernel for QueryTile<'_, '_, '_, '_, P> {
    type Output = ();
    const DOTS: bool = P::PAIRS;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let QueryTile { k, v, ranges, change, factor, lanes, mut work, result, ahead } = self;
        let width = lanes.width();
        let mut used = ranges.any_lane();
        if P::PAIRS {
            used.start -= used.start % 2;
        }
        let mut merged = false;
        // Key tiles lie at absolute positions; those that no lane sees, and the keys of a tile
        // that no lane sees, are left out: they would change nothing.
        let mut split = used.start / SPLIT * SPLIT;
        while split < used.end {
            let end = used.end.min(split + SPLIT);
            work.m.fill(f32::NEG_INFINITY);
            work.l.fill(0.0);
            let mut begun = false;
            let mut origin = split.max(used.start / KEY_TILE * KEY_TILE);
            while origin < end {
                let first = origin.max(used.start);
                let len = end.min(origin + KEY_TILE) - first;
                let tile = KeyTile::new(origin, first, len, ranges, width);
                origin += KEY_TILE;
                if !change.load(s, tile, width, work.bias, work.p) {
                    continue;
                }
                if !begun && tile.ranges.is_some() {
                    // Not every lane may come to this tile.
                    work.o.fill(0.0);
                    begun = true;
                }
                for piece in tile.pieces(P::STEP, P::PAIRS) {
                    let (k, v) = (k.slice_rows(piece.first, piece.len), v.slice_rows(piece.first, piece.len));
                    let skipped = (piece.first - first) * width;
                    key_tile::<S, P>(
                        s, k, v, factor, width, piece, change, skipped, !begun, &mut work, ahead,
                    );
                }
                begun = true;
            }
            if begun {
                merge(s, width, !merged, &mut work, result);
                merged = true;
            }
            split += SPLIT;
        }
        if !merged {
            result.o.fill(0.0);
            result.m.fill(f32::NEG_INFINITY);
            result.l.fill(0.0);
        }
        if let Some(sinks) = &change.sinks {
            merge_sinks(s, width, sinks, result);
        }
    }
}

/// Scores, softmax and values of one key tile; `skipped` is where its bias begins in the buffer.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn key_tile<S: Simd, P: Products>(
    s: S,
    k: Matrix<P::Stored>,
    v: Matrix<P::Stored>,
    factor: f32,
    width: usize,
    tile: KeyTile,
    change: &Change,
    skipped: usize,
    first: bool,
    work: &mut Work,
    ahead: &mut Ahead,
) {
    let keys = k.rows();
    let p = &mut work.p[..keys * width];
    let lanes = tile.lanes();
    let bias = work.bias.get(skipped..).unwrap_or_default();
    work.next[lanes.clone()].copy_from_slice(&work.m[lanes.clone()]);
    let plain = tile.ranges.is_none() && change.is_none();
    let factor = P::PAIRS.then_some(factor);
    P::scores(
        s,
        k,
        work.q,
        width,
        lanes.clone(),
        work.room,
        &mut Scores { p, next: work.next, width, factor, count: plain, ahead: &mut *ahead },
    );
    if !plain {
        change.apply(s, tile, p, width, bias, work.next);
    }
    let middle = tile.middle();
    let Range { start: mut lane, end } = lanes.clone();
    while lane < end {
        let m = s.load(&work.next[lane..]);
        let base = finite(s, m);
        let alpha = math::exp2(s, s.sub(s.load(&work.m[lane..]), base));
        let sum = P::probabilities(s, p, width, lane, base, middle);
        let l = s.fma(s.load(&work.l[lane..]), alpha, sum);
        s.store(m, &mut work.m[lane..]);
        s.store(l, &mut work.l[lane..]);
        s.store(alpha, &mut work.alpha[lane..]);
        lane += S::LANES;
    }
    let hides = tile.ranges.is_some() || !bias.is_empty();
    let hidden = hides.then_some(Hidden { tile, bias });
    let mut to = Values { o: work.o, alpha: work.alpha, width, first, ahead };
    P::values(s, v, p, width, lanes, hidden, middle, work.room, &mut to);
}

/// `m`, or 0 where it is -inf: a lane without a score must not compute -inf minus -inf.
#[inline(always)]
fn finite<S: Simd>(s: S, m: S::F) -> S::F {
    s.select(s.eq(m, s.splat(f32::NEG_INFINITY)), s.splat(0.0), m)
}

/// Stores scores and takes their maximum on the way.
struct Scores<'a> {
    p: &'a mut [f32],
    next: &'a mut [f32],
    width: usize,
    factor: Option<f32>,
    count: bool,
    ahead: &'a mut Ahead,
}

impl<S: Simd> Sink<S> for Scores<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        mut acc: [[S::F; NV]; MR],
    ) {
        self.ahead.some(s);
        if let Some(factor) = self.factor {
            for row in &mut acc {
                for x in row {
                    *x = s.mul(*x, s.splat(factor));
                }
            }
        }
        for r in 0..MR {
            let p = &mut self.p[(row + r) * self.width + lane..];
            for v in 0..NV {
                s.store(acc[r][v], &mut p[v * S::LANES..]);
            }
        }
        if self.count {
            let next = &mut self.next[lane..];
            for v in 0..NV {
                let mut m = s.load(&next[v * S::LANES..]);
                for row in &acc {
                    m = s.max(m, row[v]);
                }
                s.store(m, &mut next[v * S::LANES..]);
            }
        }
    }
}

/// Rescales the output so far and adds the tile's.
struct Values<'a> {
    o: &'a mut [f32],
    alpha: &'a [f32],
    width: usize,
    /// The first tile of a split has nothing to rescale.
    first: bool,
    ahead: &'a mut Ahead,
}

impl<S: Simd> Sink<S> for Values<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        self.ahead.some(s);
        let alpha = &self.alpha[lane..];
        for r in 0..MR {
            let o = &mut self.o[(row + r) * self.width + lane..];
            for v in 0..NV {
                let i = v * S::LANES;
                let mut sum = acc[r][v];
                if !self.first {
                    sum = s.fma(s.load(&o[i..]), s.load(&alpha[i..]), sum);
                }
                s.store(sum, &mut o[i..]);
            }
        }
    }
}

/// Merges the finished split into the result.
#[inline(always)]
fn merge<'a, S: Simd>(s: S, width: usize, first: bool, work: &mut Work<'a>, result: &mut TileResult<'a>) {
    if first {
        // Merging into nothing: the buffers change places.
        std::mem::swap(&mut result.m, &mut work.m);
        std::mem::swap(&mut result.l, &mut work.l);
        std::mem::swap(&mut result.o, &mut work.o);
        return;
    }
    let mut lane = 0;
    while lane < width {
        let (m1, m2) = (s.load(&result.m[lane..]), s.load(&work.m[lane..]));
        let m = s.max(m1, m2);
        let base = finite(s, m);
        let a1 = math::exp2(s, s.sub(m1, base));
        let a2 = math::exp2(s, s.sub(m2, base));
        let l = s.fma(s.load(&work.l[lane..]), a2, s.mul(s.load(&result.l[lane..]), a1));
        s.store(m, &mut result.m[lane..]);
        s.store(l, &mut result.l[lane..]);
        let mut i = lane;
        while i < result.o.len() {
            let o = s.fma(s.load(&work.o[i..]), a2, s.mul(s.load(&result.o[i..]), a1));
            s.store(o, &mut result.o[i..]);
            i += width;
        }
        lane += S::LANES;
    }
}

/// Merges each lane's sink: a split of its own with maximum `sink`, sum 1 and output 0.
#[inline(always)]
fn merge_sinks<S: Simd>(s: S, width: usize, sinks: &[f32], result: &mut TileResult) {
    let mut lane = 0;
    while lane < width {
        let (m1, m2) = (s.load(&result.m[lane..]), s.load(&sinks[lane..]));
        let m = s.max(m1, m2);
        let base = finite(s, m);
        let a1 = math::exp2(s, s.sub(m1, base));
        let a2 = math::exp2(s, s.sub(m2, base));
        let l = s.add(s.mul(s.load(&result.l[lane..]), a1), a2);
        s.store(m, &mut result.m[lane..]);
        s.store(l, &mut result.l[lane..]);
        let mut i = lane;
        while i < result.o.len() {
            let o = s.mul(s.load(&result.o[i..]), a1);
            s.store(o, &mut result.o[i..]);
            i += width;
        }
        lane += S::LANES;
    }
}
