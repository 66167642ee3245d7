//! The choices a plan is made of, with their stable numbers and names.

use super::fields::{Field, Value};
use crate::error::{Error, Result};

/// A field-less enum whose numbers cross the C ABI and enter the serialised plan.
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident, $arg:literal { $($(#[doc = $doc:literal])+ $variant:ident = $code:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[doc = $doc])+ $variant = $code),+ }

        impl $name {
            /// Every value, in the order of their codes.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The stable number of this value.
            pub fn code(self) -> u32 {
                self as u32
            }

            /// The lower-case name used in printed plans and in model files.
            pub fn name(self) -> &'static str {
                match self { $($name::$variant => $text),+ }
            }

            /// What the documentation says of this value.
            pub(super) fn about(self) -> &'static str {
                match self { $($name::$variant => concat!($($doc),+)),+ }
            }

            /// The value with this number.
            ///
            /// # Errors
            /// [`Error::Argument`] for a number that has no meaning.
            pub fn from_code(code: u32) -> Result<Self> {
                Self::ALL.iter().copied().find(|v| v.code() == code).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|v| format!("{} ({})", v.code(), v.name())).collect();
                    Error::argument($arg, code, all.join(", "))
                })
            }

            /// The value with this name.
            ///
            /// # Errors
            /// [`Error::Argument`] for an unknown name.
            pub fn from_name(name: &str) -> Result<Self> {
                Self::ALL.iter().copied().find(|v| v.name() == name).ok_or_else(|| {
                    let all: Vec<_> = Self::ALL.iter().map(|v| v.name()).collect();
                    Error::argument($arg, format!("{name:?}"), all.join(", "))
                })
            }
        }

        impl Field for $name {
            fn read(arg: &'static str, value: Value) -> Result<Self> {
                match value {
                    Value::Name(name) => Self::from_name(&name),
                    other => Err(Error::argument(arg, other, "a name")),
                }
            }
            fn value(&self) -> Value {
                Value::Name(self.name().to_string())
            }
            fn words(&self) -> Vec<f64> {
                vec![f64::from(self.code())]
            }
            fn from_words(arg: &'static str, words: &[f64]) -> Result<Self> {
                Self::from_code(usize::from_words(arg, words)? as u32)
            }
        }
    };
}

coded! {
    /// How noise is mixed into data: `x_t = alpha(t) x0 + sigma(t) eps`.
    Process, "process" {
        /// Rectified flow (Liu 2023, Lipman 2023): `alpha = 1 - t`, `sigma = t`, t from 1 (noise) to 0 (data).
        Flow = 0 "flow",
        /// Variance preserving, betas linear in the step (Ho 2020). Model time is the training step 0..N-1.
        VpLinear = 1 "vp_linear",
        /// Variance preserving, square roots of betas linear (latent diffusion).
        VpScaledLinear = 2 "vp_scaled_linear",
        /// Variance preserving, squared-cosine alpha-bar, beta at most 0.999 (Nichol & Dhariwal 2021).
        VpCosine = 3 "vp_cosine",
        /// Variance preserving, betas along a sigmoid from -6 to 6 (GeoDiff, Xu 2022).
        VpSigmoid = 4 "vp_sigmoid",
        /// Variance preserving, betas of your own (`betas`).
        VpTrained = 5 "vp_trained",
        /// Variance preserving in continuous time 0 to 1, `beta(t) = beta_start + t (beta_end - beta_start)`
        /// (Song 2021; usually 0.1 and 20).
        VpContinuous = 6 "vp_continuous",
        /// Variance exploding: alpha 1; model time is sigma (Song 2021).
        Ve = 7 "ve",
        /// Alpha 1; model time is `ln(sigma) / 4` (Karras 2022).
        Edm = 8 "edm",
        /// `alpha = cos t`, `sigma = sigma_data sin t`, t from pi/2 to 0 (Lu & Song 2024).
        TrigFlow = 9 "trigflow",
        /// Variance preserving, most training steps near equal parts of signal and noise:
        /// `ln(alpha^2 / sigma^2)` is a Laplace quantile of scale 1/2 (Hang 2024).
        VpLaplace = 10 "vp_laplace",
        /// Variance preserving in continuous time 0 to 1, squared-cosine alpha-bar between 0.0001 and
        /// 0.9999, `sigma / alpha` times `shift` (Pernias 2023; Stable Cascade).
        VpCascade = 11 "vp_cascade",
        /// No noise: `dx/dt = f(x, t)`, f told as a velocity, over `times` or from `t_start` to `t_end`, either
        /// way. Without `x_start` a run begins at standard normals.
        Ode = 12 "ode",
        /// Sub-VP (Song 2021): as vp_continuous with `sigma = 1 - alpha^2`.
        SubVp = 13 "sub_vp",
        /// `dx = f(x, t) dt + g(x, t) dW` element by element, over `times` or from `t_start` to `t_end`, either way. The
        /// model returns f and g, two tensors a row; the prediction stays velocity. Ito, but for
        /// stochastic_heun.
        Sde = 14 "sde",
        /// A density of the caller, for Markov chains: the model returns the gradient of its logarithm (the prediction is
        /// score). A run begins at standard normals or at `x_start`; every step is one iteration.
        Target = 15 "target",
    }
}

coded! {
    /// What the model predicts.
    Prediction, "prediction" {
        /// The noise eps.
        Epsilon = 0 "epsilon",
        /// The clean data x0.
        X0 = 1 "x0",
        /// `v = alpha eps - sigma x0` (Salimans & Ho 2022).
        V = 2 "v",
        /// The velocity `eps - x0`, which for [`Process::Flow`] is dx/dt.
        Velocity = 3 "velocity",
        /// The score, `-eps / sigma` (Song 2021).
        Score = 4 "score",
        /// The raw network F of Karras 2022: reads `c_in x`, `x0 = c_skip x + c_out F`.
        Edm = 5 "edm",
        /// As [`Prediction::Edm`] with c_out negative: the v of `x / sqrt(sigma^2 + 1)` (SVD, with `sigma_data` 1).
        EdmV = 6 "edm_v",
        /// The raw network F of TrigFlow: reads `x / sigma_data`, `dx/dt = sigma_data F` (Lu & Song 2024).
        TrigFlow = 7 "trigflow",
        /// The raw network F of consistency models: as [`Prediction::Edm`] with a boundary at the
        /// least level m, `c_skip = d^2 / ((sigma - m)^2 + d^2)`, `c_out = (sigma - m) d / sqrt(sigma^2 + d^2)` (Song 2023).
        Consistency = 8 "consistency",
    }
}

coded! {
    /// The method that walks from noise to data.
    Solver, "solver" {
        /// First order; on a VP process it equals DDIM with eta 0.
        Euler = 0 "euler",
        /// Explicit midpoint, order 2, two evaluations a step.
        Midpoint = 1 "midpoint",
        /// Heun (explicit trapezoid), order 2, two evaluations a step.
        Heun = 2 "heun",
        /// The classical Runge-Kutta method, order 4, four evaluations a step.
        Rk4 = 3 "rk4",
        /// Ancestral sampling with the posterior variance (Ho 2020, "fixed small").
        Ddpm = 4 "ddpm",
        /// DDIM (Song 2021); `eta` 0 is deterministic, 1 has the variance of DDPM.
        Ddim = 5 "ddim",
        /// DPM-Solver++(2M) (Lu 2022), order 2, one evaluation a step.
        DpmPP2M = 6 "dpmpp_2m",
        /// UniPC order 2, B2(h) (Zhao 2023): predictor and corrector, one evaluation a step.
        UniPC = 7 "unipc",
        /// Bogacki-Shampine 3(2) with step-size control and rejection for each row; flow and ode.
        Bosh3 = 8 "bosh3",
        /// Linear multistep, Adams-Bashforth of orders 1 to 4 on the grid as it is (k-diffusion's LMS, in closed form).
        Lms = 9 "lms",
        /// Adams-Bashforth with the weights of even steps (Zhang & Chen 2022; Liu 2022).
        Ipndm = 10 "ipndm",
        /// Pseudo linear multistep, started by an improved Euler step (Liu 2022, as in Stable Diffusion).
        Plms = 11 "plms",
        /// Pseudo numerical methods: three Runge-Kutta steps, then linear multistep (Liu 2022).
        Pndm = 12 "pndm",
        /// Midpoint at the geometric mean of the two noise levels (Karras 2022; k-diffusion's DPM2).
        Dpm2 = 13 "dpm2",
        /// Euler to a lower level, then fresh noise; `sde_eta` 1 has the variance of DDPM.
        EulerAncestral = 14 "euler_ancestral",
        /// [`Solver::Dpm2`] to a lower level, then fresh noise.
        Dpm2Ancestral = 15 "dpm2_ancestral",
        /// DPM-Solver++(2S) to a lower level, then fresh noise.
        DpmPP2SAncestral = 16 "dpmpp_2s_ancestral",
        /// Euler ancestral with the level split of rectified flows; flow only.
        EulerAncestralRf = 17 "euler_ancestral_rf",
        /// DDIM from data to noise: the grid is walked backwards.
        DdimInverse = 18 "ddim_inverse",
        /// DPM-Solver, multistep in eps, orders 1 to 3 (Lu 2022a).
        Dpm = 19 "dpm",
        /// DPM-Solver++, multistep in x0, orders 1 to 3 (Lu 2022b).
        DpmPP = 20 "dpmpp",
        /// DPM-Solver, singlestep, orders 1 to 3.
        DpmSingle = 21 "dpm_single",
        /// DPM-Solver++, singlestep, orders 1 to 3.
        DpmPPSingle = 22 "dpmpp_single",
        /// SDE-DPM-Solver++, two evaluations a step.
        DpmPPSde = 23 "dpmpp_sde",
        /// SDE-DPM-Solver++(2M), midpoint form.
        DpmPP2MSde = 24 "dpmpp_2m_sde",
        /// SDE-DPM-Solver++(2M), Heun form.
        DpmPP2MSdeHeun = 25 "dpmpp_2m_sde_heun",
        /// SDE-DPM-Solver++(3M).
        DpmPP3MSde = 26 "dpmpp_3m_sde",
        /// SDE-DPM-Solver (noise form), orders 1 and 2.
        DpmSde = 27 "dpm_sde",
        /// UniPC with B1(h).
        UniPCBh1 = 28 "unipc_bh1",
        /// Diffusion exponential integrator multistep, orders 1 to 4 (Zhang & Chen 2022).
        Deis = 29 "deis",
        /// Stochastic Adams, predictor and corrector, orders 1 to 4 (Xue 2023); `sde_eta` is tau squared.
        SaSolver = 30 "sa_solver",
        /// Extended reverse-time SDE, orders 1 to 3 (Cui 2023).
        ErSde = 31 "er_sde",
        /// Stochastic explicit exponential derivative-free solver of order 2 (Gonzalez 2023).
        Seeds2 = 32 "seeds_2",
        /// The same of order 3.
        Seeds3 = 33 "seeds_3",
        /// Refined exponential solver, multistep, order 2 (Zhang 2023).
        ResMultistep = 34 "res_multistep",
        /// Refined exponential solver, two stages, order 2.
        Res2S = 35 "res_2s",
        /// Gradient estimation: Euler with an extrapolated slope (Permenter & Yuan 2024).
        GradientEstimation = 36 "gradient_estimation",
        /// Multistep consistency sampling (Song 2023).
        Consistency = 37 "consistency",
        /// Latent consistency sampling, boundary-conditioned (Luo 2023).
        Lcm = 38 "lcm",
        /// Trajectory consistency, `eta` is gamma (Zheng 2024).
        Tcd = 39 "tcd",
        /// TrigFlow consistency, sCM (Lu & Song 2024); trigflow only.
        Scm = 40 "scm",
        /// Flow maps: the model is told where to land (MeanFlow, shortcut models); flow only.
        FlowMap = 41 "flow_map",
        /// DPM-Solver++ multistep from data to noise, orders 1 to 3: the grid is walked backwards.
        DpmPPInverse = 42 "dpmpp_inverse",
        /// Predictor-corrector: `corrector_steps` Langevin steps at every level, aimed at the
        /// signal-to-noise ratio `snr`, then one of reverse diffusion (Song 2021).
        PredictorCorrector = 43 "predictor_corrector",
        /// Dormand-Prince 5(4) with step-size control and rejection for each row; flow and ode.
        Dopri5 = 44 "dopri5",
        /// Tsitouras 5(4) with step-size control and rejection for each row; flow and ode.
        Tsit5 = 45 "tsit5",
        /// The fifth-order method of Dormand & Prince with fixed steps, six evaluations a step.
        Rk5 = 46 "rk5",
        /// Euler-Maruyama for an sde: strong order 1/2, weak order 1.
        EulerMaruyama = 47 "euler_maruyama",
        /// Milstein without derivatives for an sde, strong order 1, two evaluations a step (Kloeden & Platen 1992, 11.1).
        Milstein = 48 "milstein",
        /// Heun for an sde in the sense of Stratonovich, strong order 1, two evaluations a step.
        StochasticHeun = 49 "stochastic_heun",
        /// SRA1 for an sde whose g does not depend on x: strong order 3/2, three evaluations a step (Roessler 2010).
        Sra1 = 50 "sra1",
        /// SRIW1 for an sde with diagonal noise: strong order 3/2, five evaluations a step (Roessler 2010).
        Sriw1 = 51 "sriw1",
        /// Unadjusted Langevin on a target: `x + h grad + sqrt(2 h) z` with `step_size` h.
        Ula = 52 "ula",
        /// Metropolis-adjusted Langevin on a target, told the log density as a number a row; `step_size` is h (Roberts & Tweedie 1996).
        Mala = 53 "mala",
        /// Hamiltonian Monte Carlo on a target with `leapfrog` steps of `step_size`, told as mala (Duane 1987; Neal 2011).
        Hmc = 54 "hmc",
        /// Annealed Langevin: `corrector_steps` steps at every noise level of `step_size sigma^2` (Song & Ermon 2019).
        AnnealedLangevin = 55 "annealed_langevin",
        /// DPM-Solver-12 in lambda with step-size control and rejection for each row: the step of order 2, its error against
        /// order 1; from the noisiest to the least noisy level (Lu 2022a; k-diffusion's DPM adaptive of order 2).
        Dpm12 = 56 "dpm_12",
        /// DPM-Solver-23 likewise: the step of order 3, its error against order 2 (k-diffusion's DPM adaptive).
        Dpm23 = 57 "dpm_23",
    }
}

coded! {
    /// Where the steps lie.
    Spacing, "spacing" {
        /// Flow: `t_i = 1 - i/steps`. VP: evenly spaced from N-1 to 0, rounded ("linspace").
        Uniform = 0 "uniform",
        /// VP only: multiples of `N / steps` from 0 ("leading").
        Leading = 1 "leading",
        /// VP only: multiples of `N / steps` down from N, less one ("trailing").
        Trailing = 2 "trailing",
        /// As uniform without rounding; flow: from the first level to `sigma_min`, then 0.
        Linspace = 3 "linspace",
        /// Evenly spaced in `sigma^(1/rho)` (Karras 2022).
        Karras = 4 "karras",
        /// Evenly spaced in ln sigma.
        Exponential = 5 "exponential",
        /// Evenly spaced ln sigma of a power `rho` of the fraction.
        PolyExponential = 6 "polyexponential",
        /// Quantiles of Beta(0.6, 0.6) (Lee 2024).
        Beta = 7 "beta",
        /// Evenly spaced in lambda = ln(alpha / sigma) (Lu 2022).
        Lambda = 8 "lambda",
        /// Evenly spaced in arctan sigma (Sabour 2024, theorem 3.1).
        KlOptimal = 9 "kl_optimal",
        /// Align Your Steps, Stable Diffusion 1.5 (Sabour 2024); log-linear between its ten steps.
        AysSd15 = 10 "ays_sd15",
        /// Align Your Steps, SDXL.
        AysSdxl = 11 "ays_sdxl",
        /// Align Your Steps, Stable Video Diffusion.
        AysSvd = 12 "ays_svd",
        /// Flow only: linear to `1 - 0.025` in half of the steps, then quadratic (Movie Gen, Mochi).
        LinearQuadratic = 13 "linear_quadratic",
        /// Every `N / steps`-th level from the noisiest.
        Simple = 14 "simple",
        /// Evenly spaced in model time, the last noisy one left out.
        SgmUniform = 15 "sgm_uniform",
        /// Every `floor(N / steps)`-th level from the second: the number of steps may differ.
        DdimUniform = 16 "ddim_uniform",
        /// Geometry-inspired time steps, searched for Stable Diffusion with coefficient 1.2 and 2 to 20
        /// steps (Chen 2024b); log-linear between those of 20 for more.
        Gits = 17 "gits",
    }
}

coded! {
    /// What stands after the last noisy level of a spacing.
    FinalSigma, "final_sigma" {
        /// Clean data, sigma 0.
        Zero = 0 "zero",
        /// The least level of the process.
        Min = 1 "min",
    }
}

coded! {
    /// How `shift` maps the times of a flow, `t -> k / (k + (1/t - 1)^shift_power)`.
    ShiftType, "shift_type" {
        /// `k = shift`, power 1: `s t / (1 + (s - 1) t)`.
        Static = 0 "static",
        /// `k = exp(shift)`: the mu of FLUX, see [`dynamic_shift`](super::dynamic_shift).
        Exponential = 1 "exponential",
        /// `k = shift` (CogView4).
        Linear = 2 "linear",
    }
}

coded! {
    /// How the two outputs of guidance are combined.
    Guidance, "guidance_mode" {
        /// `u + g (c - u)` (Ho & Salimans 2022).
        Cfg = 0 "cfg",
        /// Adaptive projected guidance on x0 (Sadat 2024).
        Apg = 1 "apg",
        /// CFG-Zero*: `s u + g (c - s u)`, `s = <c, u> / |u|^2` (Fan 2025).
        CfgZero = 2 "cfg_zero",
        /// CFG++: guided x0, unconditional noise (Chung 2024).
        CfgPlusPlus = 3 "cfg_pp",
        /// Autoguidance: `w + g (c - w)`, w the output of a weaker model with the same condition, role weak (Karras 2024).
        Auto = 4 "auto",
    }
}

coded! {
    /// Where the noise of a stochastic step comes from.
    NoiseKind, "noise" {
        /// A draw for each step.
        Independent = 0 "independent",
        /// Increments of one Brownian path over the noise levels: the path stays when the number of steps changes.
        Brownian = 1 "brownian",
    }
}

coded! {
    /// The variance of DDPM's steps.
    Variance, "variance" {
        /// Of the posterior.
        FixedSmall = 0 "fixed_small",
        /// The beta of the step, which is larger.
        FixedLarge = 1 "fixed_large",
        /// From the output's second half w in [-1, 1]: `exp` of the logarithms of the two above,
        /// interpolated by `(w + 1) / 2` (Nichol & Dhariwal 2021).
        LearnedRange = 2 "learned_range",
    }
}

coded! {
    /// Whether an ode gives log densities, and what is told for them with every output.
    Likelihood, "likelihood" {
        /// It does not.
        None = 0 "none",
        /// The divergence of f, the trace of its Jacobian, one number a row.
        Exact = 1 "exact",
        /// Hutchinson's estimate `e^T J e` of it with a probe of +-1.
        Hutchinson = 2 "hutchinson",
        /// The same with a probe of normals.
        HutchinsonNormal = 3 "hutchinson_normal",
    }
}

coded! {
    /// What becomes of a model output that is not finite.
    NonFinite, "non_finite" {
        /// It is refused and nothing has changed: a step in place reads the whole output once more, one from state to state looks while it computes.
        Refuse = 0 "refuse",
        /// It is computed with, unseen: one pass over memory a step. Finite outputs give the same bits.
        Propagate = 1 "propagate",
    }
}

coded! {
    /// Whose accidents to reproduce.
    Compat, "compat" {
        /// Nobody's.
        None = 0 "none",
        /// diffusers: f32 tables, linear interpolation between sigmas, whole model times.
        Diffusers = 1 "diffusers",
    }
}

impl Prediction {
    /// Whether the model reads a scaled state.
    pub(super) fn reads_scaled(self) -> bool {
        use Prediction::{Consistency, Edm, EdmV, TrigFlow};
        matches!(self, Edm | EdmV | TrigFlow | Consistency)
    }
}

impl Solver {
    /// The orders a solver can be asked for, and the one it has by itself; `None` where it has one only.
    pub fn orders(self) -> Option<(std::ops::RangeInclusive<usize>, usize)> {
        match self {
            Solver::Lms | Solver::Ipndm => Some((1..=4, 4)),
            Solver::Dpm | Solver::DpmPP | Solver::DpmSingle | Solver::DpmPPSingle | Solver::DpmPPInverse => {
                Some((1..=3, 2))
            }
            Solver::DpmSde => Some((1..=2, 2)),
            Solver::UniPC | Solver::UniPCBh1 => Some((1..=3, 2)),
            Solver::Deis => Some((1..=4, 3)),
            Solver::SaSolver => Some((1..=4, 2)),
            Solver::ErSde => Some((1..=3, 3)),
            _ => None,
        }
    }

    /// Whether it chooses its own steps.
    pub fn is_adaptive(self) -> bool {
        matches!(self, Solver::Bosh3 | Solver::Dopri5 | Solver::Tsit5) || self.walks_lambda()
    }

    /// Whether it needs nothing but dx/dt: the solvers of [`Process::Ode`].
    pub fn solves_odes(self) -> bool {
        use Solver::{Bosh3, Dopri5, Euler, Heun, Ipndm, Lms, Midpoint, Rk4, Rk5, Tsit5};
        matches!(self, Euler | Midpoint | Heun | Rk4 | Rk5 | Lms | Ipndm | Bosh3 | Dopri5 | Tsit5)
    }

    /// The solvers of [`Process::Target`], and of nothing else.
    pub fn walks_targets(self) -> bool {
        matches!(self, Solver::Ula) || self.tests_proposals()
    }

    /// Whether a proposal may be rejected, by a log density told as a number a row.
    pub fn tests_proposals(self) -> bool {
        matches!(self, Solver::Mala | Solver::Hmc)
    }

    /// The solvers of [`Process::Sde`], and of nothing else.
    pub fn solves_sdes(self) -> bool {
        use Solver::{EulerMaruyama, Milstein, Sra1, Sriw1, StochasticHeun};
        matches!(self, EulerMaruyama | Milstein | StochasticHeun | Sra1 | Sriw1)
    }

    /// Whether the grid is walked from data to noise.
    pub(super) fn is_inverse(self) -> bool {
        matches!(self, Solver::DdimInverse | Solver::DpmPPInverse)
    }

    /// Whether `eta` means something: noise that is added on request.
    pub(super) fn uses_eta(self) -> bool {
        matches!(self, Solver::Ddim | Solver::Tcd)
    }

    /// Whether `sde_eta` means something: noise that the method is made of.
    pub(super) fn uses_sde_eta(self) -> bool {
        use Solver::{
            Dpm2Ancestral, DpmPP2MSde, DpmPP2MSdeHeun, DpmPP2SAncestral, DpmPP3MSde, DpmPPSde, DpmSde,
            EulerAncestral, EulerAncestralRf, SaSolver, Seeds2, Seeds3,
        };
        matches!(
            self,
            EulerAncestral
                | Dpm2Ancestral
                | DpmPP2SAncestral
                | EulerAncestralRf
                | DpmPPSde
                | DpmPP2MSde
                | DpmPP2MSdeHeun
                | DpmPP3MSde
                | DpmSde
                | SaSolver
                | Seeds2
                | Seeds3
        )
    }
}
