//! Whole walks a block of rows at a time, for models of the engine itself.
//!
//! Rows are independent of each other, so a walk of a batch is as many walks of its parts, with the same bits. A block
//! whose state lies in the first cache is carried to its end by one thread, without a look at the others.

use super::driver::drive_with;
use super::plan::Plan;
use super::run::{Counters, Request, Run};
use crate::error::{Error, Result, zeros};
use crate::threads;

/// A model that answers every row by itself, from any thread.
pub trait RowModel: Sync {
    /// Memory of one walk, made once and used again by every evaluation.
    type Scratch: Default;

    /// Whether the model can answer what the plan asks for, of rows of `elements` numbers.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the option, or [`Error::Shape`].
    fn check(&self, plan: &Plan, elements: usize) -> Result<()>;

    /// Fills y `[rows, elements]`, and `numbers` `[rows, numbers]` where the plan wants some, from x
    /// `[rows, elements]` and the model times `[rows]`. No row may depend on another.
    ///
    /// # Errors
    /// Whatever stops the walk.
    #[allow(clippy::too_many_arguments)]
    fn predict(
        &self,
        plan: &Plan,
        request: &Request,
        x: &[f32],
        t: &[f32],
        y: &mut [f32],
        numbers: &mut [f64],
        scratch: &mut Self::Scratch,
    ) -> Result<()>;
}

/// Floats of state, output, noise and times that a block may have: half of a first cache of 32 KiB.
const BLOCK: usize = 4096;
/// Rows that fill the widest vector.
const LANES: usize = 16;
/// Operations that an element costs in an evaluation, roughly.
const COST: u64 = 100;

/// Carries a run (fresh, forked or imported) to its end with a model of the engine: what
/// [`drive_with`](super::drive_with) does with a callback, with the same bits in state and run, but every block of
/// rows on its own, on all threads.
///
/// ```
/// use dgm_core::models::GaussianMixture;
/// use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Run, Solver, drive_rows};
/// let plan = Plan::compile(&PlanOptions {
///     process: Process::Target,
///     prediction: Prediction::Score,
///     solver: Solver::Ula,
///     steps: 200,
///     ..Default::default()
/// })?;
/// let mixture = GaussianMixture::new(&[0.5, 0.5], &[-3.0, 3.0], &[0.25, 0.25])?;
/// let seeds = dgm_core::random::row_seeds(1, 100);
/// let mut state = vec![0.0; plan.state_len(100, 1)?];
/// let mut run = Run::start(&plan, &seeds, 1, None, &mut state)?;
/// drive_rows(&plan, &mut run, &mut state, &mixture)?;
/// assert!(run.result(&plan, &state)?.iter().all(|x| (x.abs() - 3.0).abs() < 3.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// The counters of the run are those of the batch; with [`Solver::Dpm12`](super::Solver::Dpm12) and
/// [`Solver::Dpm23`](super::Solver::Dpm23), which keep an evaluation where no row was accepted, evaluations are those of
/// the block that needs most.
///
/// # Errors
/// Those of the model, naming the rows; [`Error::State`] and [`Error::Shape`] as of
/// [`drive`](super::drive); [`Error::Argument`] for plans with `per_row`, whose rows wait for each other. Run and state
/// are untouched on error, so the call holds a second copy of the state; [`Error::Overflow`] where there is no memory
/// for it.
pub fn drive_rows<M: RowModel>(plan: &Plan, run: &mut Run, state: &mut [f32], model: &M) -> Result<()> {
    run.check(plan, state.len())?;
    if plan.options().per_row {
        return Err(Error::argument("per_row", true, "false for a walk of every row to its end"));
    }
    model.check(plan, run.elements)?;
    let (rows, elements) = (run.rows(), run.elements);
    let size = block_rows(plan, rows, elements);
    let mut blocks: Vec<Block> = (0..rows)
        .step_by(size)
        .map(|first| Block {
            first,
            run: run.part(plan, first, size.min(rows - first)),
            state: Ok(Vec::new()),
        })
        .collect();
    let work = (rows as u64 * elements as u64).saturating_mul(COST).saturating_mul(plan.max_evals() as u64);
    let whole = &*state;
    threads::for_each(blocks.iter_mut(), work, |block| block.state = block.walk(plan, whole, rows, model));
    if let Some(block) = blocks.iter_mut().find(|block| block.state.is_err()) {
        let last = block.first + block.run.rows() - 1;
        return std::mem::replace(&mut block.state, Ok(Vec::new())).map(|_| ()).map_err(|e| match e {
            Error::State(what) => {
                Error::State(format!("rows {} to {last}, counted from their first: {what}", block.first))
            }
            other => other,
        });
    }
    for block in &blocks {
        let len = block.run.rows() * elements;
        let Ok(part) = &block.state else { continue };
        for (slot, part) in state.chunks_exact_mut(rows * elements).zip(part.chunks_exact(len)) {
            slot[block.first * elements..][..len].copy_from_slice(part);
        }
    }
    run.join(plan, blocks.into_iter().map(|block| block.run));
    Ok(())
}

/// Rows of a block: what fits the cache, in numbers that threads share evenly.
fn block_rows(plan: &Plan, rows: usize, elements: usize) -> usize {
    // Beside the tensors two more an element, and a seed and a time a row.
    let row = (plan.slots() + plan.outputs() + 1).saturating_mul(elements).saturating_add(3);
    let most = (BLOCK / row).max(LANES);
    let blocks = rows.div_ceil(most).next_multiple_of(threads::num_threads());
    rows.div_ceil(blocks).next_multiple_of(LANES)
}

/// Some rows of a run.
struct Block {
    first: usize,
    run: Run,
    /// Their state when they have walked.
    state: Result<Vec<f32>>,
}

impl Block {
    fn walk<M: RowModel>(&mut self, plan: &Plan, whole: &[f32], rows: usize, model: &M) -> Result<Vec<f32>> {
        let (elements, len) = (self.run.elements, self.run.rows() * self.run.elements);
        let slots = whole.chunks_exact(rows * elements);
        let mut state = zeros("state", slots.len() * len)?;
        for (to, slot) in state.chunks_exact_mut(len).zip(slots) {
            to.copy_from_slice(&slot[self.first * elements..][..len]);
        }
        let mut scratch = M::Scratch::default();
        drive_with(plan, &mut self.run, &mut state, |request, x, t, y, numbers| {
            model.predict(plan, request, x, t, y, numbers, &mut scratch)
        })?;
        Ok(state)
    }
}

impl Run {
    /// The run of `count` rows alone.
    fn part(&self, plan: &Plan, first: usize, count: usize) -> Run {
        let control = self.control.get(first..first + count).unwrap_or_default().to_vec();
        // An adaptive run is over when all of its rows are.
        let over = !control.is_empty() && control.iter().all(|c| c.done);
        Run {
            plan: self.plan,
            elements: self.elements,
            position: if over { plan.table().rows.len() } else { self.position },
            counters: Counters { accepts: 0, rejects: 0, ..self.counters },
            seeds: self.seeds[first..first + count].to_vec(),
            control,
            places: Vec::new(),
            numbers: {
                let kept = plan.kept();
                self.numbers.get(first * kept..(first + count) * kept).unwrap_or_default().to_vec()
            },
            chains: self.chains.get(first..first + count).unwrap_or_default().to_vec(),
        }
    }

    /// Becomes the run of all rows that [`part`](Run::part) gave out, at its end: a batch asks for as many evaluations
    /// as its slowest row.
    fn join(&mut self, plan: &Plan, parts: impl Iterator<Item = Run>) {
        self.position = plan.table().rows.len();
        self.control.clear();
        self.numbers.clear();
        self.chains.clear();
        for part in parts {
            self.control.extend(part.control);
            self.numbers.extend(part.numbers);
            self.chains.extend(part.chains);
            let (all, c) = (&mut self.counters, part.counters);
            (all.evals, all.rounds) = (all.evals.max(c.evals), all.rounds.max(c.rounds));
            all.accepts += c.accepts;
            all.rejects += c.rejects;
        }
    }
}
