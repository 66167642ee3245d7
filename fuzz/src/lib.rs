//! What the fuzz targets share: numbers drawn from the fuzzer's bytes, and tensors in one piece of
//! memory of which every byte is accounted for.

mod arena;
mod attention;
mod bytes;
mod call;
pub mod kernels;
pub mod plans;

pub use arena::{Arena, Footprint, Tensor};
pub use bytes::Bytes;
pub use call::{Call, check_status};
