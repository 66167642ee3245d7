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

/// Rows of a [`PagedRows`], checked once for all that is read of them: the last one repeats up to `N`.
pub(crate) struct Strip<'a, T, const N: usize> {
    rows: [*const T; N],
    cols: usize,
    owner: PhantomData<&'a T>,
}

impl<'a, T: Copy, const N: usize> Strip<'a, T, N> {
    /// The rows at the first `N` places; panics without any.
    #[inline(always)]
    pub(crate) fn new(all: PagedRows<'a, T>, slots: &[Slot]) -> Self {
        let mut rows = [all.row(slots[0]).as_ptr(); N];
        for i in 1..N {
            rows[i] = if i < slots.len() { all.row(slots[i]).as_ptr() } else { rows[i - 1] };
        }
        Strip { rows, cols: all.cols, owner: PhantomData }
    }

    /// Elements `first .. first + count` of every row; panics when rows are shorter.
    #[inline(always)]
    pub(crate) fn columns(&self, first: usize, count: usize) -> Columns<'_, 'a, T, N> {
        assert!(first <= self.cols && count <= self.cols - first);
        Columns { strip: self, first, count }
    }
}

/// Some columns of a [`Strip`].
#[derive(Clone, Copy)]
pub(crate) struct Columns<'s, 'a, T, const N: usize> {
    strip: &'s Strip<'a, T, N>,
    first: usize,
    count: usize,
}

impl<'a, T, const N: usize> Columns<'_, 'a, T, N> {
    /// Those of row `i`.
    #[inline(always)]
    pub(crate) fn row(&self, i: usize) -> &'a [T] {
        // SAFETY: every pointer is that of a row of `cols` adjacent elements ([`Strip::new`]), of which
        // these are some (checked in [`Strip::columns`]).
        unsafe { std::slice::from_raw_parts(self.strip.rows[i].add(self.first), self.count) }
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
    fn a_strip_is_its_rows() {
        let x = Array3::from_shape_fn((3, 4, 5), |(p, t, d)| (100 * p + 10 * t + d) as i32);
        let slots = [(2, 1), (0, 3), (1, 0)].map(|(page, row)| Slot { page, row });
        let strip = Strip::<_, 5>::new(PagedRows::new(x.view()), &slots);
        for (i, first) in [211, 31, 101, 101, 101].into_iter().enumerate() {
            assert_eq!(strip.columns(1, 4).row(i), [first, first + 1, first + 2, first + 3]);
            assert!(strip.columns(5, 0).row(i).is_empty());
        }
        assert_eq!(Strip::<_, 2>::new(PagedRows::new(x.view()), &slots).columns(0, 1).row(1), [30]);
    }

    #[test]
    #[should_panic(expected = "count <= self.cols")]
    fn columns_outside_are_refused() {
        let x = Array3::<f32>::zeros((2, 2, 2));
        Strip::<_, 2>::new(PagedRows::new(x.view()), &[Slot::default()]).columns(1, 2);
    }

    #[test]
    #[should_panic(expected = "at.page")]
    fn rows_outside_are_refused() {
        let x = Array3::<f32>::zeros((2, 2, 2));
        PagedRows::new(x.view()).row(Slot { page: 2, row: 0 });
    }
}
