//! Gaussian mixtures: densities whose every noised marginal is known exactly.
//!
//! | file | idea |
//! |---|---|
//! | `level` | what depends on the noise level alone |
//! | `kernel` | rows in the lanes of vectors, and the log density in f64 |

mod kernel;
mod level;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use ndarray::{ArrayView2, ArrayViewMut2};

use crate::error::{Error, Result, check_shape};
use crate::sampling::{Plan, Prediction, Process, Request, RowModel, Solver, Variance};
use crate::threads;
use kernel::Kernels;
use level::Level;

/// `p(x_0) = sum_k w_k N(x_0; mu_k, diag v_k)`, and with it the marginals of `x_t = alpha x_0 + sigma eps`,
/// which are mixtures again: `sum_k w_k N(x_t; alpha mu_k, diag(alpha^2 v_k + sigma^2))`.
///
/// So the model that a diffusion or a flow would have to learn is known, of every kind of prediction: the best answer
/// there is. Immutable; shared freely between threads.
///
/// ```
/// use dgm_core::models::GaussianMixture;
/// use ndarray::array;
/// let mixture = GaussianMixture::new(&[1.0, 1.0], &[-2.0, 0.0, 2.0, 0.0], &[1.0, 1.0])?;
/// assert_eq!((mixture.components(), mixture.dims()), (2, 2));
/// let (x, mut score) = (array![[0.0, 3.0f32]], array![[0.0, 0.0f32]]);
/// mixture.score(1.0, 0.0, x.view(), score.view_mut())?;
/// assert_eq!(score, array![[0.0, -3.0]]); // half way between the components, 3 above them
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct GaussianMixture {
    /// What tells it from others; a copy has the same.
    id: u64,
    dims: usize,
    /// Natural logarithms of the normalised weights, `[K]`.
    log_weights: Vec<f64>,
    /// `[K, D]`
    means: Vec<f64>,
    /// `[K, D]`
    variances: Vec<f64>,
}

/// Largest number of components times dimensions, and of components: an evaluation has scratch for their shares.
const MOST: usize = 1 << 24;
const MOST_COMPONENTS: usize = 1 << 20;
/// How many were made.
static CREATED: AtomicU64 = AtomicU64::new(0);
/// Rows an evaluation takes at a time.
const ROWS: usize = 256;

impl GaussianMixture {
    /// A mixture of K components in D dimensions.
    ///
    /// * `weights` `[K]`: above 0; they are divided by their sum.
    /// * `means` `[K, D]`, row-major.
    /// * `variances` `[K]`, one for all dimensions, or `[K, D]`; not negative. A component of variance 0 is a
    ///   point, which has a density where a noise level gives it one.
    ///
    /// # Errors
    /// [`Error::Shape`] or [`Error::Range`] naming the argument.
    pub fn new(weights: &[f64], means: &[f64], variances: &[f64]) -> Result<GaussianMixture> {
        let count = weights.len();
        if count == 0 {
            return Err(Error::shape("weights", &[0], "[K], at least one"));
        }
        if count > MOST_COMPONENTS {
            return Err(Error::shape("weights", &[count], format!("[K], at most {MOST_COMPONENTS}")));
        }
        if means.is_empty() || !means.len().is_multiple_of(count) || means.len() > MOST {
            let expected = format!("[{count}, D], D at least 1, at most {MOST} numbers");
            return Err(Error::shape("means", &[means.len()], expected));
        }
        let dims = means.len() / count;
        if variances.len() != count && variances.len() != means.len() {
            let expected = format!("[{count}] or [{count}, {dims}]");
            return Err(Error::shape("variances", &[variances.len()], expected));
        }
        check_numbers("weights", weights, |w| w > 0.0, "finite numbers above 0")?;
        check_numbers("means", means, |_| true, "finite numbers")?;
        check_numbers("variances", variances, |v| v >= 0.0, "finite numbers, not negative")?;
        let sum: f64 = weights.iter().sum();
        if !sum.is_finite() {
            return Err(Error::range("weights", "with an infinite sum", "weights whose sum is finite"));
        }
        let log_sum = libm::log(sum);
        let each = means.len() / variances.len();
        Ok(GaussianMixture {
            id: CREATED.fetch_add(1, Ordering::Relaxed),
            dims,
            log_weights: weights.iter().map(|w| libm::log(*w) - log_sum).collect(),
            means: means.to_vec(),
            variances: variances.iter().flat_map(|v| std::iter::repeat_n(*v, each)).collect(),
        })
    }

    /// Number of components K.
    pub fn components(&self) -> usize {
        self.log_weights.len()
    }

    /// Number of dimensions D.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// What the best model answers: the expectation of its target given `x_t = x`.
    ///
    /// * `prediction`: any but consistency. For edm, edm_v and trigflow x is what the network reads, scaled, and the
    ///   answer that of the raw network.
    /// * `alpha`, `sigma`: weights of data and noise at the level, finite, not negative.
    /// * `sigma_data`: as in the plan, above 0; read by edm, edm_v and trigflow alone.
    /// * `x`, `out`: `[rows, D]`, row-major contiguous. A row's bits do not depend on the others. NaN where x is not
    ///   finite, or so far away that its squared distance in standard deviations exceeds f32.
    ///
    /// ```
    /// use dgm_core::{models::GaussianMixture, sampling::Prediction};
    /// use ndarray::array;
    /// // x_t = 0.6 x_0 + 0.8 eps of standard normals: x_0 is expected at 0.6 x_t.
    /// let normal = GaussianMixture::new(&[1.0], &[0.0], &[1.0])?;
    /// let mut x0 = array![[0.0f32]];
    /// normal.evaluate(Prediction::X0, 0.6, 0.8, 0.5, array![[2.0f32]].view(), x0.view_mut())?;
    /// assert_eq!(x0, array![[1.2]]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`], [`Error::Range`] or [`Error::Argument`] naming the argument; also for a
    /// component of variance 0 without noise, and for deviations that f32 cannot hold.
    pub fn evaluate(
        &self,
        prediction: Prediction,
        alpha: f64,
        sigma: f64,
        sigma_data: f64,
        x: ArrayView2<f32>,
        mut out: ArrayViewMut2<f32>,
    ) -> Result<()> {
        self.check_x(x)?;
        check_shape("out", out.shape(), x.shape())?;
        let (x, out) = (adjacent("x", x.as_slice())?, adjacent("out", out.as_slice_mut())?);
        let mut level = Level::default();
        level.set(self, prediction, alpha, sigma, sigma_data)?;
        let (level, part) = (&level, ROWS * self.dims);
        let work = x.len() as u64 * 4 * self.components() as u64;
        threads::for_each(x.chunks(part).zip(out.chunks_mut(part)), work, |(x, out)| {
            Kernels::default().predict(level, x, out);
        });
        Ok(())
    }

    /// The gradient of [`log_density`](GaussianMixture::log_density): [`evaluate`](GaussianMixture::evaluate) of
    /// the prediction score.
    ///
    /// # Errors
    /// As [`evaluate`](GaussianMixture::evaluate).
    pub fn score(&self, alpha: f64, sigma: f64, x: ArrayView2<f32>, out: ArrayViewMut2<f32>) -> Result<()> {
        self.evaluate(Prediction::Score, alpha, sigma, 1.0, x, out)
    }

    /// `ln p(x)` of the noised marginal, for every row of x, `[rows, D]`; computed in f64. With `alpha` 1 and `sigma` 0
    /// that is the density of the mixture itself.
    ///
    /// ```
    /// use dgm_core::models::GaussianMixture;
    /// let normal = GaussianMixture::new(&[2.0], &[0.0], &[1.0])?;
    /// let mut density = [0.0];
    /// normal.log_density(1.0, 0.0, ndarray::array![[1.0f32]].view(), &mut density)?;
    /// assert!((density[0] + 0.5 + 0.5 * (2.0 * std::f64::consts::PI).ln()).abs() < 1e-15);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`evaluate`](GaussianMixture::evaluate); [`Error::Shape`] when `out` is not `[rows]`.
    pub fn log_density(&self, alpha: f64, sigma: f64, x: ArrayView2<f32>, out: &mut [f64]) -> Result<()> {
        self.check_x(x)?;
        check_shape("log_density", &[out.len()], &[x.nrows()])?;
        let x = adjacent("x", x.as_slice())?;
        let mut level = Level::default();
        level.set(self, Prediction::Score, alpha, sigma, 1.0)?;
        let (level, work) = (&level, x.len() as u64 * 20 * self.components() as u64);
        let parts = x.chunks(ROWS * self.dims).zip(out.chunks_mut(ROWS));
        threads::for_each(parts, work, |(x, out)| Kernels::default().log_density(level, x, out));
        Ok(())
    }

    fn check_x(&self, x: ArrayView2<f32>) -> Result<()> {
        if x.ncols() == self.dims {
            return Ok(());
        }
        Err(Error::shape("x", x.shape(), format!("[rows, {}]", self.dims)))
    }

    /// Answers a request of a plan: y `[rows, D]`, and `numbers`, the log density a row, where the plan wants them
    /// ([`Plan::numbers`]). What a callback of [`sample`](crate::sampling::sample) calls;
    /// [`drive_rows`](crate::sampling::drive_rows) does without one.
    ///
    /// The level is that of the request; for adaptive solvers, whose rows go at their own pace, that of the time of
    /// each row, rounded to f32.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the option of the plan that a mixture has no answer to, else as
    /// [`evaluate`](GaussianMixture::evaluate).
    pub fn predict(
        &self,
        plan: &Plan,
        request: &Request,
        x: &[f32],
        t: &[f32],
        y: &mut [f32],
        numbers: &mut [f64],
    ) -> Result<()> {
        RowModel::predict(self, plan, request, x, t, y, numbers, &mut Scratch::default())
    }
}

/// What a walk with a mixture keeps between evaluations.
#[derive(Debug, Default)]
pub struct Scratch {
    level: Level,
    kernels: Kernels,
}

impl RowModel for GaussianMixture {
    type Scratch = Scratch;

    fn check(&self, plan: &Plan, elements: usize) -> Result<()> {
        if elements != self.dims {
            return Err(Error::argument("elements", elements, format!("{}, the dimensions", self.dims)));
        }
        let o = plan.options();
        let refuse = |arg, got: &str, expected| Err(Error::argument(arg, got, expected));
        if matches!(o.process, Process::Ode | Process::Sde) {
            return refuse("process", o.process.name(), "target or one that mixes noise into data");
        }
        if o.prediction == Prediction::Consistency {
            return refuse("prediction", "consistency", "one that follows from the score");
        }
        if o.solver == Solver::FlowMap {
            return refuse("solver", "flow_map", "one that asks for no average over a step");
        }
        if o.variance == Variance::LearnedRange {
            return refuse("variance", "learned_range", "one that is not learned");
        }
        if o.guidance != 1.0 {
            return Err(Error::argument("guidance", o.guidance, "1: a mixture knows no condition"));
        }
        if o.guidance_weak != 1.0 {
            return Err(Error::argument("guidance_weak", o.guidance_weak, "1: there is no weaker mixture"));
        }
        if o.per_row {
            return refuse("per_row", "true", "false");
        }
        Ok(())
    }

    fn predict(
        &self,
        plan: &Plan,
        request: &Request,
        x: &[f32],
        t: &[f32],
        y: &mut [f32],
        numbers: &mut [f64],
        scratch: &mut Scratch,
    ) -> Result<()> {
        let rows = request.rows;
        self.check(plan, request.elements)?;
        check_shape("x", &[x.len()], &[rows * self.dims])?;
        check_shape("t", &[t.len()], &[rows])?;
        check_shape("y", &[y.len()], &[rows * self.dims])?;
        check_shape("numbers", &[numbers.len()], &[rows * plan.numbers()])?;
        let Scratch { level, kernels } = scratch;
        let o = plan.options();
        if o.solver.is_adaptive() {
            let rows = x.chunks_exact(self.dims).zip(y.chunks_exact_mut(self.dims)).zip(t);
            for ((x, y), &t) in rows {
                let node = plan.level(f64::from(t))?;
                level.set(self, o.prediction, node.alpha, node.sigma, o.sigma_data)?;
                kernels.predict(level, x, y);
            }
            return Ok(());
        }
        let (alpha, sigma) =
            if o.process == Process::Target { (1.0, 0.0) } else { (request.alpha, request.sigma) };
        level.set(self, o.prediction, alpha, sigma, o.sigma_data)?;
        kernels.predict(level, x, y);
        if !numbers.is_empty() {
            kernels.log_density(level, x, numbers);
        }
        Ok(())
    }
}

fn check_numbers(
    arg: &'static str,
    values: &[f64],
    fits: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<()> {
    match values.iter().position(|v| !v.is_finite() || !fits(*v)) {
        None => Ok(()),
        Some(i) => Err(Error::range(arg, format!("{} at {i}", values[i]), expected)),
    }
}

fn adjacent<T>(arg: &'static str, slice: Option<T>) -> Result<T> {
    slice.ok_or_else(|| Error::Stride {
        arg,
        got: "not contiguous".to_string(),
        expected: "row-major contiguous memory".to_string(),
    })
}
