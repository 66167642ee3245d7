//! Stochastic differential equations with diagonal noise, `dx = f(x, t) dt + g(x, t) dW` element by
//! element: the model returns f and g one after the other.
//!
//! A step of h has `w = sqrt|h|`; drift is multiplied by h itself, so time may run down (reverse-time
//! equations). With two normals z and u of the step the iterated integrals are `I1 = w z`,
//! `I11 = w^2 (z^2 - 1) / 2`, `I111 = w^3 (z^3 - 3 z) / 6` and `I10 = w^3 (z + u / sqrt(3)) / 2`.

use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Noisy, Operand, Row, Sum, X};

const SQRT_3: f64 = 1.732_050_807_568_877_2;

/// What multiplies g: `z a + u b + (z^2 - 1) c + (z^3 - 3 z) d`.
type Weights = [f64; 4];

/// The integrals over the powers of h that methods divide them by.
const I1: Weights = [1.0, 0.0, 0.0, 0.0];
const I11: Weights = [0.0, 0.0, 0.5, 0.0];
const I111: Weights = [0.0, 0.0, 0.0, 1.0 / 6.0];
const I10: Weights = [0.5, 0.5 / SQRT_3, 0.0, 0.0];

/// A sum of integrals.
fn mix(parts: &[(f64, Weights)]) -> Weights {
    let mut sum = [0.0; 4];
    for (factor, part) in parts {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += factor * p);
    }
    sum
}

/// One step.
struct Step<'a, 'b> {
    b: &'a mut Builder<'b>,
    from: Node,
    to: Node,
    index: usize,
    /// The step, and the square root of its length.
    h: f64,
    w: f64,
}

impl Step<'_, '_> {
    /// Asks for f and g a fraction of the way through the step.
    fn ask(&mut self, stage: u16, fraction: f64, slot: Operand) -> Result<()> {
        let node = if fraction == 0.0 {
            self.from
        } else if fraction == 1.0 {
            self.to
        } else {
            self.b.levels.node(self.from.t + fraction * self.h)
        };
        self.b.eval(At::Node(node), self.index, stage, slot).map(|_| ())
    }

    /// `dst = from + factor h f`
    fn drift(&mut self, dst: Operand, from: Operand, factor: f64, f: Operand) {
        self.b.lin(dst, Sum::of(from, 1.0).plus(f, factor * self.h));
    }

    /// `dst += w (weights of the normals) g`
    fn kick(&mut self, dst: Operand, g: Operand, weights: Weights) {
        let second = if weights[1] == 0.0 { Operand::Noise } else { self.b.fresh(self.index, 1) };
        let Operand::Slot(dst) = dst else { unreachable!("kicks change state tensors") };
        self.b.push(Row::Noisy(Noisy { dst, g, second, weights: weights.map(|v| v * self.w) }));
    }
}

fn steps(
    b: &mut Builder<'_>,
    grid: &[Node],
    mut each: impl FnMut(&mut Step<'_, '_>) -> Result<()>,
) -> Result<()> {
    for (index, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let h = to.t - from.t;
        each(&mut Step { b: &mut *b, from, to, index, h, w: libm::sqrt(h.abs()) })?;
    }
    Ok(())
}

/// Maruyama 1955: strong order 1/2, 1 for additive noise; weak order 1.
pub(super) fn euler_maruyama(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    steps(b, grid, |s| {
        s.ask(0, 0.0, X)?;
        s.drift(X, X, 1.0, Operand::Model);
        s.kick(X, Operand::Second, I1);
        Ok(())
    })
}

/// Milstein's method without derivatives (Kloeden & Platen 1992, 11.1): strong order 1.
pub(super) fn milstein(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (sum, g, stage) = (b.slot(), b.slot(), b.slot());
    steps(b, grid, |s| {
        s.ask(0, 0.0, X)?;
        s.drift(sum, X, 1.0, Operand::Model);
        s.b.lin(g, Sum::of(Operand::Second, 1.0));
        s.b.lin(stage, Sum::of(sum, 1.0).plus(Operand::Second, s.w));
        s.ask(1, 0.0, stage)?;
        s.kick(sum, g, mix(&[(1.0, I1), (-1.0, I11)]));
        s.kick(sum, Operand::Second, I11);
        s.b.lin(X, Sum::of(sum, 1.0));
        Ok(())
    })
}

/// Heun's method for Stratonovich equations: strong order 1 for noise that commutes.
pub(super) fn heun(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (sum, stage) = (b.slot(), b.slot());
    let half = mix(&[(0.5, I1)]);
    steps(b, grid, |s| {
        s.ask(0, 0.0, X)?;
        s.drift(stage, X, 1.0, Operand::Model);
        s.kick(stage, Operand::Second, I1);
        s.drift(sum, X, 0.5, Operand::Model);
        s.kick(sum, Operand::Second, half);
        s.ask(1, 1.0, stage)?;
        s.drift(X, sum, 0.5, Operand::Model);
        s.kick(X, Operand::Second, half);
        Ok(())
    })
}

/// SRA1 of Roessler 2010: strong order 3/2 where g does not depend on x.
pub(super) fn sra1(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let (sum, stage, g) = (b.slot(), b.slot(), b.slot());
    steps(b, grid, |s| {
        s.ask(0, 0.0, X)?;
        s.drift(sum, X, 1.0 / 3.0, Operand::Model);
        s.drift(stage, X, 0.75, Operand::Model);
        s.b.lin(g, Sum::of(Operand::Second, 1.0));
        s.ask(1, 1.0, X)?;
        s.kick(stage, Operand::Second, mix(&[(1.5, I10)]));
        s.kick(sum, Operand::Second, mix(&[(1.0, I1), (-1.0, I10)]));
        s.kick(sum, g, I10);
        s.ask(2, 0.75, stage)?;
        s.drift(X, sum, 2.0 / 3.0, Operand::Model);
        Ok(())
    })
}

/// SRIW1 of Roessler 2010: strong order 3/2 for diagonal noise of any kind.
pub(super) fn sriw1(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let [sum, second, f, g, stage, fourth] = std::array::from_fn(|_| b.slot());
    let beta = |a: f64, b: f64, c: f64, d: f64| mix(&[(a, I1), (b, I11), (c, I10), (d, I111)]);
    steps(b, grid, |s| {
        let w = s.w;
        s.ask(0, 0.0, X)?;
        s.b.lin(f, Sum::of(Operand::Model, 1.0));
        s.b.lin(g, Sum::of(Operand::Second, 1.0));
        s.drift(sum, X, 1.0 / 3.0, f);
        s.kick(sum, g, beta(-1.0, -1.0, 2.0, -2.0));
        s.drift(second, X, 0.75, f);
        s.kick(second, g, mix(&[(1.5, I10)]));
        s.drift(stage, X, 0.25, f);
        s.b.lin(stage, Sum::of(stage, 1.0).plus(g, 0.5 * w));
        s.ask(1, 0.25, stage)?;
        s.kick(sum, Operand::Second, beta(4.0 / 3.0, 4.0 / 3.0, -4.0 / 3.0, 5.0 / 3.0));
        s.drift(fourth, X, 0.25, f);
        s.b.lin(fourth, Sum::of(fourth, 1.0).plus(g, -5.0 * w).plus(Operand::Second, 3.0 * w));
        s.drift(stage, X, 1.0, f);
        s.b.lin(stage, Sum::of(stage, 1.0).plus(g, -w));
        s.ask(2, 1.0, stage)?;
        s.kick(sum, Operand::Second, beta(2.0 / 3.0, -1.0 / 3.0, -2.0 / 3.0, -2.0 / 3.0));
        s.b.lin(stage, Sum::of(fourth, 1.0).plus(Operand::Second, 0.5 * w));
        s.ask(3, 0.25, stage)?;
        s.kick(sum, Operand::Second, beta(0.0, 0.0, 0.0, 1.0));
        s.ask(4, 0.75, second)?;
        s.drift(X, sum, 2.0 / 3.0, Operand::Model);
        Ok(())
    })
}
