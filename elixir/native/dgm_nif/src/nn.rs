//! Norms, modulation, activations, embeddings, patches.

use dgm_core::arch::FpEnv;
use dgm_core::nn;
use dgm_core::{Error, Result};
use ndarray::{Ix1, Ix2, Ix3, Ix4};
use rustler::{Env, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};

#[rustler::nif(schedule = "DirtyCpu")]
fn layer_norm<'a>(
    env: Env<'a>,
    x: Input<'a>,
    weight: Option<Input<'a>>,
    bias: Option<Input<'a>>,
    eps: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let (weight, bias) = (optional("weight", &weight)?, optional("bias", &bias)?);
    let mut out = Output::new("out", x.dims())?;
    let weight = weight.as_ref().map(|w| w.view::<Ix1>("{d}")).transpose()?;
    let bias = bias.as_ref().map(|b| b.view::<Ix1>("{d}")).transpose()?;
    nn::layer_norm(x.rows()?, weight, bias, eps as f32, out.rows()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rms_norm<'a>(env: Env<'a>, x: Input<'a>, weight: Option<Input<'a>>, eps: f64) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let weight = optional("weight", &weight)?;
    let mut out = Output::new("out", x.dims())?;
    let weight = weight.as_ref().map(|w| w.view::<Ix1>("{d}")).transpose()?;
    nn::rms_norm(x.rows()?, weight, eps as f32, out.rows()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn modulate<'a>(env: Env<'a>, x: Input<'a>, shift: Input<'a>, scale: Input<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, shift, scale) =
        (Tensor::new("x", &x)?, Tensor::new("shift", &shift)?, Tensor::new("scale", &scale)?);
    let mut out = Output::new("out", x.dims())?;
    nn::modulate(
        x.view::<Ix3>("{batch, tokens, d}")?,
        shift.view::<Ix2>("{batch, d}")?,
        scale.view::<Ix2>("{batch, d}")?,
        out.view::<Ix3>()?,
    )?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn layer_norm_modulate<'a>(
    env: Env<'a>,
    x: Input<'a>,
    shift: Input<'a>,
    scale: Input<'a>,
    eps: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, shift, scale) =
        (Tensor::new("x", &x)?, Tensor::new("shift", &shift)?, Tensor::new("scale", &scale)?);
    let mut out = Output::new("out", x.dims())?;
    nn::layer_norm_modulate(
        x.view::<Ix3>("{batch, tokens, d}")?,
        shift.view::<Ix2>("{batch, d}")?,
        scale.view::<Ix2>("{batch, d}")?,
        eps as f32,
        out.view::<Ix3>()?,
    )?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn gate_residual<'a>(env: Env<'a>, residual: Input<'a>, y: Input<'a>, gate: Input<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (residual, y) = (Tensor::new("residual", &residual)?, Tensor::new("y", &y)?);
    let gate = Tensor::new("gate", &gate)?;
    let mut out = Output::new("out", residual.dims())?;
    nn::gate_residual(
        residual.view::<Ix3>("{batch, tokens, d}")?,
        y.view::<Ix3>("{batch, tokens, d}")?,
        gate.view::<Ix2>("{batch, d}")?,
        out.view::<Ix3>()?,
    )?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn silu<'a>(env: Env<'a>, x: Input<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let mut out = Output::new("out", x.dims())?;
    nn::silu(x.dynamic()?, out.view()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn gelu<'a>(env: Env<'a>, x: Input<'a>, kind: String) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let kind = match kind.as_str() {
        "tanh" => nn::Gelu::Tanh,
        "erf" => nn::Gelu::Erf,
        other => return Err(Error::argument("kind", other, "tanh or erf").into()),
    };
    let x = Tensor::new("x", &x)?;
    let mut out = Output::new("out", x.dims())?;
    nn::gelu(x.dynamic()?, kind, out.view()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn timestep_embedding<'a>(env: Env<'a>, t: Input<'a>, dim: usize, max_period: f64) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let t = Tensor::new("t", &t)?;
    let t = t.view::<Ix1>("{batch}")?;
    let mut out = Output::new("dim", &[t.len(), dim])?;
    nn::timestep_embedding(t, max_period as f32, out.view::<Ix2>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn patchify<'a>(env: Env<'a>, x: Input<'a>, patch: usize) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let x = x.view::<Ix4>("{batch, channels, height, width}")?;
    let (batch, channels, height, width) = x.dim();
    let side = positive("patch", patch)?;
    let mut out = Output::new(
        "out",
        &[batch, (height / side) * (width / side), square("patch", side)?.saturating_mul(channels)],
    )?;
    nn::patchify(x, patch, out.view::<Ix3>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn unpatchify<'a>(env: Env<'a>, x: Input<'a>, patch: usize, height: usize, width: usize) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let x = x.view::<Ix3>("{batch, tokens, patch * patch * channels}")?;
    let channels = x.dim().2 / square("patch", positive("patch", patch)?)?;
    // Here the caller gives a size where other languages give an output.
    if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        return Err(Error::shape("size", &[height, width], format!("multiples of patch {patch}")).into());
    }
    let mut out = Output::new("size", &[x.dim().0, channels, height, width])?;
    nn::unpatchify(x, patch, out.view::<Ix4>()?)?;
    Ok(out.into_term(env))
}

fn optional<'a>(arg: &'static str, input: &Option<Input<'a>>) -> Result<Option<Tensor<'a>>> {
    input.as_ref().map(|i| Tensor::new(arg, i)).transpose()
}

fn positive(arg: &'static str, n: usize) -> Result<usize> {
    if n == 0 { Err(Error::range(arg, n, "at least 1")) } else { Ok(n) }
}

fn square(arg: &'static str, n: usize) -> Result<usize> {
    n.checked_mul(n).ok_or_else(|| Error::Overflow { arg, got: n.to_string() })
}
