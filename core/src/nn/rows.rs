//! Running an operation over the rows of arrays: tasks, strides, widening and rounding.

use std::cmp::Reverse;

use ndarray::{Dimension, Ix4, IxDyn};

use super::stored::{Rows, RowsMut};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::tensor::{Dtype, Floats, FloatsMut};
use crate::threads;

/// The inputs of one row or of a part of it, as adjacent f32.
#[derive(Clone, Copy)]
pub(crate) struct Row<'a> {
    /// The first operand; without it that is what `out` holds.
    pub x: Option<&'a [f32]>,
    /// The second operand; without it that is what `out` holds.
    pub y: Option<&'a [f32]>,
    /// What multiplies: weight, scale or gate.
    pub scale: Option<&'a [f32]>,
    /// What is added: bias or shift.
    pub shift: Option<&'a [f32]>,
}

/// An operation from the inputs of a row to a row.
pub(crate) trait RowOp: Copy + Send + Sync {
    /// Roughly how many operations an element costs.
    const COST: u64;
    /// How many operands (`x`, then `y`) it reads.
    const OPERANDS: usize = 1;
    /// Whether an element depends on what lies at its place alone: then rows may be cut.
    const ELEMENTWISE: bool = false;
    /// Fills `out`, which holds the operand that is missing. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]);
}

/// A vector of an operand, or of the output where that is the operand.
#[inline(always)]
pub(crate) fn load<S: Simd>(s: S, operand: Option<&[f32]>, out: &[f32], at: usize) -> S::F {
    let row = operand.unwrap_or(out);
    s.load_partial(&row[at..row.len().min(at + S::LANES)], 0.0)
}

/// `fill!(s, out, |at| value)`: `out[at..]` becomes `value`, a vector at a time; `value` may read what `out`
/// held. A function of a closure would be compiled without the instruction set wherever it is not inlined.
macro_rules! fill {
    ($s:expr, $out:expr, |$at:ident| $value:expr) => {{
        let mut $at = 0;
        while $at < $out.len() {
            let y = $value;
            let end = $out.len().min($at + S::LANES);
            $s.store_partial(y, &mut $out[$at..end]);
            $at = end;
        }
    }};
}
pub(crate) use fill;

const INPUTS: usize = 4;

/// The arrays of a call. The inputs may have axes of one element, or lack leading axes, where the
/// output repeats them.
pub(crate) struct Operands<'a> {
    /// The first operand.
    pub x: Option<Floats<'a, IxDyn>>,
    /// The second operand.
    pub y: Option<Floats<'a, IxDyn>>,
    /// What multiplies.
    pub scale: Option<Floats<'a, IxDyn>>,
    /// What is added.
    pub shift: Option<Floats<'a, IxDyn>>,
    /// Where `x + y` goes, rounded to its type; then that is the operand `x`.
    pub sum: Option<FloatsMut<'a, IxDyn>>,
}

impl<'a> Operands<'a> {
    /// One operand.
    pub fn new<D: Dimension>(x: Option<Floats<'a, D>>) -> Self {
        Operands { x: x.map(Floats::into_dyn), y: None, scale: None, shift: None, sum: None }
    }
}

/// An operand, for as long as the call.
pub(crate) fn lend<'a, 'b: 'a, D: Dimension>(x: Floats<'b, D>) -> Option<Floats<'a, IxDyn>> {
    Some(x.into_dyn().reborrow())
}

/// Elements of a task: enough to hide the hand-out.
pub(crate) const TASK: usize = 16 * 1024;

/// Elements of a row that are widened at a time where it may be cut: they stay in the first cache.
pub(crate) const PART: usize = 1024;

/// Applies `op` to every row (the last axis) of `out`. The caller has checked the shapes.
pub(crate) fn for_rows<O: RowOp>(op: O, operands: Operands, out: FloatsMut<IxDyn>) -> Result<()> {
    if out.shape().contains(&0) {
        return Ok(());
    }
    let shape = out.shape();
    let mut inputs = [const { None }; INPUTS];
    for (input, given) in inputs.iter_mut().zip([&operands.x, &operands.y, &operands.scale, &operands.shift])
    {
        if let Some(x) = given {
            let fitting = x.broadcast(shape);
            let unfit = || Error::Internal(format!("{:?} does not repeat to {shape:?}", x.shape()));
            *input = Some(fitting.ok_or_else(unfit)?);
        }
    }
    let work = O::COST.saturating_mul(shape.iter().product::<usize>() as u64);
    let (out, sum) = (out.reborrow(), operands.sum.map(FloatsMut::reborrow));
    All { inputs, out, sum }.arranged(O::ELEMENTWISE).run(op, work);
    Ok(())
}

/// Arrays of one shape.
struct All<'a> {
    inputs: [Option<Floats<'a, IxDyn>>; INPUTS],
    out: FloatsMut<'a, IxDyn>,
    sum: Option<FloatsMut<'a, IxDyn>>,
}

impl<'a> All<'a> {
    /// With as few axes as the strides allow, in the order of memory. Only elementwise operations may
    /// see their last axis changed.
    fn arranged(mut self, elementwise: bool) -> Self {
        let rank = self.out.shape().len();
        let free = if elementwise { rank } else { rank.saturating_sub(1) };
        let strides = self.out.strides();
        if !strides[..free].is_sorted_by_key(|s| Reverse(s.unsigned_abs())) {
            let mut order: Vec<usize> = (0..rank).collect();
            order[..free].sort_by_key(|&i| Reverse(strides[i].unsigned_abs()));
            let axes = IxDyn(&order);
            self.inputs = self.inputs.map(|x| x.map(|x| x.permuted_axes(axes.clone())));
            self.out = self.out.permuted_axes(axes.clone());
            self.sum = self.sum.map(|x| x.permuted_axes(axes));
        }
        for into in 1..free {
            if self.merges(into) {
                self.inputs.iter_mut().flatten().for_each(|x| x.merge_axes(into - 1, into));
                self.out.merge_axes(into - 1, into);
                self.sum.iter_mut().for_each(|x| x.merge_axes(into - 1, into));
            }
        }
        for axis in (0..free).rev() {
            if self.out.shape()[axis] == 1 && self.out.shape().len() > 1 {
                self.inputs = self.inputs.map(|x| x.map(|x| x.remove_axis(axis)));
                self.out = self.out.remove_axis(axis);
                self.sum = self.sum.map(|x| x.remove_axis(axis));
            }
        }
        while self.out.shape().len() < 4 {
            self.inputs = self.inputs.map(|x| x.map(Floats::insert_axis));
            self.out = self.out.insert_axis();
            self.sum = self.sum.map(FloatsMut::insert_axis);
        }
        self
    }

    /// Whether the axis before `into` can become part of it, in every array.
    fn merges(&self, into: usize) -> bool {
        let shape = self.out.shape();
        let (take, len) = (shape[into - 1], shape[into]);
        let fits = |strides: &[isize]| strides[into - 1] == len as isize * strides[into];
        take == 1
            || len == 1
            || (self.inputs.iter().flatten().all(|x| fits(x.strides()))
                && fits(self.out.strides())
                && self.sum.as_ref().is_none_or(|x| fits(x.strides())))
    }

    fn run<O: RowOp>(mut self, op: O, work: u64) {
        if self.out.shape().len() > 4 {
            // Rare: five axes that no common step joins.
            let work = work / self.out.shape()[0] as u64;
            for i in 0..self.out.shape()[0] {
                let (first, rest) = self.out.split_at(0, 1);
                let (sum, sums) = self.sum.map(|x| x.split_at(0, 1)).unzip();
                let inputs = self.inputs.each_ref();
                let inputs = inputs.map(|x| x.clone().map(|x| x.split_at(0, i).1.remove_axis(0)));
                All { inputs, out: first.remove_axis(0), sum: sum.map(|x| x.remove_axis(0)) }.run(op, work);
                (self.out, self.sum) = (rest, sums);
            }
            return;
        }
        let inputs = self.inputs.map(|x| x.and_then(Floats::into_rank::<Ix4>));
        let (Some(out), sum) = (self.out.into_rank::<Ix4>(), self.sum.and_then(FloatsMut::into_rank)) else {
            unreachable!("four axes were made")
        };
        let width = out.shape()[3];
        let plain = |dtype, strides: &[isize]| dtype == Dtype::F32 && strides[3] == 1;
        let direct = inputs.iter().flatten().all(|x| plain(x.dtype(), x.strides()))
            && plain(out.dtype(), out.strides())
            && sum.as_ref().is_none_or(|x| plain(x.dtype(), x.strides()));
        let part = if O::ELEMENTWISE && !direct { width.min(PART) } else { width };
        let scratch = if direct { 0 } else { (INPUTS + 2) * part };
        let whole = Piece { at: [0; 4], out, sum };
        let axes = if O::ELEMENTWISE { 4 } else { 3 };
        let tasks = Tasks { stack: [Some(whole), None, None, None], axes };
        let inputs = &inputs;
        threads::for_each(tasks, work, |piece| {
            threads::with_scratch(scratch, |scratch| dispatch(Run { op, inputs, piece, part, scratch }));
        });
    }
}

/// A box of the output that begins at `at`.
struct Piece<'a> {
    at: [usize; 4],
    out: FloatsMut<'a, Ix4>,
    sum: Option<FloatsMut<'a, Ix4>>,
}

/// Cuts a box along its first `axes` axes into boxes of at most [`TASK`] elements, in order.
struct Tasks<'a> {
    /// What is left, the next on top: at most one for each axis.
    stack: [Option<Piece<'a>>; 4],
    axes: usize,
}

impl<'a> Iterator for Tasks<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let top = self.stack.iter().rposition(Option::is_some)?;
        let mut piece = self.stack[top].take()?;
        let mut free = top;
        for axis in 0..self.axes {
            let shape = piece.out.shape();
            let keep = (TASK / shape[axis + 1..].iter().product::<usize>()).max(1);
            if shape[axis] <= keep {
                continue;
            }
            let (out, rest) = piece.out.split_at(axis, keep);
            let (sum, sums) = piece.sum.map(|x| x.split_at(axis, keep)).unzip();
            let mut at = piece.at;
            at[axis] += keep;
            self.stack[free] = Some(Piece { at, out: rest, sum: sums });
            free += 1;
            piece = Piece { at: piece.at, out, sum };
        }
        Some(piece)
    }
}

struct Run<'r, 'a, 'b, O> {
    op: O,
    inputs: &'r [Option<Floats<'a, Ix4>>; INPUTS],
    piece: Piece<'b>,
    /// Elements of a row at a time.
    part: usize,
    /// A part for each input, the output and the sum, or nothing where all rows are adjacent f32.
    scratch: &'r mut [f32],
}

impl<O: RowOp> Kernel for Run<'_, '_, '_, O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { op, inputs, piece, part, scratch } = self;
        let Piece { at, mut out, mut sum } = piece;
        let [outer, inner, rows, width] = *out.shape() else { unreachable!("four axes") };
        let mut buffers = scratch.chunks_exact_mut(part);
        let mut buffer = || buffers.next().unwrap_or_default();
        let (bx, by, bscale, bshift, bout, bsum) =
            (buffer(), buffer(), buffer(), buffer(), buffer(), buffer());
        let whole = part >= width;
        let repeats = inputs.each_ref().map(|x| whole && x.as_ref().is_some_and(|x| x.strides()[2] == 0));
        // What `out` holds counts where an operand is missing.
        let in_place = inputs[..O::OPERANDS].iter().any(Option::is_none);
        for (i, j) in (0..outer).flat_map(|i| (0..inner).map(move |j| (i, j))) {
            let [x, y, scale, shift] =
                inputs.each_ref().map(|x| x.as_ref().map(|x| Rows::new(x, [at[0] + i, at[1] + j])));
            let mut out = RowsMut::new(&mut out, [i, j]);
            let mut sum = sum.as_mut().map(|sum| RowsMut::new(sum, [i, j]));
            for row in 0..rows {
                let mut from = 0;
                while from < width {
                    let len = part.min(width - from);
                    let here = (at[2] + row, at[3] + from, len);
                    let kept = repeats.map(|r| r && row > 0);
                    let mut numbers = Row {
                        x: x.as_ref().map(|x| x.fetch(s, here, bx, kept[0])),
                        y: y.as_ref().map(|y| y.fetch(s, here, by, kept[1])),
                        scale: scale.as_ref().map(|x| x.fetch(s, here, bscale, kept[2])),
                        shift: shift.as_ref().map(|x| x.fetch(s, here, bshift, kept[3])),
                    };
                    let there = (row, from, len);
                    if let Some(sum) = &mut sum {
                        numbers.x = Some(add(s, numbers, sum, there, bsum));
                    }
                    match out.direct(there) {
                        Some(out) => op.run(s, numbers, out),
                        None => {
                            let to = &mut bout[..len];
                            if in_place {
                                out.read(s, row, from, to);
                            }
                            op.run(s, numbers, to);
                            out.write(s, row, from, to);
                        }
                    }
                    from += len;
                }
            }
        }
    }
}

/// Writes `x + y` and returns what was written.
#[inline(always)]
fn add<'a, S: Simd>(
    s: S,
    numbers: Row,
    sum: &'a mut RowsMut,
    there: (usize, usize, usize),
    buffer: &'a mut [f32],
) -> &'a [f32] {
    let (row, from, len) = there;
    if matches!(sum, RowsMut::F32(_)) && sum.direct(there).is_some() {
        let to = sum.direct(there).unwrap_or_default();
        fill!(s, to, |at| s.add(load(s, numbers.x, to, at), load(s, numbers.y, to, at)));
        return to;
    }
    let to = &mut buffer[..len];
    if numbers.x.is_none() || numbers.y.is_none() {
        sum.read(s, row, from, to);
    }
    fill!(s, to, |at| s.add(load(s, numbers.x, to, at), load(s, numbers.y, to, at)));
    sum.write(s, row, from, to);
    sum.read(s, row, from, to);
    to
}
