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

/// All predictions of the same model are the same walk up to rounding.
#[test]
fn predictions_agree() {
    let noisy = |s: Solver| {
        s.uses_sde_eta()
            || s.is_adaptive()
            || matches!(s, Solver::Ddpm | Solver::ErSde | Solver::PredictorCorrector)
    };
    for &solver in Solver::ALL.iter().filter(|s| !noisy(**s)) {
        for process in [Process::Flow, Process::VpLinear, Process::Edm, Process::TrigFlow] {
            // Inversion reads the model at another level than the state's.
            let jumps =
                matches!(solver, Solver::Consistency | Solver::Lcm | Solver::Scm) || solver.is_inverse();
            if !fits(solver, process) || jumps || solver == Solver::FlowMap {
                continue;
            }
            let results: Vec<Vec<f32>> = Prediction::ALL
                .iter()
                .map(|&prediction| {
                    let sigmas = match process {
                        Process::Flow => vec![0.9, 0.7, 0.4, 0.2, 0.1],
                        Process::TrigFlow => vec![1.3, 1.0, 0.7, 0.4, 0.2],
                        _ => vec![4.0, 2.0, 1.0, 0.5, 0.2],
                    };
                    let plan = compile(PlanOptions {
                        process,
                        prediction,
                        solver,
                        sigmas: Some(sigmas),
                        ..Default::default()
                    });
                    let start = [-1.5, -0.3, 0.2, 1.0, 2.0];
                    walk(&plan, &[0], Some(&start), 5, GAUSSIAN.model(&plan))
                })
                .collect();
            for (other, prediction) in results.iter().zip(Prediction::ALL) {
                for (a, b) in results[0].iter().zip(other) {
                    let (p, s, q) = (process.name(), solver.name(), prediction.name());
                    assert!((a - b).abs() < 5e-5, "{p} {s} {q}: {a} {b}");
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

/// Levels from 4 to 0.08 in sigma / alpha, even in lambda, in the measure of the process; the first
/// and last steps are short so that the low orders of a history's beginning and end do not count.
fn graded(process: Process, n: usize, order: usize) -> Vec<f64> {
    let (start, end) = (libm::log(4.0), libm::log(0.08));
    let h = (start - end) / n as f64;
    let part = |k: usize| h * libm::pow(1.0 / n as f64, order as f64 / (k + 1) as f64 - 1.0);
    let short: Vec<f64> = (1..order).map(part).collect();
    let mut logs = vec![start];
    short.iter().for_each(|s| logs.push(logs[logs.len() - 1] - s));
    let tail: f64 = short.iter().sum();
    let (a, b) = (logs[logs.len() - 1], end + tail);
    logs.extend((1..=n).map(|i| a + (b - a) * i as f64 / n as f64));
    short.iter().rev().for_each(|s| logs.push(logs[logs.len() - 1] - s));
    let level = |log: f64| {
        let u = libm::exp(log);
        match process {
            Process::Flow => u / (1.0 + u),
            Process::TrigFlow => libm::atan2(u, DATA),
            _ => u,
        }
    };
    logs.into_iter().map(level).collect()
}

/// The measured order of a solver in its ODE form, in f64.
fn measured(solver: Solver, order: usize, process: Process, steps: usize, grade: usize) -> (f64, f64) {
    let data = Gaussian { mean: 0.3, deviation: 0.4 };
    let start: Vec<f64> = (0..9).map(|i| f64::from(i) / 2.0 - 2.0).collect();
    let at = |n| {
        let sigmas = Some(graded(process, n, grade));
        let sde_eta = if solver.uses_sde_eta() { 0.0 } else { 1.0 };
        let plan = compile(PlanOptions { solver, order, sigmas, sde_eta, ..base(process) });
        let x = oracle::walk64(&plan, &start, data.model64(&plan));
        let exact = |s: f64| data.carry(&plan.start(), &plan.end(), s);
        x.iter().zip(&start).map(|(x, s)| (x - exact(*s)).abs()).fold(0.0, f64::max)
    };
    let (a, b) = (at(steps), at(2 * steps));
    (libm::log2(a / b), b)
}

#[test]
fn orders_of_every_deterministic_method() {
    use Solver::*;
    let processes = [
        Process::Flow,
        Process::VpScaledLinear,
        Process::VpContinuous,
        Process::Ve,
        Process::Edm,
        Process::TrigFlow,
    ];
    let mut wrong = Vec::new();
    // Solver, order asked for, order expected, steps, order of the grading of the ends.
    let cases: &[(Solver, usize, f64, usize, usize)] = &[
        (Lms, 1, 1.0, 200, 1),
        (Lms, 2, 2.0, 200, 2),
        (Lms, 3, 3.0, 200, 3),
        (Lms, 4, 4.0, 150, 4),
        (Ipndm, 1, 1.0, 200, 1),
        (Dpm2, 0, 2.0, 200, 1),
        (EulerAncestral, 0, 1.0, 200, 1),
        (Dpm2Ancestral, 0, 2.0, 200, 1),
        (DpmPP2SAncestral, 0, 2.0, 200, 1),
        (Dpm, 1, 1.0, 200, 1),
        (Dpm, 2, 2.0, 200, 2),
        (Dpm, 3, 3.0, 200, 3),
        (DpmPP, 1, 1.0, 200, 1),
        (DpmPP, 2, 2.0, 200, 2),
        (DpmPP, 3, 3.0, 200, 3),
        (DpmSingle, 1, 1.0, 200, 1),
        (DpmSingle, 2, 2.0, 200, 1),
        (DpmSingle, 3, 3.0, 200, 1),
        (DpmPPSingle, 1, 1.0, 200, 1),
        (DpmPPSingle, 2, 2.0, 200, 1),
        (DpmPPSingle, 3, 3.0, 200, 1),
        (DpmPPSde, 0, 2.0, 200, 1),
        (DpmPP2MSde, 0, 2.0, 200, 2),
        (DpmPP2MSdeHeun, 0, 2.0, 200, 2),
        (DpmPP3MSde, 0, 3.0, 200, 3),
        (DpmSde, 1, 1.0, 200, 1),
        (DpmSde, 2, 2.0, 200, 2),
        (UniPC, 1, 2.0, 200, 2),
        (UniPC, 2, 3.0, 200, 3),
        (UniPC, 3, 4.0, 400, 4),
        (UniPCBh1, 1, 2.0, 200, 2),
        (UniPCBh1, 2, 3.0, 200, 3),
        (UniPCBh1, 3, 4.0, 400, 4),
        (Deis, 1, 1.0, 200, 1),
        (Deis, 2, 2.0, 200, 2),
        (Deis, 3, 3.0, 200, 3),
        (Deis, 4, 4.0, 150, 4),
        (SaSolver, 1, 1.0, 200, 1),
        (SaSolver, 2, 2.0, 200, 2),
        (SaSolver, 3, 3.0, 200, 3),
        (SaSolver, 4, 4.0, 400, 4),
        (Seeds2, 0, 2.0, 200, 1),
        (Seeds3, 0, 3.0, 200, 1),
        (ResMultistep, 0, 2.0, 200, 2),
        (Res2S, 0, 2.0, 200, 1),
        (GradientEstimation, 0, 1.0, 200, 1),
        (Tcd, 0, 1.0, 200, 1),
    ];
    for &(solver, order, expected, steps, grade) in cases {
        for process in processes {
            let (found, error) = measured(solver, order, process, steps, grade);
            println!("{} {} {order}: error {error:.2e} order {found:.2}", process.name(), solver.name());
            if (found - expected).abs() >= 0.2 {
                wrong.push(format!(
                    "{} {} {order}: {found:.2} not {expected} ({error:.1e})",
                    process.name(),
                    solver.name()
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Methods with the weights of even steps, on grids that are even in the coordinate.
#[test]
fn orders_on_even_grids() {
    let mut wrong = Vec::new();
    let mut measure = |solver, order, expected: f64, steps: usize| {
        let at = |n: usize| {
            let times = Some((0..=n).map(|i| 0.9 - 0.8 * i as f64 / n as f64).collect());
            logistic_error(&compile(PlanOptions { solver, order, times, ..Default::default() }))
        };
        let (a, b) = (at(steps), at(2 * steps));
        let found = libm::log2(a / b);
        println!("{} {order}: {a:.2e} {b:.2e} order {found:.2}", solver.name());
        if (found - expected).abs() >= 0.2 {
            wrong.push(format!("{} {order}: {found:.2} not {expected}", solver.name()));
        }
    };
    // The Euler step at the beginning leaves an error of order 2, PLMS's of order 3, PNDM's none.
    measure(Solver::Ipndm, 2, 2.0, 64);
    measure(Solver::Ipndm, 4, 2.0, 64);
    measure(Solver::Plms, 0, 3.0, 24);
    measure(Solver::Pndm, 0, 4.0, 10);
    measure(Solver::FlowMap, 0, 1.0, 64);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Data to noise along the same ODE.
#[test]
fn inversion_is_of_order_one() {
    let data = Gaussian { mean: 0.3, deviation: 0.4 };
    let at = |n| {
        let o = base(Process::VpScaledLinear);
        let sigmas = Some(graded(o.process, n, 1));
        let plan = compile(PlanOptions { solver: Solver::DdimInverse, sigmas, ..o });
        assert!(plan.start().sigma < plan.end().sigma);
        gaussian_error(&plan, data)
    };
    // The model is asked at the time of the level ahead, about a state of the level behind.
    let order = libm::log2(at(64) / at(128));
    assert!((order - 1.0).abs() < 0.2, "{order}");
}

/// Levels of the inverse walk are those of the other, so orders are too.
#[test]
fn inversion_of_higher_order() {
    let mut wrong = Vec::new();
    for order in 1..=3 {
        for process in [Process::Flow, Process::VpScaledLinear, Process::Ve, Process::Edm] {
            let (found, error) = measured(Solver::DpmPPInverse, order, process, 200, order);
            println!("{} {order}: error {error:.2e} order {found:.2}", process.name());
            if (found - order as f64).abs() >= 0.2 {
                wrong.push(format!("{} {order}: {found:.2} ({error:.1e})", process.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// From clean data to pure noise and back.
#[test]
fn inversion_between_both_ends() {
    let data = Gaussian { mean: 0.3, deviation: 0.4 };
    for o in [base(Process::Flow), PlanOptions { zero_snr: true, ..base(Process::VpLinear) }] {
        let plan = compile(PlanOptions { solver: Solver::DpmPPInverse, steps: 400, ..o });
        assert_eq!((plan.start().sigma, plan.end().alpha), (0.0, 0.0));
        let error = gaussian_error(&plan, data);
        println!("{}: {error:.2e}", plan.options().process.name());
        assert!(error < 0.05);
    }
}

/// The published third-order multistep formula halves a term: peers' is of order 2, ours is not.
#[test]
fn the_third_order_of_others_is_the_second() {
    let data = Gaussian { mean: 0.3, deviation: 0.4 };
    let start = [-1.5, 0.2, 1.4];
    let order = |compat| {
        let error = |n| {
            let sigmas = Some(graded(Process::Edm, n, 3));
            let plan = compile(PlanOptions {
                solver: Solver::DpmPP,
                order: 3,
                sigmas,
                compat,
                ..base(Process::Edm)
            });
            let x = oracle::walk64(&plan, &start, data.model64(&plan));
            let exact = |s: f64| data.carry(&plan.start(), &plan.end(), s);
            x.iter().zip(&start).map(|(x, s)| (x - exact(*s)).abs()).fold(0.0, f64::max)
        };
        libm::log2(error(200) / error(400))
    };
    let (ours, theirs) = (order(Compat::None), order(Compat::Diffusers));
    assert!((ours - 3.0).abs() < 0.2 && (theirs - 2.0).abs() < 0.2, "{ours} {theirs}");
}
