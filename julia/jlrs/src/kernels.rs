//! Random numbers, and what the engine says of itself.

use dgm_core::linalg::{Backend, set_backend};
use dgm_core::random::{self, Purpose};
use dgm_core::{NUMERICS_VERSION, info, threads};
use jlrs::data::managed::array::{TypedArrayRet, TypedVectorRet};
use jlrs::data::managed::string::StringRet;
use jlrs::prelude::*;
use ndarray::{ArrayViewMut2, Ix2};

use crate::array::{Input, JlArray, JlValue, Output, copied, shown};
use crate::failure::{Failure, Reply, engine, fence, string};
use crate::options::Options;

pub fn row_seeds(seed: u64, n: isize) -> Reply<TypedVectorRet<u64>> {
    fence(|| {
        let rows =
            usize::try_from(n).map_err(|_| Failure::argument(format!("n is {n}, expected 0 or more")))?;
        let seeds = engine(|| Ok(random::row_seeds(seed, rows)))?;
        one_dimensional(copied(&[rows], &seeds)?)
    })
}

/// The same array with its rank in its type.
pub fn one_dimensional<T: crate::array::Element>(
    array: TypedArrayRet<T>,
) -> Result<TypedVectorRet<T>, Failure> {
    // SAFETY: the array was just made; nothing is allocated before it is returned.
    Ok(unsafe { array.as_managed().set_rank_unchecked::<1>() }.leak())
}

type Fill = fn(&[u64], u32, u32, ArrayViewMut2<'_, f32>) -> dgm_core::Result<()>;

pub fn normal(seeds: JlArray, out: JlArray) -> Reply<Nothing> {
    fence(|| fill(random::normal, seeds, out, &Options::NONE))
}

pub fn normal_with(seeds: JlArray, out: JlArray, options: JlValue) -> Reply<Nothing> {
    fence(|| fill(random::normal, seeds, out, &Options::new(options, STREAM)?))
}

pub fn uniform(seeds: JlArray, out: JlArray) -> Reply<Nothing> {
    fence(|| fill(random::uniform, seeds, out, &Options::NONE))
}

pub fn uniform_with(seeds: JlArray, out: JlArray, options: JlValue) -> Reply<Nothing> {
    fence(|| fill(random::uniform, seeds, out, &Options::new(options, STREAM)?))
}

fn fill(f: Fill, seeds: JlArray, out: JlArray, options: &Options) -> Result<Nothing, Failure> {
    let (purpose, draw) = stream(options)?;
    let seeds = Input::<u64>::vector("seeds", seeds)?;
    let mut out = Output::<f32>::new("out", out, None, "")?;
    let dims = out.dims();
    let Some((&rows, rest)) = dims.split_last() else {
        return Err(Failure::dimensions("out has size (), expected (..., B)"));
    };
    if seeds.slice().len() != rows {
        let (found, size) = (seeds.slice().len(), shown(&dims));
        return Err(Failure::dimensions(format!(
            "seeds has length {found}, expected the rows of out, {size}"
        )));
    }
    let shape = (rows, rest.iter().product());
    let view = ArrayViewMut2::from_shape(shape, out.slice())
        .map_err(|e| Failure::from(dgm_core::Error::Internal(e.to_string())))?;
    engine(|| f(seeds.slice(), purpose, draw, view))?;
    Ok(Nothing)
}

pub fn categorical(seeds: JlArray, logits: JlArray) -> Reply<TypedVectorRet<i64>> {
    fence(|| draw(seeds, logits, &Options::NONE))
}

pub fn categorical_with(seeds: JlArray, logits: JlArray, options: JlValue) -> Reply<TypedVectorRet<i64>> {
    fence(|| draw(seeds, logits, &Options::new(options, STREAM)?))
}

fn draw(seeds: JlArray, logits: JlArray, options: &Options) -> Result<TypedVectorRet<i64>, Failure> {
    let (purpose, draw) = stream(options)?;
    let seeds = Input::<u64>::vector("seeds", seeds)?;
    let logits = Input::<f32>::new("logits", logits, Some(2), "(V, B)")?;
    let view = logits.view::<Ix2>()?;
    let mut index = vec![0; view.dim().0];
    engine(|| random::categorical(view, seeds.slice(), purpose, draw, &mut index))?;
    index.iter_mut().for_each(|i| *i += 1);
    one_dimensional(copied(&[index.len()], &index)?)
}

const STREAM: &[&str] = &["purpose", "draw"];

/// Purpose and draw.
fn stream(options: &Options) -> Result<(u32, u32), Failure> {
    let purpose = if options.is_symbol("purpose") {
        purpose(&options.symbol("purpose")?.unwrap_or_default())?
    } else {
        word("purpose", options)?.unwrap_or(Purpose::User as u32)
    };
    Ok((purpose, word("draw", options)?.unwrap_or(0)))
}

fn word(name: &str, options: &Options) -> Result<Option<u32>, Failure> {
    let Some(n) = options.count(name)? else { return Ok(None) };
    u32::try_from(n).map(Some).map_err(|_| Failure::argument(format!("{name} is {n}, expected 32 bits")))
}

fn purpose(name: &str) -> Result<u32, Failure> {
    let known = [
        ("initial", Purpose::Initial),
        ("step", Purpose::Step),
        ("churn", Purpose::Churn),
        ("inpaint", Purpose::Inpaint),
        ("accept", Purpose::Accept),
        ("gumbel", Purpose::Gumbel),
        ("draft", Purpose::Draft),
        ("residual", Purpose::Residual),
        ("brownian", Purpose::Brownian),
        ("user", Purpose::User),
    ];
    let found = known.iter().find(|(n, _)| *n == name).map(|&(_, purpose)| purpose as u32);
    found.ok_or_else(|| {
        let names: Vec<_> = known.iter().map(|(n, _)| format!(":{n}")).collect();
        Failure::argument(format!("purpose is :{name}, expected one of {}", names.join(", ")))
    })
}

pub fn num_threads() -> isize {
    threads::num_threads() as isize
}

pub fn set_num_threads(n: isize) -> Reply<Nothing> {
    fence(|| {
        let count = usize::try_from(n)
            .map_err(|_| Failure::argument(format!("n is {n}, expected 1 to {}", threads::MAX_THREADS)))?;
        engine(|| threads::set_num_threads(count)).map(|()| Nothing)
    })
}

pub fn choose_backend(backend: Symbol) -> Reply<Nothing> {
    fence(|| {
        let name = backend.as_str()?.to_string();
        engine(|| set_backend(Backend::from_name(&name)?)).map(|()| Nothing)
    })
}

pub fn cpu_info() -> Reply<StringRet> {
    fence(|| Ok(string(&engine(|| Ok(info::cpu_info()))?)))
}

pub fn numerics_version() -> isize {
    NUMERICS_VERSION as isize
}
