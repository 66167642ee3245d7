//! What a door costs, from Rust: see benches/README.md.
//!
//! `make doors`. Prints one JSON object a line in the schema of all benchmark programs.

use std::hint::black_box;
use std::time::Instant;

use dgm_core::Result;
use dgm_core::random::normal;
use dgm_core::sampling::{Ask, Plan, PlanOptions, Run, Solver};
use dgm_core::threads::num_threads;
use ndarray::Array2;

const TRIALS: usize = 25;
const CALLS: usize = 1000;
const FEW: usize = 4;
const MANY: usize = 1 << 20;
const STEPS: usize = 16;

/// The median of seconds a call of `f`, which makes `calls` of them.
fn seconds(calls: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut times = [0.0; TRIALS];
    for time in &mut times {
        let begun = Instant::now();
        f()?;
        *time = begun.elapsed().as_secs_f64() / calls as f64;
    }
    times.sort_by(f64::total_cmp);
    Ok(times[TRIALS / 2])
}

#[inline(never)]
fn nothing(n: usize) -> usize {
    black_box(n)
}

/// A whole run of Euler steps.
fn ask_tell(elements: usize, steps: usize) -> Result<f64> {
    let plan = Plan::compile(&PlanOptions { solver: Solver::Euler, steps, ..Default::default() })?;
    let (y, mut state) = (vec![0.0; elements], vec![0.0; plan.state_len(1, elements)?]);
    let begin = Run::start(&plan, &[1], elements, None, &mut state)?;
    seconds(steps, || {
        let mut run = begin.clone();
        while let Ask::Eval(request) = run.ask(&plan)? {
            black_box(run.input(&plan, &state)?);
            run.tell(&plan, &mut state, request.eval_id, &y)?;
        }
        Ok(())
    })
}

/// A whole run whose tensors are elsewhere: nothing but ask and advance.
fn ask_advance(elements: usize, steps: usize) -> Result<f64> {
    let plan = Plan::compile(&PlanOptions { solver: Solver::Euler, steps, ..Default::default() })?;
    let begin = Run::start_detached(&plan, &[1], elements)?;
    seconds(steps, || {
        let mut run = begin.clone();
        while let Ask::Eval(request) = run.ask(&plan)? {
            run.advance(&plan, request.eval_id)?;
        }
        Ok(())
    })
}

fn report(name: &str, seconds: f64, empty: Option<f64>) {
    let peers = match empty {
        Some(empty) => format!(
            "\"peers_ms\":{{\"empty call\":{:.9}}},\"best_peer\":\"empty call\",\"ratio\":{:.4}",
            1e3 * empty,
            empty / seconds
        ),
        None => "\"peers_ms\":{},\"best_peer\":null,\"ratio\":null".into(),
    };
    println!(
        "{{\"case\":\"{name}, Rust\",\"group\":\"door\",\"dtype\":\"f32\",\"threads\":{},\"ours_ms\":{:.9},{peers},\"limit\":null,\"pct_of_limit\":null}}",
        num_threads(),
        1e3 * seconds
    );
}

fn main() -> Result<()> {
    let mut out = Array2::zeros((1, MANY));
    let empty = seconds(CALLS, || {
        (0..CALLS).for_each(|n| {
            nothing(n);
        });
        Ok(())
    })?;
    report("empty call", empty, None);
    report("ask and advance without data", ask_advance(FEW, CALLS)?, Some(empty));
    report(&format!("ask and tell of {FEW} numbers"), ask_tell(FEW, CALLS)?, Some(empty));
    report("Euler step of 1M numbers", ask_tell(MANY, STEPS)?, None);
    report("1M normals", seconds(1, || normal(&[1], 9, 0, out.view_mut()))?, None);
    Ok(())
}
