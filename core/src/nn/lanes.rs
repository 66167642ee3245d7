//! Loops over rows of any of the three types: numbers are widened, computed with and rounded in registers.

use super::blocks::{Bf16, F16, F32, Type, fill_blocks};
use crate::arch::Simd;
use crate::tensor::{Row, RowMut};

/// Where an operation finds the numbers of an operand.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    /// One number at every place.
    Same(f32),
    /// What the output holds.
    Held,
    /// Elements that lie side by side, as many as the output has.
    Row(Row<'a>),
}

impl Operand<'_> {
    /// One number at every place where the operand is missing.
    #[inline(always)]
    pub fn or(self, x: f32) -> Self {
        match self {
            Operand::Held => Operand::Same(x),
            operand => operand,
        }
    }
}

/// A row to write.
pub(crate) struct Target<'a> {
    pub row: RowMut<'a>,
    /// Whether it goes past the caches, because nobody reads it soon.
    pub past: bool,
}

impl Target<'_> {
    /// `len` elements from `at` on.
    #[inline(always)]
    pub fn slice(&mut self, at: usize, len: usize) -> Target<'_> {
        let row = match &mut self.row {
            RowMut::F32(x) => RowMut::F32(&mut x[at..at + len]),
            RowMut::F16(x) => RowMut::F16(&mut x[at..at + len]),
            RowMut::Bf16(x) => RowMut::Bf16(&mut x[at..at + len]),
        };
        Target { row, past: self.past }
    }
}

/// An operation from the numbers at one place of `N` operands to the one at that place of the output.
pub(crate) trait Lanes<const N: usize>: Copy + Send + Sync {
    /// Roughly how many operations an element costs.
    const COST: u64;
    /// The operation, of `K` vectors of each operand side by side. Implementations are `#[inline(always)]`, which a
    /// closure could not be.
    fn eval<S: Simd, const K: usize>(self, s: S, x: [[S::F; K]; N]) -> [S::F; K];
}

/// The number itself.
#[derive(Clone, Copy)]
pub(super) struct Same;

impl Lanes<1> for Same {
    const COST: u64 = 1;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, _: S, [x]: [[S::F; K]; 1]) -> [S::F; K] {
        x
    }
}

/// Every element of `out` becomes what `op` gives: two vectors at a time, so that 16-bit numbers fill one where they
/// are written, and parts of a vector at the ends.
#[inline(always)]
pub(crate) fn fill<S: Simd, const N: usize>(s: S, op: impl Lanes<N>, from: [Operand; N], out: &mut Target) {
    fill_asking(s, op, from, out, None);
}

/// [`fill`] that asks for a row of as many elements, which is read soon: a line of it with every line of `from`, since
/// requests that come in a burst wait for each other.
#[inline(always)]
pub(super) fn fill_asking<S: Simd, const N: usize>(
    s: S,
    op: impl Lanes<N>,
    from: [Operand; N],
    out: &mut Target,
    next: Option<Row>,
) {
    let len = out.row.len();
    // As long as the output, so that one comparison serves all.
    let mut from = from;
    for operand in &mut from {
        if let Operand::Row(row) = operand {
            *row = row.slice(0, len);
        }
    }
    let head = if out.past { out.row.before_a_line() } else { 0 };
    let mut at = head + fill_blocks(s, op, &from, (&mut *out, head), next);
    while len - at >= 2 * S::LANES {
        if let Some(next) = next {
            ask(s, next.slice(at, 2 * S::LANES));
        }
        let mut x = [[s.splat(0.0); 2]; N];
        for i in 0..N {
            x[i] = match from[i] {
                Operand::Same(x) => [s.splat(x); 2],
                Operand::Held => two(s, out.row.read(), at),
                Operand::Row(row) => two(s, row, at),
            };
        }
        put_two(s, op.eval(s, x), out, at);
        at += 2 * S::LANES;
    }
    for (mut at, end) in [(0, head), (at, len)] {
        while at < end {
            let count = S::LANES.min(end - at);
            let mut x = [[s.splat(0.0)]; N];
            for i in 0..N {
                x[i] = match from[i] {
                    Operand::Same(x) => [s.splat(x)],
                    Operand::Held => [part(s, out.row.read(), at, count, 0.0)],
                    Operand::Row(row) => [part(s, row, at, count, 0.0)],
                };
            }
            let [y] = op.eval(s, x);
            put_part(s, y, &mut out.row, at, count);
            at += count;
        }
    }
}

/// Asks for a row that is read soon.
#[inline(always)]
pub(super) fn ask<S: Simd>(s: S, row: Row) {
    let (address, size) = match row {
        Row::F32(x) => (x.as_ptr().addr(), size_of_val(x)),
        Row::F16(x) | Row::Bf16(x) => (x.as_ptr().addr(), size_of_val(x)),
    };
    for line in (address..address + size).step_by(64) {
        s.prefetch_later_at(line);
    }
}

/// A vector of elements from `at` on.
#[inline(always)]
pub(super) fn one<S: Simd>(s: S, row: Row, at: usize) -> S::F {
    match row {
        Row::F32(x) => s.load(&x[at..]),
        Row::F16(x) => s.load_f16(&x[at..]),
        Row::Bf16(x) => s.load_bf16(&x[at..]),
    }
}

/// Two vectors of elements from `at` on.
#[inline(always)]
pub(super) fn two<S: Simd>(s: S, row: Row, at: usize) -> [S::F; 2] {
    match row {
        Row::F32(x) => F32::two(s, &x[at..]),
        Row::F16(x) => F16::two(s, &x[at..]),
        Row::Bf16(x) => Bf16::two(s, &x[at..]),
    }
}

/// `count` elements from `at` on, at most a vector; missing lanes are `fill`.
#[inline(always)]
pub(super) fn part<S: Simd>(s: S, row: Row, at: usize, count: usize, fill: f32) -> S::F {
    let x = match row {
        Row::F32(x) => return s.load_partial(&x[at..at + count], fill),
        Row::F16(x) => s.load_f16_partial(&x[at..at + count]),
        Row::Bf16(x) => s.load_bf16_partial(&x[at..at + count]),
    };
    if fill == 0.0 {
        return x;
    }
    let mut lanes = [fill; 16];
    s.store_partial(x, &mut lanes[..count]);
    s.load(&lanes)
}

/// Writes two vectors of elements from `at` on.
#[inline(always)]
pub(crate) fn put_two<S: Simd>(s: S, v: [S::F; 2], out: &mut Target, at: usize) {
    match &mut out.row {
        RowMut::F32(to) => F32::put_two(s, v, &mut to[at..], out.past),
        RowMut::F16(to) => F16::put_two(s, v, &mut to[at..], out.past),
        RowMut::Bf16(to) => Bf16::put_two(s, v, &mut to[at..], out.past),
    }
}

#[inline(always)]
fn put_part<S: Simd>(s: S, v: S::F, out: &mut RowMut, at: usize, count: usize) {
    match out {
        RowMut::F32(to) => s.store_partial(v, &mut to[at..at + count]),
        RowMut::F16(to) => s.store_f16_partial(v, &mut to[at..at + count]),
        RowMut::Bf16(to) => s.store_bf16_partial(v, &mut to[at..at + count]),
    }
}
