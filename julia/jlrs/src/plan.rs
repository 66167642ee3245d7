//! Compiled samplers.

use std::sync::Arc;

use dgm_core::sampling::{self, PlanOptions, Prediction, Process, Solver, Spacing};
use jlrs::data::managed::string::StringRet;
use jlrs::data::managed::value::typed::{TypedValue, TypedValueRet};
use jlrs::prelude::*;
use jlrs::weak_handle_unchecked;

use crate::array::{Input, JlValue};

use crate::dit::JlModel;
use crate::failure::{Failure, Reply, engine, fence, string};
use crate::options::Options;

/// A sampler; runs share it.
#[derive(OpaqueType)]
pub struct Plan(pub Arc<sampling::Plan>);

/// A plan that Julia owns.
pub type JlPlan<'s> = TypedValue<'s, 'static, Plan>;

const KNOWN: &[&str] = &[
    "process",
    "prediction",
    "solver",
    "spacing",
    "steps",
    "train_steps",
    "max_evals",
    "shift",
    "eta",
    "guidance",
    "beta_start",
    "beta_end",
    "rtol",
    "atol",
    "h_init",
    "clip",
    "times",
];

impl Plan {
    pub fn compile(options: JlValue) -> Reply<TypedValueRet<Plan>> {
        fence(|| compile(PlanOptions::default(), options))
    }

    pub fn for_model(model: JlModel, options: JlValue) -> Reply<TypedValueRet<Plan>> {
        fence(|| {
            // SAFETY: a DiT is never changed.
            let model = unsafe { model.track_shared() }?;
            compile(engine(|| model.net().plan_options())?, options)
        })
    }

    pub fn describe(&self) -> Reply<StringRet> {
        fence(|| Ok(string(&self.0.describe())))
    }
}

fn compile(mut o: PlanOptions, changes: JlValue) -> Result<TypedValueRet<Plan>, Failure> {
    let changes = Options::new(changes, KNOWN)?;
    set(&mut o.process, changes.symbol("process")?, Process::from_name)?;
    set(&mut o.prediction, changes.symbol("prediction")?, Prediction::from_name)?;
    set(&mut o.solver, changes.symbol("solver")?, Solver::from_name)?;
    set(&mut o.spacing, changes.symbol("spacing")?, Spacing::from_name)?;
    for (name, field) in
        [("steps", &mut o.steps), ("train_steps", &mut o.train_steps), ("max_evals", &mut o.max_evals)]
    {
        *field = changes.count(name)?.unwrap_or(*field);
    }
    for (name, field) in [
        ("shift", &mut o.shift),
        ("eta", &mut o.eta),
        ("guidance", &mut o.guidance),
        ("beta_start", &mut o.beta_start),
        ("beta_end", &mut o.beta_end),
        ("rtol", &mut o.rtol),
        ("atol", &mut o.atol),
        ("h_init", &mut o.h_init),
    ] {
        *field = changes.number(name)?.unwrap_or(*field);
    }
    if changes.contains("clip") {
        o.clip = changes.number("clip")?;
    }
    if let Some(times) = changes.array("times")? {
        o.times = Some(Input::<f64>::vector("times", times)?.slice().to_vec());
    }
    let plan = engine(|| sampling::Plan::compile(&o))?;
    // SAFETY: only Julia calls exported functions; the plan is returned to it at once.
    let handle = unsafe { weak_handle_unchecked!() };
    Ok(TypedValue::new(&handle, Plan(Arc::new(plan))).leak())
}

fn set<T>(
    field: &mut T,
    name: Option<String>,
    parse: fn(&str) -> dgm_core::Result<T>,
) -> Result<(), Failure> {
    if let Some(name) = name {
        *field = parse(&name)?;
    }
    Ok(())
}
