//! DPM-Solver-12 and -23: orders, processes, rows, stops. Against k-diffusion: `walks`.

use super::*;
use crate::Error;

const BOTH: [(Solver, f64); 2] = [(Solver::Dpm12, 2.0), (Solver::Dpm23, 3.0)];

fn options(solver: Solver, process: Process, tolerance: f64) -> PlanOptions {
    let prediction = if process == Process::Flow { Prediction::Velocity } else { Prediction::X0 };
    PlanOptions { solver, prediction, rtol: tolerance, atol: tolerance, ..base(process) }
}

/// One row from noise: its worst error over the deviation there, and the work.
fn error(plan: &Plan) -> (f64, Counters) {
    let sigma = GAUSSIAN.spread(&plan.start());
    let start: Vec<f32> = (0..9).map(|i| ((f64::from(i) / 2.0 - 2.0) * sigma) as f32).collect();
    let mut state = vec![0.0; plan.state_len(1, 9).unwrap()];
    let mut run = Run::start(plan, &[0], 9, Some(&start), &mut state).unwrap();
    drive(plan, &mut run, &mut state, GAUSSIAN.model(plan)).unwrap();
    let worst = run.result(plan, &state).unwrap().iter().zip(&start).fold(0.0f64, |worst, (x, s)| {
        worst.max((f64::from(*x) - GAUSSIAN.carry(&plan.start(), &plan.end(), f64::from(*s))).abs())
    });
    (worst / GAUSSIAN.spread(&plan.end()), run.counters())
}

/// The error follows the tolerance, and the work its root: the order of the higher method.
#[test]
fn the_error_follows_the_tolerance_and_the_order_the_work() {
    for (solver, order) in BOTH {
        let walk = |tolerance| {
            let plan = compile(PlanOptions {
                sigmas: Some(vec![2.0, 0.2]),
                ..options(solver, Process::Ve, tolerance)
            });
            let (error, c) = error(&plan);
            println!("{} {tolerance:e}: {error:e} {c:?}", solver.name());
            assert!(error < 20.0 * tolerance, "{} {error:e}", solver.name());
            (error, c.evals as f64)
        };
        let (coarse, fine) = (walk(1e-4), walk(1e-5));
        let found = libm::log(coarse.0 / fine.0) / libm::log(fine.1 / coarse.1);
        println!("{}: order {found:.2}", solver.name());
        // Steps still settle: the work grows a little less than its order asks.
        assert!((order - 0.3..order + 0.8).contains(&found), "{} {found}", solver.name());
    }
}

/// From the noisiest to the least noisy level of every process that has levels.
#[test]
fn every_process_with_levels() {
    let mut walked = 0;
    for &process in Process::ALL {
        for (solver, _) in BOTH {
            if matches!(process, Process::Ode | Process::Sde | Process::Target) {
                assert!(Plan::compile(&PlanOptions { solver, ..base(process) }).is_err());
                continue;
            }
            let plan = compile(options(solver, process, 1e-3));
            assert!(plan.start().is_mixed() && plan.end().is_mixed() && plan.steps() == 0);
            let (error, c) = error(&plan);
            println!("{} {}: {error:e} {c:?}", process.name(), solver.name());
            assert!(error < 0.05, "{} {} {error:e}", process.name(), solver.name());
            walked += 1;
        }
    }
    assert_eq!(walked, 2 * (Process::ALL.len() - 3));
}

/// Rows of different difficulty have the bits that they have alone, and those of a run that was stored on the way.
#[test]
fn rows_and_checkpoints() {
    let start = [30.0, -20.0, 0.5, 0.1, -300.0, 200.0];
    let model = |sigma: f32, x: f32| (4.0 * libm::sin(f64::from(x) / (1.0 + f64::from(sigma)))) as f32;
    for controller in [None, Some(vec![0.8, -0.5]), Some(vec![1.0, -0.3, 0.2])] {
        for (solver, _) in BOTH {
            let plan = compile(PlanOptions {
                sigmas: Some(vec![40.0, 0.02]),
                controller: controller.clone(),
                h_init: 2.0,
                guidance: 1.5,
                clip: Some(3.5),
                ..options(solver, Process::Ve, 1e-3)
            });
            let walk = |start: &[f32], stored: bool| {
                let rows = start.len() / 2;
                let mut state = vec![0.0; plan.state_len(rows, 2).unwrap()];
                let mut run = Run::start(&plan, &vec![0; rows], 2, Some(start), &mut state).unwrap();
                let mut times = vec![0.0; rows];
                let mut uneven = false;
                while let Ask::Eval(r) = run.ask(&plan).unwrap() {
                    run.row_times(&plan, &mut times).unwrap();
                    uneven |= !r.uniform_t;
                    let bias = if r.role == Role::Cond { 0.25 } else { 0.0 };
                    let x = run.input(&plan, &state).unwrap();
                    let y: Vec<f32> =
                        x.iter().enumerate().map(|(i, x)| model(times[i / 2], *x) + bias).collect();
                    run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
                    if stored {
                        let bytes = run.export(&plan, &state).unwrap();
                        state.fill(0.0);
                        run = Run::import(&plan, &bytes, &mut state).unwrap();
                    }
                }
                (run.result(&plan, &state).unwrap().to_vec(), run.counters(), uneven)
            };
            let (together, c, uneven) = walk(&start, false);
            println!("{}: {c:?}", solver.name());
            assert!(uneven && c.rejects > 0);
            assert_eq!(walk(&start, true), (together.clone(), c, uneven));
            for row in 0..3 {
                let part = 2 * row..2 * row + 2;
                assert_eq!(walk(&start[part.clone()], false).0, together[part], "row {row}");
            }
        }
    }
}

/// Two experts, one for the noisy levels: with a stop between them each is asked on its own side alone.
#[test]
fn experts_meet_at_a_stop() {
    let other = Gaussian { mean: -0.5, deviation: 1.5 };
    for (solver, _) in BOTH {
        for (process, boundary, ends) in [
            (Process::Ve, 1.0, [8.0, 0.05]),
            (Process::Flow, 0.6, [0.97, 0.03]),
            (Process::VpLinear, 400.0, [900.0, 10.0]),
        ] {
            let o = PlanOptions {
                times: Some(ends.to_vec()),
                stop_at: Some(vec![boundary]),
                ..options(solver, process, 1e-4)
            };
            let plan = compile(o);
            let mut state = vec![0.0; plan.state_len(1, 2).unwrap()];
            let scale = plan.start().sigma as f32;
            let start = [scale, -0.5 * scale];
            let mut run = Run::start(&plan, &[0], 2, Some(&start), &mut state).unwrap();
            let mut sides = [0, 0];
            while let Ask::Eval(r) = run.ask(&plan).unwrap() {
                assert!(r.t as f32 != boundary as f32);
                let model = if r.t > boundary { GAUSSIAN } else { other };
                sides[usize::from(r.t > boundary)] += 1;
                let node = Node { t: r.t, alpha: r.alpha, sigma: r.sigma };
                let x = run.input(&plan, &state).unwrap();
                let predict = |x: &f32| model.predict(plan.options().prediction, &node, f64::from(*x)) as f32;
                let y: Vec<f32> = x.iter().map(predict).collect();
                run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
            }
            let middle = plan.level(boundary).unwrap();
            for (x, s) in run.result(&plan, &state).unwrap().iter().zip(start) {
                let there = GAUSSIAN.carry(&plan.start(), &middle, f64::from(s));
                let exact = other.carry(&middle, &plan.end(), there);
                assert!((f64::from(*x) - exact).abs() < 2e-3, "{} {x} {exact}", process.name());
            }
            assert!(sides.iter().all(|n| *n > 2), "{sides:?}");
        }
    }
}

/// Rows that arrive early stand at the end, whatever stops the others have before them.
#[test]
fn rows_that_are_done_stand_at_the_end() {
    let plan = compile(PlanOptions {
        process: Process::Ode,
        solver: Solver::Bosh3,
        t_start: 1.0,
        t_end: 0.0,
        stop_at: Some(vec![0.75, 0.5]),
        rtol: 1e-7,
        atol: 1e-7,
        ..Default::default()
    });
    let rates = [0.01f32, 20.0];
    let mut state = vec![0.0; plan.state_len(2, 1).unwrap()];
    let mut run = Run::start(&plan, &[0, 1], 1, Some(&[1.0, 1.0]), &mut state).unwrap();
    let (mut t, mut active, mut early) = ([0.0f32; 2], [true; 2], 0);
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        run.row_times(&plan, &mut t).unwrap();
        run.row_active(&plan, &mut active).unwrap();
        if !active[0] && active[1] && t[1] < 0.5 {
            early += 1;
            assert_eq!(t[0], 0.0);
        }
        let x = run.input(&plan, &state).unwrap();
        let y = [rates[0] * x[0], rates[1] * x[1]];
        run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
        // What is written and read back stands there too.
        let block = run.export(&plan, &state).unwrap();
        run = Run::import(&plan, &block, &mut state).unwrap();
    }
    assert!(early > 10, "{early}");
    let x = run.result(&plan, &state).unwrap();
    for (x, rate) in x.iter().zip(rates) {
        assert!((x - libm::expf(-rate)).abs() < 1e-5, "{x} {rate}");
    }
}

#[test]
fn bad_plans_are_named() {
    let refused = |o: PlanOptions, name: &str| match Plan::compile(&o).expect_err(name) {
        Error::Range { arg, .. } | Error::Argument { arg, .. } | Error::Shape { arg, .. } => {
            assert_eq!(arg, name)
        }
        other => panic!("{other}"),
    };
    let o = || options(Solver::Dpm23, Process::Ve, 1e-3);
    refused(PlanOptions { process: Process::Ode, prediction: Prediction::Velocity, ..o() }, "solver");
    refused(PlanOptions { times: Some(vec![10.0, 0.0]), ..o() }, "times");
    refused(
        PlanOptions {
            prediction: Prediction::Velocity,
            times: Some(vec![1.0, 0.1]),
            process: Process::Flow,
            ..o()
        },
        "times",
    );
    let flow = || options(Solver::Dpm12, Process::Flow, 1e-3);
    refused(PlanOptions { sigma_min: 0.6, ..flow() }, "sigma_min");
    refused(PlanOptions { sigma_max: 1.0, ..flow() }, "sigma_max");
    refused(PlanOptions { sigma_min: 60.0, ..o() }, "sigma_min");
    refused(
        PlanOptions { zero_snr: true, ..options(Solver::Dpm23, Process::VpScaledLinear, 1e-3) },
        "zero_snr",
    );
    let shorter = compile(PlanOptions { sigma_max: 0.8, sigma_min: 0.1, ..flow() });
    assert_eq!((shorter.start().t, shorter.end().t), (0.8, 0.1));
    refused(PlanOptions { save_at: Some(vec![1.0]), ..o() }, "save_at");
    refused(PlanOptions { prediction: Prediction::Edm, ..o() }, "prediction");
    refused(PlanOptions { h_init: 101.0, ..o() }, "h_init");
    refused(PlanOptions { rtol: 0.0, atol: 0.0, ..o() }, "rtol");
    refused(PlanOptions { order: 2, ..o() }, "order");
    refused(PlanOptions { likelihood: Likelihood::Exact, ..o() }, "likelihood");
    refused(PlanOptions { per_row: true, ..o() }, "solver");
    refused(PlanOptions { stop_at: Some(vec![50.0]), ..o() }, "stop_at");
    refused(PlanOptions { stop_at: Some(vec![]), ..o() }, "stop_at");
    refused(PlanOptions { stop_at: Some(vec![1.0, 2.0]), ..o() }, "stop_at");
    refused(PlanOptions { stop_at: Some(vec![1.0]), solver: Solver::Euler, ..o() }, "stop_at");
    refused(PlanOptions { stop_at: Some(vec![f64::NAN]), ..o() }, "stop_at");
    assert!(compile(o()).operations(0).is_err());
}
