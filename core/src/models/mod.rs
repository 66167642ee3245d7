//! Networks: weights from safetensors, packed at load, and their forward passes; and mixtures
//! and restricted Boltzmann machines.

mod config;
mod dit;
mod flux;
mod generate;
mod json;
mod llama;
mod mixture;
mod mmdit;
mod rbm;
mod sd3;
mod shards;
mod views;
mod weights;

#[cfg(test)]
mod tests;

pub use config::DitConfig;
pub use dit::Dit;
pub use flux::{Flux, FluxConfig, FluxInputs};
pub use generate::generate;
pub use llama::{Llama, LlamaConfig, RopeScaling};
pub use mixture::GaussianMixture;
pub use rbm::Rbm;
pub use sd3::{Sd3, Sd3Config};
