//! Markov chains: posterior moments, the test by its formula, adaptation, diagnostics.

use super::*;
use crate::Error;
use crate::random::{self, Purpose, row_seeds};

fn target(solver: Solver, steps: usize) -> PlanOptions {
    let (process, prediction) = (Process::Target, Prediction::Score);
    PlanOptions { process, prediction, solver, steps, ..Default::default() }
}

/// A density of several numbers: its logarithm and the gradient of that.
type Density = fn(&[f32]) -> (f64, Vec<f64>);

/// Correlated normals: precision [[2, 0.8], [0.8, 1]] around (1, -1).
fn correlated(x: &[f32]) -> (f64, Vec<f64>) {
    let (a, b) = (f64::from(x[0]) - 1.0, f64::from(x[1]) + 1.0);
    let gradient = vec![-(2.0 * a + 0.8 * b), -(0.8 * a + b)];
    (0.5 * (a * gradient[0] + b * gradient[1]), gradient)
}

/// A mixture of two normals in the plane, modes near enough to be walked between.
fn two_modes(x: &[f32]) -> (f64, Vec<f64>) {
    let (a, b) = (f64::from(x[0]), f64::from(x[1]));
    // 0.7 exp(-(a - m)^2 / 2) + 0.3 exp(-(a + m)^2 / 2), the greater part taken out.
    let (m, p, q) = (1.2, libm::log(0.7) + 1.2 * a, libm::log(0.3) - 1.2 * a);
    let most = p.max(q);
    let (p, q) = (libm::exp(p - most), libm::exp(q - most));
    let gradient = vec![m * (p - q) / (p + q) - a, -b];
    (most + libm::log(p + q) - 0.5 * (a * a + b * b), gradient)
}

/// Runs the chains; `each` sees x after every iteration.
fn run_chains(
    plan: &Plan,
    seeds: &[u64],
    start: &[f32],
    density: Density,
    mut each: impl FnMut(&[f32]),
) -> (Run, Vec<f32>) {
    let n = start.len() / seeds.len();
    let mut state = vec![0.0; plan.state_len(seeds.len(), n).unwrap()];
    let mut run = Run::start(plan, seeds, n, Some(start), &mut state).unwrap();
    let (mut y, mut numbers) = (vec![0.0; start.len()], vec![0.0; seeds.len() * plan.numbers()]);
    let mut step = 0;
    while let Ask::Eval(r) = run.ask(plan).unwrap() {
        if r.step > step {
            step = r.step;
            each(run.result(plan, &state).unwrap());
        }
        for (row, x) in run.input(plan, &state).unwrap().chunks(n).enumerate() {
            let (log_density, gradient) = density(x);
            gradient.iter().enumerate().for_each(|(i, g)| y[row * n + i] = *g as f32);
            if let Some(number) = numbers.get_mut(row) {
                *number = log_density;
            }
        }
        run.tell_with(plan, &mut state, r.eval_id, &y, &numbers).unwrap();
    }
    each(run.result(plan, &state).unwrap());
    let x = run.result(plan, &state).unwrap().to_vec();
    (run, x)
}

const CHAINS: usize = 400;

/// Mean and (co)variances of x over all chains and iterations after the first half.
fn moments(options: PlanOptions, density: Density) -> ([f64; 2], [f64; 3], Run, Plan) {
    let steps = options.steps;
    let plan = compile(options);
    let seeds = row_seeds(3, CHAINS);
    let (mut sums, mut count, mut step) = ([0.0; 5], 0.0, 0);
    let (run, _) = run_chains(&plan, &seeds, &[0.0; 2 * CHAINS], density, |x| {
        step += 1;
        if 2 * step <= steps {
            return;
        }
        for x in x.chunks(2) {
            let (a, b) = (f64::from(x[0]), f64::from(x[1]));
            sums.iter_mut().zip([a, b, a * a, a * b, b * b]).for_each(|(s, v)| *s += v);
            count += 1.0;
        }
    });
    let [a, b, aa, ab, bb] = sums.map(|s| s / count);
    ([a, b], [aa - a * a, ab - a * b, bb - b * b], run, plan)
}

#[test]
fn chains_have_the_moments_of_their_target() {
    // Inverse of the precision.
    let d = 2.0 - 0.64;
    let covariance = [1.0 / d, -0.8 / d, 2.0 / d];
    let modes = [1.0 + 1.44 - 0.48 * 0.48, 0.0, 1.0];
    for (options, bias) in [
        (PlanOptions { step_size: 0.04, ..target(Solver::Ula, 1200) }, 0.05),
        (PlanOptions { step_size: 0.3, ..target(Solver::Mala, 300) }, 0.0),
        (PlanOptions { step_size: 0.3, leapfrog: 5, ..target(Solver::Hmc, 150) }, 0.0),
        (PlanOptions { step_size: 3.0, leapfrog: 4, warmup: 80, ..target(Solver::Hmc, 200) }, 0.0),
        (PlanOptions { step_size: 0.001, warmup: 100, ..target(Solver::Mala, 300) }, 0.0),
    ] {
        let name = options.solver.name();
        let (mean, found, _, _) = moments(options.clone(), correlated);
        println!("{name}: {mean:?} {found:?} {covariance:?}");
        assert!((mean[0] - 1.0).abs() < 0.03 && (mean[1] + 1.0).abs() < 0.04);
        assert!(found.iter().zip(covariance).all(|(f, c)| (f - c).abs() < 0.04 + bias), "{name}");
        let (mean, found, _, _) = moments(options, two_modes);
        println!("{name}: {mean:?} {found:?} {modes:?}");
        assert!((mean[0] - 0.48).abs() < 0.06 + bias && mean[1].abs() < 0.03, "{name}");
        assert!(found.iter().zip(modes).all(|(f, c)| (f - c).abs() < 0.06 + bias), "{name}");
    }
}

/// One iteration of hmc by its formulas: what is proposed and whether it is taken, from the documented streams.
#[test]
fn one_iteration_by_the_formulas() {
    let (step, leaps, iterations) = (0.7, 3, 4);
    let plan = compile(PlanOptions { step_size: step, leapfrog: leaps, ..target(Solver::Hmc, iterations) });
    assert_eq!((plan.max_evals(), plan.numbers()), (1 + leaps * iterations, 1));
    let seeds = row_seeds(8, 50);
    let start: Vec<f32> = (0..100).map(|i| (i % 9) as f32 / 2.0 - 2.0).collect();
    let mut seen = vec![start.clone()];
    let (run, _) = run_chains(&plan, &seeds, &start, correlated, |x| seen.push(x.to_vec()));
    let mut accepted = vec![0; 50];
    for number in 0..iterations {
        let mut z = ndarray::Array2::zeros((50, 2));
        random::normal(&seeds, Purpose::Step as u32, number as u32, z.view_mut()).unwrap();
        let mut u = ndarray::Array2::zeros((50, 1));
        random::uniform(&seeds, Purpose::Accept as u32, number as u32, u.view_mut()).unwrap();
        for row in 0..50 {
            let x = &seen[number][2 * row..2 * row + 2];
            let mut q = x.to_vec();
            let mut p = [f64::from(z[[row, 0]]), f64::from(z[[row, 1]])];
            let energy = |x: &[f32], p: &[f64; 2]| correlated(x).0 - 0.5 * (p[0] * p[0] + p[1] * p[1]);
            let before = energy(x, &p);
            for _ in 0..leaps {
                let g = correlated(&q).1;
                (0..2).for_each(|i| p[i] += 0.5 * step * g[i]);
                (0..2).for_each(|i| q[i] = (f64::from(q[i]) + step * p[i]) as f32);
                let g = correlated(&q).1;
                (0..2).for_each(|i| p[i] += 0.5 * step * g[i]);
            }
            let ratio = libm::exp(energy(&q, &p) - before);
            let u = f64::from(u[[row, 0]]);
            if (ratio - u).abs() < 1e-4 {
                continue;
            }
            let expected = if u < ratio { &q[..] } else { x };
            accepted[row] += u64::from(u < ratio);
            let next = &seen[number + 1][2 * row..2 * row + 2];
            assert!(
                next.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-4),
                "{number} {row}: {next:?} {expected:?}"
            );
        }
    }
    let mut counts = vec![0; 50];
    run.accepted(&plan, &mut counts).unwrap();
    assert_eq!(counts, accepted);
    assert_eq!(run.counters().accepts + run.counters().rejects, 50 * iterations as u64);
    assert!(run.counters().rejects > 0 && run.counters().accepts > 0);
}

/// Independent normals of twenty deviations.
fn twenty(x: &[f32]) -> (f64, Vec<f64>) {
    let gradient: Vec<f64> =
        x.iter().enumerate().map(|(i, x)| -f64::from(*x) * (1.0 + i as f64 / 10.0)).collect();
    (0.5 * x.iter().zip(&gradient).map(|(x, g)| f64::from(*x) * g).sum::<f64>(), gradient)
}

/// The step size settles where the acceptance is about the one aimed at, from far too long and far too short.
#[test]
fn steps_adapt_to_the_acceptance() {
    const ROWS: usize = 50;
    let seeds = row_seeds(9, ROWS);
    for (solver, aim) in [(Solver::Hmc, 0.8), (Solver::Hmc, 0.65), (Solver::Mala, 0.574)] {
        for step_size in [1e-2, 20.0] {
            let (steps, warmup, target_accept) = (700, 500, aim);
            let options = PlanOptions { step_size, warmup, target_accept, ..target(solver, steps) };
            let plan = compile(options);
            let (run, _) = run_chains(&plan, &seeds, &[0.1; 20 * ROWS], twenty, |_| {});
            let mut counts = vec![0; ROWS];
            run.accepted(&plan, &mut counts).unwrap();
            let rate = counts.iter().sum::<u64>() as f64 / (ROWS * (steps - warmup)) as f64;
            let mut sizes = vec![0.0; ROWS];
            run.step_sizes(&plan, &mut sizes).unwrap();
            println!("{} from {step_size}: accepted {rate} of {aim}, steps of {}", solver.name(), sizes[0]);
            assert!((rate - aim).abs() < 0.08, "{} {rate} {aim}", solver.name());
        }
    }
}

/// Outside the support a number that is not finite is a rejection, not an error.
#[test]
fn walls_reject() {
    let half: Density = |x| {
        let x = f64::from(x[0]);
        if x < 0.0 { (f64::NEG_INFINITY, vec![0.0]) } else { (-x, vec![-1.0]) }
    };
    let plan = compile(PlanOptions { step_size: 0.5, leapfrog: 3, ..target(Solver::Hmc, 400) });
    let seeds = row_seeds(2, CHAINS);
    let (mut sum, mut count, mut step) = (0.0, 0.0, 0);
    run_chains(&plan, &seeds, &[1.0; CHAINS], half, |x| {
        step += 1;
        assert!(x.iter().all(|x| *x >= 0.0));
        if step > 100 {
            sum += x.iter().map(|x| f64::from(*x)).sum::<f64>();
            count += CHAINS as f64;
        }
    });
    println!("mean of an exponential: {}", sum / count);
    assert!((sum / count - 1.0).abs() < 0.03);
}

/// Chains are rows: their bits do not depend on the batch, nor on a checkpoint inside an iteration.
#[test]
fn chains_do_not_disturb_each_other() {
    let plan = compile(PlanOptions { step_size: 0.8, leapfrog: 3, warmup: 10, ..target(Solver::Hmc, 30) });
    let seeds = row_seeds(1, 5);
    let start: Vec<f32> = (0..10).map(|i| i as f32 / 3.0 - 1.0).collect();
    let (run, together) = run_chains(&plan, &seeds, &start, two_modes, |_| {});
    let mut sizes = [0.0; 5];
    run.step_sizes(&plan, &mut sizes).unwrap();
    assert!(sizes[0] != sizes[1]);
    for row in 0..5 {
        let (_, alone) =
            run_chains(&plan, &seeds[row..=row], &start[2 * row..2 * row + 2], two_modes, |_| {});
        assert_eq!(alone, together[2 * row..2 * row + 2]);
    }
}

/// A score model of noise levels leads annealed Langevin to the data.
#[test]
fn annealed_langevin_reaches_the_data() {
    let options = PlanOptions {
        solver: Solver::AnnealedLangevin,
        corrector_steps: 20,
        step_size: 0.08,
        sigma_max: 5.0,
        sigma_min: 0.05,
        spacing: Spacing::Exponential,
        final_sigma: FinalSigma::Min,
        steps: 30,
        ..base(Process::Ve)
    };
    let plan = compile(options);
    assert_eq!(plan.max_evals(), 20 * 31);
    let x = walk(&plan, &[1, 2], None, 5000, GAUSSIAN.model(&plan));
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
    let spread =
        libm::sqrt(x.iter().map(|x| libm::pow(f64::from(*x) - mean, 2.0)).sum::<f64>() / x.len() as f64);
    println!("{mean} {spread}");
    assert!((mean - 0.7).abs() < 0.05 && (spread - 0.5).abs() < 0.07);
}

/// An autoregressive chain has a known effective size; chains that disagree a known R-hat.
#[test]
fn diagnostics_of_known_chains() {
    let (chains, n) = (4, 5000);
    let mut z = ndarray::Array2::zeros((chains, n));
    random::normal(&row_seeds(4, chains), 0, 0, z.view_mut()).unwrap();
    for rho in [0.0, 0.5, 0.9, -0.4] {
        let mut draws = Vec::new();
        for row in z.outer_iter() {
            let mut x = 0.0;
            for z in row {
                x = rho * x + libm::sqrt(1.0 - rho * rho) * f64::from(*z);
                draws.push(x);
            }
        }
        let expected = (chains * n) as f64 * (1.0 - rho) / (1.0 + rho);
        let found = effective_sample_size(&draws, chains).unwrap();
        let r_hat = split_r_hat(&draws, chains).unwrap();
        println!("{rho}: {found} of {expected}, R-hat {r_hat}");
        assert!((found / expected - 1.0).abs() < 0.15 && (r_hat - 1.0).abs() < 0.02);
    }
    // Means two deviations apart: var+ = 1 + var of the means of the halves.
    let apart: Vec<f64> = z
        .outer_iter()
        .enumerate()
        .flat_map(|(i, r)| r.iter().map(move |z| f64::from(*z) + 2.0 * (i % 2) as f64).collect::<Vec<_>>())
        .collect();
    let r_hat = split_r_hat(&apart, chains).unwrap();
    assert!((r_hat - libm::sqrt(1.0 + 8.0 / 7.0)).abs() < 0.03, "{r_hat}");
    assert!(effective_sample_size(&[1.0; 8], 1).unwrap().is_nan());
    assert!(split_r_hat(&[1.0; 7], 2).is_err() && split_r_hat(&[f64::NAN; 8], 1).is_err());
    assert!(effective_sample_size(&[0.0; 6], 2).is_err());
}

#[test]
fn bad_chains_are_named() {
    let refused = |o: PlanOptions, name: &str| match Plan::compile(&o).expect_err(name) {
        Error::Range { arg, .. } | Error::Argument { arg, .. } | Error::Shape { arg, .. } => {
            assert_eq!(arg, name)
        }
        other => panic!("{other}"),
    };
    let o = || target(Solver::Hmc, 10);
    refused(PlanOptions { prediction: Prediction::Velocity, ..o() }, "prediction");
    refused(PlanOptions { process: Process::Flow, ..o() }, "solver");
    refused(PlanOptions { solver: Solver::Euler, ..o() }, "solver");
    refused(PlanOptions { step_size: 0.0, ..o() }, "step_size");
    refused(PlanOptions { leapfrog: 0, ..o() }, "leapfrog");
    refused(PlanOptions { leapfrog: 1000, steps: 2000, ..o() }, "leapfrog");
    refused(PlanOptions { warmup: 11, ..o() }, "warmup");
    refused(PlanOptions { target_accept: 1.0, ..o() }, "target_accept");
    refused(PlanOptions { guidance: 2.0, ..o() }, "guidance");
    refused(PlanOptions { times: Some(vec![1.0, 0.0]), ..o() }, "times");
    refused(PlanOptions { leapfrog: 3, ..target(Solver::Mala, 5) }, "leapfrog");
    refused(PlanOptions { warmup: 3, ..target(Solver::Ula, 5) }, "warmup");
    refused(PlanOptions { step_size: 0.2, ..Default::default() }, "step_size");
    refused(PlanOptions { per_row: true, ..o() }, "solver");
    assert!(compile(o()).operations(0).is_err());
    assert!(compile(target(Solver::Ula, 3)).operations(1).is_ok());
}
