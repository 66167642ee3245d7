//! Building blocks of transformers for images: norms, modulation, activations, embeddings,
//! patches.
//!
//! Every function takes views with any strides and writes the caller's output; rows whose
//! elements lie side by side are computed in place, others through a row of scratch, with the
//! same bits. A row never depends on the other rows.

mod activation;
mod embedding;
mod modulate;
mod norm;
mod patch;
mod rope;
mod rows;
#[cfg(test)]
mod tests;

pub use activation::{Gelu, gelu, gelu_inplace, silu, silu_inplace};
pub use embedding::timestep_embedding;
pub use modulate::{gate_residual, gate_residual_inplace, gate_residual_onto_y, modulate, modulate_inplace};
pub use norm::{layer_norm, layer_norm_modulate, rms_norm};
pub use patch::{patchify, unpatchify};
pub use rope::{Rope, rope, rope_tables};
