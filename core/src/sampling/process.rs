//! Noise levels: what a model time means.

use super::betas;
use super::options::{MAX_STEPS, PlanOptions, Process};
use crate::error::Result;

/// A model time and the mixture it stands for: `x_t = alpha x0 + sigma eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Model time: flow 1 (noise) to 0 (data); VP the training step, -1 for clean data; VE sigma;
    /// EDM `ln(sigma) / 4`, -100 for clean data; TrigFlow pi/2 to 0; ode the caller's own (alpha 0, sigma 1).
    pub t: f64,
    /// Weight of the data.
    pub alpha: f64,
    /// Weight of the noise.
    pub sigma: f64,
}

impl Node {
    /// Half the log signal-to-noise ratio, `ln(alpha / sigma)`: -inf for pure noise, +inf for data.
    pub fn lambda(&self) -> f64 {
        if self.sigma == 0.0 {
            f64::INFINITY
        } else if self.alpha == 0.0 {
            f64::NEG_INFINITY
        } else {
            libm::log(self.alpha) - libm::log(self.sigma)
        }
    }

    /// Whether lambda is finite: some signal and some noise.
    pub(super) fn is_mixed(&self) -> bool {
        self.alpha != 0.0 && self.sigma != 0.0
    }
}

/// Least time of the continuous VP process that a spacing visits (Song 2021).
const CONTINUOUS_LEAST: f64 = 1e-3;

/// Model time of EDM's clean data, below every level's.
const CLEAN_LOG_TIME: f64 = -100.0;

/// Offset of the cosine of Stable Cascade, and its angle at time 0.
const CASCADE_S: f64 = 0.008;
const CASCADE_ANGLE: f64 = CASCADE_S / (1.0 + CASCADE_S) * std::f64::consts::FRAC_PI_2;

/// `sigma / alpha` where alpha squared is 0.9999 and 0.0001.
const CASCADE_RATIOS: (f64, f64) = (0.010_000_500_037_503_125, 99.994_999_874_993_75);

/// `sigma / alpha` of a time, inside the bounds.
fn cascade_ratio(t: f64, shift: f64) -> f64 {
    let angle = (t + CASCADE_S) / (1.0 + CASCADE_S) * std::f64::consts::FRAC_PI_2;
    let root = libm::cos(angle) / libm::cos(CASCADE_ANGLE);
    let ratio = shift * libm::sqrt((1.0 - root * root).max(0.0)) / root;
    ratio.clamp(CASCADE_RATIOS.0, CASCADE_RATIOS.1)
}

/// The process with its tables built.
#[derive(Debug, Clone)]
pub(super) enum Levels {
    Flow {
        /// The least noisy time of training, `1 / train_steps`.
        least: f64,
    },
    /// Sigma of the data; least and greatest time of a spacing.
    Trig { data: f64, range: (f64, f64) },
    /// `log_ratio[t] = ln(sigma/alpha)` of training step t, ascending. Between steps the ratio is
    /// log-linear, or linear where a peer's is.
    Vp { log_ratio: Vec<f64>, linear: bool },
    /// Betas grow linearly over the time 0 to 1; `sub` with the smaller noise of sub-VP.
    Continuous { beta: (f64, f64), sub: bool },
    /// Squared cosine of the time 0 to 1, bounded; the ratio is multiplied by `shift`.
    Cascade { shift: f64 },
    /// Alpha 1; model time is sigma, or a quarter of its logarithm.
    Exploding { range: (f64, f64), log_time: bool },
    /// No noise at all; the times of the walk lie between these.
    Ode { range: (f64, f64) },
}

impl Levels {
    /// Builds the tables; an error when the betas leave no signal, or no noise, that f64 can hold.
    pub(super) fn new(options: &PlanOptions) -> Result<Levels> {
        let or = |value: f64, default: f64| if value == 0.0 { default } else { value };
        let (min, max) = (options.sigma_min, options.sigma_max);
        Ok(match options.process {
            Process::Flow => Levels::Flow { least: or(min, 1.0 / options.train_steps.max(2) as f64) },
            Process::TrigFlow => {
                let angle = |sigma: f64| libm::atan2(sigma, options.sigma_data);
                Levels::Trig {
                    data: options.sigma_data,
                    range: (angle(or(min, 0.002)), angle(or(max, 80.0))),
                }
            }
            Process::VpContinuous | Process::SubVp => {
                let sub = options.process == Process::SubVp;
                Levels::Continuous { beta: (options.beta_start, options.beta_end), sub }
            }
            Process::VpCascade => Levels::Cascade { shift: options.shift },
            Process::Target => Levels::Ode { range: (0.0, MAX_STEPS as f64) },
            Process::Ode | Process::Sde => {
                let ends = options.times.as_ref().and_then(|t| Some((*t.first()?, *t.last()?)));
                let (a, b) = ends.unwrap_or((options.t_start, options.t_end));
                Levels::Ode { range: (a.min(b), a.max(b)) }
            }
            Process::Ve => Levels::Exploding { range: (or(min, 0.01), or(max, 50.0)), log_time: false },
            Process::Edm => Levels::Exploding { range: (or(min, 0.002), or(max, 80.0)), log_time: true },
            _ => {
                let (log_ratio, linear) = betas::log_ratios(options)?;
                Levels::Vp { log_ratio, linear }
            }
        })
    }

    /// The range of model times, `(least, greatest)`.
    pub(super) fn range(&self) -> (f64, f64) {
        match self {
            Levels::Flow { .. } => (0.0, 1.0),
            Levels::Ode { range } => *range,
            Levels::Trig { .. } => (0.0, std::f64::consts::FRAC_PI_2),
            Levels::Vp { log_ratio, .. } => (0.0, (log_ratio.len() - 1) as f64),
            Levels::Continuous { .. } | Levels::Cascade { .. } => (0.0, 1.0),
            Levels::Exploding { log_time: false, range } => (0.0, range.1),
            Levels::Exploding { log_time: true, range } => (-10.0, libm::log(range.1) / 4.0),
        }
    }

    /// Training steps of a table, if there is one.
    pub(super) fn train_steps(&self) -> Option<usize> {
        match self {
            Levels::Vp { log_ratio, .. } => Some(log_ratio.len()),
            _ => None,
        }
    }

    /// The level at a model time inside [`range`](Self::range), or -1 for a VP process.
    pub(super) fn node(&self, t: f64) -> Node {
        match self {
            Levels::Flow { .. } => Node { t, alpha: 1.0 - t, sigma: t },
            // What a run starts from when it is given nothing.
            Levels::Ode { .. } => Node { t, alpha: 0.0, sigma: 1.0 },
            Levels::Trig { data, range: _ } => {
                // The cosine of the f64 next to pi/2 is not 0.
                let alpha = if t >= std::f64::consts::FRAC_PI_2 { 0.0 } else { libm::cos(t) };
                Node { t, alpha, sigma: data * libm::sin(t) }
            }
            Levels::Vp { .. } if t < 0.0 => self.clean(),
            Levels::Vp { log_ratio, linear } => {
                let i = (t as usize).min(log_ratio.len() - 1);
                let j = (i + 1).min(log_ratio.len() - 1);
                let fraction = t - i as f64;
                if fraction == 0.0 {
                    return vp_node(t, libm::exp(log_ratio[i]));
                }
                if *linear {
                    let (low, high) = (libm::exp(log_ratio[i]), libm::exp(log_ratio[j]));
                    return vp_node(t, low + fraction * (high - low));
                }
                vp_node(t, libm::exp(log_ratio[i] + fraction * (log_ratio[j] - log_ratio[i])))
            }
            Levels::Continuous { beta: (low, high), sub } => {
                let integral = t * (low + 0.5 * t * (high - low));
                if *sub {
                    return sub_vp_node(t, integral);
                }
                vp_node(t, libm::sqrt(libm::expm1(integral)))
            }
            Levels::Cascade { shift } => vp_node(t, cascade_ratio(t, *shift)),
            Levels::Exploding { log_time: false, .. } => Node { t, alpha: 1.0, sigma: t },
            Levels::Exploding { log_time: true, .. } => Node { t, alpha: 1.0, sigma: libm::exp(4.0 * t) },
        }
    }

    /// Clean data.
    pub(super) fn clean(&self) -> Node {
        let t = match self {
            Levels::Vp { .. } => -1.0,
            // Not minus infinity, which some languages cannot hold.
            Levels::Exploding { log_time: true, .. } => CLEAN_LOG_TIME,
            _ => 0.0,
        };
        Node { t, alpha: 1.0, sigma: 0.0 }
    }

    /// Whether a model knows this level: only a flow has a time for clean data.
    pub(super) fn knows(&self, node: &Node) -> bool {
        node.sigma != 0.0 || matches!(self, Levels::Flow { .. } | Levels::Trig { .. })
    }

    /// The ODE coordinate `(m, c)` of a level: with `z = x / m`, `dz/dc` is
    /// the velocity `eps - x0` for a flow (m = 1, c = t), `dx/dt` for TrigFlow, and `eps` else
    /// (m = alpha, c = sigma / alpha; Song 2021, eq. 14).
    pub(super) fn coordinate(&self, node: &Node) -> (f64, f64) {
        match self {
            Levels::Flow { .. } | Levels::Trig { .. } | Levels::Ode { .. } => (1.0, node.t),
            _ => (node.alpha, node.sigma / node.alpha),
        }
    }

    /// The level whose coordinate is `c`; for VP inside the table, by the same
    /// piecewise interpolation as [`node`](Self::node).
    pub(super) fn at_coordinate(&self, c: f64) -> Node {
        match self {
            Levels::Flow { .. } | Levels::Trig { .. } | Levels::Ode { .. } => self.node(c),
            _ => self.at_ratio(c),
        }
    }

    /// The level whose `sigma / alpha` is `u`, for VP clipped to the table.
    pub(super) fn at_ratio(&self, u: f64) -> Node {
        if u == 0.0 {
            return self.clean();
        }
        match self {
            // An ode has no noise levels, and nothing that looks for one is allowed there.
            Levels::Ode { range } => self.node(range.0),
            Levels::Flow { .. } => self.node(if u.is_finite() { u / (1.0 + u) } else { 1.0 }),
            Levels::Trig { data, .. } => self.node(libm::atan2(u, *data)),
            Levels::Vp { log_ratio, .. } if u.is_infinite() => self.node((log_ratio.len() - 1) as f64),
            Levels::Vp { log_ratio, .. } => {
                let log = libm::log(u);
                let j = log_ratio.partition_point(|&r| r < log).clamp(1, (log_ratio.len() - 1).max(1));
                let (low, high) = (log_ratio[j - 1], log_ratio[j.min(log_ratio.len() - 1)]);
                // Also where levels are linear: the peer that does so finds times by logarithms.
                let fraction = if high > low { ((log - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
                vp_node((j - 1) as f64 + fraction, u)
            }
            Levels::Continuous { beta: (low, high), sub } => {
                // Sub-VP: `sigma / alpha = 2 sinh(integral / 2)`.
                let integral = if *sub { 2.0 * libm::asinh(u / 2.0) } else { libm::log1p(u * u) };
                let root = libm::sqrt(low * low + 2.0 * (high - low) * integral);
                let t = 2.0 * integral / (low + root);
                if *sub { sub_vp_node(t, integral) } else { vp_node(t, u) }
            }
            Levels::Cascade { shift } => {
                let plain = u / shift;
                let cosine = libm::cos(CASCADE_ANGLE) / libm::hypot(1.0, plain);
                let t = libm::acos(cosine) / std::f64::consts::FRAC_PI_2 * (1.0 + CASCADE_S) - CASCADE_S;
                vp_node(t.clamp(0.0, 1.0), u)
            }
            Levels::Exploding { log_time, .. } => {
                Node { t: if *log_time { libm::log(u) / 4.0 } else { u }, alpha: 1.0, sigma: u }
            }
        }
    }

    /// The measure of noise that spacings and `sigmas` are in: t of a flow and of TrigFlow,
    /// `sigma / alpha` else.
    pub(super) fn level(&self, node: &Node) -> f64 {
        self.coordinate(node).1
    }

    /// The level with this measure.
    pub(super) fn at_level(&self, level: f64) -> Node {
        if level == 0.0 { self.clean() } else { self.at_coordinate(level) }
    }

    /// The least and the greatest measure of noise that spacings go between.
    pub(super) fn level_range(&self) -> (f64, f64) {
        let of = |t: f64| self.level(&self.node(t));
        match self {
            Levels::Flow { least } => (*least, 1.0),
            Levels::Ode { range } => *range,
            Levels::Trig { range, .. } | Levels::Exploding { range, .. } => *range,
            Levels::Continuous { .. } => (of(CONTINUOUS_LEAST), of(1.0)),
            Levels::Vp { .. } => (of(0.0), of(self.range().1)),
            Levels::Cascade { .. } => CASCADE_RATIOS,
        }
    }
}

fn sub_vp_node(t: f64, integral: f64) -> Node {
    Node { t, alpha: libm::exp(-0.5 * integral), sigma: -libm::expm1(-integral) }
}

fn vp_node(t: f64, ratio: f64) -> Node {
    if ratio.is_infinite() {
        return Node { t, alpha: 0.0, sigma: 1.0 };
    }
    let norm = libm::sqrt(1.0 + ratio * ratio);
    Node { t, alpha: 1.0 / norm, sigma: ratio / norm }
}
