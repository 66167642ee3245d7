//! The interpreter: everything between two evaluations in one pass over memory.
//!
//! The state is cut into chunks; a chunk runs all linear combinations of the segment on
//! registers that stay in the first-level cache, so each tensor is read and written once.
//! Chunks are disjoint, elements independent: bits depend neither on threads nor on vector width.

use ndarray::ArrayViewMut2;

use super::adaptive::Control;
use super::plan::Plan;
use super::prediction::Map;
use super::run::Run;
use super::table::{At, Eval, Lin, MAX_SLOTS, MAX_TERMS, Operand, REGISTERS, Row, Scale, Term, row_maps};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::random::{self, Purpose, normal_chunk};
use crate::threads;

/// Elements a chunk has; a multiple of 4, so that no Philox block is cut.
pub(super) const CHUNK: usize = 1024;
/// Chunks a task has, so that handing tasks out costs nothing.
const TASK: usize = 16 * CHUNK;
/// Lanes of the error sum; part of its definition.
const LANES: usize = 32;
/// Linear combinations of one segment.
const MAX_LINS: usize = 12;

/// The rows between two evaluations.
#[derive(Default)]
struct Segment {
    lins: Vec<Lin>,
    /// Error register and proposal slot, when the segment ends a trial step.
    accept: Option<(usize, usize)>,
    /// After the decision: for accepted rows, then for all unfinished rows.
    accepted: Vec<Lin>,
    after: Vec<Lin>,
    next: usize,
}

fn segment(plan: &Plan, from: usize) -> Segment {
    let rows = &plan.table().rows;
    let mut s = Segment::default();
    let (mut at, mut part) = (from + 1, 0);
    while let Some(row) = rows.get(at) {
        at += 1;
        match *row {
            Row::Eval(_) => {
                at -= 1;
                break;
            }
            Row::Lin(lin) => [&mut s.lins, &mut s.accepted, &mut s.after][part].push(lin),
            Row::Accept { error, proposal } => s.accept = Some((usize::from(error), usize::from(proposal))),
            Row::IfAccepted => part = 1,
            Row::Merge => part = 2,
            Row::Jump(to) => at = to as usize,
        }
    }
    s.next = at;
    s
}

/// Carries the run to its next evaluation. Everything was checked before.
pub(super) fn advance(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32]) {
    let Some(eval) = plan.eval_at(run.position).copied() else { return };
    let s = segment(plan, run.position);
    let active: Vec<bool> = run.control.iter().map(|c| !c.done).collect();
    let chunks = run.elements.div_ceil(CHUNK);
    let mut errors = vec![0.0; if s.accept.is_some() { run.rows() * chunks } else { 0 }];
    pass(run, plan, &eval, state, y, &s.lins, &active, s.accept, &mut errors);
    run.counters.evals += 1;
    run.position = s.next;
    if s.accept.is_none() {
        return;
    }
    let mut accepted = vec![false; run.rows()];
    for row in 0..run.rows() {
        if active[row] {
            // Chunk sums in rising order: the order is part of the definition.
            let sum: f64 = errors[row * chunks..(row + 1) * chunks].iter().fold(0.0, |a, e| a + e);
            accepted[row] = run.control[row].judge(libm::sqrt(sum / run.elements as f64));
            if accepted[row] {
                run.counters.accepts += 1;
            } else {
                run.counters.rejects += 1;
            }
        }
    }
    run.counters.rounds += 1;
    pass(run, plan, &eval, state, y, &s.accepted, &accepted, None, &mut []);
    let active: Vec<bool> = run.control.iter().map(|c| !c.done).collect();
    pass(run, plan, &eval, state, y, &s.after, &active, None, &mut []);
    if !active.contains(&true) {
        run.position = plan.table().rows.len();
    }
}

/// Runs `lins` over the rows that are `active` (all when empty).
#[allow(clippy::too_many_arguments)]
fn pass(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    lins: &[Lin],
    active: &[bool],
    accept: Option<(usize, usize)>,
    errors: &mut [f64],
) {
    if lins.is_empty() {
        return;
    }
    let len = run.rows() * run.elements;
    let mut slots: [&mut [f32]; MAX_SLOTS] = std::array::from_fn(|_| &mut [][..]);
    for (slot, memory) in slots.iter_mut().zip(state.chunks_exact_mut(len)) {
        *slot = memory;
    }
    let terms: usize = lins.iter().map(|l| usize::from(l.count)).sum();
    let noisy = lins.iter().any(|l| plan.table().terms(l).iter().any(|t| t.operand == Operand::Noise));
    let cost = 2 * terms + if noisy { 100 } else { 0 } + if accept.is_some() { 20 } else { 0 };
    let tasks =
        Tasks { slots, y, errors, active, elements: run.elements, rows: run.rows(), row: 0, first: 0 };
    threads::for_each(tasks, (len as u64).saturating_mul(cost as u64), |task| {
        let row = RowContext::new(run, plan, eval, task.row);
        let mut resolved = [Resolved::default(); MAX_LINS];
        for (r, lin) in resolved.iter_mut().zip(lins) {
            *r = row.resolve(lin, plan.table().terms(lin));
        }
        threads::with_scratch((REGISTERS + 2) * CHUNK, |scratch| {
            let accept = accept.map(|(register, proposal)| Accept {
                register,
                proposal,
                rtol: plan.options().rtol,
                atol: plan.options().atol,
            });
            let seed = run.seeds[task.row];
            let noise = noisy.then_some((seed, eval.step));
            dispatch(Pass { task, lins: &resolved[..lins.len()], noise, accept, scratch });
        });
    });
}

/// What a row's own time and step turn scales into.
struct RowContext {
    step: f64,
    data: Map,
    slope: Map,
}

impl RowContext {
    fn new(run: &Run, plan: &Plan, eval: &Eval, row: usize) -> RowContext {
        let (data, slope) = match eval.at {
            // Fixed plans carry finished coefficients and never look.
            At::Node(_) => (Map { x: 0.0, y: 0.0 }, Map { x: 0.0, y: 0.0 }),
            At::Fraction(_) => row_maps(plan.options(), &run.row_node(plan, eval, row)),
        };
        RowContext { step: run.control.get(row).map_or(0.0, Control::signed_step), data, slope }
    }

    fn scale(&self, term: &Term) -> f64 {
        match term.scale {
            Scale::One => 1.0,
            Scale::Step => self.step,
            Scale::DataX => self.data.x,
            Scale::DataY => self.data.y,
            Scale::SlopeX => self.slope.x,
            Scale::SlopeY => self.slope.y,
        }
    }

    fn resolve(&self, lin: &Lin, terms: &[Term]) -> Resolved {
        let mut r = Resolved { dst: lin.dst, count: terms.len(), clamp: lin.clamp, ..Default::default() };
        for (i, term) in terms.iter().enumerate() {
            r.operands[i] = term.operand;
            // The only rounding of a coefficient.
            r.coefficients[i] = (term.coefficient * self.scale(term)) as f32;
        }
        r
    }
}

/// A linear combination with the coefficients of one row.
#[derive(Clone, Copy)]
struct Resolved {
    dst: Operand,
    operands: [Operand; MAX_TERMS],
    coefficients: [f32; MAX_TERMS],
    count: usize,
    clamp: f32,
}

impl Default for Resolved {
    fn default() -> Self {
        Resolved {
            dst: Operand::Model,
            operands: [Operand::Model; MAX_TERMS],
            coefficients: [0.0; MAX_TERMS],
            count: 0,
            clamp: f32::INFINITY,
        }
    }
}

/// A piece of one row: its part of every state tensor, of the output and of the error sums.
struct Task<'a> {
    slots: [&'a mut [f32]; MAX_SLOTS],
    y: &'a [f32],
    errors: &'a mut [f64],
    row: usize,
    first: usize,
}

/// Cuts the state into tasks, row by row.
struct Tasks<'a> {
    slots: [&'a mut [f32]; MAX_SLOTS],
    y: &'a [f32],
    errors: &'a mut [f64],
    active: &'a [bool],
    elements: usize,
    rows: usize,
    row: usize,
    first: usize,
}

impl<'a> Iterator for Tasks<'a> {
    type Item = Task<'a>;

    fn next(&mut self) -> Option<Task<'a>> {
        while self.row < self.rows {
            let len = TASK.min(self.elements - self.first);
            let slots = std::array::from_fn(|i| {
                let whole = std::mem::take(&mut self.slots[i]);
                let (head, tail) = whole.split_at_mut(len.min(whole.len()));
                self.slots[i] = tail;
                head
            });
            let (y, rest) = self.y.split_at(len);
            self.y = rest;
            let whole = std::mem::take(&mut self.errors);
            let (errors, rest) = whole.split_at_mut(len.div_ceil(CHUNK).min(whole.len()));
            self.errors = rest;
            let task = Task { slots, y, errors, row: self.row, first: self.first };
            self.first += len;
            if self.first == self.elements {
                self.first = 0;
                self.row += 1;
            }
            if self.active.is_empty() || self.active[task.row] {
                return Some(task);
            }
        }
        None
    }
}

/// The error test of a task.
struct Accept {
    register: usize,
    proposal: usize,
    rtol: f64,
    atol: f64,
}

/// One task at one instruction set.
struct Pass<'a, 'b> {
    task: Task<'a>,
    lins: &'b [Resolved],
    noise: Option<(u64, u32)>,
    accept: Option<Accept>,
    scratch: &'b mut [f32],
}

impl Kernel for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pass { task, lins, noise, accept, scratch } = self;
        let mut parts = scratch.chunks_exact_mut(CHUNK);
        let mut buffer = || parts.next().unwrap_or_default();
        let mut target = buffer();
        let normals = buffer();
        let mut registers: [&mut [f32]; REGISTERS] = std::array::from_fn(|_| buffer());
        let len = task.y.len();
        for (index, at) in (0..len).step_by(CHUNK).enumerate() {
            let end = len.min(at + CHUNK);
            let n = end - at;
            if let Some((seed, draw)) = noise {
                normal_chunk(s, seed, Purpose::Step as u32, draw, task.first + at, &mut normals[..n]);
            }
            for lin in lins {
                let source = |operand: Operand| match operand {
                    Operand::Slot(i) => &task.slots[usize::from(i)][at..end],
                    Operand::Reg(i) => &registers[usize::from(i)][..n],
                    Operand::Model => &task.y[at..end],
                    Operand::Noise => &normals[..n],
                };
                let c = &lin.coefficients;
                let o = &lin.operands;
                let out = &mut target[..n];
                match lin.count {
                    0 => out.fill(0.0),
                    1 => combine(s, [source(o[0])], [c[0]], out),
                    2 => combine(s, [source(o[0]), source(o[1])], [c[0], c[1]], out),
                    3 => combine(s, [source(o[0]), source(o[1]), source(o[2])], [c[0], c[1], c[2]], out),
                    4 => combine(
                        s,
                        [source(o[0]), source(o[1]), source(o[2]), source(o[3])],
                        [c[0], c[1], c[2], c[3]],
                        out,
                    ),
                    5 => combine(
                        s,
                        [source(o[0]), source(o[1]), source(o[2]), source(o[3]), source(o[4])],
                        [c[0], c[1], c[2], c[3], c[4]],
                        out,
                    ),
                    _ => combine(s, o.map(source), *c, out),
                }
                if lin.clamp.is_finite() {
                    clamp(s, lin.clamp, &mut target[..n]);
                }
                match lin.dst {
                    Operand::Reg(i) => std::mem::swap(&mut registers[usize::from(i)], &mut target),
                    Operand::Slot(i) => task.slots[usize::from(i)][at..end].copy_from_slice(&target[..n]),
                    Operand::Model | Operand::Noise => {}
                }
            }
            if let Some(a) = &accept {
                let x = &task.slots[0][at..end];
                task.errors[index] =
                    error_sum(&registers[a.register][..n], x, &task.slots[a.proposal][at..end], a);
            }
        }
    }
}

/// `out = sum_k c_k src_k`: a chain of FMAs from +0, so that no result is -0.
#[inline(always)]
fn combine<S: Simd, const N: usize>(s: S, sources: [&[f32]; N], c: [f32; N], out: &mut [f32]) {
    let n = out.len();
    let sources = sources.map(|v| &v[..n]);
    let c = c.map(|v| s.splat(v));
    let mut i = 0;
    while i + S::LANES <= n {
        let mut sum = s.splat(0.0);
        for k in 0..N {
            sum = s.fma(s.load(&sources[k][i..]), c[k], sum);
        }
        s.store(sum, &mut out[i..]);
        i += S::LANES;
    }
    if i < n {
        let mut sum = s.splat(0.0);
        for k in 0..N {
            sum = s.fma(s.load_partial(&sources[k][i..], 0.0), c[k], sum);
        }
        s.store_partial(sum, &mut out[i..]);
    }
}

#[inline(always)]
fn clamp<S: Simd>(s: S, bound: f32, x: &mut [f32]) {
    let (high, low) = (s.splat(bound), s.splat(-bound));
    for part in x.chunks_mut(S::LANES) {
        let v = s.load_partial(part, 0.0);
        s.store_partial(s.max(s.min(v, high), low), part);
    }
}

/// `sum (e / (atol + rtol max(|x|, |x_new|)))^2` of a chunk: lane = index mod 32 in rising
/// order, then halving.
#[inline(always)]
fn error_sum(error: &[f32], x: &[f32], x_new: &[f32], a: &Accept) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for (i, ((&e, &x), &x_new)) in error.iter().zip(x).zip(x_new).enumerate() {
        let size = f64::from(x.abs().max(x_new.abs()));
        let ratio = f64::from(e) / (a.atol + a.rtol * size).max(f64::MIN_POSITIVE);
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

/// The first element that is NaN or infinite in a row still in use, as `(row, element)`.
pub(super) fn first_non_finite(y: &[f32], elements: usize, control: &[Control]) -> Option<(usize, usize)> {
    y.chunks_exact(elements)
        .enumerate()
        .filter(|(row, _)| control.get(*row).is_none_or(|c| !c.done))
        .find_map(|(row, y)| {
            if dispatch(AllFinite(y)) {
                None
            } else {
                y.iter().position(|v| !v.is_finite()).map(|e| (row, e))
            }
        })
}

/// Whether no element is NaN or infinite.
struct AllFinite<'a>(&'a [f32]);

impl Kernel for AllFinite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        // 0 * x is NaN exactly for NaN and infinite x, and NaN stays through the sum.
        let zero = s.splat(0.0);
        let mut sum = zero;
        let mut parts = self.0.chunks_exact(S::LANES);
        for part in &mut parts {
            sum = s.fma(s.load(part), zero, sum);
        }
        sum = s.fma(s.load_partial(parts.remainder(), 0.0), zero, sum);
        let mut lanes = [0.0; 16];
        s.store(sum, &mut lanes);
        lanes[..S::LANES].iter().all(|v| *v == 0.0)
    }
}

/// Starting noise of every row, times `sigma`.
pub(super) fn initial_noise(seeds: &[u64], elements: usize, sigma: f64, x: &mut [f32]) -> Result<()> {
    let view = ArrayViewMut2::from_shape((seeds.len(), elements), &mut *x)
        .map_err(|e| Error::Internal(format!("checked start noise: {e}")))?;
    random::normal(seeds, Purpose::Initial as u32, 0, view)?;
    let sigma = sigma as f32;
    if sigma != 1.0 {
        x.iter_mut().for_each(|v| *v *= sigma);
    }
    Ok(())
}
