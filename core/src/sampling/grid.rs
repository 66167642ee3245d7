//! The times of a walk: `steps + 1` levels, noise first. Every solver reads its previous and
//! next time from here; none recomputes them from a stride.

use super::options::{MAX_STEPS, PlanOptions, Process, Solver, Spacing};
use super::process::{Levels, Node};
use crate::error::{Error, Result};

pub(super) fn grid(options: &PlanOptions, levels: &Levels) -> Result<Vec<Node>> {
    let times = match &options.times {
        Some(times) => {
            check(times, levels)?;
            times.clone()
        }
        None => spaced(options),
    };
    Ok(times.into_iter().map(|t| levels.node(t)).collect())
}

fn check(times: &[f64], levels: &Levels) -> Result<()> {
    if !(2..=MAX_STEPS + 1).contains(&times.len()) {
        return Err(Error::shape("times", &[times.len()], format!("[steps + 1], 2 to {}", MAX_STEPS + 1)));
    }
    let (low, high) = levels.range();
    for (i, &t) in times.iter().enumerate() {
        let clean = matches!(levels, Levels::Vp { .. }) && i + 1 == times.len() && t == -1.0;
        if !clean && !(low..=high).contains(&t) {
            return Err(Error::range("times", format!("{t} at index {i}"), format!("{low} to {high}")));
        }
        if i > 0 && t >= times[i - 1] {
            return Err(Error::range(
                "times",
                format!("{t} at index {i}"),
                format!("less than {}", times[i - 1]),
            ));
        }
    }
    Ok(())
}

fn spaced(options: &PlanOptions) -> Vec<f64> {
    // An adaptive solver needs the two ends only.
    let n = if options.solver == Solver::Bosh3 { 1 } else { options.steps };
    if options.process == Process::Flow {
        let s = options.shift;
        let shifted = |i: usize| {
            let t = (n - i) as f64 / n as f64;
            s * t / (1.0 + (s - 1.0) * t)
        };
        return (0..=n).map(shifted).collect();
    }
    let train = options.train_steps;
    let time = |i: usize| match options.spacing {
        // One step alone starts from the noisiest level.
        Spacing::Uniform if n == 1 => (train - 1) as f64,
        Spacing::Uniform => ((n - 1 - i) as f64 * ((train - 1) as f64 / (n - 1) as f64)).round_ties_even(),
        Spacing::Leading => ((n - 1 - i) * (train / n)) as f64,
        Spacing::Trailing => (train as f64 - i as f64 * (train as f64 / n as f64)).round_ties_even() - 1.0,
    };
    (0..n).map(time).chain([-1.0]).collect()
}
