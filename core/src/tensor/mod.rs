//! Checked descriptions of tensors that other languages own.
//!
//! Rust callers pass `ndarray` views, which are checked by construction. A foreign caller
//! passes a type code, a shape and strides; [`Dtype`] and [`Layout`] decide whether those
//! describe memory that can be viewed. Nothing here touches memory.

mod dtype;
mod floats;
mod layout;

pub use dtype::Dtype;
pub(crate) use floats::{Element, Row, RowMut, each};
pub use floats::{Floats, FloatsMut};
pub use half::{bf16, f16};
pub use layout::{Layout, MAX_RANK, Span};
