//! Caches of keys and values, rotary embedding.

use dgm_core::arch::FpEnv;
use dgm_core::attention::{self, KvCache, KvCacheMut};
use dgm_core::nn;
use dgm_core::{Error, Result};
use ndarray::{Array2, Ix2, Ix3, Ix4};
use rustler::{Env, NifMap, Term};

use crate::attention::{Options, Settings};
use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};
use crate::typed::{Typed, TypedInput, TypedOutput};

/// A cache, as `DGM.KVCache` has checked its types.
#[derive(NifMap)]
#[rustler(decode)]
pub struct Cache<'a> {
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    k_scale: Option<TypedInput<'a>>,
    v_scale: Option<TypedInput<'a>>,
    tokens_first: bool,
    /// Rows of equal length.
    block_table: Option<Vec<Vec<i32>>>,
    lengths: Vec<usize>,
}

impl Cache<'_> {
    fn order(&self) -> [usize; 4] {
        if self.tokens_first { [0, 2, 1, 3] } else { [0, 1, 2, 3] }
    }

    fn names(&self) -> [&'static str; 2] {
        match self.tokens_first {
            true => ["{pages, page_len, kv_heads, dim}", "{pages, page_len, kv_heads, value_dim}"],
            false => ["{pages, kv_heads, page_len, dim}", "{pages, kv_heads, page_len, value_dim}"],
        }
    }

    fn table(&self) -> Result<Option<Array2<i32>>> {
        let Some(rows) = &self.block_table else { return Ok(None) };
        let shape = (rows.len(), rows.first().map_or(0, Vec::len));
        let table = Array2::from_shape_vec(shape, rows.concat());
        table.map(Some).map_err(|_| Error::argument("block_table", "rows of different lengths", "equal ones"))
    }

    fn typed(&self) -> Result<Parts<'_>> {
        Ok(Parts {
            k: Typed::new("k", &self.k, true)?,
            v: Typed::new("v", &self.v, true)?,
            k_scale: self.k_scale.as_ref().map(|x| Typed::new("k_scale", x, false)).transpose()?,
            v_scale: self.v_scale.as_ref().map(|x| Typed::new("v_scale", x, false)).transpose()?,
        })
    }
}

struct Parts<'a> {
    k: Typed<'a>,
    v: Typed<'a>,
    k_scale: Option<Typed<'a>>,
    v_scale: Option<Typed<'a>>,
}

const SCALES: &str = "{pages, kv_heads, page_len}";

fn singles<'s>(x: &'s Option<Typed>) -> Result<Option<ndarray::ArrayView3<'s, f32>>> {
    let Some(x) = x else { return Ok(None) };
    match x.floats::<Ix3>(SCALES)? {
        dgm_core::tensor::Floats::F32(x) => Ok(Some(x)),
        other => Err(Error::Dtype { arg: "scales", got: other.dtype().to_string(), expected: "f32".into() }),
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn attention_paged<'a>(
    env: Env<'a>,
    q: TypedInput<'a>,
    cache: Cache<'a>,
    options: Options<'a>,
) -> Reply<(Term<'a>, Option<Term<'a>>)> {
    let _fp = FpEnv::enter();
    let q = Typed::new("q", &q, false)?;
    let dtype = q.dtype();
    let q = q.floats::<Ix4>("{batch, heads, queries, dim}")?;
    let (parts, table) = (cache.typed()?, cache.table()?);
    let [k_names, v_names] = cache.names();
    let view = KvCache {
        k: parts.k.pages(k_names, cache.order())?,
        v: parts.v.pages(v_names, cache.order())?,
        k_scale: singles(&parts.k_scale)?,
        v_scale: singles(&parts.v_scale)?,
        block_table: table.as_ref().map(|t| t.view()),
        lengths: &cache.lengths,
    };
    let settings = Settings::new(&options)?;
    let rows = [q.shape()[0], q.shape()[1], q.shape()[2]];
    let mut out = TypedOutput::new("out", &[rows[0], rows[1], rows[2], view.v.shape()[3]], dtype)?;
    let mut lse = settings.lse(&rows)?;
    let lse_view = lse.as_mut().map(Output::view::<Ix3>).transpose()?;
    attention::attention_paged(q, &view, &settings.options()?, out.floats::<Ix4>()?, lse_view)?;
    Ok((out.into_term(env), lse.map(|l| l.into_term(env))))
}

/// A copy of a cache, to change.
pub struct Copied {
    k: TypedOutput,
    v: TypedOutput,
    k_scale: Option<TypedOutput>,
    v_scale: Option<TypedOutput>,
    table: Option<Array2<i32>>,
    lengths: Vec<usize>,
    order: [usize; 4],
}

/// What a changed cache becomes: k, v, scales, lengths.
pub type Changed<'a> = (Term<'a>, Term<'a>, Option<Term<'a>>, Option<Term<'a>>, Vec<usize>);

impl Copied {
    pub fn new(cache: &Cache) -> Result<Self> {
        let parts = cache.typed()?;
        let [k_names, v_names] = cache.names();
        // Ranks are checked before anything is copied.
        parts.k.pages(k_names, cache.order())?;
        parts.v.pages(v_names, cache.order())?;
        singles(&parts.k_scale)?;
        singles(&parts.v_scale)?;
        let scale = |x: &Option<TypedInput>, from: &Option<Typed>| {
            x.as_ref().zip(from.as_ref()).map(|(x, from)| TypedOutput::copy_of("scales", x, from)).transpose()
        };
        Ok(Copied {
            k: TypedOutput::copy_of("k", &cache.k, &parts.k)?,
            v: TypedOutput::copy_of("v", &cache.v, &parts.v)?,
            k_scale: scale(&cache.k_scale, &parts.k_scale)?,
            v_scale: scale(&cache.v_scale, &parts.v_scale)?,
            table: cache.table()?,
            lengths: cache.lengths.clone(),
            order: cache.order(),
        })
    }

    pub fn view(&mut self) -> Result<KvCacheMut<'_>> {
        Ok(KvCacheMut {
            k: self.k.pages(self.order)?,
            v: self.v.pages(self.order)?,
            k_scale: self.k_scale.as_mut().map(TypedOutput::singles::<Ix3>).transpose()?,
            v_scale: self.v_scale.as_mut().map(TypedOutput::singles::<Ix3>).transpose()?,
            block_table: self.table.as_ref().map(|t| t.view()),
            lengths: &mut self.lengths,
        })
    }

    pub fn into_terms(self, env: Env<'_>) -> Changed<'_> {
        let scale = |x: Option<TypedOutput>| x.map(|x| x.into_term(env));
        let (k, v) = (self.k.into_term(env), self.v.into_term(env));
        (k, v, scale(self.k_scale), scale(self.v_scale), self.lengths)
    }
}

/// Tables of a rotary embedding: cosines, sines, interleaved.
type Tables<'a> = (Input<'a>, Input<'a>, bool);

fn with_tables<R>(rope: &Tables, f: impl FnOnce(&nn::Rope) -> Result<R>) -> Result<R> {
    let (cos, sin) = (Tensor::new("cos", &rope.0)?, Tensor::new("sin", &rope.1)?);
    let (cos, sin) = (cos.view::<Ix2>("{positions, half}")?, sin.view::<Ix2>("{positions, half}")?);
    f(&nn::Rope { cos, sin, interleaved: rope.2 })
}

#[rustler::nif(schedule = "DirtyCpu")]
fn cache_append<'a>(
    env: Env<'a>,
    cache: Cache<'a>,
    k: TypedInput<'a>,
    v: TypedInput<'a>,
    counts: Option<Vec<usize>>,
    rope: Option<Tables<'a>>,
) -> Reply<Changed<'a>> {
    let _fp = FpEnv::enter();
    let (k, v) = (Typed::new("k_new", &k, false)?, Typed::new("v_new", &v, false)?);
    let k = k.floats::<Ix4>("{batch, kv_heads, tokens, dim}")?;
    let v = v.floats::<Ix4>("{batch, kv_heads, tokens, value_dim}")?;
    let mut copied = Copied::new(&cache)?;
    let counts = counts.as_deref();
    match &rope {
        Some(rope) => {
            with_tables(rope, |rope| attention::cache_append(k, v, counts, Some(rope), &mut copied.view()?))?;
        }
        None => attention::cache_append(k, v, counts, None, &mut copied.view()?)?,
    }
    Ok(copied.into_terms(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn cache_fork<'a>(env: Env<'a>, cache: Cache<'a>, from: usize, to: usize) -> Reply<Changed<'a>> {
    let mut copied = Copied::new(&cache)?;
    attention::cache_fork(&mut copied.view()?, from, to)?;
    Ok(copied.into_terms(env))
}

#[rustler::nif]
fn cache_truncate(lengths: Vec<usize>, keep: Vec<usize>) -> Reply<Vec<usize>> {
    let mut lengths = lengths;
    attention::cache_truncate(&mut lengths, &keep)?;
    Ok(lengths)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn attention_merge<'a>(
    env: Env<'a>,
    out1: TypedInput<'a>,
    lse1: Input<'a>,
    out2: TypedInput<'a>,
    lse2: Input<'a>,
) -> Reply<(Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    const OUT: &str = "{batch, heads, queries, value_dim}";
    const LSE: &str = "{batch, heads, queries}";
    let (out1, out2) = (Typed::new("out1", &out1, false)?, Typed::new("out2", &out2, false)?);
    let (lse1, lse2) = (Tensor::new("lse1", &lse1)?, Tensor::new("lse2", &lse2)?);
    let mut out = TypedOutput::new("out", out1.dims(), out1.dtype())?;
    let mut lse = Output::new("lse", lse1.dims())?;
    attention::attention_merge(
        out1.floats::<Ix4>(OUT)?,
        lse1.view::<Ix3>(LSE)?,
        out2.floats::<Ix4>(OUT)?,
        lse2.view::<Ix3>(LSE)?,
        out.floats::<Ix4>()?,
        Some(lse.view::<Ix3>()?),
    )?;
    Ok((out.into_term(env), lse.into_term(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rope_tables<'a>(
    env: Env<'a>,
    positions: usize,
    half: usize,
    first: usize,
    theta: f64,
) -> Reply<(Term<'a>, Term<'a>)> {
    let _fp = FpEnv::enter();
    let (mut cos, mut sin) =
        (Output::new("cos", &[positions, half])?, Output::new("sin", &[positions, half])?);
    nn::rope_tables(first, theta as f32, cos.view::<Ix2>()?, sin.view::<Ix2>()?)?;
    Ok((cos.into_term(env), sin.into_term(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn rope<'a>(env: Env<'a>, x: TypedInput<'a>, first: Vec<usize>, tables: Tables<'a>) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let x = Typed::new("x", &x, false)?;
    let mut out = TypedOutput::new("out", x.dims(), x.dtype())?;
    let view = x.floats::<Ix4>("{batch, heads, tokens, dim}")?;
    with_tables(&tables, |tables| nn::rope(view, &first, tables, out.floats::<Ix4>()?))?;
    Ok(out.into_term(env))
}
