//! Attention.

use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::tensor::Dtype;
use dgm_core::{Error, Result};
use ndarray::{Ix3, Ix4};

use crate::fence::entry;
use crate::memory::{Versioned, init_struct, read_struct, slice};
use crate::tensor::{Tensor, dgm_tensor};

/// Options of dgm_attention(); fill with dgm_attention_options_init() first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_attention_options {
    /// sizeof(dgm_attention_options).
    pub struct_size: usize,
    /// Factor of the scores; 0 (the default) means 1/sqrt(D).
    pub scale: f32,
    /// 1: query i of Lq sees the keys up to i + Lk - Lq (bottom-right aligned). 0, the default: all.
    pub causal: i32,
    /// NULL (the default), or B numbers: batch b uses only its first kv_lengths[b] keys, 0 to Lk.
    pub kv_lengths: *const i64,
    /// A query sees no key more than this many before its position (query i stands at key
    /// i + n - Lq of n, as for causal). -1, the default: no limit.
    pub window_left: i64,
    /// A query sees no key more than this many behind its position. -1, the default: no limit.
    pub window_right: i64,
    /// NULL (the default), or H slopes: a score loses slope times the distance of its key from the
    /// query's position (ALiBi).
    pub alibi_slopes: *const f32,
    /// NULL (the default), or H scores that join the softmax of the head without a value
    /// (attention sinks); -inf is no sink.
    pub sinks: *const f32,
    /// NULL (the default), or f32 [B or 1, H or 1, Lq or 1, Lk or 1] added to the scores; -inf hides
    /// the element: whatever key and value hold there does not reach the result.
    pub bias: *const dgm_tensor,
    /// NULL (the default), or bool or uint8 [B or 1, H or 1, Lq or 1, Lk or 1]: 0 hides the element.
    pub mask: *const dgm_tensor,
    /// Scores become soft_cap * tanh(score / soft_cap), before slopes and bias. 0, the default: no cap.
    pub soft_cap: f32,
    /// 0.
    pub reserved: i32,
}

/// Shape of what has an element for every score.
const SCORES: &str = "[B or 1, H or 1, Lq or 1, Lk or 1]";

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointer is not followed
// before it is checked).
unsafe impl Versioned for dgm_attention_options {}

const DEFAULT: dgm_attention_options = dgm_attention_options {
    struct_size: size_of::<dgm_attention_options>(),
    scale: 0.0,
    causal: 0,
    kv_lengths: std::ptr::null(),
    window_left: -1,
    window_right: -1,
    alibi_slopes: std::ptr::null(),
    sinks: std::ptr::null(),
    bias: std::ptr::null(),
    mask: std::ptr::null(),
    soft_cap: 0.0,
    reserved: 0,
};

/// Fills options with the defaults.
///
/// @param options     what to fill
/// @param struct_size sizeof *options
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_options_init(
    options: *mut dgm_attention_options,
    struct_size: usize,
) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("options", options, struct_size, DEFAULT) })
}

/// softmax(scale q k^T) v, fused: memory does not grow with the number of keys.
///
/// A query without any key gives 0 and lse -inf. NaN in a key, value or query that is used gives NaN.
///
/// @param q       [B, H, Lq, D], f32; any strides of q, k and v but negative ones
/// @param k       [B, Hkv, Lk, D]; H is a multiple of Hkv (grouped queries)
/// @param v       [B, Hkv, Lk, Dv]
/// @param options NULL for the defaults
/// @param out     [B, H, Lq, Dv]
/// @param lse     [B, H, Lq], natural logarithm of the sum of exponentials; NULL if not wanted
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention(
    q: *const dgm_tensor,
    k: *const dgm_tensor,
    v: *const dgm_tensor,
    options: *const dgm_attention_options,
    out: *mut dgm_tensor,
    lse: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and options, or NULL.
    entry(|| unsafe {
        let q = Tensor::read("q", q, Some(4), "[B, H, Lq, D]")?;
        let k = Tensor::read("k", k, Some(4), "[B, Hkv, Lk, D]")?;
        let v = Tensor::read("v", v, Some(4), "[B, Hkv, Lk, Dv]")?;
        let out = Tensor::read("out", out, Some(4), "[B, H, Lq, Dv]")?;
        let lse = Tensor::read_optional("lse", lse, 3, "[B, H, Lq]")?;
        let options = if options.is_null() { DEFAULT } else { read_struct("options", options, DEFAULT)? };
        let lengths = read_lengths(&options, q.shape()[0])?;
        let heads = q.shape()[1];
        let per_head = |arg, x: *const f32| match x.is_null() {
            true => Ok(None),
            // SAFETY: the caller gives a number for each head.
            false => slice(arg, x, heads).map(Some),
        };
        let (slopes, sinks) =
            (per_head("alibi_slopes", options.alibi_slopes)?, per_head("sinks", options.sinks)?);
        for written in [Some(&out), lse.as_ref()].into_iter().flatten() {
            written.check_separate("alibi_slopes", slopes.unwrap_or_default())?;
            written.check_separate("sinks", sinks.unwrap_or_default())?;
        }
        let bias = Tensor::read_optional("bias", options.bias, 4, SCORES)?;
        let mask = match options.mask.is_null() {
            true => None,
            false => {
                Some(Tensor::read_any("mask", options.mask, Some(4), SCORES, &[Dtype::Bool, Dtype::U8])?)
            }
        };
        if options.reserved != 0 {
            return Err(Error::argument("reserved", options.reserved, "0"));
        }
        let inputs: Vec<&Tensor> =
            [Some(&q), Some(&k), Some(&v), bias.as_ref(), mask.as_ref()].into_iter().flatten().collect();
        let lse = match &lse {
            Some(lse) => Some(lse.output::<Ix3>(&[&inputs[..], &[&out]].concat())?),
            None => None,
        };
        let out = out.output::<Ix4>(&inputs)?;
        let options = AttentionOptions {
            scale: (options.scale != 0.0).then_some(options.scale),
            causal: flag("causal", options.causal)?,
            window_left: limit("window_left", options.window_left)?,
            window_right: limit("window_right", options.window_right)?,
            kv_lengths: lengths.as_deref(),
            soft_cap: (options.soft_cap != 0.0).then_some(options.soft_cap),
            alibi_slopes: slopes,
            sinks,
            bias: bias.map(|x| x.view::<Ix4>()).transpose()?,
            mask: mask.map(|x| x.view_of::<u8, Ix4>()).transpose()?,
        };
        attention(q.view::<Ix4>()?, k.view::<Ix4>()?, v.view::<Ix4>()?, &options, out, lse)
    })
}

/// The B lengths, or none.
unsafe fn read_lengths(options: &dgm_attention_options, batch: usize) -> Result<Option<Vec<usize>>> {
    if options.kv_lengths.is_null() {
        return Ok(None);
    }
    // SAFETY: the caller gives one length for each batch entry.
    let lengths = unsafe { slice("kv_lengths", options.kv_lengths, batch) }?;
    let checked = lengths.iter().enumerate().map(|(b, &n)| {
        usize::try_from(n).map_err(|_| Error::range("kv_lengths", format!("{n} in batch {b}"), "0 to Lk"))
    });
    checked.collect::<Result<Vec<_>>>().map(Some)
}

/// A window: -1 for none.
fn limit(arg: &'static str, value: i64) -> Result<Option<usize>> {
    match value {
        -1 => Ok(None),
        _ => usize::try_from(value).map(Some).map_err(|_| Error::range(arg, value, "-1 (no limit) or more")),
    }
}

/// A C truth value.
fn flag(arg: &'static str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::argument(arg, value, "0 or 1")),
    }
}
