//! DPM-Solver-12 and -23 (Lu 2022a, appendix on adaptive steps): singlestep DPM-Solver of two orders in one step,
//! in lambda, step size and rejection for each row.
//!
//! The higher order is kept; the error is its difference to the lower one, which is also what the next error is
//! measured by. A batch of which no row was accepted keeps the eps it begins the step with.

use super::singlestep::phi_less;
use crate::error::{Error, Result};
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Row, Scale, Sum, X};

/// A weight at a fraction of a step, in sixths; h is the part of the step up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sampling) enum Part {
    /// `alpha' / alpha`
    Keep,
    /// `-sigma' (e^h - 1)`, of a constant eps.
    Straight,
    /// `-sigma' ((e^h - 1) / h - 1)`, of an eps that grows by 1.
    Bend,
}

impl Part {
    pub(in crate::sampling) fn weight(self, from: &Node, to: &Node, h: f64) -> f64 {
        match self {
            Part::Keep => to.alpha / from.alpha,
            Part::Straight => -to.sigma * libm::expm1(h),
            Part::Bend => -to.sigma * phi_less(h),
        }
    }
}

/// x carried over so many sixths of the step.
fn carried(first: Operand, sixths: u8, straight: [f64; 2], bend: [f64; 2]) -> Sum {
    weighted(Sum::default().scaled(X, 1.0, Scale::Lambda(Part::Keep, sixths)), first, sixths, straight, bend)
}

/// Adds the first eps and the one in [`FREE`], in units of [`Part::Straight`], then of [`Part::Bend`].
fn weighted(mut sum: Sum, first: Operand, sixths: u8, straight: [f64; 2], bend: [f64; 2]) -> Sum {
    for (part, weights) in [(Part::Straight, straight), (Part::Bend, bend)] {
        for (eps, weight) in [first, FREE].into_iter().zip(weights) {
            sum = sum.scaled(eps, weight, Scale::Lambda(part, sixths));
        }
    }
    sum
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], order: usize) -> Result<()> {
    let o = b.options();
    for (node, end) in [(&grid[0], "sigma_max"), (&grid[grid.len() - 1], "sigma_min")] {
        if !node.is_mixed() {
            let got = format!("t = {} (alpha {}, sigma {})", node.t, node.alpha, node.sigma);
            let (arg, expected) = match (o.times.is_some() || o.sigmas.is_some(), o.zero_snr) {
                (true, _) => ("times", "times"),
                (false, true) => ("zero_snr", "false, or times"),
                (false, false) => (end, "levels"),
            };
            let expected =
                format!("{expected} between those with some signal and some noise: lambda is infinite there");
            return Err(Error::argument(arg, got, expected));
        }
        if !b.has_noise(node) {
            return Err(b.undefined(node));
        }
    }
    let (stage, first, low, before) = (b.slot(), b.slot(), b.slot(), b.slot());
    let index = |operand| match operand {
        Operand::Slot(i) => i,
        _ => 0,
    };
    // The eps of the first inner level, where there are two.
    let second = if order == 3 { b.slot() } else { FREE };
    let sixths = if order == 2 { 3 } else { 2 };
    let inner = |r: u8| At::Fraction(f64::from(r) / 6.0);
    b.lin(before, Sum::of(X, 1.0));

    let start = b.position();
    let y = b.eval(At::Fraction(0.0), 0, 0, X)?;
    let eps = b.row_eps(X, y);
    b.lin(first, eps);
    let reached = carried(first, sixths, [1.0, 0.0], [0.0; 2]);
    b.lin(stage, reached.clone());

    let again = b.position();
    let y = b.eval(inner(sixths), 0, 1, stage)?;
    let eps = b.row_eps(stage, y);
    b.lin(FREE, eps);
    // Lower order less higher, written out: the difference of the two results would be mostly rounding.
    let difference = if order == 2 {
        b.lin(low, carried(first, 6, [1.0, 0.0], [0.0; 2]));
        // The weight of the first eps is 1 - 1 / (2 r) = 0.
        b.lin(stage, carried(first, 6, [0.0, 1.0], [0.0; 2]));
        weighted(Sum::default(), first, 6, [1.0, -1.0], [0.0; 2])
    } else {
        b.lin(second, Sum::of(FREE, 1.0));
        b.lin(low, carried(first, 6, [-0.5, 1.5], [0.0; 2]));
        b.lin(stage, carried(first, 4, [1.0, 0.0], [-2.0, 2.0]));
        let y = b.eval(inner(4), 0, 2, stage)?;
        let eps = b.row_eps(stage, y);
        b.lin(FREE, eps);
        b.lin(stage, carried(first, 6, [1.0, 0.0], [-1.5, 1.5]));
        let part = Sum::default().scaled(second, 1.5, Scale::Lambda(Part::Straight, 6));
        weighted(part, first, 6, [-1.5, 0.0], [1.5, -1.5])
    };
    // The register of the clipped x0, which is spent.
    let error = 1;
    b.lin(Operand::Reg(error), difference);
    b.push(Row::Accept { error, proposal: index(stage), sizes: [index(low), index(before)] });
    b.push(Row::IfAccepted);
    b.lin(X, Sum::of(stage, 1.0));
    b.lin(before, Sum::of(low, 1.0));
    b.push(Row::Merge);
    b.lin(stage, reached);
    b.push(Row::Retry(again));
    b.push(Row::Jump(start));
    Ok(())
}
