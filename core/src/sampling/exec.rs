//! The interpreter: everything between two evaluations in one pass over memory.
//!
//! The state is cut into chunks; a chunk runs all linear combinations of the segment on
//! registers that stay in the first-level cache, so each tensor is read and written once.
//! Chunks are disjoint, elements independent: bits depend neither on threads nor on vector width.

use ndarray::ArrayViewMut2;

use super::adaptive::Control;
use super::builder::row_maps;
use super::chain::{self, Test};
use super::dense;
use super::lanes::{Tolerance, clamp, combine, error_sum, kick, learned};
use super::measure::{self, Numbers};
use super::plan::Plan;
use super::prediction::Map;
use super::run::Run;
use super::table::{
    At, Draw, Eval, Lin, MAX_SLOTS, MAX_TERMS, Measure, Noisy, Operand, REGISTERS, Row, Scale, Term,
};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::random::{self, Purpose, normal_chunk};
use crate::threads;

/// Elements a chunk has; a multiple of 4, so that no Philox block is cut.
pub(super) const CHUNK: usize = 1024;
/// Chunks a task has, so that handing tasks out costs nothing.
const TASK: usize = 16 * CHUNK;
/// Linear combinations of one phase.
pub(super) const MAX_LINS: usize = 16;

/// What needs whole rows, and ends a pass.
enum Barrier {
    Measure(Measure, Operand, Operand),
    Threshold(u8, f64, f64),
    FirstStep(Operand, Option<Operand>),
}

/// The rows between two evaluations.
#[derive(Default)]
struct Segment {
    /// Linear combinations that end at a barrier, one after the other.
    phases: Vec<(Vec<Op>, Barrier)>,
    lins: Vec<Op>,
    /// Error register and proposal slot, when the segment ends a trial step.
    accept: Option<(usize, usize)>,
    /// The test of a proposal, when the segment ends one.
    test: Option<Test>,
    /// After the decision: for accepted rows, then for all unfinished rows.
    accepted: Vec<Op>,
    after: Vec<Op>,
    next: usize,
}

/// What is done to every element.
#[derive(Debug, Clone, Copy)]
enum Op {
    Lin(Lin),
    LearnedNoise { base: f64, slope: f64 },
    Noisy(Noisy),
}

/// The rows from a position to the next evaluation.
fn segment(plan: &Plan, from: usize) -> Segment {
    let rows = &plan.table().rows;
    let mut s = Segment::default();
    let (mut at, mut part) = (from, 0);
    while let Some(row) = rows.get(at) {
        at += 1;
        let mut keep = |op| [&mut s.lins, &mut s.accepted, &mut s.after][part].push(op);
        match *row {
            Row::Eval(_) => {
                at -= 1;
                break;
            }
            Row::Lin(lin) => keep(Op::Lin(lin)),
            Row::LearnedNoise { base, slope } => keep(Op::LearnedNoise { base, slope }),
            Row::Noisy(noisy) => keep(Op::Noisy(noisy)),
            Row::Accept { error, proposal } => s.accept = Some((usize::from(error), usize::from(proposal))),
            Row::Metropolis { gradient, next, p0, p, number } => {
                let [gradient, next, p0, p] = [gradient, next, p0, p].map(usize::from);
                s.test = Some(Test { gradient, next, p0, p, number });
            }
            Row::IfAccepted => part = 1,
            Row::Merge => part = 2,
            Row::Jump(to) => at = to as usize,
            Row::Measure { what, a, b } => {
                s.phases.push((std::mem::take(&mut s.lins), Barrier::Measure(what, a, b)));
            }
            Row::Threshold { slot, ratio, most } => {
                s.phases.push((std::mem::take(&mut s.lins), Barrier::Threshold(slot, ratio, most)));
            }
            Row::FirstStep { slope, change } => {
                s.phases.push((std::mem::take(&mut s.lins), Barrier::FirstStep(slope, change)));
            }
        }
    }
    s.next = at;
    s
}

/// Carries a fresh run to its first evaluation: what stands before it only prepares the state.
pub(super) fn begin(run: &mut Run, plan: &Plan, state: &mut [f32]) {
    let s = segment(plan, run.position);
    run.position = s.next;
    let Some(eval) = plan.eval_at(run.position).copied() else { return };
    pass(run, plan, &eval, state, &[], &s.lins, &[], &[], None, &mut []);
}

/// Carries the run to its next evaluation. Everything was checked before.
pub(super) fn advance(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32], told: &[f64]) {
    if !run.places.is_empty() {
        return advance_rows(run, plan, state, y, told);
    }
    let Some(eval) = plan.eval_at(run.position).copied() else { return };
    let s = segment(plan, run.position + 1);
    let chunks = run.elements.div_ceil(CHUNK);
    let active = run.active(plan);
    let numbers = phases(run, plan, &eval, state, y, &s, &active, told);
    let mut errors = vec![0.0; if s.accept.is_some() { run.rows() * chunks } else { 0 }];
    pass(run, plan, &eval, state, y, &s.lins, &active, &numbers, s.accept, &mut errors);
    let registers = beside(run, plan, &eval, &s.lins, &active, told);
    run.counters.evals += 1;
    run.position = s.next;
    if let Some(test) = &s.test {
        let accepted = chain::decide(run, plan, state, test);
        let count = accepted.iter().filter(|a| **a).count() as u64;
        run.counters.accepts += count;
        run.counters.rejects += run.rows() as u64 - count;
        run.counters.rounds += 1;
        for (ops, rows) in [(&s.accepted, &accepted[..]), (&s.after, &[])] {
            pass(run, plan, &eval, state, y, ops, rows, &numbers, None, &mut []);
            beside(run, plan, &eval, ops, rows, told);
        }
    }
    if s.accept.is_none() {
        return;
    }
    let mut accepted = vec![false; run.rows()];
    let rule = plan.control();
    let shape = (run.rows(), run.elements);
    for row in 0..run.rows() {
        if active[row] {
            // Chunk sums in rising order: the order is part of the definition.
            let sum: f64 = errors[row * chunks..(row + 1) * chunks].iter().fold(0.0, |a, e| a + e);
            let before = run.control[row];
            let (extra, count) = extra_error(run, plan, row, s.accept, &registers);
            let error = libm::sqrt((sum + extra) / (run.elements as f64 + count));
            accepted[row] = run.control[row].judge(error, &rule);
            if accepted[row] {
                if let Some((_, proposal)) = s.accept {
                    dense::save(plan, state, shape, row, &before, proposal);
                }
                run.counters.accepts += 1;
            } else {
                run.counters.rejects += 1;
            }
        }
    }
    run.counters.rounds += 1;
    pass(run, plan, &eval, state, y, &s.accepted, &accepted, &numbers, None, &mut []);
    beside(run, plan, &eval, &s.accepted, &accepted, told);
    let active: Vec<bool> = run.control.iter().map(|c| !c.done).collect();
    pass(run, plan, &eval, state, y, &s.after, &active, &numbers, None, &mut []);
    beside(run, plan, &eval, &s.after, &active, told);
    if !active.contains(&true) {
        run.position = plan.table().rows.len();
    }
}

/// Carries the rows that were asked for to their next evaluations, those at one place together.
fn advance_rows(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32], told: &[f64]) {
    let active = run.active(plan);
    let places: Vec<Option<usize>> =
        run.places.iter().zip(&active).map(|(p, active)| active.then_some(p.position)).collect();
    let mut positions: Vec<usize> = places.iter().flatten().copied().collect();
    positions.sort_unstable();
    positions.dedup();
    for position in positions {
        let Some(eval) = plan.eval_at(position).copied() else { continue };
        let s = segment(plan, position + 1);
        let group: Vec<bool> = places.iter().map(|place| *place == Some(position)).collect();
        let numbers = phases(run, plan, &eval, state, y, &s, &group, told);
        pass(run, plan, &eval, state, y, &s.lins, &group, &numbers, None, &mut []);
        beside(run, plan, &eval, &s.lins, &group, told);
        for (place, _) in run.places.iter_mut().zip(&group).filter(|(_, told)| **told) {
            place.position = s.next;
            place.moving = !plan.starts_step(s.next);
        }
    }
    run.counters.evals += 1;
    run.settle(plan);
}

/// What `ops` do to the numbers beside the tensors; returns the registers of every row.
fn beside(
    run: &mut Run,
    plan: &Plan,
    eval: &Eval,
    ops: &[Op],
    active: &[bool],
    told: &[f64],
) -> Vec<[f64; REGISTERS]> {
    let kept = plan.kept();
    if kept == 0 {
        return Vec::new();
    }
    let mut registers = vec![[0.0; REGISTERS]; run.rows()];
    let mut all = std::mem::take(&mut run.numbers);
    for (row, slots) in all.chunks_exact_mut(kept).enumerate() {
        if active.get(row).is_some_and(|active| !active) {
            continue;
        }
        let context = RowContext::new(run, plan, eval, row, &[]);
        let registers = &mut registers[row];
        for op in ops {
            let Op::Lin(lin) = op else { continue };
            let value = plan.table().terms(lin).iter().fold(0.0, |sum, term| {
                let value = match term.operand {
                    Operand::Slot(i) => slots[usize::from(i)],
                    Operand::Reg(i) => registers[usize::from(i)],
                    Operand::Model => told.get(row).copied().unwrap_or_default(),
                    // Plans of likelihoods have neither noise nor a second output.
                    Operand::Second | Operand::Noise | Operand::Draw(_) => 0.0,
                };
                sum + term.coefficient * context.scale(term) * value
            });
            // One value for what is no number: a run equals its copy.
            let value = if value.is_nan() { f64::NEG_INFINITY } else { value };
            match lin.dst {
                Operand::Slot(i) => slots[usize::from(i)] = value,
                Operand::Reg(i) => registers[usize::from(i)] = value,
                _ => {}
            }
        }
    }
    run.numbers = all;
    registers
}

/// What the number beside x adds to the error of a row, and to its count.
fn extra_error(
    run: &Run,
    plan: &Plan,
    row: usize,
    accept: Option<(usize, usize)>,
    registers: &[[f64; REGISTERS]],
) -> (f64, f64) {
    let (Some(registers), Some((error, proposal))) = (registers.get(row), accept) else { return (0.0, 0.0) };
    let numbers = &run.numbers[row * plan.kept()..];
    let size = numbers[0].abs().max(numbers[proposal].abs());
    let o = plan.options();
    let ratio = registers[error] / (o.atol + o.rtol * size).max(f64::MIN_POSITIVE);
    (ratio * ratio, 1.0)
}

/// The parts of a segment that end with numbers of whole rows; returns those measured last.
#[allow(clippy::too_many_arguments)]
fn phases(
    run: &mut Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    s: &Segment,
    active: &[bool],
    told: &[f64],
) -> Vec<Numbers> {
    let mut numbers = Vec::new();
    let len = run.rows() * run.elements;
    for (ops, barrier) in &s.phases {
        pass(run, plan, eval, state, y, ops, active, &numbers, None, &mut []);
        beside(run, plan, eval, ops, active, told);
        match *barrier {
            Barrier::Measure(what, a, b) => {
                let read = |operand| match operand {
                    Operand::Slot(i) => &state[usize::from(i) * len..][..len],
                    _ => y,
                };
                numbers = measure::rows(what, read(a), read(b), run.elements);
            }
            Barrier::Threshold(slot, ratio, most) => {
                let slot = &mut state[usize::from(slot) * len..][..len];
                measure::threshold(slot, run.elements, ratio, most, active);
            }
            Barrier::FirstStep(slope, change) => {
                dense::first_step(run, plan, state, active, slope, change);
            }
        }
    }
    numbers
}

/// Runs `ops` over the rows that are `active` (all when empty).
#[allow(clippy::too_many_arguments)]
fn pass(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    ops: &[Op],
    active: &[bool],
    numbers: &[Numbers],
    accept: Option<(usize, usize)>,
    errors: &mut [f64],
) {
    if ops.is_empty() {
        return;
    }
    let len = run.rows() * run.elements;
    let mut slots: [&mut [f32]; MAX_SLOTS] = std::array::from_fn(|_| &mut [][..]);
    for (slot, memory) in slots.iter_mut().zip(state.chunks_exact_mut(len)) {
        *slot = memory;
    }
    let draws = plan.table().draws.as_slice();
    let cost = ops.iter().map(|op| cost(plan, op)).sum::<usize>() + if accept.is_some() { 20 } else { 0 };
    let tasks = Tasks {
        slots,
        y,
        outputs: plan.outputs(),
        errors,
        active,
        elements: run.elements,
        rows: run.rows(),
        row: 0,
        first: 0,
    };
    threads::for_each(tasks, (len as u64).saturating_mul(cost as u64), |task| {
        let row = RowContext::new(run, plan, eval, task.row, numbers);
        let mut resolved = [Resolved::default(); MAX_LINS];
        for (r, op) in resolved.iter_mut().zip(ops) {
            *r = match op {
                Op::Lin(lin) => row.resolve(lin, plan.table().terms(lin)),
                Op::LearnedNoise { base, slope } => Resolved::learned(*base, *slope),
                Op::Noisy(noisy) => Resolved::noisy(noisy),
            };
        }
        threads::with_scratch((REGISTERS + 4) * CHUNK, |scratch| {
            let accept = accept.map(|(register, proposal)| Accept {
                register,
                proposal,
                tolerance: Tolerance { rtol: plan.options().rtol, atol: plan.options().atol },
            });
            let noise = Noise { seed: run.seeds[task.row], step: eval.step, draws };
            dispatch(Pass { task, lins: &resolved[..ops.len()], noise, accept, scratch });
        });
    });
}

/// Operations an element costs, roughly.
fn cost(plan: &Plan, op: &Op) -> usize {
    let lin = match op {
        Op::Lin(lin) => lin,
        Op::LearnedNoise { .. } => return 150,
        Op::Noisy(_) => return 110,
    };
    let terms = plan.table().terms(lin);
    let noise: usize = terms
        .iter()
        .map(|t| match t.operand {
            Operand::Noise => 100,
            Operand::Draw(i) => match &plan.table().draws[i as usize] {
                Draw::One { .. } => 100,
                Draw::Path(parts) => 100 * parts.len(),
            },
            _ => 0,
        })
        .sum();
    2 * terms.len() + noise
}

/// What a row's own time and step turn scales into.
struct RowContext {
    step: f64,
    data: Map,
    slope: Map,
    numbers: Numbers,
}

impl RowContext {
    fn new(run: &Run, plan: &Plan, eval: &Eval, row: usize, numbers: &[Numbers]) -> RowContext {
        let (data, slope) = match eval.at {
            // Fixed plans carry finished coefficients and never look.
            At::Node(_) => (Map { x: 0.0, y: 0.0 }, Map { x: 0.0, y: 0.0 }),
            At::Fraction(_) => row_maps(plan.options(), &run.row_level(plan, row)),
        };
        let chain = run.chains.get(row).map_or(0.0, |c| c.step);
        let step = run.control.get(row).map_or(chain, Control::signed_step);
        RowContext { step, data, slope, numbers: numbers.get(row).copied().unwrap_or_default() }
    }

    fn scale(&self, term: &Term) -> f64 {
        match term.scale {
            Scale::One => 1.0,
            Scale::Step => self.step,
            Scale::DataX => self.data.x,
            Scale::DataY => self.data.y,
            Scale::SlopeX => self.slope.x,
            Scale::SlopeY => self.slope.y,
            Scale::Row(i) => self.numbers[usize::from(i)],
        }
    }

    fn resolve(&self, lin: &Lin, terms: &[Term]) -> Resolved {
        let mask = lin.mask;
        let mut r =
            Resolved { dst: lin.dst, count: terms.len(), clamp: lin.clamp, mask, ..Default::default() };
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
    mask: Option<u8>,
    /// `x += exp(c0 + c1 second) noise` instead.
    learned: bool,
    /// `dst += p g` of the normals and g in the operands instead, see [`Noisy`].
    noisy: bool,
}

impl Resolved {
    fn learned(base: f64, slope: f64) -> Resolved {
        let mut r = Resolved { learned: true, dst: Operand::Slot(0), ..Default::default() };
        (r.coefficients[0], r.coefficients[1]) = (base as f32, slope as f32);
        r.operands[0] = Operand::Noise;
        r
    }
}

impl Resolved {
    fn noisy(n: &Noisy) -> Resolved {
        let [a, b, c, d] = n.weights;
        let mut r = Resolved { noisy: true, dst: Operand::Slot(n.dst), count: 3, ..Default::default() };
        r.operands[..3].copy_from_slice(&[Operand::Noise, n.second, n.g]);
        // By powers of z: `-c + b u + z (a - 3 d + z (c + z d))`.
        for (to, from) in r.coefficients.iter_mut().zip([d, c, a - 3.0 * d, b, -c]) {
            *to = from as f32;
        }
        r
    }
}

impl Default for Resolved {
    fn default() -> Self {
        Resolved {
            dst: Operand::Model,
            operands: [Operand::Model; MAX_TERMS],
            coefficients: [0.0; MAX_TERMS],
            count: 0,
            clamp: f32::INFINITY,
            mask: None,
            learned: false,
            noisy: false,
        }
    }
}

/// A piece of one row: its part of every state tensor, of the outputs and of the error sums.
struct Task<'a> {
    slots: [&'a mut [f32]; MAX_SLOTS],
    y: &'a [f32],
    second: &'a [f32],
    errors: &'a mut [f64],
    row: usize,
    first: usize,
}

/// Cuts the state into tasks, row by row.
struct Tasks<'a> {
    slots: [&'a mut [f32]; MAX_SLOTS],
    y: &'a [f32],
    /// Tensors a row of `y` has, one after the other.
    outputs: usize,
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
            // Before the first evaluation there is no output.
            let y = self.row * self.outputs * self.elements;
            let part = |from: usize| self.y.get(y + from..y + from + len).unwrap_or_default();
            let (y, second) = (part(self.first), part(self.elements + self.first));
            let whole = std::mem::take(&mut self.errors);
            let (errors, rest) = whole.split_at_mut(len.div_ceil(CHUNK).min(whole.len()));
            self.errors = rest;
            let task = Task { slots, y, second, errors, row: self.row, first: self.first };
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
    tolerance: Tolerance,
}

/// Where the normals of a row come from.
struct Noise<'a> {
    seed: u64,
    step: u32,
    draws: &'a [Draw],
}

impl Noise<'_> {
    /// Fills `out` with normals from `first` on; `part` is scratch of the same length.
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, operand: Operand, first: usize, out: &mut [f32], part: &mut [f32]) {
        let draw = match operand {
            Operand::Draw(i) => &self.draws[i as usize],
            _ => &Draw::One { purpose: Purpose::Step, number: self.step },
        };
        match draw {
            Draw::One { purpose, number } => normal_chunk(s, self.seed, *purpose as u32, *number, first, out),
            Draw::Path(parts) => {
                out.fill(0.0);
                for &(number, weight) in parts {
                    normal_chunk(s, self.seed, Purpose::Brownian as u32, number, first, part);
                    let weight = weight as f32;
                    out.iter_mut().zip(&*part).for_each(|(o, p)| *o = p.mul_add(weight, *o));
                }
            }
        }
    }
}

/// One task at one instruction set.
struct Pass<'a, 'b> {
    task: Task<'a>,
    lins: &'b [Resolved],
    noise: Noise<'b>,
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
        let part = buffer();
        let others = buffer();
        let mut registers: [&mut [f32]; REGISTERS] = std::array::from_fn(|_| buffer());
        let len = task.slots[0].len();
        for (index, at) in (0..len).step_by(CHUNK).enumerate() {
            let end = len.min(at + CHUNK);
            let n = end - at;
            let mut drawn = None;
            let mut second = None;
            for lin in lins {
                let c = &lin.coefficients;
                let o = &lin.operands;
                if lin.noisy {
                    if drawn != Some(Operand::Noise) {
                        noise.fill(s, Operand::Noise, task.first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(Operand::Noise);
                    }
                    if c[3] != 0.0 && second != Some(o[1]) {
                        noise.fill(s, o[1], task.first + at, &mut others[..n], &mut part[..n]);
                        second = Some(o[1]);
                    }
                    let (u, Operand::Slot(dst)) =
                        (if c[3] == 0.0 { &normals[..n] } else { &others[..n] }, lin.dst)
                    else {
                        continue;
                    };
                    let dst = usize::from(dst);
                    let g = match o[2] {
                        Operand::Slot(i) => &task.slots[usize::from(i)][at..end],
                        _ => &task.second[at..end],
                    };
                    kick(s, [&normals[..n], u, g, &task.slots[dst][at..end]], c, &mut target[..n]);
                    task.slots[dst][at..end].copy_from_slice(&target[..n]);
                    continue;
                }
                let used = &o[..lin.count.max(usize::from(lin.learned))];
                for &operand in used.iter().filter(|o| matches!(o, Operand::Noise | Operand::Draw(_))) {
                    if drawn != Some(operand) {
                        noise.fill(s, operand, task.first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(operand);
                    }
                }
                let out = &mut target[..n];
                if lin.learned {
                    let x = &mut task.slots[0][at..end];
                    learned(s, &task.second[at..end], &normals[..n], c, x, out);
                    continue;
                }
                let source = |operand: Operand| match operand {
                    Operand::Slot(i) => &task.slots[usize::from(i)][at..end],
                    Operand::Reg(i) => &registers[usize::from(i)][..n],
                    Operand::Model => &task.y[at..end],
                    Operand::Second => &task.second[at..end],
                    Operand::Noise | Operand::Draw(_) => &normals[..n],
                };
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
                    6 => combine(
                        s,
                        [source(o[0]), source(o[1]), source(o[2]), source(o[3]), source(o[4]), source(o[5])],
                        [c[0], c[1], c[2], c[3], c[4], c[5]],
                        out,
                    ),
                    7 => combine(
                        s,
                        std::array::from_fn::<_, 7, _>(|i| source(o[i])),
                        std::array::from_fn(|i| c[i]),
                        out,
                    ),
                    _ => combine(s, o.map(source), *c, out),
                }
                if lin.clamp.is_finite() {
                    clamp(s, lin.clamp, &mut target[..n]);
                }
                if let (Some(mask), Operand::Slot(i)) = (lin.mask, lin.dst) {
                    let (mask, old) =
                        (&task.slots[usize::from(mask)][at..end], &task.slots[usize::from(i)][at..end]);
                    // Exact at both ends of the mask.
                    for ((t, m), x) in target[..n].iter_mut().zip(mask).zip(old) {
                        *t = m.mul_add(*t, (1.0 - m) * x);
                    }
                }
                match lin.dst {
                    Operand::Reg(i) => std::mem::swap(&mut registers[usize::from(i)], &mut target),
                    Operand::Slot(i) => task.slots[usize::from(i)][at..end].copy_from_slice(&target[..n]),
                    _ => {}
                }
            }
            if let Some(a) = &accept {
                let x = &task.slots[0][at..end];
                task.errors[index] =
                    error_sum(&registers[a.register][..n], x, &task.slots[a.proposal][at..end], a.tolerance);
            }
        }
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
