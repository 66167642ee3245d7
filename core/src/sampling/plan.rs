//! Plans: a sampler compiled to an immutable, printable, serialisable table.

use std::fmt;

use super::codec;
use super::grid;
use super::options::{PlanOptions, Process, Solver};
use super::process::{Levels, Node};
use super::solvers;
use super::table::{At, Builder, Eval, Lin, Operand, Row, Scale, Table};
use crate::error::{Error, Result};

/// A compiled sampler: which model evaluation to ask for, and which linear combination, noise
/// draw or test follows. Immutable; shared freely between runs and threads.
///
/// ```
/// use dgm_core::sampling::{Plan, PlanOptions};
/// let plan = Plan::compile(&PlanOptions { steps: 2, ..Default::default() })?;
/// assert!(plan.describe().contains("eval"));
/// assert_eq!(Plan::from_bytes(&plan.to_bytes())?.hash(), plan.hash());
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Plan {
    options: PlanOptions,
    levels: Levels,
    grid: Vec<Node>,
    table: Table,
    evals: usize,
    hash: u64,
}

/// Largest number of elements in a row: the noise of a row counts blocks of four in 32 bits.
const MAX_ELEMENTS: u64 = 1 << 34;

impl Plan {
    /// Compiles the options.
    ///
    /// # Errors
    /// [`Error::Range`], [`Error::Argument`] or [`Error::Shape`] naming the option that has no
    /// meaning, also where a prediction is undefined at a level the solver must evaluate
    /// (for example epsilon at t = 1 of a flow, where alpha is 0).
    pub fn compile(options: &PlanOptions) -> Result<Plan> {
        options.validate()?;
        let levels = Levels::new(options)?;
        let grid = grid::grid(options, &levels)?;
        let mut builder = Builder::new(options, &levels);
        solvers::build(options.solver, &mut builder, &grid)?;
        let table = builder.finish();
        if let Some(term) = table.terms.iter().find(|t| !(t.coefficient as f32).is_finite()) {
            let got = format!("a walk with the coefficient {}", term.coefficient);
            return Err(Error::range("times", got, "levels whose coefficients f32 can hold"));
        }
        let evals = if options.solver == Solver::Bosh3 {
            options.max_evals
        } else {
            table.rows.iter().filter(|r| matches!(r, Row::Eval(_))).count()
        };
        let hash = codec::fnv1a(&codec::plan_bytes(options));
        Ok(Plan { options: options.clone(), levels, grid, table, evals, hash })
    }

    /// The options it was compiled from.
    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Identifies the plan: FNV-1a of [`to_bytes`](Plan::to_bytes). A run is only continued
    /// under the plan that started it.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// The serialised plan: its options, versioned and checksummed, little-endian.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::plan_bytes(&self.options)
    }

    /// Reads [`to_bytes`](Plan::to_bytes) and compiles again.
    ///
    /// # Errors
    /// [`Error::Format`] when the bytes are not a serialised plan; those of [`Plan::compile`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Plan> {
        Plan::compile(&codec::plan_options(bytes)?)
    }

    /// Number of steps; 0 for an adaptive solver, which chooses its own.
    pub fn steps(&self) -> usize {
        if self.is_adaptive() { 0 } else { self.grid.len() - 1 }
    }

    /// Most model evaluations a row can need, conditional and unconditional counted apart.
    pub fn max_evals(&self) -> usize {
        self.evals
    }

    /// Number of state tensors, x included.
    pub fn slots(&self) -> usize {
        self.table.slots
    }

    /// Length in f32 elements of the state `[slots, rows, elements]` that a run needs.
    ///
    /// # Errors
    /// [`Error::Range`] when `rows` or `elements` is 0; [`Error::Overflow`] when the state
    /// cannot be addressed.
    pub fn state_len(&self, rows: usize, elements: usize) -> Result<usize> {
        if rows == 0 {
            return Err(Error::range("rows", 0, "at least 1"));
        }
        if elements == 0 {
            return Err(Error::range("elements", 0, "at least 1"));
        }
        if elements as u64 > MAX_ELEMENTS {
            return Err(Error::Overflow { arg: "elements", got: elements.to_string() });
        }
        let len = rows.checked_mul(elements).and_then(|n| n.checked_mul(self.slots()));
        len.filter(|&n| n <= isize::MAX as usize / size_of::<f32>()).ok_or_else(|| Error::Overflow {
            arg: "state",
            got: format!("[{}, {rows}, {elements}]", self.slots()),
        })
    }

    /// The level a run starts from.
    pub fn start(&self) -> Node {
        self.grid[0]
    }

    /// The level a run ends at.
    pub fn end(&self) -> Node {
        self.grid[self.grid.len() - 1]
    }

    /// The levels of the steps, `steps + 1` of them (two for an adaptive solver).
    pub fn grid(&self) -> &[Node] {
        &self.grid
    }

    /// The printed table: one line a row, long plans with their middle left out.
    pub fn describe(&self) -> String {
        self.to_string()
    }

    pub(super) fn is_adaptive(&self) -> bool {
        self.options.solver == Solver::Bosh3
    }

    pub(super) fn levels(&self) -> &Levels {
        &self.levels
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// The evaluation at a table position; `None` at the end.
    pub(super) fn eval_at(&self, position: usize) -> Option<&Eval> {
        match self.table.rows.get(position) {
            Some(Row::Eval(eval)) => Some(eval),
            _ => None,
        }
    }
}

/// Table rows printed before and after the part left out.
const SHOWN: usize = 60;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let o = &self.options;
        write!(
            f,
            "plan {:016x}: {} {}, predicts {}",
            self.hash,
            o.process.name(),
            o.solver.name(),
            o.prediction.name()
        )?;
        if self.is_adaptive() {
            write!(f, ", adaptive rtol {} atol {} at most {} evaluations", o.rtol, o.atol, o.max_evals)?;
        } else {
            write!(f, ", {} steps, {} evaluations", self.steps(), self.evals)?;
        }
        if o.process == Process::Flow && o.shift != 1.0 {
            write!(f, ", shift {}", o.shift)?;
        }
        if o.solver == Solver::Ddim {
            write!(f, ", eta {}", o.eta)?;
        }
        if o.guidance != 1.0 {
            write!(f, ", guidance {}", o.guidance)?;
        }
        if let Some(c) = o.clip {
            write!(f, ", x0 clipped to [-{c}, {c}]")?;
        }
        writeln!(f, ", {} state tensors (s0 = x)", self.slots())?;
        let rows = &self.table.rows;
        for (i, row) in rows.iter().enumerate() {
            if rows.len() > 2 * SHOWN && (SHOWN..rows.len() - SHOWN).contains(&i) {
                if i == SHOWN {
                    writeln!(f, "  ... {} rows ...", rows.len() - 2 * SHOWN)?;
                }
                continue;
            }
            write!(f, "{i:6}  ")?;
            match row {
                Row::Eval(e) => write_eval(f, e)?,
                Row::Lin(l) => self.write_lin(f, l)?,
                Row::Accept { error, proposal } => {
                    write!(f, "accept if |r{error}| fits the tolerance at s{proposal}, row by row")?
                }
                Row::IfAccepted => write!(f, "rows accepted:")?,
                Row::Merge => write!(f, "rows not finished:")?,
                Row::Jump(to) => write!(f, "go to {to}")?,
            }
            writeln!(f)?;
        }
        write!(f, "{:6}  done, result s0", rows.len())
    }
}

fn write_eval(f: &mut fmt::Formatter<'_>, e: &Eval) -> fmt::Result {
    let role = format!("{:?}", e.role).to_lowercase();
    match e.at {
        At::Node(n) => write!(
            f,
            "eval s{} step {} stage {} {role} t {:.6} alpha {:.6} sigma {:.6}",
            e.slot, e.step, e.stage, n.t, n.alpha, n.sigma
        ),
        At::Fraction(c) => write!(f, "eval s{} stage {} {role} t + {c} h", e.slot, e.stage),
    }
}

impl Plan {
    fn write_lin(&self, f: &mut fmt::Formatter<'_>, l: &Lin) -> fmt::Result {
        write!(f, "{} =", name(l.dst))?;
        let bounded = l.clamp.is_finite();
        if bounded {
            write!(f, " clip(")?;
        }
        for term in self.table.terms(l) {
            let scale = match term.scale {
                Scale::One => "",
                Scale::Step => " h",
                Scale::DataX => " data_x(t)",
                Scale::DataY => " data_y(t)",
                Scale::SlopeX => " slope_x(t)",
                Scale::SlopeY => " slope_y(t)",
            };
            write!(f, " {:+.9}{scale} {}", term.coefficient, name(term.operand))?;
        }
        if bounded {
            write!(f, ", {})", l.clamp)?;
        }
        Ok(())
    }
}

fn name(operand: Operand) -> String {
    match operand {
        Operand::Slot(i) => format!("s{i}"),
        Operand::Reg(i) => format!("r{i}"),
        Operand::Model => "y".into(),
        Operand::Noise => "noise".into(),
    }
}
