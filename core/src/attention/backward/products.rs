//! What the gradients of the scores of a tile add to those of keys, values and queries.
//!
//! Probabilities and gradients of the scores are `[key][lane]`. That is the packed operand of
//! `dq^T += k^T ds^T` and, read row by row, the broadcast one of `dv += p^T dout` and
//! `dk += ds^T q`, whose packed operands are the rows of `dout` and `q` as they lie. In pairs of bfloat16
//! both are rounded first; the pairs are of neighbouring keys for the queries, else of neighbouring queries.

use std::ops::Range;

use ndarray::{Ix4, s};

use super::super::over_keys;
use super::super::products::{Dots, Products, Wide, interleaved};
use super::super::scores::all_finite;
use super::skipping::{Halves, Numbers, PairsOfRows, keys_skipping, queries_skipping};
use super::tile::rows_of;
use super::work::Work;
use crate::arch::{Kernel, Lend, Matrix, MatrixMut, Pairs, Simd, Sink, Words, dispatch, multiply};
use crate::tensor::{Floats, bf16};

/// How the products of the backward pass are computed.
pub(super) trait Arithmetic: Products {
    /// Rows `first .. first + len` of a head as the products take them, in `wide` where they are brought into
    /// another form for all of them, and what is left of it.
    fn rows<'m>(
        x: &'m Floats<Ix4>,
        head: [usize; 2],
        first: usize,
        len: usize,
        wide: &'m mut [f32],
    ) -> (Matrix<'m, Self::Stored>, &'m mut [f32]);

    /// Brings rows of a query tile, which `to` holds as f32, into the form in which they are summed.
    fn pack_rows(x: &Floats<Ix4>, head: [usize; 2], rows: Range<usize>, to: &mut [f32], stride: usize);

    /// Brings probabilities and gradients of scores into the form in which they are multiplied.
    fn round<S: Simd>(s: S, keys: usize, work: &mut Work);

    /// `p^T dout` to `dv` and `ds^T q` to `dk`.
    fn of_keys<S: Simd>(s: S, keys: usize, finite: bool, work: &Work, dv: &mut AddRows, dk: &mut AddRows);

    /// `k^T ds^T` to `work.dq`, a second chain from key `middle` on; what is rounded is needed no more.
    fn of_queries<S: Simd>(s: S, k: Matrix<Self::Stored>, middle: usize, room: &mut [f32], work: &mut Work);
}

/// The three products of a tile.
pub(super) struct Sums<'a, 'b, 'c, 'd, A: Arithmetic> {
    pub k: Matrix<'a, A::Stored>,
    /// Keys before the middle of the tile.
    pub middle: usize,
    /// Whether scores were capped.
    pub capped: bool,
    /// Whether rows of `q` and `dout` hold finite numbers alone.
    pub finite: bool,
    pub room: &'c mut [f32],
    pub work: &'c mut Work<'b>,
    /// Rows of `dk` and `dv` of this tile's keys, and where they begin.
    pub keys: Option<(&'c mut MatrixMut<'d>, &'c mut MatrixMut<'d>, usize)>,
    /// Whether `work.dq` is wanted.
    pub queries: bool,
}

impl<A: Arithmetic> Kernel for Sums<'_, '_, '_, '_, A> {
    type Output = ();
    const DOTS: bool = A::PAIRS;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Sums { k, middle, capped, finite, room, work, keys, queries } = self;
        let len = k.rows();
        if capped {
            let used = len * work.width;
            times(s, &mut work.ds[..used], &work.slope[..used]);
        }
        A::round(s, len, work);
        if let Some((dk, dv, first)) = keys {
            A::of_keys(s, len, finite, work, &mut AddRows { to: dv, first }, &mut AddRows { to: dk, first });
        }
        if queries {
            A::of_queries(s, k, middle, room, work);
        }
    }
}

/// `x = x by`; a zero stays one, since the slope of a hidden score may be NaN.
#[inline(always)]
fn times<S: Simd>(s: S, x: &mut [f32], by: &[f32]) {
    let zero = s.splat(0.0);
    let mut i = 0;
    while i < x.len() {
        let from = s.load(&x[i..]);
        let product = s.mul(from, s.load(&by[i..]));
        s.store(s.select(s.eq(from, zero), from, product), &mut x[i..]);
        i += S::LANES;
    }
}

/// Everything in f32.
impl Arithmetic for Wide<f32> {
    fn rows<'m>(
        x: &'m Floats<Ix4>,
        head: [usize; 2],
        first: usize,
        len: usize,
        wide: &'m mut [f32],
    ) -> (Matrix<'m>, &'m mut [f32]) {
        (rows_of(x, head, first, len, wide), &mut [])
    }

    fn pack_rows(_: &Floats<Ix4>, _: [usize; 2], _: Range<usize>, _: &mut [f32], _: usize) {}

    #[inline(always)]
    fn round<S: Simd>(_: S, _: usize, _: &mut Work) {}

    #[inline(always)]
    fn of_keys<S: Simd>(s: S, keys: usize, finite: bool, work: &Work, dv: &mut AddRows, dk: &mut AddRows) {
        let width = work.width;
        let (p, ds) = (&work.p[..keys * width], &work.ds[..keys * width]);
        if finite {
            // Lanes without a row are no part of the sum.
            let of_rows =
                |x| Matrix::from_slice(x, keys, width).transposed().slice_rows(0, work.rows).transposed();
            multiply(s, of_rows(p), work.dout, work.dout_stride, dv);
            multiply(s, of_rows(ds), work.q, work.q_stride, dk);
        } else {
            let (p, ds) = (Numbers { x: p, width }, Numbers { x: ds, width });
            let (dout, q) = (work.dout_stride, work.q_stride);
            keys_skipping(s, p, p, Numbers { x: work.dout, width: dout }, [keys, work.rows, dout], dv);
            keys_skipping(s, p, ds, Numbers { x: work.q, width: q }, [keys, work.rows, q], dk);
        }
    }

    #[inline(always)]
    fn of_queries<S: Simd>(s: S, k: Matrix, middle: usize, _: &mut [f32], work: &mut Work) {
        let width = work.width;
        let ds = &work.ds[..k.rows() * width];
        let mut add = Add { to: work.dq, width };
        if all_finite(s, k) {
            multiply(s, over_keys(k.transposed(), middle), ds, width, &mut add);
        } else {
            let (p, ds) = (Numbers { x: work.p, width }, Numbers { x: ds, width });
            queries_skipping(s, k, p, ds, middle, width, &mut add);
        }
    }
}

/// Pairs of bfloat16.
impl Arithmetic for Dots {
    fn rows<'m>(
        x: &'m Floats<Ix4>,
        [batch, head]: [usize; 2],
        first: usize,
        len: usize,
        wide: &'m mut [f32],
    ) -> (Matrix<'m, bf16>, &'m mut [f32]) {
        let Floats::Bf16(x) = x else { unreachable!("pairs are of bfloat16") };
        (Matrix::new(x.slice(s![batch, head, first..first + len, ..])), wide)
    }

    fn pack_rows(x: &Floats<Ix4>, head: [usize; 2], rows: Range<usize>, to: &mut [f32], stride: usize) {
        let (rows, _) = Self::rows(x, head, rows.start, rows.len(), &mut []);
        dispatch(Interleave { rows, to, stride });
    }

    #[inline(always)]
    fn round<S: Simd>(s: S, keys: usize, work: &mut Work) {
        let used = keys * work.width;
        for (from, to) in [(&*work.p, &mut *work.p_halves), (&*work.ds, &mut *work.ds_halves)] {
            let to = bf16::lend(to).words_mut();
            let mut i = 0;
            while i < used {
                s.store_bf16(s.load(&from[i..]), &mut to[i..]);
                i += S::LANES;
            }
            if !work.rows.is_multiple_of(2) {
                // The lane that completes the last pair has no row.
                for row in to[..used].chunks_exact_mut(work.width) {
                    row[work.rows] = 0;
                }
            }
        }
    }

    #[inline(always)]
    fn of_keys<S: Simd>(s: S, keys: usize, finite: bool, work: &Work, dv: &mut AddRows, dk: &mut AddRows) {
        let width = work.width;
        if finite {
            let of_rows = |x| Pairs::from_bits(x, keys, width / 2).slice_pairs(0, work.rows.div_ceil(2));
            multiply(s, of_rows(work.p_halves), work.dout, work.dout_stride, dv);
            multiply(s, of_rows(work.ds_halves), work.q, work.q_stride, dk);
        } else {
            let (p, ds) = (Halves { x: work.p_halves, width }, Halves { x: work.ds_halves, width });
            let (dout, q) = (work.dout_stride, work.q_stride);
            keys_skipping(s, p, p, PairsOfRows { x: work.dout, width: dout }, [keys, work.rows, dout], dv);
            keys_skipping(s, p, ds, PairsOfRows { x: work.q, width: q }, [keys, work.rows, q], dk);
        }
    }

    #[inline(always)]
    fn of_queries<S: Simd>(s: S, k: Matrix<bf16>, _: usize, room: &mut [f32], work: &mut Work) {
        let width = work.width;
        let mut add = Add { to: work.dq, width };
        if all_finite(s, k) {
            let ds = Matrix::from_slice(bf16::lend(work.ds_halves), k.rows(), width);
            interleaved(s, ds, work.p, width);
            multiply(s, interleaved(s, k, room, k.cols()).transposed(), work.p, width, &mut add);
        } else {
            let (p, ds) = (Halves { x: work.p_halves, width }, Halves { x: work.ds_halves, width });
            queries_skipping(s, k, p, ds, k.rows(), width, &mut add);
        }
    }
}

/// [`interleaved`] as a kernel of its own.
struct Interleave<'a, 'b> {
    rows: Matrix<'a, bf16>,
    to: &'b mut [f32],
    stride: usize,
}

impl Kernel for Interleave<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        interleaved(s, self.rows, self.to, self.stride);
    }
}

/// Adds a block to `[d][lane]`.
struct Add<'a> {
    to: &'a mut [f32],
    width: usize,
}

impl<S: Simd> Sink<S> for Add<'_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let to = &mut self.to[(row + r) * self.width + lane..];
            for v in 0..NV {
                let i = v * S::LANES;
                s.store(s.add(s.load(&to[i..]), acc[r][v]), &mut to[i..]);
            }
        }
    }
}

/// Adds a block to rows from `first`, whose lanes beyond the last column do not exist.
pub(super) struct AddRows<'a, 'b> {
    to: &'a mut MatrixMut<'b>,
    first: usize,
}

impl<S: Simd> Sink<S> for AddRows<'_, '_> {
    #[inline(always)]
    fn put<const MR: usize, const NV: usize>(
        &mut self,
        s: S,
        row: usize,
        lane: usize,
        acc: [[S::F; NV]; MR],
    ) {
        for r in 0..MR {
            let Some(to) = self.to.row(self.first + row + r) else { continue };
            for v in 0..NV {
                let i = lane + v * S::LANES;
                if i + S::LANES <= to.len() {
                    s.store(s.add(s.load(&to[i..]), acc[r][v]), &mut to[i..]);
                } else if i < to.len() {
                    let sum = s.add(s.load_partial(&to[i..], 0.0), acc[r][v]);
                    s.store_partial(sum, &mut to[i..]);
                }
            }
        }
    }
}
