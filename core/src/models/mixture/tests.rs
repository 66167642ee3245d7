//! Against an oracle in f64, and whole walks against the callback driver.

use ndarray::{Array2, ArrayView2, ArrayViewMut2, array};

use super::GaussianMixture;
use crate::error::Error;
use crate::random::row_seeds;
use crate::sampling::{
    Ask, Guidance, Plan, PlanOptions, Prediction, Process, Run, Solver, Variance, drive_rows, drive_with,
    sample,
};

/// Three components of two dimensions, one of them narrow and light.
fn mixture() -> GaussianMixture {
    GaussianMixture::new(
        &[2.0, 1.0, 0.05],
        &[-1.5, 0.5, 2.0, 1.0, 0.0, -2.0],
        &[0.3, 0.2, 0.5, 1.0, 0.01, 0.02],
    )
    .unwrap()
}

/// `(log density, E x0, E eps)` of a row, by the definitions.
fn oracle(m: &GaussianMixture, alpha: f64, sigma: f64, x: &[f32]) -> (f64, Vec<f64>, Vec<f64>) {
    let d = m.dims;
    let mut logs = Vec::new();
    for k in 0..m.components() {
        let mut log = m.log_weights[k];
        for i in 0..d {
            let s = alpha * alpha * m.variances[k * d + i] + sigma * sigma;
            let e = f64::from(x[i]) - alpha * m.means[k * d + i];
            log += -0.5 * (e * e / s + libm::log(2.0 * std::f64::consts::PI * s));
        }
        logs.push(log);
    }
    let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logs.iter().map(|l| libm::exp(l - most)).sum();
    let (mut x0, mut eps) = (vec![0.0; d], vec![0.0; d]);
    for k in 0..m.components() {
        let r = libm::exp(logs[k] - most) / total;
        for i in 0..d {
            let (mean, v) = (m.means[k * d + i], m.variances[k * d + i]);
            let s = alpha * alpha * v + sigma * sigma;
            let e = f64::from(x[i]) - alpha * mean;
            x0[i] += r * (mean + alpha * v / s * e);
            eps[i] += r * sigma / s * e;
        }
    }
    (most + libm::log(total), x0, eps)
}

/// The target of a prediction, by its definition.
fn target(p: Prediction, alpha: f64, sigma: f64, data: f64, x: f64, x0: f64, eps: f64) -> f64 {
    let (q, n) = (libm::sqrt(sigma * sigma + alpha * alpha * data * data), libm::hypot(alpha, sigma / data));
    match p {
        Prediction::Epsilon => eps,
        Prediction::X0 => x0,
        Prediction::V => alpha * eps - sigma * x0,
        Prediction::Velocity => eps - x0,
        Prediction::Score => -eps / sigma,
        // x0 = c_skip x + c_out F
        Prediction::Edm => (x0 - alpha * data * data / (q * q) * x) * q / (sigma * data),
        Prediction::EdmV => -(x0 - alpha * data * data / (q * q) * x) * q / (sigma * data),
        Prediction::TrigFlow => (alpha * x / (n * n) - x0) * n / sigma,
        Prediction::Consistency => unreachable!("refused"),
    }
}

fn input_scale(p: Prediction, alpha: f64, sigma: f64, data: f64) -> f64 {
    match p {
        Prediction::Edm | Prediction::EdmV | Prediction::TrigFlow => 1.0 / libm::hypot(sigma, alpha * data),
        _ => 1.0,
    }
}

const LEVELS: [(f64, f64); 6] = [(1.0, 0.05), (0.8, 0.6), (0.3, 0.7), (0.01, 1.0), (1.0, 40.0), (0.0, 1.0)];

fn points(rows: usize, scale: f32) -> Array2<f32> {
    let mut x = Array2::zeros((rows, 2));
    crate::random::normal(&row_seeds(5, rows), 9, 0, x.view_mut()).unwrap();
    x * scale
}

#[test]
fn every_prediction_is_its_expectation() {
    let m = mixture();
    let x = points(77, 2.0);
    for &p in Prediction::ALL.iter().filter(|p| **p != Prediction::Consistency) {
        for (alpha, sigma) in LEVELS {
            let scale = input_scale(p, alpha, sigma, 0.7);
            let read = x.mapv(|v| (f64::from(v) * scale) as f32);
            let mut y = Array2::zeros(x.raw_dim());
            m.evaluate(p, alpha, sigma, 0.7, read.view(), y.view_mut()).unwrap();
            for (row, y) in read.rows().into_iter().zip(y.rows()) {
                let unscaled: Vec<f32> = row.iter().map(|v| (f64::from(*v) / scale) as f32).collect();
                let (_, x0, eps) = oracle(&m, alpha, sigma, &unscaled);
                for i in 0..2 {
                    let x = f64::from(unscaled[i]);
                    let want = target(p, alpha, sigma, 0.7, x, x0[i], eps[i]);
                    let error = (f64::from(y[i]) - want).abs();
                    // What rounding x changes, times the slope of the answer, bounds what f32 can reach.
                    let size =
                        want.abs() + (1.0 + x.abs()) * (1.0 + 1.0 / (alpha * alpha * 0.01 + sigma * sigma));
                    assert!(error <= 4e-6 * size, "{p:?} {alpha} {sigma} {x}: {} not {want}", y[i]);
                }
            }
        }
    }
}

#[test]
fn the_score_is_the_gradient_of_the_log_density() {
    let m = mixture();
    let x = points(40, 1.5);
    for (alpha, sigma) in [(1.0, 0.0), (0.8, 0.6), (0.3, 0.7)] {
        let mut score = Array2::zeros(x.raw_dim());
        m.score(alpha, sigma, x.view(), score.view_mut()).unwrap();
        let mut density = vec![0.0; 40];
        m.log_density(alpha, sigma, x.view(), &mut density).unwrap();
        for (row, x) in x.rows().into_iter().enumerate() {
            let (want, ..) = oracle(&m, alpha, sigma, x.as_slice().unwrap());
            assert!(
                (density[row] - want).abs() <= 1e-12 * want.abs().max(1.0),
                "{} not {want}",
                density[row]
            );
            for i in 0..2 {
                // A step that f32 holds, so that the difference of the places is exact.
                let at = |sign: f32| {
                    let mut moved = x.to_owned();
                    moved[i] += sign * 1e-3;
                    let mut out = [0.0];
                    let view = ArrayView2::from_shape((1, 2), moved.as_slice().unwrap()).unwrap();
                    m.log_density(alpha, sigma, view, &mut out).unwrap();
                    (f64::from(moved[i]), out[0])
                };
                let ((high, above), (low, below)) = (at(1.0), at(-1.0));
                let slope = (above - below) / (high - low);
                let got = f64::from(score[[row, i]]);
                assert!((got - slope).abs() < 2e-2 * (1.0 + slope.abs()), "{got} not {slope}");
            }
        }
    }
}

#[test]
fn a_row_does_not_depend_on_the_others() {
    let m = GaussianMixture::new(&[1.0, 3.0], &[0.0, 1.0, 2.0, -1.0, 0.0, 1.0], &[1.0, 0.1]).unwrap();
    let mut x = Array2::zeros((531, 3));
    crate::random::normal(&row_seeds(6, 531), 9, 0, x.view_mut()).unwrap();
    x[[3, 1]] = f32::NAN;
    x[[4, 0]] = f32::INFINITY;
    let mut y = Array2::zeros((531, 3));
    m.score(0.6, 0.8, x.view(), y.view_mut()).unwrap();
    for (x, y) in x.rows().into_iter().zip(y.rows()) {
        let mut alone = [0.0; 3];
        let row = ArrayView2::from_shape((1, 3), x.as_slice().unwrap()).unwrap();
        m.score(0.6, 0.8, row, ArrayViewMut2::from_shape((1, 3), &mut alone).unwrap()).unwrap();
        let bits = |v: &[f32]| v.iter().map(|v| if v.is_nan() { 1 } else { v.to_bits() }).collect::<Vec<_>>();
        assert_eq!(bits(&alone), bits(y.as_slice().unwrap()));
        assert_eq!(x.iter().all(|v| v.is_finite()), alone.iter().all(|v| v.is_finite()));
    }
}

/// Far from every component the nearest alone counts, without overflow.
#[test]
fn far_away_there_is_one_component() {
    let m = GaussianMixture::new(&[1.0, 1.0], &[-1.0, 1.0], &[1.0, 1.0]).unwrap();
    let (x, mut y) = (ndarray::array![[1e6f32], [-3e18]], Array2::zeros((2, 1)));
    m.score(1.0, 0.0, x.view(), y.view_mut()).unwrap();
    assert_eq!(y, ndarray::array![[-999_999.0], [3e18]]);
    let mut density = [0.0; 2];
    m.log_density(1.0, 0.0, x.view(), &mut density).unwrap();
    assert!(density.iter().all(|d| d.is_finite()));
}

fn named<T: std::fmt::Debug>(result: Result<T, Error>, what: &str) {
    let message = result.unwrap_err().to_string();
    assert!(message.contains(what), "{message} does not name {what}");
}

#[test]
fn bad_mixtures_are_refused() {
    let new = GaussianMixture::new;
    named(new(&[], &[1.0], &[1.0]), "weights");
    named(new(&[0.0], &[1.0], &[1.0]), "weights");
    named(new(&[1.0, f64::NAN], &[1.0, 2.0], &[1.0, 1.0]), "weights");
    named(new(&[f64::MAX, f64::MAX], &[1.0, 2.0], &[1.0, 1.0]), "weights");
    named(new(&[1.0], &[], &[1.0]), "means");
    named(new(&[1.0, 1.0], &[1.0, 2.0, 3.0], &[1.0, 1.0]), "means");
    named(new(&[1.0], &[f64::INFINITY], &[1.0]), "means");
    named(new(&[1.0, 1.0], &[1.0; 6], &[1.0; 3]), "variances");
    named(new(&[1.0], &[1.0], &[-1.0]), "variances");
    let m = mixture();
    let (x, mut y) = (Array2::zeros((3, 2)), Array2::zeros((3, 2)));
    named(m.score(-1.0, 1.0, x.view(), y.view_mut()), "alpha");
    named(m.score(1.0, f64::NAN, x.view(), y.view_mut()), "sigma");
    named(m.evaluate(Prediction::Edm, 1.0, 1.0, 0.0, x.view(), y.view_mut()), "sigma_data");
    named(m.evaluate(Prediction::Consistency, 1.0, 1.0, 0.5, x.view(), y.view_mut()), "prediction");
    named(m.score(1.0, 1.0, Array2::zeros((3, 3)).view(), y.view_mut()), "x");
    named(m.score(1.0, 1.0, x.view(), Array2::zeros((2, 2)).view_mut()), "out");
    named(m.score(1.0, 1.0, Array2::zeros((2, 3)).t(), y.view_mut()), "x");
    named(m.log_density(1.0, 1.0, x.view(), &mut [0.0; 2]), "log_density");
    let points = new(&[1.0], &[1.0, 0.0], &[0.0]).unwrap();
    points.score(1.0, 0.5, x.view(), y.view_mut()).unwrap();
    named(points.score(1.0, 0.0, x.view(), y.view_mut()), "variances");
}

fn options(process: Process, solver: Solver, prediction: Prediction) -> PlanOptions {
    let mut o = PlanOptions { process, solver, prediction, steps: 6, warmup: 2, ..Default::default() };
    match process {
        Process::VpTrained => o.betas = Some(vec![0.01; 100]),
        Process::VpContinuous | Process::SubVp => (o.beta_start, o.beta_end) = (0.1, 20.0),
        _ => {}
    }
    if !solver.tests_proposals() {
        o.warmup = 0;
    }
    o
}

/// Runs the callback driver and the blocks; their states and runs must be equal to the last bit.
fn compare(o: &PlanOptions, rows: usize) -> bool {
    let Ok(plan) = Plan::compile(o) else { return false };
    let m = mixture();
    let seeds = row_seeds(3, rows);
    let mut want = vec![0.0; plan.state_len(rows, 2).unwrap()];
    let mut got = want.clone();
    let mut told = Run::start(&plan, &seeds, 2, None, &mut want).unwrap();
    let mut run = Run::start(&plan, &seeds, 2, None, &mut got).unwrap();
    let driven = drive_with(&plan, &mut told, &mut want, |request, x, t, y, numbers| {
        m.predict(&plan, request, x, t, y, numbers)
    });
    let blocks = drive_rows(&plan, &mut run, &mut got, &m);
    if let Err(e) = driven {
        // What a mixture has no answer to: the same error.
        assert_eq!(Some(e), blocks.err(), "{o:?}");
        return false;
    }
    blocks.unwrap();
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&want), bits(&got), "{} {}", o.process.name(), o.solver.name());
    if matches!(o.solver, Solver::Dpm12 | Solver::Dpm23) {
        // A batch of which no row was accepted keeps an evaluation, and so does a block, which is more often.
        let (told, run) = (told.counters(), run.counters());
        assert_eq!((told.rounds, told.accepts, told.rejects), (run.rounds, run.accepts, run.rejects));
        assert!(told.evals >= run.evals && told.evals - run.evals < told.rounds, "{told:?} {run:?}");
    } else {
        assert_eq!(told, run, "{} {}", o.process.name(), o.solver.name());
    }
    assert!(run.is_done(&plan));
    true
}

#[test]
fn blocks_walk_as_a_batch_does() {
    let (mut walks, mut solvers) = (0, std::collections::BTreeSet::new());
    for threads in [1, 3] {
        crate::threads::set_num_threads(threads).unwrap();
        for &process in Process::ALL {
            for &solver in Solver::ALL {
                for prediction in
                    [Prediction::V, Prediction::Velocity, Prediction::Score, Prediction::TrigFlow]
                {
                    if compare(&options(process, solver, prediction), 61) {
                        walks += 1;
                        solvers.insert(solver.name());
                    }
                }
            }
        }
    }
    crate::threads::set_num_threads(2).unwrap();
    // All but the five of an sde and the flow map.
    assert_eq!(solvers.len(), Solver::ALL.len() - 6, "{solvers:?}");
    assert!(walks > 1000, "{walks}");
}

/// Rows that have arrived are given the time of the end, while others go on.
#[test]
fn finished_rows_stay_at_the_end() {
    let m = mixture();
    for solver in [Solver::Bosh3, Solver::Dopri5, Solver::Tsit5] {
        let plan = Plan::compile(&options(Process::Flow, solver, Prediction::Velocity)).unwrap();
        let mut state = vec![0.0; plan.state_len(200, 2).unwrap()];
        let (mut worst, mut waiting) = (0.0f32, 0);
        sample(&plan, &row_seeds(4, 200), 2, &mut state, |r, x, t, y| {
            worst = t.iter().fold(worst, |w, t| w.max(t - 1.0).max(-t));
            if r.active_rows < 200 {
                waiting += 1;
                assert!(t.iter().filter(|t| **t == 0.0).count() >= 200 - r.active_rows);
            }
            m.predict(&plan, r, x, t, y, &mut [])
        })
        .unwrap();
        assert!(worst == 0.0 && waiting > 0, "{}: {worst} {waiting}", solver.name());
    }
}

/// Long walks in several blocks a thread; what adapts, and what keeps x on the way.
#[test]
fn many_rows_walk_as_a_batch_does() {
    let base = PlanOptions { steps: 5, ..Default::default() };
    let target = PlanOptions { process: Process::Target, prediction: Prediction::Score, ..base.clone() };
    let all = [
        PlanOptions { solver: Solver::Ula, ..target.clone() },
        PlanOptions { solver: Solver::Mala, warmup: 3, ..target.clone() },
        PlanOptions { solver: Solver::Hmc, warmup: 3, leapfrog: 3, ..target },
        PlanOptions { solver: Solver::Dopri5, save_at: Some(vec![0.9, 0.4]), ..base.clone() },
        PlanOptions { clip: Some(1.0), solver: Solver::Heun, ..base.clone() },
        PlanOptions { threshold_ratio: 0.9, threshold_max: 2.0, ..base },
    ];
    for o in &all {
        assert!(compare(o, 1501), "{}", o.solver.name());
    }
}

/// The bits that every language must give: FNV-1a of the results' bytes, little-endian.
#[test]
fn walks_have_their_published_bits() {
    let target =
        PlanOptions { process: Process::Target, prediction: Prediction::Score, ..Default::default() };
    let vp = PlanOptions { process: Process::VpCosine, prediction: Prediction::V, ..Default::default() };
    let mut seen = 0;
    for line in include_str!("../../../../tests/golden/mixture.txt").lines().filter(|l| !l.starts_with('#')) {
        let (name, hash) = line.split_once(' ').unwrap();
        let o = match name {
            "ula" => PlanOptions { solver: Solver::Ula, steps: 50, ..target.clone() },
            "hmc" => PlanOptions { solver: Solver::Hmc, steps: 20, warmup: 10, ..target.clone() },
            "tsit5" => PlanOptions { solver: Solver::Tsit5, ..Default::default() },
            "ddpm" => PlanOptions { solver: Solver::Ddpm, steps: 20, ..vp.clone() },
            other => panic!("no walk {other}"),
        };
        let plan = Plan::compile(&o).unwrap();
        let mut state = vec![0.0; plan.state_len(300, 2).unwrap()];
        let mut run = Run::start(&plan, &row_seeds(7, 300), 2, None, &mut state).unwrap();
        drive_rows(&plan, &mut run, &mut state, &mixture()).unwrap();
        let bytes = state[..600].iter().flat_map(|v| v.to_le_bytes());
        let fnv =
            bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        assert_eq!(format!("{fnv:016x}"), hash, "{name}");
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// A row of a batch of short rows has the bits it has alone.
#[test]
fn short_rows_have_the_bits_of_rows_alone() {
    let m = mixture();
    for solver in [Solver::Euler, Solver::DpmPP2MSde, Solver::EulerAncestral, Solver::SaSolver, Solver::Ddim]
    {
        let mut o = options(Process::VpLinear, solver, Prediction::Epsilon);
        o.eta = if solver == Solver::Ddim { 1.0 } else { 0.0 };
        let plan = Plan::compile(&o).unwrap();
        let draw = |seeds: &[u64]| {
            let mut state = vec![0.0; plan.state_len(seeds.len(), 2).unwrap()];
            sample(&plan, seeds, 2, &mut state, |r, x, t, y| m.predict(&plan, r, x, t, y, &mut [])).unwrap();
            state[..2 * seeds.len()].to_vec()
        };
        let seeds = row_seeds(8, 600);
        let all = draw(&seeds);
        for row in (0..600).step_by(37) {
            assert_eq!(draw(&seeds[row..=row]), all[2 * row..2 * row + 2], "{} row {row}", solver.name());
        }
    }
}

#[test]
fn a_walk_can_begin_in_the_middle() {
    let m = mixture();
    for solver in [Solver::DpmPP2M, Solver::Tsit5, Solver::Rk4] {
        let plan = Plan::compile(&options(Process::Flow, solver, Prediction::Velocity)).unwrap();
        let mut state = vec![0.0; plan.state_len(40, 2).unwrap()];
        let mut run = Run::start(&plan, &row_seeds(1, 40), 2, None, &mut state).unwrap();
        let (mut y, mut t) = (vec![0.0; 80], vec![0.0; 40]);
        for _ in 0..3 {
            let Ask::Eval(request) = run.ask(&plan).unwrap() else { panic!("three evaluations are not all") };
            run.row_times(&plan, &mut t).unwrap();
            m.predict(&plan, &request, run.input(&plan, &state).unwrap(), &t, &mut y, &mut []).unwrap();
            run.tell(&plan, &mut state, request.eval_id, &y).unwrap();
        }
        let (mut rest, mut rest_state) = (run.clone(), state.clone());
        drive_rows(&plan, &mut rest, &mut rest_state, &m).unwrap();
        drive_with(&plan, &mut run, &mut state, |r, x, t, y, n| m.predict(&plan, r, x, t, y, n)).unwrap();
        assert_eq!((&run, &state), (&rest, &rest_state));
        // A run that is done stays as it is.
        drive_rows(&plan, &mut rest, &mut rest_state, &m).unwrap();
        assert_eq!((&run, &state), (&rest, &rest_state));
    }
}

#[test]
fn what_has_no_answer_is_refused() {
    let m = mixture();
    let try_with = |o: &PlanOptions, m: &GaussianMixture, elements: usize| {
        let plan = Plan::compile(o).unwrap();
        let mut state = vec![0.0; plan.state_len(4, elements).unwrap()];
        let mut run = Run::start(&plan, &[1, 2, 3, 4], elements, None, &mut state).unwrap();
        let before = (run.clone(), state.clone());
        let result = drive_rows(&plan, &mut run, &mut state, m);
        assert_eq!((run, state), before, "untouched");
        result
    };
    let base = PlanOptions { steps: 4, ..Default::default() };
    named(try_with(&base, &m, 3), "elements");
    named(try_with(&PlanOptions { process: Process::Ode, ..base.clone() }, &m, 2), "process");
    named(try_with(&PlanOptions { guidance: 2.0, ..base.clone() }, &m, 2), "guidance");
    named(
        try_with(&PlanOptions { guidance: 2.0, guidance_mode: Guidance::Auto, ..base.clone() }, &m, 2),
        "guidance",
    );
    named(try_with(&PlanOptions { guidance_weak: 2.0, ..base.clone() }, &m, 2), "guidance_weak");
    named(try_with(&PlanOptions { per_row: true, ..base.clone() }, &m, 2), "per_row");
    named(try_with(&PlanOptions { solver: Solver::FlowMap, ..base.clone() }, &m, 2), "flow_map");
    let vp = PlanOptions { process: Process::VpLinear, prediction: Prediction::Epsilon, ..base.clone() };
    let learned = PlanOptions { solver: Solver::Ddpm, variance: Variance::LearnedRange, ..vp };
    named(try_with(&learned, &m, 2), "variance");
    // A point has no density where the walk ends without noise, and where it walks one.
    let point = GaussianMixture::new(&[1.0], &[1.0, 0.0], &[0.0]).unwrap();
    let target = PlanOptions {
        process: Process::Target,
        prediction: Prediction::Score,
        solver: Solver::Ula,
        ..base.clone()
    };
    named(try_with(&target, &point, 2), "variances");
    let few = PlanOptions { solver: Solver::Dopri5, max_evals: 9, ..base };
    named(try_with(&few, &m, 2), "rows 0 to 3");
}

/// Samples have the moments of what was asked for.
#[test]
fn samples_are_the_mixtures() {
    let m = GaussianMixture::new(&[0.3, 0.7], &[-2.0, 0.0, 1.0, 1.0], &[0.1, 0.2]).unwrap();
    let rows = 4000;
    let walk = |o: PlanOptions| {
        let plan = Plan::compile(&o).unwrap();
        let mut state = vec![0.0; plan.state_len(rows, 2).unwrap()];
        let mut run = Run::start(&plan, &row_seeds(2, rows), 2, None, &mut state).unwrap();
        drive_rows(&plan, &mut run, &mut state, &m).unwrap();
        let left = state[..2 * rows].chunks(2).filter(|x| x[0] < -0.5).count();
        let mean =
            |i: usize| state[i..2 * rows].iter().step_by(2).map(|v| f64::from(*v)).sum::<f64>() / rows as f64;
        (left as f64 / rows as f64, mean(0), mean(1))
    };
    let base = PlanOptions { steps: 60, ..Default::default() };
    let vp = PlanOptions { process: Process::VpCosine, prediction: Prediction::V, ..base.clone() };
    for o in [
        base.clone(),
        PlanOptions { solver: Solver::Dopri5, ..base.clone() },
        PlanOptions { solver: Solver::DpmPP2MSde, ..vp.clone() },
        PlanOptions { solver: Solver::Ddpm, steps: 300, ..vp },
        PlanOptions { process: Process::Edm, prediction: Prediction::Edm, solver: Solver::Heun, ..base },
    ] {
        let (left, a, b) = walk(o.clone());
        let near = |got: f64, want: f64| (got - want).abs() < 0.06;
        assert!(near(left, 0.3) && near(a, 0.1) && near(b, 0.7), "{}: {left} {a} {b}", o.solver.name());
    }
}

#[test]
fn a_level_beyond_the_numbers_is_refused() {
    let mixture = GaussianMixture::new(&[1.0], &[0.0], &[1.0]).unwrap();
    let (x, mut out) = (array![[0.5f32]], array![[7.0f32]]);
    let error = mixture.score(1.0, 1e200, x.view(), out.view_mut()).unwrap_err();
    assert!(error.to_string().contains("variances"), "{error}");
    assert!(mixture.log_density(1e200, 0.0, x.view(), &mut [0.0]).is_err());
    assert_eq!(out, array![[7.0]]);
    let many = vec![1.0; (1 << 20) + 1];
    let error = GaussianMixture::new(&many, &many, &many).unwrap_err().to_string();
    assert!(error.contains("weights") && error.contains("1048576"), "{error}");
}

#[test]
fn scratch_of_one_mixture_serves_another() {
    use crate::sampling::RowModel;
    let plan = Plan::compile(&PlanOptions {
        process: Process::Target,
        prediction: Prediction::Score,
        solver: Solver::Ula,
        steps: 1,
        ..Default::default()
    })
    .unwrap();
    let mut state = vec![0.0; plan.state_len(1, 1).unwrap()];
    let run = Run::start(&plan, &[1], 1, Some(&[1.0]), &mut state).unwrap();
    let Ask::Eval(request) = run.ask(&plan).unwrap() else { panic!("nothing asked") };
    let mut scratch = Default::default();
    for mean in [0.0, 5.0] {
        let mixture = GaussianMixture::new(&[1.0], &[mean], &[1.0]).unwrap();
        let mut y = [0.0];
        RowModel::predict(&mixture, &plan, &request, &[1.0], &[0.0], &mut y, &mut [], &mut scratch).unwrap();
        assert_eq!(y, [mean as f32 - 1.0]);
        let wrong = RowModel::predict(&mixture, &plan, &request, &[], &[0.0], &mut y, &mut [], &mut scratch);
        assert!(wrong.unwrap_err().to_string().contains("x has shape [0]"));
    }
}
