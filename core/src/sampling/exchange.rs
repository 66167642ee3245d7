//! Parallel tempering: chains at neighbouring temperatures exchange where they are.

use ndarray::{ArrayViewMut2, Zip, s};

use crate::error::{Error, Result, check_shape};
use crate::random::{Purpose, check_seeds, one_uniform};

/// One round of exchanges: rows `t` and `t + 1` of a ladder change places with the probability
/// `min(1, exp((beta_t - beta_(t + 1)) (l_(t + 1) - l_t)))`, which leaves `p^beta_0 p^beta_1 ...` as it is.
///
/// At an even `step` the pairs (0, 1), (2, 3), ... are tried, at an odd one (1, 2), (3, 4), ... Rows are chains of any
/// kind: of [`Rbm::gibbs`](crate::models::Rbm::gibbs), whose log density is the negative energy of v and h, or of a plan
/// for a target whose model multiplies score and log density by the row's inverse temperature.
///
/// * `x` `[ladders * T, elements]`, any strides that keep elements apart, in place.
/// * `log_density` `[ladders * T]`: `ln p` of every row at inverse temperature 1, up to a constant; finite or -infinity.
///   It changes places with its row.
/// * `inverse_temperatures` `[T]`: those of every ladder, finite in f32, not negative, at least one.
/// * `seeds` `[ladders * T]`: a pair is decided by the seed of its first row and the step.
/// * `accepted` `[ladders, T - 1]` receives which pairs have changed places; those not tried have not.
///
/// R. H. Swendsen and J.-S. Wang, Phys. Rev. Lett. 57 (1986); C. J. Geyer (1991); D. J. Earl and M. W. Deem, Phys. Chem.
/// Chem. Phys. 7 (2005).
///
/// ```
/// use dgm_core::sampling::replica_exchange;
/// use ndarray::array;
/// let (mut x, mut log_density) = (array![[1.0f32], [2.0]], [-3.0, -1.0]);
/// let mut accepted = [false];
/// // What is likelier goes to the colder row, always.
/// replica_exchange(x.view_mut(), &mut log_density, &[1.0, 0.1], &[5, 6], 0, &mut accepted)?;
/// assert_eq!((x, log_density, accepted), (array![[2.0], [1.0]], [-1.0, -3.0], [true]));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] or [`Error::Range`] naming the argument; nothing is then changed.
pub fn replica_exchange(
    mut x: ArrayViewMut2<f32>,
    log_density: &mut [f64],
    inverse_temperatures: &[f64],
    seeds: &[u64],
    step: u32,
    accepted: &mut [bool],
) -> Result<()> {
    let (rows, count) = (x.nrows(), inverse_temperatures.len());
    if count == 0 || !rows.is_multiple_of(count) {
        let expected = format!("[a divisor of {rows}, the rows of x]");
        return Err(Error::shape("inverse_temperatures", &[count], expected));
    }
    check_inverse_temperatures(inverse_temperatures)?;
    check_shape("log_density", &[log_density.len()], &[rows])?;
    check_seeds(seeds, rows)?;
    check_shape("accepted", &[accepted.len()], &[rows / count * (count - 1)])?;
    if let Some(i) = log_density.iter().position(|l| l.is_nan() || *l == f64::INFINITY) {
        let got = format!("{} at row {i}", log_density[i]);
        return Err(Error::range("log_density", got, "finite numbers or -infinity"));
    }
    accepted.fill(false);
    for ladder in 0..rows / count {
        for t in ((step % 2) as usize..count - 1).step_by(2) {
            let row = ladder * count + t;
            let gain = (inverse_temperatures[t] - inverse_temperatures[t + 1])
                * (log_density[row + 1] - log_density[row]);
            let u = one_uniform(seeds[row], Purpose::Exchange as u32, step);
            // A gain that is no number, of two impossible rows or of 0 times infinity, has no pair change places.
            if !gain.is_nan() && u < libm::exp(gain.min(0.0)) {
                log_density.swap(row, row + 1);
                let (a, b) = x.multi_slice_mut((s![row, ..], s![row + 1, ..]));
                Zip::from(a).and(b).for_each(std::mem::swap);
                accepted[ladder * (count - 1) + t] = true;
            }
        }
    }
    Ok(())
}

/// Inverse temperatures are not negative, and f32 holds them.
pub(crate) fn check_inverse_temperatures(all: &[f64]) -> Result<()> {
    match all.iter().position(|b| !(*b >= 0.0 && (*b as f32).is_finite())) {
        None => Ok(()),
        Some(i) => {
            let got = format!("{} at {i}", all[i]);
            Err(Error::range("inverse_temperatures", got, "finite numbers, not negative, that f32 can hold"))
        }
    }
}
