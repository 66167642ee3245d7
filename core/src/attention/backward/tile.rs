//! One query tile: what is prepared once for all its key tiles, and the walk over them.

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::{ArrayView3, ArrayView4, Ix4, s};

use super::super::KEY_TILE;
use super::super::lanes::Lanes;
use super::super::rows::Pack;
use super::super::scores::{Change, KeyTile, Load, Ranges};
use super::super::tiles::{Problem, change};
use super::kernel::Differences;
use super::products::Arithmetic;
use super::work::{Copy, Finite, RowDots, Sizes, Wide, Work};
use crate::arch::{Matrix, dispatch};
use crate::tensor::{Dtype, Element, Floats, each};

/// A validated call without its outputs.
pub(super) struct Call<'a, 'r, 'o> {
    pub problem: Problem<'a, 'r, 'o>,
    pub out: Floats<'a, Ix4>,
    pub lse: ArrayView3<'a, f32>,
    pub dout: Floats<'a, Ix4>,
    /// Factor of the gradients of queries and keys.
    pub scale: f32,
}

impl Call<'_, '_, '_> {
    /// `[B, H, Lq, Lk]`
    pub(super) fn full(&self) -> [usize; 4] {
        let (q, k) = (self.problem.q.shape(), self.problem.k.shape());
        [q[0], q[1], q[2], k[2]]
    }

    /// Whether everything that is multiplied is stored in bfloat16.
    pub(super) fn is_of_pairs(&self) -> bool {
        let p = &self.problem;
        [&p.q, &p.k, &p.v, &self.dout].into_iter().all(|x| x.dtype() == Dtype::Bf16)
    }

    pub(super) fn sizes(&self) -> Sizes {
        let (p, o) = (&self.problem, self.problem.options);
        Sizes {
            dim: p.q.shape()[3],
            value_dim: p.v.shape()[3],
            with_cap: p.cap.is_some(),
            with_bias: o.bias.is_some() || o.mask.is_some(),
            narrow: p.k.dtype() != Dtype::F32,
            pairs: self.is_of_pairs(),
        }
    }

    /// Whether the bias repeats along an axis.
    pub(super) fn repeats(&self, axis: usize) -> bool {
        self.problem.options.bias.as_ref().is_some_and(|x| x.shape()[axis] != self.full()[axis])
    }

    /// Numbers of a key and its value.
    pub(super) fn key_size(&self) -> usize {
        self.problem.q.shape()[3] + self.problem.v.shape()[3]
    }
}

/// Consecutive queries of one head.
pub(super) struct QueryTile<'c, A> {
    arithmetic: PhantomData<A>,
    batch: usize,
    ranges: Ranges,
    change: Change<'c>,
    pub lanes: Lanes,
    /// Whether queries and gradients of the output are finite numbers.
    pub finite: bool,
}

impl<'c, A: Arithmetic> QueryTile<'c, A> {
    /// Prepares everything in `work` that does not depend on the keys.
    pub(super) fn new(call: &'c Call, batch: usize, h: usize, rows: Range<usize>, work: &mut Work) -> Self {
        let p = &call.problem;
        let lanes = Lanes::new(rows.len());
        (work.width, work.rows) = (lanes.width(), rows.len());
        let block = s![batch, h, rows.clone(), ..];
        // The rows of the output lie where the gradients by lanes will.
        each!(Floats, &call.out, x => copy(x.slice(block), work.dout_lanes, work.dout_stride));
        each!(Floats, &call.dout, x => copy(x.slice(block), work.dout, work.dout_stride));
        each!(Floats, &p.q, x => copy(x.slice(block), work.q, work.q_stride));
        work.delta.fill(0.0);
        dispatch(RowDots {
            a: work.dout,
            b: work.dout_lanes,
            stride: work.dout_stride,
            cols: p.v.shape()[3],
            delta: &mut work.delta[..rows.len()],
        });
        work.lse.fill(f32::INFINITY);
        for (to, &lse) in work.lse.iter_mut().zip(call.lse.slice(s![batch, h, rows.clone()])) {
            // Infinity makes every probability of a row without a key 0.
            *to = if lse == f32::NEG_INFINITY { f32::INFINITY } else { lse };
        }
        let width = lanes.width();
        let lanes_of = s![batch, h..h + 1, rows.clone(), ..];
        let factor = |by: f32| (!A::PAIRS).then_some(by);
        each!(Floats, &p.q, x => {
            let (q, columns, factor) = (x.slice(lanes_of), p.q.shape()[3], factor(p.factor));
            dispatch(Pack { q, columns, factor, width, to: work.q_lanes });
        });
        each!(Floats, &call.dout, x => {
            let (q, columns, factor) = (x.slice(lanes_of), p.v.shape()[3], factor(1.0));
            dispatch(Pack { q, columns, factor, width, to: work.dout_lanes });
        });
        let finite = |x: &[f32], stride: usize| dispatch(Finite(&x[..rows.len() * stride]));
        let finite = finite(work.q, work.q_stride) && finite(work.dout, work.dout_stride);
        for (from, to, stride) in
            [(&p.q, &mut *work.q, work.q_stride), (&call.dout, &mut *work.dout, work.dout_stride)]
        {
            A::pack_rows(from, [batch, h], rows.clone(), to, stride);
        }
        QueryTile {
            arithmetic: PhantomData,
            batch,
            ranges: Ranges::new(rows.clone().map(|i| p.range(batch, i))),
            change: change(
                p.options,
                p.cap,
                call.full(),
                [batch, h, rows.start],
                [1, rows.len()],
                p.keys(batch),
            ),
            lanes,
            finite,
        }
    }

    /// Whether scores are capped.
    pub(super) fn is_capped(&self) -> bool {
        self.change.cap.is_some()
    }

    /// Calls `f` for each key tile among `keys` that a query sees, with the tile's probabilities
    /// and gradients of scores in `work`. `keys` begins with a tile.
    pub(super) fn each_key_tile<'w>(
        &self,
        call: &Call,
        kv_head: usize,
        keys: Range<usize>,
        work: &mut Work<'w>,
        wide: &mut Wide,
        mut f: impl FnMut(KeyTile, Matrix<A::Stored>, &mut [f32], &mut Work<'w>),
    ) {
        let any = self.ranges.any_lane();
        // Keys that no lane sees are left out: they would change nothing.
        let mut used = any.start.max(keys.start)..any.end.min(keys.end);
        if A::PAIRS {
            used.start -= used.start % 2;
        }
        let mut origin = used.start / KEY_TILE * KEY_TILE;
        while origin < used.end {
            let first = origin.max(used.start);
            let len = used.end.min(origin + KEY_TILE) - first;
            let tile = KeyTile::new(origin, first, len, &self.ranges, work.width);
            origin += KEY_TILE;
            let (change, width) = (&self.change, work.width);
            if !dispatch(Load { change, tile, width, to: work.bias, room: work.p }) {
                continue;
            }
            let problem = &call.problem;
            let (k, room) = A::rows(&problem.k, [self.batch, kv_head], first, len, wide.k);
            let (v, _) = A::rows(&problem.v, [self.batch, kv_head], first, len, wide.v);
            let (change, factor) = (&self.change, problem.factor);
            dispatch(Differences::<A> { k, v, tile, change, factor, room: &mut *room, work });
            f(tile, k, room, work);
        }
    }
}

fn copy<T: Element>(from: ndarray::ArrayView2<T>, to: &mut [f32], stride: usize) {
    dispatch(Copy { from: Matrix::new(from), to, stride });
}

/// Rows `first .. first + len` of a head as f32: themselves, or copies in `wide`.
pub(super) fn rows_of<'m>(
    x: &'m Floats<Ix4>,
    [batch, head]: [usize; 2],
    first: usize,
    len: usize,
    wide: &'m mut [f32],
) -> Matrix<'m> {
    fn narrow<'m, T: Element>(
        x: &ArrayView4<T>,
        at: [usize; 2],
        rows: Range<usize>,
        wide: &'m mut [f32],
    ) -> Matrix<'m> {
        let x = x.slice(s![at[0], at[1], rows, ..]);
        let (rows, cols) = x.dim();
        copy(x, wide, cols);
        Matrix::from_slice(wide, rows, cols)
    }
    let rows = first..first + len;
    match x {
        Floats::F32(x) => Matrix::new(x.slice(s![batch, head, rows, ..])),
        Floats::F16(x) => narrow(x, [batch, head], rows, wide),
        Floats::Bf16(x) => narrow(x, [batch, head], rows, wide),
    }
}
