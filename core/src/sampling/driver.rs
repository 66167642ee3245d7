//! Callback shells over ask and tell.

use super::plan::Plan;
use super::run::{Ask, Request, Run};
use crate::error::Result;

/// Carries a run (fresh, forked or imported) to its end with `model`.
///
/// `model(request, x, t, y)` reads x `[rows, elements]` and a model time for each row, and fills
/// y `[rows, elements]` (`[rows, 2, elements]` where the plan has two outputs). Outputs of guidance are told together, see
/// [`Run::tell`]. An error of the model stops the walk and leaves the run where it was,
/// ready to be driven on.
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
    while let Ask::Eval(request) = run.ask(plan)? {
        run.row_times(plan, &mut t)?;
        let count = request.together().count();
        y.resize(y.len().max(count * len), 0.0);
        for (request, y) in request.together().zip(y.chunks_exact_mut(len)) {
            model(&request, run.input(plan, state)?, &t, y, &mut numbers)?;
        }
        run.tell_with(plan, state, request.eval_id, &y[..count * len], &numbers)?;
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
