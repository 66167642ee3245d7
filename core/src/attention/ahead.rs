//! What the next tile will read and write, asked for while the present one is computed.

use ndarray::ArrayView3;

use crate::arch::Simd;

const LINE: usize = 64;
/// More of one array would push the rest out of the cache.
const MOST: usize = 32 << 10;

/// Memory to ask for, some lines at a time, so that their requests do not wait for each other.
#[derive(Default)]
pub(super) struct Ahead {
    parts: [Part; 4],
    /// The part that is being asked for.
    part: usize,
    /// The rest of its present row.
    at: usize,
    end: usize,
    /// Lines asked for at a time; 0 when there are no more.
    step: usize,
}

/// The rows `[outer, rows]` of one array that are yet to come.
#[derive(Clone, Copy, Default)]
struct Part {
    outer: usize,
    outer_start: usize,
    outer_stride: usize,
    rows: usize,
    all_rows: usize,
    start: usize,
    stride: usize,
    bytes: usize,
}

impl Part {
    fn lines(&self) -> usize {
        self.outer * self.all_rows * self.bytes.div_ceil(LINE)
    }

    /// Where the next row begins.
    fn next_row(&mut self) -> Option<usize> {
        if self.rows == 0 {
            self.outer = self.outer.checked_sub(1)?;
            self.rows = self.all_rows;
            self.start = self.outer_start;
            self.outer_start = self.outer_start.wrapping_add(self.outer_stride);
        }
        self.rows -= 1;
        let row = self.start;
        self.start = self.start.wrapping_add(self.stride);
        Some(row)
    }
}

impl Ahead {
    /// Adds the rows of an array. Arrays whose rows are not side by side in memory are left alone.
    pub(super) fn add<T>(&mut self, x: &ArrayView3<T>) {
        let size = size_of::<T>();
        let (outer, mut rows, columns) = x.dim();
        let [outer_stride, stride, column] = [0, 1, 2].map(|i| (x.strides()[i] as usize).wrapping_mul(size));
        let mut bytes = columns * size;
        let empty = self.parts.iter().position(|part| part.outer == 0);
        let (Some(empty), true) = (empty, column == size && outer * rows * bytes != 0) else { return };
        rows = rows.min((MOST / bytes).max(1));
        if stride == bytes {
            (rows, bytes) = (1, rows * bytes);
        }
        self.parts[empty] = Part {
            outer,
            outer_start: x.as_ptr().addr(),
            outer_stride,
            rows: 0,
            all_rows: rows,
            start: 0,
            stride,
            bytes,
        };
    }

    /// Spreads the lines over `times` calls of [`some`](Self::some).
    pub(super) fn over(&mut self, times: usize) {
        let all: usize = self.parts.iter().map(Part::lines).sum();
        self.step = all.div_ceil(times.max(1));
    }

    /// Asks for the next lines, if any are left.
    #[inline(always)]
    pub(super) fn some<S: Simd>(&mut self, s: S) {
        let mut left = self.step;
        while left > 0 {
            if self.at >= self.end && !self.advance() {
                return;
            }
            s.prefetch_at(self.at);
            self.at += LINE;
            left -= 1;
        }
    }

    /// To the next row; false after the last.
    fn advance(&mut self) -> bool {
        while let Some(part) = self.parts.get_mut(self.part) {
            if let Some(row) = part.next_row() {
                (self.at, self.end) = (row, row.wrapping_add(part.bytes));
                return true;
            }
            self.part += 1;
        }
        self.step = 0;
        false
    }
}
