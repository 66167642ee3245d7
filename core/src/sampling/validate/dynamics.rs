//! Processes without levels of noise: odes, sdes and densities that chains walk.

use super::{FARTHEST, within};
use crate::error::{Error, Result};
use crate::sampling::options::*;

/// Gradients of a whole walk of hmc.
const MOST_LEAPS: usize = 1_000_000;

impl PlanOptions {
    /// What has a meaning where there is no noise.
    pub(super) fn check_ode(&self) -> Result<()> {
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
}
