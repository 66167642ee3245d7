//! Instruction sets: tokens, vectors, dispatch; and the helper threads ([`team`]). The only module
//! of the engine with `unsafe`.
//!
//! A [`Simd`] token can be made only where the processor has its instructions, so its
//! methods are safe. A kernel is a value with a generic body ([`Kernel::run`]); [`dispatch`]
//! runs it with the token of the active [`Level`]. Everything a body calls must be
//! `#[inline(always)]`, or it is compiled without the instruction set.
//!
//! Every operation is an IEEE operation with round-to-nearest, so that a body gives the
//! same bits at every level provided it treats lanes independently.

pub(crate) mod blas;
mod fpenv;
mod level;
mod matrix;
mod microkernel;
#[cfg(test)]
mod microkernel_tests;
#[cfg(all(test, target_arch = "x86_64"))]
mod other_dots_tests;
mod out_of_line;
mod paged;
mod peak;
mod place;
mod portable;
mod simd;
#[cfg(test)]
mod simd_tests;
mod team;
mod words;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use fpenv::FpEnv;
pub(crate) use level::{Kernel, dispatch, dispatch_at, dots_at};
pub use level::{Level, available_levels, level, set_level};
pub(crate) use matrix::{Block, BlockMut, Matrix, MatrixMut, Pairs};
pub(crate) use microkernel::{Asking, InParts, Sink, Store, WidePairs, multiply, multiply_lanes, scaled};
pub(crate) use paged::{Columns, PagedRows, Slot, Strip};
pub use peak::{dot_work, fma_work, read_work};
pub(crate) use simd::Simd;
pub(crate) use team::{Team, number};
pub(crate) use words::{Lend, Words};
