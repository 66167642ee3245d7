//! Buffers as matrices.

use ndarray::{ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, ArrayViewMut3, ArrayViewMut4};

use crate::error::{Error, Result};

pub(super) fn internal(e: ndarray::ShapeError) -> Error {
    Error::Internal(e.to_string())
}

pub(super) fn view2<T>(data: &[T], rows: usize, cols: usize) -> Result<ArrayView2<'_, T>> {
    ArrayView2::from_shape((rows, cols), data).map_err(internal)
}

pub(super) fn view2_mut<T>(data: &mut [T], rows: usize, cols: usize) -> Result<ArrayViewMut2<'_, T>> {
    ArrayViewMut2::from_shape((rows, cols), data).map_err(internal)
}

pub(super) fn view3<T>(data: &[T], b: usize, rows: usize, cols: usize) -> Result<ArrayView3<'_, T>> {
    ArrayView3::from_shape((b, rows, cols), data).map_err(internal)
}

pub(super) fn view3_mut<T>(
    data: &mut [T],
    b: usize,
    rows: usize,
    cols: usize,
) -> Result<ArrayViewMut3<'_, T>> {
    ArrayViewMut3::from_shape((b, rows, cols), data).map_err(internal)
}

pub(super) fn view4<T>(data: &[T], shape: [usize; 4]) -> Result<ArrayView4<'_, T>> {
    ArrayView4::from_shape(shape, data).map_err(internal)
}

pub(super) fn view4_mut<T>(data: &mut [T], shape: [usize; 4]) -> Result<ArrayViewMut4<'_, T>> {
    ArrayViewMut4::from_shape(shape, data).map_err(internal)
}
