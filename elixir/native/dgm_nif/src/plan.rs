//! Compiled plans.

use dgm_core::arch::FpEnv;
use dgm_core::sampling::{OptionValue, Plan, PlanOptions};
use dgm_core::{Error, Result};
use rustler::{Atom, Binary, Decoder, Encoder, Env, Resource, ResourceArc, Term};

use crate::failure::{Handle, Named, Reply};
use crate::tensor::copy;

/// An immutable plan, shared between processes.
pub struct PlanRef(pub Plan);

#[rustler::resource_impl]
impl Resource for PlanRef {}

impl Named for PlanRef {
    const ARG: &'static str = "plan";
    const EXPECTED: &'static str = "the resource of a %DGM.Plan{}";
}

/// `{resource, steps, slots, hash}`
type Compiled = (ResourceArc<PlanRef>, usize, usize, u64);

fn compiled(plan: Plan) -> Compiled {
    let (steps, slots, hash) = (plan.steps(), plan.slots(), plan.hash());
    (ResourceArc::new(PlanRef(plan)), steps, slots, hash)
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan_compile(options: Vec<(Atom, Term<'_>)>) -> Reply<Compiled> {
    let _fp = FpEnv::enter();
    let mut wanted = PlanOptions::default();
    for (key, value) in options {
        set(&mut wanted, key, value)?;
    }
    Ok(compiled(Plan::compile(&wanted)?))
}

/// The engine's defaults as a keyword list, so that they are written down once.
#[rustler::nif]
fn plan_defaults(env: Env<'_>) -> Term<'_> {
    let _fp = FpEnv::enter();
    options_term(env, &PlanOptions::default())
}

#[rustler::nif]
fn plan_preset<'a>(env: Env<'a>, preset: Atom) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let options = PlanOptions::preset(&name(preset.to_term(env), "preset")?)?;
    Ok(options_term(env, &options))
}

#[rustler::nif]
fn plan_options<'a>(env: Env<'a>, plan: Handle<PlanRef>) -> Term<'a> {
    let _fp = FpEnv::enter();
    options_term(env, plan.0.options())
}

#[rustler::nif]
fn plan_level(plan: Handle<PlanRef>, t: f64) -> Reply<(f64, f64)> {
    let _fp = FpEnv::enter();
    let level = plan.0.level(t)?;
    Ok((level.alpha, level.sigma))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan_describe(plan: Handle<PlanRef>) -> String {
    let _fp = FpEnv::enter();
    plan.0.describe()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan_to_binary<'a>(env: Env<'a>, plan: Handle<PlanRef>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    Ok(Binary::from_owned(copy("plan", &plan.0.to_bytes())?, env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan_from_binary(bytes: Binary<'_>) -> Reply<Compiled> {
    let _fp = FpEnv::enter();
    Ok(compiled(Plan::from_bytes(bytes.as_slice())?))
}

fn set(options: &mut PlanOptions, key: Atom, value: Term<'_>) -> Result<()> {
    let key = name(key.to_term(value.get_env()), "option")?;
    let Some(&arg) = PlanOptions::NAMES.iter().find(|n| **n == key) else {
        return Err(Error::argument("option", key, "an option of DGM.Plan.compile/1"));
    };
    // The value there now says what kind is wanted.
    let value = match options.get(arg)? {
        OptionValue::Name(_) => OptionValue::Name(name(value, arg)?),
        OptionValue::Count(_) => OptionValue::Count(count(arg, value)?),
        OptionValue::Number(_) => OptionValue::Number(number(arg, value)?),
        OptionValue::Flag(_) => OptionValue::Flag(flag(arg, value)?),
        OptionValue::None | OptionValue::List(_) if arg == "clip" => {
            optional(value, |v| number(arg, v))?.map_or(OptionValue::None, OptionValue::Number)
        }
        OptionValue::None | OptionValue::List(_) => {
            optional(value, |v| numbers(arg, v))?.map_or(OptionValue::None, OptionValue::List)
        }
    };
    options.set(arg, value)
}

/// The options as a keyword list.
pub fn options_term<'a>(env: Env<'a>, o: &PlanOptions) -> Term<'a> {
    let atom =
        |name: &str| Atom::from_str(env, name).map(|a| a.to_term(env)).unwrap_or_else(|_| name.encode(env));
    let term = |name: &str| match o.get(name) {
        Ok(OptionValue::Name(v)) => atom(&v),
        Ok(OptionValue::Count(v)) => v.encode(env),
        Ok(OptionValue::Number(v)) => v.encode(env),
        Ok(OptionValue::Flag(v)) => v.encode(env),
        Ok(OptionValue::List(v)) => v.encode(env),
        Ok(OptionValue::None) | Err(_) => rustler::types::atom::nil().to_term(env),
    };
    let list: Vec<(Term, Term)> = PlanOptions::NAMES.iter().map(|name| (atom(name), term(name))).collect();
    list.encode(env)
}

fn name(value: Term<'_>, arg: &'static str) -> Result<String> {
    value.atom_to_string().map_err(|_| Error::argument(arg, format!("{value:?}"), "an atom"))
}

fn flag(arg: &'static str, value: Term<'_>) -> Result<bool> {
    value.decode().map_err(|_| Error::argument(arg, format!("{value:?}"), "true or false"))
}

fn count(arg: &'static str, value: Term<'_>) -> Result<usize> {
    value.decode().map_err(|_| Error::argument(arg, format!("{value:?}"), "a non-negative integer"))
}

fn number(arg: &'static str, value: Term<'_>) -> Result<f64> {
    f64::decode(value)
        .or_else(|_| i64::decode(value).map(|n| n as f64))
        .map_err(|_| Error::argument(arg, format!("{value:?}"), "a number"))
}

fn numbers(arg: &'static str, value: Term<'_>) -> Result<Vec<f64>> {
    // Rustler's decoder panics at an improper list, which has no length.
    let list: Vec<Term> = value
        .list_length()
        .and_then(|_| value.decode())
        .map_err(|_| Error::argument(arg, format!("{value:?}"), "a list of numbers or nil"))?;
    list.into_iter().map(|t| number(arg, t)).collect()
}

fn optional<'a, T>(value: Term<'a>, read: impl Fn(Term<'a>) -> Result<T>) -> Result<Option<T>> {
    let nil = rustler::types::atom::nil().to_term(value.get_env());
    if value == nil { Ok(None) } else { read(value).map(Some) }
}
