//! Gaussian mixtures, and whole runs with them.

use std::ffi::c_void;

use dgm_core::Error;
use dgm_core::models::GaussianMixture;
use dgm_core::sampling::{Ask, Prediction, drive_rows};
use ndarray::Ix2;

use crate::fence::entry;
use crate::memory::{free_handle, handle, put_handle, separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::read;
use crate::tensor::{Tensor, dgm_tensor};

/// A Gaussian mixture, whose noised marginals are known exactly. Immutable.
pub struct dgm_mixture(GaussianMixture);

/// Makes p(x0) = sum_k w_k N(x0; mu_k, diag v_k).
///
/// @param weights       [components], above 0; divided by their sum
/// @param means         [components, dims]
/// @param variances     [components], one for all dimensions, or [components, dims]; not negative
/// @param variances_len how many: components, or components * dims
/// @param components    at least 1
/// @param dims          at least 1
/// @param out           receives the mixture (NULL on failure); release with dgm_mixture_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_create(
    weights: *const f64,
    means: *const f64,
    variances: *const f64,
    variances_len: usize,
    components: usize,
    dims: usize,
    out: *mut *mut dgm_mixture,
) -> i32 {
    // SAFETY: the caller gives arrays of the sizes said and a valid place, or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            for (arg, count) in [("components", components), ("dims", dims)] {
                if count == 0 {
                    return Err(Error::range(arg, 0, "at least 1"));
                }
            }
            let len = components.checked_mul(dims).ok_or_else(|| Error::Overflow {
                arg: "dims",
                got: format!("{components} x {dims} means"),
            })?;
            let weights = slice("weights", weights, components)?;
            let means = slice("means", means, len)?;
            let variances = slice("variances", variances, variances_len)?;
            GaussianMixture::new(weights, means, variances).map(dgm_mixture)
        })
    })
}

/// Releases a mixture; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_free(mixture: *mut dgm_mixture) {
    // SAFETY: the caller gives a handle of dgm_mixture_create() for the last time, or NULL.
    unsafe { free_handle(mixture) }
}

/// What the best model answers at a noise level: the expectation of its target given x = alpha x0 + sigma eps.
/// The score of the mixture itself is DGM_PREDICTION_SCORE with alpha 1 and sigma 0.
///
/// @param prediction any but DGM_PREDICTION_CONSISTENCY; of the raw networks x is what they read, scaled
/// @param alpha      weight of the data, not negative
/// @param sigma      weight of the noise, not negative
/// @param sigma_data above 0; read for the raw networks of EDM and TrigFlow alone
/// @param x          [rows, dims], contiguous
/// @param out        [rows, dims], contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_evaluate(
    mixture: *const dgm_mixture,
    prediction: i32,
    alpha: f64,
    sigma: f64,
    sigma_data: f64,
    x: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid descriptors, or NULL.
    entry(|| unsafe {
        let mixture = &handle("mixture", mixture)?.0;
        let code = u32::try_from(prediction)
            .map_err(|_| Error::argument("prediction", prediction, "a DGM_PREDICTION_ constant"))?;
        let prediction = Prediction::from_code(code)?;
        let x = Tensor::read("x", x, Some(2), "[rows, dims]")?;
        let out = Tensor::read("out", out, Some(2), "[rows, dims]")?;
        let target = out.output::<Ix2>(&[&x])?;
        mixture.evaluate(prediction, alpha, sigma, sigma_data, x.view::<Ix2>()?, target)
    })
}

/// The log density of the noised marginal at every row of x, computed in f64.
///
/// @param alpha       weight of the data, not negative
/// @param sigma       weight of the noise, not negative
/// @param x           [rows, dims], contiguous
/// @param log_density receives a number a row
/// @param len         rows
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_log_density(
    mixture: *const dgm_mixture,
    alpha: f64,
    sigma: f64,
    x: *const dgm_tensor,
    log_density: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, a valid descriptor and `len` numbers, or NULL.
    entry(|| unsafe {
        let mixture = &handle("mixture", mixture)?.0;
        let x = Tensor::read("x", x, Some(2), "[rows, dims]")?;
        let out = slice_mut("log_density", log_density, len)?;
        x.check_separate("log_density", out)?;
        mixture.log_density(alpha, sigma, x.view::<Ix2>()?, out)
    })
}

/// Answers the current request of a run, for dgm_run_tell() or, with numbers, dgm_run_tell_with().
///
/// @param y           receives [rows, dims]
/// @param y_len       its floats
/// @param numbers     receives the log densities, [rows, dgm_plan_numbers()]; NULL where there are none
/// @param numbers_len how many
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_predict(
    mixture: *const dgm_mixture,
    plan: *const dgm_plan,
    run: *const c_void,
    run_size: usize,
    state: *const f32,
    state_len: usize,
    y: *mut f32,
    y_len: usize,
    numbers: *mut f64,
    numbers_len: usize,
) -> i32 {
    // SAFETY: the caller gives live handles and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let (mixture, plan) = (&handle("mixture", mixture)?.0, &handle("plan", plan)?.0);
        let run_value = read(plan, run, run_size)?;
        separate("y", y, y_len, "state", state, state_len)?;
        separate("y", y, y_len, "run", run.cast::<u8>(), run_size)?;
        separate("numbers", numbers, numbers_len, "state", state, state_len)?;
        separate("numbers", numbers, numbers_len, "run", run.cast::<u8>(), run_size)?;
        separate("numbers", numbers, numbers_len, "y", y, y_len)?;
        let state = slice("state", state, state_len)?;
        let (y, numbers) = (slice_mut("y", y, y_len)?, slice_mut("numbers", numbers, numbers_len)?);
        let Ask::Eval(request) = run_value.ask(plan)? else {
            return Err(Error::State("the run is done and asks for nothing".to_string()));
        };
        let mut t = vec![0.0; run_value.rows()];
        run_value.row_times(plan, &mut t)?;
        mixture.predict(plan, &request, run_value.input(plan, state)?, &t, y, numbers)
    })
}

/// Carries a started run to its end with a mixture as its model, with the same bits as telling it what
/// dgm_mixture_predict() answers: every block of rows on its own, on all threads. On failure run and state are
/// unchanged. The call holds a second copy of the state and cannot be stopped; dgm_mixture_predict() goes step by step.
///
/// @param run       of dgm_run_start() or any later state
/// @param run_size  its size
/// @param state     its state; the result is at dgm_run_result()
/// @param state_len its floats
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_mixture_sample(
    mixture: *const dgm_mixture,
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    state: *mut f32,
    state_len: usize,
) -> i32 {
    // SAFETY: the caller gives live handles and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let (mixture, plan) = (&handle("mixture", mixture)?.0, &handle("plan", plan)?.0);
        let mut value = read(plan, run, run_size)?;
        separate("run", run.cast::<u8>(), run_size, "state", state, state_len)?;
        let state = slice_mut("state", state, state_len)?;
        drive_rows(plan, &mut value, state, mixture)?;
        value.encode(plan, slice_mut("run", run.cast::<u8>(), run_size)?).map(|_| ())
    })
}
