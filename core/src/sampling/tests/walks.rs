//! Walks of k-diffusion, torchdiffeq, torchsde and blackjax in f64 (tests/golden/make_walks.py), with the engine's
//! own random numbers.

use serde_json::Value;

use super::*;
use crate::random::row_seeds;

const WALKS: &str = include_str!("../../../../tests/golden/walks.json");

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn floats(v: &Value) -> Vec<f32> {
    numbers(v).iter().map(|x| *x as f32).collect()
}

/// A part of the file, and its cases.
fn part(name: &str) -> (Value, Vec<Value>) {
    let mut file: Value = serde_json::from_str(WALKS).unwrap();
    let part = file[name].take();
    let cases = part["cases"].as_array().unwrap().clone();
    (part, cases)
}

fn options(base: PlanOptions, given: &Value) -> PlanOptions {
    let mut o = base;
    for (name, value) in given.as_object().unwrap() {
        let value = match value {
            Value::String(s) => OptionValue::Name(s.clone()),
            Value::Number(n) => OptionValue::Number(n.as_f64().unwrap()),
            other => OptionValue::List(numbers(other)),
        };
        o.set(name, value).unwrap();
    }
    o
}

/// The largest difference over the greater of 1 and the size of what is expected.
fn difference(found: &[f32], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let size = expected.iter().fold(1.0f64, |a, x| a.max(x.abs()));
    found.iter().zip(expected).map(|(a, b)| (f64::from(*a) - b).abs() / size).fold(0.0, f64::max)
}

/// Every step that k-diffusion's DPM adaptive tried, accepted or not.
#[test]
fn dpm_adaptive_takes_the_steps_of_k_diffusion() {
    let (file, cases) = part("dpm");
    let start = floats(&file["start"]);
    let denoiser = |sigma: f64, x: f64| {
        libm::sin(1.3 * x / (1.0 + sigma))
            + 0.3 * libm::cos(2.0 * libm::log(sigma)) * x / (1.0 + sigma * sigma)
    };
    for case in &cases {
        let base = PlanOptions {
            process: Process::Ve,
            prediction: Prediction::X0,
            sigmas: Some(vec![10.0, 0.02]),
            ..Default::default()
        };
        let plan = compile(options(base, &case["options"]));
        let (levels, xs) = (numbers(&case["log_sigma"]), case["x"].as_array().unwrap());
        let n = start.len();
        let mut state = vec![0.0; plan.state_len(1, n).unwrap()];
        let mut run = Run::start(&plan, &[0], n, Some(&start), &mut state).unwrap();
        let (mut seen, mut worst, mut evals) = (0, [0.0f64; 2], 0);
        while let Ask::Eval(r) = run.ask(&plan).unwrap() {
            let x = run.input(&plan, &state).unwrap();
            let y: Vec<f32> = x.iter().map(|x| denoiser(r.sigma, f64::from(*x)) as f32).collect();
            run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
            evals += 1;
            if run.counters().rounds > seen {
                let i = seen as usize;
                worst[0] = worst[0].max((run.control[0].t + levels[i]).abs());
                worst[1] = worst[1].max(difference(&state[..n], &numbers(&xs[i])));
                seen += 1;
            }
        }
        let c = run.counters();
        println!("{}: {c:?}, off by {worst:?}", case["options"]);
        let counts = numbers(&case["counts"]);
        assert_eq!([c.accepts as f64, c.rejects as f64], counts[..]);
        assert!(worst[0] < 1e-5 && worst[1] < 1e-5, "{} {worst:?}", case["options"]);
        // A step tried again keeps its first evaluation, which k-diffusion asks for once more.
        let order = if plan.options().solver == Solver::Dpm12 { 2 } else { 3 };
        assert_eq!(evals, order * c.rounds - c.rejects);
    }
    assert!(cases.len() == 6 && cases.iter().any(|case| numbers(&case["counts"])[1] > 5.0));
}

/// A drift that jumps, integrated to 1e-10 by torchdiffeq with its `jump_t`; here with `stop_at`, either way.
#[test]
fn stops_are_the_jumps_of_torchdiffeq() {
    let drift = |t: f64, y: f64| match t {
        t if t < 0.7 => -y,
        t if t < 1.5 => 2.0 + libm::sin(5.0 * t) * y,
        t => -3.0 * y + t,
    };
    let (file, cases) = part("jumps");
    assert_eq!(cases.len(), 2);
    let start = floats(&file["start"]);
    for case in &cases {
        let times = numbers(&case["times"]);
        let (from, to) = (times[0], times[times.len() - 1]);
        let mut stops = vec![0.7, 1.5];
        if from > to {
            stops.reverse();
        }
        for solver in [Solver::Bosh3, Solver::Dopri5, Solver::Tsit5] {
            let walk = |stop_at: Option<Vec<f64>>| {
                let plan = compile(PlanOptions {
                    process: Process::Ode,
                    solver,
                    t_start: from,
                    t_end: to,
                    save_at: Some(times.clone()),
                    stop_at,
                    rtol: 1e-6,
                    atol: 1e-6,
                    ..Default::default()
                });
                let mut state = vec![0.0; plan.state_len(1, 3).unwrap()];
                let mut run = Run::start(&plan, &[0], 3, Some(&start), &mut state).unwrap();
                drive(&plan, &mut run, &mut state, |_, x, t, y| {
                    y.iter_mut().zip(x).for_each(|(y, x)| *y = drift(f64::from(t[0]), f64::from(*x)) as f32);
                    Ok(())
                })
                .unwrap();
                let expected: Vec<f64> = case["x"].as_array().unwrap().iter().flat_map(numbers).collect();
                (difference(run.saved(&plan, &state).unwrap(), &expected), run.counters())
            };
            let ((stopped, with), (blind, without)) = (walk(Some(stops.clone())), walk(None));
            println!("{} from {from}: {stopped:e} {with:?}, without {blind:e} {without:?}", solver.name());
            assert!(stopped < 1e-5, "{} {stopped:e}", solver.name());
            // Finding a jump by rejections costs more than being told.
            assert!(with.evals < without.evals, "{with:?} {without:?}");
        }
    }
}

/// Every step of torchsde's methods on the same increments.
#[test]
fn stochastic_walks_are_those_of_torchsde() {
    let (file, cases) = part("sde");
    let (start, seed) = (floats(&file["start"]), file["seed"].as_u64().unwrap());
    let n = start.len();
    for case in &cases {
        let additive = case["additive"].as_bool().unwrap();
        let xs = case["x"].as_array().unwrap();
        let plan = compile(PlanOptions {
            process: Process::Sde,
            solver: Solver::from_name(case["solver"].as_str().unwrap()).unwrap(),
            steps: xs.len() - 1,
            t_end: file["t_end"].as_f64().unwrap(),
            ..Default::default()
        });
        let mut state = vec![0.0; plan.state_len(1, n).unwrap()];
        let mut run = Run::start(&plan, &[seed], n, Some(&start), &mut state).unwrap();
        let mut worst = 0.0f64;
        while let Ask::Eval(r) = run.ask(&plan).unwrap() {
            if r.stage == 0 {
                worst = worst.max(difference(&state[..n], &numbers(&xs[r.step as usize])));
            }
            let x = run.input(&plan, &state).unwrap().iter().map(|x| f64::from(*x));
            let (mut f, mut g) = (Vec::new(), Vec::new());
            for x in x {
                f.push((libm::sin(x) + r.t) as f32);
                let noise = if additive { 0.5 + 0.5 * r.t } else { 0.4 + 0.3 * libm::cos(x) + 0.2 * r.t };
                g.push(noise as f32);
            }
            run.tell(&plan, &mut state, r.eval_id, &[f, g].concat()).unwrap();
        }
        worst = worst.max(difference(&state[..n], &numbers(&xs[xs.len() - 1])));
        println!("{}: {worst:e}", case["solver"]);
        assert!(worst < 1e-5, "{} {worst:e}", case["solver"]);
    }
    assert_eq!(cases.len(), 5);
}

/// Every iteration of blackjax's kernels with the same momenta and the same uniform numbers.
#[test]
fn chains_are_those_of_blackjax() {
    let density = |x: &[f32]| {
        let x: Vec<f64> = x.iter().map(|x| f64::from(*x)).collect();
        let mut gradient: Vec<f64> = x.iter().map(|x| -x).collect();
        let mut value = -0.5 * x.iter().map(|x| x * x).sum::<f64>();
        for i in 1..x.len() {
            let off = x[i] - 0.7 * x[i - 1] * x[i - 1];
            value -= 2.0 * off * off;
            gradient[i] -= 4.0 * off;
            gradient[i - 1] += 4.0 * off * 1.4 * x[i - 1];
        }
        (value, gradient)
    };
    let (file, cases) = part("chains");
    let [seed, rows, n] = ["seed", "rows", "dims"].map(|name| file[name].as_u64().unwrap() as usize);
    let seeds = row_seeds(seed as u64, rows);
    for case in &cases {
        let base =
            PlanOptions { process: Process::Target, prediction: Prediction::Score, ..Default::default() };
        let plan = compile(options(base, &case["options"]));
        let xs: Vec<Vec<f64>> = case["x"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rows| rows.as_array().unwrap().iter().flat_map(numbers).collect())
            .collect();
        let start: Vec<f32> = xs[0].iter().map(|x| *x as f32).collect();
        let mut state = vec![0.0; plan.state_len(rows, n).unwrap()];
        let mut run = Run::start(&plan, &seeds, n, Some(&start), &mut state).unwrap();
        let (mut worst, mut seen) = (0.0f64, 0);
        while let Ask::Eval(r) = run.ask(&plan).unwrap() {
            let (mut y, mut values) = (Vec::new(), Vec::new());
            for x in run.input(&plan, &state).unwrap().chunks(n) {
                let (value, gradient) = density(x);
                y.extend(gradient.iter().map(|g| *g as f32));
                values.push(value);
            }
            run.tell_with(&plan, &mut state, r.eval_id, &y, &values).unwrap();
            if run.counters().rounds > seen {
                seen += 1;
                worst = worst.max(difference(&state[..rows * n], &xs[seen as usize]));
            }
        }
        let taken = case["accepted"].as_array().unwrap().iter().flat_map(|row| row.as_array().unwrap());
        let taken = taken.filter(|v| **v == Value::Bool(true)).count() as u64;
        println!("{}: {taken} taken, off by {worst:e}", case["options"]);
        assert_eq!((seen as usize, run.counters().accepts), (xs.len() - 1, taken));
        assert!(run.counters().rejects > 5 && worst < 1e-5, "{:?} {worst:e}", run.counters());
    }
    assert_eq!(cases.len(), 2);
}
