//! DPM-Solver++(2M) (Lu 2022b, algorithm 2): exponential integrator in lambda = ln(alpha/sigma)
//! with the predicted x0 of this step and the one before.
//!
//! First order at the first step, where there is no history, and at a last step to sigma 0,
//! which is infinitely long in lambda. A flow that starts at alpha 0 begins at lambda -inf:
//! its first step is then infinitely long too and the second one weighs that history by 0.

use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let before = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        b.lin(FREE, data);
        let h = to.lambda() - from.lambda();
        let weight = -to.alpha * libm::expm1(-h);
        let mut sum = Sum::of(X, to.sigma / from.sigma);
        if step == 0 || to.sigma == 0.0 {
            sum = sum.plus(FREE, weight);
        } else {
            let h_before = from.lambda() - grid[step - 1].lambda();
            // 1 / (2 r) with r = h_before / h.
            let half = 0.5 * h / h_before;
            sum = sum.plus(FREE, weight * (1.0 + half)).plus(before, -weight * half);
        }
        b.lin(X, sum);
        if step + 2 < grid.len() {
            b.lin(before, Sum::of(FREE, 1.0));
        }
    }
    Ok(())
}
