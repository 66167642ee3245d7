//! Singlestep exponential integrators in lambda, orders 1 to 3: DPM-Solver (Lu 2022a), its ++ form
//! (Lu 2022b), RES 2S (Zhang 2023), and SEEDS, the stochastic ones (Gonzalez 2023).
//!
//! Inner levels lie at fractions of the step in lambda. diffusers lets two or three steps of the
//! grid be one step of the method instead, and its compatibility mode does so too.

use super::common::{Landing, first_order, simple_step};
use crate::error::Result;
use crate::sampling::builder::Builder;
use crate::sampling::options::Compat;
use crate::sampling::process::Node;
use crate::sampling::table::{At, Operand, Sum, X};

/// What a method keeps constant over a step.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Form {
    Data,
    Noise,
}

/// `(e^z - 1) / z - 1` for the phi functions; z is -h in x0, h in eps.
pub(super) fn phi_less(z: f64) -> f64 {
    if z.abs() > 0.5 {
        return libm::expm1(z) / z - 1.0;
    }
    // z/2 + z^2/6 + ..., which does not cancel.
    let mut term = z / 2.0;
    let mut sum = term;
    for k in 3..25 {
        term *= z / f64::from(k);
        sum += term;
    }
    sum
}

/// A step of some order between two levels.
struct Step {
    form: Form,
    from: Node,
    /// First numbers of the table's steps for the evaluations.
    numbers: [usize; 3],
}

impl Step {
    /// x carried over the fraction of the step that ends at `to`, the quantity constant.
    fn straight(&self, to: &Node, value: Operand) -> Sum {
        let h = to.lambda() - self.from.lambda();
        match self.form {
            Form::Data => Sum::of(X, to.sigma / self.from.sigma).plus(value, -to.alpha * libm::expm1(-h)),
            Form::Noise => Sum::of(X, to.alpha / self.from.alpha).plus(value, -to.sigma * libm::expm1(h)),
        }
    }

    /// The weight of a difference between two evaluations that lie 1 step apart.
    fn bend(&self, to: &Node) -> f64 {
        let h = to.lambda() - self.from.lambda();
        match self.form {
            Form::Data => -to.alpha * phi_less(-h),
            Form::Noise => -to.sigma * phi_less(h),
        }
    }

    fn value(&self, b: &mut Builder<'_>, node: &Node, x: Operand, y: Operand) -> Result<Sum> {
        match self.form {
            Form::Data => b.data(node, x, y),
            Form::Noise => b.eps(node, x, y),
        }
    }
}

/// State tensors of a step: the inner state and the first value.
struct Slots {
    stage: Operand,
    first: Operand,
}

pub(super) fn build(b: &mut Builder<'_>, grid: &[Node], form: Form) -> Result<()> {
    let order = b.order();
    let slots = Slots { stage: b.slot(), first: b.slot() };
    if b.options().compat == Compat::Diffusers {
        return grouped(b, grid, form, order, &slots);
    }
    for (i, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        if !from.is_mixed() || !to.is_mixed() || order == 1 {
            let y = b.eval(At::Node(from), i, 0, X)?;
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        let (l0, l1) = (from.lambda(), to.lambda());
        let at = |b: &Builder<'_>, r: f64| b.levels.at_ratio(libm::exp(-(l0 + r * (l1 - l0))));
        let inner: Vec<Node> = match order {
            2 => vec![at(b, 0.5)],
            _ => vec![at(b, 1.0 / 3.0), at(b, 2.0 / 3.0)],
        };
        step(b, &Step { form, from, numbers: [i; 3] }, &inner, &to, &slots, order == 2)?;
    }
    Ok(())
}

/// Steps of the grid in groups of `order`, one shorter group at the end.
fn grouped(b: &mut Builder<'_>, grid: &[Node], form: Form, order: usize, slots: &Slots) -> Result<()> {
    let mut i = 0;
    while i + 1 < grid.len() {
        let mut count = order.min(grid.len() - 1 - i);
        if grid[i..=i + count].iter().any(|n| !n.is_mixed()) {
            count = 1;
        }
        if count == 1 {
            let y = b.eval(At::Node(grid[i]), i, 0, X)?;
            simple_step(b, &grid[i], &grid[i + 1], X, y)?;
        } else {
            let s = Step { form, from: grid[i], numbers: [i, i + 1, i + 2] };
            step(b, &s, &grid[i + 1..i + count], &grid[i + count], slots, false)?;
        }
        i += count;
    }
    Ok(())
}

/// One step of order 2 or 3; `middle` when the only inner level is the middle of the step.
fn step(b: &mut Builder<'_>, s: &Step, inner: &[Node], to: &Node, slots: &Slots, middle: bool) -> Result<()> {
    let h = to.lambda() - s.from.lambda();
    let r = |n: &Node| (n.lambda() - s.from.lambda()) / h;
    let own_stage = |i: usize| if s.numbers[0] == s.numbers[1] { i as u16 } else { 0 };
    let y = b.eval(At::Node(s.from), s.numbers[0], 0, X)?;
    let value = s.value(b, &s.from, X, y)?;
    b.lin(slots.first, value);
    b.lin(slots.stage, s.straight(&inner[0], slots.first));
    let y = b.eval(At::Node(inner[0]), s.numbers[1], own_stage(1), slots.stage)?;
    let value = s.value(b, &inner[0], slots.stage, y)?;
    if inner.len() == 1 {
        let sum = if middle {
            // The weight of the first value is 1 - 1 / (2 r) = 0.
            let mut sum = s.straight(to, slots.first);
            let whole = sum.0.pop().map_or(0.0, |t| t.coefficient);
            sum = sum.plus_sum(&value, whole);
            sum
        } else {
            let whole = s.straight(to, slots.first);
            let total = whole.0.last().map_or(0.0, |t| t.coefficient) * 0.5 / r(&inner[0]);
            whole.plus_sum(&value, total).plus(slots.first, -total)
        };
        b.lin(X, sum);
        return Ok(());
    }
    let sum = s.straight(&inner[1], slots.first);
    let between = r(&inner[0]) / r(&inner[1]);
    let bend = if s.numbers[0] == s.numbers[1] {
        s.bend(&inner[1]) / between
    } else {
        // In groups the second inner level is a step of order 2 of its own.
        sum.0.last().map_or(0.0, |t| t.coefficient) * 0.5 / between
    };
    let sum = sum.plus_sum(&value, bend).plus(slots.first, -bend);
    b.lin(slots.stage, sum);
    let y = b.eval(At::Node(inner[1]), s.numbers[2], own_stage(2), slots.stage)?;
    let value = s.value(b, &inner[1], slots.stage, y)?;
    let bend = s.bend(to) / r(&inner[1]);
    b.lin(X, s.straight(to, slots.first).plus_sum(&value, bend).plus(slots.first, -bend));
    Ok(())
}

/// RES 2S: x0 linear between the start and the middle of lambda, integrated exactly.
pub(super) fn res_2s(b: &mut Builder<'_>, grid: &[Node]) -> Result<()> {
    let slots = Slots { stage: b.slot(), first: b.slot() };
    for (i, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), i, 0, X)?;
        if !from.is_mixed() || !to.is_mixed() {
            simple_step(b, &from, &to, X, y)?;
            continue;
        }
        let s = Step { form: Form::Data, from, numbers: [i; 3] };
        let node = b.levels.at_ratio(libm::exp(-0.5 * (from.lambda() + to.lambda())));
        let value = s.value(b, &from, X, y)?;
        b.lin(slots.first, value);
        b.lin(slots.stage, s.straight(&node, slots.first));
        let y = b.eval(At::Node(node), i, 1, slots.stage)?;
        let value = s.value(b, &node, slots.stage, y)?;
        let bend = s.bend(&to) / 0.5;
        b.lin(X, s.straight(&to, slots.first).plus_sum(&value, bend).plus(slots.first, -bend));
    }
    Ok(())
}

/// SEEDS with 1 or 2 inner levels. The noise of the inner levels is that of the step so far.
pub(super) fn seeds(b: &mut Builder<'_>, grid: &[Node], fractions: &[f64]) -> Result<()> {
    let (stage, first, noise) = (b.slot(), b.slot(), b.slot());
    let (eta, scale) = (b.options().sde_eta, b.options().s_noise);
    for (i, pair) in grid.windows(2).enumerate() {
        let (from, to) = (pair[0], pair[1]);
        let y = b.eval(At::Node(from), i, 0, X)?;
        let data = b.data(&from, X, y)?;
        if !from.is_mixed() || !to.is_mixed() {
            let up = if eta == 0.0 { 0.0 } else { to.sigma };
            let landing = Landing { alpha: to.alpha, down: to.sigma - up, up };
            let normals = b.noise(i, 0, &from, &to);
            b.lin(X, first_order(&from, &landing, X, &data).plus(normals, scale * up));
            continue;
        }
        b.lin(first, data);
        let (l0, h) = (from.lambda(), to.lambda() - from.lambda());
        let q = 1.0 + eta;
        // x at a fraction r of the step, with what is known of x0 and the noise so far in `noise`.
        let reach = |node: &Node, r: f64| {
            let keep = node.sigma / from.sigma * libm::exp(-eta * r * h);
            Sum::of(X, keep).plus(first, -node.alpha * libm::expm1(-q * r * h)).plus(noise, node.sigma)
        };
        let nodes: Vec<Node> =
            fractions.iter().map(|r| b.levels.at_ratio(libm::exp(-(l0 + r * h)))).chain([to]).collect();
        let mut before: (f64, Node) = (0.0, from);
        let mut bent: Option<(f64, Sum)> = None;
        for (k, node) in nodes.iter().enumerate() {
            let r = fractions.get(k).copied().unwrap_or(1.0);
            let part = (r - before.0) * h;
            let stream = if k + 1 == nodes.len() { 0 } else { k as u32 + 1 };
            let normals = b.noise(i, stream, &before.1, node);
            let fresh = scale * libm::sqrt(-libm::expm1(-2.0 * eta * part));
            let kept = if k == 0 { Sum::default() } else { Sum::of(noise, libm::exp(-eta * part)) };
            // The value of the level before is read while its output is at hand.
            let mut sum = reach(node, r);
            if let Some((at, value)) = &bent {
                let bend = if fractions.len() == 1 {
                    -node.alpha * libm::expm1(-q * r * h) * 0.5 / at
                } else {
                    -node.alpha * phi_less(-q * r * h) * r / at
                };
                sum = sum.plus_sum(value, bend).plus(first, -bend);
            }
            b.lin(noise, kept.plus(normals, fresh));
            if k + 1 == nodes.len() {
                b.lin(X, sum);
                break;
            }
            // The state of a level before is part of its value: it is spent before it is replaced.
            b.lin(stage, sum);
            let y = b.eval(At::Node(*node), i, k as u16 + 1, stage)?;
            let value = b.data(node, stage, y)?;
            bent = Some((r, value));
            before = (r, *node);
        }
    }
    Ok(())
}
