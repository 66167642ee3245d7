//! The lanes of one query tile: its scratch, and rows in and out of it.

use super::KEY_TILE;
use super::tiles::MAX_ROWS;
use crate::arch::{Matrix, MatrixMut};

/// How many lanes a tile has, and the layout of its scratch.
#[derive(Clone, Copy)]
pub(super) struct Lanes(usize);

/// Buffers a tile works in; `[n]` counts rows of `width` floats.
pub(super) struct Work<'a> {
    /// Queries times the factor, `[D]`.
    pub q: &'a mut [f32],
    /// Scores, then probabilities, `[KEY_TILE]`.
    pub p: &'a mut [f32],
    /// Bias, -inf where the mask hides the element, `[KEY_TILE]`; empty without either.
    pub bias: &'a mut [f32],
    /// Output of the present split, `[Dv]`.
    pub o: &'a mut [f32],
    /// Maximum, sum, next maximum and rescale factor of the present split, one row each.
    pub m: &'a mut [f32],
    pub l: &'a mut [f32],
    pub next: &'a mut [f32],
    pub alpha: &'a mut [f32],
}

/// What a tile leaves: output `[Dv]`, maximum and sum, one row each.
pub(super) struct TileResult<'a> {
    pub o: &'a mut [f32],
    pub m: &'a mut [f32],
    pub l: &'a mut [f32],
}

impl Lanes {
    /// Enough lanes for `rows` queries: 16, 32 or 64. More would only be wasted.
    pub(super) fn new(rows: usize) -> Self {
        Lanes(rows.next_power_of_two().clamp(16, MAX_ROWS))
    }

    pub(super) fn width(self) -> usize {
        self.0
    }

    /// Floats of scratch: bounded by the head sizes, whatever the number of keys.
    pub(super) fn scratch(self, dim: usize, value_dim: usize, with_bias: bool) -> usize {
        self.0 * (dim + KEY_TILE * (1 + usize::from(with_bias)) + 2 * value_dim + 6)
    }

    pub(super) fn split(
        self,
        scratch: &mut [f32],
        dim: usize,
        value_dim: usize,
        with_bias: bool,
    ) -> (Work<'_>, TileResult<'_>) {
        let w = self.0;
        let (q, rest) = scratch.split_at_mut(dim * w);
        let (p, rest) = rest.split_at_mut(KEY_TILE * w);
        let (bias, rest) = rest.split_at_mut(if with_bias { KEY_TILE * w } else { 0 });
        let (o, rest) = rest.split_at_mut(value_dim * w);
        let (total, rest) = rest.split_at_mut(value_dim * w);
        let (m, rest) = rest.split_at_mut(w);
        let (l, rest) = rest.split_at_mut(w);
        let (next, rest) = rest.split_at_mut(w);
        let (alpha, rest) = rest.split_at_mut(w);
        let (total_m, rest) = rest.split_at_mut(w);
        let total_l = &mut rest[..w];
        (Work { q, p, bias, o, m, l, next, alpha }, TileResult { o: total, m: total_m, l: total_l })
    }

    /// Writes the rows of one head, times `factor`, to the lanes from `first`.
    pub(super) fn pack(self, q: Matrix, first: usize, factor: f32, packed: &mut [f32]) {
        for i in 0..q.rows() {
            let lane = first + i;
            match q.row(i) {
                Some(row) => {
                    for (to, &x) in packed.chunks_exact_mut(self.0).zip(row) {
                        to[lane] = x * factor;
                    }
                }
                None => {
                    for d in 0..q.cols() {
                        packed[d * self.0 + lane] = q.get(i, d) * factor;
                    }
                }
            }
        }
    }

    /// Reads the lanes from `first` into the rows of one head.
    pub(super) fn unpack(self, packed: &[f32], first: usize, mut out: MatrixMut) {
        for i in 0..out.rows() {
            let lane = first + i;
            match out.row(i) {
                Some(row) => {
                    for (to, from) in row.iter_mut().zip(packed.chunks_exact(self.0)) {
                        *to = from[lane];
                    }
                }
                None => {
                    for d in 0..out.cols() {
                        out.set(i, d, packed[d * self.0 + lane]);
                    }
                }
            }
        }
    }
}
