//! Checks of the options before anything is compiled.

use super::fields::Value;
use super::options::*;
use crate::error::{Error, Result};

/// Langevin steps at one level.
const MOST_CORRECTIONS: usize = 100;
/// Gradients of a whole walk of hmc.
const MOST_LEAPS: usize = 1_000_000;
/// Times of `save_at` and `stop_at`.
const MOST_SAVED: usize = 1000;
/// Longest step in lambda.
const LONGEST: f64 = 100.0;
/// Greatest time of an ode.
const FARTHEST: f64 = 1e9;

impl PlanOptions {
    /// Checks every field on its own and the combinations that have no meaning.
    pub(super) fn validate(&self) -> Result<()> {
        self.check_numbers()?;
        self.check_steps()?;
        self.check_process()?;
        self.check_grid()?;
        self.check_solver()?;
        self.check_non_finite()?;
        self.check_guidance()
    }

    /// What judges a step by the outputs must be able to.
    fn check_non_finite(&self) -> Result<()> {
        let judges = self.solver.is_adaptive() || self.solver.tests_proposals();
        if self.non_finite == NonFinite::Propagate && judges {
            let expected = format!("refuse with the solver {}, which judges its steps", self.solver.name());
            return Err(Error::argument("non_finite", self.non_finite.name(), expected));
        }
        Ok(())
    }

    /// Also what this plan does not use: a NaN there is a mistake of the caller all the same.
    fn check_numbers(&self) -> Result<()> {
        for &name in PlanOptions::NAMES {
            if let Ok(Value::Number(value)) = self.get(name)
                && !value.is_finite()
            {
                return Err(Error::range(name, value, "a finite number"));
            }
        }
        Ok(())
    }

    /// Whether the process is a table of training steps.
    pub(super) fn is_table(&self) -> bool {
        use Process::{VpCosine, VpLaplace, VpLinear, VpScaledLinear, VpSigmoid, VpTrained};
        matches!(self.process, VpLinear | VpScaledLinear | VpCosine | VpLaplace | VpSigmoid | VpTrained)
    }

    fn check_steps(&self) -> Result<()> {
        if !(1..=MAX_STEPS).contains(&self.train_steps) {
            return Err(Error::range("train_steps", self.train_steps, format!("1 to {MAX_STEPS}")));
        }
        if self.times.is_none() && self.sigmas.is_none() && !self.solver.is_adaptive() {
            let by_index = matches!(
                self.spacing,
                Spacing::Uniform
                    | Spacing::Leading
                    | Spacing::Trailing
                    | Spacing::Simple
                    | Spacing::DdimUniform
            );
            let most = if self.is_table() && by_index {
                self.train_steps - usize::from(self.final_sigma == FinalSigma::Min)
            } else {
                MAX_STEPS
            };
            if !(1..=most).contains(&self.steps) {
                return Err(Error::range("steps", self.steps, format!("1 to {most}")));
            }
        }
        Ok(())
    }

    fn check_process(&self) -> Result<()> {
        use Process::{SubVp, VpContinuous, VpLinear, VpScaledLinear, VpSigmoid, VpTrained};
        match self.process {
            VpLinear | VpScaledLinear | VpSigmoid => {
                within("beta_start", self.beta_start, 1e-12, 0.999)?;
                within("beta_end", self.beta_end, self.beta_start, 0.999)?;
            }
            VpContinuous | SubVp => {
                within("beta_start", self.beta_start, 1e-12, 100.0)?;
                within("beta_end", self.beta_end, self.beta_start, 100.0)?;
            }
            _ => {}
        }
        match (&self.betas, self.process == VpTrained) {
            (Some(betas), true) => {
                if betas.len() != self.train_steps {
                    let expected = format!("[{}], one for each of train_steps", self.train_steps);
                    return Err(Error::shape("betas", &[betas.len()], expected));
                }
                for (i, &beta) in betas.iter().enumerate() {
                    if !(1e-12..=0.9999).contains(&beta) {
                        return Err(Error::range("betas", format!("{beta} at index {i}"), "1e-12 to 0.9999"));
                    }
                }
            }
            (None, true) => {
                return Err(Error::argument("betas", "nothing", "the betas of the process vp_trained"));
            }
            (Some(betas), false) => {
                let got = format!("{} numbers", betas.len());
                return Err(Error::argument("betas", got, "nothing unless the process is vp_trained"));
            }
            (None, false) => {}
        }
        if self.zero_snr && (!self.is_table() || self.train_steps < 2) {
            return Err(Error::argument("zero_snr", true, "false unless the process is a table of betas"));
        }
        within("sigma_data", self.sigma_data, 1e-3, 1e3)?;
        let exploding = matches!(self.process, Process::Ve | Process::Edm | Process::TrigFlow);
        let least = if exploding { 1e-6 } else { 1e-9 };
        for (arg, value, most) in [("sigma_min", self.sigma_min, 1e5), ("sigma_max", self.sigma_max, 1e6)] {
            if value != 0.0 {
                within(arg, value, least, if self.process == Process::Flow { 1.0 } else { most })?;
            }
        }
        if self.sigma_min != 0.0 && self.sigma_max != 0.0 && self.sigma_min >= self.sigma_max {
            return Err(Error::range(
                "sigma_min",
                self.sigma_min,
                format!("less than sigma_max, {}", self.sigma_max),
            ));
        }
        Ok(())
    }

    fn check_grid(&self) -> Result<()> {
        let flow = self.process == Process::Flow;
        if flow && matches!(self.spacing, Spacing::Leading | Spacing::Trailing) {
            return Err(Error::argument("spacing", self.spacing.name(), "another one for the flow process"));
        }
        if self.spacing == Spacing::LinearQuadratic && !flow {
            return Err(Error::argument(
                "spacing",
                self.spacing.name(),
                "another one unless the process is flow",
            ));
        }
        let low = if self.shift_type == ShiftType::Exponential { -10.0 } else { 0.01 };
        within(
            "shift",
            self.shift,
            low,
            if self.shift_type == ShiftType::Exponential { 10.0 } else { 100.0 },
        )?;
        let neutral = self.shift == 1.0 && self.shift_type == ShiftType::Static;
        let cascade = self.process == Process::VpCascade && self.shift_type == ShiftType::Static;
        if !flow && !neutral && !cascade {
            return Err(Error::argument("shift", self.shift, "1 unless the process is flow or vp_cascade"));
        }
        within("shift_power", self.shift_power, 0.01, 100.0)?;
        within("shift_terminal", self.shift_terminal, 0.0, 0.999)?;
        if self.shift_terminal != 0.0 && !flow {
            return Err(Error::argument(
                "shift_terminal",
                self.shift_terminal,
                "0 unless the process is flow",
            ));
        }
        if self.times.is_some() && self.sigmas.is_some() {
            return Err(Error::argument("sigmas", "given beside times", "one of the two"));
        }
        within("rho", self.rho, 0.01, 100.0)?;
        if self.steps_offset != 0 && self.spacing != Spacing::Leading {
            return Err(Error::argument(
                "steps_offset",
                self.steps_offset,
                "0 unless the spacing is leading",
            ));
        }
        within("start_sigma", self.start_sigma, 0.0, 1e6)?;
        if self.start_sigma != 0.0 && self.start_step != 0 {
            return Err(Error::argument("start_sigma", self.start_sigma, "0 beside start_step"));
        }
        if self.solver.is_adaptive() && (self.start_step != 0 || self.start_sigma != 0.0) {
            let expected = format!("0 for the solver {}; give times", self.solver.name());
            return Err(Error::argument("start_step", self.start_step, expected));
        }
        Ok(())
    }

    fn check_solver(&self) -> Result<()> {
        within("eta", self.eta, 0.0, 1.0)?;
        if self.eta != 0.0 && !self.solver.uses_eta() {
            return Err(Error::argument("eta", self.eta, "0 unless the solver is ddim or tcd"));
        }
        within("sde_eta", self.sde_eta, 0.0, 2.0)?;
        if self.sde_eta != 1.0 && !self.solver.uses_sde_eta() {
            let expected = format!("1 for the solver {}", self.solver.name());
            return Err(Error::argument("sde_eta", self.sde_eta, expected));
        }
        let orders = self.solver.orders().map_or(0..=0, |(orders, _)| orders);
        if self.order != 0 && !orders.contains(&self.order) {
            let expected = match self.solver.orders() {
                None => format!("0 for the solver {}", self.solver.name()),
                Some((o, _)) => {
                    format!("0, or {} to {} for the solver {}", o.start(), o.end(), self.solver.name())
                }
            };
            return Err(Error::range("order", self.order, expected));
        }
        if let Some(c) = self.clip {
            within("clip", c, 1e-6, 1e6)?;
        }
        within("threshold_ratio", self.threshold_ratio, 0.0, 1.0)?;
        within("threshold_max", self.threshold_max, 1.0e-3, 1e6)?;
        if self.threshold_ratio != 0.0 && self.clip.is_some() {
            return Err(Error::argument("threshold_ratio", self.threshold_ratio, "0 beside clip"));
        }
        within("s_churn", self.s_churn, 0.0, 1e6)?;
        if self.s_churn != 0.0 && !matches!(self.solver, Solver::Euler | Solver::Heun | Solver::Dpm2) {
            return Err(Error::argument(
                "s_churn",
                self.s_churn,
                "0 unless the solver is euler, heun or dpm2",
            ));
        }
        within("s_tmin", self.s_tmin, 0.0, 1e9)?;
        within("s_tmax", self.s_tmax, 0.0, 1e9)?;
        within("s_noise", self.s_noise, 0.0, 10.0)?;
        if self.variance != Variance::FixedSmall && self.solver != Solver::Ddpm {
            return Err(Error::argument(
                "variance",
                self.variance.name(),
                "fixed_small unless the solver is ddpm",
            ));
        }
        if self.threshold_ratio != 0.0 && self.solver == Solver::DdimInverse {
            return Err(Error::argument(
                "threshold_ratio",
                self.threshold_ratio,
                "0 for the solver ddim_inverse",
            ));
        }
        if self.inpaint && self.solver.is_inverse() {
            let expected = format!("false for the solver {}", self.solver.name());
            return Err(Error::argument("inpaint", true, expected));
        }
        self.check_corrector()?;
        self.check_restart()?;
        let process = self.process;
        let wanted = match self.solver {
            Solver::EulerAncestralRf | Solver::FlowMap => Some(Process::Flow),
            Solver::Scm => Some(Process::TrigFlow),
            _ => None,
        };
        if let Some(wanted) = wanted
            && wanted != process
        {
            let expected = format!("{} for the solver {}", wanted.name(), self.solver.name());
            return Err(Error::argument("process", process.name(), expected));
        }
        if self.solver == Solver::FlowMap && self.prediction != Prediction::Velocity {
            let expected = "velocity for the solver flow_map, whose model returns a mean velocity";
            return Err(Error::argument("prediction", self.prediction.name(), expected));
        }
        if !(1..=MAX_STEPS).contains(&self.original_steps) {
            return Err(Error::range("original_steps", self.original_steps, format!("1 to {MAX_STEPS}")));
        }
        within("time_scale", self.time_scale, 1e-3, 1e6)?;
        self.check_ode()?;
        if self.solver.is_adaptive() {
            return self.check_adaptive();
        }
        for (arg, used) in [
            ("controller", self.controller.is_some()),
            ("save_at", self.save_at.is_some()),
            ("stop_at", self.stop_at.is_some()),
        ] {
            if used {
                return Err(Error::argument(arg, "set", "nothing unless the solver is adaptive"));
            }
        }
        Ok(())
    }

    /// What has a meaning where there is no noise.
    fn check_ode(&self) -> Result<()> {
        let default = PlanOptions::default();
        let (ode, sde) = (self.process == Process::Ode, self.process == Process::Sde);
        let target = self.process == Process::Target;
        self.check_chains()?;
        if self.solver.solves_sdes() != sde {
            let expected = if sde {
                "one that solves sdes for the process sde"
            } else {
                "another one unless the process is sde"
            };
            return Err(Error::argument("solver", self.solver.name(), expected));
        }
        if !ode && !sde || target {
            for (arg, value, own) in
                [("t_start", self.t_start, default.t_start), ("t_end", self.t_end, default.t_end)]
            {
                if value != own {
                    return Err(Error::argument(
                        arg,
                        value,
                        format!("{own} unless the process is ode or sde"),
                    ));
                }
            }
            if target {
                return self.check_target();
            }
            if self.likelihood != Likelihood::None {
                let expected = "none unless the process is ode";
                return Err(Error::argument("likelihood", self.likelihood.name(), expected));
            }
            return Ok(());
        }
        if ode && !self.solver.solves_odes() {
            let expected =
                format!("one that needs nothing but dx/dt for the process {}", self.process.name());
            return Err(Error::argument("solver", self.solver.name(), expected));
        }
        if self.prediction != Prediction::Velocity {
            let expected = "velocity for the processes ode and sde, whose model returns dx/dt";
            return Err(Error::argument("prediction", self.prediction.name(), expected));
        }
        let times = self.times.as_deref().unwrap_or_default();
        for (arg, &t) in [("t_start", &self.t_start), ("t_end", &self.t_end)]
            .into_iter()
            .chain(times.iter().map(|t| ("times", t)))
        {
            within(arg, t, -FARTHEST, FARTHEST)?;
        }
        if self.t_start == self.t_end && self.times.is_none() {
            return Err(Error::range("t_end", self.t_end, "another time than t_start"));
        }
        for (arg, used) in [
            ("spacing", self.spacing != default.spacing),
            ("sigmas", self.sigmas.is_some()),
            ("clip", self.clip.is_some()),
            ("threshold_ratio", self.threshold_ratio != 0.0),
            ("s_churn", self.s_churn != 0.0),
            ("noise", self.noise != default.noise),
            ("s_noise", self.s_noise != default.s_noise),
            (
                "guidance_mode",
                self.likelihood != Likelihood::None
                    && (self.guidance_mode == Guidance::CfgZero || self.guidance_rescale != 0.0),
            ),
            ("likelihood", sde && self.likelihood != Likelihood::None),
            ("guidance", sde && (self.guidance != 1.0 || self.guidance_weak != 1.0)),
            ("start_sigma", self.start_sigma != 0.0),
            ("restart", self.restart.is_some()),
            ("inpaint", self.inpaint),
            (
                "guidance_mode",
                !matches!(self.guidance_mode, Guidance::Cfg | Guidance::CfgZero | Guidance::Auto),
            ),
        ] {
            if used {
                let expected = format!("the default for the process {}", self.process.name());
                return Err(Error::argument(arg, "set", expected));
            }
        }
        Ok(())
    }

    /// A density without times and levels.
    fn check_target(&self) -> Result<()> {
        let default = PlanOptions::default();
        if self.prediction != Prediction::Score {
            let expected = "score for the process target, whose model returns the gradient of a log density";
            return Err(Error::argument("prediction", self.prediction.name(), expected));
        }
        for (arg, used) in [
            ("spacing", self.spacing != default.spacing),
            ("times", self.times.is_some()),
            ("sigmas", self.sigmas.is_some()),
            ("clip", self.clip.is_some()),
            ("threshold_ratio", self.threshold_ratio != 0.0),
            ("start_sigma", self.start_sigma != 0.0),
            ("start_step", self.start_step != 0),
            ("restart", self.restart.is_some()),
            ("inpaint", self.inpaint),
            ("noise", self.noise != default.noise),
            ("s_noise", self.s_noise != default.s_noise),
            ("guidance", self.guidance != 1.0 || self.guidance_weak != 1.0),
            ("likelihood", self.likelihood != Likelihood::None),
        ] {
            if used {
                return Err(Error::argument(arg, "set", "the default for the process target"));
            }
        }
        Ok(())
    }

    fn check_chains(&self) -> Result<()> {
        let default = PlanOptions::default();
        let target = self.process == Process::Target;
        if self.solver.walks_targets() != target {
            let expected = if target {
                "ula, mala or hmc for the process target"
            } else {
                "another one unless the process is target"
            };
            return Err(Error::argument("solver", self.solver.name(), expected));
        }
        within("step_size", self.step_size, 1e-12, 1e6)?;
        within("target_accept", self.target_accept, 0.0, 0.99)?;
        if !(1..=1000).contains(&self.leapfrog) {
            return Err(Error::range("leapfrog", self.leapfrog, "1 to 1000"));
        }
        let most = MOST_LEAPS / self.steps.max(1);
        if self.solver == Solver::Hmc && self.leapfrog > most {
            let expected = format!("at most {most} for {} steps", self.steps);
            return Err(Error::range("leapfrog", self.leapfrog, expected));
        }
        if self.warmup > self.steps && target {
            return Err(Error::range("warmup", self.warmup, format!("at most steps, {}", self.steps)));
        }
        let tested = self.solver.tests_proposals();
        let steps = target || self.solver == Solver::AnnealedLangevin;
        for (arg, used) in [
            ("step_size", !steps && self.step_size != default.step_size),
            ("leapfrog", self.solver != Solver::Hmc && self.leapfrog != default.leapfrog),
            ("warmup", !tested && self.warmup != default.warmup),
            ("target_accept", !tested && self.target_accept != default.target_accept),
        ] {
            if used {
                return Err(Error::argument(arg, "set", "the default unless the solver is a Markov chain's"));
            }
        }
        Ok(())
    }

    fn check_controller(&self) -> Result<()> {
        let Some(exponents) = &self.controller else { return Ok(()) };
        if !(1..=3).contains(&exponents.len()) {
            return Err(Error::shape("controller", &[exponents.len()], "one to three exponents"));
        }
        for (i, &p) in exponents.iter().enumerate() {
            if !(-2.0..=2.0).contains(&p) || (i == 0 && p <= 0.0) {
                let expected = "-2 to 2, the first above 0";
                return Err(Error::range("controller", format!("{p} at index {i}"), expected));
            }
        }
        Ok(())
    }

    /// The times of `save_at` against those of the walk.
    pub(super) fn check_save_at(&self, from: f64, to: f64) -> Result<()> {
        check_times("save_at", self.save_at.as_deref(), from, to)
    }

    /// The times of `stop_at`, which lie inside the walk.
    pub(super) fn check_stop_at(&self, from: f64, to: f64) -> Result<()> {
        check_times("stop_at", self.stop_at.as_deref(), from, to)?;
        let stops = self.stop_at.as_deref().unwrap_or_default();
        match stops.iter().position(|t| *t == from || *t == to) {
            None => Ok(()),
            Some(i) => {
                let expected = format!("times inside the walk, between {from} and {to}");
                Err(Error::range("stop_at", format!("{} at index {i}", stops[i]), expected))
            }
        }
    }

    fn check_corrector(&self) -> Result<()> {
        within("snr", self.snr, 0.0, 10.0)?;
        if self.corrector_steps > MOST_CORRECTIONS {
            return Err(Error::range(
                "corrector_steps",
                self.corrector_steps,
                format!("at most {MOST_CORRECTIONS}"),
            ));
        }
        let default = PlanOptions::default();
        let own = self.solver == Solver::PredictorCorrector;
        let steps = own || self.solver == Solver::AnnealedLangevin;
        if !own && self.snr != default.snr || !steps && self.corrector_steps != default.corrector_steps {
            let arg = if self.snr != default.snr { "snr" } else { "corrector_steps" };
            return Err(Error::argument(
                arg,
                "set",
                "the default unless the solver is predictor_corrector (or annealed_langevin)",
            ));
        }
        Ok(())
    }

    fn check_restart(&self) -> Result<()> {
        let Some(restart) = &self.restart else { return Ok(()) };
        if restart.is_empty() || restart.len() % 4 != 0 {
            let expected = "groups of sigma_min, steps, times, sigma_max";
            return Err(Error::shape("restart", &[restart.len()], expected));
        }
        for (i, group) in restart.chunks_exact(4).enumerate() {
            let [low, steps, times, high] = [group[0], group[1], group[2], group[3]];
            let whole = |v: f64| v.fract() == 0.0 && (1.0..=1000.0).contains(&v);
            if !(low > 0.0 && low < high && high.is_finite() && whole(steps) && whole(times)) {
                let expected = "0 < sigma_min < sigma_max, steps and times 1 to 1000";
                return Err(Error::range("restart", format!("{group:?} in group {i}"), expected));
            }
        }
        if self.solver.is_inverse() {
            let expected = format!("nothing for the solver {}", self.solver.name());
            return Err(Error::argument("restart", "set", expected));
        }
        Ok(())
    }

    fn check_adaptive(&self) -> Result<()> {
        let lambda = self.solver.walks_lambda();
        if !lambda && !matches!(self.process, Process::Flow | Process::Ode) {
            let expected = format!("flow or ode for the solver {}", self.solver.name());
            return Err(Error::argument("process", self.process.name(), expected));
        }
        if lambda && self.save_at.is_some() {
            let expected =
                format!("nothing for the solver {}, whose steps have no interpolant", self.solver.name());
            return Err(Error::argument("save_at", "set", expected));
        }
        within("rtol", self.rtol, 0.0, 1.0)?;
        within("atol", self.atol, 0.0, 1e6)?;
        if self.rtol.max(self.atol) < 1e-9 {
            return Err(Error::range("rtol", self.rtol, "rtol or atol at least 1e-9"));
        }
        let longest = match self.process {
            Process::Ode => FARTHEST,
            _ if lambda => LONGEST,
            _ => 1.0,
        };
        within("h_init", self.h_init, 0.0, longest)?;
        self.check_controller()?;
        if !(4..=1_000_000_000).contains(&self.max_evals) {
            return Err(Error::range("max_evals", self.max_evals, "4 to 1000000000"));
        }
        for (arg, used) in [
            ("threshold_ratio", self.threshold_ratio != 0.0),
            ("guidance_mode", !matches!(self.guidance_mode, Guidance::Cfg | Guidance::Auto)),
            ("guidance_rescale", self.guidance_rescale != 0.0),
            ("guidance_start", self.guidance_start != 0.0 || self.guidance_end != 1.0),
            ("inpaint", self.inpaint),
            ("restart", self.restart.is_some()),
        ] {
            if used {
                let expected = format!("the default for the solver {}", self.solver.name());
                return Err(Error::argument(arg, "set", expected));
            }
        }
        if self.prediction.reads_scaled() {
            let expected = format!("one that reads x as it is for the solver {}", self.solver.name());
            return Err(Error::argument("prediction", self.prediction.name(), expected));
        }
        Ok(())
    }

    fn check_guidance(&self) -> Result<()> {
        within("guidance", self.guidance, -1e3, 1e3)?;
        within("guidance_rescale", self.guidance_rescale, 0.0, 1.0)?;
        within("guidance_start", self.guidance_start, 0.0, 1.0)?;
        within("guidance_end", self.guidance_end, self.guidance_start, 1.0)?;
        within("apg_eta", self.apg_eta, 0.0, 10.0)?;
        within("apg_norm", self.apg_norm, 0.0, 1e6)?;
        within("apg_momentum", self.apg_momentum, -1.0, 1.0)?;
        let plain = matches!(self.guidance_mode, Guidance::Cfg | Guidance::Auto);
        if self.guidance_rescale != 0.0 && !plain {
            return Err(Error::argument(
                "guidance_rescale",
                self.guidance_rescale,
                "0 unless guidance_mode is cfg or auto",
            ));
        }
        let can_split = matches!(self.solver, Solver::Euler | Solver::Ddim | Solver::EulerAncestral);
        if self.guidance_mode == Guidance::CfgPlusPlus && !can_split {
            let expected = "another mode, or the solver euler, ddim or euler_ancestral";
            return Err(Error::argument("guidance_mode", self.guidance_mode.name(), expected));
        }
        within("guidance_weak", self.guidance_weak, -1e3, 1e3)?;
        if self.guidance_weak != 1.0 && (self.guidance_mode != Guidance::Cfg || self.guidance_rescale != 0.0)
        {
            let expected = "1 unless guidance_mode is cfg without guidance_rescale";
            return Err(Error::argument("guidance_weak", self.guidance_weak, expected));
        }
        if self.zero_init_steps != 0 && self.guidance_mode != Guidance::CfgZero {
            return Err(Error::argument(
                "zero_init_steps",
                self.zero_init_steps,
                "0 unless guidance_mode is cfg_zero",
            ));
        }
        Ok(())
    }
}

/// Checks times in the order of the walk.
fn check_times(arg: &'static str, times: Option<&[f64]>, from: f64, to: f64) -> Result<()> {
    let Some(times) = times else { return Ok(()) };
    if !(1..=MOST_SAVED).contains(&times.len()) {
        return Err(Error::shape(arg, &[times.len()], format!("1 to {MOST_SAVED} times")));
    }
    for (i, &t) in times.iter().enumerate() {
        let before = if i == 0 { from } else { times[i - 1] };
        let (low, high) = (before.min(to), before.max(to));
        if !(low..=high).contains(&t) || (i > 0 && t == before) {
            let expected = format!("times in the order of the walk, from {from} to {to}");
            return Err(Error::range(arg, format!("{t} at index {i}"), expected));
        }
    }
    Ok(())
}

/// Checks that a number is finite and inside `[low, high]`.
pub(super) fn within(arg: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Error::range(arg, value, format!("{low} to {high}")))
    }
}
