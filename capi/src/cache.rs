//! Caches of keys and values, rotary embedding.

use dgm_core::attention::{
    KvCache, KvCacheMut, Pages, PagesMut, attention_merge, attention_paged, cache_append, cache_fork,
    cache_truncate,
};
use dgm_core::nn::{Rope, rope, rope_axial_tables, rope_tables};
use dgm_core::tensor::Dtype;
use dgm_core::{Error, Result};
use ndarray::{Ix2, Ix3, Ix4};

use crate::attention::{Read, counts as read_counts, dgm_attention_options, flag};
use crate::fence::entry;
use crate::memory::{Versioned, init_struct, read_struct, separate, slice, slice_mut};
use crate::tensor::{FLOATS, Tensor, dgm_tensor};

/// A cache of keys and values in the caller's memory; fill with dgm_kv_cache_init() first.
///
/// It has pages of T tokens. Token j of batch entry b lies in row j % T of page
/// block_table[b][j / T]; without a block table page b holds all tokens of entry b, which is a
/// contiguous cache [B, Hkv, T, D]. Any strides will do that keep the numbers of a token side by
/// side, so [P, T, Hkv, D] memory is a matter of strides.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_kv_cache {
    /// sizeof(dgm_kv_cache).
    pub struct_size: usize,
    /// [P, Hkv, T, D]: f32, f16, bf16 or int8 (DGM_DTYPE_INT, 8 bits).
    pub k: *mut dgm_tensor,
    /// [P, Hkv, T, Dv], the type of k.
    pub v: *mut dgm_tensor,
    /// f32 [P, Hkv, T]: what the numbers of a token are multiplied by. For int8, else NULL.
    pub k_scale: *mut dgm_tensor,
    /// As k_scale.
    pub v_scale: *mut dgm_tensor,
    /// int32 [B, M], the pages of each batch entry in order; NULL for a contiguous cache. Entries
    /// behind the last token are not read.
    pub block_table: *const dgm_tensor,
    /// B numbers: how many tokens each batch entry has.
    pub lengths: *mut i64,
}

// SAFETY: repr(C), the size first, no padding, any bits are a value (the pointers are not followed
// before they are checked).
unsafe impl Versioned for dgm_kv_cache {}

const EMPTY: dgm_kv_cache = dgm_kv_cache {
    struct_size: size_of::<dgm_kv_cache>(),
    k: std::ptr::null_mut(),
    v: std::ptr::null_mut(),
    k_scale: std::ptr::null_mut(),
    v_scale: std::ptr::null_mut(),
    block_table: std::ptr::null(),
    lengths: std::ptr::null_mut(),
};

/// Fills a cache with NULL.
///
/// @param cache       what to fill
/// @param struct_size sizeof *cache
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_kv_cache_init(cache: *mut dgm_kv_cache, struct_size: usize) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("cache", cache, struct_size, EMPTY) })
}

/// Tables of a rotary embedding; fill with dgm_rope_options_init() first.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_rope_options {
    /// sizeof(dgm_rope_options).
    pub struct_size: usize,
    /// f32 [positions, R / 2]: the first R numbers of a head are turned, the others stay.
    pub cos: *const dgm_tensor,
    /// As cos.
    pub sin: *const dgm_tensor,
    /// 1: pairs are (2 i, 2 i + 1). 0, the default: (i, i + R / 2).
    pub interleaved: i32,
    /// 0.
    pub reserved: i32,
}

// SAFETY: as above.
unsafe impl Versioned for dgm_rope_options {}

const NO_TABLES: dgm_rope_options = dgm_rope_options {
    struct_size: size_of::<dgm_rope_options>(),
    cos: std::ptr::null(),
    sin: std::ptr::null(),
    interleaved: 0,
    reserved: 0,
};

/// Fills options without tables.
///
/// @param options     what to fill
/// @param struct_size sizeof *options
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rope_options_init(options: *mut dgm_rope_options, struct_size: usize) -> i32 {
    // SAFETY: the caller gives `struct_size` writable bytes or NULL.
    entry(|| unsafe { init_struct("options", options, struct_size, NO_TABLES) })
}

/// dgm_attention() of new queries against a cache that already holds their keys and values.
///
/// The bits are those of dgm_attention() with the same keys and values side by side and the cache's
/// lengths as kv_lengths, whatever the page size. With an int8 cache a score is multiplied by its key's
/// scale before anything else happens to it, and a probability by its value's scale before it meets the
/// value.
///
/// @param q       [B, H, Lq, D]: the last Lq tokens of each batch entry; f32, f16 or bf16
/// @param cache   H is a multiple of Hkv
/// @param options NULL for the defaults; without kv_lengths; bias and mask have M T keys
/// @param out     [B, H, Lq, Dv]; f32, f16 or bf16
/// @param lse     f32 [B, H, Lq]; NULL if not wanted
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_paged(
    q: *const dgm_tensor,
    cache: *const dgm_kv_cache,
    options: *const dgm_attention_options,
    out: *mut dgm_tensor,
    lse: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and options, or NULL.
    entry(|| unsafe {
        let q = Tensor::read_any("q", q, Some(4), "[B, H, Lq, D]", FLOATS)?;
        let cache = Cache::read(cache)?;
        let out = Tensor::read_any("out", out, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let lse = Tensor::read_optional("lse", lse, 3, "[B, H, Lq]")?;
        // Key lengths of the options are read as none, for the engine to refuse.
        let read = Read::new(options, 0, q.shape()[1])?;
        read.check_separate(&[Some(&out), lse.as_ref()])?;
        let written: Vec<_> = [Some(&out), lse.as_ref()].into_iter().flatten().collect();
        let lengths = cache.numbers(&written)?;
        let mut inputs = vec![&q];
        inputs.extend(cache.tensors());
        inputs.extend(read.bias.iter().chain(&read.mask));
        let lse = match &lse {
            Some(lse) => Some(lse.output::<Ix3>(&[&inputs[..], &[&out]].concat())?),
            None => None,
        };
        let out = out.output_floats::<Ix4>(&inputs)?;
        attention_paged(q.floats::<Ix4>()?, &cache.view(&lengths)?, &read.options()?, out, lse)
    })
}

/// Appends new keys and values to a cache and adds them to its lengths.
///
/// A number is rounded once, to the cache's type. In an int8 cache a token of a head has
/// scale = max |x| / 127 and the numbers rint(x / scale); a token that is not finite becomes NaN as a
/// whole. Two batch entries may not write to one page: dgm_kv_cache_fork() it first. Nothing is changed
/// on failure.
///
/// @param k      [B, Hkv, N, D]; f32, f16 or bf16
/// @param v      [B, Hkv, N, Dv]; f32, f16 or bf16
/// @param counts how many of the N belong to each of the B batch entries; NULL for all
/// @param rope   tables that turn k by its position, the number of tokens before it; NULL for none
/// @param cache  what to append to
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_kv_cache_append(
    k: *const dgm_tensor,
    v: *const dgm_tensor,
    counts: *const i64,
    rope: *const dgm_rope_options,
    cache: *mut dgm_kv_cache,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and options, or NULL.
    entry(|| unsafe {
        let k = Tensor::read_any("k_new", k, Some(4), "[B, Hkv, N, D]", FLOATS)?;
        let v = Tensor::read_any("v_new", v, Some(4), "[B, Hkv, N, Dv]", FLOATS)?;
        let cache = Cache::read(cache)?;
        let batch = cache.batch;
        let new = match counts.is_null() {
            true => None,
            false => Some(read_counts("counts", counts, batch)?),
        };
        let tables = Tables::read(rope)?;
        let mut inputs = vec![&k, &v];
        inputs.extend(tables.iter().flat_map(|t| [&t.cos, &t.sin]));
        let mut lengths = cache.numbers(&cache.tensors().collect::<Vec<_>>())?;
        let rope = tables.as_ref().map(Tables::view).transpose()?;
        let mut view = cache.view_mut(&inputs, &mut lengths)?;
        let (k, v) = (k.floats::<Ix4>()?, v.floats::<Ix4>()?);
        cache_append(k, v, new.as_deref(), rope.as_ref(), &mut view)?;
        cache.put_lengths(&lengths)
    })
}

/// Copies one page of a cache to another, scales included: what a sequence needs before it appends to a
/// page that others share (copy on write).
///
/// @param cache the cache
/// @param from  page to copy
/// @param to    page to overwrite
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_kv_cache_fork(cache: *mut dgm_kv_cache, from: i64, to: i64) -> i32 {
    // SAFETY: the caller gives a valid cache or NULL.
    entry(|| unsafe {
        let page = |arg, n: i64| usize::try_from(n).map_err(|_| Error::range(arg, n, "a page, 0 or more"));
        let (from, to) = (page("from", from)?, page("to", to)?);
        let cache = Cache::read(cache)?;
        let mut lengths = cache.numbers(&cache.tensors().collect::<Vec<_>>())?;
        cache_fork(&mut cache.view_mut(&[], &mut lengths)?, from, to)
    })
}

/// Drops tokens from the end: batch entry b keeps the first keep[b].
///
/// @param lengths how many tokens each batch entry has; replaced by keep
/// @param keep    how many stay, at most lengths[b]
/// @param batch   number of batch entries
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_kv_cache_truncate(lengths: *mut i64, keep: *const i64, batch: i64) -> i32 {
    // SAFETY: the caller gives `batch` numbers each.
    entry(|| unsafe {
        let batch = usize::try_from(batch).map_err(|_| Error::range("batch", batch, "0 or more"))?;
        let mut now = read_counts("lengths", lengths, batch)?;
        cache_truncate(&mut now, &read_counts("keep", keep, batch)?)?;
        slice_mut("lengths", lengths, batch)?.iter_mut().zip(now).for_each(|(to, n)| *to = n as i64);
        Ok(())
    })
}

/// Joins the results of the same queries over two sets of keys by their log-sum-exps, as if all keys had
/// been seen at once.
///
/// A result whose share rounds to 0 takes no part, whatever it holds; where both lse are -inf, so is the
/// joint one, and out is 0.
///
/// @param out1 [B, H, Lq, Dv]; f32, f16 or bf16
/// @param lse1 f32 [B, H, Lq]
/// @param out2 [B, H, Lq, Dv]; f32, f16 or bf16
/// @param lse2 f32 [B, H, Lq]
/// @param out  [B, H, Lq, Dv]; f32, f16 or bf16
/// @param lse  f32 [B, H, Lq]; NULL if not wanted
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_attention_merge(
    out1: *const dgm_tensor,
    lse1: *const dgm_tensor,
    out2: *const dgm_tensor,
    lse2: *const dgm_tensor,
    out: *mut dgm_tensor,
    lse: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let out1 = Tensor::read_any("out1", out1, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let out2 = Tensor::read_any("out2", out2, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let lse1 = Tensor::read("lse1", lse1, Some(3), "[B, H, Lq]")?;
        let lse2 = Tensor::read("lse2", lse2, Some(3), "[B, H, Lq]")?;
        let out = Tensor::read_any("out", out, Some(4), "[B, H, Lq, Dv]", FLOATS)?;
        let lse = Tensor::read_optional("lse", lse, 3, "[B, H, Lq]")?;
        let inputs = [&out1, &lse1, &out2, &lse2];
        let lse = match &lse {
            Some(lse) => Some(lse.output::<Ix3>(&[&inputs[..], &[&out]].concat())?),
            None => None,
        };
        let out = out.output_floats::<Ix4>(&inputs)?;
        let (lse1, lse2) = (lse1.view::<Ix3>()?, lse2.view::<Ix3>()?);
        attention_merge(out1.floats::<Ix4>()?, lse1, out2.floats::<Ix4>()?, lse2, out, lse)
    })
}

/// Fills tables of a rotary embedding: row n holds cosine and sine of
/// (first + n) theta^(-i / (R / 2)) for i below R / 2.
///
/// @param first position of row 0
/// @param theta the base, 10000 as a rule
/// @param cos   f32 [positions, R / 2]
/// @param sin   f32 [positions, R / 2]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rope_tables(
    first: i64,
    theta: f32,
    cos: *mut dgm_tensor,
    sin: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors or NULL.
    entry(|| unsafe {
        let first = usize::try_from(first).map_err(|_| Error::range("first", first, "0 or more"))?;
        let cos = Tensor::read("cos", cos, Some(2), TABLE)?;
        let sin = Tensor::read("sin", sin, Some(2), TABLE)?;
        rope_tables(first, theta, cos.output::<Ix2>(&[])?, sin.output::<Ix2>(&[&cos])?)
    })
}

/// Fills tables of a rotary embedding over several axes: row n holds, one axis after the other, cosine and
/// sine of positions[n][a] theta^(-i / (dims[a] / 2)) for i below dims[a] / 2.
///
/// @param positions f32 [tokens, axes]
/// @param dims      for each axis how many numbers of a head it turns, even
/// @param theta     the base, 10000 as a rule
/// @param cos       f32 [tokens, sum of dims / 2]
/// @param sin       f32 [tokens, sum of dims / 2]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rope_axial_tables(
    positions: *const dgm_tensor,
    dims: *const i64,
    theta: f32,
    cos: *mut dgm_tensor,
    sin: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and a number for each axis, or NULL.
    entry(|| unsafe {
        let positions = Tensor::read("positions", positions, Some(2), "[tokens, axes]")?;
        let dims = read_counts("dims", dims, positions.shape()[1])?;
        let cos = Tensor::read("cos", cos, Some(2), "[tokens, sum of dims / 2]")?;
        let sin = Tensor::read("sin", sin, Some(2), "[tokens, sum of dims / 2]")?;
        let (c, s) = (cos.output::<Ix2>(&[&positions])?, sin.output::<Ix2>(&[&positions, &cos])?);
        rope_axial_tables(positions.view::<Ix2>()?, &dims, theta, c, s)
    })
}

/// Turns queries or keys by their positions (rotary embedding): token i of batch entry b stands at
/// position first[b] + i. Computed in f32, rounded once.
///
/// @param x      [B, H, L, D]; f32, f16 or bf16
/// @param first  B positions
/// @param tables cosines and sines of every position that occurs
/// @param out    the shape of x; f32, f16 or bf16
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rope(
    x: *const dgm_tensor,
    first: *const i64,
    tables: *const dgm_rope_options,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives valid descriptors and options, or NULL.
    entry(|| unsafe {
        let x = Tensor::read_any("x", x, Some(4), "[B, H, L, D]", FLOATS)?;
        let first = read_counts("first", first, x.shape()[0])?;
        let missing = Error::Null { arg: "tables", expected: "cosines and sines" };
        let tables = Tables::read(tables)?.ok_or(missing)?;
        let out = Tensor::read_any("out", out, Some(4), "[B, H, L, D]", FLOATS)?;
        let out = out.output_floats::<Ix4>(&[&x, &tables.cos, &tables.sin])?;
        rope(x.floats::<Ix4>()?, &first, &tables.view()?, out)
    })
}

const TABLE: &str = "[positions, R / 2]";

/// The tables of a rotary embedding, checked.
struct Tables<'a> {
    cos: Tensor<'a>,
    sin: Tensor<'a>,
    interleaved: bool,
}

impl<'a> Tables<'a> {
    /// # Safety
    /// `options` is NULL or valid, with valid descriptors.
    unsafe fn read(options: *const dgm_rope_options) -> Result<Option<Self>> {
        if options.is_null() {
            return Ok(None);
        }
        // SAFETY: the caller's promise.
        let raw = unsafe { read_struct("rope", options, NO_TABLES) }?;
        if raw.reserved != 0 {
            return Err(Error::argument("reserved", raw.reserved, "0"));
        }
        // SAFETY: the caller's promise.
        let table = |arg, t| unsafe { Tensor::read(arg, t, Some(2), TABLE) };
        let (cos, sin) = (table("cos", raw.cos)?, table("sin", raw.sin)?);
        Ok(Some(Tables { cos, sin, interleaved: flag("interleaved", raw.interleaved)? }))
    }

    fn view(&self) -> Result<Rope<'_>> {
        Ok(Rope { cos: self.cos.view::<Ix2>()?, sin: self.sin.view::<Ix2>()?, interleaved: self.interleaved })
    }
}

/// The types of a cache.
const STORED: &[Dtype] = &[Dtype::F32, Dtype::F16, Dtype::Bf16, Dtype::I8];

/// A cache, its parts checked one by one.
pub(crate) struct Cache<'a> {
    k: Tensor<'a>,
    v: Tensor<'a>,
    k_scale: Option<Tensor<'a>>,
    v_scale: Option<Tensor<'a>>,
    table: Option<Tensor<'a>>,
    lengths: *mut i64,
    pub(crate) batch: usize,
}

impl<'a> Cache<'a> {
    /// # Safety
    /// `cache` is NULL or valid, with valid descriptors and a length for each batch entry.
    pub(crate) unsafe fn read(cache: *const dgm_kv_cache) -> Result<Self> {
        // SAFETY: the caller's promise, here and below.
        unsafe {
            let raw = read_struct("cache", cache, EMPTY)?;
            let k = Tensor::read_any("k", raw.k, Some(4), "[P, Hkv, T, D]", STORED)?;
            let v = Tensor::read_any("v", raw.v, Some(4), "[P, Hkv, T, Dv]", STORED)?;
            let k_scale = Tensor::read_optional("k_scale", raw.k_scale, 3, "[P, Hkv, T]")?;
            let v_scale = Tensor::read_optional("v_scale", raw.v_scale, 3, "[P, Hkv, T]")?;
            let table = match raw.block_table.is_null() {
                true => None,
                false => {
                    Some(Tensor::read_any("block_table", raw.block_table, Some(2), "[B, M]", &[Dtype::I32])?)
                }
            };
            let batch = table.as_ref().map_or(k.shape()[0], |t| t.shape()[0]);
            Ok(Cache { k, v, k_scale, v_scale, table, lengths: raw.lengths, batch })
        }
    }

    pub(crate) fn tensors(&self) -> impl Iterator<Item = &Tensor<'a>> {
        [&self.k, &self.v].into_iter().chain(&self.k_scale).chain(&self.v_scale).chain(&self.table)
    }

    /// The lengths, checked to share no memory with what is written.
    ///
    /// # Safety
    /// The caller gives a length for each batch entry.
    pub(crate) unsafe fn numbers(&self, written: &[&Tensor]) -> Result<Vec<usize>> {
        // SAFETY: the caller's promise.
        let raw = unsafe { slice("lengths", self.lengths, self.batch) }?;
        written.iter().try_for_each(|w| w.check_separate("lengths", raw))?;
        // SAFETY: as above.
        unsafe { read_counts("lengths", self.lengths, self.batch) }
    }

    /// Checks that the lengths share no memory with an array.
    pub(crate) fn check_lengths_separate<T>(&self, other: &'static str, array: &[T]) -> Result<()> {
        separate("lengths", self.lengths, self.batch, other, array.as_ptr(), array.len())
    }

    fn view<'s>(&'s self, lengths: &'s [usize]) -> Result<KvCache<'s>> {
        Ok(KvCache {
            k: pages(&self.k)?,
            v: pages(&self.v)?,
            k_scale: self.k_scale.as_ref().map(Tensor::view::<Ix3>).transpose()?,
            v_scale: self.v_scale.as_ref().map(Tensor::view::<Ix3>).transpose()?,
            block_table: self.table.as_ref().map(Tensor::view_of::<i32, Ix2>).transpose()?,
            lengths,
        })
    }

    /// Everything to write, apart from each other and from `inputs`.
    pub(crate) fn view_mut<'s>(
        &'s self,
        inputs: &[&Tensor],
        lengths: &'s mut [usize],
    ) -> Result<KvCacheMut<'s>> {
        let mut others: Vec<&Tensor> = inputs.to_vec();
        others.extend(&self.table);
        let k = pages_mut(&self.k, &others)?;
        others.push(&self.k);
        let v = pages_mut(&self.v, &others)?;
        others.push(&self.v);
        let k_scale = self.k_scale.as_ref().map(|s| s.output::<Ix3>(&others)).transpose()?;
        others.extend(&self.k_scale);
        let v_scale = self.v_scale.as_ref().map(|s| s.output::<Ix3>(&others)).transpose()?;
        let block_table = self.table.as_ref().map(Tensor::view_of::<i32, Ix2>).transpose()?;
        Ok(KvCacheMut { k, v, k_scale, v_scale, block_table, lengths })
    }

    /// # Safety
    /// As [`Cache::numbers`], writable.
    pub(crate) unsafe fn put_lengths(&self, lengths: &[usize]) -> Result<()> {
        // SAFETY: the caller's promise.
        let to = unsafe { slice_mut("lengths", self.lengths, lengths.len()) }?;
        to.iter_mut().zip(lengths).for_each(|(to, &n)| *to = n as i64);
        Ok(())
    }
}

fn pages<'a>(x: &Tensor<'a>) -> Result<Pages<'a>> {
    Ok(match x.dtype() {
        Dtype::F16 => Pages::F16(x.view_of()?),
        Dtype::Bf16 => Pages::Bf16(x.view_of()?),
        Dtype::I8 => Pages::I8(x.view_of()?),
        _ => Pages::F32(x.view_of()?),
    })
}

fn pages_mut<'a>(x: &Tensor<'a>, others: &[&Tensor]) -> Result<PagesMut<'a>> {
    Ok(match x.dtype() {
        Dtype::F16 => PagesMut::F16(x.output_of(others)?),
        Dtype::Bf16 => PagesMut::Bf16(x.output_of(others)?),
        Dtype::I8 => PagesMut::I8(x.output_of(others)?),
        _ => PagesMut::F32(x.output_of(others)?),
    })
}
