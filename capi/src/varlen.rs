//! Attention of packed sequences.

use dgm_core::attention::{attention_varlen, attention_varlen_backward};
use dgm_core::{Error, Result};
use ndarray::{Ix2, Ix3};

use crate::attention::{Read, counts, dgm_attention_options};
use crate::fence::entry;
use crate::tensor::{FLOATS, Tensor, dgm_tensor};

/// What all sequences are given by.
struct Packed<'a> {
    q: Tensor<'a>,
    k: Tensor<'a>,
    v: Tensor<'a>,
    q_offsets: Vec<usize>,
    kv_offsets: Vec<usize>,
}

impl<'a> Packed<'a> {
    /// # Safety
    /// Descriptors and offsets are NULL or valid; there are `sequences + 1` of these.
    unsafe fn read(
        [q, k, v]: [*const dgm_tensor; 3],
        [q_offsets, kv_offsets]: [*const i64; 2],
        sequences: i64,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe {
            let q = Tensor::read_any("q", q, Some(3), QUERIES, FLOATS)?;
            let k = Tensor::read_any("k", k, Some(3), "[Tk, Hkv, D]", FLOATS)?;
            let v = Tensor::read_any("v", v, Some(3), "[Tk, Hkv, Dv]", FLOATS)?;
            let count = usize::try_from(sequences).ok().and_then(|n| n.checked_add(1));
            let count = count.ok_or_else(|| Error::range("sequences", sequences, "0 or more"))?;
            let q_offsets = counts("q_offsets", q_offsets, count)?;
            let kv_offsets = counts("kv_offsets", kv_offsets, count)?;
            Ok(Packed { q, k, v, q_offsets, kv_offsets })
        }
    }

    /// The options. Key lengths are read as none, for the engine to refuse.
    ///
    /// # Safety
    /// They are NULL or valid.
    unsafe fn options(&self, options: *const dgm_attention_options) -> Result<Read<'a>> {
        // SAFETY: the caller's promise.
        unsafe { Read::new(options, 0, self.q.shape()[1]) }
    }
}

const QUERIES: &str = "[Tq, H, D]";
const OUTPUT: &str = "[Tq, H, Dv]";
const SUMS: &str = "[H, Tq]";

/// dgm_attention() of sequences of different lengths packed one after the other, each within itself:
/// the bits are those of one call a sequence.
///
/// @param q          [Tq, H, D]: the queries of all sequences
/// @param k          [Tk, Hkv, D]
/// @param v          [Tk, Hkv, Dv]
/// @param q_offsets  sequences + 1 numbers from 0 to Tq that never fall: sequence n has the queries
///                   q_offsets[n] up to, but not with, q_offsets[n + 1]
/// @param kv_offsets the same for the keys, from 0 to Tk
/// @param sequences  how many
/// @param options    NULL for the defaults; without kv_lengths, bias and mask
/// @param out        [Tq, H, Dv]
/// @param lse        f32 [H, Tq]; NULL if not wanted
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_varlen(
    q: *const dgm_tensor,
    k: *const dgm_tensor,
    v: *const dgm_tensor,
    q_offsets: *const i64,
    kv_offsets: *const i64,
    sequences: i64,
    options: *const dgm_attention_options,
    out: *mut dgm_tensor,
    lse: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors, offsets and options, or NULL.
    entry(|| unsafe {
        let p = Packed::read([q, k, v], [q_offsets, kv_offsets], sequences)?;
        let out = Tensor::read_any("out", out, Some(3), OUTPUT, FLOATS)?;
        let lse = Tensor::read_optional("lse", lse, 2, SUMS)?;
        let read = p.options(options)?;
        read.check_separate(&[Some(&out), lse.as_ref()])?;
        let lse = match &lse {
            Some(lse) => Some(lse.output::<Ix2>(&[&p.q, &p.k, &p.v, &out])?),
            None => None,
        };
        let out = out.output_floats::<Ix3>(&[&p.q, &p.k, &p.v])?;
        attention_varlen(
            p.q.floats::<Ix3>()?,
            p.k.floats::<Ix3>()?,
            p.v.floats::<Ix3>()?,
            &p.q_offsets,
            &p.kv_offsets,
            &read.options()?,
            out,
            lse,
        )
    })
}

/// The gradients of dgm_attention_varlen(): those of dgm_attention_backward() for each sequence, to the
/// same bits.
///
/// @param q          [Tq, H, D], as dgm_attention_varlen() got it
/// @param k          [Tk, Hkv, D], likewise
/// @param v          [Tk, Hkv, Dv], likewise
/// @param out        [Tq, H, Dv], as dgm_attention_varlen() filled it
/// @param lse        f32 [H, Tq], likewise
/// @param dout       [Tq, H, Dv]
/// @param q_offsets  sequences + 1 numbers, as dgm_attention_varlen() got them
/// @param kv_offsets likewise
/// @param sequences  how many
/// @param options    those of dgm_attention_varlen(), NULL for the defaults
/// @param dq         [Tq, H, D]
/// @param dk         [Tk, Hkv, D]
/// @param dv         [Tk, Hkv, Dv]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_varlen_backward(
    q: *const dgm_tensor,
    k: *const dgm_tensor,
    v: *const dgm_tensor,
    out: *const dgm_tensor,
    lse: *const dgm_tensor,
    dout: *const dgm_tensor,
    q_offsets: *const i64,
    kv_offsets: *const i64,
    sequences: i64,
    options: *const dgm_attention_options,
    dq: *mut dgm_tensor,
    dk: *mut dgm_tensor,
    dv: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors, offsets and options, or NULL.
    entry(|| unsafe {
        let p = Packed::read([q, k, v], [q_offsets, kv_offsets], sequences)?;
        let out = Tensor::read_any("out", out, Some(3), OUTPUT, FLOATS)?;
        let lse = Tensor::read("lse", lse, Some(2), SUMS)?;
        let dout = Tensor::read_any("dout", dout, Some(3), OUTPUT, FLOATS)?;
        let dq = Tensor::read_any("dq", dq, Some(3), QUERIES, FLOATS)?;
        let dk = Tensor::read_any("dk", dk, Some(3), "[Tk, Hkv, D]", FLOATS)?;
        let dv = Tensor::read_any("dv", dv, Some(3), "[Tk, Hkv, Dv]", FLOATS)?;
        let read = p.options(options)?;
        read.check_separate(&[Some(&dq), Some(&dk), Some(&dv)])?;
        let mut others = vec![&p.q, &p.k, &p.v, &out, &lse, &dout];
        let to_q = dq.output_floats::<Ix3>(&others)?;
        others.push(&dq);
        let to_k = dk.output_floats::<Ix3>(&others)?;
        others.push(&dk);
        let to_v = dv.output_floats::<Ix3>(&others)?;
        attention_varlen_backward(
            p.q.floats::<Ix3>()?,
            p.k.floats::<Ix3>()?,
            p.v.floats::<Ix3>()?,
            out.floats::<Ix3>()?,
            lse.view::<Ix2>()?,
            dout.floats::<Ix3>()?,
            &p.q_offsets,
            &p.kv_offsets,
            &read.options()?,
            to_q,
            to_k,
            to_v,
        )
    })
}
