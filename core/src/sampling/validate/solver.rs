//! What only some solvers use.

use super::{FARTHEST, within};
use crate::error::{Error, Result};
use crate::sampling::options::*;

/// Langevin steps at one level.
const MOST_CORRECTIONS: usize = 100;
/// Times of `save_at` and `stop_at`.
const MOST_SAVED: usize = 1000;
/// Longest step in lambda.
const LONGEST: f64 = 100.0;

impl PlanOptions {
    pub(super) fn check_solver(&self) -> Result<()> {
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
    pub(in crate::sampling) fn check_save_at(&self, from: f64, to: f64) -> Result<()> {
        check_times("save_at", self.save_at.as_deref(), from, to)
    }

    /// The times of `stop_at`, which lie inside the walk.
    pub(in crate::sampling) fn check_stop_at(&self, from: f64, to: f64) -> Result<()> {
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
