//! Markov chains on a density of the caller, whose model returns the gradient of its logarithm.
//!
//! One iteration of HMC: `p0` normal; `p = p0 + e/2 grad(x)`, `q = x + e p`, and after every further gradient
//! `p += e grad(q)`, `q += e p`, the last one half; then the test (Duane 1987; Neal 2011). MALA is HMC
//! of one step with `e = sqrt(2 h)` (Roberts & Tweedie 1996). The gradient at x is kept.

use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Row, Scale, Sum, X};

/// `x += h grad + sqrt(2 h) z` (Roberts & Tweedie 1996).
pub(super) fn ula(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let h = b.options().step_size;
    for (step, node) in grid[..grid.len() - 1].iter().enumerate() {
        let y = b.eval(At::Node(*node), step, 0, X)?;
        b.lin(X, Sum::of(X, 1.0).plus(y, h).plus(Operand::Noise, libm::sqrt(2.0 * h)));
    }
    Ok(())
}

/// `corrector_steps` Langevin steps at every level, `x += a score + sqrt(2 a) z` with
/// `a = step_size sigma^2` (Song & Ermon 2019, algorithm 1; their epsilon is `2 step_size` times the square of
/// the last sigma).
pub(super) fn annealed(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let noisy = grid.len() - usize::from(grid[grid.len() - 1].sigma == 0.0);
    let count = b.options().corrector_steps;
    for (step, node) in grid[..noisy].iter().enumerate() {
        let a = b.options().step_size * node.sigma * node.sigma;
        for stage in 0..count {
            let y = b.eval(At::Node(*node), step, stage as u16, X)?;
            let eps = b.eps(node, X, y)?;
            let scale = b.options().s_noise * libm::sqrt(2.0 * a);
            let noise = b.fresh(step, stage as u32 + 1);
            b.lin(X, Sum::of(X, 1.0).plus_sum(&eps, -a / node.sigma).plus(noise, scale));
        }
    }
    Ok(())
}

/// HMC with `leaps` leapfrog steps.
pub(super) fn hmc(b: &mut Builder<'_>, grid: &[Node], leaps: usize) -> Result<()> {
    let [gradient, q, p, p0, next] = std::array::from_fn(|_| b.slot());
    let slot = |operand: Operand| match operand {
        Operand::Slot(i) => i,
        _ => unreachable!("slots are state tensors"),
    };
    let step = |sum: Sum, k: Operand, c: f64| sum.scaled(k, c, Scale::Step);
    let propose = |b: &mut Builder<'_>, number: usize| {
        let noise = b.fresh(number, 0);
        b.lin(p0, Sum::of(noise, 1.0));
        b.lin(p, step(Sum::of(p0, 1.0), gradient, 0.5));
        b.lin(q, step(Sum::of(X, 1.0), p, 1.0));
    };
    let y = b.eval(At::Node(grid[0]), 0, 0, X)?;
    b.lin(gradient, Sum::of(y, 1.0));
    propose(b, 0);
    let count = grid.len() - 1;
    for (number, node) in grid[..count].iter().enumerate() {
        for leap in 1..=leaps {
            let y = b.eval(At::Node(*node), number, leap as u16, q)?;
            if leap < leaps {
                b.lin(p, step(Sum::of(p, 1.0), y, 1.0));
                b.lin(q, step(Sum::of(q, 1.0), p, 1.0));
                continue;
            }
            b.lin(p, step(Sum::of(p, 1.0), y, 0.5));
            b.lin(next, Sum::of(y, 1.0));
        }
        let number = number as u32;
        b.push(Row::Metropolis {
            gradient: slot(gradient),
            next: slot(next),
            p0: slot(p0),
            p: slot(p),
            number,
        });
        b.push(Row::IfAccepted);
        b.lin(X, Sum::of(q, 1.0));
        b.lin(gradient, Sum::of(next, 1.0));
        b.push(Row::Merge);
        if (number as usize) + 1 < count {
            propose(b, number as usize + 1);
        }
    }
    Ok(())
}
