//! What a sampler is made of: plain fields, turned into a [`Plan`](super::Plan) by
//! [`Plan::compile`](super::Plan::compile).

pub use super::choices::*;

/// Everything a plan is compiled from. Plain fields; start from [`Default`] or a `with`-style update:
///
/// ```
/// use dgm_core::sampling::{Plan, PlanOptions, Solver};
/// let plan = Plan::compile(&PlanOptions { solver: Solver::Heun, steps: 8, ..Default::default() })?;
/// assert_eq!(plan.steps(), 8);
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOptions {
    /// The noising process the model was trained on. Default [`Process::Flow`].
    pub process: Process,
    /// What the model's output means. Default [`Prediction::Velocity`].
    pub prediction: Prediction,
    /// The method. Default [`Solver::Euler`].
    pub solver: Solver,
    /// Number of steps, 1 to 100,000 (VP: at most `train_steps`). Default 16. Not used when
    /// `times` is given, nor by adaptive solvers, which choose their own.
    pub steps: usize,
    /// Placement of the steps. Default [`Spacing::Uniform`].
    pub spacing: Spacing,
    /// Flow: the grid is mapped by `t -> s t / (1 + (s - 1) t)`, s in [0.01, 100];
    /// [`Process::VpCascade`]: `sigma / alpha` of every time is multiplied by s. Default 1.
    pub shift: f64,
    /// Model times instead of a spacing: `steps + 1` strictly descending values.
    /// Flow: within [0, 1]. VP: within [0, N-1], fractions interpolate; the last may be -1,
    /// which means clean data (alpha 1, sigma 0). Ode: any, all descending or all ascending. The walk ends at the
    /// last value.
    pub times: Option<Vec<f64>>,
    /// [`Solver::Ddim`]: 0 (deterministic) to 1 (the variance of DDPM); [`Solver::Tcd`]: gamma, 0 to 1. Default 0.
    pub eta: f64,
    /// Classifier-free guidance g: `u + g (c - u)`. Exactly 1 asks for the conditional
    /// output alone; anything else asks conditional, then unconditional. Default 1.
    pub guidance: f64,
    /// When `Some(c)`, the predicted x0 is clipped to [-c, c] and the rest follows from it.
    pub clip: Option<f64>,
    /// VP linear and scaled linear: the first beta. Default 1e-4.
    pub beta_start: f64,
    /// VP linear and scaled linear: the last beta. Default 0.02.
    pub beta_end: f64,
    /// VP: number N of training steps, 1 to 100,000. Default 1000.
    pub train_steps: usize,
    /// Adaptive solvers: relative tolerance. Default 1e-3.
    pub rtol: f64,
    /// Adaptive solvers: absolute tolerance, in the units of x. Default 1e-4.
    pub atol: f64,
    /// Adaptive solvers: first step size in model time; 0 chooses: bosh3 a twentieth of the span, the others from
    /// the first slopes, with an evaluation more (Hairer, Norsett & Wanner I, II.4). [`Solver::Dpm12`],
    /// [`Solver::Dpm23`]: in lambda, 0 is 0.05. Default 0.
    pub h_init: f64,
    /// Adaptive solvers: model evaluations after which a run gives up. Default 10,000.
    pub max_evals: usize,
    /// Noise of the ancestral and SDE solvers: 1 is the method's own, 0 none (its ODE). Default 1.
    pub sde_eta: f64,
    /// Order of a solver that has several; 0 is its own choice. Default 0.
    pub order: usize,
    /// [`Process::VpTrained`]: the betas of all training steps, each above 0 and below 1.
    pub betas: Option<Vec<f64>>,
    /// Least noise level of VE, EDM and of the spacings in sigma (sigma / alpha for VP, t for
    /// flow); 0 is the process's own. Default 0.
    pub sigma_min: f64,
    /// Greatest noise level, likewise. Default 0.
    pub sigma_max: f64,
    /// Deviation of the data, for EDM and TrigFlow. Default 0.5.
    pub sigma_data: f64,
    /// Exponent of [`Spacing::Karras`] and [`Spacing::PolyExponential`]. Default 7.
    pub rho: f64,
    /// VP tables: rescales the betas so that the last level holds no signal (Lin 2023). Default false.
    pub zero_snr: bool,
    /// [`Spacing::Leading`] only: added to the times. Default 0.
    pub steps_offset: usize,
    /// What stands after the last noisy level of a spacing. Default [`FinalSigma::Zero`].
    pub final_sigma: FinalSigma,
    /// How `shift` is meant. Default [`ShiftType::Static`].
    pub shift_type: ShiftType,
    /// Exponent of the dynamic shifts. Default 1.
    pub shift_power: f64,
    /// Flow only: stretches the shifted grid so that its last noisy time is this one (LTX-Video); 0 does not. Default 0.
    pub shift_terminal: f64,
    /// Noise levels instead of a spacing or `times`: sigma for VE and EDM, sigma / alpha for VP
    /// and TrigFlow, t for flow; strictly descending, the last may be 0.
    pub sigmas: Option<Vec<f64>>,
    /// Euler, Heun, DPM2: noise added before a step, in all (Karras 2022). Default 0.
    pub s_churn: f64,
    /// Least noise level that is churned. Default 0.
    pub s_tmin: f64,
    /// Greatest noise level that is churned; 0 is no limit. Default 0.
    pub s_tmax: f64,
    /// Factor of all noise that steps add. Default 1.
    pub s_noise: f64,
    /// How guidance combines. Default [`Guidance::Cfg`].
    pub guidance_mode: Guidance,
    /// Part of the guided output that is rescaled to the deviation of the conditional one, 0 to 1
    /// (Lin 2023, section 3.4). Default 0.
    pub guidance_rescale: f64,
    /// Fraction of the steps from which guidance acts; before, the conditional output alone is asked for
    /// (Kynkaanniemi 2024). Default 0.
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
    pub zero_init_steps: usize,
    /// Noise of stochastic steps. Default [`NoiseKind::Independent`].
    pub noise: NoiseKind,
    /// Dynamic thresholding: this quantile of |x0| of a row bounds it, then x0 is divided by the
    /// bound (Saharia 2022); 0 does not. Default 0.
    pub threshold_ratio: f64,
    /// Dynamic thresholding: the largest bound. Default 1.
    pub threshold_max: f64,
    /// Variance of [`Solver::Ddpm`]. Default [`Variance::FixedSmall`].
    pub variance: Variance,
    /// Steps left out at the noisy end (image to image by strength). Default 0.
    pub start_step: usize,
    /// Starts at this noise level (in the measure of `sigmas`) and leaves out the noisier ones
    /// (image to image by noise level); 0 does not. Default 0.
    pub start_sigma: f64,
    /// Restart sampling (Xu 2023): groups of four numbers, `sigma_min, steps, times, sigma_max`:
    /// when the walk reaches sigma_min, noise carries it back to sigma_max, and that many Karras steps
    /// return; so many times.
    pub restart: Option<Vec<f64>>,
    /// Known parts: after every step x is replaced where the mask says so, see
    /// [`Run::set_known`](super::Run::set_known). Default false.
    pub inpaint: bool,
    /// [`Solver::Lcm`], [`Solver::Tcd`]: steps of the grid that distillation used, of which `steps` are taken. Default 50.
    pub original_steps: usize,
    /// [`Solver::Lcm`]: scale of the model time in the boundary condition. Default 10.
    pub time_scale: f64,
    /// Rows of a batch at times of their own, see [`Run::select`](super::Run::select). Default false.
    pub per_row: bool,
    /// Whose accidents to reproduce. Default [`Compat::None`].
    pub compat: Compat,
    /// [`Solver::PredictorCorrector`]: the signal-to-noise ratio r that a Langevin step aims at, 0 to 10;
    /// its length is `2 (r |z| / |score|)^2` with `sqrt(elements)` for `|z|`, at most `sigma^2`
    /// (Song 2021, algorithm 4). Default 0.16.
    pub snr: f64,
    /// [`Solver::PredictorCorrector`], [`Solver::AnnealedLangevin`]: Langevin steps at each level, up to 100. Default 1.
    pub corrector_steps: usize,
    /// Autoguidance w beside classifier-free guidance: `+ (w - 1) (c - k)` with k the output of a weaker
    /// model with the same condition, role weak (Karras 2024). With `guidance` g that is three evaluations
    /// and `u + g (c - u) + (w - 1) (c - k)`, with g 1 the two of [`Guidance::Auto`]. 1 asks for no k. Default 1.
    pub guidance_weak: f64,
    /// [`Process::Ode`] and sde: where the walk begins. Default 0.
    pub t_start: f64,
    /// [`Process::Ode`] and sde: where it ends, before or after `t_start`. Default 1.
    pub t_end: f64,
    /// Adaptive solvers: one to three exponents p of step-size control, a step growing by
    /// `0.9 e^(-p1/k) e1^(-p2/k) e2^(-p3/k)` with the errors e, e1, e2 of the last three accepted steps and k the
    /// order of the error, 3 or 5 (Soderlind 2003). `[1]` is I control, `[0.7, -0.4]` PI (Hairer & Wanner),
    /// `[0.25, 0.5, 0.25]` the digital filter H312. Default: PI for bosh3, I for the others. [`Solver::Dpm12`],
    /// [`Solver::Dpm23`]: k 2 and 3, and the step grows by `1 + atan(p - 1)` with p the product without its 0.9 (k-diffusion's
    /// PID: `[p + i + d, -p - 2 d, d]`; as there, the error of the first try stands for the two before it, also where it
    /// is rejected).
    pub controller: Option<Vec<f64>>,
    /// Adaptive solvers: up to 1000 times, in the order of the walk, at which x is kept
    /// ([`Run::saved`](super::Run::saved)); steps do not end there, x is interpolated.
    pub save_at: Option<Vec<f64>>,
    /// Adaptive solvers: up to 1000 times inside the walk, in its order, at which steps end, because the model
    /// jumps there: a step towards one is cut short, its last evaluation is asked for just before (the f32 next to
    /// the time), the next step begins with one just after.
    pub stop_at: Option<Vec<f64>>,
    /// [`Process::Ode`]: integrates the divergence of f beside x, told as a number a row
    /// ([`Run::tell_with`](super::Run::tell_with)), for [`Run::log_density`](super::Run::log_density); error
    /// control counts it as one more element. Default [`Likelihood::None`].
    pub likelihood: Likelihood,
    /// Markov chains: step size, above 0; of mala and hmc where adaptation begins. Default 0.1.
    pub step_size: f64,
    /// [`Solver::Hmc`]: leapfrog steps of an iteration, 1 to 1000. Default 10.
    pub leapfrog: usize,
    /// [`Solver::Mala`], [`Solver::Hmc`]: first iterations in which every chain adapts its step size (Hoffman & Gelman
    /// 2014, dual averaging); at most `steps`. Default 0.
    pub warmup: usize,
    /// What adaptation aims at, 0.01 to 0.99; 0 is 0.574 for mala, 0.8 for hmc. Default 0.
    pub target_accept: f64,
    /// Whether [`Run::tell`](super::Run::tell) refuses outputs that are not finite, or leaves out the search for
    /// them, which is a fourth to a third of the memory traffic of a step; not with adaptive solvers, mala and hmc, which
    /// judge their steps. NaN and infinities then spread through x, but for [`clip`](Self::clip), which bounds them. Default [`NonFinite::Refuse`].
    pub non_finite: NonFinite,
}

impl Default for PlanOptions {
    fn default() -> Self {
        PlanOptions {
            process: Process::Flow,
            prediction: Prediction::Velocity,
            solver: Solver::Euler,
            steps: 16,
            spacing: Spacing::Uniform,
            shift: 1.0,
            times: None,
            eta: 0.0,
            guidance: 1.0,
            clip: None,
            beta_start: 1e-4,
            beta_end: 0.02,
            train_steps: 1000,
            rtol: 1e-3,
            atol: 1e-4,
            h_init: 0.0,
            max_evals: 10_000,
            sde_eta: 1.0,
            order: 0,
            betas: None,
            sigma_min: 0.0,
            sigma_max: 0.0,
            sigma_data: 0.5,
            rho: 7.0,
            zero_snr: false,
            steps_offset: 0,
            final_sigma: FinalSigma::Zero,
            shift_type: ShiftType::Static,
            shift_power: 1.0,
            shift_terminal: 0.0,
            sigmas: None,
            s_churn: 0.0,
            s_tmin: 0.0,
            s_tmax: 0.0,
            s_noise: 1.0,
            guidance_mode: Guidance::Cfg,
            guidance_rescale: 0.0,
            guidance_start: 0.0,
            guidance_end: 1.0,
            apg_eta: 0.0,
            apg_norm: 0.0,
            apg_momentum: 0.0,
            zero_init_steps: 0,
            noise: NoiseKind::Independent,
            threshold_ratio: 0.0,
            threshold_max: 1.0,
            variance: Variance::FixedSmall,
            start_step: 0,
            start_sigma: 0.0,
            restart: None,
            inpaint: false,
            original_steps: 50,
            time_scale: 10.0,
            per_row: false,
            compat: Compat::None,
            snr: 0.16,
            corrector_steps: 1,
            guidance_weak: 1.0,
            t_start: 0.0,
            t_end: 1.0,
            controller: None,
            save_at: None,
            stop_at: None,
            likelihood: Likelihood::None,
            step_size: 0.1,
            leapfrog: 10,
            warmup: 0,
            target_accept: 0.0,
            non_finite: NonFinite::Refuse,
        }
    }
}

/// Most steps, and most training steps, a plan may have.
pub const MAX_STEPS: usize = 100_000;
