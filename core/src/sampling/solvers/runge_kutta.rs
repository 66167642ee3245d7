//! Explicit Runge-Kutta methods on the ODE coordinate of the process.
//!
//! A flow is integrated in model time, dx/dt = velocity. A VP process is integrated as
//! `z = x / alpha` over `u = sigma / alpha`, dz/du = eps (Song 2021; Karras 2022), where Euler
//! is DDIM with eta 0. A model evaluation between grid times uses the model time whose
//! log(sigma/alpha), linear between table entries, is that of the stage.
//!
//! A step that would have to evaluate where the derivative does not exist (VP at sigma 0, which
//! no training step has; x0 predictions and clipping at t = 0 of a flow) is an Euler step.
//! That is the last step only. Its error is that of one Euler step from the last noisy level,
//! which a VP grid leaves at sigma about 0.01 however many steps there are; `times` that end at
//! training step 0 avoid it.

use super::common::{churn, simple_step};
use super::pairs::DOPRI5;
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// A Butcher tableau.
pub(super) struct Tableau {
    /// Rows of `a`, below the diagonal; stage i has `a[i].len() == i`.
    a: &'static [&'static [f64]],
    b: &'static [f64],
    c: &'static [f64],
    /// The inner stage lies at the geometric mean of the coordinates (DPM2), not at `c`.
    geometric: bool,
}

pub(super) const EULER: Tableau = Tableau { a: &[&[]], b: &[1.0], c: &[0.0], geometric: false };
pub(super) const MIDPOINT: Tableau =
    Tableau { a: &[&[], &[0.5]], b: &[0.0, 1.0], c: &[0.0, 0.5], geometric: false };
/// k-diffusion's DPM2: the midpoint in the logarithm of the noise level.
pub(super) const DPM2: Tableau = Tableau { geometric: true, ..MIDPOINT };
pub(super) const HEUN: Tableau =
    Tableau { a: &[&[], &[1.0]], b: &[0.5, 0.5], c: &[0.0, 1.0], geometric: false };
pub(super) const RK4: Tableau = Tableau {
    a: &[&[], &[0.5], &[0.0, 0.5], &[0.0, 0.0, 1.0]],
    b: &[1.0 / 6.0, 1.0 / 3.0, 1.0 / 3.0, 1.0 / 6.0],
    c: &[0.0, 0.5, 0.5, 1.0],
    geometric: false,
};
/// The fifth-order method of Dormand & Prince.
pub(super) const RK5: Tableau =
    Tableau { a: DOPRI5.a.split_at(6).0, b: DOPRI5.a[6], c: DOPRI5.c.split_at(6).0, geometric: false };

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], tableau: &Tableau) -> Result<()> {
    let stages = tableau.c.len();
    // One tensor for the state of a stage, one for each slope but the last, which stays in
    // the pass that ends the step.
    let stage_slot = (stages > 1).then(|| b.slot());
    let slopes: Vec<Operand> = (1..stages).map(|_| b.slot()).collect();
    let steps = grid.len() - 1;
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (churn(b, step, pair[0], steps), pair[1]);
        if from.alpha == 0.0 && b.levels.coordinate(&from).0 == 0.0 {
            // The coordinate is infinite where no signal is left.
            let y = b.eval(At::Node(from), step, 0, X)?;
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        if b.separates() {
            let y = b.eval(At::Node(from), step, 0, X)?;
            let data = b.data(&from, X, y)?;
            let eps = b.renoise(&from, X, &data)?;
            b.lin(X, data.times(to.alpha).plus_sum(&eps, to.sigma));
            continue;
        }
        let (m0, c0) = b.levels.coordinate(&from);
        let (m1, c1) = b.levels.coordinate(&to);
        let h = c1 - c0;
        let place = |c: f64| if tableau.geometric { (libm::sqrt(c0 * c1) - c0) / h } else { c };
        let inner = |c: f64| if tableau.geometric && c == 0.5 { place(c) } else { c };
        let nodes: Vec<Node> =
            tableau.c.iter().map(|&c| stage_node(b, inner(c), &from, &to, c0, h)).collect();
        let positive = !tableau.geometric || c1 > 0.0;
        let usable = positive && b.levels.knows(&to) && nodes.iter().all(|n| b.has_derivative(n));
        if stages == 1 || !usable {
            let y = b.eval(At::Node(from), step, 0, X)?;
            let slope = b.derivative(&from, X, y)?;
            b.lin(X, Sum::of(X, m1 / m0).plus_sum(&slope, m1 * h));
            continue;
        }
        let mut at = X;
        for (i, node) in nodes.iter().enumerate() {
            let y = b.eval(At::Node(*node), step, i as u16, at)?;
            let slope = b.derivative(node, at, y)?;
            let last = i + 1 == stages;
            let here = if last { FREE } else { slopes[i] };
            b.lin(here, slope);
            let (m, weights) =
                if last { (m1, tableau.b) } else { (b.levels.coordinate(&nodes[i + 1]).0, tableau.a[i + 1]) };
            let mut sum = Sum::of(X, m / m0);
            for (j, &w) in weights.iter().enumerate().filter(|(_, w)| **w != 0.0) {
                // The only inner weight of a geometric tableau is its place.
                let w = if last { w } else { inner(w) };
                sum = sum.plus(if j == i { here } else { slopes[j] }, m * h * w);
            }
            at = if last { X } else { stage_slot.unwrap_or(X) };
            b.lin(at, sum);
        }
    }
    Ok(())
}

/// The level of a stage. The ends are the grid's own nodes, so that a model that wants whole
/// training steps gets them.
fn stage_node(b: &Builder<'_>, c: f64, from: &Node, to: &Node, c0: f64, h: f64) -> Node {
    if c == 0.0 {
        *from
    } else if c == 1.0 {
        *to
    } else if !b.levels.knows(to) {
        // Never evaluated: the step falls back.
        *to
    } else {
        b.levels.at_coordinate(c0 + c * h)
    }
}
