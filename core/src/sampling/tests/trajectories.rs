//! Whole trajectories of diffusers (tests/golden/make_trajectories.py): a model that does not contract,
//! noise that is a function of step and element.

use serde_json::Value;

use super::*;
use crate::sampling::table::{Operand, Row, Scale};

const TRAJECTORIES: &str = include_str!("../../../../tests/golden/trajectories.json");

fn model(x: f64, t: f64) -> f64 {
    (x * x - 0.5 * x + 0.3 * libm::cos(t / 50.0)) / (1.0 + x * x)
}

fn noise(step: usize, i: usize) -> f64 {
    1.2 * libm::sin(1.7 * (step + 1) as f64 + 2.3 * i as f64)
}

fn numbers(v: &Value) -> Vec<f64> {
    v.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn options(case: &Value) -> PlanOptions {
    let mut o = PlanOptions {
        steps: case["t"].as_array().unwrap().len(),
        compat: Compat::Diffusers,
        ..Default::default()
    };
    for (name, value) in case["options"].as_object().unwrap() {
        let value = match value {
            Value::String(s) => OptionValue::Name(s.clone()),
            Value::Number(n) => OptionValue::Number(n.as_f64().unwrap()),
            other => OptionValue::List(numbers(other)),
        };
        o.set(name, value).unwrap();
    }
    o
}

/// The noise that follows an evaluation: where it is added, its coefficient, whether what the model
/// said measures it.
#[derive(Clone, Copy, Default)]
struct Added {
    slot: usize,
    weight: f64,
    measured: bool,
}

fn additions(options: &PlanOptions) -> Vec<Added> {
    let plan = compile(PlanOptions { s_noise: 1.0, ..options.clone() });
    let mut all = Vec::new();
    for row in &plan.table().rows {
        match row {
            Row::Eval(_) => all.push(Added::default()),
            Row::Lin(lin) => {
                let mut terms = plan.table().terms(lin).iter();
                let found = terms.rfind(|t| matches!(t.operand, Operand::Noise | Operand::Draw(_)));
                if let (Some(t), Some(last), Operand::Slot(slot)) = (found, all.last_mut(), lin.dst) {
                    let measured = matches!(t.scale, Scale::Row(_));
                    *last = Added { slot: usize::from(slot), weight: t.coefficient, measured };
                }
            }
            _ => {}
        }
    }
    all
}

/// `sqrt(2 q)` of a Langevin step along `eps`.
fn langevin(snr: f64, eps: &[f32]) -> f64 {
    let square: f64 = eps.iter().map(|e| f64::from(*e) * f64::from(*e)).sum();
    2.0 * snr * libm::sqrt(eps.len() as f64 / square)
}

/// The largest difference to a trajectory, relative to its size.
fn difference(case: &Value) -> f64 {
    let options = PlanOptions { s_noise: 0.0, ..options(case) };
    let additions = additions(&options);
    let plan = compile(options);
    let xs: Vec<Vec<f64>> = case["x"].as_array().unwrap().iter().map(numbers).collect();
    let times = numbers(&case["t"]);
    let (ve, noisy) = (case["ve"] == Value::Bool(true), case["noisy"] == Value::Bool(true));
    let edm = plan.options().process == Process::Edm;
    let ours = |x: f64, alpha: f64| if ve && !edm { alpha * x } else { x };
    let start: Vec<f32> = xs[0].iter().map(|x| ours(*x, plan.start().alpha) as f32).collect();
    let n = start.len();
    let mut state = vec![0.0; plan.state_len(1, n).unwrap()];
    let mut run = Run::start(&plan, &[0], n, Some(&start), &mut state).unwrap();
    let (mut worst, mut index): (f64, usize) = (0.0, 0);
    let mut compare = |x: &[f32], want: &[f64], alpha: f64| {
        let size = want.iter().fold(1.0f64, |a, x| a.max(ours(*x, alpha).abs()));
        for (x, w) in x.iter().zip(want) {
            worst = worst.max((f64::from(*x) - ours(*w, alpha)).abs() / size);
        }
    };
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        // Singlestep methods and correctors hold the sample in another tensor: compare at the end.
        if r.slot == 0
            && !plan.options().solver.name().starts_with("unipc")
            && !plan.options().solver.name().ends_with("single")
        {
            compare(&state[..n], &xs[index], r.alpha);
        }
        assert!(
            (r.t - times[index]).abs() < 1e-3 * times[index].abs().max(0.1),
            "{}: time {} not {}",
            case["name"],
            r.t,
            times[index]
        );
        let read = &state[r.slot * n..(r.slot + 1) * n];
        let y: Vec<f32> = read.iter().map(|x| model(f64::from(*x), r.t) as f32).collect();
        run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
        if noisy {
            let Added { slot, weight, measured } = additions[index];
            let corrected = plan.options().solver == Solver::PredictorCorrector;
            // There all noise has the norm that is expected of it.
            let norm = libm::sqrt((0..n).map(|i| noise(index, i) * noise(index, i)).sum::<f64>());
            let unit = if corrected { libm::sqrt(n as f64) / norm } else { 1.0 };
            let length = if measured { langevin(plan.options().snr, &y) } else { 1.0 };
            // What the next corrector starts from has the noise of the predictor.
            let slots = if plan.options().solver == Solver::SaSolver { 0..2 } else { slot..slot + 1 };
            for x in state.chunks_mut(n).skip(slots.start).take(slots.len()) {
                x.iter_mut().enumerate().for_each(|(i, x)| {
                    *x = (f64::from(*x) + weight * length * unit * noise(index, i)) as f32;
                });
            }
        }
        index += 1;
    }
    compare(&state[..n], &xs[index], plan.end().alpha);
    worst
}

#[test]
fn trajectories_of_diffusers() {
    let file: Value = serde_json::from_str(TRAJECTORIES).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let d = difference(case);
        println!("{}: {d:.1e}", case["name"]);
        if d > 1e-5 {
            wrong.push(format!("{}: {d:e}", case["name"]));
        }
    }
    assert!(cases.len() > 45 && wrong.is_empty(), "{}", wrong.join("\n"));
}
