//! Rows of one batch at times of their own.

use std::ffi::c_void;

use dgm_core::sampling::{Plan, Run};
use dgm_core::{Error, Result};

use crate::fence::entry;
use crate::memory::{handle, separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::read;

/// Changes a run by one flag a row.
///
/// # Safety
/// As the functions below.
unsafe fn change(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    flags: (*const u8, usize),
    with: impl FnOnce(&mut Run, &Plan, &[bool]) -> Result<()>,
) -> Result<()> {
    let (rows, len) = flags;
    // SAFETY: the caller's promise.
    unsafe {
        let plan = &handle("plan", plan)?.0;
        let mut value = read(plan, run, run_size)?;
        separate("run", run.cast::<u8>(), run_size, "rows", rows, len)?;
        let rows = slice("rows", rows, len)?;
        if let Some(other) = rows.iter().find(|v| **v > 1) {
            return Err(Error::argument("rows", other, "0 or 1 for each row"));
        }
        let rows: Vec<bool> = rows.iter().map(|v| *v == 1).collect();
        with(&mut value, plan, &rows)?;
        value.encode(plan, slice_mut("run", run.cast::<u8>(), run_size)?).map(|_| ())
    }
}

/// Says which rows take a step from now on, for plans with per_row; at first all do. The others stay
/// where they are, at their own time (dgm_run_times()), and may be told anything: Diffusion Forcing,
/// pyramids, rows that wait. A row's bits do not depend on when it moves. Called between steps, not
/// inside one. On failure the run is unchanged.
///
/// @param rows 1 for a row that moves, 0 for one that stays
/// @param len  rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_select(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    rows: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe { change(plan, run, run_size, (rows, len), |run, plan, rows| run.select(plan, rows)) })
}

/// Declares rows finished, for plans with per_row: their x stays as it is, their time is the last one.
/// For parts that are known, which the model reads beside the rest. Otherwise as dgm_run_select().
///
/// @param rows 1 for a row that is finished
/// @param len  rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_finish_rows(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    rows: *const u8,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        change(plan, run, run_size, (rows, len), |run, plan, rows| run.finish_rows(plan, rows))
    })
}

/// Steps that every row has finished; those of the plan where it is done. Not for adaptive solvers.
///
/// @param steps receives rows numbers
/// @param rows  rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_row_steps(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    steps: *mut i64,
    rows: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        if rows != run.rows() {
            return Err(Error::shape("steps", &[rows], format!("[{}]", run.rows())));
        }
        let mut list = vec![0; rows];
        run.row_steps(plan, &mut list)?;
        let steps = slice_mut("steps", steps, rows)?;
        steps.iter_mut().zip(list).for_each(|(to, from)| *to = from as i64);
        Ok(())
    })
}

/// Which rows of the output for the current request are used: 1, else 0.
///
/// @param active receives rows flags
/// @param rows   rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_row_active(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    active: *mut u8,
    rows: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        if rows != run.rows() {
            return Err(Error::shape("active", &[rows], format!("[{}]", run.rows())));
        }
        let mut list = vec![false; rows];
        run.row_active(plan, &mut list)?;
        let active = slice_mut("active", active, rows)?;
        active.iter_mut().zip(list).for_each(|(to, from)| *to = u8::from(from));
        Ok(())
    })
}
