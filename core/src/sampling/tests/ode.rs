//! Plain ODEs and their adaptive solvers: orders of the tableaus, published problems, x between steps.

use super::*;
use crate::Error;
use crate::sampling::solvers::pairs::{BOSH3, DOPRI5, Pair, TSIT5};

const ADAPTIVE: [Solver; 3] = [Solver::Bosh3, Solver::Dopri5, Solver::Tsit5];

/// `y' = f(t, y)` for every element.
fn elementwise(
    f: impl Fn(f64, f64) -> f64,
) -> impl FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()> {
    move |r, x, t, y| {
        for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
            // What a row is told does not depend on the others.
            let t = f64::from(t[i / r.elements]);
            *y = f(t, f64::from(*x)) as f32;
        }
        Ok(())
    }
}

fn solve(
    plan: &Plan,
    start: &[f32],
    rows: usize,
    f: impl Fn(f64, f64) -> f64,
) -> (Vec<f32>, Vec<f32>, Counters) {
    let n = start.len() / rows;
    let mut state = vec![0.0; plan.state_len(rows, n).unwrap()];
    let mut run = Run::start(plan, &vec![0; rows], n, Some(start), &mut state).unwrap();
    drive(plan, &mut run, &mut state, elementwise(f)).unwrap();
    (run.result(plan, &state).unwrap().to_vec(), run.saved(plan, &state).unwrap().to_vec(), run.counters())
}

/// The order conditions of Butcher up to 5 (trees of up to five nodes), for weights `b`.
fn order_residuals(pair: &Pair, b: &[f64]) -> Vec<(usize, f64)> {
    let s = b.len();
    let a = |i: usize, j: usize| pair.a[i].get(j).copied().unwrap_or(0.0);
    let c: Vec<f64> = (0..s).map(|i| (0..s).map(|j| a(i, j)).sum()).collect();
    let apply = |v: &[f64]| -> Vec<f64> { (0..s).map(|i| (0..s).map(|j| a(i, j) * v[j]).sum()).collect() };
    let dot = |v: &[f64]| -> f64 { b.iter().zip(v).map(|(b, v)| b * v).sum() };
    let times = |u: &[f64], v: &[f64]| -> Vec<f64> { u.iter().zip(v).map(|(u, v)| u * v).collect() };
    let one = vec![1.0; s];
    let c2 = times(&c, &c);
    let c3 = times(&c2, &c);
    let (ac, ac2) = (apply(&c), apply(&c2));
    let (aac, ac3) = (apply(&ac), apply(&c3));
    vec![
        (1, dot(&one) - 1.0),
        (2, dot(&c) - 1.0 / 2.0),
        (3, dot(&c2) - 1.0 / 3.0),
        (3, dot(&ac) - 1.0 / 6.0),
        (4, dot(&c3) - 1.0 / 4.0),
        (4, dot(&times(&c, &ac)) - 1.0 / 8.0),
        (4, dot(&ac2) - 1.0 / 12.0),
        (4, dot(&aac) - 1.0 / 24.0),
        (5, dot(&times(&c3, &c)) - 1.0 / 5.0),
        (5, dot(&times(&c2, &ac)) - 1.0 / 10.0),
        (5, dot(&times(&ac, &ac)) - 1.0 / 20.0),
        (5, dot(&times(&c, &ac2)) - 1.0 / 15.0),
        (5, dot(&times(&c, &aac)) - 1.0 / 30.0),
        (5, dot(&ac3) - 1.0 / 20.0),
        (5, dot(&apply(&times(&c, &ac))) - 1.0 / 40.0),
        (5, dot(&apply(&ac2)) - 1.0 / 60.0),
        (5, dot(&apply(&aac)) - 1.0 / 120.0),
    ]
}

#[test]
fn tableaus_have_their_orders() {
    for (name, pair, order) in [("bosh3", &BOSH3, 3), ("dopri5", &DOPRI5, 5), ("tsit5", &TSIT5, 5)] {
        let stages = pair.stages();
        for (i, row) in pair.a.iter().enumerate() {
            assert_eq!(row.len(), i);
            assert!((row.iter().sum::<f64>() - pair.c[i]).abs() < 1e-14, "{name} c{i}");
        }
        let b: Vec<f64> = pair.a[stages - 1].iter().copied().chain([0.0]).collect();
        let embedded: Vec<f64> = b.iter().zip(pair.e).map(|(b, e)| b + e).collect();
        let worst = |weights: &[f64], most: usize| {
            order_residuals(pair, weights)
                .iter()
                .filter(|r| r.0 <= most)
                .map(|r| r.1.abs())
                .fold(0.0, f64::max)
        };
        assert!(worst(&b, order) < 3e-14, "{name} {}", worst(&b, order));
        assert!(worst(&embedded, order - 1) < 1e-13, "{name} {}", worst(&embedded, order - 1));
        // The estimate is one of that order, not of a higher one.
        assert!(worst(&embedded, order) > 1e-5, "{name}");
    }
}

#[test]
fn interpolants_have_their_orders() {
    // b(theta) / theta satisfies the conditions with theta^q on the right: tested as the b of a step of theta.
    for (name, pair, order) in [("bosh3", &BOSH3, 3), ("dopri5", &DOPRI5, 4), ("tsit5", &TSIT5, 4)] {
        let stages = pair.stages();
        let end: Vec<f64> = pair.a[stages - 1].iter().copied().chain([0.0]).collect();
        for theta in [0.0f64, 0.1, 0.37, 0.5, 0.9, 1.0] {
            let d = pair.dense(theta);
            assert!((d.from + d.to - 1.0).abs() < 1e-15);
            let mut b: Vec<f64> = end.iter().map(|b| d.to * b).collect();
            for (i, w) in d.slopes.iter().enumerate().take(stages) {
                // The last slope may be kept in another stage's place.
                let place = if i == pair.last { stages - 1 } else { i };
                b[place] += w;
            }
            if theta == 1.0 {
                assert!(b.iter().zip(&end).all(|(b, e)| (b - e).abs() < 1e-13), "{name} {b:?}");
            }
            let a = |i: usize, j: usize| pair.a[i].get(j).copied().unwrap_or(0.0);
            let dot = |v: &dyn Fn(usize) -> f64| -> f64 { (0..stages).map(|i| b[i] * v(i)).sum() };
            let c = |i: usize| pair.c[i];
            let ac = |i: usize| (0..stages).map(|j| a(i, j) * c(j)).sum::<f64>();
            let ac2 = |i: usize| (0..stages).map(|j| a(i, j) * c(j) * c(j)).sum::<f64>();
            let aac = |i: usize| (0..stages).map(|j| a(i, j) * ac(j)).sum::<f64>();
            let p = |q: i32| libm::pow(theta, f64::from(q));
            let mut left = vec![
                dot(&|_| 1.0) - p(1),
                dot(&c) - p(2) / 2.0,
                dot(&|i| c(i) * c(i)) - p(3) / 3.0,
                dot(&ac) - p(3) / 6.0,
            ];
            if order > 3 {
                left.push(dot(&|i| c(i) * c(i) * c(i)) - p(4) / 4.0);
                left.push(dot(&|i| c(i) * ac(i)) - p(4) / 8.0);
                left.push(dot(&ac2) - p(4) / 12.0);
                left.push(dot(&aac) - p(4) / 24.0);
            }
            assert!(left.iter().all(|r| r.abs() < 1e-13), "{name} {theta} {left:?}");
        }
    }
}

fn ode(solver: Solver, from: f64, to: f64, rtol: f64, atol: f64) -> PlanOptions {
    let process = Process::Ode;
    PlanOptions { process, solver, t_start: from, t_end: to, rtol, atol, ..Default::default() }
}

/// `sine` of torchdiffeq's own tests, in f64 (0.2.5), over the eighteen tolerances of
/// [`published_problems_cost_no_more_than_elsewhere`]: geometric means of the evaluations and of the worst error
/// at t = 2, 4.5 and 8 over the greater of 1 and the solution. Single tolerances differ from their neighbours by
/// factors of a hundred, by chance.
const THEIRS: [(Solver, f64, f64); 2] = [(Solver::Bosh3, 142.3, 3.80e-3), (Solver::Dopri5, 60.55, 3.60e-3)];

/// At equal error no more evaluations, the error falling with the work to the power of the order.
#[test]
fn published_problems_cost_no_more_than_elsewhere() {
    let exact = |t: f64| {
        let (c, s) = (libm::cos(2.0 * t), libm::sin(2.0 * t));
        let pi = std::f64::consts::PI;
        -0.5 * libm::pow(t, 4.0) * c + 0.5 * libm::pow(t, 3.0) * s + 0.25 * t * t * c - libm::pow(t, 3.0)
            + 2.0 * libm::pow(t, 4.0)
            + (pi - 0.25) * t * t
    };
    let sine = |t: f64, y: f64| {
        2.0 * y / t + libm::pow(t, 4.0) * libm::sin(2.0 * t) - t * t + 4.0 * libm::pow(t, 3.0)
    };
    let means = |solver| {
        let (mut evals, mut error) = (0.0, 0.0);
        for k in 8..26 {
            let tolerance = libm::pow(10.0, -f64::from(k) / 5.0);
            let saves = Some(vec![2.0, 4.5, 8.0]);
            let plan = compile(PlanOptions { save_at: saves, ..ode(solver, 1.0, 8.0, tolerance, tolerance) });
            let (x, saved, c) = solve(&plan, &[exact(1.0) as f32], 1, sine);
            assert_eq!(saved[2].to_bits(), x[0].to_bits());
            let off = |x: f32, t: f64| (f64::from(x) - exact(t)).abs() / exact(t).abs().max(1.0);
            evals += libm::log(c.evals as f64) / 18.0;
            error += libm::log(off(saved[0], 2.0).max(off(saved[1], 4.5)).max(off(x[0], 8.0))) / 18.0;
        }
        println!("{}: {} evaluations, error {:e}", solver.name(), libm::exp(evals), libm::exp(error));
        (libm::exp(evals), libm::exp(error))
    };
    for (solver, evals, error) in THEIRS {
        let (ours, off) = means(solver);
        let order = if solver == Solver::Bosh3 { 3.0 } else { 5.0 };
        let equal = ours * libm::pow(off / error, 1.0 / order);
        println!("{}: {equal} evaluations at the error of torchdiffeq, which has {evals}", solver.name());
        assert!(equal <= evals);
    }
    // Tsitouras' method is the better one of its order.
    let [tsit5, dopri5] = [Solver::Tsit5, Solver::Dopri5].map(means);
    assert!(tsit5.0 * libm::pow(tsit5.1 / dopri5.1, 0.2) < dopri5.0);
}

#[test]
fn either_direction_is_solved_and_undone() {
    let f = |t: f64, y: f64| y * libm::cos(3.0 * t) - 0.5 * t;
    let start: Vec<f32> = (0..6).map(|i| i as f32 / 2.0 - 1.0).collect();
    for solver in Solver::ALL.iter().filter(|s| s.solves_odes()) {
        let make = |from, to| {
            let mut o = ode(*solver, from, to, 1e-5, 1e-6);
            o.steps = if *solver == Solver::Euler { 4000 } else { 300 };
            if !solver.is_adaptive() {
                (o.rtol, o.atol) = (1e-3, 1e-4);
            }
            compile(o)
        };
        let (there, _, _) = solve(&make(-1.0, 2.0), &start, 2, f);
        let (back, _, _) = solve(&make(2.0, -1.0), &there, 2, f);
        let worst = back.iter().zip(&start).map(|(b, s)| (b - s).abs()).fold(0.0, f32::max);
        println!("{}: {worst:e}", solver.name());
        let bound = match solver {
            Solver::Euler => 0.02,
            // Their first steps are of low order.
            Solver::Lms | Solver::Ipndm => 1e-3,
            _ => 3e-4,
        };
        assert!(worst < bound, "{} {worst}", solver.name());
        assert!(there.iter().zip(&start).any(|(a, b)| (a - b).abs() > 0.1));
    }
}

/// Order 5 of the fixed-step method, in the range where f32 shows it.
#[test]
fn rk5_has_order_five() {
    let error = |steps| {
        let plan = compile(PlanOptions { steps, ..ode(Solver::Rk5, 0.0, 2.0, 1e-3, 1e-4) });
        let (x, _, c) = solve(&plan, &[1.0], 1, |t, y| -2.0 * t * y);
        assert_eq!(c.evals, 6 * steps as u64);
        (f64::from(x[0]) - libm::exp(-4.0)).abs()
    };
    let (coarse, fine) = (error(4), error(8));
    println!("{coarse:e} {fine:e}: {}", libm::log2(coarse / fine));
    assert!(libm::log2(coarse / fine) > 4.5);
}

/// Interpolated values are as good as the ends of steps; rows of a batch keep their own.
#[test]
fn times_between_steps() {
    let saves: Vec<f64> = (0..=40).map(|i| f64::from(i) / 10.0).collect();
    for solver in ADAPTIVE {
        let plan = compile(PlanOptions { save_at: Some(saves.clone()), ..ode(solver, 0.0, 4.0, 1e-5, 1e-6) });
        let start = [1.0, -2.0, 0.25];
        let (x, saved, _) = solve(&plan, &start, 3, |t, y| y * libm::sin(4.0 * t));
        let exact = |y: f32, t: f64| f64::from(y) * libm::exp((1.0 - libm::cos(4.0 * t)) / 4.0);
        let mut worst = 0.0f64;
        for (i, &t) in saves.iter().enumerate() {
            for (row, &y) in start.iter().enumerate() {
                worst = worst.max((f64::from(saved[3 * i + row]) - exact(y, t)).abs());
            }
        }
        println!("{}: {worst:e}", solver.name());
        assert!(worst < 1e-3, "{} {worst:e}", solver.name());
        assert_eq!((&saved[..3], &saved[120..]), (&start[..], &x[..]));
        // Alone a row has the same bits.
        let (_, alone, _) = solve(&plan, &start[1..2], 1, |t, y| y * libm::sin(4.0 * t));
        assert!(alone.iter().enumerate().all(|(i, v)| v.to_bits() == saved[3 * i + 1].to_bits()));
        // Without save_at the walk is the same.
        let (bare, none, _) =
            solve(&compile(ode(solver, 0.0, 4.0, 1e-5, 1e-6)), &start, 3, |t, y| y * libm::sin(4.0 * t));
        assert!(none.is_empty() && bare == x);
    }
}

#[test]
fn controllers_change_the_steps() {
    let evals = |controller: Option<Vec<f64>>| {
        let plan = compile(PlanOptions { controller, ..ode(Solver::Dopri5, 0.0, 6.0, 1e-5, 1e-6) });
        let (x, _, c) = solve(&plan, &[1.0], 1, |t, y| y * libm::sin(4.0 * t));
        let exact = libm::exp((1.0 - libm::cos(24.0)) / 4.0);
        assert!((f64::from(x[0]) - exact).abs() < 1e-4);
        c.evals
    };
    let own = evals(None);
    assert_eq!(own, evals(Some(vec![1.0])));
    let all = [own, evals(Some(vec![0.7, -0.4])), evals(Some(vec![0.25, 0.5, 0.25]))];
    println!("I, PI, H312: {all:?}");
    assert!(all[1..].iter().all(|n| *n > own));
    assert_ne!(evals(Some(vec![0.4])), own);
    assert_eq!(compile(PlanOptions { solver: Solver::Bosh3, ..Default::default() }).control(), {
        let controller = Some(vec![0.7, -0.4]);
        compile(PlanOptions { solver: Solver::Bosh3, controller, ..Default::default() }).control()
    });
}

#[test]
fn bad_odes_are_named() {
    let refused = |o: PlanOptions, arg: &str| {
        let error = Plan::compile(&o).expect_err(arg);
        let named = match &error {
            Error::Range { arg, .. } | Error::Argument { arg, .. } | Error::Shape { arg, .. } => arg,
            other => panic!("{other}"),
        };
        assert_eq!(*named, arg, "{error}");
    };
    let o = || ode(Solver::Dopri5, 0.0, 2.0, 1e-3, 1e-3);
    refused(PlanOptions { t_end: 0.0, ..o() }, "t_end");
    refused(PlanOptions { t_end: 1e10, ..o() }, "t_end");
    refused(PlanOptions { t_end: f64::NAN, ..o() }, "t_end");
    refused(PlanOptions { t_end: 2.0, ..Default::default() }, "t_end");
    refused(PlanOptions { solver: Solver::Ddim, ..o() }, "solver");
    refused(PlanOptions { prediction: Prediction::Epsilon, ..o() }, "prediction");
    refused(PlanOptions { clip: Some(1.0), ..o() }, "clip");
    refused(PlanOptions { times: Some(vec![0.0, 1.0, 0.5]), ..o() }, "times");
    refused(PlanOptions { times: Some(vec![]), save_at: Some(vec![0.5]), ..o() }, "times");
    refused(PlanOptions { sigmas: Some(vec![0.5, 0.1]), ..o() }, "sigmas");
    refused(PlanOptions { save_at: Some(vec![]), ..o() }, "save_at");
    refused(PlanOptions { save_at: Some(vec![0.5, 0.5]), ..o() }, "save_at");
    refused(PlanOptions { save_at: Some(vec![0.5, 2.5]), ..o() }, "save_at");
    refused(PlanOptions { save_at: Some(vec![1.0, 0.5]), ..o() }, "save_at");
    refused(PlanOptions { save_at: Some(vec![0.5]), solver: Solver::Rk4, ..o() }, "save_at");
    refused(PlanOptions { controller: Some(vec![1.0]), solver: Solver::Rk4, ..o() }, "controller");
    refused(PlanOptions { controller: Some(vec![0.0]), ..o() }, "controller");
    refused(PlanOptions { controller: Some(vec![1.0; 4]), ..o() }, "controller");
    let plan = compile(o());
    let mut state = vec![0.0; plan.state_len(1, 1).unwrap()];
    assert!(Run::start_from(&plan, &[1], 1, &[1.0], &mut state).is_err());
}
