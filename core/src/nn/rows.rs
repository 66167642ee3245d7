//! Running an operation over the rows of arrays: strides, tasks, and which way the output goes to memory.

use std::cmp::Reverse;

use ndarray::{Dimension, Ix4, IxDyn};

use super::lanes::{Lanes, Operand, Target, fill};
use super::row_loop::Run;
use crate::arch::{Simd, dispatch};
use crate::error::{Error, Result};
use crate::tensor::{Floats, FloatsMut, Row};
use crate::threads;

/// An operation from `N` operands of a row to a row.
pub(crate) trait RowOp<const N: usize>: Copy + Send + Sync {
    /// Roughly how many operations an element costs.
    const COST: u64;
    /// Whether an element depends on what lies at its place alone: then rows may be cut.
    const ELEMENTWISE: bool = false;
    /// Whether it needs room for a row of f32.
    fn needs_room(self) -> bool {
        false
    }
    /// What the output depends on besides the numbers at its place.
    type Seen: Copy + Default;
    /// Looks at rows of the first operand, unless it is missing: at all of them for one thing before the next, since the
    /// end of a row is waited for, but not by another row.
    fn look<S: Simd>(self, s: S, rows: &impl Several, seen: &mut [Self::Seen]);
    /// Runs a task; [`Run::in_a_loop`] where finding rows and their types would take as long as the operation.
    fn task(task: Run<Self, N>) {
        dispatch(task);
    }
    /// Fills `out`, and `sum` where the call has one. Implementations are `#[inline(always)]`, as those of `look`.
    fn run<S: Simd>(
        self,
        s: S,
        seen: Self::Seen,
        from: [Operand; N],
        sum: Option<Target>,
        out: Target,
        room: &mut [f32],
    );
}

/// Some rows.
pub(crate) trait Several {
    fn row(&self, row: usize) -> Row<'_>;
}

/// [`Lanes`] on whole rows.
#[derive(Clone, Copy)]
struct Each<L>(L);

impl<L: Lanes<N>, const N: usize> RowOp<N> for Each<L> {
    const COST: u64 = L::COST;
    const ELEMENTWISE: bool = true;
    type Seen = ();
    #[inline(always)]
    fn look<S: Simd>(self, _: S, _: &impl Several, _: &mut [()]) {}
    #[inline(always)]
    fn run<S: Simd>(
        self,
        s: S,
        (): (),
        from: [Operand; N],
        _: Option<Target>,
        mut out: Target,
        _: &mut [f32],
    ) {
        fill(s, self.0, from, &mut out);
    }
}

/// An input of a call; without it, it is what the output holds.
pub(crate) type Input<'a> = Option<Floats<'a, IxDyn>>;

/// An operand, for as long as the call.
pub(crate) fn lend<'a, 'b: 'a, D: Dimension>(x: Floats<'b, D>) -> Option<Floats<'a, IxDyn>> {
    Some(x.into_dyn().reborrow())
}

/// Elements of a task: enough to hide the hand-out.
pub(crate) const TASK: usize = 16 * 1024;

/// Elements of a task whose output goes past the caches: every beginning of a stream is slow.
const LONG_TASK: usize = 64 * 1024;

/// Elements of a row that are copied at a time where they lie apart and it may be cut: they stay in the first cache.
pub(crate) const PART: usize = 1024;

/// Bytes of an output from which it is written past the caches: it would not fit the last one.
pub(crate) const PAST: usize = 32 << 20;

/// Bytes of a row below which it does not go past the caches.
pub(super) const SHORT: usize = 2048;

/// Whether an output goes past the caches.
pub(crate) fn goes_past<D: Dimension>(out: &FloatsMut<D>) -> bool {
    out.shape().iter().product::<usize>() * out.dtype().size() >= PAST
}

/// Elements of a task of such an output, or of another.
pub(crate) fn task_size(past: bool) -> usize {
    if past { LONG_TASK } else { TASK }
}

/// Tasks a thread has where they could be longer: enough that all threads end together.
pub(super) const TASKS_A_THREAD: usize = 8;

/// Applies `op` to every element of `out`. The caller has checked the shapes; inputs may have axes of one element, or
/// lack leading axes, where the output repeats them.
pub(crate) fn for_elements<const N: usize>(
    op: impl Lanes<N>,
    inputs: [Input; N],
    out: FloatsMut<IxDyn>,
) -> Result<()> {
    for_rows(Each(op), inputs, None, out)
}

/// Applies `op` to every row (the last axis) of `out`, and of `sum` where there is one; as [`for_elements`].
pub(crate) fn for_rows<O: RowOp<N>, const N: usize>(
    op: O,
    inputs: [Input; N],
    sum: Option<FloatsMut<IxDyn>>,
    out: FloatsMut<IxDyn>,
) -> Result<()> {
    if out.shape().contains(&0) {
        return Ok(());
    }
    let shape = out.shape();
    let mut fitting = [const { None }; N];
    for (to, input) in fitting.iter_mut().zip(&inputs) {
        if let Some(x) = input {
            let unfit = || Error::Internal(format!("{:?} does not repeat to {shape:?}", x.shape()));
            *to = Some(x.broadcast(shape).ok_or_else(unfit)?);
        }
    }
    let work = O::COST.saturating_mul(shape.iter().product::<usize>() as u64);
    let past = goes_past(&out);
    let (out, sum) = (out.reborrow(), sum.map(FloatsMut::reborrow));
    All { inputs: fitting, out, sum }.arranged(O::ELEMENTWISE).run(op, work, past);
    Ok(())
}

/// Arrays of one shape.
struct All<'a, const N: usize> {
    inputs: [Input<'a>; N],
    out: FloatsMut<'a, IxDyn>,
    sum: Option<FloatsMut<'a, IxDyn>>,
}

impl<const N: usize> All<'_, N> {
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

    fn run<O: RowOp<N>>(mut self, op: O, work: u64, past: bool) {
        if self.out.shape().len() > 4 {
            // Rare: five axes that no common step joins.
            let work = work / self.out.shape()[0] as u64;
            for i in 0..self.out.shape()[0] {
                let (first, rest) = self.out.split_at(0, 1);
                let (sum, sums) = self.sum.map(|x| x.split_at(0, 1)).unzip();
                let inputs = self.inputs.each_ref();
                let inputs = inputs.map(|x| x.clone().map(|x| x.split_at(0, i).1.remove_axis(0)));
                let part = All { inputs, out: first.remove_axis(0), sum: sum.map(|x| x.remove_axis(0)) };
                part.run(op, work, past);
                (self.out, self.sum) = (rest, sums);
            }
            return;
        }
        let inputs = self.inputs.map(|x| x.and_then(Floats::into_rank::<Ix4>));
        let (Some(out), sum) = (self.out.into_rank::<Ix4>(), self.sum.and_then(FloatsMut::into_rank)) else {
            unreachable!("four axes were made")
        };
        let width = out.shape()[3];
        // Where a short row ends within a line, what follows waits for it.
        let past = past && width * out.dtype().size() >= SHORT;
        let apart = |strides: &[isize]| strides[3] != 1;
        let copied = inputs.iter().flatten().any(|x| apart(x.strides()))
            || apart(out.strides())
            || sum.as_ref().is_some_and(|x| apart(x.strides()));
        let part = if O::ELEMENTWISE && copied { width.min(PART) } else { width };
        let copies = if copied { N + 2 } else { 0 };
        let rooms = copies + usize::from(op.needs_room());
        let whole = Piece { at: [0; 4], out, sum };
        let axes = if O::ELEMENTWISE { 4 } else { 3 };
        let size = task_size(past);
        let tasks = whole.parts(axes, threads::parts(work)).map(|part| Tasks {
            stack: [Some(part), None, None, None],
            axes,
            size,
        });
        let inputs = &inputs;
        threads::for_each_in(tasks, work, |piece| {
            threads::with_scratch(rooms * line(part), |scratch| {
                O::task(Run { op, inputs, piece, part, past, scratch });
            });
        });
    }
}

/// Numbers that fill whole lines of a cache.
pub(super) fn line(len: usize) -> usize {
    len.next_multiple_of(16)
}

/// A box of the output that begins at `at`.
pub(crate) struct Piece<'a> {
    pub at: [usize; 4],
    pub out: FloatsMut<'a, Ix4>,
    pub sum: Option<FloatsMut<'a, Ix4>>,
}

impl<'a> Piece<'a> {
    /// The rest from `keep` on of an axis is a piece of its own.
    fn split(self, axis: usize, keep: usize) -> (Piece<'a>, Piece<'a>) {
        let Piece { at, out, sum } = self;
        let (out, rest) = out.split_at(axis, keep);
        let (sum, sums) = sum.map(|x| x.split_at(axis, keep)).unzip();
        let mut behind = at;
        behind[axis] += keep;
        (Piece { at, out, sum }, Piece { at: behind, out: rest, sum: sums })
    }

    /// Up to `count` parts, as even as they can be, along the first of the first `axes` axes that is long enough.
    fn parts(self, axes: usize, count: usize) -> impl Iterator<Item = Piece<'a>> {
        let axis = (0..axes).find(|&axis| self.out.shape()[axis] >= count).unwrap_or(0);
        let mut keep = self.out.shape()[axis].div_ceil(count);
        if axis == 3 {
            // Whole lines of a cache.
            keep = keep.next_multiple_of(32);
        }
        threads::pieces(self, move |piece| {
            if piece.out.shape()[axis] <= keep {
                return (piece, None);
            }
            let (part, behind) = piece.split(axis, keep);
            (part, Some(behind))
        })
    }
}

/// Cuts a box along its first `axes` axes into boxes of at most `size` elements, in order.
struct Tasks<'a> {
    /// What is left, the next on top: at most one for each axis.
    stack: [Option<Piece<'a>>; 4],
    axes: usize,
    size: usize,
}

impl<'a> Iterator for Tasks<'a> {
    type Item = Piece<'a>;

    fn next(&mut self) -> Option<Piece<'a>> {
        let top = self.stack.iter().rposition(Option::is_some)?;
        let mut piece = self.stack[top].take()?;
        let mut free = top;
        for axis in 0..self.axes {
            let shape = piece.out.shape();
            let keep = (self.size / shape[axis + 1..].iter().product::<usize>()).max(1);
            if shape[axis] <= keep {
                continue;
            }
            let (part, rest) = piece.split(axis, keep);
            self.stack[free] = Some(rest);
            free += 1;
            piece = part;
        }
        Some(piece)
    }
}
