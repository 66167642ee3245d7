//! Where runs begin: from noise, from data, or with tensors of the caller.

use super::adaptive::Control;
use super::chain::Chain;
use super::exec;
use super::options::Process;
use super::plan::Plan;
use super::rows::Place;
use super::run::{Counters, Run, check_state, check_tensor};
use crate::error::{Error, Result};

impl Run {
    /// Starts a run and fills `state`.
    ///
    /// `seeds` has one seed a row; every random number of a row is a function of its seed alone.
    /// `x_start`, `[rows, elements]`, is taken as it is; `None` draws normal noise times the
    /// plan's start sigma.
    ///
    /// # Errors
    /// [`Error::Shape`] when a length does not fit, [`Error::Range`] for non-finite start
    /// values, and those of [`Plan::state_len`]. `state` is untouched on error.
    pub fn start(
        plan: &Plan,
        seeds: &[u64],
        elements: usize,
        x_start: Option<&[f32]>,
        state: &mut [f32],
    ) -> Result<Run> {
        let rows = seeds.len();
        check_state(plan, rows, elements, state.len())?;
        let x = &mut state[..rows * elements];
        match x_start {
            Some(start) => {
                check_tensor("x_start", start, rows, elements, |v| v.is_finite(), "finite numbers")?;
                x.copy_from_slice(start);
            }
            None => exec::initial_noise(seeds, elements, plan.start().sigma, x)?,
        }
        Ok(Run::fresh(plan, seeds, elements, state))
    }

    /// A run over a state whose x is filled.
    fn fresh(plan: &Plan, seeds: &[u64], elements: usize, state: &mut [f32]) -> Run {
        let rows = seeds.len();
        // Fresh state has one value, so that equal runs export equal bytes.
        state[rows * elements..].fill(0.0);
        let control = if plan.is_adaptive() { vec![Control::new(plan); rows] } else { Vec::new() };
        let mut run = Run {
            plan: plan.hash(),
            elements,
            position: 0,
            counters: Counters::default(),
            seeds: seeds.to_vec(),
            control,
            places: Vec::new(),
            numbers: vec![0.0; rows * plan.kept()],
            chains: if plan.is_tested() { vec![Chain::new(plan); rows] } else { Vec::new() },
        };
        run.save_start(plan, state);
        exec::begin(&mut run, plan, state);
        if plan.options().per_row {
            run.places = vec![Place::start(run.position); rows];
        }
        run
    }

    /// Starts a run from data, `[rows, elements]`, noised to the plan's first level:
    /// `alpha x0 + sigma z` with the same z as a start from noise (image to image; see
    /// [`PlanOptions::start_step`](super::PlanOptions::start_step)).
    ///
    /// # Errors
    /// As [`start`](Run::start), for `data`.
    pub fn start_from(
        plan: &Plan,
        seeds: &[u64],
        elements: usize,
        data: &[f32],
        state: &mut [f32],
    ) -> Result<Run> {
        let rows = seeds.len();
        check_state(plan, rows, elements, state.len())?;
        if matches!(plan.options().process, Process::Ode | Process::Sde | Process::Target) {
            let expected = "x_start for the processes ode, sde and target, which mix no noise into data";
            return Err(Error::argument("data", "set", expected));
        }
        check_tensor("data", data, rows, elements, |v| v.is_finite(), "finite numbers")?;
        exec::initial_noise(seeds, elements, plan.start().sigma, &mut state[..rows * elements])?;
        let alpha = plan.start().alpha as f32;
        for (x, d) in state.iter_mut().zip(data) {
            *x = d.mul_add(alpha, *x);
        }
        Ok(Run::fresh(plan, seeds, elements, state))
    }

    /// Starts a run whose tensors stay with the caller, on any device (coefficients mode). The caller
    /// keeps [`Plan::slots`] tensors `[rows, elements]`, the first one [`normal`](crate::random::normal)
    /// of the seeds, purpose [`Initial`](crate::random::Purpose::Initial), draw 0, times the sigma of
    /// [`Plan::start`], the rest 0; applies [`Plan::operations`] of 0, then, after every evaluation,
    /// those of its id; and says so with [`advance`](Run::advance).
    ///
    /// Such a run differs in nothing from one that was told: with the tensors beside it,
    /// [`tell`](Run::tell) and [`export`](Run::export) go on.
    ///
    /// ```
    /// use dgm_core::sampling::{Ask, Operation, Plan, PlanOptions, Run, Source};
    /// let plan = Plan::compile(&PlanOptions { steps: 4, ..Default::default() })?;
    /// let mut run = Run::start_detached(&plan, &[1], 1)?;
    /// assert!(plan.operations(0)?.is_empty());
    /// let mut x = 1.0; // the tensor
    /// while let Ask::Eval(request) = run.ask(&plan)? {
    ///     let y = x / request.t; // the model
    ///     for operation in plan.operations(request.eval_id)? {
    ///         let Operation::Combine { terms, .. } = operation else { panic!("not in a plan of Euler") };
    ///         let value = |s| if s == Source::Output { y } else { x };
    ///         x = terms.iter().fold(0.0, |sum, t| sum + t.coefficient * value(t.source));
    ///     }
    ///     run.advance(&plan, request.eval_id)?;
    /// }
    /// assert!(x.abs() < 1e-9);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Plan::state_len`], and [`Error::Argument`] as of [`Plan::operations`].
    pub fn start_detached(plan: &Plan, seeds: &[u64], elements: usize) -> Result<Run> {
        plan.check_listed()?;
        plan.state_len(seeds.len(), elements)?;
        let position = plan.eval_rows().first().copied().unwrap_or(plan.table().rows.len());
        Ok(Run {
            plan: plan.hash(),
            elements,
            position,
            counters: Counters::default(),
            seeds: seeds.to_vec(),
            control: Vec::new(),
            places: Vec::new(),
            numbers: Vec::new(),
            chains: Vec::new(),
        })
    }
}
