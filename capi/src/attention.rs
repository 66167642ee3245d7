//! Attention.

use dgm_core::attention::{AttentionOptions, attention, attention_backward};
use dgm_core::tensor::Dtype;
use dgm_core::{Error, Result};
use ndarray::{Ix3, Ix4};

use crate::fence::entry;
use crate::memory::{Versioned, init_struct, read_struct, slice};
use crate::tensor::{FLOATS, Tensor, dgm_tensor};

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
/// Each of q, out and the pair k, v is f32, f16 or bf16: 16-bit numbers are widened exactly, all is
/// computed in f32, and the result is rounded once; where q, k and v are all bf16 probabilities are rounded
/// to bf16 and products are of pairs, summed in f32. A query without any key gives 0 and lse -inf (with
/// a sink: the sink). NaN in a key, value or query that is used gives NaN.
///
/// @param q       [B, H, Lq, D]; any strides of q, k and v but negative ones
/// @param k       [B, Hkv, Lk, D]; H is a multiple of Hkv (grouped queries)
/// @param v       [B, Hkv, Lk, Dv], the type of k
/// @param options NULL for the defaults
/// @param out     [B, H, Lq, Dv]
/// @param lse     f32 [B, H, Lq], natural logarithm of the sum of exponentials; NULL if not wanted
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
        let q = Tensor::read_any("q", q, Some(4), "[B, H, Lq, D]", FLOATS)?;
        let k = Tensor::read_any("k", k, Some(4), "[B, Hkv, Lk, D]", FLOATS)?;
        let v = Tensor::read_any("v", v, Some(4), "[B, Hkv, Lk, Dv]", FLOATS)?;
        let out = Tensor::read_any("out", out, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let lse = Tensor::read_optional("lse", lse, 3, "[B, H, Lq]")?;
        let read = Read::new(options, q.shape()[0], q.shape()[1])?;
        read.check_separate(&[Some(&out), lse.as_ref()])?;
        let mut inputs = vec![&q, &k, &v];
        inputs.extend(read.bias.iter().chain(&read.mask));
        let lse = match &lse {
            Some(lse) => Some(lse.output::<Ix3>(&[&inputs[..], &[&out]].concat())?),
            None => None,
        };
        let out = out.output_floats::<Ix4>(&inputs)?;
        attention(q.floats::<Ix4>()?, k.floats::<Ix4>()?, v.floats::<Ix4>()?, &read.options()?, out, lse)
    })
}

/// The gradients of dgm_attention(): with dout the gradient of a loss with respect to out, fills those
/// with respect to q, k, v and the bias.
///
/// Each tensor is f32, f16 or bf16, v as k, lse and dbias f32: 16-bit numbers are widened exactly, all
/// is computed in f32, and results are rounded once; where q, k, v and dout are all bf16 probabilities and
/// gradients of scores are rounded to bf16 and products are of pairs, summed in f32. Elements that are hidden and queries without a key
/// add nothing, whatever q, k, v and dout hold there.
///
/// @param q       [B, H, Lq, D], as dgm_attention() got it
/// @param k       [B, Hkv, Lk, D], likewise
/// @param v       [B, Hkv, Lk, Dv], likewise
/// @param out     [B, H, Lq, Dv], as dgm_attention() filled it
/// @param lse     f32 [B, H, Lq], likewise
/// @param dout    [B, H, Lq, Dv]
/// @param options those of dgm_attention(), NULL for the defaults
/// @param dq      [B, H, Lq, D]
/// @param dk      [B, Hkv, Lk, D]
/// @param dv      [B, Hkv, Lk, Dv]
/// @param dbias   f32, the shape of the bias, summed where it repeats; NULL if not wanted
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_backward(
    q: *const dgm_tensor,
    k: *const dgm_tensor,
    v: *const dgm_tensor,
    out: *const dgm_tensor,
    lse: *const dgm_tensor,
    dout: *const dgm_tensor,
    options: *const dgm_attention_options,
    dq: *mut dgm_tensor,
    dk: *mut dgm_tensor,
    dv: *mut dgm_tensor,
    dbias: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and options, or NULL.
    entry(|| unsafe {
        let q = Tensor::read_any("q", q, Some(4), "[B, H, Lq, D]", FLOATS)?;
        let k = Tensor::read_any("k", k, Some(4), "[B, Hkv, Lk, D]", FLOATS)?;
        let v = Tensor::read_any("v", v, Some(4), "[B, Hkv, Lk, Dv]", FLOATS)?;
        let out = Tensor::read_any("out", out, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let lse = Tensor::read("lse", lse, Some(3), "[B, H, Lq]")?;
        let dout = Tensor::read_any("dout", dout, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let dq = Tensor::read_any("dq", dq, Some(4), "[B, H, Lq, D]", FLOATS)?;
        let dk = Tensor::read_any("dk", dk, Some(4), "[B, Hkv, Lk, D]", FLOATS)?;
        let dv = Tensor::read_any("dv", dv, Some(4), "[B, Hkv, Lk, Dv]", FLOATS)?;
        let dbias = Tensor::read_optional("dbias", dbias, 4, SCORES)?;
        let read = Read::new(options, q.shape()[0], q.shape()[1])?;
        read.check_separate(&[Some(&dq), Some(&dk), Some(&dv), dbias.as_ref()])?;
        let mut others = vec![&q, &k, &v, &out, &lse, &dout];
        others.extend(read.bias.iter().chain(&read.mask));
        let to_q = dq.output_floats::<Ix4>(&others)?;
        others.push(&dq);
        let to_k = dk.output_floats::<Ix4>(&others)?;
        others.push(&dk);
        let to_v = dv.output_floats::<Ix4>(&others)?;
        others.push(&dv);
        let to_bias = dbias.as_ref().map(|dbias| dbias.output::<Ix4>(&others)).transpose()?;
        attention_backward(
            q.floats::<Ix4>()?,
            k.floats::<Ix4>()?,
            v.floats::<Ix4>()?,
            out.floats::<Ix4>()?,
            lse.view::<Ix3>()?,
            dout.floats::<Ix4>()?,
            &read.options()?,
            to_q,
            to_k,
            to_v,
            to_bias,
        )
    })
}

/// Options with what they point to.
pub(crate) struct Read<'a> {
    raw: dgm_attention_options,
    lengths: Option<Vec<usize>>,
    slopes: Option<&'a [f32]>,
    sinks: Option<&'a [f32]>,
    pub(crate) bias: Option<Tensor<'a>>,
    pub(crate) mask: Option<Tensor<'a>>,
}

impl<'a> Read<'a> {
    /// # Safety
    /// `options` is NULL or valid, with arrays of the lengths that the header says.
    pub(crate) unsafe fn new(
        options: *const dgm_attention_options,
        batch: usize,
        heads: usize,
    ) -> Result<Self> {
        let raw = match options.is_null() {
            true => DEFAULT,
            // SAFETY: the caller's promise.
            false => unsafe { read_struct("options", options, DEFAULT) }?,
        };
        let per_head = |arg, x: *const f32| match x.is_null() {
            true => Ok(None),
            // SAFETY: the caller gives a number for each head.
            false => unsafe { slice(arg, x, heads) }.map(Some),
        };
        if raw.reserved != 0 {
            return Err(Error::argument("reserved", raw.reserved, "0"));
        }
        let lengths = match raw.kv_lengths.is_null() {
            true => None,
            // SAFETY: the caller gives one length for each batch entry.
            false => Some(unsafe { counts("kv_lengths", raw.kv_lengths, batch) }?),
        };
        let (slopes, sinks) = (per_head("alibi_slopes", raw.alibi_slopes)?, per_head("sinks", raw.sinks)?);
        // SAFETY: the caller gives valid descriptors or NULL.
        let bias = unsafe { Tensor::read_optional("bias", raw.bias, 4, SCORES) }?;
        let mask = match raw.mask.is_null() {
            true => None,
            // SAFETY: as above.
            false => Some(unsafe {
                Tensor::read_any("mask", raw.mask, Some(4), SCORES, &[Dtype::Bool, Dtype::U8])
            }?),
        };
        Ok(Read { raw, lengths, slopes, sinks, bias, mask })
    }

    /// Checks that no output lies over the numbers of a head.
    pub(crate) fn check_separate(&self, outputs: &[Option<&Tensor>]) -> Result<()> {
        for written in outputs.iter().flatten() {
            written.check_separate("alibi_slopes", self.slopes.unwrap_or_default())?;
            written.check_separate("sinks", self.sinks.unwrap_or_default())?;
        }
        Ok(())
    }

    pub(crate) fn options(&self) -> Result<AttentionOptions<'_>> {
        let raw = &self.raw;
        Ok(AttentionOptions {
            scale: (raw.scale != 0.0).then_some(raw.scale),
            causal: flag("causal", raw.causal)?,
            window_left: limit("window_left", raw.window_left)?,
            window_right: limit("window_right", raw.window_right)?,
            kv_lengths: self.lengths.as_deref(),
            soft_cap: (raw.soft_cap != 0.0).then_some(raw.soft_cap),
            alibi_slopes: self.slopes,
            sinks: self.sinks,
            bias: self.bias.as_ref().map(|x| x.view::<Ix4>()).transpose()?,
            mask: self.mask.as_ref().map(|x| x.view_of::<u8, Ix4>()).transpose()?,
        })
    }
}

/// `len` numbers that count something.
///
/// # Safety
/// A pointer that is not NULL must be valid for reading `len` numbers.
pub(crate) unsafe fn counts(arg: &'static str, x: *const i64, len: usize) -> Result<Vec<usize>> {
    // SAFETY: the caller's promise.
    let x = unsafe { slice(arg, x, len) }?;
    let checked = x.iter().enumerate().map(|(i, &n)| {
        usize::try_from(n).map_err(|_| Error::range(arg, format!("{n} at {i}"), "no number below 0"))
    });
    checked.collect()
}

/// A window: -1 for none.
fn limit(arg: &'static str, value: i64) -> Result<Option<usize>> {
    match value {
        -1 => Ok(None),
        _ => usize::try_from(value).map(Some).map_err(|_| Error::range(arg, value, "-1 (no limit) or more")),
    }
}

/// A C truth value.
pub(crate) fn flag(arg: &'static str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Error::argument(arg, value, "0 or 1")),
    }
}
