//! Outputs of one input told at once: the bits of outputs told one after the other.

use super::*;
use crate::Error;

const ROWS: usize = 3;
const N: usize = 7;
const SEEDS: [u64; ROWS] = [5, 6, 7];

/// A model that contracts, and depends on its role.
pub(super) fn output(request: &Request, x: &[f32], y: &mut [f32]) {
    let shift = [0.3, -0.2, 0.1][request.role as usize];
    y.iter_mut()
        .zip(x)
        .enumerate()
        .for_each(|(i, (y, x))| *y = 0.4 * libm::sinf(x + shift) - 0.01 * i as f32);
}

pub(super) fn request(plan: &Plan, run: &Run) -> Option<Request> {
    match run.ask(plan).unwrap() {
        Ask::Eval(request) => Some(request),
        Ask::Done => None,
    }
}

/// The plans of every solver and process with these options of guidance, plain, and clipped with a part that is known;
/// each with its options as text.
pub(super) fn plans_with(guidance: &PlanOptions, steps: usize) -> impl Iterator<Item = (Plan, String)> {
    let solvers = |&process: &Process| Solver::ALL.iter().map(move |&solver| (process, solver));
    let edits = [(None, false), (Some(1.5), true)];
    let all = Process::ALL.iter().flat_map(solvers).flat_map(move |which| edits.map(|edit| (which, edit)));
    all.filter(|((process, solver), _)| fits(*solver, *process)).filter_map(
        move |((process, solver), (clip, inpaint))| {
            let PlanOptions { prediction, spacing, .. } = base(process);
            let guidance = guidance.clone();
            let options =
                PlanOptions { solver, steps, clip, inpaint, process, prediction, spacing, ..guidance };
            Some((Plan::compile(&options).ok()?, format!("{options:?}")))
        },
    )
}

pub(super) fn guidances() -> Vec<PlanOptions> {
    let guided = |guidance_mode| PlanOptions { guidance: 3.0, guidance_mode, ..Default::default() };
    let cfg = || guided(Guidance::Cfg);
    vec![
        cfg(),
        PlanOptions { guidance: 0.0, ..cfg() },
        PlanOptions { guidance_rescale: 0.7, ..cfg() },
        PlanOptions { guidance_start: 0.2, guidance_end: 0.7, ..cfg() },
        PlanOptions { guidance_weak: 1.5, ..cfg() },
        PlanOptions { guidance: 1.0, guidance_weak: 1.5, ..cfg() },
        PlanOptions { zero_init_steps: 2, ..guided(Guidance::CfgZero) },
        guided(Guidance::CfgPlusPlus),
        guided(Guidance::Apg),
        guided(Guidance::Auto),
    ]
}

/// Walks both ways; returns how many outputs came with another.
fn compare(plan: &Plan, context: &str) -> usize {
    let len = ROWS * N;
    let mut states = [0, 1].map(|_| vec![0.0; plan.state_len(ROWS, N).unwrap()]);
    let [mut alone, mut joined] = states.each_mut().map(|s| Run::start(plan, &SEEDS, N, None, s).unwrap());
    let mut more = 0;
    while let Some(first) = request(plan, &joined) {
        let mut outputs = Vec::new();
        for expected in first.together() {
            let asked = request(plan, &alone).unwrap();
            assert_eq!(asked, expected, "{context}");
            assert_eq!(
                alone.input(plan, &states[0]).unwrap(),
                joined.input(plan, &states[1]).unwrap(),
                "{context}"
            );
            let mut y = vec![0.0; len * plan.outputs()];
            output(&asked, alone.input(plan, &states[0]).unwrap(), &mut y);
            alone.tell(plan, &mut states[0], asked.eval_id, &y).unwrap();
            outputs.extend(y);
        }
        more += first.together().count() - 1;
        joined.tell(plan, &mut states[1], first.eval_id, &outputs).unwrap();
        assert_eq!(alone, joined, "{context}");
        let results = [alone.result(plan, &states[0]).unwrap(), joined.result(plan, &states[1]).unwrap()];
        let [a, b] = results.map(|x| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>());
        assert_eq!(a, b, "{context}");
    }
    assert!(request(plan, &alone).is_none());
    more
}

#[test]
fn every_solver_and_guidance_has_the_same_bits() {
    let (mut plans, mut more) = (0, 0);
    for guidance in guidances() {
        for (plan, context) in plans_with(&guidance, 6) {
            plans += 1;
            more += compare(&plan, &context);
        }
    }
    println!("{plans} plans, {more} outputs beside others");
    assert!(plans > 1000 && more > 5 * plans);
}

#[test]
fn several_tasks_and_threads_have_the_same_bits() {
    let plan = compile(PlanOptions { steps: 2, guidance: 2.5, ..Default::default() });
    let n = 200_003;
    let mut state = vec![0.0; plan.state_len(2, n).unwrap()];
    let mut run = Run::start(&plan, &[1, 2], n, None, &mut state).unwrap();
    let x = run.result(&plan, &state).unwrap().to_vec();
    let first = request(&plan, &run).unwrap();
    let mut y = vec![0.0; 4 * n];
    for (request, y) in first.together().zip(y.chunks_exact_mut(2 * n)) {
        output(&request, &x, y);
    }
    run.tell(&plan, &mut state, first.eval_id, &y).unwrap();
    let dt = (request(&plan, &run).unwrap().t - first.t) as f32;
    let (c, u) = y.split_at(2 * n);
    for (i, found) in run.result(&plan, &state).unwrap().iter().enumerate() {
        let v = u[i].mul_add(-1.5, c[i] * 2.5);
        assert_eq!(*found, v.mul_add(dt, x[i]), "{i}");
    }
}

#[test]
fn wrong_outputs_are_refused() {
    let plan = compile(PlanOptions { steps: 2, guidance: 2.5, guidance_weak: 1.5, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(ROWS, N).unwrap()];
    let mut run = Run::start(&plan, &SEEDS, N, None, &mut state).unwrap();
    let (before, len) = ((run.clone(), state.clone()), ROWS * N);
    for wrong in [0, 1, len - 1, len + 1, 2 * len + 1, 4 * len] {
        let error = run.tell(&plan, &mut state, 1, &vec![0.0; wrong]).unwrap_err();
        assert!(matches!(error, Error::Shape { arg: "y", .. }), "{error}");
        assert!(error.to_string().contains("up to 3 outputs"), "{error}");
    }
    for (output, name) in ["the model", "the unconditional model", "the weaker model"].iter().enumerate() {
        let mut y = vec![0.0; 3 * len];
        y[output * len + N + 2] = f32::NAN;
        let error = run.tell(&plan, &mut state, 1, &y).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{name} output is NaN in row 1 at element 2, step 0 stage 0")),
            "{error}"
        );
        assert_eq!((&run, &state), (&before.0, &before.1));
    }
    // Two of three, then the last alone, which may not bring others.
    run.tell(&plan, &mut state, 1, &vec![0.5; 2 * len]).unwrap();
    let weak = request(&plan, &run).unwrap();
    assert_eq!((weak.role, weak.eval_id, weak.roles), (Role::Weak, 3, Role::Weak.bit()));
    assert!(run.tell(&plan, &mut state, 3, &vec![0.5; 2 * len]).is_err());
    run.tell(&plan, &mut state, 3, &vec![0.5; len]).unwrap();
    // Rows at places of their own tell one output at a time.
    let plan = compile(PlanOptions { steps: 2, guidance: 2.5, per_row: true, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(ROWS, N).unwrap()];
    let run = Run::start(&plan, &SEEDS, N, None, &mut state).unwrap();
    assert_eq!(request(&plan, &run).unwrap().together().count(), 1);
}

#[test]
fn numbers_are_told_one_output_at_a_time() {
    for solver in [Solver::Rk4, Solver::Dopri5] {
        let options = PlanOptions {
            process: Process::Ode,
            solver,
            steps: 3,
            likelihood: Likelihood::Exact,
            guidance: 3.0,
            ..Default::default()
        };
        let plan = compile(options);
        let mut state = vec![0.0; plan.state_len(ROWS, N).unwrap()];
        let mut run = Run::start(&plan, &SEEDS, N, None, &mut state).unwrap();
        assert_eq!(request(&plan, &run).unwrap().together().count(), 1);
        // Velocities a x: the divergence is a N, and guided (3 * 0.5 - 2 * 0.25) N.
        drive_with(&plan, &mut run, &mut state, |request, x, _, y, numbers| {
            let a = if request.role == Role::Cond { 0.5 } else { 0.25 };
            y.iter_mut().zip(x).for_each(|(y, x)| *y = a * x);
            numbers.fill(f64::from(a) * N as f64);
            Ok(())
        })
        .unwrap();
        let mut divergence = [0.0; ROWS];
        run.divergence(&plan, &mut divergence).unwrap();
        let (from, to) = (plan.start().t, plan.end().t);
        for found in divergence {
            assert!((found - (to - from) * N as f64).abs() < 1e-9, "{solver:?}: {found}");
        }
    }
}

#[test]
fn the_budget_of_evaluations_is_the_same_either_way() {
    for max_evals in 12..40 {
        let options = PlanOptions {
            solver: Solver::Dopri5,
            guidance: 2.0,
            max_evals,
            rtol: 1e-2,
            atol: 1e-2,
            ..Default::default()
        };
        let plan = compile(options);
        let ends = [1, 2].map(|most| {
            let mut state = vec![0.0; plan.state_len(ROWS, N).unwrap()];
            let mut run = Run::start(&plan, &SEEDS, N, None, &mut state).unwrap();
            loop {
                let first = match run.ask(&plan) {
                    Ok(Ask::Eval(first)) => first,
                    end => break (end.is_ok(), run.counters().evals),
                };
                let mut y = vec![0.0; most.min(first.together().count()) * ROWS * N];
                for (request, y) in first.together().zip(y.chunks_exact_mut(ROWS * N)) {
                    output(&request, run.input(&plan, &state).unwrap(), y);
                }
                run.tell(&plan, &mut state, first.eval_id, &y).unwrap();
            }
        });
        assert_eq!(ends[0], ends[1], "{max_evals}");
    }
}

#[test]
fn two_of_three_outputs_have_the_same_bits() {
    let plan = compile(PlanOptions { steps: 3, guidance: 2.5, guidance_weak: 1.5, ..Default::default() });
    let results = [[1, 1, 1], [2, 1, 0], [1, 2, 0], [3, 0, 0]].map(|parts| {
        let mut state = vec![0.0; plan.state_len(ROWS, N).unwrap()];
        let mut run = Run::start(&plan, &SEEDS, N, None, &mut state).unwrap();
        while request(&plan, &run).is_some() {
            for part in parts.into_iter().filter(|&part| part > 0) {
                let first = request(&plan, &run).unwrap();
                let mut y = vec![0.0; part * ROWS * N];
                for (request, y) in first.together().zip(y.chunks_exact_mut(ROWS * N)) {
                    output(&request, run.input(&plan, &state).unwrap(), y);
                }
                run.tell(&plan, &mut state, first.eval_id, &y).unwrap();
            }
        }
        run.result(&plan, &state).unwrap().to_vec()
    });
    assert!(results.iter().all(|r| *r == results[0]));
}
