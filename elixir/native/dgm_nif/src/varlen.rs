//! Attention of packed sequences.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{AttentionOptions, attention_varlen as run};
use ndarray::{Ix2, Ix3};
use rustler::{Env, NifMap, Term};

use crate::attention::single;
use crate::failure::Reply;
use crate::tensor::Output;
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
    let q = q.floats::<Ix3>("{tokens, heads, dim}")?;
    let k = k.floats::<Ix3>("{tokens, kv_heads, dim}")?;
    let v = v.floats::<Ix3>("{tokens, kv_heads, value_dim}")?;
    let (slopes, sinks) = (single(options.alibi_slopes.as_ref()), single(options.sinks.as_ref()));
    let settings = AttentionOptions {
        scale: options.scale.map(|s| s as f32),
        causal: options.causal,
        window_left: options.window_left,
        window_right: options.window_right,
        soft_cap: options.soft_cap.map(|c| c as f32),
        alibi_slopes: slopes.as_deref(),
        sinks: sinks.as_deref(),
        ..AttentionOptions::default()
    };
    let (tokens, heads) = (q.shape()[0], q.shape()[1]);
    let mut out = TypedOutput::new("out", &[tokens, heads, v.shape()[2]], dtype)?;
    let mut lse = if options.lse { Some(Output::new("lse", &[heads, tokens])?) } else { None };
    let lse_view = lse.as_mut().map(Output::view::<Ix2>).transpose()?;
    run(q, k, v, &q_offsets, &kv_offsets, &settings, out.floats::<Ix3>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}
