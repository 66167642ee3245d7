//! Compiled samplers.

use std::sync::Arc;

use dgm_core::sampling::{self, OptionValue, PlanOptions};
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
    let changes = Options::new(changes, PlanOptions::NAMES)?;
    for &name in PlanOptions::NAMES {
        // The value there now says what kind is wanted.
        let value = match o.get(name)? {
            OptionValue::Name(_) => changes.symbol(name)?.map(OptionValue::Name),
            OptionValue::Count(_) => changes.count(name)?.map(OptionValue::Count),
            OptionValue::Number(_) => changes.number(name)?.map(OptionValue::Number),
            OptionValue::Flag(_) => changes.flag(name)?.map(OptionValue::Flag),
            // `clip = nothing` takes away what a model's file says.
            OptionValue::None | OptionValue::List(_) if name == "clip" => match changes.number(name)? {
                Some(clip) => Some(OptionValue::Number(clip)),
                None => changes.contains(name).then_some(OptionValue::None),
            },
            OptionValue::None | OptionValue::List(_) => match changes.array(name)? {
                Some(list) => Some(OptionValue::List(Input::<f64>::vector(name, list)?.slice().to_vec())),
                None => None,
            },
        };
        if let Some(value) = value {
            o.set(name, value)?;
        }
    }
    let plan = engine(|| sampling::Plan::compile(&o))?;
    // SAFETY: only Julia calls exported functions; the plan is returned to it at once.
    let handle = unsafe { weak_handle_unchecked!() };
    Ok(TypedValue::new(&handle, Plan(Arc::new(plan))).leak())
}
