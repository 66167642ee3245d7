//! One pass over memory: what stands between two evaluations, or two barriers, for every element.
//!
//! The state is cut into chunks; a chunk runs all linear combinations of the segment on
//! registers that stay in the first-level cache, so each tensor is read and written once.
//! Chunks are disjoint, elements independent: bits depend neither on threads nor on vector width.

use super::adaptive::Control;
use super::builder::row_maps;
use super::lanes::{Tolerance, clamp, combine, error_sum, kick, learned};
use super::measure::Numbers;
use super::plan::Plan;
use super::prediction::Map;
use super::run::Run;
use super::table::{At, Draw, Eval, Lin, MAX_SLOTS, MAX_TERMS, Noisy, Operand, REGISTERS, Row, Scale, Term};
use crate::arch::{Kernel, Simd, dispatch};
use crate::random::{Purpose, normal_chunk};
use crate::threads;

/// Elements a chunk has; a multiple of 4, so that no Philox block is cut.
pub(super) const CHUNK: usize = 1024;
/// Elements a task has, so that handing tasks out costs nothing, and those of a task that only waits for
/// memory: every beginning of a stream is slow.
const TASK: usize = 16 * CHUNK;
const LONG_TASK: usize = 64 * CHUNK;
/// Operations an element from which a task computes rather than waits.
const COSTLY: usize = 50;
/// Linear combinations of one phase.
pub(super) const MAX_LINS: usize = 16;
const FEW_LINS: usize = 4;
const FEW_SLOTS: usize = 4;

/// Runs `ops`, rows of the table that are done to every element, over the rows of the batch that are `active` (all
/// when empty).
#[allow(clippy::too_many_arguments)]
pub(super) fn pass(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    ops: &[Row],
    active: &[bool],
    numbers: &[Numbers],
    accept: Option<(usize, usize)>,
    errors: &mut [f64],
) {
    if ops.is_empty() {
        return;
    }
    // As lists of operations below: few, by far the most, are not to pay for many.
    let pass = if plan.table().slots <= FEW_SLOTS { pass_of::<FEW_SLOTS> } else { pass_of::<MAX_SLOTS> };
    pass(run, plan, eval, state, y, ops, active, numbers, accept, errors);
}

/// [`pass`] with at most `S` state tensors.
#[allow(clippy::too_many_arguments)]
fn pass_of<const S: usize>(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    ops: &[Row],
    active: &[bool],
    numbers: &[Numbers],
    accept: Option<(usize, usize)>,
    errors: &mut [f64],
) {
    let len = run.rows() * run.elements;
    let draws = plan.table().draws.as_slice();
    let cost = ops.iter().map(|op| cost(plan, op)).sum::<usize>() + if accept.is_some() { 20 } else { 0 };
    let mut tasks = Tasks::<S> {
        slots: std::array::from_fn(|_| Default::default()),
        used: plan.table().slots,
        y,
        outputs: plan.outputs(),
        errors,
        active,
        elements: run.elements,
        rows: run.rows(),
        left: run.elements,
        size: if cost < COSTLY { LONG_TASK } else { TASK },
    };
    for (slot, memory) in tasks.slots.iter_mut().zip(state.chunks_exact_mut(len)) {
        *slot = memory;
    }
    let accept = accept.map(|(register, proposal)| Accept {
        register,
        proposal,
        tolerance: Tolerance { rtol: plan.options().rtol, atol: plan.options().atol },
    });
    // By reference, as all that follows: moves of the slots cost as much as a small task.
    threads::for_each(&mut tasks, (len as u64).saturating_mul(cost as u64), |mut task| {
        let row = RowContext::new(run, plan, eval, task.row, numbers);
        let noise = Noise { seed: run.seeds[task.row], step: eval.step, draws };
        // Short lists, by far the most, are not to pay for long ones.
        match ops.len() {
            1 => work::<1, S>(plan, ops, &row, &mut task, noise, accept),
            ..=FEW_LINS => work::<FEW_LINS, S>(plan, ops, &row, &mut task, noise, accept),
            _ => work::<MAX_LINS, S>(plan, ops, &row, &mut task, noise, accept),
        }
    });
}

/// One task of at most `N` operations.
fn work<const N: usize, const S: usize>(
    plan: &Plan,
    ops: &[Row],
    row: &RowContext,
    task: &mut Task<S>,
    noise: Noise,
    accept: Option<Accept>,
) {
    let mut resolved = [Resolved::default(); N];
    for (r, op) in resolved.iter_mut().zip(ops) {
        match op {
            Row::Lin(lin) => row.resolve(lin, plan.table().terms(lin), r),
            Row::LearnedNoise { base, slope } => *r = Resolved::learned(*base, *slope),
            Row::Noisy(noisy) => *r = Resolved::noisy(noisy),
            _ => debug_assert!(false, "not done to every element"),
        }
    }
    let lins = &resolved[..ops.len()];
    threads::with_scratch((REGISTERS + 4) * CHUNK, |scratch| {
        let Task { slots, y, second, errors, first, .. } = task;
        dispatch(Pass { slots, y, second, errors, first: *first, lins, noise, accept, scratch });
    });
}

/// Operations an element costs, roughly.
fn cost(plan: &Plan, op: &Row) -> usize {
    let lin = match op {
        Row::Lin(lin) => lin,
        Row::LearnedNoise { .. } => return 150,
        Row::Noisy(_) => return 110,
        _ => return 0,
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
pub(super) struct RowContext {
    step: f64,
    data: Map,
    slope: Map,
    numbers: Numbers,
}

impl RowContext {
    pub(super) fn new(run: &Run, plan: &Plan, eval: &Eval, row: usize, numbers: &[Numbers]) -> RowContext {
        let (data, slope) = match eval.at {
            // Fixed plans carry finished coefficients and never look.
            At::Node(_) => (Map { x: 0.0, y: 0.0 }, Map { x: 0.0, y: 0.0 }),
            At::Fraction(_) => row_maps(plan.options(), &run.row_level(plan, row)),
        };
        let chain = run.chains.get(row).map_or(0.0, |c| c.step);
        let step = run.control.get(row).map_or(chain, Control::signed_step);
        RowContext { step, data, slope, numbers: numbers.get(row).copied().unwrap_or_default() }
    }

    pub(super) fn scale(&self, term: &Term) -> f64 {
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

    fn resolve(&self, lin: &Lin, terms: &[Term], r: &mut Resolved) {
        (r.dst, r.count, r.clamp, r.mask) = (lin.dst, terms.len(), lin.clamp, lin.mask);
        for (i, term) in terms.iter().enumerate() {
            r.operands[i] = term.operand;
            // The only rounding of a coefficient.
            r.coefficients[i] = (term.coefficient * self.scale(term)) as f32;
        }
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
struct Task<'a, const S: usize> {
    slots: [&'a mut [f32]; S],
    y: &'a [f32],
    second: &'a [f32],
    errors: &'a mut [f64],
    row: usize,
    first: usize,
}

/// Cuts the state into tasks, the last one first: the output was just checked from its first number on,
/// so its end is what caches still hold.
struct Tasks<'a, const S: usize> {
    slots: [&'a mut [f32]; S],
    /// How many of them there are.
    used: usize,
    y: &'a [f32],
    /// Tensors a row of `y` has, one after the other.
    outputs: usize,
    errors: &'a mut [f64],
    active: &'a [bool],
    elements: usize,
    /// Rows not yet finished; tasks come from the last of them.
    rows: usize,
    /// Elements of that row not yet handed out.
    left: usize,
    /// Elements of a task, a multiple of a chunk.
    size: usize,
}

impl<'a, const S: usize> Iterator for Tasks<'a, S> {
    type Item = Task<'a, S>;

    fn next(&mut self) -> Option<Task<'a, S>> {
        while let Some(row) = self.rows.checked_sub(1) {
            let first = (self.left - 1) / self.size * self.size;
            let len = self.left - first;
            let mut slots: [&mut [f32]; S] = std::array::from_fn(|_| Default::default());
            for (whole, part) in self.slots[..self.used].iter_mut().zip(&mut slots) {
                let memory = std::mem::take(whole);
                (*whole, *part) = memory.split_at_mut(memory.len().saturating_sub(len));
            }
            // Before the first evaluation there is no output.
            let y = row * self.outputs * self.elements;
            let part = |from: usize| self.y.get(y + from..y + from + len).unwrap_or_default();
            let (y, second) = (part(first), part(self.elements + first));
            let whole = std::mem::take(&mut self.errors);
            let (rest, errors) = whole.split_at_mut(whole.len().saturating_sub(len.div_ceil(CHUNK)));
            self.errors = rest;
            self.left = first;
            if first == 0 {
                (self.rows, self.left) = (row, self.elements);
            }
            if self.active.is_empty() || self.active[row] {
                return Some(Task { slots, y, second, errors, row, first });
            }
        }
        None
    }
}

/// The error test of a task.
#[derive(Clone, Copy)]
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

/// Normals of a draw from an element on. A kernel of its own: their many constants are no burden of passes without.
struct Normals<'a> {
    seed: u64,
    purpose: Purpose,
    number: u32,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Normals<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        normal_chunk(s, self.seed, self.purpose as u32, self.number, self.first, self.out);
    }
}

impl Noise<'_> {
    /// Fills `out` with normals from `first` on; `part` is scratch of the same length.
    #[inline(never)]
    fn fill(&self, operand: Operand, first: usize, out: &mut [f32], part: &mut [f32]) {
        let seed = self.seed;
        let draw = match operand {
            Operand::Draw(i) => &self.draws[i as usize],
            _ => &Draw::One { purpose: Purpose::Step, number: self.step },
        };
        match draw {
            &Draw::One { purpose, number } => dispatch(Normals { seed, purpose, number, first, out }),
            Draw::Path(parts) => {
                out.fill(0.0);
                for &(number, weight) in parts {
                    dispatch(Normals { seed, purpose: Purpose::Brownian, number, first, out: &mut *part });
                    dispatch(Increment { weight: weight as f32, part, out });
                }
            }
        }
    }
}

/// `out += weight part`
struct Increment<'a> {
    weight: f32,
    part: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Increment<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (o, p) in self.out.iter_mut().zip(self.part) {
            *o = p.mul_add(self.weight, *o);
        }
    }
}

/// Where the terms of a combination are read from.
#[inline(always)]
fn sources<'a, const N: usize>(
    operands: &[Operand; MAX_TERMS],
    source: impl Fn(Operand) -> Option<&'a [f32]>,
) -> [Option<&'a [f32]>; N] {
    std::array::from_fn(|i| source(operands[i]))
}

/// The first coefficients.
#[inline(always)]
fn leading<const N: usize>(c: &[f32; MAX_TERMS]) -> [f32; N] {
    std::array::from_fn(|i| c[i])
}

/// One task at one instruction set.
struct Pass<'a, 'b> {
    slots: &'b mut [&'a mut [f32]],
    y: &'b [f32],
    second: &'b [f32],
    errors: &'b mut [f64],
    first: usize,
    lins: &'b [Resolved],
    noise: Noise<'b>,
    accept: Option<Accept>,
    scratch: &'b mut [f32],
}

impl Kernel for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pass { slots, y, second: other, errors, first, lins, noise, accept, scratch } = self;
        let mut parts = scratch.chunks_exact_mut(CHUNK);
        let mut buffer = || parts.next().unwrap_or_default();
        let mut target = buffer();
        let normals = buffer();
        let part = buffer();
        let others = buffer();
        let mut registers: [&mut [f32]; REGISTERS] = std::array::from_fn(|_| buffer());
        let len = slots[0].len();
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
                        noise.fill(Operand::Noise, first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(Operand::Noise);
                    }
                    if c[3] != 0.0 && second != Some(o[1]) {
                        noise.fill(o[1], first + at, &mut others[..n], &mut part[..n]);
                        second = Some(o[1]);
                    }
                    let (u, Operand::Slot(dst)) =
                        (if c[3] == 0.0 { &normals[..n] } else { &others[..n] }, lin.dst)
                    else {
                        continue;
                    };
                    let dst = usize::from(dst);
                    let g = match o[2] {
                        Operand::Slot(i) => &slots[usize::from(i)][at..end],
                        _ => &other[at..end],
                    };
                    kick(s, [&normals[..n], u, g, &slots[dst][at..end]], c, &mut target[..n]);
                    slots[dst][at..end].copy_from_slice(&target[..n]);
                    continue;
                }
                let used = &o[..lin.count.max(usize::from(lin.learned))];
                for &operand in used.iter().filter(|o| matches!(o, Operand::Noise | Operand::Draw(_))) {
                    if drawn != Some(operand) {
                        noise.fill(operand, first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(operand);
                    }
                }
                if lin.learned {
                    let x = &mut slots[0][at..end];
                    learned(s, &other[at..end], &normals[..n], c, x, &mut target[..n]);
                    continue;
                }
                // A state tensor is written in place; only under a mask its old values are needed after.
                let own = match (lin.dst, lin.mask) {
                    (Operand::Slot(i), None) => Some(usize::from(i)),
                    _ => None,
                };
                let whole = own.map(|i| std::mem::take(&mut slots[i])).unwrap_or_default();
                let out = if own.is_some() { &mut whole[at..end] } else { &mut target[..n] };
                let source = |operand: Operand| match operand {
                    Operand::Slot(i) if own == Some(usize::from(i)) => None,
                    Operand::Slot(i) => Some(&slots[usize::from(i)][at..end]),
                    Operand::Reg(i) => Some(&registers[usize::from(i)][..n]),
                    Operand::Model => Some(&y[at..end]),
                    Operand::Second => Some(&other[at..end]),
                    Operand::Noise | Operand::Draw(_) => Some(&normals[..n]),
                };
                match lin.count {
                    0 => out.fill(0.0),
                    1 => combine(s, sources::<1>(o, source), leading(c), out),
                    2 => combine(s, sources::<2>(o, source), leading(c), out),
                    3 => combine(s, sources::<3>(o, source), leading(c), out),
                    4 => combine(s, sources::<4>(o, source), leading(c), out),
                    5 => combine(s, sources::<5>(o, source), leading(c), out),
                    6 => combine(s, sources::<6>(o, source), leading(c), out),
                    7 => combine(s, sources::<7>(o, source), leading(c), out),
                    _ => combine(s, sources::<MAX_TERMS>(o, source), *c, out),
                }
                if lin.clamp.is_finite() {
                    clamp(s, lin.clamp, out);
                }
                if let Some(i) = own {
                    slots[i] = whole;
                    continue;
                }
                if let (Some(mask), Operand::Slot(i)) = (lin.mask, lin.dst) {
                    let mask = &slots[usize::from(mask)][at..end];
                    let old = &slots[usize::from(i)][at..end];
                    // Exact at both ends of the mask.
                    for ((t, m), x) in target[..n].iter_mut().zip(mask).zip(old) {
                        *t = m.mul_add(*t, (1.0 - m) * x);
                    }
                }
                match lin.dst {
                    Operand::Reg(i) => std::mem::swap(&mut registers[usize::from(i)], &mut target),
                    Operand::Slot(i) => slots[usize::from(i)][at..end].copy_from_slice(&target[..n]),
                    _ => {}
                }
            }
            if let Some(a) = &accept {
                let x = &slots[0][at..end];
                errors[index] =
                    error_sum(&registers[a.register][..n], x, &slots[a.proposal][at..end], a.tolerance);
            }
        }
    }
}
