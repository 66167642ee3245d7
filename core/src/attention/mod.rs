//! Scaled dot-product attention in one pass over the keys (arXiv 2205.14135), without a score
//! matrix in memory.
//!
//! Definition of a query row, which no thread count, batch, stride or instruction set changes.
//! Every `chain` is one sequence of fused multiply-adds in rising order from zero. A sum `in parts` is that of several
//! chains, added from left to right: shorter, they are rounded less. Over a head's numbers they have the length
//! [`chain_length`], over the keys of a tile the second begins in its middle, at key 64.
//!
//! * `q'[d] = q[d] * fl(scale * log2 e)`; `s[j] = k[j][d] * q'[d] over d, in parts`.
//! * A soft-cap makes it `q'[d] = q[d] * fl(scale / cap)` and then
//!   `s[j] = tanh(s[j]) * fl(cap * log2 e)`.
//! * ALiBi: `s[j] = fma(fl(-slope * log2 e), |fl(t) - u|, s[j])`, `t` and `u` the positions of
//!   query and key counted from the key's tile. A bias: `s[j] = fma(bias[j], fl(log2 e), s[j])`.
//! * Keys are cut at absolute positions into splits of [`SPLIT`] and tiles of [`KEY_TILE`].
//! * A split starts with `m = -inf, l = 0, O = 0`. For each tile: `m' = max(m, s[j] ...)` in key
//!   order, `a = exp2(m - m')`, `p[j] = exp2(s[j] - m')`, `l = fma(l, a, p[j] over j, in parts)`,
//!   `O = fma(O, a, v[j] * p[j] over j, in parts)`. Where `m'` is -inf, 0 stands for it.
//! * Splits merge from left to right: `m' = max(m1, m2)`, `a1 = exp2(m1 - m')`,
//!   `a2 = exp2(m2 - m')`, `l = fma(l2, a2, l1 * a1)`, `O` likewise.
//! * A sink merges last, as a split with `m = fl(sink * log2 e), l = 1, O = 0`.
//! * The result is `fma(O, 1 / l, 0)` (no negative zero) and `lse = ln 2 * (m + log2 l)`.
//! * Queries, keys and values of bfloat16 are multiplied in pairs ([`products`]), in one chain: along `d` for
//!   the scores, which are then multiplied by `fl(scale * log2 e)`, and of an even key and the
//!   next for the values, with `p` a shorter polynomial, 0 below 2^-64, and rounded to bfloat16 (`l` sums what was not rounded).
//!
//! Masked elements (out of range, mask 0, bias -inf) take no part at all, whatever key and value
//! hold there. A row whose every score is -inf, or that has no key, gives 0 and lse -inf (with a
//! sink: 0 and the sink).
//!
//! Since tiles lie at absolute positions and a query's position is counted from the last key, a
//! prompt gives the same bits whole, in chunks or token by token.

mod ahead;
mod backward;
mod blas;
pub(crate) mod cache;
mod cut;
mod decode;
#[cfg(test)]
mod dot_tests;
#[cfg(test)]
mod error_tests;
mod kernel;
mod lanes;
mod merge;
#[cfg(test)]
mod option_tests;
mod options;
mod products;
#[cfg(test)]
mod property_tests;
mod rows;
mod scores;
#[cfg(test)]
mod storage_tests;
#[cfg(test)]
mod tests;
mod tiles;
mod varlen;

pub use backward::{attention_backward, attention_varlen_backward};
pub use cache::{
    KvCache, KvCacheMut, Pages, PagesMut, attention_paged, cache_append, cache_fork, cache_truncate,
};
pub use merge::attention_merge;
pub use options::AttentionOptions;
pub use varlen::attention_varlen;

use ndarray::{ArrayViewMut3, Dimension, Ix4};

use crate::arch::InParts;
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut};

/// Keys a tile: part of the definition.
pub const KEY_TILE: usize = 128;

/// Keys a split: part of the definition.
pub const SPLIT: usize = 512;

/// Steps of each chain of a sum over `n` numbers of a head: part of the definition. Short sums are one.
fn chain_length(n: usize) -> usize {
    n.div_ceil(2).clamp(16, KEY_TILE / 2)
}

/// The product of a matrix whose rows are numbers of heads.
fn over_head<A: Copy>(of: A, n: usize) -> InParts<A> {
    InParts { of, first: chain_length(n), rest: chain_length(n) }
}

/// The product of a matrix whose columns are keys of a tile, its middle before column `middle`.
fn over_keys<A: Copy>(of: A, middle: usize) -> InParts<A> {
    InParts { of, first: middle, rest: KEY_TILE / 2 }
}

/// Keys from `first` on, one of the tile that begins at `origin`, before the middle of the tile, where the second chain
/// of a sum over its keys begins: part of the definition.
fn middle(origin: usize, first: usize) -> usize {
    (origin + KEY_TILE / 2).saturating_sub(first)
}

/// Largest head size; it bounds the scratch a thread keeps.
pub const MAX_HEAD_DIM: usize = 1024;

/// `out = softmax(scale * q k^T) v`.
///
/// | argument | shape |
/// |---|---|
/// | `q` | `[B, H, Lq, D]` |
/// | `k` | `[B, Hkv, Lk, D]`, `Hkv` divides `H`: query head `h` uses `h / (H / Hkv)` |
/// | `v` | `[B, Hkv, Lk, Dv]` |
/// | `out` | `[B, H, Lq, Dv]` |
/// | `lse` | `[B, H, Lq]`, the natural logarithm of the softmax denominators |
///
/// Each of `q`, `out` and the pair `k`, `v` is f32, f16 or bf16. Where `q`, `k` and `v` are all
/// bf16, products are of bf16 pairs with sums in f32 (twice as fast as f32 on processors of AMD with
/// AVX512-BF16, three quarters as fast elsewhere); otherwise 16-bit numbers are widened exactly where
/// they are read and everything is computed in f32. The result is rounded once (to nearest, ties to
/// even) where it is written.
///
/// `1 <= D, Dv <= `[`MAX_HEAD_DIM`]. Strides are free (`[B, L, H, D]` memory is a permuted view;
/// stride 0 broadcasts an input) but not negative. Outputs are untouched on error.
///
/// # Errors
/// [`Error::Shape`], [`Error::Dtype`], [`Error::Stride`] and [`Error::Range`] name the argument that does not fit.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention};
/// use ndarray::Array4;
/// let (q, k) = (Array4::<f32>::ones((1, 2, 3, 8)), Array4::<f32>::ones((1, 1, 5, 8)));
/// let v = Array4::from_shape_fn((1, 1, 5, 4), |(_, _, j, _)| j as f32);
/// let mut out = Array4::<f32>::zeros((1, 2, 3, 4));
/// attention(q.view(), k.view(), v.view(), &AttentionOptions::default(), out.view_mut(), None)?;
/// assert!(out.iter().all(|&x| x == 2.0)); // equal keys: the mean of the values
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn attention<'a>(
    q: impl Into<Floats<'a, Ix4>>,
    k: impl Into<Floats<'a, Ix4>>,
    v: impl Into<Floats<'a, Ix4>>,
    options: &AttentionOptions,
    out: impl Into<FloatsMut<'a, Ix4>>,
    lse: Option<ArrayViewMut3<'a, f32>>,
) -> Result<()> {
    let (q, k, v, out): (Floats<_>, Floats<_>, Floats<_>, FloatsMut<_>) =
        (q.into(), k.into(), v.into(), out.into());
    check_forward(&q, &k, &v, out.shape())?;
    check_strides("out", out.shape(), out.strides(), true)?;
    let [batch, heads, queries, dim] = *q.shape() else { unreachable!("four axes") };
    let keys = k.shape()[2];
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &[batch, heads, queries])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    options.check([batch, heads, queries, keys])?;
    let (factor, cap) = options.factors(dim);
    if decode::fits(&q, &k, &v) {
        decode::contiguous([q, k, v], (factor, cap), options, out, lse);
        return Ok(());
    }
    tiles::run(vec![(tiles::Problem { q, k, v, factor, cap, options }, out, lse)]);
    Ok(())
}

/// Shapes, types and strides of inputs, and the shape of the output.
fn check_forward(q: &Floats<Ix4>, k: &Floats<Ix4>, v: &Floats<Ix4>, out: &[usize]) -> Result<()> {
    let [batch, heads, queries, dim] = *q.shape() else { unreachable!("four axes") };
    let (kv_heads, keys, value_dim) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    if !(1..=MAX_HEAD_DIM).contains(&dim) {
        return Err(Error::shape("q", q.shape(), format!("[B, H, Lq, D] with D 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("k", k.shape(), &[batch, kv_heads, keys, dim])?;
    check_heads(k.shape(), kv_heads, heads)?;
    if !(1..=MAX_HEAD_DIM).contains(&value_dim) {
        return Err(Error::shape("v", v.shape(), format!("[B, Hkv, Lk, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("v", v.shape(), &[batch, kv_heads, keys, value_dim])?;
    check_shape("out", out, &[batch, heads, queries, value_dim])?;
    check_memory(q, k, v)
}

fn check_heads(shape: &[usize], kv_heads: usize, heads: usize) -> Result<()> {
    if kv_heads == 0 && heads != 0 || kv_heads != 0 && !heads.is_multiple_of(kv_heads) {
        return Err(Error::shape("k", shape, format!("a number of heads that divides {heads}")));
    }
    Ok(())
}

/// Types and strides of inputs.
fn check_memory<D: Dimension>(q: &Floats<D>, k: &Floats<D>, v: &Floats<D>) -> Result<()> {
    v.dtype().expect("v", k.dtype())?;
    check_strides("q", q.shape(), q.strides(), false)?;
    check_strides("k", k.shape(), k.strides(), false)?;
    check_strides("v", v.shape(), v.strides(), false)
}
