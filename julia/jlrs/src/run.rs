//! Sampling runs: ask and tell.

use std::sync::Arc;

use dgm_core::Error;
use dgm_core::sampling::{self, Ask, Role};
use jlrs::data::managed::array::{TypedArrayRet, TypedVectorRet};
use jlrs::data::managed::named_tuple::NamedTuple;
use jlrs::data::managed::value::ValueRet;
use jlrs::data::managed::value::typed::{TypedValue, TypedValueRet};
use jlrs::prelude::*;
use jlrs::weak_handle_unchecked;

use crate::array::{Input, JlArray, JlValue, boolean, copied, dims, shown, sizes};
use crate::failure::{Failure, Reply, engine, fence};
use crate::kernels::one_dimensional;
use crate::options::Options;
use crate::plan::JlPlan;

/// A run with its plan, its state and the size of a batch in Julia's order.
#[derive(OpaqueType)]
pub struct Run {
    plan: Arc<sampling::Plan>,
    run: sampling::Run,
    state: Vec<f32>,
    dims: Vec<usize>,
}

pub fn start(seeds: JlArray, plan: JlPlan, dims: JlValue) -> Reply<TypedValueRet<Run>> {
    fence(|| begin(seeds, plan, dims, &Options::NONE))
}

pub fn start_with(
    seeds: JlArray,
    plan: JlPlan,
    dims: JlValue,
    options: JlValue,
) -> Reply<TypedValueRet<Run>> {
    fence(|| begin(seeds, plan, dims, &Options::new(options, &["x", "data", "known", "mask"])?))
}

fn begin(
    seeds: JlArray,
    plan: JlPlan,
    dims: JlValue,
    options: &Options,
) -> Result<TypedValueRet<Run>, Failure> {
    let seeds = Input::<u64>::vector("seeds", seeds)?;
    let size = sizes("dims", dims)?;
    let (rows, elements) = batch(&size)?;
    if seeds.slice().len() != rows {
        let found = seeds.slice().len();
        return Err(Failure::dimensions(format!("seeds has length {found}, expected the batch size {rows}")));
    }
    let given = |name| options.array(name)?.map(|x| sample(name, x, &size)).transpose();
    let (x, data, known, mask) = (given("x")?, given("data")?, given("known")?, given("mask")?);
    if x.is_some() && data.is_some() {
        return Err(Failure::argument("data is given beside x, expected one of the two"));
    }
    let known = match (&known, &mask) {
        (None, None) => None,
        (Some(known), Some(mask)) => Some((known, mask)),
        (Some(_), None) => return Err(Failure::argument("mask is missing, expected an array beside known")),
        (None, Some(_)) => return Err(Failure::argument("known is missing, expected an array beside mask")),
    };
    let plan = shared(&plan)?;
    let mut state = state(&plan, rows, elements)?;
    let run = engine(|| {
        let seeds = seeds.slice();
        let run = match &data {
            Some(data) => sampling::Run::start_from(&plan, seeds, elements, data.slice(), &mut state),
            None => {
                let x = x.as_ref().map(Input::slice);
                sampling::Run::start(&plan, seeds, elements, x, &mut state)
            }
        }?;
        if let Some((known, mask)) = known {
            run.set_known(&plan, &mut state, known.slice(), mask.slice())?;
        }
        Ok(run)
    })?;
    Ok(owned(Run { plan, run, state, dims: size }))
}

/// Rows and elements of a row.
fn batch(dims: &[usize]) -> Result<(usize, usize), Failure> {
    let wrong =
        || Failure::dimensions(format!("dims is {}, expected (..., B) with all sizes above 0", shown(dims)));
    let (&rows, rest) = dims.split_last().ok_or_else(wrong)?;
    if rest.is_empty() || dims.contains(&0) {
        return Err(wrong());
    }
    let elements = rest.iter().try_fold(1usize, |product, &d| product.checked_mul(d)).ok_or_else(wrong)?;
    Ok((rows, elements))
}

/// An array of the size of the batch.
fn sample<'s>(name: &str, array: JlArray<'s>, size: &[usize]) -> Result<Input<'s, f32>, Failure> {
    if dims(&array) != size {
        let found = shown(&dims(&array));
        return Err(Failure::dimensions(format!("{name} has size {found}, expected {}", shown(size))));
    }
    Input::new(name, array, None, "")
}

fn shared(plan: &JlPlan) -> Result<Arc<sampling::Plan>, Failure> {
    // SAFETY: a Plan is never changed.
    Ok(Arc::clone(&unsafe { plan.track_shared() }?.0))
}

fn state(plan: &sampling::Plan, rows: usize, elements: usize) -> Result<Vec<f32>, Failure> {
    let len = plan.state_len(rows, elements)?;
    let mut state = Vec::new();
    let full = |_| Error::Overflow { arg: "dims", got: format!("{len} floats of state") };
    state.try_reserve_exact(len).map_err(full)?;
    state.resize(len, 0.0);
    Ok(state)
}

fn owned(run: Run) -> TypedValueRet<Run> {
    // SAFETY: only Julia calls exported functions; the run is returned to it at once.
    let handle = unsafe { weak_handle_unchecked!() };
    TypedValue::new(&handle, run).leak()
}

impl Run {
    pub fn ask(&self) -> Reply<ValueRet> {
        fence(|| {
            // SAFETY: only Julia calls exported functions; what is made is returned to it at once.
            let handle = unsafe { weak_handle_unchecked!() };
            let Ask::Eval(r) = self.run.ask(&self.plan)? else {
                return Ok(Value::nothing(&handle).leak());
            };
            let mut times = vec![0.0; self.run.rows()];
            self.run.row_times(&self.plan, &mut times)?;
            handle.local_scope::<_, 14>(|mut frame| {
                // SAFETY: the new array is rooted before anything else is allocated.
                let x =
                    unsafe { copied(&self.dims, self.run.input(&self.plan, &self.state)?)?.root(&mut frame) };
                // SAFETY: as above.
                let times = unsafe { copied(&[times.len()], &times)?.root(&mut frame) };
                let role = match r.role {
                    Role::Cond => "cond",
                    Role::Uncond => "uncond",
                    Role::Weak => "weak",
                };
                let role = Symbol::new(&frame, role);
                let fields = [
                    ("id", Value::new(&mut frame, r.eval_id)),
                    ("step", Value::new(&mut frame, i64::from(r.step))),
                    ("stage", Value::new(&mut frame, i64::from(r.stage))),
                    ("role", role.as_value()),
                    ("t", Value::new(&mut frame, r.t)),
                    ("sigma", Value::new(&mut frame, r.sigma)),
                    ("alpha", Value::new(&mut frame, r.alpha)),
                    ("active", Value::new(&mut frame, r.active_rows as i64)),
                    ("uniform_times", Value::new(&mut frame, r.uniform_t)),
                    ("t_to", Value::new(&mut frame, r.t_to)),
                    ("slot", Value::new(&mut frame, r.slot as i64 + 1)),
                    ("x", x.as_value()),
                    ("times", times.as_value()),
                ]
                .map(|(name, value)| (Symbol::new(&frame, name), value));
                match NamedTuple::from_n_pairs(&frame, &fields) {
                    // SAFETY: the request is returned to Julia at once.
                    Ok(request) => Ok(unsafe { request.as_value() }.leak()),
                    Err(_) => Err(Error::Internal("a request cannot be made".into()).into()),
                }
            })
        })
    }

    pub fn tell(&mut self, request: JlValue, y: JlArray) -> Reply<Nothing> {
        fence(|| {
            let id = question(request)?;
            let y = sample("y", y, &self.answer_dims())?;
            let Run { plan, run, state, .. } = self;
            engine(|| run.tell(plan, state, id, y.slice())).map(|()| Nothing)
        })
    }

    /// The size of an answer: with a learned variance the last dimension but one holds two outputs.
    fn answer_dims(&self) -> Vec<usize> {
        let mut dims = self.dims.clone();
        let at = dims.len() - 2; // at least two dimensions, see `batch`
        dims[at] *= self.plan.outputs();
        dims
    }

    pub fn is_done(&self) -> Reply<Bool> {
        fence(|| Ok(boolean(self.run.is_done(&self.plan))))
    }

    pub fn result(&self) -> Reply<TypedArrayRet<f32>> {
        fence(|| copied(&self.dims, self.run.result(&self.plan, &self.state)?))
    }

    pub fn export(&self) -> Reply<TypedVectorRet<u8>> {
        fence(|| {
            let bytes = engine(|| self.run.export(&self.plan, &self.state))?;
            one_dimensional(copied(&[bytes.len()], &bytes)?)
        })
    }
}

/// The id of a request that `ask` made.
fn question(request: JlValue) -> Result<u64, Failure> {
    let wrong = || Failure::argument("request has no id, expected what ask(run) returned");
    let request = request.cast::<NamedTuple>().map_err(|_| wrong())?;
    // SAFETY: only Julia calls exported functions; the boxed number is read at once.
    let handle = unsafe { weak_handle_unchecked!() };
    handle
        .local_scope::<_, 1>(|mut frame| request.get(&mut frame, "id").and_then(|id| id.unbox::<u64>().ok()))
        .ok_or_else(wrong)
}

pub fn import(plan: JlPlan, bytes: JlArray) -> Reply<TypedValueRet<Run>> {
    fence(|| resume(plan, bytes, None))
}

pub fn import_as(plan: JlPlan, bytes: JlArray, dims: JlValue) -> Reply<TypedValueRet<Run>> {
    fence(|| resume(plan, bytes, Some(sizes("dims", dims)?)))
}

fn resume(plan: JlPlan, bytes: JlArray, size: Option<Vec<usize>>) -> Result<TypedValueRet<Run>, Failure> {
    let bytes = Input::<u8>::vector("bytes", bytes)?;
    let (rows, elements) = sampling::Run::peek(bytes.slice())?;
    let size = size.unwrap_or_else(|| vec![elements, rows]);
    if batch(&size)? != (rows, elements) {
        let found = shown(&size);
        return Err(Failure::dimensions(format!(
            "dims is {found}, expected {elements} elements in each of {rows} rows (the last dimension)"
        )));
    }
    let plan = shared(&plan)?;
    let mut state = state(&plan, rows, elements)?;
    let run = engine(|| sampling::Run::import(&plan, bytes.slice(), &mut state))?;
    Ok(owned(Run { plan, run, state, dims: size }))
}
