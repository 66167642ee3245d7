//! Drawing one of several classes from logits.

use ndarray::{ArrayView1, ArrayView2, Axis};

use super::check_seeds;
use super::philox::Stream;
use crate::error::{Error, Result};
use crate::threads;

/// Draws `out[r]` in `0..V` with probability `softmax(logits[r])`, `logits` being `[rows, V]`.
///
/// The inverse of the cumulative distribution in f64: weights `exp(logit - max)`, one uniform
/// of 53 bits from the row's stream, the first index whose running sum exceeds it. A logit of
/// -infinity is never chosen. Row `r` depends on `logits[r]` and `seeds[r]` alone.
///
/// ```
/// use dgm_core::random::{self, Purpose};
/// let logits = ndarray::arr2(&[[0.0, f32::NEG_INFINITY], [f32::NEG_INFINITY, 3.0]]);
/// let mut classes = [0; 2];
/// random::categorical(logits.view(), &[1, 2], Purpose::User as u32, 0, &mut classes)?;
/// assert_eq!(classes, [0, 1]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `seeds` or `out` has another length than `rows`, or `V` is 0;
/// [`Error::Range`], naming the row, for a NaN or +infinity and for a row without any finite
/// logit. `out` is then untouched.
pub fn categorical(
    logits: ArrayView2<f32>,
    seeds: &[u64],
    purpose: u32,
    draw: u32,
    out: &mut [i64],
) -> Result<()> {
    let (rows, classes) = logits.dim();
    check_seeds(seeds, rows)?;
    if out.len() != rows {
        return Err(Error::shape("out", &[out.len()], format!("[{rows}], one for each row of logits")));
    }
    if classes == 0 && rows > 0 {
        return Err(Error::shape("logits", &[rows, 0], "[rows, classes] with at least one class"));
    }
    for (r, row) in logits.axis_iter(Axis(0)).enumerate() {
        if let Some((i, l)) = row.iter().enumerate().find(|(_, l)| l.is_nan() || **l == f32::INFINITY) {
            let got = format!("{l} at row {r}, class {i}");
            return Err(Error::range("logits", got, "finite numbers or -infinity"));
        }
        if row.iter().all(|&l| l == f32::NEG_INFINITY) {
            let got = format!("-infinity for every class of row {r}");
            return Err(Error::range("logits", got, "at least one finite logit in a row"));
        }
    }
    let work = 60u64.saturating_mul(logits.len() as u64);
    let items = logits.axis_iter(Axis(0)).zip(seeds).zip(out);
    threads::for_each(items, work, |((row, &seed), out)| {
        *out = draw_class(row, uniform53(Stream { seed, purpose, draw })) as i64;
    });
    Ok(())
}

/// In [0, 1): the top 53 bits of the first two words, the first word being the high one.
fn uniform53(stream: Stream) -> f64 {
    let [w0, w1, ..] = stream.words(0);
    let bits = (u64::from(w0) << 32 | u64::from(w1)) >> 11;
    bits as f64 * (1.0 / 9_007_199_254_740_992.0)
}

fn draw_class(logits: ArrayView1<f32>, u: f64) -> usize {
    let max = f64::from(logits.fold(f32::NEG_INFINITY, |m, &l| if l > m { l } else { m }));
    let weight = |l: f32| libm::exp(f64::from(l) - max);
    let target = u * logits.fold(0.0, |sum, &l| sum + weight(l));
    let (mut sum, mut last) = (0.0, 0);
    for (i, &l) in logits.iter().enumerate() {
        let w = weight(l);
        if w > 0.0 {
            sum += w;
            if sum > target {
                return i;
            }
            last = i;
        }
    }
    // Only when u * total rounds up to the total.
    last
}
