//! Norms, modulation, softmax, activations, embeddings, patches: f32, f16 or bf16, each tensor for itself;
//! a result has the type of the first.

use dgm_core::arch::FpEnv;
use dgm_core::sampling::cfg_combine as combine;
use dgm_core::{Error, Result, nn};
use ndarray::{Ix1, Ix2, Ix3, Ix4, IxDyn};
use rustler::{Env, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};
use crate::typed::{Typed, TypedInput, TypedOutput};

/// An output of the shape and type of an argument.
fn like(x: &Typed) -> Result<TypedOutput> {
    TypedOutput::new("out", x.dims(), x.dtype())
}

fn typed<'r>(arg: &'static str, input: &'r TypedInput) -> Result<Typed<'r>> {
    Typed::new(arg, input, false)
}

fn optional<'r>(arg: &'static str, input: &'r Option<TypedInput>) -> Result<Option<Typed<'r>>> {
    input.as_ref().map(|i| typed(arg, i)).transpose()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn layer_norm<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    weight: Option<TypedInput<'a>>,
    bias: Option<TypedInput<'a>>,
    eps: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, weight, bias) = (typed("x", &x)?, optional("weight", &weight)?, optional("bias", &bias)?);
    let mut out = like(&x)?;
    let weight = weight.as_ref().map(|w| w.floats::<Ix1>("{d}")).transpose()?;
    let bias = bias.as_ref().map(|b| b.floats::<Ix1>("{d}")).transpose()?;
    nn::layer_norm(x.floats::<IxDyn>("")?, weight, bias, eps as f32, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rms_norm<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    weight: Option<TypedInput<'a>>,
    eps: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, weight) = (typed("x", &x)?, optional("weight", &weight)?);
    let mut out = like(&x)?;
    let weight = weight.as_ref().map(|w| w.floats::<Ix1>("{d}")).transpose()?;
    nn::rms_norm(x.floats::<IxDyn>("")?, weight, eps as f32, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rms_norm_residual<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    residual: TypedInput<'a>,
    weight: Option<TypedInput<'a>>,
    eps: f64,
) -> Reply<(Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    let (x, residual) = (typed("x", &x)?, typed("residual", &residual)?);
    let weight = optional("weight", &weight)?;
    let (mut sum, mut out) = (like(&x)?, like(&x)?);
    let weight = weight.as_ref().map(|w| w.floats::<Ix1>("{d}")).transpose()?;
    nn::rms_norm_residual(
        x.floats::<IxDyn>("")?,
        residual.floats::<IxDyn>("")?,
        weight,
        eps as f32,
        sum.floats::<IxDyn>()?,
        out.floats::<IxDyn>()?,
    )?;
    Ok((sum.into_term(env), out.into_term(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn group_norm<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    groups: usize,
    weight: Option<TypedInput<'a>>,
    bias: Option<TypedInput<'a>>,
    eps: f64,
    silu: bool,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, weight, bias) = (typed("x", &x)?, optional("weight", &weight)?, optional("bias", &bias)?);
    let mut out = like(&x)?;
    let weight = weight.as_ref().map(|w| w.floats::<Ix1>("{channels}")).transpose()?;
    let bias = bias.as_ref().map(|b| b.floats::<Ix1>("{channels}")).transpose()?;
    nn::group_norm(x.floats::<IxDyn>("")?, groups, weight, bias, eps as f32, silu, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

const TOKENS: &str = "{batch, tokens, d}";
const BY_BATCH: &str = "{batch, d}";

#[rustler::nif(schedule = "DirtyCpu")]
fn modulate<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    shift: TypedInput<'a>,
    scale: TypedInput<'a>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, shift, scale) = (typed("x", &x)?, typed("shift", &shift)?, typed("scale", &scale)?);
    let mut out = like(&x)?;
    let from = x.floats::<Ix3>(TOKENS)?;
    let (shift, scale) = (shift.floats::<Ix2>(BY_BATCH)?, scale.floats::<Ix2>(BY_BATCH)?);
    nn::modulate(from, shift, scale, out.floats::<Ix3>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn layer_norm_modulate<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    shift: TypedInput<'a>,
    scale: TypedInput<'a>,
    eps: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, shift, scale) = (typed("x", &x)?, typed("shift", &shift)?, typed("scale", &scale)?);
    let mut out = like(&x)?;
    let from = x.floats::<Ix3>(TOKENS)?;
    let (shift, scale) = (shift.floats::<Ix2>(BY_BATCH)?, scale.floats::<Ix2>(BY_BATCH)?);
    nn::layer_norm_modulate(from, shift, scale, eps as f32, out.floats::<Ix3>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn gate_residual<'a>(
    env: Env<'a>,
    residual: TypedInput<'a>,
    y: TypedInput<'a>,
    gate: TypedInput<'a>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (residual, y, gate) = (typed("residual", &residual)?, typed("y", &y)?, typed("gate", &gate)?);
    let mut out = like(&residual)?;
    let from = residual.floats::<Ix3>(TOKENS)?;
    nn::gate_residual(from, y.floats::<Ix3>(TOKENS)?, gate.floats::<Ix2>(BY_BATCH)?, out.floats::<Ix3>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn silu<'a>(env: Env<'a>, x: TypedInput<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = typed("x", &x)?;
    let mut out = like(&x)?;
    nn::silu(x.floats::<IxDyn>("")?, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

fn gelu_kind(name: &str) -> Result<nn::Gelu> {
    match name {
        "tanh" => Ok(nn::Gelu::Tanh),
        "erf" => Ok(nn::Gelu::Erf),
        other => Err(Error::argument("kind", other, "tanh or erf")),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn gelu<'a>(env: Env<'a>, x: TypedInput<'a>, kind: String) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let kind = gelu_kind(&kind)?;
    let x = typed("x", &x)?;
    let mut out = like(&x)?;
    nn::gelu(x.floats::<IxDyn>("")?, kind, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

/// SwiGLU without a kind, else GEGLU; without `up` the last dimension of `gate` holds both.
#[rustler::nif(schedule = "DirtyCpu")]
fn gated<'a>(
    env: Env<'a>,
    gate: TypedInput<'a>,
    up: Option<TypedInput<'a>>,
    kind: Option<String>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let kind = kind.as_deref().map(gelu_kind).transpose()?;
    let (gate, up) = (typed("gate", &gate)?, optional("up", &up)?);
    let from = gate.floats::<IxDyn>("")?;
    let mut dims = gate.dims().to_vec();
    let (from, up) = match &up {
        Some(up) => (from, up.floats::<IxDyn>("")?),
        None => {
            let Some((last, axis)) = dims.last_mut().zip(gate.dims().len().checked_sub(1)) else {
                return Err(Error::shape("gate", gate.dims(), "{..., 2 * d}").into());
            };
            if *last % 2 != 0 {
                return Err(Error::shape("gate", gate.dims(), "{..., 2 * d}").into());
            }
            *last /= 2;
            from.split_at(axis, *last)
        }
    };
    let mut out = TypedOutput::new("out", &dims, gate.dtype())?;
    match kind {
        None => nn::swiglu(from, up, out.floats::<IxDyn>()?)?,
        Some(kind) => nn::geglu(from, up, kind, out.floats::<IxDyn>()?)?,
    }
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn softmax<'a>(env: Env<'a>, x: TypedInput<'a>, log: bool) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = typed("x", &x)?;
    let mut out = like(&x)?;
    let (from, to) = (x.floats::<IxDyn>("")?, out.floats::<IxDyn>()?);
    if log { nn::log_softmax(from, to) } else { nn::softmax(from, to) }?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn embedding<'a>(env: Env<'a>, table: TypedInput<'a>, indices: Vec<i64>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let table = typed("table", &table)?;
    let rows = table.floats::<Ix2>("{rows, d}")?;
    let mut out = TypedOutput::new("out", &[indices.len(), rows.shape()[1]], table.dtype())?;
    nn::embedding(rows, &indices, out.floats::<Ix2>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn cfg_combine<'a>(
    env: Env<'a>,
    cond: TypedInput<'a>,
    uncond: TypedInput<'a>,
    scale: f64,
    rescale: f64,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (cond, uncond) = (typed("cond", &cond)?, typed("uncond", &uncond)?);
    let mut out = like(&cond)?;
    let (a, b) = (cond.floats::<IxDyn>("")?, uncond.floats::<IxDyn>("")?);
    combine(a, b, scale, rescale, out.floats::<IxDyn>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rope_axial_tables<'a>(
    env: Env<'a>,
    positions: Input<'a>,
    dims: Vec<usize>,
    theta: f64,
) -> Reply<(Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    let positions = Tensor::new("positions", &positions)?;
    let view = positions.view::<Ix2>("{tokens, axes}")?;
    let half = dims.iter().try_fold(0usize, |sum, d| sum.checked_add(d / 2));
    let half = half.ok_or_else(|| Error::Overflow { arg: "dims", got: format!("{dims:?}") })?;
    let mut cos = Output::new("dims", &[view.nrows(), half])?;
    let mut sin = Output::new("dims", &[view.nrows(), half])?;
    nn::rope_axial_tables(view, &dims, theta as f32, cos.view::<Ix2>()?, sin.view::<Ix2>()?)?;
    Ok((cos.into_term(env), sin.into_term(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn timestep_embedding<'a>(env: Env<'a>, t: TypedInput<'a>, dim: usize, max_period: f64) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let t = typed("t", &t)?;
    let times = t.floats::<Ix1>("{batch}")?;
    let mut out = TypedOutput::new("dim", &[times.shape()[0], dim], t.dtype())?;
    nn::timestep_embedding(times, max_period as f32, out.floats::<Ix2>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn patchify<'a>(env: Env<'a>, x: TypedInput<'a>, patch: usize) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = typed("x", &x)?;
    let images = x.floats::<Ix4>("{batch, channels, height, width}")?;
    let &[batch, channels, height, width] = images.shape() else { unreachable!("four axes") };
    let side = positive("patch", patch)?;
    let features = square("patch", side)?.saturating_mul(channels);
    let dims = [batch, (height / side) * (width / side), features];
    let mut out = TypedOutput::new("out", &dims, x.dtype())?;
    nn::patchify(images, patch, out.floats::<Ix3>()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn unpatchify<'a>(
    env: Env<'a>,
    x: TypedInput<'a>,
    patch: usize,
    height: usize,
    width: usize,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = typed("x", &x)?;
    let tokens = x.floats::<Ix3>("{batch, tokens, patch * patch * channels}")?;
    let channels = x.dims()[2] / square("patch", positive("patch", patch)?)?;
    // Here the caller gives a size where other languages give an output.
    if !height.is_multiple_of(patch) || !width.is_multiple_of(patch) {
        return Err(Error::shape("size", &[height, width], format!("multiples of patch {patch}")).into());
    }
    let mut out = TypedOutput::new("size", &[x.dims()[0], channels, height, width], x.dtype())?;
    nn::unpatchify(tokens, patch, out.floats::<Ix4>()?)?;
    Ok(out.into_term(env))
}

fn positive(arg: &'static str, n: usize) -> Result<usize> {
    if n == 0 { Err(Error::range(arg, n, "at least 1")) } else { Ok(n) }
}

fn square(arg: &'static str, n: usize) -> Result<usize> {
    n.checked_mul(n).ok_or_else(|| Error::Overflow { arg, got: n.to_string() })
}
