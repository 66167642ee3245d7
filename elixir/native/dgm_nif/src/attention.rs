//! Fused attention.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{self, AttentionOptions};
use ndarray::{Ix3, Ix4};
use rustler::{Env, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn attention<'a>(
    env: Env<'a>,
    q: Input<'a>,
    k: Input<'a>,
    v: Input<'a>,
    scale: Option<f64>,
    causal: bool,
    kv_lengths: Option<Vec<usize>>,
    with_lse: bool,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Tensor::new("q", &q)?, Tensor::new("k", &k)?, Tensor::new("v", &v)?);
    let q = q.view::<Ix4>("{batch, heads, queries, dim}")?;
    let k = k.view::<Ix4>("{batch, kv_heads, keys, dim}")?;
    let v = v.view::<Ix4>("{batch, kv_heads, keys, value_dim}")?;
    let (batch, heads, queries, _) = q.dim();
    let mut out = Output::new("out", &[batch, heads, queries, v.dim().3])?;
    let mut lse = if with_lse { Some(Output::new("lse", &[batch, heads, queries])?) } else { None };
    let options =
        AttentionOptions { scale: scale.map(|s| s as f32), causal, kv_lengths: kv_lengths.as_deref() };
    let lse_view = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    attention::attention(q, k, v, &options, out.view::<Ix4>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}
