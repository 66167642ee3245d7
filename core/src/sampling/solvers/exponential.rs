//! Multistep exponential integrators in lambda = ln(alpha / sigma): DPM-Solver and ++ of orders 1
//! to 3, DEIS, RES, and their SDE forms.
//!
//! In x0: `x' = sigma'/sigma e^(-eta h) x + alpha' sum w_j x0_j + sigma' sqrt(1 - e^(-2 eta h)) z`
//! with weights that sum to `1 - e^(-(1 + eta) h)`. In eps: `x' = alpha'/alpha x - sigma' sum v_j eps_j`,
//! the weights summing to `e^h - 1`. Where lambda is infinite a step is first order, and a first
//! step from a level without signal is that of x0 also in the eps form.

use super::common::{simple_step, usable};
use super::weights::{exponential, moment};
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// How a step uses its history.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// Order 2 takes the value at the middle of the step, order 3 the exact integral.
    Midpoint,
    /// As published and as peers have it: order 3 takes half of the second difference's integral,
    /// which leaves it at order 2.
    Halved,
    /// The polynomial through the history, integrated exactly.
    Exact,
}

/// One method of the family.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub rule: Rule,
    pub order: usize,
    /// Noise against that of the SDE; 0 for the ODE.
    pub eta: f64,
}

/// The history in a ring of state tensors; `FREE` holds the newest.
struct Ring(Vec<Operand>);

impl Ring {
    fn at(&self, step: usize, back: usize) -> Operand {
        let n = self.0.len();
        self.0[(step + n - back) % n]
    }

    fn keep(&self, b: &mut Builder<'_>, step: usize) {
        if !self.0.is_empty() {
            b.lin(self.0[step % self.0.len()], Sum::of(FREE, 1.0));
        }
    }
}

/// `1 - e^-z` shared out as the rule says: `points` are places of the history in units of the step.
fn share(rule: Rule, points: &[f64], z: f64) -> Vec<f64> {
    let (total, square) = (-libm::expm1(-z), moment(2, z));
    let exact = |points: &[f64]| exponential(points, z);
    match (rule, points.len()) {
        (_, 1) => vec![total],
        (Rule::Midpoint | Rule::Halved, 2) => {
            let half = 0.5 / -points[1];
            vec![total * (1.0 + half), -total * half]
        }
        (Rule::Halved, _) => {
            // The exact weights less half of what the divided difference of order 2 contributes to x^2.
            let (r0, r1) = (-points[1], points[1] - points[2]);
            let half = 0.5 * square / (r0 + r1);
            let (a, b) = (half / r0, half / r1);
            let w = exact(points);
            vec![w[0] - a, w[1] + a + b, w[2] - b]
        }
        _ => exact(points),
    }
}

/// Places of the newest `count` nodes up to `i`, in units of step `i`.
fn places(grid: &[Node], i: usize, count: usize) -> Vec<f64> {
    let (now, next) = (grid[i].lambda(), grid[i + 1].lambda());
    (0..count)
        .map(|back| if back == 0 { 0.0 } else { (grid[i - back].lambda() - now) / (next - now) })
        .collect()
}

/// Methods in x0.
pub(super) fn in_data(b: &mut Builder<'_>, grid: &[Node], m: Method) -> Result<()> {
    let ring = Ring((1..m.order).map(|_| b.slot()).collect());
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        if from.sigma == 0.0 {
            leave_data(b, step, &from, &to)?;
            continue;
        }
        let y = b.eval(At::Node(from), step, 0, X)?;
        if to.alpha == 0.0 {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        let h = to.lambda() - from.lambda();
        let z = (1.0 + m.eta) * h;
        let count = usable(grid, step, m.order);
        let points = places(grid, step, count);
        let weights = share(m.rule, &points, z);
        let damped = if m.eta == 0.0 { 1.0 } else { libm::exp(-m.eta * h) };
        let mut sum = Sum::of(X, to.sigma / from.sigma * damped);
        for (back, w) in weights.iter().enumerate() {
            let operand = if back == 0 { FREE } else { ring.at(step, back) };
            sum = sum.plus(operand, to.alpha * w);
        }
        if m.eta != 0.0 && to.sigma != 0.0 {
            let deviation = to.sigma * libm::sqrt(-libm::expm1(-2.0 * m.eta * h));
            let normals = b.noise(step, 0, &from, &to);
            sum = sum.plus(normals, b.options().s_noise * deviation);
        }
        b.lin(X, sum);
        ring.keep(b, step);
    }
    Ok(())
}

/// The first step of an inversion from clean data, which no model knows: its eps is that of the level ahead.
fn leave_data(b: &mut Builder<'_>, step: usize, from: &Node, to: &Node) -> Result<()> {
    let y = b.eval(At::Node(*to), step, 0, X)?;
    let eps = b.free_eps(from, X, y)?;
    b.lin(X, Sum::of(X, to.alpha / from.alpha).plus_sum(&eps, to.sigma));
    Ok(())
}

/// Methods in eps. The SDE form is of order 2 at most.
pub(super) fn in_noise(b: &mut Builder<'_>, grid: &[Node], m: Method) -> Result<()> {
    let ring = Ring((1..m.order).map(|_| b.slot()).collect());
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        if !from.is_mixed() {
            let data = b.data(&from, X, y)?;
            let (down, up) = if m.eta == 0.0 { (to.sigma, 0.0) } else { (0.0, to.sigma) };
            let landing = super::common::Landing { alpha: to.alpha, down, up };
            let normals = b.noise(step, 0, &from, &to);
            let sum = super::common::first_order(&from, &landing, X, &data);
            b.lin(X, sum.plus(normals, b.options().s_noise * up));
            continue;
        }
        if to.sigma == 0.0 {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        let eps = b.eps(&from, X, y)?;
        b.lin(FREE, eps);
        let h = to.lambda() - from.lambda();
        let count = usable(grid, step, m.order);
        let points = places(grid, step, count);
        let weights = share(m.rule, &points, -h);
        let mut sum = Sum::of(X, to.alpha / from.alpha);
        for (back, w) in weights.iter().enumerate() {
            let operand = if back == 0 { FREE } else { ring.at(step, back) };
            sum = sum.plus(operand, to.sigma * (1.0 + m.eta) * w);
        }
        if m.eta != 0.0 {
            let deviation = to.sigma * libm::sqrt(m.eta * libm::expm1(2.0 * h));
            let normals = b.noise(step, 0, &from, &to);
            sum = sum.plus(normals, b.options().s_noise * deviation);
        }
        b.lin(X, sum);
        ring.keep(b, step);
    }
    Ok(())
}
