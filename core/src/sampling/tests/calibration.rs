//! Simulation-based calibration (Talts 2018): a truth drawn from the prior and data drawn from it; among draws of the
//! posterior the truth has every rank equally often. A linear model with Gaussian prior and noise.

use super::*;
use crate::random::{self, row_seeds};

/// Replications, rows of a batch; posterior draws of each; bins of their ranks.
const ROWS: usize = 1600;
const DRAWS: usize = 31;
const BINS: usize = 16;
/// Chi-square of 15 degrees of freedom that one in a thousand exceeds.
const LIMIT: f64 = 37.7;

const MATRIX: [[f64; 2]; 2] = [[1.0, 0.2], [-0.1, 0.8]];
const NOISE: f64 = 0.5;

/// Log density and gradient of `theta ~ N(0, 1)`, `y ~ N(MATRIX theta, NOISE^2)`.
fn posterior(theta: [f64; 2], y: &[f64; 2]) -> (f64, [f64; 2]) {
    let (mut value, mut gradient) = (-0.5 * (theta[0] * theta[0] + theta[1] * theta[1]), theta.map(|t| -t));
    for (row, y) in MATRIX.iter().zip(y) {
        let off = y - row[0] * theta[0] - row[1] * theta[1];
        value -= 0.5 * off * off / (NOISE * NOISE);
        gradient.iter_mut().zip(row).for_each(|(g, a)| *g += off * a / (NOISE * NOISE));
    }
    (value, gradient)
}

/// How the target is told.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Told {
    Right,
    /// Hotter by this factor.
    Heated(f64),
    /// With a log density that always grows: every proposal is taken.
    Untested,
}

/// Chi-square of the ranks of both parameters.
fn ranks(options: &PlanOptions, thin: usize, told: Told) -> [f64; 2] {
    let burn = options.steps - thin * DRAWS;
    let plan = compile(options.clone());
    let draw = |number: u32| {
        let mut z = ndarray::Array2::zeros((ROWS, 2));
        random::normal(&row_seeds(77, ROWS), 0, number, z.view_mut()).unwrap();
        z.mapv(f64::from)
    };
    let (truth, noise, start) = (draw(0), draw(1), draw(2));
    let data: Vec<[f64; 2]> = (0..ROWS)
        .map(|r| {
            std::array::from_fn(|i| {
                MATRIX[i][0] * truth[[r, 0]] + MATRIX[i][1] * truth[[r, 1]] + NOISE * noise[[r, i]]
            })
        })
        .collect();
    let start: Vec<f32> = start.iter().map(|x| *x as f32).collect();
    let mut state = vec![0.0; plan.state_len(ROWS, 2).unwrap()];
    let mut run = Run::start(&plan, &row_seeds(5, ROWS), 2, Some(&start), &mut state).unwrap();
    let (mut y, mut values, mut below, mut seen) =
        (vec![0.0; 2 * ROWS], vec![0.0; ROWS], vec![0usize; 2 * ROWS], 0);
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        for (row, x) in run.input(&plan, &state).unwrap().chunks(2).enumerate() {
            let (value, gradient) = posterior([f64::from(x[0]), f64::from(x[1])], &data[row]);
            let heat = if let Told::Heated(factor) = told { factor } else { 1.0 };
            values[row] = if told == Told::Untested { 100.0 * r.eval_id as f64 } else { value / heat };
            (0..2).for_each(|i| y[2 * row + i] = (gradient[i] / heat) as f32);
        }
        run.tell_with(&plan, &mut state, r.eval_id, &y, &values).unwrap();
        let rounds = run.counters().rounds as usize;
        if rounds > seen {
            seen = rounds;
            if rounds > burn && (rounds - burn).is_multiple_of(thin) {
                let x = run.result(&plan, &state).unwrap();
                below
                    .iter_mut()
                    .zip(x)
                    .zip(&truth)
                    .for_each(|((n, x), t)| *n += usize::from(f64::from(*x) < *t));
            }
        }
    }
    std::array::from_fn(|i| {
        let mut counts = [0.0; BINS];
        below.iter().skip(i).step_by(2).for_each(|rank| counts[rank * BINS / (DRAWS + 1)] += 1.0);
        let expected = ROWS as f64 / BINS as f64;
        counts.iter().map(|n| (n - expected) * (n - expected) / expected).sum()
    })
}

#[test]
fn ranks_are_uniform_and_show_what_is_wrong() {
    let target = |solver, step_size, steps| PlanOptions {
        process: Process::Target,
        prediction: Prediction::Score,
        solver,
        step_size,
        steps,
        ..Default::default()
    };
    // Steps long enough for the test to matter: e times the two frequencies is 1.5 and 1.2, a third to a quarter is
    // rejected. Thinned until draws are independent.
    for (options, thin) in [
        (PlanOptions { leapfrog: 3, ..target(Solver::Hmc, 0.65, 32 + 6 * DRAWS) }, 6),
        (target(Solver::Mala, 0.21, 32 + 8 * DRAWS), 8),
    ] {
        for told in [Told::Right, Told::Heated(1.5), Told::Heated(0.7), Told::Untested] {
            let found = ranks(&options, thin, told);
            println!("{} {told:?}: chi-square {found:?}", options.solver.name());
            match told {
                Told::Right => assert!(found.iter().all(|v| *v < LIMIT), "{found:?}"),
                _ => assert!(found.iter().all(|v| *v > 1.5 * LIMIT), "{told:?} {found:?}"),
            }
        }
    }
}
