//! Callback shells over ask and tell.

use super::exec;
use super::plan::Plan;
use super::run::{Ask, Request, Run};
use crate::error::Result;

/// Floats of a state from which a second one is worth its memory: 4 MiB.
const LARGE: usize = 1 << 20;
/// Evaluations that it must serve for: the first touch of fresh memory costs more than one.
const MANY: usize = 8;

/// The caller's state, and where it pays a second one that takes turns with it ([`Run::tell_swap`]). When this goes, by
/// whatever way, the caller's holds the run's numbers.
struct Turns<'a> {
    state: &'a mut [f32],
    /// Empty where there is none.
    other: Vec<f32>,
    /// Whether the run's numbers are in the other.
    away: bool,
}

impl<'a> Turns<'a> {
    fn new(state: &'a mut [f32]) -> Turns<'a> {
        Turns { state, other: Vec::new(), away: false }
    }

    /// The run's state.
    fn now(&self) -> &[f32] {
        if self.away { &self.other } else { self.state }
    }

    fn tell(
        &mut self,
        plan: &Plan,
        run: &mut Run,
        request: &Request,
        y: &[f32],
        numbers: &[f64],
    ) -> Result<()> {
        let outputs = y.len() / (run.rows() * run.elements() * plan.outputs());
        if self.other.is_empty() {
            self.other = run.second_state(plan, self.state.len(), y.len());
        }
        // The walk is to end where the caller looks.
        let ends = request.eval_id as usize + outputs > plan.max_evals();
        if self.other.is_empty() || ends && !self.away {
            return run.tell_with(plan, self.state, request.eval_id, y, numbers);
        }
        let (from, to) = match self.away {
            false => (&mut *self.state, &mut self.other[..]),
            true => (&mut self.other[..], &mut *self.state),
        };
        self.away ^= run.tell_swap(plan, from, to, request.eval_id, y, numbers)?;
        Ok(())
    }
}

impl Run {
    /// Memory for a second state to take turns with one of `state_len` numbers ([`tell_swap`](Run::tell_swap)), where
    /// that pays for tells of `told` numbers: of a large state, with enough evaluations left, and where a step from one
    /// state to another costs less than one in place. Else, or where there is no memory, nothing.
    ///
    /// ```
    /// use dgm_core::sampling::{Plan, PlanOptions, Run};
    /// let plan = Plan::compile(&PlanOptions { steps: 20, ..Default::default() })?;
    /// let mut state = vec![0.0; plan.state_len(1, 1 << 20)?];
    /// let run = Run::start(&plan, &[7], 1 << 20, None, &mut state)?;
    /// assert_eq!(run.second_state(&plan, state.len(), 1 << 20).len(), state.len());
    /// assert!(run.second_state(&plan, 64, 64).is_empty());
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn second_state(&self, plan: &Plan, state_len: usize, told: usize) -> Vec<f32> {
        let left = plan.max_evals().saturating_sub(self.counters().evals as usize);
        let pays = state_len >= LARGE && left >= MANY && self.gains(plan, told);
        if !pays || Vec::<f32>::new().try_reserve_exact(state_len).is_err() {
            return Vec::new();
        }
        // Zeros of the system, which nobody touches before the first use.
        vec![0.0; state_len]
    }
}

impl Drop for Turns<'_> {
    fn drop(&mut self) {
        if self.away {
            exec::copy(&self.other, self.state);
        }
    }
}

/// Carries a run (fresh, forked or imported) to its end with `model`.
///
/// `model(request, x, t, y)` reads x `[rows, elements]` and a model time for each row, and fills
/// y `[rows, elements]` (`[rows, 2, elements]` where the plan has two outputs). Outputs of guidance are told together, see
/// [`Run::tell`]. An error of the model stops the walk and leaves the run where it was,
/// ready to be driven on. A walk of many steps over a state of 4 MiB or more takes memory for a second one, and
/// turns with it ([`Run::tell_swap`]): the same bits sooner.
///
/// # Errors
/// Those of the model, of [`Run::ask`] and of [`Run::tell`].
pub fn drive<M>(plan: &Plan, run: &mut Run, state: &mut [f32], mut model: M) -> Result<()>
where
    M: FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()>,
{
    drive_with(plan, run, state, |request, x, t, y, _| model(request, x, t, y))
}

/// [`drive`] for plans that want numbers with every output ([`Plan::numbers`]): the model also fills
/// `numbers`, `[rows, numbers]`.
///
/// # Errors
/// As [`drive`].
pub fn drive_with<M>(plan: &Plan, run: &mut Run, state: &mut [f32], mut model: M) -> Result<()>
where
    M: FnMut(&Request, &[f32], &[f32], &mut [f32], &mut [f64]) -> Result<()>,
{
    run.check(plan, state.len())?;
    let len = run.rows() * run.elements() * plan.outputs();
    // Grows where guidance asks for several outputs of one input.
    let mut y = vec![0.0; len];
    let mut t = vec![0.0; run.rows()];
    let mut numbers = vec![0.0; run.rows() * plan.numbers()];
    let mut turns = Turns::new(state);
    while let Ask::Eval(request) = run.ask(plan)? {
        run.row_times(plan, &mut t)?;
        let count = request.together().count();
        y.resize(y.len().max(count * len), 0.0);
        for (request, y) in request.together().zip(y.chunks_exact_mut(len)) {
            model(&request, run.input(plan, turns.now())?, &t, y, &mut numbers)?;
        }
        turns.tell(plan, run, &request, &y[..count * len], &numbers)?;
    }
    Ok(())
}

/// Starts from noise, walks to the end and returns the finished run; the samples are
/// [`Run::result`], the first `[rows, elements]` of `state`.
///
/// ```
/// use dgm_core::sampling::{Plan, PlanOptions, sample};
/// let plan = Plan::compile(&PlanOptions { steps: 10, ..Default::default() })?;
/// let (seeds, elements) = ([7, 8], 4);
/// let mut state = vec![0.0; plan.state_len(seeds.len(), elements)?];
/// // The velocity that carries everything to the point 3.
/// let run = sample(&plan, &seeds, elements, &mut state, |_, x, t, y| {
///     for (row, (y, x)) in y.chunks_mut(elements).zip(x.chunks(elements)).enumerate() {
///         y.iter_mut().zip(x).for_each(|(y, x)| *y = (x - 3.0) / t[row]);
///     }
///     Ok(())
/// })?;
/// assert!(run.result(&plan, &state)?.iter().all(|x| (x - 3.0).abs() < 1e-5));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// Those of [`Run::start`] and [`drive`].
pub fn sample<M>(plan: &Plan, seeds: &[u64], elements: usize, state: &mut [f32], model: M) -> Result<Run>
where
    M: FnMut(&Request, &[f32], &[f32], &mut [f32]) -> Result<()>,
{
    let mut run = Run::start(plan, seeds, elements, None, state)?;
    drive(plan, &mut run, state, model)?;
    Ok(run)
}
