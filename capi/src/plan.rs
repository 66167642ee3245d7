//! Plans: options in, an immutable compiled sampler out.

use std::ffi::c_char;

use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Solver, Spacing};
use dgm_core::{Error, Result};

use crate::fence::entry;
use crate::memory::{
    Versioned, free_handle, handle, init_struct, put, put_handle, read_struct, slice, write_text,
};

/// Rectified flow: alpha = 1 - t, sigma = t, t from 1 (noise) to 0 (data).
pub const DGM_PROCESS_FLOW: i32 = 0;
/// Variance preserving, betas linear.
pub const DGM_PROCESS_VP_LINEAR: i32 = 1;
/// Variance preserving, square roots of betas linear.
pub const DGM_PROCESS_VP_SCALED_LINEAR: i32 = 2;
/// Variance preserving, squared-cosine.
pub const DGM_PROCESS_VP_COSINE: i32 = 3;

/// The model predicts the noise.
pub const DGM_PREDICTION_EPSILON: i32 = 0;
/// The model predicts the clean data.
pub const DGM_PREDICTION_X0: i32 = 1;
/// The model predicts alpha eps - sigma x0.
pub const DGM_PREDICTION_V: i32 = 2;
/// The model predicts the velocity eps - x0.
pub const DGM_PREDICTION_VELOCITY: i32 = 3;

/// First order, one evaluation a step.
pub const DGM_SOLVER_EULER: i32 = 0;
/// Explicit midpoint, order 2.
pub const DGM_SOLVER_MIDPOINT: i32 = 1;
/// Heun, order 2.
pub const DGM_SOLVER_HEUN: i32 = 2;
/// Classical Runge-Kutta, order 4.
pub const DGM_SOLVER_RK4: i32 = 3;
/// Ancestral sampling (VP).
pub const DGM_SOLVER_DDPM: i32 = 4;
/// DDIM with eta.
pub const DGM_SOLVER_DDIM: i32 = 5;
/// DPM-Solver++(2M), order 2.
pub const DGM_SOLVER_DPMPP_2M: i32 = 6;
/// UniPC, order 2.
pub const DGM_SOLVER_UNIPC: i32 = 7;
/// Bogacki-Shampine 3(2), adaptive for each row (flow).
pub const DGM_SOLVER_BOSH3: i32 = 8;

/// Evenly spaced.
pub const DGM_SPACING_UNIFORM: i32 = 0;
/// VP: multiples of train_steps / steps from 0.
pub const DGM_SPACING_LEADING: i32 = 1;
/// VP: multiples of train_steps / steps down from train_steps, less one.
pub const DGM_SPACING_TRAILING: i32 = 2;

/// What a plan is compiled from; fill with dgm_plan_options_init() first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_plan_options {
    /// sizeof(dgm_plan_options).
    pub struct_size: usize,
    /// DGM_PROCESS_...; default flow.
    pub process: i32,
    /// DGM_PREDICTION_...; default velocity.
    pub prediction: i32,
    /// DGM_SOLVER_...; default Euler.
    pub solver: i32,
    /// DGM_SPACING_...; default uniform.
    pub spacing: i32,
    /// Number of steps, 1 to 100000; default 16. Not used with times or Bosh3.
    pub steps: i64,
    /// Flow: the grid is mapped by t -> s t / (1 + (s - 1) t); default 1.
    pub shift: f64,
    /// DDIM: 0 (default, deterministic) to 1 (the variance of DDPM).
    pub eta: f64,
    /// Classifier-free guidance g: u + g (c - u). 1 (default) asks for the conditional output only.
    pub guidance: f64,
    /// Predicted x0 is clipped to [-clip, clip]; 0 (default) does not clip.
    pub clip: f64,
    /// VP linear: first beta; default 1e-4.
    pub beta_start: f64,
    /// VP linear: last beta; default 0.02.
    pub beta_end: f64,
    /// VP: number of training steps; default 1000.
    pub train_steps: i64,
    /// Bosh3: relative tolerance; default 1e-3.
    pub rtol: f64,
    /// Bosh3: absolute tolerance; default 1e-4.
    pub atol: f64,
    /// Bosh3: first step size in model time; 0 (default) chooses.
    pub h_init: f64,
    /// Model times instead of a spacing, strictly descending; NULL (default) for none. Copied.
    pub times: *const f64,
    /// Number of times, one more than the steps.
    pub times_len: usize,
    /// Bosh3: model evaluations after which a run gives up; default 10000.
    pub max_evals: i64,
}

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointer is not followed
// before it is checked).
unsafe impl Versioned for dgm_plan_options {}

/// A compiled sampler. Immutable.
pub struct dgm_plan(pub(crate) Plan);

impl From<&PlanOptions> for dgm_plan_options {
    /// All but `times`, which would have to point somewhere.
    fn from(o: &PlanOptions) -> Self {
        dgm_plan_options {
            struct_size: size_of::<dgm_plan_options>(),
            process: o.process.code() as i32,
            prediction: o.prediction.code() as i32,
            solver: o.solver.code() as i32,
            spacing: o.spacing.code() as i32,
            steps: o.steps as i64,
            shift: o.shift,
            eta: o.eta,
            guidance: o.guidance,
            clip: o.clip.unwrap_or(0.0),
            beta_start: o.beta_start,
            beta_end: o.beta_end,
            train_steps: o.train_steps as i64,
            rtol: o.rtol,
            atol: o.atol,
            h_init: o.h_init,
            times: std::ptr::null(),
            times_len: 0,
            max_evals: o.max_evals as i64,
        }
    }
}

pub(crate) fn default_options() -> dgm_plan_options {
    (&PlanOptions::default()).into()
}

/// A negative number becomes one that no enum has, so that its own check reports it.
fn code(arg: &'static str, value: i32) -> Result<u32> {
    u32::try_from(value).map_err(|_| Error::argument(arg, value, "a number of the header"))
}

fn count(arg: &'static str, value: i64) -> Result<usize> {
    usize::try_from(value).map_err(|_| Error::range(arg, value, "a positive number"))
}

/// # Safety
/// `times` must be NULL or point to `times_len` numbers.
unsafe fn convert(o: &dgm_plan_options) -> Result<PlanOptions> {
    let times = match (o.times.is_null(), o.times_len) {
        (true, 0) => None,
        // SAFETY: the caller's promise.
        (_, n) => Some(unsafe { slice("times", o.times, n) }?.to_vec()),
    };
    Ok(PlanOptions {
        process: Process::from_code(code("process", o.process)?)?,
        prediction: Prediction::from_code(code("prediction", o.prediction)?)?,
        solver: Solver::from_code(code("solver", o.solver)?)?,
        spacing: Spacing::from_code(code("spacing", o.spacing)?)?,
        steps: count("steps", o.steps)?,
        shift: o.shift,
        times,
        eta: o.eta,
        guidance: o.guidance,
        clip: (o.clip != 0.0).then_some(o.clip),
        beta_start: o.beta_start,
        beta_end: o.beta_end,
        train_steps: count("train_steps", o.train_steps)?,
        rtol: o.rtol,
        atol: o.atol,
        h_init: o.h_init,
        max_evals: count("max_evals", o.max_evals)?,
    })
}

/// Fills options with the defaults.
///
/// @param options     what to fill
/// @param struct_size sizeof *options
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_options_init(options: *mut dgm_plan_options, struct_size: usize) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("options", options, struct_size, default_options()) })
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

/// A number that is equal for equal plans: an exported run can only be continued with its own.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_hash(plan: *const dgm_plan, hash: *mut u64) -> i32 {
    // SAFETY: the caller gives a live handle and a valid place, or NULL.
    entry(|| unsafe { put("hash", hash, handle("plan", plan)?.0.hash()) })
}
