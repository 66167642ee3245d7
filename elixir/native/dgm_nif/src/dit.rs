//! The diffusion transformer.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use dgm_core::arch::FpEnv;
use dgm_core::models::Dit;
use dgm_core::{Error, Result};
use ndarray::Ix4;
use rustler::{Binary, Env, NifMap, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::plan;
use crate::tensor::{Input, Output, Tensor, floats};

/// An immutable network, shared between processes.
pub struct DitRef {
    model: Dit,
    /// Workspaces of finished calls: as many as ever ran at once, freed with the network.
    spare: Mutex<Vec<Vec<f32>>>,
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
    (ResourceArc::new(DitRef { model, spare: Mutex::new(Vec::new()) }), config, metadata)
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
    let mut workspace = model.take();
    if workspace.len() < needed {
        workspace
            .try_reserve_exact(needed - workspace.len())
            .map_err(|_| Error::Overflow { arg: "batch", got: batch.to_string() })?;
        workspace.resize(needed, 0.0);
    }
    let result = model.model.forward(x, t, labels, &mut workspace, out.view::<Ix4>()?);
    model.give(workspace);
    result.map(|()| out)
}

impl DitRef {
    fn take(&self) -> Vec<f32> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give(&self, workspace: Vec<f32>) {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner).push(workspace);
    }
}
