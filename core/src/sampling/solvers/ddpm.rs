//! Ancestral sampling (Ho 2020) with the posterior q(x_next | x, x0), for any pair of levels.
//!
//! With r = alpha/alpha' and v = sigma^2 - r^2 sigma'^2 the posterior has mean
//! `r sigma'^2/sigma^2 x + alpha' v/sigma^2 x0` and variance `v sigma'^2/sigma^2`
//! (Kingma 2021, eq. 25): the "fixed small" variance, zero when sigma' is.

use crate::error::Result;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Builder, Operand, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X);
        let data = b.data(&from, X, y)?;
        let (keep, v) = posterior(&from, &to);
        let s2 = from.sigma * from.sigma;
        let deviation = libm::sqrt(v.max(0.0)) * to.sigma / from.sigma;
        b.lin(X, Sum::of(X, keep).plus_sum(&data, to.alpha * v / s2).plus(Operand::Noise, deviation));
    }
    Ok(())
}

/// The weight of x in the posterior mean, and `sigma^2 - (alpha/alpha')^2 sigma'^2`.
pub(super) fn posterior(from: &Node, to: &Node) -> (f64, f64) {
    let r = from.alpha / to.alpha;
    let (s2, n2) = (from.sigma * from.sigma, to.sigma * to.sigma);
    (r * n2 / s2, s2 - r * r * n2)
}
