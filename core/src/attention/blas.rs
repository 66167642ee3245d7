//! The two products of attention by the BLAS of the machine, where `DGM_BACKEND=blas` asks for it.
//!
//! A task is a block of [`QUERIES`] queries of one head. Block by block of [`KEYS`] keys: the scores
//! `S = Q K^T` by the BLAS, rows of `S` through the options and the softmax of this module, and
//! `O += P V` by the BLAS. Sums run in the library's order, so the result is outside the promise of
//! equal bits. What a call must be to come here stands at [`takes`]; everything else is the native
//! kernel's, which is faster for it or which alone keeps what hidden elements hold out of the result.
//!
//! Each thread of the pool calls the BLAS by itself: one with threads of its own should be told to use
//! one (`OPENBLAS_NUM_THREADS=1`, `MKL_NUM_THREADS=1`). Accelerate needs nothing.

use std::ops::Range;

use ndarray::{
    ArrayView1, ArrayView2, ArrayView4, ArrayViewMut, ArrayViewMut1, ArrayViewMut2, Axis, Dimension, Ix4, s,
};

use super::scores::Finite;
use super::tiles::{Call, Problem, log_sum_exp};
use crate::arch::blas::{Blas, Operand};
use crate::arch::{Kernel, Matrix, Simd, dispatch};
use crate::linalg::{Backend, backend};
use crate::math;
use crate::tensor::{Floats, FloatsMut};
use crate::threads;

/// Queries a block.
const QUERIES: usize = 256;

/// Keys a block.
const KEYS: usize = 512;

/// Fewest queries and keys that come here: below, products are too small to gain anything.
const FEWEST: usize = 256;

/// Fewest keys of a causal call: below, most of what a product computes would be hidden.
const FEWEST_CAUSAL: usize = 1024;

/// Whether the BLAS takes a call: all of f32, at least [`FEWEST`] queries and keys
/// ([`FEWEST_CAUSAL`] keys if causal), no window, rows of `k` and `v` with adjacent elements, and, where
/// elements are hidden inside of a block, finite values.
fn takes(p: &Problem, out: &FloatsMut<Ix4>) -> bool {
    let (Floats::F32(_), Floats::F32(k), Floats::F32(v), FloatsMut::F32(_)) = (&p.q, &p.k, &p.v, out) else {
        return false;
    };
    let (o, queries, keys) = (p.options, p.q.shape()[2], k.shape()[2]);
    let every = |x: &ArrayView4<f32>, test: fn(Matrix) -> bool| {
        x.outer_iter().all(|x| x.outer_iter().all(|x| test(Matrix::new(x))))
    };
    let adjacent = |x: Matrix| Operand::new(x).is_some();
    let hides = o.causal || o.mask.is_some() || o.bias.is_some();
    queries >= FEWEST
        && keys >= if o.causal { FEWEST_CAUSAL } else { FEWEST }
        && o.window_left.is_none()
        && o.window_right.is_none()
        && every(k, adjacent)
        && every(v, adjacent)
        && (!hides || every(v, |v| dispatch(Finite(v))))
}

/// Runs a call where that is asked for and possible; gives it back otherwise.
pub(super) fn run<'a, 'r, 'o>((p, out, lse): Call<'a, 'r, 'o>) -> Option<Call<'a, 'r, 'o>> {
    let Some(blas) = (backend() == Backend::Blas && takes(&p, &out)).then(Blas::find).flatten() else {
        return Some((p, out, lse));
    };
    let (Floats::F32(q), Floats::F32(k), Floats::F32(v), FloatsMut::F32(mut out)) = (&p.q, &p.k, &p.v, out)
    else {
        unreachable!("checked");
    };
    let group = q.shape()[1] / k.shape()[1].max(1);
    let mut tasks = Vec::new();
    for (b, out) in blocks(out.view_mut(), 1).into_iter().enumerate() {
        for (h, out) in blocks(out.index_axis_move(Axis(0), 0), 1).into_iter().enumerate() {
            let parts = blocks(out.index_axis_move(Axis(0), 0), QUERIES).into_iter().enumerate();
            tasks.extend(parts.map(|(i, out)| ([b, h, i * QUERIES], out)));
        }
    }
    let first = |x: ArrayViewMut2<'a, f32>| x.index_axis_move(Axis(0), 0);
    let sums: Vec<Option<ArrayViewMut1<f32>>> = match lse {
        Some(lse) => blocks(lse, 1)
            .into_iter()
            .flat_map(|x| blocks(x.index_axis_move(Axis(0), 0), 1))
            .flat_map(|x| blocks(first(x), QUERIES))
            .map(Some)
            .collect(),
        None => tasks.iter().map(|_| None).collect(),
    };
    // The last first: with a causal mask they are the most work.
    let tasks = tasks.into_iter().zip(sums).rev();
    threads::for_each(tasks, p.work(), |((at, out), lse)| {
        let [b, h, first] = at;
        let part = Part {
            blas,
            p: &p,
            at,
            q: q.slice(s![b, h, first..first + out.nrows(), ..]),
            k: Matrix::new(k.slice(s![b, h / group, .., ..])),
            v: Matrix::new(v.slice(s![b, h / group, .., ..])),
        };
        part.run(out, lse);
    });
    None
}

/// Blocks of at most `step` along the first axis, in order.
fn blocks<D: Dimension>(x: ArrayViewMut<f32, D>, step: usize) -> Vec<ArrayViewMut<f32, D>> {
    let (mut rest, mut all) = (x, Vec::new());
    while rest.len_of(Axis(0)) > 0 {
        let at = rest.len_of(Axis(0)).min(step);
        let (block, behind) = rest.split_at(Axis(0), at);
        all.push(block);
        rest = behind;
    }
    all
}

/// One task.
struct Part<'a, 'b, 'r, 'o> {
    blas: Blas,
    p: &'a Problem<'b, 'r, 'o>,
    /// Batch entry, head and first query.
    at: [usize; 3],
    q: ArrayView2<'a, f32>,
    k: Matrix<'a>,
    v: Matrix<'a>,
}

impl Part<'_, '_, '_, '_> {
    fn run(&self, mut out: ArrayViewMut2<f32>, lse: Option<ArrayViewMut1<f32>>) {
        let [b, h, first] = self.at;
        let (rows, dim, value_dim) = (self.q.nrows(), self.q.ncols(), self.v.cols());
        let seen: Vec<Range<usize>> = (first..first + rows).map(|i| self.p.range(b, i)).collect();
        let used = seen.iter().filter(|r| !r.is_empty());
        let from = used.clone().map(|r| r.start).min().unwrap_or(0);
        let to = used.map(|r| r.end).max().unwrap_or(0);
        let need = rows * (dim + KEYS + value_dim + 2);
        threads::with_scratch(need, |scratch| {
            let (q, rest) = scratch.split_at_mut(rows * dim);
            let (scores, rest) = rest.split_at_mut(rows * KEYS);
            let (o, rest) = rest.split_at_mut(rows * value_dim);
            let (m, l) = rest.split_at_mut(rows);
            for (to, x) in q.iter_mut().zip(&self.q) {
                *to = x * self.p.factor;
            }
            o.fill(0.0);
            m.fill(f32::NEG_INFINITY);
            l.fill(0.0);
            let q = Operand::rows_of(q, rows, dim, dim);
            for start in (from..to).step_by(KEYS) {
                let n = KEYS.min(to - start);
                let (k, v) = (self.k.slice_rows(start, n), self.v.slice_rows(start, n));
                let (Some(k), Some(v)) = (Operand::new(k), Operand::new(v)) else { unreachable!("checked") };
                self.blas.multiply(q, k.transposed(), 0.0, scores, KEYS);
                dispatch(Softmax { part: self, seen: &seen, keys: start..start + n, scores, o, m, l });
                self.blas.multiply(Operand::rows_of(scores, rows, n, KEYS), v, 1.0, o, value_dim);
            }
            if let Some(sinks) = self.p.options.sinks {
                let sink = (f64::from(sinks[h]) * std::f64::consts::LOG2_E) as f32;
                join_sink(sink, value_dim, o, m, l);
            }
            for ((mut to, from), l) in out.outer_iter_mut().zip(o.chunks_exact(value_dim)).zip(&*l) {
                let inverse = if *l == 0.0 { 0.0 } else { 1.0 / l };
                // Adding +0 turns a negative zero into +0.
                to.iter_mut().zip(from).for_each(|(to, x)| *to = x * inverse + 0.0);
            }
            if let Some(mut lse) = lse {
                lse.iter_mut().zip(m.iter().zip(&*l)).for_each(|(to, (&m, &l))| *to = log_sum_exp(m, l));
            }
        });
    }

    /// Bias of a row for some keys, -inf where the mask hides the element. False without either.
    #[inline(never)]
    fn bias(&self, row: usize, keys: Range<usize>, to: &mut [f32]) -> bool {
        let [b, h, first] = self.at;
        let (q, k) = (self.p.q.shape(), self.p.k.shape());
        let full = (q[0], q[1], q[2], k[2]);
        let slice = s![b, h, first + row, keys];
        if let Some(bias) = self.p.options.bias.as_ref().and_then(|x| x.broadcast(full)) {
            let bias: ArrayView1<f32> = bias.slice_move(&slice);
            to.iter_mut().zip(bias).for_each(|(to, x)| *to = *x);
        } else if self.p.options.mask.is_some() {
            to.fill(0.0);
        } else {
            return false;
        }
        if let Some(mask) = self.p.options.mask.as_ref().and_then(|x| x.broadcast(full)) {
            let mask: ArrayView1<u8> = mask.slice_move(&slice);
            to.iter_mut().zip(mask).filter(|(_, x)| **x == 0).for_each(|(to, _)| *to = f32::NEG_INFINITY);
        }
        true
    }
}

/// Turns the scores of a block of keys into probabilities, row by row, and rescales what came before.
struct Softmax<'t, 'a, 'b, 'r, 'o> {
    part: &'t Part<'a, 'b, 'r, 'o>,
    /// The keys each row sees.
    seen: &'t [Range<usize>],
    keys: Range<usize>,
    /// `[rows][KEYS]`
    scores: &'t mut [f32],
    o: &'t mut [f32],
    m: &'t mut [f32],
    l: &'t mut [f32],
}

impl Kernel for Softmax<'_, '_, '_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Softmax { part, seen, keys, scores, o, m, l } = self;
        let value_dim = part.v.cols();
        let mut extra = [0.0; KEYS];
        for (i, seen) in seen.iter().enumerate() {
            let row = &mut scores[i * KEYS..][..keys.len()];
            let from = seen.start.clamp(keys.start, keys.end) - keys.start;
            let to = (seen.end.clamp(keys.start, keys.end) - keys.start).max(from);
            row[..from].fill(0.0);
            row[to..].fill(0.0);
            if from == to {
                continue;
            }
            let row = &mut row[from..to];
            let first = keys.start + from;
            change(s, part, i, first, row, &mut extra[..to - from]);
            let next = row_max(s, row, m[i]);
            let base = if next == f32::NEG_INFINITY { 0.0 } else { next };
            let alpha = exp2(s, m[i] - base);
            l[i] = l[i] * alpha + exponentials(s, row, base);
            m[i] = next;
            if alpha != 1.0 {
                scale(s, &mut o[i * value_dim..][..value_dim], alpha);
            }
        }
    }
}

/// Soft-cap, slopes, bias and mask, in the order of the options.
#[inline(always)]
fn change<S: Simd>(s: S, part: &Part, i: usize, first: usize, row: &mut [f32], extra: &mut [f32]) {
    let [b, h, start] = part.at;
    let p = part.p;
    let hidden = s.splat(f32::NEG_INFINITY);
    let slope = p.options.alibi_slopes.map_or(0.0, |x| (f64::from(x[h]) * -std::f64::consts::LOG2_E) as f32);
    let position = p.position(b, start + i) - first as i64;
    let biased = part.bias(i, first..first + row.len(), extra);
    for (n, part) in row.chunks_mut(S::LANES).enumerate() {
        let at = n * S::LANES;
        let mut x = s.load_partial(part, 0.0);
        if let Some(cap) = p.cap {
            x = s.mul(math::tanh(s, x), s.splat(cap));
        }
        if p.options.alibi_slopes.is_some() {
            let mut distance = [0.0; 16];
            for (j, d) in distance[..S::LANES].iter_mut().enumerate() {
                *d = (position - (at + j) as i64) as f32;
            }
            x = s.fma(s.splat(slope), s.abs(s.load(&distance)), x);
        }
        if biased {
            let bias = s.load_partial(&extra[at..], 0.0);
            let sum = s.fma(bias, s.splat(std::f32::consts::LOG2_E), x);
            x = s.select(s.eq(bias, hidden), hidden, sum);
        }
        s.store_partial(x, part);
    }
}

/// The largest of the row and `m`; a NaN is passed over.
#[inline(always)]
fn row_max<S: Simd>(s: S, row: &[f32], m: f32) -> f32 {
    let mut most = s.splat(m);
    for part in row.chunks(S::LANES) {
        most = s.max(s.load_partial(part, m), most);
    }
    let mut lanes = [m; 16];
    s.store(most, &mut lanes);
    lanes[..S::LANES].iter().fold(m, |m, &x| if x > m { x } else { m })
}

/// `row = 2^(row - base)`; returns the sum.
#[inline(always)]
fn exponentials<S: Simd>(s: S, row: &mut [f32], base: f32) -> f32 {
    let mut sum = s.splat(0.0);
    for part in row.chunks_mut(S::LANES) {
        let p = math::exp2(s, s.sub(s.load_partial(part, f32::NEG_INFINITY), s.splat(base)));
        sum = s.add(sum, p);
        s.store_partial(p, part);
    }
    let mut lanes = [0.0; 16];
    s.store(sum, &mut lanes);
    lanes[..S::LANES].iter().sum()
}

#[inline(always)]
fn scale<S: Simd>(s: S, row: &mut [f32], by: f32) {
    for part in row.chunks_mut(S::LANES) {
        s.store_partial(s.mul(s.load_partial(part, 0.0), s.splat(by)), part);
    }
}

/// [`math::exp2`] of one number.
#[inline(always)]
fn exp2<S: Simd>(s: S, x: f32) -> f32 {
    let mut lanes = [0.0; 16];
    s.store(math::exp2(s, s.splat(x)), &mut lanes);
    lanes[0]
}

/// Merges the sink of the head, a score without a value, into every row.
fn join_sink(sink: f32, value_dim: usize, o: &mut [f32], m: &mut [f32], l: &mut [f32]) {
    struct One(f32);
    impl Kernel for One {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, s: S) -> f32 {
            exp2(s, self.0)
        }
    }
    for ((o, m), l) in o.chunks_exact_mut(value_dim).zip(m).zip(l) {
        let next = if *m > sink { *m } else { sink };
        let base = if next == f32::NEG_INFINITY { 0.0 } else { next };
        let (own, other) = (dispatch(One(*m - base)), dispatch(One(sink - base)));
        *l = *l * own + other;
        o.iter_mut().for_each(|x| *x *= own);
        *m = next;
    }
}
