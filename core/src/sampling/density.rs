//! Log densities along an ODE by the instantaneous change of variables (Chen 2018): the divergence of
//! f, told with every output, is integrated beside x.
//!
//! Every state tensor has a number beside it in each row, in f64. What happens to the tensors of a row
//! happens to its numbers: they are one more element, whose model output is the divergence.

use super::measure;
use super::options::Likelihood;
use super::plan::Plan;
use super::run::Run;
use crate::error::{Error, Result};
use crate::random::{self, Purpose};
use ndarray::ArrayViewMut2;

/// `ln(2 pi)`
const LN_TAU: f64 = 1.837_877_066_409_345_3;

impl Plan {
    /// Numbers a row to be told with every output ([`Run::tell_with`]): 1 with
    /// [`likelihood`](super::PlanOptions::likelihood), the divergence, and for Markov chains with a test, the log
    /// density; else 0.
    pub fn numbers(&self) -> usize {
        usize::from(self.options().likelihood != Likelihood::None || self.is_tested())
    }

    /// Numbers a row keeps in its run: one beside every state tensor.
    pub(super) fn kept(&self) -> usize {
        self.numbers() * self.table().slots
    }

    fn check_likelihood(&self) -> Result<()> {
        if self.options().likelihood != Likelihood::None {
            return Ok(());
        }
        Err(Error::State("the plan was compiled without likelihood".to_string()))
    }
}

impl Run {
    /// The probe vectors e of Hutchinson's estimate, `[rows, elements]`, one a row for the whole walk: the
    /// number to tell is `e^T J e`, J the Jacobian of f at the input (one product `e^T J` or `J e`). +-1, or
    /// normals, of the stream [`Purpose::Probe`].
    ///
    /// # Errors
    /// [`Error::State`] for another plan or one whose likelihood needs no probe; [`Error::Shape`].
    pub fn probe(&self, plan: &Plan, out: &mut [f32]) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_likelihood()?;
        if out.len() != self.rows() * self.elements {
            let expected = format!("{} x {} elements", self.rows(), self.elements);
            return Err(Error::shape("probe", &[out.len()], expected));
        }
        let view = |out| {
            ArrayViewMut2::from_shape((self.rows(), self.elements), out)
                .map_err(|e| Error::Internal(format!("checked probe: {e}")))
        };
        let purpose = Purpose::Probe as u32;
        match plan.options().likelihood {
            Likelihood::HutchinsonNormal => random::normal(&self.seeds, purpose, 0, view(out)?),
            Likelihood::Hutchinson => {
                random::uniform(&self.seeds, purpose, 0, view(&mut *out)?)?;
                out.iter_mut().for_each(|v| *v = if *v < 0.5 { -1.0 } else { 1.0 });
                Ok(())
            }
            _ => Err(Error::State("the likelihood is exact: its divergence needs no probe".to_string())),
        }
    }

    /// The integral of the divergence over the time walked, one number a row: by so much has the
    /// logarithm of a volume around x grown.
    ///
    /// # Errors
    /// [`Error::State`] for another plan or one without likelihood; [`Error::Shape`] when `out` is not `[rows]`.
    pub fn divergence(&self, plan: &Plan, out: &mut [f64]) -> Result<()> {
        self.check_plan(plan)?;
        plan.check_likelihood()?;
        if out.len() != self.rows() {
            return Err(Error::shape("divergence", &[out.len()], format!("[{}]", self.rows())));
        }
        out.iter_mut().zip(self.numbers.chunks_exact(plan.kept())).for_each(|(o, row)| *o = row[0]);
        Ok(())
    }

    /// The log density of what the run started from, one number a row, when what it ends with is
    /// standard normal: `ln N(x; 0, 1)` of the result plus the [`divergence`](Run::divergence). (Walked the
    /// other way, a sample has `ln N` of its start less the divergence.)
    ///
    /// ```
    /// use dgm_core::sampling::{Likelihood, Plan, PlanOptions, Process, Run, Solver, drive_with};
    /// // Data N(0, 9) becomes noise N(0, 1) along dx/dt = -ln(3) x, whose divergence is -ln(3) an element.
    /// let options = PlanOptions {
    ///     process: Process::Ode,
    ///     solver: Solver::Dopri5,
    ///     likelihood: Likelihood::Exact,
    ///     rtol: 1e-6,
    ///     atol: 1e-6,
    ///     ..Default::default()
    /// };
    /// let plan = Plan::compile(&options)?;
    /// let mut state = vec![0.0; plan.state_len(1, 2)?];
    /// let mut run = Run::start(&plan, &[0], 2, Some(&[3.0, -1.5]), &mut state)?;
    /// let rate = 3f64.ln();
    /// drive_with(&plan, &mut run, &mut state, |_, x, _, y, numbers| {
    ///     y.iter_mut().zip(x).for_each(|(y, x)| *y = -(rate as f32) * x);
    ///     numbers[0] = -2.0 * rate;
    ///     Ok(())
    /// })?;
    /// let mut log_density = [0.0];
    /// run.log_density(&plan, &state, &mut log_density)?;
    /// let exact = -0.5 * (1.0 + 0.25) - (2.0 * std::f64::consts::PI * 9.0).ln();
    /// assert!((log_density[0] - exact).abs() < 1e-3);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::State`] for another plan, one without likelihood, or before the run is done; [`Error::Shape`].
    pub fn log_density(&self, plan: &Plan, state: &[f32], out: &mut [f64]) -> Result<()> {
        self.check(plan, state.len())?;
        plan.check_likelihood()?;
        if !self.is_done(plan) {
            return Err(Error::State("the run is not done: its density is that of no data yet".to_string()));
        }
        self.divergence(plan, out)?;
        let mut base = vec![0.0; self.rows()];
        normal_log_density(self.result(plan, state)?, self.elements, &mut base)?;
        out.iter_mut().zip(base).for_each(|(o, base)| *o += base);
        Ok(())
    }
}

/// `ln N(x; 0, 1)` of every row of x, `[rows, elements]`.
///
/// # Errors
/// [`Error::Shape`] when x is not so many elements for every number of `out`.
pub fn normal_log_density(x: &[f32], elements: usize, out: &mut [f64]) -> Result<()> {
    if elements == 0 || x.len() != out.len() * elements {
        return Err(Error::shape("x", &[x.len()], format!("{} x {elements} elements, not 0", out.len())));
    }
    for (out, x) in out.iter_mut().zip(x.chunks_exact(elements)) {
        *out = -0.5 * (measure::squares(x) + elements as f64 * LN_TAU);
    }
    Ok(())
}

/// Bits per dimension of a log density over so many elements: `-log_density / (elements ln 2)`. Add
/// `log2` of the number of levels where data in [0, 1] was made of so many, dequantised.
///
/// ```
/// use dgm_core::sampling::bits_per_dimension;
/// assert_eq!(bits_per_dimension(-2.0 * std::f64::consts::LN_2, 2), 1.0);
/// ```
pub fn bits_per_dimension(log_density: f64, elements: usize) -> f64 {
    -log_density / (elements as f64 * std::f64::consts::LN_2)
}
