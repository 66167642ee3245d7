//! Every schedule, solver and number of steps gives finite numbers, or is refused with a reason.

use super::*;
use crate::Error;

fn spacings(process: Process) -> Vec<Spacing> {
    let options = |spacing| PlanOptions { spacing, steps: 10, ..base(process) };
    Spacing::ALL.iter().copied().filter(|&spacing| Plan::compile(&options(spacing)).is_ok()).collect()
}

/// Walks every schedule and solver with the lengths that `steps` gives for their numbers; returns how many.
fn walk_all(lengths: impl Fn(usize, usize, usize) -> Vec<usize>) -> usize {
    let mut tried = 0;
    for (p, &process) in Process::ALL.iter().enumerate() {
        for (k, &spacing) in spacings(process).iter().enumerate() {
            for (i, &solver) in Solver::ALL.iter().enumerate() {
                if !fits(solver, process) || solver.is_adaptive() {
                    continue;
                }
                for steps in lengths(p, k, i) {
                    let final_sigma =
                        if (i + k + steps) % 3 == 0 { FinalSigma::Min } else { FinalSigma::Zero };
                    let options = PlanOptions { solver, spacing, steps, final_sigma, ..base(process) };
                    let plan = match Plan::compile(&options) {
                        Ok(plan) => plan,
                        Err(Error::Argument { .. } | Error::Range { .. })
                            if solver.is_inverse() || steps > 50 =>
                        {
                            continue;
                        }
                        Err(e) => panic!("{e}: {options:?}"),
                    };
                    let sigma = plan.start().sigma as f32;
                    let start = [-sigma, 0.1 * sigma, sigma, 2.0 * sigma];
                    let x = walk(&plan, &[3, 4], Some(&start), 2, GAUSSIAN.model(&plan));
                    assert!(x.iter().all(|x| x.is_finite()), "{x:?}\n{plan}");
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} walks");
    tried
}

/// Short walks always, the longer ones in turn: 60 lengths over all solvers.
#[test]
fn every_schedule_solver_and_length() {
    let tried = walk_all(|p, k, i| vec![1, 2, 3, 4 + (7 * i + 13 * k + 29 * p) % 57]);
    assert!(tried > 10_000);
}

/// The whole product: `make exhaustive`.
#[test]
#[ignore = "minutes"]
fn exhaustive_every_schedule_solver_and_length() {
    let tried = walk_all(|_, _, _| (1..=60).collect());
    assert!(tried > 150_000);
}

/// One-step methods and those made for few steps stay near the data.
#[test]
fn every_length_and_ending_works() {
    for &solver in Solver::ALL.iter().filter(|s| !s.is_adaptive() && !s.is_inverse()) {
        for steps in 1..=24 {
            for (process, spacing) in [
                (Process::Flow, Spacing::Uniform),
                (Process::VpLinear, Spacing::Uniform),
                (Process::VpScaledLinear, Spacing::Leading),
                (Process::VpCosine, Spacing::Trailing),
            ] {
                if !fits(solver, process) {
                    continue;
                }
                let prediction = if process == Process::Flow { Prediction::Velocity } else { Prediction::V };
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
                // Explicit methods in sigma/alpha are unstable on a few huge steps.
                let explicit = matches!(
                    solver,
                    Solver::Midpoint
                        | Solver::Heun
                        | Solver::Rk4
                        | Solver::Lms
                        | Solver::Ipndm
                        | Solver::Plms
                        | Solver::Pndm
                        | Solver::Dpm2
                        | Solver::Dpm
                        | Solver::DpmSingle
                        | Solver::DpmSde
                        | Solver::Deis
                        | Solver::GradientEstimation
                        | Solver::Dpm2Ancestral
                        | Solver::PredictorCorrector
                        | Solver::Rk5
                );
                let ok = x.iter().all(|x| x.is_finite() && (explicit || x.abs() < 10.0));
                assert!(ok, "{} {} {steps}: {x:?}", process.name(), solver.name());
            }
        }
    }
}
