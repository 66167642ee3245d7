//! The rows of a task, one after the other: where they lie, what is copied, and loops for those of f32.

use ndarray::Ix4;

use super::lanes::{Operand, Target};
use super::rows::{Piece, RowOp, Several, line};
use super::stored::{Rows, RowsMut};
use crate::arch::{Block, BlockMut, Kernel, Simd};
use crate::tensor::{Floats, Row, RowMut};

/// A task.
pub(super) struct Run<'r, 'a, 'b, O, const N: usize> {
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
            if O::OF_SINGLES > 0
                && !past
                && let Some((inputs, there)) = singles(&inputs, [at[2], at[3]], [rows, width])
                && let Some(out) = out.singles([rows, width])
            {
                match there {
                    FIRST => fill_singles::<S, O, N, FIRST>(s, op, inputs, out, for_op),
                    TWO if O::OF_SINGLES >= 2 => fill_singles::<S, O, N, TWO>(s, op, inputs, out, for_op),
                    ALL if O::OF_SINGLES >= 3 => fill_singles::<S, O, N, ALL>(s, op, inputs, out, for_op),
                    _ => unreachable!("operands without a loop"),
                }
                continue;
            }
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

/// Rows of adjacent f32 and which of them are there, where there is a loop for those: others take the place of the rest.
#[inline(always)]
fn singles<'a, const N: usize>(
    inputs: &[Option<Rows<'a>>; N],
    at: [usize; 2],
    size: [usize; 2],
) -> Option<([Block<'a, f32>; N], u32)> {
    let first = inputs[0].as_ref()?.singles(at, size)?;
    let (mut all, mut there) = ([first; N], 0);
    for k in 0..N {
        if let Some(rows) = &inputs[k] {
            all[k] = rows.singles(at, size)?;
            there |= 1 << k;
        }
    }
    matches!(there, FIRST | TWO | ALL).then_some((all, there))
}

impl Several for Row<'_> {
    #[inline(always)]
    fn row(&self, _: usize) -> Row<'_> {
        *self
    }
}

/// Rows of f32 from one on.
struct Singles<'a, 'b>(&'b Block<'a, f32>, usize);

impl Several for Singles<'_, '_> {
    #[inline(always)]
    fn row(&self, row: usize) -> Row<'_> {
        Row::F32(self.0.row(self.1 + row))
    }
}

/// Most rows that are looked at before they are filled.
const AHEAD: usize = 8;

/// Numbers that these rows may have together: the first cache holds them.
const AHEAD_NUMBERS: usize = 4096;

/// The operation on rows of f32, by loops that are compiled for them: to find every row and ask for its type takes as
/// long as the norm of a hundred numbers.
#[inline(always)]
fn fill_singles<S: Simd, O: RowOp<N>, const N: usize, const THERE: u32>(
    s: S,
    op: O,
    inputs: [Block<f32>; N],
    mut out: BlockMut<f32>,
    room: &mut [f32],
) {
    let rows = out.rows();
    let ahead = (AHEAD_NUMBERS / out.cols()).clamp(1, AHEAD);
    let mut first = 0;
    while first < rows {
        let count = ahead.min(rows - first);
        let mut seen = [O::Seen::default(); AHEAD];
        op.look(s, &Singles(&inputs[0], first), &mut seen[..count]);
        for row in 0..count {
            let mut operands = [Operand::Held; N];
            for k in 0..N {
                if THERE >> k & 1 == 1 {
                    operands[k] = Operand::Row(Row::F32(inputs[k].row(first + row)));
                }
            }
            let into = Target { row: RowMut::F32(out.row(first + row)), past: false };
            op.run(s, seen[row], operands, None, into, room);
        }
        first += count;
    }
}
