//! What a model output says about x0 and about the direction of the ODE: linear maps
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

/// x0 from the state and the output.
pub(super) fn data(prediction: Prediction, n: &Node) -> Map {
    let (a, s) = (n.alpha, n.sigma);
    match prediction {
        Prediction::Epsilon => Map { x: 1.0 / a, y: -s / a },
        Prediction::X0 => Map { x: 0.0, y: 1.0 },
        Prediction::V => Map { x: a / (a * a + s * s), y: -s / (a * a + s * s) },
        Prediction::Velocity => Map { x: 1.0 / (a + s), y: -s / (a + s) },
    }
}

/// eps from the state and the output.
fn noise(prediction: Prediction, n: &Node) -> Map {
    let (a, s) = (n.alpha, n.sigma);
    match prediction {
        Prediction::Epsilon => Map { x: 0.0, y: 1.0 },
        Prediction::X0 => Map { x: 1.0 / s, y: -a / s },
        Prediction::V => Map { x: s / (a * a + s * s), y: a / (a * a + s * s) },
        Prediction::Velocity => Map { x: 1.0 / (a + s), y: a / (a + s) },
    }
}

/// The derivative along the process's ODE coordinate (see `Levels::coordinate`) from the state
/// and a prediction: the velocity `eps - x0` of a flow, the eps of a VP process.
pub(super) fn derivative(process: Process, prediction: Prediction, n: &Node) -> Map {
    match (process, prediction) {
        // Written out because the difference below would be 1/(a+s) - 1/(a+s), not an exact 0.
        (Process::Flow, Prediction::Velocity) => Map { x: 0.0, y: 1.0 },
        (Process::Flow, _) => {
            let (e, d) = (noise(prediction, n), data(prediction, n));
            Map { x: e.x - d.x, y: e.y - d.y }
        }
        _ => noise(prediction, n),
    }
}

/// What `derivative` is taken from: the raw output, or the clipped x0.
pub(super) fn derivative_source(options: &PlanOptions) -> Prediction {
    if options.clip.is_some() { Prediction::X0 } else { options.prediction }
}
