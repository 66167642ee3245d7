//! The dimensions of an MM-DiT, from its `config.json`.

use serde_json::Value;

use crate::error::Result;
use crate::models::json::{Fields, read};
use crate::models::mmdit::width;

/// Dimensions of an [`Sd3`](super::Sd3): what `config.json` says, under the names of this library.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Sd3Config {
    /// Channels of the latent (`in_channels`).
    pub channels: usize,
    /// Channels of the output (`out_channels`).
    pub out_channels: usize,
    /// Side of a square patch (`patch_size`).
    pub patch: usize,
    /// Width d of both residual streams (`num_attention_heads * attention_head_dim`).
    pub hidden: usize,
    /// Number of blocks (`num_layers`).
    pub depth: usize,
    /// Attention heads (`num_attention_heads`).
    pub heads: usize,
    /// Numbers of a text token (`joint_attention_dim`).
    pub text: usize,
    /// Numbers of the pooled text (`pooled_projection_dim`).
    pub pooled: usize,
    /// Side of the table of positions in patches (`pos_embed_max_size`); images take its middle.
    pub positions: usize,
    /// Whether queries and keys are normed by RMS (`qk_norm`).
    pub qk_norm: bool,
}

impl Sd3Config {
    /// Reads the text of a `config.json`; `what` names it in errors.
    pub(super) fn parse(text: &str, what: &str) -> Result<Self> {
        let file = read(text, what)?;
        let all = Fields { value: &file, what, place: "" };
        all.expect("_class_name", "SD3Transformer2DModel")?;
        all.expect("qk_norm", "rms_norm")?;
        let dual = &file["dual_attention_layers"];
        if !dual.is_null() && dual.as_array().is_none_or(|layers| !layers.is_empty()) {
            return Err(all.error("dual_attention_layers", dual, "[]: a second attention is not supported"));
        }
        let [heads, _, hidden] = width(&all)?;
        if let Value::Number(width) = &file["caption_projection_dim"]
            && width.as_u64() != Some(hidden as u64)
        {
            return Err(all.error("caption_projection_dim", width, hidden));
        }
        let channels = all.count("in_channels", None)?;
        Ok(Sd3Config {
            channels,
            out_channels: all.count("out_channels", Some(channels))?,
            patch: all.count("patch_size", None)?,
            hidden,
            depth: all.count("num_layers", None)?,
            heads,
            text: all.count("joint_attention_dim", None)?,
            pooled: all.count("pooled_projection_dim", None)?,
            positions: all.count("pos_embed_max_size", None)?,
            qk_norm: !file["qk_norm"].is_null(),
        })
    }
}
