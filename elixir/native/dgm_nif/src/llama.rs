//! Causal language models.

use std::path::Path;

use dgm_core::Error;
use dgm_core::arch::FpEnv;
use dgm_core::models::Llama;
use ndarray::{ArrayView2, Ix3};
use rustler::{Binary, Env, NifMap, Resource, ResourceArc, Term};

use crate::cache::{Cache, Changed, Copied};
use crate::failure::{Handle, Named, Reply};
use crate::spare::Spare;
use crate::tensor::Output;

/// An immutable network, shared between processes.
pub struct LlamaRef {
    model: Llama,
    spare: Spare,
}

#[rustler::resource_impl]
impl Resource for LlamaRef {}

impl Named for LlamaRef {
    const ARG: &'static str = "model";
    const EXPECTED: &'static str = "the resource of a %DGM.Llama{}";
}

/// The dimensions, as `DGM.Llama` keeps them.
#[derive(NifMap)]
struct Config {
    vocab: usize,
    hidden: usize,
    mlp_hidden: usize,
    depth: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    cache_heads: usize,
    max_positions: usize,
    packed_bytes: usize,
}

type Loaded = (ResourceArc<LlamaRef>, Config);

#[rustler::nif(schedule = "DirtyIo")]
fn llama_load(folder: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Llama::load(Path::new(&folder))?))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn llama_from_binary(weights: Binary<'_>, config: String) -> Reply<Loaded> {
    let _fp = FpEnv::enter();
    Ok(loaded(Llama::from_bytes(weights.as_slice(), &config)?))
}

fn loaded(model: Llama) -> Loaded {
    let c = model.config();
    let config = Config {
        vocab: c.vocab,
        hidden: c.hidden,
        mlp_hidden: c.mlp_hidden,
        depth: c.depth,
        heads: c.heads,
        kv_heads: c.kv_heads,
        head_dim: c.head_dim,
        cache_heads: c.cache_heads(),
        max_positions: c.max_positions,
        packed_bytes: model.bytes(),
    };
    (ResourceArc::new(LlamaRef { model, spare: Spare::default() }), config)
}

/// Logits of the last `last` tokens and what becomes of the cache. `tokens` are rows of equal length.
#[rustler::nif(schedule = "DirtyCpu")]
fn llama_forward<'a>(
    env: Env<'a>,
    model: Handle<LlamaRef>,
    tokens: Vec<Vec<i64>>,
    cache: Cache<'a>,
    last: usize,
) -> Reply<(Term<'a>, Changed<'a>)> {
    let _fp = FpEnv::enter();
    let (batch, new) = (tokens.len(), tokens.first().map_or(0, Vec::len));
    if tokens.iter().any(|row| row.len() != new) {
        return Err(Error::argument("tokens", "rows of different lengths", "equal ones").into());
    }
    let tokens = tokens.concat();
    let tokens = ArrayView2::from_shape((batch, new), &tokens).map_err(|e| Error::Internal(e.to_string()))?;
    if last > new {
        return Err(Error::range("last", last, format!("0 to {new}, the new tokens")).into());
    }
    let mut copied = Copied::new(&cache)?;
    let mut logits = Output::new("logits", &[batch, last, model.model.config().vocab])?;
    let needed = model.model.workspace_len(batch, new)?;
    model.spare.with(needed, "tokens", |workspace| {
        model.model.forward(tokens, &mut copied.view()?, workspace, logits.view::<Ix3>()?)
    })?;
    Ok((logits.into_term(env), copied.into_terms(env)))
}
