//! How well chains have mixed: pure functions of their draws.

use crate::error::{Error, Result};

/// The draws of every chain cut in two, as (mean, variance) of each half and the halves themselves.
fn halves(draws: &[f64], chains: usize) -> Result<Vec<&[f64]>> {
    if chains == 0 || !draws.len().is_multiple_of(chains) || draws.len() / chains < 4 {
        return Err(Error::shape("draws", &[draws.len()], format!("{chains} chains of 4 draws or more")));
    }
    if let Some(i) = draws.iter().position(|v| !v.is_finite()) {
        return Err(Error::range("draws", format!("{} at index {i}", draws[i]), "finite numbers"));
    }
    let n = draws.len() / chains;
    let half = n / 2;
    // An odd draw in the middle is left out.
    Ok(draws.chunks_exact(n).flat_map(|c| [&c[..half], &c[n - half..]]).collect())
}

fn mean(x: &[f64]) -> f64 {
    x.iter().sum::<f64>() / x.len() as f64
}

/// Variance within the parts, and the estimate of the whole variance (Gelman & Rubin 1992).
fn variances(parts: &[&[f64]]) -> (f64, f64) {
    let (m, n) = (parts.len() as f64, parts[0].len() as f64);
    let means: Vec<f64> = parts.iter().map(|p| mean(p)).collect();
    let within = parts
        .iter()
        .zip(&means)
        .map(|(p, a)| p.iter().map(|v| (v - a) * (v - a)).sum::<f64>() / (n - 1.0))
        .sum::<f64>()
        / m;
    let centre = mean(&means);
    let between = means.iter().map(|a| (a - centre) * (a - centre)).sum::<f64>() / (m - 1.0);
    (within, within * (n - 1.0) / n + between)
}

/// Split R-hat of `chains` chains, `draws` being `[chains, n]`: the ratio of the deviation over all
/// halves of chains to that within them; 1 where they agree (Gelman 2013, section 11.4). NaN where
/// nothing moves.
///
/// ```
/// use dgm_core::sampling::split_r_hat;
/// assert!(split_r_hat(&[0.0, 1.0, 0.0, 1.0, 5.0, 6.0, 5.0, 6.0], 2)? > 2.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] for fewer than four draws a chain, [`Error::Range`] for numbers that are not finite.
pub fn split_r_hat(draws: &[f64], chains: usize) -> Result<f64> {
    let (within, whole) = variances(&halves(draws, chains)?);
    Ok(libm::sqrt(whole / within))
}

/// Effective number of independent draws in `[chains, n]`, over split chains, by the initial monotone
/// sequence of paired autocorrelations (Geyer 1992; Gelman 2013, section 11.5). NaN where nothing moves.
///
/// ```
/// use dgm_core::sampling::effective_sample_size;
/// let alternating: Vec<f64> = (0..100).map(|i| f64::from(i % 2)).collect();
/// assert!(effective_sample_size(&alternating, 1)? > 100.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`split_r_hat`].
pub fn effective_sample_size(draws: &[f64], chains: usize) -> Result<f64> {
    let parts = halves(draws, chains)?;
    let (m, n) = (parts.len(), parts[0].len());
    let (within, whole) = variances(&parts);
    if whole.is_nan() || whole <= 0.0 {
        return Ok(f64::NAN);
    }
    let centred: Vec<Vec<f64>> = parts
        .iter()
        .map(|p| {
            let a = mean(p);
            p.iter().map(|v| v - a).collect()
        })
        .collect();
    // Autocovariances over n, averaged over the parts, against the whole variance.
    let correlation = |lag: usize| {
        let sum: f64 = centred.iter().map(|c| c.iter().zip(&c[lag..]).map(|(a, b)| a * b).sum::<f64>()).sum();
        1.0 - (within - sum / (n * m) as f64) / whole
    };
    let mut total = 0.0;
    let mut least = f64::INFINITY;
    for pair in 0..n / 2 {
        let sum =
            if pair == 0 { 1.0 + correlation(1) } else { correlation(2 * pair) + correlation(2 * pair + 1) };
        if sum < 0.0 {
            break;
        }
        least = least.min(sum);
        total += least;
    }
    let time = 2.0 * total - 1.0;
    let count = (n * m) as f64;
    // Antithetic chains are worth more than their draws, by no more than this.
    Ok((count / time.max(1.0 / libm::log10(count))).min(count * libm::log10(count)))
}
