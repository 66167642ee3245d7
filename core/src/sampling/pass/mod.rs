//! One pass over memory: what stands between two evaluations, or two barriers, for every element.
//!
//! The state is cut into chunks; a chunk runs all linear combinations of the segment on
//! registers that stay in the first-level cache, so each tensor is read and written once.
//! Chunks are disjoint, elements independent: bits depend neither on threads nor on vector width.
//!
//! A pass works in place, or from one state to another ([`pass_apart`]): then it looks at the outputs while it computes
//! with them, and what it finds out late has changed nothing.

mod kernel;
mod noise;
mod resolve;
mod tasks;

use std::sync::atomic::{AtomicBool, Ordering};

use self::kernel::{Pass, Source};
use self::noise::Noise;
use self::resolve::Resolved;
pub(super) use self::resolve::RowContext;
pub(super) use self::tasks::{MAX_OUTPUTS, Told};
use self::tasks::{Task, Tasks};
use super::lanes::Tolerance;
use super::measure::Numbers;
use super::plan::Plan;
use super::run::Run;
use super::table::{Draw, Eval, MAX_SLOTS, Operand, REGISTERS, Row, Scale};
use crate::arch::dispatch;
use crate::nn::rows::PAST;
use crate::random::SHORT;
use crate::threads;

/// Elements a chunk has; a multiple of 4, so that no Philox block is cut.
pub(super) const CHUNK: usize = 1024;
/// Those of a pass that only waits for memory: short enough that the reads of the next chunk begin while this one is
/// computed and written.
const SHORT_CHUNK: usize = 256;
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
    pass(run, plan, eval, state, None, told, ops, active, numbers, accept, errors);
}

/// A state that stays as it is while its successor is written elsewhere.
pub(super) struct Apart<'a> {
    from: &'a [f32],
    /// Whether the tensor that a register stands for ([`Told::held`]) becomes 0; else it is not written.
    blank: bool,
    /// Whether the outputs are looked at.
    looks: bool,
    /// Whether what is written goes past the caches.
    past: bool,
    /// Whether a number computed from an output was not finite.
    odd: AtomicBool,
}

/// [`pass`] from one state to another, `to`, where every tensor is written (but for [`Told::held`]). With `looks`: whether
/// a number is not finite that was computed from an output in a row that is active. Only then can one be in an output.
#[allow(clippy::too_many_arguments)]
pub(super) fn pass_apart(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    from: &[f32],
    to: &mut [f32],
    told: Told,
    ops: &[Row],
    active: &[bool],
    looks: bool,
    blank: bool,
) -> bool {
    let apart = Apart { from, blank, looks, past: size_of_val(from) >= PAST, odd: AtomicBool::new(false) };
    let pass = if plan.table().slots <= FEW_SLOTS { pass_of::<FEW_SLOTS> } else { pass_of::<MAX_SLOTS> };
    pass(run, plan, eval, to, Some(&apart), told, ops, active, &[], None, &mut []);
    apart.odd.into_inner()
}

/// [`pass`] or [`pass_apart`] with at most `S` state tensors.
#[allow(clippy::too_many_arguments)]
fn pass_of<const S: usize>(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    apart: Option<&Apart>,
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
        // Rows that nothing is done to are copied.
        idle: apart.is_some(),
        elements: if flat { len } else { run.elements },
        rows: if flat { 1 } else { run.rows() },
        left: if flat { len } else { run.elements },
        size: if cost < COSTLY { LONG_TASK } else { TASK },
    };
    let waits = cost < COSTLY && accept.is_none();
    let mut chunk = if waits { SHORT_CHUNK } else { CHUNK };
    // Chunks that begin with a line of a cache, where nothing is drawn by their places.
    let lines = waits && !flat;
    if flat {
        tasks.size -= tasks.size % run.elements;
        chunk -= chunk % run.elements;
    }
    for (slot, memory) in tasks.slots.iter_mut().zip(state.chunks_exact_mut(len)) {
        *slot = memory;
    }
    let accept = accept.map(|trial| Accept { trial, tolerance: Tolerance::of(plan) });
    let cost = if apart.is_some() { cost + plan.table().slots } else { cost };
    // By reference, as all that follows: moves of the slots cost as much as a small task.
    threads::for_each(&mut tasks, (len as u64).saturating_mul(cost as u64), |mut task| {
        let ops = if task.idle { &[] } else { ops };
        let row = RowContext::new(run, plan, eval, task.row, numbers);
        let seeds = if flat { &run.seeds[..] } else { &run.seeds[task.row..=task.row] };
        let noise = Noise { seeds, elements: run.elements, step: eval.step, draws };
        // Short lists, by far the most, are not to pay for long ones.
        match ops.len() {
            1 => work::<1, S>(plan, ops, told, &row, &mut task, noise, accept, (chunk, lines), apart),
            ..=FEW_LINS => {
                work::<FEW_LINS, S>(plan, ops, told, &row, &mut task, noise, accept, (chunk, lines), apart)
            }
            _ => work::<MAX_LINS, S>(plan, ops, told, &row, &mut task, noise, accept, (chunk, lines), apart),
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
    (chunk, lines): (usize, bool),
    apart: Option<&Apart>,
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
    let mut lins = &mut resolved[..count];
    if told.held.is_some() && Resolved::reads_held_directly(lins) {
        lins = &mut lins[1..];
    }
    let source = match apart {
        Some(apart) => {
            let looks = apart.looks && !task.idle;
            if apart.past {
                let left = Resolved::join_copies(lins);
                lins = &mut lins[..left];
            }
            Resolved::part(lins, looks, apart.past);
            Source {
                unread: task.unread(lins, looks),
                held: told.held,
                blank: apart.blank,
                past: apart.past,
                lines: apart.past && lines,
                ..Source::default()
            }
        }
        None => Source::default(),
    };
    threads::with_scratch((REGISTERS + 5) * CHUNK, |scratch| match apart {
        None => {
            run_task::<false, S>(task, lins, noise, accept, chunk, scratch, source);
        }
        Some(apart) => {
            let mut from: [&[f32]; S] = [&[]; S];
            let (used, n) = (plan.table().slots, task.slots[0].len());
            for (part, tensor) in from.iter_mut().zip(apart.from.chunks_exact(apart.from.len() / used)) {
                *part = &tensor[task.base..][..n];
            }
            let source = Source { from: &from[..used], ..source };
            if run_task::<true, S>(task, lins, noise, accept, chunk, scratch, source) {
                apart.odd.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// A task at the active instruction set.
fn run_task<const APART: bool, const S: usize>(
    task: &mut Task<S>,
    lins: &[Resolved],
    noise: Noise,
    accept: Option<Accept>,
    chunk: usize,
    scratch: &mut [f32],
    source: Source,
) -> bool {
    let Task { slots, y, earlier, second, errors, first, .. } = task;
    let (earlier, first) = (*earlier, *first);
    dispatch(Pass::<APART> {
        slots,
        y,
        earlier,
        second,
        errors,
        first,
        lins,
        noise,
        accept,
        chunk,
        scratch,
        source,
    })
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
