//! Compiled plans.

use dgm_core::arch::FpEnv;
use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Solver, Spacing};
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
fn plan_options<'a>(env: Env<'a>, plan: Handle<PlanRef>) -> Term<'a> {
    let _fp = FpEnv::enter();
    options_term(env, plan.0.options())
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
    match key.as_str() {
        "process" => options.process = choice("process", value, Process::from_name)?,
        "prediction" => options.prediction = choice("prediction", value, Prediction::from_name)?,
        "solver" => options.solver = choice("solver", value, Solver::from_name)?,
        "spacing" => options.spacing = choice("spacing", value, Spacing::from_name)?,
        "steps" => options.steps = count("steps", value)?,
        "train_steps" => options.train_steps = count("train_steps", value)?,
        "max_evals" => options.max_evals = count("max_evals", value)?,
        "shift" => options.shift = number("shift", value)?,
        "eta" => options.eta = number("eta", value)?,
        "guidance" => options.guidance = number("guidance", value)?,
        "beta_start" => options.beta_start = number("beta_start", value)?,
        "beta_end" => options.beta_end = number("beta_end", value)?,
        "rtol" => options.rtol = number("rtol", value)?,
        "atol" => options.atol = number("atol", value)?,
        "h_init" => options.h_init = number("h_init", value)?,
        "clip" => options.clip = optional(value, |v| number("clip", v))?,
        "times" => options.times = optional(value, times)?,
        other => return Err(Error::argument("option", other, "an option of DGM.Plan.compile/1")),
    }
    Ok(())
}

/// The options as a keyword list.
pub fn options_term<'a>(env: Env<'a>, o: &PlanOptions) -> Term<'a> {
    let atom =
        |name: &str| Atom::from_str(env, name).map(|a| a.to_term(env)).unwrap_or_else(|_| name.encode(env));
    let list: Vec<(Term, Term)> = vec![
        (atom("process"), atom(o.process.name())),
        (atom("prediction"), atom(o.prediction.name())),
        (atom("solver"), atom(o.solver.name())),
        (atom("steps"), o.steps.encode(env)),
        (atom("spacing"), atom(o.spacing.name())),
        (atom("shift"), o.shift.encode(env)),
        (atom("times"), o.times.encode(env)),
        (atom("eta"), o.eta.encode(env)),
        (atom("guidance"), o.guidance.encode(env)),
        (atom("clip"), o.clip.encode(env)),
        (atom("beta_start"), o.beta_start.encode(env)),
        (atom("beta_end"), o.beta_end.encode(env)),
        (atom("train_steps"), o.train_steps.encode(env)),
        (atom("rtol"), o.rtol.encode(env)),
        (atom("atol"), o.atol.encode(env)),
        (atom("h_init"), o.h_init.encode(env)),
        (atom("max_evals"), o.max_evals.encode(env)),
    ];
    list.encode(env)
}

fn choice<T>(arg: &'static str, value: Term<'_>, parse: fn(&str) -> Result<T>) -> Result<T> {
    parse(&name(value, arg)?)
}

fn name(value: Term<'_>, arg: &'static str) -> Result<String> {
    value.atom_to_string().map_err(|_| Error::argument(arg, format!("{value:?}"), "an atom"))
}

fn count(arg: &'static str, value: Term<'_>) -> Result<usize> {
    value.decode().map_err(|_| Error::argument(arg, format!("{value:?}"), "a non-negative integer"))
}

fn number(arg: &'static str, value: Term<'_>) -> Result<f64> {
    f64::decode(value)
        .or_else(|_| i64::decode(value).map(|n| n as f64))
        .map_err(|_| Error::argument(arg, format!("{value:?}"), "a number"))
}

fn times(value: Term<'_>) -> Result<Vec<f64>> {
    // Rustler's decoder panics at an improper list, which has no length.
    let list: Vec<Term> = value
        .list_length()
        .and_then(|_| value.decode())
        .map_err(|_| Error::argument("times", format!("{value:?}"), "a list of numbers or nil"))?;
    list.into_iter().map(|t| number("times", t)).collect()
}

fn optional<'a, T>(value: Term<'a>, read: impl Fn(Term<'a>) -> Result<T>) -> Result<Option<T>> {
    let nil = rustler::types::atom::nil().to_term(value.get_env());
    if value == nil { Ok(None) } else { read(value).map(Some) }
}
