//! DDIM (Song 2021, eq. 12): `x' = alpha' x0 + sqrt(sigma'^2 - d^2) eps + d z` with
//! `d = eta * (deviation of the DDPM posterior)`. Eps follows from x and the (possibly
//! clipped) x0. The last level of the default VP grid is clean data (alpha 1).

use super::ddpm::posterior;
use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Sum, X};

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        let data = b.data(&from, X, y)?;
        let (_, v) = posterior(&from, &to);
        let deviation = b.options().eta * libm::sqrt(v.max(0.0)) * to.sigma / from.sigma;
        let kept = libm::sqrt((to.sigma * to.sigma - deviation * deviation).max(0.0));
        let sum = if b.separates() {
            let eps = b.renoise(&from, X, &data)?;
            data.times(to.alpha).plus_sum(&eps, kept)
        } else {
            let noise = kept / from.sigma;
            Sum::of(X, noise).plus_sum(&data, to.alpha - noise * from.alpha)
        };
        let normals = b.noise(step, 0, &from, &to);
        b.lin(X, sum.plus(normals, b.options().s_noise * deviation));
    }
    Ok(())
}

/// From data to noise: each step evaluates x at the time of the level it goes to, the only one
/// a model knows at the clean end.
pub(super) fn inverse(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(to), step, 0, X)?;
        // Clean data bounds x0, but says nothing about the noise.
        let (data, eps) = (b.data(&from, X, y)?, b.free_eps(&from, X, y)?);
        b.lin(X, data.times(to.alpha).plus_sum(&eps, to.sigma));
    }
    Ok(())
}
