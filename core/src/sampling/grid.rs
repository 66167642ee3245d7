//! The levels of a walk, noise first: `steps + 1` of them. Every solver reads its previous and
//! next level from here; none recomputes them from a stride.

use super::options::{MAX_STEPS, PlanOptions, Process};
use super::process::{Levels, Node};
use super::spacing;
use crate::error::{Error, Result};

pub(super) fn grid(options: &PlanOptions, levels: &Levels) -> Result<Vec<Node>> {
    let mut nodes = match (&options.times, &options.sigmas) {
        (Some(times), _) => {
            let clean = matches!(levels, Levels::Vp { .. }).then_some(-1.0);
            let rises = matches!(options.process, Process::Ode | Process::Sde)
                && times.len() > 1
                && times[0] < times[times.len() - 1];
            if rises {
                let turned: Vec<f64> = times.iter().rev().copied().collect();
                check("times", &turned, levels.range(), clean)?;
            } else {
                check("times", times, levels.range(), clean)?;
            }
            times.iter().map(|&t| levels.node(t)).collect()
        }
        (None, Some(sigmas)) => {
            let (_, high) = levels.level_range();
            check("sigmas", sigmas, (0.0, high), Some(0.0))?;
            sigmas.iter().map(|&s| levels.at_level(s)).collect()
        }
        (None, None) if options.process == Process::Target => {
            (0..=options.steps).map(|i| levels.node(i as f64)).collect()
        }
        (None, None) if matches!(options.process, Process::Ode | Process::Sde) => {
            let (n, a, b) = (options.steps, options.t_start, options.t_end);
            let n = if options.solver.is_adaptive() { 1 } else { n };
            let time = |i: usize| if i == n { b } else { a + (b - a) * i as f64 / n as f64 };
            (0..=n).map(|i| levels.node(time(i))).collect()
        }
        (None, None) if options.solver.walks_lambda() => ends(options, levels)?,
        (None, None) => spacing::spaced(options, levels)?,
    };
    cut(options, levels, &mut nodes)?;
    if options.solver.is_inverse() {
        nodes.reverse();
    }
    Ok(nodes)
}

/// The noisiest and the least noisy level of a process; of a flow, whose noisiest has no signal, as far from it
/// as the other is from data. Or what `sigma_max` and `sigma_min` say.
fn ends(options: &PlanOptions, levels: &Levels) -> Result<Vec<Node>> {
    let (least, greatest) = levels.level_range();
    let or = |v: f64, default: f64| if v == 0.0 { default } else { v };
    let low = or(options.sigma_min, least);
    let greatest = if matches!(levels, Levels::Flow { .. }) { 1.0 - low } else { greatest };
    let high = or(options.sigma_max, greatest);
    if low >= high {
        return Err(Error::range("sigma_min", low, format!("less than the greatest level, {high}")));
    }
    Ok([high, low].map(|level| levels.at_level(level)).to_vec())
}

/// Strictly descending numbers in a range; the last may be `clean`.
fn check(arg: &'static str, values: &[f64], (low, high): (f64, f64), clean: Option<f64>) -> Result<()> {
    if !(2..=MAX_STEPS + 1).contains(&values.len()) {
        return Err(Error::shape(arg, &[values.len()], format!("[steps + 1], 2 to {}", MAX_STEPS + 1)));
    }
    for (i, &v) in values.iter().enumerate() {
        let ends = i + 1 == values.len() && Some(v) == clean;
        if !ends && !(low..=high).contains(&v) {
            return Err(Error::range(arg, format!("{v} at index {i}"), format!("{low} to {high}")));
        }
        if i > 0 && v >= values[i - 1] {
            return Err(Error::range(
                arg,
                format!("{v} at index {i}"),
                format!("less than {}", values[i - 1]),
            ));
        }
    }
    Ok(())
}

/// Leaves out noisy steps: `start_step` of them, or those above `start_sigma`.
fn cut(options: &PlanOptions, levels: &Levels, nodes: &mut Vec<Node>) -> Result<()> {
    let steps = nodes.len() - 1;
    if options.start_step >= steps {
        let expected = format!("less than the {steps} steps of the grid");
        return Err(Error::range("start_step", options.start_step, expected));
    }
    nodes.drain(..options.start_step);
    let start = options.start_sigma;
    if start == 0.0 {
        return Ok(());
    }
    let (first, last) = (levels.level(&nodes[0]), levels.level(&nodes[nodes.len() - 1]));
    if start > first || start <= last {
        return Err(Error::range("start_sigma", start, format!("above {last}, at most {first}")));
    }
    let left_out = nodes.iter().take_while(|n| levels.level(n) >= start).count();
    nodes.splice(..left_out, [levels.at_level(start)]);
    Ok(())
}
