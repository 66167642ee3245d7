//! How a call is cut into tasks that own what they write.
//!
//! With at least as many key heads as threads, a task has a key head and the queries that use it:
//! five products for each pair of tiles. With fewer, some tasks have keys alone and others
//! queries alone, and compute the gradients of the scores twice: seven products. Every sum has the
//! same order either way.

use std::ops::Range;

use ndarray::{ArrayViewMut4, Axis, Ix4, s};

use super::super::KEY_TILE;
use super::super::cut::MAX_ROWS;
use super::super::products::{Dots, Wide};
use super::super::rows::Unpack;
use super::products::{Arithmetic, Sums};
use super::tile::{Call, QueryTile};
use super::work::Scale;
use crate::arch::{MatrixMut, dispatch};
use crate::tensor::{Element, FloatsMut, each};
use crate::threads;

/// Most floats in which a task sums gradients of keys and values that it cannot sum where they
/// are wanted: 4 MiB.
const MAX_SUMS: usize = 1 << 20;

/// The outputs of a call.
pub(super) struct Gradients<'a> {
    pub dq: FloatsMut<'a, Ix4>,
    pub dk: FloatsMut<'a, Ix4>,
    pub dv: FloatsMut<'a, Ix4>,
    /// Of a bias that repeats along no axis.
    pub dbias: Option<ArrayViewMut4<'a, f32>>,
}

impl Gradients<'_> {
    /// The part before `at` along an axis (`kv_at` for keys and values), and the rest.
    fn split(self, axis: usize, at: usize, kv_at: usize) -> (Self, Self) {
        let (dq, dq_rest) = self.dq.split_at(axis, at);
        let (dk, dk_rest) = self.dk.split_at(axis, kv_at);
        let (dv, dv_rest) = self.dv.split_at(axis, kv_at);
        let (dbias, dbias_rest) = self.dbias.map(|x| x.split_at(Axis(axis), at)).unzip();
        let rest = Gradients { dq: dq_rest, dk: dk_rest, dv: dv_rest, dbias: dbias_rest };
        (Gradients { dq, dk, dv, dbias }, rest)
    }
}

/// How the work is cut; the bits are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Schedule {
    /// A task a key head.
    Heads,
    /// Tasks of at most so many key tiles, and tasks of one query tile.
    Tiles(usize),
}

impl Schedule {
    /// For a call of which `heads` key heads run beside each other: a function of sizes alone.
    pub(super) fn new(call: &Call, g: &Gradients, heads: usize, threads: usize) -> Self {
        let keys = call.full()[3];
        let in_place = [&g.dk, &g.dv].into_iter().all(is_rows);
        let fits = in_place || keys.saturating_mul(call.key_size()) <= MAX_SUMS;
        if heads >= threads && fits {
            return Schedule::Heads;
        }
        // Several tasks a thread; what is done once for each query tile is shared by the key tiles
        // of a task.
        let wanted = (keys.div_ceil(KEY_TILE) * heads).div_ceil(2 * threads);
        Schedule::Tiles(wanted.clamp(1, (MAX_SUMS / 4 / KEY_TILE / call.key_size()).max(1)))
    }
}

/// What one task computes.
#[derive(Clone)]
struct Part {
    batch: usize,
    kv_head: usize,
    heads: Range<usize>,
    queries: Range<usize>,
    keys: Range<usize>,
}

/// A part of a call and what it writes there.
pub(super) struct Task<'a> {
    part: Part,
    /// `[1, heads, queries, D]` and `[1, heads, queries, Lk]`
    queries: Option<(FloatsMut<'a, Ix4>, Option<ArrayViewMut4<'a, f32>>)>,
    /// `[1, 1, keys, D]` and `[1, 1, keys, Dv]`
    keys: Option<(FloatsMut<'a, Ix4>, FloatsMut<'a, Ix4>)>,
}

/// The tasks of a call.
pub(super) fn tasks<'a>(call: &Call, schedule: Schedule, mut all: Gradients<'a>) -> Vec<Task<'a>> {
    let [batch, heads, queries, keys] = call.full();
    let kv_heads = call.problem.k.shape()[1];
    let group = heads.checked_div(kv_heads).unwrap_or(0);
    let mut tasks = Vec::new();
    for batch in 0..batch {
        let mut entry;
        (entry, all) = all.split(0, 1, 1);
        for kv_head in 0..kv_heads {
            let own;
            (own, entry) = entry.split(1, group, 1);
            let heads = kv_head * group..(kv_head + 1) * group;
            let part = Part { batch, kv_head, heads, queries: 0..queries, keys: 0..keys };
            let Gradients { dq, dk, dv, dbias } = own;
            match schedule {
                Schedule::Heads => {
                    tasks.push(Task { part, queries: Some((dq, dbias)), keys: Some((dk, dv)) });
                }
                Schedule::Tiles(step) => {
                    by_keys(&part, step * KEY_TILE, dk, dv, &mut tasks);
                    by_queries(&part, dq, dbias, &mut tasks);
                }
            }
        }
    }
    tasks
}

fn by_keys<'a>(
    part: &Part,
    step: usize,
    mut dk: FloatsMut<'a, Ix4>,
    mut dv: FloatsMut<'a, Ix4>,
    to: &mut Vec<Task<'a>>,
) {
    let mut first = 0;
    while first < part.keys.end {
        let keys = first..part.keys.end.min(first + step);
        let (own_k, own_v);
        (own_k, dk) = dk.split_at(2, keys.len());
        (own_v, dv) = dv.split_at(2, keys.len());
        first = keys.end;
        to.push(Task { part: Part { keys, ..part.clone() }, queries: None, keys: Some((own_k, own_v)) });
    }
}

fn by_queries<'a>(
    part: &Part,
    mut dq: FloatsMut<'a, Ix4>,
    mut dbias: Option<ArrayViewMut4<'a, f32>>,
    to: &mut Vec<Task<'a>>,
) {
    // The last first: with a causal mask they are the most work.
    for h in part.heads.clone().rev() {
        let (mut own_q, mut own_bias);
        let at = h - part.heads.start;
        (dq, own_q) = dq.split_at(1, at);
        (dbias, own_bias) = dbias.map(|x| x.split_at(Axis(1), at)).unzip();
        let mut end = part.queries.end;
        while let Some(last) = end.checked_sub(1) {
            let first = last / MAX_ROWS * MAX_ROWS;
            let (tile_q, tile_bias);
            (own_q, tile_q) = own_q.split_at(2, first);
            (own_bias, tile_bias) = own_bias.map(|x| x.split_at(Axis(2), first)).unzip();
            let part = Part { heads: h..h + 1, queries: first..end, ..part.clone() };
            to.push(Task { part, queries: Some((tile_q, tile_bias)), keys: None });
            end = first;
        }
    }
}

/// Whether each row has its elements side by side as f32.
fn is_rows(x: &FloatsMut<Ix4>) -> bool {
    matches!(x, FloatsMut::F32(x) if x.strides()[3] == 1)
}

/// Where the gradients of keys or values are summed: where they are wanted if that is possible.
enum Target<'s, 'a> {
    InPlace(MatrixMut<'s>),
    Apart(MatrixMut<'s>, FloatsMut<'a, Ix4>),
}

impl<'s, 'a: 's> Target<'s, 'a> {
    fn scratch(to: &FloatsMut<Ix4>) -> usize {
        if is_rows(to) { 0 } else { to.shape()[2] * to.shape()[3] }
    }

    /// Zeros for `to`, in as much of `scratch` as [`scratch`](Target::scratch) says.
    fn new(to: FloatsMut<'a, Ix4>, scratch: &'s mut [f32]) -> Self {
        match to {
            FloatsMut::F32(mut x) if x.strides()[3] == 1 => {
                x.fill(0.0);
                let x = x.index_axis_move(Axis(0), 0).index_axis_move(Axis(0), 0);
                Target::InPlace(MatrixMut::new(x))
            }
            to => {
                scratch.fill(0.0);
                Target::Apart(MatrixMut::from_slice(scratch, to.shape()[2], to.shape()[3]), to)
            }
        }
    }

    fn matrix(&mut self) -> &mut MatrixMut<'s> {
        match self {
            Target::InPlace(x) | Target::Apart(x, _) => x,
        }
    }

    /// Multiplies by a factor and leaves the sums where they are wanted.
    fn finish(mut self, factor: Option<f32>) {
        let sums = self.matrix();
        if let Some(factor) = factor {
            for j in 0..sums.rows() {
                dispatch(Scale { x: sums.row(j).unwrap_or_default(), factor });
            }
        }
        if let Target::Apart(from, mut to) = self {
            each!(FloatsMut, &mut to, to => copy(&from, MatrixMut::new(to.slice_mut(s![0, 0, .., ..]))));
        }
    }
}

fn copy<T: Element>(from: &MatrixMut, mut to: MatrixMut<T>) {
    for j in 0..to.rows() {
        for d in 0..to.cols() {
            to.set(j, d, T::from_f32(from.get(j, d)));
        }
    }
}

/// Computes one task.
pub(super) fn run(call: &Call, task: Task) {
    if call.is_of_pairs() {
        run_with::<Dots>(call, task);
    } else {
        run_with::<Wide<f32>>(call, task);
    }
}

fn run_with<A: Arithmetic>(call: &Call, task: Task) {
    let Task { part, queries: mut to_queries, keys: to_keys } = task;
    let sums = to_keys.as_ref().map_or([0; 2], |(dk, dv)| [dk, dv].map(Target::scratch));
    if let Some((_, Some(dbias))) = &mut to_queries {
        // Hidden tiles are not visited.
        dbias.fill(0.0);
    }
    let sizes = call.sizes();
    threads::with_scratch(sizes.scratch() + sums[0] + sums[1], |scratch| {
        let (mut work, mut wide, rest) = sizes.split(scratch);
        let (rest_k, rest_v) = rest.split_at_mut(sums[0]);
        let mut sums =
            to_keys.map(|(dk, dv)| (Target::new(dk, rest_k), Target::new(dv, &mut rest_v[..sums[1]])));
        for h in part.heads.clone() {
            let mut first = part.queries.start;
            while first < part.queries.end {
                let rows = first..part.queries.end.min(first + MAX_ROWS);
                first = rows.end;
                let tile = QueryTile::<A>::new(call, part.batch, h, rows.clone(), &mut work);
                let at = (h - part.heads.start, rows.start - part.queries.start);
                work.dq.fill(0.0);
                tile.each_key_tile(
                    call,
                    part.kv_head,
                    part.keys.clone(),
                    &mut work,
                    &mut wide,
                    |key_tile, k, room, work| {
                        if let Some((_, Some(dbias))) = &mut to_queries {
                            let to = dbias.slice_mut(s![0, at.0, at.1..at.1 + rows.len(), ..]);
                            put_bias(work.ds, work.width, key_tile.first, key_tile.len, MatrixMut::new(to));
                        }
                        let keys = sums
                            .as_mut()
                            .map(|(dk, dv)| (dk.matrix(), dv.matrix(), key_tile.first - part.keys.start));
                        let queries = to_queries.is_some();
                        dispatch(Sums::<A> {
                            k,
                            middle: key_tile.middle(),
                            capped: tile.is_capped(),
                            finite: tile.finite,
                            room,
                            work,
                            keys,
                            queries,
                        });
                    },
                );
                if let Some((dq, _)) = &mut to_queries {
                    dispatch(Scale { x: work.dq, factor: call.scale });
                    each!(FloatsMut, dq, dq => {
                        let out = dq.slice_mut(s![0, at.0..at.0 + 1, at.1..at.1 + rows.len(), ..]);
                        dispatch(Unpack { from: work.dq, sums: None, width: tile.lanes.width(), out });
                    });
                }
            }
        }
        if let Some((dk, dv)) = sums {
            dk.finish(Some(call.scale));
            dv.finish(None);
        }
    });
}

/// Writes gradients of scores, `[key][lane]`, to rows of queries; +0 in the place of -0.
fn put_bias(ds: &[f32], width: usize, first: usize, len: usize, mut to: MatrixMut) {
    for i in 0..to.rows() {
        let from = ds.chunks_exact(width).take(len).map(|ds| ds[i] + 0.0);
        match to.row(i) {
            Some(row) => row[first..].iter_mut().zip(from).for_each(|(to, x)| *to = x),
            None => from.enumerate().for_each(|(j, x)| to.set(i, first + j, x)),
        }
    }
}
