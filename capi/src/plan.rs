//! Plans: options in, an immutable compiled sampler out.

use std::ffi::c_char;

use dgm_core::sampling::{
    Compat, FinalSigma, Guidance, Likelihood, NoiseKind, NonFinite, Plan, PlanOptions, Prediction, Process, ShiftType,
    Solver, Spacing, Variance,
};
use dgm_core::{Error, Result};

use crate::fence::entry;
use crate::memory::{
    Versioned, free_handle, handle, init_struct, put, put_handle, read_struct, slice, text, write_struct,
    write_text,
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

/// Variance preserving, betas along a sigmoid from -6 to 6 (GeoDiff, Xu 2022).
pub const DGM_PROCESS_VP_SIGMOID: i32 = 4;
/// Variance preserving, betas of your own (betas).
pub const DGM_PROCESS_VP_TRAINED: i32 = 5;
/// Variance preserving in continuous time 0 to 1, beta(t) = beta_start + t (beta_end - beta_start) (Song 2021; usually 0.1 and 20).
pub const DGM_PROCESS_VP_CONTINUOUS: i32 = 6;
/// Variance exploding: alpha 1; model time is sigma (Song 2021).
pub const DGM_PROCESS_VE: i32 = 7;
/// Alpha 1; model time is ln(sigma) / 4 (Karras 2022).
pub const DGM_PROCESS_EDM: i32 = 8;
/// alpha = cos t, sigma = sigma_data sin t, t from pi/2 to 0 (Lu & Song 2024).
pub const DGM_PROCESS_TRIGFLOW: i32 = 9;
/// Variance preserving, most training steps near equal parts of signal and noise: ln(alpha^2 / sigma^2) is a Laplace quantile of scale 1/2 (Hang 2024).
pub const DGM_PROCESS_VP_LAPLACE: i32 = 10;
/// Variance preserving in continuous time 0 to 1, squared-cosine alpha-bar between 0.0001 and 0.9999, sigma / alpha times shift (Pernias 2023; Stable Cascade).
pub const DGM_PROCESS_VP_CASCADE: i32 = 11;
/// No noise: dx/dt = f(x, t), f told as a velocity, over times or from t_start to t_end, either way. Without x_start a run begins at standard normals.
pub const DGM_PROCESS_ODE: i32 = 12;
/// Sub-VP (Song 2021): as vp_continuous with sigma = 1 - alpha^2.
pub const DGM_PROCESS_SUB_VP: i32 = 13;
/// dx = f(x, t) dt + g(x, t) dW element by element, over times or from t_start to t_end, either way. The model returns f and g, two tensors a row. Ito, but for stochastic_heun.
pub const DGM_PROCESS_SDE: i32 = 14;
/// A density of the caller, for Markov chains: the model returns the gradient of its logarithm (prediction score). A run begins at standard normals or at x_start; every step is one iteration.
pub const DGM_PROCESS_TARGET: i32 = 15;

/// No log densities.
pub const DGM_LIKELIHOOD_NONE: i32 = 0;
/// The divergence of f, the trace of its Jacobian, is told, one number a row.
pub const DGM_LIKELIHOOD_EXACT: i32 = 1;
/// Hutchinson's estimate e^T J e of it is told, with the probe of +-1 of dgm_run_probe().
pub const DGM_LIKELIHOOD_HUTCHINSON: i32 = 2;
/// The same with a probe of normals.
pub const DGM_LIKELIHOOD_HUTCHINSON_NORMAL: i32 = 3;

/// Outputs that are not finite are refused before anything is written: the whole output is read once more.
pub const DGM_NON_FINITE_REFUSE: i32 = 0;
/// They are computed with, unseen: one pass over memory a step. Finite outputs give the same bits.
pub const DGM_NON_FINITE_PROPAGATE: i32 = 1;

/// The score, -eps / sigma (Song 2021).
pub const DGM_PREDICTION_SCORE: i32 = 4;
/// The raw network F of Karras 2022: reads c_in x, x0 = c_skip x + c_out F.
pub const DGM_PREDICTION_EDM: i32 = 5;
/// As EDM with c_out negative: the v of x / sqrt(sigma^2 + 1) (SVD, with sigma_data 1).
pub const DGM_PREDICTION_EDM_V: i32 = 6;
/// The raw network F of TrigFlow: reads x / sigma_data, dx/dt = sigma_data F (Lu & Song 2024).
pub const DGM_PREDICTION_TRIGFLOW: i32 = 7;
/// The raw network F of consistency models: as EDM with a boundary at the least level m, c_skip = d^2 / ((sigma - m)^2 + d^2), c_out = (sigma - m) d / sqrt(sigma^2 + d^2) (Song 2023).
pub const DGM_PREDICTION_CONSISTENCY: i32 = 8;

/// Linear multistep, Adams-Bashforth of orders 1 to 4 on the grid as it is (k-diffusion's LMS, in closed form).
pub const DGM_SOLVER_LMS: i32 = 9;
/// Adams-Bashforth with the weights of even steps (Zhang & Chen 2022; Liu 2022).
pub const DGM_SOLVER_IPNDM: i32 = 10;
/// Pseudo linear multistep, started by an improved Euler step (Liu 2022, as in Stable Diffusion).
pub const DGM_SOLVER_PLMS: i32 = 11;
/// Pseudo numerical methods: three Runge-Kutta steps, then linear multistep (Liu 2022).
pub const DGM_SOLVER_PNDM: i32 = 12;
/// Midpoint at the geometric mean of the two noise levels (Karras 2022; k-diffusion's DPM2).
pub const DGM_SOLVER_DPM2: i32 = 13;
/// Euler to a lower level, then fresh noise; sde_eta 1 has the variance of DDPM.
pub const DGM_SOLVER_EULER_ANCESTRAL: i32 = 14;
/// Dpm2 to a lower level, then fresh noise.
pub const DGM_SOLVER_DPM2_ANCESTRAL: i32 = 15;
/// DPM-Solver++(2S) to a lower level, then fresh noise.
pub const DGM_SOLVER_DPMPP_2S_ANCESTRAL: i32 = 16;
/// Euler ancestral with the level split of rectified flows; flow only.
pub const DGM_SOLVER_EULER_ANCESTRAL_RF: i32 = 17;
/// DDIM from data to noise: the grid is walked backwards.
pub const DGM_SOLVER_DDIM_INVERSE: i32 = 18;
/// DPM-Solver, multistep in eps, orders 1 to 3 (Lu 2022a).
pub const DGM_SOLVER_DPM: i32 = 19;
/// DPM-Solver++, multistep in x0, orders 1 to 3 (Lu 2022b).
pub const DGM_SOLVER_DPMPP: i32 = 20;
/// DPM-Solver, singlestep, orders 1 to 3.
pub const DGM_SOLVER_DPM_SINGLE: i32 = 21;
/// DPM-Solver++, singlestep, orders 1 to 3.
pub const DGM_SOLVER_DPMPP_SINGLE: i32 = 22;
/// SDE-DPM-Solver++, two evaluations a step.
pub const DGM_SOLVER_DPMPP_SDE: i32 = 23;
/// SDE-DPM-Solver++(2M), midpoint form.
pub const DGM_SOLVER_DPMPP_2M_SDE: i32 = 24;
/// SDE-DPM-Solver++(2M), Heun form.
pub const DGM_SOLVER_DPMPP_2M_SDE_HEUN: i32 = 25;
/// SDE-DPM-Solver++(3M).
pub const DGM_SOLVER_DPMPP_3M_SDE: i32 = 26;
/// SDE-DPM-Solver (noise form), orders 1 and 2.
pub const DGM_SOLVER_DPM_SDE: i32 = 27;
/// UniPC with B1(h).
pub const DGM_SOLVER_UNIPC_BH1: i32 = 28;
/// Diffusion exponential integrator multistep, orders 1 to 4 (Zhang & Chen 2022).
pub const DGM_SOLVER_DEIS: i32 = 29;
/// Stochastic Adams, predictor and corrector, orders 1 to 4 (Xue 2023); sde_eta is tau squared.
pub const DGM_SOLVER_SA_SOLVER: i32 = 30;
/// Extended reverse-time SDE, orders 1 to 3 (Cui 2023).
pub const DGM_SOLVER_ER_SDE: i32 = 31;
/// Stochastic explicit exponential derivative-free solver of order 2 (Gonzalez 2023).
pub const DGM_SOLVER_SEEDS_2: i32 = 32;
/// The same of order 3.
pub const DGM_SOLVER_SEEDS_3: i32 = 33;
/// Refined exponential solver, multistep, order 2 (Zhang 2023).
pub const DGM_SOLVER_RES_MULTISTEP: i32 = 34;
/// Refined exponential solver, two stages, order 2.
pub const DGM_SOLVER_RES_2S: i32 = 35;
/// Gradient estimation: Euler with an extrapolated slope (Permenter & Yuan 2024).
pub const DGM_SOLVER_GRADIENT_ESTIMATION: i32 = 36;
/// Multistep consistency sampling (Song 2023).
pub const DGM_SOLVER_CONSISTENCY: i32 = 37;
/// Latent consistency sampling, boundary-conditioned (Luo 2023).
pub const DGM_SOLVER_LCM: i32 = 38;
/// Trajectory consistency, eta is gamma (Zheng 2024).
pub const DGM_SOLVER_TCD: i32 = 39;
/// TrigFlow consistency, sCM (Lu & Song 2024); trigflow only.
pub const DGM_SOLVER_SCM: i32 = 40;
/// Flow maps: the model is told where to land (MeanFlow, shortcut models); flow only.
pub const DGM_SOLVER_FLOW_MAP: i32 = 41;
/// DPM-Solver++ multistep from data to noise, orders 1 to 3: the grid is walked backwards.
pub const DGM_SOLVER_DPMPP_INVERSE: i32 = 42;
/// Predictor-corrector: corrector_steps Langevin steps at every level, aimed at the signal-to-noise ratio snr, then one of reverse diffusion (Song 2021).
pub const DGM_SOLVER_PREDICTOR_CORRECTOR: i32 = 43;
/// Dormand-Prince 5(4) with step-size control and rejection for each row; flow and ode.
pub const DGM_SOLVER_DOPRI5: i32 = 44;
/// Tsitouras 5(4) with step-size control and rejection for each row; flow and ode.
pub const DGM_SOLVER_TSIT5: i32 = 45;
/// The fifth-order method of Dormand & Prince with fixed steps, six evaluations a step.
pub const DGM_SOLVER_RK5: i32 = 46;
/// Euler-Maruyama for an sde: strong order 1/2, weak order 1.
pub const DGM_SOLVER_EULER_MARUYAMA: i32 = 47;
/// Milstein without derivatives for an sde, strong order 1, two evaluations a step (Kloeden & Platen 1992, 11.1).
pub const DGM_SOLVER_MILSTEIN: i32 = 48;
/// Heun for an sde in the sense of Stratonovich, strong order 1, two evaluations a step.
pub const DGM_SOLVER_STOCHASTIC_HEUN: i32 = 49;
/// SRA1 for an sde whose g does not depend on x: strong order 3/2, three evaluations a step (Roessler 2010).
pub const DGM_SOLVER_SRA1: i32 = 50;
/// SRIW1 for an sde with diagonal noise: strong order 3/2, five evaluations a step (Roessler 2010).
pub const DGM_SOLVER_SRIW1: i32 = 51;
/// Unadjusted Langevin on a target: x + h grad + sqrt(2 h) z with step_size h.
pub const DGM_SOLVER_ULA: i32 = 52;
/// Metropolis-adjusted Langevin on a target, told the log density as a number a row (dgm_run_tell_with()); step_size is h (Roberts & Tweedie 1996).
pub const DGM_SOLVER_MALA: i32 = 53;
/// Hamiltonian Monte Carlo on a target with leapfrog steps of step_size, told as mala (Duane 1987; Neal 2011).
pub const DGM_SOLVER_HMC: i32 = 54;
/// Annealed Langevin: corrector_steps steps at every noise level of step_size sigma^2 (Song & Ermon 2019).
pub const DGM_SOLVER_ANNEALED_LANGEVIN: i32 = 55;

/// As uniform without rounding; flow: from the first level to sigma_min, then 0.
pub const DGM_SPACING_LINSPACE: i32 = 3;
/// Evenly spaced in sigma^(1/rho) (Karras 2022).
pub const DGM_SPACING_KARRAS: i32 = 4;
/// Evenly spaced in ln sigma.
pub const DGM_SPACING_EXPONENTIAL: i32 = 5;
/// Evenly spaced ln sigma of a power rho of the fraction.
pub const DGM_SPACING_POLYEXPONENTIAL: i32 = 6;
/// Quantiles of Beta(0.6, 0.6) (Lee 2024).
pub const DGM_SPACING_BETA: i32 = 7;
/// Evenly spaced in lambda = ln(alpha / sigma) (Lu 2022).
pub const DGM_SPACING_LAMBDA: i32 = 8;
/// Evenly spaced in arctan sigma (Sabour 2024, theorem 3.1).
pub const DGM_SPACING_KL_OPTIMAL: i32 = 9;
/// Align Your Steps, Stable Diffusion 1.5 (Sabour 2024); log-linear between its ten steps.
pub const DGM_SPACING_AYS_SD15: i32 = 10;
/// Align Your Steps, SDXL.
pub const DGM_SPACING_AYS_SDXL: i32 = 11;
/// Align Your Steps, Stable Video Diffusion.
pub const DGM_SPACING_AYS_SVD: i32 = 12;
/// Flow only: linear to 1 - 0.025 in half of the steps, then quadratic (Movie Gen, Mochi).
pub const DGM_SPACING_LINEAR_QUADRATIC: i32 = 13;
/// Every N / steps-th level from the noisiest.
pub const DGM_SPACING_SIMPLE: i32 = 14;
/// Evenly spaced in model time, the last noisy one left out.
pub const DGM_SPACING_SGM_UNIFORM: i32 = 15;
/// Every floor(N / steps)-th level from the second: the number of steps may differ.
pub const DGM_SPACING_DDIM_UNIFORM: i32 = 16;
/// Geometry-inspired time steps, searched for Stable Diffusion with coefficient 1.2 and 2 to 20 steps (Chen 2024b); log-linear between those of 20 for more.
pub const DGM_SPACING_GITS: i32 = 17;

/// Clean data, sigma 0.
pub const DGM_FINAL_SIGMA_ZERO: i32 = 0;
/// The least level of the process.
pub const DGM_FINAL_SIGMA_MIN: i32 = 1;

/// k = shift, power 1: s t / (1 + (s - 1) t).
pub const DGM_SHIFT_TYPE_STATIC: i32 = 0;
/// k = exp(shift): the mu of FLUX, see dynamic_shift.
pub const DGM_SHIFT_TYPE_EXPONENTIAL: i32 = 1;
/// k = shift (CogView4).
pub const DGM_SHIFT_TYPE_LINEAR: i32 = 2;

/// u + g (c - u) (Ho & Salimans 2022).
pub const DGM_GUIDANCE_MODE_CFG: i32 = 0;
/// Adaptive projected guidance on x0 (Sadat 2024).
pub const DGM_GUIDANCE_MODE_APG: i32 = 1;
/// CFG-Zero*: s u + g (c - s u), s = <c, u> / |u|^2 (Fan 2025).
pub const DGM_GUIDANCE_MODE_CFG_ZERO: i32 = 2;
/// CFG++: guided x0, unconditional noise (Chung 2024).
pub const DGM_GUIDANCE_MODE_CFG_PP: i32 = 3;
/// Autoguidance: w + g (c - w), w the output of a weaker model with the same condition, DGM_ROLE_WEAK (Karras 2024).
pub const DGM_GUIDANCE_MODE_AUTO: i32 = 4;

/// A draw for each step.
pub const DGM_NOISE_INDEPENDENT: i32 = 0;
/// Increments of one Brownian path over the noise levels: the path stays when the number of steps changes.
pub const DGM_NOISE_BROWNIAN: i32 = 1;

/// Of the posterior.
pub const DGM_VARIANCE_FIXED_SMALL: i32 = 0;
/// The beta of the step, which is larger.
pub const DGM_VARIANCE_FIXED_LARGE: i32 = 1;
/// From the output's second half w in [-1, 1]: exp of the logarithms of the two above, interpolated by (w + 1) / 2 (Nichol & Dhariwal 2021).
pub const DGM_VARIANCE_LEARNED_RANGE: i32 = 2;

/// Nobody's.
pub const DGM_COMPAT_NONE: i32 = 0;
/// diffusers: f32 tables, linear interpolation between sigmas, whole model times.
pub const DGM_COMPAT_DIFFUSERS: i32 = 1;

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
    /// Adaptive solvers: first step size in model time; 0 (default) chooses: Bosh3 a twentieth of the span, the others from the first slopes.
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
    /// Adaptive solvers: one to three exponents p of step-size control, a step growing by 0.9 e^(-p1/k) e1^(-p2/k) e2^(-p3/k) with the errors of the last three accepted steps and k the order of the error, 3 or 5 (Soderlind 2003). 1 is I control, 0.7 -0.4 PI, 0.25 0.5 0.25 the filter H312. NULL (default): PI for Bosh3, I for the others.
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
}

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointer is not followed
// before it is checked).
unsafe impl Versioned for dgm_plan_options {}

/// A compiled sampler. Immutable.
pub struct dgm_plan(pub(crate) Plan);

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

fn flag(arg: &'static str, value: i32) -> Result<bool> {
    match value {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(Error::argument(arg, other, "0 or 1")),
    }
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
unsafe fn convert(o: &dgm_plan_options) -> Result<PlanOptions> {
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

/// Replaces options by those that a published model is sampled with (docs/SAMPLERS.md lists them).
///
/// @param options its struct_size must be set: call dgm_plan_options_init() first
/// @param name    "sdxl", "flux_dev", ...
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_options_preset(options: *mut dgm_plan_options, name: *const c_char) -> i32 {
    // SAFETY: the caller gives an initialised struct and a NUL-terminated text, or NULL.
    entry(|| unsafe {
        let preset = PlanOptions::preset(text("name", name)?)?;
        write_struct("options", options, dgm_plan_options::from(&preset))
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
