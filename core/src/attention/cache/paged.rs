//! Attention against a cache.

use ndarray::{ArrayViewMut3, Ix4};

use super::super::decode::{self, Problem};
use super::super::{AttentionOptions, check_heads};
use super::KvCache;
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut, each};

/// [`attention`](super::super::attention) of new queries against a cache that already holds their
/// keys and values.
///
/// | argument | shape |
/// |---|---|
/// | `q` | `[B, H, Lq, D]`: the last `Lq` tokens of each batch entry |
/// | `cache` | see [`KvCache`]; `Hkv` divides `H` |
/// | `out` | `[B, H, Lq, Dv]` |
/// | `lse` | `[B, H, Lq]` |
///
/// The bits are those of `attention` with the same keys and values side by side and
/// `kv_lengths = cache.lengths`, whatever the page size. With an int8 cache a score is multiplied by
/// its key's scale before anything else happens to it, and a probability by its value's scale before
/// it meets the value. `options.kv_lengths` stays `None`; `bias` and `mask` have `M T` keys (`T`
/// without a block table).
///
/// # Errors
/// Those of `attention`, and [`Error::Range`] for lengths or pages that do not exist.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, KvCache, attention_paged};
/// use ndarray::{Array4, array};
/// // Two pages of two tokens; the one sequence has three, the first two in page 1.
/// let k = Array4::<f32>::zeros((2, 1, 2, 8));
/// let v = Array4::from_shape_fn((2, 1, 2, 1), |(page, _, row, _)| (10 * page + row) as f32);
/// let table = array![[1, 0]];
/// let cache = KvCache {
///     k: k.view().into(),
///     v: v.view().into(),
///     k_scale: None,
///     v_scale: None,
///     block_table: Some(table.view()),
///     lengths: &[3],
/// };
/// let q = Array4::<f32>::ones((1, 1, 1, 8));
/// let mut out = Array4::<f32>::zeros((1, 1, 1, 1));
/// attention_paged(q.view(), &cache, &AttentionOptions::default(), out.view_mut(), None)?;
/// assert_eq!(out[[0, 0, 0, 0]], 7.0); // the mean of 10, 11 and 0
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn attention_paged<'q, 'o>(
    q: impl Into<Floats<'q, Ix4>>,
    cache: &KvCache,
    options: &AttentionOptions,
    out: impl Into<FloatsMut<'o, Ix4>>,
    lse: Option<ArrayViewMut3<'o, f32>>,
) -> Result<()> {
    let (q, out) = (q.into(), out.into());
    let sizes = cache.check()?;
    let [_, heads, queries, _] = *q.shape() else { unreachable!("four axes") };
    check_shape("q", q.shape(), &[sizes.batch, heads, queries, sizes.dim])?;
    check_heads(&cache.k.shape(), sizes.kv_heads, heads)?;
    check_shape("out", out.shape(), &[sizes.batch, heads, queries, sizes.value_dim])?;
    check_strides("q", q.shape(), q.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &[sizes.batch, heads, queries])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    if options.kv_lengths.is_some() {
        return Err(Error::argument("kv_lengths", "given", "none: the cache has lengths"));
    }
    options.check([sizes.batch, heads, queries, sizes.capacity])?;
    let (factor, cap) = options.factors(sizes.dim);
    let problem = Problem {
        q: each!(Floats, &q, q => q.view().into()),
        k: cache.k.view(),
        v: cache.v.view(),
        scales: cache.k_scale.as_ref().zip(cache.v_scale.as_ref()).map(|(k, v)| [k.view(), v.view()]),
        table: cache.block_table.as_ref().map(|t| t.view()),
        capacity: sizes.capacity,
        lengths: Some(cache.lengths),
        kv_heads: sizes.kv_heads,
        value_dim: sizes.value_dim,
        factor,
        cap,
        options,
    };
    decode::run(&problem, out, lse);
    Ok(())
}
