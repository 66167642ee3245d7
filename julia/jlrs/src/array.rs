//! Julia arrays as tensors of the engine. A column-major `(D, L, H, B)` is the row-major
//! `[B, H, L, D]`, so dimensions are reversed and nothing is copied.
//!
//! Every array is borrowed in jlrs's ledger for the call: an output that is also an input, in this or
//! in another thread's call, is an error.

use jlrs::data::layout::is_bits::IsBits;
use jlrs::data::layout::typed_layout::HasLayout;
use jlrs::data::layout::valid_layout::{ValidField, ValidLayout};
use jlrs::data::managed::array::dimensions::Dims as _;
use jlrs::data::managed::array::tracked::{TrackedArrayBase, TrackedArrayBaseMut};
use jlrs::data::managed::array::{TypedArray, TypedArrayRet};
use jlrs::data::types::construct_type::ConstructType;
use jlrs::prelude::{Array, Bool, ConstructTypedArray, LocalScope, Managed, Value};
use jlrs::weak_handle_unchecked;
use ndarray::{ArrayView, ArrayViewMut, Dimension, IxDyn};

use crate::failure::Failure;

/// An array that Julia owns; it borrows nothing from Rust.
pub type JlArray<'s> = Array<'s, 'static>;

/// Any value that Julia owns.
pub type JlValue<'s> = Value<'s, 'static>;

/// Element types of the interface.
pub trait Element:
    ConstructType + ValidField + ValidLayout + IsBits + Copy + HasLayout<'static, 'static, Layout = Self>
{
    /// Julia's name of the type.
    const NAME: &'static str;
}

impl Element for f32 {
    const NAME: &'static str = "Float32";
}
impl Element for f64 {
    const NAME: &'static str = "Float64";
}
impl Element for i64 {
    const NAME: &'static str = "Int64";
}
impl Element for u64 {
    const NAME: &'static str = "UInt64";
}
impl Element for Bool {
    const NAME: &'static str = "Bool";
}
impl Element for u8 {
    const NAME: &'static str = "UInt8";
}

/// An array to read.
pub struct Input<'s, T>(TrackedArrayBase<'s, 'static, T, -1>);

/// An array to fill.
pub struct Output<'s, T>(TrackedArrayBaseMut<'s, 'static, T, -1>);

/// The dimensions of an array, in Julia's order.
pub fn dims<T>(array: &jlrs::data::managed::array::ArrayBase<'_, '_, T, -1>) -> Vec<usize> {
    array.dimensions().to_dimensions().as_slice().to_vec()
}

/// Checks the element type and, where `rank` says so, the number of dimensions.
fn typed<'s, T: Element>(
    name: &str,
    array: Array<'s, 'static>,
    rank: Option<usize>,
    expected: &str,
) -> Result<TypedArray<'s, 'static, T>, Failure> {
    let size = dims(&array);
    if rank.is_some_and(|rank| rank != size.len()) {
        return Err(Failure::dimensions(format!("{name} has size {}, expected {expected}", shown(&size))));
    }
    array.set_type::<T>().map_err(|_| {
        let found = array.element_type().display_string_or("another");
        Failure::argument(format!("{name} has element type {found}, expected {}", T::NAME))
    })
}

fn in_use(name: &str) -> Failure {
    Failure::argument(format!("{name} is in use by another argument or call, expected an array of its own"))
}

impl<'s, T: Element> Input<'s, T> {
    /// Borrows the argument `name`.
    pub fn new(
        name: &str,
        array: Array<'s, 'static>,
        rank: Option<usize>,
        expected: &str,
    ) -> Result<Self, Failure> {
        typed(name, array, rank, expected)?.track_shared().map(Input).map_err(|_| in_use(name))
    }

    /// Borrows a vector.
    pub fn vector(name: &str, array: Array<'s, 'static>) -> Result<Self, Failure> {
        Self::new(name, array, Some(1), "a vector")
    }

    /// The elements, in memory order.
    pub fn slice(&self) -> &[T] {
        self.0.bits_data().into_slice()
    }

    /// The array as a tensor of the rank that was checked.
    pub fn view<D: Dimension>(&self) -> Result<ArrayView<'_, T, D>, Failure> {
        let dyn_view = ArrayView::from_shape(reversed(&dims(&self.0)), self.slice()).map_err(misfit)?;
        dyn_view.into_dimensionality().map_err(misfit)
    }
}

impl<'s, T: Element> Output<'s, T> {
    /// Borrows the argument `name`, exclusively.
    pub fn new(
        name: &str,
        array: Array<'s, 'static>,
        rank: Option<usize>,
        expected: &str,
    ) -> Result<Self, Failure> {
        typed(name, array, rank, expected)?.track_exclusive().map(Output).map_err(|_| in_use(name))
    }

    /// The dimensions, in Julia's order.
    pub fn dims(&self) -> Vec<usize> {
        dims(&self.0)
    }

    /// The elements, in memory order.
    pub fn slice(&mut self) -> &mut [T] {
        // SAFETY: the borrow is exclusive; the caller in Julia does not touch the array meanwhile.
        unsafe { self.0.bits_data_mut() }.into_mut_slice()
    }

    /// The array as a tensor of the rank that was checked.
    pub fn view<D: Dimension>(&mut self) -> Result<ArrayViewMut<'_, T, D>, Failure> {
        let shape = reversed(&self.dims());
        ArrayViewMut::from_shape(shape, self.slice()).map_err(misfit)?.into_dimensionality().map_err(misfit)
    }
}

fn reversed(dims: &[usize]) -> IxDyn {
    IxDyn(&dims.iter().rev().copied().collect::<Vec<_>>())
}

fn misfit(error: ndarray::ShapeError) -> Failure {
    dgm_core::Error::Internal(format!("an array does not fit its own dimensions: {error}")).into()
}

/// Dimensions as Julia writes them.
pub fn shown(dims: &[usize]) -> String {
    let list: Vec<_> = dims.iter().map(usize::to_string).collect();
    if dims.len() == 1 { format!("({},)", list[0]) } else { format!("({})", list.join(", ")) }
}

/// A new array of `dims` (Julia's order) that `fill` fills.
pub fn filled<T: Element>(
    dims: &[usize],
    fill: impl FnOnce(Array<'_, 'static>) -> Result<(), Failure>,
) -> Result<TypedArrayRet<T>, Failure> {
    // SAFETY: only Julia calls exported functions; the array is returned to it at once.
    let handle = unsafe { weak_handle_unchecked!() };
    handle.local_scope::<_, 1>(|mut frame| {
        let out = TypedArray::<T>::new(&mut frame, dims)
            .map_err(|_| Failure::argument(format!("an array of size {} cannot be made", shown(dims))))?;
        fill(out.forget_type())?;
        Ok(out.leak())
    })
}

/// A new array with a copy of `data`.
pub fn copied<T: Element>(dims: &[usize], data: &[T]) -> Result<TypedArrayRet<T>, Failure> {
    filled::<T>(dims, |out| {
        Output::<T>::new("out", out, None, "")?.slice().copy_from_slice(data);
        Ok(())
    })
}

/// A tuple of sizes, such as Julia's `size(x)`.
pub fn sizes(name: &str, value: Value<'_, 'static>) -> Result<Vec<usize>, Failure> {
    let wrong = || {
        let found = value.display_string_or("unprintable");
        Failure::argument(format!("{name} is {found}, expected a tuple of sizes such as (8, 8, 1, 4)"))
    };
    if !value.is::<jlrs::data::layout::tuple::Tuple>() {
        return Err(wrong());
    }
    (0..value.n_fields())
        .map(|i| {
            // SAFETY: only Julia calls exported functions; a boxed number is read at once.
            let handle = unsafe { weak_handle_unchecked!() };
            let size = handle.local_scope::<_, 1>(|mut frame| {
                value.get_nth_field(&mut frame, i).ok().and_then(|field| field.unbox::<i64>().ok())
            });
            size.and_then(|n| usize::try_from(n).ok()).ok_or_else(wrong)
        })
        .collect()
}

/// `true` and `false` of Julia.
pub fn boolean(value: bool) -> Bool {
    Bool::new(value)
}
