//! DDIM (Song 2021, eq. 12): `x' = alpha' x0 + sqrt(sigma'^2 - d^2) eps + d z` with
//! `d = eta * (deviation of the DDPM posterior)`. Eps follows from x and the (possibly
//! clipped) x0. The last level of the default VP grid is clean data (alpha 1).

use super::ddpm::posterior;
use crate::error::Result;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Builder, Operand, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X);
        let data = b.data(&from, X, y)?;
        let (_, v) = posterior(&from, &to);
        let deviation = b.eta() * libm::sqrt(v.max(0.0)) * to.sigma / from.sigma;
        let noise = libm::sqrt((to.sigma * to.sigma - deviation * deviation).max(0.0)) / from.sigma;
        b.lin(
            X,
            Sum::of(X, noise).plus_sum(&data, to.alpha - noise * from.alpha).plus(Operand::Noise, deviation),
        );
    }
    Ok(())
}
