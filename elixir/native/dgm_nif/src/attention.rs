//! Fused attention.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{self, AttentionOptions};
use dgm_core::{Error, Result};
use ndarray::{ArrayView4, Ix3, Ix4};
use rustler::{Binary, Env, NifMap, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor, shaped};
use crate::typed::{Typed, TypedInput, TypedOutput};

/// The options, as `DGM.attention/4` has checked their types.
#[derive(NifMap)]
#[rustler(decode)]
pub struct Options<'a> {
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

/// The options with what they point to.
pub struct Settings<'r, 'a> {
    raw: &'r Options<'a>,
    bias: Option<Tensor<'a>>,
    slopes: Option<Vec<f32>>,
    sinks: Option<Vec<f32>>,
}

impl<'r, 'a> Settings<'r, 'a> {
    pub fn new(raw: &'r Options<'a>) -> Result<Self> {
        Ok(Settings {
            raw,
            bias: raw.bias.as_ref().map(|x| Tensor::new("bias", x)).transpose()?,
            slopes: single(raw.alibi_slopes.as_ref()),
            sinks: single(raw.sinks.as_ref()),
        })
    }

    pub fn options(&self) -> Result<AttentionOptions<'_>> {
        let raw = self.raw;
        Ok(AttentionOptions {
            scale: raw.scale.map(|s| s as f32),
            causal: raw.causal,
            window_left: raw.window_left,
            window_right: raw.window_right,
            kv_lengths: raw.kv_lengths.as_deref(),
            soft_cap: raw.soft_cap.map(|c| c as f32),
            alibi_slopes: self.slopes.as_deref(),
            sinks: self.sinks.as_deref(),
            bias: self.bias.as_ref().map(|x| x.view::<Ix4>(SCORES)).transpose()?,
            mask: raw.mask.as_ref().map(|(bytes, dims)| mask(bytes, dims)).transpose()?,
        })
    }

    /// The log-sum-exps, where they are wanted.
    pub fn lse(&self, dims: &[usize]) -> Result<Option<Output>> {
        if self.raw.lse { Output::new("lse", dims).map(Some) } else { Ok(None) }
    }
}

const QUERIES: &str = "{batch, heads, queries, dim}";
const KEYS: &str = "{batch, kv_heads, keys, dim}";
const VALUES: &str = "{batch, kv_heads, keys, value_dim}";
const OUTPUT: &str = "{batch, heads, queries, value_dim}";

#[rustler::nif(schedule = "DirtyCpu")]
fn attention<'a>(
    env: Env<'a>,
    q: TypedInput<'a>,
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    options: Options<'a>,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Typed::new("q", &q, false)?, Typed::new("k", &k, false)?, Typed::new("v", &v, false)?);
    let dtype = q.dtype();
    let q = q.floats::<Ix4>(QUERIES)?;
    let k = k.floats::<Ix4>(KEYS)?;
    let v = v.floats::<Ix4>(VALUES)?;
    let settings = Settings::new(&options)?;
    let rows = [q.shape()[0], q.shape()[1], q.shape()[2]];
    let mut out = TypedOutput::new("out", &[rows[0], rows[1], rows[2], v.shape()[3]], dtype)?;
    let mut lse = settings.lse(&rows)?;
    let lse_view = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    attention::attention(q, k, v, &settings.options()?, out.floats::<Ix4>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}

#[rustler::nif(schedule = "DirtyCpu")]
#[allow(clippy::too_many_arguments)]
fn attention_backward<'a>(
    env: Env<'a>,
    q: TypedInput<'a>,
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    out: TypedInput<'a>,
    lse: Input<'a>,
    dout: TypedInput<'a>,
    options: Options<'a>,
) -> Reply<(Term<'a>, Term<'a>, Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let (q, k, v) = (Typed::new("q", &q, false)?, Typed::new("k", &k, false)?, Typed::new("v", &v, false)?);
    let (out, dout) = (Typed::new("out", &out, false)?, Typed::new("dout", &dout, false)?);
    let lse = Tensor::new("lse", &lse)?;
    let settings = Settings::new(&options)?;
    let mut dbias = match (&settings.bias, options.dbias) {
        (Some(bias), true) => Some(Output::new("dbias", bias.dims())?),
        (None, true) => return Err(Error::argument("dbias", "true", "false without a bias").into()),
        (_, false) => None,
    };
    // Results have the shapes of what they belong to, which the engine has not checked yet.
    let views = (q.floats::<Ix4>(QUERIES)?, k.floats::<Ix4>(KEYS)?, v.floats::<Ix4>(VALUES)?);
    let mut dq = TypedOutput::new("dq", q.dims(), q.dtype())?;
    let mut dk = TypedOutput::new("dk", k.dims(), k.dtype())?;
    let mut dv = TypedOutput::new("dv", v.dims(), v.dtype())?;
    let to_bias = dbias.as_mut().map(Output::view::<Ix4>).transpose()?;
    attention::attention_backward(
        views.0,
        views.1,
        views.2,
        out.floats::<Ix4>(OUTPUT)?,
        lse.view::<Ix3>("{batch, heads, queries}")?,
        dout.floats::<Ix4>(OUTPUT)?,
        &settings.options()?,
        dq.floats::<Ix4>()?,
        dk.floats::<Ix4>()?,
        dv.floats::<Ix4>()?,
        to_bias,
    )?;
    Ok((dq.into_term(env), dk.into_term(env), dv.into_term(env), dbias.map(|x| x.into_term(env))))
}
