//! The one matrix product of the engine: a block of rows times a block of lanes.
//!
//! `acc[r][lane] = sum over k of a[r][k] * b[k][lane]`, one FMA chain from zero in rising k
//! for each element, so block shapes and vector widths never change a bit. Elements of `a`
//! are broadcast from memory of any strides; `b` is packed with its lanes side by side.

use super::matrix::Matrix;
use super::simd::Simd;

/// Receives the finished blocks of a product.
pub(crate) trait Sink<S: Simd> {
    /// Takes the block whose first element is (`row`, `lane`).
    fn put<const MR: usize, const NV: usize>(&mut self, s: S, row: usize, lane: usize, acc: [[S::F; NV]; MR]);
}

/// One block: rows `row .. row + MR` of `a`, `NV` vectors of lanes from the start of `b`, whose
/// rows are `ldb` apart.
#[inline(always)]
fn block<S: Simd, const MR: usize, const NV: usize>(
    s: S,
    a: Matrix,
    row: usize,
    b: &[f32],
    ldb: usize,
) -> [[S::F; NV]; MR] {
    let depth = a.cols();
    let mut acc = [[s.splat(0.0); NV]; MR];
    if depth == 0 {
        return acc;
    }
    assert!(row < a.rows() && MR <= a.rows() - row);
    assert!((depth - 1).checked_mul(ldb).and_then(|n| n.checked_add(NV * S::LANES)).unwrap() <= b.len());
    let (rs, cs) = (a.row_stride, a.col_stride);
    let ldb = ldb as isize;
    // SAFETY: row `row` exists (checked).
    let a = unsafe { a.ptr.offset(row as isize * rs) };
    let b = b.as_ptr();
    for k in 0..depth as isize {
        let mut lanes = [s.splat(0.0); NV];
        for (v, lane) in lanes.iter_mut().enumerate() {
            // SAFETY: k < depth and v < NV, and b reaches to the last vector of the last row (checked).
            *lane = s.load(unsafe {
                std::slice::from_raw_parts(b.offset(k * ldb + (v * S::LANES) as isize), S::LANES)
            });
        }
        // SAFETY: k < depth is a column of a.
        let column = unsafe { a.offset(k * cs) };
        for r in 0..MR {
            // SAFETY: row + r < rows (checked). Groups of three rows share a base address, which
            // x86 can index by 0, 1 and 2 strides: fewer live registers.
            let x =
                s.splat(unsafe { *column.offset((r / 3 * 3) as isize * rs).offset((r % 3) as isize * rs) });
            for v in 0..NV {
                acc[r][v] = s.fma(x, lanes[v], acc[r][v]);
            }
        }
    }
    acc
}

/// All rows of `a` times `NV` vectors, in blocks of at most `MAX` rows.
#[inline(always)]
fn sweep<S: Simd, const MAX: usize, const NV: usize>(
    s: S,
    a: Matrix,
    b: &[f32],
    ldb: usize,
    lane: usize,
    sink: &mut impl Sink<S>,
) {
    let mut row = 0;
    if MAX >= 12 {
        while a.rows() - row >= 12 {
            sink.put(s, row, lane, block::<S, 12, NV>(s, a, row, b, ldb));
            row += 12;
        }
    }
    while a.rows() - row >= 6 {
        sink.put(s, row, lane, block::<S, 6, NV>(s, a, row, b, ldb));
        row += 6;
    }
    if a.rows() - row >= 4 {
        sink.put(s, row, lane, block::<S, 4, NV>(s, a, row, b, ldb));
        row += 4;
    }
    if a.rows() - row >= 2 {
        sink.put(s, row, lane, block::<S, 2, NV>(s, a, row, b, ldb));
        row += 2;
    }
    if a.rows() - row >= 1 {
        sink.put(s, row, lane, block::<S, 1, NV>(s, a, row, b, ldb));
    }
}

/// `a` times `b[k * width + lane]` for `width` lanes (16, or a multiple of 32), block by block.
///
/// Block shapes fill the registers: 24 accumulators of 32 registers, 12 of 16.
#[inline(always)]
pub(crate) fn multiply<S: Simd>(s: S, a: Matrix, b: &[f32], width: usize, sink: &mut impl Sink<S>) {
    let mut lane = 0;
    match S::LANES {
        16 => {
            while width - lane >= 64 {
                sweep::<S, 6, 4>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 64;
            }
            while width - lane >= 32 {
                sweep::<S, 12, 2>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 32;
            }
            if lane < width {
                sweep::<S, 12, 1>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
            }
        }
        8 => {
            while lane < width {
                sweep::<S, 6, 2>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 16;
            }
        }
        _ => {
            while lane < width {
                sweep::<S, 6, 4>(s, a, b.get(lane..).unwrap_or_default(), width, lane, sink);
                lane += 4 * S::LANES;
            }
        }
    }
}
