//! One query tile against all its keys: queries in lanes, keys broadcast.
//!
//! Scores are `[key][lane]`, so maximum and sum run down the keys lane by lane; probabilities
//! overwrite them and are the packed operand of the product with the values. Only the queries
//! are packed.

use super::tiles::MAX_ROWS;
use super::{KEY_TILE, SPLIT};
use crate::arch::{Kernel, Matrix, MatrixMut, Simd, Sink, multiply};
use crate::math;

/// How many lanes a tile has, and the layout of its scratch.
#[derive(Clone, Copy)]
pub(super) struct Lanes(usize);

/// Buffers a tile works in; `[n]` counts rows of `width` floats.
pub(super) struct Work<'a> {
    /// Queries times the factor, `[D]`.
    pub q: &'a mut [f32],
    /// Scores, then probabilities, `[KEY_TILE]`.
    p: &'a mut [f32],
    /// Output of the present split, `[Dv]`.
    o: &'a mut [f32],
    /// Maximum, sum, next maximum and rescale factor of the present split, one row each.
    m: &'a mut [f32],
    l: &'a mut [f32],
    next: &'a mut [f32],
    alpha: &'a mut [f32],
}

/// What a tile leaves: output `[Dv]`, maximum and sum, one row each.
pub(super) struct TileResult<'a> {
    pub o: &'a mut [f32],
    pub m: &'a mut [f32],
    pub l: &'a mut [f32],
}

impl Lanes {
    /// Enough lanes for `rows` queries: 16, 32 or 64. More would only be wasted.
    pub(super) fn new(rows: usize) -> Self {
        Lanes(rows.next_power_of_two().clamp(16, MAX_ROWS))
    }

    pub(super) fn width(self) -> usize {
        self.0
    }

    /// Floats of scratch: bounded by the head sizes, whatever the number of keys.
    pub(super) fn scratch(self, dim: usize, value_dim: usize) -> usize {
        self.0 * (dim + KEY_TILE + 2 * value_dim + 6)
    }

    pub(super) fn split(
        self,
        scratch: &mut [f32],
        dim: usize,
        value_dim: usize,
    ) -> (Work<'_>, TileResult<'_>) {
        let w = self.0;
        let (q, rest) = scratch.split_at_mut(dim * w);
        let (p, rest) = rest.split_at_mut(KEY_TILE * w);
        let (o, rest) = rest.split_at_mut(value_dim * w);
        let (total, rest) = rest.split_at_mut(value_dim * w);
        let (m, rest) = rest.split_at_mut(w);
        let (l, rest) = rest.split_at_mut(w);
        let (next, rest) = rest.split_at_mut(w);
        let (alpha, rest) = rest.split_at_mut(w);
        let (total_m, rest) = rest.split_at_mut(w);
        let total_l = &mut rest[..w];
        (Work { q, p, o, m, l, next, alpha }, TileResult { o: total, m: total_m, l: total_l })
    }

    /// Writes the rows of one head, times `factor`, to the lanes from `first`.
    pub(super) fn pack(self, q: Matrix, first: usize, factor: f32, packed: &mut [f32]) {
        for i in 0..q.rows() {
            let lane = first + i;
            match q.row(i) {
                Some(row) => {
                    for (to, &x) in packed.chunks_exact_mut(self.0).zip(row) {
                        to[lane] = x * factor;
                    }
                }
                None => {
                    for d in 0..q.cols() {
                        packed[d * self.0 + lane] = q.get(i, d) * factor;
                    }
                }
            }
        }
    }

    /// Reads the lanes from `first` into the rows of one head.
    pub(super) fn unpack(self, packed: &[f32], first: usize, mut out: MatrixMut) {
        for i in 0..out.rows() {
            let lane = first + i;
            match out.row(i) {
                Some(row) => {
                    for (to, from) in row.iter_mut().zip(packed.chunks_exact(self.0)) {
                        *to = from[lane];
                    }
                }
                None => {
                    for d in 0..out.cols() {
                        out.set(i, d, packed[d * self.0 + lane]);
                    }
                }
            }
        }
    }
}

/// The computation of one tile.
pub(super) struct QueryTile<'a, 'b, 'c> {
    pub k: Matrix<'a>,
    pub v: Matrix<'a>,
    /// Keys each lane sees: those below its limit.
    pub limits: &'a [usize; MAX_ROWS],
    pub lanes: Lanes,
    pub work: Work<'b>,
    pub result: &'c mut TileResult<'b>,
}

impl Kernel for QueryTile<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let QueryTile { k, v, limits, lanes, mut work, result } = self;
        let width = lanes.0;
        let (mut least, mut most) = (usize::MAX, 0);
        let mut lane = 0;
        while lane < MAX_ROWS {
            least = least.min(limits[lane]);
            most = most.max(limits[lane]);
            lane += 1;
        }
        if most == 0 {
            result.o.fill(0.0);
            result.m.fill(f32::NEG_INFINITY);
            result.l.fill(0.0);
            return;
        }
        let mut split = 0;
        while split < most {
            let end = most.min(split + SPLIT);
            work.m.fill(f32::NEG_INFINITY);
            work.l.fill(0.0);
            let mut first = split;
            while first < end {
                let len = KEY_TILE.min(end - first);
                let partly = (first + len > least).then_some((limits, first));
                key_tile(
                    s,
                    k.slice_rows(first, len),
                    v.slice_rows(first, len),
                    width,
                    partly,
                    first == split,
                    &mut work,
                );
                first += len;
            }
            merge(s, width, split == 0, &mut work, result);
            split = end;
        }
        finish(s, width, result);
    }
}

/// What a partly masked tile needs: the lanes' limits and the tile's first key.
type Mask<'a> = Option<(&'a [usize; MAX_ROWS], usize)>;

/// Scores, softmax and values of one key tile.
#[inline(always)]
fn key_tile<S: Simd>(s: S, k: Matrix, v: Matrix, width: usize, mask: Mask, first: bool, work: &mut Work) {
    let keys = k.rows();
    let p = &mut work.p[..keys * width];
    work.next.copy_from_slice(work.m);
    multiply(s, k, work.q, width, &mut Scores { p, next: work.next, width, count: mask.is_none() });
    if let Some((limits, start)) = mask {
        hide(s, p, width, limits, start, work.next);
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
    match mask {
        // A masked probability is 0, and adding 0 times a finite value changes nothing.
        Some((limits, start)) if !all_finite(v) => {
            values_masked(s, v, p, width, limits, start, first, work.alpha, work.o)
        }
        _ => {
            multiply(s, v.transposed(), p, width, &mut Values { o: work.o, alpha: work.alpha, width, first })
        }
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

/// How many keys from `start` each of the lanes from `lane` sees, as f32 (exact: at most
/// [`KEY_TILE`]).
#[inline(always)]
fn visible<S: Simd>(s: S, limits: &[usize; MAX_ROWS], lane: usize, start: usize) -> S::F {
    let mut seen = [0.0f32; 16];
    let mut i = 0;
    while i < S::LANES {
        seen[i] = limits[lane + i].saturating_sub(start).min(KEY_TILE) as f32;
        i += 1;
    }
    s.load(&seen)
}

/// Sets the scores beyond each lane's limit to -inf, then takes the maximum.
#[inline(always)]
fn hide<S: Simd>(
    s: S,
    p: &mut [f32],
    width: usize,
    limits: &[usize; MAX_ROWS],
    start: usize,
    next: &mut [f32],
) {
    let mut lane = 0;
    while lane < width {
        let seen = visible(s, limits, lane, start);
        let mut m = s.load(&next[lane..]);
        let mut key = 0;
        while key * width < p.len() {
            let at = key * width + lane;
            let kept = s.lt(s.splat(key as f32), seen);
            let x = s.select(kept, s.load(&p[at..]), s.splat(f32::NEG_INFINITY));
            s.store(x, &mut p[at..]);
            m = s.select(kept, s.max(m, x), m);
            key += 1;
        }
        s.store(m, &mut next[lane..]);
        lane += S::LANES;
    }
}

#[inline(always)]
fn all_finite(v: Matrix) -> bool {
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
fn values_masked<S: Simd>(
    s: S,
    v: Matrix,
    p: &[f32],
    width: usize,
    limits: &[usize; MAX_ROWS],
    start: usize,
    first: bool,
    alpha: &[f32],
    o: &mut [f32],
) {
    let mut lane = 0;
    while lane < width {
        let seen = visible(s, limits, lane, start);
        for d in 0..v.cols() {
            let mut acc = s.splat(0.0);
            for j in 0..v.rows() {
                let x = s.fma(s.splat(v.get(j, d)), s.load(&p[j * width + lane..]), acc);
                acc = s.select(s.lt(s.splat(j as f32), seen), x, acc);
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
