//! Runs: the small changing part of sampling. A run is a value next to the caller's state.

use super::adaptive::Control;
use super::chain::Chain;
use super::exec;
use super::lanes;
use super::options::{NonFinite, Process};
use super::plan::Plan;
use super::rows::Place;
use super::table::{Eval, Role};
use crate::error::{Error, Result};

/// A run of a plan over `rows` independent samples of `elements` numbers each.
///
/// The run holds counters, seeds and step sizes; the numbers live in the caller's `state`,
/// `[slots, rows, elements]` f32, of which the first `[rows, elements]` are x. Cloning a run
/// together with its state forks it.
///
/// ```
/// use dgm_core::sampling::{Ask, Plan, PlanOptions, Run};
/// let plan = Plan::compile(&PlanOptions { steps: 4, ..Default::default() })?;
/// let (seeds, elements) = ([1, 2], 3);
/// let mut state = vec![0.0; plan.state_len(seeds.len(), elements)?];
/// let start = [1.0; 6];
/// let mut run = Run::start(&plan, &seeds, elements, Some(&start), &mut state)?;
/// while let Ask::Eval(request) = run.ask(&plan)? {
///     let y: Vec<f32> = run.input(&plan, &state)?.iter().map(|x| x / request.t as f32).collect(); // the model
///     run.tell(&plan, &mut state, request.eval_id, &y)?;
/// }
/// // A velocity of x/t shrinks x to nothing at t = 0.
/// assert!(run.result(&plan, &state)?.iter().all(|x| x.abs() < 1e-6));
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub(super) plan: u64,
    pub(super) elements: usize,
    /// Position of the evaluation waited for; the table's length when done.
    pub(super) position: usize,
    pub(super) counters: Counters,
    /// One seed a row.
    pub(super) seeds: Vec<u64>,
    /// One controller a row for adaptive plans, else empty.
    pub(super) control: Vec<Control>,
    /// Where each row stands, for plans with `per_row`, else empty.
    pub(super) places: Vec<Place>,
    /// Beside every state tensor of every row, for plans with likelihood, else empty.
    pub(super) numbers: Vec<f64>,
    /// For Markov chains with a test, else empty.
    pub(super) chains: Vec<Chain>,
}

/// How much work a run has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Model evaluations told.
    pub evals: u64,
    /// Steps tried by an adaptive solver, all rows together counting once.
    pub rounds: u64,
    /// Row steps accepted by an adaptive solver.
    pub accepts: u64,
    /// Row steps rejected by an adaptive solver.
    pub rejects: u64,
}

/// What a run wants next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ask {
    /// Nothing: the result is ready.
    Done,
    /// A model evaluation.
    Eval(Request),
}

/// A model evaluation: apply the model to [`Run::input`] at [`Run::row_times`] and tell it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Request {
    /// Names this evaluation; [`Run::tell`] wants it back. Counts from 1.
    pub eval_id: u64,
    /// Step, from 0 (of that row).
    pub step: u32,
    /// Evaluation inside the step, from 0; conditional and unconditional share it.
    pub stage: u32,
    /// Which output: conditional, unconditional, or that of the weaker model.
    pub role: Role,
    /// The state tensor to read.
    pub slot: usize,
    /// Model time (of the first row that is asked for when `uniform_t` is false).
    pub t: f64,
    /// Weight of the noise at `t`.
    pub sigma: f64,
    /// Weight of the data at `t`.
    pub alpha: f64,
    /// Rows of the batch.
    pub rows: usize,
    /// Numbers in a row.
    pub elements: usize,
    /// Rows whose output is used; the others ([`Run::row_active`]) may be told anything.
    pub active_rows: usize,
    /// Whether all rows share `t`.
    pub uniform_t: bool,
    /// Model time at which the step ends: where a flow map must land. Of an adaptive plan the end of the walk.
    pub t_to: f64,
}

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

    /// Says what is known, for plans with [`inpaint`](super::PlanOptions::inpaint): after every
    /// step x becomes `x + mask (known - x)`, `known` noised to the level the step ends at. Both are
    /// `[rows, elements]`, the mask 1 where the known part stays, 0 where x does.
    ///
    /// # Errors
    /// [`Error::State`] when the plan does not inpaint or the run is another plan's;
    /// [`Error::Shape`] for wrong lengths, [`Error::Range`] for values that are not finite or a mask
    /// outside 0 to 1. `state` is untouched on error.
    pub fn set_known(&self, plan: &Plan, state: &mut [f32], known: &[f32], mask: &[f32]) -> Result<()> {
        self.check(plan, state.len())?;
        if !plan.options().inpaint {
            return Err(Error::State("the plan was compiled without inpaint".to_string()));
        }
        let (rows, elements) = (self.rows(), self.elements);
        check_tensor("known", known, rows, elements, |v| v.is_finite(), "finite numbers")?;
        check_tensor("mask", mask, rows, elements, |v| (0.0..=1.0).contains(&v), "numbers from 0 to 1")?;
        let len = rows * elements;
        state[len..2 * len].copy_from_slice(known);
        state[2 * len..3 * len].copy_from_slice(mask);
        Ok(())
    }

    /// Rows of the batch.
    pub fn rows(&self) -> usize {
        self.seeds.len()
    }

    /// Numbers in a row.
    pub fn elements(&self) -> usize {
        self.elements
    }

    /// The seeds the run was started with.
    pub fn seeds(&self) -> &[u64] {
        &self.seeds
    }

    /// Work done so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Whether the result is ready.
    pub fn is_done(&self, plan: &Plan) -> bool {
        self.position >= plan.table().rows.len()
    }

    /// What the run wants next. Asking again gives the same answer.
    ///
    /// # Errors
    /// [`Error::State`] when the run belongs to another plan, when an adaptive run has used
    /// up its evaluations or its step size has fallen to nothing, or when no row that
    /// [`select`](Run::select) chose has steps left.
    pub fn ask(&self, plan: &Plan) -> Result<Ask> {
        self.check_plan(plan)?;
        let Some(eval) = plan.eval_at(self.position) else { return Ok(Ask::Done) };
        if plan.is_adaptive() {
            self.check_progress(plan)?;
        }
        self.check_selection(plan)?;
        let active = self.active(plan);
        let first = active.iter().position(|a| *a).unwrap_or(0);
        let node = self.row_level(plan, first);
        let uniform_t = (0..active.len()).all(|r| self.row_level(plan, r).t == node.t);
        Ok(Ask::Eval(Request {
            eval_id: self.counters.evals + 1,
            step: if plan.is_adaptive() {
                self.counters.rounds.min(u64::from(u32::MAX)) as u32
            } else {
                eval.step
            },
            stage: u32::from(eval.stage),
            role: eval.role,
            slot: usize::from(eval.slot),
            t: node.t,
            sigma: node.sigma,
            alpha: node.alpha,
            rows: self.rows(),
            elements: self.elements,
            active_rows: self.rows() - active.iter().filter(|a| !**a).count(),
            uniform_t,
            t_to: eval.to,
        }))
    }

    fn check_progress(&self, plan: &Plan) -> Result<()> {
        if self.counters.evals >= plan.max_evals() as u64 {
            let (left, row) = (self.control.iter().filter(|c| !c.done).count(), self.first_active());
            return Err(Error::State(format!(
                "max_evals of {} is used up with {left} rows unfinished, row {row} at t = {}",
                plan.max_evals(),
                self.control[row].t
            )));
        }
        match self.control.iter().position(|c| !c.done && c.is_stuck()) {
            None => Ok(()),
            Some(row) => Err(Error::State(format!(
                "the step size of row {row} fell to {:e} at t = {}: the model is not smooth there, or rtol and atol are too small",
                self.control[row].h, self.control[row].t
            ))),
        }
    }

    fn first_active(&self) -> usize {
        self.control.iter().position(|c| !c.done).unwrap_or(0)
    }

    /// The model time of every row for the current request, rounded to f32. Rows that wait get the
    /// time at which they stand, finished rows the end time.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Shape`] when `out` is not `[rows]`.
    pub fn row_times(&self, plan: &Plan, out: &mut [f32]) -> Result<()> {
        self.check_plan(plan)?;
        if out.len() != self.rows() {
            return Err(Error::shape("t", &[out.len()], format!("[{}]", self.rows())));
        }
        for (row, t) in out.iter_mut().enumerate() {
            *t = self.row_level(plan, row).t as f32;
        }
        Ok(())
    }

    /// What the model must read, `[rows, elements]`; x itself when the run is done.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Shape`] when `state` has the wrong length.
    pub fn input<'a>(&self, plan: &Plan, state: &'a [f32]) -> Result<&'a [f32]> {
        self.check(plan, state.len())?;
        let slot = plan.eval_at(self.position).map_or(0, |e| usize::from(e.slot));
        let len = self.rows() * self.elements;
        Ok(&state[slot * len..(slot + 1) * len])
    }

    /// Tells the model's output for the current request, `[rows, elements]`, and carries the run
    /// to its next request in one pass over the state.
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
        let eval = self.awaited(plan, eval_id)?;
        let len = self.elements * plan.outputs();
        if y.len() != self.rows() * len {
            let expected = format!("{} x {len} elements", self.rows());
            return Err(Error::shape("y", &[y.len()], expected));
        }
        // A proposal that ran away is rejected; where a chain starts there must be a gradient.
        let rejects = plan.is_tested() && self.counters.evals > 0;
        let active = self.active(plan);
        let unread = rejects || plan.options().non_finite == NonFinite::Propagate;
        let bad = if unread { None } else { lanes::first_non_finite(y, len, &active) };
        if let Some((row, element)) = bad {
            let value = y[row * len + element];
            let own = self.places.get(row).and_then(|p| plan.eval_at(p.position)).unwrap_or(eval);
            let step = if plan.is_adaptive() { self.counters.rounds } else { u64::from(own.step) };
            return Err(Error::State(format!(
                "the model output is {value} in row {row} at element {element}, step {step} stage {}; expected finite numbers",
                eval.stage
            )));
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

    /// x, `[rows, elements]`: the result when the run is done, the current state before.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Shape`] when `state` has the wrong length.
    pub fn result<'a>(&self, plan: &Plan, state: &'a [f32]) -> Result<&'a [f32]> {
        self.check(plan, state.len())?;
        Ok(&state[..self.rows() * self.elements])
    }

    pub(super) fn check(&self, plan: &Plan, state_len: usize) -> Result<()> {
        self.check_plan(plan)?;
        check_state(plan, self.rows(), self.elements, state_len)
    }

    pub(super) fn check_plan(&self, plan: &Plan) -> Result<()> {
        if self.plan == plan.hash() {
            return Ok(());
        }
        let message = format!("the run belongs to plan {:016x}, not to plan {:016x}", self.plan, plan.hash());
        Err(Error::State(message))
    }
}

fn check_state(plan: &Plan, rows: usize, elements: usize, len: usize) -> Result<()> {
    let expected = plan.state_len(rows, elements)?;
    if len == expected {
        return Ok(());
    }
    let shape = format!("{} x {rows} x {elements} = {expected} elements", plan.slots());
    Err(Error::shape("state", &[len], shape))
}

/// Checks the length and every value of a tensor `[rows, elements]`.
fn check_tensor(
    arg: &'static str,
    values: &[f32],
    rows: usize,
    elements: usize,
    fits: impl Fn(f32) -> bool,
    expected: &str,
) -> Result<()> {
    if values.len() != rows * elements {
        return Err(Error::shape(arg, &[values.len()], format!("{rows} x {elements} elements")));
    }
    match values.iter().position(|v| !fits(*v)) {
        None => Ok(()),
        Some(i) => {
            let got = format!("{} in row {} at element {}", values[i], i / elements, i % elements);
            Err(Error::range(arg, got, expected))
        }
    }
}
