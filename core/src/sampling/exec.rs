//! The interpreter: cuts the table into segments, the rows between two evaluations, and runs them.

use ndarray::ArrayViewMut2;

use super::chain::{self, Test};
use super::dense;
use super::measure::{self, Numbers};
use super::pass::{CHUNK, RowContext, Told, Trial, pass};
use super::plan::Plan;
use super::run::Run;
use super::table::{Eval, Measure, Operand, REGISTERS, Row};
use super::way::Way;
use crate::error::{Error, Result};
use crate::random::{self, Purpose};
use crate::threads;

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
    phases: Vec<(Vec<Row>, Barrier)>,
    lins: Vec<Row>,
    /// The test of a trial step, when the segment ends one.
    accept: Option<Trial>,
    /// The test of a proposal, when the segment ends one.
    test: Option<Test>,
    /// After the decision: for accepted rows, then for all unfinished rows.
    accepted: Vec<Row>,
    after: Vec<Row>,
    /// Where it goes on if no row was accepted, and if one stands at a stop.
    retry: Option<usize>,
    at_stop: Option<usize>,
    next: usize,
}

/// The rows from a position to the next evaluation.
fn segment(plan: &Plan, from: usize) -> Segment {
    let rows = &plan.table().rows;
    let mut s = Segment::default();
    let (mut at, mut part) = (from, 0);
    while let Some(row) = rows.get(at) {
        at += 1;
        match *row {
            Row::Eval(_) => {
                at -= 1;
                break;
            }
            Row::Lin(_) | Row::LearnedNoise { .. } | Row::Noisy(_) => {
                [&mut s.lins, &mut s.accepted, &mut s.after][part].push(*row);
            }
            Row::Accept { error, proposal, sizes } => {
                let [register, proposal] = [error, proposal].map(usize::from);
                s.accept = Some(Trial { register, proposal, sizes: sizes.map(usize::from) });
            }
            Row::Metropolis { gradient, next, p0, p, number } => {
                let [gradient, next, p0, p] = [gradient, next, p0, p].map(usize::from);
                s.test = Some(Test { gradient, next, p0, p, number });
            }
            Row::IfAccepted => part = 1,
            Row::Merge => part = 2,
            Row::Retry(to) => s.retry = Some(to as usize),
            Row::AtStop(to) => s.at_stop = Some(to as usize),
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
    pass(run, plan, &eval, state, Told::default(), &s.lins, &[], &[], None, &mut []);
}

/// Carries the run past the evaluations whose outputs lie in `y` one after the other; `active` are the rows it was
/// asked for. Everything was checked before.
pub(super) fn advance(
    run: &mut Run,
    plan: &Plan,
    state: &mut [f32],
    y: &[f32],
    told: &[f64],
    active: &[bool],
) {
    if let Some(way) = Way::of(run, plan, y.len()) {
        way.walk(run, plan, state, y, active);
        return way.arrive(run, plan, told, active);
    }
    let len = run.rows() * run.elements * plan.outputs();
    if y.len() > len {
        for y in y.chunks_exact(len) {
            advance(run, plan, state, y, told, active);
        }
    } else if run.places.is_empty() {
        advance_over(run, plan, state, y, told, active);
    } else {
        advance_rows(run, plan, state, y, told, active);
    }
}

/// Carries the run to its next evaluation over what needs whole rows.
fn advance_over(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32], told: &[f64], active: &[bool]) {
    let Some(eval) = plan.eval_at(run.position).copied() else { return };
    let s = segment(plan, run.position + 1);
    let chunks = run.elements.div_ceil(CHUNK);
    let numbers = phases(run, plan, &eval, state, y, &s, active, told);
    let mut errors = vec![0.0; if s.accept.is_some() { run.rows() * chunks } else { 0 }];
    pass(run, plan, &eval, state, y.into(), &s.lins, active, &numbers, s.accept, &mut errors);
    let registers = beside(run, plan, &eval, &s.lins, active, told);
    run.counters.evals += 1;
    run.position = s.next;
    if let Some(test) = &s.test {
        let accepted = chain::decide(run, plan, state, test);
        let count = accepted.iter().filter(|a| **a).count() as u64;
        run.counters.accepts += count;
        run.counters.rejects += run.rows() as u64 - count;
        run.counters.rounds += 1;
        for (ops, rows) in [(&s.accepted, &accepted[..]), (&s.after, &[])] {
            pass(run, plan, &eval, state, y.into(), ops, rows, &numbers, None, &mut []);
            beside(run, plan, &eval, ops, rows, told);
        }
    }
    let Some(trial) = s.accept else { return };
    let mut accepted = vec![false; run.rows()];
    let (rule, stops) = (plan.control(), plan.stops());
    let mut stopped = false;
    let shape = (run.rows(), run.elements);
    for row in 0..run.rows() {
        if active[row] {
            // Chunk sums in rising order: the order is part of the definition.
            let sum: f64 = errors[row * chunks..(row + 1) * chunks].iter().fold(0.0, |a, e| a + e);
            let before = run.control[row];
            let (extra, count) = extra_error(run, plan, row, &trial, &registers);
            let error = libm::sqrt((sum + extra) / (run.elements as f64 + count));
            accepted[row] = run.control[row].judge(error, &rule, &stops);
            if accepted[row] {
                dense::save(plan, state, shape, row, &before, trial.proposal);
                stopped |= before.meets_stop();
                run.counters.accepts += 1;
            } else {
                run.counters.rejects += 1;
            }
        }
    }
    run.counters.rounds += 1;
    pass(run, plan, &eval, state, y.into(), &s.accepted, &accepted, &numbers, None, &mut []);
    beside(run, plan, &eval, &s.accepted, &accepted, told);
    let active: Vec<bool> = run.control.iter().map(|c| !c.done).collect();
    let retry = s.retry.filter(|_| !accepted.contains(&true));
    if s.retry.is_none() || retry.is_some() {
        pass(run, plan, &eval, state, y.into(), &s.after, &active, &numbers, None, &mut []);
        beside(run, plan, &eval, &s.after, &active, told);
    }
    if let Some(position) = retry.or(s.at_stop.filter(|_| stopped)) {
        run.position = position;
    }
    if !active.contains(&true) {
        run.position = plan.table().rows.len();
    }
}

/// Carries the rows that were asked for to their next evaluations, those at one place together.
fn advance_rows(run: &mut Run, plan: &Plan, state: &mut [f32], y: &[f32], told: &[f64], active: &[bool]) {
    let places: Vec<Option<usize>> =
        run.places.iter().zip(active).map(|(p, active)| active.then_some(p.position)).collect();
    let mut positions: Vec<usize> = places.iter().flatten().copied().collect();
    positions.sort_unstable();
    positions.dedup();
    for position in positions {
        let Some(eval) = plan.eval_at(position).copied() else { continue };
        let s = segment(plan, position + 1);
        let group: Vec<bool> = places.iter().map(|place| *place == Some(position)).collect();
        let numbers = phases(run, plan, &eval, state, y, &s, &group, told);
        pass(run, plan, &eval, state, y.into(), &s.lins, &group, &numbers, None, &mut []);
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
pub(super) fn beside(
    run: &mut Run,
    plan: &Plan,
    eval: &Eval,
    ops: &[Row],
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
            let Row::Lin(lin) = op else { continue };
            let value = plan.table().terms(lin).iter().fold(0.0, |sum, term| {
                let value = match term.operand {
                    Operand::Slot(i) => slots[usize::from(i)],
                    Operand::Reg(i) => registers[usize::from(i)],
                    Operand::Model => told.get(row).copied().unwrap_or_default(),
                    // Plans of likelihoods have neither noise nor a second output.
                    Operand::Earlier(_) | Operand::Second | Operand::Noise | Operand::Draw(_) => 0.0,
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
    trial: &Trial,
    registers: &[[f64; REGISTERS]],
) -> (f64, f64) {
    let Some(registers) = registers.get(row) else { return (0.0, 0.0) };
    let numbers = &run.numbers[row * plan.kept()..];
    let size = numbers[trial.sizes[0]].abs().max(numbers[trial.sizes[1]].abs());
    let o = plan.options();
    let ratio = registers[trial.register] / (o.atol + o.rtol * size).max(f64::MIN_POSITIVE);
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
        pass(run, plan, eval, state, y.into(), ops, active, &numbers, None, &mut []);
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
