//! Checks of the options before anything is compiled.

mod dynamics;
mod solver;

use super::fields::Value;
use super::options::*;
use crate::error::{Error, Result};

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

/// Checks that a number is finite and inside `[low, high]`.
pub(super) fn within(arg: &'static str, value: f64, low: f64, high: f64) -> Result<()> {
    if (low..=high).contains(&value) {
        Ok(())
    } else {
        Err(Error::range(arg, value, format!("{low} to {high}")))
    }
}
