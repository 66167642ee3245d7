//! What is done to the elements of a chunk, lane by lane.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use super::plan::Plan;
use crate::arch::{Kernel, Simd, dispatch};
use crate::math;
use crate::threads;

/// Lanes of the error sum; part of its definition.
const LANES: usize = 32;

/// `x += exp(c0 + c1 w) noise`
#[inline(always)]
pub(super) fn learned<S: Simd>(
    s: S,
    w: &[f32],
    noise: &[f32],
    c: &[f32],
    x: &mut [f32],
    scratch: &mut [f32],
) {
    scratch.iter_mut().zip(w).for_each(|(e, w)| *e = w.mul_add(c[1], c[0]));
    for part in scratch.chunks_mut(S::LANES) {
        s.store_partial(math::exp(s, s.load_partial(part, 0.0)), part);
    }
    for ((x, z), e) in x.iter_mut().zip(noise).zip(&*scratch) {
        *x = z.mul_add(*e, *x);
    }
}

/// `out = x + p g`, p the polynomial `c4 + c3 u + z (c2 + z (c1 + z c0))` of z and u; the inputs are z, u, g, x.
#[inline(always)]
pub(super) fn kick<S: Simd>(s: S, [z, u, g, x]: [&[f32]; 4], c: &[f32], out: &mut [f32]) {
    let w: [S::F; 5] = std::array::from_fn(|i| s.splat(c[i]));
    for (i, out) in out.chunks_mut(S::LANES).enumerate() {
        let load = |v: &[f32]| s.load_partial(&v[i * S::LANES..][..out.len()], 0.0);
        let (z, base) = (load(z), s.fma(load(u), w[3], w[4]));
        let cubic = s.fma(z, s.fma(z, w[0], w[1]), w[2]);
        let p = s.fma(z, cubic, base);
        s.store_partial(s.fma(p, load(g), load(x)), out);
    }
}

/// Where a combination is written and what is seen of it, where it goes from one state to another (`APART`).
pub(super) struct Way<S: Simd, const APART: bool> {
    /// Past the caches.
    pub past: bool,
    /// Whether the results are looked at.
    pub looks: bool,
    /// NaN where one was not finite.
    pub seen: S::F,
}

/// `out = sum_k c_k src_k`: a chain of FMAs from +0, so that no result is -0. A source that is `None`
/// is `out` itself.
#[inline(always)]
pub(super) fn combine<S: Simd, const N: usize, const APART: bool>(
    s: S,
    sources: [Option<&[f32]>; N],
    c: [f32; N],
    out: &mut [f32],
    way: &mut Way<S, APART>,
) {
    let n = out.len();
    let sources = sources.map(|v| v.map(|v| &v[..n]));
    let zero = s.splat(0.0);
    let mut factors = [zero; N];
    for k in 0..N {
        factors[k] = s.splat(c[k]);
    }
    let mut seen = zero;
    let mut i = 0;
    if APART && way.past {
        let head = before_a_line(out);
        while i < head {
            let end = head.min(i + S::LANES);
            let sum = combine_part(s, &sources, &factors, out, i..end);
            seen = s.fma(sum, zero, seen);
            i = end;
        }
    }
    while i + S::LANES <= n {
        let mut sum = zero;
        for k in 0..N {
            let v = match sources[k] {
                Some(source) => s.load(&source[i..]),
                None => s.load(&out[i..]),
            };
            sum = s.fma(v, factors[k], sum);
        }
        if APART {
            seen = s.fma(sum, zero, seen);
        }
        if APART && way.past {
            s.stream(sum, &mut out[i..]);
        } else {
            s.store(sum, &mut out[i..]);
        }
        i += S::LANES;
    }
    if i < n {
        let sum = combine_part(s, &sources, &factors, out, i..n);
        seen = s.fma(sum, zero, seen);
    }
    if APART && way.looks {
        way.seen = s.add(way.seen, seen);
    }
}

/// At most a vector of [`combine`].
#[inline(always)]
fn combine_part<S: Simd, const N: usize>(
    s: S,
    sources: &[Option<&[f32]>; N],
    factors: &[S::F; N],
    out: &mut [f32],
    at: Range<usize>,
) -> S::F {
    let mut sum = s.splat(0.0);
    for k in 0..N {
        let part = match sources[k] {
            Some(source) => &source[at.clone()],
            None => &out[at.clone()],
        };
        sum = s.fma(s.load_partial(part, 0.0), factors[k], sum);
    }
    s.store_partial(sum, &mut out[at]);
    sum
}

/// Elements before the first line of a cache, at most all.
#[inline(always)]
pub(super) fn before_a_line(x: &[f32]) -> usize {
    (x.as_ptr().addr().wrapping_neg() % 64 / size_of::<f32>()).min(x.len())
}

/// Copies numbers, past the caches or not.
#[inline(always)]
pub(super) fn put<S: Simd>(s: S, from: &[f32], to: &mut [f32], past: bool) {
    if !past {
        return to.copy_from_slice(from);
    }
    let (n, head) = (to.len(), before_a_line(to));
    let from = &from[..n];
    to[..head].copy_from_slice(&from[..head]);
    let mut i = head;
    while i + S::LANES <= n {
        s.stream(s.load(&from[i..]), &mut to[i..]);
        i += S::LANES;
    }
    to[i..].copy_from_slice(&from[i..]);
}

#[inline(always)]
pub(super) fn clamp<S: Simd>(s: S, bound: f32, x: &mut [f32]) {
    let (high, low) = (s.splat(bound), s.splat(-bound));
    for part in x.chunks_mut(S::LANES) {
        let v = s.load_partial(part, 0.0);
        s.store_partial(s.max(s.min(v, high), low), part);
    }
}

/// What an error is measured by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tolerance {
    pub rtol: f64,
    pub atol: f64,
    /// The greater of the two counts, not their sum.
    pub greater: bool,
}

impl Tolerance {
    pub(super) fn of(plan: &Plan) -> Tolerance {
        let o = plan.options();
        Tolerance { rtol: o.rtol, atol: o.atol, greater: o.solver.walks_lambda() }
    }
}

/// `sum (e / (atol + rtol max(|x|, |x_new|)))^2` of a chunk: lane = index mod 32 in rising
/// order, then halving.
#[inline(always)]
pub(super) fn error_sum(error: &[f32], x: &[f32], x_new: &[f32], a: Tolerance) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for (i, ((&e, &x), &x_new)) in error.iter().zip(x).zip(x_new).enumerate() {
        let size = f64::from(x.abs().max(x_new.abs()));
        let bound = if a.greater { a.atol.max(a.rtol * size) } else { a.atol + a.rtol * size };
        let ratio = f64::from(e) / bound.max(f64::MIN_POSITIVE);
        lanes[i % LANES] += ratio * ratio;
    }
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Elements a task of the search below reads.
const TASK: usize = 64 * 1024;
/// Elements up to which one after the other is found sooner.
const FEW: usize = 32;

/// The first element that is NaN or infinite in a row still in use, as `(row, element)`.
pub(super) fn first_non_finite(y: &[f32], elements: usize, active: &[bool]) -> Option<(usize, usize)> {
    let rows = || {
        let rows = y.chunks_exact(elements).enumerate();
        rows.filter(|(row, _)| active.get(*row).is_none_or(|active| *active))
    };
    // Where it is must not depend on the threads.
    let place = |(row, y): (usize, &[f32])| y.iter().position(|v| !v.is_finite()).map(|e| (row, e));
    if y.len() <= FEW {
        return rows().find_map(place);
    }
    let found = AtomicBool::new(false);
    let look = |part: &[f32]| {
        if !dispatch(AllFinite(part)) {
            found.store(true, Ordering::Relaxed);
        }
    };
    let work = y.len() as u64;
    if active.iter().all(|active| *active) {
        threads::for_each(y.chunks(TASK), work, look);
    } else {
        threads::for_each(rows().flat_map(|(_, y)| y.chunks(TASK)), work, look);
    }
    if found.into_inner() { rows().find_map(place) } else { None }
}

/// Whether no element is NaN or infinite.
struct AllFinite<'a>(&'a [f32]);

impl Kernel for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        !has_odd(s, probe(s, self.0, s.splat(0.0)))
    }
}

/// `seen`, or NaN where an element is NaN or infinite.
#[inline(always)]
pub(super) fn probe<S: Simd>(s: S, y: &[f32], seen: S::F) -> S::F {
    // 0 * x is NaN exactly for NaN and infinite x, and NaN stays through the sum.
    let zero = s.splat(0.0);
    let mut sums = [zero; 8];
    let mut blocks = y.chunks_exact(8 * S::LANES);
    for block in &mut blocks {
        for (sum, part) in sums.iter_mut().zip(block.chunks_exact(S::LANES)) {
            *sum = s.fma(s.load(part), zero, *sum);
        }
    }
    let mut sum = seen;
    for part in sums {
        sum = s.add(sum, part);
    }
    for part in blocks.remainder().chunks(S::LANES) {
        sum = s.fma(s.load_partial(part, 0.0), zero, sum);
    }
    sum
}

/// Whether a lane of what was seen is not 0.
#[inline(always)]
pub(super) fn has_odd<S: Simd>(s: S, seen: S::F) -> bool {
    let mut lanes = [0.0; 16];
    s.store(seen, &mut lanes);
    !lanes[..S::LANES].iter().all(|v| *v == 0.0)
}
