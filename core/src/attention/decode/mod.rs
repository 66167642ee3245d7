//! Decoding: a few new queries against many keys.
//!
//! The definition is that of [`attention`](super::attention); only the schedule differs. What
//! costs is reading the cache, so each key and value is read once for all query rows of its head:
//! keys stand in lanes after a transpose in registers, value elements as they lie. Where there are
//! too few kv heads for the threads, each split of the keys is a task of its own, and one thread
//! merges the splits in their order.

mod kernel;
mod scores;
mod soon;
mod stored;
#[cfg(test)]
mod tests;
mod tile;
mod values;

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView3, ArrayView4, ArrayViewMut3, Axis, Ix4, s};

use self::kernel::{Finish, Part, Rows, Work};
use self::scores::block;
use self::stored::Stored;
use self::tile::Place;
use super::cache::Pages;
use super::cut::{self, Cut};
use super::options::position;
use super::scores::{Change, Ranges};
use super::tiles::{self, log_sum_exp};
use super::{AttentionOptions, KEY_TILE, SPLIT};
use crate::arch::{PagedRows, dispatch};
use crate::tensor::{Element, Floats, FloatsMut, each};
use crate::threads;

/// Most query rows a kv head that `attention` decodes: beyond, the prefill kernel's lanes are full.
const FEW_ROWS: usize = 16;

/// Fewest keys: below, setting up costs more than reading.
const MANY_KEYS: usize = 2 * KEY_TILE;

impl<'a> From<Floats<'a, Ix4>> for Pages<'a> {
    fn from(x: Floats<'a, Ix4>) -> Self {
        each!(Floats, x, x => x.into())
    }
}

/// A validated call.
pub(super) struct Problem<'a, 'r, 'o> {
    pub q: Floats<'a, Ix4>,
    pub k: Pages<'a>,
    pub v: Pages<'a>,
    /// `[pages, Hkv, keys a page]` of keys and values.
    pub scales: Option<[ArrayView3<'a, f32>; 2]>,
    /// `[B, most pages]`; without it batch entry `b` is page `b`.
    pub table: Option<ArrayView2<'a, i32>>,
    /// Most keys of a batch entry.
    pub capacity: usize,
    pub lengths: Option<&'r [usize]>,
    pub kv_heads: usize,
    pub value_dim: usize,
    pub factor: f32,
    pub cap: Option<f32>,
    pub options: &'r AttentionOptions<'o>,
}

/// Whether `attention` decodes rather than prefills: the bits are the same.
pub(super) fn fits(q: &Floats<Ix4>, k: &Floats<Ix4>, v: &Floats<Ix4>) -> bool {
    let [_, heads, queries, _] = *q.shape() else { return false };
    let adjacent = |x: &Floats<Ix4>| x.shape()[3] == 1 || x.strides()[3] == 1;
    let [_, kv_heads, keys, _] = *k.shape() else { return false };
    kv_heads > 0
        && queries.saturating_mul(heads / kv_heads) <= FEW_ROWS
        && keys >= MANY_KEYS
        && adjacent(k)
        && adjacent(v)
}

/// Runs a call that [`fits`].
pub(super) fn contiguous<'a>(
    [q, k, v]: [Floats<'a, Ix4>; 3],
    (factor, cap): (f32, Option<f32>),
    options: &AttentionOptions,
    out: FloatsMut<'a, Ix4>,
    lse: Option<ArrayViewMut3<'a, f32>>,
) {
    let (kv_heads, capacity, value_dim) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    let (k, v, lengths) = (k.into(), v.into(), options.kv_lengths);
    let (scales, table) = (None, None);
    run(
        &Problem { q, k, v, scales, table, capacity, lengths, kv_heads, value_dim, factor, cap, options },
        out,
        lse,
    );
}

/// The query rows of one task.
struct Task<'r> {
    /// Batch entry, first head, first query.
    start: [usize; 3],
    rows: usize,
    queries: usize,
    ranges: Ranges,
    change: Change<'r>,
}

impl Problem<'_, '_, '_> {
    fn keys(&self, batch: usize) -> usize {
        self.lengths.map_or(self.capacity, |n| n[batch])
    }

    /// The rows of a block of the outputs.
    fn task(&self, block: &cut::Rows) -> Task<'_> {
        let (start, shape) = (block.start, self.q.shape());
        let (heads, queries) = (block.out.shape()[1], block.out.shape()[2]);
        let ([b, _, i], rows) = (start, heads * queries);
        let keys = self.keys(b);
        let ranges = Ranges::new(
            (0..rows).map(|r| self.options.range(keys, position(keys, shape[2], i + r % queries))),
        );
        let full = [shape[0], shape[1], shape[2], self.capacity];
        let change = tiles::change(self.options, self.cap, full, start, [heads, queries], keys);
        Task { start, rows, queries, ranges, change }
    }

    /// Floats a row of packed queries takes: whole words of any type at any level.
    fn q_stride(&self) -> usize {
        self.q.shape()[3].next_multiple_of(64)
    }

    /// Floats a row of outputs takes: whole vectors at any level.
    fn stride(&self) -> usize {
        self.value_dim.next_multiple_of(16)
    }

    /// Floats a row of second chains takes: products of pairs are one chain.
    fn second(&self) -> usize {
        if self.pairs() { 0 } else { self.stride() }
    }

    /// Whether the products are of pairs of bfloat16.
    fn pairs(&self) -> bool {
        matches!((&self.q, &self.k), (Floats::Bf16(_), Pages::Bf16(_)))
    }

    /// Floats a block of keys takes in lanes.
    fn room(&self) -> usize {
        let dim = self.q.shape()[3];
        block(self.pairs()) * if self.pairs() { dim.div_ceil(2) } else { dim }
    }

    /// Floats of scratch, beside the result.
    fn scratch(&self, rows: usize) -> usize {
        let row = self.q_stride() + KEY_TILE + self.stride() + self.second();
        rows * row + self.room() + 3 * KEY_TILE + Part::size(rows, self.stride())
    }

    /// Scores, softmax and values of the keys `keys` for a task.
    fn compute<'w>(&self, task: &Task, keys: Range<usize>, scratch: &'w mut [f32], total: &mut Part<'w>) {
        match (&self.q, &self.k, &self.v) {
            (Floats::Bf16(_), Pages::Bf16(k), Pages::Bf16(v)) => {
                self.compute_as::<_, true>(*k, *v, task, keys, scratch, total);
            }
            (_, Pages::F32(k), Pages::F32(v)) => {
                self.compute_as::<_, false>(*k, *v, task, keys, scratch, total);
            }
            (_, Pages::F16(k), Pages::F16(v)) => {
                self.compute_as::<_, false>(*k, *v, task, keys, scratch, total);
            }
            (_, Pages::Bf16(k), Pages::Bf16(v)) => {
                self.compute_as::<_, false>(*k, *v, task, keys, scratch, total);
            }
            (_, Pages::I8(k), Pages::I8(v)) => {
                self.compute_as::<_, false>(*k, *v, task, keys, scratch, total);
            }
            _ => unreachable!("keys and values have one type"),
        }
    }

    fn compute_as<'w, T: Stored, const DOT: bool>(
        &self,
        k: ArrayView4<T>,
        v: ArrayView4<T>,
        task: &Task,
        keys: Range<usize>,
        scratch: &'w mut [f32],
        total: &mut Part<'w>,
    ) {
        let ([b, h, i], rows, queries) = (task.start, task.rows, task.queries);
        let (q_stride, stride) = (self.q_stride(), self.stride());
        let (q, scratch) = scratch.split_at_mut(rows * q_stride);
        let (p, scratch) = scratch.split_at_mut(rows * KEY_TILE);
        let (t, scratch) = scratch.split_at_mut(rows * stride);
        let (second, scratch) = scratch.split_at_mut(rows * self.second());
        let (room, scratch) = scratch.split_at_mut(self.room());
        let (bias, scratch) = scratch.split_at_mut(KEY_TILE);
        let (k_scale, scratch) = scratch.split_at_mut(KEY_TILE);
        let (v_scale, scratch) = scratch.split_at_mut(KEY_TILE);
        let split = Part::split(&mut scratch[..Part::size(rows, stride)]);
        let block = s![b, h..h + rows / queries, i..i + queries, ..];
        each!(Floats, &self.q, from => {
            for (to, from) in q.chunks_exact_mut(q_stride).zip(from.slice(block).rows()) {
                to.fill(0.0);
                if DOT {
                    for (d, x) in from.iter().enumerate() {
                        let bits = Element::to_f32(*x).to_bits() >> (16 * (1 - d % 2));
                        to[d / 2] = f32::from_bits(to[d / 2].to_bits() | bits);
                    }
                } else {
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = Element::to_f32(*x) * self.factor);
                }
            }
        });
        // Columns behind the value dimension are computed with and never read.
        t.fill(0.0);
        second.fill(0.0);
        let kv = h / (self.q.shape()[1] / self.kv_heads);
        let page_len = k.len_of(Axis(2));
        dispatch(Rows::<'_, '_, '_, '_, T, DOT> {
            k: PagedRows::new(k.slice_move(s![.., kv, .., ..])),
            v: PagedRows::new(v.slice_move(s![.., kv, .., ..])),
            scales: self.scales.as_ref().map(|x| x.each_ref().map(|x| x.slice(s![.., kv, ..]))),
            place: Place { table: self.table.as_ref().map(|t| t.index_axis(Axis(0), b)), page: b, page_len },
            ranges: &task.ranges,
            change: &task.change,
            factor: self.factor,
            keys,
            rows,
            queries,
            q_stride,
            stride,
            work: Work { q, p, room, t, second, bias, k_scale, v_scale, split },
            total,
        });
    }

    /// Floating-point operations, at most.
    fn work(&self) -> u64 {
        let shape = self.q.shape();
        let keys = (0..shape[0]).fold(0u64, |n, b| n.saturating_add(self.keys(b) as u64));
        [shape[1], shape[2], 2 * (shape[3] + self.value_dim)]
            .iter()
            .fold(keys, |w, &n| w.saturating_mul(n as u64))
    }
}

/// Computes the outputs of a validated call.
pub(super) fn run<'o>(p: &Problem, out: FloatsMut<'o, Ix4>, lse: Option<ArrayViewMut3<'o, f32>>) {
    if out.shape().contains(&0) {
        return;
    }
    let blocks = Cut::new(p.q.shape(), p.kv_heads).tasks(cut::Rows { start: [0; 3], out, lse }, 1);
    let work = p.work();
    // Where threads would wait for each other, the splits are handed out one by one.
    if threads::is_parallel(work) {
        let blocks: Vec<_> = blocks.collect();
        if blocks.len() < 4 * threads::num_threads() {
            return by_split(p, blocks, work);
        }
        threads::for_each(blocks.into_iter(), work, |block| whole(p, block));
    } else {
        blocks.for_each(|block| whole(p, block));
    }
}

/// All keys of a block.
fn whole(p: &Problem, block: cut::Rows) {
    let task = p.task(&block);
    let size = Part::size(task.rows, p.stride());
    threads::with_scratch(p.scratch(task.rows) + size, |scratch| {
        let (total, scratch) = scratch.split_at_mut(size);
        let mut total = Part::split(total);
        p.compute(&task, task.ranges.any_lane(), scratch, &mut total);
        finish(p, &task, &mut total, &mut [], block);
    });
}

/// Each split of each block by itself, then the merges.
fn by_split(p: &Problem, blocks: Vec<cut::Rows>, work: u64) {
    let tasks: Vec<_> = blocks.iter().map(|block| p.task(block)).collect();
    let splits = |task: &Task| {
        let Range { start, end } = task.ranges.any_lane();
        // At least one, so that a block without keys has a result.
        let (first, last) = (start / SPLIT, end.div_ceil(SPLIT).max(start / SPLIT + 1));
        (first..last).map(move |n| start.max(n * SPLIT)..end.min((n + 1) * SPLIT))
    };
    let size = |task: &Task| Part::size(task.rows, p.stride());
    let mut parts = vec![0.0f32; tasks.iter().map(|t| splits(t).count() * size(t)).sum()];
    let mut rest = &mut parts[..];
    let mut items = Vec::new();
    for task in &tasks {
        for keys in splits(task) {
            let (part, after) = rest.split_at_mut(size(task));
            items.push((task, keys, part));
            rest = after;
        }
    }
    threads::for_each(items.into_iter(), work, |(task, keys, part)| {
        threads::with_scratch(p.scratch(task.rows) + part.len(), |scratch| {
            let (total, scratch) = scratch.split_at_mut(part.len());
            let mut total = Part::split(total);
            p.compute(task, keys, scratch, &mut total);
            let part = Part::split(part);
            part.m.copy_from_slice(total.m);
            part.l.copy_from_slice(total.l);
            part.o.copy_from_slice(total.o);
        });
    });
    let mut rest = &mut parts[..];
    for (task, block) in tasks.iter().zip(blocks) {
        let (first, others) = rest.split_at_mut(size(task));
        let (others, after) = others.split_at_mut((splits(task).count() - 1) * size(task));
        finish(p, task, &mut Part::split(first), others, block);
        rest = after;
    }
}

/// Merges parts and sinks and writes the outputs.
fn finish(p: &Problem, task: &Task, total: &mut Part, parts: &mut [f32], block: cut::Rows) {
    let stride = p.stride();
    dispatch(Finish { rows: task.rows, stride, parts, change: &task.change, total });
    let cut::Rows { mut out, lse, .. } = block;
    each!(FloatsMut, &mut out, out => {
        for (mut to, from) in out.rows_mut().into_iter().zip(total.o.chunks_exact(stride)) {
            to.iter_mut().zip(from).for_each(|(to, &x)| *to = Element::from_f32(x));
        }
    });
    if let Some(mut lse) = lse {
        for (r, to) in lse.iter_mut().enumerate() {
            *to = log_sum_exp(total.m[r], total.l[r]);
        }
    }
}
