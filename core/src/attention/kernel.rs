//! One query tile against all its keys: queries in lanes, keys broadcast.
//!
//! Scores are `[key][lane]`, so maximum and sum run down the keys lane by lane; probabilities
//! overwrite them and are the packed operand of the product with the values. Only the queries
//! are packed.

use super::lanes::{Lanes, TileResult, Work};
use super::scores::{Change, KeyTile, Ranges, all_finite, values_masked};
use super::{KEY_TILE, SPLIT};
use crate::arch::{Kernel, Matrix, Simd, Sink, multiply};
use crate::math;
use crate::tensor::{Element, Row};

/// The computation of one tile.
pub(super) struct QueryTile<'a, 'b, 'c, T> {
    pub k: Matrix<'a, T>,
    pub v: Matrix<'a, T>,
    /// Keys each lane sees.
    pub ranges: &'a Ranges,
    /// What happens to the scores.
    pub change: &'a Change<'a>,
    pub lanes: Lanes,
    pub work: Work<'b>,
    pub result: &'c mut TileResult<'b>,
}

impl<T: Element> Kernel for QueryTile<'_, '_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let QueryTile { k, v, ranges, change, lanes, mut work, result } = self;
        let width = lanes.width();
        let used = ranges.any_lane();
        let shared = ranges.every_lane();
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
                let inside = shared.start <= first && first + len <= shared.end;
                let tile = KeyTile { origin, first, len, ranges: (!inside).then_some(ranges) };
                origin += KEY_TILE;
                if !change.load(tile, width, work.bias) {
                    continue;
                }
                key_tile(
                    s,
                    k.slice_rows(first, len),
                    v.slice_rows(first, len),
                    width,
                    tile,
                    change,
                    !begun,
                    &mut work,
                );
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
        finish(s, width, result);
    }
}

/// Scores, softmax and values of one key tile.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn key_tile<S: Simd, T: Element>(
    s: S,
    k: Matrix<T>,
    v: Matrix<T>,
    width: usize,
    tile: KeyTile,
    change: &Change,
    first: bool,
    work: &mut Work,
) {
    let keys = k.rows();
    let p = &mut work.p[..keys * width];
    work.next.copy_from_slice(work.m);
    let plain = tile.ranges.is_none() && change.is_none();
    let k = widened(s, k, work.wide);
    multiply(s, k, work.q, width, &mut Scores { p, next: work.next, width, count: plain });
    if !plain {
        change.apply(s, tile, p, width, work.bias, work.next);
    }
    let mut lane = 0;
    while lane < width {
        let m = s.load(&work.next[lane..]);
        let base = finite(s, m);
        let alpha = math::exp2(s, s.sub(s.load(&work.m[lane..]), base));
        let mut l = s.mul(s.load(&work.l[lane..]), alpha);
        let mut j = lane;
        while j < p.len() {
            let e = math::exp2(s, s.sub(s.load(&p[j..]), base));
            s.store(e, &mut p[j..]);
            l = s.add(l, e);
            j += width;
        }
        s.store(m, &mut work.m[lane..]);
        s.store(l, &mut work.l[lane..]);
        s.store(alpha, &mut work.alpha[lane..]);
        lane += S::LANES;
    }
    let v = widened(s, v, work.wide);
    // A masked probability is 0, and adding 0 times a finite value changes nothing.
    if (tile.ranges.is_some() || !work.bias.is_empty()) && !all_finite(v) {
        values_masked(s, v, p, width, tile, first, work.bias, work.alpha, work.o);
    } else {
        multiply(s, v.transposed(), p, width, &mut Values { o: work.o, alpha: work.alpha, width, first });
    }
}

/// The matrix as f32: itself, or its elements one row after the other in `buffer`.
#[inline(always)]
fn widened<'a, S: Simd, T: Element>(s: S, m: Matrix<'a, T>, buffer: &'a mut [f32]) -> Matrix<'a> {
    if let Some(m) = m.as_f32() {
        return m;
    }
    let cols = m.cols();
    let mut j = 0;
    while j < m.rows() {
        let to = &mut buffer[j * cols..(j + 1) * cols];
        match m.row(j).map(T::row) {
            Some(Row::F16(row)) => widen_row(s, row, to, |s, x| s.load_f16(x)),
            Some(Row::Bf16(row)) => widen_row(s, row, to, |s, x| s.load_bf16(x)),
            Some(Row::F32(row)) => to.copy_from_slice(row),
            None => {
                for (d, to) in to.iter_mut().enumerate() {
                    *to = m.get(j, d).to_f32();
                }
            }
        }
        j += 1;
    }
    Matrix::from_slice(buffer, m.rows(), cols)
}

#[inline(always)]
fn widen_row<S: Simd>(s: S, row: &[u16], to: &mut [f32], load: impl Fn(S, &[u16]) -> S::F) {
    let mut d = 0;
    while d + S::LANES <= row.len() {
        s.store(load(s, &row[d..]), &mut to[d..]);
        d += S::LANES;
    }
    if d < row.len() {
        let mut rest = [0u16; 16];
        rest[..row.len() - d].copy_from_slice(&row[d..]);
        s.store_partial(load(s, &rest), &mut to[d..]);
    }
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
    count: bool,
}

impl<S: Simd> Sink<S> for Scores<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
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

/// Divides by the sum; 0 where there is none.
#[inline(always)]
fn finish<S: Simd>(s: S, width: usize, result: &mut TileResult) {
    let zero = s.splat(0.0);
    let mut lane = 0;
    while lane < width {
        let l = s.load(&result.l[lane..]);
        let empty = s.eq(l, zero);
        let mut i = lane;
        while i < result.o.len() {
            // Adding +0 turns a negative zero, which could depend on trimming, into +0.
            let o = s.add(s.div(s.load(&result.o[i..]), l), zero);
            s.store(s.select(empty, zero, o), &mut result.o[i..]);
            i += width;
        }
        lane += S::LANES;
    }
}
