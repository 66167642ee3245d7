//! The scratch of a task, and rows brought into it.

use super::super::cut::MAX_ROWS;
use super::super::{KEY_TILE, chain_length};
use crate::arch::{Kernel, Matrix, Simd};
use crate::linalg::rows::load;
use crate::tensor::Element;

/// Buffers of one query tile; `[n]` counts rows of `width` floats.
pub(super) struct Work<'a> {
    /// Lanes of the present tile.
    pub width: usize,
    /// Queries of the present tile, a lane each.
    pub rows: usize,
    /// Queries as they are, one row of `q_stride` floats after the other, 0 behind the last column; in pairs of
    /// bfloat16 two rows in one.
    pub q: &'a mut [f32],
    pub q_stride: usize,
    /// Gradients of the output, likewise.
    pub dout: &'a mut [f32],
    pub dout_stride: usize,
    /// Queries times the factor, `[D]`; pairs as they are, `[D / 2]`.
    pub q_lanes: &'a mut [f32],
    /// Gradients of the output, `[Dv]`; pairs of them, `[Dv / 2]`.
    pub dout_lanes: &'a mut [f32],
    /// Gradients of the queries, `[D]`.
    pub dq: &'a mut [f32],
    /// Probabilities, `[KEY_TILE]`.
    pub p: &'a mut [f32],
    /// Gradients of the scores, `[KEY_TILE]`.
    pub ds: &'a mut [f32],
    /// Both rounded to bfloat16, two lanes in one element; empty without pairs.
    pub p_halves: &'a mut [f32],
    pub ds_halves: &'a mut [f32],
    /// Derivatives of the soft-cap, `[KEY_TILE]`; empty without one.
    pub slope: &'a mut [f32],
    /// Bias, -inf where the mask hides the element, `[KEY_TILE]`; empty without either.
    pub bias: &'a mut [f32],
    /// Log-sum-exp; +inf for a row without a key.
    pub lse: &'a mut [f32],
    /// `dout . out`
    pub delta: &'a mut [f32],
    /// Maxima that nobody reads.
    pub next: &'a mut [f32],
}

/// Keys and values of a tile in another form, where they are stored in 16 bits; pairs need one room for both.
pub(super) struct Wide<'a> {
    pub k: &'a mut [f32],
    pub v: &'a mut [f32],
}

/// What the size of the scratch follows from.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub dim: usize,
    pub value_dim: usize,
    pub with_cap: bool,
    pub with_bias: bool,
    /// Keys and values are stored in 16 bits.
    pub narrow: bool,
    /// The products are of pairs of bfloat16.
    pub pairs: bool,
}

/// Columns rounded up to what a product takes as lanes.
fn stride(cols: usize) -> usize {
    cols.next_multiple_of(16)
}

impl Sizes {
    fn parts(self) -> [usize; 16] {
        let Sizes { dim, value_dim, .. } = self;
        let w = MAX_ROWS;
        let scores = KEY_TILE * w;
        let when = |yes: bool, n: usize| if yes { n } else { 0 };
        let [wide_k, wide_v] = match (self.narrow, self.pairs) {
            (false, _) => [0, 0],
            (true, false) => [KEY_TILE * dim, KEY_TILE * value_dim],
            // One after the other, as pairs or, where products of these are no instructions, widened.
            (true, true) => [KEY_TILE * dim.max(value_dim).next_multiple_of(2), 0],
        };
        [
            w * stride(dim),
            w * stride(value_dim),
            w * dim,
            // Holds the rows of the output for a moment.
            w * stride(value_dim),
            w * dim,
            scores,
            scores,
            when(self.pairs, scores / 2),
            when(self.pairs, scores / 2),
            when(self.with_cap, scores),
            when(self.with_bias, scores),
            wide_k,
            wide_v,
            w,
            w,
            w,
        ]
    }

    /// Floats of scratch: bounded by the head sizes, whatever the number of keys and queries.
    pub(super) fn scratch(self) -> usize {
        self.parts().iter().sum()
    }

    /// The buffers, and what is left of `scratch`.
    pub(super) fn split(self, mut scratch: &mut [f32]) -> (Work<'_>, Wide<'_>, &mut [f32]) {
        let mut parts = self.parts().map(|n| {
            let (part, rest) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = rest;
            part
        });
        let [q, dout, q_lanes, dout_lanes, dq, p, ds, p_halves, ds_halves, rest @ ..] =
            parts.each_mut().map(std::mem::take);
        let [slope, bias, wide_k, wide_v, lse, delta, next] = rest;
        let work = Work {
            width: MAX_ROWS,
            rows: 0,
            q,
            q_stride: stride(self.dim),
            dout,
            dout_stride: stride(self.value_dim),
            q_lanes,
            dout_lanes,
            dq,
            p,
            ds,
            p_halves,
            ds_halves,
            slope,
            bias,
            lse,
            delta,
            next,
        };
        (work, Wide { k: wide_k, v: wide_v }, scratch)
    }
}

/// Copies rows as f32, exactly, each to `stride` floats with zeros at its end.
pub(super) struct Copy<'a, 'b, T> {
    pub from: Matrix<'a, T>,
    pub to: &'b mut [f32],
    pub stride: usize,
}

impl<T: Element> Kernel for Copy<'_, '_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Copy { from, to, stride } = self;
        for (j, to) in to.chunks_exact_mut(stride).take(from.rows()).enumerate() {
            let (to, rest) = to.split_at_mut(from.cols());
            match from.row(j) {
                Some(row) => {
                    let mut d = 0;
                    while d < row.len() {
                        s.store_partial(load(s, row, d), &mut to[d..]);
                        d += S::LANES;
                    }
                }
                None => {
                    for (d, to) in to.iter_mut().enumerate() {
                        *to = from.get(j, d).to_f32();
                    }
                }
            }
            rest.fill(0.0);
        }
    }
}

/// `delta[i] = a[i][e] * b[i][e]` over e, in parts, for rows of `stride` floats.
pub(super) struct RowDots<'a, 'b> {
    pub a: &'a [f32],
    pub b: &'a [f32],
    pub stride: usize,
    pub cols: usize,
    pub delta: &'b mut [f32],
}

impl Kernel for RowDots<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        // Rows side by side, so that their chains overlap in time.
        const TOGETHER: usize = 8;
        let RowDots { a, b, stride, cols, delta } = self;
        for (n, delta) in delta.chunks_mut(TOGETHER).enumerate() {
            let rows = |x| -> [&[f32]; TOGETHER] {
                std::array::from_fn(|r| row_of(x, n * TOGETHER + r.min(delta.len() - 1), stride, cols))
            };
            let (a, b) = (rows(a), rows(b));
            let mut sums = [0.0f32; TOGETHER];
            let mut from = 0;
            while from < cols {
                let to = cols.min(from + chain_length(cols));
                let mut chain = [0.0f32; TOGETHER];
                for e in from..to {
                    for (r, sum) in chain.iter_mut().enumerate() {
                        *sum = a[r][e].mul_add(b[r][e], *sum);
                    }
                }
                for (sum, chain) in sums.iter_mut().zip(chain) {
                    *sum += chain;
                }
                from = to;
            }
            delta.copy_from_slice(&sums[..delta.len()]);
        }
    }
}

#[inline(always)]
fn row_of(x: &[f32], row: usize, stride: usize, cols: usize) -> &[f32] {
    &x[row * stride..][..cols]
}

/// Whether all numbers are finite.
pub(super) struct Finite<'a>(pub &'a [f32]);

impl Kernel for Finite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> bool {
        // Without a way out of the loop, so that it becomes vector code.
        let mut ok = true;
        for x in self.0 {
            ok &= x.abs() < f32::INFINITY;
        }
        ok
    }
}

/// `x = x * factor + 0`: no negative zero.
pub(super) struct Scale<'a> {
    pub x: &'a mut [f32],
    pub factor: f32,
}

impl Kernel for Scale<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for x in self.x {
            *x = *x * self.factor + 0.0;
        }
    }
}
