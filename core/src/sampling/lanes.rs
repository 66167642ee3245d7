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
pub(super) fn kick<S: Simd>(s: S, [z, u, g, x]: [&[f32]; 4], c: [f32; 5], out: &mut [f32]) {
    let w = splats(s, c);
    for (i, out) in out.chunks_mut(S::LANES).enumerate() {
        let load = |v: &[f32]| s.load_partial(&v[i * S::LANES..][..out.len()], 0.0);
        let (z, base) = (load(z), s.fma(load(u), w[3], w[4]));
        let cubic = s.fma(z, s.fma(z, w[0], w[1]), w[2]);
        let p = s.fma(z, cubic, base);
        s.store_partial(s.fma(p, load(g), load(x)), out);
    }
}

/// A vector of each number.
#[inline(always)]
fn splats<S: Simd, const N: usize>(s: S, c: [f32; N]) -> [S::F; N] {
    let mut v = [s.splat(0.0); N];
    for k in 0..N {
        v[k] = s.splat(c[k]);
    }
    v
}

/// Where a combination is written and what is seen of it, where it goes from one state to another (`APART`).
pub(super) struct Way<'a, S: Simd, const APART: bool> {
    /// Past the caches.
    pub past: bool,
    /// Memory that the results go to as well, past the caches; or none. What they are written to is then read again.
    pub twin: &'a mut [f32],
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
    way: &mut Way<'_, S, APART>,
) {
    let n = out.len();
    let (sources, factors) = (sources.map(|v| v.map(|v| &v[..n])), splats(s, c));
    let (past, twins) = (APART && way.past, APART && !way.twin.is_empty());
    let head = match () {
        _ if past => before_a_line(out),
        _ if twins => before_a_line(way.twin),
        _ => 0,
    };
    let whole = head + (n - head) / BLOCK * BLOCK;
    let (s1, s2) = (&sources, &factors);
    let mut seen = combine_parts(s, s1, s2, out, way.twin, 0..head, s.splat(0.0));
    seen = if past {
        combine_blocks::<S, N, APART, true>(s, s1, s2, out, way.twin, head..whole, seen)
    } else {
        combine_blocks::<S, N, APART, false>(s, s1, s2, out, way.twin, head..whole, seen)
    };
    seen = combine_parts(s, s1, s2, out, way.twin, whole..n, seen);
    if APART && way.looks {
        way.seen = s.add(way.seen, seen);
    }
}

/// Elements of a block: loops over blocks need no check of their bounds, and see the further ahead for it.
const BLOCK: usize = 32;

/// Two combinations at once: r, and `out` past the caches. Of the second a source that is `None` is r, which goes to `room`
/// or nowhere, and to `twin` as in [`Way`]. One loop reads all that both need, so that memory never waits.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) fn combine_pair<S: Simd, const N: usize, const M: usize>(
    s: S,
    (sources, c): ([Option<&[f32]>; N], [f32; N]),
    (others, d): ([Option<&[f32]>; M], [f32; M]),
    room: &mut [f32],
    twin: &mut [f32],
    out: &mut [f32],
    looks: [bool; 2],
    mut seen: S::F,
) -> S::F {
    let n = out.len();
    let (factors, weights) = (splats(s, c), splats(s, d));
    let head = before_a_line(out);
    let whole = head + (n - head) / BLOCK * BLOCK;
    let mut both = [s.splat(0.0); 2];
    for at in [0..head, whole..n] {
        both[0] = combine_parts(s, &sources, &factors, room, twin, at.clone(), both[0]);
        let mut filled = others;
        for source in filled.iter_mut().filter(|source| source.is_none()) {
            *source = Some(&room[..n]);
        }
        both[1] = combine_parts(s, &filled, &weights, out, &mut [], at, both[1]);
    }
    both = pair_blocks(s, (&sources, &factors), (&others, &weights), twin, out, head..whole, both);
    for (looks, part) in looks.into_iter().zip(both) {
        seen = if looks { s.add(seen, part) } else { seen };
    }
    seen
}

/// The blocks of a source, none where it is `None`.
#[inline(always)]
fn blocks<'a>(source: Option<&'a [f32]>, at: &Range<usize>) -> &'a [[f32; BLOCK]] {
    source.map(|v| v[at.clone()].as_chunks().0).unwrap_or_default()
}

/// The same to write, none of nothing.
#[inline(always)]
fn blocks_mut<'a>(memory: &'a mut [f32], at: &Range<usize>) -> &'a mut [[f32; BLOCK]] {
    memory.get_mut(at.clone()).unwrap_or_default().as_chunks_mut().0
}

/// A vector of a combination, from element `j` of block `i` on; `own` stands for a source without blocks.
#[inline(always)]
fn sum<S: Simd, const N: usize>(
    s: S,
    sources: &[&[[f32; BLOCK]]; N],
    factors: &[S::F; N],
    [i, j]: [usize; 2],
    own: S::F,
) -> S::F {
    let mut sum = s.splat(0.0);
    for k in 0..N {
        let v = match sources[k].get(i) {
            Some(source) => s.load(&source[j..]),
            None => own,
        };
        sum = s.fma(v, factors[k], sum);
    }
    sum
}

/// Whole blocks of [`combine_pair`].
#[inline(always)]
fn pair_blocks<S: Simd, const N: usize, const M: usize>(
    s: S,
    (sources, factors): (&[Option<&[f32]>; N], &[S::F; N]),
    (others, weights): (&[Option<&[f32]>; M], &[S::F; M]),
    twin: &mut [f32],
    out: &mut [f32],
    at: Range<usize>,
    mut seen: [S::F; 2],
) -> [S::F; 2] {
    let zero = s.splat(0.0);
    let (twin, out) = (blocks_mut(twin, &at), blocks_mut(out, &at));
    let (sources, others) = (sources.map(|v| blocks(v, &at)), others.map(|v| blocks(v, &at)));
    for i in 0..out.len() {
        for j in (0..BLOCK).step_by(S::LANES) {
            let r = sum(s, &sources, factors, [i, j], zero);
            let x = sum(s, &others, weights, [i, j], r);
            seen = [s.fma(r, zero, seen[0]), s.fma(x, zero, seen[1])];
            if let Some(twin) = twin.get_mut(i) {
                // As in `combine_blocks`.
                s.stream(s.add(r, zero), &mut twin[j..]);
            }
            s.stream(x, &mut out[i][j..]);
        }
    }
    seen
}

/// Whole blocks of a combination, written past the caches where `PAST`, and as a copy will be to `twin` where there is
/// one. Returns `seen`, NaN where a result is not finite.
#[inline(always)]
fn combine_blocks<S: Simd, const N: usize, const APART: bool, const PAST: bool>(
    s: S,
    sources: &[Option<&[f32]>; N],
    factors: &[S::F; N],
    out: &mut [f32],
    twin: &mut [f32],
    at: Range<usize>,
    mut seen: S::F,
) -> S::F {
    let zero = s.splat(0.0);
    let own = sources.iter().any(|v| v.is_none());
    let (twin, out) = (blocks_mut(twin, &at), blocks_mut(out, &at));
    let sources = sources.map(|v| blocks(v, &at));
    for i in 0..out.len() {
        for j in (0..BLOCK).step_by(S::LANES) {
            let own = if own { s.load(&out[i][j..]) } else { zero };
            let x = sum(s, &sources, factors, [i, j], own);
            if APART {
                seen = s.fma(x, zero, seen);
                if let Some(twin) = twin.get_mut(i) {
                    // A copy is a combination too, of which no result is -0.
                    s.stream(s.add(x, zero), &mut twin[j..]);
                }
            }
            if PAST {
                s.stream(x, &mut out[i][j..]);
            } else {
                s.store(x, &mut out[i][j..]);
            }
        }
    }
    seen
}

/// Less than a block of a combination.
#[inline(always)]
fn combine_parts<S: Simd, const N: usize>(
    s: S,
    sources: &[Option<&[f32]>; N],
    factors: &[S::F; N],
    out: &mut [f32],
    twin: &mut [f32],
    at: Range<usize>,
    mut seen: S::F,
) -> S::F {
    let zero = s.splat(0.0);
    let mut i = at.start;
    while i < at.end {
        let end = at.end.min(i + S::LANES);
        let mut sum = zero;
        for k in 0..N {
            let part = match sources[k] {
                Some(source) => &source[i..end],
                None => &out[i..end],
            };
            sum = s.fma(s.load_partial(part, 0.0), factors[k], sum);
        }
        s.store_partial(sum, &mut out[i..end]);
        if let Some(twin) = twin.get_mut(i..end) {
            s.store_partial(s.add(sum, zero), twin);
        }
        seen = s.fma(sum, zero, seen);
        i = end;
    }
    seen
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
    let (blocks, rest) = to[head..].as_chunks_mut::<BLOCK>();
    let (sources, last) = from[head..].as_chunks::<BLOCK>();
    for (block, source) in blocks.iter_mut().zip(sources) {
        for j in (0..BLOCK).step_by(S::LANES) {
            s.stream(s.load(&source[j..]), &mut block[j..]);
        }
    }
    rest.copy_from_slice(last);
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
