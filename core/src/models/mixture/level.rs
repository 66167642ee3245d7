//! What a mixture is at one noise level.

use super::GaussianMixture;
use crate::error::{Error, Result};
use crate::sampling::{Prediction, weights};

/// `ln(2 pi)`
const LN_TAU: f64 = 1.837_877_066_409_345_3;

/// A dimension of a component, rounded once. With `d = x - mean`, x as the model reads it: `(scale d)^2` is what it
/// takes off the base-2 logarithm of the density, and `slope d + offset` its part of the answer.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Part {
    pub mean: f32,
    pub scale: f32,
    pub slope: f32,
    pub offset: f32,
}

/// The coefficients of a level; empty before the first.
#[derive(Debug, Default)]
pub(super) struct Level {
    /// Mixture, prediction, level.
    key: Option<(u64, Prediction, [u64; 3])>,
    pub dims: usize,
    /// Base-2 logarithms of the components' greatest densities, less the greatest of them, `[K]`.
    pub heights: Vec<f32>,
    /// `[K, D]`
    pub parts: Vec<Part>,
    /// Natural logarithms of the components' greatest densities, `[K]`.
    pub log_heights: Vec<f64>,
    /// Mean and inverse variance of the components, in the units of the noised data, `[K, D]`.
    pub exact: Vec<[f64; 2]>,
}

impl Level {
    /// Becomes that of a prediction at a level; nothing happens where it is that already.
    pub(super) fn set(
        &mut self,
        mixture: &GaussianMixture,
        prediction: Prediction,
        alpha: f64,
        sigma: f64,
        sigma_data: f64,
    ) -> Result<()> {
        let key = Some((mixture.id, prediction, [alpha, sigma, sigma_data].map(f64::to_bits)));
        if self.key == key {
            return Ok(());
        }
        self.key = None;
        for (arg, value) in [("alpha", alpha), ("sigma", sigma)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::range(arg, value, "a finite number, not negative"));
            }
        }
        if !(sigma_data.is_finite() && sigma_data > 0.0) {
            return Err(Error::range("sigma_data", sigma_data, "a finite number above 0"));
        }
        let Some(w) = weights(prediction, alpha, sigma, sigma_data) else {
            let expected = "one that follows from the score";
            return Err(Error::argument("prediction", prediction.name(), expected));
        };
        self.dims = mixture.dims;
        self.parts.clear();
        self.exact.clear();
        self.log_heights.clear();
        let components =
            mixture.means.chunks_exact(mixture.dims).zip(mixture.variances.chunks_exact(mixture.dims));
        for (k, (means, variances)) in components.enumerate() {
            let mut product = mixture.log_weights[k] - 0.5 * mixture.dims as f64 * LN_TAU;
            for (d, (mean, v)) in means.iter().zip(variances).enumerate() {
                let variance = alpha * alpha * v + sigma * sigma;
                let part = Part {
                    mean: (alpha * mean * w.input) as f32,
                    scale: (libm::sqrt(0.5 * std::f64::consts::LOG2_E / variance) / w.input) as f32,
                    slope: ((w.data * alpha * v + w.slope) / variance / w.input) as f32,
                    offset: (w.data * mean) as f32,
                };
                let rounded = [part.mean, part.scale, part.slope, part.offset];
                if !variance.is_finite() || !rounded.iter().all(|p| p.is_finite()) {
                    let got = format!(
                        "{v} of component {k} at dimension {d}, with alpha {alpha} and sigma {sigma}"
                    );
                    let expected =
                        "variances above 0 at the noise level, with coefficients that f32 can hold";
                    return Err(Error::range("variances", got, expected));
                }
                self.parts.push(part);
                self.exact.push([alpha * mean, 1.0 / variance]);
                product -= 0.5 * libm::log(variance);
            }
            self.log_heights.push(product);
        }
        let most = self.log_heights.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        self.heights.clear();
        self.heights.extend(self.log_heights.iter().map(|h| ((h - most) * std::f64::consts::LOG2_E) as f32));
        self.key = key;
        Ok(())
    }
}
