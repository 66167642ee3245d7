//! Convergence orders against the exact solution for Gaussian data.

use super::*;

/// Largest error of a plan over starting points `z` (in units of x / alpha for VP).
fn gaussian_error(plan: &Plan, data: Gaussian) -> f64 {
    let start: Vec<f32> = (0..33).map(|i| i as f32 / 8.0 - 2.0).collect();
    let x = walk(plan, &[0], Some(&start), start.len(), data.model(plan));
    let exact = |&s: &f32| data.carry(&plan.start(), &plan.end(), f64::from(s));
    x.iter().zip(&start).map(|(&x, s)| (f64::from(x) - exact(s)).abs()).fold(0.0, f64::max)
}

/// A nonlinear problem, logistic growth: `dz/dc = rate(c) z (1 - z)` in the ODE coordinate c.
/// Gaussian data would flatter the midpoint method, which is of order 3 for it.
fn logistic_error(plan: &Plan) -> f64 {
    let flow = plan.options().process == Process::Flow;
    let coordinate = |n: &Node| if flow { (1.0, n.t) } else { (n.alpha, n.sigma / n.alpha) };
    let growth = |c: f64| if flow { -3.0 * c } else { -2.0 * libm::log1p(c) };
    let rate = |c: f64| if flow { -3.0 } else { -2.0 / (1.0 + c) };
    let starts = [0.1, 0.3, 0.6, 1.2];
    let (m0, c0) = coordinate(&plan.start());
    let (m1, c1) = coordinate(&plan.end());
    let start: Vec<f32> = starts.iter().map(|z| (m0 * z) as f32).collect();
    let x = walk(plan, &[0], Some(&start), start.len(), |r, x, _, y| {
        let (m, c) = coordinate(&Node { t: r.t, alpha: r.alpha, sigma: r.sigma });
        for (y, &x) in y.iter_mut().zip(x) {
            let z = f64::from(x) / m;
            *y = (rate(c) * z * (1.0 - z)) as f32;
        }
        Ok(())
    });
    let exact = |z: f64| 1.0 / (1.0 + (1.0 / z - 1.0) * libm::exp(growth(c0) - growth(c1)));
    x.iter().zip(starts).map(|(&x, z)| (f64::from(x) / m1 - exact(z)).abs()).fold(0.0, f64::max)
}

/// Evenly spaced model times that avoid the clean end, where every method takes one first-order step.
fn times(process: Process, steps: usize) -> Vec<f64> {
    let (low, high) = if process == Process::Flow { (0.05, 0.95) } else { (30.0, 900.0) };
    (0..=steps).map(|i| low + (high - low) * (1.0 - i as f64 / steps as f64)).collect()
}

/// Checks the order from the errors with `coarse` and twice as many steps.
fn check(solver: Solver, process: Process, expected: f64, coarse: usize, error: impl Fn(&Plan) -> f64) {
    let prediction = if process == Process::Flow { Prediction::Velocity } else { Prediction::Epsilon };
    let at = |steps| {
        let times = Some(times(process, steps));
        error(&compile(PlanOptions { process, prediction, solver, times, ..Default::default() }))
    };
    let (a, b) = (at(coarse), at(2 * coarse));
    let order = libm::log2(a / b);
    println!("{} {}: {a:.3e} {b:.3e} order {order:.2}", process.name(), solver.name());
    assert!((order - expected).abs() < 0.2, "{} {}: {order}", process.name(), solver.name());
}

const PROCESSES: [Process; 3] = [Process::Flow, Process::VpLinear, Process::VpCosine];

#[test]
fn orders_of_runge_kutta_methods() {
    for process in PROCESSES {
        check(Solver::Euler, process, 1.0, 64, logistic_error);
        check(Solver::Midpoint, process, 2.0, 64, logistic_error);
        check(Solver::Heun, process, 2.0, 64, logistic_error);
    }
    check(Solver::Rk4, Process::Flow, 4.0, 8, logistic_error);
    // Coarse enough that the error stays above the rounding of f32.
    let data = Gaussian { deviation: 0.8, ..GAUSSIAN };
    check(Solver::Rk4, Process::VpLinear, 4.0, 12, |plan| gaussian_error(plan, data));
    check(Solver::Rk4, Process::VpCosine, 4.0, 12, |plan| gaussian_error(plan, data));
}

/// One accepted step of the adaptive method alone: an error of order 4 makes a method of order 3.
#[test]
fn order_of_the_adaptive_method() {
    let at = |h: f64| {
        let times = Some(vec![0.9, 0.9 - h]);
        let options = PlanOptions {
            solver: Solver::Bosh3,
            times,
            h_init: h,
            rtol: 1.0,
            atol: 1.0,
            ..Default::default()
        };
        logistic_error(&compile(options))
    };
    let (a, b) = (at(0.08), at(0.04));
    let order = libm::log2(a / b) - 1.0;
    println!("flow bosh3: {a:.3e} {b:.3e} order {order:.2}");
    assert!((order - 3.0).abs() < 0.2, "{order}");
}

#[test]
fn orders_of_diffusion_solvers() {
    let data = Gaussian { deviation: 0.3, ..GAUSSIAN };
    for process in PROCESSES {
        check(Solver::Ddim, process, 1.0, 128, |plan| gaussian_error(plan, data));
        check(Solver::DpmPP2M, process, 2.0, 128, |plan| gaussian_error(plan, data));
        check(Solver::UniPC, process, 2.0, 128, |plan| gaussian_error(plan, data));
    }
}

/// From pure noise to clean data, where lambda is infinite at both ends, errors still shrink.
#[test]
fn flows_converge_over_their_whole_range() {
    for (solver, bound) in
        [(Solver::Heun, 1.5e-4), (Solver::Rk4, 2e-5), (Solver::DpmPP2M, 3e-3), (Solver::UniPC, 1.5e-3)]
    {
        let at =
            |steps| gaussian_error(&compile(PlanOptions { solver, steps, ..Default::default() }), GAUSSIAN);
        let (a, b) = (at(16), at(64));
        println!("{}: {a:.2e} {b:.2e}", solver.name());
        assert!(b < bound && (b < a / 4.0 || b < 1e-5), "{}: {a} {b}", solver.name());
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
                    let times = Some(if flow { vec![0.9, 0.7, 0.4, 0.2, 0.1] } else { times(process, 4) });
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
                // Explicit methods with several stages are unstable on a few huge steps in sigma/alpha.
                let stages = matches!(solver, Solver::Midpoint | Solver::Heun | Solver::Rk4);
                let ok = x.iter().all(|x| x.is_finite() && (stages || x.abs() < 10.0));
                assert!(ok, "{} {} {steps}: {x:?}", process.name(), solver.name());
            }
        }
    }
}
