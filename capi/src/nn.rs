//! Norms, modulation, activations, embeddings, patches.

use dgm_core::nn::{
    Gelu, gate_residual, gate_residual_inplace, gate_residual_onto_y, gelu, gelu_inplace, layer_norm,
    layer_norm_modulate, modulate, modulate_inplace, patchify, rms_norm, silu, silu_inplace,
    timestep_embedding, unpatchify,
};
use dgm_core::{Error, Result};
use ndarray::{Ix1, Ix2, Ix3, Ix4, IxDyn};

use crate::fence::entry;
use crate::tensor::{Tensor, dgm_tensor};

/// GELU by the tanh approximation.
pub const DGM_GELU_TANH: i32 = 0;
/// GELU by the error function.
pub const DGM_GELU_ERF: i32 = 1;

fn patch_size(patch: i64) -> Result<usize> {
    usize::try_from(patch).map_err(|_| Error::range("patch", patch, "at least 1"))
}

/// Layer normalisation of each row: (x - mean) / sqrt(variance + eps) * weight + bias.
///
/// @param x      [rows, d]
/// @param weight [d]; NULL means 1
/// @param bias   [d]; NULL means 0
/// @param eps    added to the variance, positive
/// @param out    [rows, d]
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
        let x = Tensor::read("x", x, Some(2), "[rows, d]")?;
        let weight = Tensor::read_optional("weight", weight, 1, "[d]")?;
        let bias = Tensor::read_optional("bias", bias, 1, "[d]")?;
        let out = Tensor::read("out", out, Some(2), "[rows, d]")?;
        let inputs: Vec<&Tensor> = [Some(&x), weight.as_ref(), bias.as_ref()].into_iter().flatten().collect();
        let target = out.output::<Ix2>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::view::<Ix1>).transpose()?;
        let bias = bias.as_ref().map(Tensor::view::<Ix1>).transpose()?;
        layer_norm(x.view::<Ix2>()?, weight, bias, eps, target)
    })
}

/// Root-mean-square normalisation of each row: x / sqrt(mean(x^2) + eps) * weight.
///
/// @param x      [rows, d]
/// @param weight [d]; NULL means 1
/// @param eps    added to the mean square, positive
/// @param out    [rows, d]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rms_norm(
    x: *const dgm_tensor,
    weight: *const dgm_tensor,
    eps: f32,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let x = Tensor::read("x", x, Some(2), "[rows, d]")?;
        let weight = Tensor::read_optional("weight", weight, 1, "[d]")?;
        let out = Tensor::read("out", out, Some(2), "[rows, d]")?;
        let inputs: Vec<&Tensor> = [Some(&x), weight.as_ref()].into_iter().flatten().collect();
        let target = out.output::<Ix2>(&inputs)?;
        let weight = weight.as_ref().map(Tensor::view::<Ix1>).transpose()?;
        rms_norm(x.view::<Ix2>()?, weight, eps, target)
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
        let x = Tensor::read("x", x, Some(3), "[B, T, d]")?;
        let shift = Tensor::read("shift", shift, Some(2), "[B, d]")?;
        let scale = Tensor::read("scale", scale, Some(2), "[B, d]")?;
        let out = Tensor::read("out", out, Some(3), "[B, T, d]")?;
        let in_place = x.is_same_as(&out)?;
        let target = out.output::<Ix3>(&[&shift, &scale])?;
        let (shift, scale) = (shift.view::<Ix2>()?, scale.view::<Ix2>()?);
        if in_place {
            return modulate_inplace(target, shift, scale);
        }
        modulate(x.view::<Ix3>()?, shift, scale, target)
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
        let x = Tensor::read("x", x, Some(3), "[B, T, d]")?;
        let shift = Tensor::read("shift", shift, Some(2), "[B, d]")?;
        let scale = Tensor::read("scale", scale, Some(2), "[B, d]")?;
        let out = Tensor::read("out", out, Some(3), "[B, T, d]")?;
        let target = out.output::<Ix3>(&[&x, &shift, &scale])?;
        layer_norm_modulate(x.view::<Ix3>()?, shift.view::<Ix2>()?, scale.view::<Ix2>()?, eps, target)
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
        let residual = Tensor::read("residual", residual, Some(3), "[B, T, d]")?;
        let y = Tensor::read("y", y, Some(3), "[B, T, d]")?;
        let gate = Tensor::read("gate", gate, Some(2), "[B, d]")?;
        let out = Tensor::read("out", out, Some(3), "[B, T, d]")?;
        let places = (residual.is_same_as(&out)?, y.is_same_as(&out)?);
        let target = out.output::<Ix3>(&[&gate])?;
        let gate = gate.view::<Ix2>()?;
        match places {
            (false, false) => gate_residual(residual.view::<Ix3>()?, y.view::<Ix3>()?, gate, target),
            (true, false) => gate_residual_inplace(target, y.view::<Ix3>()?, gate),
            (false, true) => gate_residual_onto_y(Some(residual.view::<Ix3>()?), target, gate),
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
        let x = Tensor::read("x", x, None, "")?;
        let out = Tensor::read("out", out, None, "")?;
        if x.is_same_as(&out)? {
            silu_inplace(out.output::<IxDyn>(&[])?);
            return Ok(());
        }
        silu(x.view::<IxDyn>()?, out.output::<IxDyn>(&[])?)
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
        let kind = match kind {
            DGM_GELU_TANH => Gelu::Tanh,
            DGM_GELU_ERF => Gelu::Erf,
            _ => return Err(Error::argument("kind", kind, "0 (tanh) or 1 (erf)")),
        };
        let x = Tensor::read("x", x, None, "")?;
        let out = Tensor::read("out", out, None, "")?;
        if x.is_same_as(&out)? {
            gelu_inplace(out.output::<IxDyn>(&[])?, kind);
            return Ok(());
        }
        gelu(x.view::<IxDyn>()?, kind, out.output::<IxDyn>(&[])?)
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
        let t = Tensor::read("t", t, Some(1), "[B]")?;
        let out = Tensor::read("out", out, Some(2), "[B, dim]")?;
        let target = out.output::<Ix2>(&[&t])?;
        timestep_embedding(t.view::<Ix1>()?, max_period, target)
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
        let x = Tensor::read("x", x, Some(4), "[B, C, H, W]")?;
        let out = Tensor::read("out", out, Some(3), "[B, T, C*p*p]")?;
        let target = out.output::<Ix3>(&[&x])?;
        patchify(x.view::<Ix4>()?, patch_size(patch)?, target)
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
        let x = Tensor::read("x", x, Some(3), "[B, T, p*p*C]")?;
        let out = Tensor::read("out", out, Some(4), "[B, C, H, W]")?;
        let target = out.output::<Ix4>(&[&x])?;
        unpatchify(x.view::<Ix3>()?, patch_size(patch)?, target)
    })
}
