//! Elementary functions in f32: one sequence of IEEE operations, so the same bits at every
//! instruction set, vector width and position in a slice.
//!
//! The generic functions of this module work on vector lanes and are what kernels are built
//! from; [`slice`] applies them to slices. Bounds are in units in the last place of the exact
//! result, measured against `libm` in f64 over every 31st of all 2^32 inputs; an ignored test
//! visits every one (`cargo test --release -- --ignored exhaustive`).

mod activation;
mod exp;
mod hyper;
mod log;
pub mod slice;
#[cfg(test)]
mod tests;
mod trig;

pub(crate) use activation::{gelu_erf, gelu_tanh, sigmoid, silu};
pub(crate) use exp::{Powers, exp, exp_each, exp2, exp2_above, exp2_each};
pub(crate) use hyper::{erf, tanh};
pub(crate) use log::log;
pub(crate) use trig::{sincos, sincos_quadrant};
