//! The entries of the C interface that take tensors, one function each: arguments from the
//! fuzzer's bytes, and whether their shapes agree.

use std::ptr::{null, null_mut};

use dgm::linear::{
    dgm_linear_apply, dgm_linear_forward, dgm_linear_free, dgm_linear_options, dgm_linear_options_init,
    dgm_linear_pack,
};
use dgm::nn::*;
use dgm::random::*;

use crate::{Bytes, Call, attention, check_status};

pub(crate) type Types = &'static [(u8, u8)];
pub(crate) const F32: Types = &[(2, 32)];
pub(crate) const FLOATS: Types = &[(2, 32), (2, 16), (4, 16)];
pub(crate) const BOOLS: Types = &[(6, 8), (1, 8)];

fn linear(b: &mut Bytes, call: &mut Call) {
    let (rows, inputs, outputs) = (b.below(8), b.below(20), b.below(40));
    let mut layer = null_mut();
    // The weights are a call of their own: packing writes nothing.
    let mut weights = Call::new(b);
    let weight = weights.input(b, &[outputs, inputs], F32);
    let bias = weights.optional(b, &[outputs], F32);
    let place: *mut *mut dgm::linear::dgm_linear = &mut layer;
    let shape = weights.shape(0);
    let with_bias = !bias.is_null();
    let fits = shape.len() == 2 && (!with_bias || weights.shape(1) == shape[..1]);
    // Packing costs memory for every output feature, also where there is no input.
    if shape.first().is_some_and(|n| (1 << 16..1 << 45).contains(n)) {
        return;
    }
    weights.check(fits, || {
        // SAFETY: as in `attend`; a handle of an earlier turn is released.
        unsafe {
            dgm_linear_free(*place);
            dgm_linear_pack(weight, bias, place)
        }
    });
    let activation = if b.rarely(8) { b.number() as i32 } else { b.below(4) as i32 };
    let x = call.input(b, &[rows, inputs], F32);
    let out = call.output(b, &[rows, outputs], F32);
    let (xs, os) = (call.shape(0), call.output_shape(0));
    let fits = !layer.is_null()
        && (0..4).contains(&activation)
        && xs.len() == 2
        && os == [xs[0], shape[0]]
        && xs[1] == shape[1];
    if b.rarely(2) {
        // SAFETY: as in `attend`; the handle is live or NULL.
        unsafe {
            call.check(fits, || dgm_linear_forward(layer, x, activation, out));
            dgm_linear_free(layer);
        }
        return;
    }
    // SAFETY: a struct of its own size, filled at once.
    let mut o = unsafe {
        let mut o = std::mem::MaybeUninit::<dgm_linear_options>::zeroed();
        check_status(dgm_linear_options_init(o.as_mut_ptr(), size_of::<dgm_linear_options>()));
        o.assume_init()
    };
    o.activation = activation;
    o.reserved = if b.rarely(32) { b.number() as i32 } else { 0 };
    let some = |b: &mut Bytes| [1, rows, rows / 2, b.below(9)][b.below(4)];
    let (groups, period) = (some(b), some(b));
    o.gate = call.optional(b, &[groups, outputs], FLOATS);
    o.residual = call.optional(b, &[period, outputs], FLOATS);
    // The residual may be the very output.
    call.elementwise = true;
    let ends: Vec<_> = (1..call.inputs()).map(|n| call.shape(n)).collect();
    let divides = |n: i64| if n == 0 { xs[0] == 0 } else { xs[0] % n == 0 };
    let fits =
        fits && o.reserved == 0 && ends.iter().all(|e| e.len() == 2 && e[1] == shape[0] && divides(e[0]));
    // SAFETY: as above.
    unsafe {
        call.check(fits, || dgm_linear_apply(layer, x, &o, out));
        dgm_linear_free(layer);
    }
}

fn norm(b: &mut Bytes, call: &mut Call) {
    let (rows, d) = (b.below(8), b.below(70));
    let layer = b.rarely(2);
    let eps = if b.rarely(4) { b.float() as f32 } else { 1e-5 };
    let x = call.input(b, &[rows, d], FLOATS);
    let mut learned = || {
        let before = call.inputs();
        let t = call.optional(b, &[d], FLOATS);
        (t, before)
    };
    let (weight, w) = learned();
    let (bias, s) = if layer { learned() } else { (null_mut(), 0) };
    let out = call.output(b, &[rows, d], FLOATS);
    let xs = call.shape(0);
    let fit = |t: *mut _, n: usize| (t as *const u8).is_null() || call.shape(n) == xs[xs.len() - 1..];
    let fits = !xs.is_empty() && call.output_shape(0) == xs && fit(weight, w) && fit(bias, s);
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        if layer { dgm_layer_norm(x, weight, bias, eps, out) } else { dgm_rms_norm(x, weight, eps, out) }
    });
}

fn modulation(b: &mut Bytes, call: &mut Call) {
    call.elementwise = true;
    let (batch, tokens, d) = (b.below(4), b.below(6), b.below(40));
    let gated = b.rarely(2);
    let x = call.input(b, &[batch, tokens, d], FLOATS);
    let (wide, narrow) = ([batch, tokens, d], [batch, d]);
    let y = call.input(b, if gated { &wide } else { &narrow }, FLOATS);
    let z = call.input(b, &[batch, d], FLOATS);
    let out = call.output(b, &[batch, tokens, d], FLOATS);
    call.in_place(b);
    let xs = call.shape(0);
    let narrow = |n: usize| call.shape(n) == [xs[0], xs[2]];
    let fits = xs.len() == 3
        && call.output_shape(0) == xs
        && narrow(2)
        && if gated { call.shape(1) == xs } else { narrow(1) };
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        if gated { dgm_gate_residual(x, y, z, out) } else { dgm_modulate(x, y, z, out) }
    });
}

fn activation(b: &mut Bytes, call: &mut Call) {
    call.elementwise = true;
    let rank = b.below(9);
    let shape: Vec<usize> = (0..rank).map(|_| b.below(4)).collect();
    let kind = match b.below(3) {
        0 => None,
        1 => Some(b.below(2) as i32),
        _ => Some(b.number() as i32),
    };
    let x = call.input(b, &shape, FLOATS);
    let out = call.output(b, &shape, FLOATS);
    call.in_place(b);
    let fits = call.shape(0) == call.output_shape(0) && kind.is_none_or(|k| k == 0 || k == 1);
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        match kind {
            None => dgm_silu(x, out),
            Some(kind) => dgm_gelu(x, kind, out),
        }
    });
}

/// SwiGLU and GEGLU.
fn gates(b: &mut Bytes, call: &mut Call) {
    call.elementwise = true;
    let rank = b.below(9);
    let shape: Vec<usize> = (0..rank).map(|_| b.below(4)).collect();
    let kind = if b.rarely(2) { None } else { Some(b.below(3) as i32) };
    let gate = call.input(b, &shape, FLOATS);
    let up = call.input(b, &shape, FLOATS);
    let out = call.output(b, &shape, FLOATS);
    call.in_place(b);
    let fits = call.shape(0) == call.output_shape(0)
        && call.shape(1) == call.output_shape(0)
        && kind.is_none_or(|k| k == 0 || k == 1);
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        match kind {
            None => dgm_swiglu(gate, up, out),
            Some(kind) => dgm_geglu(gate, up, kind, out),
        }
    });
}

/// Softmax, its logarithm, guidance, the norm with a residual.
fn rows(b: &mut Bytes, call: &mut Call) {
    let rank = b.below(5);
    let shape: Vec<usize> = (0..rank).map(|_| b.below(5)).collect();
    let what = b.below(4);
    let (scale, rescale) = if b.rarely(4) { (b.float(), b.float()) } else { (2.5, 0.5) };
    let x = call.input(b, &shape, FLOATS);
    let y = if what > 1 { call.input(b, &shape, FLOATS) } else { null_mut() };
    let out = call.output(b, &shape, FLOATS);
    // The sum may be the very view of the residual.
    call.elementwise = what == 3;
    let normed = if what == 3 { call.output(b, &shape, FLOATS) } else { null_mut() };
    let xs = call.shape(0);
    let fits = !xs.is_empty()
        && call.output_shape(0) == xs
        && (what < 2 || call.shape(1) == xs)
        && (what < 3 || call.output_shape(1) == xs);
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        match what {
            0 => dgm_softmax(x, out),
            1 => dgm_log_softmax(x, out),
            2 => dgm_cfg_combine(x, y, scale, rescale, out),
            _ => dgm_rms_norm_residual(x, y, null(), 1e-5, out, normed),
        }
    });
}

fn groups(b: &mut Bytes, call: &mut Call) {
    let (batch, groups, channels) = (b.below(3), 1 + b.below(3), b.below(3));
    let space: Vec<usize> = (0..b.below(3)).map(|_| b.below(6)).collect();
    let shape: Vec<usize> = [batch, groups * channels].into_iter().chain(space).collect();
    let groups = if b.rarely(6) { b.number() } else { groups as i64 };
    let x = call.input(b, &shape, FLOATS);
    let (with_weight, weight) = (call.inputs(), call.optional(b, &[shape[1]], FLOATS));
    let out = call.output(b, &shape, FLOATS);
    let silu = if b.rarely(6) { b.number() as i32 } else { b.below(2) as i32 };
    let xs = call.shape(0);
    let fits = xs.len() > 1
        && groups > 0
        && xs[1] % groups == 0
        && call.output_shape(0) == xs
        && (silu == 0 || silu == 1)
        && (weight.is_null() || call.shape(with_weight) == [xs[1]]);
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe { dgm_group_norm(x, groups, weight, null(), 1e-5, silu, out) });
}

fn lookup(b: &mut Bytes, call: &mut Call) {
    let (rows, d, count) = (1 + b.below(6), b.below(20), b.below(7));
    let index = |b: &mut Bytes| if b.rarely(16) { b.number() } else { b.below(rows) as i64 };
    let indices: Vec<i64> = (0..count).map(|_| index(b)).collect();
    let table = call.input(b, &[rows, d], FLOATS);
    let out = call.output(b, &[count, d], FLOATS);
    let (ts, os) = (call.shape(0), call.output_shape(0));
    let fits = ts.len() == 2 && os == [count as i64, ts[1]] && indices.iter().all(|i| (0..ts[0]).contains(i));
    // SAFETY: as in `attend`; as many indices as said.
    call.check(fits, || unsafe { dgm_embedding(table, indices.as_ptr(), count, out) });
}

fn embedding(b: &mut Bytes, call: &mut Call) {
    let (batch, dim) = (b.below(8), b.below(40));
    let period = if b.rarely(3) { b.float() as f32 } else { 10_000.0 };
    let t = call.input(b, &[batch], FLOATS);
    let out = call.output(b, &[batch, dim], FLOATS);
    let (ts, os) = (call.shape(0), call.output_shape(0));
    let fits = ts.len() == 1 && os.len() == 2 && os[0] == ts[0];
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe { dgm_timestep_embedding(t, period, out) });
}

fn patches(b: &mut Bytes, call: &mut Call) {
    let (batch, channels, side) = (b.below(3), b.below(4), 1 + b.below(3));
    let (rows, cols) = (b.below(4), b.below(4));
    let patch = if b.rarely(6) { b.number() } else { side as i64 };
    let image = [batch, channels, rows * side, cols * side];
    let tokens = [batch, rows * cols, channels * side * side];
    let cut = b.rarely(2);
    let x = call.input(b, if cut { &image[..] } else { &tokens }, FLOATS);
    let out = call.output(b, if cut { &tokens[..] } else { &image }, FLOATS);
    let (mut i, mut t) = (call.shape(0), call.output_shape(0));
    if !cut {
        (i, t) = (t, i);
    }
    let wide = |n: i64| i128::from(n);
    let p = wide(patch);
    let fits = i.len() == 4
        && t.len() == 3
        && p > 0
        && wide(i[2]) % p == 0
        && wide(i[3]) % p == 0
        && i[0] == t[0]
        && (wide(i[2]) / p).checked_mul(wide(i[3]) / p) == Some(wide(t[1]))
        && p.checked_mul(p).and_then(|pp| pp.checked_mul(wide(i[1]))) == Some(wide(t[2]));
    // SAFETY: as in `attend`.
    call.check(fits, || unsafe {
        if cut { dgm_patchify(x, patch, out) } else { dgm_unpatchify(x, patch, out) }
    });
}

fn noise(b: &mut Bytes, call: &mut Call) {
    let (rows, elements) = (b.below(6), b.below(40));
    let count = if b.rarely(6) { b.below(9) } else { rows };
    let seeds: Vec<u64> = (0..count).map(|_| b.u64()).collect();
    let (purpose, draw) = (b.u32(), b.u32());
    match b.below(3) {
        2 => {
            let logits = call.input(b, &[rows, elements], F32);
            let mut classes = vec![-7i64; count];
            let (places, shape) = (classes.as_mut_ptr(), call.shape(0));
            let fits = shape.len() == 2 && shape[0] == count as i64;
            // SAFETY: as in `attend`; as many seeds and places as said.
            call.check(fits, || unsafe {
                let status = dgm_random_categorical(logits, seeds.as_ptr(), count, purpose, draw, places);
                let written = std::slice::from_raw_parts(places, count);
                match status {
                    0 => assert!(written.iter().all(|c| (0..shape[1]).contains(c)), "{written:?}"),
                    _ => assert!(written.iter().all(|&c| c == -7), "places changed by an error"),
                }
                status
            });
        }
        kind => {
            let out = call.output(b, &[rows, elements], F32);
            let shape = call.output_shape(0);
            let fits = shape.len() == 2 && shape[0] == count as i64;
            let f = [dgm_random_uniform, dgm_random_normal][kind];
            // SAFETY: as above.
            call.check(fits, || unsafe { f(seeds.as_ptr(), count, purpose, draw, out) });
        }
    }
}

/// One call of one entry.
pub fn one(b: &mut Bytes) {
    const ALL: [fn(&mut Bytes, &mut Call); 15] = [
        attention::attend,
        attention::attend_packed,
        linear,
        norm,
        modulation,
        activation,
        embedding,
        patches,
        noise,
        gates,
        rows,
        groups,
        lookup,
        attention::gradients,
        attention::packed_gradients,
    ];
    let kernel = ALL[b.below(ALL.len())];
    let mut call = Call::new(b);
    kernel(b, &mut call);
}
