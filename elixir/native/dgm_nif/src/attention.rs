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
    dbias: bool,
}

fn single(x: Option<&Vec<f64>>) -> Option<Vec<f32>> {
    x.map(|x| x.iter().map(|&x| x as f32).collect())
}

const SCORES: &str = "{batch or 1, heads or 1, queries or 1, keys or 1}";

fn mask<'a>(bytes: &'a Binary, dims: &[usize]) -> Result<ArrayView4<'a, u8>> {
    let [b, h, q, k] = *dims else { return Err(Error::shape("mask", dims, SCORES)) };
    shaped("mask", bytes.as_slice(), dims)?
        .into_shape_with_order((b, h, q, k))
        .map_err(|_| Error::shape("mask", dims, SCORES))
}

/// What the options point to.
struct Read<'a> {
    bias: Option<Tensor<'a>>,
    slopes: Option<Vec<f32>>,
    sinks: Option<Vec<f32>>,
}

impl<'a> Options<'a> {
    fn read(&self) -> Result<Read<'a>> {
        let bias = self.bias.as_ref().map(|x| Tensor::new("bias", x)).transpose()?;
        let (slopes, sinks) = (single(self.alibi_slopes.as_ref()), single(self.sinks.as_ref()));
        Ok(Read { bias, slopes, sinks })
    }

    fn settings<'s>(&'s self, read: &'s Read<'a>) -> Result<AttentionOptions<'s>> {
        Ok(AttentionOptions {
            scale: self.scale.map(|s| s as f32),
            causal: self.causal,
            window_left: self.window_left,
            window_right: self.window_right,
            kv_lengths: self.kv_lengths.as_deref(),
            soft_cap: self.soft_cap.map(|c| c as f32),
            alibi_slopes: read.slopes.as_deref(),
            sinks: read.sinks.as_deref(),
            bias: read.bias.as_ref().map(|x| x.view::<Ix4>(SCORES)).transpose()?,
            mask: self.mask.as_ref().map(|(bytes, dims)| mask(bytes, dims)).transpose()?,
        })
    }
}

const QUERIES: &str = "{batch, heads, queries, dim}";
const KEYS: &str = "{batch, kv_heads, keys, dim}";
const VALUES: &str = "{batch, kv_heads, keys, value_dim}";
const OUTPUT: &str = "{batch, heads, queries, value_dim}";

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
    let (q, k, v) = (q.view::<Ix4>(QUERIES)?, k.view::<Ix4>(KEYS)?, v.view::<Ix4>(VALUES)?);
    let read = options.read()?;
    let settings = options.settings(&read)?;
    let (batch, heads, queries, _) = q.dim();
    let mut out = Output::new("out", &[batch, heads, queries, v.dim().3])?;
    let mut lse = if options.lse { Some(Output::new("lse", &[batch, heads, queries])?) } else { None };
    let lse_view = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    attention::attention(q, k, v, &settings, out.view::<Ix4>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn attention_backward<'a>(
    env: Env<'a>,
    q: Input<'a>,
    k: Input<'a>,
    v: Input<'a>,
    out: Input<'a>,
    lse: Input<'a>,
    dout: Input<'a>,
    options: Options<'a>,
) -> Reply<(Term<'a>, Term<'a>, Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Tensor::new("q", &q)?, Tensor::new("k", &k)?, Tensor::new("v", &v)?);
    let (out, lse, dout) =
        (Tensor::new("out", &out)?, Tensor::new("lse", &lse)?, Tensor::new("dout", &dout)?);
    let read = options.read()?;
    let settings = options.settings(&read)?;
    let mut dbias = match (&read.bias, options.dbias) {
        (Some(bias), true) => Some(Output::new("dbias", bias.dims())?),
        (None, true) => return Err(Error::argument("dbias", "true", "false without a bias").into()),
        (_, false) => None,
    };
    // Results have the shapes of what they belong to, which the engine has not checked yet.
    let views = (q.view::<Ix4>(QUERIES)?, k.view::<Ix4>(KEYS)?, v.view::<Ix4>(VALUES)?);
    let mut dq = Output::new("dq", q.dims())?;
    let mut dk = Output::new("dk", k.dims())?;
    let mut dv = Output::new("dv", v.dims())?;
    let to_bias = dbias.as_mut().map(Output::view::<Ix4>).transpose()?;
    attention::attention_backward(
        views.0,
        views.1,
        views.2,
        out.view::<Ix4>(OUTPUT)?,
        lse.view::<Ix3>("{batch, heads, queries}")?,
        dout.view::<Ix4>(OUTPUT)?,
        &settings,
        dq.view::<Ix4>()?,
        dk.view::<Ix4>()?,
        dv.view::<Ix4>()?,
        to_bias,
    )?;
    Ok((dq.into_term(env), dk.into_term(env), dv.into_term(env), dbias.map(|x| x.into_term(env))))
}
