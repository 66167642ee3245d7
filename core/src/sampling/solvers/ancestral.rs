//! Ancestral methods: a step to a lower noise level than the grid's, then fresh noise up to it.

use super::common::{Landing, first_order};
use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// `dst = sum + up z`
fn land(b: &mut Builder<'_>, step: usize, from: &Node, to: &Node, landing: &Landing, sum: Sum) {
    let normals = b.noise(step, 0, from, to);
    b.lin(X, sum.plus(normals, b.options().s_noise * landing.up));
}

pub(super) fn euler(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let landing = Landing::new(&from, &to, b.options().sde_eta);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let sum = if b.separates() {
            let eps = b.renoise(&from, X, &data)?;
            data.times(to.alpha).plus_sum(&eps, landing.down)
        } else {
            first_order(&from, &landing, X, &data)
        };
        land(b, step, &from, &to, &landing, sum);
    }
    Ok(())
}

/// The split that rectified flows use: down to `t' (1 + (t'/t - 1) eta)`, then noise, signal scaled to fit.
pub(super) fn euler_rf(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let down = to.t * (1.0 + (to.t / from.t - 1.0) * b.options().sde_eta).max(0.0);
        // As noise at the signal of the grid's level.
        let kept = down * to.alpha / (1.0 - down);
        let up = libm::sqrt((to.sigma * to.sigma - kept * kept).max(0.0));
        let landing = Landing { alpha: to.alpha, down: kept, up };
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let sum = first_order(&from, &landing, X, &data);
        land(b, step, &from, &to, &landing, sum);
    }
    Ok(())
}

/// DPM2 ancestral: the slope at the geometric mean of the two levels of `sigma / alpha`.
pub(super) fn dpm2(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let middle = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let landing = Landing::new(&from, &to, b.options().sde_eta);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        if landing.down == 0.0 || !from.is_mixed() {
            let sum = first_order(&from, &landing, X, &data);
            land(b, step, &from, &to, &landing, sum);
            continue;
        }
        let (u0, u1) = (from.sigma / from.alpha, landing.down / landing.alpha);
        let node = b.levels.at_ratio(libm::sqrt(u0 * u1));
        b.lin(middle, first_order(&from, &Landing::at(&node), X, &data));
        let y = b.eval(At::Node(node), step, 1, middle)?;
        let eps = b.eps(&node, middle, y)?;
        let sum = Sum::of(X, to.alpha / from.alpha).plus_sum(&eps, to.alpha * (u1 - u0));
        land(b, step, &from, &to, &landing, sum);
    }
    Ok(())
}

/// DPM-Solver++(2S) ancestral: x0 in the middle of lambda.
pub(super) fn dpmpp_2s(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let middle = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let landing = Landing::new(&from, &to, b.options().sde_eta);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        if landing.down == 0.0 || !from.is_mixed() {
            let sum = first_order(&from, &landing, X, &data);
            land(b, step, &from, &to, &landing, sum);
            continue;
        }
        let node = b.levels.at_ratio(libm::exp(-0.5 * (from.lambda() + landing.lambda())));
        b.lin(middle, first_order(&from, &Landing::at(&node), X, &data));
        let y = b.eval(At::Node(node), step, 1, middle)?;
        let data = b.data(&node, middle, y)?;
        let sum = exponential_step(&from, &landing, X, &data);
        land(b, step, &from, &to, &landing, sum);
    }
    Ok(())
}

/// `x' = down/sigma x - alpha' expm1(-h) x0`, exact when x0 does not change over the step.
pub(super) fn exponential_step(from: &Node, landing: &Landing, x: Operand, data: &Sum) -> Sum {
    let h = landing.lambda() - from.lambda();
    Sum::of(x, landing.down / from.sigma).plus_sum(data, -landing.alpha * libm::expm1(-h))
}

/// SDE-DPM-Solver++ with two evaluations: both half and whole step are ancestral (k-diffusion's DPM++ SDE).
pub(super) fn dpmpp_sde(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let middle = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let eta = b.options().sde_eta;
        let landing = Landing::new(&from, &to, eta);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        if !from.is_mixed() || !to.is_mixed() {
            let sum = first_order(&from, &landing, X, &data);
            land(b, step, &from, &to, &landing, sum);
            continue;
        }
        let node = b.levels.at_ratio(libm::exp(-0.5 * (from.lambda() + to.lambda())));
        let half = Landing::new(&from, &node, eta);
        let normals = b.noise(step, 1, &from, &node);
        let sum = first_order(&from, &half, X, &data).plus(normals, b.options().s_noise * half.up);
        b.lin(middle, sum);
        let y = b.eval(At::Node(node), step, 1, middle)?;
        let data = b.data(&node, middle, y)?;
        let sum = first_order(&from, &landing, X, &data);
        land(b, step, &from, &to, &landing, sum);
    }
    Ok(())
}
