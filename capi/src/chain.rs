//! Markov chains: what they accepted, their steps, how well they have mixed.

use std::ffi::c_void;

use dgm_core::Error;
use dgm_core::sampling::{effective_sample_size, replica_exchange, split_r_hat};
use ndarray::Ix2;

use crate::density::rows;
use crate::fence::entry;
use crate::memory::{handle, put, separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::read;
use crate::tensor::{Tensor, dgm_tensor};

/// Proposals that every chain of mala or hmc has accepted since the warmup.
///
/// @param accepted receives a count a row
/// @param len      rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_accepted(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    accepted: *mut u64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        rows(&run, "accepted", len)?;
        run.accepted(plan, slice_mut("accepted", accepted, len)?)
    })
}

/// The step size of every chain: h of mala, the leapfrog step of hmc.
///
/// @param step_sizes receives a number a row
/// @param len        rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_step_sizes(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    step_sizes: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        rows(&run, "step_sizes", len)?;
        run.step_sizes(plan, slice_mut("step_sizes", step_sizes, len)?)
    })
}

/// Split R-hat: the ratio of the deviation over all halves of chains to that within them; 1 where they agree.
///
/// @param draws  [chains, n], n at least 4
/// @param len    chains * n
/// @param r_hat  receives it; NaN where nothing moves
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_split_r_hat(
    draws: *const f64,
    len: usize,
    chains: usize,
    r_hat: *mut f64,
) -> i32 {
    // SAFETY: the caller gives `len` readable numbers and a valid place, or NULL.
    entry(|| unsafe { put("r_hat", r_hat, split_r_hat(slice("draws", draws, len)?, chains)?) })
}

/// Effective number of independent draws, over split chains (Geyer 1992).
///
/// @param draws [chains, n], n at least 4
/// @param len   chains * n
/// @param size  receives it; NaN where nothing moves
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_effective_sample_size(
    draws: *const f64,
    len: usize,
    chains: usize,
    size: *mut f64,
) -> i32 {
    // SAFETY: the caller gives `len` readable numbers and a valid place, or NULL.
    entry(|| unsafe { put("size", size, effective_sample_size(slice("draws", draws, len)?, chains)?) })
}

/// One round of exchanges of parallel tempering: rows t and t + 1 of a ladder change places with the probability
/// min(1, exp((beta_t - beta_(t+1)) (l_(t+1) - l_t))), at an even step those of even t, at an odd step those of odd t.
/// The chains are of any kind; a pair is decided by the seed of its first row and the step.
///
/// @param x                    [ladders * temperatures, elements], in place
/// @param log_density          [ladders * temperatures], ln p at inverse temperature 1 up to a constant, finite or
///                             -infinity; changes places with its row
/// @param inverse_temperatures those of every ladder, not negative
/// @param temperatures         how many, at least 1; divides rows
/// @param seeds                one 64-bit seed for each row
/// @param rows                 how many rows, log densities and seeds
/// @param step                 number of the round
/// @param accepted             receives [ladders, temperatures - 1], 1 for the pairs that have changed places, else 0
/// @param accepted_len         how many
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_replica_exchange(
    x: *mut dgm_tensor,
    log_density: *mut f64,
    inverse_temperatures: *const f64,
    temperatures: usize,
    seeds: *const u64,
    rows: usize,
    step: u32,
    accepted: *mut u8,
    accepted_len: usize,
) -> i32 {
    // SAFETY: the caller gives a valid descriptor and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let x = Tensor::read("x", x, Some(2), "[rows, elements]")?;
        separate("accepted", accepted, accepted_len, "log_density", log_density, rows)?;
        for (arg, array, len) in [
            ("log_density", log_density.cast::<u8>(), rows.saturating_mul(8)),
            ("accepted", accepted, accepted_len),
        ] {
            separate(arg, array, len, "seeds", seeds, rows)?;
            separate(arg, array, len, "inverse_temperatures", inverse_temperatures, temperatures)?;
        }
        let betas = slice("inverse_temperatures", inverse_temperatures, temperatures)?;
        let seeds = slice("seeds", seeds, rows)?;
        let log_density = slice_mut("log_density", log_density, rows)?;
        let accepted = slice_mut("accepted", accepted, accepted_len)?;
        x.check_separate("log_density", log_density)?;
        x.check_separate("inverse_temperatures", betas)?;
        x.check_separate("seeds", seeds)?;
        x.check_separate("accepted", accepted)?;
        if accepted_len > rows {
            let expected = "[ladders, temperatures - 1], fewer than the rows";
            return Err(Error::shape("accepted", &[accepted_len], expected));
        }
        let mut taken = vec![false; accepted_len];
        replica_exchange(x.output::<Ix2>(&[])?, log_density, betas, seeds, step, &mut taken)?;
        accepted.iter_mut().zip(taken).for_each(|(to, taken)| *to = u8::from(taken));
        Ok(())
    })
}
