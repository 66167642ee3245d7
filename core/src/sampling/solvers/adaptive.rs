//! Bogacki-Shampine 3(2) (1989) on flow time, step size and rejection for each row.
//!
//! k1 = f(t, x), k2 = f(t + h/2, x + h/2 k1), k3 = f(t + 3h/4, x + 3h/4 k2),
//! x' = x + h (2/9 k1 + 1/3 k2 + 4/9 k3), k4 = f(t + h, x'). The error is the difference to the
//! embedded second-order result. k4 is k1 of the next step; a rejected step keeps its k1, so
//! both cost three evaluations.

use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Row, Scale, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for node in [&grid[0], &grid[grid.len() - 1]] {
        if !b.has_derivative(node) {
            return Err(b.undefined(node));
        }
    }
    let stage = b.slot();
    let k: [Operand; 3] = std::array::from_fn(|_| b.slot());
    let h = |sum: Sum, k: Operand, c: f64| sum.scaled(k, c, Scale::Step);

    let y = b.eval(At::Fraction(0.0), 0, 0, X)?;
    let slope = b.row_derivative(X, y);
    b.lin(k[0], slope);
    b.lin(stage, h(Sum::of(X, 1.0), k[0], 0.5));
    let again = b.position();

    let y = b.eval(At::Fraction(0.5), 0, 1, stage)?;
    let slope = b.row_derivative(stage, y);
    b.lin(k[1], slope);
    b.lin(stage, h(Sum::of(X, 1.0), k[1], 0.75));

    let y = b.eval(At::Fraction(0.75), 0, 2, stage)?;
    let slope = b.row_derivative(stage, y);
    b.lin(k[2], slope);
    b.lin(stage, h(h(h(Sum::of(X, 1.0), k[0], 2.0 / 9.0), k[1], 1.0 / 3.0), k[2], 4.0 / 9.0));

    let y = b.eval(At::Fraction(1.0), 0, 3, stage)?;
    let slope = b.row_derivative(stage, y);
    b.lin(FREE, slope);
    // The register of the clipped x0, which is spent too.
    let error = 1;
    let difference =
        h(h(h(h(Sum::default(), k[0], -5.0 / 72.0), k[1], 1.0 / 12.0), k[2], 1.0 / 9.0), FREE, -0.125);
    b.lin(Operand::Reg(error), difference);
    // k2 is spent: it keeps k4 until the verdict.
    b.lin(k[1], Sum::of(FREE, 1.0));
    let Operand::Slot(proposal) = stage else { unreachable!("slots are state tensors") };
    b.push(Row::Accept { error, proposal });
    b.push(Row::IfAccepted);
    b.lin(X, Sum::of(stage, 1.0));
    b.lin(k[0], Sum::of(k[1], 1.0));
    b.push(Row::Merge);
    b.lin(stage, h(Sum::of(X, 1.0), k[0], 0.5));
    b.push(Row::Jump(again));
    Ok(())
}
