//! Sequences of different lengths, packed one after the other.

use ndarray::{ArrayViewMut2, Axis, Ix3, Ix4};

use super::tiles::{self, Problem};
use super::{AttentionOptions, MAX_HEAD_DIM, check_heads, check_memory};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut};

/// [`attention`](super::attention) of many sequences at once, each within itself. The bits are
/// those of one call a sequence.
///
/// | argument | shape |
/// |---|---|
/// | `q` | `[Tq, H, D]`: the queries of all sequences, one after the other |
/// | `k` | `[Tk, Hkv, D]` |
/// | `v` | `[Tk, Hkv, Dv]` |
/// | `q_offsets` | `[N + 1]`: sequence `n` has the queries `q_offsets[n] .. q_offsets[n + 1]` |
/// | `kv_offsets` | `[N + 1]`, the same for keys and values |
/// | `out` | `[Tq, H, Dv]` |
/// | `lse` | `[H, Tq]` |
///
/// Offsets begin with 0, never fall, and end with `Tq` and `Tk`. `options` may hold neither
/// `kv_lengths` nor `bias` nor `mask`, which belong to a batch.
///
/// # Errors
/// Those of `attention`, and [`Error::Argument`] for offsets or options that do not fit.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention_varlen};
/// use ndarray::Array3;
/// let (q, k) = (Array3::<f32>::ones((3, 1, 4)), Array3::<f32>::ones((5, 1, 4)));
/// let v = Array3::from_shape_fn((5, 1, 1), |(j, _, _)| j as f32);
/// let mut out = Array3::<f32>::zeros((3, 1, 1));
/// let options = AttentionOptions::default();
/// attention_varlen(q.view(), k.view(), v.view(), &[0, 1, 3], &[0, 2, 5], &options, out.view_mut(), None)?;
/// assert_eq!(out.into_raw_vec_and_offset().0, [0.5, 3.0, 3.0]); // means of values 0..2 and 2..5
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[allow(clippy::too_many_arguments)]
pub fn attention_varlen<'a>(
    q: impl Into<Floats<'a, Ix3>>,
    k: impl Into<Floats<'a, Ix3>>,
    v: impl Into<Floats<'a, Ix3>>,
    q_offsets: &[usize],
    kv_offsets: &[usize],
    options: &AttentionOptions,
    out: impl Into<FloatsMut<'a, Ix3>>,
    lse: Option<ArrayViewMut2<'a, f32>>,
) -> Result<()> {
    let (q, k, v, out) = (q.into(), k.into(), v.into(), out.into());
    let [queries, heads, dim] = *q.shape() else { unreachable!("three axes") };
    let (keys, kv_heads, value_dim) = (k.shape()[0], k.shape()[1], v.shape()[2]);
    if !(1..=MAX_HEAD_DIM).contains(&dim) {
        return Err(Error::shape("q", q.shape(), format!("[Tq, H, D] with D 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("k", k.shape(), &[keys, kv_heads, dim])?;
    check_heads(k.shape(), kv_heads, heads)?;
    if !(1..=MAX_HEAD_DIM).contains(&value_dim) {
        return Err(Error::shape("v", v.shape(), format!("[Tk, Hkv, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("v", v.shape(), &[keys, kv_heads, value_dim])?;
    check_shape("out", out.shape(), &[queries, heads, value_dim])?;
    check_memory(&q, &k, &v)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &[heads, queries])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    check_offsets("q_offsets", q_offsets, queries)?;
    check_offsets("kv_offsets", kv_offsets, keys)?;
    check_shape("kv_offsets", &[kv_offsets.len()], &[q_offsets.len()])?;
    for (arg, given) in [
        ("kv_lengths", options.kv_lengths.is_some()),
        ("bias", options.bias.is_some()),
        ("mask", options.mask.is_some()),
    ] {
        if given {
            return Err(Error::argument(arg, "given", "none for packed sequences"));
        }
    }
    options.check([1, heads, queries, keys])?;
    let (factor, cap) = options.factors(dim);

    // `[T, H, D]` as one batch entry `[1, H, T, D]`.
    let entry =
        |x: Floats<'a, Ix3>| -> Floats<'a, Ix4> { x.permuted_axes(ndarray::Dim([1, 0, 2])).insert_axis() };
    let (mut q, mut k, mut v) = (entry(q), entry(k), entry(v));
    let mut out = out.permuted_axes(ndarray::Dim([1, 0, 2])).insert_axis();
    let mut lse = lse.map(|l| l.insert_axis(Axis(0)));
    let mut calls = Vec::with_capacity(q_offsets.len() - 1);
    for (a, b) in q_offsets.windows(2).zip(kv_offsets.windows(2)) {
        let (queries, keys) = (a[1] - a[0], b[1] - b[0]);
        let (own_q, own_k, own_v, own_out, own_lse);
        (own_q, q) = q.split_at(2, queries);
        (own_k, k) = k.split_at(2, keys);
        (own_v, v) = v.split_at(2, keys);
        (own_out, out) = out.split_at(2, queries);
        (own_lse, lse) = lse.map(|l| l.split_at(Axis(2), queries)).unzip();
        calls.push((Problem { q: own_q, k: own_k, v: own_v, factor, cap, options }, own_out, own_lse));
    }
    tiles::run(calls);
    Ok(())
}

fn check_offsets(arg: &'static str, offsets: &[usize], total: usize) -> Result<()> {
    let fits = offsets.first() == Some(&0) && offsets.last() == Some(&total) && offsets.is_sorted();
    match fits {
        true => Ok(()),
        false => Err(Error::argument(
            arg,
            format!("{:?}{}", &offsets[..offsets.len().min(8)], if offsets.len() > 8 { "..." } else { "" }),
            format!("numbers from 0 to {total} that never fall"),
        )),
    }
}
