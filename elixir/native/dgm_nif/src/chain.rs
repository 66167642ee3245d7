//! Markov chains: what they accepted, their steps, how well they have mixed.

use dgm_core::Error;
use dgm_core::arch::FpEnv;
use dgm_core::sampling::{self, Run};
use rustler::{Binary, Env, Term};

use crate::failure::{Handle, Reply};
use crate::plan::PlanRef;
use crate::tensor::{Input, Output, Tensor};

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
    Ok(number(sampling::split_r_hat(&draws, chains)?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn effective_sample_size(draws: Vec<f64>, chains: usize) -> Reply<Option<f64>> {
    let _fp = FpEnv::enter();
    Ok(number(sampling::effective_sample_size(&draws, chains)?))
}

/// Rows and log densities after a round, and which pairs have changed places.
#[rustler::nif(schedule = "DirtyCpu")]
fn replica_exchange<'a>(
    env: Env<'a>,
    x: Input<'a>,
    log_density: Vec<f64>,
    inverse_temperatures: Vec<f64>,
    seeds: Vec<u64>,
    step: u32,
) -> Reply<(Term<'a>, Vec<f64>, Vec<bool>)> {
    let _fp = FpEnv::enter();
    let (x, mut log_density) = (Tensor::new("x", &x)?, log_density);
    if x.dims().is_empty() {
        return Err(Error::shape("x", &[], "{rows, ...}").into());
    }
    let mut out = Output::stale("x", x.dims())?;
    out.floats()?.copy_from_slice(x.floats());
    let ladders = log_density.len().checked_div(inverse_temperatures.len()).unwrap_or(0);
    let mut accepted = vec![false; log_density.len() - ladders];
    let betas = &inverse_temperatures;
    sampling::replica_exchange(out.leading()?, &mut log_density, betas, &seeds, step, &mut accepted)?;
    Ok((out.into_term(env), log_density, accepted))
}
