//! The callback driver: ask and tell in one call.

use std::ffi::c_void;

use dgm_core::Error;
use dgm_core::sampling::Run;

use crate::apart::dgm_run_tell_swap;
use crate::fence::entry;
use crate::memory::{separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::{dgm_request, dgm_run_ask, dgm_run_input, dgm_run_start, dgm_run_tell, dgm_run_times};
use crate::status::DGM_OK;

/// A model: reads x [rows, elements] and the time t [rows] of each row, writes y [rows, elements].
/// Returns 0; anything else stops the run. It must return: no exception, no longjmp.
pub type dgm_model_fn = Option<
    unsafe extern "C" fn(
        ctx: *mut c_void,
        request: *const dgm_request,
        x: *const f32,
        t: *const f32,
        y: *mut f32,
    ) -> i32,
>;

/// Whether an evaluation is the last one; of an adaptive plan the last that it may have.
///
/// # Safety
/// `plan` must be NULL or a live handle.
unsafe fn ends(plan: *const dgm_plan, eval_id: u64) -> bool {
    // SAFETY: the caller's promise.
    unsafe { plan.as_ref() }.is_some_and(|plan| eval_id >= plan.0.max_evals() as u64)
}

/// Starts a run and carries it to its end, calling model for every evaluation.
///
/// When model returns another number than 0, that number is returned and the run stands where it
/// was: continue with dgm_run_ask(). The result is at dgm_run_result().
///
/// A walk of many steps over a state of 4 MiB or more takes memory for a second one and turns with it, as
/// dgm_run_tell_swap() does: until it returns, state may be that of an earlier step.
///
/// @param plan      from dgm_plan_compile()
/// @param seeds     one seed for each row
/// @param rows      samples in the batch
/// @param elements  numbers in one sample
/// @param x_start   [rows, elements] to start from; NULL draws the plan's initial noise
/// @param run       receives the run
/// @param run_size  its size, that of dgm_plan_run_size()
/// @param state     receives the state
/// @param state_len its floats, those of dgm_plan_state_len()
/// @param y         scratch of rows * elements floats, times dgm_plan_outputs()
/// @param t         scratch of rows floats
/// @param model     the model
/// @param ctx       passed on to model
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_sample(
    plan: *const dgm_plan,
    seeds: *const u64,
    rows: usize,
    elements: usize,
    x_start: *const f32,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
    y: *mut f32,
    t: *mut f32,
    model: dgm_model_fn,
    ctx: *mut c_void,
) -> i32 {
    let Some(model) = model else {
        return entry(|| Err(Error::Null { arg: "model", expected: "a function" }));
    };
    // SAFETY: the caller gives a live handle or NULL; NULL is reported below.
    let outputs = unsafe { plan.as_ref() }.map_or(1, |plan| plan.0.outputs());
    let x_len = rows.saturating_mul(elements);
    let y_len = x_len.saturating_mul(outputs);
    // The model runs outside `entry`, in the floating-point environment of its own language.
    // SAFETY: the caller gives memory of the sizes said, or NULL, and a model that keeps to its
    // contract; every pointer is passed on as it came.
    unsafe {
        let checked = entry(|| {
            slice_mut("y", y, y_len)?;
            slice_mut("t", t, rows)?;
            slice("seeds", seeds, rows)?;
            // What the calls below check one by one, they check after the model has written y.
            separate("t", t, rows, "y", y, y_len)?;
            for (arg, scratch, len) in [("y", y, y_len), ("t", t, rows)] {
                separate(arg, scratch, len, "state", state, state_len)?;
                separate(arg, scratch, len, "run", run.cast::<u8>(), run_size)?;
                separate(arg, scratch, len, "seeds", seeds, rows)?;
                if !x_start.is_null() {
                    separate(arg, scratch, len, "x_start", x_start, x_len)?;
                }
            }
            Ok(())
        });
        if checked != DGM_OK {
            return checked;
        }
        let mut status = dgm_run_start(plan, seeds, rows, elements, x_start, run, run_size, state, state_len);
        // Where too little is to be gained by a second state, it is empty.
        let mut other = Vec::new();
        if status == DGM_OK {
            let header = std::slice::from_raw_parts(run.cast::<u8>(), run_size);
            let second = |run: &Run| Ok(run.second_state(&(*plan).0, state_len, y_len));
            other = Run::read(&(*plan).0, header, second).unwrap_or_default();
        }
        let (mut now, mut then) = (state, other.as_mut_ptr());
        while status == DGM_OK {
            let (mut request, mut x) = (dgm_request::DONE, std::ptr::null_mut());
            status = dgm_run_ask(plan, run, run_size, &mut request);
            if status != DGM_OK || request.done == 1 {
                break;
            }
            status = dgm_run_times(plan, run, run_size, t, rows);
            if status == DGM_OK {
                status = dgm_run_input(plan, run, run_size, now, state_len, &mut x);
            }
            if status == DGM_OK {
                status = model(ctx, &request, x, t, y);
            }
            if status == DGM_OK {
                let id = request.eval_id;
                // The walk is to end in the caller's state.
                if other.is_empty() || now == state && ends(plan, id) {
                    status = dgm_run_tell(plan, run, run_size, now, state_len, id, y, y_len);
                } else {
                    let mut swapped = 0;
                    status = dgm_run_tell_swap(
                        plan,
                        run,
                        run_size,
                        now,
                        then,
                        state_len,
                        id,
                        y,
                        y_len,
                        &mut swapped,
                    );
                    if swapped == 1 {
                        (now, then) = (then, now);
                    }
                }
            }
        }
        if now != state {
            std::ptr::copy_nonoverlapping(now, state, state_len);
        }
        status
    }
}
