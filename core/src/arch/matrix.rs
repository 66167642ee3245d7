//! Strided matrices as the microkernels see them.
//!
//! A slice that spans a strided view would also span memory the view does not own, so these
//! carry a pointer and check their own bounds.

use std::any::TypeId;
use std::hint::black_box;
use std::marker::PhantomData;

use half::bf16;
use ndarray::{ArrayView2, ArrayViewMut2};

/// A read-only matrix with any strides.
#[derive(Clone, Copy)]
pub(crate) struct Matrix<'a, T = f32> {
    pub(super) ptr: *const T,
    rows: usize,
    cols: usize,
    pub(super) row_stride: isize,
    pub(super) col_stride: isize,
    owner: PhantomData<&'a T>,
}

// SAFETY: a Matrix is a shared borrow of T, which may cross threads like &[T].
unsafe impl<T: Sync> Send for Matrix<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for Matrix<'_, T> {}

impl<'a, T: Copy> Matrix<'a, T> {
    /// The matrix behind a view.
    pub(crate) fn new(view: ArrayView2<'a, T>) -> Self {
        let (rows, cols) = view.dim();
        let strides = view.strides();
        let (row_stride, col_stride) = (strides[0], strides[1]);
        Matrix { ptr: view.as_ptr(), rows, cols, row_stride, col_stride, owner: PhantomData }
    }

    /// The first `rows * cols` elements of `data`, row after row; panics when there are fewer.
    pub(crate) fn from_slice(data: &'a [T], rows: usize, cols: usize) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()));
        let row_stride = cols as isize;
        Matrix { ptr: data.as_ptr(), rows, cols, row_stride, col_stride: 1, owner: PhantomData }
    }

    /// The same matrix, of which the compiler does not know that elements of a row are neighbours: those of several steps of
    /// a product it would read as one vector, to take it apart on the stack.
    #[inline(always)]
    pub(crate) fn apart(self) -> Self {
        Matrix { col_stride: black_box(self.col_stride), ..self }
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The same matrix, when its elements are f32.
    #[inline(always)]
    pub(crate) fn as_f32(self) -> Option<Matrix<'a>>
    where
        T: 'static,
    {
        if TypeId::of::<T>() != TypeId::of::<f32>() {
            return None;
        }
        let Matrix { ptr, rows, cols, row_stride, col_stride, .. } = self;
        Some(Matrix { ptr: ptr.cast::<f32>(), rows, cols, row_stride, col_stride, owner: PhantomData })
    }

    /// Rows `first .. first + len`.
    #[inline(always)]
    pub(crate) fn slice_rows(self, first: usize, len: usize) -> Self {
        assert!(first <= self.rows && len <= self.rows - first);
        // An empty result must not move the pointer out of the allocation.
        let step = if len == 0 || self.cols == 0 { 0 } else { first as isize * self.row_stride };
        // SAFETY: row `first` has elements where the pointer moves, so the offset stays inside the view.
        Matrix { ptr: unsafe { self.ptr.offset(step) }, rows: len, ..self }
    }

    /// Columns `first .. first + len`.
    #[inline(always)]
    pub(crate) fn slice_cols(self, first: usize, len: usize) -> Self {
        self.transposed().slice_rows(first, len).transposed()
    }

    /// The transpose: the same memory with the axes exchanged.
    #[inline(always)]
    pub(crate) fn transposed(self) -> Self {
        Matrix {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// Columns 0, 2, 4 and so on, each of which has a next one.
    #[inline(always)]
    pub(crate) fn every_second_column(self) -> Self {
        assert!(self.cols.is_multiple_of(2));
        Matrix { cols: self.cols / 2, col_stride: 2 * self.col_stride, ..self }
    }

    /// The element at (`row`, `col`).
    #[inline(always)]
    pub(crate) fn get(&self, row: usize, col: usize) -> T {
        assert!(row < self.rows && col < self.cols);
        // SAFETY: the indices are inside the view (checked).
        unsafe { *self.ptr.offset(row as isize * self.row_stride + col as isize * self.col_stride) }
    }

    /// A row, when its elements lie side by side.
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> Option<&'a [T]> {
        assert!(row < self.rows);
        if self.col_stride != 1 || self.cols == 0 {
            return None;
        }
        // SAFETY: the row is inside the view (checked) and its `cols` elements are adjacent.
        Some(unsafe {
            std::slice::from_raw_parts(self.ptr.offset(row as isize * self.row_stride), self.cols)
        })
    }
}

impl<'a, T: Copy> Matrix<'a, T> {
    /// The block of `rows` rows and `cols` columns whose first element is (`row`, `col`), where it is inside
    /// and the elements of a row lie side by side.
    #[inline(always)]
    pub(crate) fn block(&self, row: usize, col: usize, rows: usize, cols: usize) -> Option<Block<'a, T>> {
        let inside = |at: usize, len: usize, all: usize| len > 0 && at < all && len <= all - at;
        if self.col_stride != 1 || !inside(row, rows, self.rows) || !inside(col, cols, self.cols) {
            return None;
        }
        // SAFETY: (row, col) is an element of the matrix.
        let ptr = unsafe { self.ptr.offset(row as isize * self.row_stride + col as isize) };
        Some(Block { ptr, rows, cols, stride: self.row_stride, owner: PhantomData })
    }
}

/// Rows of adjacent elements: a [`Matrix`] that was checked once.
#[derive(Clone, Copy)]
pub(crate) struct Block<'a, T> {
    ptr: *const T,
    rows: usize,
    cols: usize,
    stride: isize,
    owner: PhantomData<&'a T>,
}

impl<'a, T> Block<'a, T> {
    #[inline(always)]
    pub(crate) fn row(&self, row: usize) -> &'a [T] {
        assert!(row < self.rows);
        // SAFETY: the row is inside the matrix and its `cols` elements are adjacent ([`Matrix::block`]).
        unsafe { std::slice::from_raw_parts(self.ptr.offset(row as isize * self.stride), self.cols) }
    }
}

/// A read-only matrix whose elements are pairs of adjacent bfloat16 numbers.
#[derive(Clone, Copy)]
pub(crate) struct Pairs<'a> {
    pub(super) ptr: *const u16,
    rows: usize,
    pairs: usize,
    /// Strides count single numbers.
    pub(super) row_stride: isize,
    pub(super) pair_stride: isize,
    owner: PhantomData<&'a u16>,
}

impl<'a> Pairs<'a> {
    /// The rows of `m`, cut into pairs, where they lie side by side and their length is even.
    pub(crate) fn of_rows(m: Matrix<'a, bf16>) -> Option<Self> {
        let Matrix { ptr, rows, cols, row_stride, col_stride, .. } = m;
        let fits = col_stride == 1 && cols % 2 == 0;
        fits.then_some(Pairs {
            ptr: ptr.cast(),
            rows,
            pairs: cols / 2,
            row_stride,
            pair_stride: 2,
            owner: PhantomData,
        })
    }

    /// The first `rows * pairs` pairs of `data`, a pair a float's bits, row after row; panics when
    /// there are fewer.
    pub(crate) fn from_bits(data: &'a [f32], rows: usize, pairs: usize) -> Self {
        assert!(rows.checked_mul(pairs).is_some_and(|n| n <= data.len()));
        let row_stride = 2 * pairs as isize;
        Pairs { ptr: data.as_ptr().cast(), rows, pairs, row_stride, pair_stride: 2, owner: PhantomData }
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Pairs a row.
    #[inline(always)]
    pub(crate) fn pairs(&self) -> usize {
        self.pairs
    }

    /// Pairs `first .. first + len` of every row.
    #[inline(always)]
    pub(crate) fn slice_pairs(self, first: usize, len: usize) -> Self {
        assert!(first <= self.pairs && len <= self.pairs - first);
        // An empty result must not move the pointer out of the allocation.
        let step = if len == 0 || self.rows == 0 { 0 } else { first as isize * self.pair_stride };
        // SAFETY: there is a pair `first` where the pointer moves, so the offset stays inside the matrix.
        Pairs { ptr: unsafe { self.ptr.offset(step) }, pairs: len, ..self }
    }

    /// Rows `first .. first + len`.
    #[inline(always)]
    pub(crate) fn slice_rows(self, first: usize, len: usize) -> Self {
        self.transposed().slice_pairs(first, len).transposed()
    }

    /// The transpose of a matrix of pairs.
    #[inline(always)]
    pub(crate) fn transposed(self) -> Self {
        Pairs {
            rows: self.pairs,
            pairs: self.rows,
            row_stride: self.pair_stride,
            pair_stride: self.row_stride,
            ..self
        }
    }
}

/// A matrix to write, with any strides that keep its elements apart.
pub(crate) struct MatrixMut<'a, T = f32> {
    pub(super) ptr: *mut T,
    rows: usize,
    cols: usize,
    pub(super) row_stride: isize,
    pub(super) col_stride: isize,
    owner: PhantomData<&'a mut T>,
}

// SAFETY: a MatrixMut is an exclusive borrow of its elements, which may move to another thread.
unsafe impl<T: Send> Send for MatrixMut<'_, T> {}

impl<'a, T: Copy> MatrixMut<'a, T> {
    /// The matrix behind a view.
    pub(crate) fn new(mut view: ArrayViewMut2<'a, T>) -> Self {
        let (rows, cols) = view.dim();
        let (row_stride, col_stride) = (view.strides()[0], view.strides()[1]);
        MatrixMut { ptr: view.as_mut_ptr(), rows, cols, row_stride, col_stride, owner: PhantomData }
    }

    /// The first `rows * cols` elements of `data`, row after row; panics when there are fewer.
    pub(crate) fn from_slice(data: &'a mut [T], rows: usize, cols: usize) -> Self {
        assert!(rows.checked_mul(cols).is_some_and(|n| n <= data.len()));
        let row_stride = cols as isize;
        MatrixMut { ptr: data.as_mut_ptr(), rows, cols, row_stride, col_stride: 1, owner: PhantomData }
    }

    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// The rows before `at` and the rest.
    pub(crate) fn split_rows(self, at: usize) -> (Self, Self) {
        let (a, b) = self.transposed().split_cols(at);
        (a.transposed(), b.transposed())
    }

    /// The columns before `at` and the rest.
    pub(crate) fn split_cols(self, at: usize) -> (Self, Self) {
        assert!(at <= self.cols);
        // An empty right side must not move the pointer out of the allocation.
        let step = if at == self.cols { 0 } else { at as isize * self.col_stride };
        // SAFETY: column `at` exists unless the right side is empty.
        let right = MatrixMut { ptr: unsafe { self.ptr.offset(step) }, cols: self.cols - at, ..self };
        (MatrixMut { cols: at, ..self }, right)
    }

    fn transposed(self) -> Self {
        MatrixMut {
            rows: self.cols,
            cols: self.rows,
            row_stride: self.col_stride,
            col_stride: self.row_stride,
            ..self
        }
    }

    /// The element at (`row`, `col`).
    #[inline(always)]
    pub(crate) fn get(&self, row: usize, col: usize) -> T {
        assert!(row < self.rows && col < self.cols);
        // SAFETY: the indices are inside the view (checked).
        unsafe { *self.ptr.offset(row as isize * self.row_stride + col as isize * self.col_stride) }
    }

    /// Writes the element at (`row`, `col`).
    #[inline(always)]
    pub(crate) fn set(&mut self, row: usize, col: usize, value: T) {
        assert!(row < self.rows && col < self.cols);
        // SAFETY: the indices are inside the exclusively borrowed view (checked).
        unsafe {
            *self.ptr.offset(row as isize * self.row_stride + col as isize * self.col_stride) = value;
        }
    }

    /// A row, when its elements lie side by side.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> Option<&mut [T]> {
        assert!(row < self.rows);
        if self.col_stride != 1 || self.cols == 0 {
            return None;
        }
        // SAFETY: the row is inside the view (checked), its `cols` elements are adjacent and
        // exclusively borrowed for as long as the result lives.
        Some(unsafe {
            std::slice::from_raw_parts_mut(self.ptr.offset(row as isize * self.row_stride), self.cols)
        })
    }

    /// The block of `rows` rows and `cols` columns whose first element is (`row`, `col`), where it is inside
    /// and the elements of a row lie side by side.
    #[inline(always)]
    pub(crate) fn block(
        &mut self,
        row: usize,
        col: usize,
        rows: usize,
        cols: usize,
    ) -> Option<BlockMut<'_, T>> {
        let inside = |at: usize, len: usize, all: usize| len > 0 && at < all && len <= all - at;
        if self.col_stride != 1 || !inside(row, rows, self.rows) || !inside(col, cols, self.cols) {
            return None;
        }
        // SAFETY: (row, col) is an element of the matrix.
        let ptr = unsafe { self.ptr.offset(row as isize * self.row_stride + col as isize) };
        Some(BlockMut { ptr, rows, cols, stride: self.row_stride, owner: PhantomData })
    }
}

/// Rows of adjacent elements to write: a [`MatrixMut`] that was checked once.
pub(crate) struct BlockMut<'a, T> {
    ptr: *mut T,
    rows: usize,
    cols: usize,
    stride: isize,
    owner: PhantomData<&'a mut T>,
}

impl<T> BlockMut<'_, T> {
    /// Number of rows.
    #[inline(always)]
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows);
        // SAFETY: the row is inside the exclusively borrowed matrix and its `cols` elements are adjacent
        // ([`MatrixMut::block`]).
        unsafe { std::slice::from_raw_parts_mut(self.ptr.offset(row as isize * self.stride), self.cols) }
    }
}
