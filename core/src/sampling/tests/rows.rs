//! Rows at times of their own: whenever a row moves, it has the bits of a run alone.

use super::*;
use crate::Error;

const ROWS: usize = 4;
const ELEMENTS: usize = 67;

/// A model of the row alone: its own time, not the request's.
fn model(plan: &Plan, r: &Request, x: &[f32], t: &[f32], y: &mut [f32]) {
    toy(r, x, t, y).unwrap();
    assert_eq!(y.len(), x.len() * plan.outputs());
}

/// Known parts, where a plan keeps them.
fn know(plan: &Plan, run: &Run, state: &mut [f32]) {
    if plan.options().inpaint {
        let known: Vec<f32> = (0..ROWS * ELEMENTS).map(|i| (i % 5) as f32 - 2.0).collect();
        let mask: Vec<f32> = (0..ROWS * ELEMENTS).map(|i| (i % 4) as f32 / 3.0).collect();
        run.set_known(plan, state, &known, &mask).unwrap();
    }
}

/// Walks with a choice of rows for every round; returns x and how many rounds it took.
fn walk_rows(plan: &Plan, seeds: &[u64], choose: impl Fn(usize, &[usize]) -> Vec<bool>) -> (Vec<f32>, usize) {
    let mut state = vec![0.0; plan.state_len(ROWS, ELEMENTS).unwrap()];
    let mut run = Run::start(plan, seeds, ELEMENTS, None, &mut state).unwrap();
    know(plan, &run, &mut state);
    let (mut t, mut steps, mut active) = ([0.0; ROWS], [0; ROWS], [false; ROWS]);
    let mut rounds = 0;
    while !run.is_done(plan) {
        run.row_steps(plan, &mut steps).unwrap();
        let rows = choose(rounds, &steps);
        rounds += 1;
        run.select(plan, &rows).unwrap();
        // All evaluations of one step, as far as the selected rows have steps left.
        while let Ask::Eval(r) = run.ask(plan).unwrap() {
            run.row_times(plan, &mut t).unwrap();
            run.row_active(plan, &mut active).unwrap();
            assert_eq!(active.iter().filter(|a| **a).count(), r.active_rows);
            assert_eq!(r.uniform_t, t.iter().all(|v| *v == t[0]));
            let mut y = vec![0.0; ROWS * ELEMENTS * plan.outputs()];
            model(plan, &r, run.input(plan, &state).unwrap(), &t, &mut y);
            for (row, y) in y.chunks_mut(ELEMENTS * plan.outputs()).enumerate() {
                assert!(!active[row] || rows[row]);
                // What rows that do not move are told has no meaning.
                if !active[row] {
                    y.fill(f32::NAN);
                }
            }
            run.tell(plan, &mut state, r.eval_id, &y).unwrap();
            // A run of such a plan survives its bytes at any place.
            let block = run.export(plan, &state).unwrap();
            let mut again = vec![0.0; state.len()];
            assert_eq!(Run::import(plan, &block, &mut again).unwrap(), run);
            let inside = run.select(plan, &rows).is_err();
            let mut now = [0; ROWS];
            run.row_steps(plan, &mut now).unwrap();
            if !inside && now != steps {
                break;
            }
        }
    }
    assert_eq!(run.ask(plan).unwrap(), Ask::Done);
    (run.result(plan, &state).unwrap().to_vec(), rounds)
}

#[test]
fn rows_have_the_bits_of_a_run_together() {
    let seeds = [4, 5, 6, 7];
    let (mut checked, mut refused) = (0, Vec::new());
    for together in super::catalogue() {
        let options = PlanOptions { per_row: true, ..together.options().clone() };
        let plan = match Plan::compile(&options) {
            Ok(plan) => plan,
            Err(e) => {
                assert!(matches!(e, Error::Argument { arg: "solver", .. }), "{e}");
                refused.push(options.solver);
                continue;
            }
        };
        let mut t = [0.0; ROWS];
        let mut state = vec![0.0; together.state_len(ROWS, ELEMENTS).unwrap()];
        let mut run = Run::start(&together, &seeds, ELEMENTS, None, &mut state).unwrap();
        know(&together, &run, &mut state);
        let mut y = vec![0.0; ROWS * ELEMENTS * together.outputs()];
        while let Ask::Eval(r) = run.ask(&together).unwrap() {
            run.row_times(&together, &mut t).unwrap();
            model(&together, &r, run.input(&together, &state).unwrap(), &t, &mut y);
            run.tell(&together, &mut state, r.eval_id, &y).unwrap();
        }
        let expected = run.result(&together, &state).unwrap();
        let n = plan.steps();
        // A pyramid: row r begins r rounds later; and a walk without order.
        let (pyramid, rounds) = walk_rows(&plan, &seeds, |round, _| (0..ROWS).map(|r| round >= r).collect());
        assert_eq!(rounds, n + ROWS - 1);
        let (mixed, _) = walk_rows(&plan, &seeds, |round, steps| {
            let turn = (round * 7 / 3) % ROWS;
            (0..ROWS).map(|r| (r + round) % 3 == 0 || (r == turn && steps[r] < n)).collect()
        });
        for x in [pyramid, mixed] {
            assert!(x.iter().zip(expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{plan}");
        }
        checked += 1;
    }
    refused.dedup();
    assert!(checked > 120, "{checked}");
    assert_eq!(
        refused,
        [
            Solver::Bosh3,
            Solver::Dopri5,
            Solver::Tsit5,
            Solver::Mala,
            Solver::Hmc,
            Solver::Dpm12,
            Solver::Dpm23
        ]
    );
}

#[test]
fn finished_rows_stay_and_say_their_time() {
    let plan = compile(PlanOptions { steps: 3, per_row: true, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(2, 1).unwrap()];
    let mut run = Run::start(&plan, &[1, 2], 1, Some(&[5.0, 1.0]), &mut state).unwrap();
    run.finish_rows(&plan, &[true, false]).unwrap();
    let (mut t, mut steps, mut seen) = ([0.0; 2], [0; 2], Vec::new());
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        run.row_times(&plan, &mut t).unwrap();
        run.row_steps(&plan, &mut steps).unwrap();
        assert_eq!((r.active_rows, r.uniform_t, t[0], steps[0]), (1, false, 0.0, 3));
        assert_eq!(r.t as f32, t[1]);
        seen.push(steps[1]);
        run.tell(&plan, &mut state, r.eval_id, &[f32::NAN, 1.0]).unwrap();
    }
    assert_eq!(seen, [0, 1, 2]);
    let x = run.result(&plan, &state).unwrap();
    assert!(x[0] == 5.0 && x[1].abs() < 1e-6);
    run.finish_rows(&plan, &[true, true]).unwrap();
}

#[test]
fn misuse_changes_nothing() {
    let options = PlanOptions { solver: Solver::Heun, steps: 2, per_row: true, ..Default::default() };
    let plan = compile(options.clone());
    let mut state = vec![0.0; plan.state_len(2, 1).unwrap()];
    let mut run = Run::start(&plan, &[1, 2], 1, None, &mut state).unwrap();
    assert!(matches!(run.select(&plan, &[true]), Err(Error::Shape { arg: "rows", .. })));
    assert!(matches!(run.row_steps(&plan, &mut [0]), Err(Error::Shape { arg: "steps", .. })));
    assert!(matches!(run.row_active(&plan, &mut [true; 3]), Err(Error::Shape { arg: "active", .. })));
    assert!(matches!(plan.operations(1), Err(Error::Argument { arg: "per_row", .. })));
    assert!(matches!(Run::start_detached(&plan, &[1], 1), Err(Error::Argument { arg: "per_row", .. })));
    // Nobody selected: nothing to ask, and that is said; selecting again goes on.
    run.select(&plan, &[false, false]).unwrap();
    let error = run.ask(&plan).unwrap_err();
    assert!(matches!(&error, Error::State(m) if m.contains("no selected row")), "{error}");
    assert!(matches!(run.tell(&plan, &mut state, 1, &[0.0; 2]), Err(Error::State(_))));
    let block = run.export(&plan, &state).unwrap();
    assert_eq!(Run::import(&plan, &block, &mut state).unwrap(), run);
    run.select(&plan, &[true, false]).unwrap();
    run.tell(&plan, &mut state, 1, &[0.5, f32::NAN]).unwrap();
    let before = run.clone();
    let error = run.select(&plan, &[true, true]).unwrap_err();
    assert!(matches!(&error, Error::State(m) if m.contains("row 0 is inside a step")), "{error}");
    assert!(run.finish_rows(&plan, &[true, true]).is_err());
    let error = run.tell(&plan, &mut state, 2, &[f32::NAN, 0.0]).unwrap_err();
    assert!(matches!(&error, Error::State(m) if m.contains("row 0 at element 0, step 0 stage 1")), "{error}");
    assert_eq!(run, before);
    let other = compile(PlanOptions { per_row: false, ..options });
    let mut run = Run::start(&other, &[1, 2], 1, None, &mut state).unwrap();
    assert!(matches!(run.select(&other, &[true, true]), Err(Error::State(_))));
    assert!(matches!(run.finish_rows(&plan, &[true, true]), Err(Error::State(_))));
    let (mut steps, mut active) = ([9; 2], [false; 2]);
    run.row_steps(&other, &mut steps).unwrap();
    run.row_active(&other, &mut active).unwrap();
    assert_eq!((steps, active), ([0; 2], [true; 2]));
}

/// Bytes that no run of rows has are refused.
#[test]
fn damaged_places_are_refused() {
    let plan = compile(PlanOptions { steps: 2, solver: Solver::Heun, per_row: true, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(2, 1).unwrap()];
    let run = Run::start(&plan, &[1, 2], 1, None, &mut state).unwrap();
    let len = Run::header_len(&plan, 2).unwrap();
    let mut bytes = vec![0; len];
    run.encode(&plan, &mut bytes).unwrap();
    assert_eq!(Run::decode(&plan, &bytes).unwrap(), run);
    // Row 0: its position at 88, its flags at 96.
    let mut refused = 0;
    for at in [88, 96] {
        for value in 0..40u8 {
            let mut bytes = bytes.clone();
            if bytes[at] == value {
                continue;
            }
            bytes[at] = value;
            let crc = crc32fast::hash(&bytes[..len - 8]);
            bytes[len - 8..].copy_from_slice(&u64::from(crc).to_le_bytes());
            match Run::decode(&plan, &bytes) {
                Err(Error::Format { .. }) => refused += 1,
                Err(e) => panic!("{e}"),
                Ok(run) => drop(run.ask(&plan)),
            }
        }
    }
    assert!(refused > 60, "{refused}");
}
