//! What will be read next, asked for in the order of memory while something else is computed.

use crate::arch::Simd;

const LINE: usize = 64;
/// Most rows at a time.
pub(super) const ROWS: usize = 32;

/// Rows to ask for, some lines at a time: requests that come in bursts wait for each other, and those that
/// follow memory let the processor run ahead of them.
pub(super) struct Soon {
    rows: [usize; ROWS],
    count: usize,
    /// Bytes of a row.
    bytes: usize,
    row: usize,
    at: usize,
    end: usize,
    /// Lines of a step.
    lines: usize,
}

impl Soon {
    /// No rows of `bytes` bytes.
    #[inline(always)]
    pub(super) fn new(bytes: usize) -> Self {
        Soon { rows: [0; ROWS], count: 0, bytes, row: 0, at: 0, end: 0, lines: 0 }
    }

    /// One row more.
    #[inline(always)]
    pub(super) fn add<T>(&mut self, row: &[T]) {
        self.rows[self.count] = row.as_ptr().addr();
        self.count += 1;
    }

    /// Spreads all of it over `steps` steps.
    #[inline(always)]
    pub(super) fn over(&mut self, steps: usize) {
        self.lines = (self.count * self.bytes.div_ceil(LINE)).div_ceil(steps.max(1));
    }

    /// Asks for what falls to the next `steps` steps, as far as there is any.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(&mut self, s: S, steps: usize) {
        let mut left = steps * self.lines;
        while left > 0 {
            if self.at >= self.end {
                if self.row == self.count {
                    return;
                }
                self.at = self.rows[self.row];
                self.end = self.at.wrapping_add(self.bytes);
                self.row += 1;
            }
            s.prefetch_at(self.at);
            self.at = self.at.wrapping_add(LINE);
            left -= 1;
        }
    }
}
