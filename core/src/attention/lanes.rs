//! The lanes of one query tile and its scratch.

use super::KEY_TILE;
use super::cut::MAX_ROWS;

/// How many lanes a tile has, and the layout of its scratch.
#[derive(Clone, Copy)]
pub(super) struct Lanes(usize);

/// Buffers a tile works in; `[n]` counts rows of `width` floats.
pub(super) struct Work<'a> {
    /// Queries times the factor, `[D]`; with pairs of bfloat16 `[D / 2]`.
    pub q: &'a mut [f32],
    /// Scores, then probabilities, `[KEY_TILE]`.
    pub p: &'a mut [f32],
    /// Bias, -inf where the mask hides the element, `[KEY_TILE]`; empty without either.
    pub bias: &'a mut [f32],
    /// Keys or values of a tile in another form, where they are stored in 16 bits.
    pub room: &'a mut [f32],
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
    /// The products are of pairs of bfloat16.
    pub pairs: bool,
    /// These are instructions of their own.
    pub dots: bool,
}

impl Sizes {
    fn bias(self, width: usize) -> usize {
        if self.with_bias { KEY_TILE * width } else { 0 }
    }

    fn q(self) -> usize {
        if self.pairs { self.dim.div_ceil(2) } else { self.dim }
    }

    fn room(self) -> usize {
        match (self.narrow, self.pairs && self.dots) {
            (false, _) => 0,
            (true, false) => KEY_TILE * self.dim.next_multiple_of(2).max(self.value_dim),
            (true, true) => (KEY_TILE * self.q()).max(KEY_TILE / 2 * self.value_dim),
        }
    }
}

impl Lanes {
    /// Enough lanes for `rows` queries: 16, 32, 48 or 64. More would only be wasted.
    pub(super) fn new(rows: usize) -> Self {
        Lanes(rows.next_multiple_of(16).clamp(16, MAX_ROWS))
    }

    pub(super) fn width(self) -> usize {
        self.0
    }

    /// Floats of scratch: bounded by the head sizes, whatever the number of keys.
    pub(super) fn scratch(self, size: Sizes) -> usize {
        self.0 * (size.q() + KEY_TILE + 2 * size.value_dim + 6) + size.bias(self.0) + size.room()
    }

    pub(super) fn split(self, scratch: &mut [f32], size: Sizes) -> (Work<'_>, TileResult<'_>) {
        let w = self.0;
        let value_dim = size.value_dim;
        let (q, rest) = scratch.split_at_mut(size.q() * w);
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
        let room = &mut rest[..size.room()];
        let result = TileResult { o: total, m: total_m, l: total_l };
        (Work { q, p, bias, room, o, m, l, next, alpha }, result)
    }
}
