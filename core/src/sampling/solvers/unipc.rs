//! UniPC of order 2 with B2(h) (Zhao 2023), predicting x0: a corrector that reuses the
//! evaluation the next predictor needs, so one evaluation a step.
//!
//! The evaluation at the predicted state first corrects that state, then predicts the next.
//! The first step and the last are first order, as is every quantity that would need a level
//! of infinite lambda: at sigma 0 by that rule, at alpha 0 because its weight is 1/inf.

use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// What predictor and corrector share for a step from `from` to `to`.
struct Step {
    keep: f64,
    alpha: f64,
    /// `expm1(-h)`: both h phi_1 and B(h) of the B2 variant.
    phi: f64,
    /// `h / (lambda_before - lambda_from)`, the inverse of r_1; 0 without usable history.
    inverse_r: f64,
    /// Moments b_1, b_2 of the corrector's system.
    b: [f64; 2],
    order: usize,
}

impl Step {
    fn new(before: Option<&Node>, from: &Node, to: &Node, order: usize) -> Step {
        let h = to.lambda() - from.lambda();
        let phi = libm::expm1(-h);
        // phi_k recurrences in hh = -h, divided by B(h) = phi.
        let first = phi / -h - 1.0;
        let second = first / -h - 0.5;
        let inverse_r = before.map_or(0.0, |n| h / (n.lambda() - from.lambda()));
        Step {
            keep: to.sigma / from.sigma,
            alpha: to.alpha,
            phi,
            inverse_r,
            b: [first / phi, 2.0 * second / phi],
            order,
        }
    }

    /// First-order part: `sigma'/sigma x - alpha' phi m0`.
    fn base(&self, x: Operand, m0: Operand) -> Sum {
        Sum::of(x, self.keep).plus(m0, -self.alpha * self.phi)
    }

    fn predict(&self, x: Operand, m0: Operand, m1: Operand) -> Sum {
        let sum = self.base(x, m0);
        if self.order < 2 {
            return sum;
        }
        let w = -self.alpha * self.phi * 0.5 * self.inverse_r;
        sum.plus(m1, w).plus(m0, -w)
    }

    /// `m` is x0 predicted at the state being corrected, m0 and m1 those of the predictor.
    fn correct(&self, x: Operand, m0: Operand, m1: Operand, m: Operand) -> Sum {
        let scale = -self.alpha * self.phi;
        // Solves rho_1 + rho_2 = b_1, r_1 rho_1 + rho_2 = b_2; both over r_1 stay finite as r_1 -> inf.
        let (history, new) = if self.order < 2 {
            (0.0, 0.5)
        } else {
            let rho = if self.inverse_r == 0.0 {
                0.0
            } else {
                (self.b[0] - self.b[1]) * self.inverse_r / (self.inverse_r - 1.0)
            };
            (rho * self.inverse_r, self.b[0] - rho)
        };
        let mut sum = self.base(x, m0);
        if self.order >= 2 {
            sum = sum.plus(m1, scale * history).plus(m0, -scale * history);
        }
        sum.plus(m, scale * new).plus(m0, -scale * new)
    }
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let corrected = b.slot();
    let history = [b.slot(), b.slot()];
    let steps = grid.len() - 1;
    let mut previous: Option<Step> = None;
    for (i, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        // m0 of this step goes where m1 of the last one was: the histories rotate by index.
        let (newest, oldest) = (history[i % 2], history[(i + 1) % 2]);
        let y = b.eval(At::Node(from), i, 0, X)?;
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        let base = match &previous {
            None => {
                b.lin(corrected, Sum::of(X, 1.0));
                corrected
            }
            Some(step) => {
                // `newest` still holds the x0 from two steps ago.
                let sum = step.correct(corrected, oldest, newest, FREE);
                b.lin(corrected, sum);
                corrected
            }
        };
        let order = (i + 1).min(2).min(steps - i);
        let step = Step::new((order > 1).then(|| &grid[i - 1]), &from, &to, order);
        b.lin(X, step.predict(base, FREE, oldest));
        b.lin(newest, Sum::of(FREE, 1.0));
        previous = Some(step);
    }
    Ok(())
}
