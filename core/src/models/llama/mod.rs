//! The decoder of Llama and its kin.

mod config;
mod forward;

pub use config::{LlamaConfig, RopeScaling};

use std::io::{Read, Seek};
use std::path::Path;

use ndarray::ArrayView1;

use super::json::config_text;
use super::weights::{Numbers, Weights, pack};
use crate::error::Result;
use crate::linalg::PackedLinear;

struct Block {
    /// `[d]`: the norm before attention.
    norm1: Vec<f32>,
    /// Query, key and value heads below one another.
    qkv: PackedLinear,
    out: PackedLinear,
    /// `[d]`: the norm before the MLP.
    norm2: Vec<f32>,
    /// SwiGLU: gate and up side by side.
    gate_up: PackedLinear,
    down: PackedLinear,
}

/// A causal language model with pre-norm blocks of grouped-query attention, rotary positions and SwiGLU
/// (Llama 1 to 3, SmolLM2), weights packed for [`linear`](crate::linalg::linear()).
///
/// H. Touvron et al., arXiv:2302.13971. Loads what `save_pretrained` of `LlamaForCausalLM` writes, in
/// one file or in shards; weights of f32, f16 and bf16 stay what they are in memory, everything is computed in
/// f32. Immutable after loading: share it between threads.
pub struct Llama {
    config: LlamaConfig,
    frequencies: Vec<f32>,
    /// `[vocab, d]` where the output layer is another matrix.
    embeddings: Option<Numbers>,
    blocks: Vec<Block>,
    norm: Vec<f32>,
    head: PackedLinear,
}

impl std::fmt::Debug for Llama {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Llama").field("config", &self.config).field("bytes", &self.bytes()).finish()
    }
}

impl Llama {
    /// Loads `config.json` and `model.safetensors`, or the shards of its index, of a folder. Weights are packed tensor by tensor, so the most
    /// memory taken is the packed weights and the largest layer; nothing stays open.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io) when a file cannot be read, [`Error::Format`](crate::Error::Format) when it is not well-formed or not of such a
    /// network; the message names the file and the tensor or field.
    ///
    /// ```
    /// use dgm_core::models::Llama;
    /// let model = Llama::load("../tests/golden/tiny_llama".as_ref())?;
    /// assert_eq!((model.config().heads, model.config().kv_heads), (4, 2));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn load(folder: &Path) -> Result<Self> {
        let (text, what) = config_text(folder)?;
        let config = LlamaConfig::parse(&text, &what)?;
        Self::read(Weights::open(&folder.join("model.safetensors"))?, config)
    }

    /// Like [`Llama::load`] from the bytes of `model.safetensors` and the text of `config.json`.
    ///
    /// # Errors
    /// As [`Llama::load`].
    pub fn from_bytes(weights: &[u8], config: &str) -> Result<Self> {
        let config = LlamaConfig::parse(config, "config")?;
        Self::read(Weights::from_bytes(weights)?, config)
    }

    fn read<R: Read + Seek>(mut file: Weights<R>, config: LlamaConfig) -> Result<Self> {
        let c = &config;
        let (d, h) = (c.hidden, c.mlp_hidden);
        let (q, kv) = (c.heads * c.head_dim, c.kv_heads * c.head_dim);
        let mut blocks = Vec::new();
        for i in 0..c.depth {
            let name = |part: &str| format!("model.layers.{i}.{part}");
            let mut layer = |parts: &[(&str, usize)], inputs: usize, bias: bool| {
                let names = parts.iter().map(|(part, rows)| (name(part), *rows)).collect::<Vec<_>>();
                pack(&mut file, &names, inputs, bias)
            };
            let qkv = [("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)];
            let qkv = layer(&qkv, d, c.attention_bias)?;
            let out = layer(&[("self_attn.o_proj", d)], q, c.attention_bias)?;
            let down = layer(&[("mlp.down_proj", d)], h, c.mlp_bias)?;
            blocks.push(Block {
                norm1: file.widened(&name("input_layernorm.weight"), &[d])?,
                qkv,
                out,
                norm2: file.widened(&name("post_attention_layernorm.weight"), &[d])?,
                gate_up: pack_gated(&mut file, &name("mlp"), (h, d), c.mlp_bias)?,
                down,
            });
        }
        let table = "model.embed_tokens.weight";
        let head = if c.tied { table } else { "lm_head.weight" };
        let head = file.stacked(&[(head, c.vocab)], d)?;
        let head = PackedLinear::pack(head.rows(0, c.vocab, d)?, None)?;
        let embeddings = if c.tied { None } else { Some(file.stacked(&[(table, c.vocab)], d)?) };
        let norm = file.widened("model.norm.weight", &[d])?;
        Ok(Llama { frequencies: c.frequencies(), embeddings, blocks, norm, head, config })
    }

    /// The dimensions.
    pub fn config(&self) -> &LlamaConfig {
        &self.config
    }

    /// Bytes of the packed weights.
    pub fn bytes(&self) -> usize {
        let layers = self.blocks.iter().flat_map(|b| [&b.qkv, &b.out, &b.gate_up, &b.down]);
        let layers: usize = layers.chain([&self.head]).map(PackedLinear::bytes).sum();
        let norms: usize = self.blocks.iter().map(|b| b.norm1.len() + b.norm2.len()).sum();
        let rest = norms + self.norm.len() + self.frequencies.len();
        layers + rest * size_of::<f32>() + self.embeddings.as_ref().map_or(0, Numbers::bytes)
    }
}

/// `gate_proj` and `up_proj` of an MLP `[h, d]` as one gated layer.
fn pack_gated<R: Read + Seek>(
    file: &mut Weights<R>,
    mlp: &str,
    (h, d): (usize, usize),
    bias: bool,
) -> Result<PackedLinear> {
    let [gate, up] = ["gate_proj", "up_proj"].map(|part| format!("{mlp}.{part}"));
    let weights = file.stacked(&[(&format!("{gate}.weight"), h), (&format!("{up}.weight"), h)], d)?;
    let mut biases = Vec::new();
    if bias {
        for name in [gate, up] {
            biases.push(file.widened(&format!("{name}.bias"), &[h])?);
        }
    }
    let bias = |i: usize| biases.get(i).map(|b| ArrayView1::from(&b[..]).into());
    PackedLinear::pack_gated(weights.rows(0, h, d)?, weights.rows(h, h, d)?, bias(0), bias(1))
}
