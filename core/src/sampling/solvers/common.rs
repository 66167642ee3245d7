//! What several families share: the first-order step, fresh noise, churn.

use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{Operand, Sum, X};

/// A level that need not be one of the process: where an ancestral step lands before its noise.
#[derive(Debug, Clone, Copy)]
pub(super) struct Landing {
    pub alpha: f64,
    /// Noise that is kept.
    pub down: f64,
    /// Noise that is added.
    pub up: f64,
}

impl Landing {
    /// Splits the noise of `to`: with `eta` 1 what is added has the variance of the DDPM posterior,
    /// `up = sigma' min(1, eta sqrt(1 - (u'/u)^2))`, u = sigma / alpha.
    pub(super) fn new(from: &Node, to: &Node, eta: f64) -> Landing {
        let ratio = to.sigma * from.alpha / (from.sigma * to.alpha);
        let up = to.sigma * (eta * libm::sqrt((1.0 - ratio * ratio).max(0.0))).min(1.0);
        let down = libm::sqrt((to.sigma * to.sigma - up * up).max(0.0));
        Landing { alpha: to.alpha, down, up }
    }

    /// No fresh noise.
    pub(super) fn at(to: &Node) -> Landing {
        Landing { alpha: to.alpha, down: to.sigma, up: 0.0 }
    }

    /// `ln(alpha / down)`
    pub(super) fn lambda(&self) -> f64 {
        Node { t: 0.0, alpha: self.alpha, sigma: self.down }.lambda()
    }
}

/// `x' = alpha' x0 + sigma' eps` with the eps of x and x0: DDIM, and Euler in any of its coordinates.
pub(super) fn first_order(from: &Node, to: &Landing, x: Operand, data: &Sum) -> Sum {
    let keep = to.down / from.sigma;
    Sum::of(x, keep).plus_sum(data, to.alpha - keep * from.alpha)
}

/// One first-order step of x, where a method can do no more.
pub(super) fn simple_step(b: &mut Builder<'_>, from: &Node, to: &Node, x: Operand, y: Operand) -> Result<()> {
    let data = b.data(from, x, y)?;
    b.lin(X, first_order(from, &Landing::at(to), x, &data));
    Ok(())
}

/// Karras 2022, algorithm 2: raises the noise before a step; returns the level that x is at then.
pub(super) fn churn(b: &mut Builder<'_>, step: usize, from: Node, steps: usize) -> Node {
    let o = b.options();
    let level = b.levels.level(&from);
    let most = b.levels.level_range().1;
    let inside = o.s_tmin <= level && (o.s_tmax == 0.0 || level <= o.s_tmax);
    if o.s_churn == 0.0 || !inside || !from.is_mixed() {
        return from;
    }
    let gamma = (o.s_churn / steps as f64).min(std::f64::consts::SQRT_2 - 1.0);
    let raised = b.levels.at_level((level * (1.0 + gamma)).min(most));
    if raised.sigma <= from.sigma || raised.alpha == 0.0 {
        return from;
    }
    let number = b.number(step);
    // The first draw of a number belongs to restarts.
    let noise = b.churn(number + CHURN);
    let keep = raised.alpha / from.alpha;
    let added = libm::sqrt((raised.sigma * raised.sigma - keep * keep * from.sigma * from.sigma).max(0.0));
    b.lin(X, Sum::of(X, keep).plus(noise, o.s_noise * added));
    raised
}

/// Churn of step n is draw n plus this one of its stream.
const CHURN: usize = 1 << 20;

/// How many of the newest `most` places of a history can be used at step `i`: those whose lambda is finite.
pub(super) fn usable(grid: &[Node], i: usize, most: usize) -> usize {
    let (from, to) = (&grid[i], &grid[i + 1]);
    if !from.is_mixed() || !to.is_mixed() {
        return 1;
    }
    1 + grid[..i].iter().rev().take(most - 1).take_while(|n| n.is_mixed()).count()
}
