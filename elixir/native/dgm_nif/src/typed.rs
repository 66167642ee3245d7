//! Tensors of other types than f32: a binary, a list of dimensions and the name of the type.

use std::borrow::Cow;

use bytemuck::{AnyBitPattern, NoUninit};
use dgm_core::attention::{Pages, PagesMut};
use dgm_core::tensor::{Dtype, Floats, FloatsMut, bf16, f16};
use dgm_core::{Error, Result};
use half::slice::HalfBitsSliceExt;
use ndarray::{ArrayView, ArrayViewMut, Dimension, Ix2, Ix4, IxDyn};
use rustler::types::tuple::make_tuple;
use rustler::{Binary, Decoder, Encoder, Env, NifResult, OwnedBinary, Term};

use crate::tensor::{allocate_bytes, copy, flat};

/// A tensor argument: `{binary, [dim], type}`.
pub struct TypedInput<'a> {
    bytes: Binary<'a>,
    dims: Vec<usize>,
    dtype: String,
}

impl<'a> Decoder<'a> for TypedInput<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (bytes, dims, dtype) = term.decode()?;
        Ok(TypedInput { bytes, dims, dtype })
    }
}

/// The elements, borrowed where they are aligned.
enum Data<'a> {
    F32(Cow<'a, [f32]>),
    F16(Cow<'a, [u16]>),
    Bf16(Cow<'a, [u16]>),
    I8(&'a [i8]),
}

/// A checked tensor argument.
pub struct Typed<'a> {
    arg: &'static str,
    data: Data<'a>,
    dims: Vec<usize>,
}

/// The type called `name`, one of f32, f16, bf16 and (where `ints`) i8.
pub fn dtype(arg: &'static str, name: &str, ints: bool) -> Result<Dtype> {
    match name {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::Bf16),
        "i8" if ints => Ok(Dtype::I8),
        _ => {
            let expected = if ints { "f32, f16, bf16 or s8" } else { "f32, f16 or bf16" };
            Err(Error::Dtype { arg, got: name.to_string(), expected: expected.into() })
        }
    }
}

/// Bytes of a tensor; memory beyond the address space is an error.
fn size(arg: &'static str, dims: &[usize], dtype: Dtype) -> Result<usize> {
    dims.iter()
        .try_fold(dtype.size(), |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize)
        .ok_or_else(|| Error::Overflow { arg, got: format!("{dims:?}") })
}

fn elements<T: AnyBitPattern + NoUninit>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(x) => Cow::Borrowed(x),
        Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
    }
}

impl<'a> Typed<'a> {
    /// Checks the argument called `arg`.
    pub fn new(arg: &'static str, input: &'a TypedInput, ints: bool) -> Result<Self> {
        let dtype = dtype(arg, &input.dtype, ints)?;
        let bytes = input.bytes.as_slice();
        let wanted = size(arg, &input.dims, dtype)?;
        if !bytes.len().is_multiple_of(dtype.size()) {
            let expected = format!("a multiple of {} bytes ({dtype})", dtype.size());
            return Err(Error::shape(arg, &[bytes.len()], expected));
        }
        if bytes.len() != wanted {
            let expected = format!("the elements of {:?}", input.dims);
            return Err(Error::shape(arg, &[bytes.len() / dtype.size()], expected));
        }
        let data = match dtype {
            Dtype::F16 => Data::F16(elements(bytes)),
            Dtype::Bf16 => Data::Bf16(elements(bytes)),
            Dtype::I8 => Data::I8(bytemuck::cast_slice(bytes)),
            _ => Data::F32(elements(bytes)),
        };
        Ok(Typed { arg, data, dims: input.dims.clone() })
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Its type.
    pub fn dtype(&self) -> Dtype {
        match self.data {
            Data::F32(_) => Dtype::F32,
            Data::F16(_) => Dtype::F16,
            Data::Bf16(_) => Dtype::Bf16,
            Data::I8(_) => Dtype::I8,
        }
    }

    fn array<'s, T, D: Dimension>(&self, data: &'s [T], expected: &str) -> Result<ArrayView<'s, T, D>> {
        self.array_of(&self.dims, data, expected)
    }

    fn array_of<'s, T, D: Dimension>(
        &self,
        dims: &[usize],
        data: &'s [T],
        expected: &str,
    ) -> Result<ArrayView<'s, T, D>> {
        let view = ArrayView::from_shape(IxDyn(dims), data)
            .map_err(|_| Error::Overflow { arg: self.arg, got: format!("{dims:?}") })?;
        view.into_dimensionality().map_err(|_| Error::shape(self.arg, &self.dims, expected))
    }

    fn floats_of<D: Dimension>(&self, dims: &[usize], expected: &str) -> Result<Floats<'_, D>> {
        Ok(match &self.data {
            Data::F32(x) => Floats::F32(self.array_of(dims, x, expected)?),
            Data::F16(x) => Floats::F16(self.array_of(dims, x.reinterpret_cast(), expected)?),
            Data::Bf16(x) => Floats::Bf16(self.array_of(dims, x.reinterpret_cast(), expected)?),
            Data::I8(_) => return Err(Error::Internal(format!("{} was read as floats", self.arg))),
        })
    }

    /// A view of fixed rank; `expected` describes the dimensions wanted.
    pub fn floats<D: Dimension>(&self, expected: &str) -> Result<Floats<'_, D>> {
        self.floats_of(&self.dims, expected)
    }

    /// All leading dimensions flattened: `[rows, last]`.
    pub fn rows(&self) -> Result<Floats<'_, Ix2>> {
        self.floats_of(&<[usize; 2]>::from(flat(self.arg, &self.dims)?), "{..., features}")
    }

    /// Pages of a cache; `order` puts its axes into `[pages, heads, tokens, dim]`.
    pub fn pages(&self, expected: &str, order: [usize; 4]) -> Result<Pages<'_>> {
        Ok(match &self.data {
            Data::F32(x) => Pages::F32(self.array::<_, Ix4>(x, expected)?.permuted_axes(order)),
            Data::F16(x) => {
                Pages::F16(self.array::<f16, Ix4>(x.reinterpret_cast(), expected)?.permuted_axes(order))
            }
            Data::Bf16(x) => {
                Pages::Bf16(self.array::<bf16, Ix4>(x.reinterpret_cast(), expected)?.permuted_axes(order))
            }
            Data::I8(x) => Pages::I8(self.array::<_, Ix4>(x, expected)?.permuted_axes(order)),
        })
    }
}

/// A tensor result; becomes `{binary, {dim, ...}}` without a copy.
pub struct TypedOutput {
    data: OwnedBinary,
    dims: Vec<usize>,
    dtype: Dtype,
}

impl TypedOutput {
    /// A zeroed tensor.
    pub fn new(arg: &'static str, dims: &[usize], dtype: Dtype) -> Result<Self> {
        Ok(TypedOutput { data: allocate_bytes(arg, size(arg, dims, dtype)?)?, dims: dims.to_vec(), dtype })
    }

    /// A copy of an argument, to change.
    pub fn copy_of(arg: &'static str, input: &TypedInput, from: &Typed) -> Result<Self> {
        let data = copy(arg, input.bytes.as_slice())?;
        Ok(TypedOutput { data, dims: from.dims.clone(), dtype: from.dtype() })
    }

    fn array<'s, T, D: Dimension>(dims: &[usize], data: &'s mut [T]) -> Result<ArrayViewMut<'s, T, D>> {
        ArrayViewMut::from_shape(IxDyn(dims), data)
            .and_then(|view| view.into_dimensionality())
            .map_err(|e| Error::Internal(format!("out: {e}")))
    }

    fn floats_of<'s, D: Dimension>(
        dims: &[usize],
        bytes: &'s mut [u8],
        dtype: Dtype,
    ) -> Result<FloatsMut<'s, D>> {
        Ok(match dtype {
            Dtype::F16 => FloatsMut::F16(Self::array(dims, halves(bytes)?.reinterpret_cast_mut())?),
            Dtype::Bf16 => FloatsMut::Bf16(Self::array(dims, halves(bytes)?.reinterpret_cast_mut())?),
            _ => FloatsMut::F32(Self::array(dims, cast(bytes)?)?),
        })
    }

    /// A view of rank `D`, which must be the rank it was made with.
    pub fn floats<D: Dimension>(&mut self) -> Result<FloatsMut<'_, D>> {
        Self::floats_of(&self.dims, self.data.as_mut_slice(), self.dtype)
    }

    /// All leading dimensions flattened: `[rows, last]`.
    pub fn rows(&mut self) -> Result<FloatsMut<'_, Ix2>> {
        Self::floats_of(&<[usize; 2]>::from(flat("out", &self.dims)?), self.data.as_mut_slice(), self.dtype)
    }

    /// Pages of a cache, as [`Typed::pages`].
    pub fn pages(&mut self, order: [usize; 4]) -> Result<PagesMut<'_>> {
        let bytes = self.data.as_mut_slice();
        let dims = &self.dims;
        Ok(match self.dtype {
            Dtype::F16 => PagesMut::F16(
                Self::array::<f16, Ix4>(dims, halves(bytes)?.reinterpret_cast_mut())?.permuted_axes(order),
            ),
            Dtype::Bf16 => PagesMut::Bf16(
                Self::array::<bf16, Ix4>(dims, halves(bytes)?.reinterpret_cast_mut())?.permuted_axes(order),
            ),
            Dtype::I8 => PagesMut::I8(Self::array::<i8, Ix4>(dims, cast(bytes)?)?.permuted_axes(order)),
            _ => PagesMut::F32(Self::array::<f32, Ix4>(dims, cast(bytes)?)?.permuted_axes(order)),
        })
    }

    /// An f32 view.
    pub fn singles<D: Dimension>(&mut self) -> Result<ArrayViewMut<'_, f32, D>> {
        Self::array(&self.dims, cast(self.data.as_mut_slice())?)
    }

    /// Hands the memory to the VM.
    pub fn into_term(self, env: Env<'_>) -> Term<'_> {
        let dims: Vec<Term> = self.dims.iter().map(|d| d.encode(env)).collect();
        (Binary::from_owned(self.data, env), make_tuple(env, &dims)).encode(env)
    }
}

fn cast<T: AnyBitPattern + NoUninit>(bytes: &mut [u8]) -> Result<&mut [T]> {
    bytemuck::try_cast_slice_mut(bytes)
        .map_err(|e| Error::Internal(format!("a fresh binary is not aligned: {e}")))
}

fn halves(bytes: &mut [u8]) -> Result<&mut [u16]> {
    cast(bytes)
}
