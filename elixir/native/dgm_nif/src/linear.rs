//! Packed linear layers.

use dgm_core::arch::FpEnv;
use dgm_core::linalg::{self, Activation, LinearOptions, PackedLinear, Residual};
use dgm_core::{Error, Result};
use ndarray::{Ix1, Ix2};
use rustler::{Env, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::typed::{self, Typed, TypedInput, TypedOutput};

/// An immutable packed layer, shared between processes.
pub struct LinearRef(PackedLinear);

#[rustler::resource_impl]
impl Resource for LinearRef {}

impl Named for LinearRef {
    const ARG: &'static str = "linear";
    const EXPECTED: &'static str = "the resource of a %DGM.Linear{}";
}

/// `{resource, in_features, out_features, bytes}`
#[rustler::nif(schedule = "DirtyCpu")]
fn linear_pack<'a>(
    weight: TypedInput<'a>,
    bias: Option<TypedInput<'a>>,
) -> Reply<(ResourceArc<LinearRef>, usize, usize, usize)> {
    let _fp = FpEnv::enter();
    let weight = Typed::new("weight", &weight, false)?;
    let bias = bias.as_ref().map(|b| Typed::new("bias", b, false)).transpose()?;
    let bias = bias.as_ref().map(|b| b.floats::<Ix1>("{out_features}")).transpose()?;
    described(PackedLinear::pack(weight.floats::<Ix2>("{out_features, in_features}")?, bias)?)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn linear_pack_gated<'a>(
    gate: TypedInput<'a>,
    up: TypedInput<'a>,
    gate_bias: Option<TypedInput<'a>>,
    up_bias: Option<TypedInput<'a>>,
) -> Reply<(ResourceArc<LinearRef>, usize, usize, usize)> {
    let _fp = FpEnv::enter();
    let (gate, up) = (Typed::new("gate", &gate, false)?, Typed::new("up", &up, false)?);
    let gate_bias = gate_bias.as_ref().map(|b| Typed::new("gate_bias", b, false)).transpose()?;
    let up_bias = up_bias.as_ref().map(|b| Typed::new("up_bias", b, false)).transpose()?;
    let gate_bias = gate_bias.as_ref().map(|b| b.floats::<Ix1>("{out_features}")).transpose()?;
    let up_bias = up_bias.as_ref().map(|b| b.floats::<Ix1>("{out_features}")).transpose()?;
    let expected = "{out_features, in_features}";
    let (gate, up) = (gate.floats::<Ix2>(expected)?, up.floats::<Ix2>(expected)?);
    described(PackedLinear::pack_gated(gate, up, gate_bias, up_bias)?)
}

fn described(packed: PackedLinear) -> Reply<(ResourceArc<LinearRef>, usize, usize, usize)> {
    let (inputs, outputs, bytes) = (packed.in_features(), packed.out_features(), packed.bytes());
    Ok((ResourceArc::new(LinearRef(packed)), inputs, outputs, bytes))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn linear_forward<'a>(
    env: Env<'a>,
    layer: Handle<LinearRef>,
    x: TypedInput<'a>,
    activation: String,
    gate: Option<TypedInput<'a>>,
    residual: Option<TypedInput<'a>>,
    dtype: String,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Typed::new("x", &x, false)?;
    let rows = x.rows()?;
    let gate = gate.as_ref().map(|g| Typed::new("gate", g, false)).transpose()?;
    let residual = residual.as_ref().map(|r| Typed::new("residual", r, false)).transpose()?;
    let options = LinearOptions {
        activation: parse(&activation)?,
        gate: gate.as_ref().map(Typed::rows).transpose()?,
        residual: match &residual {
            Some(residual) => Residual::Rows(residual.rows()?),
            None => Residual::None,
        },
    };
    let mut dims = x.dims().to_vec();
    if let Some(last) = dims.last_mut() {
        *last = layer.0.out_features();
    }
    let mut out = TypedOutput::new("out", &dims, typed::dtype("type", &dtype, false)?)?;
    linalg::linear(rows, &layer.0, options, out.rows()?)?;
    Ok(out.into_term(env))
}

fn parse(name: &str) -> Result<Activation> {
    Ok(match name {
        "none" => Activation::None,
        "silu" => Activation::Silu,
        "gelu_tanh" => Activation::GeluTanh,
        "gelu_erf" => Activation::GeluErf,
        other => return Err(Error::argument("activation", other, "none, silu, gelu_tanh or gelu_erf")),
    })
}
