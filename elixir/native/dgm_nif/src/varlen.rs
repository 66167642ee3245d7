//! Attention of packed sequences.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{self, AttentionOptions};
use ndarray::{Ix2, Ix3};
use rustler::{Env, NifMap, Term};

use crate::attention::single;
use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};
use crate::typed::{Typed, TypedInput, TypedOutput};

/// The options, as `DGM.attention_varlen/6` has checked their types.
#[derive(NifMap)]
#[rustler(decode)]
struct Options {
    scale: Option<f64>,
    causal: bool,
    window_left: Option<usize>,
    window_right: Option<usize>,
    soft_cap: Option<f64>,
    alibi_slopes: Option<Vec<f64>>,
    sinks: Option<Vec<f64>>,
    lse: bool,
}

impl Options {
    /// The engine's, with what they point to.
    fn with<R>(&self, f: impl FnOnce(&AttentionOptions) -> R) -> R {
        let (slopes, sinks) = (single(self.alibi_slopes.as_ref()), single(self.sinks.as_ref()));
        f(&AttentionOptions {
            scale: self.scale.map(|s| s as f32),
            causal: self.causal,
            window_left: self.window_left,
            window_right: self.window_right,
            soft_cap: self.soft_cap.map(|c| c as f32),
            alibi_slopes: slopes.as_deref(),
            sinks: sinks.as_deref(),
            ..AttentionOptions::default()
        })
    }
}

const QUERIES: &str = "{tokens, heads, dim}";
const KEYS: &str = "{kv_tokens, kv_heads, dim}";
const VALUES: &str = "{kv_tokens, kv_heads, value_dim}";
const OUTPUT: &str = "{tokens, heads, value_dim}";

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn attention_varlen<'a>(
    env: Env<'a>,
    q: TypedInput<'a>,
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    q_offsets: Vec<usize>,
    kv_offsets: Vec<usize>,
    options: Options,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Typed::new("q", &q, false)?, Typed::new("k", &k, false)?, Typed::new("v", &v, false)?);
    let dtype = q.dtype();
    let (q, k, v) = (q.floats::<Ix3>(QUERIES)?, k.floats::<Ix3>(KEYS)?, v.floats::<Ix3>(VALUES)?);
    let (tokens, heads) = (q.shape()[0], q.shape()[1]);
    let mut out = TypedOutput::new("out", &[tokens, heads, v.shape()[2]], dtype)?;
    let mut lse = if options.lse { Some(Output::new("lse", &[heads, tokens])?) } else { None };
    let lse_view = lse.as_mut().map(Output::view::<Ix2>).transpose()?;
    let to = out.floats::<Ix3>()?;
    options.with(|o| attention::attention_varlen(q, k, v, &q_offsets, &kv_offsets, o, to, lse_view))?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn attention_varlen_backward<'a>(
    env: Env<'a>,
    q: TypedInput<'a>,
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    out: TypedInput<'a>,
    lse: Input<'a>,
    dout: TypedInput<'a>,
    q_offsets: Vec<usize>,
    kv_offsets: Vec<usize>,
    options: Options,
) -> Reply<(Term<'a>, Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Typed::new("q", &q, false)?, Typed::new("k", &k, false)?, Typed::new("v", &v, false)?);
    let (out, dout) = (Typed::new("out", &out, false)?, Typed::new("dout", &dout, false)?);
    let lse = Tensor::new("lse", &lse)?;
    // Results have the shapes of what they belong to, which the engine has not checked yet.
    let views = (q.floats::<Ix3>(QUERIES)?, k.floats::<Ix3>(KEYS)?, v.floats::<Ix3>(VALUES)?);
    let mut dq = TypedOutput::new("dq", q.dims(), q.dtype())?;
    let mut dk = TypedOutput::new("dk", k.dims(), k.dtype())?;
    let mut dv = TypedOutput::new("dv", v.dims(), v.dtype())?;
    let saved =
        (out.floats::<Ix3>(OUTPUT)?, lse.view::<Ix2>("{heads, tokens}")?, dout.floats::<Ix3>(OUTPUT)?);
    let to = (dq.floats::<Ix3>()?, dk.floats::<Ix3>()?, dv.floats::<Ix3>()?);
    options.with(|o| {
        attention::attention_varlen_backward(
            views.0,
            views.1,
            views.2,
            saved.0,
            saved.1,
            saved.2,
            &q_offsets,
            &kv_offsets,
            o,
            to.0,
            to.1,
            to.2,
        )
    })?;
    Ok((dq.into_term(env), dk.into_term(env), dv.into_term(env)))
}
