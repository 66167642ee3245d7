//! Restricted Boltzmann machines.

use dgm_core::arch::FpEnv;
use dgm_core::models::Rbm;
use ndarray::{Ix1, Ix2};
use rustler::{Env, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::tensor::{Input, Output, Tensor};

/// An immutable machine, shared between processes.
pub struct RbmRef(Rbm);

#[rustler::resource_impl]
impl Resource for RbmRef {}

impl Named for RbmRef {
    const ARG: &'static str = "rbm";
    const EXPECTED: &'static str = "the resource of a %DGM.Rbm{}";
}

const VISIBLE: &str = "{rows, visible}";
const HIDDEN: &str = "{rows, hidden}";

/// `{resource, visible, hidden}`
#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_new(
    weights: Input<'_>,
    visible_bias: Input<'_>,
    hidden_bias: Input<'_>,
) -> Reply<(ResourceArc<RbmRef>, usize, usize)> {
    let _fp = FpEnv::enter();
    let weights = Tensor::new("weights", &weights)?;
    let (b, c) = (Tensor::new("visible_bias", &visible_bias)?, Tensor::new("hidden_bias", &hidden_bias)?);
    let (b, c) = (b.view::<Ix1>("{visible}")?.to_vec(), c.view::<Ix1>("{hidden}")?.to_vec());
    let rbm = Rbm::new(weights.view::<Ix2>("{visible, hidden}")?, &b, &c)?;
    let (visible, hidden) = (rbm.visible(), rbm.hidden());
    Ok((ResourceArc::new(RbmRef(rbm)), visible, hidden))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_hidden_probabilities<'a>(env: Env<'a>, rbm: Handle<RbmRef>, v: Input<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let v = Tensor::new("v", &v)?;
    let v = v.view::<Ix2>(VISIBLE)?;
    let mut out = Output::new("out", &[v.len() / rbm.0.visible(), rbm.0.hidden()])?;
    rbm.0.hidden_probabilities(v, out.view::<Ix2>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_visible_probabilities<'a>(env: Env<'a>, rbm: Handle<RbmRef>, h: Input<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let h = Tensor::new("h", &h)?;
    let h = h.view::<Ix2>(HIDDEN)?;
    let mut out = Output::new("out", &[h.len() / rbm.0.hidden(), rbm.0.visible()])?;
    rbm.0.visible_probabilities(h, out.view::<Ix2>()?)?;
    Ok(out.into_term(env))
}

/// A number a row.
#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_free_energy(rbm: Handle<RbmRef>, v: Input<'_>) -> Reply<Vec<f64>> {
    let _fp = FpEnv::enter();
    let v = Tensor::new("v", &v)?;
    let v = v.view::<Ix2>(VISIBLE)?;
    let mut out = vec![0.0; v.len() / rbm.0.visible()];
    rbm.0.free_energy(v, &mut out)?;
    Ok(out)
}

/// A number a row.
#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_energy(rbm: Handle<RbmRef>, v: Input<'_>, h: Input<'_>) -> Reply<Vec<f64>> {
    let _fp = FpEnv::enter();
    let (v, h) = (Tensor::new("v", &v)?, Tensor::new("h", &h)?);
    let v = v.view::<Ix2>(VISIBLE)?;
    let mut out = vec![0.0; v.len() / rbm.0.visible()];
    rbm.0.energy(v, h.view::<Ix2>(HIDDEN)?, &mut out)?;
    Ok(out)
}

/// The chains, and where wanted the hidden units they were drawn from.
#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_gibbs<'a>(
    env: Env<'a>,
    rbm: Handle<RbmRef>,
    v: Input<'a>,
    seeds: Vec<u64>,
    steps: (u32, u32),
    inverse_temperatures: Vec<f64>,
    hidden: bool,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let start = Tensor::new("v", &v)?;
    let start = start.view::<Ix2>(VISIBLE)?;
    let mut v = Output::stale("v", &[start.nrows(), start.ncols()])?;
    v.view::<Ix2>()?.assign(&start);
    let mut h = match hidden {
        true => Some(Output::new("hidden", &[start.len() / rbm.0.visible(), rbm.0.hidden()])?),
        false => None,
    };
    let to = h.as_mut().map(Output::view::<Ix2>).transpose()?;
    rbm.0.gibbs(v.view::<Ix2>()?, &seeds, steps.0, steps.1, &inverse_temperatures, to)?;
    Ok((v.into_term(env), h.map(|h| h.into_term(env))))
}

/// The gradient of the weights and of both biases.
#[rustler::nif(schedule = "DirtyCpu")]
fn rbm_cd_gradient<'a>(
    env: Env<'a>,
    rbm: Handle<RbmRef>,
    v_data: Input<'a>,
    v_chain: Input<'a>,
) -> Reply<(Term<'a>, Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    let (data, chain) = (Tensor::new("v_data", &v_data)?, Tensor::new("v_chain", &v_chain)?);
    let (data, chain) = (data.view::<Ix2>(VISIBLE)?, chain.view::<Ix2>(VISIBLE)?);
    let (visible, hidden) = (rbm.0.visible(), rbm.0.hidden());
    let mut weights = Output::new("weights", &[visible, hidden])?;
    let (mut b, mut c) = (Output::new("visible_bias", &[visible])?, Output::new("hidden_bias", &[hidden])?);
    rbm.0.cd_gradient(data, chain, weights.view::<Ix2>()?, b.floats()?, c.floats()?)?;
    Ok((weights.into_term(env), b.into_term(env), c.into_term(env)))
}
