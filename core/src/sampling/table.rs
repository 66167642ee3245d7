//! The instruction table a plan consists of, and the builder solvers write it with.

use super::options::{PlanOptions, Prediction};
use super::prediction::{self, Map};
use super::process::{Levels, Node};
use crate::error::{Error, Result};

/// State tensors a plan may use.
pub(super) const MAX_SLOTS: usize = 8;
/// Chunk-local registers.
pub(super) const REGISTERS: usize = 3;
/// Terms of one linear combination.
pub(super) const MAX_TERMS: usize = 6;
/// The state tensor that holds x.
pub(super) const X: Operand = Operand::Slot(0);

/// Where a term is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// A state tensor.
    Slot(u8),
    /// A chunk-local register.
    Reg(u8),
    /// The output just told.
    Model,
    /// Normals of the step's own draw.
    Noise,
}

/// What multiplies the written coefficient. All but `One` belong to adaptive plans, where the
/// step size and the level differ from row to row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    One,
    /// The row's signed step, next time less this one.
    Step,
    /// x0 from the state, from the output, at the row's level.
    DataX,
    DataY,
    /// The derivative from the state, from its source, at the row's level.
    SlopeX,
    SlopeY,
}

/// `operand * coefficient * scale`
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Term {
    pub coefficient: f64,
    pub operand: Operand,
    pub scale: Scale,
}

/// Which output of a guided model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Role {
    /// With the condition.
    Cond = 0,
    /// Without it.
    Uncond = 1,
}

/// The level of an evaluation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum At {
    /// The same for all rows.
    Node(Node),
    /// This fraction of the way through each row's own step.
    Fraction(f64),
}

/// One request to the model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Eval {
    pub at: At,
    pub step: u32,
    pub stage: u16,
    pub slot: u8,
    pub role: Role,
}

/// `dst = clamp(sum of terms)`, one FMA chain from zero in term order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lin {
    pub first: u32,
    pub count: u8,
    pub dst: Operand,
    /// The bound of the clamp; infinite for none.
    pub clamp: f32,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Row {
    Eval(Eval),
    Lin(Lin),
    /// Sums `(error / (atol + rtol max(|x|, |x_new|)))^2` of each row and decides.
    /// `error` is a register; rows that fail keep x.
    Accept {
        error: u8,
        proposal: u8,
    },
    /// Runs `Lin`s from here for accepted rows only, until `Merge`.
    IfAccepted,
    Merge,
    Jump(u32),
}

/// The finished table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub rows: Vec<Row>,
    pub terms: Vec<Term>,
    pub slots: usize,
}

impl Table {
    pub(super) fn terms(&self, lin: &Lin) -> &[Term] {
        &self.terms[lin.first as usize..lin.first as usize + usize::from(lin.count)]
    }
}

/// A linear combination under construction; equal operands merge.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum(Vec<Term>);

impl Sum {
    pub(super) fn of(operand: Operand, coefficient: f64) -> Sum {
        Sum::default().plus(operand, coefficient)
    }

    pub(super) fn plus(self, operand: Operand, coefficient: f64) -> Sum {
        self.scaled(operand, coefficient, Scale::One)
    }

    pub(super) fn scaled(mut self, operand: Operand, coefficient: f64, scale: Scale) -> Sum {
        match self.0.iter_mut().find(|t| t.operand == operand && t.scale == scale) {
            Some(term) => term.coefficient += coefficient,
            None => self.0.push(Term { coefficient, operand, scale }),
        }
        self
    }

    /// `self + factor * other`
    pub(super) fn plus_sum(self, other: &Sum, factor: f64) -> Sum {
        other.0.iter().fold(self, |sum, t| sum.scaled(t.operand, factor * t.coefficient, t.scale))
    }
}

/// Writes a table. Solvers say what to evaluate and combine; guidance, clipping and the meaning
/// of the output are settled here, so no solver branches on them.
pub(super) struct Builder<'a> {
    options: &'a PlanOptions,
    pub levels: &'a Levels,
    table: Table,
    /// Holds the conditional output while the unconditional one is asked for.
    guide: Option<Operand>,
}

/// Registers: 0 the guided output, 1 the clipped x0, 2 free for the solver.
const GUIDED: Operand = Operand::Reg(0);
const CLIPPED: Operand = Operand::Reg(1);
pub(super) const FREE: Operand = Operand::Reg(2);

impl<'a> Builder<'a> {
    pub(super) fn new(options: &'a PlanOptions, levels: &'a Levels) -> Self {
        let mut b = Builder { options, levels, table: Table { slots: 1, ..Default::default() }, guide: None };
        if options.guidance != 1.0 {
            b.guide = Some(b.slot());
        }
        b
    }

    pub(super) fn finish(self) -> Table {
        self.table
    }

    pub(super) fn eta(&self) -> f64 {
        self.options.eta
    }

    /// A further state tensor.
    pub(super) fn slot(&mut self) -> Operand {
        debug_assert!(self.table.slots < MAX_SLOTS);
        self.table.slots += 1;
        Operand::Slot((self.table.slots - 1) as u8)
    }

    pub(super) fn push(&mut self, row: Row) {
        self.table.rows.push(row);
    }

    pub(super) fn position(&self) -> u32 {
        self.table.rows.len() as u32
    }

    /// `dst = sum`
    pub(super) fn lin(&mut self, dst: Operand, sum: Sum) {
        self.clamped(dst, sum, f32::INFINITY);
    }

    fn clamped(&mut self, dst: Operand, sum: Sum, clamp: f32) {
        let first = self.table.terms.len() as u32;
        // A zero coefficient would still turn an infinity into a NaN.
        self.table.terms.extend(sum.0.into_iter().filter(|t| t.coefficient != 0.0));
        let count = (self.table.terms.len() - first as usize) as u8;
        debug_assert!(usize::from(count) <= MAX_TERMS);
        self.push(Row::Lin(Lin { first, count, dst, clamp }));
    }

    /// Asks the model at `at` for the state in `slot`; returns where the (guided) output is.
    pub(super) fn eval(&mut self, at: At, step: usize, stage: u16, slot: Operand) -> Operand {
        let Operand::Slot(index) = slot else { unreachable!("the model reads state tensors") };
        let eval = |role| Row::Eval(Eval { at, step: step as u32, stage, slot: index, role });
        self.push(eval(Role::Cond));
        let Some(guide) = self.guide else { return Operand::Model };
        self.lin(guide, Sum::of(Operand::Model, 1.0));
        self.push(eval(Role::Uncond));
        let g = self.options.guidance;
        self.lin(GUIDED, Sum::of(guide, g).plus(Operand::Model, 1.0 - g));
        GUIDED
    }

    /// The predicted x0 at `node`, as a sum of the state in `x` and the output in `y`.
    ///
    /// # Errors
    /// [`Error::Argument`] where the prediction does not determine x0 (eps where alpha is 0).
    pub(super) fn data(&mut self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        let map = prediction::data(self.options.prediction, node);
        if !map.is_defined() {
            return Err(undefined(self.options.prediction, node));
        }
        let sum = Sum::of(x, map.x).plus(y, map.y);
        Ok(match self.options.clip {
            None => sum,
            Some(c) => {
                self.clamped(CLIPPED, sum, c as f32);
                Sum::of(CLIPPED, 1.0)
            }
        })
    }

    /// The derivative at `node` along the ODE coordinate.
    ///
    /// # Errors
    /// [`Error::Argument`] where the prediction does not determine it.
    pub(super) fn derivative(&mut self, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        let source = prediction::derivative_source(self.options);
        let map = prediction::derivative(self.options.process, source, node);
        if !map.is_defined() {
            return Err(undefined(source, node));
        }
        if self.options.clip.is_some() {
            self.data(node, x, y)?;
            return Ok(Sum::of(x, map.x).plus(CLIPPED, map.y));
        }
        Ok(Sum::of(x, map.x).plus(y, map.y))
    }

    /// Whether [`derivative`](Self::derivative) is defined at `node`.
    pub(super) fn has_derivative(&self, node: &Node) -> bool {
        let source = prediction::derivative_source(self.options);
        // A VP model knows no time for clean data.
        node.t >= 0.0 && prediction::derivative(self.options.process, source, node).is_defined()
    }

    /// The derivative at each row's own level, for adaptive plans.
    pub(super) fn row_derivative(&mut self, x: Operand, y: Operand) -> Sum {
        let slope = |y| Sum::default().scaled(x, 1.0, Scale::SlopeX).scaled(y, 1.0, Scale::SlopeY);
        match self.options.clip {
            None => slope(y),
            Some(c) => {
                let data = Sum::default().scaled(x, 1.0, Scale::DataX).scaled(y, 1.0, Scale::DataY);
                self.clamped(CLIPPED, data, c as f32);
                slope(CLIPPED)
            }
        }
    }

    /// The error for a level where the derivative is missing.
    pub(super) fn undefined(&self, node: &Node) -> Error {
        undefined(prediction::derivative_source(self.options), node)
    }
}

/// The maps a row of an adaptive plan uses at its own level: `(x0, derivative)`.
pub(super) fn row_maps(options: &PlanOptions, node: &Node) -> (Map, Map) {
    let source = prediction::derivative_source(options);
    (prediction::data(options.prediction, node), prediction::derivative(options.process, source, node))
}

fn undefined(prediction: Prediction, node: &Node) -> Error {
    let (got, why) = match prediction {
        Prediction::Epsilon => ("epsilon", "alpha is 0 there, so the state holds nothing but the noise"),
        _ => ("x0 (predicted or clipped)", "sigma is 0 there, so the state says nothing about the noise"),
    };
    Error::argument(
        "prediction",
        format!("{got} at t = {} (alpha {}, sigma {})", node.t, node.alpha, node.sigma),
        format!("another prediction, or times that avoid this level: {why}"),
    )
}
