//! Rows of f32, f16 or bf16 to vectors and back.

use half::bf16;

use crate::arch::{Matrix, MatrixMut, Pairs, Simd};
use crate::tensor::{Element, Row, RowMut};

/// Elements of a row from `at` on as f32, zeros after its end.
#[inline(always)]
pub(crate) fn load<S: Simd, T: Element>(s: S, row: &[T], at: usize) -> S::F {
    let rest = row.get(at..).unwrap_or_default();
    match T::row(rest) {
        Row::F32(x) => s.load_partial(x, 0.0),
        Row::F16(x) if x.len() >= S::LANES => s.load_f16(x),
        Row::F16(x) => s.load_f16(&padded::<16>(x)),
        Row::Bf16(x) if x.len() >= S::LANES => s.load_bf16(x),
        Row::Bf16(x) => s.load_bf16(&padded::<16>(x)),
    }
}

/// Pairs of a row of bfloat16 from pair `at` on, as bits, zeros after its end.
#[inline(always)]
pub(crate) fn load_pairs<S: Simd, T: Element>(s: S, row: &[T], at: usize) -> S::F {
    let rest = row.get(2 * at..).unwrap_or_default();
    let pairs = match T::row(rest) {
        Row::Bf16(x) if x.len() >= 2 * S::LANES => s.load_pairs(x),
        Row::Bf16(x) => s.load_pairs(&padded::<32>(x)),
        _ => unreachable!("pairs are of bfloat16"),
    };
    s.bits_to_f32(pairs)
}

#[inline(always)]
fn padded<const N: usize>(x: &[u16]) -> [u16; N] {
    let mut all = [0; N];
    all[..x.len()].copy_from_slice(x);
    all
}

/// Writes as many lanes as fit to a row from column `at` on.
#[inline(always)]
pub(crate) fn store<S: Simd, T: Element>(s: S, v: S::F, out: &mut MatrixMut<T>, row: usize, at: usize) {
    let count = S::LANES.min(out.cols() - at);
    if let Some(row) = out.row(row) {
        match T::row_mut(&mut row[at..at + count]) {
            RowMut::F32(to) => return s.store_partial(v, to),
            RowMut::F16(to) if count == S::LANES => return s.store_f16(v, to),
            RowMut::Bf16(to) if count == S::LANES => return s.store_bf16(v, to),
            _ => {}
        }
    }
    let mut all = [0.0; 16];
    s.store(v, &mut all);
    for (i, &x) in all[..count].iter().enumerate() {
        out.set(row, at + i, T::from_f32(x));
    }
}

/// Writes all lanes to the beginning of a row, which is long enough.
#[inline(always)]
pub(crate) fn store_row<S: Simd, T: Element>(s: S, v: S::F, to: &mut [T]) {
    match T::row_mut(to) {
        RowMut::F32(to) => s.store(v, to),
        RowMut::F16(to) => s.store_f16(v, to),
        RowMut::Bf16(to) => s.store_bf16(v, to),
    }
}

/// The matrix as f32: itself, or its elements one row after the other in `room`.
#[inline(always)]
pub(crate) fn widened<'a, S: Simd, T: Element>(s: S, m: Matrix<'a, T>, room: &'a mut [f32]) -> Matrix<'a> {
    if let Some(m) = m.as_f32() {
        return m;
    }
    let cols = m.cols();
    let mut j = 0;
    while j < m.rows() {
        let to = &mut room[j * cols..(j + 1) * cols];
        match m.row(j).map(T::row) {
            Some(Row::F16(row)) => widen_row::<S, false>(s, row, to),
            Some(Row::Bf16(row)) => widen_row::<S, true>(s, row, to),
            Some(Row::F32(row)) => to.copy_from_slice(row),
            None => {
                for (d, to) in to.iter_mut().enumerate() {
                    *to = m.get(j, d).to_f32();
                }
            }
        }
        j += 1;
    }
    Matrix::from_slice(room, m.rows(), cols)
}

/// Rows as f32 in `room`, the second number of every pair first; a zero completes an odd end.
#[inline(always)]
pub(crate) fn turned<'a, S: Simd>(s: S, m: Matrix<bf16>, room: &'a mut [f32]) -> Matrix<'a> {
    let cols = m.cols().next_multiple_of(2);
    let mut j = 0;
    while j < m.rows() {
        let to = &mut room[j * cols..(j + 1) * cols];
        let mut d = 0;
        if let Some(row) = m.row(j) {
            while d + 2 * S::LANES <= row.len() {
                let pairs = load_pairs(s, row, d / 2);
                let both = s.zip([s.upper_bf16(s.to_bits(pairs)), s.lower_bf16(s.to_bits(pairs))]);
                s.store(both[0], &mut to[d..]);
                s.store(both[1], &mut to[d + S::LANES..]);
                d += 2 * S::LANES;
            }
        }
        for d in d..cols {
            to[d ^ 1] = if d < m.cols() { m.get(j, d).to_f32() } else { 0.0 };
        }
        j += 1;
    }
    Matrix::from_slice(room, m.rows(), cols)
}

/// A row as f32 in `to`, which has its length.
#[inline(always)]
pub(crate) fn widen<S: Simd>(s: S, row: Row, to: &mut [f32]) {
    match row {
        Row::F32(row) => to.copy_from_slice(row),
        Row::F16(row) => widen_row::<S, false>(s, row, to),
        Row::Bf16(row) => widen_row::<S, true>(s, row, to),
    }
}

#[inline(always)]
fn widen_row<S: Simd, const BF16: bool>(s: S, row: &[u16], to: &mut [f32]) {
    let mut d = 0;
    while d < row.len() {
        let mut rest = [0u16; 16];
        let full = d + S::LANES <= row.len();
        let from = if full {
            &row[d..]
        } else {
            rest[..row.len() - d].copy_from_slice(&row[d..]);
            &rest
        };
        let x = if BF16 { s.load_bf16(from) } else { s.load_f16(from) };
        if full {
            s.store(x, &mut to[d..])
        } else {
            s.store_partial(x, &mut to[d..])
        }
        d += S::LANES;
    }
}

/// Rows that are not pairs where they lie, copied to `room`; a zero completes an odd end.
#[inline(always)]
pub(crate) fn paired<'a, S: Simd>(s: S, m: Matrix<bf16>, room: &'a mut [f32]) -> Pairs<'a> {
    let pairs = m.cols().div_ceil(2);
    let mut j = 0;
    while j < m.rows() {
        let to = &mut room[j * pairs..(j + 1) * pairs];
        match m.row(j) {
            Some(row) => {
                let mut at = 0;
                while at < pairs {
                    s.store_partial(load_pairs(s, row, at), &mut to[at..]);
                    at += S::LANES;
                }
            }
            None => {
                let bits = |d: usize| if d < m.cols() { u32::from(m.get(j, d).to_bits()) } else { 0 };
                for (i, to) in to.iter_mut().enumerate() {
                    *to = f32::from_bits(bits(2 * i) | bits(2 * i + 1) << 16);
                }
            }
        }
        j += 1;
    }
    Pairs::from_bits(room, m.rows(), pairs)
}
