//! Buffers as matrices.

use ndarray::{ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, ArrayViewMut3, ArrayViewMut4};

use crate::error::{Error, Result};

pub(super) fn internal(e: ndarray::ShapeError) -> Error {
    Error::Internal(e.to_string())
}

pub(super) fn view2(data: &[f32], rows: usize, cols: usize) -> Result<ArrayView2<'_, f32>> {
    ArrayView2::from_shape((rows, cols), data).map_err(internal)
}

pub(super) fn view2_mut(data: &mut [f32], rows: usize, cols: usize) -> Result<ArrayViewMut2<'_, f32>> {
    ArrayViewMut2::from_shape((rows, cols), data).map_err(internal)
}

pub(super) fn view3(data: &[f32], b: usize, rows: usize, cols: usize) -> Result<ArrayView3<'_, f32>> {
    ArrayView3::from_shape((b, rows, cols), data).map_err(internal)
}

pub(super) fn view3_mut(
    data: &mut [f32],
    b: usize,
    rows: usize,
    cols: usize,
) -> Result<ArrayViewMut3<'_, f32>> {
    ArrayViewMut3::from_shape((b, rows, cols), data).map_err(internal)
}

pub(super) fn view4(data: &[f32], shape: [usize; 4]) -> Result<ArrayView4<'_, f32>> {
    ArrayView4::from_shape(shape, data).map_err(internal)
}

pub(super) fn view4_mut(data: &mut [f32], shape: [usize; 4]) -> Result<ArrayViewMut4<'_, f32>> {
    ArrayViewMut4::from_shape(shape, data).map_err(internal)
}
