//! Rows of any of the three types, side by side: where they lie, or copied from and to where they lie apart.

use ndarray::{Axis, Ix4};

use crate::arch::{Block, BlockMut, Lend, Matrix, MatrixMut, Words};
use crate::tensor::{Element, Floats, FloatsMut, Row, RowMut, bf16, f16};

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

    /// Some rows from row and column `at` on, where they are of adjacent `T`.
    #[inline(always)]
    pub(super) fn block<T: Stored>(&self, at: [usize; 2], size: [usize; 2]) -> Option<Block<'a, T>> {
        T::rows(self)?.block(at[0], at[1], size[0], size[1])
    }

    /// `len` elements of a row from `from` on; those that lie apart are copied to `room`, unless they are there
    /// already (`kept`).
    #[inline(always)]
    pub(super) fn row<'b>(&self, there: (usize, usize, usize), room: &'b mut [f32], kept: bool) -> Row<'b>
    where
        'a: 'b,
    {
        match self {
            Rows::F32(x) => Row::F32(adjacent(*x, there, room, kept)),
            Rows::F16(x) => Row::F16(adjacent(*x, there, room, kept).words()),
            Rows::Bf16(x) => Row::Bf16(adjacent(*x, there, room, kept).words()),
        }
    }
}

#[inline(always)]
fn adjacent<'a: 'b, 'b, T: Lend + Copy>(
    x: Matrix<'a, T>,
    (row, from, len): (usize, usize, usize),
    room: &'b mut [f32],
    kept: bool,
) -> &'b [T] {
    if let Some(x) = x.row(row) {
        return &x[from..from + len];
    }
    let to = &mut T::lend(room)[..len];
    if !kept {
        for (i, to) in to.iter_mut().enumerate() {
            *to = x.get(row, from + i);
        }
    }
    to
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

    /// The first rows and columns, where they are rows of adjacent `T`.
    #[inline(always)]
    pub(super) fn block<T: Stored>(&mut self, size: [usize; 2]) -> Option<BlockMut<'_, T>> {
        T::rows_mut(self)?.block(0, 0, size[0], size[1])
    }

    /// `len` elements of a row from `from` on; those that lie apart as a copy in `room`, for
    /// [`put_back`](RowsMut::put_back).
    #[inline(always)]
    pub(super) fn row<'b>(&'b mut self, there: (usize, usize, usize), room: &'b mut [f32]) -> RowMut<'b> {
        match self {
            RowsMut::F32(x) => RowMut::F32(adjacent_mut(x, there, room)),
            RowsMut::F16(x) => RowMut::F16(adjacent_mut(x, there, room).words_mut()),
            RowsMut::Bf16(x) => RowMut::Bf16(adjacent_mut(x, there, room).words_mut()),
        }
    }

    /// Writes the elements that were copied to `room` where they belong.
    #[inline(always)]
    pub(super) fn put_back(&mut self, there: (usize, usize, usize), room: &mut [f32]) {
        match self {
            RowsMut::F32(x) => spread(x, there, room),
            RowsMut::F16(x) => spread(x, there, room),
            RowsMut::Bf16(x) => spread(x, there, room),
        }
    }
}

#[inline(always)]
fn adjacent_mut<'b, T: Lend + Copy>(
    x: &'b mut MatrixMut<T>,
    (row, from, len): (usize, usize, usize),
    room: &'b mut [f32],
) -> &'b mut [T] {
    if x.row(row).is_none() {
        let to = &mut T::lend(room)[..len];
        for (i, to) in to.iter_mut().enumerate() {
            *to = x.get(row, from + i);
        }
        return to;
    }
    x.row(row).map(|x| &mut x[from..from + len]).unwrap_or_default()
}

#[inline(always)]
fn spread<T: Lend + Copy>(x: &mut MatrixMut<T>, (row, from, len): (usize, usize, usize), room: &mut [f32]) {
    if x.row(row).is_some() {
        return;
    }
    for (i, &from_room) in T::lend(room)[..len].iter().enumerate() {
        x.set(row, from + i, from_room);
    }
}

/// A type of rows.
pub(super) trait Stored: Element {
    /// Rows of this type.
    fn rows<'a, 'r>(rows: &'r Rows<'a>) -> Option<&'r Matrix<'a, Self>>;
    /// As `rows`.
    fn rows_mut<'a, 'r>(rows: &'r mut RowsMut<'a>) -> Option<&'r mut MatrixMut<'a, Self>>;
}

macro_rules! stored {
    ($($T:ty: $V:ident;)*) => {$(
        impl Stored for $T {
            #[inline(always)]
            fn rows<'a, 'r>(rows: &'r Rows<'a>) -> Option<&'r Matrix<'a, $T>> {
                if let Rows::$V(x) = rows { Some(x) } else { None }
            }

            #[inline(always)]
            fn rows_mut<'a, 'r>(rows: &'r mut RowsMut<'a>) -> Option<&'r mut MatrixMut<'a, $T>> {
                if let RowsMut::$V(x) = rows { Some(x) } else { None }
            }
        }
    )*};
}

stored! {
    f32: F32;
    bf16: Bf16;
}
