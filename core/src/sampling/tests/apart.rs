//! The next state written elsewhere is the one written in place, bit for bit.

use super::together::{guidances, output, plans_with, request};
use super::*;
use crate::Error;
use crate::threads::set_num_threads;

/// The ways to tell.
#[derive(Clone, Copy, PartialEq)]
enum Tell {
    Here,
    From,
    Afresh,
    Swap,
}

/// A walk whose steps are told in one of the ways.
struct Walk {
    tell: Tell,
    run: Run,
    state: Vec<f32>,
    other: Vec<f32>,
    swapped: usize,
}

impl Walk {
    fn start(plan: &Plan, tell: Tell, seeds: &[u64], elements: usize) -> Walk {
        let mut state = vec![0.0; plan.state_len(seeds.len(), elements).unwrap()];
        let run = Run::start(plan, seeds, elements, None, &mut state).unwrap();
        Walk { tell, run, other: vec![f32::NAN; state.len()], state, swapped: 0 }
    }

    fn tell(&mut self, plan: &Plan, y: &[f32], numbers: &[f64]) -> Result<()> {
        let id = self.run.counters().evals + 1;
        let (run, state, other) = (&mut self.run, &mut self.state, &mut self.other);
        let swapped = match self.tell {
            Tell::Here => run.tell_with(plan, state, id, y, numbers).map(|()| false)?,
            Tell::From if numbers.is_empty() => run.tell_from(plan, state, other, id, y).map(|()| true)?,
            Tell::From | Tell::Afresh => {
                other.fill(f32::NAN);
                run.tell_afresh(plan, state, other, id, y, numbers).map(|()| true)?
            }
            Tell::Swap => run.tell_swap(plan, state, other, id, y, numbers)?,
        };
        if swapped {
            std::mem::swap(state, other);
            self.swapped += 1;
        }
        Ok(())
    }
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

const WAYS: [Tell; 4] = [Tell::Here, Tell::From, Tell::Afresh, Tell::Swap];

/// Walks in all ways, with outputs told together or not; returns how many steps changed the memory of themselves.
fn compare(plan: &Plan, seeds: &[u64], elements: usize, together: bool, context: &str) -> usize {
    let mut walks = WAYS.map(|tell| Walk::start(plan, tell, seeds, elements));
    let len = seeds.len() * elements * plan.outputs();
    while let Some(first) = request(plan, &walks[0].run) {
        let x = walks[0].run.input(plan, &walks[0].state).unwrap().to_vec();
        let count = if together { first.together().count() } else { 1 };
        let mut y = vec![0.0; len * count];
        for (request, y) in first.together().zip(y.chunks_exact_mut(len)) {
            output(&request, &x, y);
        }
        let numbers = vec![-0.5; plan.numbers() * seeds.len()];
        for walk in &mut walks {
            walk.tell(plan, &y, &numbers).unwrap();
        }
        let [here, others @ ..] = &walks;
        for walk in others {
            assert_eq!(walk.run, here.run, "{context}");
            let [a, b] = [here, walk].map(|w| bits(w.run.input(plan, &w.state).unwrap()));
            assert_eq!(a, b, "{context}");
            let [a, b] = [here, walk].map(|w| bits(w.run.result(plan, &w.state).unwrap()));
            assert_eq!(a, b, "{context}");
            // What guidance keeps between outputs told together nobody reads.
            if !together {
                assert_eq!(bits(&walk.state), bits(&here.state), "{context}");
            }
            assert!(walk.tell != Tell::Afresh || walk.state.iter().all(|x| !x.is_nan()), "{context}");
        }
    }
    walks[3].swapped
}

#[test]
fn every_solver_and_guidance_has_the_same_bits() {
    let (mut plans, mut swapped) = (0, 0);
    let ways = guidances().into_iter().map(|o| (o, true));
    let ways = ways.chain([(PlanOptions::default(), false), (guidances()[0].clone(), false)]);
    for (guidance, together) in ways {
        for (plan, context) in plans_with(&guidance, 5) {
            plans += 1;
            swapped += compare(&plan, &[5, 6, 7], 7, together, &context);
        }
    }
    println!("{plans} plans, {swapped} steps from one state to another");
    // Half of the plans keep known parts, which would have to be copied.
    assert!(plans > 10_000 && swapped > plans / 2);
}

/// Two outputs of a model, densities, tests of proposals, times to save at, rows longer than a task.
#[test]
fn other_plans_have_the_same_bits() {
    let learned = PlanOptions {
        solver: Solver::Ddpm,
        variance: Variance::LearnedRange,
        steps: 4,
        ..base(Process::VpLinear)
    };
    let ode = |solver| PlanOptions { solver, steps: 4, process: Process::Ode, ..Default::default() };
    let all = [
        learned.clone(),
        PlanOptions { guidance: 2.0, ..learned },
        PlanOptions { likelihood: Likelihood::Exact, ..ode(Solver::Rk4) },
        PlanOptions { save_at: Some(vec![0.0, 0.25, 1.0]), ..ode(Solver::Dopri5) },
        PlanOptions { solver: Solver::Hmc, steps: 4, ..base(Process::Target) },
        PlanOptions { per_row: true, guidance: 2.0, ..Default::default() },
        PlanOptions { non_finite: NonFinite::Propagate, guidance: 2.0, ..Default::default() },
    ];
    for options in all {
        let plan = compile(options.clone());
        for (seeds, elements) in [(&[1, 2][..], 3), (&[4, 5], 70_001)] {
            for together in [false, true] {
                compare(&plan, seeds, elements, together, &format!("{options:?}"));
            }
        }
    }
}

/// States that do not fit a cache, at addresses that begin no line.
#[test]
fn large_states_have_the_same_bits() {
    let n = (crate::nn::rows::PAST / 4) / 6 + 11;
    for options in [
        PlanOptions { guidance: 2.0, steps: 2, ..Default::default() },
        PlanOptions { solver: Solver::DpmPP2M, clip: Some(0.5), steps: 3, ..base(Process::VpLinear) },
        PlanOptions { solver: Solver::DpmPP2M, steps: 4, ..base(Process::VpLinear) },
        PlanOptions { solver: Solver::DpmPP3MSde, eta: 0.0, steps: 5, ..base(Process::VpLinear) },
        PlanOptions { solver: Solver::Ipndm, steps: 5, ..Default::default() },
        PlanOptions { solver: Solver::Heun, steps: 2, ..Default::default() },
    ] {
        let plan = compile(options);
        let elements = 6 * n / plan.slots();
        let mut state = vec![0.0; plan.state_len(1, elements).unwrap()];
        assert!(size_of_val(&state[..]) >= crate::nn::rows::PAST);
        let (mut run, mut other) =
            (Run::start(&plan, &[3], elements, None, &mut state).unwrap(), vec![0.0; state.len() + 3]);
        while let Some(first) = request(&plan, &run) {
            let mut y = vec![0.0; elements * first.together().count()];
            for (request, y) in first.together().zip(y.chunks_exact_mut(elements)) {
                output(&request, run.input(&plan, &state).unwrap(), y);
            }
            for at in [0, 3] {
                let to = &mut other[at..at + state.len()];
                run.clone().tell_from(&plan, &state, to, first.eval_id, &y).unwrap();
                let mut here = state.clone();
                run.clone().tell(&plan, &mut here, first.eval_id, &y).unwrap();
                // What guidance keeps between its two outputs is not written.
                let kept = if plan.options().guidance == 1.0 { state.len() } else { elements };
                assert!(bits(&to[..kept]) == bits(&here[..kept]), "{at}");
                // The first number, one in the middle of a line, the last.
                for place in [0, elements / 2 + 5, y.len() - 1] {
                    let good = std::mem::replace(&mut y[place], f32::NAN);
                    let error = run.clone().tell_from(&plan, &state, to, first.eval_id, &y).unwrap_err();
                    assert!(error.to_string().contains(&format!("element {}", place % elements)), "{error}");
                    y[place] = good;
                }
            }
            run.tell(&plan, &mut state, first.eval_id, &y).unwrap();
        }
    }
}

/// Errors name the number that [`Run::tell`] names, and leave run and state.
#[test]
fn outputs_that_are_not_finite_are_refused() {
    let plan = compile(PlanOptions { steps: 3, guidance: 2.5, ..Default::default() });
    let n = 150_001;
    let mut walks = WAYS.map(|tell| Walk::start(&plan, tell, &[1, 2], n));
    let before: Vec<_> = walks.iter().map(|w| (w.run.clone(), w.state.clone())).collect();
    for threads in [1, 3] {
        set_num_threads(threads).unwrap();
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for places in [&[0][..], &[4 * n - 1], &[2 * n - 1, n], &[2 * n + 70_000, 3 * n], &[3 * n + 1023]]
            {
                let mut y = vec![0.25; 4 * n];
                places.iter().for_each(|&place| y[place] = bad);
                let errors: Vec<Error> =
                    walks.iter_mut().map(|walk| walk.tell(&plan, &y, &[]).unwrap_err()).collect();
                assert!(errors.iter().all(|e| *e == errors[0]), "{errors:?}");
                assert!(walks.iter().zip(&before).all(|(w, b)| w.run == b.0 && w.state == b.1));
                // An error of the lengths comes after it, as ever.
                let [walk, ..] = &mut walks;
                let short = walk.run.tell_from(&plan, &walk.state, &mut [0.0], 1, &y).unwrap_err();
                assert_eq!(short, errors[0]);
            }
        }
    }
    let [walk, ..] = &mut walks;
    let y = vec![0.25; 4 * n];
    let error = walk.run.tell_from(&plan, &walk.state, &mut [0.0], 1, &y).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "to", .. }), "{error}");
    let error = walk.run.tell_swap(&plan, &mut walk.state, &mut [0.0], 1, &y, &[]).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "other", .. }), "{error}");
    let error = walk.run.tell_swap(&plan, &mut walk.state, &mut walk.other, 1, &y, &[1.0]).unwrap_err();
    assert!(matches!(error, Error::Shape { arg: "numbers", .. }), "{error}");
}

/// Outputs that no operation reads are looked at too: of the first steps of CFG-Zero*, and the second of a model.
#[test]
fn outputs_that_nothing_reads_are_refused() {
    let unread = PlanOptions {
        guidance: 3.0,
        guidance_mode: Guidance::CfgZero,
        zero_init_steps: 2,
        steps: 4,
        ..Default::default()
    };
    let learned = PlanOptions {
        solver: Solver::Ddpm,
        variance: Variance::LearnedRange,
        steps: 4,
        ..base(Process::VpLinear)
    };
    for options in [unread, learned] {
        let plan = compile(options);
        for tell in WAYS {
            let mut walk = Walk::start(&plan, tell, &[1, 2], 5);
            let mut y = vec![0.25; 10 * plan.outputs()];
            y[10 * plan.outputs() - 1] = f32::NAN;
            let error = walk.tell(&plan, &y, &[]).unwrap_err();
            assert!(matches!(&error, Error::State(m) if m.contains("NaN in row 1")), "{error}");
            y[10 * plan.outputs() - 1] = 0.0;
            walk.tell(&plan, &y, &[]).unwrap();
        }
    }
}

/// Rows that have finished may be told anything, and a state that ran away is no fault of an output.
#[test]
fn what_is_not_the_outputs_fault_is_not_refused() {
    let plan = compile(PlanOptions { solver: Solver::Dopri5, rtol: 1e-4, atol: 1e-4, ..Default::default() });
    let mut walks = WAYS.map(|tell| Walk::start(&plan, tell, &[1, 2], 3));
    let mut ignored = 0;
    while let Some(asked) = request(&plan, &walks[0].run) {
        let x = walks[0].run.input(&plan, &walks[0].state).unwrap();
        // The second row is harder.
        let mut y: Vec<f32> = (0..6).map(|i| if i < 3 { 0.1 } else { libm::sinf(20.0 * x[i]) }).collect();
        let mut active = [false; 2];
        walks[0].run.row_active(&plan, &mut active).unwrap();
        if !active[0] {
            y[..3].fill(f32::NAN);
            ignored += 1;
        }
        assert!(asked.active_rows > 0);
        for walk in &mut walks {
            walk.tell(&plan, &y, &[]).unwrap();
        }
        let [here, others @ ..] = &walks;
        assert!(others.iter().all(|w| w.run == here.run && bits(&w.state) == bits(&here.state)));
    }
    assert!(ignored > 6, "{ignored}");

    let plan = compile(PlanOptions { steps: 2, ..Default::default() });
    for tell in WAYS {
        let mut walk = Walk::start(&plan, tell, &[1], 2);
        for _ in 0..2 {
            walk.tell(&plan, &[-3e38, 0.0], &[]).unwrap();
            walk.state[0] = f32::INFINITY;
        }
        assert_eq!(walk.run.counters().evals, 2);
    }
}

/// A driver that takes turns between two states ends in the caller's, however it ends.
#[test]
fn drivers_take_turns() {
    let n = 1 << 19;
    for (steps, solver) in [(9, Solver::DpmPP2M), (10, Solver::Euler), (8, Solver::Ipndm)] {
        let plan = compile(PlanOptions { steps, solver, ..Default::default() });
        let mut model = |request: &Request, x: &[f32], _: &[f32], y: &mut [f32]| {
            output(request, x, y);
            Ok(())
        };
        let mut expected = Walk::start(&plan, Tell::Here, &[1, 2], n);
        let mut state = expected.state.clone();
        let mut run = expected.run.clone();
        let mut halves = Vec::new();
        while let Some(asked) = request(&plan, &expected.run) {
            let mut y = vec![0.0; 2 * n];
            output(&asked, expected.run.input(&plan, &expected.state).unwrap(), &mut y);
            expected.tell(&plan, &y, &[]).unwrap();
            halves.push(expected.run.result(&plan, &expected.state).unwrap()[n]);
        }
        for stop in [1, 2, steps] {
            let (mut run, mut state) = (run.clone(), state.clone());
            let stopped =
                drive(&plan, &mut run, &mut state, |request, x, t, y| match request.step as usize == stop {
                    true => Err(Error::Cancelled),
                    false => model(request, x, t, y),
                });
            assert_eq!(stopped.is_err(), stop < steps);
            assert_eq!(state[n], halves[stop - 1], "{steps} {stop}");
        }
        drive(&plan, &mut run, &mut state, &mut model).unwrap();
        assert!(run == expected.run && bits(&state) == bits(&expected.state));
    }
}
