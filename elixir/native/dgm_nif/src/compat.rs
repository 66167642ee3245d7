//! Random numbers of other systems.

use dgm_core::arch::FpEnv;
use dgm_core::random::compat::jax::{self, Key, Layout};
use dgm_core::random::compat::{Algorithm, BrownianTree, Generator};
use dgm_core::{Error, Result};
use ndarray::ArrayViewMut2;
use rustler::{Binary, Env, OwnedBinary};

use crate::failure::Reply;
use crate::tensor::{allocate, allocate_bytes, copy, floats_mut};

fn state<'a>(env: Env<'a>, generator: &Generator) -> Result<Binary<'a>> {
    Ok(Binary::from_owned(copy("state", &generator.to_bytes())?, env))
}

#[rustler::nif]
fn compat_new<'a>(env: Env<'a>, algorithm: String, seed: u64) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let generator = Generator::new(Algorithm::from_name(&algorithm)?, seed)?;
    Ok(state(env, &generator)?)
}

/// The name of the generator whose state this is.
#[rustler::nif]
fn compat_algorithm(bytes: Binary<'_>) -> Reply<&'static str> {
    Ok(Generator::from_bytes(bytes.as_slice())?.algorithm().name())
}

/// The next tensor, and the state after it.
#[rustler::nif(schedule = "DirtyCpu")]
fn compat_draw<'a>(
    env: Env<'a>,
    bytes: Binary<'a>,
    normal: bool,
    wide: bool,
    count: usize,
) -> Reply<(Binary<'a>, Binary<'a>)> {
    let _fp = FpEnv::enter();
    let mut generator = Generator::from_bytes(bytes.as_slice())?;
    let out = if wide {
        let size = count.checked_mul(8).filter(|s| *s <= isize::MAX as usize);
        let size = size.ok_or_else(|| Error::Overflow { arg: "shape", got: format!("{count} numbers") })?;
        let mut out = allocate_bytes("shape", size)?;
        let numbers = doubles(&mut out)?;
        if normal { generator.normal_f64(numbers) } else { generator.uniform_f64(numbers) }?;
        out
    } else {
        let mut out = allocate("shape", count)?;
        let numbers = floats_mut(&mut out)?;
        if normal { generator.normal(numbers) } else { generator.uniform(numbers) }?;
        out
    };
    Ok((Binary::from_owned(out, env), state(env, &generator)?))
}

fn doubles(binary: &mut OwnedBinary) -> Result<&mut [f64]> {
    bytemuck::try_cast_slice_mut(binary.as_mut_slice())
        .map_err(|e| Error::Internal(format!("a fresh binary is not aligned: {e}")))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn compat_brownian<'a>(
    env: Env<'a>,
    seeds: Vec<u64>,
    elements: usize,
    ends: (f64, f64),
    between: (f64, f64),
    normalized: bool,
) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let tree = BrownianTree::new(ends.0, ends.1)?;
    let len = seeds.len().checked_mul(elements);
    let len = len.ok_or_else(|| Error::Overflow { arg: "elements", got: format!("{elements}") })?;
    let mut out = allocate("elements", len)?;
    let view = ArrayViewMut2::from_shape((seeds.len(), elements), floats_mut(&mut out)?)
        .map_err(|e| Error::Internal(format!("out: {e}")))?;
    let (ta, tb) = between;
    if normalized { tree.noise(&seeds, ta, tb, view) } else { tree.increment(&seeds, ta, tb, view) }?;
    Ok(Binary::from_owned(out, env))
}

fn layout(name: &str) -> Result<Layout> {
    let found = Layout::ALL.iter().find(|l| l.name() == name);
    found.copied().ok_or_else(|| Error::argument("layout", name, "partitionable, original or nx"))
}

#[rustler::nif]
fn compat_jax_key(seed: u64) -> (u32, u32) {
    jax::key(seed).into()
}

#[rustler::nif]
fn compat_jax_fold_in(key: (u32, u32), data: u32) -> (u32, u32) {
    jax::fold_in(key.into(), data).into()
}

/// More keys than this are no list for Elixir but a mistake.
const MAX_KEYS: usize = 1 << 24;

#[rustler::nif(schedule = "DirtyCpu")]
fn compat_jax_split(key: (u32, u32), layout_name: String, count: usize) -> Reply<Vec<(u32, u32)>> {
    if count > MAX_KEYS {
        return Err(Error::range("count", count, format!("at most {MAX_KEYS}")).into());
    }
    let mut keys: Vec<Key> = vec![[0; 2]; count];
    jax::split(key.into(), layout(&layout_name)?, &mut keys)?;
    Ok(keys.into_iter().map(Into::into).collect())
}

#[rustler::nif(schedule = "DirtyCpu")]
fn compat_jax_draw<'a>(
    env: Env<'a>,
    key: (u32, u32),
    layout_name: String,
    normal: bool,
    count: usize,
) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let layout = layout(&layout_name)?;
    let mut out = allocate("shape", count)?;
    let numbers = floats_mut(&mut out)?;
    if normal {
        jax::normal(key.into(), layout, numbers)
    } else {
        jax::uniform(key.into(), layout, numbers)
    }?;
    Ok(Binary::from_owned(out, env))
}
