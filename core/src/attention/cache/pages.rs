//! Lengths and pages.

use ndarray::{Array3, ArrayViewMut3, ArrayViewMut4, Axis};

use super::{KvCacheMut, PagesMut};
use crate::error::{Error, Result, check_shape};

/// Drops tokens from the end: entry `b` keeps the first `keep[b]` (a rejected draft, a new branch).
///
/// # Errors
/// [`Error::Range`] for more tokens than there are, with nothing changed.
///
/// ```
/// let mut lengths = [7, 4];
/// dgm_core::attention::cache_truncate(&mut lengths, &[5, 4])?;
/// assert_eq!(lengths, [5, 4]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn cache_truncate(lengths: &mut [usize], keep: &[usize]) -> Result<()> {
    check_shape("keep", &[keep.len()], &[lengths.len()])?;
    if let Some((keep, n)) = keep.iter().zip(&*lengths).find(|(keep, n)| keep > n) {
        return Err(Error::range("keep", keep, format!("0 to {n}, the tokens there are")));
    }
    lengths.copy_from_slice(keep);
    Ok(())
}

/// Copies page `from` to page `to`, scales included: what a sequence needs before it appends to a
/// page that others share (copy on write).
///
/// # Errors
/// Those of the cache, and [`Error::Range`] for a page that does not exist or is its own copy.
///
/// ```
/// use dgm_core::attention::{KvCacheMut, cache_fork};
/// use ndarray::Array4;
/// let mut k = Array4::from_shape_fn((2, 1, 2, 4), |(page, ..)| 1.0 - page as f32);
/// let mut v = k.clone();
/// let mut cache = KvCacheMut {
///     k: k.view_mut().into(),
///     v: v.view_mut().into(),
///     k_scale: None,
///     v_scale: None,
///     block_table: None,
///     lengths: &mut [2, 0],
/// };
/// cache_fork(&mut cache, 0, 1)?;
/// assert!(k.iter().chain(&v).all(|&x| x == 1.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn cache_fork(cache: &mut KvCacheMut, from: usize, to: usize) -> Result<()> {
    let sizes = cache.check()?;
    for (arg, page) in [("from", from), ("to", to)] {
        if page >= sizes.pages {
            return Err(Error::range(arg, page, format!("a page below {}", sizes.pages)));
        }
    }
    if from == to {
        return Err(Error::range("to", to, "another page than from"));
    }
    for pages in [&mut cache.k, &mut cache.v] {
        match pages {
            PagesMut::F32(x) => copy(x, from, to),
            PagesMut::F16(x) => copy(x, from, to),
            PagesMut::Bf16(x) => copy(x, from, to),
            PagesMut::I8(x) => copy(x, from, to),
        }
    }
    for scales in [&mut cache.k_scale, &mut cache.v_scale].into_iter().flatten() {
        let mut scales: ArrayViewMut3<f32> = scales.view_mut();
        let page = scales.index_axis(Axis(0), from).to_owned();
        scales.index_axis_mut(Axis(0), to).assign(&page);
    }
    Ok(())
}

fn copy<T: Copy>(x: &mut ArrayViewMut4<T>, from: usize, to: usize) {
    let page: Array3<T> = x.index_axis(Axis(0), from).to_owned();
    x.index_axis_mut(Axis(0), to).assign(&page);
}
