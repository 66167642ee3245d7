//! Convergence orders against the exact solution for Gaussian data.

use super::*;

const FINEST: usize = 64;

/// Largest error over a spread of starting points.
fn error(plan: &Plan) -> f64 {
    let start: Vec<f32> = (0..33).map(|i| i as f32 / 8.0 - 2.0).collect();
    let x = walk(plan, &[0], Some(&start), start.len(), GAUSSIAN.model(plan));
    let exact = |&s: &f32| GAUSSIAN.carry(&plan.start(), &plan.end(), f64::from(s));
    x.iter().zip(&start).map(|(&x, s)| (f64::from(x) - exact(s)).abs()).fold(0.0, f64::max)
}

fn vp_times(steps: usize) -> Vec<f64> {
    // Even in log(sigma/alpha) roughly: a smooth map, so that halving the grid halves each step.
    (0..=steps).map(|i| 30.0 + 870.0 * (1.0 - i as f64 / steps as f64)).collect()
}

fn order(solver: Solver, process: Process, prediction: Prediction, coarse: usize) -> f64 {
    let at = |steps| {
        let vp = process != Process::Flow;
        let times = vp.then(|| vp_times(steps));
        error(&compile(PlanOptions { process, prediction, solver, steps, times, ..Default::default() }))
    };
    let (a, b) = (at(coarse), at(2 * coarse));
    let order = libm::log2(a / b);
    println!("{} {} {}: {a:.3e} {b:.3e} order {order:.2}", process.name(), solver.name(), prediction.name());
    order
}

#[test]
fn orders_on_a_flow() {
    for (solver, expected, coarse) in [
        (Solver::Euler, 1.0, FINEST),
        (Solver::Midpoint, 2.0, FINEST / 2),
        (Solver::Heun, 2.0, FINEST / 2),
        (Solver::Rk4, 4.0, 5),
        (Solver::Ddim, 1.0, FINEST),
        (Solver::DpmPP2M, 2.0, FINEST / 2),
        (Solver::UniPC, 2.0, FINEST / 2),
    ] {
        let order = order(solver, Process::Flow, Prediction::Velocity, coarse);
        assert!((order - expected).abs() < 0.2, "{}: {order}", solver.name());
    }
}

#[test]
fn orders_on_variance_preserving_processes() {
    for process in [Process::VpLinear, Process::VpCosine] {
        for (solver, expected, coarse) in [
            (Solver::Euler, 1.0, FINEST),
            (Solver::Midpoint, 2.0, FINEST / 2),
            (Solver::Heun, 2.0, FINEST / 2),
            (Solver::Rk4, 4.0, 16),
            (Solver::Ddim, 1.0, FINEST),
            (Solver::DpmPP2M, 2.0, FINEST / 2),
            (Solver::UniPC, 2.0, FINEST / 2),
        ] {
            let order = order(solver, process, Prediction::Epsilon, coarse);
            assert!((order - expected).abs() < 0.2, "{} {}: {order}", process.name(), solver.name());
        }
    }
}

/// The four predictions of the same model are the same walk up to rounding.
#[test]
fn predictions_agree() {
    for &solver in Solver::ALL.iter().filter(|s| !matches!(s, Solver::Ddpm | Solver::Bosh3)) {
        for process in [Process::Flow, Process::VpLinear] {
            let results: Vec<Vec<f32>> = Prediction::ALL
                .iter()
                .map(|&prediction| {
                    let flow = process == Process::Flow;
                    let times = if flow { vec![0.9, 0.7, 0.4, 0.2, 0.1] } else { vp_times(4) };
                    let times = Some(times);
                    let plan =
                        compile(PlanOptions { process, prediction, solver, times, ..Default::default() });
                    let start = [-1.5, -0.3, 0.2, 1.0, 2.0];
                    walk(&plan, &[0], Some(&start), 5, GAUSSIAN.model(&plan))
                })
                .collect();
            for other in &results[1..] {
                for (a, b) in results[0].iter().zip(other) {
                    assert!((a - b).abs() < 2e-5, "{} {}: {a} {b}", process.name(), solver.name());
                }
            }
        }
    }
}

/// On a VP process, Euler in sigma/alpha is DDIM.
#[test]
fn euler_is_ddim() {
    let at = |solver| {
        let process = Process::VpScaledLinear;
        let plan = compile(PlanOptions {
            process,
            prediction: Prediction::V,
            solver,
            steps: 9,
            ..Default::default()
        });
        walk(&plan, &[0], Some(&[-1.0, 0.5, 2.0]), 3, GAUSSIAN.model(&plan))
    };
    for (a, b) in at(Solver::Euler).iter().zip(at(Solver::Ddim)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// Every solver ends at finite, sensible values for any small number of steps and every ending.
#[test]
fn every_length_and_ending_works() {
    for &solver in Solver::ALL.iter().filter(|s| **s != Solver::Bosh3) {
        for steps in 1..=24 {
            for (process, spacing) in [
                (Process::Flow, Spacing::Uniform),
                (Process::VpLinear, Spacing::Uniform),
                (Process::VpScaledLinear, Spacing::Leading),
                (Process::VpCosine, Spacing::Trailing),
            ] {
                let prediction = Prediction::V;
                let plan = compile(PlanOptions {
                    process,
                    prediction,
                    solver,
                    steps,
                    spacing,
                    ..Default::default()
                });
                assert_eq!(plan.steps(), steps);
                let x = walk(&plan, &[3, 4], Some(&[-1.0, 0.1, 1.0, 2.0]), 2, GAUSSIAN.model(&plan));
                let ok = x.iter().all(|x| x.is_finite() && x.abs() < 10.0);
                assert!(ok, "{} {} {steps}: {x:?}", process.name(), solver.name());
            }
        }
    }
}
