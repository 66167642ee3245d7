//! Stochastic samplers carry Gaussian data to the right distribution.

use super::*;

fn square(x: f64) -> f64 {
    x * x
}

fn moments(x: &[f32]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| square(f64::from(x) - mean)).sum::<f64>() / n;
    (mean, libm::sqrt(variance))
}

/// What a sampler that is linear in x and Gaussian in its noise must give, followed exactly in
/// f64: `x' = k x + c + d z` per step, by the textbook formulas written out for VP.
fn expected(plan: &Plan, eta: Option<f64>) -> (f64, f64) {
    let (mut mean, mut variance) = (0.0, plan.start().sigma * plan.start().sigma);
    for pair in plan.grid().windows(2) {
        let (a2, b2) = (pair[0].alpha * pair[0].alpha, pair[1].alpha * pair[1].alpha);
        let (s2, n2) = (1.0 - a2, (1.0 - b2).max(0.0));
        let beta = 1.0 - a2 / b2;
        // x0 = p x + q for this data.
        let p =
            GAUSSIAN.predict(Prediction::X0, &pair[0], 1.0) - GAUSSIAN.predict(Prediction::X0, &pair[0], 0.0);
        let q = GAUSSIAN.predict(Prediction::X0, &pair[0], 0.0);
        let posterior = n2 / s2 * beta;
        let (from_x, from_x0, noise) = match eta {
            None => (libm::sqrt(a2 / b2) * n2 / s2, libm::sqrt(b2) * beta / s2, posterior),
            Some(eta) => {
                let noise = eta * eta * posterior;
                let k = libm::sqrt((n2 - noise) / s2);
                (k, libm::sqrt(b2) - k * libm::sqrt(a2), noise)
            }
        };
        mean = (from_x + from_x0 * p) * mean + from_x0 * q;
        variance = square(from_x + from_x0 * p) * variance + noise;
    }
    (mean, libm::sqrt(variance))
}

fn check(solver: Solver, steps: usize, eta: f64) -> (f64, f64) {
    let plan = compile(PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver,
        steps,
        eta,
        ..Default::default()
    });
    // 40,000 numbers from four seeds: standard errors 0.0025 and 0.0018 of the deviation 0.5.
    let x = walk(&plan, &[11, 12, 13, 14], None, 10_000, GAUSSIAN.model(&plan));
    let (mean, deviation) = moments(&x);
    let (m, d) = expected(&plan, (solver == Solver::Ddim).then_some(eta));
    println!("{} eta {eta}: mean {mean} ({m}), deviation {deviation} ({d})", solver.name());
    assert!((mean - m).abs() < 0.011 && (deviation - d).abs() < 0.008);
    (mean, deviation)
}

#[test]
fn ancestral_sampling_reaches_the_data() {
    let (mean, deviation) = check(Solver::Ddpm, 200, 0.0);
    assert!((mean - GAUSSIAN.mean).abs() < 0.02 && (deviation - GAUSSIAN.deviation).abs() < 0.02);
    let (mean, deviation) = check(Solver::Ddim, 200, 1.0);
    assert!((mean - GAUSSIAN.mean).abs() < 0.02 && (deviation - GAUSSIAN.deviation).abs() < 0.02);
    check(Solver::Ddim, 20, 0.5);
    check(Solver::Ddpm, 10, 0.0);
}

/// DDIM with eta 1 is DDPM: the same coefficients and the same noise.
#[test]
fn ddim_with_eta_one_is_ddpm() {
    let at = |solver, eta| {
        let process = Process::VpScaledLinear;
        let plan = compile(PlanOptions {
            process,
            prediction: Prediction::V,
            solver,
            eta,
            steps: 12,
            ..Default::default()
        });
        walk(&plan, &[1, 2], None, 100, GAUSSIAN.model(&plan))
    };
    for (a, b) in at(Solver::Ddpm, 0.0).iter().zip(at(Solver::Ddim, 1.0)) {
        assert!((a - b).abs() < 1e-5, "{a} {b}");
    }
}

/// The ancestral sampler is written for any pair of levels, so a flow has one too.
#[test]
fn ancestral_sampling_of_a_flow() {
    let plan = compile(PlanOptions { solver: Solver::Ddpm, steps: 200, ..Default::default() });
    let (mean, deviation) = moments(&walk(&plan, &[1, 2, 3, 4], None, 10_000, GAUSSIAN.model(&plan)));
    assert!((mean - GAUSSIAN.mean).abs() < 0.02 && (deviation - GAUSSIAN.deviation).abs() < 0.02);
}

/// Starting noise is the Initial stream, step noise the Step stream at the step's number.
#[test]
fn noise_comes_from_the_documented_streams() {
    use crate::random::{self, Purpose};
    let options = PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::X0,
        solver: Solver::Ddpm,
        times: Some(vec![999.0, 500.0, 100.0]),
        ..Default::default()
    };
    let plan = compile(options);
    let seeds = [77, 5];
    let n = 1500;
    let mut x = walk(&plan, &seeds, None, n, |_, _, _, y| {
        y.fill(0.0);
        Ok(())
    });
    let normals = |purpose: Purpose, draw| {
        let mut z = ndarray::Array2::zeros((2, n));
        random::normal(&seeds, purpose as u32, draw, z.view_mut()).unwrap();
        z.into_raw_vec_and_offset().0
    };
    let g = plan.grid();
    let step = |from: &Node, to: &Node| {
        let beta = 1.0 - square(from.alpha / to.alpha);
        let (s2, n2) = (from.sigma * from.sigma, to.sigma * to.sigma);
        (from.alpha / to.alpha * n2 / s2, libm::sqrt(n2 / s2 * beta))
    };
    let (z, z0, z1) = (normals(Purpose::Initial, 0), normals(Purpose::Step, 0), normals(Purpose::Step, 1));
    let ((k0, d0), (k1, d1)) = (step(&g[0], &g[1]), step(&g[1], &g[2]));
    for (i, x) in x.iter_mut().enumerate() {
        let start = f64::from(z[i]) * g[0].sigma;
        let exact = k1 * (k0 * start + d0 * f64::from(z0[i])) + d1 * f64::from(z1[i]);
        assert!((f64::from(*x) - exact).abs() < 1e-5, "{i}: {x} {exact}");
    }
}

/// Every stochastic solver carries Gaussian data to its distribution, for every kind of process; the first-order
/// ones still miss some of the deviation at this many steps.
#[test]
fn every_stochastic_solver_reaches_the_data() {
    use Solver::*;
    let solvers = [
        EulerAncestral,
        EulerAncestralRf,
        Dpm2Ancestral,
        DpmPP2SAncestral,
        DpmPPSde,
        DpmPP2MSde,
        DpmPP2MSdeHeun,
        DpmPP3MSde,
        DpmSde,
        SaSolver,
        ErSde,
        Seeds2,
        Seeds3,
        Ddpm,
    ];
    let mut wrong = Vec::new();
    for solver in solvers {
        for process in [Process::Flow, Process::VpScaledLinear, Process::Edm, Process::TrigFlow] {
            if !fits(solver, process) {
                continue;
            }
            let table = process == Process::VpScaledLinear;
            let spacing = if table || process == Process::Edm { Spacing::Karras } else { Spacing::Uniform };
            // A path costs some forty draws a number.
            let path = matches!(solver, DpmPP2MSdeHeun | SaSolver | Seeds2);
            let noise = if path { NoiseKind::Brownian } else { NoiseKind::Independent };
            let (steps, elements) = if path { (50, 800) } else { (120, 2000) };
            let plan = compile(PlanOptions { solver, spacing, steps, noise, ..base(process) });
            let x = walk(&plan, &[21, 22, 23, 24], None, elements, GAUSSIAN.model(&plan));
            let (mean, deviation) = moments(&x);
            println!("{} {}: mean {mean:.3} deviation {deviation:.3}", process.name(), solver.name());
            if (mean - GAUSSIAN.mean).abs() > 0.04 || (deviation - GAUSSIAN.deviation).abs() > 0.04 {
                wrong.push(format!("{} {}: {mean} {deviation}", process.name(), solver.name()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Consistency models: a perfect one jumps to data, noise in between is that of the level.
#[test]
fn jumps_reach_the_data() {
    for (solver, process) in [
        (Solver::Consistency, Process::Edm),
        (Solver::Consistency, Process::Flow),
        (Solver::Scm, Process::TrigFlow),
        (Solver::Lcm, Process::Flow),
        (Solver::Tcd, Process::VpScaledLinear),
    ] {
        // With gamma 1 a trajectory model jumps all the way, as a consistency model does.
        let eta = if solver == Solver::Tcd { 1.0 } else { 0.0 };
        let plan =
            compile(PlanOptions { solver, steps: 4, eta, prediction: Prediction::X0, ..base(process) });
        let levels = plan.levels().clone();
        let x = walk(&plan, &[1, 2, 3, 4], None, 5000, |r, x, _, y| {
            // The consistency function of Gaussian data: the whole ODE in one jump.
            let node = Node { t: r.t, alpha: r.alpha, sigma: r.sigma };
            y.iter_mut()
                .zip(x)
                .for_each(|(y, x)| *y = GAUSSIAN.carry(&node, &levels.clean(), f64::from(*x)) as f32);
            Ok(())
        });
        let (mean, deviation) = moments(&x);
        println!("{} {}: {mean} {deviation}", process.name(), solver.name());
        assert!(
            (mean - 0.7).abs() < 0.03 && (deviation - 0.5).abs() < 0.03,
            "{} {mean} {deviation}",
            solver.name()
        );
    }
}

/// Corrections alone bring a wrong state to the distribution of its level; the whole walk reaches the data.
#[test]
fn langevin_corrections_reach_the_level() {
    let solver = Solver::PredictorCorrector;
    for process in [Process::Ve, Process::VpContinuous, Process::Flow] {
        let o = PlanOptions { solver, spacing: Spacing::Exponential, steps: 300, ..base(process) };
        let plan = compile(PlanOptions { sigma_max: if process == Process::Flow { 0.99 } else { 0.0 }, ..o });
        let x = walk(&plan, &[1, 2, 3, 4], None, 10_000, GAUSSIAN.model(&plan));
        let (mean, deviation) = moments(&x);
        println!("{}: {mean} {deviation}", process.name());
        assert!((mean - GAUSSIAN.mean).abs() < 0.03 && (deviation - GAUSSIAN.deviation).abs() < 0.03);
    }
    let sigmas = Some(vec![0.5, 0.499]);
    let o = PlanOptions { solver, sigmas, corrector_steps: 100, snr: 0.3, ..base(Process::Ve) };
    let plan = compile(o);
    let start: Vec<f32> = (0..40_000).map(|i| (i % 2) as f32 * 4.0 - 3.0).collect();
    let (mean, deviation) = moments(&walk(&plan, &[5], Some(&start), 40_000, GAUSSIAN.model(&plan)));
    // Steps of their length widen the level a little: by 1 / sqrt(1 - length / (2 spread^2)).
    println!("corrected: {mean} {deviation}");
    assert!(
        (mean - GAUSSIAN.mean).abs() < 0.02
            && (deviation / GAUSSIAN.spread(&plan.start()) - 1.0).abs() < 0.15
    );
}

/// One correction, from the documented stream and by its formula.
#[test]
fn a_langevin_step() {
    use crate::random::{self, Purpose};
    let (n, snr, sigma) = (1500, 0.25, 2.0);
    let plan = compile(PlanOptions {
        process: Process::Ve,
        prediction: Prediction::Epsilon,
        solver: Solver::PredictorCorrector,
        sigmas: Some(vec![sigma, 1.0]),
        corrector_steps: 2,
        snr,
        s_noise: 0.9,
        ..Default::default()
    });
    let start: Vec<f32> = (0..n).map(|i| (i % 7) as f32 - 3.0).collect();
    let eps = |i: usize| libm::sin(i as f64) + 0.25;
    let mut seen = Vec::new();
    walk(&plan, &[9], Some(&start), n, |r, x, _, y| {
        seen.push((r.stage, x.to_vec()));
        y.iter_mut().enumerate().for_each(|(i, y)| *y = eps(i) as f32);
        Ok(())
    });
    assert_eq!(seen.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 1, 2]);
    let square: f64 = (0..n).map(|i| square(eps(i))).sum();
    let q = 2.0 * snr * snr * n as f64 / square;
    for stage in 0..2 {
        let mut z = ndarray::Array2::zeros((1, n));
        let draw = (stage as u32 + 1) << 20;
        random::normal(&[9], Purpose::Step as u32, draw, z.view_mut()).unwrap();
        for i in 0..n {
            let step = -sigma * q * eps(i) + 0.9 * sigma * libm::sqrt(2.0 * q) * f64::from(z[[0, i]]);
            let expected = f64::from(seen[stage].1[i]) + step;
            assert!((f64::from(seen[stage + 1].1[i]) - expected).abs() < 1e-5, "{stage} {i}");
        }
    }
}
