//! Arrays of f32, f16 or bf16 whose type is known at run time.

use half::{bf16, f16};
use ndarray::{ArrayView, ArrayViewMut, Axis, Dimension, Ix1, Ix3, Ix4, IxDyn};

use super::Dtype;
use crate::arch::{Lend, Words};

/// A row of elements that lie side by side, as vector code reads it.
#[derive(Clone, Copy)]
pub(crate) enum Row<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    Bf16(&'a [u16]),
}

/// [`Row`], to write.
pub(crate) enum RowMut<'a> {
    F32(&'a mut [f32]),
    F16(&'a mut [u16]),
    Bf16(&'a mut [u16]),
}

impl Row<'_> {
    /// `len` elements from `at` on.
    #[inline(always)]
    pub(crate) fn slice(self, at: usize, len: usize) -> Self {
        match self {
            Row::F32(x) => Row::F32(&x[at..at + len]),
            Row::F16(x) => Row::F16(&x[at..at + len]),
            Row::Bf16(x) => Row::Bf16(&x[at..at + len]),
        }
    }

    /// How many elements.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        match self {
            Row::F32(x) => x.len(),
            Row::F16(x) | Row::Bf16(x) => x.len(),
        }
    }
}

impl<'a> RowMut<'a> {
    /// The same, to read.
    #[inline(always)]
    pub(crate) fn read(&self) -> Row<'_> {
        match self {
            RowMut::F32(x) => Row::F32(x),
            RowMut::F16(x) => Row::F16(x),
            RowMut::Bf16(x) => Row::Bf16(x),
        }
    }

    /// How many elements.
    #[inline(always)]
    pub(crate) fn len(&self) -> usize {
        self.read().len()
    }

    /// As many elements of the same type, in the place of f32.
    #[inline(always)]
    pub(crate) fn lend<'b>(&self, room: &'b mut [f32]) -> RowMut<'b> {
        let len = self.len();
        match self {
            RowMut::F32(_) => RowMut::F32(&mut room[..len]),
            RowMut::F16(_) => RowMut::F16(&mut f16::lend(room).words_mut()[..len]),
            RowMut::Bf16(_) => RowMut::Bf16(&mut bf16::lend(room).words_mut()[..len]),
        }
    }

    /// The elements of a row of the same type and length.
    pub(crate) fn copy_from(&mut self, from: Row) {
        match (self, from) {
            (RowMut::F32(to), Row::F32(from)) => to.copy_from_slice(from),
            (RowMut::F16(to), Row::F16(from)) | (RowMut::Bf16(to), Row::Bf16(from)) => {
                to.copy_from_slice(from)
            }
            _ => unreachable!("rows of one type"),
        }
    }

    /// How many elements lie before the first line of a cache that begins with one; none where no line does.
    #[inline(always)]
    pub(crate) fn before_a_line(&self) -> usize {
        let (address, size) = match self {
            RowMut::F32(x) => (x.as_ptr().addr(), size_of::<f32>()),
            RowMut::F16(x) | RowMut::Bf16(x) => (x.as_ptr().addr(), size_of::<u16>()),
        };
        (address.wrapping_neg() % 64 / size).min(self.len())
    }
}

/// One element of [`Floats`].
pub(crate) trait Element: Copy + Send + Sync + 'static {
    const DTYPE: Dtype;
    /// Exact.
    fn to_f32(self) -> f32;
    /// To the nearest, ties to even.
    fn from_f32(x: f32) -> Self;
    fn row(row: &[Self]) -> Row<'_>;
    fn row_mut(row: &mut [Self]) -> RowMut<'_>;
    fn floats<D: Dimension>(x: ArrayView<'_, Self, D>) -> Floats<'_, D>;
    fn floats_mut<D: Dimension>(x: ArrayViewMut<'_, Self, D>) -> FloatsMut<'_, D>;
}

/// The last two, which call what `into` calls.
macro_rules! wrapped {
    () => {
        #[inline(always)]
        fn floats<D: Dimension>(x: ArrayView<'_, Self, D>) -> Floats<'_, D> {
            x.into()
        }
        #[inline(always)]
        fn floats_mut<D: Dimension>(x: ArrayViewMut<'_, Self, D>) -> FloatsMut<'_, D> {
            x.into()
        }
    };
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn row(row: &[Self]) -> Row<'_> {
        Row::F32(row)
    }
    #[inline(always)]
    fn row_mut(row: &mut [Self]) -> RowMut<'_> {
        RowMut::F32(row)
    }
    wrapped!();
}

impl Element for f16 {
    const DTYPE: Dtype = Dtype::F16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        f16::from_f32(x)
    }
    #[inline(always)]
    fn row(row: &[Self]) -> Row<'_> {
        Row::F16(row.words())
    }
    #[inline(always)]
    fn row_mut(row: &mut [Self]) -> RowMut<'_> {
        RowMut::F16(row.words_mut())
    }
    wrapped!();
}

impl Element for bf16 {
    const DTYPE: Dtype = Dtype::Bf16;
    #[inline(always)]
    fn to_f32(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn from_f32(x: f32) -> Self {
        bf16::from_f32(x)
    }
    #[inline(always)]
    fn row(row: &[Self]) -> Row<'_> {
        Row::Bf16(row.words())
    }
    #[inline(always)]
    fn row_mut(row: &mut [Self]) -> RowMut<'_> {
        RowMut::Bf16(row.words_mut())
    }
    wrapped!();
}

/// A read-only array of one of the three types; every such `ArrayView` becomes one by `into()`.
#[derive(Debug, Clone)]
pub enum Floats<'a, D: Dimension> {
    /// IEEE single precision.
    F32(ArrayView<'a, f32, D>),
    /// IEEE half precision.
    F16(ArrayView<'a, f16, D>),
    /// bfloat16.
    Bf16(ArrayView<'a, bf16, D>),
}

/// An array of one of the three types to write; every such `ArrayViewMut` becomes one by `into()`.
#[derive(Debug)]
pub enum FloatsMut<'a, D: Dimension> {
    /// IEEE single precision.
    F32(ArrayViewMut<'a, f32, D>),
    /// IEEE half precision.
    F16(ArrayViewMut<'a, f16, D>),
    /// bfloat16.
    Bf16(ArrayViewMut<'a, bf16, D>),
}

/// The same expression for the array inside, whatever its type.
macro_rules! each {
    ($kind:ident, $floats:expr, $x:pat => $body:expr) => {
        match $floats {
            $crate::tensor::$kind::F32($x) => $body,
            $crate::tensor::$kind::F16($x) => $body,
            $crate::tensor::$kind::Bf16($x) => $body,
        }
    };
}
pub(crate) use each;

/// The same expression for the array inside, wrapped again.
macro_rules! map {
    ($kind:ident, $floats:expr, $x:pat => $body:expr) => {
        match $floats {
            $kind::F32($x) => $kind::F32($body),
            $kind::F16($x) => $kind::F16($body),
            $kind::Bf16($x) => $kind::Bf16($body),
        }
    };
}

macro_rules! common {
    ($kind:ident, $view:ident) => {
        impl<D: Dimension> $kind<'_, D> {
            /// The dimensions.
            pub fn shape(&self) -> &[usize] {
                each!($kind, self, x => x.shape())
            }

            /// The strides in elements.
            pub fn strides(&self) -> &[isize] {
                each!($kind, self, x => x.strides())
            }

            /// The element type.
            pub fn dtype(&self) -> Dtype {
                match self {
                    $kind::F32(_) => Dtype::F32,
                    $kind::F16(_) => Dtype::F16,
                    $kind::Bf16(_) => Dtype::Bf16,
                }
            }
        }

        impl<'a, D: Dimension> $kind<'a, D> {
            /// The axes in another order, as `ndarray` has it.
            pub(crate) fn permuted_axes(self, axes: D) -> Self {
                map!($kind, self, x => x.permuted_axes(axes))
            }

            /// With an axis of one element in front.
            pub(crate) fn insert_axis(self) -> $kind<'a, D::Larger> {
                self.insert_axis_at(0)
            }

            /// With an axis of one element before the axis `at`.
            pub(crate) fn insert_axis_at(self, at: usize) -> $kind<'a, D::Larger> {
                map!($kind, self, x => x.insert_axis(Axis(at)))
            }

            /// For a shorter time, which the compiler does not find by itself.
            pub(crate) fn reborrow<'b>(self) -> $kind<'b, D>
            where
                'a: 'b,
            {
                map!($kind, self, x => x.reborrow())
            }

            /// With a rank that is known at run time.
            pub(crate) fn into_dyn(self) -> $kind<'a, IxDyn> {
                map!($kind, self, x => x.into_dyn())
            }

            /// Lets the axis `take`, where its steps lead from the end of `into` to its beginning, become part
            /// of it; `take` stays with one element. The caller has seen that this is so.
            pub(crate) fn merge_axes(&mut self, take: usize, into: usize) {
                each!($kind, self, x => x.merge_axes(Axis(take), Axis(into)));
            }

            /// The elements before `at` along an axis, and the rest. Panics where there are fewer.
            pub fn split_at(self, axis: usize, at: usize) -> (Self, Self) {
                match self {
                    $kind::F32(x) => {
                        let (a, b) = x.split_at(Axis(axis), at);
                        ($kind::F32(a), $kind::F32(b))
                    }
                    $kind::F16(x) => {
                        let (a, b) = x.split_at(Axis(axis), at);
                        ($kind::F16(a), $kind::F16(b))
                    }
                    $kind::Bf16(x) => {
                        let (a, b) = x.split_at(Axis(axis), at);
                        ($kind::Bf16(a), $kind::Bf16(b))
                    }
                }
            }
        }

        impl<'a, D: Dimension> From<$view<'a, f32, D>> for $kind<'a, D> {
            fn from(x: $view<'a, f32, D>) -> Self {
                $kind::F32(x)
            }
        }
        impl<'a, D: Dimension> From<$view<'a, f16, D>> for $kind<'a, D> {
            fn from(x: $view<'a, f16, D>) -> Self {
                $kind::F16(x)
            }
        }
        impl<'a, D: Dimension> From<$view<'a, bf16, D>> for $kind<'a, D> {
            fn from(x: $view<'a, bf16, D>) -> Self {
                $kind::Bf16(x)
            }
        }
    };
}

common!(Floats, ArrayView);
common!(FloatsMut, ArrayViewMut);

macro_rules! dynamic {
    ($kind:ident) => {
        impl<'a> $kind<'a, IxDyn> {
            /// Without the axis, of which the first element stays.
            pub(crate) fn remove_axis(self, axis: usize) -> Self {
                map!($kind, self, x => x.index_axis_move(Axis(axis), 0))
            }

            /// With as many axes as `D` has; `None` where there are others.
            pub(crate) fn into_rank<D: Dimension>(self) -> Option<$kind<'a, D>> {
                Some(map!($kind, self, x => x.into_dimensionality().ok()?))
            }
        }
    };
}

dynamic!(Floats);
dynamic!(FloatsMut);

impl<D: Dimension> Floats<'_, D> {
    /// The same numbers again and again along new axes and those of one element; `None` where the shapes
    /// do not fit.
    pub(crate) fn broadcast(&self, shape: &[usize]) -> Option<Floats<'_, IxDyn>> {
        Some(map!(Floats, self, x => x.broadcast(shape)?))
    }
}

macro_rules! block {
    ($kind:ident) => {
        impl<'a> $kind<'a, Ix4> {
            /// Rows `[heads, rows, ..]` of one entry along the first axis, from `[entry, head, row]` on.
            fn into_block(self, [b, h, i]: [usize; 3], heads: usize, rows: usize) -> $kind<'a, Ix3> {
                map!($kind, self, x => {
                    let mut x = x.index_axis_move(Axis(0), b);
                    x.slice_axis_inplace(Axis(0), (h..h + heads).into());
                    x.slice_axis_inplace(Axis(1), (i..i + rows).into());
                    x
                })
            }
        }
    };
}

block!(Floats);
block!(FloatsMut);

impl<'a> Floats<'a, Ix4> {
    /// Rows `[heads, rows, ..]` of one entry along the first axis, from `[entry, head, row]` on.
    pub(crate) fn block(&self, at: [usize; 3], heads: usize, rows: usize) -> Floats<'a, Ix3> {
        map!(Floats, self, x => *x).into_block(at, heads, rows)
    }
}

impl FloatsMut<'_, Ix4> {
    /// The same, for a time.
    pub(crate) fn view_mut(&mut self) -> FloatsMut<'_, Ix4> {
        map!(FloatsMut, self, x => x.view_mut())
    }

    /// The same, to look at.
    pub(crate) fn view(&self) -> Floats<'_, Ix4> {
        match self {
            FloatsMut::F32(x) => Floats::F32(x.view()),
            FloatsMut::F16(x) => Floats::F16(x.view()),
            FloatsMut::Bf16(x) => Floats::Bf16(x.view()),
        }
    }

    /// Rows `[heads, rows, ..]` of one entry along the first axis, from `[entry, head, row]` on.
    pub(crate) fn block_mut(&mut self, at: [usize; 3], heads: usize, rows: usize) -> FloatsMut<'_, Ix3> {
        self.view_mut().into_block(at, heads, rows)
    }
}

macro_rules! slices {
    ($($element:ty, $kind:ident;)*) => {$(
        impl<'a> From<&'a [$element]> for Floats<'a, Ix1> {
            fn from(x: &'a [$element]) -> Self {
                Floats::$kind(x.into())
            }
        }
        impl<'a> From<&'a mut [$element]> for FloatsMut<'a, Ix1> {
            fn from(x: &'a mut [$element]) -> Self {
                FloatsMut::$kind(x.into())
            }
        }
    )*};
}

slices! {
    f32, F32;
    f16, F16;
    bf16, Bf16;
}
