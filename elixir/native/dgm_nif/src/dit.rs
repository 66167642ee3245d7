//! The diffusion transformer.

use std::path::Path;

use dgm_core::Result;
use dgm_core::arch::FpEnv;
use dgm_core::models::Dit;
use ndarray::Ix4;
use rustler::{Binary, Env, NifMap, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::plan;
use crate::spare::Spare;
use crate::tensor::{Input, Output, Tensor, floats};

/// An immutable network, shared between processes.
pub struct DitRef {
    model: Dit,
    spare: Spare,
}

#[rustler::resource_impl]
impl Resource for DitRef {}

impl Named for DitRef {
    const ARG: &'static str = "model";
    const EXPECTED: &'static str = "the resource of a %DGM.Dit{}";
}

/// The dimensions, as `DGM.Dit` keeps them.
#[derive(NifMap)]
struct Config {
    channels: usize,
    out_channels: usize,
    height: usize,
    width: usize,
    elements: usize,
    patch: usize,
    hidden: usize,
    depth: usize,
    heads: usize,
    num_classes: usize,
    null_label: usize,
    packed_bytes: usize,
}

type Loaded = (ResourceArc<DitRef>, Config, Vec<(String, String)>);

#[rustler::nif(schedule = "DirtyIo")]
fn dit_load(path: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Dit::load(Path::new(&path))?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn dit_from_binary(bytes: Binary<'_>) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Dit::from_bytes(bytes.as_slice())?))
}

fn loaded(model: Dit) -> Loaded {
    let c = model.config();
    let config = Config {
        channels: c.channels,
        out_channels: c.out_channels,
        height: c.height,
        width: c.width,
        elements: c.channels * c.height * c.width,
        patch: c.patch,
        hidden: c.hidden,
        depth: c.depth,
        heads: c.heads,
        num_classes: c.num_classes,
        null_label: c.num_classes,
        packed_bytes: model.bytes(),
    };
    let metadata = model.metadata().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    (ResourceArc::new(DitRef { model, spare: Spare::default() }), config, metadata)
}

#[rustler::nif]
fn dit_plan_options<'a>(env: Env<'a>, model: Handle<DitRef>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    Ok(plan::options_term(env, &model.model.plan_options()?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn dit_forward<'a>(
    env: Env<'a>,
    model: Handle<DitRef>,
    x: Input<'a>,
    t: Input<'a>,
    labels: Vec<i64>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Tensor::new("x", &x)?;
    let t = t.data("t")?;
    Ok(forward(&model, x, &t, &labels)?.into_term(env))
}

/// The same for the bare binary of a run: `[rows, channels * height * width]` in memory.
#[rustler::nif(schedule = "DirtyCpu")]
fn dit_forward_binary<'a>(
    env: Env<'a>,
    model: Handle<DitRef>,
    x: Binary<'a>,
    t: Input<'a>,
    labels: Vec<i64>,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let c = model.model.config();
    let data = floats("x", x.as_slice())?;
    let t = t.data("t")?;
    let x = Tensor::from_parts("x", data, vec![t.len(), c.channels, c.height, c.width])?;
    Ok(forward(&model, x, &t, &labels)?.into_term(env))
}

fn forward(model: &DitRef, x: Tensor<'_>, t: &[f32], labels: &[i64]) -> Result<Output> {
    let x = x.view::<Ix4>("{batch, channels, height, width}")?;
    let (batch, _, height, width) = x.dim();
    let mut out = Output::new("out", &[batch, model.model.config().out_channels, height, width])?;
    let needed = model.model.workspace_len(batch)?;
    model.spare.with(needed, "batch", |workspace| {
        model.model.forward(x, t, labels, workspace, out.view::<Ix4>()?)
    })?;
    Ok(out)
}
