//! One query tile against one key tile: probabilities and gradients of the scores, queries in lanes, as in
//! the forward pass.

use std::f32::consts::LOG2_E;

use super::super::products::Products;
use super::super::scores::{Change, KeyTile};
use super::work::Work;
use crate::arch::{Kernel, Matrix, Simd, Sink, Store, scaled};
use crate::math::{Powers, exp2_above, tanh};

/// Probabilities `p` and the gradients `ds` of the scores after cap and bias, `[key][lane]`.
pub(super) struct Differences<'a, 'b, 'c, 'd, P: Products> {
    pub k: Matrix<'a, P::Stored>,
    pub v: Matrix<'a, P::Stored>,
    pub tile: KeyTile<'a>,
    pub change: &'a Change<'d>,
    /// What the scores of [`Products::PAIRS`] are multiplied by.
    pub factor: f32,
    /// For keys or values in another form.
    pub room: &'c mut [f32],
    pub work: &'c mut Work<'b>,
}

impl<P: Products> Kernel for Differences<'_, '_, '_, '_, P> {
    type Output = ();
    const DOTS: bool = P::PAIRS;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Differences { k, v, tile, change, factor, room, work } = self;
        let width = work.width;
        let used = tile.len * width;
        let p = &mut work.p[..used];
        let factor = P::PAIRS.then_some(factor);
        if tile.ranges.is_none() && change.is_none() {
            let mut to = Probabilities { p, lse: work.lse, width, factor, kind: P::POWERS };
            P::scores(s, k, work.q_lanes, width, 0..width, room, &mut to);
        } else {
            P::scores(s, k, work.q_lanes, width, 0..width, room, &mut Store { to: p, width, factor });
            if change.cap.is_some() {
                slopes(s, p, &mut work.slope[..used]);
            }
            change.apply(s, tile, p, width, work.bias, work.next);
            probabilities(s, p, work.lse, width, P::POWERS);
        }
        let (p, ds) = (&work.p[..used], &mut work.ds[..used]);
        let mut to = Gradients { p, ds, delta: work.delta, width };
        P::scores(s, v, work.dout_lanes, width, 0..width, room, &mut to);
    }
}

/// The derivatives `1 - tanh^2` of capped scores.
#[inline(always)]
fn slopes<S: Simd>(s: S, x: &[f32], slope: &mut [f32]) {
    let one = s.splat(1.0);
    let mut i = 0;
    while i < x.len() {
        let t = tanh(s, s.load(&x[i..]));
        s.store(s.fma(s.neg(t), t, one), &mut slope[i..]);
        i += S::LANES;
    }
}

/// Scores to probabilities where some are hidden (-inf): those stay 0 even in a row whose lse is
/// NaN.
#[inline(always)]
fn probabilities<S: Simd>(s: S, p: &mut [f32], lse: &[f32], width: usize, kind: Powers) {
    let (hidden, log2_e) = (s.splat(f32::NEG_INFINITY), s.splat(-LOG2_E));
    let mut lane = 0;
    while lane < width {
        let lse = s.load(&lse[lane..]);
        let mut i = lane;
        while i < p.len() {
            let x = s.load(&p[i..]);
            let x = s.select(s.eq(x, hidden), hidden, s.fma(lse, log2_e, x));
            s.store(exp2_above(s, x, kind), &mut p[i..]);
            i += width;
        }
        lane += S::LANES;
    }
}

/// Scores to probabilities on their way out of the registers.
struct Probabilities<'a> {
    p: &'a mut [f32],
    lse: &'a [f32],
    width: usize,
    factor: Option<f32>,
    kind: Powers,
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
                let x = s.fma(s.load(&lse[i..]), log2_e, scaled(s, acc[r][v], self.factor));
                s.store(exp2_above(s, x, self.kind), &mut p[i..]);
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
