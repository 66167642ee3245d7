//! Convergence of stochastic methods: without their noise they follow the mean of their SDE, which
//! is known for Gaussian data.

use super::*;

const ONE: Gaussian = Gaussian { mean: 0.3, deviation: 0.4 };

/// The mean of the reverse SDE with noise `eta` (1 the usual one, 0 the ODE), from `x` at one level to another:
/// `d ln y = d ln S - eta(u) sigma^2 / S^2 dlambda` for `y = x - alpha mean`, S the deviation of x_t. By
/// Simpson's rule in lambda.
fn mean_path(from: &Node, to: &Node, x: f64, eta: impl Fn(f64) -> f64) -> f64 {
    let n = 4000;
    let h = (to.lambda() - from.lambda()) / f64::from(n);
    let rate = |i: i32| {
        let u = libm::exp(-(from.lambda() + h * f64::from(i)));
        eta(u) * u * u / (u * u + ONE.deviation * ONE.deviation)
    };
    let weight = |i: i32| {
        if i == 0 || i == n {
            1.0
        } else if i % 2 == 1 {
            4.0
        } else {
            2.0
        }
    };
    let integral: f64 = (0..=n).map(|i| weight(i) * rate(i)).sum::<f64>() * h / 3.0;
    let factor = ONE.spread(to) / ONE.spread(from) * libm::exp(-integral);
    to.alpha * ONE.mean + factor * (x - from.alpha * ONE.mean)
}

/// The noise of ER-SDE: `phi = u (e^(u^0.3) + 10)` grows by `u phi' / phi = 1 + eta`.
fn extended(u: f64) -> f64 {
    let p = libm::pow(u, 0.3);
    0.3 * p * libm::exp(p) / (libm::exp(p) + 10.0)
}

fn levels(process: Process, n: usize) -> Vec<f64> {
    let level = |u: f64| match process {
        Process::Flow => u / (1.0 + u),
        Process::TrigFlow => libm::atan2(u, DATA),
        _ => u,
    };
    (0..=n)
        .map(|i| level(libm::exp(libm::log(4.0) + i as f64 / n as f64 * (libm::log(0.08) - libm::log(4.0)))))
        .collect()
}

/// Largest error of the noise-free walk, in f64.
fn error(
    solver: Solver,
    order: usize,
    process: Process,
    n: usize,
    sde_eta: f64,
    eta: impl Fn(f64) -> f64,
) -> f64 {
    let sigmas = Some(levels(process, n));
    let sde_eta = if solver.uses_sde_eta() { sde_eta } else { 1.0 };
    let plan = compile(PlanOptions { solver, order, sigmas, s_noise: 0.0, sde_eta, ..base(process) });
    let start: Vec<f64> = (0..9).map(|i| f64::from(i) / 2.0 - 2.0).collect();
    let x = oracle::walk64(&plan, &start, ONE.model64(&plan));
    let exact = |s: f64| mean_path(&plan.start(), &plan.end(), s, &eta);
    x.iter().zip(&start).map(|(x, s)| (x - exact(*s)).abs()).fold(0.0, f64::max)
}

const PROCESSES: [Process; 3] = [Process::Flow, Process::VpScaledLinear, Process::Edm];

#[test]
fn means_converge() {
    use Solver::*;
    // The multistep ones begin with one first-order step. Ancestral ones add eta squared of the noise.
    let cases: &[(Solver, usize, f64)] = &[
        (EulerAncestral, 0, 1.0),
        (Dpm2Ancestral, 0, 1.0),
        (DpmPP2SAncestral, 0, 1.0),
        (DpmPPSde, 0, 1.0),
        (DpmPP2MSde, 0, 2.0),
        (DpmPP2MSdeHeun, 0, 2.0),
        (DpmPP3MSde, 0, 2.0),
        (DpmSde, 1, 1.0),
        (DpmSde, 2, 2.0),
        (SaSolver, 1, 1.0),
        (SaSolver, 2, 2.0),
        (Seeds2, 0, 2.0),
        (Seeds3, 0, 3.0),
        (ErSde, 1, 1.0),
        (ErSde, 2, 2.0),
        (ErSde, 3, 2.0),
    ];
    let mut wrong = Vec::new();
    for &(solver, order, expected) in cases {
        for process in PROCESSES {
            let ancestral = matches!(solver, EulerAncestral | Dpm2Ancestral | DpmPP2SAncestral | DpmPPSde);
            let rate = if ancestral { 0.25 } else { 0.5 };
            let eta = |u| if solver == ErSde { extended(u) } else { rate };
            let (a, b) =
                (error(solver, order, process, 200, 0.5, eta), error(solver, order, process, 400, 0.5, eta));
            let found = libm::log2(a / b);
            println!("{} {} {order}: {a:.2e} {b:.2e} order {found:.2}", process.name(), solver.name());
            if (found - expected).abs() >= 0.2 {
                wrong.push(format!(
                    "{} {} {order}: {found:.2} not {expected} ({b:.1e})",
                    process.name(),
                    solver.name()
                ));
            }
        }
    }
    let rf = |n| error(EulerAncestralRf, 0, Process::Flow, n, 1.0, |_| 1.0);
    let found = libm::log2(rf(200) / rf(400));
    if (found - 1.0).abs() >= 0.2 {
        wrong.push(format!("euler_ancestral_rf: {found}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// With all of its noise the SDE's predicted x0 does not drift on average, so that methods which hold x0 are
/// exact in the mean for Gaussian data, however few steps they take.
#[test]
fn means_are_exact_where_x0_does_not_drift() {
    use Solver::*;
    for solver in
        [Ddpm, EulerAncestral, DpmPPSde, DpmPP2MSde, DpmPP2MSdeHeun, DpmPP3MSde, SaSolver, Seeds2, Seeds3]
    {
        for process in PROCESSES {
            let e = error(solver, 0, process, 7, 1.0, |_| 1.0);
            assert!(e < 1e-9, "{} {}: {e}", process.name(), solver.name());
        }
    }
}
