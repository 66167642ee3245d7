//! The instruction table a plan consists of.

use super::process::Node;
use super::solvers::dpm_adaptive::Part;
use crate::random::Purpose;

/// State tensors a plan may use.
pub(super) const MAX_SLOTS: usize = 14;
/// Chunk-local registers of a table.
pub(super) const REGISTERS: usize = 3;
/// One more, of outputs told together; no table names it.
pub(super) const HELD: Operand = Operand::Reg(REGISTERS as u8);
/// Terms of one linear combination.
pub(super) const MAX_TERMS: usize = 8;
/// The state tensor that holds x.
pub(super) const X: Operand = Operand::Slot(0);
/// State tensors of inpainting.
pub(super) const KNOWN: Operand = Operand::Slot(1);
pub(super) const MASK: u8 = 2;

/// Where a term is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operand {
    /// A state tensor.
    Slot(u8),
    /// A chunk-local register.
    Reg(u8),
    /// The output just told: its first tensor.
    Model,
    /// That of an evaluation before it, told in the same call; no table names it.
    Earlier(u8),
    /// Its second tensor, where the model has two.
    Second,
    /// Normals of the step's own draw.
    Noise,
    /// Other normals: an entry of the table's draws.
    Draw(u32),
}

/// Normals a step adds, beside those of [`Operand::Noise`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Draw {
    /// A draw of a stream.
    One { purpose: Purpose, number: u32 },
    /// A combination of draws of the Brownian stream: an increment of a path.
    Path(Vec<(u32, f64)>),
}

/// What multiplies the written coefficient. All but `One` and `Row` belong to adaptive plans, where
/// the step size and the level differ from row to row.
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
    /// eps from the state, from its source, at the row's level.
    NoiseX,
    NoiseY,
    /// A weight of the row's step in lambda, so many sixths of the way.
    Lambda(Part, u8),
    /// A number measured in the row just before.
    Row(u8),
}

/// `operand * coefficient * scale`
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Term {
    pub coefficient: f64,
    pub operand: Operand,
    pub scale: Scale,
}

/// Which output of a guided model is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u32)]
pub enum Role {
    /// With the condition.
    Cond = 0,
    /// Without it.
    Uncond = 1,
    /// With it, from the weaker model of autoguidance.
    Weak = 2,
}

impl Role {
    /// Its bit in [`Request::roles`](super::Request::roles).
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
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
    /// Bits of the roles whose outputs may be told at once: its own and those that follow on the same input.
    pub roles: u32,
    /// Model time at which the step ends.
    pub to: f64,
}

/// `dst = clamp(sum of terms)`, one FMA chain from zero in term order. With a mask,
/// `dst + mask (sum - dst)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Lin {
    pub first: u32,
    pub count: u8,
    pub dst: Operand,
    /// The bound of the clamp; infinite for none.
    pub clamp: f32,
    /// The state tensor of the mask.
    pub mask: Option<u8>,
}

/// What is measured in a row; the numbers multiply terms that name them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Measure {
    /// `0: (1 - phi) + phi std(a) / std(g a + (1 - g) b)`, the quotient 1 where the lower deviation is 0.
    Rescale {
        /// Guidance.
        g: f64,
        /// The part that is rescaled.
        phi: f64,
    },
    /// `0: <a, b> / (|b|^2 + 1e-8)`
    Project,
    /// `a` is the guidance difference, `b` the conditional x0. With `k = min(1, norm / |a|)` (1 if norm is 0):
    /// `0: (g - 1) k`, `1: 1 - (g - 1) (1 - eta) k <a, b> / |b|^2` (the quotient 0 where b is 0).
    Adaptive {
        /// Guidance.
        g: f64,
        /// Weight of the parallel part.
        eta: f64,
        /// Largest norm of the difference.
        norm: f64,
    },
    /// `a` is the predicted eps of n elements. With `q = min(2 snr^2 n / |a|^2, 1)`: `0: q`, `1: sqrt(2 q)`; a
    /// Langevin step is `x - sigma q a + sigma sqrt(2 q) z`.
    Langevin {
        /// The signal-to-noise ratio aimed at.
        snr: f64,
    },
}

/// `dst += p g` with `p = a z + b u + c (z^2 - 1) + d (z^3 - 3 z)` of two normals, z the step's own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Noisy {
    pub dst: u8,
    pub g: Operand,
    /// u.
    pub second: Operand,
    /// a, b, c, d.
    pub weights: [f64; 4],
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Row {
    Eval(Eval),
    Lin(Lin),
    /// Sums `(error / (atol + rtol max(|a|, |b|)))^2` of each row, a and b the tensors `sizes` (DPM-Solvers: the
    /// greater of the two tolerances), and decides. `error` is a register; rows that fail keep x.
    Accept {
        error: u8,
        proposal: u8,
        sizes: [u8; 2],
    },
    /// Runs `Lin`s from here for accepted rows only, until `Merge`.
    IfAccepted,
    Merge,
    /// Goes there if no row was accepted; else what stands after `Merge` is not done.
    Retry(u32),
    /// Goes there if a row stands at a stop.
    AtStop(u32),
    Jump(u32),
    /// Guesses the first step of every row: from x and its slope, then also from the change of the
    /// slope over that step (Hairer, Norsett & Wanner I, II.4).
    FirstStep {
        slope: Operand,
        change: Option<Operand>,
    },
    /// Measures every row; registers do not outlive it.
    Measure {
        what: Measure,
        a: Operand,
        b: Operand,
    },
    /// Bounds a state tensor by the quantile `ratio` of its magnitudes, at least 1 and at most
    /// `most`, and divides by the bound; registers do not outlive it.
    Threshold {
        slot: u8,
        ratio: f64,
        most: f64,
    },
    /// `x += exp(base + slope w) noise`, w being the second half of the output.
    LearnedNoise {
        base: f64,
        slope: f64,
    },
    Noisy(Noisy),
    /// Decides for every row by the numbers beside two gradients and the momenta before and after;
    /// rows that fail keep x.
    Metropolis {
        gradient: u8,
        next: u8,
        p0: u8,
        p: u8,
        number: u32,
    },
}

/// The finished table.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    pub rows: Vec<Row>,
    pub terms: Vec<Term>,
    pub draws: Vec<Draw>,
    pub slots: usize,
}

impl Table {
    /// Lets outputs of one input be told at once: those that guidance asks for, one evaluation after the other.
    pub(super) fn join(&mut self, evals: &[usize]) {
        let mut next: Option<Eval> = None;
        for &at in evals.iter().rev() {
            let Row::Eval(eval) = &mut self.rows[at] else { continue };
            let place = |e: &Eval| (e.step, e.stage, e.slot);
            if let Some(next) = next.filter(|next| place(next) == place(eval) && next.role > eval.role) {
                eval.roles |= next.roles;
            }
            next = Some(*eval);
        }
    }

    pub(super) fn terms(&self, lin: &Lin) -> &[Term] {
        &self.terms[lin.first as usize..lin.first as usize + usize::from(lin.count)]
    }
}

/// A linear combination under construction; equal operands merge.
#[derive(Debug, Clone, Default)]
pub(super) struct Sum(pub Vec<Term>);

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

    /// `factor * self`
    pub(super) fn times(&self, factor: f64) -> Sum {
        Sum::default().plus_sum(self, factor)
    }

    /// `self + factor * other`
    pub(super) fn plus_sum(self, other: &Sum, factor: f64) -> Sum {
        other.0.iter().fold(self, |sum, t| sum.scaled(t.operand, factor * t.coefficient, t.scale))
    }
}
