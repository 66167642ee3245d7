//! Tell from one state to another.

use std::ffi::c_void;

use dgm_core::sampling::Run;

use crate::fence::entry;
use crate::memory::{handle, place, separate, slice, slice_mut};
use crate::plan::dgm_plan;

/// dgm_run_tell() for a state that must stay as it is: the next one is written to to, whose numbers do not matter.
/// The same bits, and faster where tensors are large: y is read once, and looked at while it is computed with.
/// On failure run and state are unchanged, and to holds nothing of use.
///
/// What guidance keeps in the state from one request to the next is not written to to either when outputs are told
/// together: memory that begins as zeros makes exports equal.
///
/// @param state     the state
/// @param to        receives the next one; must not overlap the others
/// @param state_len the floats of either
/// @param eval_id   that of the current request
/// @param y         as in dgm_run_tell()
/// @param y_len     its floats
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_tell_from(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    state: *const f32,
    to: *mut f32,
    state_len: usize,
    eval_id: u64,
    y: *const f32,
    y_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        separate("to", to, state_len, "state", state, state_len)?;
        separate("to", to, state_len, "y", y, y_len)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "to", to, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "y", y, y_len)?;
        let (state, to) = (slice("state", state, state_len)?, slice_mut("to", to, state_len)?);
        let (y, run) = (slice("y", y, y_len)?, slice_mut("run", run.cast::<u8>(), run_size)?);
        Run::rewrite(plan, run, |run| run.tell_from(plan, state, to, eval_id, y))
    })
}

/// dgm_run_tell() for a caller who has memory for two states: the next one is written to other where that costs less
/// than writing it over state (where y is looked at, see non_finite, and every state tensor is written anew). The same
/// bits. On failure run and state are unchanged, and other holds nothing of use. For exports that are
/// equal, other begins as zeros, see dgm_run_tell_from().
///
/// @param state     the state
/// @param other     memory for another; must not overlap it
/// @param state_len the floats of either
/// @param eval_id   that of the current request
/// @param y         as in dgm_run_tell()
/// @param y_len     its floats
/// @param swapped   receives 1 if the next state is in other, 0 if it is in state
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_tell_swap(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    other: *mut f32,
    state_len: usize,
    eval_id: u64,
    y: *const f32,
    y_len: usize,
    swapped: *mut i32,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        separate("state", state, state_len, "other", other, state_len)?;
        separate("state", state, state_len, "y", y, y_len)?;
        separate("other", other, state_len, "y", y, y_len)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "other", other, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "y", y, y_len)?;
        let swapped = place("swapped", swapped)?;
        let (state, other) = (slice_mut("state", state, state_len)?, slice_mut("other", other, state_len)?);
        let (y, run) = (slice("y", y, y_len)?, slice_mut("run", run.cast::<u8>(), run_size)?);
        let told = Run::rewrite(plan, run, |run| run.tell_swap(plan, state, other, eval_id, y, &[]))?;
        swapped.write(i32::from(told));
        Ok(())
    })
}
