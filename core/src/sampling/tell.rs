//! What a run is told: outputs are checked, then carry it to its next request.

use super::exec;
use super::lanes;
use super::options::NonFinite;
use super::plan::Plan;
use super::run::Run;
use super::table::{Eval, Role};
use super::way::Way;
use crate::error::{Error, Result};

/// What is known of a call before its numbers are read.
struct ToldRows {
    /// The rows that are used; all where it is empty.
    active: Vec<bool>,
    /// Outputs in which a number that is not finite is an error.
    looks: usize,
    /// Whether what is not finite is rejected by a test.
    rejects: bool,
}

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
        let told = self.check_told(plan, state.len(), eval_id, y)?;
        self.tell_here(plan, state, y, numbers, &told)
    }

    /// [`tell`](Run::tell) for a state that must stay as it is: the next one is written to `to`, of the same length, whose
    /// numbers do not matter. The same bits, and faster where tensors are large: the outputs are read once, and looked at
    /// while they are computed with. In what guidance keeps in the state from one request to the next `to` stays as it is
    /// where [`tell`](Run::tell) does not write it either, when outputs are told together: memory that begins as zeros
    /// makes exports equal.
    ///
    /// ```
    /// use dgm_core::sampling::{Plan, PlanOptions, Run};
    /// let plan = Plan::compile(&PlanOptions { steps: 1, ..Default::default() })?;
    /// let state = [1.0];
    /// let mut to = [0.0];
    /// let mut run = Run::start(&plan, &[7], 1, Some(&[1.0]), &mut state.clone())?;
    /// assert!(run.tell_from(&plan, &state, &mut to, 1, &[f32::NAN]).is_err());
    /// run.tell_from(&plan, &state, &mut to, 1, &[0.25])?;
    /// assert_eq!((state, to), ([1.0], [0.75]));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`tell`](Run::tell); [`Error::Shape`] when `to` has another length. Run and state are untouched on error; `to`
    /// then holds nothing of use.
    pub fn tell_from(
        &mut self,
        plan: &Plan,
        state: &[f32],
        to: &mut [f32],
        eval_id: u64,
        y: &[f32],
    ) -> Result<()> {
        let told = self.check_told(plan, state.len(), eval_id, y)?;
        self.tell_apart(plan, state, ("to", to), y, &[], &told, false)
    }

    /// [`tell_from`](Run::tell_from) for plans that want numbers with every output, as [`tell_with`](Run::tell_with), and
    /// for memory that may hold anything: what [`tell_from`](Run::tell_from) leaves as it is becomes 0 (or what `state`
    /// holds), so that equal calls give equal numbers everywhere.
    ///
    /// # Errors
    /// As [`tell_from`](Run::tell_from), for `numbers` too.
    pub fn tell_afresh(
        &mut self,
        plan: &Plan,
        state: &[f32],
        to: &mut [f32],
        eval_id: u64,
        y: &[f32],
        numbers: &[f64],
    ) -> Result<()> {
        let told = self.check_told(plan, state.len(), eval_id, y)?;
        self.tell_apart(plan, state, ("to", to), y, numbers, &told, true)
    }

    /// [`tell_with`](Run::tell_with) for a caller who has memory for two states: the next one is written to `other` where
    /// that costs less than writing it over `state`. Returns whether it was; then they have changed their parts.
    ///
    /// It does where outputs are looked at ([`non_finite`](super::PlanOptions::non_finite)) and every state tensor is
    /// written anew: in place an output must be read twice, because an error may not change the state.
    ///
    /// # Errors
    /// As [`tell_with`](Run::tell_with); [`Error::Shape`] when `other` has another length than `state`. Run and state are
    /// untouched on error; `other` then holds nothing of use.
    pub fn tell_swap(
        &mut self,
        plan: &Plan,
        state: &mut [f32],
        other: &mut [f32],
        eval_id: u64,
        y: &[f32],
        numbers: &[f64],
    ) -> Result<bool> {
        let told = self.check_told(plan, state.len(), eval_id, y)?;
        if self.gains(plan, y.len()) || other.len() != state.len() {
            self.tell_apart(plan, state, ("other", other), y, numbers, &told, false)?;
            return Ok(true);
        }
        self.tell_here(plan, state, y, numbers, &told)?;
        Ok(false)
    }

    /// Whether a tell of `len` numbers costs less from one state to another ([`tell_swap`](Run::tell_swap)).
    pub(super) fn gains(&self, plan: &Plan, len: usize) -> bool {
        let apart = |way: Way| way.goes_apart(plan) && way.sees_all(plan) && way.writes_all(plan);
        !self.reads_unseen(plan) && Way::of(self, plan, len).is_some_and(apart)
    }

    /// Whether outputs are computed with whatever they hold. A proposal that ran away is rejected; where a chain starts
    /// there must be a gradient.
    fn reads_unseen(&self, plan: &Plan) -> bool {
        self.rejects(plan) || plan.options().non_finite == NonFinite::Propagate
    }

    fn rejects(&self, plan: &Plan) -> bool {
        plan.is_tested() && self.counters.evals > 0
    }

    fn tell_here(
        &mut self,
        plan: &Plan,
        state: &mut [f32],
        y: &[f32],
        numbers: &[f64],
        told: &ToldRows,
    ) -> Result<()> {
        self.search(plan, y, told)?;
        self.check_numbers(plan, numbers, told)?;
        exec::advance(self, plan, state, y, numbers, &told.active);
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn tell_apart(
        &mut self,
        plan: &Plan,
        state: &[f32],
        (arg, to): (&'static str, &mut [f32]),
        y: &[f32],
        numbers: &[f64],
        told: &ToldRows,
        blank: bool,
    ) -> Result<()> {
        let others = self.check_numbers(plan, numbers, told).and_then(|()| match to.len() == state.len() {
            true => Ok(()),
            false => Err(Error::shape(arg, &[to.len()], format!("{} elements, as the state", state.len()))),
        });
        let way = Way::of(self, plan, y.len()).filter(|way| way.goes_apart(plan));
        let looks = told.looks > 0 && others.is_ok() && way.as_ref().is_some_and(|way| way.sees_all(plan));
        if !looks {
            self.search(plan, y, told)?;
        }
        others?;
        let Some(way) = way else {
            exec::copy(state, to);
            exec::advance(self, plan, to, y, numbers, &told.active);
            return Ok(());
        };
        if way.walk_apart(self, plan, state, to, y, &told.active, looks, blank) {
            // An output, or a state that ran away before.
            self.search(plan, y, told)?;
        }
        way.arrive(self, plan, numbers, &told.active);
        Ok(())
    }

    /// What must hold of everything but the values before anything changes.
    fn check_told(&self, plan: &Plan, state_len: usize, eval_id: u64, y: &[f32]) -> Result<ToldRows> {
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
        let looks = if self.reads_unseen(plan) { 0 } else { outputs };
        Ok(ToldRows { active: self.active(plan), looks, rejects: self.rejects(plan) })
    }

    /// The first number that is not finite in outputs that are looked at, as an error.
    fn search(&self, plan: &Plan, y: &[f32], told: &ToldRows) -> Result<()> {
        let len = self.elements * plan.outputs();
        for (index, y) in y.chunks_exact(self.rows() * len).take(told.looks).enumerate() {
            if let Some((row, element)) = lanes::first_non_finite(y, len, &told.active) {
                let position = plan.eval_after(self.position, index);
                return Err(self.not_finite(plan, position, row, element, y[row * len + element]));
            }
        }
        Ok(())
    }

    fn check_numbers(&self, plan: &Plan, numbers: &[f64], told: &ToldRows) -> Result<()> {
        if numbers.len() != self.rows() * plan.numbers() {
            let expected = format!("{} x {} numbers", self.rows(), plan.numbers());
            return Err(Error::shape("numbers", &[numbers.len()], expected));
        }
        let used = |row: usize| told.active.get(row).copied().unwrap_or(true);
        let unfit = |row: &usize| used(*row) && !numbers[*row].is_finite() && !told.rejects;
        match (0..numbers.len()).find(unfit) {
            None => Ok(()),
            Some(row) => {
                let got = numbers[row];
                Err(Error::State(format!("the number told is {got} in row {row}; expected finite numbers")))
            }
        }
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
        // A few rows further: a step has no more.
        let end = plan.table().rows.len();
        self.position = (self.position + 1..end).find(|&at| plan.eval_at(at).is_some()).unwrap_or(end);
        self.counters.evals += 1;
        Ok(())
    }
}
