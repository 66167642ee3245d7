//! Plans and their runs: options from the fuzzer's bytes, a model that answers anything.

use dgm_core::sampling::{Ask, Plan, PlanOptions, Prediction, Process, Run, Solver, Spacing};

use crate::Bytes;

/// Options that are mostly valid, with few steps.
pub fn options(b: &mut Bytes) -> PlanOptions {
    let mut o = PlanOptions {
        process: Process::ALL[b.below(Process::ALL.len())],
        prediction: Prediction::ALL[b.below(Prediction::ALL.len())],
        solver: Solver::ALL[b.below(Solver::ALL.len())],
        spacing: Spacing::ALL[b.below(Spacing::ALL.len())],
        steps: 1 + b.below(9),
        ..Default::default()
    };
    for _ in 0..b.below(4) {
        match b.below(27) {
            0 => o.steps = b.number() as usize,
            1 => o.shift = b.float(),
            2 => o.eta = b.float(),
            3 | 4 => o.guidance = b.float(),
            5 => o.clip = Some(b.float()),
            6 => o.beta_start = b.float(),
            7 => o.beta_end = b.float(),
            8 => o.train_steps = b.number() as usize,
            9 => o.rtol = b.float(),
            10 => o.atol = b.float(),
            11 => o.h_init = b.float(),
            12 => o.max_evals = b.number() as usize,
            13 => o.per_row = true,
            14 => o.guidance_weak = b.float(),
            15 => (o.process, o.prediction) = (Process::Ode, Prediction::Velocity),
            16 => (o.t_start, o.t_end) = (b.float(), b.float()),
            17 => o.controller = Some((0..b.below(5)).map(|_| b.float()).collect()),
            19 => {
                let all: Vec<Solver> = Solver::ALL.iter().copied().filter(|s| s.solves_sdes()).collect();
                (o.process, o.prediction) = (Process::Sde, Prediction::Velocity);
                o.solver = all[b.below(all.len())];
            }
            20 => {
                let all: Vec<Solver> = Solver::ALL.iter().copied().filter(|s| s.walks_targets()).collect();
                (o.process, o.prediction) = (Process::Target, Prediction::Score);
                o.solver = all[b.below(all.len())];
            }
            21 => {
                let all = dgm_core::sampling::Likelihood::ALL;
                o.likelihood = all[b.below(all.len())];
            }
            25 => o.stop_at = Some((1..b.below(4)).map(|i| 1.0 - i as f64 * f64::from(b.u8()) / 512.0).collect()),
            24 => o.non_finite = dgm_core::sampling::NonFinite::Propagate,
            22 => (o.leapfrog, o.warmup) = (b.below(9), b.below(9)),
            23 => (o.step_size, o.target_accept) = (b.float(), b.float()),
            18 => o.save_at = Some((0..b.below(4)).map(|i| 1.0 - i as f64 * f64::from(b.u8()) / 512.0).collect()),
            _ => (o.solver, o.corrector_steps) = (Solver::PredictorCorrector, b.below(5)),
        }
    }
    if b.rarely(4) {
        let mut t = if o.process == Process::Flow { 1.0 } else { 999.0 };
        o.times = Some(
            (0..b.below(6))
                .map(|_| {
                    t -= if b.rarely(6) { b.float() } else { f64::from(b.u8()) / 512.0 };
                    t
                })
                .collect(),
        );
    }
    o
}

/// An answer for every element: a shrinking velocity, or what the fuzzer says.
pub fn answer(b: &mut Bytes, x: &[f32], y: &mut [f32]) {
    let wild = b.rarely(8);
    let factor = f32::from(b.u8()) / 128.0 - 1.0;
    for (y, x) in y.iter_mut().zip(x.iter().cycle()) {
        *y = if wild { b.float() as f32 } else { (x * factor).clamp(-1e3, 1e3) };
    }
}

/// Carries a run on for at most so many evaluations; whatever it is fed, it may only refuse.
pub fn carry(b: &mut Bytes, plan: &Plan, run: &mut Run, state: &mut [f32], most: usize) {
    let mut y = vec![0.0; run.rows() * run.elements() * plan.outputs()];
    let mut numbers = vec![0.0; run.rows() * plan.numbers()];
    let mut times = vec![0.0; run.rows()];
    for _ in 0..most {
        let request = match run.ask(plan) {
            Ok(Ask::Eval(request)) => request,
            Ok(Ask::Done) => {
                assert!(run.is_done(plan));
                assert!(run.tell(plan, state, 1, &y).is_err(), "told to a run that is done");
                return;
            }
            Err(_) => return,
        };
        assert!(!run.is_done(plan) && request.active_rows <= request.rows);
        if b.rarely(4) {
            choose(b, plan, run);
            continue;
        }
        run.row_times(plan, &mut times).expect("the times of a request");
        let x = run.input(plan, state).expect("the input of a request");
        answer(b, x, &mut y);
        numbers.iter_mut().for_each(|n| *n = b.float());
        let (before, kept) = (run.clone(), state.to_vec());
        let id = if b.rarely(16) { b.u64() } else { request.eval_id };
        if run.tell_with(plan, state, id, &y, &numbers).is_err() {
            assert!(*run == before, "a run changed by an error");
            assert!(
                state.iter().zip(&kept).all(|(a, b)| a.to_bits() == b.to_bits()),
                "a state changed by an error"
            );
            let finite = y.iter().all(|v| v.is_finite()) && numbers.iter().all(|v| v.is_finite());
            if id == request.eval_id && finite {
                panic!("a finite answer was refused");
            }
        }
    }
}

/// Chooses rows, or ends some: refused inside a step, and where rows walk together.
fn choose(b: &mut Bytes, plan: &Plan, run: &mut Run) {
    let rows: Vec<bool> = (0..run.rows()).map(|_| b.rarely(2)).collect();
    let before = run.clone();
    let done = if b.rarely(4) { run.finish_rows(plan, &rows) } else { run.select(plan, &rows) };
    assert!(done.is_ok() || *run == before, "a run changed by an error");
    assert!(done.is_err() || plan.options().per_row, "rows chosen in a walk together");
    let (mut active, mut steps) = (vec![false; run.rows()], vec![0; run.rows()]);
    run.row_active(plan, &mut active).expect("the rows of a request");
    if let Ok(Ask::Eval(request)) = run.ask(plan) {
        assert_eq!(active.iter().filter(|a| **a).count(), request.active_rows);
    }
    if run.row_steps(plan, &mut steps).is_ok() {
        assert!(steps.iter().all(|&s| s <= plan.steps()));
    }
}

/// A checkpoint gives back the run and the state that were written.
pub fn round_trip(plan: &Plan, run: &Run, state: &[f32]) -> Vec<u8> {
    let block = run.export(plan, state).expect("the export of a run");
    let mut copy = vec![0.0; state.len()];
    let again = Run::import(plan, &block, &mut copy).expect("the import of an export");
    assert!(again == *run, "the run changed on its way");
    assert!(copy.iter().zip(state).all(|(a, b)| a.to_bits() == b.to_bits()), "the state changed on its way");
    block
}
