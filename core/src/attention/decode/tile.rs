//! Key tiles and where their rows lie.

use std::ops::Range;

use ndarray::ArrayView1;

use super::super::{KEY_TILE, middle};
use crate::arch::Slot;

/// Where the keys of one batch entry lie.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    /// Its pages in order; `None` where all its keys lie in page `page`.
    pub table: Option<ArrayView1<'a, i32>>,
    pub page: usize,
    /// Keys a page.
    pub page_len: usize,
}

/// Keys `first .. first + len` of the tile that begins at `origin`.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub origin: usize,
    pub first: usize,
    pub len: usize,
    pub slots: [Slot; KEY_TILE],
    /// Every row sees every key.
    pub inside: bool,
    /// Query rows.
    pub rows: usize,
    /// Queries a head: row `r` is query `r % queries` of head `r / queries`.
    pub queries: usize,
}

impl Tile {
    /// Keys before the middle of the tile.
    #[inline(always)]
    pub(super) fn middle(&self) -> usize {
        middle(self.origin, self.first).min(self.len)
    }

    /// Moves to the tile of key `first`, up to `end` at most.
    pub(super) fn seek(&mut self, place: Place, first: usize, end: usize, every: Range<usize>) {
        self.first = first;
        self.origin = first / KEY_TILE * KEY_TILE;
        self.len = end.min(self.origin + KEY_TILE) - first;
        self.inside = every.start <= first && first + self.len <= every.end;
        let mut key = first;
        let mut slots = &mut self.slots[..self.len];
        while !slots.is_empty() {
            let (index, row) = (key / place.page_len, key % place.page_len);
            // Entries were checked to be pages.
            let page = place.table.map_or(place.page, |t| t[index] as usize);
            let run = slots.len().min(place.page_len - row);
            let (now, later) = slots.split_at_mut(run);
            for (i, slot) in now.iter_mut().enumerate() {
                *slot = Slot { page, row: row + i };
            }
            slots = later;
            key += run;
        }
    }
}
