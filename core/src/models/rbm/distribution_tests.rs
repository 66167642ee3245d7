//! Chains against distributions that are summed up state by state.

use ndarray::{Array2, ArrayView1, ArrayView2};

use super::tests::{Known, gradient, machine, on_or_off};
use crate::random::row_seeds;
use crate::sampling::replica_exchange;

const VISIBLE: usize = 6;
const STATES: usize = 1 << VISIBLE;

fn state(n: usize) -> Vec<f32> {
    (0..VISIBLE).map(|i| (n >> i & 1) as f32).collect()
}

fn number(v: ArrayView1<f32>) -> usize {
    v.iter().enumerate().map(|(i, x)| (*x as usize) << i).sum()
}

/// The probabilities of all visible states at an inverse temperature.
fn exact(known: &Known, beta: f64) -> Vec<f64> {
    let weights: Vec<f64> = (0..STATES).map(|n| libm::exp(known.log_weight(&state(n), beta))).collect();
    let sum: f64 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Pearson's statistic: about 63, with a deviation of 11, where the states have these probabilities.
fn chi_square<'a>(rows: impl Iterator<Item = ArrayView1<'a, f32>>, p: &[f64]) -> f64 {
    let mut counts = [0.0; STATES];
    rows.for_each(|v| counts[number(v)] += 1.0);
    let n: f64 = counts.iter().sum();
    let term = |count: f64, expected: f64| (count - expected) * (count - expected) / expected;
    // States of small expected counts are one together, or the statistic is not what it is said to be.
    let (mut sum, mut rare) = (0.0, [0.0; 2]);
    for (count, p) in counts.iter().zip(p) {
        if n * p > 5.0 {
            sum += term(*count, n * p);
        } else {
            rare = [rare[0] + count, rare[1] + n * p];
        }
    }
    assert!(rare[1] < 0.01 * n, "few are rare");
    if rare[1] > 5.0 { sum + term(rare[0], rare[1]) } else { sum }
}

/// Five deviations above what is expected.
const MOST: f64 = 63.0 + 5.0 * 11.3;

#[test]
fn chains_reach_the_distribution() {
    let known = machine(VISIBLE, 4, 0.7);
    let (mut v, seeds) = (Array2::zeros((30_000, VISIBLE)), row_seeds(1, 30_000));
    known.rbm.gibbs(v.view_mut(), &seeds, 0, 40, &[], None).unwrap();
    let statistic = chi_square(v.rows().into_iter(), &exact(&known, 1.0));
    assert!(statistic < MOST, "{statistic}");
    // Not that of another temperature, which a test that sees anything tells apart.
    let statistic = chi_square(v.rows().into_iter(), &exact(&known, 0.9));
    assert!(statistic > MOST, "{statistic}");
}

const BETAS: [f64; 4] = [1.0, 0.7, 0.3, 0.0];

/// The statistic of every temperature after some steps of tempering, and how often pairs changed places.
fn temper(known: &Known, sign: f64) -> ([f64; 4], [f64; 3]) {
    const LADDERS: usize = 15_000;
    let rows = LADDERS * BETAS.len();
    let (seeds, mut v) = (row_seeds(2, rows), on_or_off(3, rows, VISIBLE));
    let (mut h, mut energy) = (Array2::zeros((rows, known.rbm.hidden())), vec![0.0; rows]);
    let (mut accepted, mut taken) = (vec![false; LADDERS * 3], [0.0; 3]);
    for step in 0..40 {
        known.rbm.gibbs(v.view_mut(), &seeds, step, 1, &BETAS, Some(h.view_mut())).unwrap();
        known.rbm.energy(v.view(), h.view(), &mut energy).unwrap();
        energy.iter_mut().for_each(|e| *e *= -sign);
        replica_exchange(v.view_mut(), &mut energy, &BETAS, &seeds, step, &mut accepted).unwrap();
        for (i, taken_now) in accepted.iter().enumerate() {
            // A pair is tried every other step.
            taken[i % 3] += f64::from(u8::from(*taken_now)) / (20 * LADDERS) as f64;
        }
    }
    let of = |t: usize| {
        let rows = v.rows().into_iter().skip(t).step_by(BETAS.len());
        chi_square(rows, &exact(known, BETAS[t]))
    };
    ([0, 1, 2, 3].map(of), taken)
}

#[test]
fn tempered_chains_keep_every_temperature() {
    let known = machine(VISIBLE, 4, 0.9);
    let (statistics, taken) = temper(&known, 1.0);
    assert!(statistics.iter().all(|x| *x < MOST), "{statistics:?}");
    assert!(taken.iter().all(|x| (0.3..0.999).contains(x)), "{taken:?}");
    // Exchanges of a wrong sign drive the temperatures off.
    let (statistics, _) = temper(&known, -1.0);
    assert!(statistics.iter().any(|x| *x > 10.0 * MOST), "{statistics:?}");
}

/// `ln p(data)` a row, the partition function summed up.
fn log_likelihood(known: &Known, data: ArrayView2<f32>) -> f64 {
    let log_sum = libm::log((0..STATES).map(|n| libm::exp(known.log_weight(&state(n), 1.0))).sum::<f64>());
    data.rows().into_iter().map(|v| known.log_weight(&v.to_vec(), 1.0)).sum::<f64>() / data.nrows() as f64
        - log_sum
}

/// With samples of the very distribution the gradient is that of the likelihood.
#[test]
fn with_exact_samples_it_is_the_gradient_of_the_likelihood() {
    let known = machine(VISIBLE, 4, 0.7);
    let data = on_or_off(4, 50, VISIBLE);
    // Every state as often as its probability says, in 2^18 rows or so.
    let mut rows = Vec::new();
    for (n, p) in exact(&known, 1.0).iter().enumerate() {
        (0..(p * 262_144.0).round() as usize).for_each(|_| rows.extend(state(n)));
    }
    let samples = Array2::from_shape_vec((rows.len() / VISIBLE, VISIBLE), rows).unwrap();
    let (dw, db, dc) = gradient(&known.rbm, data.view(), samples.view());
    // The parameters are f32: places that f32 holds exactly.
    let step = 1.0 / 1024.0;
    let slope = |change: &dyn Fn(&mut Known, f32)| {
        let at = |sign: f32| {
            let mut moved = machine(VISIBLE, 4, 0.7);
            change(&mut moved, sign * step);
            log_likelihood(&moved, data.view())
        };
        (at(1.0) - at(-1.0)) / (2.0 * f64::from(step))
    };
    let near = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 2e-4, "{got} not {want}");
    for i in 0..VISIBLE {
        near(db[i], slope(&|k, by| k.b[i] += by));
        for j in 0..4 {
            near(dw[[i, j]], slope(&|k, by| k.w[[i, j]] += by));
        }
    }
    for j in 0..4 {
        near(dc[j], slope(&|k, by| k.c[j] += by));
    }
    assert!(dw.iter().any(|x| x.abs() > 0.02), "a gradient to speak of");
}

/// Learning by chains that are kept (PCD) raises the exact likelihood.
#[test]
fn learning_raises_the_likelihood() {
    let mut known = machine(VISIBLE, 4, 0.3);
    // Three units that agree, and three that agree.
    let data = Array2::from_shape_fn((64, VISIBLE), |(r, i)| (if i < 3 { r & 1 } else { r >> 1 & 1 }) as f32);
    let before = log_likelihood(&known, data.view());
    let (seeds, mut chains) = (row_seeds(5, 64), data.clone());
    for step in 0..1500 {
        let rbm = super::Rbm::new(known.w.view(), &known.b, &known.c).unwrap();
        rbm.gibbs(chains.view_mut(), &seeds, step, 1, &[], None).unwrap();
        let (dw, db, dc) = gradient(&rbm, data.view(), chains.view());
        known.w.scaled_add(0.1, &dw);
        known.b.iter_mut().zip(db).for_each(|(b, d)| *b += 0.1 * d);
        known.c.iter_mut().zip(dc).for_each(|(c, d)| *c += 0.1 * d);
    }
    let after = log_likelihood(&known, data.view());
    // Four states of the same probability: nothing is above ln 1/4.
    assert!(before < -3.8 && after > -2.2 && after < -1.386, "{before} {after}");
}
