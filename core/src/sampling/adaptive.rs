//! Step-size control of one row.
//!
//! The error of a step is the root mean square of `e / (atol + rtol max(|x|, |x_new|))`,
//! summed in f64 in one fixed order. A row accepts when it is at most 1. The next step is
//! `h * clip(0.9 err^(-p1/k) err_1^(-p2/k) err_2^(-p3/k), 0.2, grow)` with the errors of the accepted
//! steps before and an error of order k (Hairer & Wanner, Solving ODEs II, IV.2; Soderlind 2003), no
//! growth right after a rejection; a rejected row retries with `h * clip(0.9 err^(-1/k), 0.2, 1)`.
//! Time runs down, or up for an ode.

use super::plan::Plan;

const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
/// Below this, times a time above 1, the step no longer moves time in a useful way.
const LEAST_STEP: f64 = 1e-12;
/// An error this small says nothing about its order.
const LEAST_ERROR: f64 = 1e-8;
/// Errors that are remembered.
pub(super) const ERRORS: usize = 2;

/// The controller of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Control {
    /// Current time.
    pub t: f64,
    /// Size of the step being tried, positive, never past the end.
    pub h: f64,
    /// Errors of the last accepted steps, newest first; 1 where there was none.
    pub errors: [f64; ERRORS],
    /// Time at which the row finishes.
    pub end: f64,
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
}

impl Plan {
    /// How this plan controls steps.
    pub(super) fn control(&self) -> Rule {
        let pair = self.pair();
        let mut exponents = pair.exponents;
        if let Some(own) = &self.options().controller {
            exponents = [0.0; 3];
            exponents.iter_mut().zip(own).for_each(|(e, own)| *e = *own);
        }
        Rule { exponents, order: pair.order, grow: pair.grow }
    }

    /// Whether more than one error is remembered.
    pub(super) fn remembers(&self) -> bool {
        self.control().exponents[2] != 0.0
    }
}

impl Control {
    pub(super) fn new(plan: &Plan) -> Control {
        let (t, end) = (plan.start().t, plan.end().t);
        let span = (t - end).abs();
        let h = plan.options().h_init;
        let h = if h > 0.0 { h } else { span / 20.0 };
        Control { t, h: h.min(span), errors: [1.0; ERRORS], end, rejected: false, done: false }
    }

    /// The time a fraction of the way through the step; exactly the end when it is reached, and from then on.
    pub(super) fn time(&self, fraction: f64) -> f64 {
        if fraction == 1.0 || self.done { self.next() } else { self.t + self.direction() * fraction * self.h }
    }

    fn direction(&self) -> f64 {
        if self.end < self.t { -1.0 } else { 1.0 }
    }

    fn left(&self) -> f64 {
        (self.t - self.end).abs()
    }

    pub(super) fn next(&self) -> f64 {
        if self.h >= self.left() { self.end } else { self.t + self.direction() * self.h }
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
        self.h = h.min(100.0 * before).min(self.left());
    }

    /// Takes the error of the step tried; returns whether it is accepted.
    pub(super) fn judge(&mut self, error: f64, rule: &Rule) -> bool {
        // A NaN or infinite error comes from a step far too long.
        let error = if error.is_finite() { error.max(LEAST_ERROR) } else { f64::MAX };
        let accepted = error <= 1.0;
        let tried = self.signed_step().abs();
        let power = |error: f64, p: f64| if p == 0.0 { 1.0 } else { libm::pow(error, -p / rule.order) };
        let factor = if accepted {
            let most = if self.rejected { 1.0 } else { rule.grow };
            let [p, p1, p2] = rule.exponents;
            let product = SAFETY * power(error, p) * power(self.errors[0], p1) * power(self.errors[1], p2);
            product.clamp(SHRINK, most)
        } else {
            (SAFETY * power(error, 1.0)).clamp(SHRINK, 1.0)
        };
        if accepted {
            self.t = self.next();
            // What no exponent reads is not carried along.
            let before = if rule.exponents[2] == 0.0 { 1.0 } else { self.errors[0] };
            self.errors = [error, before];
            self.done = self.t == self.end;
        }
        self.rejected = !accepted;
        self.h = tried * factor;
        if !self.done {
            self.h = self.h.min(self.left());
        }
        accepted
    }
}
