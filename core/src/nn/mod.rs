//! Building blocks of transformers and U-nets: norms, modulation, softmax, activations, embeddings,
//! positions, patches.
//!
//! Every function takes views with any strides and writes the caller's output. Each array is f32, f16 or
//! bf16 for itself: inputs are widened exactly, everything is computed in f32, and a result is rounded once,
//! in registers, in one pass over memory. Rows whose elements lie apart are computed from a copy, with the same
//! bits. A row never depends on the other rows.

// Public functions whose types are parameters convert their arguments and call one without type parameters: what is generic is
// compiled in every crate that calls it, and kernels are large.

mod activation;
mod blocks;
mod embedding;
mod group_norm;
pub(crate) mod lanes;
mod lookup;
mod modulate;
#[cfg(test)]
mod new_tests;
mod norm;
mod patch;
mod rope;
#[cfg(test)]
mod rope_tests;
mod row_loop;
pub(crate) mod rows;
mod softmax;
#[cfg(test)]
mod storage_tests;
mod stored;
mod sum;
#[cfg(test)]
mod tests;

pub use activation::{
    Gelu, geglu, geglu_inplace, geglu_onto_up, gelu, gelu_inplace, silu, silu_inplace, swiglu,
    swiglu_inplace, swiglu_onto_up,
};
pub(crate) use embedding::embed_time;
pub use embedding::timestep_embedding;
pub use group_norm::group_norm;
pub use lookup::embedding;
pub use modulate::{gate_residual, gate_residual_inplace, gate_residual_onto_y, modulate, modulate_inplace};
pub use norm::{layer_norm, layer_norm_modulate, rms_norm, rms_norm_residual, rms_norm_residual_inplace};
pub use patch::{patchify, unpatchify};
pub use rope::{Rope, rope, rope_axial_tables, rope_tables};
pub(crate) use rope::{exact_frequencies, fill_axial_tables, fill_tables, frequencies};
pub use softmax::{log_softmax, softmax};
