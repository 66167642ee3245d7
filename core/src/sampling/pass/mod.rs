//! One pass over memory: what stands between two evaluations, or two barriers, for every element.
//!
//! The state is cut into chunks; a chunk runs all linear combinations of the segment on
//! registers that stay in the first-level cache, so each tensor is read and written once.
//! Chunks are disjoint, elements independent: bits depend neither on threads nor on vector width.

mod noise;
mod resolve;
mod tasks;

use self::noise::Noise;
use self::resolve::Resolved;
pub(super) use self::resolve::RowContext;
use self::tasks::{MAX_EARLIER, Task, Tasks};
pub(super) use self::tasks::{MAX_OUTPUTS, Told};
use super::lanes::{Tolerance, clamp, combine, error_sum, kick, learned};
use super::measure::Numbers;
use super::plan::Plan;
use super::run::Run;
use super::table::{Draw, Eval, MAX_SLOTS, MAX_TERMS, Operand, REGISTERS, Row, Scale};
use crate::arch::{Kernel, Simd, dispatch};
use crate::random::SHORT;
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
    told: Told,
    ops: &[Row],
    active: &[bool],
    numbers: &[Numbers],
    accept: Option<Trial>,
    errors: &mut [f64],
) {
    if ops.is_empty() {
        return;
    }
    // As lists of operations below: few, by far the most, are not to pay for many.
    let pass = if plan.table().slots <= FEW_SLOTS { pass_of::<FEW_SLOTS> } else { pass_of::<MAX_SLOTS> };
    pass(run, plan, eval, state, told, ops, active, numbers, accept, errors);
}

/// [`pass`] with at most `S` state tensors.
#[allow(clippy::too_many_arguments)]
fn pass_of<const S: usize>(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    told: Told,
    ops: &[Row],
    active: &[bool],
    numbers: &[Numbers],
    accept: Option<Trial>,
    errors: &mut [f64],
) {
    let len = run.rows() * run.elements;
    let draws = plan.table().draws.as_slice();
    let flat = accept.is_none() && is_flat(run, plan, ops, active);
    let cost = ops.iter().map(|op| cost(plan, op)).sum::<usize>() + if accept.is_some() { 20 } else { 0 };
    let mut tasks = Tasks::<S> {
        slots: std::array::from_fn(|_| Default::default()),
        used: plan.table().slots,
        y: told.y,
        earlier: told.earlier,
        outputs: plan.outputs(),
        errors,
        active: if flat { &[] } else { active },
        elements: if flat { len } else { run.elements },
        rows: if flat { 1 } else { run.rows() },
        left: if flat { len } else { run.elements },
        size: if cost < COSTLY { LONG_TASK } else { TASK },
    };
    let mut chunk = CHUNK;
    if flat {
        tasks.size -= tasks.size % run.elements;
        chunk -= chunk % run.elements;
    }
    for (slot, memory) in tasks.slots.iter_mut().zip(state.chunks_exact_mut(len)) {
        *slot = memory;
    }
    let accept = accept.map(|trial| Accept { trial, tolerance: Tolerance::of(plan) });
    // By reference, as all that follows: moves of the slots cost as much as a small task.
    threads::for_each(&mut tasks, (len as u64).saturating_mul(cost as u64), |mut task| {
        let row = RowContext::new(run, plan, eval, task.row, numbers);
        let seeds = if flat { &run.seeds[..] } else { &run.seeds[task.row..=task.row] };
        let noise = Noise { seeds, elements: run.elements, step: eval.step, draws };
        // Short lists, by far the most, are not to pay for long ones.
        match ops.len() {
            1 => work::<1, S>(plan, ops, told, &row, &mut task, noise, accept, chunk),
            ..=FEW_LINS => work::<FEW_LINS, S>(plan, ops, told, &row, &mut task, noise, accept, chunk),
            _ => work::<MAX_LINS, S>(plan, ops, told, &row, &mut task, noise, accept, chunk),
        }
    });
}

/// Whether several short rows can be taken for one long one: nothing differs between them but their noise.
fn is_flat(run: &Run, plan: &Plan, ops: &[Row], active: &[bool]) -> bool {
    let alike = |op: &Row| match op {
        Row::Lin(lin) => plan.table().terms(lin).iter().all(|term| term.scale == Scale::One),
        Row::Eval(_) => true,
        _ => false,
    };
    (2..).contains(&run.rows())
        && (1..=SHORT).contains(&run.elements)
        && plan.outputs() == 1
        && active.iter().all(|active| *active)
        && ops.iter().all(alike)
}

/// One task of at most `N` operations.
#[allow(clippy::too_many_arguments)]
fn work<const N: usize, const S: usize>(
    plan: &Plan,
    ops: &[Row],
    told: Told,
    row: &RowContext,
    task: &mut Task<S>,
    noise: Noise,
    accept: Option<Accept>,
    chunk: usize,
) {
    let mut resolved = [Resolved::default(); N];
    let (mut count, mut part) = (0, 0);
    let mut after = ops.iter().filter(|op| matches!(op, Row::Eval(_))).count();
    for op in ops {
        let r = &mut resolved[count];
        match op {
            Row::Lin(lin) => row.resolve(lin, plan.table().terms(lin), |o| told.place(o, part, after), r),
            Row::LearnedNoise { base, slope } => *r = Resolved::learned(*base, *slope),
            Row::Noisy(noisy) => *r = Resolved::noisy(noisy),
            Row::Eval(_) => {
                (part, after) = (part + 1, after - 1);
                continue;
            }
            _ => debug_assert!(false, "not done to every element"),
        }
        count += 1;
    }
    let lins = &resolved[..count];
    threads::with_scratch((REGISTERS + 5) * CHUNK, |scratch| {
        let Task { slots, y, earlier, second, errors, first, .. } = task;
        dispatch(Pass {
            slots,
            y,
            earlier: *earlier,
            second,
            errors,
            first: *first,
            lins,
            noise,
            accept,
            chunk,
            scratch,
        });
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

/// The error test of a trial step: where its error is, what it proposes, and the tensors that the error is held
/// against.
#[derive(Clone, Copy)]
pub(super) struct Trial {
    pub register: usize,
    pub proposal: usize,
    pub sizes: [usize; 2],
}

/// The error test of a task.
#[derive(Clone, Copy)]
struct Accept {
    trial: Trial,
    tolerance: Tolerance,
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
    earlier: [&'b [f32]; MAX_EARLIER],
    second: &'b [f32],
    errors: &'b mut [f64],
    first: usize,
    lins: &'b [Resolved],
    noise: Noise<'b>,
    accept: Option<Accept>,
    /// Elements at a time.
    chunk: usize,
    scratch: &'b mut [f32],
}

impl Kernel for Pass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Pass { slots, y, earlier, second: other, errors, first, lins, noise, accept, chunk, scratch } =
            self;
        let mut parts = scratch.chunks_exact_mut(CHUNK);
        let mut buffer = || parts.next().unwrap_or_default();
        let mut target = buffer();
        let normals = buffer();
        let part = buffer();
        let others = buffer();
        let mut registers: [&mut [f32]; REGISTERS + 1] = std::array::from_fn(|_| buffer());
        let len = slots[0].len();
        for (index, at) in (0..len).step_by(chunk).enumerate() {
            let end = len.min(at + chunk);
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
                    Operand::Earlier(i) => Some(&earlier[usize::from(i)][at..end]),
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
                let [x, new] = a.trial.sizes.map(|slot| &slots[slot][at..end]);
                errors[index] = error_sum(&registers[a.trial.register][..n], x, new, a.tolerance);
            }
        }
    }
}
