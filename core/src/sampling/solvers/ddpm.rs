//! Ancestral sampling (Ho 2020) with the posterior q(x_next | x, x0), for any pair of levels.
//!
//! With r = alpha/alpha' and v = sigma^2 - r^2 sigma'^2 the posterior has mean
//! `r sigma'^2/sigma^2 x + alpha' v/sigma^2 x0` and variance `v sigma'^2/sigma^2`
//! (Kingma 2021, eq. 25): the "fixed small" variance, zero when sigma' is. The large one is v.

use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::options::Variance;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Row, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let (keep, v) = posterior(&from, &to);
        let s2 = from.sigma * from.sigma;
        let small = libm::sqrt(v.max(0.0)) * to.sigma / from.sigma;
        let mean = Sum::of(X, keep).plus_sum(&data, to.alpha * v / s2);
        let noisy = to.sigma != 0.0;
        let deviation = match b.options().variance {
            Variance::FixedSmall => small,
            Variance::FixedLarge if noisy => libm::sqrt(v.max(0.0)),
            Variance::FixedLarge => 0.0,
            Variance::LearnedRange => {
                b.lin(X, mean);
                if noisy {
                    let (base, slope) = log_deviation(small, libm::sqrt(v.max(0.0)));
                    b.push(Row::LearnedNoise { base, slope });
                }
                continue;
            }
        };
        let normals = b.noise(step, 0, &from, &to);
        b.lin(X, mean.plus(normals, b.options().s_noise * deviation));
    }
    Ok(())
}

/// `ln` of the deviation is `base + slope w` for w in [-1, 1]: from the small to the large one.
pub(super) fn log_deviation(small: f64, large: f64) -> (f64, f64) {
    let (small, large) = (libm::log(small.max(1e-10)), libm::log(large.max(1e-10)));
    (0.5 * (large + small), 0.5 * (large - small))
}

/// The weight of x in the posterior mean, and `sigma^2 - (alpha/alpha')^2 sigma'^2`.
pub(super) fn posterior(from: &Node, to: &Node) -> (f64, f64) {
    let r = from.alpha / to.alpha;
    let (s2, n2) = (from.sigma * from.sigma, to.sigma * to.sigma);
    (r * n2 / s2, s2 - r * r * n2)
}
