//! Markov chains: what they accepted, their steps, how well they have mixed.

use dgm_core::arch::FpEnv;
use dgm_core::sampling::Run;
use rustler::Binary;

use crate::failure::{Handle, Reply};
use crate::plan::PlanRef;

#[rustler::nif(schedule = "DirtyCpu")]
fn run_accepted(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<Vec<u64>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut out = vec![0; run.rows()];
    run.accepted(&plan.0, &mut out)?;
    Ok(out)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_step_sizes(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<Vec<f64>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut out = vec![0.0; run.rows()];
    run.step_sizes(&plan.0, &mut out)?;
    Ok(out)
}

/// `nil` where nothing moves: the VM has no NaN.
fn number(value: f64) -> Option<f64> {
    value.is_finite().then_some(value)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn split_r_hat(draws: Vec<f64>, chains: usize) -> Reply<Option<f64>> {
    let _fp = FpEnv::enter();
    Ok(number(dgm_core::sampling::split_r_hat(&draws, chains)?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn effective_sample_size(draws: Vec<f64>, chains: usize) -> Reply<Option<f64>> {
    let _fp = FpEnv::enter();
    Ok(number(dgm_core::sampling::effective_sample_size(&draws, chains)?))
}
