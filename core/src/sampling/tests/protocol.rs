//! Misuse of ask and tell is an error value, and an error leaves run and state as they were.

use super::*;
use crate::Error;

fn started(rows: usize, elements: usize) -> (Plan, Run, Vec<f32>) {
    let plan = compile(PlanOptions { steps: 3, solver: Solver::Heun, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(rows, elements).unwrap()];
    let start = vec![0.5; rows * elements];
    let run = Run::start(&plan, &vec![1; rows], elements, Some(&start), &mut state).unwrap();
    (plan, run, state)
}

fn request(plan: &Plan, run: &Run) -> Request {
    match run.ask(plan).unwrap() {
        Ask::Eval(r) => r,
        Ask::Done => panic!("the run is done"),
    }
}

#[test]
fn misuse_changes_nothing() {
    let (plan, mut run, mut state) = started(2, 5);
    let y = vec![0.25; 10];
    let id = request(&plan, &run).eval_id;
    run.tell(&plan, &mut state, id, &y).unwrap();
    let (run_before, state_before) = (run.clone(), state.clone());
    let refused = |run: &mut Run, state: &mut [f32], id: u64, y: &[f32]| {
        let error = run.tell(&plan, state, id, y).unwrap_err();
        assert_eq!((&*run, &*state), (&run_before, &state_before[..]), "{error}");
        error
    };
    let twice = refused(&mut run, &mut state, id, &y);
    assert!(matches!(&twice, Error::State(m) if m.contains("told already")), "{twice}");
    let early = refused(&mut run, &mut state, id + 2, &y);
    assert!(matches!(&early, Error::State(m) if m.contains("not asked for")), "{early}");
    assert!(matches!(refused(&mut run, &mut state, 0, &y), Error::State(_)));
    assert!(matches!(refused(&mut run, &mut state, id + 1, &y[..9]), Error::Shape { .. }));
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut y = y.clone();
        y[7] = bad;
        let error = refused(&mut run, &mut state, id + 1, &y);
        assert!(
            matches!(&error, Error::State(m) if m.contains("row 1 at element 2, step 0 stage 1")),
            "{error}"
        );
    }
    let len = state.len();
    let error = run.tell(&plan, &mut state[..len - 1], id + 1, &y).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "state", .. }));
    let other = compile(PlanOptions { steps: 4, solver: Solver::Heun, ..Default::default() });
    assert!(matches!(run.ask(&other), Err(Error::State(_))));
    assert!(matches!(run.tell(&other, &mut state, id + 1, &y), Err(Error::State(_))));
    assert!(matches!(run.result(&other, &state), Err(Error::State(_))));
    run.tell(&plan, &mut state, id + 1, &y).unwrap();
}

/// The search is shared out; which number it names must not depend on that.
#[test]
fn the_first_number_that_is_not_finite_is_named() {
    let n = 300_001;
    let (plan, mut run, mut state) = started(3, n);
    let before = state.clone();
    let id = request(&plan, &run).eval_id;
    let mut y = vec![0.25; 3 * n];
    for (place, named) in [
        (3 * n - 1, format!("NaN in row 2 at element {}", n - 1)),
        (2 * n - 7, format!("NaN in row 1 at element {}", n - 7)),
        (n + 65_536, "NaN in row 1 at element 65536".to_string()),
        (n, "NaN in row 1 at element 0".to_string()),
        (70_000, "NaN in row 0 at element 70000".to_string()),
    ] {
        y[place] = f32::NAN;
        for threads in [1, 3] {
            crate::threads::set_num_threads(threads).unwrap();
            let error = run.tell(&plan, &mut state, id, &y).unwrap_err();
            assert!(matches!(&error, Error::State(m) if m.contains(&named)), "{named}: {error}");
        }
    }
    assert!(state == before);
}

/// Unchecked outputs: every plan that may leave the search out computes the same bits.
#[test]
fn finite_outputs_are_the_same_unseen() {
    let mut compared = 0;
    for plan in catalogue() {
        let options = PlanOptions { non_finite: NonFinite::Propagate, ..plan.options().clone() };
        let Ok(unseen) = Plan::compile(&options) else {
            assert!(plan.is_adaptive() || plan.is_tested());
            continue;
        };
        assert_ne!(unseen.hash(), plan.hash());
        let bits = |plan: &Plan| -> Vec<u32> {
            walk(plan, &[3, 4], None, 1027, toy).iter().map(|x| x.to_bits()).collect()
        };
        assert!(bits(&unseen) == bits(&plan), "{}", plan.options().solver.name());
        compared += 1;
    }
    assert!(compared > 50, "{compared}");
}

#[test]
fn outputs_that_are_not_finite_spread_where_asked() {
    for (solver, guidance) in [(Solver::Euler, 1.0), (Solver::Heun, 2.0)] {
        let non_finite = NonFinite::Propagate;
        let plan = compile(PlanOptions { steps: 3, solver, guidance, non_finite, ..Default::default() });
        let result = |bad: Option<f32>| {
            walk(&plan, &[1, 2], None, 100, |r, x, t, y| {
                toy(r, x, t, y)?;
                if let (Some(bad), 2) = (bad, r.eval_id) {
                    y[107] = bad;
                }
                Ok(())
            })
        };
        let clean = result(None);
        for bad in [f32::NAN, f32::INFINITY] {
            let spread = result(Some(bad));
            for (i, (a, b)) in spread.iter().zip(&clean).enumerate() {
                assert_eq!(a.is_finite(), i != 107, "{bad} at {i}");
                assert!(i == 107 || a == b, "{bad} at {i}: {a} {b}");
            }
        }
    }
    // What judges a step has to see.
    let none =
        |o: PlanOptions| Plan::compile(&PlanOptions { non_finite: NonFinite::Propagate, ..o }).is_err();
    assert!(none(PlanOptions { solver: Solver::Tsit5, ..Default::default() }));
    assert!(none(PlanOptions { solver: Solver::Hmc, ..base(Process::Target) }));
}

/// The next state written elsewhere is the one written in place.
#[test]
fn a_state_that_stays_gives_the_same_next_one() {
    for (rows, n) in [(2, 5), (3, 150_001)] {
        let (plan, mut run, mut state) = started(rows, n);
        let (y, mut to) = (vec![0.25; rows * n], vec![9.0; state.len()]);
        let id = request(&plan, &run).eval_id;
        assert!(run.tell_from(&plan, &state, &mut to[1..], id, &y).is_err());
        assert!(run.tell_from(&plan, &state, &mut to, id + 1, &y).is_err());
        let mut nan = y.clone();
        nan[rows * n - 1] = f32::NAN;
        assert!(run.tell_from(&plan, &state, &mut to, id, &nan).is_err());
        let before = state.clone();
        let mut twin = run.clone();
        twin.tell_from(&plan, &state, &mut to, id, &y).unwrap();
        assert!(state == before);
        run.tell(&plan, &mut state, id, &y).unwrap();
        assert!(to == state && twin == run);
    }
}

#[test]
fn requests_say_what_they_need() {
    let (plan, mut run, mut state) = started(2, 3);
    let mut seen = Vec::new();
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        assert_eq!(run.ask(&plan).unwrap(), Ask::Eval(r), "asking twice is the same question");
        let mut t = [0.0; 2];
        run.row_times(&plan, &mut t).unwrap();
        assert_eq!(t, [r.t as f32; 2]);
        assert!(r.uniform_t && r.active_rows == 2 && r.rows == 2 && r.elements == 3);
        assert_eq!(r.alpha + r.sigma, 1.0);
        seen.push((r.eval_id, r.step, r.stage, (r.t * 3.0).round() as i32));
        run.tell(&plan, &mut state, r.eval_id, &[0.0; 6]).unwrap();
    }
    assert_eq!(seen, [(1, 0, 0, 3), (2, 0, 1, 2), (3, 1, 0, 2), (4, 1, 1, 1), (5, 2, 0, 1), (6, 2, 1, 0)]);
    assert_eq!(run.counters().evals, 6);
    assert_eq!(plan.max_evals(), 6);
    assert!(matches!(run.tell(&plan, &mut state, 7, &[0.0; 6]), Err(Error::State(_))));
    assert!(run.row_times(&plan, &mut [0.0; 3]).is_err());
}

#[test]
fn bad_starts_are_refused() {
    let plan = compile(PlanOptions::default());
    let mut state = vec![0.0; 8];
    assert!(matches!(Run::start(&plan, &[], 8, None, &mut state), Err(Error::Range { arg: "rows", .. })));
    assert!(matches!(Run::start(&plan, &[1], 0, None, &mut []), Err(Error::Range { arg: "elements", .. })));
    let short = Run::start(&plan, &[1, 2], 3, None, &mut state);
    assert!(matches!(short, Err(Error::Shape { arg: "state", .. })));
    let start = Run::start(&plan, &[1, 2], 4, Some(&[0.0; 7]), &mut state);
    assert!(matches!(start, Err(Error::Shape { arg: "x_start", .. })));
    let start = Run::start(&plan, &[1], 8, Some(&[0., 0., 0., f32::NAN, 0., 0., 0., 0.]), &mut state);
    assert!(matches!(start, Err(Error::Range { arg: "x_start", .. })));
    assert!(plan.state_len(usize::MAX, 2).is_err());
    assert!(plan.state_len(usize::MAX / 4, 1).is_err());
    assert_eq!(state, [0.0; 8]);
}

/// Guidance mixes `u + g (c - u)` and asks twice.
#[test]
fn guidance_mixes_two_outputs() {
    let options = PlanOptions { steps: 1, guidance: 3.0, ..Default::default() };
    let plan = compile(options.clone());
    assert_eq!(plan.max_evals(), 2);
    let (c, u) = (0.5f32, 0.25f32);
    let mut roles = Vec::new();
    let x = walk(&plan, &[0], Some(&[1.0]), 1, |r, _, _, y| {
        roles.push(r.role);
        y[0] = if r.role == Role::Cond { c } else { u };
        Ok(())
    });
    assert_eq!(roles, [Role::Cond, Role::Uncond]);
    assert_eq!(x, [1.0 - (u + 3.0 * (c - u))]);
    assert_eq!(compile(PlanOptions { guidance: 1.0, ..options }).max_evals(), 1);
}

/// A model error stops the driver; the run goes on from there.
#[test]
fn a_failed_model_leaves_a_run_that_continues() {
    let plan = compile(PlanOptions { steps: 6, solver: Solver::DpmPP2M, ..Default::default() });
    let start = [0.3, -0.8, 1.2];
    let expected = walk(&plan, &[5], Some(&start), 3, toy);
    let mut state = vec![0.0; plan.state_len(1, 3).unwrap()];
    let mut run = Run::start(&plan, &[5], 3, Some(&start), &mut state).unwrap();
    let mut calls = 0;
    let outcome = drive(&plan, &mut run, &mut state, |r, x, t, y| {
        calls += 1;
        if calls == 4 { Err(Error::Cancelled) } else { toy(r, x, t, y) }
    });
    assert_eq!(outcome, Err(Error::Cancelled));
    assert_eq!(run.counters().evals, 3);
    drive(&plan, &mut run, &mut state, toy).unwrap();
    assert_eq!(run.result(&plan, &state).unwrap(), expected);
}

/// The clipped x0 bounds the result, whatever the model says.
#[test]
fn clipping_bounds_x0() {
    for solver in [Solver::Euler, Solver::Heun, Solver::Ddim, Solver::DpmPP2M, Solver::UniPC] {
        let plan = compile(PlanOptions { solver, steps: 4, clip: Some(0.75), ..Default::default() });
        let x = walk(&plan, &[0], Some(&[-9.0, 0.0, 9.0]), 3, |_, x, _, y| {
            y.iter_mut().zip(x).for_each(|(y, x)| *y = -30.0 * x);
            Ok(())
        });
        assert!(x.iter().all(|x| x.abs() <= 0.751), "{}: {x:?}", solver.name());
    }
}
