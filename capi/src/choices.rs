//! The choices of plan options, by number.

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

/// Outputs that are not finite are refused and nothing has changed: a step in place reads the whole output once more, dgm_run_tell_from() looks while it computes.
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
/// DPM-Solver-12 in lambda with step-size control and rejection for each row: the step of order 2, its error against order 1; from the noisiest to the least noisy level (Lu 2022a; k-diffusion's DPM adaptive of order 2).
pub const DGM_SOLVER_DPM_12: i32 = 56;
/// DPM-Solver-23 likewise: the step of order 3, its error against order 2 (k-diffusion's DPM adaptive).
pub const DGM_SOLVER_DPM_23: i32 = 57;

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
