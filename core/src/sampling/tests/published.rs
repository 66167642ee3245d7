//! Figures asserted by the scheduler tests of diffusers 0.40 (commit 58eb52c0), where the
//! options mean the same. Their sample is `((c*8 + h)*8 + w)*4 + b` over 768 at `[b, c, h, w]`,
//! their model `x t / (t + 1)`; the figures are sum and mean of |x|.

use super::*;

pub(super) fn start() -> Vec<f32> {
    let mut x = Vec::with_capacity(768);
    for b in 0..4 {
        x.extend((0..192).map(|i| (i * 4 + b) as f32 / 768.0));
    }
    x
}

fn final_sum(plan: &Plan) -> f64 {
    let x = walk(plan, &[0; 4], Some(&start()), 192, |_, x, t, y| {
        y.iter_mut().zip(x).for_each(|(y, x)| *y = x * t[0] / (t[0] + 1.0));
        Ok(())
    });
    x.iter().map(|x| f64::from(x.abs())).sum()
}

fn check(options: PlanOptions, sum: f64) {
    let plan = compile(options);
    let found = final_sum(&plan);
    println!("{} {}: {found} expected {sum}", plan.options().solver.name(), plan.options().prediction.name());
    // Theirs keep betas in f32; ours are f64.
    assert!((found - sum).abs() < 1e-2, "{found} expected {sum}");
}

#[test]
fn ddim() {
    let base = PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver: Solver::Ddim,
        spacing: Spacing::Leading,
        steps: 10,
        ..Default::default()
    };
    check(base.clone(), 172.0067);
    check(PlanOptions { prediction: Prediction::V, ..base.clone() }, 52.5302);
    check(PlanOptions { beta_start: 0.01, ..base.clone() }, 149.8295);
    // Their last step without set_alpha_to_one goes from t = 0 to t = 0.
    let times = Some((0..10).map(|i| f64::from(900 - 100 * i)).collect());
    check(PlanOptions { beta_start: 0.01, times, ..base }, 149.0784);
}

/// Their spacing for sigma solvers: eleven points of [0, 999], rounded, ending at t = 0.
fn sigma_times() -> Option<Vec<f64>> {
    Some((0..=10).map(|i| (99.9 * f64::from(10 - i)).round_ties_even()).collect())
}

#[test]
fn dpmpp_2m() {
    let base = PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver: Solver::DpmPP2M,
        times: sigma_times(),
        ..Default::default()
    };
    check(base.clone(), 253.5514);
    check(PlanOptions { prediction: Prediction::V, ..base }, 172.874);
}

#[test]
fn unipc() {
    let base = PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver: Solver::UniPC,
        times: sigma_times(),
        ..Default::default()
    };
    check(base.clone(), 189.2318);
    check(PlanOptions { prediction: Prediction::V, ..base }, 77.87248);
}
