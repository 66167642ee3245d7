//! A few query rows against a range of keys: each key and value is read once for all rows.

use std::ops::Range;

use ndarray::ArrayView2;

use super::super::cut::MAX_ROWS;
use super::super::products::{Dots, Products, Wide};
use super::super::scores::{Change, Ranges};
use super::super::{KEY_TILE, SPLIT};
use super::scores::{all_masked, bias_row, change_row, sees};
use super::stored::Stored;
use super::tile::{Place, Tile};
use super::{scores, values};
use crate::arch::{Kernel, PagedRows, Simd};
use crate::math;

/// Running maximum and sum of each row, and its output, `rows` times `stride` numbers.
pub(super) struct Part<'w> {
    pub m: &'w mut [f32],
    pub l: &'w mut [f32],
    pub o: &'w mut [f32],
}

impl<'w> Part<'w> {
    /// Floats of a part of `rows` rows.
    pub(super) fn size(rows: usize, stride: usize) -> usize {
        2 * MAX_ROWS + rows * stride
    }

    pub(super) fn split(from: &'w mut [f32]) -> Self {
        let (m, from) = from.split_at_mut(MAX_ROWS);
        let (l, o) = from.split_at_mut(MAX_ROWS);
        Part { m, l, o }
    }

    fn clear(&mut self) {
        self.m.fill(f32::NEG_INFINITY);
        self.l.fill(0.0);
        self.o.fill(0.0);
    }
}

/// The buffers of a tile.
pub(super) struct Work<'w> {
    /// Queries times the factor, rows of `q_stride`, zeros behind the head size.
    pub q: &'w mut [f32],
    /// Scores, then probabilities, rows of [`KEY_TILE`].
    pub p: &'w mut [f32],
    /// A block of keys in lanes.
    pub room: &'w mut [f32],
    /// A tile's product with the values, rows of `stride`, and the second chains of it.
    pub t: &'w mut [f32],
    pub second: &'w mut [f32],
    /// A row's bias, the keys' scales, the values' scales: [`KEY_TILE`] each.
    pub bias: &'w mut [f32],
    pub k_scale: &'w mut [f32],
    pub v_scale: &'w mut [f32],
    /// The split under way.
    pub split: Part<'w>,
}

/// The rows of one kv head against the keys `keys`, from the first to the last that any row sees.
/// The merged splits go to `total`. With `DOT` queries, keys and values are bfloat16 and multiplied in
/// pairs.
pub(super) struct Rows<'a, 'b, 'c, 'w, T, const DOT: bool> {
    pub k: PagedRows<'a, T>,
    pub v: PagedRows<'a, T>,
    /// `[pages, keys a page]` of keys and values, where the cache has them.
    pub scales: Option<[ArrayView2<'a, f32>; 2]>,
    pub place: Place<'a>,
    pub ranges: &'c Ranges,
    pub change: &'c Change<'b>,
    /// What the scores of `DOT` are multiplied by.
    pub factor: f32,
    pub keys: Range<usize>,
    pub rows: usize,
    pub queries: usize,
    pub q_stride: usize,
    pub stride: usize,
    pub work: Work<'w>,
    pub total: &'c mut Part<'w>,
}

impl<T: Stored, const DOT: bool> Kernel for Rows<'_, '_, '_, '_, T, DOT> {
    type Output = ();
    const DOTS: bool = DOT;

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let Range { mut start, end } = self.keys;
        if DOT {
            // Pairs begin at even keys.
            start -= start % 2;
        }
        let every = self.ranges.every_lane();
        let empty = Tile {
            origin: 0,
            first: start,
            len: 0,
            slots: [Default::default(); KEY_TILE],
            inside: false,
            rows: self.rows,
            queries: self.queries,
        };
        // The tile under way and the one whose keys are asked for meanwhile.
        let mut tiles = [empty, empty];
        let mut now = 0;
        let (mut begun, mut merged) = (false, false);
        if start < end {
            tiles[now].seek(self.place, start, end, every.clone());
        }
        while tiles[now].len > 0 {
            let after = tiles[now].first + tiles[now].len;
            if after < end {
                tiles[1 - now].seek(self.place, after, end, every.clone());
            } else {
                tiles[1 - now].len = 0;
            }
            if !all_masked(self.change, &tiles[now]) {
                self.tile(s, &tiles[now], &tiles[1 - now], !begun);
                begun = true;
            }
            if begun && (after == end || after.is_multiple_of(SPLIT)) {
                if merged {
                    merge(s, self.rows, self.stride, self.total, &self.work.split);
                } else {
                    // Merging into nothing: the buffers change places.
                    std::mem::swap(self.total, &mut self.work.split);
                    merged = true;
                }
                begun = false;
            }
            now = 1 - now;
        }
        if !merged {
            self.total.clear();
        }
    }
}

impl<T: Stored, const DOT: bool> Rows<'_, '_, '_, '_, T, DOT> {
    /// Scores, softmax and values of one key tile. `first`: of its split.
    #[inline(always)]
    fn tile<S: Simd>(&mut self, s: S, tile: &Tile, next: &Tile, first: bool) {
        let (rows, stride, w) = (self.rows, self.stride, &mut self.work);
        let Part { m, l, o } = &mut w.split;
        if first {
            m.fill(f32::NEG_INFINITY);
            l.fill(0.0);
        }
        let factor = DOT.then_some(self.factor);
        scores::products::<S, T, DOT>(s, self.k, tile, w.q, self.q_stride, factor, w.p, self.v, w.room);
        if let Some([k, v]) = &self.scales {
            gather(k, tile, w.k_scale);
            gather(v, tile, w.v_scale);
            for at in &next.slots[..next.len] {
                s.prefetch(std::slice::from_ref(&k[[at.page, at.row]]));
                s.prefetch(std::slice::from_ref(&v[[at.page, at.row]]));
            }
        }
        let mut top = [f32::NEG_INFINITY; MAX_ROWS];
        let mut base = [0.0f32; MAX_ROWS];
        let mut alpha = [0.0f32; MAX_ROWS];
        for r in 0..rows {
            let mut bias: &[f32] = &[];
            if self.change.has_bias() {
                bias_row(self.change, tile, r, w.bias);
                bias = w.bias;
            }
            let p = &mut w.p[r * KEY_TILE..(r + 1) * KEY_TILE];
            let scales = self.scales.is_some().then_some(&*w.k_scale);
            let x = change_row(s, tile, r, self.change, self.ranges, scales, bias, p);
            top[r] = if x > m[r] { x } else { m[r] };
        }
        let mut r = 0;
        while r < rows {
            let x = s.load(&top[r..]);
            let b = finite(s, x);
            let a = math::exp2(s, s.sub(s.load(&m[r..]), b));
            s.store(a, &mut alpha[r..]);
            s.store(b, &mut base[r..]);
            s.store(x, &mut m[r..]);
            r += S::LANES;
        }
        for r in 0..rows {
            let p = &mut w.p[r * KEY_TILE..(r + 1) * KEY_TILE];
            let b = s.splat(base[r]);
            let mut j = 0;
            while j < tile.len {
                let kind = if DOT { Dots::POWERS } else { Wide::<f32>::POWERS };
                s.store(math::exp2_above(s, s.sub(s.load(&p[j..]), b), kind), &mut p[j..]);
                j += S::LANES;
            }
        }
        sums(w.p, tile, &alpha, &mut l[..rows]);
        if DOT {
            for r in 0..rows {
                pair_up(s, &mut w.p[r * KEY_TILE..(r + 1) * KEY_TILE], tile.len);
            }
        }
        if self.scales.is_some() {
            for r in 0..rows {
                let p = &mut w.p[r * KEY_TILE..(r + 1) * KEY_TILE];
                let mut j = 0;
                while j < tile.len {
                    s.store(s.mul(s.load(&p[j..]), s.load(&w.v_scale[j..])), &mut p[j..]);
                    j += S::LANES;
                }
            }
        }
        values::products::<S, T, DOT>(s, self.v, tile, w.p, w.t, w.second, stride, self.k, next);
        // A hidden probability is 0, and adding 0 times a finite value changes nothing; where it
        // does, the product is not finite.
        if (!tile.inside || self.change.has_bias()) && !values::all_finite(s, w.t) {
            for r in 0..rows {
                let (p, t) = (&w.p[r * KEY_TILE..], &mut w.t[r * stride..]);
                let (change, ranges) = (self.change, self.ranges);
                values::seen_only::<S, T, DOT>(s, self.v, tile, p, t, |j| sees(change, ranges, tile, r, j));
            }
        }
        for r in 0..rows {
            let a = s.splat(alpha[r]);
            let (o, t) = (&mut o[r * stride..(r + 1) * stride], &w.t[r * stride..(r + 1) * stride]);
            let mut e = 0;
            while e < stride {
                let mut x = s.load(&t[e..]);
                if !first {
                    x = s.fma(s.load(&o[e..]), a, x);
                }
                s.store(x, &mut o[e..]);
                e += S::LANES;
            }
        }
    }
}

/// Probabilities rounded to bfloat16, two keys a number, a zero behind an odd end.
#[inline(always)]
fn pair_up<S: Simd>(s: S, p: &mut [f32], len: usize) {
    // A sum with a NaN makes the row NaN whatever becomes of it here.
    if len % 2 == 1 {
        p[len] = 0.0;
    }
    let mut i = 0;
    while 2 * i < len {
        let (mut even, mut odd) = ([0.0f32; 16], [0.0f32; 16]);
        let from = &p[2 * i..][..2 * S::LANES];
        for n in 0..S::LANES {
            (even[n], odd[n]) = (from[2 * n], from[2 * n + 1]);
        }
        s.store(s.bits_to_f32(s.pair_bf16(s.load(&even), s.load(&odd))), &mut p[i..]);
        i += S::LANES;
    }
}

/// The scales of a tile's keys, a page at a time.
fn gather(scales: &ArrayView2<f32>, tile: &Tile, to: &mut [f32]) {
    let mut j = 0;
    while j < tile.len {
        let at = tile.slots[j];
        let run = (scales.ncols() - at.row).min(tile.len - j);
        let (page, to) = (scales.row(at.page), &mut to[j..j + run]);
        match page.as_slice() {
            Some(page) => to.copy_from_slice(&page[at.row..at.row + run]),
            None => to.iter_mut().zip(page.iter().skip(at.row)).for_each(|(to, &x)| *to = x),
        }
        j += run;
    }
}

/// Adds the probabilities of each row to its sum times `alpha`, in two chains.
#[inline(always)]
fn sums(p: &[f32], tile: &Tile, alpha: &[f32], l: &mut [f32]) {
    let mut r = 0;
    while r + 4 <= l.len() {
        add_rows::<4>(p, tile, r, alpha, l);
        r += 4;
    }
    while r < l.len() {
        add_rows::<1>(p, tile, r, alpha, l);
        r += 1;
    }
}

/// Several rows at once: each chain waits for itself.
#[inline(always)]
fn add_rows<const MR: usize>(p: &[f32], tile: &Tile, first: usize, alpha: &[f32], l: &mut [f32]) {
    let mut rows: [[&[f32]; 2]; MR] = [[&[]; 2]; MR];
    for r in 0..MR {
        rows[r] = p[(first + r) * KEY_TILE..][..tile.len].split_at(tile.middle()).into();
    }
    let [low, high] = [tile.middle(), tile.len - tile.middle()];
    let mut sums = [[0.0f32; 2]; MR];
    for j in 0..low.min(high) {
        for r in 0..MR {
            sums[r][0] += rows[r][0][j];
            sums[r][1] += rows[r][1][j];
        }
    }
    for (half, len) in [low, high].into_iter().enumerate() {
        for j in low.min(high)..len {
            for r in 0..MR {
                sums[r][half] += rows[r][half][j];
            }
        }
    }
    for r in 0..MR {
        l[first + r] = l[first + r].mul_add(alpha[first + r], sums[r][0] + sums[r][1]);
    }
}

/// `m`, or 0 where it is -inf: a row without a score must not compute -inf minus -inf.
#[inline(always)]
fn finite<S: Simd>(s: S, m: S::F) -> S::F {
    s.select(s.eq(m, s.splat(f32::NEG_INFINITY)), s.splat(0.0), m)
}

/// Merges a later part into `total`.
#[inline(always)]
fn merge<S: Simd>(s: S, rows: usize, stride: usize, total: &mut Part, part: &Part) {
    let mut factors = [[0.0f32; MAX_ROWS]; 2];
    let mut r = 0;
    while r < rows {
        let (m1, m2) = (s.load(&total.m[r..]), s.load(&part.m[r..]));
        let m = s.max(m1, m2);
        let base = finite(s, m);
        let a1 = math::exp2(s, s.sub(m1, base));
        let a2 = math::exp2(s, s.sub(m2, base));
        let l = s.fma(s.load(&part.l[r..]), a2, s.mul(s.load(&total.l[r..]), a1));
        s.store(l, &mut total.l[r..]);
        s.store(m, &mut total.m[r..]);
        s.store(a1, &mut factors[0][r..]);
        s.store(a2, &mut factors[1][r..]);
        r += S::LANES;
    }
    for r in 0..rows {
        let (a1, a2) = (s.splat(factors[0][r]), s.splat(factors[1][r]));
        let mut e = r * stride;
        while e < (r + 1) * stride {
            let o = s.fma(s.load(&part.o[e..]), a2, s.mul(s.load(&total.o[e..]), a1));
            s.store(o, &mut total.o[e..]);
            e += S::LANES;
        }
    }
}

/// Merges each row's sink: a split of its own with maximum `sink`, sum 1 and output 0.
#[inline(always)]
fn merge_sinks<S: Simd>(s: S, rows: usize, stride: usize, sinks: &[f32], total: &mut Part) {
    let mut factor = [0.0f32; MAX_ROWS];
    let mut r = 0;
    while r < rows {
        let (m1, m2) = (s.load(&total.m[r..]), s.load(&sinks[r..]));
        let m = s.max(m1, m2);
        let base = finite(s, m);
        let a1 = math::exp2(s, s.sub(m1, base));
        let a2 = math::exp2(s, s.sub(m2, base));
        s.store(s.add(s.mul(s.load(&total.l[r..]), a1), a2), &mut total.l[r..]);
        s.store(m, &mut total.m[r..]);
        s.store(a1, &mut factor[r..]);
        r += S::LANES;
    }
    for r in 0..rows {
        let a1 = s.splat(factor[r]);
        let mut e = r * stride;
        while e < (r + 1) * stride {
            s.store(s.mul(s.load(&total.o[e..]), a1), &mut total.o[e..]);
            e += S::LANES;
        }
    }
}

/// Merges the parts that follow `total` in order, then the sinks, and divides by the sum.
pub(super) struct Finish<'b, 'c, 'w> {
    pub rows: usize,
    pub stride: usize,
    pub parts: &'c mut [f32],
    pub change: &'c Change<'b>,
    pub total: &'c mut Part<'w>,
}

impl Kernel for Finish<'_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Finish { rows, stride, parts, change, total } = self;
        for part in parts.chunks_exact_mut(Part::size(rows, stride)) {
            merge(s, rows, stride, total, &Part::split(part));
        }
        if let Some(sinks) = &change.sinks {
            merge_sinks(s, rows, stride, sinks, total);
        }
        let zero = s.splat(0.0);
        for r in 0..rows {
            let l = s.splat(total.l[r]);
            let empty = s.eq(l, zero);
            let inverse = s.div(s.splat(1.0), l);
            let mut e = r * stride;
            while e < (r + 1) * stride {
                // Adding +0 turns a negative zero into +0.
                let o = s.fma(s.load(&total.o[e..]), inverse, zero);
                s.store(s.select(empty, zero, o), &mut total.o[e..]);
                e += S::LANES;
            }
        }
    }
}
