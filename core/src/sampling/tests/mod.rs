//! Tests of the samplers against closed forms and published figures.

mod adaptive;
mod codec;
mod distribution;
mod invariance;
mod options;
mod orders;
mod protocol;
mod published;

use super::*;
use crate::error::Result;

/// Data `x0 ~ N(mean, deviation^2)`: every prediction and the whole ODE have closed forms.
#[derive(Clone, Copy)]
struct Gaussian {
    mean: f64,
    deviation: f64,
}

const GAUSSIAN: Gaussian = Gaussian { mean: 0.7, deviation: 0.5 };

impl Gaussian {
    /// Deviation of `x_t`.
    fn spread(&self, n: &Node) -> f64 {
        libm::hypot(n.alpha * self.deviation, n.sigma)
    }

    /// What a perfect model predicts for a state.
    fn predict(&self, prediction: Prediction, n: &Node, x: f64) -> f64 {
        let z = (x - n.alpha * self.mean) / (self.spread(n) * self.spread(n));
        let eps = n.sigma * z;
        let x0 = self.mean + n.alpha * self.deviation * self.deviation * z;
        match prediction {
            Prediction::Epsilon => eps,
            Prediction::X0 => x0,
            Prediction::V => n.alpha * eps - n.sigma * x0,
            Prediction::Velocity => eps - x0,
        }
    }

    /// Where the probability-flow ODE carries `x` from one level to another.
    fn carry(&self, from: &Node, to: &Node, x: f64) -> f64 {
        to.alpha * self.mean + self.spread(to) / self.spread(from) * (x - from.alpha * self.mean)
    }

    /// This model as a callback; conditional and unconditional agree.
    fn model(self, plan: &Plan) -> impl FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()> {
        let prediction = plan.options().prediction;
        let levels = plan.levels().clone();
        move |r, x, t, y| {
            for (row, (y, x)) in y.chunks_mut(r.elements).zip(x.chunks(r.elements)).enumerate() {
                let node = if r.uniform_t {
                    Node { t: r.t, alpha: r.alpha, sigma: r.sigma }
                } else {
                    levels.node(f64::from(t[row]))
                };
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = self.predict(prediction, &node, f64::from(x)) as f32;
                }
            }
            Ok(())
        }
    }
}

/// One fresh walk; returns x.
fn walk<M>(plan: &Plan, seeds: &[u64], start: Option<&[f32]>, elements: usize, model: M) -> Vec<f32>
where
    M: FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()>,
{
    let mut state = vec![0.0; plan.state_len(seeds.len(), elements).unwrap()];
    let mut run = Run::start(plan, seeds, elements, start, &mut state).unwrap();
    drive(plan, &mut run, &mut state, model).unwrap();
    assert!(run.is_done(plan));
    run.result(plan, &state).unwrap().to_vec()
}

fn compile(options: PlanOptions) -> Plan {
    Plan::compile(&options).unwrap()
}

/// One plan of every kind: solvers, processes, guidance, clipping.
fn catalogue() -> Vec<Plan> {
    let mut all = Vec::new();
    for &solver in Solver::ALL {
        let base = PlanOptions { solver, steps: 5, ..Default::default() };
        all.push(compile(base.clone()));
        all.push(compile(PlanOptions { guidance: 2.5, shift: 3.0, ..base.clone() }));
        if solver != Solver::Bosh3 {
            let eta = if solver == Solver::Ddim { 0.6 } else { 0.0 };
            let vp = PlanOptions { process: Process::VpCosine, prediction: Prediction::Epsilon, eta, ..base };
            all.push(compile(vp.clone()));
            all.push(compile(PlanOptions { clip: Some(1.0), guidance: 0.5, ..vp }));
        }
    }
    all
}

/// A deterministic model with some structure, different for the two roles.
fn toy(r: &Request, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
    let bias = if r.role == Role::Cond { 0.25 } else { -0.125 };
    for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let t = t[i / r.elements] / if t[i / r.elements] > 1.0 { 1000.0 } else { 1.0 };
        *y = (0.75 * x - 0.5 * x * x / (1.0 + x * x)).mul_add(t + 0.5, bias);
    }
    Ok(())
}
