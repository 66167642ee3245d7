//! Plans: options in, an immutable compiled sampler out.

use std::ffi::c_char;

use dgm_core::sampling::{Plan, PlanOptions};

use crate::fence::entry;
use crate::memory::{
    free_handle, handle, init_struct, put, put_handle, read_struct, slice_mut, text, write_struct, write_text,
};
use crate::options::{convert, default_options, dgm_plan_options};

/// A compiled sampler. Immutable.
pub struct dgm_plan(pub(crate) Plan);

/// Fills options with the defaults.
///
/// @param options     what to fill
/// @param struct_size sizeof *options
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_options_init(options: *mut dgm_plan_options, struct_size: usize) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("options", options, struct_size, default_options()) })
}

/// Replaces options by those that a published model is sampled with (docs/SAMPLERS.md lists them).
///
/// @param options its struct_size must be set: call dgm_plan_options_init() first
/// @param name    "sdxl", "flux_dev", ...
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_options_preset(options: *mut dgm_plan_options, name: *const c_char) -> i32 {
    // SAFETY: the caller gives an initialised struct and a NUL-terminated text, or NULL.
    entry(|| unsafe {
        let preset = PlanOptions::preset(text("name", name)?)?;
        write_struct("options", options, || dgm_plan_options::from(&preset))
    })
}

/// Compiles a sampler.
///
/// @param options what it is made of; NULL for the defaults
/// @param out     receives the plan (NULL on failure); release with dgm_plan_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_compile(options: *const dgm_plan_options, out: *mut *mut dgm_plan) -> i32 {
    // SAFETY: the caller gives initialised options and a valid place, or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            let default = default_options();
            let options = if options.is_null() { default } else { read_struct("options", options, default)? };
            Plan::compile(&convert(&options)?).map(dgm_plan)
        })
    })
}

/// Releases a plan; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_free(plan: *mut dgm_plan) {
    // SAFETY: the caller gives a handle of dgm_plan_compile() for the last time, or NULL.
    unsafe { free_handle(plan) }
}

/// Writes the plan as a readable table, NUL-terminated. The text is for people: it may change.
///
/// @param buf    receives the text; NULL (with cap 0) only asks for the size
/// @param cap    bytes of buf
/// @param needed receives the bytes needed, the NUL included; may be NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_describe(
    plan: *const dgm_plan,
    buf: *mut c_char,
    cap: usize,
    needed: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, `cap` writable bytes and a valid place, or NULL.
    entry(|| unsafe { write_text("buf", &handle("plan", plan)?.0.describe(), buf, cap, needed) })
}

/// Number of state tensors a run of this plan uses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_slots(plan: *const dgm_plan, slots: *mut usize) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("slots", slots, handle("plan", plan)?.0.slots()) })
}

/// Floats of state that a run needs: slots * rows * elements.
///
/// @param rows     images (or other samples) in the batch
/// @param elements numbers in one of them
/// @param floats   receives the size
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_state_len(
    plan: *const dgm_plan,
    rows: usize,
    elements: usize,
    floats: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("floats", floats, handle("plan", plan)?.0.state_len(rows, elements)?) })
}

/// Bytes of the run itself (its program counter, seeds and times; the state is apart).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_run_size(plan: *const dgm_plan, rows: usize, bytes: *mut usize) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("bytes", bytes, crate::run::run_size(&handle("plan", plan)?.0, rows)?) })
}

/// The level of a model time, x = alpha x0 + sigma eps: rows of an adaptive plan stand at times of their own, between
/// those of the grid (dgm_run_times()). Behind the noisiest it is what the formula of the process gives.
///
/// @param t     a model time of the process, finite
/// @param alpha receives the weight of the data
/// @param sigma receives the weight of the noise
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_level(
    plan: *const dgm_plan,
    t: f64,
    alpha: *mut f64,
    sigma: *mut f64,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid places, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        // Neither is written unless both are.
        let _ = slice_mut("sigma", sigma, 1)?;
        let level = plan.level(t)?;
        put("alpha", alpha, level.alpha)?;
        put("sigma", sigma, level.sigma)
    })
}

/// A number that is equal for equal plans: an exported run can only be continued with its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_hash(plan: *const dgm_plan, hash: *mut u64) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("hash", hash, handle("plan", plan)?.0.hash()) })
}

/// Numbers a row to be told with every output by dgm_run_tell_with(): 1 with likelihood (the divergence) and for
/// mala and hmc (the log density), else 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_numbers(plan: *const dgm_plan, numbers: *mut usize) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("numbers", numbers, handle("plan", plan)?.0.numbers()) })
}

/// Tensors the model returns for a row, one after the other: 2 with a learned variance and for an sde (drift, then
/// diffusion), else 1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_outputs(plan: *const dgm_plan, outputs: *mut usize) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("outputs", outputs, handle("plan", plan)?.0.outputs()) })
}
