//! Trained networks.

use std::ffi::c_char;
use std::path::Path;

use dgm_core::models::{Dit, generate};
use dgm_core::{Error, Result};
use ndarray::Ix4;

use crate::fence::entry;
use crate::memory::{
    Versioned, free_handle, handle, put, put_handle, slice, slice_mut, text, write_struct, write_text,
};
use crate::options::dgm_plan_options;
use crate::plan::dgm_plan;
use crate::tensor::{Tensor, dgm_tensor};

/// A trained network with its weights packed. Immutable.
pub struct dgm_model(Dit);

/// Sizes of a network. Set struct_size = sizeof(dgm_model_info) before dgm_model_get_info().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_model_info {
    /// sizeof(dgm_model_info).
    pub struct_size: usize,
    /// Channels of the input.
    pub channels: i64,
    /// Height of the input.
    pub height: i64,
    /// Width of the input.
    pub width: i64,
    /// Channels of the output.
    pub out_channels: i64,
    /// Number of classes; this number itself is the label that means no class.
    pub num_classes: i64,
    /// Tokens of one image.
    pub tokens: i64,
    /// Width of the transformer.
    pub width_d: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Attention heads.
    pub heads: i64,
    /// Bytes of the packed weights.
    pub packed_bytes: u64,
}

// SAFETY: repr(C), the size first, no padding, plain numbers.
unsafe impl Versioned for dgm_model_info {}

/// Reads and packs the weights of a DiT from a safetensors file, or from the shards that path.index.json names
/// where there is no such file. No file is kept open. Weights are f32, f16 or bf16 and stay that in memory; where those
/// of all layers are bf16, what the layers and attention multiply is rounded to bf16 too.
///
/// @param path UTF-8 path
/// @param out  receives the model (NULL on failure); release with dgm_model_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_load(path: *const c_char, out: *mut *mut dgm_model) -> i32 {
    // SAFETY: the caller gives a NUL-terminated text and a valid place, or NULL.
    entry(|| unsafe { put_handle("out", out, || Dit::load(Path::new(text("path", path)?)).map(dgm_model)) })
}

/// Releases a model; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_free(model: *mut dgm_model) {
    // SAFETY: the caller gives a handle of dgm_model_load() for the last time, or NULL.
    unsafe { free_handle(model) }
}

/// The sizes of a network.
///
/// @param info its struct_size must be set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_get_info(model: *const dgm_model, info: *mut dgm_model_info) -> i32 {
    // SAFETY: the caller gives a live handle and a struct of the size it says, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let c = model.config();
        let answer = dgm_model_info {
            struct_size: size_of::<dgm_model_info>(),
            channels: c.channels as i64,
            height: c.height as i64,
            width: c.width as i64,
            out_channels: c.out_channels as i64,
            num_classes: c.num_classes as i64,
            tokens: c.tokens() as i64,
            width_d: c.hidden as i64,
            depth: c.depth as i64,
            heads: c.heads as i64,
            packed_bytes: model.bytes() as u64,
        };
        write_struct("info", info, || answer)
    })
}

/// A metadata entry of the weights file, NUL-terminated.
///
/// @param key    name of the entry
/// @param buf    receives the text; NULL (with cap 0) only asks for the size
/// @param cap    bytes of buf
/// @param needed receives the bytes needed, the NUL included; may be NULL
/// @return DGM_ERROR_ARGUMENT when there is no such entry
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_metadata(
    model: *const dgm_model,
    key: *const c_char,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, a text, `cap` bytes and a valid place, or NULL.
    entry(|| unsafe {
        let (metadata, key) = (handle("model", model)?.0.metadata(), text("key", key)?);
        let value = metadata.get(key).ok_or_else(|| {
            let known: Vec<_> = metadata.keys().map(String::as_str).collect();
            Error::argument("key", format!("{key:?}"), format!("one of {}", known.join(", ")))
        })?;
        write_text("buf", value, buf, cap, needed)
    })
}

/// The sampler that the weights file asks for; change what you like and compile it.
///
/// @param options its struct_size must be set: call dgm_plan_options_init() first
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_plan_options(
    model: *const dgm_model,
    options: *mut dgm_plan_options,
) -> i32 {
    // SAFETY: the caller gives a live handle and a struct of the size it says, or NULL.
    entry(|| unsafe {
        let answer = (&handle("model", model)?.0.plan_options()?).into();
        write_struct("options", options, || answer)
    })
}

/// Floats of workspace that dgm_model_forward() needs for a batch.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_workspace_len(
    model: *const dgm_model,
    batch: usize,
    floats: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("floats", floats, handle("model", model)?.0.workspace_len(batch)?) })
}

/// The network's output for a batch. An image's result does not depend on the others.
///
/// @param x             [B, C, H, W], the noisy images
/// @param t             B times
/// @param labels        B classes; num_classes means no class
/// @param workspace     scratch, contents irrelevant before and after
/// @param workspace_len its floats, at least those of dgm_model_workspace_len()
/// @param out           [B, C_out, H, W]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_model_forward(
    model: *const dgm_model,
    x: *const dgm_tensor,
    t: *const f32,
    labels: *const i64,
    workspace: *mut f32,
    workspace_len: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or
    // NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let x = Tensor::read("x", x, Some(4), "[B, C, H, W]")?;
        let out = Tensor::read("out", out, Some(4), "[B, C_out, H, W]")?;
        let batch = x.shape()[0];
        let (t, labels) = (slice("t", t, batch)?, slice("labels", labels, batch)?);
        let scratch = check_scratch(workspace, workspace_len, t, labels)?;
        let target = out.output::<Ix4>(&[&x])?;
        x.check_separate("workspace", scratch)?;
        out.check_separate("workspace", scratch)?;
        out.check_separate("t", t)?;
        out.check_separate("labels", labels)?;
        model.forward(x.view::<Ix4>()?, t, labels, scratch, target)
    })
}

/// # Safety
/// `ptr` must be NULL or point to `len` floats.
unsafe fn check_scratch<'a>(ptr: *mut f32, len: usize, t: &[f32], labels: &[i64]) -> Result<&'a mut [f32]> {
    crate::memory::separate("workspace", ptr, len, "t", t.as_ptr(), t.len())?;
    crate::memory::separate("workspace", ptr, len, "labels", labels.as_ptr(), labels.len())?;
    // SAFETY: the caller's promise.
    unsafe { slice_mut("workspace", ptr, len) }
}

/// Draws one image for each label: dgm_sample() with the network as its model.
///
/// @param plan   from dgm_plan_compile(), usually with the options of dgm_model_plan_options()
/// @param seeds  one seed for each image
/// @param labels class of each image
/// @param rows   number of images
/// @param out    [rows, C, H, W], contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_generate(
    model: *const dgm_model,
    plan: *const dgm_plan,
    seeds: *const u64,
    labels: *const i64,
    rows: usize,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives live handles, `rows` seeds and labels and a valid descriptor, or
    // NULL.
    entry(|| unsafe {
        let (model, plan) = (&handle("model", model)?.0, &handle("plan", plan)?.0);
        let (seeds, labels) = (slice("seeds", seeds, rows)?, slice("labels", labels, rows)?);
        let out = Tensor::read("out", out, Some(4), "[rows, C, H, W]")?;
        out.check_separate("seeds", seeds)?;
        out.check_separate("labels", labels)?;
        generate(model, plan, seeds, labels, out.output::<Ix4>(&[])?)
    })
}
