//! Rows of one batch at times of their own: plans compiled with `per_row`.

use super::plan::Plan;
use super::process::Node;
use super::run::Run;
use super::table::At;
use crate::error::{Error, Result};

/// Where one row stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    /// Table position of its next evaluation; the table's length when it is finished.
    pub position: usize,
    /// Takes a step in every round.
    pub selected: bool,
    /// Has evaluations of its step left in this round.
    pub moving: bool,
}

impl Place {
    pub(super) fn start(position: usize) -> Place {
        Place { position, selected: true, moving: true }
    }
}

impl Run {
    /// Says which rows take a step from now on, for plans with
    /// [`per_row`](super::PlanOptions::per_row); at first all do. The others stay where they are, at their own
    /// time ([`row_times`](Run::row_times)): Diffusion Forcing (Chen 2024), pyramids, rows that wait.
    /// A row's bits do not depend on when it moves. Called between steps, not inside one.
    ///
    /// ```
    /// use dgm_core::sampling::{Plan, PlanOptions, Run, drive};
    /// let plan = Plan::compile(&PlanOptions { steps: 3, per_row: true, ..Default::default() })?;
    /// let mut state = vec![0.0; plan.state_len(2, 1)?];
    /// let mut run = Run::start(&plan, &[1, 2], 1, None, &mut state)?;
    /// let mut step = |run: &mut Run, state: &mut [f32]| run.tell(&plan, state, run.counters().evals + 1, &[0.0; 2]);
    /// run.select(&plan, &[true, false])?; // row 0 goes ahead
    /// step(&mut run, &mut state)?;
    /// run.select(&plan, &[true, true])?;
    /// step(&mut run, &mut state)?;
    /// let mut steps = [0; 2];
    /// run.row_steps(&plan, &mut steps)?;
    /// assert_eq!(steps, [2, 1]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] for another plan, one without `per_row`, and inside a step; [`Error::Shape`] when
    /// `rows` is not one flag a row. The run is untouched on error.
    pub fn select(&mut self, plan: &Plan, rows: &[bool]) -> Result<()> {
        self.check_between(plan, rows)?;
        for (place, &selected) in self.places.iter_mut().zip(rows) {
            (place.selected, place.moving) = (selected, false);
        }
        self.settle(plan);
        Ok(())
    }

    /// Declares rows finished: their x stays as it is, their time is the last one. For parts that are
    /// known, which the model reads beside the rest.
    ///
    /// # Errors
    /// As [`select`](Run::select).
    pub fn finish_rows(&mut self, plan: &Plan, rows: &[bool]) -> Result<()> {
        self.check_between(plan, rows)?;
        let end = plan.table().rows.len();
        for (place, _) in self.places.iter_mut().zip(rows).filter(|(_, finish)| **finish) {
            (place.position, place.moving) = (end, false);
        }
        self.settle(plan);
        Ok(())
    }

    /// Steps that every row has finished; that of its plan when the row is done.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Argument`] for an adaptive solver; [`Error::Shape`] when
    /// `out` is not `[rows]`.
    pub fn row_steps(&self, plan: &Plan, out: &mut [usize]) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_fixed()?;
        self.check_rows("steps", out.len())?;
        for (row, steps) in out.iter_mut().enumerate() {
            let position = self.places.get(row).map_or(self.position, |p| p.position);
            *steps = plan.eval_at(position).map_or(plan.steps(), |e| e.step as usize);
        }
        Ok(())
    }

    /// Which rows of the output for the current request are used; the others may be told anything.
    ///
    /// # Errors
    /// [`Error::State`] under another plan; [`Error::Shape`] when `out` is not `[rows]`.
    pub fn row_active(&self, plan: &Plan, out: &mut [bool]) -> Result<()> {
        self.check_plan(plan)?;
        self.check_rows("active", out.len())?;
        let active = self.active(plan);
        if active.is_empty() {
            out.fill(!self.is_done(plan));
        } else {
            out.copy_from_slice(&active);
        }
        Ok(())
    }

    fn check_rows(&self, arg: &'static str, len: usize) -> Result<()> {
        if len == self.rows() {
            return Ok(());
        }
        Err(Error::shape(arg, &[len], format!("[{}]", self.rows())))
    }

    fn check_between(&self, plan: &Plan, rows: &[bool]) -> Result<()> {
        self.check_plan(plan)?;
        if !plan.options().per_row {
            return Err(Error::State("the plan was compiled without per_row".to_string()));
        }
        self.check_rows("rows", rows.len())?;
        match self.places.iter().position(|p| p.moving && !plan.starts_step(p.position)) {
            None => Ok(()),
            Some(row) => Err(Error::State(format!(
                "row {row} is inside a step: rows are selected when all have finished theirs"
            ))),
        }
    }

    /// The rows that the current request is for; empty when that is all of them.
    pub(super) fn active(&self, plan: &Plan) -> Vec<bool> {
        if self.places.is_empty() {
            return self.control.iter().map(|c| !c.done).collect();
        }
        let key = plan.key(self.position);
        self.places.iter().map(|p| p.moving && plan.key(p.position) == key).collect()
    }

    /// Begins the next round when one is over, and finds what to ask: of the rows that move, those first
    /// whose step is least far.
    pub(super) fn settle(&mut self, plan: &Plan) {
        let end = plan.table().rows.len();
        if !self.places.iter().any(|p| p.moving) {
            self.places.iter_mut().for_each(|p| p.moving = p.selected && p.position < end);
        }
        let next = self.places.iter().filter(|p| p.moving).min_by_key(|p| plan.key(p.position));
        // Nothing moves: all are done, or those that are not wait to be selected.
        let next = next.or_else(|| self.places.iter().find(|p| p.position < end));
        self.position = next.map_or(end, |p| p.position);
    }

    /// Refuses to go on when no selected row has steps left.
    pub(super) fn check_selection(&self, plan: &Plan) -> Result<()> {
        if self.places.is_empty() || self.is_done(plan) || self.places.iter().any(|p| p.moving) {
            return Ok(());
        }
        let waiting = self.places.iter().filter(|p| p.position < plan.table().rows.len()).count();
        Err(Error::State(format!(
            "no selected row has steps left, {waiting} others wait: select some of them"
        )))
    }

    /// The level at which a row stands, for the current request.
    pub(super) fn row_level(&self, plan: &Plan, row: usize) -> Node {
        let position = self.places.get(row).map_or(self.position, |p| p.position);
        match plan.eval_at(position).map(|e| e.at) {
            Some(At::Node(node)) => node,
            Some(At::Fraction(c)) => plan.asked_at(&self.control[row], c),
            None => plan.end(),
        }
    }
}

impl Plan {
    /// Where an evaluation stands in its step: stage, then role. Rows that share it are asked together.
    pub(super) fn key(&self, position: usize) -> (u16, u32) {
        self.eval_at(position).map_or((u16::MAX, u32::MAX), |e| (e.stage, e.role as u32))
    }

    /// Whether the evaluation at a position is the first of its step (so is the end).
    pub(super) fn starts_step(&self, position: usize) -> bool {
        let Some(eval) = self.eval_at(position) else { return true };
        let index = self.eval_rows().partition_point(|&row| row < position);
        let before = index.checked_sub(1).and_then(|i| self.eval_at(self.eval_rows()[i]));
        before.is_none_or(|before| before.step != eval.step)
    }

    /// Checks that rows at different steps can be asked together: at one place in a step all of them read
    /// one state tensor, and places rise within a step.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the solver.
    pub(super) fn check_per_row(&self) -> Result<()> {
        let refuse = |why: &str| {
            let got = self.options().solver.name();
            Err(Error::argument("solver", got, format!("with per_row a solver {why}")))
        };
        if self.is_adaptive() {
            return refuse("with fixed steps: this one moves every row at its own pace anyway");
        }
        if self.is_tested() {
            return refuse("without a test: every chain takes the same number of steps");
        }
        let mut slots = std::collections::BTreeMap::new();
        let mut last = None;
        for &position in self.eval_rows() {
            let (Some(eval), key) = (self.eval_at(position), self.key(position)) else { continue };
            if *slots.entry(key).or_insert(eval.slot) != eval.slot
                || last.is_some_and(|(step, before)| step == eval.step && before >= key)
            {
                return refuse("whose steps all read the same state tensors");
            }
            last = Some((eval.step, key));
        }
        Ok(())
    }
}
