//! Log densities along probability-flow ODEs against those of Gaussian mixtures.

use super::*;
use crate::random::{Purpose, row_seeds};

/// A mixture of three Gaussians of one deviation in the plane, carried by `dx = -x dt + sqrt(2) dW`.
const MEANS: [[f64; 2]; 3] = [[1.5, 0.0], [-1.0, 1.0], [0.0, -2.0]];
const WEIGHTS: [f64; 3] = [0.5, 0.3, 0.2];
const DEVIATION: f64 = 0.4;
const END: f64 = 10.0;

struct Moment {
    log_density: f64,
    score: [f64; 2],
    /// Matrix of second derivatives of the log density.
    hessian: [[f64; 2]; 2],
}

fn mixture(t: f64, x: [f64; 2]) -> Moment {
    let keep = libm::exp(-t);
    let v = keep * keep * DEVIATION * DEVIATION + 1.0 - keep * keep;
    let d: Vec<[f64; 2]> = MEANS.iter().map(|m| [keep * m[0] - x[0], keep * m[1] - x[1]]).collect();
    let parts: Vec<f64> = d
        .iter()
        .zip(WEIGHTS)
        .map(|(d, w)| {
            w * libm::exp(-(d[0] * d[0] + d[1] * d[1]) / (2.0 * v)) / (2.0 * std::f64::consts::PI * v)
        })
        .collect();
    let total: f64 = parts.iter().sum();
    let mut score = [0.0; 2];
    let mut hessian = [[0.0; 2]; 2];
    for (d, p) in d.iter().zip(&parts) {
        let r = p / total;
        for i in 0..2 {
            score[i] += r * d[i] / v;
            for j in 0..2 {
                hessian[i][j] += r * (d[i] * d[j] / (v * v) - if i == j { 1.0 / v } else { 0.0 });
            }
        }
    }
    for i in 0..2 {
        for j in 0..2 {
            hessian[i][j] -= score[i] * score[j];
        }
    }
    Moment { log_density: libm::log(total), score, hessian }
}

fn options(solver: Solver, likelihood: Likelihood) -> PlanOptions {
    let process = Process::Ode;
    PlanOptions { process, solver, likelihood, t_end: END, rtol: 1e-5, atol: 1e-5, ..Default::default() }
}

/// Walks and returns log densities, final x and counters; `probe` is read where there is one.
fn densities(plan: &Plan, seeds: &[u64], start: &[f32]) -> (Vec<f64>, Vec<f32>, Counters) {
    let rows = seeds.len();
    let mut state = vec![0.0; plan.state_len(rows, 2).unwrap()];
    let mut run = Run::start(plan, seeds, 2, Some(start), &mut state).unwrap();
    let mut probe = vec![0.0; 2 * rows];
    let exact = plan.options().likelihood == Likelihood::Exact;
    assert_eq!(run.probe(plan, &mut probe).is_err(), exact);
    drive_with(plan, &mut run, &mut state, |_, x, t, y, numbers| {
        for row in 0..rows {
            let m = mixture(f64::from(t[row]), [f64::from(x[2 * row]), f64::from(x[2 * row + 1])]);
            for i in 0..2 {
                y[2 * row + i] = (-f64::from(x[2 * row + i]) - m.score[i]) as f32;
            }
            let e = [f64::from(probe[2 * row]), f64::from(probe[2 * row + 1])];
            numbers[row] = match exact {
                true => -2.0 - m.hessian[0][0] - m.hessian[1][1],
                false => (0..2)
                    .flat_map(|i| (0..2).map(move |j| (i, j)))
                    .map(|(i, j)| e[i] * e[j] * (-m.hessian[i][j] - if i == j { 1.0 } else { 0.0 }))
                    .sum(),
            };
        }
        Ok(())
    })
    .unwrap();
    let mut out = vec![0.0; rows];
    run.log_density(plan, &state, &mut out).unwrap();
    (out, run.result(plan, &state).unwrap().to_vec(), run.counters())
}

const POINTS: [[f32; 2]; 5] = [[1.5, 0.0], [-0.8, 1.2], [0.2, -1.1], [2.5, 1.0], [0.0, 0.0]];

#[test]
fn a_mixture_has_its_density() {
    let seeds = row_seeds(5, POINTS.len());
    for solver in [Solver::Bosh3, Solver::Dopri5, Solver::Tsit5, Solver::Rk4, Solver::Rk5, Solver::Heun] {
        let steps = if solver == Solver::Heun { 4000 } else { 800 };
        let o = if solver.is_adaptive() {
            options(solver, Likelihood::Exact)
        } else {
            PlanOptions { steps, rtol: 1e-3, atol: 1e-4, ..options(solver, Likelihood::Exact) }
        };
        let plan = compile(o);
        let (found, x, c) = densities(&plan, &seeds, &POINTS.concat());
        for (p, found) in POINTS.iter().zip(&found) {
            let exact = mixture(0.0, p.map(f64::from)).log_density;
            println!("{} {p:?}: {found} {exact} {c:?}", solver.name());
            assert!((found - exact).abs() < 2e-3, "{} {found} {exact}", solver.name());
        }
        // A row has the bits it has alone.
        let (alone, y, _) = densities(&plan, &seeds[1..2], &POINTS[1]);
        assert_eq!((alone[0].to_bits(), &y[..]), (found[1].to_bits(), &x[2..4]));
    }
}

/// Many probes of one point agree with its density on average.
#[test]
fn probes_estimate_the_density() {
    const ROWS: usize = 4000;
    let seeds = row_seeds(6, ROWS);
    let start: Vec<f32> = POINTS[1].repeat(ROWS);
    let exact = mixture(0.0, POINTS[1].map(f64::from)).log_density;
    for likelihood in [Likelihood::Hutchinson, Likelihood::HutchinsonNormal] {
        let (found, _, _) = densities(&compile(options(Solver::Dopri5, likelihood)), &seeds, &start);
        let mean = found.iter().sum::<f64>() / ROWS as f64;
        let variance = found.iter().map(|f| (f - mean) * (f - mean)).sum::<f64>() / ROWS as f64;
        let bound = 4.0 * libm::sqrt(variance / ROWS as f64) + 2e-3;
        println!("{}: {mean} {exact}, within {bound}", likelihood.name());
        assert!(variance > 1e-4 && (mean - exact).abs() < bound);
    }
}

/// Probes are functions of the row's seed; +-1 or normals, as documented.
#[test]
fn probes_come_from_their_stream() {
    let plan = |likelihood| compile(options(Solver::Rk4, likelihood));
    let seeds = [3, 4];
    let probe = |plan: &Plan| {
        let mut state = vec![0.0; plan.state_len(2, 9).unwrap()];
        let run = Run::start(plan, &seeds, 9, None, &mut state).unwrap();
        let mut out = vec![0.0; 18];
        run.probe(plan, &mut out).unwrap();
        out
    };
    let signs = probe(&plan(Likelihood::Hutchinson));
    assert!(
        signs.iter().all(|v| v.abs() == 1.0) && signs.iter().any(|v| *v < 0.0) && signs[..9] != signs[9..]
    );
    let mut z = ndarray::Array2::zeros((2, 9));
    crate::random::normal(&seeds, Purpose::Probe as u32, 0, z.view_mut()).unwrap();
    assert_eq!(probe(&plan(Likelihood::HutchinsonNormal)), z.into_raw_vec_and_offset().0);
}

/// Steps are chosen by the density too: a velocity without x but with a divergence that bends.
#[test]
fn numbers_count_in_the_error() {
    let walk = |likelihood| {
        let plan = compile(PlanOptions { t_end: 1.0, ..options(Solver::Dopri5, likelihood) });
        let mut state = vec![0.0; plan.state_len(1, 1).unwrap()];
        let mut run = Run::start(&plan, &[1], 1, Some(&[0.5]), &mut state).unwrap();
        let exact = likelihood == Likelihood::Exact;
        drive_with(&plan, &mut run, &mut state, |_, _, t, y, numbers| {
            y[0] = 0.25;
            numbers.iter_mut().for_each(|n| *n = libm::sin(40.0 * f64::from(t[0])));
            Ok(())
        })
        .unwrap();
        if exact {
            let mut found = [0.0];
            run.divergence(&plan, &mut found).unwrap();
            assert!((found[0] - (1.0 - libm::cos(40.0)) / 40.0).abs() < 1e-4, "{found:?}");
        }
        run.counters().evals
    };
    assert!(walk(Likelihood::Exact) > 5 * walk(Likelihood::None));
}

#[test]
fn misuse_of_numbers_is_named() {
    let plan = compile(options(Solver::Dopri5, Likelihood::Exact));
    let mut state = vec![0.0; plan.state_len(2, 1).unwrap()];
    let mut run = Run::start(&plan, &[1, 2], 1, None, &mut state).unwrap();
    let before = (run.clone(), state.clone());
    assert!(run.tell(&plan, &mut state, 1, &[0.0; 2]).is_err());
    assert!(run.tell_with(&plan, &mut state, 1, &[0.0; 2], &[0.0]).is_err());
    assert!(run.tell_with(&plan, &mut state, 1, &[0.0; 2], &[0.0, f64::NAN]).is_err());
    assert!(run.log_density(&plan, &state, &mut [0.0; 2]).is_err());
    assert!(run.divergence(&plan, &mut [0.0; 1]).is_err());
    assert_eq!(before, (run.clone(), state.clone()));
    run.tell_with(&plan, &mut state, 1, &[0.0; 2], &[1.0, 2.0]).unwrap();
    // A checkpoint keeps the numbers.
    let block = run.export(&plan, &state).unwrap();
    let mut copy = vec![0.0; state.len()];
    assert_eq!(Run::import(&plan, &block, &mut copy).unwrap(), run);
    let flow = PlanOptions { likelihood: Likelihood::Exact, ..Default::default() };
    assert!(Plan::compile(&flow).is_err());
    assert!(plan.operations(0).is_err());
    let plain = compile(options(Solver::Dopri5, Likelihood::None));
    let mut run = Run::start(&plain, &[1, 2], 1, None, &mut state).unwrap();
    assert!(run.tell_with(&plain, &mut state, 1, &[0.0; 2], &[0.0; 2]).is_err());
    assert!(run.divergence(&plain, &mut [0.0; 2]).is_err());
}
