//! The diffusion transformer with adaLN-Zero conditioning.

mod forward;
mod spaces;

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::path::Path;

use ndarray::ArrayView1;

pub(super) use self::forward::gated;
use super::config::DitConfig;
use super::weights::{self, Weights};
use crate::error::Result;
use crate::linalg::PackedLinear;
use crate::tensor::Dtype;

struct Block {
    modulation: PackedLinear,
    qkv: PackedLinear,
    proj: PackedLinear,
    fc1: PackedLinear,
    fc2: PackedLinear,
}

/// A class-conditional diffusion transformer (DiT, adaLN-Zero), weights packed for [`linear`](crate::linalg::linear).
///
/// Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023. Tensor names are
/// those of the official checkpoints. Immutable after loading: share it between threads.
///
/// Weights are f32, f16 or bf16 and stay that in memory. Where all layers are bf16, what they multiply is rounded to
/// bf16 too, patches, queries, keys, values and the output of attention among it, and products take half the time on
/// processors that multiply such pairs; the stream of tokens, norms, sums and conditions are f32 in any case.
pub struct Dit {
    config: DitConfig,
    metadata: BTreeMap<String, String>,
    patch_embed: PackedLinear,
    pos_embed: Vec<f32>,
    time1: PackedLinear,
    time2: PackedLinear,
    class_table: Vec<f32>,
    blocks: Vec<Block>,
    final_modulation: PackedLinear,
    final_linear: PackedLinear,
}

impl std::fmt::Debug for Dit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dit").field("config", &self.config).field("bytes", &self.bytes()).finish()
    }
}

impl Dit {
    /// Loads a safetensors file or, where there is none but a `path.index.json`, the shards that it names.
    /// Weights are packed tensor by tensor.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be read, [`Error::Format`] when it is not a
    /// well-formed safetensors file or not a DiT; the message names the tensor.
    pub fn load(path: &Path) -> Result<Self> {
        Self::read(Weights::open(path)?)
    }

    /// Like [`Dit::load`] from the bytes of a file.
    ///
    /// # Errors
    /// As [`Dit::load`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        Self::read(Weights::from_bytes(bytes)?)
    }

    fn read<R: Read + Seek>(mut file: Weights<R>) -> Result<Self> {
        let metadata = file.metadata()?;
        let config = DitConfig::read(&file, &metadata)?;
        let (d, f, h) = (config.hidden, config.frequency_embedding, config.mlp_hidden);
        let patch_in = config.channels * config.patch * config.patch;
        let patch_out = config.out_channels * config.patch * config.patch;
        // The patch embedding is a convolution with stride = kernel: a linear layer on patches.
        let weight =
            file.numbers("x_embedder.proj.weight", &[d, config.channels, config.patch, config.patch])?;
        let bias = file.widened("x_embedder.proj.bias", &[d])?;
        let bias = Some(ArrayView1::from(&bias[..]).into());
        let patch_embed = PackedLinear::pack(weight.rows(0, d, patch_in)?, bias)?;
        let mut layer =
            |name: String, out: usize, inputs: usize| weights::pack(&mut file, &[(name, out)], inputs, true);
        let mut blocks = Vec::with_capacity(config.depth);
        for i in 0..config.depth {
            blocks.push(Block {
                modulation: layer(format!("blocks.{i}.adaLN_modulation.1"), 6 * d, d)?,
                qkv: layer(format!("blocks.{i}.attn.qkv"), 3 * d, d)?,
                proj: layer(format!("blocks.{i}.attn.proj"), d, d)?,
                fc1: layer(format!("blocks.{i}.mlp.fc1"), h, d)?,
                fc2: layer(format!("blocks.{i}.mlp.fc2"), d, h)?,
            });
        }
        let time1 = layer("t_embedder.mlp.0".to_string(), d, f)?;
        let time2 = layer("t_embedder.mlp.2".to_string(), d, d)?;
        let final_modulation = layer("final_layer.adaLN_modulation.1".to_string(), 2 * d, d)?;
        let final_linear = layer("final_layer.linear".to_string(), patch_out, d)?;
        Ok(Dit {
            pos_embed: file.widened("pos_embed", &[1, config.tokens(), d])?,
            class_table: file.widened("y_embedder.embedding_table.weight", &[config.num_classes + 1, d])?,
            config,
            metadata,
            patch_embed,
            time1,
            time2,
            blocks,
            final_modulation,
            final_linear,
        })
    }

    /// The dimensions.
    pub fn config(&self) -> &DitConfig {
        &self.config
    }

    /// The file's `__metadata__`.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let tables = (self.pos_embed.len() + self.class_table.len()) * size_of::<f32>();
        self.layers().map(PackedLinear::bytes).sum::<usize>() + tables
    }

    fn layers(&self) -> impl Iterator<Item = &PackedLinear> {
        let layers = self.blocks.iter().flat_map(|b| [&b.modulation, &b.qkv, &b.proj, &b.fc1, &b.fc2]);
        let ends = [&self.patch_embed, &self.time1, &self.time2, &self.final_modulation, &self.final_linear];
        layers.chain(ends)
    }

    /// Whether what layers multiply is bf16.
    fn multiplies_bf16(&self) -> bool {
        self.layers().all(|layer| layer.dtype() == Dtype::Bf16)
    }
}
