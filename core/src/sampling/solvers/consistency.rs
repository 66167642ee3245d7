//! Models that jump to clean data: multistep consistency (Song 2023), sCM (Lu & Song 2024), LCM
//! (Luo 2023), TCD (Zheng 2024), and flow maps that land where they are told.

use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Sum, X};

/// `x' = alpha' x0 + sqrt(sigma'^2 - alpha'^2 u^2) z`, u the least level: a consistency model's x0
/// has the noise of that level in it. sCM and LCM take u = 0.
pub(super) fn jump(b: &mut Builder<'_>, grid: &[Node], least: f64) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        noised(b, step, &from, &to, &data, least);
    }
    Ok(())
}

fn noised(b: &mut Builder<'_>, step: usize, from: &Node, to: &Node, data: &Sum, least: f64) {
    let known = to.alpha * least;
    let deviation = libm::sqrt((to.sigma * to.sigma - known * known).max(0.0));
    // The grid ends here: what is left of its noise stays out.
    let last = to.sigma == 0.0 || b.is_last(step);
    let normals = b.noise(step, 0, from, to);
    let scale = if last { 0.0 } else { b.options().s_noise };
    let keep = if last { 1.0 } else { to.alpha };
    b.lin(X, data.times(keep).plus(normals, scale * deviation));
}

/// LCM: the jump is `c_skip x + c_out x0` with `c_skip = d^2 / (s^2 + d^2)`, `c_out = s / sqrt(s^2 + d^2)`,
/// s the scaled time of a VP table and d = sigma_data; other processes have no such boundary.
pub(super) fn lcm(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let table = b.levels.train_steps().is_some();
    let (d, scale) = (b.options().sigma_data, b.options().time_scale);
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let s = from.t * scale;
        let sum = if table {
            let q = s * s + d * d;
            Sum::of(X, d * d / q).plus_sum(&data, s / libm::sqrt(q))
        } else {
            data
        };
        noised(b, step, &from, &to, &sum, 0.0);
    }
    Ok(())
}

/// TCD: a first-order step to a level below the next, then noise up to it. That level is the model
/// time `(1 - eta) t'`, a whole one for VP tables.
pub(super) fn tcd(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let gamma = b.options().eta;
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let last = to.sigma == 0.0 || b.is_last(step);
        let below = if gamma == 0.0 || last { to } else { lower(b, &to, gamma) };
        let kept = below.sigma / from.sigma;
        let scale = to.alpha / below.alpha;
        let up = libm::sqrt((to.sigma * to.sigma - scale * scale * below.sigma * below.sigma).max(0.0));
        let normals = b.noise(step, 0, &from, &to);
        let sum = Sum::of(X, scale * kept).plus_sum(&data, scale * (below.alpha - kept * from.alpha));
        b.lin(X, sum.plus(normals, b.options().s_noise * up));
    }
    Ok(())
}

fn lower(b: &Builder<'_>, to: &Node, gamma: f64) -> Node {
    if b.levels.train_steps().is_some() {
        return b.levels.node(libm::floor((1.0 - gamma) * to.t));
    }
    // Elsewhere in the measure of noise, which all processes have.
    b.levels.at_level((1.0 - gamma) * b.levels.level(to))
}

/// `x' = x + (t' - t) u`, u being the mean velocity between t and the request's `t_to`.
pub(super) fn flow_map(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let slope = b.derivative(&from, X, y)?;
        b.lin(X, Sum::of(X, 1.0).plus_sum(&slope, to.t - from.t));
    }
    Ok(())
}
