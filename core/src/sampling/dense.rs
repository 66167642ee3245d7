//! What a row of an adaptive run gives beside its steps: its first step size, and x between two steps.

use super::adaptive::Control;
use super::lanes::{Tolerance, error_sum};
use super::pass::CHUNK;
use super::plan::Plan;
use super::run::Run;
use super::table::Operand;
use crate::arch::{Kernel, Simd, dispatch};

/// The root mean square of `a / (atol + rtol |x|)`.
fn size(a: &[f32], x: &[f32], tolerance: Tolerance) -> f64 {
    let sum: f64 = a
        .chunks(CHUNK)
        .zip(x.chunks(CHUNK))
        .map(|(a, x)| dispatch(Squares { a, x, tolerance }))
        .fold(0.0, |sum, part| sum + part);
    libm::sqrt(sum / x.len() as f64)
}

struct Squares<'a> {
    a: &'a [f32],
    x: &'a [f32],
    tolerance: Tolerance,
}

impl Kernel for Squares<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> f64 {
        error_sum(self.a, self.x, self.x, self.tolerance)
    }
}

/// Sets the step of every active row, see [`Row::FirstStep`](super::table::Row::FirstStep).
pub(super) fn first_step(
    run: &mut Run,
    plan: &Plan,
    state: &[f32],
    active: &[bool],
    slope: Operand,
    change: Option<Operand>,
) {
    let (n, len) = (run.elements, run.rows() * run.elements);
    let tolerance = Tolerance::of(plan);
    let rule = plan.control();
    for (row, control) in run.control.iter_mut().enumerate().filter(|(row, _)| active[*row]) {
        let part = |operand| match operand {
            Operand::Slot(i) => &state[usize::from(i) * len + row * n..][..n],
            _ => &[][..],
        };
        let x = part(super::table::X);
        let slope = size(part(slope), x, tolerance);
        match change {
            None => control.guess(size(x, x, tolerance), slope),
            Some(change) => control.settle(slope, size(part(change), x, tolerance), &rule),
        }
    }
}

/// Keeps x at the times of `save_at` that an accepted step passed; `before` stood at its beginning,
/// `proposal` is the tensor of its end, those of the slopes follow.
pub(super) fn save(
    plan: &Plan,
    state: &mut [f32],
    (rows, elements): (usize, usize),
    row: usize,
    before: &Control,
    proposal: usize,
) {
    let next = before.next();
    let (from, to) = (before.t.min(next), before.t.max(next));
    let len = rows * elements;
    let (tensors, saved) = state.split_at_mut(plan.table().slots * len);
    let part = |slot: usize| &tensors[slot * len + row * elements..][..elements];
    for (&time, out) in plan.saves().iter().zip(saved.chunks_exact_mut(len)) {
        // The time at which the step begins belongs to the step before.
        if time == before.t || !(from..=to).contains(&time) {
            continue;
        }
        let out = &mut out[row * elements..][..elements];
        if time == next {
            out.copy_from_slice(part(proposal));
            continue;
        }
        let h = before.signed_step();
        let dense = plan.pair().dense((time - before.t) / h);
        let slopes = dense.slopes.iter().enumerate().map(|(i, w)| (proposal + 1 + i, h * w));
        let terms: Vec<(&[f32], f32)> = [(0, dense.from), (proposal, dense.to)]
            .into_iter()
            .chain(slopes)
            .filter(|(_, w)| *w != 0.0)
            .map(|(slot, w)| (part(slot), w as f32))
            .collect();
        dispatch(Chain { terms: &terms, out });
    }
}

/// `out = sum w x`, one FMA chain from zero in the order of the terms.
struct Chain<'a> {
    terms: &'a [(&'a [f32], f32)],
    out: &'a mut [f32],
}

impl Kernel for Chain<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (i, out) in self.out.chunks_mut(S::LANES).enumerate() {
            let at = i * S::LANES;
            let mut sum = s.splat(0.0);
            for (x, w) in self.terms {
                let x = s.load_partial(&x[at..at + out.len()], 0.0);
                sum = s.fma(x, s.splat(*w), sum);
            }
            s.store_partial(sum, out);
        }
    }
}

impl Run {
    /// x at the times of [`save_at`](super::PlanOptions::save_at), `[times, rows, elements]`; zeros
    /// where a row has not come yet.
    ///
    /// # Errors
    /// As [`result`](Run::result).
    pub fn saved<'a>(&self, plan: &Plan, state: &'a [f32]) -> crate::error::Result<&'a [f32]> {
        self.check(plan, state.len())?;
        Ok(&state[plan.table().slots * self.rows() * self.elements..])
    }

    /// Keeps the start where `save_at` begins with it.
    pub(super) fn save_start(&self, plan: &Plan, state: &mut [f32]) {
        let len = self.rows() * self.elements;
        let (tensors, saved) = state.split_at_mut(plan.table().slots * len);
        for (_, out) in
            plan.saves().iter().zip(saved.chunks_exact_mut(len)).filter(|(t, _)| **t == plan.start().t)
        {
            out.copy_from_slice(&tensors[..len]);
        }
    }
}
