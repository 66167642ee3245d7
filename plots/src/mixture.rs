//! Walks under a model that is known exactly: data from a few normal distributions.

use dgm_core::sampling::{Ask, Plan, Prediction, Process, Request, Role, Run};

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

/// The expected x0 of a noisy state.
fn denoise(centres: &[Vec<f64>], alpha: f64, sigma: f64, x: &[f64]) -> Vec<f64> {
    let variance = alpha * alpha * DEVIATION * DEVIATION + sigma * sigma;
    let energy: Vec<f64> = centres
        .iter()
        .map(|c| {
            x.iter().zip(c).map(|(x, c)| (x - alpha * c) * (x - alpha * c)).sum::<f64>() / (2.0 * variance)
        })
        .collect();
    let least = energy.iter().copied().fold(f64::INFINITY, f64::min);
    let weights: Vec<f64> = energy.iter().map(|e| libm::exp(least - e)).collect();
    let total: f64 = weights.iter().sum();
    let gain = alpha * DEVIATION * DEVIATION / variance;
    (0..x.len())
        .map(|d| {
            let part = |(c, w): (&Vec<f64>, &f64)| w / total * (c[d] + gain * (x[d] - alpha * c[d]));
            centres.iter().zip(&weights).map(part).sum()
        })
        .collect()
}

/// What a perfect model answers for one row.
fn answer(plan: &Plan, r: &Request, t: f32, x: &[f32], y: &mut [f32]) {
    let o = plan.options();
    // Only adaptive flows have rows at different times.
    let flow = o.process == Process::Flow && !r.uniform_t;
    let (alpha, sigma) = if flow { (1.0 - f64::from(t), f64::from(t)) } else { (r.alpha, r.sigma) };
    let mut parts = centres(x.len());
    // With guidance the condition is the first part of the data.
    if o.guidance != 1.0 && r.role == Role::Cond {
        parts.truncate(1);
    }
    let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
    let data = denoise(&parts, alpha, sigma, &x);
    for ((y, x), x0) in y.iter_mut().zip(x).zip(data) {
        // At sigma 0 the state says nothing about the noise; no plan asks for it there.
        let eps = if sigma > 0.0 { (x - alpha * x0) / sigma } else { 0.0 };
        *y = match o.prediction {
            Prediction::X0 => x0,
            Prediction::V => alpha * eps - sigma * x0,
            Prediction::Velocity => eps - x0,
            Prediction::Score => -eps / sigma,
            _ => eps,
        } as f32;
    }
}

/// Carries one sample a seed, of one or two numbers, through the plan: data from three normal
/// distributions on a line, or eight on a circle, under the exact model. With guidance the condition is
/// the first of them. Each point is divided by `sqrt(alpha^2 + sigma^2)`, so that all processes fit one picture.
///
/// # Errors
/// A sentence for other numbers, for plans whose model is a raw network (edm, edm_v, trigflow,
/// consistency) or has a learned variance or known parts, and those of the engine.
pub fn walk(plan: &Plan, seeds: &[u64], dims: usize) -> Result<Vec<Path>> {
    use Prediction::{Consistency, Edm, EdmV, TrigFlow};
    if !(1..=2).contains(&dims) {
        return Err(format!("dims is {dims}, expected 1 or 2").into());
    }
    let o = plan.options();
    if matches!(o.prediction, Edm | EdmV | TrigFlow | Consistency) || plan.outputs() != 1 || o.inpaint {
        let expected = "epsilon, x0, v, velocity or score, one output and no inpaint";
        return Err(format!("prediction is {}, expected {expected}", o.prediction.name()).into());
    }
    if matches!(o.process, Process::Ode | Process::Sde | Process::Target) {
        return Err(format!("process is {}, expected one with noise levels", o.process.name()).into());
    }
    let rows = seeds.len();
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
        for ((y, x), t) in y.chunks_mut(dims).zip(x.chunks(dims)).zip(&t) {
            answer(plan, &r, *t, x, y);
        }
        run.tell(plan, &mut state, r.eval_id, &y)?;
    }
    keep(&run, &state, plan.end().alpha, plan.end().sigma)?;
    Ok(paths)
}
