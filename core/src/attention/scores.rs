//! What happens to the scores of a key tile before the softmax: soft-cap, ALiBi, bias, mask,
//! ranges.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use ndarray::ArrayView3;

use super::cut::MAX_ROWS;
use super::rows::{Lane, Pack};
use super::{KEY_TILE, middle};
use crate::arch::{Kernel, Matrix, Simd, Sink};
use crate::linalg::rows::load;
use crate::math;
use crate::tensor::Element;

/// The keys each lane sees: `from[lane] .. to[lane]`.
pub(super) struct Ranges {
    pub from: [usize; MAX_ROWS],
    pub to: [usize; MAX_ROWS],
    any: Range<usize>,
    every: Range<usize>,
}

impl Ranges {
    /// The ranges of the lanes in order; at most [`MAX_ROWS`]. Lanes beyond them repeat the last,
    /// so that they never ask for more keys.
    pub(super) fn new(ranges: impl Iterator<Item = Range<usize>>) -> Self {
        let mut all = Ranges {
            from: [0; MAX_ROWS],
            to: [0; MAX_ROWS],
            any: Range { start: usize::MAX, end: 0 },
            every: 0..usize::MAX,
        };
        let mut count = 0;
        for (lane, Range { start, end }) in ranges.enumerate() {
            (all.from[lane], all.to[lane]) = (start, end);
            all.every = all.every.start.max(start)..all.every.end.min(end);
            if start < end {
                all.any = all.any.start.min(start)..all.any.end.max(end);
            }
            count = lane + 1;
        }
        if let Some(last) = count.checked_sub(1) {
            let (from, to) = (all.from[last], all.to[last]);
            all.from[count..].fill(from);
            all.to[count..].fill(to);
        }
        all
    }

    /// The same range for every lane.
    pub(super) fn uniform(keys: usize) -> Self {
        Ranges { from: [0; MAX_ROWS], to: [keys; MAX_ROWS], any: 0..keys, every: 0..keys }
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

/// One key tile: keys `first .. first + len` of the tile that begins at `origin`, for some of the lanes.
#[derive(Clone, Copy)]
pub(super) struct KeyTile<'a> {
    pub origin: usize,
    pub first: usize,
    pub len: usize,
    pub lane: usize,
    pub lanes: usize,
    /// Present where not every one of the lanes sees every key.
    pub ranges: Option<&'a Ranges>,
    /// The keys that every one of the lanes sees.
    every: (usize, usize),
}

impl<'a> KeyTile<'a> {
    /// Keys `first .. first + len` for the first `width` lanes, which are all that count.
    pub(super) fn new(origin: usize, first: usize, len: usize, ranges: &'a Ranges, width: usize) -> Self {
        let every = ranges.every_lane();
        let every = (every.start, every.end);
        let inside = every.0 <= first && first + len <= every.1;
        KeyTile { origin, first, len, lane: 0, lanes: width, ranges: (!inside).then_some(ranges), every }
    }

    pub(super) fn lanes(&self) -> Range<usize> {
        self.lane..self.lane + self.lanes
    }

    /// Keys before the middle of the tile.
    #[inline(always)]
    pub(super) fn middle(&self) -> usize {
        middle(self.origin, self.first).min(self.len)
    }

    /// Cuts a tile into lanes that see the same keys of it, as far as `step` lanes at a time can tell, with
    /// those keys; the first of them is even where they count in `pairs`.
    pub(super) fn pieces(self, step: usize, pairs: bool) -> impl Iterator<Item = KeyTile<'a>> {
        let (whole, all) = (self.ranges.is_none().then_some(self), self.ranges);
        let mut lane = self.lane;
        let cut = std::iter::from_fn(move || {
            let ranges = all?;
            let mut piece: Option<KeyTile> = None;
            while lane < self.lane + self.lanes {
                let lanes = step.min(self.lane + self.lanes - lane);
                let next = self.of_lanes(ranges, lane, lanes, pairs);
                match &mut piece {
                    Some(p) if (p.first, p.len) != (next.first, next.len) => break,
                    Some(p) => {
                        p.lanes += lanes;
                        p.every = (p.every.0.max(next.every.0), p.every.1.min(next.every.1));
                        p.ranges = p.ranges.or(next.ranges);
                    }
                    None if next.len > 0 => piece = Some(next),
                    None => {}
                }
                lane += lanes;
            }
            piece
        });
        whole.into_iter().chain(cut)
    }

    fn of_lanes(self, ranges: &'a Ranges, lane: usize, lanes: usize, pairs: bool) -> KeyTile<'a> {
        let end = self.first + self.len;
        let (mut any, mut every) = ((end, self.first), (0, usize::MAX));
        for i in lane..lane + lanes {
            let (from, to) = (ranges.from[i], ranges.to[i]);
            every = (every.0.max(from), every.1.min(to));
            if from.max(self.first) < to.min(end) {
                any = (any.0.min(from.max(self.first)), any.1.max(to.min(end)));
            }
        }
        if pairs {
            any.0 -= any.0 % 2;
        }
        let len = any.1.saturating_sub(any.0);
        let inside = every.0 <= any.0 && any.1 <= every.1;
        KeyTile { first: any.0, len, lane, lanes, ranges: (!inside).then_some(ranges), every, ..self }
    }

    /// The keys, counted from the first, that every lane sees.
    #[inline(always)]
    fn shared(&self) -> Range<usize> {
        let every = if self.ranges.is_some() { self.every } else { (0, usize::MAX) };
        let end = every.1.clamp(self.first, self.first + self.len) - self.first;
        (every.0.max(self.first) - self.first).min(end)..end
    }
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

    /// Brings bias and mask of a key tile into `[key][lane]` order, by way of `room`. False when
    /// the whole tile is hidden.
    #[inline(always)]
    pub(super) fn load<S: Simd>(
        &self,
        s: S,
        tile: KeyTile,
        width: usize,
        to: &mut [f32],
        room: &mut [f32],
    ) -> bool {
        match (self.bias, self.mask) {
            (None, None) => return true,
            (Some(bias), None) => gather(s, bias, tile, width, to),
            (None, Some(mask)) => gather(s, mask, tile, width, to),
            (Some(bias), Some(mask)) => {
                gather(s, bias, tile, width, to);
                gather(s, mask, tile, width, room);
            }
        }
        let both = self.bias.is_some() && self.mask.is_some();
        let hidden = s.splat(f32::NEG_INFINITY);
        let mut seen = false;
        let mut at = 0;
        while at < tile.len * width {
            let mut x = s.load(&to[at..]);
            if both {
                x = s.select(s.eq(s.load(&room[at..]), hidden), hidden, x);
                s.store(x, &mut to[at..]);
            }
            // A NaN is seen too.
            seen |= !s.all(s.eq(x, hidden));
            at += S::LANES;
        }
        seen
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
        let (plain, shared) = (self.is_none(), tile.shared());
        let Range { start: mut lane, end } = tile.lanes();
        while lane < end {
            let seen = visible(s, tile.ranges, lane, tile.origin);
            let alibi = match &self.alibi {
                Some(a) => {
                    let mut position = [0.0f32; 16];
                    for (to, from) in position[..S::LANES].iter_mut().zip(&a.position[lane..]) {
                        *to = (from - tile.origin as i64) as f32;
                    }
                    Some((s.load(&a.slope[lane..]), s.load(&position)))
                }
                None => None,
            };
            let mut m = s.load(&next[lane..]);
            let mut row = 0;
            while row < tile.len {
                let at = row * width + lane;
                if plain && shared.contains(&row) {
                    m = s.max(s.load(&p[at..]), m);
                    row += 1;
                    continue;
                }
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

/// [`Change::load`] as a kernel of its own.
pub(super) struct Load<'a, 'b, 'c> {
    pub change: &'c Change<'a>,
    pub tile: KeyTile<'c>,
    pub width: usize,
    pub to: &'b mut [f32],
    pub room: &'b mut [f32],
}

impl Kernel for Load<'_, '_, '_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        self.change.load(s, self.tile, self.width, self.to, self.room)
    }
}

/// The keys of `tile` of `[heads, queries, Lk]` in `[key][lane]` order.
#[inline(always)]
fn gather<S: Simd, T: Lane>(s: S, x: ArrayView3<T>, tile: KeyTile, width: usize, to: &mut [f32]) {
    let to = &mut to[..tile.len * width];
    let repeats = x.strides()[2] == 0;
    let columns = if repeats { 1 } else { tile.len };
    let q = x.slice_move(ndarray::s![.., .., tile.first..]);
    Pack { q, columns, factor: Some(1.0), width, to: &mut *to }.run(s);
    if repeats {
        let (one, rest) = to.split_at_mut(width);
        rest.chunks_exact_mut(width).for_each(|row| row.copy_from_slice(one));
    }
}

/// The visible range of each of the lanes from `lane`, counted from `origin`, as f32 (exact: at
/// most [`KEY_TILE`]).
#[inline(always)]
fn visible<S: Simd>(s: S, ranges: Option<&Ranges>, lane: usize, origin: usize) -> Option<(S::F, S::F)> {
    let ranges = ranges?;
    let (mut from, mut to) = ([0.0f32; 16], [0.0f32; 16]);
    let mut i = 0;
    while i < S::LANES {
        from[i] = ranges.from[lane + i].saturating_sub(origin).min(KEY_TILE) as f32;
        to[i] = ranges.to[lane + i].saturating_sub(origin).min(KEY_TILE) as f32;
        i += 1;
    }
    Some((s.load(&from), s.load(&to)))
}

/// Whether no row of `v` holds an infinity or a NaN.
#[inline(always)]
pub(super) fn all_finite<S: Simd, T: Element>(s: S, v: Matrix<T>) -> bool {
    let infinity = s.splat(f32::INFINITY);
    let mut ok = true;
    let mut j = 0;
    while j < v.rows() {
        match v.row(j) {
            Some(row) => {
                let mut d = 0;
                while d < row.len() {
                    ok &= s.all(s.lt(s.abs(load(s, row, d)), infinity));
                    d += S::LANES;
                }
            }
            None => {
                for d in 0..v.cols() {
                    ok &= v.get(j, d).to_f32().abs() < f32::INFINITY;
                }
            }
        }
        j += 1;
    }
    ok
}

/// [`all_finite`] as a kernel of its own.
pub(super) struct Finite<'a, T>(pub Matrix<'a, T>);

impl<T: Element> Kernel for Finite<'_, T> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        all_finite(s, self.0)
    }
}

/// The factors of the product with the values one by one. Not a closure: that would be compiled without the
/// instruction set.
pub(super) trait Factors<S: Simd> {
    /// The value of a key and the probabilities of the lanes from `lane` on.
    fn get(&self, s: S, d: usize, key: usize, lane: usize) -> (f32, S::F);
}

/// Which elements of a key tile are hidden.
pub(super) struct Hidden<'a> {
    pub tile: KeyTile<'a>,
    /// Bias and mask, -inf where hidden; empty without either.
    pub bias: &'a [f32],
}

impl Hidden<'_> {
    /// Whether the values of keys that some lane does not see are finite.
    #[inline(always)]
    pub(super) fn values_are_finite<S: Simd, T: Element>(&self, s: S, v: Matrix<T>) -> bool {
        let shared = if self.bias.is_empty() { self.tile.shared() } else { 0..0 };
        let after = shared.end.max(shared.start);
        all_finite(s, v.slice_rows(0, shared.start))
            && all_finite(s, v.slice_rows(after, self.tile.len - after))
    }

    /// The product with the values where a hidden key holds an infinity or a NaN: its steps are
    /// left out of the chains instead of adding 0.
    #[inline(always)]
    pub(super) fn leave_out<S: Simd>(
        &self,
        s: S,
        width: usize,
        value_dim: usize,
        pairs: bool,
        sink: &mut impl Sink<S>,
        factors: impl Factors<S>,
    ) {
        let KeyTile { origin, first, len, ranges, .. } = self.tile;
        let hidden = s.splat(f32::NEG_INFINITY);
        let Range { start: mut lane, end } = self.tile.lanes();
        // Products of pairs are one chain.
        let middle = if pairs { len } else { self.tile.middle() };
        while lane < end {
            let seen = visible(s, ranges, lane, origin);
            for d in 0..value_dim {
                let (mut acc, mut before) = (s.splat(0.0), s.splat(0.0));
                for step in 0..len.next_multiple_of(2) {
                    // The odd key of a pair comes first.
                    let key = if pairs { step ^ 1 } else { step };
                    if key >= len {
                        continue;
                    }
                    if key == middle {
                        (before, acc) = (acc, s.splat(0.0));
                    }
                    let (v, p) = factors.get(s, d, key, lane);
                    let mut x = s.fma(s.splat(v), p, acc);
                    if let Some((from, to)) = seen {
                        let at = s.splat((first - origin + key) as f32);
                        x = s.select(s.lt(at, to), s.select(s.lt(at, from), acc, x), acc);
                    }
                    if !self.bias.is_empty() {
                        x = s.select(s.eq(s.load(&self.bias[key * width + lane..]), hidden), acc, x);
                    }
                    acc = x;
                }
                sink.put(s, d, lane, [[s.add(before, acc)]]);
            }
            lane += S::LANES;
        }
    }
}
