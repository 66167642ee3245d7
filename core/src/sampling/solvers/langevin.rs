//! Predictor-corrector sampling (Song 2021, algorithms 1, 2 and 4): Langevin steps at a level, then a
//! step of reverse diffusion to the next.
//!
//! Both are written for `z = x / alpha` and `u = sigma / alpha`, in which every process explodes: the
//! prediction is `z' = z - (u^2 - u'^2) / u eps + sqrt(u^2 - u'^2) n`, a correction
//! `x' = x - sigma q eps + sigma sqrt(2 q) n` with `q = min(2 snr^2 N / |eps|^2, 1)`. The paper has a row's
//! step share the norms of a batch, and `sqrt(N)` for the norm of the noise where batches are small;
//! here a row is a batch of its own. Its further factor `1 - beta` for VP tables is left out.

use super::common::{Landing, first_order};
use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Measure, Operand, Row, Scale, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let eps = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        // Pure noise has nothing to correct.
        let corrections = if from.is_mixed() { b.options().corrector_steps } else { 0 };
        for stage in 0..corrections {
            correct(b, step, stage, &from, eps)?;
        }
        predict(b, step, corrections, &from, &to)?;
    }
    Ok(())
}

fn correct(b: &mut Builder<'_>, step: usize, stage: usize, at: &Node, eps: Operand) -> Result<()> {
    let y = b.eval(At::Node(*at), step, stage as u16, X)?;
    let sum = b.eps(at, X, y)?;
    b.lin(eps, sum);
    b.push(Row::Measure { what: Measure::Langevin { snr: b.options().snr }, a: eps, b: eps });
    let normals = b.fresh(step, stage as u32 + 1);
    let noise = b.options().s_noise * at.sigma;
    b.lin(X, Sum::of(X, 1.0).scaled(eps, -at.sigma, Scale::Row(0)).scaled(normals, noise, Scale::Row(1)));
    Ok(())
}

fn predict(b: &mut Builder<'_>, step: usize, stage: usize, from: &Node, to: &Node) -> Result<()> {
    let y = b.eval(At::Node(*from), step, stage as u16, X)?;
    if !from.is_mixed() || to.sigma == 0.0 {
        // From pure noise all of it is fresh; clean data has none: what comes last is the mean.
        let data = b.data(from, X, y)?;
        let landing = Landing { alpha: to.alpha, down: 0.0, up: to.sigma };
        let normals = b.noise(step, 0, from, to);
        let sum = first_order(from, &landing, X, &data);
        b.lin(X, sum.plus(normals, b.options().s_noise * to.sigma));
        return Ok(());
    }
    let eps = b.eps(from, X, y)?;
    let (u0, u1) = (from.sigma / from.alpha, to.sigma / to.alpha);
    let square = (u0 - u1) * (u0 + u1);
    let normals = b.noise(step, 0, from, to);
    let sum = Sum::of(X, to.alpha / from.alpha).plus_sum(&eps, -to.alpha * square / u0);
    b.lin(X, sum.plus(normals, b.options().s_noise * to.alpha * libm::sqrt(square)));
    Ok(())
}
