//! The noise tables of discrete VP processes.

use super::options::{Compat, PlanOptions, Process};
use crate::error::{Error, Result};

/// Bound of `|ln(sigma/alpha)|`, far from where coefficients would leave f32.
const MAX_LOG_RATIO: f64 = 40.0;

/// `ln(sigma/alpha)` of every training step, and whether levels between them are linear in the ratio.
pub(super) fn log_ratios(options: &PlanOptions) -> Result<(Vec<f64>, bool)> {
    let single = options.compat == Compat::Diffusers;
    let mut bars = cumulative(&betas(options, single), single);
    if options.zero_snr {
        rescale(&mut bars, single);
    }
    let log_ratio: Vec<f64> = bars
        .iter()
        .map(|&bar| {
            if single && bar > 0.0 {
                let bar = bar as f32;
                libm::log(f64::from(libm::sqrtf((1.0 - bar) / bar)))
            } else {
                0.5 * (libm::log1p(-bar) - libm::log(bar))
            }
        })
        .collect();
    let n = log_ratio.len();
    let checked = if options.zero_snr { &log_ratio[..n - 1] } else { &log_ratio[..] };
    if let Some(i) = checked.iter().position(|r| r.is_nan() || r.abs() > MAX_LOG_RATIO) {
        let expected =
            format!("betas that keep |ln(sigma/alpha)| below {MAX_LOG_RATIO} (left at training step {i})");
        if options.process == Process::VpTrained {
            return Err(Error::range("betas", format!("{n} numbers"), expected));
        }
        return Err(Error::range("beta_end", format!("{} with train_steps {n}", options.beta_end), expected));
    }
    Ok((log_ratio, single))
}

fn betas(options: &PlanOptions, single: bool) -> Vec<f64> {
    let n = options.train_steps;
    let (a, b) = (options.beta_start, options.beta_end);
    let line = |a: f64, b: f64, i: usize| {
        if single { f64::from(lerp_f32(a as f32, b as f32, i, n)) } else { lerp(a, b, i, n) }
    };
    let round = |v: f64| if single { f64::from(v as f32) } else { v };
    match options.process {
        Process::VpTrained => options.betas.iter().flatten().map(|&beta| round(beta)).collect(),
        Process::VpLinear => (0..n).map(|i| line(a, b, i)).collect(),
        Process::VpScaledLinear => (0..n)
            .map(|i| {
                let root = line(libm::sqrt(a), libm::sqrt(b), i);
                round(root * root)
            })
            .collect(),
        Process::VpSigmoid => {
            (0..n).map(|i| round(a + (b - a) / (1.0 + libm::exp(-line(-6.0, 6.0, i))))).collect()
        }
        Process::VpLaplace => (0..n)
            .map(|i| {
                let bar = |i: usize| laplace(i as f64 / n as f64, single);
                round((1.0 - bar(i + 1) / bar(i)).min(0.999))
            })
            .collect(),
        _ => (0..n)
            .map(|i| {
                let bar = |i: usize| {
                    let c = libm::cos((i as f64 / n as f64 + 0.008) / 1.008 * std::f64::consts::FRAC_PI_2);
                    c * c
                };
                round((1.0 - bar(i + 1) / bar(i)).min(0.999))
            })
            .collect(),
    }
}

/// alpha squared at the fraction `t` of the training steps; the peer takes the root of it once more.
fn laplace(t: f64, root: bool) -> f64 {
    let log = libm::log(1.0 - 2.0 * (0.5 - t).abs() + 1e-6);
    let snr = libm::exp(if t <= 0.5 { -0.5 * log } else { 0.5 * log });
    let bar = snr / (1.0 + snr);
    if root { libm::sqrt(bar) } else { bar }
}

/// `prod (1 - beta)`, alpha squared.
fn cumulative(betas: &[f64], single: bool) -> Vec<f64> {
    let mut bar = 1.0;
    betas
        .iter()
        .map(|beta| {
            bar *= if single { f64::from(1.0 - *beta as f32) } else { 1.0 - beta };
            if single { f64::from(bar as f32) } else { bar }
        })
        .collect()
}

/// Shifts and scales alpha so that the last one is 0 and the first stays (Lin 2023, algorithm 1).
fn rescale(bars: &mut [f64], single: bool) {
    let (first, last) = (libm::sqrt(bars[0]), libm::sqrt(bars[bars.len() - 1]));
    for bar in bars.iter_mut() {
        let alpha = (libm::sqrt(*bar) - last) * first / (first - last);
        *bar = if single { f64::from((alpha * alpha) as f32) } else { alpha * alpha };
    }
    if let Some(last) = bars.last_mut() {
        // Where a peer divides by alpha it keeps this much.
        *last = if single { 1.0 / 16_777_216.0 } else { 0.0 };
    }
}

fn lerp(a: f64, b: f64, i: usize, n: usize) -> f64 {
    if n == 1 { a } else { a + (b - a) * i as f64 / (n - 1) as f64 }
}

/// torch's linspace: from the nearer end, with fma.
fn lerp_f32(a: f32, b: f32, i: usize, n: usize) -> f32 {
    if n == 1 {
        return a;
    }
    let step = (b - a) / (n - 1) as f32;
    if i < n / 2 { step.mul_add(i as f32, a) } else { (-step).mul_add((n - 1 - i) as f32, b) }
}
