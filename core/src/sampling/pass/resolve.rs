//! Operations of a pass with the coefficients of one row.

use super::super::adaptive::Control;
use super::super::builder::row_maps;
use super::super::measure::Numbers;
use super::super::plan::Plan;
use super::super::prediction::Map;
use super::super::run::Run;
use super::super::table::{At, Eval, HELD, Lin, MAX_TERMS, Noisy, Operand, Scale, Term, X};

/// What a row's own time and step turn scales into.
pub(in super::super) struct RowContext<'a> {
    plan: &'a Plan,
    control: Option<&'a Control>,
    step: f64,
    data: Map,
    slope: Map,
    noise: Map,
    numbers: Numbers,
}

impl<'a> RowContext<'a> {
    pub(in super::super) fn new(
        run: &'a Run,
        plan: &'a Plan,
        eval: &Eval,
        row: usize,
        numbers: &[Numbers],
    ) -> RowContext<'a> {
        let nothing = Map { x: 0.0, y: 0.0 };
        let [data, slope, noise] = match eval.at {
            // Fixed plans carry finished coefficients and never look.
            At::Node(_) => [nothing; 3],
            At::Fraction(_) => row_maps(plan.options(), &run.row_level(plan, row)),
        };
        let chain = run.chains.get(row).map_or(0.0, |c| c.step);
        let control = run.control.get(row);
        let step = control.map_or(chain, Control::signed_step);
        let numbers = numbers.get(row).copied().unwrap_or_default();
        RowContext { plan, control, step, data, slope, noise, numbers }
    }

    pub(in super::super) fn scale(&self, term: &Term) -> f64 {
        match term.scale {
            Scale::One => 1.0,
            Scale::Step => self.step,
            Scale::DataX => self.data.x,
            Scale::DataY => self.data.y,
            Scale::SlopeX => self.slope.x,
            Scale::SlopeY => self.slope.y,
            Scale::NoiseX => self.noise.x,
            Scale::NoiseY => self.noise.y,
            Scale::Lambda(part, sixths) => self.control.map_or(0.0, |control| {
                let (from, to) = (control.t, control.time(f64::from(sixths) / 6.0));
                part.weight(&self.plan.node_at(from), &self.plan.node_at(to), to - from)
            }),
            Scale::Row(i) => self.numbers[usize::from(i)],
        }
    }

    pub(super) fn resolve(
        &self,
        lin: &Lin,
        terms: &[Term],
        place: impl Fn(Operand) -> Operand,
        r: &mut Resolved,
    ) {
        (r.dst, r.count, r.clamp, r.mask) = (place(lin.dst), terms.len(), lin.clamp, lin.mask);
        for (i, term) in terms.iter().enumerate() {
            r.operands[i] = place(term.operand);
            // The only rounding of a coefficient.
            r.coefficients[i] = (term.coefficient * self.scale(term)) as f32;
        }
    }
}

/// A linear combination with the coefficients of one row.
#[derive(Clone, Copy)]
pub(super) struct Resolved {
    pub dst: Operand,
    pub operands: [Operand; MAX_TERMS],
    pub coefficients: [f32; MAX_TERMS],
    pub count: usize,
    pub clamp: f32,
    pub mask: Option<u8>,
    /// `x += exp(c0 + c1 second) noise` instead.
    pub learned: bool,
    /// `dst += p g` of the normals and g in the operands instead, see [`Noisy`].
    pub noisy: bool,
    /// From one state to another: whether the result goes past the caches, and whether it is looked at.
    pub past: bool,
    pub looks: bool,
    /// Likewise: a state tensor that the result goes to as well, past the caches.
    pub twin: Option<u8>,
}

impl Resolved {
    pub(super) fn learned(base: f64, slope: f64) -> Resolved {
        let mut r = Resolved { learned: true, dst: Operand::Slot(0), ..Default::default() };
        (r.coefficients[0], r.coefficients[1]) = (base as f32, slope as f32);
        r.operands[0] = Operand::Noise;
        r
    }

    pub(super) fn noisy(n: &Noisy) -> Resolved {
        let [a, b, c, d] = n.weights;
        let mut r = Resolved { noisy: true, dst: Operand::Slot(n.dst), count: 3, ..Default::default() };
        r.operands[..3].copy_from_slice(&[Operand::Noise, n.second, n.g]);
        // By powers of z: `-c + b u + z (a - 3 d + z (c + z d))`.
        for (to, from) in r.coefficients.iter_mut().zip([d, c, a - 3.0 * d, b, -c]) {
            *to = from as f32;
        }
        r
    }

    /// Says of every operation of a pass from one state to another which way its result goes, and whether it is
    /// looked at.
    pub(super) fn part(lins: &mut [Resolved], looks: bool, past: bool) {
        for at in 0..lins.len() {
            let [lin, later @ ..] = &mut lins[at..] else { continue };
            // What is read again must stay near.
            lin.past = past && !later.iter().any(|l| l.touches(lin.dst));
            let outputs = [Operand::Model, Operand::Second, Operand::Earlier(0), Operand::Earlier(1)];
            lin.looks = looks && outputs.iter().any(|y| lin.shows(*y));
        }
    }

    /// Lets combinations for a register write the state tensors as well that a later operation only copies them to, and
    /// returns how many operations are left, the first of `lins`: those of a pass from one state to another, past the
    /// caches. A copy by itself reads nothing from memory while it is written.
    pub(super) fn join_copies(lins: &mut [Resolved]) -> usize {
        let (mut count, mut at) = (lins.len(), 1);
        while at < count {
            let (before, [copy, later @ ..]) = lins[..count].split_at_mut(at) else { break };
            let plain = copy.count == 1 && copy.coefficients[0] == 1.0 && copy.is_bare();
            if let (true, Operand::Slot(to), register @ Operand::Reg(_)) = (plain, copy.dst, copy.operands[0])
                && !later.iter().any(|lin| lin.touches(copy.dst))
                && !before.iter().any(|lin| lin.dst == copy.dst)
                && let Some(maker) = before.iter_mut().rfind(|lin| lin.dst == register)
                && maker.count > 0
                && maker.is_bare()
                && maker.twin.is_none()
            {
                maker.twin = Some(to);
                lins[..count].copy_within(at + 1.., at);
                count -= 1;
            } else {
                at += 1;
            }
        }
        count
    }

    /// Whether they are two combinations of which the second alone reads what the first makes, without noise and past the
    /// caches: what a multistep solver does with its prediction of the data.
    pub(super) fn are_pair(lins: &[Resolved]) -> bool {
        let [first, second] = lins else { return false };
        let reads = |lin: &Resolved, own: Option<Operand>| {
            lin.operands[..lin.count].iter().all(|&operand| match operand {
                Operand::Reg(_) => own == Some(operand),
                Operand::Noise | Operand::Draw(_) => false,
                _ => true,
            })
        };
        let places = matches!((first.dst, second.dst), (Operand::Reg(_), Operand::Slot(_)));
        let bare = first.is_bare() && second.is_bare() && second.past && second.twin.is_none();
        places
            && bare
            && first.count == 2
            && (2..=4).contains(&second.count)
            && reads(first, None)
            && reads(second, Some(first.dst))
    }

    /// Whether it is a linear combination and no more.
    fn is_bare(&self) -> bool {
        self.clamp == f32::INFINITY && self.mask.is_none() && !self.learned && !self.noisy
    }

    /// Has the operations after the first read an output where they would read the register that the first only copies
    /// it to; false where that could change a bit.
    ///
    /// The copy turns -0 into +0, which is nothing to a chain whose first term it is: that begins at +0.
    pub(super) fn reads_held_directly(lins: &mut [Resolved]) -> bool {
        let Some((copy, rest)) = lins.split_first_mut() else { return false };
        let copies = copy.dst == HELD
            && copy.count == 1
            && copy.coefficients[0] == 1.0
            && copy.clamp == f32::INFINITY
            && matches!(copy.operands[0], Operand::Earlier(_));
        // Up to where the register is written anew.
        let last = rest.iter().position(|lin| lin.dst == HELD).map_or(rest.len(), |at| at + 1);
        let readers = &mut rest[..last];
        let first_only = |lin: &Resolved| !lin.operands[..lin.count].iter().skip(1).any(|o| *o == HELD);
        if !copies || !readers.iter().all(first_only) {
            return false;
        }
        for lin in readers.iter_mut().filter(|lin| lin.count > 0 && lin.operands[0] == HELD) {
            lin.operands[0] = copy.operands[0];
        }
        true
    }

    /// Whether it reads or writes an operand.
    fn touches(&self, operand: Operand) -> bool {
        self.dst == operand
            || self.operands[..self.count].contains(&operand)
            || self.mask.map(Operand::Slot) == Some(operand)
            || self.learned && operand == X
    }

    /// Whether its result, as far as the terms go, is finite only where `output` is: a sum from which infinity or NaN
    /// never vanishes.
    pub(super) fn shows(&self, output: Operand) -> bool {
        !self.learned && !self.noisy && self.operands[..self.count].contains(&output)
    }
}

impl Default for Resolved {
    fn default() -> Self {
        Resolved {
            dst: Operand::Model,
            operands: [Operand::Model; MAX_TERMS],
            coefficients: [0.0; MAX_TERMS],
            count: 0,
            clamp: f32::INFINITY,
            mask: None,
            learned: false,
            noisy: false,
            past: false,
            looks: false,
            twin: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lin(dst: Operand, terms: &[(f32, Operand)]) -> Resolved {
        let mut r = Resolved { dst, count: terms.len(), ..Default::default() };
        for (i, (c, operand)) in terms.iter().enumerate() {
            (r.coefficients[i], r.operands[i]) = (*c, *operand);
        }
        r
    }

    /// Past the caches, as a multistep solver has them.
    fn multistep() -> [Resolved; 3] {
        let (x, kept, r) = (Operand::Slot(0), Operand::Slot(1), Operand::Reg(2));
        [
            lin(r, &[(1.5, x), (-0.5, Operand::Model)]),
            lin(x, &[(0.9, x), (0.2, r), (-0.1, kept)]),
            lin(kept, &[(1.0, r)]),
        ]
    }

    #[test]
    fn copies_join_what_they_copy() {
        let mut lins = multistep();
        assert_eq!(Resolved::join_copies(&mut lins), 2);
        assert_eq!((lins[0].twin, lins[1].dst, lins[1].twin), (Some(1), Operand::Slot(0), None));
        Resolved::part(&mut lins[..2], true, true);
        assert!(Resolved::are_pair(&lins[..2]));
        assert_eq!((lins[0].past, lins[1].past, lins[0].looks, lins[1].looks), (false, true, true, false));
    }

    #[test]
    fn what_would_change_a_number_stays() {
        let changes: [fn(&mut [Resolved; 3]); 6] = [
            |lins| lins[2].coefficients[0] = 2.0,
            |lins| lins[2].clamp = 1.0,
            |lins| lins[2].mask = Some(0),
            |lins| lins[0].clamp = 1.0,
            |lins| lins[1].dst = Operand::Slot(1), // written before, so that the copy counts
            |lins| lins[0].dst = Operand::Reg(3),  // nobody made what is copied
        ];
        for change in changes {
            let mut lins = multistep();
            change(&mut lins);
            assert_eq!(Resolved::join_copies(&mut lins), 3);
            assert!(lins.iter().all(|lin| lin.twin.is_none()));
        }
        // What is read after the copy is the copy.
        let [a, b, c] = multistep();
        let mut lins = [a, c, b];
        assert_eq!(Resolved::join_copies(&mut lins), 3);
        // A second combination that is clamped, or draws, goes by itself.
        for change in
            [|lin: &mut Resolved| lin.clamp = 1.0, |lin: &mut Resolved| lin.operands[0] = Operand::Noise]
        {
            let mut lins = multistep();
            change(&mut lins[1]);
            let left = Resolved::join_copies(&mut lins);
            Resolved::part(&mut lins[..left], true, true);
            assert!(!Resolved::are_pair(&lins[..left]));
        }
    }
}
