//! The transformer of Flux.

use std::path::Path;

use dgm_core::arch::FpEnv;
use dgm_core::models::{Flux, FluxInputs};
use ndarray::{Ix2, Ix3};
use rustler::{Binary, Env, NifMap, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::spare::Spare;
use crate::tensor::{Input, Output, Tensor};

/// An immutable network, shared between processes.
pub struct FluxRef {
    model: Flux,
    spare: Spare,
}

#[rustler::resource_impl]
impl Resource for FluxRef {}

impl Named for FluxRef {
    const ARG: &'static str = "model";
    const EXPECTED: &'static str = "the resource of a %DGM.Flux{}";
}

/// The dimensions, as `DGM.Flux` keeps them.
#[derive(NifMap)]
struct Config {
    channels: usize,
    out_channels: usize,
    hidden: usize,
    depth: usize,
    single_depth: usize,
    heads: usize,
    text: usize,
    pooled: usize,
    axes: Vec<usize>,
    guidance: bool,
    packed_bytes: usize,
}

type Loaded = (ResourceArc<FluxRef>, Config);

#[rustler::nif(schedule = "DirtyIo")]
fn flux_load(folder: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Flux::load(Path::new(&folder))?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn flux_from_binary(weights: Binary<'_>, config: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Flux::from_bytes(weights.as_slice(), &config)?))
}

fn loaded(model: Flux) -> Loaded {
    let c = model.config();
    let config = Config {
        channels: c.channels,
        out_channels: c.out_channels,
        hidden: c.hidden,
        depth: c.depth,
        single_depth: c.single_depth,
        heads: c.heads,
        text: c.text,
        pooled: c.pooled,
        axes: c.axes.clone(),
        guidance: c.guidance,
        packed_bytes: model.bytes(),
    };
    (ResourceArc::new(FluxRef { model, spare: Spare::default() }), config)
}

/// `times` are the times and the guidances or nil, `places` those of image tokens and of text tokens or nil.
#[rustler::nif(schedule = "DirtyCpu")]
fn flux_forward<'a>(
    env: Env<'a>,
    model: Handle<FluxRef>,
    x: Input<'a>,
    times: (Input<'a>, Option<Input<'a>>),
    text: Input<'a>,
    pooled: Input<'a>,
    places: (Input<'a>, Option<Input<'a>>),
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, text, pooled) =
        (Tensor::new("x", &x)?, Tensor::new("text", &text)?, Tensor::new("pooled", &pooled)?);
    let ids = Tensor::new("ids", &places.0)?;
    let text_ids = places.1.map(|ids| Tensor::new("text_ids", &ids)).transpose()?;
    let t = times.0.data("t")?;
    let guidance = times.1.map(|guidance| guidance.data("guidance")).transpose()?;
    let inputs = FluxInputs {
        x: x.view::<Ix3>("{batch, tokens, channels}")?,
        t: &t,
        guidance: guidance.as_deref(),
        text: text.view::<Ix3>("{batch, text tokens, text}")?,
        pooled: pooled.view::<Ix2>("{batch, pooled}")?,
        ids: ids.view::<Ix2>("{tokens, axes}")?,
        text_ids: text_ids.as_ref().map(|ids| ids.view::<Ix2>("{text tokens, axes}")).transpose()?,
    };
    let (batch, tokens, _) = inputs.x.dim();
    let needed = model.model.workspace_len(tokens, inputs.text.dim().1)?;
    let mut out = Output::new("out", &[batch, tokens, model.model.config().out_channels])?;
    model.spare.with(needed, "x", |workspace| model.model.forward(&inputs, workspace, out.view::<Ix3>()?))?;
    Ok(out.into_term(env))
}
