//! Walks under a model that is known exactly: data from a few normal distributions.

use dgm_core::models::GaussianMixture;
use dgm_core::sampling::{Ask, Plan, Prediction, Process, Role, Run};
use ndarray::{ArrayView2, ArrayViewMut2};

use crate::{Path, Result};

/// Deviation of every part of the data.
const DEVIATION: f64 = 0.1;

/// Centres of the data, `dims` numbers each: three on a line, or eight on a circle.
fn centres(dims: usize) -> Vec<Vec<f64>> {
    if dims == 1 {
        return vec![vec![-1.0], vec![0.2], vec![1.1]];
    }
    let angle = |i: i32| f64::from(i) * std::f64::consts::FRAC_PI_4;
    (0..8).map(|i| vec![libm::cos(angle(i)), libm::sin(angle(i))]).collect()
}

/// Normal distributions of the same weight around centres.
fn normals(centres: &[Vec<f64>]) -> Result<GaussianMixture> {
    let count = centres.len();
    let variances = vec![DEVIATION * DEVIATION; count];
    Ok(GaussianMixture::new(&vec![1.0; count], &centres.concat(), &variances)?)
}

/// Carries one sample a seed, of one or two numbers, through the plan: data from three normal
/// distributions on a line, or eight on a circle, under the exact model. With guidance the condition is
/// the first of them. Each point is divided by `sqrt(alpha^2 + sigma^2)`, so that all processes fit one picture.
///
/// # Errors
/// A sentence for other numbers, for plans whose model is a consistency model or has a learned variance or known
/// parts, and those of the engine.
pub fn walk(plan: &Plan, seeds: &[u64], dims: usize) -> Result<Vec<Path>> {
    if !(1..=2).contains(&dims) {
        return Err(format!("dims is {dims}, expected 1 or 2").into());
    }
    let o = plan.options();
    if o.prediction == Prediction::Consistency || plan.outputs() != 1 || o.inpaint {
        let expected = "any but consistency, one output and no inpaint";
        return Err(format!("prediction is {}, expected {expected}", o.prediction.name()).into());
    }
    if matches!(o.process, Process::Ode | Process::Sde | Process::Target) {
        return Err(format!("process is {}, expected one with noise levels", o.process.name()).into());
    }
    let rows = seeds.len();
    let parts = centres(dims);
    // With guidance the condition is the first part of the data.
    let (all, first) = (normals(&parts)?, normals(&parts[..1])?);
    let mut state = vec![0.0; plan.state_len(rows, dims)?];
    let mut run = Run::start(plan, seeds, dims, None, &mut state)?;
    let (mut y, mut t) = (vec![0.0; rows * dims], vec![0.0; rows]);
    let mut paths = vec![Path::new(); rows];
    let mut keep = |run: &Run, state: &[f32], alpha: f64, sigma: f64| -> Result<()> {
        let scale = 1.0 / libm::hypot(alpha, sigma);
        for (path, x) in paths.iter_mut().zip(run.result(plan, state)?.chunks(dims)) {
            path.push(x.iter().map(|x| f64::from(*x) * scale).collect());
        }
        Ok(())
    };
    let mut seen = None;
    while let Ask::Eval(r) = run.ask(plan)? {
        if seen != Some(r.step) {
            seen = Some(r.step);
            keep(&run, &state, r.alpha, r.sigma)?;
        }
        run.row_times(plan, &mut t)?;
        let x = run.input(plan, &state)?;
        let model = if o.guidance != 1.0 && r.role == Role::Cond { &first } else { &all };
        for ((y, x), t) in y.chunks_mut(dims).zip(x.chunks(dims)).zip(&t) {
            let (alpha, sigma) = if r.uniform_t {
                (r.alpha, r.sigma)
            } else {
                let node = plan.level(f64::from(*t))?;
                (node.alpha, node.sigma)
            };
            let (x, y) = (ArrayView2::from_shape((1, dims), x)?, ArrayViewMut2::from_shape((1, dims), y)?);
            model.evaluate(o.prediction, alpha, sigma, o.sigma_data, x, y)?;
        }
        run.tell(plan, &mut state, r.eval_id, &y)?;
    }
    keep(&run, &state, plan.end().alpha, plan.end().sigma)?;
    Ok(paths)
}
