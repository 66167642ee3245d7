//! Linear layers: packed weights and the product with them.
//!
//! Definition of every output element: one FMA chain over the input features in rising order
//! from zero (over pairs of them where inputs and weights are bfloat16), then one addition of the
//! bias, then the activation, then gate and residual where they are asked for, then one rounding. It does not depend on the number of rows, so a row
//! alone gives the same bits as in a batch.

mod backend;
mod block;
mod epilogue;
#[cfg(test)]
mod fused_tests;
mod linear;
mod options;
mod packed;
pub(crate) mod rows;
#[cfg(test)]
mod storage_tests;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use backend::described;
pub use backend::{Backend, backend, set_backend};
pub use linear::linear;
pub(crate) use linear::linear_rows;
pub use options::{Activation, LinearOptions, Residual};
pub use packed::PackedLinear;

use crate::error::{Error, Result};

/// Refuses negative strides and, for outputs, strides that may let two elements share memory.
pub(crate) fn check_strides(
    arg: &'static str,
    shape: &[usize],
    strides: &[isize],
    output: bool,
) -> Result<()> {
    if shape.contains(&0) {
        return Ok(());
    }
    let error = |expected: &str| {
        Err(Error::Stride { arg, got: format!("{strides:?}"), expected: expected.to_string() })
    };
    let used = || shape.iter().zip(strides).filter(|&(&n, _)| n > 1);
    if used().any(|(_, &s)| s < 0) {
        return error("no negative stride");
    }
    if !output {
        return Ok(());
    }
    // Elements are apart when each stride steps over the whole extent of all smaller ones.
    for (i, (&n, &s)) in shape.iter().zip(strides).enumerate() {
        if n <= 1 {
            continue;
        }
        let mut extent = 0;
        for (j, (&m, &t)) in shape.iter().zip(strides).enumerate() {
            if j != i && m > 1 && (t < s || (t == s && j > i)) {
                extent += (m as isize - 1) * t;
            }
        }
        if s <= extent {
            return error("strides that keep every element of the output apart");
        }
    }
    Ok(())
}
