//! Gradients of a bias that repeats along some axes: sums, in the order of the definition.

use std::ops::Range;

use ndarray::{ArrayViewMut4, Axis, s};

use super::super::KEY_TILE;
use super::super::cut::MAX_ROWS;
use super::super::products::{Dots, Wide};
use super::products::Arithmetic;
use super::tile::{Call, QueryTile};
use crate::threads;

/// A block of the gradient and where it starts.
struct Block<'a> {
    start: [usize; 4],
    to: ArrayViewMut4<'a, f32>,
}

/// Cuts along an axis into blocks of at most `step`.
fn cut<'a>(blocks: Vec<Block<'a>>, axis: usize, step: usize) -> Vec<Block<'a>> {
    let mut cut = Vec::new();
    for Block { mut start, to: mut rest } in blocks {
        while rest.shape()[axis] > 0 {
            let to;
            let n = rest.shape()[axis].min(step);
            (to, rest) = rest.split_at(Axis(axis), n);
            cut.push(Block { start, to });
            start[axis] += n;
        }
    }
    cut
}

/// Fills `dbias`, whose shape is 1 where the bias repeats. Scores and their gradients are computed
/// once more, so that each task owns what it sums.
pub(super) fn run(call: &Call, dbias: ArrayViewMut4<f32>, work: u64) {
    let mut blocks = vec![Block { start: [0; 4], to: dbias }];
    // A block of keys that is not the first of a tile cannot be visited alone.
    for (axis, step) in [(0, 1), (1, 1), (2, MAX_ROWS), (3, 8 * KEY_TILE)] {
        blocks = cut(blocks, axis, step);
    }
    threads::for_each(blocks.into_iter(), work, |block| {
        if call.is_of_pairs() {
            one::<Dots>(call, block);
        } else {
            one::<Wide<f32>>(call, block);
        }
    });
}

fn one<A: Arithmetic>(call: &Call, Block { start, mut to }: Block) {
    let full = call.full();
    let group = full[1].checked_div(call.problem.k.shape()[1]).unwrap_or(1).max(1);
    let repeats: [bool; 4] = std::array::from_fn(|axis| call.repeats(axis));
    // The elements that a block sums.
    let range = |axis: usize| -> Range<usize> {
        if repeats[axis] { 0..full[axis] } else { start[axis]..start[axis] + to.shape()[axis] }
    };
    let [batches, heads, queries, keys] = [range(0), range(1), range(2), range(3)];
    let mut to = to.slice_mut(s![0, 0, .., ..]);
    to.fill(0.0);
    let sizes = call.sizes();
    threads::with_scratch(sizes.scratch(), |scratch| {
        let (mut work, mut wide, _) = sizes.split(scratch);
        for (b, h) in batches.flat_map(|b| heads.clone().map(move |h| (b, h))) {
            let mut first = queries.start;
            while first < queries.end {
                let rows = first..queries.end.min(first + MAX_ROWS);
                let tile = QueryTile::<A>::new(call, b, h, rows.clone(), &mut work);
                let mut over_keys = [0.0f32; MAX_ROWS];
                tile.each_key_tile(
                    call,
                    h / group,
                    keys.clone(),
                    &mut work,
                    &mut wide,
                    |key_tile, _, _, work| {
                        let ds = work.ds.chunks_exact(work.width).take(key_tile.len);
                        for (j, ds) in (key_tile.first..).zip(ds) {
                            let ds = &ds[..rows.len()];
                            if repeats[3] {
                                over_keys.iter_mut().zip(ds).for_each(|(sum, x)| *sum += x);
                            } else {
                                for (i, x) in ds.iter().enumerate() {
                                    let i = if repeats[2] { 0 } else { first - start[2] + i };
                                    to[[i, j - start[3]]] += x;
                                }
                            }
                        }
                    },
                );
                if repeats[3] {
                    for (i, x) in over_keys[..rows.len()].iter().enumerate() {
                        to[[if repeats[2] { 0 } else { first - start[2] + i }, 0]] += x;
                    }
                }
                first = rows.end;
            }
        }
    });
}
