//! The transformer of Flux.

mod config;
mod forward;

pub use config::FluxConfig;
pub use forward::FluxInputs;

use std::io::{Read, Seek};
use std::path::Path;

use super::json::config_text;
use super::mmdit::{HEADS, Heads, Shape, Trunk, layer};
use super::weights::Weights;
use crate::error::Result;
use crate::linalg::PackedLinear;

/// A block of one stream: image and text tokens with the same weights, attention and MLP beside each other.
struct Single {
    /// Shift, scale and gate.
    modulation: PackedLinear,
    heads: Heads,
    fc1: PackedLinear,
    /// The columns of the output layer for what comes from the MLP, with the bias, and for the heads' results.
    outputs: [PackedLinear; 2],
}

/// The transformer of Flux (FLUX.1 dev, schnell and their kin): image and text tokens, first with weights of their
/// own as in Stable Diffusion 3, then with the same, with rotary positions of several axes.
///
/// Black Forest Labs 2024, after P. Esser et al., arXiv:2403.03206. Loads what `save_pretrained` of diffusers'
/// `FluxTransformer2DModel` writes, in one file or in shards; weights of f32, f16 and bf16 stay what they are in
/// memory, everything is computed in f32. Immutable after loading: share it between threads.
pub struct Flux {
    config: FluxConfig,
    embed: PackedLinear,
    trunk: Trunk,
    singles: Vec<Single>,
    /// Of the rotary positions, axis by axis.
    frequencies: Vec<f64>,
}

impl std::fmt::Debug for Flux {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flux").field("config", &self.config).field("bytes", &self.bytes()).finish()
    }
}

impl Flux {
    /// Loads `config.json` and `diffusion_pytorch_model.safetensors`, or the shards of its index, of a folder.
    /// Weights are packed tensor by tensor, so the most memory taken is the packed weights and the largest layer;
    /// nothing stays open.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when a file cannot be read, [`Error::Format`](crate::Error::Format) when it
    /// is not well-formed or not of such a network; the message names the file and the tensor or field.
    ///
    /// ```
    /// use dgm_core::models::Flux;
    /// let model = Flux::load("../tests/golden/tiny_flux_dev".as_ref())?;
    /// assert_eq!((model.config().depth, model.config().single_depth), (1, 2));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn load(folder: &Path) -> Result<Self> {
        let (text, what) = config_text(folder)?;
        let config = FluxConfig::parse(&text, &what)?;
        Self::read(Weights::open(&folder.join("diffusion_pytorch_model.safetensors"))?, config)
    }

    /// Like [`Flux::load`] from the bytes of the weights in one file and the text of `config.json`.
    ///
    /// # Errors
    /// As [`Flux::load`].
    pub fn from_bytes(weights: &[u8], config: &str) -> Result<Self> {
        let config = FluxConfig::parse(config, "config")?;
        Self::read(Weights::from_bytes(weights)?, config)
    }

    fn read<R: Read + Seek>(mut file: Weights<R>, config: FluxConfig) -> Result<Self> {
        let c = &config;
        let shape = Shape {
            hidden: c.hidden,
            heads: c.heads,
            depth: c.depth,
            text: c.text,
            pooled: c.pooled,
            outputs: c.out_channels,
            qk_norm: true,
            guidance: c.guidance,
            text_ends: false,
        };
        let embed = layer(&mut file, "x_embedder", c.hidden, c.channels)?;
        let trunk = Trunk::read(&mut file, shape)?;
        let mut singles = Vec::new();
        for i in 0..c.single_depth {
            singles.push(Single::read(&mut file, &shape, &format!("single_transformer_blocks.{i}"))?);
        }
        Ok(Flux { frequencies: c.frequencies(), embed, trunk, singles, config })
    }

    /// The dimensions.
    pub fn config(&self) -> &FluxConfig {
        &self.config
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let single = |s: &Single| {
            let layers = [&s.modulation, &s.fc1].into_iter().chain(&s.outputs);
            layers.map(PackedLinear::bytes).sum::<usize>() + s.heads.bytes()
        };
        let ends = self.embed.bytes() + size_of_val(&self.frequencies[..]);
        ends + self.trunk.bytes() + self.singles.iter().map(single).sum::<usize>()
    }
}

impl Single {
    fn read<R: Read + Seek>(file: &mut Weights<R>, shape: &Shape, place: &str) -> Result<Self> {
        let d = shape.hidden;
        let name = format!("{place}.proj_out");
        let weight = file.stacked(&[(&format!("{name}.weight"), d)], 5 * d)?;
        let bias = file.widened(&format!("{name}.bias"), &[d])?;
        let (attention, mlp) = weight.rows(0, d, 5 * d)?.split_at(1, d);
        let outputs = [PackedLinear::pack(mlp, Some(bias[..].into()))?, PackedLinear::pack(attention, None)?];
        drop(weight);
        Ok(Single {
            modulation: layer(file, &format!("{place}.norm.linear"), 3 * d, d)?,
            heads: Heads::read(file, shape, &format!("{place}.attn"), &HEADS)?,
            fc1: layer(file, &format!("{place}.proj_mlp"), 4 * d, d)?,
            outputs,
        })
    }
}
