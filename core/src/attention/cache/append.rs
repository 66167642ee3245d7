//! New tokens into a cache.

use ndarray::{ArrayView1, ArrayViewMut1, ArrayViewMut3, ArrayViewMut4, Ix4, s};

use super::{KvCacheMut, PagesMut, Sizes};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::nn::Rope;
use crate::tensor::{Element, Floats, each};
use crate::threads;

/// Appends new keys `[B, Hkv, N, D]` and values `[B, Hkv, N, Dv]` to a cache and adds them to its
/// lengths.
///
/// `counts` `[B]` says how many of the `N` belong to each batch entry; `None` is all of them. With
/// `rope` a key is turned by its position, the number of tokens before it. A number is rounded once,
/// to the cache's type. In an int8 cache a token of a head has `scale = max |x| / 127` and the
/// numbers `rint(x / scale)`; a token that is not finite becomes NaN as a whole.
///
/// # Errors
/// Those of the cache; [`Error::Range`] where the tokens, or their positions in the tables of `rope`,
/// have no place; [`Error::Argument`] where two batch entries would write to one page
/// ([`cache_fork`](super::cache_fork) it first). The cache is untouched on error.
///
/// ```
/// use dgm_core::attention::{KvCacheMut, cache_append};
/// use ndarray::Array4;
/// let (mut k, mut v) = (Array4::<f32>::zeros((1, 1, 8, 4)), Array4::<f32>::zeros((1, 1, 8, 4)));
/// let mut lengths = [3];
/// let new = Array4::<f32>::ones((1, 1, 2, 4));
/// let mut cache = KvCacheMut {
///     k: k.view_mut().into(),
///     v: v.view_mut().into(),
///     k_scale: None,
///     v_scale: None,
///     block_table: None,
///     lengths: &mut lengths,
/// };
/// cache_append(new.view(), new.view(), None, None, &mut cache)?;
/// assert_eq!(lengths, [5]);
/// assert_eq!(v.sum(), 8.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn cache_append<'a>(
    k: impl Into<Floats<'a, Ix4>>,
    v: impl Into<Floats<'a, Ix4>>,
    counts: Option<&[usize]>,
    rope: Option<&Rope>,
    cache: &mut KvCacheMut,
) -> Result<()> {
    let (k, v) = (k.into(), v.into());
    let sizes = cache.check()?;
    let new = k.shape()[2];
    for (arg, x, dim) in [("k_new", &k, sizes.dim), ("v_new", &v, sizes.value_dim)] {
        check_shape(arg, x.shape(), &[sizes.batch, sizes.kv_heads, new, dim])?;
        check_strides(arg, x.shape(), x.strides(), false)?;
    }
    if let Some(counts) = counts {
        check_shape("counts", &[counts.len()], &[sizes.batch])?;
        if let Some(n) = counts.iter().find(|&&n| n > new) {
            return Err(Error::range("counts", n, format!("0 to {new}, the new tokens")));
        }
    }
    let count = |b: usize| counts.map_or(new, |n| n[b]);
    let after: Vec<usize> =
        cache.lengths.iter().enumerate().map(|(b, n)| n.saturating_add(count(b))).collect();
    check_room(&sizes, cache, &after)?;
    if let Some(rope) = rope {
        rope.check(sizes.dim, after.iter().copied().max().unwrap_or(0))?;
    }
    write(cache, &sizes, 0, (&k, &v), &after, rope);
    cache.lengths.copy_from_slice(&after);
    Ok(())
}

/// Whether tokens up to the lengths `after` have places, of one batch entry each.
pub(crate) fn check_room(sizes: &Sizes, cache: &KvCacheMut, after: &[usize]) -> Result<()> {
    sizes.check_lengths(cache.block_table.as_ref(), after)?;
    check_owners(sizes, cache, after)
}

/// Writes new tokens, those between the cache's lengths and `after`, to the heads from `head` on. Places
/// and shapes were checked; the lengths stay.
pub(crate) fn write(
    cache: &mut KvCacheMut,
    sizes: &Sizes,
    head: usize,
    (k, v): (&Floats<Ix4>, &Floats<Ix4>),
    after: &[usize],
    rope: Option<&Rope>,
) {
    let heads = k.shape()[1];
    threads::with_scratch(sizes.dim.max(sizes.value_dim) + sizes.dim, |room| {
        let (turned, row) = room.split_at_mut(sizes.dim);
        for (b, &end) in after.iter().enumerate() {
            let start = cache.lengths[b];
            for token in start..end {
                let i = token - start;
                let (page, at) = match &cache.block_table {
                    Some(table) => (table[[b, token / sizes.page_len]] as usize, token % sizes.page_len),
                    None => (b, token),
                };
                for h in 0..heads {
                    let row_k = &mut row[..sizes.dim];
                    each!(Floats, k, x => widen(x.slice(s![b, h, i, ..]), row_k));
                    let mut row_k = &*row_k;
                    if let Some(rope) = rope {
                        rope.turn(row_k, turned, token);
                        row_k = turned;
                    }
                    store(row_k, &mut cache.k, &mut cache.k_scale, [page, head + h, at]);
                    let row_v = &mut row[..sizes.value_dim];
                    each!(Floats, v, x => widen(x.slice(s![b, h, i, ..]), row_v));
                    store(row_v, &mut cache.v, &mut cache.v_scale, [page, head + h, at]);
                }
            }
        }
    });
}

/// Refuses to write to one page for two batch entries.
fn check_owners(sizes: &Sizes, cache: &KvCacheMut, after: &[usize]) -> Result<()> {
    let Some(table) = &cache.block_table else { return Ok(()) };
    let mut written = Vec::new();
    for (b, (&from, &to)) in cache.lengths.iter().zip(after).enumerate() {
        if from < to {
            let pages = from / sizes.page_len..to.div_ceil(sizes.page_len);
            written.extend(pages.map(|n| (table[[b, n]], b)));
        }
    }
    written.sort_unstable();
    match written.windows(2).find(|w| w[0].0 == w[1].0) {
        Some(w) => Err(Error::argument(
            "block_table",
            format!("page {} to be written for batch entries {} and {}", w[0].0, w[0].1, w[1].1),
            "a page of its own for what is written",
        )),
        None => Ok(()),
    }
}

fn widen<T: Element>(from: ArrayView1<T>, to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, x)| *to = x.to_f32());
}

fn store(row: &[f32], pages: &mut PagesMut, scales: &mut Option<ArrayViewMut3<f32>>, at: [usize; 3]) {
    fn narrow<T: Element>(row: &[f32], pages: &mut ArrayViewMut4<T>, [page, h, i]: [usize; 3]) {
        pages.slice_mut(s![page, h, i, ..]).iter_mut().zip(row).for_each(|(to, &x)| *to = T::from_f32(x));
    }
    match pages {
        PagesMut::F32(x) => narrow(row, x, at),
        PagesMut::F16(x) => narrow(row, x, at),
        PagesMut::Bf16(x) => narrow(row, x, at),
        PagesMut::I8(x) => {
            let scale = quantise(row, x.slice_mut(s![at[0], at[1], at[2], ..]));
            if let Some(scales) = scales {
                scales[at] = scale;
            }
        }
    }
}

/// Integers of a row and the scale that multiplies them.
fn quantise(row: &[f32], to: ArrayViewMut1<i8>) -> f32 {
    let finite = row.iter().all(|x| x.is_finite());
    let most = row.iter().fold(0.0f32, |m, x| if x.abs() > m { x.abs() } else { m });
    let scale = if finite { most / 127.0 } else { f32::NAN };
    // Where the scale is 0 or NaN so are the numbers; a subnormal scale may be too small by half.
    let number =
        |x: f32| if scale > 0.0 { (x / scale).round_ties_even().clamp(-127.0, 127.0) as i8 } else { 0 };
    to.into_iter().zip(row).for_each(|(to, &x)| *to = number(x));
    scale
}
