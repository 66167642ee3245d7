//! Numbers told beside outputs: log densities along an ode, tests of Markov chains.

use std::ffi::c_void;

use dgm_core::sampling::{Plan, Run, bits_per_dimension};
use dgm_core::{Error, Result};

use crate::fence::entry;
use crate::memory::{handle, separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::read;

/// dgm_run_tell() for plans with dgm_plan_numbers(): with a number a row, the divergence of f or its estimate
/// for a likelihood, the log density for a Markov chain with a test, whose proposals are rejected where
/// gradient or number are not finite. On failure run and state are unchanged.
///
/// @param eval_id     that of the current request
/// @param y           [rows, elements], finite in every row still active
/// @param y_len       its floats
/// @param numbers     [rows, dgm_plan_numbers()], finite in every row still active
/// @param numbers_len how many
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_tell_with(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
    eval_id: u64,
    y: *const f32,
    y_len: usize,
    numbers: *const f64,
    numbers_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let mut value = read(plan, run, run_size)?;
        separate("state", state, state_len, "y", y, y_len)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "y", y, y_len)?;
        separate("state", state, state_len, "numbers", numbers, numbers_len)?;
        separate("run", run.cast::<u8>(), run_size, "numbers", numbers, numbers_len)?;
        let (state, y) = (slice_mut("state", state, state_len)?, slice("y", y, y_len)?);
        value.tell_with(plan, state, eval_id, y, slice("numbers", numbers, numbers_len)?)?;
        value.encode(plan, slice_mut("run", run.cast::<u8>(), run_size)?).map(|_| ())
    })
}

/// The probes e of Hutchinson's estimate, one a row for the whole walk: the number to tell is e^T J e, J the
/// Jacobian of f at the input.
///
/// @param probe receives [rows, elements]
/// @param len   its floats
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_probe(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    probe: *mut f32,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        read(plan, run, run_size)?.probe(plan, slice_mut("probe", probe, len)?)
    })
}

/// Numbers a row must be as many as there are rows.
pub(crate) fn rows(run: &Run, arg: &'static str, len: usize) -> Result<()> {
    if len == run.rows() {
        return Ok(());
    }
    Err(Error::shape(arg, &[len], format!("[{}]", run.rows())))
}

/// The integral of the divergence over the time walked: by so much has the logarithm of a volume around
/// x grown. A sample that was walked from standard normals has their log density less this.
///
/// @param divergence receives a number a row
/// @param len        rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_divergence(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    divergence: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        rows(&run, "divergence", len)?;
        run.divergence(plan, slice_mut("divergence", divergence, len)?)
    })
}

/// The log density of what a finished run started from, when what it ends with is standard normal.
///
/// @param log_density receives a number a row
/// @param bits        receives -log_density / (elements ln 2), bits per dimension, a number a row; may be NULL
/// @param len         rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_log_density(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *const f32,
    state_len: usize,
    log_density: *mut f64,
    bits: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan: &Plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        rows(&run, "log_density", len)?;
        let state = slice("state", state, state_len)?;
        let out = slice_mut("log_density", log_density, len)?;
        if !bits.is_null() {
            separate("log_density", log_density, len, "bits", bits, len)?;
        }
        run.log_density(plan, state, out)?;
        if !bits.is_null() {
            let bits = slice_mut("bits", bits, len)?;
            bits.iter_mut().zip(out).for_each(|(b, l)| *b = bits_per_dimension(*l, run.elements()));
        }
        Ok(())
    })
}
