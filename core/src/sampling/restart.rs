//! Restart sampling (Xu 2023): a walk of several segments with noise in between.

use super::builder::Builder;
use super::options::PlanOptions;
use super::process::{Levels, Node};
use super::solvers;
use super::table::{Sum, X};
use crate::error::{Error, Result};

/// The segments of a walk: the grid, cut where it goes back.
pub(super) fn segments(options: &PlanOptions, levels: &Levels, grid: &[Node]) -> Result<Vec<Vec<Node>>> {
    let Some(restart) = &options.restart else { return Ok(vec![grid.to_vec()]) };
    let mut segments = Vec::new();
    let mut rest = grid.to_vec();
    for group in restart.chunks_exact(4) {
        let (low, steps, times, high) = (group[0], group[1] as usize, group[2] as usize, group[3]);
        // The grid's node nearest to sigma_min from above is where the walk turns.
        let turn = rest.iter().rposition(|n| levels.level(n) >= low && n.is_mixed());
        let most = levels.level(&rest[0]);
        let Some(turn) =
            turn.filter(|&i| i > 0 && i + 1 < rest.len() && high <= most && levels.level(&rest[i]) < high)
        else {
            let expected = format!("levels inside the grid, in falling order, at most {most}");
            return Err(Error::range("restart", format!("{group:?}"), expected));
        };
        let after = rest.split_off(turn + 1);
        let bottom = rest[turn];
        segments.push(std::mem::replace(&mut rest, [vec![bottom], after].concat()));
        for _ in 0..times {
            segments.push(karras(levels, high, &bottom, steps));
        }
    }
    segments.push(rest);
    Ok(segments)
}

/// Karras steps (rho 7) from a level down to a node.
fn karras(levels: &Levels, high: f64, bottom: &Node, steps: usize) -> Vec<Node> {
    let low = levels.level(bottom);
    let (a, b) = (libm::pow(high, 1.0 / 7.0), libm::pow(low, 1.0 / 7.0));
    let level = |i: usize| libm::pow(a + i as f64 / steps as f64 * (b - a), 7.0);
    (0..steps).map(|i| levels.at_level(if i == 0 { high } else { level(i) })).chain([*bottom]).collect()
}

/// Writes all segments; each begins without history.
pub(super) fn build(options: &PlanOptions, b: &mut Builder<'_>, segments: &[Vec<Node>]) -> Result<()> {
    let mark = b.mark();
    let mut first = 0;
    for (i, nodes) in segments.iter().enumerate() {
        if i > 0 {
            let (from, to) = (&segments[i - 1][segments[i - 1].len() - 1], &nodes[0]);
            if from != to {
                let noise = b.churn(first);
                renoise(b, from, to, noise, options.s_noise);
            }
        }
        b.release(mark);
        b.begin(nodes, first);
        solvers::build(options.solver, b, nodes)?;
        first += nodes.len() - 1;
    }
    Ok(())
}

/// The forward process from one level to a noisier one.
fn renoise(b: &mut Builder<'_>, from: &Node, to: &Node, noise: super::table::Operand, scale: f64) {
    let keep = to.alpha / from.alpha;
    let added = libm::sqrt((to.sigma * to.sigma - keep * keep * from.sigma * from.sigma).max(0.0));
    b.lin(X, Sum::of(X, keep).plus(noise, scale * added));
}
