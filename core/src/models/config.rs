//! The dimensions of a DiT, read from its weights file.

use std::collections::BTreeMap;
use std::io::{Read, Seek};
use std::str::FromStr;

use super::weights::Weights;
use crate::attention::MAX_HEAD_DIM;
use crate::error::{Error, Result};

/// The dimensions of a DiT.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct DitConfig {
    /// Input channels C.
    pub channels: usize,
    /// Output channels: C, or 2C where the network also predicts a variance.
    pub out_channels: usize,
    /// Input height in pixels.
    pub height: usize,
    /// Input width in pixels.
    pub width: usize,
    /// Side of a square patch in pixels.
    pub patch: usize,
    /// Width d of the residual stream.
    pub hidden: usize,
    /// Width of the MLP's hidden layer.
    pub mlp_hidden: usize,
    /// Number of blocks.
    pub depth: usize,
    /// Attention heads; the head size is `hidden / heads`.
    pub heads: usize,
    /// Number of classes; this number itself is the null class.
    pub num_classes: usize,
    /// Size of the sinusoidal time embedding.
    pub frequency_embedding: usize,
    /// Factor from the process's time to the time the network was trained with
    /// (1000 for flow time in [0, 1], 1 for timesteps).
    pub time_scale: f32,
}

impl DitConfig {
    /// Tokens of an image: `(height / patch) * (width / patch)`.
    pub fn tokens(&self) -> usize {
        (self.height / self.patch) * (self.width / self.patch)
    }

    /// Floating-point operations of a forward pass of one image (linear layers and attention).
    pub fn flops(&self) -> u64 {
        let (t, d, h) = (self.tokens() as u64, self.hidden as u64, self.mlp_hidden as u64);
        let block = t * (4 * d * d + 2 * d * h) + 2 * t * t * d + 6 * d * d;
        let p = (self.patch * self.patch) as u64;
        let ends = t * d * p * (self.channels + self.out_channels) as u64;
        2 * (self.depth as u64 * block + ends)
    }

    /// Derives the dimensions from tensor shapes and the metadata that shapes cannot tell.
    pub(super) fn read<R: Read + Seek>(
        file: &Weights<R>,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Self> {
        let dims = |name: &str, rank: usize| -> Result<Vec<usize>> {
            let shape = file.shape(name)?;
            if shape.len() != rank || shape.contains(&0) {
                return Err(
                    file.error(format!("tensor {name} has shape {shape:?}, expected rank {rank}, no zeros"))
                );
            }
            Ok(shape)
        };
        let embed = dims("x_embedder.proj.weight", 4)?;
        let (hidden, channels, patch) = (embed[0], embed[1], embed[2]);
        let tokens = dims("pos_embed", 3)?[1];
        let head = dims("final_layer.linear.weight", 2)?[0];
        let classes = dims("y_embedder.embedding_table.weight", 2)?[0];
        let frequency_embedding = dims("t_embedder.mlp.0.weight", 2)?[1];
        let mlp_hidden = dims("blocks.0.mlp.fc1.weight", 2)?[0];
        let depth = (0..).take_while(|i| file.has(&format!("blocks.{i}.attn.qkv.weight"))).count();

        let patch_area = patch.saturating_mul(patch);
        let side = match parse::<usize, _>(file, metadata, "input_size")? {
            Some(side) => side,
            None => tokens.isqrt().saturating_mul(patch),
        };
        let heads = parse(file, metadata, "num_heads")?.ok_or_else(|| {
            file.error("metadata num_heads is missing, expected the number of attention heads")
        })?;
        let config = DitConfig {
            channels,
            out_channels: head / patch_area,
            height: side,
            width: side,
            patch,
            hidden,
            mlp_hidden,
            depth,
            heads,
            num_classes: classes - 1,
            frequency_embedding,
            time_scale: parse(file, metadata, "time_scale")?.unwrap_or(1.0),
        };
        let require = |ok: bool, message: String| if ok { Ok(()) } else { Err(file.error(message)) };
        require(embed[3] == patch, format!("patches of {patch}x{}, expected square ones", embed[3]))?;
        require(
            heads > 0 && hidden % heads == 0,
            format!("num_heads {heads} does not divide width {hidden}"),
        )?;
        require(
            hidden / heads <= MAX_HEAD_DIM,
            format!("heads of size {}, expected at most {MAX_HEAD_DIM}", hidden / heads),
        )?;
        require(
            side % patch == 0 && (side / patch).checked_mul(side / patch) == Some(tokens),
            format!("input_size {side} with patch {patch} does not give {tokens} tokens"),
        )?;
        require(
            head % patch_area == 0 && config.out_channels >= channels,
            format!("final layer of {head} outputs does not fit patches of {patch}x{patch}x{channels}"),
        )?;
        require(
            frequency_embedding % 2 == 0,
            format!("time embedding of size {frequency_embedding}, expected an even one"),
        )?;
        require(
            config.time_scale.is_finite() && config.time_scale > 0.0,
            format!("time_scale {}, expected a positive number", config.time_scale),
        )?;
        Ok(config)
    }
}

/// A metadata value, if present.
fn parse<T: FromStr, R: Read + Seek>(
    file: &Weights<R>,
    metadata: &BTreeMap<String, String>,
    key: &str,
) -> Result<Option<T>> {
    metadata
        .get(key)
        .map(|text| {
            text.trim()
                .parse()
                .map_err(|_| file.error(format!("metadata {key} is {text:?}, expected a number")))
        })
        .transpose()
}

/// Parses a metadata value that a plan needs.
pub(super) fn option<T: FromStr>(metadata: &BTreeMap<String, String>, key: &str) -> Result<Option<T>> {
    metadata
        .get(key)
        .map(|text| {
            text.trim().parse().map_err(|_| Error::Format {
                what: "weights".to_string(),
                message: format!("metadata {key} is {text:?}, expected a number"),
            })
        })
        .transpose()
}
