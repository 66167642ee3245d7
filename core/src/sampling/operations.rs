//! Coefficients mode: what a plan does between two evaluations, as data, for callers whose tensors
//! the engine cannot touch.

use super::options::Process;
use super::plan::Plan;
use super::table::{At, Draw, Measure, Operand, REGISTERS, Row, Scale, Term};
use crate::error::{Error, Result};
use crate::random::Purpose;

/// Where a term is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A state tensor, `[rows, elements]`; 0 is x.
    State(usize),
    /// A scratch tensor of the same shape. Written before it is read, in every list anew.
    Register(usize),
    /// The model's output for the evaluation.
    Output,
    /// [`normal`](crate::random::normal) of the seeds of the rows.
    Noise {
        /// The stream.
        purpose: Purpose,
        /// Its draw.
        draw: u32,
    },
}

/// Where the result of an operation goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A state tensor.
    State(usize),
    /// A scratch tensor.
    Register(usize),
}

/// `coefficient * source`, times a measured number of the row where there is one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OperationTerm {
    /// What is read.
    pub source: Source,
    /// Its weight; rounded to f32 once it gives the bits of [`Run::tell`](super::Run::tell).
    pub coefficient: f64,
    /// Which number of the [`Operation::Measure`] before multiplies the weight (in f64, before it is rounded).
    pub measured: Option<usize>,
}

/// One operation on whole tensors `[rows, elements]`, as [`Plan::operations`] lists them.
#[derive(Debug, Clone, PartialEq)]
pub enum Operation {
    /// `target = sum of the terms`, one fma a term from +0 in their order. With `clip` then limited to
    /// `[-clip, clip]`; with `mask` (a state tensor m) then `m * sum + (1 - m) * target`.
    Combine {
        /// Where the sum goes.
        target: Target,
        /// Its terms; none make 0.
        terms: Vec<OperationTerm>,
        /// Bound of every element.
        clip: Option<f32>,
        /// State tensor of the mask.
        mask: Option<usize>,
    },
    /// Measures two numbers of every row, which the terms that follow may name.
    Measure {
        /// Which numbers.
        what: Measure,
        /// The first tensor.
        a: Source,
        /// The second tensor.
        b: Source,
    },
    /// In every row of a state tensor: b = the quantile `ratio` of the magnitudes (linear between order
    /// statistics), at least 1, at most `most`; then every element is limited to `[-b, b]` and divided by b.
    Threshold {
        /// The state tensor.
        state: usize,
        /// Which quantile.
        ratio: f64,
        /// Largest bound.
        most: f64,
    },
    /// `x += exp(base + slope * w) * noise`, w being the second half of the model's output.
    LearnedNoise {
        /// Logarithm of the deviation in the middle of the range.
        base: f64,
        /// Half the range.
        slope: f64,
        /// The noise.
        noise: Source,
    },
}

impl Plan {
    /// Scratch tensors that [`operations`](Plan::operations) may name.
    pub const REGISTERS: usize = REGISTERS + 1;

    /// What follows evaluation `eval_id` (as [`Request::eval_id`](super::Request) counts, from 1), up to
    /// the next one: what [`Run::tell`](super::Run::tell) does with the output. 0 is what comes before
    /// the first evaluation. The scalars and the keys of the noise, in order, so that the tensors may
    /// stay on another device; [`Run::start_detached`](super::Run::start_detached) is the run beside it.
    ///
    /// The lists depend on nothing but the plan. That is why an adaptive solver has none: whether a
    /// trial step counts, and how long the next one is, follows from an error that is summed over the
    /// elements of the row, so scalars differ from row to row and none is known before the tensors are
    /// read; on a device that would be a transfer and a wait in every trial.
    ///
    /// ```
    /// use dgm_core::sampling::{Operation, Plan, PlanOptions, Source};
    /// let plan = Plan::compile(&PlanOptions { steps: 4, ..Default::default() })?;
    /// let [Operation::Combine { terms, .. }] = &plan.operations(1)?[..] else { panic!() };
    /// // One Euler step: x = x - y / 4.
    /// assert_eq!((terms[0].source, terms[0].coefficient), (Source::State(0), 1.0));
    /// assert_eq!((terms[1].source, terms[1].coefficient), (Source::Output, -0.25));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for an adaptive solver (see above), and for
    /// [`per_row`](super::PlanOptions::per_row), where they depend on the row;
    /// [`Error::Range`] when the plan has no such evaluation.
    pub fn operations(&self, eval_id: u64) -> Result<Vec<Operation>> {
        self.check_listed()?;
        let told = usize::try_from(eval_id).unwrap_or(usize::MAX);
        let evals = self.eval_rows();
        let position = match told {
            0 => evals.first(),
            n => evals.get(n - 1),
        };
        let Some(&position) = position else {
            return Err(Error::range("eval_id", eval_id, format!("0 to {}", evals.len())));
        };
        // A step's own noise is numbered like the evaluation before it.
        let step = self.eval_at(position).map_or(0, |e| e.step);
        let from = if told == 0 { 0 } else { position + 1 };
        let rows = &self.table().rows[from..];
        let mut list = Vec::new();
        for row in rows.iter().take_while(|row| !matches!(row, Row::Eval(_))) {
            self.list(row, step, &mut list);
        }
        Ok(list)
    }

    /// Appends a row of the table.
    fn list(&self, row: &Row, step: u32, list: &mut Vec<Operation>) {
        match *row {
            Row::Lin(lin) => {
                let terms: Vec<OperationTerm> =
                    self.table().terms(&lin).iter().map(|t| self.term(t, step, list)).collect();
                let clip = lin.clamp.is_finite().then_some(lin.clamp);
                let target = match lin.dst {
                    Operand::Slot(i) => Target::State(usize::from(i)),
                    Operand::Reg(i) => Target::Register(usize::from(i)),
                    other => unreachable!("{other:?} is written"),
                };
                list.push(Operation::Combine { target, terms, clip, mask: lin.mask.map(usize::from) });
            }
            Row::Measure { what, a, b } => {
                let [a, b] = [a, b].map(|operand| self.source(operand, step, list));
                list.push(Operation::Measure { what, a, b });
            }
            Row::Threshold { slot, ratio, most } => {
                list.push(Operation::Threshold { state: usize::from(slot), ratio, most });
            }
            Row::LearnedNoise { base, slope } => {
                let noise = self.source(Operand::Noise, step, list);
                list.push(Operation::LearnedNoise { base, slope, noise });
            }
            Row::Eval(_)
            | Row::Noisy(_)
            | Row::Metropolis { .. }
            | Row::Accept { .. }
            | Row::IfAccepted
            | Row::Merge
            | Row::Retry(_)
            | Row::AtStop(_)
            | Row::Jump(_)
            | Row::FirstStep { .. } => {
                unreachable!("{row:?} in a plan of fixed steps")
            }
        }
    }

    fn term(&self, term: &Term, step: u32, list: &mut Vec<Operation>) -> OperationTerm {
        let measured = match term.scale {
            Scale::Row(i) => Some(usize::from(i)),
            _ => None,
        };
        OperationTerm {
            source: self.source(term.operand, step, list),
            coefficient: term.coefficient,
            measured,
        }
    }

    /// Where an operand is; an increment of a Brownian path is first put together in the last register.
    fn source(&self, operand: Operand, step: u32, list: &mut Vec<Operation>) -> Source {
        match operand {
            Operand::Slot(i) => Source::State(usize::from(i)),
            Operand::Reg(i) => Source::Register(usize::from(i)),
            Operand::Model => Source::Output,
            Operand::Earlier(_) | Operand::Second => unreachable!("plans of sdes are not listed"),
            Operand::Noise => Source::Noise { purpose: Purpose::Step, draw: step },
            Operand::Draw(i) => match &self.table().draws[i as usize] {
                Draw::One { purpose, number } => Source::Noise { purpose: *purpose, draw: *number },
                Draw::Path(parts) => {
                    let term = |&(draw, coefficient): &(u32, f64)| OperationTerm {
                        source: Source::Noise { purpose: Purpose::Brownian, draw },
                        coefficient,
                        measured: None,
                    };
                    list.push(Operation::Combine {
                        target: Target::Register(REGISTERS),
                        terms: parts.iter().map(term).collect(),
                        clip: None,
                        mask: None,
                    });
                    Source::Register(REGISTERS)
                }
            },
        }
    }

    /// Refuses plans whose walk depends on the data.
    pub(super) fn check_fixed(&self) -> Result<()> {
        match self.is_adaptive() {
            false => Ok(()),
            true => {
                let expected =
                    "a solver with fixed steps: this one chooses its steps by the data, row by row";
                Err(Error::argument("solver", self.options().solver.name(), expected))
            }
        }
    }

    /// Refuses plans whose rows do not share one list.
    pub(super) fn check_listed(&self) -> Result<()> {
        self.check_fixed()?;
        if self.options().process == Process::Sde {
            let expected = "another one: products of normals with an output are no list of scalars";
            return Err(Error::argument("process", "sde", expected));
        }
        if self.is_tested() {
            let expected = "one without a test: whether a proposal counts follows from the data";
            return Err(Error::argument("solver", self.options().solver.name(), expected));
        }
        if self.numbers() != 0 {
            let got = self.options().likelihood.name();
            return Err(Error::argument("likelihood", got, "none: its numbers are no tensors"));
        }
        if self.options().per_row {
            return Err(Error::argument("per_row", true, "false: one list of operations is for all rows"));
        }
        Ok(())
    }

    /// Table positions of the evaluations, in order.
    pub(super) fn eval_positions(rows: &[Row]) -> Vec<usize> {
        (0..rows.len()).filter(|&i| matches!(rows[i], Row::Eval(e) if matches!(e.at, At::Node(_)))).collect()
    }
}
