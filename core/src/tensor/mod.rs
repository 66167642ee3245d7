//! Checked descriptions of tensors that other languages own.
//!
//! Rust callers pass `ndarray` views, which are checked by construction. A foreign caller
//! passes a type code, a shape and strides; [`Dtype`] and [`Layout`] decide whether those
//! describe memory that can be viewed. Nothing here touches memory.

mod dtype;
mod layout;

pub use dtype::Dtype;
pub use layout::{Layout, MAX_RANK, Span};
