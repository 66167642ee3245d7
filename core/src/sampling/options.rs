//! What a sampler is made of: plain fields, turned into a [`Plan`](super::Plan) by
//! [`Plan::compile`](super::Plan::compile).

use crate::error::{Error, Result};

/// A field-less enum whose numbers cross the C ABI and enter the serialised plan.
macro_rules! coded {
    ($(#[$meta:meta])* $name:ident, $arg:literal { $($(#[$vmeta:meta])* $variant:ident = $code:literal $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$vmeta])* $variant = $code),+ }

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
        /// Bogacki-Shampine 3(2) with step-size control and rejection for each row; flow only.
        Bosh3 = 8 "bosh3",
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
    }
}

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
    /// `times` is given, nor by [`Solver::Bosh3`], which chooses its own.
    pub steps: usize,
    /// Placement of the steps. Default [`Spacing::Uniform`].
    pub spacing: Spacing,
    /// Flow only: the grid is mapped by `t -> s t / (1 + (s - 1) t)`, s in [0.01, 100]. Default 1.
    pub shift: f64,
    /// Model times instead of a spacing: `steps + 1` strictly descending values.
    /// Flow: within [0, 1]. VP: within [0, N-1], fractions interpolate; the last may be -1,
    /// which means clean data (alpha 1, sigma 0). The walk ends at the last value.
    pub times: Option<Vec<f64>>,
    /// [`Solver::Ddim`] only: 0 (deterministic) to 1 (the variance of DDPM). Default 0.
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
    /// [`Solver::Bosh3`]: relative tolerance. Default 1e-3.
    pub rtol: f64,
    /// [`Solver::Bosh3`]: absolute tolerance, in the units of x. Default 1e-4.
    pub atol: f64,
    /// [`Solver::Bosh3`]: first step size in model time; 0 chooses a twentieth of the span. Default 0.
    pub h_init: f64,
    /// [`Solver::Bosh3`]: model evaluations after which a run gives up. Default 10,000.
    pub max_evals: usize,
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
        }
    }
}

/// Most steps, and most training steps, a plan may have.
pub const MAX_STEPS: usize = 100_000;

impl PlanOptions {
    /// Checks every field on its own and the combinations that have no meaning.
    pub(super) fn validate(&self) -> Result<()> {
        // Also what this plan does not use: a NaN there is a mistake of the caller all the same.
        for (arg, value) in [
            ("shift", self.shift),
            ("eta", self.eta),
            ("guidance", self.guidance),
            ("beta_start", self.beta_start),
            ("beta_end", self.beta_end),
            ("rtol", self.rtol),
            ("atol", self.atol),
            ("h_init", self.h_init),
        ] {
            if !value.is_finite() {
                return Err(Error::range(arg, value, "a finite number"));
            }
        }
        let vp = self.process != Process::Flow;
        if vp && !(1..=MAX_STEPS).contains(&self.train_steps) {
            return Err(Error::range("train_steps", self.train_steps, format!("1 to {MAX_STEPS}")));
        }
        if self.times.is_none() && self.solver != Solver::Bosh3 {
            let most = if vp { MAX_STEPS.min(self.train_steps) } else { MAX_STEPS };
            if !(1..=most).contains(&self.steps) {
                return Err(Error::range("steps", self.steps, format!("1 to {most}")));
            }
        }
        if !vp && self.spacing != Spacing::Uniform {
            return Err(Error::argument("spacing", self.spacing.name(), "uniform for the flow process"));
        }
        within("shift", self.shift, 0.01, 100.0)?;
        if vp && self.shift != 1.0 {
            return Err(Error::argument("shift", self.shift, "1 unless the process is flow"));
        }
        within("eta", self.eta, 0.0, 1.0)?;
        if self.eta != 0.0 && self.solver != Solver::Ddim {
            return Err(Error::argument("eta", self.eta, "0 unless the solver is ddim"));
        }
        within("guidance", self.guidance, -1e3, 1e3)?;
        if let Some(c) = self.clip {
            within("clip", c, 1e-6, 1e6)?;
        }
        if vp && self.process != Process::VpCosine {
            within("beta_start", self.beta_start, 1e-12, 0.999)?;
            within("beta_end", self.beta_end, self.beta_start, 0.999)?;
        }
        if self.solver == Solver::Bosh3 {
            if vp {
                return Err(Error::argument("process", self.process.name(), "flow for the solver bosh3"));
            }
            within("rtol", self.rtol, 0.0, 1.0)?;
            within("atol", self.atol, 0.0, 1e6)?;
            if self.rtol.max(self.atol) < 1e-9 {
                return Err(Error::range("rtol", self.rtol, "rtol or atol at least 1e-9"));
            }
            within("h_init", self.h_init, 0.0, 1.0)?;
            if !(4..=1_000_000_000).contains(&self.max_evals) {
                return Err(Error::range("max_evals", self.max_evals, "4 to 1000000000"));
            }
        }
        Ok(())
    }
}

/// Checks that a number is finite and inside `[low, high]`.
fn within(arg: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Error::range(arg, value, format!("{low} to {high}")))
    }
}
