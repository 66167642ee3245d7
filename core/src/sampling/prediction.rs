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

/// What `derivative` is taken from: the raw output, or the x0 that was clipped, thresholded or guided.
pub(super) fn derivative_source(options: &PlanOptions) -> Prediction {
    if options.clip.is_some() || options.threshold_ratio != 0.0 { Prediction::X0 } else { options.prediction }
}
