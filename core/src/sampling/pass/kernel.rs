//! One task of a pass at one instruction set.

use std::ops::Range;

use super::super::lanes::{
    Way, before_a_line, clamp, combine, combine_pair, error_sum, has_odd, kick, learned, probe, put,
};
use super::super::table::{MAX_TERMS, Operand, REGISTERS};
use super::noise::Noise;
use super::resolve::Resolved;
use super::tasks::MAX_EARLIER;
use super::{Accept, CHUNK};
use crate::arch::{Kernel, Simd};

/// What a pass from one state to another knows beside its task.
#[derive(Clone, Copy, Default)]
pub(super) struct Source<'b> {
    /// The part of every state tensor that is read.
    pub from: &'b [&'b [f32]],
    /// Outputs to be looked at that no linear combination reads.
    pub unread: [Option<Operand>; 2 + MAX_EARLIER],
    /// The state tensor that is not written, or becomes 0.
    pub held: Option<u8>,
    pub blank: bool,
    /// Whether what is written goes past the caches.
    pub past: bool,
    /// Whether the first chunk ends where a line of a cache does.
    pub lines: bool,
}

/// One task in place, or `APART`, from one state to another. Returns whether a number that was looked at is not finite.
pub(super) struct Pass<'a, 'b, const APART: bool> {
    pub slots: &'b mut [&'a mut [f32]],
    pub y: &'b [f32],
    pub earlier: [&'b [f32]; MAX_EARLIER],
    pub second: &'b [f32],
    pub errors: &'b mut [f64],
    pub first: usize,
    pub lins: &'b [Resolved],
    pub noise: Noise<'b>,
    pub accept: Option<Accept>,
    /// Elements at a time.
    pub chunk: usize,
    pub scratch: &'b mut [f32],
    pub source: Source<'b>,
}

/// Where the terms of a combination are read from.
#[inline(always)]
fn sources<'a, const N: usize>(
    operands: &[Operand; MAX_TERMS],
    source: impl Fn(Operand) -> Option<&'a [f32]>,
) -> [Option<&'a [f32]>; N] {
    std::array::from_fn(|i| source(operands[i]))
}

/// The first coefficients.
#[inline(always)]
fn leading<const N: usize>(c: &[f32; MAX_TERMS]) -> [f32; N] {
    std::array::from_fn(|i| c[i])
}

/// Some numbers of a state tensor: of the old ones, where it is not written yet.
#[inline(always)]
fn tensor<'a>(
    is_old: bool,
    from: &'a [&[f32]],
    slots: &'a [&mut [f32]],
    i: u8,
    at: Range<usize>,
) -> &'a [f32] {
    if is_old { &from[usize::from(i)][at] } else { &slots[usize::from(i)][at] }
}

impl<const APART: bool> Kernel for Pass<'_, '_, APART> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> bool {
        let Pass {
            slots,
            y,
            earlier,
            second: other,
            errors,
            first,
            lins,
            noise,
            accept,
            chunk,
            scratch,
            source,
        } = self;
        let Source { from, unread, held, blank, past, lines } = source;
        let mut parts = scratch.chunks_exact_mut(CHUNK);
        let mut buffer = || parts.next().unwrap_or_default();
        let mut target = buffer();
        let normals = buffer();
        let part = buffer();
        let others = buffer();
        let mut registers: [&mut [f32]; REGISTERS + 1] = std::array::from_fn(|_| buffer());
        let mut seen = s.splat(0.0);
        let len = slots[0].len();
        let pair = APART && Resolved::are_pair(lins);
        let (mut index, mut end) = (0, 0);
        while end < len {
            let at = end;
            end = match if APART && lines && at == 0 { before_a_line(slots[0]) } else { 0 } {
                0 => len.min(at + chunk),
                head => head,
            };
            let n = end - at;
            let mut drawn = None;
            let mut second = None;
            // The state tensors that hold new numbers: where they are apart, the others are read from the old ones.
            let mut written = 0u32;
            // Those that hold new numbers too, but are read from the old ones until the chunk ends.
            let mut twins = 0u32;
            if APART {
                for output in unread.iter().flatten() {
                    let y = match *output {
                        Operand::Earlier(i) => earlier[usize::from(i)],
                        Operand::Second => other,
                        _ => y,
                    };
                    seen = probe(s, &y[at..end], seen);
                }
            }
            if pair
                && let [first, second] = lins
                && let Operand::Slot(to) = second.dst
            {
                let source = |operand: Operand| match operand {
                    Operand::Slot(i) => Some(&from[usize::from(i)][at..end]),
                    Operand::Earlier(i) => Some(&earlier[usize::from(i)][at..end]),
                    Operand::Second => Some(&other[at..end]),
                    Operand::Model => Some(&y[at..end]),
                    _ => None,
                };
                let (a, b) = (&first.operands, &second.operands);
                let (c, d) = (&first.coefficients, &second.coefficients);
                let twin = first.twin.map(usize::from);
                let copy = twin.map(|i| std::mem::take(&mut slots[i])).unwrap_or_default();
                let also = if twin.is_some() { &mut copy[at..end] } else { &mut [] };
                let (room, out) = (&mut target[..n], &mut slots[usize::from(to)][at..end]);
                let looks = [first.looks, second.looks];
                macro_rules! both {
                    ($m:literal) => {{
                        let first = (sources::<2>(a, source), leading(c));
                        let second = (sources::<$m>(b, source), leading(d));
                        combine_pair(s, first, second, room, also, out, looks, seen)
                    }};
                }
                seen = match second.count {
                    2 => both!(2),
                    3 => both!(3),
                    _ => both!(4),
                };
                if let Some(i) = twin {
                    slots[i] = copy;
                    twins |= 1 << i;
                }
                written |= 1 << to;
            }
            for lin in if pair { &[] } else { lins } {
                let c = &lin.coefficients;
                let o = &lin.operands;
                let past = APART && lin.past;
                let is_old = |i: u8| APART && written >> i & 1 == 0;
                let new = match lin.dst {
                    Operand::Slot(i) => 1 << i,
                    _ => 0,
                };
                if lin.noisy {
                    if drawn != Some(Operand::Noise) {
                        noise.fill(Operand::Noise, first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(Operand::Noise);
                    }
                    if c[3] != 0.0 && second != Some(o[1]) {
                        noise.fill(o[1], first + at, &mut others[..n], &mut part[..n]);
                        second = Some(o[1]);
                    }
                    let (u, Operand::Slot(dst)) =
                        (if c[3] == 0.0 { &normals[..n] } else { &others[..n] }, lin.dst)
                    else {
                        continue;
                    };
                    let tensor = |i: u8| tensor(is_old(i), from, slots, i, at..end);
                    let g = match o[2] {
                        Operand::Slot(i) => tensor(i),
                        _ => &other[at..end],
                    };
                    kick(s, [&normals[..n], u, g, tensor(dst)], leading(c), &mut target[..n]);
                    put(s, &target[..n], &mut slots[usize::from(dst)][at..end], past);
                    written |= new;
                    continue;
                }
                let used = &o[..lin.count.max(usize::from(lin.learned))];
                for &operand in used.iter().filter(|o| matches!(o, Operand::Noise | Operand::Draw(_))) {
                    if drawn != Some(operand) {
                        noise.fill(operand, first + at, &mut normals[..n], &mut part[..n]);
                        drawn = Some(operand);
                    }
                }
                if lin.learned {
                    let x = &mut slots[0][at..end];
                    if is_old(0) {
                        x.copy_from_slice(&from[0][at..end]);
                    }
                    learned(s, &other[at..end], &normals[..n], c, x, &mut target[..n]);
                    written |= new;
                    continue;
                }
                // A state tensor is written in place; only under a mask its old values are needed after, and what goes
                // past the caches is not read again.
                let own = match (lin.dst, lin.mask) {
                    (Operand::Slot(i), None) if !(past && lin.clamp.is_finite()) => Some(usize::from(i)),
                    _ => None,
                };
                let whole = own.map(|i| std::mem::take(&mut slots[i])).unwrap_or_default();
                let out = if own.is_some() { &mut whole[at..end] } else { &mut target[..n] };
                let twin = lin.twin.filter(|_| APART).map(usize::from);
                let copy = twin.map(|i| std::mem::take(&mut slots[i])).unwrap_or_default();
                let also = if twin.is_some() { &mut copy[at..end] } else { &mut [] };
                let source = |operand: Operand| match operand {
                    Operand::Slot(i) if own == Some(usize::from(i)) && !is_old(i) => None,
                    Operand::Slot(i) => Some(tensor(is_old(i), from, slots, i, at..end)),
                    Operand::Reg(i) => Some(&registers[usize::from(i)][..n]),
                    Operand::Model => Some(&y[at..end]),
                    Operand::Earlier(i) => Some(&earlier[usize::from(i)][at..end]),
                    Operand::Second => Some(&other[at..end]),
                    Operand::Noise | Operand::Draw(_) => Some(&normals[..n]),
                };
                let mut way =
                    Way::<S, APART> { past: past && own.is_some(), twin: also, looks: lin.looks, seen };
                match lin.count {
                    0 => out.fill(0.0),
                    1 => combine(s, sources::<1>(o, source), leading(c), out, &mut way),
                    2 => combine(s, sources::<2>(o, source), leading(c), out, &mut way),
                    3 => combine(s, sources::<3>(o, source), leading(c), out, &mut way),
                    4 => combine(s, sources::<4>(o, source), leading(c), out, &mut way),
                    5 => combine(s, sources::<5>(o, source), leading(c), out, &mut way),
                    6 => combine(s, sources::<6>(o, source), leading(c), out, &mut way),
                    7 => combine(s, sources::<7>(o, source), leading(c), out, &mut way),
                    _ => combine(s, sources::<MAX_TERMS>(o, source), *c, out, &mut way),
                }
                seen = way.seen;
                if let Some(i) = twin {
                    slots[i] = copy;
                    twins |= 1 << i;
                }
                if lin.clamp.is_finite() {
                    clamp(s, lin.clamp, out);
                }
                if let Some(i) = own {
                    slots[i] = whole;
                    written |= new;
                    continue;
                }
                if let (Some(mask), Operand::Slot(i)) = (lin.mask, lin.dst) {
                    let tensor = |i: u8| tensor(is_old(i), from, slots, i, at..end);
                    // Exact at both ends of the mask.
                    for ((t, m), x) in target[..n].iter_mut().zip(tensor(mask)).zip(tensor(i)) {
                        *t = m.mul_add(*t, (1.0 - m) * x);
                    }
                }
                match lin.dst {
                    Operand::Reg(i) => std::mem::swap(&mut registers[usize::from(i)], &mut target),
                    Operand::Slot(i) => put(s, &target[..n], &mut slots[usize::from(i)][at..end], past),
                    _ => {}
                }
                written |= new;
            }
            if let Some(a) = &accept {
                let [x, new] = a.trial.sizes.map(|slot| &slots[slot][at..end]);
                errors[index] = error_sum(&registers[a.trial.register][..n], x, new, a.tolerance);
                index += 1;
            }
            if APART {
                written |= twins;
                for (i, from) in from.iter().enumerate().filter(|(i, _)| written >> i & 1 == 0) {
                    let to = &mut slots[i][at..end];
                    if held.map(usize::from) != Some(i) {
                        put(s, &from[at..end], to, past);
                    } else if blank {
                        target[..n].fill(0.0);
                        put(s, &target[..n], to, past);
                    }
                }
            }
        }
        if APART && past {
            s.settle();
        }
        APART && has_odd(s, seen)
    }
}
