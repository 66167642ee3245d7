//! Sinusoidal embedding of time.

use ndarray::{ArrayView1, ArrayViewMut2, Axis};

use crate::error::{Error, Result};
use crate::threads;

/// Embeds each time of `t` `[B]` in `out` `[B, dim]`, `dim` even: cosines first, then sines, of
/// `t * max_period^(-i / (dim/2))` for `i` in `0..dim/2`.
///
/// Frequencies are rounded to f32; argument, sine and cosine are computed in f64 and rounded
/// once, so that large times lose nothing. A. Vaswani et al., arXiv:1706.03762; J. Ho et al.,
/// arXiv:2006.11239; order of DiT.
///
/// ```
/// use ndarray::{Array2, arr1, arr2};
/// let mut out = Array2::zeros((1, 4));
/// dgm_core::nn::timestep_embedding(arr1(&[0.0]).view(), 10_000.0, out.view_mut())?;
/// assert_eq!(out, arr2(&[[1.0, 1.0, 0.0, 0.0]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the rows of `out` are not those of `t` or `dim` is odd;
/// [`Error::Range`] when `max_period` is not a finite positive number.
pub fn timestep_embedding(t: ArrayView1<f32>, max_period: f32, mut out: ArrayViewMut2<f32>) -> Result<()> {
    if !(max_period.is_finite() && max_period > 0.0) {
        return Err(Error::range("max_period", max_period, "a finite positive number"));
    }
    let (rows, dim) = out.dim();
    if rows != t.len() || dim % 2 != 0 {
        return Err(Error::shape("out", out.shape(), format!("[{}, dim] with dim even", t.len())));
    }
    if out.is_empty() {
        return Ok(()); // `dim` of no rows may be anything
    }
    let half = dim / 2;
    let rate = -libm::log(f64::from(max_period));
    let frequency = |i: usize| libm::exp(rate * i as f64 / half as f64) as f32;
    threads::with_scratch(half, |frequencies| {
        frequencies.iter_mut().enumerate().for_each(|(i, f)| *f = frequency(i));
        let work = 200 * (rows * half) as u64;
        threads::for_each(t.iter().zip(out.axis_iter_mut(Axis(0))), work, |(&t, row)| {
            let (mut cosines, mut sines) = row.split_at(Axis(0), half);
            for (&f, (c, s)) in frequencies.iter().zip(cosines.iter_mut().zip(&mut sines)) {
                let (sin, cos) = libm::sincos(f64::from(t) * f64::from(f));
                (*c, *s) = (cos as f32, sin as f32);
            }
        });
    });
    Ok(())
}
