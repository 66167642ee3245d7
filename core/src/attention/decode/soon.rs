//! What will be read next, asked for in the order of memory while something else is computed.

use crate::arch::Simd;

const LINE: usize = 64;
/// Most rows at a time.
pub(super) const ROWS: usize = 32;

/// Rows to ask for, some lines at a time: requests that come in bursts wait for each other, and those that
/// follow memory let the processor run ahead of them.
pub(super) struct Soon {
    /// Where stretches of memory begin and end: rows that follow each other are one.
    stretches: [(usize, usize); ROWS],
    count: usize,
    /// Bytes of a row.
    row: usize,
    /// The stretch that comes next, and what is left of the present one.
    next: usize,
    at: usize,
    end: usize,
    /// Lines of a step.
    lines: usize,
}

impl Soon {
    /// No rows of `row` bytes.
    #[inline(always)]
    pub(super) fn new(row: usize) -> Self {
        Soon { stretches: [(0, 0); ROWS], count: 0, row, next: 0, at: 0, end: 0, lines: 0 }
    }

    /// One row more; of [`ROWS`] at most.
    #[inline(always)]
    pub(super) fn add<T>(&mut self, row: &[T]) {
        let start = row.as_ptr().addr();
        let end = start.wrapping_add(self.row);
        if self.count > 0 && self.stretches[self.count - 1].1 == start {
            self.stretches[self.count - 1].1 = end;
        } else {
            self.stretches[self.count] = (start, end);
            self.count += 1;
        }
    }

    /// Spreads all of it over `steps` steps.
    #[inline(always)]
    pub(super) fn over(&mut self, steps: usize) {
        let mut all = 0usize;
        for (start, end) in &self.stretches[..self.count] {
            all += end.wrapping_sub(*start).div_ceil(LINE);
        }
        self.lines = all.div_ceil(steps.max(1));
    }

    /// Asks for what falls to the next `steps` steps, as far as there is any.
    #[inline(always)]
    pub(super) fn ask<S: Simd>(&mut self, s: S, steps: usize) {
        let mut left = steps * self.lines;
        while left > 0 {
            if self.at >= self.end {
                if self.next == self.count {
                    return;
                }
                (self.at, self.end) = self.stretches[self.next];
                self.next += 1;
            }
            // In registers until the stretch ends.
            let (mut at, lines) = (self.at, left.min(self.end.wrapping_sub(self.at).div_ceil(LINE)));
            for _ in 0..lines {
                s.prefetch_later_at(at);
                at = at.wrapping_add(LINE);
            }
            self.at = at;
            left -= lines;
        }
    }
}
