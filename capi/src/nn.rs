//! Norms, modulation, softmax, activations, embeddings, patches. Every tensor is f32, f16 or bf16 for itself:
//! computed in f32, rounded once.

use dgm_core::nn::{
    Gelu, embedding, gate_residual, gate_residual_inplace, gate_residual_onto_y, geglu, geglu_inplace,
    geglu_onto_up, gelu, gelu_inplace, group_norm, layer_norm, layer_norm_modulate, log_softmax, modulate,
    modulate_inplace, patchify, rms_norm, rms_norm_residual, rms_norm_residual_inplace, silu, silu_inplace,
    softmax, swiglu, swiglu_inplace, swiglu_onto_up, timestep_embedding, unpatchify,
};
use dgm_core::sampling::cfg_combine;
use dgm_core::{Error, Result};
use ndarray::{Ix1, Ix2, Ix3, Ix4, IxDyn};

use crate::attention::flag;
use crate::fence::entry;
use crate::memory::slice;
use crate::tensor::{Tensor, dgm_tensor};

/// GELU by the tanh approximation.
pub const DGM_GELU_TANH: i32 = 0;
/// GELU by the error function.
pub const DGM_GELU_ERF: i32 = 1;

fn gelu_kind(kind: i32) -> Result<Gelu> {
    match kind {
        DGM_GELU_TANH => Ok(Gelu::Tanh),
        DGM_GELU_ERF => Ok(Gelu::Erf),
        _ => Err(Error::argument("kind", kind, "0 (tanh) or 1 (erf)")),
    }
}

fn patch_size(patch: i64) -> Result<usize> {
    usize::try_from(patch).map_err(|_| Error::range("patch", patch, "at least 1"))
}

/// Layer normalisation over the last axis: (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// Here and below every tensor is f32, f16 or bf16 for itself: inputs are widened exactly, everything is
/// computed in f32, and the result is rounded once.
///
/// @param x      [..., d]
/// @param weight [d]; NULL means 1
/// @param bias   [d]; NULL means 0
/// @param eps    added to the variance, positive
/// @param out    the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_layer_norm(
    x: *const dgm_tensor,
    weight: *const dgm_tensor,
    bias: *const dgm_tensor,
    eps: f32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let weight = Tensor::read_optional_floats("weight", weight, 1, "[d]")?;
        let bias = Tensor::read_optional_floats("bias", bias, 1, "[d]")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let inputs: Vec<&Tensor> = [Some(&x), weight.as_ref(), bias.as_ref()].into_iter().flatten().collect();
        let target = out.output_floats::<IxDyn>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        let bias = bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        layer_norm(x.floats::<IxDyn>()?, weight, bias, eps, target)
    })
}

/// Root-mean-square normalisation over the last axis: x / sqrt(mean(x^2) + eps) * weight.
///
/// @param x      [..., d]; queries or keys [B, H, L, D] with any strides for QK-norm
/// @param weight [d]; NULL means 1
/// @param eps    added to the mean square, positive
/// @param out    the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rms_norm(
    x: *const dgm_tensor,
    weight: *const dgm_tensor,
    eps: f32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let weight = Tensor::read_optional_floats("weight", weight, 1, "[d]")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let inputs: Vec<&Tensor> = [Some(&x), weight.as_ref()].into_iter().flatten().collect();
        let target = out.output_floats::<IxDyn>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        rms_norm(x.floats::<IxDyn>()?, weight, eps, target)
    })
}

/// Adaptive modulation: x * (1 + scale) + shift. Elementwise in x: out may be x.
///
/// @param x     [B, T, d]
/// @param shift [B, d]
/// @param scale [B, d]
/// @param out   [B, T, d]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_modulate(
    x: *const dgm_tensor,
    shift: *const dgm_tensor,
    scale: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, Some(3), "[B, T, d]")?;
        let shift = Tensor::read_floats("shift", shift, Some(2), "[B, d]")?;
        let scale = Tensor::read_floats("scale", scale, Some(2), "[B, d]")?;
        let out = Tensor::read_floats("out", out, Some(3), "[B, T, d]")?;
        let in_place = x.is_same_as(&out)?;
        let target = out.output_floats::<Ix3>(&[&shift, &scale])?;
        let (shift, scale) = (shift.floats::<Ix2>()?, scale.floats::<Ix2>()?);
        if in_place {
            return modulate_inplace(target, shift, scale);
        }
        modulate(x.floats::<Ix3>()?, shift, scale, target)
    })
}

/// Layer normalisation without weight and bias, then dgm_modulate(), in one pass with the same bits.
///
/// @param x     [B, T, d]
/// @param shift [B, d]
/// @param scale [B, d]
/// @param eps   added to the variance, positive
/// @param out   [B, T, d]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_layer_norm_modulate(
    x: *const dgm_tensor,
    shift: *const dgm_tensor,
    scale: *const dgm_tensor,
    eps: f32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, Some(3), "[B, T, d]")?;
        let shift = Tensor::read_floats("shift", shift, Some(2), "[B, d]")?;
        let scale = Tensor::read_floats("scale", scale, Some(2), "[B, d]")?;
        let out = Tensor::read_floats("out", out, Some(3), "[B, T, d]")?;
        let target = out.output_floats::<Ix3>(&[&x, &shift, &scale])?;
        layer_norm_modulate(x.floats::<Ix3>()?, shift.floats::<Ix2>()?, scale.floats::<Ix2>()?, eps, target)
    })
}

/// Gated residual: residual + gate * y. Elementwise: out may be residual or y.
///
/// @param residual [B, T, d]
/// @param y        [B, T, d]
/// @param gate     [B, d]
/// @param out      [B, T, d]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_gate_residual(
    residual: *const dgm_tensor,
    y: *const dgm_tensor,
    gate: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let residual = Tensor::read_floats("residual", residual, Some(3), "[B, T, d]")?;
        let y = Tensor::read_floats("y", y, Some(3), "[B, T, d]")?;
        let gate = Tensor::read_floats("gate", gate, Some(2), "[B, d]")?;
        let out = Tensor::read_floats("out", out, Some(3), "[B, T, d]")?;
        let places = (residual.is_same_as(&out)?, y.is_same_as(&out)?);
        let target = out.output_floats::<Ix3>(&[&gate])?;
        let gate = gate.floats::<Ix2>()?;
        match places {
            (false, false) => gate_residual(residual.floats::<Ix3>()?, y.floats::<Ix3>()?, gate, target),
            (true, false) => gate_residual_inplace(target, y.floats::<Ix3>()?, gate),
            (false, true) => gate_residual_onto_y(Some(residual.floats::<Ix3>()?), target, gate),
            (true, true) => gate_residual_onto_y(None, target, gate),
        }
    })
}

/// SiLU: x / (1 + exp(-x)). Elementwise: out may be x.
///
/// @param x   any shape
/// @param out the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_silu(x: *const dgm_tensor, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        if x.is_same_as(&out)? {
            return silu_inplace(out.output_floats::<IxDyn>(&[])?);
        }
        silu(x.floats::<IxDyn>()?, out.output_floats::<IxDyn>(&[])?)
    })
}

/// GELU. Elementwise: out may be x.
///
/// @param x    any shape
/// @param kind DGM_GELU_TANH or DGM_GELU_ERF
/// @param out  the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_gelu(x: *const dgm_tensor, kind: i32, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let kind = gelu_kind(kind)?;
        let x = Tensor::read_floats("x", x, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        if x.is_same_as(&out)? {
            return gelu_inplace(out.output_floats::<IxDyn>(&[])?, kind);
        }
        gelu(x.floats::<IxDyn>()?, kind, out.output_floats::<IxDyn>(&[])?)
    })
}

/// Softmax over the last axis: exp(x) / sum exp(x). A row of -infinity alone gives 0.
///
/// @param x   [..., d]
/// @param out the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_softmax(x: *const dgm_tensor, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let target = out.output_floats::<IxDyn>(&[&x])?;
        softmax(x.floats::<IxDyn>()?, target)
    })
}

/// Logarithm of the softmax over the last axis: x - log(sum exp(x)).
///
/// @param x   [..., d]
/// @param out the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_log_softmax(x: *const dgm_tensor, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let target = out.output_floats::<IxDyn>(&[&x])?;
        log_softmax(x.floats::<IxDyn>()?, target)
    })
}

/// The residual, then dgm_rms_norm() of it in one pass: sum = x + residual, out = rms_norm(sum).
///
/// The norm sees the sum as it is stored, in the type of sum.
///
/// @param x        [..., d]
/// @param residual the shape of x
/// @param weight   [d]; NULL means 1
/// @param eps      added to the mean square, not negative
/// @param sum      the shape of x; may be residual
/// @param out      the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rms_norm_residual(
    x: *const dgm_tensor,
    residual: *const dgm_tensor,
    weight: *const dgm_tensor,
    eps: f32,
    sum: *mut dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let residual = Tensor::read_floats("residual", residual, None, "")?;
        let weight = Tensor::read_optional_floats("weight", weight, 1, "[d]")?;
        let sum = Tensor::read_floats("sum", sum, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let in_place = residual.is_same_as(&sum)?;
        let mut inputs: Vec<&Tensor> = [Some(&x), weight.as_ref()].into_iter().flatten().collect();
        let total = sum.output_floats::<IxDyn>(&inputs)?;
        inputs.extend([&residual, &sum]);
        let target = out.output_floats::<IxDyn>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        let x = x.floats::<IxDyn>()?;
        if in_place {
            return rms_norm_residual_inplace(x, total, weight, eps, target);
        }
        rms_norm_residual(x, residual.floats::<IxDyn>()?, weight, eps, total, target)
    })
}

/// Group normalisation, then SiLU if asked: each group of channels of each batch entry, with all that
/// follows the channel axis, less its mean, over its deviation, * weight + bias.
///
/// @param x      [B, C, ...]
/// @param groups divides C
/// @param weight [C]; NULL means 1
/// @param bias   [C]; NULL means 0
/// @param eps    added to the variance, not negative
/// @param silu   1 for SiLU of the result, 0
/// @param out    the shape of x
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_group_norm(
    x: *const dgm_tensor,
    groups: i64,
    weight: *const dgm_tensor,
    bias: *const dgm_tensor,
    eps: f32,
    silu: i32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, None, "")?;
        let weight = Tensor::read_optional_floats("weight", weight, 1, "[C]")?;
        let bias = Tensor::read_optional_floats("bias", bias, 1, "[C]")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let inputs: Vec<&Tensor> = [Some(&x), weight.as_ref(), bias.as_ref()].into_iter().flatten().collect();
        let target = out.output_floats::<IxDyn>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        let bias = bias.as_ref().map(Tensor::floats::<Ix1>).transpose()?;
        let groups = usize::try_from(groups).map_err(|_| Error::range("groups", groups, "at least 1"))?;
        group_norm(x.floats::<IxDyn>()?, groups, weight, bias, eps, flag("silu", silu)?, target)
    })
}

/// SwiGLU: silu(gate) * up. Elementwise: out may be gate or up.
///
/// @param gate any shape; the halves of one tensor are two descriptors
/// @param up   the shape of gate
/// @param out  the shape of gate
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_swiglu(
    gate: *const dgm_tensor,
    up: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let gate = Tensor::read_floats("gate", gate, None, "")?;
        let up = Tensor::read_floats("up", up, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let places = (gate.is_same_as(&out)?, up.is_same_as(&out)?);
        let target = out.output_floats::<IxDyn>(&[])?;
        match places {
            (false, false) => swiglu(gate.floats::<IxDyn>()?, up.floats::<IxDyn>()?, target),
            (true, false) => swiglu_inplace(target, up.floats::<IxDyn>()?),
            (false, true) => swiglu_onto_up(Some(gate.floats::<IxDyn>()?), target),
            (true, true) => swiglu_onto_up(None, target),
        }
    })
}

/// GEGLU: gelu(gate) * up. Elementwise: out may be gate or up.
///
/// @param gate any shape; the halves of one tensor are two descriptors
/// @param up   the shape of gate
/// @param kind DGM_GELU_TANH or DGM_GELU_ERF
/// @param out  the shape of gate
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_geglu(
    gate: *const dgm_tensor,
    up: *const dgm_tensor,
    kind: i32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let kind = gelu_kind(kind)?;
        let gate = Tensor::read_floats("gate", gate, None, "")?;
        let up = Tensor::read_floats("up", up, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let places = (gate.is_same_as(&out)?, up.is_same_as(&out)?);
        let target = out.output_floats::<IxDyn>(&[])?;
        match places {
            (false, false) => geglu(gate.floats::<IxDyn>()?, up.floats::<IxDyn>()?, kind, target),
            (true, false) => geglu_inplace(target, up.floats::<IxDyn>()?, kind),
            (false, true) => geglu_onto_up(Some(gate.floats::<IxDyn>()?), target, kind),
            (true, true) => geglu_onto_up(None, target, kind),
        }
    })
}

/// Rows of a table by their numbers: out[n] = table[indices[n]].
///
/// @param table   [V, d]
/// @param indices count numbers, each at least 0 and below V
/// @param count   how many
/// @param out     [count, d]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_embedding(
    table: *const dgm_tensor,
    indices: *const i64,
    count: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and `count` numbers, or NULL.
    entry(|| unsafe {
        let table = Tensor::read_floats("table", table, Some(2), "[V, d]")?;
        let out = Tensor::read_floats("out", out, Some(2), "[count, d]")?;
        let indices = slice("indices", indices, count)?;
        out.check_separate("indices", indices)?;
        let target = out.output_floats::<Ix2>(&[&table])?;
        embedding(table.floats::<Ix2>()?, indices, target)
    })
}

/// Classifier-free guidance: scale * cond + (1 - scale) * uncond, the bits of a plan with this guidance.
///
/// @param cond    [rows, ...]
/// @param uncond  the shape of cond
/// @param scale   -1000 to 1000
/// @param rescale 0, or up to 1: each row times 1 - rescale + rescale * (deviation of cond / of the result)
/// @param out     the shape of cond
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_cfg_combine(
    cond: *const dgm_tensor,
    uncond: *const dgm_tensor,
    scale: f64,
    rescale: f64,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let cond = Tensor::read_floats("cond", cond, None, "")?;
        let uncond = Tensor::read_floats("uncond", uncond, None, "")?;
        let out = Tensor::read_floats("out", out, None, "")?;
        let target = out.output_floats::<IxDyn>(&[&cond, &uncond])?;
        cfg_combine(cond.floats::<IxDyn>()?, uncond.floats::<IxDyn>()?, scale, rescale, target)
    })
}

/// Sinusoidal embedding of times: cosines first, then sines, of t * max_period^(-2i/dim).
///
/// @param t          [B]
/// @param max_period longest period, usually 10000
/// @param out        [B, dim], dim even
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_timestep_embedding(
    t: *const dgm_tensor,
    max_period: f32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let t = Tensor::read_floats("t", t, Some(1), "[B]")?;
        let out = Tensor::read_floats("out", out, Some(2), "[B, dim]")?;
        let target = out.output_floats::<Ix2>(&[&t])?;
        timestep_embedding(t.floats::<Ix1>()?, max_period, target)
    })
}

/// Cuts images into patches.
///
/// @param x     [B, C, H, W]
/// @param patch side p of a patch, divides H and W
/// @param out   [B, (H/p)(W/p), C*p*p], the channels of a patch outermost
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_patchify(x: *const dgm_tensor, patch: i64, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, Some(4), "[B, C, H, W]")?;
        let out = Tensor::read_floats("out", out, Some(3), "[B, T, C*p*p]")?;
        let target = out.output_floats::<Ix3>(&[&x])?;
        patchify(x.floats::<Ix4>()?, patch_size(patch)?, target)
    })
}

/// Puts patches together again.
///
/// @param x     [B, (H/p)(W/p), p*p*C], the channels of a patch innermost
/// @param patch side p of a patch
/// @param out   [B, C, H, W]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_unpatchify(x: *const dgm_tensor, patch: i64, out: *mut dgm_tensor) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read_floats("x", x, Some(3), "[B, T, p*p*C]")?;
        let out = Tensor::read_floats("out", out, Some(4), "[B, C, H, W]")?;
        let target = out.output_floats::<Ix4>(&[&x])?;
        unpatchify(x.floats::<Ix3>()?, patch_size(patch)?, target)
    })
}
