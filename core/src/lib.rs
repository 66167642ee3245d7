//! Sampling and attention kernels of deep generative models, for the CPU, with the same bits
//! for any number of threads, any batch, any language and any instruction set.
//!
//! | module | what lives there |
//! |---|---|
//! | [`error`] | the one error type and its stable codes |
//! | [`arch`] | instruction sets and dispatch; the only `unsafe` code |
//! | [`math`] | elementary functions, equal at every vector width |
//! | [`attention`] | fused attention |
//! | [`linalg`] | packed weights and linear layers |
//! | [`sampling`] | plans, runs, solvers |
//! | [`nn`] | norms, modulation, activations, embeddings, patches |
//! | [`models`] | networks: weights from safetensors and their forward passes |
//! | [`random`] | counter-based random numbers, a pure function of seed and element |
//! | [`threads`] | the thread pool |
//! | [`tensor`] | checks of tensors that other languages own |
//! | [`info`] | what this build is and what it runs on |

#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub mod arch;
pub mod attention;
pub mod error;
pub mod info;
pub mod linalg;
pub mod math;
pub mod models;
pub mod nn;
pub mod random;
pub mod sampling;
pub mod tensor;
pub mod threads;

pub use error::{Error, Result};
pub use info::NUMERICS_VERSION;
