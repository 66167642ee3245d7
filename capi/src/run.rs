//! Runs: ask and tell. The run is bytes of the caller, read and written at every call.

use std::ffi::c_void;

use dgm_core::sampling::{Ask, Plan, Request, Run};
use dgm_core::{Error, Result};

use crate::fence::{entry, guarded};
use crate::memory::{Versioned, handle, place, put, separate, slice, slice_mut, write_struct};
use crate::plan::dgm_plan;

/// The model is asked with the condition.
pub const DGM_ROLE_COND: i32 = 0;
/// The model is asked without the condition (classifier-free guidance).
pub const DGM_ROLE_UNCOND: i32 = 1;
/// The weaker model of autoguidance is asked, with the condition.
pub const DGM_ROLE_WEAK: i32 = 2;

/// What a run wants next. Set struct_size = sizeof(dgm_request) before dgm_run_ask().
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_request {
    /// sizeof(dgm_request).
    pub struct_size: usize,
    /// 1 when the result is ready; then nothing below has a meaning.
    pub done: i32,
    /// DGM_ROLE_COND, DGM_ROLE_UNCOND or DGM_ROLE_WEAK.
    pub role: i32,
    /// Names this evaluation; dgm_run_tell() wants it back.
    pub eval_id: u64,
    /// Step, from 0.
    pub step: i64,
    /// Evaluation inside the step, from 0.
    pub stage: i64,
    /// State tensor that the model reads.
    pub slot: i64,
    /// Model time (of the first unfinished row when uniform_t is 0).
    pub t: f64,
    /// Weight of the noise at t.
    pub sigma: f64,
    /// Weight of the data at t.
    pub alpha: f64,
    /// Rows of the batch.
    pub rows: i64,
    /// Numbers in a row.
    pub elements: i64,
    /// Rows whose output is used; the others may be told anything.
    pub active_rows: i64,
    /// 1 when all rows share t; else see dgm_run_times().
    pub uniform_t: i32,
    /// Bit r: role r is among the outputs that dgm_run_tell() takes at once. They are those of this evaluation and of
    /// the ones that follow on the same input, in rising order of their roles.
    pub roles: u32,
    /// Model time at which the step ends (where a flow map must land); of an adaptive solver the end of the walk.
    pub t_to: f64,
}

// SAFETY: repr(C), the size first, no padding, plain numbers.
unsafe impl Versioned for dgm_request {}

impl dgm_request {
    pub(crate) const DONE: dgm_request = dgm_request {
        struct_size: size_of::<dgm_request>(),
        done: 1,
        role: 0,
        eval_id: 0,
        step: 0,
        stage: 0,
        slot: 0,
        t: 0.0,
        sigma: 0.0,
        alpha: 0.0,
        rows: 0,
        elements: 0,
        active_rows: 0,
        uniform_t: 1,
        roles: 0,
        t_to: 0.0,
    };
}

impl From<Request> for dgm_request {
    #[inline(always)]
    fn from(r: Request) -> Self {
        dgm_request {
            done: 0,
            role: r.role as i32,
            eval_id: r.eval_id,
            step: i64::from(r.step),
            stage: i64::from(r.stage),
            slot: r.slot as i64,
            t: r.t,
            sigma: r.sigma,
            alpha: r.alpha,
            rows: r.rows as i64,
            elements: r.elements as i64,
            active_rows: r.active_rows as i64,
            uniform_t: i32::from(r.uniform_t),
            t_to: r.t_to,
            roles: r.roles,
            ..dgm_request::DONE
        }
    }
}

/// Bytes of a run of `rows` rows.
pub(crate) fn run_size(plan: &Plan, rows: usize) -> Result<usize> {
    plan.state_len(rows, 1)?; // checks `rows`
    Run::header_len(plan, rows)
}

/// # Safety
/// `run` must be NULL or point to `size` readable bytes.
pub(crate) unsafe fn bytes<'a>(run: *const c_void, size: usize) -> Result<&'a [u8]> {
    // SAFETY: the caller's promise.
    unsafe { slice("run", run.cast::<u8>(), size) }
}

/// # Safety
/// As [`bytes`].
pub(crate) unsafe fn read(plan: &Plan, run: *const c_void, size: usize) -> Result<Run> {
    // SAFETY: the caller's promise.
    Run::decode(plan, unsafe { bytes(run, size) }?)
}

pub(crate) fn check_size(plan: &Plan, rows: usize, size: usize) -> Result<()> {
    let expected = run_size(plan, rows)?;
    if size >= expected {
        return Ok(());
    }
    Err(Error::range(
        "run_size",
        size,
        format!("at least {expected} bytes, what dgm_plan_run_size() says for {rows} rows"),
    ))
}

/// Starts a run and fills its state.
///
/// @param plan      from dgm_plan_compile()
/// @param seeds     one seed for each row; all noise of a row is a function of its seed
/// @param rows      samples in the batch
/// @param elements  numbers in one sample
/// @param x_start   [rows, elements] taken as they are; NULL draws the plan's initial noise
/// @param run       receives the run, any alignment; may be copied and stored like any bytes
/// @param run_size  its size, at least that of dgm_plan_run_size()
/// @param state     receives the state
/// @param state_len its floats, exactly those of dgm_plan_state_len()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_start(
    plan: *const dgm_plan,
    seeds: *const u64,
    rows: usize,
    elements: usize,
    x_start: *const f32,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let expected = plan.state_len(rows, elements)?;
        if state_len != expected {
            return Err(Error::range("state_len", state_len, format!("{expected} floats")));
        }
        check_size(plan, rows, run_size)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        let len = rows * elements; // no overflow: the state is at least as large
        let x = if x_start.is_null() { None } else { Some(slice("x_start", x_start, len)?) };
        if x.is_some() {
            separate("state", state, state_len, "x_start", x_start, len)?;
        }
        separate("state", state, state_len, "seeds", seeds, rows)?;
        separate("run", run.cast::<u8>(), run_size, "seeds", seeds, rows)?;
        let (seeds, bytes) = (slice("seeds", seeds, rows)?, slice_mut("run", run.cast::<u8>(), run_size)?);
        let state = slice_mut("state", state, state_len)?;
        Run::start(plan, seeds, elements, x, state)?.encode(plan, bytes).map(|_| ())
    })
}

/// Starts a run from data noised to the plan's first level, alpha x0 + sigma z (image to image:
/// see start_step and start_sigma of dgm_plan_options). Everything else as dgm_run_start().
///
/// @param data [rows, elements]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_start_from(
    plan: *const dgm_plan,
    seeds: *const u64,
    rows: usize,
    elements: usize,
    data: *const f32,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let expected = plan.state_len(rows, elements)?;
        if state_len != expected {
            return Err(Error::range("state_len", state_len, format!("{expected} floats")));
        }
        check_size(plan, rows, run_size)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        let len = rows * elements; // no overflow: the state is at least as large
        let x0 = slice("data", data, len)?;
        separate("state", state, state_len, "data", data, len)?;
        separate("run", run.cast::<u8>(), run_size, "data", data, len)?;
        separate("state", state, state_len, "seeds", seeds, rows)?;
        separate("run", run.cast::<u8>(), run_size, "seeds", seeds, rows)?;
        let (seeds, bytes) = (slice("seeds", seeds, rows)?, slice_mut("run", run.cast::<u8>(), run_size)?);
        let state = slice_mut("state", state, state_len)?;
        Run::start_from(plan, seeds, elements, x0, state)?.encode(plan, bytes).map(|_| ())
    })
}

/// Says which parts are known, for plans with inpaint: x becomes known, noised to the level, where
/// the mask is 1, and stays where it is 0. Call it after dgm_run_start(); later it may be changed.
///
/// @param known [rows, elements]
/// @param mask  [rows, elements], 0 to 1
/// @param len   rows * elements
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_set_known(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
    known: *const f32,
    mask: *const f32,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        separate("state", state, state_len, "known", known, len)?;
        separate("state", state, state_len, "mask", mask, len)?;
        let (known, mask) = (slice("known", known, len)?, slice("mask", mask, len)?);
        run.set_known(plan, slice_mut("state", state, state_len)?, known, mask)
    })
}

/// What the run wants next: nothing (done = 1), or the model's output at slot and t. Asking again
/// gives the same answer.
///
/// @param request its struct_size must be set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_ask(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    request: *mut dgm_request,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    guarded(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        // Written where it is found: a struct of this size is not to be moved about.
        Run::read(plan, bytes(run, run_size)?, |run| match run.ask(plan)? {
            Ask::Done => write_struct("request", request, || dgm_request::DONE),
            Ask::Eval(r) => write_struct("request", request, || r.into()),
        })
    })
}

/// Model time of every row for the current request.
///
/// @param t    receives rows times
/// @param rows rows of the run
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_times(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    t: *mut f32,
    rows: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        Run::read(plan, bytes(run, run_size)?, |run| run.row_times(plan, slice_mut("t", t, rows)?))
    })
}

/// Where the model's input of the current request lies: [rows, elements] inside state.
///
/// @param x receives the address (NULL on failure)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_input(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
    x: *mut *mut f32,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        put("x", x, std::ptr::null_mut())?;
        let plan = &handle("plan", plan)?.0;
        let run = bytes(run, run_size)?;
        let floats = slice("state", state.cast_const(), state_len)?;
        let input = Run::read(plan, run, |run| run.input(plan, floats))?;
        // An address derived from the caller's own pointer may be written through.
        put("x", x, state.add(input.as_ptr().offset_from_unsigned(floats.as_ptr())))
    })
}

/// Tells the model's output and carries the run to its next request: one pass over the state.
/// On failure run and state are unchanged.
///
/// With guidance the outputs of several requests may be told at once, one after the other: as many as dgm_request.roles
/// has bits. That is one pass instead of two, and the same bits; what guidance keeps in the state from one such request
/// to the next is then not written.
///
/// @param eval_id that of the current request
/// @param y       [rows, elements], finite in every row still active (or see non_finite); [rows, 2, elements] where
///                dgm_plan_outputs() says 2; [2, rows, elements] to tell two requests, the conditional one first
/// @param y_len   its floats
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_tell(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
    eval_id: u64,
    y: *const f32,
    y_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        separate("state", state, state_len, "y", y, y_len)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "y", y, y_len)?;
        let (state, y) = (slice_mut("state", state, state_len)?, slice("y", y, y_len)?);
        let run = slice_mut("run", run.cast::<u8>(), run_size)?;
        Run::rewrite(plan, run, |run| run.tell(plan, state, eval_id, y))
    })
}

/// Where the result lies: [rows, elements] inside state; before the run is done, the current x.
///
/// @param x receives the address (NULL on failure)
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_result(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *const f32,
    state_len: usize,
    x: *mut *const f32,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        put("x", x, std::ptr::null())?;
        let plan = &handle("plan", plan)?.0;
        let (run, state) = (bytes(run, run_size)?, slice("state", state, state_len)?);
        put("x", x, Run::read(plan, run, |run| run.result(plan, state))?.as_ptr())
    })
}

/// Where x at the times of save_at lies: [save_at_len, rows, elements] inside state; zeros where a row has
/// not come yet.
///
/// @param x receives the address (NULL on failure); past the end of the tensors without save_at
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_saved(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *const f32,
    state_len: usize,
    x: *mut *const f32,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        put("x", x, std::ptr::null())?;
        let plan = &handle("plan", plan)?.0;
        let run = read(plan, run, run_size)?;
        put("x", x, run.saved(plan, slice("state", state, state_len)?)?.as_ptr())
    })
}

/// Bytes that dgm_run_export() writes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_export_size(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    bytes: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        put("bytes", bytes, read(plan, run, run_size)?.export_len(plan)?)
    })
}

/// Writes run and state as one block: versioned, little-endian, checksummed. Continuing from it
/// gives the same bits on any machine and from any language.
///
/// @param buf     receives the block
/// @param cap     its size, at least that of dgm_run_export_size()
/// @param written receives the bytes written; may be NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_export(
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *const f32,
    state_len: usize,
    buf: *mut c_void,
    cap: usize,
    written: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let value = read(plan, run, run_size)?;
        let size = value.export_len(plan)?;
        if cap < size {
            return Err(Error::range("cap", cap, format!("at least {size} bytes")));
        }
        separate("buf", buf.cast::<u8>(), cap, "state", state, state_len)?;
        separate("buf", buf.cast::<u8>(), cap, "run", run.cast::<u8>(), run_size)?;
        let target = slice_mut("buf", buf.cast::<u8>(), cap)?;
        let len = value.export_to(plan, slice("state", state, state_len)?, target)?;
        match written.is_null() {
            true => Ok(()),
            false => put("written", written, len),
        }
    })
}

/// Reads the sizes of an exported block, to make room for dgm_run_import(). They are never more than
/// the block could hold.
///
/// @param buf      the block
/// @param len      its bytes
/// @param rows     receives the rows of the run
/// @param elements receives the numbers in a row
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_peek(
    buf: *const c_void,
    len: usize,
    rows: *mut usize,
    elements: *mut usize,
) -> i32 {
    // SAFETY: the caller gives `len` readable bytes and valid places, or NULL.
    entry(|| unsafe {
        let (r, e) = Run::peek(slice("buf", buf.cast::<u8>(), len)?)?;
        // Both places are looked at before either is written.
        let (rows, elements) = (place("rows", rows)?, place("elements", elements)?);
        rows.write(r);
        elements.write(e);
        Ok(())
    })
}

/// Reads a block of dgm_run_export() under the same plan.
///
/// @param buf       the block
/// @param len       its bytes
/// @param run       receives the run
/// @param run_size  its size, at least that of dgm_plan_run_size()
/// @param state     receives the state
/// @param state_len its floats, exactly those of dgm_plan_state_len()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_import(
    plan: *const dgm_plan,
    buf: *const c_void,
    len: usize,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let block = slice("buf", buf.cast::<u8>(), len)?;
        // The checksum comes first: sizes of a corrupted block say nothing.
        check_size(plan, Run::decode(plan, block)?.rows(), run_size)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        separate("run", run.cast::<u8>(), run_size, "buf", buf.cast::<u8>(), len)?;
        separate("state", state, state_len, "buf", buf.cast::<u8>(), len)?;
        let bytes = slice_mut("run", run.cast::<u8>(), run_size)?;
        let state = slice_mut("state", state, state_len)?;
        Run::import(plan, block, state)?.encode(plan, bytes).map(|_| ())
    })
}
