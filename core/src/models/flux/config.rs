//! The dimensions of a Flux transformer, from its `config.json`.

use serde_json::Value;

use crate::error::Result;
use crate::models::json::{Fields, read};
use crate::models::mmdit::width;
use crate::nn::exact_frequencies;

/// The base of the rotary positions.
const THETA: f32 = 10_000.0;
/// `axes_dims_rope` where the file does not say.
const AXES: [usize; 3] = [16, 56, 56];

/// Dimensions of a [`Flux`](super::Flux): what `config.json` says, under the names of this library.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct FluxConfig {
    /// Numbers of an image token (`in_channels`): channels of four neighbours in the latent.
    pub channels: usize,
    /// Numbers of an image token of the output (`out_channels`).
    pub out_channels: usize,
    /// Width d of all residual streams (`num_attention_heads * attention_head_dim`).
    pub hidden: usize,
    /// Number of blocks of two streams (`num_layers`).
    pub depth: usize,
    /// Number of blocks of one stream behind them (`num_single_layers`).
    pub single_depth: usize,
    /// Attention heads (`num_attention_heads`).
    pub heads: usize,
    /// Numbers of a text token (`joint_attention_dim`).
    pub text: usize,
    /// Numbers of the pooled text (`pooled_projection_dim`).
    pub pooled: usize,
    /// Numbers of a head that each coordinate of a token's place turns (`axes_dims_rope`): all even, all of a head.
    pub axes: Vec<usize>,
    /// Whether there is an embedding of the guidance (`guidance_embeds`): FLUX.1 dev, not schnell.
    pub guidance: bool,
}

impl FluxConfig {
    /// Reads the text of a `config.json`; `what` names it in errors.
    pub(super) fn parse(text: &str, what: &str) -> Result<Self> {
        let file = read(text, what)?;
        let all = Fields { value: &file, what, place: "" };
        all.expect("_class_name", "FluxTransformer2DModel")?;
        let patch = all.count("patch_size", Some(1))?;
        if patch != 1 {
            return Err(all.error("patch_size", patch, "1: latents come packed"));
        }
        let [heads, size, hidden] = width(&all)?;
        let channels = all.count("in_channels", None)?;
        Ok(FluxConfig {
            channels,
            out_channels: all.count("out_channels", Some(channels))?,
            hidden,
            depth: all.count("num_layers", None)?,
            single_depth: all.count("num_single_layers", None)?,
            heads,
            text: all.count("joint_attention_dim", None)?,
            pooled: all.count("pooled_projection_dim", None)?,
            axes: axes(&all, size)?,
            guidance: all.flag("guidance_embeds")?,
        })
    }

    /// Numbers of a head.
    pub(super) fn head_dim(&self) -> usize {
        self.hidden / self.heads
    }

    /// The frequencies of the rotary positions, axis by axis: of f64, as those that the network was trained with.
    pub(super) fn frequencies(&self) -> Vec<f64> {
        self.axes.iter().flat_map(|d| exact_frequencies(THETA, d / 2)).collect()
    }
}

/// `axes_dims_rope` of heads of `size` numbers.
fn axes(all: &Fields, size: usize) -> Result<Vec<usize>> {
    let key = "axes_dims_rope";
    let value = &all.value[key];
    let wrong =
        || all.error(key, value, format!("even numbers from 2 that add up to {size}, the size of a head"));
    let axes = match value {
        Value::Null => AXES.to_vec(),
        Value::Array(axes) => {
            let axis = |n: &Value| n.as_u64().and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong);
            axes.iter().map(axis).collect::<Result<_>>()?
        }
        _ => return Err(wrong()),
    };
    // All numbers are at most `size` before they are added.
    let fits = axes.iter().all(|d| (2..=size).contains(d) && d % 2 == 0) && axes.len() <= size;
    if fits && axes.iter().sum::<usize>() == size { Ok(axes) } else { Err(wrong()) }
}
