//! Markov chains: what they accepted, their steps, how well they have mixed.

use std::ffi::c_void;

use dgm_core::sampling::{effective_sample_size, split_r_hat};

use crate::density::rows;
use crate::fence::entry;
use crate::memory::{handle, put, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::read;

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
