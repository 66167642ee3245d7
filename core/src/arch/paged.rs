//! Rows that lie in pages, as the decode kernel sees them.
//!
//! Like [`Matrix`](super::Matrix) these carry a pointer, because a slice over a strided view would
//! also span memory that the view does not own.

use std::marker::PhantomData;

use ndarray::ArrayView3;

/// Where a row lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The page.
    pub(crate) page: usize,
    /// The row in it.
    pub(crate) row: usize,
}

/// A read-only `[pages, rows, cols]` array whose rows are adjacent elements.
#[derive(Clone, Copy)]
pub(crate) struct PagedRows<'a, T> {
    ptr: *const T,
    pages: usize,
    rows: usize,
    cols: usize,
    page_stride: isize,
    row_stride: isize,
    owner: PhantomData<&'a T>,
}

// SAFETY: a PagedRows is a shared borrow of T, which may cross threads like &[T].
unsafe impl<T: Sync> Send for PagedRows<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Sync> Sync for PagedRows<'_, T> {}

impl<'a, T: Copy> PagedRows<'a, T> {
    /// The rows of a view; panics when the elements of a row are not adjacent.
    pub(crate) fn new(view: ArrayView3<'a, T>) -> Self {
        let (pages, rows, cols) = view.dim();
        let strides = view.strides();
        assert!(cols <= 1 || strides[2] == 1 || pages * rows == 0, "rows of adjacent elements");
        let (page_stride, row_stride) = (strides[0], strides[1]);
        PagedRows { ptr: view.as_ptr(), pages, rows, cols, page_stride, row_stride, owner: PhantomData }
    }

    /// Elements a row.
    #[inline(always)]
    pub(crate) fn cols(&self) -> usize {
        self.cols
    }

    /// A row.
    #[inline(always)]
    pub(crate) fn row(&self, at: Slot) -> &'a [T] {
        assert!(at.page < self.pages && at.row < self.rows);
        let offset = at.page as isize * self.page_stride + at.row as isize * self.row_stride;
        // SAFETY: page and row exist (checked), so the row's adjacent elements are inside the view.
        unsafe { std::slice::from_raw_parts(self.ptr.offset(offset), self.cols) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array3, s};

    #[test]
    fn rows_are_found_at_any_strides() {
        let x = Array3::from_shape_fn((3, 4, 5), |(p, t, d)| (100 * p + 10 * t + d) as i32);
        let view = x.slice(s![1..;1, ..;2, 1..4]);
        for view in [view, view.permuted_axes([1, 0, 2])] {
            let rows = PagedRows::new(view);
            for (page, plane) in view.outer_iter().enumerate() {
                for (row, want) in plane.outer_iter().enumerate() {
                    assert_eq!(rows.row(Slot { page, row }), want.to_vec());
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "at.page")]
    fn rows_outside_are_refused() {
        let x = Array3::<f32>::zeros((2, 2, 2));
        PagedRows::new(x.view()).row(Slot { page: 2, row: 0 });
    }
}
