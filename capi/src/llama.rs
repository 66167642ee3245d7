//! Causal language models.

use std::ffi::c_char;
use std::path::Path;

use dgm_core::Error;
use dgm_core::models::Llama;
use ndarray::{ArrayView2, Ix3};

use crate::cache::{Cache, dgm_kv_cache};
use crate::fence::entry;
use crate::memory::{
    Versioned, free_handle, handle, put, put_handle, separate, slice, slice_mut, text, write_struct,
};
use crate::tensor::{Tensor, dgm_tensor};

/// A causal language model (Llama and its kin) with its weights packed. Immutable.
pub struct dgm_llama(Llama);

/// Sizes of a language model. Set struct_size = sizeof(dgm_llama_info) before dgm_llama_get_info().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_llama_info {
    /// sizeof(dgm_llama_info).
    pub struct_size: usize,
    /// Tokens of the vocabulary.
    pub vocab: i64,
    /// Width of the residual stream.
    pub hidden: i64,
    /// Width of the MLP's hidden layer.
    pub mlp_hidden: i64,
    /// Number of blocks.
    pub depth: i64,
    /// Query heads.
    pub heads: i64,
    /// Heads of keys and values.
    pub kv_heads: i64,
    /// Numbers of a head.
    pub head_dim: i64,
    /// Heads of a cache: those of all blocks side by side, depth * kv_heads.
    pub cache_heads: i64,
    /// Longest sequence the network was trained for; nothing stops at it.
    pub max_positions: i64,
    /// Bytes of the packed weights.
    pub packed_bytes: u64,
}

// SAFETY: repr(C), the size first, no padding, plain numbers.
unsafe impl Versioned for dgm_llama_info {}

/// Reads and packs the weights of what save_pretrained of LlamaForCausalLM writes: a folder with
/// config.json and model.safetensors, or the shards of model.safetensors.index.json. Weights of f32, f16 and bf16
/// stay what they are. No file is kept open.
///
/// @param folder UTF-8 path
/// @param out    receives the model (NULL on failure); release with dgm_llama_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_llama_load(folder: *const c_char, out: *mut *mut dgm_llama) -> i32 {
    // SAFETY: the caller gives a NUL-terminated text and a valid place, or NULL.
    entry(|| unsafe {
        put_handle("out", out, || Llama::load(Path::new(text("folder", folder)?)).map(dgm_llama))
    })
}

/// Releases a model; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_llama_free(model: *mut dgm_llama) {
    // SAFETY: the caller gives a handle of dgm_llama_load() for the last time, or NULL.
    unsafe { free_handle(model) }
}

/// The sizes of a language model.
///
/// @param info its struct_size must be set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_llama_get_info(model: *const dgm_llama, info: *mut dgm_llama_info) -> i32 {
    // SAFETY: the caller gives a live handle and a struct of the size it says, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let c = model.config();
        let answer = dgm_llama_info {
            struct_size: size_of::<dgm_llama_info>(),
            vocab: c.vocab as i64,
            hidden: c.hidden as i64,
            mlp_hidden: c.mlp_hidden as i64,
            depth: c.depth as i64,
            heads: c.heads as i64,
            kv_heads: c.kv_heads as i64,
            head_dim: c.head_dim as i64,
            cache_heads: c.cache_heads() as i64,
            max_positions: c.max_positions as i64,
            packed_bytes: model.bytes() as u64,
        };
        write_struct("info", info, || answer)
    })
}

/// Floats of workspace that dgm_llama_forward() needs for so many new tokens of each batch entry.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_llama_workspace_len(
    model: *const dgm_llama,
    batch: usize,
    tokens: usize,
    floats: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("floats", floats, handle("model", model)?.0.workspace_len(batch, tokens)?) })
}

/// Appends new tokens to a cache and gives the logits of what follows them.
///
/// A sequence gives the same bits whole, in chunks or token by token, in any batch, for any page size.
/// dgm_kv_cache_truncate() takes tokens back. Nothing is written on failure; DGM_ERROR_RANGE with "lengths"
/// where the cache is full.
///
/// @param tokens        [batch, new_tokens] side by side, each below vocab: they stand behind those of the cache
/// @param batch         batch entries
/// @param new_tokens    new tokens of each of them
/// @param cache         pages [P, cache_heads, T, head_dim] of keys and values, any type of a cache; block i has
///                      heads i * kv_heads on; its lengths grow by new_tokens
/// @param workspace     scratch, contents irrelevant before and after
/// @param workspace_len its floats, at least those of dgm_llama_workspace_len()
/// @param logits        f32 [batch, M, vocab], those of the last M new tokens, M at most new_tokens
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_llama_forward(
    model: *const dgm_llama,
    tokens: *const i64,
    batch: usize,
    new_tokens: usize,
    cache: *mut dgm_kv_cache,
    workspace: *mut f32,
    workspace_len: usize,
    logits: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let model = &handle("model", model)?.0;
        let count = batch.checked_mul(new_tokens).ok_or_else(|| Error::Overflow {
            arg: "new_tokens",
            got: format!("{batch} times {new_tokens}"),
        })?;
        let tokens = slice("tokens", tokens, count)?;
        let cache = Cache::read(cache)?;
        let logits = Tensor::read("logits", logits, Some(3), "[B, M, vocab]")?;
        separate("workspace", workspace, workspace_len, "tokens", tokens.as_ptr(), tokens.len())?;
        let scratch = slice_mut("workspace", workspace, workspace_len)?;
        let parts: Vec<_> = cache.tensors().collect();
        let all: Vec<_> = parts.iter().copied().chain([&logits]).collect();
        for part in &all {
            part.check_separate("workspace", scratch)?;
            part.check_separate("tokens", tokens)?;
        }
        cache.check_lengths_separate("workspace", scratch)?;
        cache.check_lengths_separate("tokens", tokens)?;
        let mut lengths = cache.numbers(&all)?;
        let target = logits.output::<Ix3>(&parts)?;
        let mut view = cache.view_mut(&[&logits], &mut lengths)?;
        let tokens = ArrayView2::from_shape((batch, new_tokens), tokens);
        let tokens = tokens.map_err(|e| Error::Internal(e.to_string()))?;
        model.forward(tokens, &mut view, scratch, target)?;
        cache.put_lengths(&lengths)
    })
}
