//! f32 tensors in and out: a binary in native byte order and a list of dimensions.

use std::borrow::Cow;

use dgm_core::{Error, Result};
use ndarray::{ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMut2, Dimension, IxDyn};
use rustler::types::tuple::make_tuple;
use rustler::{Binary, Decoder, Encoder, Env, NifResult, OwnedBinary, Term};

use crate::memory::Memory;

/// The floats of a binary: borrowed where it is aligned, copied where it is not (a sub-binary
/// may start at any byte).
pub fn floats<'a>(arg: &'static str, bytes: &'a [u8]) -> Result<Cow<'a, [f32]>> {
    if !bytes.len().is_multiple_of(size_of::<f32>()) {
        return Err(Error::shape(arg, &[bytes.len()], "a multiple of 4 bytes (f32)"));
    }
    Ok(match bytemuck::try_cast_slice(bytes) {
        Ok(floats) => Cow::Borrowed(floats),
        Err(_) => Cow::Owned(bytes.as_chunks().0.iter().map(|four| f32::from_ne_bytes(*four)).collect()),
    })
}

/// A tensor argument: `{binary, [dim]}`.
pub struct Input<'a> {
    bytes: Binary<'a>,
    dims: Vec<usize>,
}

impl<'a> Decoder<'a> for Input<'a> {
    fn decode(term: Term<'a>) -> NifResult<Self> {
        let (bytes, dims) = term.decode()?;
        Ok(Input { bytes, dims })
    }
}

impl<'a> Input<'a> {
    /// The elements in row-major order; their number fits the dimensions.
    pub fn data(&self, arg: &'static str) -> Result<Cow<'a, [f32]>> {
        let data = floats(arg, self.bytes.as_slice())?;
        check_len(arg, &self.dims, data.len())?;
        Ok(data)
    }
}

/// A checked tensor argument that kernels can view.
pub struct Tensor<'a> {
    arg: &'static str,
    data: Cow<'a, [f32]>,
    dims: Vec<usize>,
}

impl<'a> Tensor<'a> {
    /// Checks `input`, the argument called `arg`.
    pub fn new(arg: &'static str, input: &Input<'a>) -> Result<Self> {
        Ok(Tensor { arg, data: input.data(arg)?, dims: input.dims.clone() })
    }

    /// A tensor of `dims` over `data`.
    pub fn from_parts(arg: &'static str, data: Cow<'a, [f32]>, dims: Vec<usize>) -> Result<Self> {
        check_len(arg, &dims, data.len())?;
        Ok(Tensor { arg, data, dims })
    }

    /// Its dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// The elements in row-major order.
    pub fn floats(&self) -> &[f32] {
        &self.data
    }

    /// A view of fixed rank; `expected` describes the dimensions wanted.
    pub fn view<D: Dimension>(&self, expected: &str) -> Result<ArrayView<'_, f32, D>> {
        self.dynamic()?.into_dimensionality().map_err(|_| Error::shape(self.arg, &self.dims, expected))
    }

    /// A view of whatever rank it has.
    pub fn dynamic(&self) -> Result<ArrayViewD<'_, f32>> {
        // The element count was checked, so only the address space can be the matter.
        ArrayView::from_shape(IxDyn(&self.dims), &self.data)
            .map_err(|_| Error::Overflow { arg: self.arg, got: format!("{:?}", self.dims) })
    }
}

/// A view of bytes, one an element, whose number must fit the dimensions.
pub fn shaped<'a>(arg: &'static str, bytes: &'a [u8], dims: &[usize]) -> Result<ArrayViewD<'a, u8>> {
    check_len(arg, dims, bytes.len())?;
    ArrayView::from_shape(IxDyn(dims), bytes).map_err(|_| Error::Overflow { arg, got: format!("{dims:?}") })
}

fn check_len(arg: &'static str, dims: &[usize], found: usize) -> Result<()> {
    if len(arg, dims)? == found {
        Ok(())
    } else {
        Err(Error::shape(arg, &[found], format!("the elements of {dims:?}")))
    }
}

pub fn flat(arg: &'static str, dims: &[usize]) -> Result<(usize, usize)> {
    match dims.split_last() {
        Some((&last, leading)) => Ok((len(arg, leading)?, last)),
        None => Err(Error::shape(arg, dims, "at least one dimension")),
    }
}

fn len(arg: &'static str, dims: &[usize]) -> Result<usize> {
    dims.iter()
        .try_fold(1usize, |n, &d| n.checked_mul(d))
        .filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
        .ok_or_else(|| Error::Overflow { arg, got: format!("{dims:?}") })
}

/// A zeroed binary of `floats` elements; memory that cannot be had is an error, not an abort.
pub fn allocate(arg: &'static str, floats: usize) -> Result<OwnedBinary> {
    allocate_bytes(arg, len(arg, &[floats])? * size_of::<f32>())
}

/// A zeroed binary.
pub fn allocate_bytes(arg: &'static str, bytes: usize) -> Result<OwnedBinary> {
    let mut binary = uninitialised(arg, bytes)?;
    binary.as_mut_slice().fill(0);
    Ok(binary)
}

/// A copy of `bytes` that may be changed in place.
pub fn copy(arg: &'static str, bytes: &[u8]) -> Result<OwnedBinary> {
    let mut binary = uninitialised(arg, bytes.len())?;
    binary.as_mut_slice().copy_from_slice(bytes);
    Ok(binary)
}

fn uninitialised(arg: &'static str, bytes: usize) -> Result<OwnedBinary> {
    let mut raw = std::mem::MaybeUninit::uninit();
    // SAFETY: the pointer is valid for one ErlNifBinary.
    if unsafe { rustler::sys::enif_alloc_binary(bytes, raw.as_mut_ptr()) } == 0 {
        return Err(Error::Overflow { arg, got: format!("{bytes} bytes, more than this machine gives") });
    }
    // SAFETY: enif_alloc_binary succeeded, so it filled `raw`, whose ownership moves on.
    Ok(unsafe { OwnedBinary::from_raw(raw.assume_init()) })
}

/// The floats of a binary that this library allocated.
pub fn floats_mut(binary: &mut OwnedBinary) -> Result<&mut [f32]> {
    bytemuck::try_cast_slice_mut(binary.as_mut_slice())
        .map_err(|e| Error::Internal(format!("a fresh binary is not aligned: {e}")))
}

/// A tensor result: becomes `{binary, {dim, ...}}` without a copy.
pub struct Output {
    data: Memory,
    dims: Vec<usize>,
}

impl Output {
    /// A zeroed tensor; `arg` names it in errors.
    pub fn new(arg: &'static str, dims: &[usize]) -> Result<Self> {
        Ok(Output { data: Memory::zeroed(arg, len(arg, dims)?)?, dims: dims.to_vec() })
    }

    /// A tensor of numbers of any value, all of which the caller overwrites.
    pub fn stale(arg: &'static str, dims: &[usize]) -> Result<Self> {
        Ok(Output { data: Memory::stale(arg, len(arg, dims)?)?, dims: dims.to_vec() })
    }

    /// The elements in row-major order.
    pub fn floats(&mut self) -> Result<&mut [f32]> {
        self.data.floats()
    }

    /// A view of rank `D`, which must be the rank it was made with.
    pub fn view<D: Dimension>(&mut self) -> Result<ArrayViewMut<'_, f32, D>> {
        ArrayViewMut::from_shape(IxDyn(&self.dims), self.data.floats()?)
            .and_then(|view| view.into_dimensionality())
            .map_err(|e| Error::Internal(format!("out: {e}")))
    }

    /// All trailing dimensions flattened: `[first, rest]`.
    pub fn leading(&mut self) -> Result<ArrayViewMut2<'_, f32>> {
        let data = self.data.floats()?;
        let first = self.dims.first().copied().unwrap_or(1);
        let rest = self.dims.iter().skip(1).product();
        ArrayViewMut2::from_shape((first, rest), data).map_err(|e| Error::Internal(format!("out: {e}")))
    }

    /// Hands the memory to the VM.
    pub fn into_term(self, env: Env<'_>) -> Term<'_> {
        let dims: Vec<Term> = self.dims.iter().map(|d| d.encode(env)).collect();
        (self.data.into_binary(env), make_tuple(env, &dims)).encode(env)
    }
}
