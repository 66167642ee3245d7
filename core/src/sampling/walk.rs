//! Where the steps of an adaptive plan lie: in model time, or in lambda = ln(alpha / sigma), and where they must end.

use super::adaptive::Control;
use super::options::Solver;
use super::plan::Plan;
use super::process::Node;
use crate::error::{Error, Result};

/// First step in lambda (Lu 2022a, appendix on adaptive steps).
const FIRST_STEP: f64 = 0.05;

impl Solver {
    /// Whether its steps are taken in lambda.
    pub(super) fn walks_lambda(self) -> bool {
        matches!(self, Solver::Dpm12 | Solver::Dpm23)
    }
}

/// The f32 beside a time, on the side of `towards`: what a model that jumps at the time is asked at.
fn beside(t: f64, towards: f64) -> f64 {
    let t = t as f32;
    f64::from(if towards < f64::from(t) { t.next_down() } else { t.next_up() })
}

impl Plan {
    /// A model time as a place of the walk.
    fn place(&self, node: &Node) -> f64 {
        if self.options().solver.walks_lambda() { node.lambda() } else { node.t }
    }

    /// Where the walk begins and ends.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.place(&self.start()), self.place(&self.end()))
    }

    /// The places at which steps must end, in the order of the walk.
    pub(super) fn stops(&self) -> Vec<f64> {
        let times = self.options().stop_at.as_deref().unwrap_or_default();
        times.iter().map(|&t| self.place(&self.levels().node(t))).collect()
    }

    /// The first step to try; 0 where the first slopes tell.
    pub(super) fn first_step(&self) -> f64 {
        match self.options().h_init {
            0.0 if self.options().solver.walks_lambda() => FIRST_STEP,
            h => h,
        }
    }

    /// The level at a place of the walk.
    pub(super) fn node_at(&self, place: f64) -> Node {
        if !self.options().solver.walks_lambda() {
            return self.levels().node(place);
        }
        // The ends are the grid's own, bit for bit.
        match [self.start(), self.end()].into_iter().find(|n| n.lambda() == place) {
            Some(node) => node,
            None => self.levels().at_ratio(libm::exp(-place)),
        }
    }

    /// The level that the model is asked at: beside a stop that of the side on which the step lies.
    pub(super) fn asked_at(&self, control: &Control, fraction: f64) -> Node {
        let place = control.time(fraction);
        let arrives = fraction == 1.0 && !control.done;
        let Some(times) = self.options().stop_at.as_ref().filter(|_| arrives || fraction == 0.0) else {
            return self.node_at(place);
        };
        let Some(&t) = times.iter().find(|t| self.place(&self.levels().node(**t)) == place) else {
            return self.node_at(place);
        };
        let towards = if arrives { self.start().t } else { self.end().t };
        let (low, high) = (self.start().t.min(self.end().t), self.start().t.max(self.end().t));
        self.levels().node(beside(t, towards).clamp(low, high))
    }

    /// The level at a model time: the time of a row of an adaptive plan ([`Run::row_times`](super::Run::row_times))
    /// lies between those of the grid. Behind the noisiest it is what the formula of the process gives.
    ///
    /// # Errors
    /// [`Error::Range`] for a time that is no number, or whose level is none.
    ///
    /// ```
    /// use dgm_core::sampling::{Plan, PlanOptions};
    /// let plan = Plan::compile(&PlanOptions::default())?;
    /// let level = plan.level(0.25)?; // of a flow
    /// assert_eq!((level.alpha, level.sigma), (0.75, 0.25));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn level(&self, t: f64) -> Result<Node> {
        let node = self.levels().node(t);
        if [t, node.alpha, node.sigma].into_iter().all(f64::is_finite) {
            return Ok(node);
        }
        Err(Error::range("t", t, "a finite time of the process"))
    }
}
