//! The tiles of a call, one after the other on each thread.

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView4, ArrayViewMut2, ArrayViewMut3, Axis, Ix3, Ix4, s};

use super::ahead::Ahead;
use super::cut::{Cut, MAX_ROWS, Place, Rows};
use super::kernel::QueryTile;
use super::lanes::{Lanes, Sizes};
use super::options::position;
use super::products::{Dots, Products, Wide};
use super::rows::{Fetch, Pack, Unpack};
use super::scores::{Alibi, Change, Ranges};
use super::{AttentionOptions, KEY_TILE, blas};
use crate::arch::{Level, Matrix, dispatch, dispatch_at, dots_at, level};
use crate::tensor::{Dtype, Element, Floats, FloatsMut, each};
use crate::threads;

/// A validated call.
pub(super) struct Problem<'a, 'r, 'o> {
    pub q: Floats<'a, Ix4>,
    pub k: Floats<'a, Ix4>,
    pub v: Floats<'a, Ix4>,
    /// What the queries are multiplied by.
    pub factor: f32,
    /// What capped scores are multiplied by.
    pub cap: Option<f32>,
    pub options: &'r AttentionOptions<'o>,
}

impl Problem<'_, '_, '_> {
    /// Number of keys of a batch entry.
    pub(super) fn keys(&self, batch: usize) -> usize {
        self.options.kv_lengths.map_or(self.k.shape()[2], |n| n[batch])
    }

    /// The key position query `i` stands at; negative before the first key.
    pub(super) fn position(&self, batch: usize, i: usize) -> i64 {
        position(self.keys(batch), self.q.shape()[2], i)
    }

    /// Whether every query of a batch entry sees every key of it.
    pub(super) fn is_uniform(&self) -> bool {
        let o = self.options;
        !o.causal && o.window_left.is_none() && o.window_right.is_none()
    }

    /// The keys query `i` may see.
    pub(super) fn range(&self, batch: usize, i: usize) -> Range<usize> {
        self.options.range(self.keys(batch), self.position(batch, i))
    }

    /// Bytes of all that is read.
    fn bytes(&self) -> usize {
        let of = |x: &Floats<Ix4>| x.shape().iter().product::<usize>().saturating_mul(x.dtype().size());
        of(&self.q).saturating_add(of(&self.k)).saturating_add(of(&self.v))
    }

    /// Floating-point operations, at most.
    pub(super) fn work(&self) -> u64 {
        let keys = self.k.shape()[2] + 1;
        let o = self.options;
        let right = if o.causal { Some(0) } else { o.window_right };
        let seen = match (o.window_left, right) {
            (Some(l), Some(r)) => keys.min(l.saturating_add(r).saturating_add(1)),
            (None, None) => keys,
            _ => keys.div_ceil(2),
        };
        let flops = 2 * (self.q.shape()[3] + self.v.shape()[3]);
        self.q.shape()[..3].iter().copied().chain([flops, seen]).fold(1u64, |w, n| w.saturating_mul(n as u64))
    }
}

/// A validated call and its outputs.
pub(super) type Call<'a, 'r, 'o> = (Problem<'a, 'r, 'o>, FloatsMut<'a, Ix4>, Option<ArrayViewMut3<'a, f32>>);

/// Floating-point operations of a task, where there are enough for all threads: tiles that follow each
/// other share one, so that each can ask for the memory of the next.
const TASK_WORK: u64 = 8_000_000;
const MAX_TILES: usize = 16;

/// Bytes that the second cache of a core holds together with an output. What one thread reads of no more was most likely
/// written by it, and nothing is asked for.
const NEAR: usize = 384 << 10;

/// Tiles of one task in a call with `tiles` of them.
fn group_size(work: u64, tiles: usize) -> usize {
    let wanted = TASK_WORK / (work / tiles.max(1) as u64).max(1);
    let most = if threads::is_parallel(work) { tiles / (4 * threads::num_threads()) } else { tiles };
    (wanted as usize).min(most).clamp(1, MAX_TILES)
}

/// Runs calls side by side.
pub(super) fn run(calls: Vec<Call>) {
    let mut calls: Vec<Call> = calls.into_iter().filter_map(blas::run).collect();
    let work = calls.iter().fold(0u64, |w, (p, ..)| w.saturating_add(p.work()));
    let tiles = calls.iter().map(|(_, out, _)| tile_count(out.shape())).fold(0, usize::saturating_add);
    let size = group_size(work, tiles);
    let count = if calls.len() == 1 { threads::parts(work) } else { 1 };
    let bytes = calls.iter().fold(0, |all: usize, (p, ..)| all.saturating_add(p.bytes()));
    let far = bytes > NEAR || threads::is_parallel(work);
    let run = |(p, cut, rows): (&Problem, Cut, Rows)| match (&p.q, &p.k, &p.v) {
        (Floats::Bf16(_), Floats::Bf16(k), Floats::Bf16(v)) => each_tile::<Dots>(p, *k, *v, cut, rows, far),
        (_, Floats::F32(k), Floats::F32(v)) => each_tile::<Wide<_>>(p, *k, *v, cut, rows, far),
        (_, Floats::F16(k), Floats::F16(v)) => each_tile::<Wide<_>>(p, *k, *v, cut, rows, far),
        (_, Floats::Bf16(k), Floats::Bf16(v)) => each_tile::<Wide<_>>(p, *k, *v, cut, rows, far),
        _ => unreachable!("keys and values have one type"),
    };
    let parts = calls.iter_mut().filter(|(_, out, _)| !out.shape().contains(&0)).flat_map(|(p, out, lse)| {
        // Lent, not counted: a count would go back and forth between threads at every task.
        let p = &*p;
        let cut = Cut::new(p.q.shape(), p.k.shape()[1]);
        let rows = Rows { start: [0; 3], out: out.view_mut(), lse: lse.as_mut().map(|x| x.view_mut()) };
        cut.parts(rows, count).map(move |rows| cut.tasks(rows, size).map(move |rows| (p, cut, rows)))
    });
    if count == 1 {
        threads::for_each(parts.flatten(), work, run)
    } else {
        threads::for_each_in(parts, work, run)
    }
}

/// How many tiles an output has, were its heads not to share any.
fn tile_count(shape: &[usize]) -> usize {
    shape[0].saturating_mul(shape[1]).saturating_mul(shape[2].div_ceil(MAX_ROWS))
}

/// What a tile reads.
struct Inputs<'v, T> {
    /// Batch entry and kv head.
    kv: [usize; 2],
    q: Floats<'v, Ix3>,
    k: ArrayView2<'v, T>,
    v: ArrayView2<'v, T>,
}

impl<T: Element> Inputs<'_, T> {
    /// Asks for them, and for what is written.
    fn fetch(&self, out: &Floats<Ix3>) {
        let rows = |x: &Floats<Ix3>| {
            each!(Floats, x, x => for head in x.outer_iter() {
                dispatch(Fetch(Matrix::new(head)));
            });
        };
        rows(&self.q);
        rows(out);
        dispatch(Fetch(Matrix::new(self.k)));
        dispatch(Fetch(Matrix::new(self.v)));
    }

    /// The same memory, to be asked for by and by: keys and values unless the `same` were read.
    fn ask_by(&self, ahead: &mut Ahead, out: &Floats<Ix3>, same: bool) {
        each!(Floats, &self.q, q => ahead.add(q));
        if !same {
            ahead.add(&self.k.insert_axis(Axis(0)));
            ahead.add(&self.v.insert_axis(Axis(0)));
        }
        each!(Floats, out, out => ahead.add(out));
    }
}

fn head<T>(x: ArrayView4<T>, [b, h]: [usize; 2]) -> ArrayView2<T> {
    x.index_axis_move(Axis(0), b).index_axis_move(Axis(0), h)
}

/// The tiles of one task, one after the other; what is `far` is asked for before it is read.
fn each_tile<P: Products>(
    p: &Problem,
    k: ArrayView4<P::Stored>,
    v: ArrayView4<P::Stored>,
    cut: Cut,
    mut rows: Rows,
    far: bool,
) {
    let (start, level) = (rows.start, level());
    let size = Sizes {
        dim: k.dim().3,
        value_dim: v.dim().3,
        with_bias: p.options.bias.is_some() || p.options.mask.is_some(),
        narrow: p.k.dtype() != Dtype::F32,
        pairs: P::PAIRS,
        dots: dots_at(level),
    };
    let inputs = |place: &Place| {
        let [b, h, i] = place.after(start);
        let kv = [b, cut.kv_head(h)];
        let q = p.q.block([b, h, i], place.heads, place.queries).reborrow();
        Inputs { kv, q, k: head(k, kv).reborrow(), v: head(v, kv).reborrow() }
    };
    let tiles = cut.tiles(rows.out.shape());
    threads::with_scratch(Lanes::new(tiles.most_rows()).scratch(size), |scratch| {
        let mut tiles = tiles.map(|place| (inputs(&place), place));
        let mut common = Common::default();
        let mut next = tiles.next();
        if far && let Some((first, place)) = &next {
            first.fetch(&rows.out(place));
        }
        while let Some((now, place)) = next {
            next = tiles.next();
            let mut ahead = Ahead::default();
            if far && let Some((then, place)) = &next {
                then.ask_by(&mut ahead, &rows.out(place), now.kv == then.kv);
                // As often as blocks of six rows are done in the first key tile.
                ahead.over((now.k.nrows().min(KEY_TILE) + size.value_dim) / 6);
            }
            one::<P>(
                p,
                now,
                level,
                size,
                &mut ahead,
                &mut common,
                place.after(start),
                rows.tile(&place),
                scratch,
            );
        }
    });
}

/// What many tiles have in common.
#[derive(Default)]
struct Common<'r> {
    /// The ranges of lanes that all see the same number of keys.
    uniform: Option<(usize, Ranges)>,
    /// For scores that stay as they are.
    unchanged: Change<'r>,
}

#[allow(clippy::too_many_arguments)]
fn one<'r, P: Products>(
    p: &Problem<'_, 'r, '_>,
    Inputs { q, k, v, .. }: Inputs<P::Stored>,
    level: Level,
    size: Sizes,
    ahead: &mut Ahead,
    common: &mut Common<'r>,
    [b, h, i]: [usize; 3],
    (out, lse): (FloatsMut<Ix3>, Option<ArrayViewMut2<f32>>),
    scratch: &mut [f32],
) {
    let (k, v) = (Matrix::new(k), Matrix::new(v));
    let (heads, queries) = (q.shape()[0], q.shape()[1]);
    let lanes = Lanes::new(heads * queries);
    let full = [p.q.shape()[0], p.q.shape()[1], p.q.shape()[2], p.k.shape()[2]];
    let own_change;
    let change = if p.options.keep_scores() {
        &common.unchanged
    } else {
        own_change = change(p.options, p.cap, full, [b, h, i], [heads, queries], p.keys(b));
        &own_change
    };
    let own_ranges;
    let ranges = if p.is_uniform() {
        let keys = p.keys(b);
        common.uniform.take_if(|(n, _)| *n != keys);
        &common.uniform.get_or_insert_with(|| (keys, Ranges::uniform(keys))).1
    } else {
        own_ranges = Ranges::new((0..heads).flat_map(|_| (i..i + queries).map(|i| p.range(b, i))));
        &own_ranges
    };
    let (work, mut result) = lanes.split(scratch, size);
    let factor = (!P::PAIRS).then_some(p.factor);
    each!(Floats, q, q => {
        dispatch(Pack { q, columns: k.cols(), factor, width: lanes.width(), to: &mut *work.q });
    });
    let factor = p.factor;
    let result = &mut result;
    dispatch_at(level, QueryTile::<P> { k, v, ranges, change, factor, lanes, work, result, ahead });
    each!(FloatsMut, out, out => {
        dispatch(Unpack { from: result.o, sums: Some(result.l), width: lanes.width(), out });
    });
    if let Some(lse) = lse {
        store_lse(lse, result.m, result.l);
    }
}

/// Not inlined: there an optimizer looks at a view that is not there, to no effect, and memory checkers complain.
#[inline(never)]
fn store_lse(mut lse: ArrayViewMut2<f32>, m: &[f32], l: &[f32]) {
    for (to, (m, l)) in lse.iter_mut().zip(m.iter().zip(l)) {
        *to = log_sum_exp(*m, *l);
    }
}

/// What the options do to the scores of the query rows of one block of `[heads, queries]` that
/// begins at `start`, in a call of shape `full` (`[B, H, Lq, Lk]`); row `n` is head `n / queries`.
///
/// Lanes without a row repeat the last one.
pub(super) fn change<'r>(
    options: &'r AttentionOptions,
    cap: Option<f32>,
    full: [usize; 4],
    start: [usize; 3],
    [heads, queries]: [usize; 2],
    keys: usize,
) -> Change<'r> {
    if options.keep_scores() {
        return Change::default();
    }
    let [b, h, i] = start;
    let row = |lane: usize| lane.min(heads * queries - 1);
    let per_head = |x: &[f32], factor: f64| {
        std::array::from_fn(|lane| (f64::from(x[h + row(lane) / queries]) * factor) as f32)
    };
    let log2_e = std::f64::consts::LOG2_E;
    let block = s![b, h..h + heads, i..i + queries, ..];
    Change {
        cap,
        alibi: options.alibi_slopes.map(|slopes| Alibi {
            slope: per_head(slopes, -log2_e),
            position: std::array::from_fn(|lane| position(keys, full[2], i + row(lane) % queries)),
        }),
        bias: options.bias.as_ref().and_then(|x| x.broadcast(full)).map(|x| x.slice_move(block)),
        mask: options.mask.as_ref().and_then(|x| x.broadcast(full)).map(|x| x.slice_move(block)),
        sinks: options.sinks.map(|sinks| per_head(sinks, log2_e)),
    }
}

/// `ln 2 * (m + log2 l)`, -inf for an empty sum.
pub(super) fn log_sum_exp(m: f32, l: f32) -> f32 {
    if l == 0.0 {
        return f32::NEG_INFINITY;
    }
    ((f64::from(m) + libm::log2(f64::from(l))) * std::f64::consts::LN_2) as f32
}
