//! Embedded pairs on flow or ODE time, step size and rejection for each row.
//!
//! `k1 = f(t, x)`, `ki = f(t + ci h, x + h sum aij kj)`; the last stage is at the new x, so its slope is
//! k1 of the next step. The error is the difference to the embedded result. A rejected step keeps
//! its k1, so both cost one evaluation less than the pair has stages.

use super::pairs::Pair;
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Row, Scale, Sum, X};

/// The state tensor of the proposal, and those of the slopes: of every stage but the last, then of the last.
pub(in crate::sampling) fn slots(first: usize, pair: &Pair) -> (usize, Vec<usize>) {
    let count = pair.stages() - 1 + usize::from(pair.last + 1 == pair.stages());
    (first, (first + 1..first + 1 + count).collect())
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], pair: &Pair) -> Result<()> {
    for node in [&grid[0], &grid[grid.len() - 1]] {
        if !b.has_derivative(node) {
            return Err(b.undefined(node));
        }
    }
    let (stage, k) = slots(b.mark(), pair);
    for _ in 0..=k.len() {
        b.slot();
    }
    let slot = |index: usize| Operand::Slot(index as u8);
    let (proposal, stage) = (stage as u8, slot(stage));
    let k: Vec<Operand> = k.into_iter().map(slot).collect();
    let moved = |weights: &[f64], k: &[Operand]| {
        weights.iter().zip(k).fold(Sum::of(X, 1.0), |sum, (&a, &k)| sum.scaled(k, a, Scale::Step))
    };
    let last = pair.stages() - 1;

    let y = b.eval(At::Fraction(0.0), 0, 0, X)?;
    let slope = b.row_derivative(X, y);
    b.lin(k[0], slope);
    if b.options().h_init == 0.0 && !pair.twentieth {
        // A trial of Euler tells how fast the slope changes.
        b.push(Row::FirstStep { slope: k[0], change: None });
        b.lin(stage, moved(&[1.0], &k));
        let y = b.eval(At::Fraction(1.0), 0, 1, stage)?;
        let slope = b.row_derivative(stage, y);
        b.lin(k[1], slope.plus(k[0], -1.0));
        b.push(Row::FirstStep { slope: k[0], change: Some(k[1]) });
    }
    b.lin(stage, moved(pair.a[1], &k));
    let again = b.position();

    for i in 1..last {
        let y = b.eval(At::Fraction(pair.c[i]), 0, i as u16, stage)?;
        let slope = b.row_derivative(stage, y);
        b.lin(k[i], slope);
        b.lin(stage, moved(pair.a[i + 1], &k));
    }

    let y = b.eval(At::Fraction(1.0), 0, last as u16, stage)?;
    let slope = b.row_derivative(stage, y);
    b.lin(FREE, slope);
    // The register of the clipped x0, which is spent too.
    let error = 1;
    let slopes = k[..last].iter().chain([&FREE]);
    let difference =
        pair.e.iter().zip(slopes).fold(Sum::default(), |sum, (&e, &k)| sum.scaled(k, e, Scale::Step));
    b.lin(Operand::Reg(error), difference);
    b.lin(k[pair.last], Sum::of(FREE, 1.0));
    b.push(Row::Accept { error, proposal, sizes: [0, proposal] });
    b.push(Row::IfAccepted);
    b.lin(X, Sum::of(stage, 1.0));
    b.lin(k[0], Sum::of(k[pair.last], 1.0));
    b.push(Row::Merge);
    b.lin(stage, moved(pair.a[1], &k));
    if b.options().stop_at.is_none() {
        b.push(Row::Jump(again));
        return Ok(());
    }
    // Behind a stop the slope is another one; rows that stand elsewhere are told theirs again.
    let behind = b.position() + 2;
    b.push(Row::AtStop(behind));
    b.push(Row::Jump(again));
    let y = b.eval(At::Fraction(0.0), 0, 0, X)?;
    let slope = b.row_derivative(X, y);
    b.lin(k[0], slope);
    b.lin(stage, moved(pair.a[1], &k));
    b.push(Row::Jump(again));
    Ok(())
}
