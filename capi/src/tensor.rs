//! The tensor descriptor and the views made from it.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::mem::offset_of;

use dgm_core::tensor::{Dtype, Floats, FloatsMut, Layout, MAX_RANK, Span, bf16, f16};
use dgm_core::{Error, Result};
use ndarray::{ArrayView, ArrayViewMut, Axis, Dimension, IxDyn, ShapeBuilder, StrideShape};

use crate::memory::{handle, misaligned, slice};

/// dtype_code of signed integers.
pub const DGM_DTYPE_INT: u8 = 0;
/// dtype_code of unsigned integers.
pub const DGM_DTYPE_UINT: u8 = 1;
/// dtype_code of IEEE floats. f32 is (DGM_DTYPE_FLOAT, 32, 1).
pub const DGM_DTYPE_FLOAT: u8 = 2;
/// dtype_code of bfloat16.
pub const DGM_DTYPE_BFLOAT: u8 = 4;
/// dtype_code of booleans.
pub const DGM_DTYPE_BOOL: u8 = 6;
/// device_type of main memory, the only one accepted.
pub const DGM_DEVICE_CPU: i32 = 1;

/// A tensor in the caller's memory, borrowed for one call. Layout-identical to DLPack's DLTensor.
///
/// The first element lies at (char *)data + byte_offset, which must be a multiple of the element
/// size. At most 8 dimensions. Inputs may have any strides (0 broadcasts, negative reverses) that
/// the function can use without a copy, else it returns DGM_ERROR_STRIDE; outputs need positive strides that give every element its own address and may not overlap an
/// input. Elementwise functions also accept the very same view as input and output.
#[repr(C)]
pub struct dgm_tensor {
    /// Base address. May be NULL when there are no elements.
    pub data: *mut c_void,
    /// DGM_DEVICE_CPU.
    pub device_type: i32,
    /// Ignored for the CPU.
    pub device_id: i32,
    /// Number of dimensions.
    pub ndim: i32,
    /// DGM_DTYPE_FLOAT, ...
    pub dtype_code: u8,
    /// Bits of one element.
    pub dtype_bits: u8,
    /// 1.
    pub dtype_lanes: u16,
    /// The ndim dimensions, outermost first.
    pub shape: *mut i64,
    /// The ndim strides in elements (not bytes); NULL means row-major contiguous.
    pub strides: *mut i64,
    /// Bytes from data to the first element.
    pub byte_offset: u64,
}

#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<dgm_tensor>() == 48 && align_of::<dgm_tensor>() == 8);
    assert!(offset_of!(dgm_tensor, data) == 0 && offset_of!(dgm_tensor, device_type) == 8);
    assert!(offset_of!(dgm_tensor, device_id) == 12 && offset_of!(dgm_tensor, ndim) == 16);
    assert!(offset_of!(dgm_tensor, dtype_code) == 20 && offset_of!(dgm_tensor, dtype_bits) == 21);
    assert!(offset_of!(dgm_tensor, dtype_lanes) == 22 && offset_of!(dgm_tensor, shape) == 24);
    assert!(offset_of!(dgm_tensor, strides) == 32 && offset_of!(dgm_tensor, byte_offset) == 40);
};

/// Element types that views are made of.
///
/// # Safety
/// Every bit pattern of the [`Dtype`]s it says is a value, and their size is that of the type.
pub(crate) unsafe trait Element: Copy {
    /// Whether memory of this type can be read as `Self`.
    fn reads(dtype: Dtype) -> bool;
}

// SAFETY: four bytes of any pattern.
unsafe impl Element for f32 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::F32
    }
}

// SAFETY: eight bytes of any pattern.
unsafe impl Element for f64 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::F64
    }
}

// SAFETY: one byte of any pattern; a boolean is read as its number.
unsafe impl Element for u8 {
    fn reads(dtype: Dtype) -> bool {
        matches!(dtype, Dtype::U8 | Dtype::Bool)
    }
}

// SAFETY: two bytes of any pattern.
unsafe impl Element for f16 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::F16
    }
}

// SAFETY: two bytes of any pattern.
unsafe impl Element for bf16 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::Bf16
    }
}

// SAFETY: one byte of any pattern.
unsafe impl Element for i8 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::I8
    }
}

// SAFETY: four bytes of any pattern.
unsafe impl Element for i32 {
    fn reads(dtype: Dtype) -> bool {
        dtype == Dtype::I32
    }
}

/// The types of [`Tensor::floats`].
pub(crate) const FLOATS: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::Bf16];

/// A checked tensor of the caller.
pub(crate) struct Tensor<'a> {
    arg: &'static str,
    dtype: Dtype,
    layout: Layout,
    /// Lowest address used; aligned. Dangling when there are no elements.
    lowest: *mut u8,
    span: Span,
    memory: PhantomData<&'a f32>,
}

impl<'a> Tensor<'a> {
    /// Checks a descriptor of an f32 tensor. `names` tells the dimensions for error texts, as `"[B, H, L, D]"`;
    /// `rank` is `None` where any is accepted.
    ///
    /// # Safety
    /// A pointer that is not NULL must point to a descriptor whose shape, strides and memory are
    /// valid as it says during `'a`.
    pub(crate) unsafe fn read(
        arg: &'static str,
        ptr: *const dgm_tensor,
        rank: Option<usize>,
        names: &'static str,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Tensor::read_any(arg, ptr, rank, names, &[Dtype::F32]) }
    }

    /// [`Tensor::read`] of one of several types.
    ///
    /// # Safety
    /// As [`Tensor::read`].
    pub(crate) unsafe fn read_any(
        arg: &'static str,
        ptr: *const dgm_tensor,
        rank: Option<usize>,
        names: &'static str,
        dtypes: &[Dtype],
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        let t: &dgm_tensor = unsafe { handle(arg, ptr) }?;
        if t.device_type != DGM_DEVICE_CPU {
            return Err(Error::Dtype {
                arg,
                got: format!("device type {}", t.device_type),
                expected: "CPU memory (device type 1)".into(),
            });
        }
        let dtype = Dtype::from_dlpack(arg, t.dtype_code, t.dtype_bits, t.dtype_lanes)?;
        if !dtypes.contains(&dtype) {
            let names: Vec<_> = dtypes.iter().map(|d| d.name()).collect();
            return Err(Error::Dtype { arg, got: dtype.to_string(), expected: names.join(" or ") });
        }
        let ndim = usize::try_from(t.ndim).ok().filter(|&n| n <= MAX_RANK).ok_or_else(|| Error::Shape {
            arg,
            got: format!("{} dimensions", t.ndim),
            expected: format!("0 to {MAX_RANK} dimensions"),
        })?;
        // SAFETY: `ndim` dimensions and strides by the caller's promise.
        let shape = unsafe { slice(arg, t.shape, ndim) }?;
        let strides = match t.strides.is_null() {
            true => None,
            // SAFETY: as above.
            false => Some(unsafe { slice(arg, t.strides, ndim) }?),
        };
        let layout = Layout::new(arg, shape, strides, dtype.size())?;
        if let Some(rank) = rank {
            layout.check_rank(arg, rank, names)?;
        }
        let (lowest, span) = locate(arg, t, &layout, dtype.size())?;
        Ok(Tensor { arg, dtype, layout, lowest, span, memory: PhantomData })
    }

    /// [`Tensor::read`] of a tensor that may be absent.
    ///
    /// # Safety
    /// As [`Tensor::read`].
    pub(crate) unsafe fn read_optional(
        arg: &'static str,
        ptr: *const dgm_tensor,
        rank: usize,
        names: &'static str,
    ) -> Result<Option<Self>> {
        if ptr.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        unsafe { Tensor::read(arg, ptr, Some(rank), names) }.map(Some)
    }

    /// [`Tensor::read`] of f32, f16 or bf16.
    ///
    /// # Safety
    /// As [`Tensor::read`].
    pub(crate) unsafe fn read_floats(
        arg: &'static str,
        ptr: *const dgm_tensor,
        rank: Option<usize>,
        names: &'static str,
    ) -> Result<Self> {
        // SAFETY: the caller's promise.
        unsafe { Tensor::read_any(arg, ptr, rank, names, FLOATS) }
    }

    /// [`Tensor::read_floats`] of a tensor that may be absent.
    ///
    /// # Safety
    /// As [`Tensor::read`].
    pub(crate) unsafe fn read_optional_floats(
        arg: &'static str,
        ptr: *const dgm_tensor,
        rank: usize,
        names: &'static str,
    ) -> Result<Option<Self>> {
        if ptr.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        unsafe { Tensor::read_floats(arg, ptr, Some(rank), names) }.map(Some)
    }

    /// The type.
    pub(crate) fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// The dimensions.
    pub(crate) fn shape(&self) -> &[usize] {
        self.layout.shape()
    }

    /// A read-only f32 view of rank `D`, which [`Tensor::read`] has checked.
    pub(crate) fn view<D: Dimension>(&self) -> Result<ArrayView<'a, f32, D>> {
        self.view_of()
    }

    fn check_type<T: Element>(&self) -> Result<()> {
        match T::reads(self.dtype) {
            true => Ok(()),
            false => {
                Err(Error::Internal(format!("{}: viewed as another type than {}", self.arg, self.dtype)))
            }
        }
    }

    /// A read-only view of rank `D` and the type that [`Tensor::read_any`] has found.
    pub(crate) fn view_of<T: Element, D: Dimension>(&self) -> Result<ArrayView<'a, T, D>> {
        self.check_type::<T>()?;
        let strides: Vec<usize> = self.layout.strides().iter().map(|s| s.unsigned_abs()).collect();
        let shape = IxDyn(self.shape()).strides(IxDyn(&strides));
        // SAFETY: `lowest` is the lowest of the addresses that the checked layout uses, of a type
        // that may be read as T (checked), and no output of the same call covers them.
        let mut view = unsafe { ArrayView::from_shape_ptr(shape, self.lowest.cast::<T>()) };
        for (i, &s) in self.layout.strides().iter().enumerate() {
            if s < 0 {
                view.invert_axis(Axis(i));
            }
        }
        view.into_dimensionality::<D>().map_err(|e| Error::Internal(format!("{}: {e}", self.arg)))
    }

    /// A read-only view of a tensor that was read as one of [`FLOATS`].
    pub(crate) fn floats<D: Dimension>(&self) -> Result<Floats<'a, D>> {
        Ok(match self.dtype {
            Dtype::F16 => Floats::F16(self.view_of()?),
            Dtype::Bf16 => Floats::Bf16(self.view_of()?),
            _ => Floats::F32(self.view_of()?),
        })
    }

    /// [`Tensor::output`] of a tensor that was read as one of [`FLOATS`].
    pub(crate) fn output_floats<D: Dimension>(&self, inputs: &[&Tensor]) -> Result<FloatsMut<'a, D>> {
        Ok(match self.dtype {
            Dtype::F16 => FloatsMut::F16(self.output_of(inputs)?),
            Dtype::Bf16 => FloatsMut::Bf16(self.output_of(inputs)?),
            _ => FloatsMut::F32(self.output_of(inputs)?),
        })
    }

    /// A view of the same tensor for writing.
    ///
    /// # Errors
    /// [`Error::Stride`] for strides no output may have; [`Error::Alias`] when it overlaps one of
    /// `inputs`.
    pub(crate) fn output<D: Dimension>(&self, inputs: &[&Tensor]) -> Result<ArrayViewMut<'a, f32, D>> {
        self.output_of(inputs)
    }

    /// [`Tensor::output`] of the type that [`Tensor::read_any`] has found.
    pub(crate) fn output_of<T: Element, D: Dimension>(
        &self,
        inputs: &[&Tensor],
    ) -> Result<ArrayViewMut<'a, T, D>> {
        self.check_type::<T>()?;
        self.layout.check_output(self.arg)?;
        if let Some(other) = inputs.iter().find(|i| i.span.overlaps(self.span)) {
            return Err(Error::Alias { arg: self.arg, other: other.arg });
        }
        let strides: Vec<usize> = self.layout.strides().iter().map(|s| s.unsigned_abs()).collect();
        let shape: StrideShape<IxDyn> = match self.layout.is_empty() {
            // The zero strides of no elements look like an overlap.
            true => IxDyn(self.shape()).into(),
            false => IxDyn(self.shape()).strides(IxDyn(&strides)),
        };
        // SAFETY: every element has its own address, is of type T (checked), and none belongs to an input.
        let view = unsafe { ArrayViewMut::from_shape_ptr(shape, self.lowest.cast::<T>()) };
        view.into_dimensionality::<D>().map_err(|e| Error::Internal(format!("{}: {e}", self.arg)))
    }

    /// Checks that the tensor shares no memory with an array, one of which is written.
    ///
    /// # Errors
    /// [`Error::Alias`] when it does.
    pub(crate) fn check_separate<T>(&self, other: &'static str, array: &[T]) -> Result<()> {
        match Span::new(array.as_ptr() as usize, size_of_val(array)) {
            Some(span) if !span.overlaps(self.span) => Ok(()),
            _ => Err(Error::Alias { arg: self.arg, other }),
        }
    }

    /// Whether the two are the very same view of one type: then an elementwise kernel works in place.
    ///
    /// # Errors
    /// [`Error::Alias`] for any other overlap.
    pub(crate) fn is_same_as(&self, out: &Tensor) -> Result<bool> {
        if !self.span.overlaps(out.span) {
            return Ok(false);
        }
        if self.lowest != out.lowest || self.dtype != out.dtype || !self.layout.same_view(&out.layout) {
            return Err(Error::Alias { arg: out.arg, other: self.arg });
        }
        Ok(true)
    }
}

/// Lowest address and span of a tensor.
fn locate(arg: &'static str, t: &dgm_tensor, layout: &Layout, element: usize) -> Result<(*mut u8, Span)> {
    if layout.is_empty() {
        // Aligned for every element type.
        let lowest = std::ptr::dangling_mut::<u64>().cast::<u8>();
        return Ok((lowest, layout.span(arg, lowest as usize)?));
    }
    if t.data.is_null() {
        return Err(Error::Null { arg, expected: "memory for its elements" });
    }
    let too_far = || Error::Overflow { arg, got: format!("byte_offset {}", t.byte_offset) };
    let offset = usize::try_from(t.byte_offset).map_err(|_| too_far())?;
    let address = (t.data as usize).checked_add(offset).ok_or_else(too_far)?;
    if !address.is_multiple_of(element) {
        return Err(misaligned(arg, address, element));
    }
    let span = layout.span(arg, address)?;
    let first = t.data.cast::<u8>().wrapping_add(offset);
    Ok((first.wrapping_sub(layout.below() * element), span))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Ix1, Ix2, array};

    struct Owned(dgm_tensor, #[allow(dead_code)] Vec<i64>, #[allow(dead_code)] Vec<i64>);

    fn describe(data: *mut f32, shape: &[i64], strides: &[i64], byte_offset: u64) -> Owned {
        let (mut shape, mut strides) = (shape.to_vec(), strides.to_vec());
        let t = dgm_tensor {
            data: data.cast(),
            device_type: 1,
            device_id: 0,
            ndim: shape.len() as i32,
            dtype_code: 2,
            dtype_bits: 32,
            dtype_lanes: 1,
            shape: shape.as_mut_ptr(),
            strides: if strides.is_empty() { std::ptr::null_mut() } else { strides.as_mut_ptr() },
            byte_offset,
        };
        Owned(t, shape, strides)
    }

    fn read(t: &Owned) -> Result<Tensor<'_>> {
        // SAFETY: the tests describe live memory, or memory that no view is made of.
        unsafe { Tensor::read("x", &t.0, None, "") }
    }

    #[test]
    fn views_follow_strides_and_offset() {
        let mut a: Vec<f32> = (0..12).map(|i| i as f32).collect();
        let p = a.as_mut_ptr();
        let view = |s: &[i64], st: &[i64], o| {
            read(&describe(p, s, st, o)).unwrap().view::<Ix2>().unwrap().to_owned()
        };
        assert_eq!(view(&[2, 3], &[], 0), array![[0., 1., 2.], [3., 4., 5.]]);
        assert_eq!(view(&[2, 3], &[1, 2], 4), array![[1., 3., 5.], [2., 4., 6.]]);
        assert_eq!(view(&[2, 2], &[0, 1], 8), array![[2., 3.], [2., 3.]]);
        assert_eq!(view(&[2, 2], &[-4, -1], 44), array![[11., 10.], [7., 6.]]);
        assert_eq!(view(&[2, 2], &[4, -1], 4), array![[1., 0.], [5., 4.]]);
        assert_eq!(view(&[0, 2], &[], 0).len(), 0);
    }

    #[test]
    fn outputs_without_elements_are_views() {
        for shape in [[5, 0], [0, 5], [0, 0]] {
            let t = describe(std::ptr::null_mut(), &shape, &[7, 3], 0);
            let out = read(&t).unwrap().output::<Ix2>(&[]).unwrap();
            assert_eq!(out.shape(), shape.map(|n| n as usize));
        }
    }

    #[test]
    fn bad_descriptors_are_errors() {
        let mut a = [0f32; 4];
        let p = a.as_mut_ptr();
        let code = |t: &Owned| read(t).err().unwrap().code();
        let good = || describe(p, &[2, 2], &[], 0);
        assert_eq!(code(&describe(std::ptr::null_mut(), &[2, 2], &[], 0)), -100);
        assert_eq!(code(&describe(p, &[2, 2], &[], 2)), -201);
        assert_eq!(code(&describe(p, &[2, 2], &[], u64::MAX)), -501);
        assert_eq!(code(&describe(p, &[2, -2], &[], 0)), -200);
        assert_eq!(code(&Owned(dgm_tensor { device_type: 2, ..good().0 }, vec![], vec![])), -300);
        let mut t = good();
        t.0.dtype_bits = 64;
        assert_eq!(code(&t), -300);
        t = good();
        t.0.shape = std::ptr::null_mut();
        assert_eq!(code(&t), -100);
        t = good();
        t.0.ndim = -1;
        assert_eq!(code(&t), -200);
        t.0.ndim = 9;
        assert_eq!(code(&t), -200);
        // SAFETY: NULL is never read.
        assert_eq!(unsafe { Tensor::read("x", std::ptr::null(), None, "") }.err().unwrap().code(), -100);
    }

    #[test]
    fn outputs_must_be_separate_or_identical() {
        let mut a = [1f32, 2., 3., 4., 5., 6.];
        let p = a.as_mut_ptr();
        let (low, high, shifted) =
            (describe(p, &[3], &[], 0), describe(p, &[3], &[], 12), describe(p, &[3], &[], 4));
        let (low, high, shifted) = (read(&low).unwrap(), read(&high).unwrap(), read(&shifted).unwrap());
        assert!(high.output::<Ix1>(&[&low]).is_ok());
        assert_eq!(shifted.output::<Ix1>(&[&low]).err().unwrap().code(), -400);
        assert_eq!(low.is_same_as(&shifted).err().unwrap().code(), -400);
        assert!(low.is_same_as(&low).unwrap() && !low.is_same_as(&high).unwrap());
        let empty = describe(std::ptr::null_mut(), &[0], &[], 0);
        assert!(read(&empty).unwrap().output::<Ix1>(&[]).is_ok());
        let overlapping = describe(p, &[2, 2], &[1, 1], 0);
        assert_eq!(read(&overlapping).unwrap().output::<Ix2>(&[]).err().unwrap().code(), -201);
    }
}
