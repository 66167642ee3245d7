//! The test of Metropolis and Hastings, and the step size it leads to, for one row.

use super::measure;
use super::options::Solver;
use super::plan::Plan;
use super::run::Run;
use crate::error::{Error, Result};
use crate::random::{self, Purpose};

/// Constants of dual averaging (Hoffman & Gelman 2014, section 3.2).
const GAMMA: f64 = 0.05;
const T0: f64 = 10.0;
const KAPPA: f64 = 0.75;

/// What a chain keeps beside its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Chain {
    /// Leapfrog step.
    pub step: f64,
    /// Logarithm of the averaged step, and the average miss of the acceptance aimed at.
    pub log_mean: f64,
    pub miss: f64,
    /// Proposals accepted, after the warmup.
    pub accepted: u64,
}

impl Chain {
    pub(super) fn new(plan: &Plan) -> Chain {
        Chain { step: first_step(plan), log_mean: 0.0, miss: 0.0, accepted: 0 }
    }

    /// Learns from the probability with which proposal `number` was accepted.
    fn learn(&mut self, plan: &Plan, number: u32, probability: f64) {
        let warmup = plan.options().warmup as u32;
        if number >= warmup {
            return;
        }
        let m = f64::from(number) + 1.0;
        let rate = 1.0 / (m + T0);
        self.miss = (1.0 - rate) * self.miss + rate * (target(plan) - probability);
        let log_step = libm::log(10.0 * first_step(plan)) - libm::sqrt(m) / GAMMA * self.miss;
        let weight = libm::pow(m, -KAPPA);
        self.log_mean = weight * log_step + (1.0 - weight) * self.log_mean;
        let next = if number + 1 == warmup { self.log_mean } else { log_step };
        // Far beyond every length that a density in f32 can have.
        self.step = libm::exp(next.clamp(-60.0, 60.0));
    }
}

fn first_step(plan: &Plan) -> f64 {
    let h = plan.options().step_size;
    if plan.options().solver == Solver::Mala { libm::sqrt(2.0 * h) } else { h }
}

/// The acceptance aimed at: what is best for many dimensions (Roberts & Rosenthal 1998; Beskos 2013).
fn target(plan: &Plan) -> f64 {
    match (plan.options().target_accept, plan.options().solver) {
        (0.0, Solver::Mala) => 0.574,
        (0.0, _) => 0.8,
        (own, _) => own,
    }
}

/// Slots of a test, see [`Row::Metropolis`](super::table::Row::Metropolis).
#[derive(Debug, Clone, Copy)]
pub(super) struct Test {
    pub gradient: usize,
    pub next: usize,
    pub p0: usize,
    pub p: usize,
    pub number: u32,
}

/// Decides for every row; learns.
pub(super) fn decide(run: &mut Run, plan: &Plan, state: &[f32], test: &Test) -> Vec<bool> {
    let (n, kept, len) = (run.elements, plan.kept(), run.rows() * run.elements);
    let part = |slot: usize, row: usize| &state[slot * len + row * n..][..n];
    (0..run.rows())
        .map(|row| {
            let numbers = &run.numbers[row * kept..][..kept];
            let kinetic = |slot: usize| 0.5 * measure::squares(part(slot, row));
            let gain = (numbers[test.next] - kinetic(test.p)) - (numbers[test.gradient] - kinetic(test.p0));
            // No number: the proposal has no density, or energies without bound.
            let probability = if gain.is_nan() { 0.0 } else { libm::exp(gain.min(0.0)) };
            let u = random::one_uniform(run.seeds[row], Purpose::Accept as u32, test.number);
            let accepted = u < probability;
            let chain = &mut run.chains[row];
            chain.learn(plan, test.number, probability);
            chain.accepted += u64::from(accepted && test.number as usize >= plan.options().warmup);
            accepted
        })
        .collect()
}

impl Plan {
    /// Whether proposals are tested.
    pub(super) fn is_tested(&self) -> bool {
        self.options().solver.tests_proposals()
    }

    fn check_tested(&self) -> Result<()> {
        if self.is_tested() {
            return Ok(());
        }
        let expected = "one that tests proposals";
        Err(Error::argument("solver", self.options().solver.name(), expected))
    }
}

impl Run {
    /// Proposals that every chain has accepted since the [`warmup`](super::PlanOptions::warmup).
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Argument`] for a solver without a test;
    /// [`Error::Shape`] when `out` is not `[rows]`.
    pub fn accepted(&self, plan: &Plan, out: &mut [u64]) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_tested()?;
        if out.len() != self.rows() {
            return Err(Error::shape("accepted", &[out.len()], format!("[{}]", self.rows())));
        }
        out.iter_mut().zip(&self.chains).for_each(|(o, c)| *o = c.accepted);
        Ok(())
    }

    /// The step size of every chain: h of mala, the leapfrog step of hmc.
    ///
    /// # Errors
    /// As [`accepted`](Run::accepted).
    pub fn step_sizes(&self, plan: &Plan, out: &mut [f64]) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_tested()?;
        if out.len() != self.rows() {
            return Err(Error::shape("step_sizes", &[out.len()], format!("[{}]", self.rows())));
        }
        let mala = plan.options().solver == Solver::Mala;
        let size = |step: f64| if mala { 0.5 * step * step } else { step };
        out.iter_mut().zip(&self.chains).for_each(|(o, c)| *o = size(c.step));
        Ok(())
    }
}
