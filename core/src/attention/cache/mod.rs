//! Caches of keys and values in the caller's memory: contiguous or cut into pages, f32, f16, bf16
//! or int8 with a scale a token.
//!
//! Every function is pure: it reads and writes the arrays it is given and keeps nothing.
//!
//! A cache has pages of `T` tokens, `[P, Hkv, T, D]` for keys and `[P, Hkv, T, Dv]` for values, in
//! any strides that keep the numbers of a token side by side (`[P, T, Hkv, D]` memory is a permuted
//! view). Token `j` of batch entry `b` lies in row `j % T` of page `block_table[b][j / T]`; without
//! a block table page `b` holds all tokens of entry `b`, which is a contiguous cache
//! `[B, Hkv, T, D]`.

mod append;
#[cfg(test)]
mod int8_tests;
mod paged;
mod pages;
#[cfg(test)]
mod tests;

pub use append::cache_append;
pub(crate) use append::{check_room, write};
pub use paged::attention_paged;
pub use pages::{cache_fork, cache_truncate};

use std::ops::Range;

use ndarray::{ArrayView2, ArrayView3, ArrayView4, ArrayViewMut3, ArrayViewMut4, s};

use super::MAX_HEAD_DIM;
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Dtype, bf16, f16};

macro_rules! pages {
    ($(#[$doc:meta])* $name:ident, $view:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub enum $name<'a> {
            /// IEEE single precision.
            F32($view<'a, f32>),
            /// IEEE half precision.
            F16($view<'a, f16>),
            /// bfloat16.
            Bf16($view<'a, bf16>),
            /// Integers -127 to 127 that a scale a token multiplies.
            I8($view<'a, i8>),
        }

        impl $name<'_> {
            /// `[P, Hkv, T, D]`.
            pub fn shape(&self) -> [usize; 4] {
                match self {
                    $name::F32(x) => x.dim().into(),
                    $name::F16(x) => x.dim().into(),
                    $name::Bf16(x) => x.dim().into(),
                    $name::I8(x) => x.dim().into(),
                }
            }

            /// The strides in elements.
            pub fn strides(&self) -> &[isize] {
                match self {
                    $name::F32(x) => x.strides(),
                    $name::F16(x) => x.strides(),
                    $name::Bf16(x) => x.strides(),
                    $name::I8(x) => x.strides(),
                }
            }

            /// The element type.
            pub fn dtype(&self) -> Dtype {
                match self {
                    $name::F32(_) => Dtype::F32,
                    $name::F16(_) => Dtype::F16,
                    $name::Bf16(_) => Dtype::Bf16,
                    $name::I8(_) => Dtype::I8,
                }
            }
        }

        impl<'a> From<$view<'a, f32>> for $name<'a> {
            fn from(x: $view<'a, f32>) -> Self {
                $name::F32(x)
            }
        }
        impl<'a> From<$view<'a, f16>> for $name<'a> {
            fn from(x: $view<'a, f16>) -> Self {
                $name::F16(x)
            }
        }
        impl<'a> From<$view<'a, bf16>> for $name<'a> {
            fn from(x: $view<'a, bf16>) -> Self {
                $name::Bf16(x)
            }
        }
        impl<'a> From<$view<'a, i8>> for $name<'a> {
            fn from(x: $view<'a, i8>) -> Self {
                $name::I8(x)
            }
        }
    };
}

pages!(
    /// Pages of keys or values; every such `ArrayView4` becomes one by `into()`.
    #[derive(Clone)]
    Pages,
    ArrayView4
);
pages!(
    /// Pages of keys or values to write; every such `ArrayViewMut4` becomes one by `into()`.
    PagesMut,
    ArrayViewMut4
);

/// A cache to read; see the [module](self).
#[derive(Debug, Clone)]
pub struct KvCache<'a> {
    /// `[P, Hkv, T, D]`
    pub k: Pages<'a>,
    /// `[P, Hkv, T, Dv]`, the type of `k`.
    pub v: Pages<'a>,
    /// `[P, Hkv, T]` for an int8 cache, and only for one.
    pub k_scale: Option<ArrayView3<'a, f32>>,
    /// As `k_scale`.
    pub v_scale: Option<ArrayView3<'a, f32>>,
    /// `[B, M]`: the pages of each batch entry in order; entries behind its last token are not read.
    pub block_table: Option<ArrayView2<'a, i32>>,
    /// `[B]`: how many tokens each batch entry has.
    pub lengths: &'a [usize],
}

/// A cache to write; see the [module](self).
#[derive(Debug)]
pub struct KvCacheMut<'a> {
    /// `[P, Hkv, T, D]`
    pub k: PagesMut<'a>,
    /// `[P, Hkv, T, Dv]`, the type of `k`.
    pub v: PagesMut<'a>,
    /// `[P, Hkv, T]` for an int8 cache, and only for one.
    pub k_scale: Option<ArrayViewMut3<'a, f32>>,
    /// As `k_scale`.
    pub v_scale: Option<ArrayViewMut3<'a, f32>>,
    /// `[B, M]`: the pages of each batch entry in order.
    pub block_table: Option<ArrayView2<'a, i32>>,
    /// `[B]`: how many tokens each batch entry has; what is appended is added.
    pub lengths: &'a mut [usize],
}

/// The sizes of a cache whose parts fit each other.
#[derive(Clone, Copy)]
pub(crate) struct Sizes {
    pages: usize,
    pub kv_heads: usize,
    page_len: usize,
    pub dim: usize,
    pub value_dim: usize,
    pub batch: usize,
    /// Most tokens of a batch entry.
    capacity: usize,
}

/// One array: name, shape, strides.
type Part<'s> = (&'static str, &'s [usize], &'s [isize]);

/// What is checked of either kind of cache.
struct Parts<'s> {
    k: Part<'s>,
    v: Part<'s>,
    dtypes: [Dtype; 2],
    k_scale: Option<Part<'s>>,
    v_scale: Option<Part<'s>>,
    table: Option<ArrayView2<'s, i32>>,
    lengths: &'s [usize],
    output: bool,
}

impl Parts<'_> {
    fn check(&self) -> Result<Sizes> {
        let (&[pages, kv_heads, page_len, dim], &[.., value_dim]) = (self.k.1, self.v.1) else {
            return Err(Error::shape("k", self.k.1, "four dimensions"));
        };
        if kv_heads == 0 || page_len == 0 || !(1..=MAX_HEAD_DIM).contains(&dim) {
            let expected = format!("[P, Hkv, T, D] with Hkv and T from 1, D 1 to {MAX_HEAD_DIM}");
            return Err(Error::shape("k", self.k.1, expected));
        }
        if !(1..=MAX_HEAD_DIM).contains(&value_dim) {
            return Err(Error::shape("v", self.v.1, format!("[P, Hkv, T, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
        }
        check_shape("v", self.v.1, &[pages, kv_heads, page_len, value_dim])?;
        self.dtypes[1].expect("v", self.dtypes[0])?;
        for (arg, shape, strides) in [self.k, self.v] {
            check_strides(arg, shape, strides, self.output)?;
            if shape[3] > 1 && strides[3] != 1 && pages > 0 {
                let (got, expected) = (format!("{strides:?}"), "1 for the last dimension".into());
                return Err(Error::Stride { arg, got, expected });
            }
        }
        let scaled = self.dtypes[0] == Dtype::I8;
        for (arg, scale) in [("k_scale", &self.k_scale), ("v_scale", &self.v_scale)] {
            match (scale, scaled) {
                (Some((_, shape, strides)), true) => {
                    check_shape(arg, shape, &[pages, kv_heads, page_len])?;
                    check_strides(arg, shape, strides, self.output)?;
                }
                (None, true) => return Err(Error::argument(arg, "absent", "scales of the int8 cache")),
                (Some(_), false) => {
                    return Err(Error::argument(
                        arg,
                        "given",
                        format!("none for a cache of {}", self.dtypes[0]),
                    ));
                }
                (None, false) => {}
            }
        }
        let (batch, capacity) = match &self.table {
            Some(table) => {
                let [batch, most] = *table.shape() else { unreachable!("two axes") };
                let too_large =
                    || Error::Overflow { arg: "block_table", got: format!("{:?}", table.shape()) };
                let capacity = most.checked_mul(page_len).filter(|&n| n <= isize::MAX as usize);
                (batch, capacity.ok_or_else(too_large)?)
            }
            None => (pages, page_len),
        };
        check_shape("lengths", &[self.lengths.len()], &[batch])?;
        let sizes = Sizes { pages, kv_heads, page_len, dim, value_dim, batch, capacity };
        sizes.check_lengths(self.table.as_ref(), self.lengths)?;
        Ok(sizes)
    }
}

impl Sizes {
    /// Checks that so many tokens of each batch entry fit and lie in pages that exist.
    fn check_lengths(&self, table: Option<&ArrayView2<i32>>, lengths: &[usize]) -> Result<()> {
        for (b, &n) in lengths.iter().enumerate() {
            if n > self.capacity {
                return Err(Error::range(
                    "lengths",
                    n,
                    format!("0 to {}, the tokens that have a place", self.capacity),
                ));
            }
            let Some(table) = table else { continue };
            for (i, &page) in table.row(b).iter().take(n.div_ceil(self.page_len)).enumerate() {
                if usize::try_from(page).is_ok_and(|page| page < self.pages) {
                    continue;
                }
                let expected = format!("pages of {} that exist", self.pages);
                return Err(Error::range("block_table", format!("{page} at [{b}, {i}]"), expected));
            }
        }
        Ok(())
    }
}

impl Pages<'_> {
    pub(super) fn view(&self) -> Pages<'_> {
        match self {
            Pages::F32(x) => Pages::F32(x.view()),
            Pages::F16(x) => Pages::F16(x.view()),
            Pages::Bf16(x) => Pages::Bf16(x.view()),
            Pages::I8(x) => Pages::I8(x.view()),
        }
    }
}

fn part<'s>(arg: &'static str, x: &'s Option<ArrayView3<f32>>) -> Option<Part<'s>> {
    x.as_ref().map(|x| (arg, x.shape(), x.strides()))
}

fn part_mut<'s>(arg: &'static str, x: &'s Option<ArrayViewMut3<f32>>) -> Option<Part<'s>> {
    x.as_ref().map(|x| (arg, x.shape(), x.strides()))
}

impl KvCache<'_> {
    fn check(&self) -> Result<Sizes> {
        Parts {
            k: ("k", &self.k.shape(), self.k.strides()),
            v: ("v", &self.v.shape(), self.v.strides()),
            dtypes: [self.k.dtype(), self.v.dtype()],
            k_scale: part("k_scale", &self.k_scale),
            v_scale: part("v_scale", &self.v_scale),
            table: self.block_table.as_ref().map(|t| t.view()),
            lengths: self.lengths,
            output: false,
        }
        .check()
    }
}

impl KvCacheMut<'_> {
    pub(crate) fn check(&self) -> Result<Sizes> {
        Parts {
            k: ("k", &self.k.shape(), self.k.strides()),
            v: ("v", &self.v.shape(), self.v.strides()),
            dtypes: [self.k.dtype(), self.v.dtype()],
            k_scale: part_mut("k_scale", &self.k_scale),
            v_scale: part_mut("v_scale", &self.v_scale),
            table: self.block_table.as_ref().map(|t| t.view()),
            lengths: self.lengths,
            output: true,
        }
        .check()
    }

    /// Some of the heads to read, with lengths of the caller's.
    pub(crate) fn heads<'s>(&'s self, heads: Range<usize>, lengths: &'s [usize]) -> KvCache<'s> {
        let scales =
            |x: &'s Option<ArrayViewMut3<f32>>| x.as_ref().map(|x| x.slice(s![.., heads.clone(), ..]));
        KvCache {
            k: self.k.heads(heads.clone()),
            v: self.v.heads(heads.clone()),
            k_scale: scales(&self.k_scale),
            v_scale: scales(&self.v_scale),
            block_table: self.block_table.as_ref().map(|t| t.view()),
            lengths,
        }
    }
}

impl PagesMut<'_> {
    fn heads(&self, heads: Range<usize>) -> Pages<'_> {
        match self {
            PagesMut::F32(x) => Pages::F32(x.slice(s![.., heads, .., ..])),
            PagesMut::F16(x) => Pages::F16(x.slice(s![.., heads, .., ..])),
            PagesMut::Bf16(x) => Pages::Bf16(x.slice(s![.., heads, .., ..])),
            PagesMut::I8(x) => Pages::I8(x.slice(s![.., heads, .., ..])),
        }
    }
}
