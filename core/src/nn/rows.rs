//! Running an operation over the rows of `[B, T, d]` views: tasks, strides, scratch.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayViewMut1, ArrayViewMut2, ArrayViewMut3, Axis, s};

use crate::arch::{Kernel, Simd, dispatch};
use crate::threads;

/// The inputs of one row, contiguous.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    /// The row of the first operand; without one it is what `out` holds.
    pub x: Option<&'a [f32]>,
    /// The row of the second operand; without one it is what `out` holds.
    pub y: Option<&'a [f32]>,
    /// What multiplies: weight, scale or gate.
    pub scale: Option<&'a [f32]>,
    /// What is added: bias or shift.
    pub shift: Option<&'a [f32]>,
}

/// An operation from the inputs of a row to a row.
pub(super) trait RowOp: Copy + Send + Sync {
    /// Roughly how many operations an element costs.
    const COST: u64;
    /// Fills `out`, which holds its former values. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, s: S, row: Row, out: &mut [f32]);
}

/// The operands: `x` and `y` are `[B, T, d]`, `scale` and `shift` `[B, d]`.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub x: Option<ArrayView3<'a, f32>>,
    pub y: Option<ArrayView3<'a, f32>>,
    pub scale: Option<ArrayView2<'a, f32>>,
    pub shift: Option<ArrayView2<'a, f32>>,
}

/// Elements of a task: enough to hide the hand-out.
const TASK: usize = 16 * 1024;

/// Applies `op` to every row. The caller has checked the shapes.
pub(super) fn for_rows<O: RowOp>(op: O, operands: Operands, out: ArrayViewMut3<f32>) {
    let (_, _, d) = out.dim();
    if out.is_empty() {
        return;
    }
    let work = O::COST.saturating_mul(out.len() as u64);
    let tasks = Tasks { whole: Some(out), current: None, batch: 0, token: 0, tokens: (TASK / d).max(1) };
    threads::for_each(tasks, work, |(batch, token, out)| {
        threads::with_scratch(5 * d, |scratch| dispatch(Run { op, operands, batch, token, out, scratch }));
    });
}

/// Cuts a non-empty `[B, T, d]` view into runs of rows of one batch entry:
/// (batch, first token, rows).
struct Tasks<'a> {
    whole: Option<ArrayViewMut3<'a, f32>>,
    /// What is left of the current batch entry.
    current: Option<ArrayViewMut2<'a, f32>>,
    batch: usize,
    token: usize,
    /// Rows of a task.
    tokens: usize,
}

impl<'a> Iterator for Tasks<'a> {
    type Item = (usize, usize, ArrayViewMut2<'a, f32>);

    fn next(&mut self) -> Option<Self::Item> {
        let current = match self.current.take() {
            Some(rest) => rest,
            None => {
                let (first, rest) = self.whole.take()?.split_at(Axis(0), 1);
                self.whole = (rest.len_of(Axis(0)) > 0).then_some(rest);
                first.index_axis_move(Axis(0), 0)
            }
        };
        let (batch, token) = (self.batch, self.token);
        let n = current.nrows().min(self.tokens);
        let (rows, rest) = current.split_at(Axis(0), n);
        if rest.nrows() > 0 {
            self.current = Some(rest);
            self.token += n;
        } else {
            (self.batch, self.token) = (batch + 1, 0);
        }
        Some((batch, token, rows))
    }
}

struct Run<'a, 'b, O> {
    op: O,
    operands: Operands<'a>,
    batch: usize,
    token: usize,
    out: ArrayViewMut2<'b, f32>,
    /// Five rows.
    scratch: &'b mut [f32],
}

impl<'a, O: RowOp> Kernel for Run<'a, '_, O> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { op, operands, batch, token, mut out, scratch } = self;
        let (n, d) = out.dim();
        let mut buffers = scratch.chunks_exact_mut(d);
        let mut buffer = || buffers.next().unwrap_or_default();
        let (bx, by, bscale, bshift, bout) = (buffer(), buffer(), buffer(), buffer(), buffer());
        let parameters = |p: Option<ArrayView2<'a, f32>>| p.map(|p| p.index_axis_move(Axis(0), batch));
        let (scale, shift) = (parameters(operands.scale), parameters(operands.shift));
        let scale = scale.as_ref().map(|p| contiguous(p, bscale));
        let shift = shift.as_ref().map(|p| contiguous(p, bshift));
        for t in 0..n {
            let row_of = |x: ArrayView3<'a, f32>| x.slice_move(s![batch, token + t, ..]);
            let (x, y) = (operands.x.map(row_of), operands.y.map(row_of));
            let x = x.as_ref().map(|x| contiguous(x, bx));
            let y = y.as_ref().map(|y| contiguous(y, by));
            let row = Row { x, y, scale, shift };
            let mut out: ArrayViewMut1<f32> = out.row_mut(t);
            if let Some(out) = out.as_slice_mut() {
                op.run(s, row, out);
            } else {
                bout.iter_mut().zip(&out).for_each(|(b, o)| *b = *o);
                op.run(s, row, bout);
                out.iter_mut().zip(&*bout).for_each(|(o, b)| *o = *b);
            }
        }
    }
}

/// The row itself where its elements lie side by side, else its copy in `buffer`.
fn contiguous<'a>(row: &'a ArrayView1<f32>, buffer: &'a mut [f32]) -> &'a [f32] {
    match row.to_slice() {
        Some(slice) => slice,
        None => {
            buffer.iter_mut().zip(row).for_each(|(b, r)| *b = *r);
            buffer
        }
    }
}
