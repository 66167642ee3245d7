//! From what a model predicts to x0, eps and the direction of the ODE: linear maps
//! `q = qx x + qy y` whose coefficients depend on the level alone.

use super::options::{PlanOptions, Prediction, Process};
use super::process::Node;

/// A linear function of the state and the model output, `x * self.x + y * self.y`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Map {
    pub x: f64,
    pub y: f64,
}

impl Map {
    /// Whether the quantity is defined at this level, with coefficients that f32 can hold.
    pub(super) fn is_defined(&self) -> bool {
        (self.x as f32).is_finite() && (self.y as f32).is_finite()
    }
}

/// Predictions of a plan: what the output means, and the scale of the data where it matters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Meaning {
    pub prediction: Prediction,
    process: Process,
    data: f64,
    /// Where a consistency model is the identity.
    least: f64,
}

impl Meaning {
    pub(super) fn new(options: &PlanOptions, prediction: Prediction) -> Meaning {
        let least = if options.sigma_min == 0.0 { 0.002 } else { options.sigma_min };
        Meaning { prediction, process: options.process, data: options.sigma_data, least }
    }

    /// x0 from the state and the output.
    pub(super) fn data(&self, n: &Node) -> Map {
        let (a, s, d) = (n.alpha, n.sigma, self.data);
        match self.prediction {
            Prediction::Epsilon => Map { x: 1.0 / a, y: -s / a },
            Prediction::X0 => Map { x: 0.0, y: 1.0 },
            Prediction::V => Map { x: a / (a * a + s * s), y: -s / (a * a + s * s) },
            Prediction::Velocity => Map { x: 1.0 / (a + s), y: -s / (a + s) },
            Prediction::Score => Map { x: 1.0 / a, y: s * s / a },
            Prediction::Edm | Prediction::EdmV => {
                let q = s * s + a * a * d * d;
                Map { x: a * d * d / q, y: self.sign() * s * d / libm::sqrt(q) }
            }
            Prediction::TrigFlow => {
                let norm = libm::hypot(a, s / d);
                Map { x: a / norm / norm, y: -s / norm }
            }
            Prediction::Consistency => {
                let u = s / a - self.least;
                Map { x: d * d / (u * u + d * d) / a, y: u * d / libm::hypot(s / a, d) }
            }
        }
    }

    /// eps from the state and the output.
    pub(super) fn noise(&self, n: &Node) -> Map {
        let (a, s, d) = (n.alpha, n.sigma, self.data);
        match self.prediction {
            Prediction::Epsilon => Map { x: 0.0, y: 1.0 },
            Prediction::X0 => Map { x: 1.0 / s, y: -a / s },
            Prediction::V => Map { x: s / (a * a + s * s), y: a / (a * a + s * s) },
            Prediction::Velocity => Map { x: 1.0 / (a + s), y: a / (a + s) },
            Prediction::Score => Map { x: 0.0, y: -s },
            Prediction::Edm | Prediction::EdmV => {
                let q = s * s + a * a * d * d;
                Map { x: s / q, y: -self.sign() * a * d / libm::sqrt(q) }
            }
            Prediction::TrigFlow => {
                let norm = libm::hypot(a, s / d);
                Map { x: s / (d * d) / norm / norm, y: a / norm }
            }
            Prediction::Consistency => {
                let data = self.data(n);
                Map { x: (1.0 - a * data.x) / s, y: -a * data.y / s }
            }
        }
    }

    fn sign(&self) -> f64 {
        if self.prediction == Prediction::EdmV { -1.0 } else { 1.0 }
    }

    /// What multiplies the state before the model reads it.
    pub(super) fn input_scale(&self, n: &Node) -> f64 {
        let (a, s, d) = (n.alpha, n.sigma, self.data);
        match self.prediction {
            Prediction::Edm | Prediction::EdmV | Prediction::Consistency => 1.0 / libm::hypot(s, a * d),
            Prediction::TrigFlow => 1.0 / libm::hypot(a * d, s),
            _ => 1.0,
        }
    }

    /// The derivative along the process's ODE coordinate (see `Levels::coordinate`) from the
    /// state and a prediction: the velocity `eps - x0` of a flow, `dx/dt` of TrigFlow, eps else.
    pub(super) fn derivative(&self, n: &Node) -> Map {
        let mix = |eps: f64, x0: f64| {
            let (e, d) = (self.noise(n), self.data(n));
            Map { x: eps * e.x + x0 * d.x, y: eps * e.y + x0 * d.y }
        };
        match (self.process, self.prediction) {
            // Written out because the differences below would not be an exact 0.
            (Process::Flow, Prediction::Velocity) | (Process::Ode | Process::Sde | Process::Target, _) => {
                Map { x: 0.0, y: 1.0 }
            }
            (Process::TrigFlow, Prediction::TrigFlow) => Map { x: 0.0, y: self.data },
            (Process::Flow, _) => {
                let (e, d) = (self.noise(n), self.data(n));
                Map { x: e.x - d.x, y: e.y - d.y }
            }
            (Process::TrigFlow, _) => mix(self.data * n.alpha, -n.sigma / self.data),
            _ => self.noise(n),
        }
    }
}

/// An output in terms of what is known of a noised sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Weights {
    /// What multiplies the expected x0.
    pub data: f64,
    /// What multiplies `-score`, the expected eps over sigma.
    pub slope: f64,
    /// What multiplied the sample before the model read it.
    pub input: f64,
}

/// The weights of a prediction at a level: the maps above the other way round, for models whose score is known.
///
/// None for a consistency model, which lands where the ODE does.
pub(crate) fn weights(prediction: Prediction, alpha: f64, sigma: f64, data: f64) -> Option<Weights> {
    let (a, s, d) = (alpha, sigma, data);
    let meaning = Meaning { prediction, process: Process::Flow, data, least: 0.0 };
    let input = meaning.input_scale(&Node { t: 0.0, alpha, sigma });
    let [data, slope] = match prediction {
        Prediction::Epsilon => [0.0, s],
        Prediction::X0 => [1.0, 0.0],
        Prediction::V => [-s, a * s],
        Prediction::Velocity => [-1.0, s],
        Prediction::Score => [0.0, -1.0],
        Prediction::Edm | Prediction::EdmV => {
            let root = libm::hypot(s, a * d);
            [meaning.sign() * s / (root * d), -meaning.sign() * a * d * s / root]
        }
        Prediction::TrigFlow => {
            let norm = libm::hypot(a, s / d);
            [-s / (d * d * norm), a * s / norm]
        }
        Prediction::Consistency => return None,
    };
    Some(Weights { data, slope, input })
}

/// What `derivative` is taken from: the raw output, or the x0 that was clipped, thresholded or guided.
pub(super) fn derivative_source(options: &PlanOptions) -> Prediction {
    if options.clip.is_some() || options.threshold_ratio != 0.0 { Prediction::X0 } else { options.prediction }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What [`weights`] makes of x0 and eps, the maps take apart again.
    #[test]
    fn weights_are_the_maps_the_other_way_round() {
        let (x0, eps) = (0.8, -1.7);
        for &prediction in Prediction::ALL {
            for (alpha, sigma) in [(0.6, 0.8), (1.0, 3.0), (0.3, 0.7), (0.9, 0.01)] {
                for data in [0.5, 1.0, 2.0] {
                    let Some(w) = weights(prediction, alpha, sigma, data) else {
                        assert_eq!(prediction, Prediction::Consistency);
                        continue;
                    };
                    let y = w.data * x0 + w.slope * eps / sigma;
                    let x = alpha * x0 + sigma * eps;
                    let meaning = Meaning { prediction, process: Process::Edm, data, least: 0.0 };
                    let node = Node { t: 0.0, alpha, sigma };
                    let (of_data, of_noise) = (meaning.data(&node), meaning.noise(&node));
                    let case = format!("{prediction:?} {alpha} {sigma} {data}");
                    assert!((of_data.x * x + of_data.y * y - x0).abs() < 1e-12, "{case}");
                    assert!((of_noise.x * x + of_noise.y * y - eps).abs() < 1e-10, "{case}");
                    assert_eq!(w.input, meaning.input_scale(&node), "{case}");
                }
            }
        }
    }
}
