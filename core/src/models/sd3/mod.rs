//! The MM-DiT of Stable Diffusion 3.

mod config;
mod forward;

pub use config::Sd3Config;

use std::io::{Read, Seek};
use std::path::Path;

use ndarray::ArrayView1;

use super::json::config_text;
use super::mmdit::{Shape, Trunk};
use super::views::view2;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::linalg::PackedLinear;

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
    trunk: Trunk,
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

        let outputs = c.patch.checked_mul(c.patch).and_then(|n| n.checked_mul(c.out_channels));
        let outputs = outputs
            .ok_or_else(|| Error::Overflow { arg: "out_channels", got: c.out_channels.to_string() })?;
        let shape = Shape {
            hidden: d,
            heads: c.heads,
            depth: c.depth,
            text: c.text,
            pooled: c.pooled,
            outputs,
            qk_norm: c.qk_norm,
            guidance: false,
            text_ends: true,
        };
        Ok(Sd3 { patch_embed, pos_embed, trunk: Trunk::read(&mut file, shape)?, config })
    }

    /// The dimensions.
    pub fn config(&self) -> &Sd3Config {
        &self.config
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        self.patch_embed.bytes() + size_of_val(&self.pos_embed[..]) + self.trunk.bytes()
    }
}
