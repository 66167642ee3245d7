//! Sinusoidal embedding of time.

use ndarray::{Axis, Ix1, Ix2};

use crate::error::{Error, Result};
use crate::tensor::{Element, Floats, FloatsMut, each};
use crate::threads;

/// Embeds each time of `t` `[B]` in `out` `[B, dim]`, `dim` even: cosines first, then sines, of
/// `t * max_period^(-i / (dim/2))` for `i` in `0..dim/2`.
///
/// Frequencies are rounded to f32; argument, sine and cosine are computed in f64 and rounded
/// once, so that large times lose nothing. A. Vaswani et al., arXiv:1706.03762; J. Ho et al.,
/// arXiv:2006.11239; order of DiT. `t` and `out` are f32, f16 or bf16 each.
///
/// ```
/// use ndarray::{Array2, arr1, arr2};
/// let mut out = Array2::<f32>::zeros((1, 4));
/// dgm_core::nn::timestep_embedding(arr1(&[0.0]).view(), 10_000.0, out.view_mut())?;
/// assert_eq!(out, arr2(&[[1.0, 1.0, 0.0, 0.0]]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the rows of `out` are not those of `t` or `dim` is odd;
/// [`Error::Range`] when `max_period` is not a finite positive number.
pub fn timestep_embedding<'a, 'o>(
    t: impl Into<Floats<'a, Ix1>>,
    max_period: f32,
    out: impl Into<FloatsMut<'o, Ix2>>,
) -> Result<()> {
    embed_times(t.into(), max_period, out.into())
}

fn embed_times(t: Floats<Ix1>, max_period: f32, mut out: FloatsMut<Ix2>) -> Result<()> {
    if !(max_period.is_finite() && max_period > 0.0) {
        return Err(Error::range("max_period", max_period, "a finite positive number"));
    }
    let (rows, &[out_rows, dim]) = (t.shape()[0], out.shape()) else { unreachable!("two axes") };
    if rows != out_rows || dim % 2 != 0 {
        return Err(Error::shape("out", out.shape(), format!("[{rows}, dim] with dim even")));
    }
    if rows == 0 || dim == 0 {
        return Ok(()); // `dim` of no rows may be anything
    }
    let half = dim / 2;
    let rate = -libm::log(f64::from(max_period));
    let frequency = |i: usize| libm::exp(rate * i as f64 / half as f64) as f32;
    threads::with_scratch(half, |frequencies| {
        frequencies.iter_mut().enumerate().for_each(|(i, f)| *f = frequency(i));
        let work = 200 * (rows * half) as u64;
        each!(Floats, &t, t => each!(FloatsMut, &mut out, out => {
            threads::for_each(t.iter().zip(out.axis_iter_mut(Axis(0))), work, |(&t, row)| {
                let (mut cosines, mut sines) = row.split_at(Axis(0), half);
                for (&f, (c, s)) in frequencies.iter().zip(cosines.iter_mut().zip(&mut sines)) {
                    let (sin, cos) = libm::sincos(f64::from(Element::to_f32(t)) * f64::from(f));
                    (*c, *s) = (Element::from_f32(cos as f32), Element::from_f32(sin as f32));
                }
            });
        }));
    });
    Ok(())
}

/// The embedding of one time in a row of twice as many numbers as `frequencies`.
pub(crate) fn embed_time(t: f64, frequencies: &[f64], out: &mut [f32]) {
    let (cosines, sines) = out.split_at_mut(frequencies.len());
    for ((c, s), f) in cosines.iter_mut().zip(sines).zip(frequencies) {
        let (sin, cos) = libm::sincos(t * f);
        (*c, *s) = (cos as f32, sin as f32);
    }
}
