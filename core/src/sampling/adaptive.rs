//! Step-size control of one row.
//!
//! The error of a step is the root mean square of `e / (atol + rtol max(|x|, |x_new|))`,
//! summed in f64 in one fixed order. A row accepts when it is at most 1. The next step is
//! `h * clip(0.9 err^(-p1/k) err_1^(-p2/k) err_2^(-p3/k), 0.2, grow)` with the errors of the accepted
//! steps before and an error of order k (Hairer & Wanner, Solving ODEs II, IV.2; Soderlind 2003), no
//! growth right after a rejection; a rejected row retries with `h * clip(0.9 err^(-1/k), 0.2, 1)`.
//! Time runs down, or up for an ode. DPM-Solvers have a rule of their own, see [`Rule::limited`].

use super::options::Solver;
use super::plan::Plan;
use super::solvers::pairs::Pair;

const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
/// Below this, times a time above 1, the step no longer moves time in a useful way.
const LEAST_STEP: f64 = 1e-12;
/// An error this small says nothing about its order.
const LEAST_ERROR: f64 = 1e-8;
/// A limited factor from which a step is accepted.
const ACCEPTED: f64 = 0.81;
/// Errors that are remembered.
pub(super) const ERRORS: usize = 2;

/// The controller of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Control {
    /// Current time, in lambda for the solvers that walk it.
    pub t: f64,
    /// Size of the step being tried, positive, never past the end; cut short where a stop is nearer.
    pub h: f64,
    /// Errors of the last accepted steps, newest first; 1 where there was none (limited factors: 0).
    pub errors: [f64; ERRORS],
    /// Time at which the row finishes.
    pub end: f64,
    /// The next stop, or the end: the step tried ends there at the latest.
    pub goal: f64,
    /// The last try was rejected.
    pub rejected: bool,
    /// The row has arrived; nothing touches it any more.
    pub done: bool,
}

/// What turns errors into steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rule {
    exponents: [f64; 3],
    order: f64,
    grow: f64,
    /// Of DPM-Solvers: the factor is `1 + atan(p - 1)` with `p = err^(-p1/k) err_1^(-p2/k) err_2^(-p3/k)`, without
    /// history that of the first try; a step is accepted where it is at least 0.81 (the form of k-diffusion).
    limited: bool,
}

impl Plan {
    /// How this plan controls steps.
    pub(super) fn control(&self) -> Rule {
        let mut rule = match self.options().solver {
            Solver::Dpm12 | Solver::Dpm23 => {
                let order = if self.options().solver == Solver::Dpm12 { 2.0 } else { 3.0 };
                Rule { exponents: [1.0, 0.0, 0.0], order, grow: f64::INFINITY, limited: true }
            }
            _ => {
                let Pair { exponents, order, grow, .. } = *self.pair();
                Rule { exponents, order, grow, limited: false }
            }
        };
        if let Some(own) = &self.options().controller {
            rule.exponents = [0.0; 3];
            rule.exponents.iter_mut().zip(own).for_each(|(e, own)| *e = *own);
        }
        rule
    }

    /// Whether more than one error is remembered.
    pub(super) fn remembers(&self) -> bool {
        self.control().exponents[2] != 0.0
    }
}

impl Rule {
    /// `error^(-p/k)`
    fn power(&self, error: f64, p: f64) -> f64 {
        if p == 0.0 { 1.0 } else { libm::pow(error, -p / self.order) }
    }

    /// A number times the powers of the last errors.
    fn product(&self, scale: f64, error: f64, before: &[f64; ERRORS]) -> f64 {
        let [p, p1, p2] = self.exponents;
        scale * self.power(error, p) * self.power(before[0], p1) * self.power(before[1], p2)
    }

    /// An error as it is remembered: finite, and large enough to mean something.
    fn measured(&self, error: f64) -> f64 {
        match error.is_finite() {
            // A NaN or infinite error comes from a step far too long.
            false => f64::MAX,
            true if self.limited => error + LEAST_ERROR,
            true => error.max(LEAST_ERROR),
        }
    }

    /// Whether an error can be one that was accepted.
    pub(super) fn remembers(&self, error: f64) -> bool {
        if self.limited { error >= 0.0 && error.is_finite() } else { (0.0..=1.0).contains(&error) }
    }
}

impl Control {
    pub(super) fn new(plan: &Plan) -> Control {
        let (t, end) = plan.ends();
        let span = (t - end).abs();
        let h = plan.first_step();
        let h = if h > 0.0 { h } else { span / 20.0 };
        let none = if plan.control().limited { 0.0 } else { 1.0 };
        let errors = [none, if plan.remembers() { none } else { 1.0 }];
        let mut control = Control { t, h: h.min(span), errors, end, goal: end, rejected: false, done: false };
        control.aim(&plan.stops());
        control
    }

    /// Finds the next stop.
    pub(super) fn aim(&mut self, stops: &[f64]) {
        if self.t == self.end {
            self.goal = self.end;
            return;
        }
        let ahead = |stop: f64| self.direction() * (stop - self.t) > 0.0;
        self.goal = stops.iter().copied().find(|&stop| ahead(stop)).unwrap_or(self.end);
    }

    /// The time a fraction of the way through the step; exactly the end when it is reached, and from then on.
    pub(super) fn time(&self, fraction: f64) -> f64 {
        if fraction == 1.0 || self.done {
            self.next()
        } else {
            self.t + self.direction() * fraction * self.h.min(self.left())
        }
    }

    fn direction(&self) -> f64 {
        if self.end < self.t { -1.0 } else { 1.0 }
    }

    fn left(&self) -> f64 {
        (self.t - self.goal).abs()
    }

    pub(super) fn next(&self) -> f64 {
        if self.h >= self.left() { self.goal } else { self.t + self.direction() * self.h }
    }

    /// Whether the step tried ends at a stop.
    pub(super) fn meets_stop(&self) -> bool {
        self.goal != self.end && self.h >= self.left()
    }

    /// The step as the solver sees it, next time less this one.
    pub(super) fn signed_step(&self) -> f64 {
        self.next() - self.t
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.h < LEAST_STEP * self.t.abs().max(1.0) && self.h < self.left()
    }

    /// A first step to try, from the root mean squares of x and of its slope; returns it.
    pub(super) fn guess(&mut self, x: f64, slope: f64) {
        let h = if x < 1e-5 || slope < 1e-5 { 1e-6 } else { 0.01 * x / slope };
        self.h = h.min(self.left());
    }

    /// The first step, from the root mean squares of the slope and of its change over the step guessed.
    pub(super) fn settle(&mut self, slope: f64, change: f64, rule: &Rule) {
        let before = self.signed_step().abs();
        let most = slope.max(change / before);
        let h =
            if most <= 1e-15 { (before * 1e-3).max(1e-6) } else { libm::pow(0.01 / most, 1.0 / rule.order) };
        // A slope that is no number asks for the shortest step; the test of the step decides.
        let h = if h.is_finite() { h } else { before };
        // After a stop right behind the start, the step is still one that moves time.
        let most = (100.0 * before).max(LEAST_STEP * self.t.abs().max(1.0));
        self.h = h.min(most).min((self.t - self.end).abs());
    }

    /// Takes the error of the step tried; returns whether it is accepted.
    pub(super) fn judge(&mut self, error: f64, rule: &Rule, stops: &[f64]) -> bool {
        let error = rule.measured(error);
        let (accepted, factor) = if rule.limited {
            if self.errors[0] == 0.0 {
                self.errors = self.errors.map(|e| if e == 0.0 { error } else { e });
            }
            let factor = 1.0 + libm::atan(rule.product(1.0, error, &self.errors) - 1.0);
            (factor >= ACCEPTED, factor)
        } else if error <= 1.0 {
            let most = if self.rejected { 1.0 } else { rule.grow };
            (true, rule.product(SAFETY, error, &self.errors).clamp(SHRINK, most))
        } else {
            (false, (SAFETY * rule.power(error, 1.0)).clamp(SHRINK, 1.0))
        };
        let (tried, wanted) = (self.signed_step().abs(), self.h);
        // A step that a stop cut short says little about the next one: what was wanted then is tried again.
        let kept = if accepted && self.meets_stop() { wanted } else { 0.0 };
        if accepted {
            self.t = self.next();
            // What no exponent reads is not carried along.
            let before = if rule.exponents[2] == 0.0 { 1.0 } else { self.errors[0] };
            self.errors = [error, before];
            self.done = self.t == self.end;
            self.aim(stops);
        }
        self.rejected = !accepted;
        self.h = (tried * factor).max(kept);
        if !self.done {
            self.h = self.h.min((self.t - self.end).abs());
        }
        accepted
    }
}
