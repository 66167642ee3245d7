//! SA-Solver (Xue 2023): a stochastic Adams predictor in x0 and a corrector that reuses the
//! evaluation the next predictor needs. `sde_eta` is tau squared: 0 is the ODE, 1 the usual SDE.
//!
//! Predictor and corrector of a step share their noise: both start from the same
//! `base = sigma'/sigma e^(-eta h) x + sigma' sqrt(1 - e^(-2 eta h)) z`.

use super::common::usable;
use super::weights::exponential;
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::options::Compat;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// A step that the next evaluation corrects.
struct Done {
    alpha: f64,
    /// Weights of the new x0, then of the history, newest first.
    weights: Vec<f64>,
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (order, eta, scale) = (b.order(), b.options().sde_eta, b.options().s_noise);
    let theirs = b.options().compat == Compat::Diffusers;
    let (base, corrected) = (b.slot(), b.slot());
    let ring: Vec<Operand> = (1..order).map(|_| b.slot()).collect();
    let at = |step: usize, back: usize| ring[(step + ring.len() - back) % ring.len()];
    let mut done: Option<Done> = None;
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        let x = match &done {
            None => X,
            Some(done) => {
                let mut sum = Sum::of(base, 1.0).plus(FREE, done.alpha * done.weights[0]);
                for (i, w) in done.weights[1..].iter().enumerate() {
                    sum = sum.plus(at(step, i + 1), done.alpha * w);
                }
                b.lin(corrected, sum);
                corrected
            }
        };
        let h = to.lambda() - from.lambda();
        let z = (1.0 + eta) * h;
        let damped = if eta == 0.0 { 1.0 } else { libm::exp(-eta * h) };
        let mut sum = Sum::of(x, to.sigma / from.sigma * damped);
        if eta != 0.0 && to.sigma != 0.0 {
            let normals = b.noise(step, 0, &from, &to);
            sum = sum.plus(normals, scale * to.sigma * libm::sqrt(-libm::expm1(-2.0 * eta * h)));
        }
        b.lin(base, sum);
        let count = usable(grid, step, order);
        let points: Vec<f64> = (0..count)
            .map(|back| if back == 0 { 0.0 } else { (grid[step - back].lambda() - from.lambda()) / h })
            .collect();
        let mut weights = if count == 1 { vec![-libm::expm1(-z)] } else { exponential(&points, z) };
        if theirs && h.is_finite() {
            few_steps(&mut weights, eta, h, points.get(1).map_or(h, |p| -p * h));
        }
        let mut sum = Sum::of(base, 1.0);
        for (back, w) in weights.iter().enumerate() {
            sum = sum.plus(if back == 0 { FREE } else { at(step, back) }, to.alpha * w);
        }
        b.lin(X, sum);
        if !ring.is_empty() {
            b.lin(at(step, 0), Sum::of(FREE, 1.0));
        }
        // The new value takes the place of the oldest; a step without finite lambdas is not corrected.
        done = (from.is_mixed() && to.is_mixed()).then(|| {
            let ahead: Vec<f64> = [1.0].iter().chain(&points[..count.min(order - 1)]).copied().collect();
            let mut weights = exponential(&ahead, z);
            if theirs {
                few_steps(&mut weights, eta, h, h);
            }
            Done { alpha: to.alpha, weights }
        });
    }
    Ok(())
}

/// What diffusers adds to formulas of two values, a difference of third order that it found to help in few
/// steps: the slope between them is weighed by `h^2 / 2`. `apart` is the distance of the two in lambda.
fn few_steps(weights: &mut [f64], eta: f64, h: f64, apart: f64) {
    let [first, second] = weights else { return };
    let z = (1.0 + eta) * h;
    let exact = (z + libm::expm1(-z)) / ((1.0 + eta) * (1.0 + eta));
    let more = (1.0 + eta) * (0.5 * h * h - exact) / apart;
    *first += more;
    *second -= more;
}
