//! Where the steps lie: model times, or noise levels between the least and the greatest.

use super::betainc::beta_quantile;
use super::gits;
use super::options::{Compat, FinalSigma, PlanOptions, Process, ShiftType, Solver, Spacing};
use super::process::{Levels, Node};
use crate::error::{Error, Result};

/// Noise levels of Align Your Steps for ten steps, and the final one (Sabour 2024).
const AYS_SD15: [f64; 11] = [
    14.6146412293,
    6.4745760956,
    3.8636745985,
    2.6946151520,
    1.8841921177,
    1.3943805092,
    0.9642583904,
    0.6523686016,
    0.3977456272,
    0.1515232662,
    0.0291671582,
];
const AYS_SDXL: [f64; 11] = [
    14.6146412293,
    6.3184485287,
    3.7681790315,
    2.1811480769,
    1.3405244945,
    0.8620721141,
    0.5550693289,
    0.3798540708,
    0.2332364134,
    0.1114188177,
    0.0291671582,
];
const AYS_SVD: [f64; 11] = [700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002];

/// Time up to which [`Spacing::LinearQuadratic`] is linear, from the noisy end (Mochi).
const LINEAR_UNTIL: f64 = 0.025;

pub(super) fn spaced(options: &PlanOptions, levels: &Levels) -> Result<Vec<Node>> {
    let zero = options.final_sigma == FinalSigma::Zero;
    // An adaptive solver needs the two ends only.
    let n = if options.solver.is_adaptive() { 1 } else { options.steps };
    // Levels that have noise.
    let m = if zero { n } else { n + 1 };
    let mut nodes = match options.process {
        Process::Flow => flow_times(options, levels, n, m)?.into_iter().map(|t| levels.node(t)).collect(),
        _ => match by_level(options, levels, n, m)? {
            Some(nodes) => nodes,
            None => by_time(options, levels, n, m)?.into_iter().map(|t| levels.node(t)).collect(),
        },
    };
    if zero {
        nodes.push(levels.clean());
    }
    Ok(nodes)
}

fn refused(options: &PlanOptions, expected: &str) -> Error {
    Error::argument(
        "spacing",
        options.spacing.name(),
        format!("{expected} for the process {}", options.process.name()),
    )
}

/// `count` numbers evenly from `a` to `b`; one alone is `a`.
fn line(a: f64, b: f64, count: usize) -> impl Iterator<Item = f64> {
    (0..count).map(move |i| if count == 1 { a } else { a + (b - a) * i as f64 / (count - 1) as f64 })
}

/// Times of a flow, shifted exactly once.
fn flow_times(options: &PlanOptions, levels: &Levels, n: usize, m: usize) -> Result<Vec<f64>> {
    let (least, _) = levels.level_range();
    let train = options.train_steps;
    let first = if options.sigma_max == 0.0 { 1.0 } else { options.sigma_max };
    let shifted = |t: f64| shift(options, t);
    let mut times: Vec<f64> = match options.spacing {
        Spacing::Uniform if first == 1.0 => (0..m).map(|i| shifted((n - i) as f64 / n as f64)).collect(),
        Spacing::Uniform => (0..m).map(|i| shifted(first * ((n - i) as f64 / n as f64))).collect(),
        Spacing::Linspace
            if options.compat == Compat::Diffusers && options.shift_type == ShiftType::Static =>
        {
            // The ends are shifted already when they are shifted with the rest.
            line(shifted(first), shifted(least), m).map(shifted).collect()
        }
        Spacing::Linspace => line(first, least, m).map(shifted).collect(),
        Spacing::SgmUniform => line(first, least, n + 1).take(m).map(shifted).collect(),
        Spacing::LinearQuadratic => linear_quadratic(m).into_iter().map(shifted).collect(),
        Spacing::Simple => {
            (0..m).map(|x| shifted((train - (x * train / m).min(train - 1)) as f64 / train as f64)).collect()
        }
        Spacing::DdimUniform => {
            ddim_uniform(options, train, n).map(|i| shifted((i + 1) as f64 / train as f64)).collect()
        }
        Spacing::Lambda => {
            if first == 1.0 {
                return Err(Error::range(
                    "sigma_max",
                    first,
                    "below 1 for the spacing lambda: there lambda is infinite",
                ));
            }
            let odds = |t: f64| libm::log(t / (1.0 - t));
            line(odds(shifted(first)), odds(shifted(least)), m).map(|l| 1.0 / (1.0 + libm::exp(-l))).collect()
        }
        _ => match between(options, shifted(least), shifted(first), m) {
            Some(times) => times,
            None => return Err(refused(options, "another spacing")),
        },
    };
    // A flow of one uniform step with a final level has nowhere to end but 0.
    if options.spacing == Spacing::Uniform
        && options.final_sigma == FinalSigma::Min
        && let Some(last) = times.last_mut()
    {
        *last = shifted(least);
    }
    if options.shift_terminal != 0.0 {
        stretch(&mut times, options.shift_terminal);
    }
    Ok(times)
}

/// `t -> k / (k + (1/t - 1)^power)`.
fn shift(options: &PlanOptions, t: f64) -> f64 {
    let s = options.shift;
    let k = match options.shift_type {
        ShiftType::Static => return s * t / (1.0 + (s - 1.0) * t),
        ShiftType::Exponential => libm::exp(s),
        ShiftType::Linear => s,
    };
    if t == 0.0 { 0.0 } else { k / (k + libm::pow(1.0 / t - 1.0, options.shift_power)) }
}

/// The dynamic shift of an image of `tokens` tokens, linear between two sizes `(tokens, shift)`: the
/// `shift` of [`ShiftType::Exponential`] (FLUX: 0.5 at 256, 1.15 at 4096).
///
/// ```
/// let mu = dgm_core::sampling::dynamic_shift(4096.0, (256.0, 0.5), (4096.0, 1.15));
/// assert_eq!(mu, 1.15);
/// ```
pub fn dynamic_shift(tokens: f64, base: (f64, f64), most: (f64, f64)) -> f64 {
    base.1 + (most.1 - base.1) * (tokens - base.0) / (most.0 - base.0)
}

/// Stretches `1 - t` so that the last time is `terminal`.
fn stretch(times: &mut [f64], terminal: f64) {
    let Some(&last) = times.last() else { return };
    if last >= 1.0 {
        return;
    }
    let scale = (1.0 - terminal) / (1.0 - last);
    times.iter_mut().for_each(|t| *t = 1.0 - (1.0 - *t) * scale);
}

fn linear_quadratic(n: usize) -> Vec<f64> {
    if n == 1 {
        return vec![1.0];
    }
    let (linear, quadratic) = ((n / 2) as f64, (n - n / 2) as f64);
    let gap = linear - LINEAR_UNTIL * n as f64;
    let square = gap / (linear * quadratic * quadratic);
    let slope = LINEAR_UNTIL / linear - 2.0 * gap / (quadratic * quadratic);
    (0..n)
        .map(|i| {
            let x = i as f64;
            let part = if i < n / 2 {
                x * LINEAR_UNTIL / linear
            } else {
                square * x * x + slope * x + square * linear * linear
            };
            1.0 - part
        })
        .collect()
}

/// Table entries `1, 1 + s, 1 + 2 s, ...` with `s = floor(N / n)`, noisy ones first; entry 0 ends a walk
/// that does not end at 0.
fn ddim_uniform(options: &PlanOptions, train: usize, n: usize) -> impl Iterator<Item = usize> {
    let stride = (train / n).max(1);
    let least = (options.final_sigma == FinalSigma::Min).then_some(0);
    (1..train.max(2)).step_by(stride).collect::<Vec<_>>().into_iter().rev().chain(least)
}

/// Spacings in the measure of noise, `m` levels from `high` to `low`; `None` for the others.
fn between(options: &PlanOptions, low: f64, high: f64, m: usize) -> Option<Vec<f64>> {
    let fractions = line(0.0, 1.0, m);
    let rho = options.rho;
    Some(match options.spacing {
        Spacing::Karras => {
            let (a, b) = (libm::pow(high, 1.0 / rho), libm::pow(low, 1.0 / rho));
            fractions.map(|f| libm::pow(a + f * (b - a), rho)).collect()
        }
        Spacing::Exponential | Spacing::Lambda => {
            line(libm::log(high), libm::log(low), m).map(libm::exp).collect()
        }
        Spacing::PolyExponential => {
            let (a, b) = (libm::log(high), libm::log(low));
            fractions.map(|f| libm::exp(libm::pow(1.0 - f, rho) * (a - b) + b)).collect()
        }
        Spacing::Beta => fractions.map(|f| low + beta_quantile(1.0 - f, 0.6) * (high - low)).collect(),
        Spacing::KlOptimal => {
            let (a, b) = (libm::atan(high), libm::atan(low));
            fractions.map(|f| libm::tan(a + f * (b - a))).collect()
        }
        _ => return None,
    })
}

/// A published table at `m` of `n + 1` places, linear in ln sigma between its levels.
fn tabled(table: &[f64], n: usize, m: usize) -> Vec<f64> {
    let last = table.len() - 1;
    line(0.0, last as f64, n + 1)
        .take(m)
        .map(|place| {
            let i = (place as usize).min(last - 1);
            let (a, b) = (libm::log(table[i]), libm::log(table[i + 1]));
            let fraction = place - i as f64;
            if fraction == 0.0 { table[i] } else { libm::exp(a + fraction * (b - a)) }
        })
        .collect()
}

/// Spacings in noise levels of all processes but flow.
fn by_level(options: &PlanOptions, levels: &Levels, n: usize, m: usize) -> Result<Option<Vec<Node>>> {
    let (least, greatest) = levels.level_range();
    let or = |v: f64, default: f64| if v == 0.0 { default } else { v };
    let (low, high) = (or(options.sigma_min, least), or(options.sigma_max, greatest));
    let table = match options.spacing {
        Spacing::AysSd15 => Some(AYS_SD15.to_vec()),
        Spacing::AysSdxl => Some(AYS_SDXL.to_vec()),
        Spacing::AysSvd => Some(AYS_SVD.to_vec()),
        Spacing::Gits => Some(gits::levels(n)),
        _ => None,
    };
    if table.is_some() && options.process == Process::TrigFlow {
        return Err(refused(options, "another spacing"));
    }
    let sigmas = match table {
        Some(table) => tabled(&table, n, m),
        None if low >= high && between(options, low, high, 1).is_some() => {
            return Err(Error::range("sigma_min", low, format!("less than the greatest level, {high}")));
        }
        None => match between(options, low, high, m) {
            Some(sigmas) => sigmas,
            None => return Ok(None),
        },
    };
    let nodes = sigmas.into_iter().map(|s| whole_time(options, levels.at_level(s)));
    Ok(Some(nodes.collect()))
}

/// The peer's samplers of some families give their models whole times.
fn whole_time(options: &PlanOptions, node: Node) -> Node {
    use Solver::{
        Deis, Dpm, DpmPP, DpmPP2M, DpmPPInverse, DpmPPSingle, DpmSde, DpmSingle, SaSolver, UniPC, UniPCBh1,
    };
    let family =
        [DpmPP2M, Dpm, DpmPP, DpmPPInverse, DpmSingle, DpmPPSingle, DpmSde, UniPC, UniPCBh1, Deis, SaSolver];
    if options.compat != Compat::Diffusers || !options.is_table() || !family.contains(&options.solver) {
        return node;
    }
    let t = match options.spacing {
        Spacing::Karras | Spacing::Lambda if options.process != Process::VpCosine => node.t.round_ties_even(),
        _ => libm::trunc(node.t),
    };
    Node { t, ..node }
}

/// Spacings in model time of all processes but flow.
fn by_time(options: &PlanOptions, levels: &Levels, n: usize, m: usize) -> Result<Vec<f64>> {
    let Some(train) = levels.train_steps() else {
        let (low, high) = levels.level_range();
        let (low, high) = (levels.at_level(low).t, levels.at_level(high).t);
        return match options.spacing {
            Spacing::Uniform | Spacing::Linspace => Ok(line(high, low, m).collect()),
            Spacing::SgmUniform => Ok(line(high, low, n + 1).take(m).collect()),
            _ => Err(refused(options, "a spacing without training steps")),
        };
    };
    let last = (train - 1) as f64;
    if matches!(options.solver, Solver::Lcm | Solver::Tcd) && options.spacing == Spacing::Uniform {
        return distilled(options, train, m);
    }
    let time = |i: usize| match options.spacing {
        // One step alone starts from the noisiest level.
        Spacing::Uniform if m == 1 => last,
        Spacing::Uniform => ((m - 1 - i) as f64 * (last / (m - 1) as f64)).round_ties_even(),
        Spacing::Leading => ((m - 1 - i) * (train / m) + options.steps_offset) as f64,
        _ => (train as f64 - i as f64 * (train as f64 / m as f64)).round_ties_even() - 1.0,
    };
    let times: Vec<f64> = match options.spacing {
        Spacing::Uniform | Spacing::Leading | Spacing::Trailing => (0..m).map(time).collect(),
        Spacing::Linspace => line(last, 0.0, m).collect(),
        Spacing::SgmUniform => line(last, 0.0, n + 1).take(m).collect(),
        Spacing::Simple => (0..m).map(|x| (train - 1 - (x * train / m).min(train - 1)) as f64).collect(),
        Spacing::DdimUniform => ddim_uniform(options, train, n).map(|i| i.min(train - 1) as f64).collect(),
        _ => return Err(refused(options, "another spacing")),
    };
    match times.first() {
        Some(&t) if t > last => Err(Error::range(
            "steps_offset",
            options.steps_offset,
            format!("times of at most {last}, the first is {t}"),
        )),
        _ => Ok(times),
    }
}

/// Steps of the grid that a model was distilled on, `k - 1, 2k - 1, ...` with `k = floor(N /
/// original_steps)`, evenly chosen from the noisy end (Luo 2023).
fn distilled(options: &PlanOptions, train: usize, m: usize) -> Result<Vec<f64>> {
    let original = options.original_steps.min(train);
    if m > original {
        let expected = format!("at most original_steps, {original}");
        return Err(Error::range("steps", options.steps, expected));
    }
    let stride = train / original;
    Ok((0..m).map(|i| ((original - i * original / m) * stride - 1) as f64).collect())
}
