//! The MM-DiT of Stable Diffusion 3.

use std::ffi::c_char;
use std::path::Path;

use dgm_core::models::Sd3;
use ndarray::{Ix2, Ix3, Ix4};

use crate::fence::entry;
use crate::memory::{Versioned, free_handle, handle, put, put_handle, slice, slice_mut, text, write_struct};
use crate::tensor::{Tensor, dgm_tensor};

/// A multimodal diffusion transformer (Stable Diffusion 3) with its weights packed. Immutable.
pub struct dgm_sd3(Sd3);

/// Sizes of an MM-DiT. Set struct_size = sizeof(dgm_sd3_info) before dgm_sd3_get_info().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_sd3_info {
    /// sizeof(dgm_sd3_info).
    pub struct_size: usize,
    /// Channels of the latent.
    pub channels: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Side of a square patch.
    pub patch: i64,
    /// Width of both residual streams.
    pub hidden: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Numbers of a text token.
    pub text: i64,
    /// Numbers of the pooled text.
    pub pooled: i64,
    /// Side of the table of positions in patches: the largest latent has patch times as many rows.
    pub positions: i64,
    /// Bytes of the packed weights.
    pub packed_bytes: u64,
}

// SAFETY: repr(C), the size first, no padding, plain numbers.
unsafe impl Versioned for dgm_sd3_info {}

/// Reads and packs the weights of what save_pretrained of diffusers' SD3Transformer2DModel writes: a folder
/// with config.json and diffusion_pytorch_model.safetensors, or the shards that an index beside it names. Weights
/// of f32, f16 and bf16 stay what they are, but for the patch embedding and the table of places, which are f32. No
/// file is kept open.
///
/// @param folder UTF-8 path
/// @param out    receives the model (NULL on failure); release with dgm_sd3_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sd3_load(folder: *const c_char, out: *mut *mut dgm_sd3) -> i32 {
    // SAFETY: the caller gives a NUL-terminated text and a valid place, or NULL.
    entry(|| unsafe { put_handle("out", out, || Sd3::load(Path::new(text("folder", folder)?)).map(dgm_sd3)) })
}

/// Releases a model; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sd3_free(model: *mut dgm_sd3) {
    // SAFETY: the caller gives a handle of dgm_sd3_load() for the last time, or NULL.
    unsafe { free_handle(model) }
}

/// The sizes of an MM-DiT.
///
/// @param info its struct_size must be set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sd3_get_info(model: *const dgm_sd3, info: *mut dgm_sd3_info) -> i32 {
    // SAFETY: the caller gives a live handle and a struct of the size it says, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let c = model.config();
        let answer = dgm_sd3_info {
            struct_size: size_of::<dgm_sd3_info>(),
            channels: c.channels as i64,
            out_channels: c.out_channels as i64,
            patch: c.patch as i64,
            hidden: c.hidden as i64,
            depth: c.depth as i64,
            heads: c.heads as i64,
            text: c.text as i64,
            pooled: c.pooled as i64,
            positions: c.positions as i64,
            packed_bytes: model.bytes() as u64,
        };
        write_struct("info", info, || answer)
    })
}

/// Floats of workspace that dgm_sd3_forward() needs for latents of this size and so many text tokens, whatever
/// the batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sd3_workspace_len(
    model: *const dgm_sd3,
    height: usize,
    width: usize,
    tokens: usize,
    floats: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe {
        put("floats", floats, handle("model", model)?.0.workspace_len(height, width, tokens)?)
    })
}

/// The network's output for a batch. An image's result does not depend on the others.
///
/// @param x             [B, C, H, W], the noisy latents, H and W multiples of the patch
/// @param t             B times, 0 to 1000: 1000 times the t of a flow plan
/// @param text          [B, S, text], the tokens of each prompt
/// @param pooled        [B, pooled], each prompt as a whole
/// @param workspace     scratch, contents irrelevant before and after
/// @param workspace_len its floats, at least those of dgm_sd3_workspace_len()
/// @param out           [B, C_out, H, W]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sd3_forward(
    model: *const dgm_sd3,
    x: *const dgm_tensor,
    t: *const f32,
    text: *const dgm_tensor,
    pooled: *const dgm_tensor,
    workspace: *mut f32,
    workspace_len: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let x = Tensor::read("x", x, Some(4), "[B, C, H, W]")?;
        let text = Tensor::read("text", text, Some(3), "[B, S, text]")?;
        let pooled = Tensor::read("pooled", pooled, Some(2), "[B, pooled]")?;
        let out = Tensor::read("out", out, Some(4), "[B, C_out, H, W]")?;
        let t = slice("t", t, x.shape()[0])?;
        crate::memory::separate("workspace", workspace, workspace_len, "t", t.as_ptr(), t.len())?;
        let scratch = slice_mut("workspace", workspace, workspace_len)?;
        for tensor in [&x, &text, &pooled, &out] {
            tensor.check_separate("workspace", scratch)?;
        }
        out.check_separate("t", t)?;
        let target = out.output::<Ix4>(&[&x, &text, &pooled])?;
        model.forward(x.view::<Ix4>()?, t, text.view::<Ix3>()?, pooled.view::<Ix2>()?, scratch, target)
    })
}
