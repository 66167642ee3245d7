//! Linear multistep methods on the ODE coordinate: LMS, iPNDM, PLMS, PNDM, gradient estimation.
//!
//! Slopes of earlier steps rotate through a ring of state tensors. A step from a level without
//! signal, whose coordinate is infinite, is first order and leaves no history.

use super::common::simple_step;
use super::weights::adams;
use crate::error::Result;
use crate::sampling::builder::{Builder, FREE};
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// Adams-Bashforth for even steps, newest slope first.
const EVEN: [&[f64]; 4] = [
    &[1.0],
    &[3.0 / 2.0, -1.0 / 2.0],
    &[23.0 / 12.0, -16.0 / 12.0, 5.0 / 12.0],
    &[55.0 / 24.0, -59.0 / 24.0, 37.0 / 24.0, -9.0 / 24.0],
];

/// How the slopes of a step are weighed.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// Exact for the grid as it is.
    Grid,
    /// As if the steps were even.
    Even,
    /// `2 d - d_before` (Permenter & Yuan 2024, gamma 2).
    Extrapolated,
}

/// The slopes before this step.
struct History {
    ring: Vec<Operand>,
    /// Coordinates of the slopes kept, newest first.
    places: Vec<f64>,
    newest: usize,
}

impl History {
    fn new(b: &mut Builder<'_>, most: usize) -> History {
        History { ring: (1..most).map(|_| b.slot()).collect(), places: Vec::new(), newest: 0 }
    }

    /// The slope `back` steps before the current one, from 1.
    fn slope(&self, back: usize) -> Operand {
        let n = self.ring.len();
        self.ring[(self.newest + n - (back - 1)) % n]
    }

    /// Keeps the slope in `FREE`.
    fn keep(&mut self, b: &mut Builder<'_>, place: f64) {
        if self.ring.is_empty() {
            return;
        }
        self.newest = (self.newest + 1) % self.ring.len();
        b.lin(self.ring[self.newest], Sum::of(FREE, 1.0));
        self.places.insert(0, place);
        self.places.truncate(self.ring.len());
    }
}

fn infinite(b: &Builder<'_>, node: &Node) -> bool {
    node.alpha == 0.0 && b.levels.coordinate(node).0 == 0.0
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], rule: Rule) -> Result<()> {
    let most = if rule == Rule::Extrapolated { 2 } else { b.order() };
    let mut history = History::new(b, most);
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        if infinite(b, &from) {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        linear(b, &mut history, &from, &to, y, rule)?;
    }
    Ok(())
}

/// One step with the slope of the output `y` and the history.
fn linear(
    b: &mut Builder<'_>,
    history: &mut History,
    from: &Node,
    to: &Node,
    y: Operand,
    rule: Rule,
) -> Result<()> {
    let slope = b.derivative(from, X, y)?;
    b.lin(FREE, slope);
    let ((m0, c0), (m1, c1)) = (b.levels.coordinate(from), b.levels.coordinate(to));
    let h = c1 - c0;
    let weights = match rule {
        Rule::Even => EVEN[history.places.len()].to_vec(),
        Rule::Extrapolated if history.places.is_empty() || to.sigma == 0.0 => vec![1.0],
        Rule::Extrapolated => vec![2.0, -1.0],
        Rule::Grid => {
            let places = history.places.iter().map(|c| (c - c0) / h);
            adams(&[0.0].into_iter().chain(places).collect::<Vec<_>>())
        }
    };
    let mut sum = Sum::of(X, m1 / m0);
    for (back, w) in weights.iter().enumerate() {
        let d = if back == 0 { FREE } else { history.slope(back) };
        sum = sum.plus(d, m1 * h * w);
    }
    b.lin(X, sum);
    history.keep(b, c0);
    Ok(())
}

/// PLMS: the first step is the mean of the slopes at both its ends, for one evaluation more.
pub(super) fn plms(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let mut history = History::new(b, 4);
    let before = b.slot();
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        if infinite(b, &from) {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        if !history.places.is_empty() || !b.has_derivative(&to) {
            linear(b, &mut history, &from, &to, y, Rule::Even)?;
            continue;
        }
        b.lin(before, Sum::of(X, 1.0));
        let ((m0, c0), (m1, c1)) = (b.levels.coordinate(&from), b.levels.coordinate(&to));
        let h = c1 - c0;
        linear(b, &mut history, &from, &to, y, Rule::Even)?;
        let first = history.slope(1);
        let y = b.eval(At::Node(to), step, 1, X)?;
        let slope = b.derivative(&to, X, y)?;
        b.lin(FREE, slope);
        b.lin(X, Sum::of(before, m1 / m0).plus(FREE, 0.5 * m1 * h).plus(first, 0.5 * m1 * h));
    }
    Ok(())
}

/// PNDM: three Runge-Kutta steps whose inner stages lie in the middle of the model times.
pub(super) fn pndm(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let mut history = History::new(b, 4);
    let (stage, total) = (b.slot(), b.slot());
    for (step, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), step, 0, X)?;
        if infinite(b, &from) {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        if history.places.len() == 3 || !b.has_derivative(&to) {
            linear(b, &mut history, &from, &to, y, Rule::Even)?;
            continue;
        }
        let middle = b.levels.node(0.5 * (from.t + to.t));
        let (m0, c0) = b.levels.coordinate(&from);
        let reach = |b: &Builder<'_>, node: &Node| {
            let (m, c) = b.levels.coordinate(node);
            (m / m0, m * (c - c0))
        };
        let slope = b.derivative(&from, X, y)?;
        b.lin(FREE, slope);
        b.lin(total, Sum::of(FREE, 1.0 / 6.0));
        history.keep(b, c0);
        let stages = [(middle, 1.0 / 3.0), (middle, 1.0 / 3.0), (to, 1.0 / 6.0)];
        for (i, (at, weight)) in stages.into_iter().enumerate() {
            // The slope before carries x to where it is looked at next.
            let (keep, h) = reach(b, &at);
            b.lin(stage, Sum::of(X, keep).plus(FREE, h));
            let y = b.eval(At::Node(at), step, i as u16 + 1, stage)?;
            let slope = b.derivative(&at, stage, y)?;
            b.lin(FREE, slope);
            b.lin(total, Sum::of(total, 1.0).plus(FREE, weight));
        }
        let (keep, h) = reach(b, &to);
        b.lin(X, Sum::of(X, keep).plus(total, h));
    }
    Ok(())
}
