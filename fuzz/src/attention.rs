//! Attention and its gradients.

use std::ptr::{null, null_mut};

use dgm::attention::*;
use dgm::tensor::dgm_tensor;
use dgm::varlen::*;

use crate::kernels::{BOOLS, F32, FLOATS};
use crate::{Bytes, Call, check_status};

/// Options of attention, with all the arrays that they point to.
fn options(
    b: &mut Bytes,
    call: &mut Call,
    dims: [usize; 4],
    lengths: &mut Vec<i64>,
) -> dgm_attention_options {
    // SAFETY: a struct of its own size, filled at once.
    let mut o = unsafe {
        let mut o = std::mem::MaybeUninit::<dgm_attention_options>::zeroed();
        check_status(dgm_attention_options_init(o.as_mut_ptr(), size_of::<dgm_attention_options>()));
        o.assume_init()
    };
    let [_, heads, queries, keys] = dims;
    let q = call.shape(0);
    if b.rarely(4) {
        o.scale = b.float() as f32;
    }
    o.causal = if b.rarely(8) { b.number() as i32 } else { i32::from(b.rarely(2)) };
    if b.rarely(4) {
        (o.window_left, o.window_right) = (b.number(), b.number());
    }
    if b.rarely(4) {
        o.soft_cap = b.float() as f32;
    }
    if b.rarely(32) {
        o.reserved = b.number() as i32;
    }
    if b.rarely(32) {
        // An older caller, who knows nothing of what follows.
        o.struct_size = (b.number() as usize).min(size_of::<dgm_attention_options>());
        return o;
    }
    // One number for each batch entry that q says it has, as the header asks.
    let batch = q.first().copied().unwrap_or(0);
    if b.rarely(3) && (0..1000).contains(&batch) {
        *lengths =
            (0..batch).map(|_| if b.rarely(8) { b.number() } else { b.below(keys + 1) as i64 }).collect();
        o.kv_lengths = lengths.as_ptr();
    }
    // Heads as the function finds them: the second axis of q.
    let seen = q.get(1).copied().unwrap_or(heads as i64);
    o.alibi_slopes = call.floats(b, seen);
    o.sinks = call.floats(b, seen);
    let scores = |b: &mut Bytes| [dims[0], heads, queries, keys].map(|n| if b.rarely(3) { 1 } else { n });
    let (bias, mask) = (scores(b), scores(b));
    o.bias = call.optional(b, &bias, F32);
    o.mask = call.optional(b, &mask, BOOLS);
    o
}

pub(crate) fn attend(b: &mut Bytes, call: &mut Call) {
    let (batch, group, kv_heads) = (b.below(3), 1 + b.below(3), b.below(3));
    let (queries, keys) =
        (b.below(9) * if b.rarely(4) { 9 } else { 1 }, b.below(10) * if b.rarely(4) { 17 } else { 1 });
    let (d, dv, heads) = (b.below(10), b.below(10), group * kv_heads);
    let q = call.input(b, &[batch, heads, queries, d], FLOATS);
    let k = call.input(b, &[batch, kv_heads, keys, d], FLOATS);
    // Values have the type that the keys got, which may have been changed into another.
    let kv = call.dtype(1, FLOATS);
    let v = call.input(b, &[batch, kv_heads, keys, dv], &[kv]);
    let out = call.output(b, &[batch, heads, queries, dv], FLOATS);
    let lse = if b.rarely(2) { call.output(b, &[batch, heads, queries], F32) } else { null_mut() };
    let mut lengths = Vec::new();
    // Without options their tensors are no part of the call.
    let o = (!b.rarely(3)).then(|| options(b, call, [batch, heads, queries, keys], &mut lengths));
    let o = o.as_ref().map_or(null(), |o| o as *const dgm_attention_options);
    let fits = match (&call.shape(0)[..], &call.shape(1)[..], &call.shape(2)[..], &call.output_shape(0)[..]) {
        (&[b1, h, lq, d1], &[b2, h2, lk, d2], &[b3, h3, lk3, e], &[b4, h4, lq4, e4]) => {
            [b2, b3, b4] == [b1; 3] && d1 == d2 && h2 == h3 && lk == lk3 && [h4, lq4, e4] == [h, lq, e]
        }
        _ => false,
    };
    // SAFETY: the descriptors lie in the arena or must be refused, which `check` sees to.
    call.check(fits, || unsafe { dgm_attention(q, k, v, o, out, lse) });
}

/// Where so many sequences begin and end, now and then wrongly, and how many tokens they have.
fn offsets(b: &mut Bytes, sequences: usize) -> (Vec<i64>, usize) {
    let mut at = 0i64;
    let mut all = vec![0];
    all.extend((0..sequences).map(|_| {
        at += b.below(9) as i64;
        at
    }));
    if b.rarely(8) {
        let i = b.below(all.len());
        all[i] = b.number();
    }
    (all, at as usize)
}

pub(crate) fn attend_packed(b: &mut Bytes, call: &mut Call) {
    let (group, kv_heads, d, dv) = (1 + b.below(3), b.below(3), b.below(10), b.below(10));
    let heads = group * kv_heads;
    let sequences = b.below(5);
    let ((q_offsets, queries), (kv_offsets, keys)) = (offsets(b, sequences), offsets(b, sequences));
    let q = call.input(b, &[queries, heads, d], FLOATS);
    let k = call.input(b, &[keys, kv_heads, d], FLOATS);
    let kv = call.dtype(1, FLOATS);
    let v = call.input(b, &[keys, kv_heads, dv], &[kv]);
    let out = call.output(b, &[queries, heads, dv], FLOATS);
    let lse = if b.rarely(2) { call.output(b, &[heads, queries], F32) } else { null_mut() };
    let mut o = (!b.rarely(2)).then(|| options(b, call, [1, heads, queries, keys], &mut Vec::new()));
    if let Some(o) = &mut o {
        o.kv_lengths = null(); // the lengths are gone
    }
    let o = o.as_ref().map_or(null(), |o| o as *const dgm_attention_options);
    let count = sequences as i64;
    let fits = match (&call.shape(0)[..], &call.shape(1)[..], &call.shape(2)[..], &call.output_shape(0)[..]) {
        (&[tq, h, d1], &[tk, h2, d2], &[tk3, h3, e], &[tq4, h4, e4]) => {
            d1 == d2 && h2 == h3 && tk == tk3 && [tq4, h4, e4] == [tq, h, e]
        }
        _ => false,
    };
    call.check(fits, || {
        // SAFETY: as in `attend`; the offsets are as many as said.
        unsafe { dgm_attention_varlen(q, k, v, q_offsets.as_ptr(), kv_offsets.as_ptr(), count, o, out, lse) }
    });
}

/// What gradients take beside `[q, k, v]` and fill: out, lse and dout; dq, dk and dv.
struct Gradients([*mut dgm_tensor; 6]);

impl Gradients {
    /// In arrays of shapes that fit.
    fn new(b: &mut Bytes, call: &mut Call, [q, k, v, out, lse]: [&[usize]; 5]) -> Self {
        let saved = [call.input(b, out, FLOATS), call.input(b, lse, F32), call.input(b, out, FLOATS)];
        let [dq, dk, dv] = [q, k, v].map(|shape| call.output(b, shape, FLOATS));
        Gradients([saved[0], saved[1], saved[2], dq, dk, dv])
    }

    /// Whether their shapes are those that belong to the inputs.
    fn fit(call: &Call, out: &[i64], lse: &[i64]) -> bool {
        let inputs = [3, 4, 5].map(|n| call.shape(n));
        let outputs = [0, 1, 2].map(|n| call.output_shape(n));
        inputs == [out, lse, out].map(<[i64]>::to_vec) && outputs == [0, 1, 2].map(|n| call.shape(n))
    }
}

pub(crate) fn gradients(b: &mut Bytes, call: &mut Call) {
    let (batch, group, kv_heads) = (b.below(3), 1 + b.below(3), b.below(3));
    let (queries, keys, d, dv) = (b.below(9), b.below(10), b.below(10), b.below(10));
    let heads = group * kv_heads;
    let of_q = [batch, heads, queries, d];
    let (of_k, of_v) = ([batch, kv_heads, keys, d], [batch, kv_heads, keys, dv]);
    let q = call.input(b, &of_q, FLOATS);
    let k = call.input(b, &of_k, FLOATS);
    let kv = call.dtype(1, FLOATS);
    let v = call.input(b, &of_v, &[kv]);
    let (of_out, of_lse) = ([batch, heads, queries, dv], [batch, heads, queries]);
    let Gradients([out, lse, dout, dq, dk, dv]) =
        Gradients::new(b, call, [&of_q, &of_k, &of_v, &of_out, &of_lse]);
    let mut lengths = Vec::new();
    let o = (!b.rarely(3)).then(|| options(b, call, [batch, heads, queries, keys], &mut lengths));
    let o = o.as_ref().map_or(null(), |o| o as *const dgm_attention_options);
    let fits = match (&call.shape(0)[..], &call.shape(1)[..], &call.shape(2)[..]) {
        (&[b1, h, lq, d1], &[b2, h2, lk, d2], &[b3, h3, lk3, e]) => {
            [b2, b3] == [b1; 2]
                && d1 == d2
                && h2 == h3
                && lk == lk3
                && Gradients::fit(call, &[b1, h, lq, e], &[b1, h, lq])
        }
        _ => false,
    };
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        dgm_attention_backward(q, k, v, out, lse, dout, o, dq, dk, dv, null_mut())
    });
}

pub(crate) fn packed_gradients(b: &mut Bytes, call: &mut Call) {
    let (group, kv_heads, d, dv) = (1 + b.below(3), b.below(3), b.below(10), b.below(10));
    let (heads, sequences) = (group * kv_heads, b.below(5));
    let ((q_offsets, queries), (kv_offsets, keys)) = (offsets(b, sequences), offsets(b, sequences));
    let (of_q, of_k, of_v) = ([queries, heads, d], [keys, kv_heads, d], [keys, kv_heads, dv]);
    let q = call.input(b, &of_q, FLOATS);
    let k = call.input(b, &of_k, FLOATS);
    let kv = call.dtype(1, FLOATS);
    let v = call.input(b, &of_v, &[kv]);
    let (of_out, of_lse) = ([queries, heads, dv], [heads, queries]);
    let Gradients([out, lse, dout, dq, dk, dv]) =
        Gradients::new(b, call, [&of_q, &of_k, &of_v, &of_out, &of_lse]);
    let mut o = (!b.rarely(2)).then(|| options(b, call, [1, heads, queries, keys], &mut Vec::new()));
    if let Some(o) = &mut o {
        o.kv_lengths = null(); // the lengths are gone
    }
    let o = o.as_ref().map_or(null(), |o| o as *const dgm_attention_options);
    let fits = match (&call.shape(0)[..], &call.shape(1)[..], &call.shape(2)[..]) {
        (&[tq, h, d1], &[tk, h2, d2], &[tk3, h3, e]) => {
            d1 == d2 && h2 == h3 && tk == tk3 && Gradients::fit(call, &[tq, h, e], &[h, tq])
        }
        _ => false,
    };
    let (a, c, count) = (q_offsets.as_ptr(), kv_offsets.as_ptr(), sequences as i64);
    call.check(fits, || {
        // SAFETY: as in `attend`; the offsets are as many as said.
        unsafe { dgm_attention_varlen_backward(q, k, v, out, lse, dout, a, c, count, o, dq, dk, dv) }
    });
}
