//! Scaled dot-product attention in one pass over the keys (arXiv 2205.14135), without a score
//! matrix in memory.
//!
//! Definition of a query row, which no thread count, batch, stride or instruction set changes.
//! Every `chain` is one sequence of fused multiply-adds in rising order from zero.
//!
//! * `q'[d] = q[d] * fl(scale * log2 e)`; `s[j] = chain over d of k[j][d] * q'[d]`.
//! * Keys are cut at absolute positions into splits of [`SPLIT`] and tiles of [`KEY_TILE`].
//! * A split starts with `m = -inf, l = 0, O = 0`. For each tile: `m' = max(m, s[j] ...)` in key
//!   order, `a = exp2(m - m')`, `p[j] = exp2(s[j] - m')`, `l = l * a` and then `+ p[j]` in key
//!   order, `O = fma(O, a, chain over j of v[j] * p[j])`. Where `m'` is -inf, 0 stands for it.
//! * Splits merge from left to right: `m' = max(m1, m2)`, `a1 = exp2(m1 - m')`,
//!   `a2 = exp2(m2 - m')`, `l = fma(l2, a2, l1 * a1)`, `O` likewise.
//! * The result is `O / l + 0` (no negative zero) and `lse = ln 2 * (m + log2 l)`.
//!
//! Masked keys take no part at all, whatever their key and value hold. A row whose every score
//! is -inf, or that has no key, gives 0 and lse -inf.

mod kernel;
#[cfg(test)]
mod tests;
mod tiles;

use ndarray::{ArrayView4, ArrayViewMut3, ArrayViewMut4};

use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;

/// Keys a tile: part of the definition.
pub const KEY_TILE: usize = 128;

/// Keys a split: part of the definition.
pub const SPLIT: usize = 512;

/// Largest head size; it bounds the scratch a thread keeps.
pub const MAX_HEAD_DIM: usize = 1024;

/// What [`attention`] does beside the plain product.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Factor on the scores; `None` is `1 / sqrt(D)`.
    pub scale: Option<f32>,
    /// Query `i` sees key `j` only where `j <= i + n - Lq`, `n` the number of keys: the last query
    /// sees every key.
    pub causal: bool,
    /// `[B]`: how many keys of each batch entry exist; the rest are padding. `causal` counts `n`
    /// from here.
    pub kv_lengths: Option<&'a [usize]>,
}

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
/// `1 <= D, Dv <= `[`MAX_HEAD_DIM`]. Strides are free (`[B, L, H, D]` memory is a permuted view;
/// stride 0 broadcasts an input) but not negative. Outputs are untouched on error.
///
/// # Errors
/// [`Error::Shape`], [`Error::Stride`] and [`Error::Range`] name the argument that does not fit.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention};
/// use ndarray::Array4;
/// let (q, k) = (Array4::<f32>::ones((1, 2, 3, 8)), Array4::<f32>::ones((1, 1, 5, 8)));
/// let v = Array4::from_shape_fn((1, 1, 5, 4), |(_, _, j, _)| j as f32);
/// let mut out = Array4::zeros((1, 2, 3, 4));
/// attention(q.view(), k.view(), v.view(), &AttentionOptions::default(), out.view_mut(), None)?;
/// assert!(out.iter().all(|&x| x == 2.0)); // equal keys: the mean of the values
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn attention(
    q: ArrayView4<f32>,
    k: ArrayView4<f32>,
    v: ArrayView4<f32>,
    options: &AttentionOptions,
    out: ArrayViewMut4<f32>,
    lse: Option<ArrayViewMut3<f32>>,
) -> Result<()> {
    let (batch, heads, queries, dim) = q.dim();
    let (_, kv_heads, keys, _) = k.dim();
    let value_dim = v.dim().3;
    if !(1..=MAX_HEAD_DIM).contains(&dim) {
        return Err(Error::shape("q", q.shape(), format!("[B, H, Lq, D] with D 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("k", k.shape(), &[batch, kv_heads, keys, dim])?;
    if kv_heads == 0 && heads != 0 || kv_heads != 0 && !heads.is_multiple_of(kv_heads) {
        return Err(Error::shape("k", k.shape(), format!("a number of heads that divides {heads}")));
    }
    if !(1..=MAX_HEAD_DIM).contains(&value_dim) {
        return Err(Error::shape("v", v.shape(), format!("[B, Hkv, Lk, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("v", v.shape(), &[batch, kv_heads, keys, value_dim])?;
    check_shape("out", out.shape(), &[batch, heads, queries, value_dim])?;
    check_strides("q", q.shape(), q.strides(), false)?;
    check_strides("k", k.shape(), k.strides(), false)?;
    check_strides("v", v.shape(), v.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &[batch, heads, queries])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    let scale = match options.scale {
        Some(scale) if !scale.is_finite() => return Err(Error::range("scale", scale, "a finite number")),
        Some(scale) => f64::from(scale),
        None => 1.0 / (dim as f64).sqrt(),
    };
    if let Some(lengths) = options.kv_lengths {
        check_shape("kv_lengths", &[lengths.len()], &[batch])?;
        if let Some(&n) = lengths.iter().find(|&&n| n > keys) {
            return Err(Error::range("kv_lengths", n, format!("0 to {keys}, the number of keys")));
        }
    }
    let problem = tiles::Problem {
        q,
        k,
        v,
        factor: (f64::from(scale as f32) * std::f64::consts::LOG2_E) as f32,
        causal: options.causal,
        kv_lengths: options.kv_lengths,
    };
    tiles::run(&problem, out, lse);
    Ok(())
}
