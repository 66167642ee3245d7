//! Plan options as a struct of C, and what they mean to the engine.

use dgm_core::sampling::{
    Compat, FinalSigma, Guidance, Likelihood, NoiseKind, NonFinite, PlanOptions, Prediction, Process,
    ShiftType, Solver, Spacing, Variance,
};
use dgm_core::{Error, Result};

use crate::attention::flag;
use crate::memory::{Versioned, slice};

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
    /// Number of steps, 1 to 100000; default 16. Not used with times or adaptive solvers.
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
    /// Adaptive solvers: relative tolerance; default 1e-3.
    pub rtol: f64,
    /// Adaptive solvers: absolute tolerance; default 1e-4.
    pub atol: f64,
    /// Adaptive solvers: first step size in model time; 0 (default) chooses: Bosh3 a twentieth of the span, the others from the first slopes; Dpm12, Dpm23: in lambda, 0 is 0.05.
    pub h_init: f64,
    /// Model times instead of a spacing, strictly descending; NULL (default) for none. Copied.
    pub times: *const f64,
    /// Number of times, one more than the steps.
    pub times_len: usize,
    /// Adaptive solvers: model evaluations after which a run gives up; default 10000.
    pub max_evals: i64,
    /// Order of a solver that has several; 0 is its own choice. Default 0.
    pub order: i64,
    /// Noise of the ancestral and SDE solvers: 1 is the method's own, 0 none (its ODE). Default 1.
    pub sde_eta: f64,
    /// Least noise level of VE, EDM and of the spacings in sigma (sigma / alpha for VP, t for flow); 0 is the process's own. Default 0.
    pub sigma_min: f64,
    /// Greatest noise level, likewise. Default 0.
    pub sigma_max: f64,
    /// Deviation of the data, for EDM and TrigFlow. Default 0.5.
    pub sigma_data: f64,
    /// Exponent of Karras and PolyExponential. Default 7.
    pub rho: f64,
    /// VP tables: rescales the betas so that the last level holds no signal (Lin 2023). Default false. 0 or 1.
    pub zero_snr: i32,
    /// What stands after the last noisy level of a spacing. Default Zero. DGM_FINAL_SIGMA_...
    pub final_sigma: i32,
    /// Leading only: added to the times. Default 0.
    pub steps_offset: i64,
    /// How shift is meant. Default Static. DGM_SHIFT_TYPE_...
    pub shift_type: i32,
    /// How guidance combines. Default Cfg. DGM_GUIDANCE_MODE_...
    pub guidance_mode: i32,
    /// Exponent of the dynamic shifts. Default 1.
    pub shift_power: f64,
    /// Flow only: stretches the shifted grid so that its last noisy time is this one (LTX-Video); 0 does not. Default 0.
    pub shift_terminal: f64,
    /// Euler, Heun, DPM2: noise added before a step, in all (Karras 2022). Default 0.
    pub s_churn: f64,
    /// Least noise level that is churned. Default 0.
    pub s_tmin: f64,
    /// Greatest noise level that is churned; 0 is no limit. Default 0.
    pub s_tmax: f64,
    /// Factor of all noise that steps add. Default 1.
    pub s_noise: f64,
    /// Part of the guided output that is rescaled to the deviation of the conditional one, 0 to 1 (Lin 2023, section 3.4). Default 0.
    pub guidance_rescale: f64,
    /// Fraction of the steps from which guidance acts; before, the conditional output alone is asked for (Kynkaanniemi 2024). Default 0.
    pub guidance_start: f64,
    /// Fraction of the steps from which it acts no more. Default 1.
    pub guidance_end: f64,
    /// APG: weight of the part parallel to the conditional x0. Default 0.
    pub apg_eta: f64,
    /// APG: largest norm of the difference; 0 is no limit. Default 0.
    pub apg_norm: f64,
    /// APG: momentum of the difference, usually negative. Default 0.
    pub apg_momentum: f64,
    /// CFG-Zero*: number of first steps whose output is taken as 0. Default 0.
    pub zero_init_steps: i64,
    /// Noise of stochastic steps. Default Independent. DGM_NOISE_...
    pub noise: i32,
    /// Variance of Ddpm. Default FixedSmall. DGM_VARIANCE_...
    pub variance: i32,
    /// Dynamic thresholding: this quantile of |x0| of a row bounds it, then x0 is divided by the bound (Saharia 2022); 0 does not. Default 0.
    pub threshold_ratio: f64,
    /// Dynamic thresholding: the largest bound. Default 1.
    pub threshold_max: f64,
    /// Steps left out at the noisy end (image to image by strength). Default 0.
    pub start_step: i64,
    /// Starts at this noise level (in the measure of sigmas) and leaves out the noisier ones (image to image by noise level); 0 does not. Default 0.
    pub start_sigma: f64,
    /// Known parts: after every step x is replaced where the mask says so, see set_known. Default false. 0 or 1.
    pub inpaint: i32,
    /// Whose accidents to reproduce. Default None. DGM_COMPAT_...
    pub compat: i32,
    /// Lcm, Tcd: steps of the grid that distillation used, of which steps are taken. Default 50.
    pub original_steps: i64,
    /// Lcm: scale of the model time in the boundary condition. Default 10.
    pub time_scale: f64,
    /// Noise levels instead of a spacing or times: sigma for VE and EDM, sigma / alpha for VP and TrigFlow, t for flow; strictly descending, the last may be 0. NULL (default) for none. Copied.
    pub sigmas: *const f64,
    /// Number of sigmas.
    pub sigmas_len: usize,
    /// VpTrained: the betas of all training steps, each above 0 and below 1. NULL (default) for none. Copied.
    pub betas: *const f64,
    /// Number of betas.
    pub betas_len: usize,
    /// Restart sampling (Xu 2023): groups of four numbers, sigma_min, steps, times, sigma_max: when the walk reaches sigma_min, noise carries it back to sigma_max, and that many Karras steps return; so many times. NULL (default) for none. Copied.
    pub restart: *const f64,
    /// Number of restart.
    pub restart_len: usize,
    /// Rows of a batch at times of their own, see dgm_run_select(). Default false. 0 or 1.
    pub per_row: i32,
    /// 0.
    pub reserved: i32,
    /// PredictorCorrector: the signal-to-noise ratio r that a Langevin step aims at, 0 to 10; its length is 2 (r |z| / |score|)^2 with sqrt(elements) for |z|, at most sigma^2 (Song 2021, algorithm 4). Default 0.16.
    pub snr: f64,
    /// PredictorCorrector, AnnealedLangevin: Langevin steps at each level, up to 100. Default 1.
    pub corrector_steps: i64,
    /// Autoguidance w beside classifier-free guidance: + (w - 1) (c - k) with k the output of a weaker model with the same condition, role weak (Karras 2024). With guidance g that is three evaluations and u + g (c - u) + (w - 1) (c - k), with g 1 the two of Auto. 1 asks for no k. Default 1.
    pub guidance_weak: f64,
    /// Ode and Sde: where the walk begins. Default 0.
    pub t_start: f64,
    /// Ode and Sde: where it ends, before or after t_start. Default 1.
    pub t_end: f64,
    /// Adaptive solvers: one to three exponents p of step-size control, a step growing by 0.9 e^(-p1/k) e1^(-p2/k) e2^(-p3/k) with the errors of the last three accepted steps and k the order of the error, 3 or 5 (Soderlind 2003). 1 is I control, 0.7 -0.4 PI, 0.25 0.5 0.25 the filter H312. NULL (default): PI for Bosh3, I for the others. Dpm12, Dpm23: k 2 and 3, and the step grows by 1 + atan(p - 1) with p the product without its 0.9.
    pub controller: *const f64,
    /// Number of controller.
    pub controller_len: usize,
    /// Adaptive solvers: up to 1000 times, in the order of the walk, at which x is kept, see dgm_run_saved(); steps do not end there, x is interpolated. NULL keeps none.
    pub save_at: *const f64,
    /// Number of save_at.
    pub save_at_len: usize,
    /// DGM_LIKELIHOOD_*, ode only: integrates the divergence of f beside x, told as a number a row (dgm_run_tell_with()), for dgm_run_log_density(). Default DGM_LIKELIHOOD_NONE.
    pub likelihood: i32,
    /// DGM_NON_FINITE_*: what dgm_run_tell() does with an output that is not finite. Not with adaptive solvers, mala and hmc. Default DGM_NON_FINITE_REFUSE.
    pub non_finite: i32,
    /// Markov chains: step size, above 0; of mala and hmc where adaptation begins. Default 0.1.
    pub step_size: f64,
    /// Hmc: leapfrog steps of an iteration, 1 to 1000. Default 10.
    pub leapfrog: i64,
    /// Mala, Hmc: first iterations in which every chain adapts its step size (Hoffman & Gelman 2014, dual averaging); at most steps. Default 0.
    pub warmup: i64,
    /// What adaptation aims at, 0.01 to 0.99; 0 is 0.574 for mala, 0.8 for hmc. Default 0.
    pub target_accept: f64,
    /// Adaptive solvers: up to 1000 times inside the walk, in its order, at which steps end, because the model jumps there: a step towards one is cut short, its last evaluation is asked for just before (the f32 next to the time), the next step begins with one just after. NULL (default) for none. Copied.
    pub stop_at: *const f64,
    /// Number of stop_at.
    pub stop_at_len: usize,
}

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointer is not followed
// before it is checked).
unsafe impl Versioned for dgm_plan_options {}

impl From<&PlanOptions> for dgm_plan_options {
    /// All but the lists, which would have to point somewhere.
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
            order: o.order as i64,
            sde_eta: o.sde_eta,
            sigma_min: o.sigma_min,
            sigma_max: o.sigma_max,
            sigma_data: o.sigma_data,
            rho: o.rho,
            zero_snr: i32::from(o.zero_snr),
            final_sigma: o.final_sigma.code() as i32,
            steps_offset: o.steps_offset as i64,
            shift_type: o.shift_type.code() as i32,
            guidance_mode: o.guidance_mode.code() as i32,
            shift_power: o.shift_power,
            shift_terminal: o.shift_terminal,
            s_churn: o.s_churn,
            s_tmin: o.s_tmin,
            s_tmax: o.s_tmax,
            s_noise: o.s_noise,
            guidance_rescale: o.guidance_rescale,
            guidance_start: o.guidance_start,
            guidance_end: o.guidance_end,
            apg_eta: o.apg_eta,
            apg_norm: o.apg_norm,
            apg_momentum: o.apg_momentum,
            zero_init_steps: o.zero_init_steps as i64,
            noise: o.noise.code() as i32,
            variance: o.variance.code() as i32,
            threshold_ratio: o.threshold_ratio,
            threshold_max: o.threshold_max,
            start_step: o.start_step as i64,
            start_sigma: o.start_sigma,
            inpaint: i32::from(o.inpaint),
            compat: o.compat.code() as i32,
            original_steps: o.original_steps as i64,
            time_scale: o.time_scale,
            sigmas: std::ptr::null(),
            sigmas_len: 0,
            betas: std::ptr::null(),
            betas_len: 0,
            restart: std::ptr::null(),
            restart_len: 0,
            per_row: i32::from(o.per_row),
            reserved: 0,
            snr: o.snr,
            corrector_steps: o.corrector_steps as i64,
            guidance_weak: o.guidance_weak,
            t_start: o.t_start,
            t_end: o.t_end,
            controller: std::ptr::null(),
            controller_len: 0,
            save_at: std::ptr::null(),
            save_at_len: 0,
            likelihood: o.likelihood.code() as i32,
            non_finite: o.non_finite.code() as i32,
            step_size: o.step_size,
            leapfrog: o.leapfrog as i64,
            warmup: o.warmup as i64,
            target_accept: o.target_accept,
            stop_at: std::ptr::null(),
            stop_at_len: 0,
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

/// A copy of a list; none for NULL and 0.
///
/// # Safety
/// `ptr` must be NULL or point to `len` numbers.
unsafe fn list(arg: &'static str, ptr: *const f64, len: usize) -> Result<Option<Vec<f64>>> {
    match (ptr.is_null(), len) {
        (true, 0) => Ok(None),
        // SAFETY: the caller's promise.
        (_, n) => Ok(Some(unsafe { slice(arg, ptr, n) }?.to_vec())),
    }
}

/// # Safety
/// Every list must be NULL or point to as many numbers as its length says.
pub(crate) unsafe fn convert(o: &dgm_plan_options) -> Result<PlanOptions> {
    Ok(PlanOptions {
        process: Process::from_code(code("process", o.process)?)?,
        prediction: Prediction::from_code(code("prediction", o.prediction)?)?,
        solver: Solver::from_code(code("solver", o.solver)?)?,
        spacing: Spacing::from_code(code("spacing", o.spacing)?)?,
        steps: count("steps", o.steps)?,
        shift: o.shift,
        // SAFETY: the caller's promise.
        times: unsafe { list("times", o.times, o.times_len) }?,
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
        order: count("order", o.order)?,
        sde_eta: o.sde_eta,
        sigma_min: o.sigma_min,
        sigma_max: o.sigma_max,
        sigma_data: o.sigma_data,
        rho: o.rho,
        zero_snr: flag("zero_snr", o.zero_snr)?,
        final_sigma: FinalSigma::from_code(code("final_sigma", o.final_sigma)?)?,
        steps_offset: count("steps_offset", o.steps_offset)?,
        shift_type: ShiftType::from_code(code("shift_type", o.shift_type)?)?,
        guidance_mode: Guidance::from_code(code("guidance_mode", o.guidance_mode)?)?,
        shift_power: o.shift_power,
        shift_terminal: o.shift_terminal,
        s_churn: o.s_churn,
        s_tmin: o.s_tmin,
        s_tmax: o.s_tmax,
        s_noise: o.s_noise,
        guidance_rescale: o.guidance_rescale,
        guidance_start: o.guidance_start,
        guidance_end: o.guidance_end,
        apg_eta: o.apg_eta,
        apg_norm: o.apg_norm,
        apg_momentum: o.apg_momentum,
        zero_init_steps: count("zero_init_steps", o.zero_init_steps)?,
        noise: NoiseKind::from_code(code("noise", o.noise)?)?,
        variance: Variance::from_code(code("variance", o.variance)?)?,
        threshold_ratio: o.threshold_ratio,
        threshold_max: o.threshold_max,
        start_step: count("start_step", o.start_step)?,
        start_sigma: o.start_sigma,
        inpaint: flag("inpaint", o.inpaint)?,
        compat: Compat::from_code(code("compat", o.compat)?)?,
        original_steps: count("original_steps", o.original_steps)?,
        time_scale: o.time_scale,
        // SAFETY: the caller's promise, for all lists.
        sigmas: unsafe { list("sigmas", o.sigmas, o.sigmas_len) }?,
        // SAFETY: as above.
        betas: unsafe { list("betas", o.betas, o.betas_len) }?,
        // SAFETY: as above.
        restart: unsafe { list("restart", o.restart, o.restart_len) }?,
        per_row: flag("per_row", o.per_row)?,
        snr: o.snr,
        corrector_steps: count("corrector_steps", o.corrector_steps)?,
        guidance_weak: o.guidance_weak,
        t_start: o.t_start,
        t_end: o.t_end,
        // SAFETY: as above.
        controller: unsafe { list("controller", o.controller, o.controller_len) }?,
        // SAFETY: as above.
        save_at: unsafe { list("save_at", o.save_at, o.save_at_len) }?,
        likelihood: Likelihood::from_code(code("likelihood", o.likelihood)?)?,
        non_finite: NonFinite::from_code(code("non_finite", o.non_finite)?)?,
        step_size: o.step_size,
        leapfrog: count("leapfrog", o.leapfrog)?,
        warmup: count("warmup", o.warmup)?,
        target_accept: o.target_accept,
        // SAFETY: as above.
        stop_at: unsafe { list("stop_at", o.stop_at, o.stop_at_len) }?,
    })
}
