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
    let lengths = options.array("kv_lengths")?.map(|a| Input::<i64>::vector("kv_lengths", a)).transpose()?;
    let lengths = lengths.map(|n| counts("kv_lengths", n.slice())).transpose()?;
    let vector = |name| options.array(name)?.map(|a| Input::<f32>::vector(name, a)).transpose();
    let (slopes, sinks) = (vector("alibi_slopes")?, vector("sinks")?);
    let bias = options.array("bias")?.map(|a| Input::<f32>::new("bias", a, Some(4), SCORES)).transpose()?;
    let mask = options.array("mask")?.map(|a| Input::<Bool>::new("mask", a, Some(4), SCORES)).transpose()?;
    let (window_left, window_right) = options.window("window")?;
    let settings = AttentionOptions {
        scale: options.number("scale")?.map(|s| s as f32),
        causal: options.flag("causal")?.unwrap_or(false),
        window_left,
        window_right,
        kv_lengths: lengths.as_deref(),
        soft_cap: options.number("soft_cap")?.map(|c| c as f32),
        alibi_slopes: slopes.as_ref().map(Input::slice),
        sinks: sinks.as_ref().map(Input::slice),
        bias: bias.as_ref().map(Input::view::<Ix4>).transpose()?,
        mask: mask.as_ref().map(truths).transpose()?,
    };
    let lse = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    let (q, k, v, out) = (q.view::<Ix4>()?, k.view::<Ix4>()?, v.view::<Ix4>()?, out.view::<Ix4>()?);
    engine(|| engine_attention::attention(q, k, v, &settings, out, lse))?;
    Ok(Nothing)
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
