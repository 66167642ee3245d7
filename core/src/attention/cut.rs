//! How an output is cut: into query tiles that share their keys, and into tasks of some tiles.

use std::ops::Range;

use ndarray::{ArrayViewMut2, ArrayViewMut3, Axis, Ix3, Ix4, s};

use crate::tensor::{Floats, FloatsMut};
use crate::threads;

/// Most query rows a tile: 64 lanes.
pub(super) const MAX_ROWS: usize = 64;

/// The outputs of one block of `[batch, heads, queries]` and where it starts.
pub(super) struct Rows<'a> {
    pub start: [usize; 3],
    pub out: FloatsMut<'a, Ix4>,
    pub lse: Option<ArrayViewMut3<'a, f32>>,
}

impl Rows<'_> {
    fn split(self, axis: usize, at: usize) -> (Self, Self) {
        let (out, out_rest) = self.out.split_at(axis, at);
        let (lse, lse_rest) = self.lse.map(|l| l.split_at(Axis(axis), at)).unzip();
        let mut start = self.start;
        start[axis] += at;
        (Rows { start: self.start, out, lse }, Rows { start, out: out_rest, lse: lse_rest })
    }

    /// The output of one tile, to look at.
    pub(super) fn out(&self, tile: &Place) -> Floats<'_, Ix3> {
        self.out.view().block(tile.at, tile.heads, tile.queries)
    }

    /// The outputs of one tile.
    pub(super) fn tile(&mut self, tile: &Place) -> (FloatsMut<'_, Ix3>, Option<ArrayViewMut2<'_, f32>>) {
        let Place { at: [b, h, i], heads, queries } = *tile;
        let lse = self.lse.as_mut().map(|lse| lse.slice_mut(s![b, h..h + heads, i..i + queries]));
        (self.out.block_mut(tile.at, heads, queries), lse)
    }
}

/// Blocks of at most `step` along an axis, the last first: with a causal mask the last rows are
/// the most work, and long tasks should not come at the end.
struct Blocks<'a> {
    rest: Option<Rows<'a>>,
    axis: usize,
    step: usize,
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Rows<'a>;

    fn next(&mut self) -> Option<Rows<'a>> {
        let rest = self.rest.take()?;
        let len = rest.out.shape()[self.axis];
        let at = len.checked_sub(1)? / self.step * self.step;
        if at == 0 {
            return Some(rest);
        }
        let (rest, block) = rest.split(self.axis, at);
        self.rest = Some(rest);
        Some(block)
    }
}

/// Query tiles are of one batch entry and one kv head. Short sequences share a tile among heads of
/// the group, so that lanes are not left empty.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    /// Heads that share a kv head.
    group: usize,
    /// Heads that share a tile.
    heads: usize,
}

impl Cut {
    /// Of queries `[B, H, Lq, ..]`.
    pub(super) fn new(queries: &[usize], kv_heads: usize) -> Self {
        let group = queries[1] / kv_heads;
        Cut { group, heads: (MAX_ROWS / queries[2].max(1)).clamp(1, group) }
    }

    pub(super) fn kv_head(self, head: usize) -> usize {
        head / self.group
    }

    /// Up to `count` parts, as even as they can be, of whole batch entries or groups of heads.
    pub(super) fn parts(self, rows: Rows<'_>, count: usize) -> impl Iterator<Item = Rows<'_>> {
        let shape = rows.out.shape();
        let (axis, unit) = if shape[0] >= count { (0, 1) } else { (1, self.group) };
        let step = (shape[axis] / unit).div_ceil(count).max(1) * unit;
        threads::pieces(rows, move |rows| {
            if rows.out.shape()[axis] <= step {
                return (rows, None);
            }
            let (part, behind) = rows.split(axis, step);
            (part, Some(behind))
        })
    }

    /// Blocks of at most `most` tiles, the last first.
    pub(super) fn tasks(self, rows: Rows<'_>, most: usize) -> impl Iterator<Item = Rows<'_>> {
        let tiles = self.tiles(rows.out.shape());
        let [per_batch, per_group, per_head] =
            [tiles.heads * tiles.queries, tiles.in_group * tiles.queries, tiles.queries];
        // How many of what holds `inner` tiles, each `step` long.
        let whole = |inner: usize, step: usize| step * (most / inner.max(1)).max(1);
        let steps = [
            (0, whole(per_batch, 1)),
            (1, whole(per_group, self.group)),
            // Steps count from the first head of the group.
            (1, if per_group <= most { usize::MAX } else { whole(per_head, self.heads) }),
            (2, whole(1, MAX_ROWS)),
        ];
        let [batch, groups, heads, queries] =
            steps.map(|(axis, step)| move |rest| Blocks { rest: Some(rest), axis, step });
        batch(rows).flat_map(groups).flat_map(heads).flat_map(queries)
    }

    /// The tiles of a block `[batch, heads, queries, ..]` that begins with a group or lies inside of one,
    /// in the order in which they lie in memory, which processors expect.
    pub(super) fn tiles(self, shape: &[usize]) -> Tiles {
        let size = [shape[0], shape[1], shape[2]];
        let in_group = size[1].min(self.group).div_ceil(self.heads);
        let heads = size[1].div_ceil(self.group) * in_group;
        let queries = size[2].div_ceil(MAX_ROWS);
        Tiles { cut: self, size, in_group, heads, queries, numbers: 0..size[0] * heads * queries }
    }
}

/// Where a tile lies in its block.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Place {
    /// Batch entry, first head, first query.
    pub at: [usize; 3],
    pub heads: usize,
    pub queries: usize,
}

impl Place {
    /// The first batch entry, head and query, in a block that starts there.
    pub(super) fn after(&self, start: [usize; 3]) -> [usize; 3] {
        [0, 1, 2].map(|axis| start[axis] + self.at[axis])
    }
}

/// The places of the tiles of a block.
pub(super) struct Tiles {
    cut: Cut,
    size: [usize; 3],
    /// Tiles that the heads of a group make, those that all heads make, and the queries of each.
    in_group: usize,
    heads: usize,
    queries: usize,
    numbers: Range<usize>,
}

impl Tiles {
    /// Query rows of the largest.
    pub(super) fn most_rows(&self) -> usize {
        self.size[1].min(self.cut.heads) * self.size[2].min(MAX_ROWS)
    }
}

impl Iterator for Tiles {
    type Item = Place;

    fn next(&mut self) -> Option<Place> {
        let n = self.numbers.next()?;
        let (rest, query) = (n / self.queries, n % self.queries);
        let (batch, head) = (rest / self.heads, rest % self.heads);
        let (group, inner) = (head / self.in_group, head % self.in_group);
        let (first, query) = (inner * self.cut.heads, query * MAX_ROWS);
        let in_group = self.size[1].min(self.cut.group);
        Some(Place {
            at: [batch, group * self.cut.group + first, query],
            heads: self.cut.heads.min(in_group - first),
            queries: MAX_ROWS.min(self.size[2] - query),
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::{Array3, Array4};

    use super::*;

    #[test]
    fn parts_follow_each_other_and_keep_groups_together() {
        for (batch, heads, kv_heads) in [(1, 1, 1), (1, 6, 6), (2, 6, 2), (1, 12, 4), (5, 3, 3)] {
            let mut out = Array4::<f32>::zeros((batch, heads, 70, 2));
            let cut = Cut::new(out.shape(), kv_heads);
            for count in 1..6 {
                let rows = Rows { start: [0; 3], out: out.view_mut().into(), lse: None };
                let mut next = [0; 3];
                let parts: Vec<_> = cut.parts(rows, count).collect();
                assert!(parts.len() <= count);
                for part in parts {
                    let shape = part.out.shape();
                    assert_eq!(part.start, next);
                    assert!(shape[1].is_multiple_of(heads / kv_heads) && shape[2] == 70);
                    next = if shape[1] == heads {
                        [next[0] + shape[0], 0, 0]
                    } else {
                        [0, next[1] + shape[1], 0]
                    };
                }
                assert!(next == [batch, 0, 0] || next == [0, heads, 0]);
            }
        }
    }

    #[test]
    fn every_row_is_in_one_tile_and_no_task_has_too_many() {
        let groups = [(1, 1), (4, 4), (6, 2), (8, 1), (7, 7), (12, 3)];
        for (heads, kv_heads) in groups {
            for (batch, queries) in [(1, 1), (3, 5), (2, 31), (5, 64), (1, 65), (2, 300)] {
                for most in [1, 2, 3, 5, 16, 1000] {
                    let shape = [batch, heads, queries, 2];
                    let (mut out, mut seen) =
                        (Array4::<f32>::zeros(shape), Array3::<f32>::zeros((batch, heads, queries)));
                    let cut = Cut::new(&shape, kv_heads);
                    let rows = Rows { start: [0; 3], out: out.view_mut().into(), lse: Some(seen.view_mut()) };
                    for mut task in cut.tasks(rows, most) {
                        let tiles: Vec<_> = cut.tiles(task.out.shape()).collect();
                        assert!(!tiles.is_empty() && tiles.len() <= most, "{shape:?} {kv_heads} {most}");
                        for place in tiles {
                            let ([_, h, _], last) = (place.after(task.start), place.heads - 1);
                            assert_eq!(cut.kv_head(h), cut.kv_head(h + last), "{shape:?} {kv_heads} {most}");
                            assert!(place.heads * place.queries <= MAX_ROWS);
                            let (out, lse) = task.tile(&place);
                            assert_eq!(out.shape(), [place.heads, place.queries, 2]);
                            lse.unwrap().iter_mut().for_each(|n| *n += 1.0);
                        }
                    }
                    assert!(seen.iter().all(|&n| n == 1.0), "{shape:?} {kv_heads} {most}");
                }
            }
        }
    }
}
