//! Fused attention.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{self, AttentionOptions};
use dgm_core::{Error, Result};
use ndarray::{ArrayView4, Ix3, Ix4};
use rustler::{Binary, Env, NifMap, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor, shaped};

/// The options, as `DGM.attention/4` has checked their types.
#[derive(NifMap)]
#[rustler(decode)]
struct Options<'a> {
    scale: Option<f64>,
    causal: bool,
    window_left: Option<usize>,
    window_right: Option<usize>,
    kv_lengths: Option<Vec<usize>>,
    soft_cap: Option<f64>,
    alibi_slopes: Option<Vec<f64>>,
    sinks: Option<Vec<f64>>,
    bias: Option<Input<'a>>,
    mask: Option<(Binary<'a>, Vec<usize>)>,
    lse: bool,
}

/// Numbers of the VM as f32.
pub fn single(x: Option<&Vec<f64>>) -> Option<Vec<f32>> {
    x.map(|x| x.iter().map(|&x| x as f32).collect())
}

const SCORES: &str = "{batch or 1, heads or 1, queries or 1, keys or 1}";

fn mask<'a>(bytes: &'a Binary, dims: &[usize]) -> Result<ArrayView4<'a, u8>> {
    let [b, h, q, k] = *dims else { return Err(Error::shape("mask", dims, SCORES)) };
    shaped("mask", bytes.as_slice(), dims)?
        .into_shape_with_order((b, h, q, k))
        .map_err(|_| Error::shape("mask", dims, SCORES))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn attention<'a>(
    env: Env<'a>,
    q: Input<'a>,
    k: Input<'a>,
    v: Input<'a>,
    options: Options<'a>,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Tensor::new("q", &q)?, Tensor::new("k", &k)?, Tensor::new("v", &v)?);
    let q = q.view::<Ix4>("{batch, heads, queries, dim}")?;
    let k = k.view::<Ix4>("{batch, kv_heads, keys, dim}")?;
    let v = v.view::<Ix4>("{batch, kv_heads, keys, value_dim}")?;
    let bias = options.bias.as_ref().map(|x| Tensor::new("bias", x)).transpose()?;
    let (slopes, sinks) = (single(options.alibi_slopes.as_ref()), single(options.sinks.as_ref()));
    let settings = AttentionOptions {
        scale: options.scale.map(|s| s as f32),
        causal: options.causal,
        window_left: options.window_left,
        window_right: options.window_right,
        kv_lengths: options.kv_lengths.as_deref(),
        soft_cap: options.soft_cap.map(|c| c as f32),
        alibi_slopes: slopes.as_deref(),
        sinks: sinks.as_deref(),
        bias: bias.as_ref().map(|x| x.view::<Ix4>(SCORES)).transpose()?,
        mask: options.mask.as_ref().map(|(bytes, dims)| mask(bytes, dims)).transpose()?,
    };
    let (batch, heads, queries, _) = q.dim();
    let mut out = Output::new("out", &[batch, heads, queries, v.dim().3])?;
    let mut lse = if options.lse { Some(Output::new("lse", &[batch, heads, queries])?) } else { None };
    let lse_view = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    attention::attention(q, k, v, &settings, out.view::<Ix4>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}
