//! The pieces a pass is cut into, and the outputs it reads.

use super::super::table::{HELD, Operand};
use super::CHUNK;
use super::resolve::Resolved;

/// Outputs told at once.
pub(in super::super) const MAX_OUTPUTS: usize = 3;
pub(super) const MAX_EARLIER: usize = MAX_OUTPUTS - 1;

/// The outputs of a pass.
#[derive(Clone, Copy, Default)]
pub(in super::super) struct Told<'a> {
    /// That of the last evaluation.
    pub(super) y: &'a [f32],
    /// Those of the evaluations before it, whose rows stand among the operations.
    pub(super) earlier: [&'a [f32]; MAX_EARLIER],
    /// A state tensor that would have carried them from one evaluation to the next and for which a register stands.
    pub(super) held: Option<u8>,
}

impl<'a> From<&'a [f32]> for Told<'a> {
    fn from(y: &'a [f32]) -> Self {
        Told { y, ..Default::default() }
    }
}

impl<'a> Told<'a> {
    /// Several outputs of `len` numbers each, one after the other.
    pub(in super::super) fn together(outputs: &'a [f32], len: usize, held: Option<u8>) -> Told<'a> {
        let (earlier, y) = outputs.split_at(outputs.len() - len);
        let mut told = Told { held, ..Told::from(y) };
        for (to, from) in told.earlier.iter_mut().zip(earlier.chunks_exact(len)) {
            *to = from;
        }
        told
    }

    /// Where an operand lies of an operation that `part` evaluations of the pass stand before and `after` behind.
    pub(super) fn place(&self, operand: Operand, part: u8, after: usize) -> Operand {
        match operand {
            Operand::Model if after > 0 => Operand::Earlier(part),
            Operand::Slot(i) if self.held == Some(i) => HELD,
            operand => operand,
        }
    }
}

/// A piece of one row: its part of every state tensor, of the outputs and of the error sums.
pub(super) struct Task<'a, const S: usize> {
    pub slots: [&'a mut [f32]; S],
    pub y: &'a [f32],
    pub earlier: [&'a [f32]; MAX_EARLIER],
    pub second: &'a [f32],
    pub errors: &'a mut [f64],
    pub row: usize,
    pub first: usize,
    /// Where it begins in a state tensor.
    pub base: usize,
    /// Whether nothing is done to the row.
    pub idle: bool,
}

impl<const S: usize> Task<'_, S> {
    /// The outputs to look at that none of the operations shows.
    pub fn unread(&self, lins: &[Resolved], looks: bool) -> [Option<Operand>; 2 + MAX_EARLIER] {
        let [a, b] = self.earlier;
        let outputs = [
            (Operand::Model, self.y),
            (Operand::Second, self.second),
            (Operand::Earlier(0), a),
            (Operand::Earlier(1), b),
        ];
        outputs.map(|(output, memory)| {
            let unread = looks && !memory.is_empty() && !lins.iter().any(|lin| lin.shows(output));
            unread.then_some(output)
        })
    }
}

/// Cuts the state into tasks, the last one first: where the output was just checked from its first number on, its end
/// is what caches still hold.
pub(super) struct Tasks<'a, const S: usize> {
    pub slots: [&'a mut [f32]; S],
    /// How many of them there are.
    pub used: usize,
    pub y: &'a [f32],
    pub earlier: [&'a [f32]; MAX_EARLIER],
    /// Tensors a row of `y` has, one after the other.
    pub outputs: usize,
    pub errors: &'a mut [f64],
    pub active: &'a [bool],
    /// Whether tasks of the other rows are handed out too.
    pub idle: bool,
    pub elements: usize,
    /// Rows not yet finished; tasks come from the last of them.
    pub rows: usize,
    /// Elements of that row not yet handed out.
    pub left: usize,
    /// Elements of a task, a multiple of a chunk.
    pub size: usize,
}

impl<'a, const S: usize> Iterator for Tasks<'a, S> {
    type Item = Task<'a, S>;

    fn next(&mut self) -> Option<Task<'a, S>> {
        while let Some(row) = self.rows.checked_sub(1) {
            let first = (self.left - 1) / self.size * self.size;
            let len = self.left - first;
            let mut slots: [&mut [f32]; S] = std::array::from_fn(|_| Default::default());
            for (whole, part) in self.slots[..self.used].iter_mut().zip(&mut slots) {
                let memory = std::mem::take(whole);
                (*whole, *part) = memory.split_at_mut(memory.len().saturating_sub(len));
            }
            // Before the first evaluation there is no output.
            let start = row * self.outputs * self.elements;
            let part =
                |y: &'a [f32], from: usize| y.get(start + from..start + from + len).unwrap_or_default();
            let y = part(self.y, first);
            let second = if self.outputs > 1 { part(self.y, self.elements + first) } else { &[] };
            let earlier = [part(self.earlier[0], first), part(self.earlier[1], first)];
            let whole = std::mem::take(&mut self.errors);
            let (rest, errors) = whole.split_at_mut(whole.len().saturating_sub(len.div_ceil(CHUNK)));
            self.errors = rest;
            self.left = first;
            if first == 0 {
                (self.rows, self.left) = (row, self.elements);
            }
            let idle = !self.active.is_empty() && !self.active[row];
            if self.idle || !idle {
                let base = row * self.elements + first;
                return Some(Task { slots, y, earlier, second, errors, row, first, base, idle });
            }
        }
        None
    }
}
