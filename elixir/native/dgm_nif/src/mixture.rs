//! Gaussian mixtures, and whole runs with them.

use dgm_core::arch::FpEnv;
use dgm_core::models::GaussianMixture;
use dgm_core::sampling::{Ask, Prediction, Run, drive_rows};
use dgm_core::{Error, Result};
use ndarray::Ix2;
use rustler::{Binary, Env, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::memory::Memory;
use crate::plan::PlanRef;
use crate::run::header;
use crate::tensor::{Input, Output, Tensor, allocate, floats, floats_mut};

/// An immutable mixture, shared between processes.
pub struct MixtureRef(GaussianMixture);

#[rustler::resource_impl]
impl Resource for MixtureRef {}

impl Named for MixtureRef {
    const ARG: &'static str = "mixture";
    const EXPECTED: &'static str = "the resource of a %DGM.GaussianMixture{}";
}

/// `{resource, components, dims}`
#[rustler::nif(schedule = "DirtyCpu")]
fn mixture_new(
    weights: Vec<f64>,
    means: Vec<f64>,
    variances: Vec<f64>,
) -> Reply<(ResourceArc<MixtureRef>, usize, usize)> {
    let _fp = FpEnv::enter();
    let mixture = GaussianMixture::new(&weights, &means, &variances)?;
    let (components, dims) = (mixture.components(), mixture.dims());
    Ok((ResourceArc::new(MixtureRef(mixture)), components, dims))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn mixture_evaluate<'a>(
    env: Env<'a>,
    mixture: Handle<MixtureRef>,
    prediction: String,
    level: (f64, f64, f64),
    x: Input<'a>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let x = x.view::<Ix2>("{rows, dims}")?;
    let mut out = Output::new("out", &[x.nrows(), x.ncols()])?;
    let (prediction, (alpha, sigma, data)) = (Prediction::from_name(&prediction)?, level);
    mixture.0.evaluate(prediction, alpha, sigma, data, x, out.view::<Ix2>()?)?;
    Ok(out.into_term(env))
}

/// A number a row, `nil` where it is none: the VM has no NaN.
#[rustler::nif(schedule = "DirtyCpu")]
fn mixture_log_density(
    mixture: Handle<MixtureRef>,
    alpha: f64,
    sigma: f64,
    x: Input<'_>,
) -> Reply<Vec<Option<f64>>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let x = x.view::<Ix2>("{rows, dims}")?;
    // As many as there is data for, however many rows of nothing `x` claims.
    let mut out = vec![0.0; x.len() / mixture.0.dims()];
    mixture.0.log_density(alpha, sigma, x, &mut out)?;
    Ok(out.into_iter().map(|v| v.is_finite().then_some(v)).collect())
}

/// The answer to what a run asks, and the numbers beside it.
#[rustler::nif(schedule = "DirtyCpu")]
fn mixture_predict<'a>(
    env: Env<'a>,
    mixture: Handle<MixtureRef>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
) -> Reply<(Binary<'a>, Vec<f64>)> {
    let _fp = FpEnv::enter();
    let plan = &plan.0;
    let run = Run::decode(plan, header.as_slice())?;
    let state = floats("state", state.as_slice())?;
    let mut y = allocate("rows", run.rows() * run.elements())?;
    let numbers = answer(&mixture.0, plan, &run, &state, floats_mut(&mut y)?)?;
    Ok((Binary::from_owned(y, env), numbers))
}

fn answer(
    mixture: &GaussianMixture,
    plan: &dgm_core::sampling::Plan,
    run: &Run,
    state: &[f32],
    y: &mut [f32],
) -> Result<Vec<f64>> {
    let Ask::Eval(request) = run.ask(plan)? else {
        return Err(Error::State("the run is done and asks for nothing".to_string()));
    };
    let mut t = vec![0.0; run.rows()];
    run.row_times(plan, &mut t)?;
    let mut numbers = vec![0.0; run.rows() * plan.numbers()];
    mixture.predict(plan, &request, run.input(plan, state)?, &t, y, &mut numbers)?;
    // The VM holds no infinity; told, this becomes one again.
    numbers.iter_mut().filter(|v| !v.is_finite()).for_each(|v| *v = f64::MIN);
    Ok(numbers)
}

/// Header and state of the run at its end.
#[rustler::nif(schedule = "DirtyCpu")]
fn mixture_finish<'a>(
    env: Env<'a>,
    mixture: Handle<MixtureRef>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
) -> Reply<(Binary<'a>, Binary<'a>)> {
    let _fp = FpEnv::enter();
    let plan = &plan.0;
    let mut run = Run::decode(plan, header.as_slice())?;
    let state = floats("state", state.as_slice())?;
    let mut next = Memory::stale("state", state.len())?;
    next.floats()?.copy_from_slice(&state);
    drive_rows(plan, &mut run, next.floats()?, &mixture.0)?;
    let header = self::header(plan, &run)?;
    Ok((Binary::from_owned(header, env), next.into_binary(env)))
}
