//! Rows of any of the three types to f32 and back.

use ndarray::{Axis, Ix4};

use crate::arch::{Matrix, MatrixMut, Simd};
use crate::linalg::rows::{narrow, widen};
use crate::tensor::{Element, Floats, FloatsMut, bf16, f16};

/// Rows of one of the types.
#[derive(Clone, Copy)]
pub(super) enum Rows<'a> {
    F32(Matrix<'a, f32>),
    F16(Matrix<'a, f16>),
    Bf16(Matrix<'a, bf16>),
}

impl<'a> Rows<'a> {
    /// The rows at `at` of the first two axes.
    pub(super) fn new(x: &Floats<'a, Ix4>, at: [usize; 2]) -> Self {
        macro_rules! rows {
            ($x:expr) => {
                Matrix::new($x.clone().index_axis_move(Axis(0), at[0]).index_axis_move(Axis(0), at[1]))
            };
        }
        match x {
            Floats::F32(x) => Rows::F32(rows!(x)),
            Floats::F16(x) => Rows::F16(rows!(x)),
            Floats::Bf16(x) => Rows::Bf16(rows!(x)),
        }
    }

    /// `len` elements of a row from `from` on where they lie side by side as f32, else widened in
    /// `buffer`; as they are there already where `kept`.
    #[inline(always)]
    pub(super) fn fetch<'b, S: Simd>(
        &self,
        s: S,
        (row, from, len): (usize, usize, usize),
        buffer: &'b mut [f32],
        kept: bool,
    ) -> &'b [f32]
    where
        'a: 'b,
    {
        if let Rows::F32(x) = self
            && let Some(x) = x.row(row)
        {
            return &x[from..from + len];
        }
        let buffer = &mut buffer[..len];
        if !kept {
            match self {
                Rows::F32(x) => gather(*x, row, from, buffer),
                Rows::F16(x) => bring(s, *x, row, from, buffer),
                Rows::Bf16(x) => bring(s, *x, row, from, buffer),
            }
        }
        buffer
    }
}

#[inline(always)]
fn bring<S: Simd, T: Element>(s: S, x: Matrix<T>, row: usize, from: usize, to: &mut [f32]) {
    match x.row(row) {
        Some(x) => widen(s, T::row(&x[from..from + to.len()]), to),
        None => gather(x, row, from, to),
    }
}

fn gather<T: Element>(x: Matrix<T>, row: usize, from: usize, to: &mut [f32]) {
    for (i, to) in to.iter_mut().enumerate() {
        *to = x.get(row, from + i).to_f32();
    }
}

/// [`Rows`], to write.
pub(super) enum RowsMut<'a> {
    F32(MatrixMut<'a, f32>),
    F16(MatrixMut<'a, f16>),
    Bf16(MatrixMut<'a, bf16>),
}

impl<'a> RowsMut<'a> {
    /// The rows at `at` of the first two axes.
    pub(super) fn new(x: &'a mut FloatsMut<'_, Ix4>, at: [usize; 2]) -> Self {
        macro_rules! rows {
            ($x:expr) => {
                MatrixMut::new($x.view_mut().index_axis_move(Axis(0), at[0]).index_axis_move(Axis(0), at[1]))
            };
        }
        match x {
            FloatsMut::F32(x) => RowsMut::F32(rows!(x)),
            FloatsMut::F16(x) => RowsMut::F16(rows!(x)),
            FloatsMut::Bf16(x) => RowsMut::Bf16(rows!(x)),
        }
    }

    /// `len` elements of a row from `from` on, where they lie side by side as f32.
    #[inline(always)]
    pub(super) fn direct(&mut self, (row, from, len): (usize, usize, usize)) -> Option<&mut [f32]> {
        match self {
            RowsMut::F32(x) => x.row(row).map(|x| &mut x[from..from + len]),
            _ => None,
        }
    }

    /// Widens the elements of a row from `from` on.
    #[inline(always)]
    pub(super) fn read<S: Simd>(&mut self, s: S, row: usize, from: usize, to: &mut [f32]) {
        #[inline(always)]
        fn one<S: Simd, T: Element>(s: S, x: &mut MatrixMut<T>, row: usize, from: usize, to: &mut [f32]) {
            match x.row(row) {
                Some(x) => widen(s, T::row(&x[from..from + to.len()]), to),
                None => to.iter_mut().enumerate().for_each(|(i, to)| *to = x.get(row, from + i).to_f32()),
            }
        }
        match self {
            RowsMut::F32(x) => one(s, x, row, from, to),
            RowsMut::F16(x) => one(s, x, row, from, to),
            RowsMut::Bf16(x) => one(s, x, row, from, to),
        }
    }

    /// Rounds numbers to the elements of a row from `from` on.
    #[inline(always)]
    pub(super) fn write<S: Simd>(&mut self, s: S, row: usize, from: usize, numbers: &[f32]) {
        #[inline(always)]
        fn one<S: Simd, T: Element>(s: S, x: &mut MatrixMut<T>, row: usize, from: usize, numbers: &[f32]) {
            match x.row(row) {
                Some(x) => narrow(s, numbers, T::row_mut(&mut x[from..from + numbers.len()])),
                None => numbers.iter().enumerate().for_each(|(i, &n)| x.set(row, from + i, T::from_f32(n))),
            }
        }
        match self {
            RowsMut::F32(x) => one(s, x, row, from, numbers),
            RowsMut::F16(x) => one(s, x, row, from, numbers),
            RowsMut::Bf16(x) => one(s, x, row, from, numbers),
        }
    }
}
