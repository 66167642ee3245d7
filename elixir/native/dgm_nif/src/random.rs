//! Counter-based noise.

use dgm_core::arch::FpEnv;
use dgm_core::random::{self, Purpose};
use dgm_core::{Error, Result};
use ndarray::Ix2;
use rustler::{Env, Term};

use crate::failure::Reply;
use crate::tensor::{Input, Output, Tensor};

#[rustler::nif(schedule = "DirtyCpu")]
fn random_normal<'a>(
    env: Env<'a>,
    seeds: Vec<u64>,
    dims: Vec<usize>,
    purpose: String,
    draw: u32,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let mut out = rows_of("elements", seeds.len(), &dims)?;
    random::normal(&seeds, parse(&purpose)?, draw, out.leading()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn random_uniform<'a>(
    env: Env<'a>,
    seeds: Vec<u64>,
    dims: Vec<usize>,
    purpose: String,
    draw: u32,
) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let mut out = rows_of("elements", seeds.len(), &dims)?;
    random::uniform(&seeds, parse(&purpose)?, draw, out.leading()?)?;
    Ok(out.into_term(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn random_categorical(logits: Input<'_>, seeds: Vec<u64>, purpose: String, draw: u32) -> Reply<Vec<i64>> {
    let _fp = FpEnv::enter();
    let logits = Tensor::new("logits", &logits)?;
    let logits = logits.view::<Ix2>("{rows, classes}")?;
    let mut out = vec![0; logits.dim().0];
    random::categorical(logits, &seeds, parse(&purpose)?, draw, &mut out)?;
    Ok(out)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn row_seeds(seed: u64, rows: usize) -> Reply<Vec<u64>> {
    let _fp = FpEnv::enter();
    if rows > MAX_ROWS {
        return Err(Error::range("rows", rows, format!("at most {MAX_ROWS}")).into());
    }
    Ok(random::row_seeds(seed, rows))
}

/// A list of seeds is a list of Elixir integers: more would not be a list but a mistake.
const MAX_ROWS: usize = 1 << 26;

fn rows_of(arg: &'static str, rows: usize, dims: &[usize]) -> Result<Output> {
    let mut shape = vec![rows];
    shape.extend_from_slice(dims);
    Output::stale(arg, &shape)
}

fn parse(name: &str) -> Result<u32> {
    let purpose = match name {
        "initial" => Purpose::Initial,
        "step" => Purpose::Step,
        "churn" => Purpose::Churn,
        "inpaint" => Purpose::Inpaint,
        "accept" => Purpose::Accept,
        "gumbel" => Purpose::Gumbel,
        "draft" => Purpose::Draft,
        "residual" => Purpose::Residual,
        "brownian" => Purpose::Brownian,
        "user" => Purpose::User,
        "probe" => Purpose::Probe,
        "exchange" => Purpose::Exchange,
        other => {
            let expected = "initial, step, churn, inpaint, accept, gumbel, draft, residual, brownian, user, probe or exchange";
            return Err(Error::argument("purpose", other, expected));
        }
    };
    Ok(purpose as u32)
}
