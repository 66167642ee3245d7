//! Exchanges between temperatures: balance, chains of plans, bad arguments.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, array};

use crate::error::Error;
use crate::models::GaussianMixture;
use crate::random::{row_seeds, uniform};
use crate::sampling::{Plan, PlanOptions, Prediction, Process, Run, Solver, drive_with, replica_exchange};

const PAIRS: usize = 200_000;
/// Log densities of five states.
const LOGS: [f64; 5] = [0.0, -1.0, -0.2, -2.0, -0.7];

/// Twice how far the moves from pairs of states to their mirror images are from those back, in Pearson's measure:
/// of ten pairs about 10, with a deviation of 4.5, where the moves balance.
fn imbalance(drawn: [f64; 2], exchanged: [f64; 2]) -> f64 {
    let cumulative = |beta: f64| {
        let weights = LOGS.map(|l| libm::exp(beta * l));
        let sum: f64 = weights.iter().sum();
        let mut below = 0.0;
        weights.map(|w| {
            below += w / sum;
            below
        })
    };
    let at = drawn.map(cumulative);
    let (seeds, mut x) = (row_seeds(3, 2 * PAIRS), Array2::zeros((2 * PAIRS, 1)));
    uniform(&seeds, 9, 0, x.view_mut()).unwrap();
    for (row, x) in x.iter_mut().enumerate() {
        *x = at[row % 2].iter().position(|c| f64::from(*x) < *c).unwrap_or(4) as f32;
    }
    let before = x.clone();
    let mut logs: Vec<f64> = x.iter().map(|x| LOGS[*x as usize]).collect();
    let mut accepted = vec![false; PAIRS];
    replica_exchange(x.view_mut(), &mut logs, &exchanged, &seeds, 0, &mut accepted).unwrap();
    let mut moves = [[0.0; 5]; 5];
    for (pair, accepted) in accepted.iter().enumerate() {
        let [a, b] = [before[[2 * pair, 0]] as usize, before[[2 * pair + 1, 0]] as usize];
        let now = [x[[2 * pair, 0]] as usize, x[[2 * pair + 1, 0]] as usize];
        assert_eq!(now, if *accepted { [b, a] } else { [a, b] });
        assert_eq!(logs[2 * pair..][..2], now.map(|n| LOGS[n]));
        moves[a][b] += f64::from(u8::from(*accepted));
    }
    let mut sum = 0.0;
    for a in 0..5 {
        for b in 0..a {
            let (there, back) = (moves[a][b], moves[b][a]);
            sum += (there - back) * (there - back) / (there + back);
        }
    }
    sum
}

#[test]
fn every_move_is_balanced() {
    let balanced = imbalance([1.0, 0.4], [1.0, 0.4]);
    assert!(balanced < 10.0 + 5.0 * 4.5, "{balanced}");
    // Not where the temperatures are others than those drawn at.
    assert!(imbalance([1.0, 0.4], [1.0, 0.6]) > 100.0);
}

#[test]
fn pairs_alternate_and_ladders_stand_alone() {
    // Equal temperatures always change places.
    let walk = |step: u32, rows: usize| {
        let mut x = Array2::from_shape_fn((rows, 3), |(r, e)| (10 * r + e) as f32);
        let (mut logs, mut accepted) = (vec![0.0; rows], vec![false; rows / 5 * 4]);
        let seeds = row_seeds(1, rows);
        replica_exchange(x.view_mut(), &mut logs, &[1.0; 5], &seeds, step, &mut accepted).unwrap();
        (x.column(0).mapv(|x| x as usize / 10).to_vec(), accepted)
    };
    assert_eq!(walk(0, 5), (vec![1, 0, 3, 2, 4], vec![true, false, true, false]));
    assert_eq!(walk(1, 5), (vec![0, 2, 1, 4, 3], vec![false, true, false, true]));
    let (rows, _) = walk(7, 10);
    assert_eq!(rows, [0, 2, 1, 4, 3, 5, 7, 6, 9, 8]);
    // Any strides; a ladder of one has no pairs.
    let mut across = array![[1.0f32, 2.0], [3.0, 4.0]];
    replica_exchange(across.view_mut().reversed_axes(), &mut [0.0; 2], &[1.0, 1.0], &[1, 2], 0, &mut [false])
        .unwrap();
    assert_eq!(across, array![[2.0, 1.0], [4.0, 3.0]]);
    replica_exchange(across.view_mut(), &mut [0.0; 2], &[0.5], &[1, 2], 0, &mut []).unwrap();
    assert_eq!(across, array![[2.0, 1.0], [4.0, 3.0]]);
}

#[test]
fn impossible_states_never_become_colder() {
    let none = f64::NEG_INFINITY;
    let exchange = |logs: [f64; 2], betas: [f64; 2]| {
        let (mut x, mut logs, mut accepted) = (array![[0.0f32], [1.0]], logs, [false]);
        replica_exchange(x.view_mut(), &mut logs, &betas, &[5, 6], 0, &mut accepted).unwrap();
        accepted[0]
    };
    assert!(exchange([none, 0.0], [1.0, 0.5]));
    assert!(!exchange([0.0, none], [1.0, 0.5]));
    assert!(!exchange([none, none], [1.0, 0.5]));
    assert!(!exchange([0.0, none], [0.5, 0.5]));
}

/// Two modes that a cold chain does not travel between: Metropolis-adjusted Langevin chains of plans.
#[test]
fn chains_of_plans_cross_between_modes() {
    let mixture = GaussianMixture::new(&[0.3, 0.7], &[-3.0, 3.0], &[0.25, 0.25]).unwrap();
    let betas = [1.0, 0.4, 0.15, 0.05];
    let rows = 400 * betas.len();
    let plan = Plan::compile(&PlanOptions {
        process: Process::Target,
        prediction: Prediction::Score,
        solver: Solver::Mala,
        steps: 6,
        step_size: 0.2,
        ..Default::default()
    })
    .unwrap();
    let left = |exchange: bool| {
        // Every other ladder begins in the left mode.
        let mut x: Vec<f32> = (0..rows).map(|row| if row / 4 % 2 == 0 { -3.0 } else { 3.0 }).collect();
        let (mut logs, mut accepted) = (vec![0.0; rows], vec![false; 400 * 3]);
        for round in 0..200 {
            // A run of its own has seeds of its own.
            let seeds = row_seeds(u64::from(round) * 10_000, rows);
            let mut state = vec![0.0; plan.state_len(rows, 1).unwrap()];
            let mut run = Run::start(&plan, &seeds, 1, Some(&x), &mut state).unwrap();
            drive_with(&plan, &mut run, &mut state, |_, x, _, y, numbers| {
                let view = ArrayView2::from_shape((rows, 1), x).unwrap();
                mixture.score(1.0, 0.0, view, ArrayViewMut2::from_shape((rows, 1), &mut *y).unwrap())?;
                mixture.log_density(1.0, 0.0, view, numbers)?;
                for (row, (y, number)) in y.iter_mut().zip(numbers).enumerate() {
                    *y *= betas[row % 4] as f32;
                    *number *= betas[row % 4];
                }
                Ok(())
            })
            .unwrap();
            x.copy_from_slice(&state[..rows]);
            if exchange {
                let mut view = ArrayViewMut2::from_shape((rows, 1), &mut x).unwrap();
                mixture.log_density(1.0, 0.0, view.view(), &mut logs).unwrap();
                replica_exchange(view.view_mut(), &mut logs, &betas, &seeds, round, &mut accepted).unwrap();
            }
        }
        x.iter().step_by(4).filter(|x| **x < 0.0).count() as f64 / 400.0
    };
    assert_eq!(left(false), 0.5);
    let found = left(true);
    // Four deviations of a share of 400.
    assert!((found - 0.3).abs() < 4.0 * 0.023, "{found}");
}

#[test]
fn bad_exchanges_are_refused() {
    let (mut x, logs, seeds) = (array![[0.0f32], [1.0], [2.0], [3.0]], [0.0; 4], [1, 2, 3, 4]);
    let before = x.clone();
    let mut refuse = |logs: &mut [f64], betas: &[f64], seeds: &[u64], accepted: &mut [bool], what: &str| {
        let error: Error = replica_exchange(x.view_mut(), logs, betas, seeds, 0, accepted).unwrap_err();
        assert!(error.to_string().contains(what), "{error} does not name {what}");
        assert_eq!(x, before);
    };
    let two = &mut [false; 2][..];
    refuse(&mut logs.clone(), &[], &seeds, two, "inverse_temperatures has shape [0]");
    refuse(&mut logs.clone(), &[1.0; 3], &seeds, two, "inverse_temperatures has shape [3]");
    refuse(&mut logs.clone(), &[1.0, -1.0], &seeds, two, "inverse_temperatures is -1 at 1");
    refuse(&mut logs.clone(), &[f64::NAN, 1.0], &seeds, two, "inverse_temperatures is NaN at 0");
    refuse(&mut [0.0; 3], &[1.0, 0.5], &seeds, two, "log_density has shape [3], expected [4]");
    refuse(&mut logs.clone(), &[1.0, 0.5], &seeds[..3], two, "seeds has shape [3]");
    refuse(&mut logs.clone(), &[1.0, 0.5], &seeds, &mut [false; 3], "accepted has shape [3], expected [2]");
    refuse(&mut [0.0, f64::NAN, 0.0, 0.0], &[1.0, 0.5], &seeds, two, "log_density is NaN at row 1");
    refuse(&mut [0.0, f64::INFINITY, 0.0, 0.0], &[1.0, 0.5], &seeds, two, "log_density is inf at row 1");
}
