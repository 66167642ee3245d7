//! Fused attention.

use dgm_core::attention::{self as engine_attention, AttentionOptions};
use jlrs::data::managed::array::TypedArrayRet;
use jlrs::prelude::*;
use ndarray::{ArrayView4, Ix3, Ix4};

use crate::array::{Input, JlArray, JlValue, Output, dims, filled};
use crate::failure::{Failure, Reply, engine, fence};
use crate::options::Options;

const KNOWN: &[&str] =
    &["scale", "causal", "window", "kv_lengths", "soft_cap", "alibi_slopes", "sinks", "bias", "mask", "lse"];

const KNOWN_BACKWARD: &[&str] =
    &["scale", "causal", "window", "kv_lengths", "soft_cap", "alibi_slopes", "sinks", "bias", "mask", "dbias"];

const SCORES: &str = "(Lk, Lq, H, B), or 1 wherever it repeats";

pub fn attention_into(out: JlArray, q: JlArray, k: JlArray, v: JlArray) -> Reply<Nothing> {
    fence(|| attend(out, q, k, v, &Options::NONE))
}

pub fn attention_into_with(
    out: JlArray,
    q: JlArray,
    k: JlArray,
    v: JlArray,
    options: JlValue,
) -> Reply<Nothing> {
    fence(|| attend(out, q, k, v, &Options::new(options, KNOWN)?))
}

pub fn attention(q: JlArray, k: JlArray, v: JlArray) -> Reply<TypedArrayRet<f32>> {
    fence(|| attend_new(q, k, v, &Options::NONE))
}

pub fn attention_with(q: JlArray, k: JlArray, v: JlArray, options: JlValue) -> Reply<TypedArrayRet<f32>> {
    fence(|| attend_new(q, k, v, &Options::new(options, KNOWN)?))
}

fn attend_new(q: JlArray, k: JlArray, v: JlArray, options: &Options) -> Result<TypedArrayRet<f32>, Failure> {
    let (wide, long) = (dims(&v), dims(&q));
    let size: Vec<usize> = wide.iter().take(1).chain(long.iter().skip(1)).copied().collect();
    filled::<f32>(&size, |out| attend(out, q, k, v, options).map(|Nothing| ()))
}

fn attend(out: JlArray, q: JlArray, k: JlArray, v: JlArray, options: &Options) -> Result<Nothing, Failure> {
    let q = Input::<f32>::new("q", q, Some(4), "(D, Lq, H, B)")?;
    let k = Input::<f32>::new("k", k, Some(4), "(D, Lk, Hkv, B)")?;
    let v = Input::<f32>::new("v", v, Some(4), "(Dv, Lk, Hkv, B)")?;
    let mut out = Output::<f32>::new("out", out, Some(4), "(Dv, Lq, H, B)")?;
    let lse = options.array("lse")?;
    let mut lse = lse.map(|lse| Output::<f32>::new("lse", lse, Some(3), "(Lq, H, B)")).transpose()?;
    let settings = Settings::new(options)?;
    let settings = settings.options()?;
    let lse = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    let (q, k, v, out) = (q.view::<Ix4>()?, k.view::<Ix4>()?, v.view::<Ix4>()?, out.view::<Ix4>()?);
    engine(|| engine_attention::attention(q, k, v, &settings, out, lse))?;
    Ok(Nothing)
}

#[allow(clippy::too_many_arguments)]
pub fn attention_backward_into(
    dq: JlArray,
    dk: JlArray,
    dv: JlArray,
    q: JlArray,
    k: JlArray,
    v: JlArray,
    out: JlArray,
    lse: JlArray,
    dout: JlArray,
) -> Reply<Nothing> {
    fence(|| differentiate([dq, dk, dv], [q, k, v, out, dout], lse, &Options::NONE))
}

#[allow(clippy::too_many_arguments)]
pub fn attention_backward_into_with(
    dq: JlArray,
    dk: JlArray,
    dv: JlArray,
    q: JlArray,
    k: JlArray,
    v: JlArray,
    out: JlArray,
    lse: JlArray,
    dout: JlArray,
    options: JlValue,
) -> Reply<Nothing> {
    fence(|| {
        let options = Options::new(options, KNOWN_BACKWARD)?;
        differentiate([dq, dk, dv], [q, k, v, out, dout], lse, &options)
    })
}

fn differentiate(
    [dq, dk, dv]: [JlArray; 3],
    [q, k, v, out, dout]: [JlArray; 5],
    lse: JlArray,
    options: &Options,
) -> Result<Nothing, Failure> {
    let q = Input::<f32>::new("q", q, Some(4), "(D, Lq, H, B)")?;
    let k = Input::<f32>::new("k", k, Some(4), "(D, Lk, Hkv, B)")?;
    let v = Input::<f32>::new("v", v, Some(4), "(Dv, Lk, Hkv, B)")?;
    let out = Input::<f32>::new("out", out, Some(4), "(Dv, Lq, H, B)")?;
    let lse = Input::<f32>::new("lse", lse, Some(3), "(Lq, H, B)")?;
    let dout = Input::<f32>::new("dout", dout, Some(4), "(Dv, Lq, H, B)")?;
    let settings = Settings::new(options)?;
    let settings = settings.options()?;
    let mut dq = Output::<f32>::new("dq", dq, Some(4), "(D, Lq, H, B)")?;
    let mut dk = Output::<f32>::new("dk", dk, Some(4), "(D, Lk, Hkv, B)")?;
    let mut dv = Output::<f32>::new("dv", dv, Some(4), "(Dv, Lk, Hkv, B)")?;
    let dbias = options.array("dbias")?;
    let mut dbias = dbias.map(|x| Output::<f32>::new("dbias", x, Some(4), SCORES)).transpose()?;
    let dbias = dbias.as_mut().map(Output::view::<Ix4>).transpose()?;
    let (q, k, v) = (q.view::<Ix4>()?, k.view::<Ix4>()?, v.view::<Ix4>()?);
    let (out, lse, dout) = (out.view::<Ix4>()?, lse.view::<Ix3>()?, dout.view::<Ix4>()?);
    let (dq, dk, dv) = (dq.view::<Ix4>()?, dk.view::<Ix4>()?, dv.view::<Ix4>()?);
    engine(|| {
        engine_attention::attention_backward(q, k, v, out, lse, dout, &settings, dq, dk, dv, dbias)
    })?;
    Ok(Nothing)
}

/// Options with the arrays they need.
struct Settings<'s> {
    scale: Option<f32>,
    causal: bool,
    window: (Option<usize>, Option<usize>),
    lengths: Option<Vec<usize>>,
    soft_cap: Option<f32>,
    slopes: Option<Input<'s, f32>>,
    sinks: Option<Input<'s, f32>>,
    bias: Option<Input<'s, f32>>,
    mask: Option<Input<'s, Bool>>,
}

impl<'s> Settings<'s> {
    fn new(options: &Options<'s>) -> Result<Self, Failure> {
        let lengths = options.array("kv_lengths")?.map(|a| Input::<i64>::vector("kv_lengths", a)).transpose()?;
        let vector = |name| options.array(name)?.map(|a| Input::<f32>::vector(name, a)).transpose();
        Ok(Settings {
            scale: options.number("scale")?.map(|s| s as f32),
            causal: options.flag("causal")?.unwrap_or(false),
            window: options.window("window")?,
            lengths: lengths.map(|n| counts("kv_lengths", n.slice())).transpose()?,
            soft_cap: options.number("soft_cap")?.map(|c| c as f32),
            slopes: vector("alibi_slopes")?,
            sinks: vector("sinks")?,
            bias: options.array("bias")?.map(|a| Input::new("bias", a, Some(4), SCORES)).transpose()?,
            mask: options.array("mask")?.map(|a| Input::new("mask", a, Some(4), SCORES)).transpose()?,
        })
    }

    fn options(&self) -> Result<AttentionOptions<'_>, Failure> {
        Ok(AttentionOptions {
            scale: self.scale,
            causal: self.causal,
            window_left: self.window.0,
            window_right: self.window.1,
            kv_lengths: self.lengths.as_deref(),
            soft_cap: self.soft_cap,
            alibi_slopes: self.slopes.as_ref().map(Input::slice),
            sinks: self.sinks.as_ref().map(Input::slice),
            bias: self.bias.as_ref().map(Input::view::<Ix4>).transpose()?,
            mask: self.mask.as_ref().map(truths).transpose()?,
        })
    }
}

/// A mask as bytes.
fn truths<'a>(mask: &'a Input<'_, Bool>) -> Result<ArrayView4<'a, u8>, Failure> {
    let view = mask.view::<Ix4>()?;
    // SAFETY: a Bool is one byte of which any value is a u8; shape, strides and lifetime are the view's.
    Ok(unsafe { ArrayView4::from_shape_ptr(view.raw_dim(), view.as_ptr().cast()) })
}

fn counts(name: &str, values: &[i64]) -> Result<Vec<usize>, Failure> {
    let count = |&n: &i64| {
        usize::try_from(n).map_err(|_| Failure::argument(format!("{name} has {n}, expected integers from 0")))
    };
    values.iter().map(count).collect()
}
