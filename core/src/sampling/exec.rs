//! The interpreter: cuts the table into segments, the rows between two evaluations, and runs them.

use ndarray::ArrayViewMut2;

use super::measure::{self, Numbers};
use super::pass::{CHUNK, Op, pass};
use super::plan::Plan;
use super::run::Run;
use super::table::{Eval, Measure, Operand, Row};
use crate::error::{Error, Result};
use crate::random::{self, Purpose};
use crate::threads;

/// What needs whole rows, and ends a pass.
enum Barrier {
    Measure(Measure, Operand, Operand),
    Threshold(u8, f64, f64),
}

/// The rows between two evaluations.
#[derive(Default)]
struct Segment {
    /// Linear combinations that end at a barrier, one after the other.
    phases: Vec<(Vec<Op>, Barrier)>,
    lins: Vec<Op>,
    /// Error register and proposal slot, when the segment ends a trial step.
    accept: Option<(usize, usize)>,
    /// After the decision: for accepted rows, then for all unfinished rows.
    accepted: Vec<Op>,
    after: Vec<Op>,
    next: usize,
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
            Row::Accept { error, proposal } => s.accept = Some((usize::from(error), usize::from(proposal))),
            Row::IfAccepted => part = 1,
            Row::Merge => part = 2,
            Row::Jump(to) => at = to as usize,
            Row::Measure { what, a, b } => {
                s.phases.push((std::mem::take(&mut s.lins), Barrier::Measure(what, a, b)));
            }
            Row::Threshold { slot, ratio, most } => {
                s.phases.push((std::mem::take(&mut s.lins), Barrier::Threshold(slot, ratio, most)));
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
pub(super) fn advance(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32]) {
    if !run.places.is_empty() {
        return advance_rows(run, plan, state, y);
    }
    let Some(eval) = plan.eval_at(run.position).copied() else { return };
    let s = segment(plan, run.position + 1);
    let chunks = run.elements.div_ceil(CHUNK);
    let active = run.active(plan);
    let numbers = phases(run, plan, &eval, state, y, &s, &active);
    let mut errors = vec![0.0; if s.accept.is_some() { run.rows() * chunks } else { 0 }];
    pass(run, plan, &eval, state, y, &s.lins, &active, &numbers, s.accept, &mut errors);
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
    pass(run, plan, &eval, state, y, &s.accepted, &accepted, &numbers, None, &mut []);
    let active: Vec<bool> = run.control.iter().map(|c| !c.done).collect();
    pass(run, plan, &eval, state, y, &s.after, &active, &numbers, None, &mut []);
    if !active.contains(&true) {
        run.position = plan.table().rows.len();
    }
}

/// Carries the rows that were asked for to their next evaluations, those at one place together.
fn advance_rows(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32]) {
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
        let numbers = phases(run, plan, &eval, state, y, &s, &group);
        pass(run, plan, &eval, state, y, &s.lins, &group, &numbers, None, &mut []);
        for (place, _) in run.places.iter_mut().zip(&group).filter(|(_, told)| **told) {
            place.position = s.next;
            place.moving = !plan.starts_step(s.next);
        }
    }
    run.counters.evals += 1;
    run.settle(plan);
}

/// The parts of a segment that end with numbers of whole rows; returns those measured last.
fn phases(
    run: &Run,
    plan: &Plan,
    eval: &Eval,
    state: &mut [f32],
    y: &[f32],
    s: &Segment,
    active: &[bool],
) -> Vec<Numbers> {
    let mut numbers = Vec::new();
    let len = run.rows() * run.elements;
    for (ops, barrier) in &s.phases {
        pass(run, plan, eval, state, y, ops, active, &numbers, None, &mut []);
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
        }
    }
    numbers
}

/// Copies a state.
pub(super) fn copy(from: &[f32], to: &mut [f32]) {
    const PART: usize = 64 * CHUNK;
    let parts = from.chunks(PART).zip(to.chunks_mut(PART));
    threads::for_each(parts, from.len() as u64, |(from, to)| to.copy_from_slice(from));
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
