//! What multimodal diffusion transformers have in common: tokens of an image and of a text, each with weights of
//! its own, that attend to each other (P. Esser et al., arXiv:2403.03206), under the names of diffusers.

mod forward;
mod space;

use std::io::{Read, Seek};

use super::json::Fields;
use super::weights::{Weights, pack};
use crate::attention::MAX_HEAD_DIM;
use crate::error::Result;
use crate::linalg::PackedLinear;
use crate::nn::exact_frequencies;

pub(super) use forward::{FIRST, Inputs, check_batch, finite, modulated, part};
pub(super) use space::{Sizes, Space};

/// Size of the sinusoidal embedding of a time.
const FREQUENCIES: usize = 256;
/// Its longest period.
const MAX_PERIOD: f32 = 10_000.0;

/// The dimensions that all parts know.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    pub hidden: usize,
    pub heads: usize,
    pub depth: usize,
    /// Numbers of a text token.
    pub text: usize,
    /// Numbers of the pooled text.
    pub pooled: usize,
    /// Numbers of an image token at the end.
    pub outputs: usize,
    /// Whether queries and keys are normed by RMS.
    pub qk_norm: bool,
    /// Whether there is an embedding of the guidance.
    pub guidance: bool,
    /// Whether the text stream ends with the last block's attention.
    pub text_ends: bool,
}

/// All of a network but the way in of its image tokens.
pub(super) struct Trunk {
    pub shape: Shape,
    /// Of the sinusoidal embeddings of times and guidances, in f64: numbers near 1000 show their rounding.
    frequencies: Vec<f64>,
    time: [PackedLinear; 2],
    guidance: Option<[PackedLinear; 2]>,
    pooled: [PackedLinear; 2],
    context: PackedLinear,
    blocks: Vec<Block>,
    /// Scale and shift.
    final_modulation: PackedLinear,
    pub final_linear: PackedLinear,
}

pub(super) struct Block {
    image: Stream,
    text: Stream,
}

/// What one of the two streams of a block has of its own.
struct Stream {
    /// Shift, scale and gate before and after attention; scale and shift alone of a stream that ends.
    modulation: PackedLinear,
    heads: Heads,
    /// What comes after attention; nothing in a stream that ends there.
    rest: Option<Rest>,
}

/// The way into attention.
pub(super) struct Heads {
    count: usize,
    /// Queries, keys and values below one another.
    qkv: PackedLinear,
    /// `[head size]` each: the norms of queries and keys.
    norms: Option<[Vec<f32>; 2]>,
}

struct Rest {
    out: PackedLinear,
    fc1: PackedLinear,
    fc2: PackedLinear,
}

impl Trunk {
    pub fn read<R: Read + Seek>(file: &mut Weights<R>, shape: Shape) -> Result<Self> {
        let (d, embedder) = (shape.hidden, "time_text_embed");
        let mut two = |name: &str, inputs: usize| -> Result<[PackedLinear; 2]> {
            let name = format!("{embedder}.{name}");
            Ok([
                layer(file, &format!("{name}.linear_1"), d, inputs)?,
                layer(file, &format!("{name}.linear_2"), d, d)?,
            ])
        };
        let time = two("timestep_embedder", FREQUENCIES)?;
        let guidance = match shape.guidance {
            true => Some(two("guidance_embedder", FREQUENCIES)?),
            false => None,
        };
        let pooled = two("text_embedder", shape.pooled)?;
        let context = layer(file, "context_embedder", d, shape.text)?;
        let final_modulation = layer(file, "norm_out.linear", 2 * d, d)?;
        let final_linear = layer(file, "proj_out", shape.outputs, d)?;
        let mut blocks = Vec::new();
        for i in 0..shape.depth {
            let image = Stream::read(file, &shape, &IMAGE, i, false)?;
            let ends = shape.text_ends && i + 1 == shape.depth;
            blocks.push(Block { image, text: Stream::read(file, &shape, &TEXT, i, ends)? });
        }
        let half = FREQUENCIES / 2;
        let frequencies = exact_frequencies(MAX_PERIOD, half).collect();
        Ok(Trunk {
            shape,
            frequencies,
            time,
            guidance,
            pooled,
            context,
            blocks,
            final_modulation,
            final_linear,
        })
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let ends = [&self.context, &self.final_modulation, &self.final_linear];
        let two = self.time.iter().chain(self.guidance.iter().flatten()).chain(&self.pooled);
        let mut bytes: usize = ends.into_iter().chain(two).map(PackedLinear::bytes).sum();
        for stream in self.blocks.iter().flat_map(|b| [&b.image, &b.text]) {
            bytes += stream.modulation.bytes() + stream.heads.bytes();
            if let Some(rest) = &stream.rest {
                bytes += rest.out.bytes() + rest.fc1.bytes() + rest.fc2.bytes();
            }
        }
        bytes + size_of_val(&self.frequencies[..])
    }
}

/// What the parts of a stream are called in the file.
struct Names {
    modulation: &'static str,
    heads: [&'static str; 5],
    out: &'static str,
    mlp: &'static str,
}

const IMAGE: Names = Names { modulation: "norm1.linear", heads: HEADS, out: "to_out.0", mlp: "ff" };
const TEXT: Names = Names {
    modulation: "norm1_context.linear",
    heads: ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"],
    out: "to_add_out",
    mlp: "ff_context",
};
/// Queries, keys, values and the norms of the former two, where there is one stream.
pub(super) const HEADS: [&str; 5] = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];

impl Stream {
    fn read<R: Read + Seek>(
        file: &mut Weights<R>,
        shape: &Shape,
        names: &Names,
        block: usize,
        ends: bool,
    ) -> Result<Self> {
        let (d, place) = (shape.hidden, format!("transformer_blocks.{block}"));
        let heads = Heads::read(file, shape, &format!("{place}.attn"), &names.heads)?;
        let rest = match ends {
            true => None,
            false => Some(Rest {
                out: layer(file, &format!("{place}.attn.{}", names.out), d, d)?,
                fc1: layer(file, &format!("{place}.{}.net.0.proj", names.mlp), 4 * d, d)?,
                fc2: layer(file, &format!("{place}.{}.net.2", names.mlp), d, 4 * d)?,
            }),
        };
        let parts = if ends { 2 } else { 6 };
        Ok(Stream {
            modulation: layer(file, &format!("{place}.{}", names.modulation), parts * d, d)?,
            heads,
            rest,
        })
    }
}

impl Heads {
    pub fn read<R: Read + Seek>(
        file: &mut Weights<R>,
        shape: &Shape,
        place: &str,
        [q, k, v, norm_q, norm_k]: &[&str; 5],
    ) -> Result<Self> {
        let d = shape.hidden;
        let norms = match shape.qk_norm {
            true => {
                let mut norm = |name| file.widened(&format!("{place}.{name}.weight"), &[d / shape.heads]);
                Some([norm(norm_q)?, norm(norm_k)?])
            }
            false => None,
        };
        let names = [q, k, v].map(|name| (format!("{place}.{name}"), d));
        Ok(Heads { count: shape.heads, qkv: pack(file, &names, d, true)?, norms })
    }

    pub fn bytes(&self) -> usize {
        let norms = self.norms.iter().flatten().map(|n| size_of_val(&n[..]));
        self.qkv.bytes() + norms.sum::<usize>()
    }
}

/// One layer with a bias.
pub(super) fn layer<R: Read + Seek>(
    file: &mut Weights<R>,
    name: &str,
    rows: usize,
    inputs: usize,
) -> Result<PackedLinear> {
    pack(file, &[(name.to_string(), rows)], inputs, true)
}

/// Heads, size of a head and width of a network, from its `config.json`.
pub(super) fn width(all: &Fields) -> Result<[usize; 3]> {
    let (heads, size) = (all.count("num_attention_heads", None)?, all.count("attention_head_dim", None)?);
    if size > MAX_HEAD_DIM {
        return Err(all.error("attention_head_dim", size, format!("1 to {MAX_HEAD_DIM}")));
    }
    match heads.checked_mul(size).filter(|d| *d <= isize::MAX as usize / 64) {
        Some(hidden) => Ok([heads, size, hidden]),
        None => Err(all.error("num_attention_heads", heads, "heads that fit in memory")),
    }
}
