//! Extended reverse-time SDE solvers (Cui 2023), orders 1 to 3, in u = sigma / alpha with the
//! noise scale `phi(u) = u (e^(u^0.3) + 10)` of their section 4.
//!
//! `x' = alpha' (phi'/phi x / alpha + (1 - phi'/phi) x0 + ...) + alpha' sqrt(u'^2 - u^2 (phi'/phi)^2) z`; the
//! higher terms hold divided differences of x0 against integrals of 1 / phi.

use super::common::{simple_step, usable};
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// `phi(u) / u`
fn growth(u: f64) -> f64 {
    libm::exp(libm::pow(u, 0.3)) + 10.0
}

/// Places and weights of Gauss and Legendre's rule on [-1, 1].
const GAUSS: [(f64, f64); 5] = [
    (0.0, 0.568_888_888_888_888_9),
    (0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
    (-0.538_469_310_105_683_1, 0.478_628_670_499_366_5),
    (0.906_179_845_938_664, 0.236_926_885_056_189_1),
    (-0.906_179_845_938_664, 0.236_926_885_056_189_1),
];
const PANELS: usize = 32;

/// `int_low^high f(u) / phi(u) du`, over the logarithm of u, in which it is smooth.
fn integral(low: f64, high: f64, f: impl Fn(f64) -> f64) -> f64 {
    let (a, b) = (libm::log(low), libm::log(high));
    let half = 0.5 * (b - a) / PANELS as f64;
    (0..PANELS)
        .map(|i| {
            let middle = a + half * (2 * i + 1) as f64;
            GAUSS
                .iter()
                .map(|(x, w)| {
                    let u = libm::exp(middle + half * x);
                    half * w * f(u) / growth(u)
                })
                .sum::<f64>()
        })
        .sum()
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (order, scale) = (b.order(), b.options().s_noise);
    let ring: Vec<Operand> = (1..order).map(|_| b.slot()).collect();
    let at = |step: usize, back: usize| ring[(step + ring.len() - back) % ring.len()];
    let u = |n: &Node| n.sigma / n.alpha;
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        if to.sigma == 0.0 {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        // u phi'/phi, which stays finite where u does not.
        let u1 = u(&to);
        let carried = if from.is_mixed() { u1 * growth(u1) / growth(u(&from)) } else { 0.0 };
        let keep = to.alpha * carried / from.sigma;
        let mut weights = [to.alpha - keep * from.alpha, 0.0, 0.0];
        let count = usable(grid, step, order);
        if count > 1 {
            let (u0, before) = (u(&from), u(&grid[step - 1]));
            let phi = u1 * growth(u1);
            // x0' = (x0 - x0_before) / (u - u_before)
            let first = to.alpha * ((u1 - u0) + integral(u1, u0, |_| 1.0) * phi) / (u0 - before);
            weights[0] += first;
            weights[1] -= first;
            if count > 2 {
                let earlier = u(&grid[step - 2]);
                let second =
                    to.alpha * (0.5 * (u1 - u0) * (u1 - u0) + integral(u1, u0, |u| u - u0) * phi) * 2.0
                        / (u0 - earlier);
                let (a, c) = (second / (u0 - before), second / (before - earlier));
                weights[0] += a;
                weights[1] -= a + c;
                weights[2] += c;
            }
        }
        let mut sum = Sum::of(X, keep);
        for (back, w) in weights[..count].iter().enumerate() {
            sum = sum.plus(if back == 0 { FREE } else { at(step, back) }, *w);
        }
        let deviation = to.alpha * libm::sqrt((u1 * u1 - carried * carried).max(0.0));
        let normals = b.noise(step, 0, &from, &to);
        b.lin(X, sum.plus(normals, scale * deviation));
        if !ring.is_empty() {
            b.lin(at(step, 0), Sum::of(FREE, 1.0));
        }
    }
    Ok(())
}
