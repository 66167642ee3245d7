//! The MM-DiT of Stable Diffusion 3.

use std::path::Path;

use dgm_core::arch::FpEnv;
use dgm_core::models::Sd3;
use ndarray::{Ix2, Ix3, Ix4};
use rustler::{Binary, Env, NifMap, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::spare::Spare;
use crate::tensor::{Input, Output, Tensor};

/// An immutable network, shared between processes.
pub struct Sd3Ref {
    model: Sd3,
    spare: Spare,
}

#[rustler::resource_impl]
impl Resource for Sd3Ref {}

impl Named for Sd3Ref {
    const ARG: &'static str = "model";
    const EXPECTED: &'static str = "the resource of a %DGM.SD3{}";
}

/// The dimensions, as `DGM.SD3` keeps them.
#[derive(NifMap)]
struct Config {
    channels: usize,
    out_channels: usize,
    patch: usize,
    hidden: usize,
    depth: usize,
    heads: usize,
    text: usize,
    pooled: usize,
    positions: usize,
    packed_bytes: usize,
}

type Loaded = (ResourceArc<Sd3Ref>, Config);

#[rustler::nif(schedule = "DirtyIo")]
fn sd3_load(folder: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Sd3::load(Path::new(&folder))?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn sd3_from_binary(weights: Binary<'_>, config: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Sd3::from_bytes(weights.as_slice(), &config)?))
}

fn loaded(model: Sd3) -> Loaded {
    let c = model.config();
    let config = Config {
        channels: c.channels,
        out_channels: c.out_channels,
        patch: c.patch,
        hidden: c.hidden,
        depth: c.depth,
        heads: c.heads,
        text: c.text,
        pooled: c.pooled,
        positions: c.positions,
        packed_bytes: model.bytes(),
    };
    (ResourceArc::new(Sd3Ref { model, spare: Spare::default() }), config)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn sd3_forward<'a>(
    env: Env<'a>,
    model: Handle<Sd3Ref>,
    x: Input<'a>,
    t: Input<'a>,
    text: Input<'a>,
    pooled: Input<'a>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let (x, text, pooled) =
        (Tensor::new("x", &x)?, Tensor::new("text", &text)?, Tensor::new("pooled", &pooled)?);
    let t = t.data("t")?;
    let x = x.view::<Ix4>("{batch, channels, height, width}")?;
    let text = text.view::<Ix3>("{batch, tokens, text}")?;
    let pooled = pooled.view::<Ix2>("{batch, pooled}")?;
    let (batch, _, height, width) = x.dim();
    let needed = model.model.workspace_len(height, width, text.dim().1)?;
    let mut out = Output::new("out", &[batch, model.model.config().out_channels, height, width])?;
    model.spare.with(needed, "x", |workspace| {
        model.model.forward(x, &t, text, pooled, workspace, out.view::<Ix4>()?)
    })?;
    Ok(out.into_term(env))
}
