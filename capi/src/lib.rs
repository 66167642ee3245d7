//! The C interface: checks, status codes, the panic fence. No arithmetic.
//!
//! Every exported function has the same shape: [`fence`]'s `entry` around null checks, checked
//! views ([`tensor`], `memory`) and one call into `dgm-core`. `include/dgm.h` is generated
//! from the public modules in the order in which they stand here; their comments are its
//! documentation.

#![allow(non_camel_case_types, clippy::missing_safety_doc, clippy::too_many_arguments)]

#[cfg(all(test, target_pointer_width = "64"))]
mod layout;

mod memory;

#[cfg(feature = "test-panic")]
mod panic_probe;

pub mod version;

pub mod status;

pub mod fence;

pub mod tensor;

pub mod attention;

pub mod varlen;

pub mod cache;

pub mod nn;

pub mod linear;

pub mod random;

pub mod compat;

pub mod choices;

pub mod options;

pub mod plan;

pub mod run;

pub mod rows;

pub mod apart;

pub mod density;

pub mod chain;

pub mod operations;

pub mod sample;

pub mod mixture;

pub mod rbm;

pub mod model;

pub mod llama;

pub mod sd3;

pub mod flux;
