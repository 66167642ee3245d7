//! One query tile against one key tile: queries in lanes, as in the forward pass.
//!
//! Probabilities and gradients of the scores are `[key][lane]`. That is the packed operand of
//! `dq^T += k^T ds^T` and, read row by row, the broadcast one of `dv += p^T dout` and
//! `dk += ds^T q`, whose packed operands are the rows of `dout` and `q` as they lie.

use std::f32::consts::LOG2_E;

use super::super::scores::{Change, KeyTile, all_finite};
use super::work::Work;
use crate::arch::{Kernel, Matrix, MatrixMut, Simd, Sink, multiply};
use crate::math;

/// Probabilities `p` and the gradients `ds` of the scores after cap and bias.
pub(super) struct Differences<'a, 'b, 'c, 'd> {
    pub k: Matrix<'a>,
    pub v: Matrix<'a>,
    pub tile: KeyTile<'a>,
    pub change: &'a Change<'d>,
    pub work: &'c mut Work<'b>,
}

impl Kernel for Differences<'_, '_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Differences { k, v, tile, change, work } = self;
        let width = work.width;
        let used = tile.len * width;
        let p = &mut work.p[..used];
        if tile.ranges.is_none() && change.is_none() {
            multiply(s, k, work.q_lanes, width, &mut Probabilities { p, lse: work.lse, width });
        } else {
            multiply(s, k, work.q_lanes, width, &mut Store { to: p, width });
            if change.cap.is_some() {
                slopes(s, p, &mut work.slope[..used]);
            }
            change.apply(s, tile, p, width, work.bias, work.next);
            probabilities(s, p, work.lse, width);
        }
        let (p, ds) = (&work.p[..used], &mut work.ds[..used]);
        multiply(s, v, work.dout_lanes, width, &mut Gradients { p, ds, delta: work.delta, width });
    }
}

/// The derivatives `1 - tanh^2` of capped scores.
#[inline(always)]
fn slopes<S: Simd>(s: S, x: &[f32], slope: &mut [f32]) {
    let one = s.splat(1.0);
    let mut i = 0;
    while i < x.len() {
        let t = math::tanh(s, s.load(&x[i..]));
        s.store(s.fma(s.neg(t), t, one), &mut slope[i..]);
        i += S::LANES;
    }
}

/// Scores to probabilities where some are hidden (-inf): those stay 0 even in a row whose lse is
/// NaN.
#[inline(always)]
fn probabilities<S: Simd>(s: S, p: &mut [f32], lse: &[f32], width: usize) {
    let (hidden, log2_e) = (s.splat(f32::NEG_INFINITY), s.splat(-LOG2_E));
    let mut lane = 0;
    while lane < width {
        let lse = s.load(&lse[lane..]);
        let mut i = lane;
        while i < p.len() {
            let x = s.load(&p[i..]);
            let x = s.select(s.eq(x, hidden), hidden, s.fma(lse, log2_e, x));
            s.store(math::exp2(s, x), &mut p[i..]);
            i += width;
        }
        lane += S::LANES;
    }
}

/// Scores as they are.
struct Store<'a> {
    to: &'a mut [f32],
    width: usize,
}

impl<S: Simd> Sink<S> for Store<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let to = &mut self.to[(row + r) * self.width + lane..];
            for v in 0..NV {
                s.store(acc[r][v], &mut to[v * S::LANES..]);
            }
        }
    }
}

/// Scores to probabilities on their way out of the registers.
struct Probabilities<'a> {
    p: &'a mut [f32],
    lse: &'a [f32],
    width: usize,
}

impl<S: Simd> Sink<S> for Probabilities<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        let lse = &self.lse[lane..];
        let log2_e = s.splat(-LOG2_E);
        for r in 0..MR {
            let p = &mut self.p[(row + r) * self.width + lane..];
            for v in 0..NV {
                let i = v * S::LANES;
                s.store(math::exp2(s, s.fma(s.load(&lse[i..]), log2_e, acc[r][v])), &mut p[i..]);
            }
        }
    }
}

/// `ds = p (dp - delta)`, 0 where `p` is.
struct Gradients<'a> {
    p: &'a [f32],
    ds: &'a mut [f32],
    delta: &'a [f32],
    width: usize,
}

impl<S: Simd> Sink<S> for Gradients<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        let zero = s.splat(0.0);
        let delta = &self.delta[lane..];
        for r in 0..MR {
            let at = (row + r) * self.width + lane;
            let (p, ds) = (&self.p[at..], &mut self.ds[at..]);
            for v in 0..NV {
                let i = v * S::LANES;
                let p = s.load(&p[i..]);
                let x = s.mul(p, s.sub(acc[r][v], s.load(&delta[i..])));
                s.store(s.select(s.eq(p, zero), zero, x), &mut ds[i..]);
            }
        }
    }
}

/// What the gradients of the scores of a tile add to those of keys, values and queries.
pub(super) struct Products<'a, 'b, 'c, 'd> {
    pub k: Matrix<'a>,
    /// Whether scores were capped.
    pub capped: bool,
    /// Whether rows of `q` and `dout` hold finite numbers alone.
    pub finite: bool,
    pub work: &'c mut Work<'b>,
    /// Rows of `dk` and `dv` of this tile's keys, and where they begin.
    pub keys: Option<(&'c mut MatrixMut<'d>, &'c mut MatrixMut<'d>, usize)>,
    /// Whether `work.dq` is wanted.
    pub queries: bool,
}

impl Kernel for Products<'_, '_, '_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Products { k, capped, finite, work, keys, queries } = self;
        let (width, len) = (work.width, k.rows());
        let used = len * width;
        if capped {
            times(s, &mut work.ds[..used], &work.slope[..used]);
        }
        let (p, ds) = (&work.p[..used], &work.ds[..used]);
        if let Some((dk, dv, first)) = keys {
            if finite {
                // Lanes without a row are no part of the sum.
                let of_rows =
                    |x| Matrix::from_slice(x, len, width).transposed().slice_rows(0, work.rows).transposed();
                multiply(s, of_rows(p), work.dout, work.dout_stride, &mut AddRows { to: dv, first });
                multiply(s, of_rows(ds), work.q, work.q_stride, &mut AddRows { to: dk, first });
            } else {
                let (mut dv, mut dk) = (AddRows { to: dv, first }, AddRows { to: dk, first });
                products_skipping(s, p, p, width, work.rows, work.dout, work.dout_stride, &mut dv);
                products_skipping(s, p, ds, width, work.rows, work.q, work.q_stride, &mut dk);
            }
        }
        if queries {
            let mut add = Add { to: work.dq, width };
            if all_finite(s, k) {
                multiply(s, k.transposed(), ds, width, &mut add);
            } else {
                queries_skipping(s, k, p, ds, width, &mut add);
            }
        }
    }
}

/// `x = x by`; a zero stays one, since the slope of a hidden score may be NaN.
#[inline(always)]
fn times<S: Simd>(s: S, x: &mut [f32], by: &[f32]) {
    let zero = s.splat(0.0);
    let mut i = 0;
    while i < x.len() {
        let from = s.load(&x[i..]);
        let product = s.mul(from, s.load(&by[i..]));
        s.store(s.select(s.eq(from, zero), from, product), &mut x[i..]);
        i += S::LANES;
    }
}

/// Adds a block to `[d][lane]`.
struct Add<'a> {
    to: &'a mut [f32],
    width: usize,
}

impl<S: Simd> Sink<S> for Add<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let to = &mut self.to[(row + r) * self.width + lane..];
            for v in 0..NV {
                let i = v * S::LANES;
                s.store(s.add(s.load(&to[i..]), acc[r][v]), &mut to[i..]);
            }
        }
    }
}

/// Adds a block to rows from `first`, whose lanes beyond the last column do not exist.
struct AddRows<'a, 'b> {
    to: &'a mut MatrixMut<'b>,
    first: usize,
}

impl<S: Simd> Sink<S> for AddRows<'_, '_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let Some(to) = self.to.row(self.first + row + r) else { continue };
            for v in 0..NV {
                let i = lane + v * S::LANES;
                if i + S::LANES <= to.len() {
                    s.store(s.add(s.load(&to[i..]), acc[r][v]), &mut to[i..]);
                } else if i < to.len() {
                    let sum = s.add(s.load_partial(&to[i..], 0.0), acc[r][v]);
                    s.store_partial(sum, &mut to[i..]);
                }
            }
        }
    }
}

/// `x^T rows` where a row that a hidden element meets may hold an infinity or a NaN: steps whose
/// probability is 0 are left out instead of adding 0.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
fn products_skipping<S: Simd>(
    s: S,
    p: &[f32],
    x: &[f32],
    width: usize,
    count: usize,
    rows: &[f32],
    stride: usize,
    add: &mut impl Sink<S>,
) {
    for j in 0..p.len() / width {
        let mut lane = 0;
        while lane < stride {
            let mut acc = s.splat(0.0);
            for i in 0..count {
                if p[j * width + i] != 0.0 {
                    acc = s.fma(s.splat(x[j * width + i]), s.load(&rows[i * stride + lane..]), acc);
                }
            }
            add.put(s, j, lane, [[acc]]);
            lane += S::LANES;
        }
    }
}

/// `k^T ds^T` where a hidden key may hold an infinity or a NaN.
#[inline(always)]
fn queries_skipping<S: Simd>(s: S, k: Matrix, p: &[f32], ds: &[f32], width: usize, add: &mut impl Sink<S>) {
    let zero = s.splat(0.0);
    for d in 0..k.cols() {
        let mut lane = 0;
        while lane < width {
            let mut acc = zero;
            for j in 0..k.rows() {
                let at = j * width + lane;
                let x = s.fma(s.splat(k.get(j, d)), s.load(&ds[at..]), acc);
                acc = s.select(s.eq(s.load(&p[at..]), zero), acc, x);
            }
            add.put(s, d, lane, [[acc]]);
            lane += S::LANES;
        }
    }
}
