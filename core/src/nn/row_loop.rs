//! The rows of a task, one after the other: where they lie, what is copied, and loops for those that networks have.

use std::marker::PhantomData;

use ndarray::Ix4;

use super::lanes::{Operand, Target};
use super::rows::{Piece, RowOp, Several, line};
use super::stored::{Rows, RowsMut, Stored};
use crate::arch::{Block, BlockMut, Kernel, Simd, dispatch};
use crate::tensor::{Dtype, Element, Floats, Row, bf16};

/// A task.
pub(crate) struct Run<'r, 'a, 'b, O, const N: usize> {
    pub op: O,
    pub inputs: &'r [Option<Floats<'a, Ix4>>; N],
    pub piece: Piece<'b>,
    /// Elements of a row at a time.
    pub part: usize,
    /// Whether the output goes past the caches.
    pub past: bool,
    /// A part for the operation where it needs it; for the output, the sum and each input where elements lie apart.
    pub scratch: &'r mut [f32],
}

impl<O: RowOp<N>, const N: usize> Kernel for Run<'_, '_, '_, O, N> {
    type Output = ();
    const BF16: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { op, inputs, piece, part, past, scratch } = self;
        let Piece { at, mut out, mut sum } = piece;
        // A copy of what lies apart is read again at once.
        let past = past && out.strides()[3] == 1;
        let sum_adjacent = sum.as_ref().is_some_and(|sum| sum.strides()[3] == 1);
        let for_op = op.needs_room();
        let [outer, inner, rows, width] = *out.shape() else { unreachable!("four axes") };
        let mut rooms = scratch.chunks_exact_mut(line(part));
        let mut room = || rooms.next().unwrap_or_default();
        let for_op = if for_op { room() } else { Default::default() };
        let (for_out, for_sum) = (room(), room());
        let mut copies: [&mut [f32]; N] = std::array::from_fn(|_| room());
        let whole = part >= width;
        let repeats = inputs.each_ref().map(|x| whole && x.as_ref().is_some_and(|x| x.strides()[2] == 0));
        for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
            let inputs = inputs.each_ref().map(|x| x.as_ref().map(|x| Rows::new(x, [at[0] + i, at[1] + j])));
            let mut out = RowsMut::new(&mut out, [i, j]);
            let mut sum = sum.as_mut().map(|sum| RowsMut::new(sum, [i, j]));
            for row in 0..rows {
                let mut from = 0;
                while from < width {
                    let len = part.min(width - from);
                    let mut operands = [Operand::Held; N];
                    for (k, copy) in copies.iter_mut().enumerate() {
                        if let Some(x) = &inputs[k] {
                            let there = (at[2] + row, at[3] + from, len);
                            operands[k] = Operand::Row(x.row(there, copy, repeats[k] && row > 0));
                        }
                    }
                    let there = (row, from, len);
                    let sum_row = sum.as_mut().map(|sum| sum.row(there, for_sum));
                    let into_sum = sum_row.map(|row| Target { row, past: past && sum_adjacent });
                    let into = Target { row: out.row(there, for_out), past };
                    let mut seen = [O::Seen::default()];
                    if let Operand::Row(x) = &operands[0] {
                        op.look(s, x, &mut seen);
                    }
                    op.run(s, seen[0], operands, into_sum, into, for_op);
                    out.put_back(there, for_out);
                    if let Some(sum) = &mut sum {
                        sum.put_back(there, for_sum);
                    }
                    from += len;
                }
            }
        }
        if past {
            s.settle();
        }
    }
}

/// Which operands are there, a bit each: the first alone, the first two, or all.
const FIRST: u32 = 1;
const TWO: u32 = 3;
const ALL: u32 = 7;

impl<O: RowOp<N>, const N: usize> Run<'_, '_, '_, O, N> {
    /// The task by a loop that is compiled for the types of its rows, where all are adjacent and of types that networks
    /// have: to find every row and ask for its type takes as long as the norm of a hundred numbers. `COUNT` is that of
    /// the operands that a call may have.
    pub(crate) fn in_a_loop<const COUNT: usize>(self) {
        let there = (0..N).fold(0, |there, k| there | u32::from(self.inputs[k].is_some()) << k);
        if self.is_of::<f32, f32, f32>() {
            self.in_loop_of::<COUNT, f32, f32, f32>(there);
        } else if self.is_of::<bf16, bf16, bf16>() {
            self.in_loop_of::<COUNT, bf16, bf16, bf16>(there);
        } else if self.is_of::<f32, f32, bf16>() {
            self.in_loop_of::<COUNT, f32, f32, bf16>(there);
        } else if const { COUNT >= 2 } && self.is_of::<bf16, f32, bf16>() {
            self.in_loop_of::<COUNT, bf16, f32, bf16>(there);
        } else {
            dispatch(self);
        }
    }

    /// Whether rows are adjacent, the first of `X`, others of `P`, and become rows of `Y`. Not those of f32 that go past
    /// the caches: looking at some before they are filled takes memory longer.
    fn is_of<X: Element, P: Element, Y: Element>(&self) -> bool {
        let Piece { out, sum, .. } = &self.piece;
        if self.past && is_f32::<Y>() {
            return false;
        }
        let fits = |k: usize| {
            let dtype = if k == 0 { X::DTYPE } else { P::DTYPE };
            self.inputs[k].as_ref().is_none_or(|x| x.dtype() == dtype && x.strides()[3] == 1)
        };
        (0..N).all(fits) && out.dtype() == Y::DTYPE && out.strides()[3] == 1 && sum.is_none()
    }

    fn in_loop_of<const COUNT: usize, X: Stored, P: Stored, Y: Stored>(self, there: u32) {
        match there {
            FIRST => dispatch(Loop::<_, X, X, Y, N, FIRST> { run: self, types: PhantomData }),
            TWO if const { COUNT >= 2 } => {
                dispatch(Loop::<_, X, P, Y, N, TWO> { run: self, types: PhantomData })
            }
            ALL if const { COUNT >= 3 } => {
                dispatch(Loop::<_, X, P, Y, N, ALL> { run: self, types: PhantomData })
            }
            _ => dispatch(self),
        }
    }
}

/// A task whose rows are all adjacent, the first of `X`, others of `P`, and become rows of `Y`; `THERE` says which
/// operands it has.
struct Loop<'r, 'a, 'b, O, X, P, Y, const N: usize, const THERE: u32> {
    run: Run<'r, 'a, 'b, O, N>,
    types: PhantomData<(X, P, Y)>,
}

impl<O: RowOp<N>, X: Stored, P: Stored, Y: Stored, const N: usize, const THERE: u32> Kernel
    for Loop<'_, '_, '_, O, X, P, Y, N, THERE>
{
    type Output = ();
    const BF16: bool = matches!(Y::DTYPE, Dtype::Bf16);
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { op, inputs, piece: Piece { at, mut out, .. }, past, scratch, .. } = self.run;
        // As `is_of` says; here it is known when the loop is compiled.
        let past = past && !is_f32::<Y>();
        let [outer, inner, rows, width] = *out.shape() else { unreachable!("four axes") };
        let (from, size) = ([at[2], at[3]], [rows, width]);
        for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
            let inputs = inputs.each_ref().map(|x| x.as_ref().map(|x| Rows::new(x, [at[0] + i, at[1] + j])));
            let mut rest = [None; N];
            for k in 1..N {
                rest[k] = inputs[k].as_ref().and_then(|x| x.block::<P>(from, size));
            }
            let mut out = RowsMut::new(&mut out, [i, j]);
            let first = inputs[0].as_ref().and_then(|x| x.block::<X>(from, size));
            let (Some(first), Some(out)) = (first, out.block::<Y>(size)) else {
                unreachable!("rows that were seen")
            };
            fill_rows::<S, O, X, P, Y, N, THERE>(s, op, (first, rest), out, past, scratch);
        }
        if past {
            s.settle();
        }
    }
}

/// Whether a type is f32, which is known when a loop is compiled for it.
const fn is_f32<T: Element>() -> bool {
    matches!(T::DTYPE, Dtype::F32)
}

/// Most rows that are looked at before they are filled.
const AHEAD: usize = 8;

/// Numbers that these rows may have together: the first cache holds them.
const AHEAD_NUMBERS: usize = 4096;

#[inline(always)]
fn fill_rows<S: Simd, O: RowOp<N>, X: Stored, P: Stored, Y: Stored, const N: usize, const THERE: u32>(
    s: S,
    op: O,
    (x, rest): (Block<X>, [Option<Block<P>>; N]),
    mut out: BlockMut<Y>,
    past: bool,
    room: &mut [f32],
) {
    let rows = out.rows();
    let ahead = (AHEAD_NUMBERS / out.cols()).clamp(1, AHEAD);
    let mut first = 0;
    while first < rows {
        let count = ahead.min(rows - first);
        let mut seen = [O::Seen::default(); AHEAD];
        op.look(s, &RowsFrom(&x, first), &mut seen[..count]);
        for (row, &seen) in (first..).zip(&seen[..count]) {
            let mut operands = [Operand::Held; N];
            operands[0] = Operand::Row(X::row(x.row(row)));
            for k in 1..N {
                if THERE >> k & 1 == 1 {
                    let Some(rest) = &rest[k] else { unreachable!("rows that were seen") };
                    operands[k] = Operand::Row(P::row(rest.row(row)));
                }
            }
            let into = Target { row: Y::row_mut(out.row(row)), past };
            op.run(s, seen, operands, None, into, room);
        }
        first += count;
    }
}

impl Several for Row<'_> {
    #[inline(always)]
    fn row(&self, _: usize) -> Row<'_> {
        *self
    }
}

/// Rows from one on.
struct RowsFrom<'a, 'b, X>(&'b Block<'a, X>, usize);

impl<X: Stored> Several for RowsFrom<'_, '_, X> {
    #[inline(always)]
    fn row(&self, row: usize) -> Row<'_> {
        X::row(self.0.row(self.1 + row))
    }
}
