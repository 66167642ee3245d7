//! Tests of the samplers against closed forms and published figures.

mod adaptive;
mod apart;
mod calibration;
mod chains;
mod codec;
mod density;
mod distribution;
mod dpm_adaptive;
mod edits;
mod every;
mod exchange;
mod grids;
mod guidance;
mod invariance;
mod ito;
mod ode;
mod operations;
mod options;
mod oracle;
mod orders;
mod protocol;
mod published;
mod published_all;
mod rows;
mod sde_orders;
mod together;
mod trajectories;
mod walks;

use super::*;
use crate::error::Result;

/// Data `x0 ~ N(mean, deviation^2)`: every prediction and the whole ODE have closed forms.
#[derive(Clone, Copy)]
struct Gaussian {
    mean: f64,
    deviation: f64,
}

const GAUSSIAN: Gaussian = Gaussian { mean: 0.7, deviation: 0.5 };

/// Default `sigma_data`.
const DATA: f64 = 0.5;

/// The scale at which the model of a prediction reads the state.
fn input_scale(prediction: Prediction, n: &Node) -> f64 {
    match prediction {
        Prediction::Edm | Prediction::EdmV | Prediction::Consistency => {
            1.0 / libm::hypot(n.sigma, n.alpha * DATA)
        }
        Prediction::TrigFlow => 1.0 / (DATA * libm::hypot(n.alpha, n.sigma / DATA)),
        _ => 1.0,
    }
}

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
            Prediction::Score => -eps / n.sigma,
            // The raw networks, by solving their own definitions for F.
            Prediction::Edm => {
                let q = n.sigma * n.sigma + n.alpha * n.alpha * DATA * DATA;
                (x0 - n.alpha * DATA * DATA / q * x) / (n.sigma * DATA / libm::sqrt(q))
            }
            Prediction::EdmV => -self.predict(Prediction::Edm, n, x),
            Prediction::Consistency => {
                let (z, u) = (x / n.alpha, n.sigma / n.alpha);
                let v = u - 0.002;
                (x0 - DATA * DATA / (v * v + DATA * DATA) * z) * libm::hypot(u, DATA) / (v * DATA)
            }
            Prediction::TrigFlow => {
                // F = (cos t eps_d - sin t x0) / sigma_d with eps_d = sigma_d eps.
                let norm = libm::hypot(n.alpha, n.sigma / DATA);
                n.alpha / norm * eps - n.sigma / DATA / norm * x0 / DATA
            }
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
                let scale = input_scale(prediction, &node);
                for (y, &x) in y.iter_mut().zip(x) {
                    *y = self.predict(prediction, &node, f64::from(x) / scale) as f32;
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

/// Whether the mathematics of a solver allows a process.
fn fits(solver: Solver, process: Process) -> bool {
    match solver {
        _ if process == Process::Target || solver.walks_targets() => {
            process == Process::Target && solver.walks_targets()
        }
        _ if process == Process::Sde || solver.solves_sdes() => {
            process == Process::Sde && solver.solves_sdes()
        }
        _ if process == Process::Ode => solver.solves_odes(),
        Solver::EulerAncestralRf | Solver::FlowMap => process == Process::Flow,
        // The raw networks of these two read a scaled state.
        _ if solver.walks_lambda() => !matches!(process, Process::Edm | Process::TrigFlow),
        _ if solver.is_adaptive() => process == Process::Flow,
        Solver::Scm => process == Process::TrigFlow,
        _ => true,
    }
}

/// A process with what it needs, and a prediction that has x0 at all of its levels.
fn base(process: Process) -> PlanOptions {
    let mut o = PlanOptions { process, prediction: Prediction::V, ..Default::default() };
    match process {
        Process::Flow | Process::Ode | Process::Sde => o.prediction = Prediction::Velocity,
        Process::Target => o.prediction = Prediction::Score,
        Process::VpTrained => {
            o.train_steps = 200;
            o.betas = Some((0..200).map(|i| 1e-3 + 5e-4 * f64::from(i)).collect());
        }
        Process::VpContinuous | Process::SubVp => (o.beta_start, o.beta_end) = (0.1, 20.0),
        Process::Edm => o.prediction = Prediction::Edm,
        Process::TrigFlow => o.prediction = Prediction::TrigFlow,
        _ => {}
    }
    o
}

/// One plan of every kind: solvers, processes, guidance, clipping.
fn catalogue() -> Vec<Plan> {
    let mut all = Vec::new();
    for (i, &solver) in Solver::ALL.iter().enumerate() {
        let process = match solver {
            Solver::Scm => Process::TrigFlow,
            _ if solver.solves_sdes() => Process::Sde,
            _ if solver.walks_targets() => Process::Target,
            _ => Process::Flow,
        };
        let own = PlanOptions { solver, steps: 5, ..base(process) };
        all.push(compile(own.clone()));
        let shift = if process == Process::Flow { 3.0 } else { 1.0 };
        let guidance = if matches!(process, Process::Sde | Process::Target) { 1.0 } else { 2.5 };
        all.push(compile(PlanOptions { guidance, shift, ..own.clone() }));
        if fits(solver, Process::VpCosine) {
            let eta = if solver == Solver::Ddim { 0.6 } else { 0.0 };
            let vp = PlanOptions {
                process: Process::VpCosine,
                prediction: Prediction::Epsilon,
                solver,
                steps: 5,
                eta,
                ..Default::default()
            };
            all.push(compile(vp.clone()));
            all.push(compile(PlanOptions { clip: Some(1.0), guidance: 0.5, ..vp }));
        }
        if fits(solver, Process::Edm) {
            let modes = [Guidance::Apg, Guidance::CfgZero, Guidance::Cfg];
            let inverse = solver.is_inverse();
            let guidance_mode = if inverse { Guidance::CfgZero } else { modes[i % 3] };
            all.push(compile(PlanOptions {
                solver,
                steps: 5,
                guidance: 1.5,
                guidance_mode,
                guidance_rescale: if guidance_mode == Guidance::Cfg { 0.7 } else { 0.0 },
                apg_momentum: -0.5,
                apg_norm: 3.0,
                threshold_ratio: if i % 2 == 0 && !inverse { 0.9 } else { 0.0 },
                threshold_max: 2.0,
                inpaint: !inverse,
                noise: if i % 16 == 1 { NoiseKind::Brownian } else { NoiseKind::Independent },
                spacing: Spacing::Karras,
                ..base(Process::Edm)
            }));
        }
    }
    all.push(compile(PlanOptions {
        solver: Solver::Ddpm,
        variance: Variance::LearnedRange,
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        steps: 5,
        ..Default::default()
    }));
    // Two guidances in one step, of a method with one evaluation and of one with two.
    for (solver, guidance) in [(Solver::DpmPP2M, 2.5), (Solver::Heun, 1.0)] {
        let guidance_weak = 1.5;
        all.push(compile(PlanOptions { solver, steps: 5, guidance, guidance_weak, ..Default::default() }));
    }
    let restart = Some(vec![0.1, 3.0, 2.0, 1.0]);
    let spacing = Spacing::Karras;
    all.push(compile(PlanOptions { solver: Solver::Heun, restart, spacing, steps: 8, ..base(Process::Edm) }));
    all
}

/// A deterministic model with some structure, different for the two roles.
fn toy(r: &Request, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
    let bias = if r.role == Role::Cond { 0.25 } else { -0.125 };
    // The second tensor of a row, where there is one, holds fractions of a learned variance.
    let outputs = y.len() / x.len();
    for y in y.chunks_mut(outputs * r.elements) {
        y[r.elements..].iter_mut().enumerate().for_each(|(i, y)| *y = (i % 3) as f32 - 1.0);
    }
    for (i, x) in x.iter().enumerate() {
        let y = &mut y[i / r.elements * outputs * r.elements + i % r.elements];
        let t = t[i / r.elements] / if t[i / r.elements] > 1.0 { 1000.0 } else { 1.0 };
        *y = (0.75 * x - 0.5 * x * x / (1.0 + x * x)).mul_add(t + 0.5, bias);
    }
    Ok(())
}
