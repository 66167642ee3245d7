//! The transformer of Flux.

use std::ffi::c_char;
use std::path::Path;

use dgm_core::models::{Flux, FluxInputs};
use ndarray::{Ix2, Ix3};

use crate::fence::entry;
use crate::memory::{
    Versioned, free_handle, handle, put, put_handle, separate, slice, slice_mut, text as utf8, write_struct,
};
use crate::tensor::{Tensor, dgm_tensor};

/// A Flux transformer with its weights packed. Immutable.
pub struct dgm_flux(Flux);

/// Sizes of a Flux transformer. Set struct_size = sizeof(dgm_flux_info) before dgm_flux_get_info().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_flux_info {
    /// sizeof(dgm_flux_info).
    pub struct_size: usize,
    /// Numbers of an image token: channels of four neighbours in the latent.
    pub channels: i64,
    /// Numbers of an image token of the output.
    pub out_channels: i64,
    /// Width of all residual streams.
    pub hidden: i64,
    /// Number of blocks of two streams.
    pub depth: i64,
    /// Number of blocks of one stream.
    pub single_depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Numbers of a text token.
    pub text: i64,
    /// Numbers of the pooled text.
    pub pooled: i64,
    /// Coordinates of a token's place.
    pub axes: i64,
    /// 1 where the network takes a guidance, else 0.
    pub guidance: i64,
    /// Bytes of the packed weights.
    pub packed_bytes: u64,
}

// SAFETY: repr(C), the size first, no padding, plain numbers.
unsafe impl Versioned for dgm_flux_info {}

/// Reads and packs the weights of what save_pretrained of diffusers' FluxTransformer2DModel writes: a folder
/// with config.json and diffusion_pytorch_model.safetensors, or the shards that an index beside it names. Weights
/// of f32, f16 and bf16 stay what they are. No file is kept open.
///
/// @param folder UTF-8 path
/// @param out    receives the model (NULL on failure); release with dgm_flux_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_flux_load(folder: *const c_char, out: *mut *mut dgm_flux) -> i32 {
    // SAFETY: the caller gives a NUL-terminated text and a valid place, or NULL.
    entry(|| unsafe {
        put_handle("out", out, || Flux::load(Path::new(utf8("folder", folder)?)).map(dgm_flux))
    })
}

/// Releases a model; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_flux_free(model: *mut dgm_flux) {
    // SAFETY: the caller gives a handle of dgm_flux_load() for the last time, or NULL.
    unsafe { free_handle(model) }
}

/// The sizes of a Flux transformer.
///
/// @param info its struct_size must be set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_flux_get_info(model: *const dgm_flux, info: *mut dgm_flux_info) -> i32 {
    // SAFETY: the caller gives a live handle and a struct of the size it says, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let c = model.config();
        let answer = dgm_flux_info {
            struct_size: size_of::<dgm_flux_info>(),
            channels: c.channels as i64,
            out_channels: c.out_channels as i64,
            hidden: c.hidden as i64,
            depth: c.depth as i64,
            single_depth: c.single_depth as i64,
            heads: c.heads as i64,
            text: c.text as i64,
            pooled: c.pooled as i64,
            axes: c.axes.len() as i64,
            guidance: i64::from(c.guidance),
            packed_bytes: model.bytes() as u64,
        };
        write_struct("info", info, || answer)
    })
}

/// Floats of workspace that dgm_flux_forward() needs for images of so many tokens and so many text tokens,
/// whatever the batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_flux_workspace_len(
    model: *const dgm_flux,
    tokens: usize,
    text_tokens: usize,
    floats: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("floats", floats, handle("model", model)?.0.workspace_len(tokens, text_tokens)?) })
}

/// The network's output for a batch, the velocity of the flow. An image's result does not depend on the others.
///
/// @param x             [B, N, C], the noisy latents, packed: a token has the channels of 2 x 2 neighbours, which
///                      is what dgm_patchify() with a patch of 2 gives
/// @param t             B times, 0 to 1, as a flow plan has them
/// @param guidance      B guidances such as 3.5, or NULL: one of them must be where info.guidance says so
/// @param text          [B, S, text], the tokens of each prompt
/// @param pooled        [B, pooled], each prompt as a whole
/// @param ids           [N, axes], the place of each image token; those of FLUX.1 are 0, row, column
/// @param text_ids      [S, axes], the place of each text token; NULL: all 0, as in FLUX.1
/// @param workspace     scratch, contents irrelevant before and after
/// @param workspace_len its floats, at least those of dgm_flux_workspace_len()
/// @param out           [B, N, C_out]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_flux_forward(
    model: *const dgm_flux,
    x: *const dgm_tensor,
    t: *const f32,
    guidance: *const f32,
    text: *const dgm_tensor,
    pooled: *const dgm_tensor,
    ids: *const dgm_tensor,
    text_ids: *const dgm_tensor,
    workspace: *mut f32,
    workspace_len: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let x = Tensor::read("x", x, Some(3), "[B, N, C]")?;
        let text = Tensor::read("text", text, Some(3), "[B, S, text]")?;
        let pooled = Tensor::read("pooled", pooled, Some(2), "[B, pooled]")?;
        let ids = Tensor::read("ids", ids, Some(2), "[N, axes]")?;
        let text_ids = Tensor::read_optional("text_ids", text_ids, 2, "[S, axes]")?;
        let out = Tensor::read("out", out, Some(3), "[B, N, C_out]")?;
        let batch = x.shape()[0];
        let t = slice("t", t, batch)?;
        let guidance = if guidance.is_null() { None } else { Some(slice("guidance", guidance, batch)?) };
        for (arg, numbers) in [("t", Some(t)), ("guidance", guidance)] {
            if let Some(numbers) = numbers {
                separate("workspace", workspace, workspace_len, arg, numbers.as_ptr(), numbers.len())?;
                out.check_separate(arg, numbers)?;
            }
        }
        let scratch = slice_mut("workspace", workspace, workspace_len)?;
        let inputs: Vec<&Tensor> = [&x, &text, &pooled, &ids].into_iter().chain(&text_ids).collect();
        for tensor in inputs.iter().copied().chain([&out]) {
            tensor.check_separate("workspace", scratch)?;
        }
        let target = out.output::<Ix3>(&inputs)?;
        let inputs = FluxInputs {
            x: x.view::<Ix3>()?,
            t,
            guidance,
            text: text.view::<Ix3>()?,
            pooled: pooled.view::<Ix2>()?,
            ids: ids.view::<Ix2>()?,
            text_ids: text_ids.as_ref().map(|ids| ids.view::<Ix2>()).transpose()?,
        };
        model.forward(&inputs, scratch, target)
    })
}
