//! Runs: the small changing part of sampling. A run is a value next to the caller's state.

use super::adaptive::Control;
use super::chain::Chain;
use super::plan::Plan;
use super::process::Node;
use super::rows::Place;
use super::table::{At, Eval, Role};
use crate::arch::FpEnv;
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
    /// Bit r: role r is among the outputs that may be told at once. They are those of this evaluation and of the ones
    /// that follow on the same input, in rising order of their roles; see [`together`](Request::together).
    pub roles: u32,
}

impl Request {
    /// The requests whose outputs [`Run::tell`] takes at once, this one first: two or three with guidance.
    pub fn together(self) -> impl Iterator<Item = Request> {
        let roles = [Role::Cond, Role::Uncond, Role::Weak].into_iter();
        let asked = roles.filter(move |&role| self.roles & role.bit() != 0);
        asked.zip(self.eval_id..).map(move |(role, eval_id)| Request {
            eval_id,
            role,
            // Those before it are told.
            roles: self.roles & !(role.bit() - 1),
            ..self
        })
    }
}

impl Run {
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
    // Into doors, whose structs the request then fills without a copy of it.
    #[inline(always)]
    pub fn ask(&self, plan: &Plan) -> Result<Ask> {
        self.check_plan(plan)?;
        let Some(eval) = plan.eval_at(self.position) else { return Ok(Ask::Done) };
        let (step, node, active_rows, uniform_t) = match eval.at {
            At::Node(node) if self.places.is_empty() && self.control.is_empty() => {
                (eval.step, node, self.rows(), true)
            }
            _ => self.ask_rows(plan, eval)?,
        };
        Ok(Ask::Eval(Request {
            eval_id: self.counters.evals + 1,
            step,
            stage: u32::from(eval.stage),
            role: eval.role,
            slot: usize::from(eval.slot),
            t: node.t,
            sigma: node.sigma,
            alpha: node.alpha,
            rows: self.rows(),
            elements: self.elements,
            active_rows,
            uniform_t,
            t_to: eval.to,
            roles: eval.roles,
        }))
    }

    /// Step, level, rows asked for and whether they share the level, of rows that each stand at one of their own.
    fn ask_rows(&self, plan: &Plan, eval: &Eval) -> Result<(u32, Node, usize, bool)> {
        // Of all that is asked these levels alone are computed.
        let _env = FpEnv::enter();
        let mut step = eval.step;
        if plan.is_adaptive() {
            self.check_progress(plan, u64::from(eval.roles.count_ones()))?;
            step = self.counters.rounds.min(u64::from(u32::MAX)) as u32;
        }
        self.check_selection(plan)?;
        let active = self.active(plan);
        let first = active.iter().position(|a| *a).unwrap_or(0);
        let node = self.row_level(plan, first);
        let uniform_t = (0..active.len()).all(|r| self.row_level(plan, r).t == node.t);
        let active_rows = self.rows() - active.iter().filter(|a| !**a).count();
        Ok((step, node, active_rows, uniform_t))
    }

    /// Refuses to go on without budget for the next `evals` evaluations, which may be told at once.
    fn check_progress(&self, plan: &Plan, evals: u64) -> Result<()> {
        if self.counters.evals + evals > plan.max_evals() as u64 {
            let (left, row) = (self.control.iter().filter(|c| !c.done).count(), self.first_active());
            return Err(Error::State(format!(
                "max_evals of {} is used up with {left} rows unfinished, row {row} at t = {}",
                plan.max_evals(),
                plan.node_at(self.control[row].t).t
            )));
        }
        match self.control.iter().position(|c| !c.done && c.is_stuck()) {
            None => Ok(()),
            Some(row) => Err(Error::State(format!(
                "the step size of row {row} fell to {:e} at t = {}: the model is not smooth there, or rtol and atol are too small",
                self.control[row].h,
                plan.node_at(self.control[row].t).t
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
        if self.places.is_empty() && self.control.is_empty() {
            out.fill(self.row_level(plan, 0).t as f32);
            return Ok(());
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

    #[inline]
    pub(super) fn check_plan(&self, plan: &Plan) -> Result<()> {
        if self.plan == plan.hash() { Ok(()) } else { Err(other_plan(self.plan, plan)) }
    }
}

/// What is said to a run of the plan with the hash `theirs`.
#[cold]
pub(super) fn other_plan(theirs: u64, plan: &Plan) -> Error {
    Error::State(format!("the run belongs to plan {theirs:016x}, not to plan {:016x}", plan.hash()))
}

pub(super) fn check_state(plan: &Plan, rows: usize, elements: usize, len: usize) -> Result<()> {
    let expected = plan.state_len(rows, elements)?;
    if len == expected {
        return Ok(());
    }
    let shape = format!("{} x {rows} x {elements} = {expected} elements", plan.slots());
    Err(Error::shape("state", &[len], shape))
}

/// Checks the length and every value of a tensor `[rows, elements]`.
pub(super) fn check_tensor(
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
