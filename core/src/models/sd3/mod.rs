//! The MM-DiT of Stable Diffusion 3.

mod config;
mod forward;

pub use config::Sd3Config;

use std::io::{Read, Seek};
use std::path::Path;

use ndarray::ArrayView1;

use super::json::config_text;
use super::views::view2;
use super::weights::{Weights, pack};
use crate::error::{Error, Result};
use crate::linalg::PackedLinear;

/// What one of the two streams of a block, image or text, has of its own.
struct Stream {
    /// Shift, scale and gate before and after attention; scale and shift alone of a last text stream.
    modulation: PackedLinear,
    qkv: PackedLinear,
    /// `[head size]` each: the norms of queries and keys.
    norms: Option<[Vec<f32>; 2]>,
    /// What comes after attention; nothing in the text stream of the last block, which ends there.
    rest: Option<Rest>,
}

struct Rest {
    out: PackedLinear,
    fc1: PackedLinear,
    fc2: PackedLinear,
}

struct Block {
    image: Stream,
    text: Stream,
}

/// The multimodal diffusion transformer of Stable Diffusion 3: image and text tokens with weights of their own
/// that attend to each other (P. Esser et al., arXiv:2403.03206).
///
/// Loads what `save_pretrained` of diffusers' `SD3Transformer2DModel` writes, in one file or in shards;
/// weights of f32, f16 and bf16 stay what they are in memory but for the patch embedding and the table of places,
/// which are f32 as everything that is computed. Immutable after loading: share it between threads.
pub struct Sd3 {
    config: Sd3Config,
    patch_embed: PackedLinear,
    /// `[positions * positions, d]`.
    pos_embed: Vec<f32>,
    time: [PackedLinear; 2],
    pooled: [PackedLinear; 2],
    context: PackedLinear,
    blocks: Vec<Block>,
    /// Scale and shift.
    final_modulation: PackedLinear,
    final_linear: PackedLinear,
}

impl std::fmt::Debug for Sd3 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sd3").field("config", &self.config).field("bytes", &self.bytes()).finish()
    }
}

impl Sd3 {
    /// Loads `config.json` and `diffusion_pytorch_model.safetensors`, or the shards of its index, of a folder. Weights are packed tensor by
    /// tensor, so the most memory taken is the packed weights and the largest layer; nothing stays open.
    ///
    /// # Errors
    /// [`Error::Io`] when a file cannot be read, [`Error::Format`] when it is not well-formed or not of such a
    /// network; the message names the file and the tensor or field.
    ///
    /// ```
    /// use dgm_core::models::Sd3;
    /// let model = Sd3::load("../tests/golden/tiny_sd3".as_ref())?;
    /// assert_eq!((model.config().heads, model.config().depth), (3, 2));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn load(folder: &Path) -> Result<Self> {
        let (text, what) = config_text(folder)?;
        let config = Sd3Config::parse(&text, &what)?;
        Self::read(Weights::open(&folder.join("diffusion_pytorch_model.safetensors"))?, config)
    }

    /// Like [`Sd3::load`] from the bytes of the weights and the text of `config.json`.
    ///
    /// # Errors
    /// As [`Sd3::load`].
    pub fn from_bytes(weights: &[u8], config: &str) -> Result<Self> {
        let config = Sd3Config::parse(config, "config")?;
        Self::read(Weights::from_bytes(weights)?, config)
    }

    fn read<R: Read + Seek>(mut file: Weights<R>, config: Sd3Config) -> Result<Self> {
        let (c, d) = (&config, config.hidden);
        // The patch embedding is a convolution with stride = kernel: a linear layer on patches.
        let weight = file.widened("pos_embed.proj.weight", &[d, c.channels, c.patch, c.patch])?;
        let bias = file.widened("pos_embed.proj.bias", &[d])?;
        let weight = view2(&weight, d, weight.len() / d)?;
        let patch_embed = PackedLinear::pack(weight, Some(ArrayView1::from(&bias[..]).into()))?;
        let overflow = || Error::Overflow { arg: "pos_embed_max_size", got: c.positions.to_string() };
        let places = c.positions.checked_mul(c.positions).ok_or_else(overflow)?;
        let pos_embed = file.widened("pos_embed.pos_embed", &[1, places, d])?;

        let mut layer = |name: &str, rows: usize, inputs: usize| {
            pack(&mut file, &[(name.to_string(), rows)], inputs, true)
        };
        let embedder = "time_text_embed";
        let time = [
            layer(&format!("{embedder}.timestep_embedder.linear_1"), d, FREQUENCIES)?,
            layer(&format!("{embedder}.timestep_embedder.linear_2"), d, d)?,
        ];
        let pooled = [
            layer(&format!("{embedder}.text_embedder.linear_1"), d, c.pooled)?,
            layer(&format!("{embedder}.text_embedder.linear_2"), d, d)?,
        ];
        let context = layer("context_embedder", d, c.text)?;
        let final_modulation = layer("norm_out.linear", 2 * d, d)?;
        let outputs = c.patch.checked_mul(c.patch).and_then(|n| n.checked_mul(c.out_channels));
        let outputs = outputs
            .ok_or_else(|| Error::Overflow { arg: "out_channels", got: c.out_channels.to_string() })?;
        let final_linear = layer("proj_out", outputs, d)?;
        let mut blocks = Vec::new();
        for i in 0..c.depth {
            let last = i + 1 == c.depth;
            let image = Names {
                modulation: "norm1.linear",
                qkv: ["to_q", "to_k", "to_v"],
                norms: ["norm_q", "norm_k"],
                out: "to_out.0",
                mlp: "ff",
            };
            let text = Names {
                modulation: "norm1_context.linear",
                qkv: ["add_q_proj", "add_k_proj", "add_v_proj"],
                norms: ["norm_added_q", "norm_added_k"],
                out: "to_add_out",
                mlp: "ff_context",
            };
            let image = image.read(&mut file, c, i, false)?;
            blocks.push(Block { image, text: text.read(&mut file, c, i, last)? });
        }
        Ok(Sd3 {
            patch_embed,
            pos_embed,
            time,
            pooled,
            context,
            blocks,
            final_modulation,
            final_linear,
            config,
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let ends = [&self.patch_embed, &self.context, &self.final_modulation, &self.final_linear];
        let mut bytes: usize =
            ends.into_iter().chain(&self.time).chain(&self.pooled).map(PackedLinear::bytes).sum();
        for stream in self.blocks.iter().flat_map(|b| [&b.image, &b.text]) {
            bytes += stream.modulation.bytes() + stream.qkv.bytes();
            bytes += stream.norms.iter().flatten().map(|n| size_of_val(&n[..])).sum::<usize>();
            if let Some(rest) = &stream.rest {
                bytes += rest.out.bytes() + rest.fc1.bytes() + rest.fc2.bytes();
            }
        }
        bytes + size_of_val(&self.pos_embed[..])
    }
}

/// Size of the sinusoidal time embedding.
const FREQUENCIES: usize = 256;

/// What the layers of a stream are called in the file.
struct Names {
    modulation: &'static str,
    qkv: [&'static str; 3],
    norms: [&'static str; 2],
    out: &'static str,
    mlp: &'static str,
}

impl Names {
    fn read<R: Read + Seek>(
        &self,
        file: &mut Weights<R>,
        c: &Sd3Config,
        block: usize,
        ends: bool,
    ) -> Result<Stream> {
        let d = c.hidden;
        let name = |part: &str| format!("transformer_blocks.{block}.{part}");
        let norms = match c.qk_norm {
            true => {
                let size = d / c.heads;
                let mut norm = |part: &str| file.widened(&name(&format!("attn.{part}.weight")), &[size]);
                Some([norm(self.norms[0])?, norm(self.norms[1])?])
            }
            false => None,
        };
        let qkv = self.qkv.map(|part| (name(&format!("attn.{part}")), d));
        let mut layer =
            |part: &str, rows: usize, inputs: usize| pack(file, &[(name(part), rows)], inputs, true);
        let rest = match ends {
            true => None,
            false => Some(Rest {
                out: layer(&format!("attn.{}", self.out), d, d)?,
                fc1: layer(&format!("{}.net.0.proj", self.mlp), 4 * d, d)?,
                fc2: layer(&format!("{}.net.2", self.mlp), d, 4 * d)?,
            }),
        };
        let modulation = layer(self.modulation, if ends { 2 * d } else { 6 * d }, d)?;
        Ok(Stream { modulation, qkv: pack(file, &qkv, d, true)?, norms, rest })
    }
}
