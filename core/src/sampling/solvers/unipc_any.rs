//! UniPC (Zhao 2023) of orders 1 to 3 with B1(h) = h or B2(h) = e^h - 1, predicting x0. Order 2
//! with B2 is written out in `unipc.rs`.
//!
//! The weights rho solve `sum_k r_k^(i-1) rho_k = i! phi_(i+1)(h) h / B(h)`, i = 1..p. A step where
//! lambda is infinite is of order 1 and, having no B1, is corrected by B2's weight 1/2.

use super::common::usable;
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// What predictor and corrector share for a step.
struct Step {
    keep: f64,
    /// `-alpha' expm1(-h)`, the weight of the newest x0.
    whole: f64,
    /// `-alpha' B(h)`
    scale: f64,
    /// Places of the history in units of the step, then 1.
    r: Vec<f64>,
    /// Moments.
    b: Vec<f64>,
}

impl Step {
    fn new(grid: &[Node], i: usize, order: usize, b1: bool) -> Step {
        let (from, to) = (&grid[i], &grid[i + 1]);
        let h = to.lambda() - from.lambda();
        let phi = libm::expm1(-h);
        let base = if b1 && h.is_finite() { -h } else { phi };
        let mut r: Vec<f64> = (1..order).map(|back| (grid[i - back].lambda() - from.lambda()) / h).collect();
        r.push(1.0);
        let mut b = Vec::new();
        let (mut next, mut factorial) = (phi / -h - 1.0, 1.0);
        for k in 1..=order {
            b.push(next * factorial / base);
            factorial *= (k + 1) as f64;
            next = next / -h - 1.0 / factorial;
        }
        Step { keep: to.sigma / from.sigma, whole: -to.alpha * phi, scale: -to.alpha * base, r, b }
    }

    fn order(&self) -> usize {
        self.r.len()
    }

    /// Weights of the differences to the newest x0, divided by their places.
    fn weights(&self, count: usize) -> Vec<f64> {
        let rho = if self.order() == 1 || (count == 1 && self.order() == 2) {
            vec![0.5; count]
        } else {
            solve(&self.r[..count], &self.b[..count])
        };
        rho.iter().zip(&self.r).map(|(rho, r)| self.scale * rho / r).collect()
    }
}

/// Solves `sum_k r_k^i x_k = b_i`, i from 0, by elimination; the places are distinct.
fn solve(r: &[f64], b: &[f64]) -> Vec<f64> {
    let n = r.len();
    let mut rows: Vec<Vec<f64>> =
        (0..n).map(|i| r.iter().map(|r| libm::pow(*r, i as f64)).chain([b[i]]).collect()).collect();
    for i in 0..n {
        let pivot = (i..n).max_by(|&a, &b| rows[a][i].abs().total_cmp(&rows[b][i].abs())).unwrap_or(i);
        rows.swap(i, pivot);
        for j in 0..n {
            if j != i {
                let factor = rows[j][i] / rows[i][i];
                for k in i..=n {
                    rows[j][k] -= factor * rows[i][k];
                }
            }
        }
    }
    (0..n).map(|i| rows[i][n] / rows[i][i]).collect()
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], b1: bool) -> Result<()> {
    let (most, steps) = (b.order(), grid.len() - 1);
    let corrected = b.slot();
    let ring: Vec<Operand> = (0..most).map(|_| b.slot()).collect();
    let at = |step: usize, back: usize| ring[(step + ring.len() - back) % ring.len()];
    let mut previous: Option<Step> = None;
    for (i, pair) in grid.windows(2).enumerate() {
        let from = pair[0];
        let y = b.eval(At::Node(from), i, 0, X)?;
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        let sum = match &previous {
            None => Sum::of(X, 1.0),
            Some(step) => {
                // The new x0 is FREE; the newest of that step is one back.
                let weights = step.weights(step.order());
                let mut sum =
                    Sum::of(corrected, step.keep).plus(at(i, 1), step.whole - weights.iter().sum::<f64>());
                for (k, w) in weights.iter().enumerate() {
                    let operand = if k + 1 == step.order() { FREE } else { at(i, k + 2) };
                    sum = sum.plus(operand, *w);
                }
                sum
            }
        };
        b.lin(corrected, sum);
        // The last steps are of lower order, as is every one that would need an infinite lambda.
        let order = usable(grid, i, most).min(steps - i);
        let step = Step::new(grid, i, order, b1);
        let weights = if order == 1 { Vec::new() } else { step.weights(order - 1) };
        let mut sum = Sum::of(corrected, step.keep).plus(FREE, step.whole - weights.iter().sum::<f64>());
        for (k, w) in weights.iter().enumerate() {
            sum = sum.plus(at(i, k + 1), *w);
        }
        b.lin(X, sum);
        b.lin(at(i, 0), Sum::of(FREE, 1.0));
        previous = Some(step);
    }
    Ok(())
}
