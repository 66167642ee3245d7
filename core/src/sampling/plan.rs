//! Plans: a sampler compiled to an immutable, printable, serialisable table.

use std::fmt;

use super::builder::Builder;
use super::codec;
use super::grid;
use super::options::{PlanOptions, Process, Solver, Variance};
use super::process::{Levels, Node};
use super::restart;
use super::solvers::pairs::{self, Pair};
use super::table::{At, Draw, Eval, Lin, Measure, Operand, Row, Scale, Table};
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
    /// Steps of the walk, restarts included.
    steps: usize,
    table: Table,
    /// Table positions of the evaluations; none for an adaptive solver.
    eval_rows: Vec<usize>,
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
        options.check_save_at(grid[0].t, grid[grid.len() - 1].t)?;
        options.check_stop_at(grid[0].t, grid[grid.len() - 1].t)?;
        let segments = restart::segments(options, &levels, &grid)?;
        let steps = segments.iter().map(|s| s.len() - 1).sum();
        let mut builder = Builder::new(options, &levels, steps);
        restart::build(options, &mut builder, &segments)?;
        let table = builder.finish(&grid[grid.len() - 1]);
        if let Some(term) = table.terms.iter().find(|t| !(t.coefficient as f32).is_finite()) {
            let got = format!("a walk with the coefficient {}", term.coefficient);
            return Err(Error::range("times", got, "levels whose coefficients f32 can hold"));
        }
        for draw in &table.draws {
            if let Draw::Path(parts) = draw {
                debug_assert!(parts.iter().all(|p| p.1.is_finite()));
            }
        }
        let eval_rows = Plan::eval_positions(&table.rows);
        let evals = if options.solver.is_adaptive() { options.max_evals } else { eval_rows.len() };
        let hash = codec::fnv1a(&codec::plan_bytes(options));
        let mut plan = Plan { options: options.clone(), levels, grid, steps, table, eval_rows, evals, hash };
        // Rows at places of their own, and numbers told beside outputs, go one evaluation at a time.
        if !options.per_row && plan.numbers() == 0 {
            plan.table.join(&plan.eval_rows);
        }
        if options.per_row {
            plan.check_per_row()?;
        }
        Ok(plan)
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

    /// Number of steps, restarts included; 0 for an adaptive solver, which chooses its own.
    pub fn steps(&self) -> usize {
        if self.is_adaptive() { 0 } else { self.steps }
    }

    /// Most model evaluations a row can need, conditional and unconditional counted apart.
    pub fn max_evals(&self) -> usize {
        self.evals
    }

    /// Number of state tensors, x and those of `save_at` included.
    pub fn slots(&self) -> usize {
        self.table.slots + self.saves().len()
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

    /// Tensors the model returns for a row, one after the other: 2 with a learned variance, and for an sde, whose
    /// drift and diffusion they are, else 1.
    pub fn outputs(&self) -> usize {
        let two = self.options.variance == Variance::LearnedRange || self.options.process == Process::Sde;
        1 + usize::from(two)
    }

    /// The levels of the steps, `steps + 1` of them without restarts (two for an adaptive solver).
    pub fn grid(&self) -> &[Node] {
        &self.grid
    }

    /// The printed table: one line a row, long plans with their middle left out.
    pub fn describe(&self) -> String {
        self.to_string()
    }

    pub(super) fn is_adaptive(&self) -> bool {
        self.options.solver.is_adaptive()
    }

    /// The times of `save_at`.
    pub(super) fn saves(&self) -> &[f64] {
        self.options.save_at.as_deref().unwrap_or_default()
    }

    /// The embedded pair of an adaptive solver.
    pub(super) fn pair(&self) -> &'static Pair {
        match self.options.solver {
            Solver::Dopri5 => &pairs::DOPRI5,
            Solver::Tsit5 => &pairs::TSIT5,
            _ => &pairs::BOSH3,
        }
    }

    pub(super) fn levels(&self) -> &Levels {
        &self.levels
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    pub(super) fn eval_rows(&self) -> &[usize] {
        &self.eval_rows
    }

    /// Position of the evaluation `count` after the one at `position`.
    pub(super) fn eval_after(&self, position: usize, count: usize) -> usize {
        let at = self.eval_rows.partition_point(|&row| row < position) + count;
        self.eval_rows.get(at).copied().unwrap_or(self.table.rows.len())
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
        if o.solver.uses_eta() {
            write!(f, ", eta {}", o.eta)?;
        }
        if o.solver.uses_sde_eta() {
            write!(f, ", sde_eta {}", o.sde_eta)?;
        }
        if let Some((_, own)) = o.solver.orders() {
            write!(f, ", order {}", if o.order == 0 { own } else { o.order })?;
        }
        if o.guidance != 1.0 {
            write!(f, ", guidance {}", o.guidance)?;
        }
        if o.guidance_weak != 1.0 {
            write!(f, ", guidance_weak {}", o.guidance_weak)?;
        }
        if let Some(c) = o.clip {
            write!(f, ", x0 clipped to [-{c}, {c}]")?;
        }
        if o.per_row {
            write!(f, ", rows at times of their own")?;
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
                Row::Accept { error, proposal, .. } => {
                    write!(f, "accept if |r{error}| fits the tolerance at s{proposal}, row by row")?
                }
                Row::IfAccepted => write!(f, "rows accepted:")?,
                Row::Merge => write!(f, "rows not finished:")?,
                Row::Retry(to) => write!(f, "go to {to} if no row was accepted")?,
                Row::AtStop(to) => write!(f, "go to {to} if a row stands at a stop")?,
                Row::Jump(to) => write!(f, "go to {to}")?,
                Row::FirstStep { slope, change: None } => {
                    write!(f, "h = a trial step from {}, row by row", name(*slope))?
                }
                Row::FirstStep { slope, change: Some(change) } => {
                    write!(f, "h = the first step from {} and {}, row by row", name(*slope), name(*change))?
                }
                Row::Measure { what, a, b } => write_measure(f, what, *a, *b)?,
                Row::Threshold { slot, ratio, most } => write!(
                    f,
                    "s{slot} = s{slot} bounded by its quantile {ratio} (1 to {most}), over the bound"
                )?,
                Row::Metropolis { gradient, next, .. } => {
                    write!(f, "accept by the log densities of s{gradient} and s{next}, row by row")?
                }
                Row::Noisy(n) => {
                    let [a, b, c, d] = n.weights;
                    let (g, dst) = (name(n.g), n.dst);
                    write!(
                        f,
                        "s{dst} = s{dst} + ({a:+.9} z {b:+.9} u {c:+.9} (z^2 - 1) {d:+.9} (z^3 - 3z)) {g}"
                    )?
                }
                Row::LearnedNoise { base, slope } => {
                    write!(f, "s0 = s0 + exp({base:+.9} {slope:+.9} y2) noise")?
                }
            }
            writeln!(f)?;
        }
        write!(f, "{:6}  done, result s0", rows.len())
    }
}

fn write_measure(f: &mut fmt::Formatter<'_>, what: &Measure, a: Operand, b: Operand) -> fmt::Result {
    let (a, b) = (name(a), name(b));
    match what {
        Measure::Rescale { g, phi } => {
            write!(f, "m0 = {} + {phi} std({a}) / std({g} {a} {:+} {b}), row by row", 1.0 - phi, 1.0 - g)
        }
        Measure::Langevin { snr } => {
            write!(f, "m0 = min(2 {snr}^2 n / |{a}|^2, 1), m1 = sqrt(2 m0), row by row")
        }
        Measure::Project => write!(f, "m0 = <{a}, {b}> / (|{b}|^2 + 1e-8), row by row"),
        Measure::Adaptive { g, eta, norm } => write!(
            f,
            "k = min(1, {norm} / |{a}|), m0 = {} k, m1 = 1 - {} k <{a}, {b}> / |{b}|^2, row by row",
            g - 1.0,
            (g - 1.0) * (1.0 - eta)
        ),
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
                Scale::NoiseX => " eps_x(t)",
                Scale::NoiseY => " eps_y(t)",
                Scale::Lambda(part, sixths) => &format!(" {part:?}({sixths}/6 h)").to_lowercase(),
                Scale::Row(0) => " m0",
                Scale::Row(_) => " m1",
            };
            write!(f, " {:+.9}{scale} {}", term.coefficient, self.operand(term.operand))?;
        }
        if bounded {
            write!(f, ", {})", l.clamp)?;
        }
        if let Some(mask) = l.mask {
            write!(f, " where s{mask}")?;
        }
        Ok(())
    }

    fn operand(&self, operand: Operand) -> String {
        let Operand::Draw(i) = operand else { return name(operand) };
        match &self.table.draws[i as usize] {
            Draw::One { purpose, number } => format!("{}[{number}]", format!("{purpose:?}").to_lowercase()),
            Draw::Path(_) => "brownian".into(),
        }
    }
}

fn name(operand: Operand) -> String {
    match operand {
        Operand::Slot(i) => format!("s{i}"),
        Operand::Reg(i) => format!("r{i}"),
        Operand::Model => "y".into(),
        Operand::Second => "y2".into(),
        Operand::Noise => "noise".into(),
        Operand::Draw(i) => format!("draw {i}"),
        Operand::Earlier(i) => format!("y{i}"),
    }
}
