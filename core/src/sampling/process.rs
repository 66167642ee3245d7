//! Noise levels: what a model time means.

use super::options::{PlanOptions, Process};
use crate::error::{Error, Result};

/// A model time and the mixture it stands for: `x_t = alpha x0 + sigma eps`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Node {
    /// Model time: flow 1 (noise) to 0 (data); VP the training step, -1 for clean data.
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
}

/// Bound of `|ln(sigma/alpha)|`, far from where coefficients would leave f32.
const MAX_LOG_RATIO: f64 = 40.0;

/// The process with its tables built.
#[derive(Debug, Clone)]
pub(super) enum Levels {
    Flow,
    /// `log_ratio[t] = ln(sigma/alpha)` of training step t, ascending.
    Vp {
        log_ratio: Vec<f64>,
    },
}

impl Levels {
    /// Builds the tables; an error when the betas leave no signal, or no noise, that f64 can hold.
    pub(super) fn new(options: &PlanOptions) -> Result<Levels> {
        let n = options.train_steps;
        let beta: Box<dyn Fn(usize) -> f64> = match options.process {
            Process::Flow => return Ok(Levels::Flow),
            Process::VpLinear => {
                let (a, b) = (options.beta_start, options.beta_end);
                Box::new(move |i| lerp(a, b, i, n))
            }
            Process::VpScaledLinear => {
                let (a, b) = (libm::sqrt(options.beta_start), libm::sqrt(options.beta_end));
                Box::new(move |i| {
                    let root = lerp(a, b, i, n);
                    root * root
                })
            }
            Process::VpCosine => Box::new(move |i| {
                let bar = |i: usize| {
                    let c = libm::cos((i as f64 / n as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2);
                    c * c
                };
                (1.0 - bar(i + 1) / bar(i)).min(0.999)
            }),
        };
        let mut bar = 1.0;
        let log_ratio: Vec<f64> = (0..n)
            .map(|i| {
                bar *= 1.0 - beta(i);
                0.5 * (libm::log1p(-bar) - libm::log(bar))
            })
            .collect();
        if let Some(i) = log_ratio.iter().position(|r| r.abs() > MAX_LOG_RATIO) {
            let got = format!("{} with train_steps {n}", options.beta_end);
            let expected = format!(
                "betas that keep |ln(sigma/alpha)| below {MAX_LOG_RATIO} (left at training step {i})"
            );
            return Err(Error::range("beta_end", got, expected));
        }
        Ok(Levels::Vp { log_ratio })
    }

    /// The range of model times, `(least, greatest)`.
    pub(super) fn range(&self) -> (f64, f64) {
        match self {
            Levels::Flow => (0.0, 1.0),
            Levels::Vp { log_ratio } => (0.0, (log_ratio.len() - 1) as f64),
        }
    }

    /// The level at a model time inside [`range`](Self::range), or -1 for a VP process.
    pub(super) fn node(&self, t: f64) -> Node {
        match self {
            Levels::Flow => Node { t, alpha: 1.0 - t, sigma: t },
            Levels::Vp { .. } if t < 0.0 => Node { t: -1.0, alpha: 1.0, sigma: 0.0 },
            Levels::Vp { log_ratio } => {
                let i = (t as usize).min(log_ratio.len() - 1);
                let j = (i + 1).min(log_ratio.len() - 1);
                let log = log_ratio[i] + (t - i as f64) * (log_ratio[j] - log_ratio[i]);
                vp_node(t, libm::exp(log))
            }
        }
    }

    /// The ODE coordinate `(m, c)` of a level: with `z = x / m`, `dz/dc` is
    /// the velocity `eps - x0` for a flow (m = 1, c = t) and `eps` for VP
    /// (m = alpha, c = sigma / alpha; Song 2021, eq. 14).
    pub(super) fn coordinate(&self, node: &Node) -> (f64, f64) {
        match self {
            Levels::Flow => (1.0, node.t),
            Levels::Vp { .. } => (node.alpha, node.sigma / node.alpha),
        }
    }

    /// The level whose coordinate is `c`; for VP inside the table, by the same
    /// piecewise log-linear interpolation as [`node`](Self::node).
    pub(super) fn at_coordinate(&self, c: f64) -> Node {
        match self {
            Levels::Flow => self.node(c),
            Levels::Vp { log_ratio } => {
                let log = libm::log(c);
                let j = log_ratio.partition_point(|&r| r < log).clamp(1, (log_ratio.len() - 1).max(1));
                let (low, high) = (log_ratio[j - 1], log_ratio[j.min(log_ratio.len() - 1)]);
                let fraction = if high > low { ((log - low) / (high - low)).clamp(0.0, 1.0) } else { 0.0 };
                vp_node((j - 1) as f64 + fraction, c)
            }
        }
    }
}

fn vp_node(t: f64, ratio: f64) -> Node {
    let norm = libm::sqrt(1.0 + ratio * ratio);
    Node { t, alpha: 1.0 / norm, sigma: ratio / norm }
}

fn lerp(a: f64, b: f64, i: usize, n: usize) -> f64 {
    if n == 1 { a } else { a + (b - a) * i as f64 / (n - 1) as f64 }
}
