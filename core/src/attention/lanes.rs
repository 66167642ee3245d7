//! The lanes of one query tile: its scratch, and rows in and out of it.

use super::KEY_TILE;
use super::tiles::MAX_ROWS;
use crate::arch::{Matrix, MatrixMut};
use crate::tensor::Element;

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
    /// Keys or values of a tile as f32, where they are stored in 16 bits, `[KEY_TILE * D]` numbers.
    pub wide: &'a mut [f32],
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

/// What the size of the scratch follows from.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub dim: usize,
    pub value_dim: usize,
    pub with_bias: bool,
    /// Keys and values are stored in 16 bits.
    pub narrow: bool,
}

impl Sizes {
    fn bias(self, width: usize) -> usize {
        if self.with_bias { KEY_TILE * width } else { 0 }
    }

    fn wide(self) -> usize {
        if self.narrow { KEY_TILE * self.dim.max(self.value_dim) } else { 0 }
    }
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
    pub(super) fn scratch(self, size: Sizes) -> usize {
        let Sizes { dim, value_dim, .. } = size;
        self.0 * (dim + KEY_TILE + 2 * value_dim + 6) + size.bias(self.0) + size.wide()
    }

    pub(super) fn split(self, scratch: &mut [f32], size: Sizes) -> (Work<'_>, TileResult<'_>) {
        let w = self.0;
        let Sizes { dim, value_dim, .. } = size;
        let (q, rest) = scratch.split_at_mut(dim * w);
        let (p, rest) = rest.split_at_mut(KEY_TILE * w);
        let (o, rest) = rest.split_at_mut(value_dim * w);
        let (total, rest) = rest.split_at_mut(value_dim * w);
        let (m, rest) = rest.split_at_mut(w);
        let (l, rest) = rest.split_at_mut(w);
        let (next, rest) = rest.split_at_mut(w);
        let (alpha, rest) = rest.split_at_mut(w);
        let (total_m, rest) = rest.split_at_mut(w);
        let (total_l, rest) = rest.split_at_mut(w);
        let (bias, rest) = rest.split_at_mut(size.bias(w));
        let wide = &mut rest[..size.wide()];
        let result = TileResult { o: total, m: total_m, l: total_l };
        (Work { q, p, bias, wide, o, m, l, next, alpha }, result)
    }

    /// Writes the rows of one head, times `factor`, to the lanes from `first`.
    pub(super) fn pack<T: Element>(self, q: Matrix<T>, first: usize, factor: f32, packed: &mut [f32]) {
        for i in 0..q.rows() {
            let lane = first + i;
            match q.row(i) {
                Some(row) => {
                    for (to, &x) in packed.chunks_exact_mut(self.0).zip(row) {
                        to[lane] = x.to_f32() * factor;
                    }
                }
                None => {
                    for d in 0..q.cols() {
                        packed[d * self.0 + lane] = q.get(i, d).to_f32() * factor;
                    }
                }
            }
        }
    }

    /// Reads the lanes from `first` into the rows of one head.
    pub(super) fn unpack<T: Element>(self, packed: &[f32], first: usize, mut out: MatrixMut<T>) {
        for i in 0..out.rows() {
            let lane = first + i;
            match out.row(i) {
                Some(row) => {
                    for (to, from) in row.iter_mut().zip(packed.chunks_exact(self.0)) {
                        *to = T::from_f32(from[lane]);
                    }
                }
                None => {
                    for d in 0..out.cols() {
                        out.set(i, d, T::from_f32(packed[d * self.0 + lane]));
                    }
                }
            }
        }
    }
}
