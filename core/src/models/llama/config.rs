//! The dimensions of a decoder, from its `config.json`.

use serde_json::Value;

use crate::attention::MAX_HEAD_DIM;
use crate::error::Result;
use crate::models::json::{Fields, read};
use crate::nn::frequencies;

/// Dimensions of a [`Llama`](super::Llama): what `config.json` says, under the names of this library.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct LlamaConfig {
    /// Tokens of the vocabulary (`vocab_size`).
    pub vocab: usize,
    /// Width d of the residual stream (`hidden_size`).
    pub hidden: usize,
    /// Width of the MLP's hidden layer (`intermediate_size`).
    pub mlp_hidden: usize,
    /// Number of blocks (`num_hidden_layers`).
    pub depth: usize,
    /// Query heads (`num_attention_heads`).
    pub heads: usize,
    /// Heads of keys and values (`num_key_value_heads`); it divides `heads`.
    pub kv_heads: usize,
    /// Numbers of a head (`head_dim`), even.
    pub head_dim: usize,
    /// Longest sequence the network was trained for (`max_position_embeddings`); nothing stops at it.
    pub max_positions: usize,
    /// Added to the mean square in every norm (`rms_norm_eps`).
    pub norm_eps: f32,
    /// Base of the rotary positions (`rope_theta`).
    pub rope_theta: f32,
    /// How the rotary frequencies are stretched for longer sequences (`rope_scaling`).
    pub rope_scaling: RopeScaling,
    /// Whether the output layer is the embedding table (`tie_word_embeddings`).
    pub tied: bool,
    /// Whether the layers of attention have biases (`attention_bias`).
    pub attention_bias: bool,
    /// Whether the layers of the MLP have biases (`mlp_bias`).
    pub mlp_bias: bool,
}

/// How rotary frequencies are stretched.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum RopeScaling {
    /// Not at all (`default`).
    None,
    /// All divided by a factor (`linear`, S. Chen et al., arXiv:2306.15595).
    Linear {
        /// The divisor.
        factor: f64,
    },
    /// Slow ones divided by a factor, fast ones kept, those between mixed (`llama3`, arXiv:2407.21783).
    Llama3 {
        /// The divisor of the slow ones.
        factor: f64,
        /// Turns in the original length below which a frequency is slow.
        low: f64,
        /// Turns in the original length above which a frequency is fast.
        high: f64,
        /// The original length in tokens.
        positions: f64,
    },
}

impl LlamaConfig {
    /// Heads of a cache for this network: those of all blocks side by side, `depth * kv_heads`.
    pub fn cache_heads(&self) -> usize {
        self.depth * self.kv_heads
    }

    /// The frequencies of the rotary positions: those of rope, stretched in f64 and rounded once more.
    pub(super) fn frequencies(&self) -> Vec<f32> {
        let plain = frequencies(self.rope_theta, self.head_dim / 2);
        plain.map(|f| self.rope_scaling.stretch(f64::from(f)) as f32).collect()
    }

    /// Reads the text of a `config.json`; `what` names it in errors.
    pub(super) fn parse(text: &str, what: &str) -> Result<Self> {
        let file = read(text, what)?;
        let all = Fields { value: &file, what, place: "" };
        all.expect("model_type", "llama")?;
        all.expect("hidden_act", "silu")?;
        let hidden = all.count("hidden_size", None)?;
        let heads = all.count("num_attention_heads", None)?;
        // Version 5 of transformers has what was `rope_theta` and `rope_scaling` in `rope_parameters`.
        let null = Value::Null;
        let rope = ["rope_parameters", "rope_scaling"].iter().map(|key| (*key, &file[key]));
        let (place, value) = rope.into_iter().find(|(_, v)| !v.is_null()).unwrap_or(("rope_scaling", &null));
        if !(value.is_null() || value.is_object()) {
            return Err(all.error(place, value, "an object or null"));
        }
        let rope = Fields { value, what, place };
        match rope.number("partial_rotary_factor")?.or(all.number("partial_rotary_factor")?) {
            None | Some(1.0) => {}
            Some(part) => return Err(all.error("partial_rotary_factor", part, "1: all of a head")),
        }
        let theta = match rope.number("rope_theta")? {
            Some(theta) => theta,
            None => all.number("rope_theta")?.unwrap_or(10_000.0),
        };
        let config = LlamaConfig {
            vocab: all.count("vocab_size", None)?,
            hidden,
            mlp_hidden: all.count("intermediate_size", None)?,
            depth: all.count("num_hidden_layers", None)?,
            heads,
            kv_heads: all.count("num_key_value_heads", Some(heads))?,
            head_dim: all.count("head_dim", Some(hidden / heads))?,
            max_positions: all.count("max_position_embeddings", Some(2048))?,
            norm_eps: all.number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            rope_theta: theta as f32,
            rope_scaling: RopeScaling::read(&rope)?,
            tied: all.flag("tie_word_embeddings")?,
            attention_bias: all.flag("attention_bias")?,
            mlp_bias: all.flag("mlp_bias")?,
        };
        config.check(&all)?;
        Ok(config)
    }

    fn check(&self, all: &Fields) -> Result<()> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(all.error(
                "num_key_value_heads",
                self.kv_heads,
                format!("a divisor of {}", self.heads),
            ));
        }
        if !(2..=MAX_HEAD_DIM).contains(&self.head_dim) || !self.head_dim.is_multiple_of(2) {
            let expected = format!("an even number from 2 to {MAX_HEAD_DIM}");
            return Err(all.error("head_dim", self.head_dim, expected));
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return Err(all.error("rms_norm_eps", self.norm_eps, "a finite number, at least 0"));
        }
        if !(self.rope_theta.is_finite() && self.rope_theta > 0.0) {
            return Err(all.error("rope_theta", self.rope_theta, "a finite positive number"));
        }
        if !self.frequencies().iter().all(|f| f.is_finite()) {
            let expected = "a base and a scaling whose frequencies are finite in f32";
            return Err(all.error("rope_theta", self.rope_theta, expected));
        }
        // Rows of q, k and v together, and heads of a cache: what is computed from here on fits.
        let rows = self.heads.checked_mul(3).and_then(|n| n.checked_mul(self.head_dim));
        let fits =
            rows.is_some() && self.depth.checked_mul(self.kv_heads).is_some_and(|n| n <= isize::MAX as usize);
        if fits {
            Ok(())
        } else {
            Err(all.error("num_attention_heads", self.heads, "heads that fit in memory"))
        }
    }
}

impl RopeScaling {
    fn read(rope: &Fields) -> Result<Self> {
        let kind = match &rope.value["rope_type"] {
            Value::Null => &rope.value["type"],
            kind => kind,
        };
        let positive = |key: &str| match rope.number(key)? {
            Some(x) if x.is_finite() && x > 0.0 => Ok(x),
            Some(x) => Err(rope.error(key, x, "a finite positive number")),
            None => Err(rope.error(key, "missing", "a number")),
        };
        match kind {
            Value::Null if !rope.value["factor"].is_null() => {
                Err(rope.error("rope_type", "missing", "default, linear or llama3"))
            }
            Value::Null => Ok(RopeScaling::None),
            Value::String(kind) if kind == "default" => Ok(RopeScaling::None),
            Value::String(kind) if kind == "linear" => {
                Ok(RopeScaling::Linear { factor: positive("factor")? })
            }
            Value::String(kind) if kind == "llama3" => {
                let (low, high) = (positive("low_freq_factor")?, positive("high_freq_factor")?);
                if low >= high {
                    return Err(rope.error(
                        "low_freq_factor",
                        low,
                        format!("below high_freq_factor, {high}"),
                    ));
                }
                let positions = positive("original_max_position_embeddings")?;
                Ok(RopeScaling::Llama3 { factor: positive("factor")?, low, high, positions })
            }
            other => Err(rope.error("rope_type", other, "default, linear or llama3")),
        }
    }

    fn stretch(self, f: f64) -> f64 {
        match self {
            RopeScaling::None => f,
            RopeScaling::Linear { factor } => f / factor,
            RopeScaling::Llama3 { factor, low, high, positions } => {
                let turns = positions * f / (2.0 * std::f64::consts::PI);
                let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
                (1.0 - kept) * f / factor + kept * f
            }
        }
    }
}
