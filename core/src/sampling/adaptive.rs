//! Step-size control of one row.
//!
//! The error of a step is the root mean square of `e / (atol + rtol max(|x|, |x_new|))`,
//! summed in f64 in one fixed order. A row accepts when it is at most 1. The next step is
//! the PI controller of Hairer & Wanner (Solving ODEs II, IV.2) for an error of order 3:
//! `h * clip(0.9 err^(-0.7/3) err_before^(0.4/3), 0.2, 5)`, no growth right after a rejection;
//! a rejected row retries with `h * clip(0.9 err^(-1/3), 0.2, 1)`. Time runs down.

use super::plan::Plan;

const SAFETY: f64 = 0.9;
const SHRINK: f64 = 0.2;
const GROW: f64 = 5.0;
/// Below this the step no longer moves time in a useful way.
const LEAST_STEP: f64 = 1e-12;
/// An error this small says nothing about its order.
const LEAST_ERROR: f64 = 1e-8;

/// The controller of one row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Control {
    /// Current time.
    pub t: f64,
    /// Size of the step being tried, positive, never past the end.
    pub h: f64,
    /// Error of the last accepted step.
    pub error: f64,
    /// Time at which the row finishes.
    pub end: f64,
    /// The last try was rejected.
    pub rejected: bool,
    /// The row has arrived; nothing touches it any more.
    pub done: bool,
}

impl Control {
    pub(super) fn new(plan: &Plan) -> Control {
        let (t, end) = (plan.start().t, plan.end().t);
        let h = plan.options().h_init;
        let h = if h > 0.0 { h } else { (t - end) / 20.0 };
        Control { t, h: h.min(t - end), error: 1.0, end, rejected: false, done: false }
    }

    /// The time a fraction of the way through the step; exactly the end when it is reached.
    pub(super) fn time(&self, fraction: f64) -> f64 {
        if fraction == 1.0 { self.next() } else { self.t - fraction * self.h }
    }

    fn next(&self) -> f64 {
        if self.h >= self.t - self.end { self.end } else { self.t - self.h }
    }

    /// The step as the solver sees it, next time less this one.
    pub(super) fn signed_step(&self) -> f64 {
        self.next() - self.t
    }

    pub(super) fn is_stuck(&self) -> bool {
        self.h < LEAST_STEP && self.h < self.t - self.end
    }

    /// Takes the error of the step tried; returns whether it is accepted.
    pub(super) fn judge(&mut self, error: f64) -> bool {
        // A NaN or infinite error comes from a step far too long.
        let error = if error.is_finite() { error.max(LEAST_ERROR) } else { f64::MAX };
        let accepted = error <= 1.0;
        let tried = -self.signed_step();
        let factor = if accepted {
            let most = if self.rejected { 1.0 } else { GROW };
            (SAFETY * libm::pow(error, -0.7 / 3.0) * libm::pow(self.error, 0.4 / 3.0)).clamp(SHRINK, most)
        } else {
            (SAFETY * libm::pow(error, -1.0 / 3.0)).clamp(SHRINK, 1.0)
        };
        if accepted {
            self.t = self.next();
            self.error = error;
            self.done = self.t <= self.end;
        }
        self.rejected = !accepted;
        self.h = tried * factor;
        if !self.done {
            self.h = self.h.min(self.t - self.end);
        }
        accepted
    }
}
