//! What a run is told: outputs are checked, then carry it to its next request.

use super::exec;
use super::lanes;
use super::options::NonFinite;
use super::plan::Plan;
use super::run::Run;
use super::table::{Eval, Role};
use crate::error::{Error, Result};

impl Run {
    /// Tells the model's output for the current request, `[rows, elements]`, and carries the run
    /// to its next request in one pass over the state.
    ///
    /// With guidance, outputs of the requests that follow on the same input ([`Request::together`](super::Request::together)) may be told with
    /// it, `[2, rows, elements]`: one pass instead of two, and the same bits. What guidance keeps in the state from one
    /// such request to the next is then not written.
    ///
    /// ```
    /// use dgm_core::sampling::{Ask, Plan, PlanOptions, Role, Run};
    /// let plan = Plan::compile(&PlanOptions { steps: 1, guidance: 3.0, ..Default::default() })?;
    /// let mut state = vec![0.0; plan.state_len(1, 1)?];
    /// let mut run = Run::start(&plan, &[7], 1, Some(&[1.0]), &mut state)?;
    /// let Ask::Eval(request) = run.ask(&plan)? else { unreachable!() };
    /// let roles: Vec<Role> = request.together().map(|r| r.role).collect();
    /// assert_eq!(roles, [Role::Cond, Role::Uncond]);
    /// run.tell(&plan, &mut state, request.eval_id, &[0.5, 0.25])?;
    /// // A flow from 1 to 0 with the velocity 3 * 0.5 - 2 * 0.25.
    /// assert_eq!(run.result(&plan, &state)?, [0.0]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] when the run is done, `eval_id` is not the current request's (stale or
    /// told twice), or the output of an unfinished row is not finite (unless
    /// [`non_finite`](super::PlanOptions::non_finite) says otherwise); [`Error::Shape`] when a length is wrong. Run and state are untouched on error.
    pub fn tell(&mut self, plan: &Plan, state: &mut [f32], eval_id: u64, y: &[f32]) -> Result<()> {
        self.tell_with(plan, state, eval_id, y, &[])
    }

    /// [`tell`](Run::tell) for plans that want numbers with every output, `[rows, numbers]`
    /// ([`Plan::numbers`]): the divergence of [`likelihood`](super::PlanOptions::likelihood), or the log density that
    /// mala and hmc test, where what is not finite is rejected.
    ///
    /// # Errors
    /// As [`tell`](Run::tell), for `numbers` too.
    pub fn tell_with(
        &mut self,
        plan: &Plan,
        state: &mut [f32],
        eval_id: u64,
        y: &[f32],
        numbers: &[f64],
    ) -> Result<()> {
        let active = self.check_output(plan, state.len(), eval_id, y, numbers)?;
        exec::advance(self, plan, state, y, numbers, &active);
        Ok(())
    }

    /// [`tell`](Run::tell) for a state that must stay as it is: the next one is written to `to`, of the same
    /// length, which is untouched on error.
    ///
    /// # Errors
    /// As [`tell`](Run::tell); [`Error::Shape`] when `to` has another length.
    pub fn tell_from(
        &mut self,
        plan: &Plan,
        state: &[f32],
        to: &mut [f32],
        eval_id: u64,
        y: &[f32],
    ) -> Result<()> {
        let active = self.check_output(plan, state.len(), eval_id, y, &[])?;
        if to.len() != state.len() {
            return Err(Error::shape("to", &[to.len()], format!("{} elements, as the state", state.len())));
        }
        exec::copy(state, to);
        exec::advance(self, plan, to, y, &[], &active);
        Ok(())
    }

    /// What must hold before anything changes; returns the rows that are used.
    fn check_output(
        &self,
        plan: &Plan,
        state_len: usize,
        eval_id: u64,
        y: &[f32],
        numbers: &[f64],
    ) -> Result<Vec<bool>> {
        self.check(plan, state_len)?;
        let most = self.awaited(plan, eval_id)?.roles.count_ones() as usize;
        let len = self.elements * plan.outputs();
        let outputs = y.len() / (self.rows() * len);
        if !y.len().is_multiple_of(self.rows() * len) || !(1..=most).contains(&outputs) {
            let several = match most {
                1 => String::new(),
                _ => format!(", or of up to {most} outputs one after the other"),
            };
            return Err(Error::shape("y", &[y.len()], format!("{} x {len} elements{several}", self.rows())));
        }
        // A proposal that ran away is rejected; where a chain starts there must be a gradient.
        let rejects = plan.is_tested() && self.counters.evals > 0;
        let active = self.active(plan);
        let unread = rejects || plan.options().non_finite == NonFinite::Propagate;
        let looked = if unread { 0 } else { outputs };
        for (index, y) in y.chunks_exact(self.rows() * len).take(looked).enumerate() {
            if let Some((row, element)) = lanes::first_non_finite(y, len, &active) {
                let position = plan.eval_after(self.position, index);
                return Err(self.not_finite(plan, position, row, element, y[row * len + element]));
            }
        }
        if numbers.len() != self.rows() * plan.numbers() {
            let expected = format!("{} x {} numbers", self.rows(), plan.numbers());
            return Err(Error::shape("numbers", &[numbers.len()], expected));
        }
        let used = |row: usize| active.get(row).copied().unwrap_or(true);
        if let Some(row) = (0..numbers.len()).find(|&row| used(row) && !numbers[row].is_finite() && !rejects)
        {
            let message =
                format!("the number told is {} in row {row}; expected finite numbers", numbers[row]);
            return Err(Error::State(message));
        }
        Ok(active)
    }

    /// The error for a number of the output of the evaluation at `position`.
    fn not_finite(&self, plan: &Plan, position: usize, row: usize, element: usize, value: f32) -> Error {
        let at = self.places.get(row).map_or(position, |p| p.position);
        let (step, stage, role) = match plan.eval_at(at) {
            Some(e) => (u64::from(e.step), e.stage, e.role),
            None => (0, 0, Role::Cond),
        };
        let step = if plan.is_adaptive() { self.counters.rounds } else { step };
        let which = match role {
            Role::Cond => "",
            Role::Uncond => "unconditional ",
            Role::Weak => "weaker ",
        };
        Error::State(format!(
            "the {which}model output is {value} in row {row} at element {element}, step {step} stage {stage}; expected finite numbers"
        ))
    }

    /// The evaluation that the run waits for, which must be `eval_id`.
    fn awaited<'a>(&self, plan: &'a Plan, eval_id: u64) -> Result<&'a Eval> {
        let Some(eval) = plan.eval_at(self.position) else {
            return Err(Error::State(format!("evaluation {eval_id} was told to a run that is done")));
        };
        self.check_selection(plan)?;
        let wanted = self.counters.evals + 1;
        if eval_id != wanted {
            let why = if eval_id != 0 && eval_id < wanted { "was told already" } else { "was not asked for" };
            return Err(Error::State(format!("evaluation {eval_id} {why}, the run waits for {wanted}")));
        }
        Ok(eval)
    }

    /// Says that the caller has applied [`Plan::operations`] of `eval_id` to tensors of its own, and
    /// carries the run to its next request.
    ///
    /// # Errors
    /// As [`tell`](Run::tell), for `eval_id`; [`Error::Argument`] as of [`Plan::operations`].
    pub fn advance(&mut self, plan: &Plan, eval_id: u64) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_listed()?;
        self.awaited(plan, eval_id)?;
        let next = plan.eval_rows().partition_point(|&row| row <= self.position);
        self.position = plan.eval_rows().get(next).copied().unwrap_or(plan.table().rows.len());
        self.counters.evals += 1;
        Ok(())
    }
}
