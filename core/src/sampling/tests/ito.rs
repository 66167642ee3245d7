//! Stochastic differential equations of the caller: strong and weak orders against exact solutions.

use super::*;
use crate::Error;
use crate::random::{self, Purpose};

fn sde(solver: Solver, steps: usize) -> PlanOptions {
    PlanOptions { process: Process::Sde, solver, steps, ..Default::default() }
}

/// f and g of every element, told one after the other.
fn both(
    f: impl Fn(f64, f64) -> (f64, f64),
) -> impl FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()> {
    move |r, x, t, y| {
        for (row, x) in x.chunks(r.elements).enumerate() {
            let y = &mut y[2 * row * r.elements..][..2 * r.elements];
            let (drift, noise) = y.split_at_mut(r.elements);
            for ((d, n), x) in drift.iter_mut().zip(noise).zip(x) {
                let (f, g) = f(f64::from(t[row]), f64::from(*x));
                (*d, *n) = (f as f32, g as f32);
            }
        }
        Ok(())
    }
}

/// The Brownian path at the end of a walk over one time unit, from the documented streams.
fn path(seed: u64, n: usize, steps: usize) -> Vec<f64> {
    let mut sum = vec![0.0; n];
    for step in 0..steps {
        let mut z = ndarray::Array2::zeros((1, n));
        random::normal(&[seed], Purpose::Step as u32, step as u32, z.view_mut()).unwrap();
        sum.iter_mut().zip(&z).for_each(|(s, z)| *s += f64::from(*z) / libm::sqrt(steps as f64));
    }
    sum
}

const PATHS: usize = 20_000;

/// Root mean square of the distance to the exact solution on the same path, and the distance of the means.
fn errors(
    solver: Solver,
    steps: usize,
    f: impl Fn(f64, f64) -> (f64, f64),
    exact: impl Fn(f64) -> f64,
) -> (f64, f64) {
    let plan = compile(sde(solver, steps));
    let x = walk(&plan, &[7], Some(&vec![1.0; PATHS]), PATHS, both(f));
    let w = path(7, PATHS, steps);
    let difference: Vec<f64> = x.iter().zip(&w).map(|(x, w)| f64::from(*x) - exact(*w)).collect();
    let mean = |v: &dyn Fn(f64) -> f64| difference.iter().map(|d| v(*d)).sum::<f64>() / PATHS as f64;
    (libm::sqrt(mean(&|d| d * d)), mean(&|d| d).abs())
}

/// Geometric Brownian motion: the noise depends on x, the solution on the end of the path alone.
#[test]
fn strong_orders_with_noise_that_depends_on_x() {
    let (a, b) = (0.5, 0.8);
    let ito = |w: f64| libm::exp(a - 0.5 * b * b + b * w);
    let stratonovich = |w: f64| libm::exp(a + b * w);
    for (solver, order, steps) in [
        (Solver::EulerMaruyama, 0.5, 32),
        (Solver::Milstein, 1.0, 32),
        (Solver::StochasticHeun, 1.0, 32),
        (Solver::Sriw1, 1.5, 8),
    ] {
        let error = |steps| {
            let f = |_, x: f64| (a * x, b * x);
            match solver {
                Solver::StochasticHeun => errors(solver, steps, f, stratonovich),
                _ => errors(solver, steps, f, ito),
            }
        };
        let (coarse, fine) = (error(steps), error(4 * steps));
        let found = libm::log2(coarse.0 / fine.0) / 2.0;
        println!("{}: {coarse:?} {fine:?} order {found:.2}", solver.name());
        assert!((found - order).abs() < 0.15, "{} {found}", solver.name());
        // The mean is of order 1 at least: all of them have it in the weak sense.
        assert!(fine.1 < 0.5 * coarse.1 || fine.1 < 2e-3, "{} {coarse:?} {fine:?}", solver.name());
    }
}

/// `dx = (b / sqrt(1 + t) - x / (2 (1 + t))) dt + a b / sqrt(1 + t) dW` has the solution
/// `x = (x0 + b (t + a W)) / sqrt(1 + t)` (Kloeden & Platen 1992, 4.4.6): the noise is additive.
#[test]
fn strong_orders_with_additive_noise() {
    let (a, b) = (1.5, 0.5);
    let f = |t: f64, x: f64| {
        let root = libm::sqrt(1.0 + t);
        (b / root - x / (2.0 * (1.0 + t)), a * b / root)
    };
    let exact = |w: f64| (1.0 + b * (1.0 + a * w)) / libm::sqrt(2.0);
    for (solver, order, steps) in [
        (Solver::EulerMaruyama, 1.0, 16),
        (Solver::Milstein, 1.0, 16),
        (Solver::Sra1, 1.5, 4),
        (Solver::Sriw1, 1.5, 4),
    ] {
        let (coarse, fine) = (errors(solver, steps, f, exact), errors(solver, 4 * steps, f, exact));
        let found = libm::log2(coarse.0 / fine.0) / 2.0;
        println!("{}: {coarse:?} {fine:?} order {found:.2}", solver.name());
        // A linear drift lets some do better than they must.
        assert!(found > order - 0.2, "{} {found}", solver.name());
        assert!(order > 1.0 || found < order + 0.2, "{} {found}", solver.name());
    }
}

/// Time may run down: an Ornstein-Uhlenbeck process reversed with its score comes from its noise to its data.
#[test]
fn reverse_time_reaches_the_data() {
    let (mean, deviation) = (0.7, 0.5);
    // dx = -x dt + sqrt(2) dW from N(mean, deviation^2) at 0.
    let marginal = |t: f64| {
        let keep = libm::exp(-t);
        (keep * mean, keep * keep * deviation * deviation + 1.0 - keep * keep)
    };
    for solver in [Solver::EulerMaruyama, Solver::Milstein, Solver::Sra1, Solver::Sriw1] {
        let options = PlanOptions { t_start: 4.0, t_end: 0.0, ..sde(solver, 400) };
        let plan = compile(options);
        let reverse = |t: f64, x: f64| {
            let (m, v) = marginal(t);
            (-x + 2.0 * (x - m) / v, libm::sqrt(2.0))
        };
        let x = walk(&plan, &[1, 2], None, PATHS, both(reverse));
        let n = x.len() as f64;
        let found = x.iter().map(|x| f64::from(*x)).sum::<f64>() / n;
        let spread = libm::sqrt(x.iter().map(|x| libm::pow(f64::from(*x) - found, 2.0)).sum::<f64>() / n);
        println!("{}: {found} {spread}", solver.name());
        assert!((found - mean).abs() < 0.02 && (spread - deviation).abs() < 0.02, "{}", solver.name());
    }
}

/// A step of SRIW1 by its formulas, from the documented streams.
#[test]
fn one_step_by_the_formulas() {
    let n = 300;
    let f = |t: f64, x: f64| (libm::sin(x) + t, 0.4 + 0.3 * libm::cos(x) + 0.2 * t);
    let plan = compile(PlanOptions { t_end: 0.25, ..sde(Solver::Sriw1, 1) });
    assert_eq!((plan.max_evals(), plan.outputs()), (5, 2));
    let start: Vec<f32> = (0..n).map(|i| i as f32 / 100.0 - 1.0).collect();
    let x = walk(&plan, &[11], Some(&start), n, both(f));
    let draw = |number: u32| {
        let mut z = ndarray::Array2::zeros((1, n));
        random::normal(&[11], Purpose::Step as u32, number, z.view_mut()).unwrap();
        z
    };
    let (z, u) = (draw(0), draw(1 << 20));
    let h = 0.25f64;
    let w = libm::sqrt(h);
    for i in 0..n {
        let x0 = f64::from(start[i]);
        let (z, u) = (f64::from(z[[0, i]]), f64::from(u[[0, i]]));
        let (i1, i11) = (w * z, h / 2.0 * (z * z - 1.0));
        let (i111, i10) = (h * w / 6.0 * (z * z * z - 3.0 * z), h * w / 2.0 * (z + u / libm::sqrt(3.0)));
        let (f1, g1) = f(0.0, x0);
        let (_, g2) = f(0.25 * h, x0 + 0.25 * h * f1 + 0.5 * w * g1);
        let (_, g3) = f(h, x0 + h * f1 - w * g1);
        let (_, g4) = f(0.25 * h, x0 + 0.25 * h * f1 + w * (-5.0 * g1 + 3.0 * g2 + 0.5 * g3));
        let (f2, _) = f(0.75 * h, x0 + 0.75 * h * f1 + 1.5 * g1 * i10 / h);
        let beta = [
            [-1.0, -1.0, 2.0, -2.0],
            [4.0 / 3.0, 4.0 / 3.0, -4.0 / 3.0, 5.0 / 3.0],
            [2.0 / 3.0, -1.0 / 3.0, -2.0 / 3.0, -2.0 / 3.0],
            [0.0, 0.0, 0.0, 1.0],
        ];
        let noise: f64 = [g1, g2, g3, g4]
            .iter()
            .zip(beta)
            .map(|(g, b)| g * (b[0] * i1 + b[1] * i11 / w + b[2] * i10 / h + b[3] * i111 / h))
            .sum();
        let expected = x0 + h * (f1 / 3.0 + 2.0 * f2 / 3.0) + noise;
        assert!(
            (f64::from(x[i]) - expected).abs() < 2e-6 * expected.abs().max(1.0),
            "{i}: {} {expected}",
            x[i]
        );
    }
}

/// A step of SRA1 by its formulas.
#[test]
fn one_step_with_additive_noise_by_the_formulas() {
    let n = 100;
    let f = |t: f64, x: f64| (libm::sin(x) + t, 0.5 + 0.5 * t);
    let plan = compile(PlanOptions { t_end: 0.5, ..sde(Solver::Sra1, 1) });
    let start: Vec<f32> = (0..n).map(|i| i as f32 / 50.0 - 1.0).collect();
    let x = walk(&plan, &[12], Some(&start), n, both(f));
    let draw = |number: u32| {
        let mut z = ndarray::Array2::zeros((1, n));
        random::normal(&[12], Purpose::Step as u32, number, z.view_mut()).unwrap();
        z
    };
    let (z, u, h) = (draw(0), draw(1 << 20), 0.5f64);
    for i in 0..n {
        let x0 = f64::from(start[i]);
        let i1 = libm::sqrt(h) * f64::from(z[[0, i]]);
        let i10 = 0.5 * h * (i1 + libm::sqrt(h / 3.0) * f64::from(u[[0, i]]));
        let ((f1, g0), (_, g1)) = (f(0.0, x0), f(h, x0));
        let (f2, _) = f(0.75 * h, x0 + 0.75 * h * f1 + 1.5 * g1 * i10 / h);
        let expected = x0 + h * (f1 / 3.0 + 2.0 * f2 / 3.0) + g1 * i1 + (g0 - g1) * i10 / h;
        assert!(
            (f64::from(x[i]) - expected).abs() < 1e-6 * expected.abs().max(1.0),
            "{i}: {} {expected}",
            x[i]
        );
    }
}

#[test]
fn bad_sdes_are_named() {
    let refused = |o: PlanOptions, name: &str| match Plan::compile(&o).expect_err(name) {
        Error::Range { arg, .. } | Error::Argument { arg, .. } => assert_eq!(arg, name),
        other => panic!("{other}"),
    };
    let o = || sde(Solver::Sriw1, 4);
    refused(PlanOptions { solver: Solver::Euler, ..o() }, "solver");
    refused(PlanOptions { process: Process::Ode, ..o() }, "solver");
    refused(PlanOptions { process: Process::Flow, ..o() }, "solver");
    refused(PlanOptions { guidance: 2.0, ..o() }, "guidance");
    refused(PlanOptions { noise: NoiseKind::Brownian, ..o() }, "noise");
    refused(PlanOptions { prediction: Prediction::Score, ..o() }, "prediction");
    refused(PlanOptions { t_end: 0.0, ..o() }, "t_end");
    assert!(compile(o()).operations(0).is_err());
}

/// Sub-VP (Song 2021, equation 29): the variance is the square of that of VP.
#[test]
fn sub_vp_levels() {
    let sub = compile(base(Process::SubVp));
    let vp = compile(base(Process::VpContinuous));
    for t in [1e-3, 0.1, 0.5, 0.9, 1.0] {
        let (a, b) = (sub.levels().node(t), vp.levels().node(t));
        assert!(
            (a.alpha - b.alpha).abs() < 1e-14 && (a.sigma - b.sigma * b.sigma).abs() < 1e-14,
            "{a:?} {b:?}"
        );
    }
    // Its SDE and its ODE carry noise to the data.
    for solver in [Solver::Heun, Solver::EulerAncestral, Solver::DpmPP2MSde] {
        let plan = compile(PlanOptions {
            solver,
            steps: 200,
            spacing: Spacing::Exponential,
            ..base(Process::SubVp)
        });
        let x = walk(&plan, &[3], None, PATHS, GAUSSIAN.model(&plan));
        let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len() as f64;
        let spread =
            libm::sqrt(x.iter().map(|x| libm::pow(f64::from(*x) - mean, 2.0)).sum::<f64>() / x.len() as f64);
        println!("{}: {mean} {spread}", solver.name());
        assert!((mean - 0.7).abs() < 0.03 && (spread - 0.5).abs() < 0.03);
    }
}
