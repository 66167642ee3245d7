//! How a call is cut into tasks: query tiles that share their keys.

use ndarray::{ArrayView4, ArrayViewMut3, ArrayViewMut4, Axis, s};

use super::kernel::{Lanes, QueryTile};
use crate::arch::{Matrix, MatrixMut, dispatch};
use crate::threads;

/// Most query rows a tile: 64 lanes.
pub(super) const MAX_ROWS: usize = 64;

/// A validated call.
pub(super) struct Problem<'a> {
    pub q: ArrayView4<'a, f32>,
    pub k: ArrayView4<'a, f32>,
    pub v: ArrayView4<'a, f32>,
    /// `fl(scale * log2 e)`
    pub factor: f32,
    pub causal: bool,
    pub kv_lengths: Option<&'a [usize]>,
}

/// The outputs of one block of `[batch, heads, queries]` and where it starts.
struct Rows<'a> {
    start: [usize; 3],
    out: ArrayViewMut4<'a, f32>,
    lse: Option<ArrayViewMut3<'a, f32>>,
}

impl Rows<'_> {
    fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let (out, out_rest) = self.out.split_at(Axis(axis), at);
        let (lse, lse_rest) = self.lse.map(|l| l.split_at(Axis(axis), at)).unzip();
        let mut start = self.start;
        start[axis] += at;
        (Rows { start: self.start, out, lse }, Rows { start, out: out_rest, lse: lse_rest })
    }
}

/// Blocks of at most `step` along an axis, the last first: with a causal mask the last rows are
/// the most work, and long tasks should not come at the end.
struct Blocks<'a> {
    rest: Option<Rows<'a>>,
    axis: usize,
    step: usize,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Rows<'a>;

    fn next(&mut self) -> Option<Rows<'a>> {
        let rest = self.rest.take()?;
        let len = rest.out.len_of(Axis(self.axis));
        let at = len.checked_sub(1)? / self.step * self.step;
        let (rest, block) = rest.split(self.axis, at);
        self.rest = Some(rest);
        Some(block)
    }
}

/// Cuts the outputs into query tiles of one batch entry and one kv head. Short sequences share
/// a tile among heads of the group, so that lanes are not left empty.
fn tiles<'a>(rows: Rows<'a>, group: usize) -> impl Iterator<Item = Rows<'a>> {
    let queries = rows.out.len_of(Axis(2)).max(1);
    let heads = (MAX_ROWS / queries).clamp(1, group);
    Blocks { rest: Some(rows), axis: 0, step: 1 }
        .flat_map(move |r| Blocks { rest: Some(r), axis: 1, step: group })
        .flat_map(move |r| {
            // Steps count from the first head of the group.
            Blocks { rest: Some(r), axis: 1, step: heads }
        })
        .flat_map(|r| Blocks { rest: Some(r), axis: 2, step: MAX_ROWS })
}

pub(super) fn run(p: &Problem, out: ArrayViewMut4<f32>, lse: Option<ArrayViewMut3<f32>>) {
    let (batch, heads, queries, dim) = p.q.dim();
    let (_, kv_heads, keys, value_dim) = p.v.dim();
    if out.is_empty() {
        return;
    }
    let group = heads / kv_heads;
    let work = [batch, heads, queries, 2 * (dim + value_dim), keys + 1]
        .into_iter()
        .fold(1u64, |w, n| w.saturating_mul(n as u64));
    let work = if p.causal { work / 2 } else { work };
    let rows = Rows { start: [0; 3], out, lse };
    threads::for_each(tiles(rows, group), work, |r: Rows| one(p, group, r));
}

fn one(p: &Problem, group: usize, rows: Rows) {
    let [b, h, i] = rows.start;
    let (_, heads, queries, value_dim) = rows.out.dim();
    let kv = h / group;
    let keys = p.kv_lengths.map_or(p.k.dim().2, |n| n[b]);
    let first = p.q.dim().2;
    let visible = |query: usize| {
        // Query + keys - Lq + 1, which may be negative.
        if p.causal { (query + 1 + keys).saturating_sub(first).min(keys) } else { keys }
    };
    let lanes = Lanes::new(heads * queries);
    let mut limits = [0usize; MAX_ROWS];
    for (lane, limit) in limits.iter_mut().enumerate() {
        // Lanes without a row repeat the last one, so that they never ask for more keys.
        *limit = visible(i + lane.min(heads * queries - 1) % queries);
    }
    let q = p.q.slice(s![b, h..h + heads, i..i + queries, ..]);
    let k = Matrix::new(p.k.slice_move(s![b, kv, .., ..]));
    let v = Matrix::new(p.v.slice_move(s![b, kv, .., ..]));
    let dim = k.cols();
    let mut out = rows.out;
    let mut lse = rows.lse;
    threads::with_scratch(lanes.scratch(dim, value_dim), |scratch| {
        let (work, mut result) = lanes.split(scratch, dim, value_dim);
        if heads * queries < lanes.width() {
            // Lanes without a row hold zeros: what they compute is not read.
            work.q.fill(0.0);
        }
        for (n, q) in q.outer_iter().enumerate() {
            lanes.pack(Matrix::new(q), n * queries, p.factor, work.q);
        }
        dispatch(QueryTile { k, v, limits: &limits, lanes, work, result: &mut result });
        for (n, out) in out.index_axis_mut(Axis(0), 0).outer_iter_mut().enumerate() {
            lanes.unpack(result.o, n * queries, MatrixMut::new(out));
        }
        if let Some(lse) = &mut lse {
            for (lane, to) in lse.iter_mut().enumerate() {
                *to = log_sum_exp(result.m[lane], result.l[lane]);
            }
        }
    });
}

/// `ln 2 * (m + log2 l)`, -inf for an empty sum.
fn log_sum_exp(m: f32, l: f32) -> f32 {
    if l == 0.0 {
        return f32::NEG_INFINITY;
    }
    ((f64::from(m) + libm::log2(f64::from(l))) * std::f64::consts::LN_2) as f32
}
