//! The adaptive solver: tolerance, rejection, independence of rows, giving up.

use super::*;
use crate::Error;

fn plan(rtol: f64, atol: f64) -> Plan {
    compile(PlanOptions { solver: Solver::Bosh3, rtol, atol, ..Default::default() })
}

/// A velocity with a sudden bend at t = 0.45, placed and scaled by the row's x.
fn bend(r: &Request, x: &[f32], t: &[f32], y: &mut [f32]) -> Result<()> {
    for (row, (y, x)) in y.chunks_mut(r.elements).zip(x.chunks(r.elements)).enumerate() {
        let t = f64::from(t[row]);
        for (y, &x) in y.iter_mut().zip(x) {
            let x = f64::from(x);
            let wall = x * libm::tanh(60.0 * (t - 0.45));
            *y = (x * (1.0 + t) + 3.0 * wall) as f32;
        }
    }
    Ok(())
}

fn finished(
    plan: &Plan,
    start: &[f32],
    rows: usize,
    model: impl FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()>,
) -> (Vec<f32>, Counters) {
    let elements = start.len() / rows;
    let mut state = vec![0.0; plan.state_len(rows, elements).unwrap()];
    let mut run = Run::start(plan, &vec![0; rows], elements, Some(start), &mut state).unwrap();
    drive(plan, &mut run, &mut state, model).unwrap();
    (run.result(plan, &state).unwrap().to_vec(), run.counters())
}

#[test]
fn error_follows_the_tolerance() {
    let start: Vec<f32> = (0..33).map(|i| i as f32 / 8.0 - 2.0).collect();
    let mut last = f64::INFINITY;
    for tolerance in [1e-2, 1e-3, 1e-4, 1e-5] {
        let plan = plan(tolerance, tolerance);
        let (x, counters) = finished(&plan, &start, 1, GAUSSIAN.model(&plan));
        let exact = |s: f32| GAUSSIAN.carry(&plan.start(), &plan.end(), f64::from(s));
        let error = x.iter().zip(&start).map(|(&x, &s)| (f64::from(x) - exact(s)).abs()).fold(0.0, f64::max);
        println!("tolerance {tolerance:e}: error {error:.2e}, {counters:?}");
        assert!(error < 5.0 * tolerance && error < last, "{error} at {tolerance}");
        last = error;
    }
}

#[test]
fn rejected_steps_are_tried_again() {
    let plan = plan(1e-4, 1e-5);
    let (_, c) = finished(&plan, &[1.0, -0.5, 0.25], 1, bend);
    println!("{c:?}");
    assert!(c.rejects > 0 && c.accepts > c.rejects);
    // One evaluation to begin with, three a round: the last of a round is the first of the next,
    // and a rejected round keeps its first.
    assert_eq!(c.evals, 1 + 3 * c.rounds);
    assert_eq!(c.rounds, c.accepts + c.rejects);
}

/// Rows of different difficulty finish by themselves and have the bits they have alone.
#[test]
fn rows_do_not_disturb_each_other() {
    let plan = plan(1e-3, 1e-4);
    let start = [1.0, -0.5, 0.001, 0.002, 30.0, -20.0, 0.0, 0.0];
    let mut uneven = false;
    let (together, _) = finished(&plan, &start, 4, |r, x, t, y| {
        uneven |= !r.uniform_t && r.active_rows < 4;
        bend(r, x, t, y)?;
        // Finished rows may be told anything.
        for (row, y) in y.chunks_mut(2).enumerate() {
            if t[row] == 0.0 && r.active_rows < 4 && r.stage < 3 {
                y.fill(f32::NAN);
            }
        }
        Ok(())
    });
    assert!(uneven, "rows finish at different rounds");
    for row in 0..4 {
        let (alone, _) = finished(&plan, &start[2 * row..2 * row + 2], 1, bend);
        assert_eq!(alone, together[2 * row..2 * row + 2], "row {row}");
    }
}

#[test]
fn a_run_that_cannot_go_on_says_so() {
    let options =
        PlanOptions { solver: Solver::Bosh3, rtol: 1e-6, atol: 1e-7, max_evals: 20, ..Default::default() };
    let plan = compile(options.clone());
    let mut state = vec![0.0; plan.state_len(1, 1).unwrap()];
    let mut run = Run::start(&plan, &[0], 1, Some(&[1.0]), &mut state).unwrap();
    let error = drive(&plan, &mut run, &mut state, bend).unwrap_err();
    assert!(matches!(&error, Error::State(m) if m.contains("max_evals of 20")), "{error}");
    assert_eq!(run.counters().evals, 20);
    assert!(run.result(&plan, &state).unwrap()[0].is_finite());

    // A model that jumps at every look is not smooth anywhere.
    let plan = compile(PlanOptions { max_evals: 1_000_000, ..options });
    let mut run = Run::start(&plan, &[0], 1, Some(&[1.0]), &mut state).unwrap();
    let error = drive(&plan, &mut run, &mut state, |r, _, _, y| {
        y[0] = if r.eval_id % 2 == 0 { 1e30 } else { -1e30 };
        Ok(())
    });
    assert!(matches!(&error, Err(Error::State(m)) if m.contains("step size of row 0")), "{error:?}");
}

#[test]
fn guidance_and_clipping_work_adaptively() {
    let options = PlanOptions {
        solver: Solver::Bosh3,
        guidance: 2.0,
        clip: Some(3.0),
        times: Some(vec![1.0, 0.01]),
        ..Default::default()
    };
    let plan = compile(options);
    let start = [0.5, -1.0, 1.5];
    let (x, counters) = finished(&plan, &start, 1, GAUSSIAN.model(&plan));
    assert_eq!(counters.evals, 2 * (1 + 3 * counters.rounds));
    for (x, s) in x.iter().zip(start) {
        let exact = GAUSSIAN.carry(&plan.start(), &plan.end(), f64::from(s));
        assert!((f64::from(*x) - exact).abs() < 3e-3, "{x} {exact}");
    }
}
