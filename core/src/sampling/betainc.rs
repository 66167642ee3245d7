//! Quantiles of the symmetric beta distribution.

/// The `p`-quantile of Beta(a, a), to the last few bits, by bisection on its distribution function.
pub(super) fn beta_quantile(p: f64, a: f64) -> f64 {
    if p <= 0.0 || p >= 1.0 {
        return p.clamp(0.0, 1.0);
    }
    let (mut low, mut high) = (0.0, 1.0);
    while high - low > f64::EPSILON * high {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high {
            break;
        }
        if distribution(middle, a) < p { low = middle } else { high = middle }
    }
    0.5 * (low + high)
}

/// The regularised incomplete beta function I_x(a, a) by its continued fraction (DLMF 8.17.22).
fn distribution(x: f64, a: f64) -> f64 {
    if x > 0.5 {
        return 1.0 - distribution(1.0 - x, a);
    }
    let log_beta = 2.0 * libm::lgamma(a) - libm::lgamma(2.0 * a);
    let front = libm::exp(a * libm::log(x) + a * libm::log1p(-x) - log_beta) / a;
    front / fraction(x, a)
}

/// `1 + d_1 / (1 + d_2 / (1 + ...))`, from the tail: 200 terms are far more than x <= 1/2 needs.
fn fraction(x: f64, a: f64) -> f64 {
    (1..=200).rev().fold(1.0, |tail, term: u32| {
        let m = f64::from(term / 2);
        let d = if term % 2 == 1 {
            -(a + m) * (2.0 * a + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        } else {
            m * (a - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        };
        1.0 + d / tail
    })
}

#[cfg(test)]
mod tests {
    use super::beta_quantile;

    /// Values of scipy.stats.beta.ppf(p, 0.6, 0.6).
    #[test]
    fn quantiles() {
        assert_eq!((beta_quantile(0.0, 0.6), beta_quantile(1.0, 0.6)), (0.0, 1.0));
        assert!((beta_quantile(0.5, 0.6) - 0.5).abs() < 1e-15);
        // Beta(1, 1) is uniform, Beta(2, 2) has the distribution 3 x^2 - 2 x^3.
        for p in [0.01, 0.3, 0.77, 0.999] {
            assert!((beta_quantile(p, 1.0) - p).abs() < 1e-14);
            let x = beta_quantile(p, 2.0);
            assert!((3.0 * x * x - 2.0 * x * x * x - p).abs() < 1e-13);
        }
        for (p, expected) in SCIPY {
            assert!((beta_quantile(p, 0.6) - expected).abs() < 1e-12, "{p}");
        }
    }

    const SCIPY: [(f64, f64); 4] = [
        (0.1, 0.03958440558878085),
        (0.25, 0.17568037865269498),
        (1.0 / 3.0, 0.2754132907776234),
        (0.9, 0.9604155944112192),
    ];
}
