//! Runs: a header and a state, both binaries that belong to the VM.
//!
//! A run is a value in Elixir, so `tell` writes the next state to memory of its own; the run it was given stays what it
//! was.
//!
//! The caller chooses by size: what is small runs on a normal scheduler, where a call costs little, the
//! `_long` twins on a dirty one, where nothing waits for them.

use dgm_core::arch::FpEnv;
use dgm_core::sampling::{Ask, Plan, Role, Run, bits_per_dimension};
use dgm_core::{Error, Result};
use rustler::types::tuple::make_tuple;
use rustler::{Binary, Encoder, Env, NewBinary, OwnedBinary, Term};

use crate::failure::{Handle, Reply};
use crate::memory::Memory;
use crate::plan::PlanRef;
use crate::tensor::{Input, allocate, allocate_bytes, copy, floats, floats_mut};

mod atoms {
    rustler::atoms! { done, cond, uncond, weak }
}

fn role(role: Role) -> rustler::Atom {
    match role {
        Role::Cond => atoms::cond(),
        Role::Uncond => atoms::uncond(),
        Role::Weak => atoms::weak(),
    }
}

/// Two NIFs with one body: on a normal scheduler and on a dirty one.
// The parameters are raw tokens because the attribute reads their types as written.
macro_rules! quick_and_long {
    ($($quick:ident / $long:ident ($($params:tt)*) -> $reply:ty = $body:expr;)*) => {$(
        #[rustler::nif]
        fn $quick<'a>($($params)*) -> Reply<$reply> {
            $body
        }

        #[rustler::nif(schedule = "DirtyCpu")]
        fn $long<'a>($($params)*) -> Reply<$reply> {
            $body
        }
    )*};
}

/// `{header, state, rows, elements}`
type Parts<'a> = (Binary<'a>, Binary<'a>, usize, usize);

#[rustler::nif(schedule = "DirtyCpu")]
fn run_start<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    seeds: Vec<u64>,
    elements: usize,
    x_start: Option<Input<'a>>,
    data: Option<Input<'a>>,
) -> Reply<Parts<'a>> {
    let _fp = FpEnv::enter();
    let plan = &plan.0;
    let x_start = x_start.as_ref().map(|x| x.data("x_start")).transpose()?;
    let data = data.as_ref().map(|x| x.data("data")).transpose()?;
    let mut state = Memory::stale("state", plan.state_len(seeds.len(), elements)?)?;
    let run = match data {
        Some(data) => Run::start_from(plan, &seeds, elements, &data, state.floats()?)?,
        None => Run::start(plan, &seeds, elements, x_start.as_deref(), state.floats()?)?,
    };
    let header = header(plan, &run)?;
    Ok((Binary::from_owned(header, env), state.into_binary(env), seeds.len(), elements))
}

/// `done`, or the fields of a request as a tuple, roles as bits: Elixir makes the struct of them, since a map made here
/// sorts its keys every time.
fn ask<'a>(plan: Handle<PlanRef>, header: Term<'a>) -> Reply<Term<'a>> {
    let env = header.get_env();
    Ok(match Run::read(&plan.0, bytes(header)?, |run| run.ask(&plan.0))? {
        Ask::Done => atoms::done().encode(env),
        Ask::Eval(r) => {
            let fields = [
                r.eval_id.encode(env),
                r.step.encode(env),
                r.stage.encode(env),
                role(r.role).encode(env),
                r.roles.encode(env),
                r.t.encode(env),
                r.sigma.encode(env),
                r.alpha.encode(env),
                r.rows.encode(env),
                r.elements.encode(env),
                r.active_rows.encode(env),
                r.uniform_t.encode(env),
                r.t_to.encode(env),
                r.slot.encode(env),
            ];
            make_tuple(env, &fields)
        }
    })
}

/// The part of the state that the model reads, without a copy.
fn input<'a>(plan: Handle<PlanRef>, header: Binary<'a>, state: Binary<'a>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    view(&state, |floats| Run::read(&plan.0, header.as_slice(), |run| run.input(&plan.0, floats)))
}

/// The part of the state that holds the sample, without a copy.
fn result<'a>(plan: Handle<PlanRef>, header: Binary<'a>, state: Binary<'a>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    view(&state, |floats| Run::read(&plan.0, header.as_slice(), |run| run.result(&plan.0, floats)))
}

/// The part of the state that holds x at the times of save_at, without a copy.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_saved<'a>(plan: Handle<PlanRef>, header: Binary<'a>, state: Binary<'a>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    view(&state, |floats| run.saved(&plan.0, floats))
}

fn times<'a>(plan: Handle<PlanRef>, header: Term<'a>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let env = header.get_env();
    let run = Run::decode(&plan.0, bytes(header)?)?;
    let mut times = allocate("rows", run.rows())?;
    run.row_times(&plan.0, floats_mut(&mut times)?)?;
    Ok(Binary::from_owned(times, env))
}

/// The next header and state.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_tell_long<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
    eval_id: u64,
    y: Binary<'a>,
) -> Reply<(Binary<'a>, Binary<'a>)> {
    let _fp = FpEnv::enter();
    let mut run = Run::decode(&plan.0, header.as_slice())?;
    let (state, y) = (floats("state", state.as_slice())?, floats("y", y.as_slice())?);
    let mut next = Memory::stale("state", state.len())?;
    run.tell_afresh(&plan.0, &state, next.floats()?, eval_id, &y, &[])?;
    let header = self::header(&plan.0, &run)?;
    Ok((Binary::from_owned(header, env), next.into_binary(env)))
}

/// The same on a normal scheduler, for what is small: in binaries that the VM puts on the process's heap
/// where they are smallest.
#[rustler::nif]
fn run_tell<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
    eval_id: u64,
    y: Binary<'a>,
) -> Reply<(Binary<'a>, Binary<'a>)> {
    let _fp = FpEnv::enter();
    let (state, y) = (floats("state", state.as_slice())?, floats("y", y.as_slice())?);
    let mut header = NewBinary::from_slice(env, header.as_slice());
    let mut next = NewBinary::new(env, size_of_val(&*state));
    next.as_mut_slice().fill(0);
    let to = bytemuck::try_cast_slice_mut(next.as_mut_slice())
        .map_err(|e| Error::Internal(format!("a fresh binary is not aligned: {e}")))?;
    Run::rewrite(&plan.0, header.as_mut_slice(), |run| {
        run.tell_afresh(&plan.0, &state, to, eval_id, &y, &[])
    })?;
    Ok((header.into(), next.into()))
}

/// The next header and state, of a plan that wants numbers with an output.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_tell_with<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
    eval_id: u64,
    y: Binary<'a>,
    numbers: Vec<f64>,
) -> Reply<(Binary<'a>, Binary<'a>)> {
    let _fp = FpEnv::enter();
    let mut numbers = numbers;
    // What stands for the logarithm of 0 in a VM without infinities.
    numbers.iter_mut().filter(|v| **v == f64::MIN).for_each(|v| *v = f64::NEG_INFINITY);
    let mut run = Run::decode(&plan.0, header.as_slice())?;
    let (state, y) = (floats("state", state.as_slice())?, floats("y", y.as_slice())?);
    let mut next = Memory::stale("state", state.len())?;
    run.tell_afresh(&plan.0, &state, next.floats()?, eval_id, &y, &numbers)?;
    let header = self::header(&plan.0, &run)?;
    Ok((Binary::from_owned(header, env), next.into_binary(env)))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_probe<'a>(env: Env<'a>, plan: Handle<PlanRef>, header: Binary<'a>) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut probe = allocate("rows", run.rows() * run.elements())?;
    run.probe(&plan.0, floats_mut(&mut probe)?)?;
    Ok(Binary::from_owned(probe, env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_divergence(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<Vec<f64>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut out = vec![0.0; run.rows()];
    run.divergence(&plan.0, &mut out)?;
    Ok(out)
}

/// Log densities and bits per dimension.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_log_density(
    plan: Handle<PlanRef>,
    header: Binary<'_>,
    state: Binary<'_>,
) -> Reply<(Vec<f64>, Vec<f64>)> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut out = vec![0.0; run.rows()];
    run.log_density(&plan.0, &floats("state", state.as_slice())?, &mut out)?;
    let bits = out.iter().map(|v| bits_per_dimension(*v, run.elements())).collect();
    Ok((out, bits))
}

/// The state with what is known in it.
#[rustler::nif(schedule = "DirtyCpu")]
fn run_set_known<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
    known: Input<'a>,
    mask: Input<'a>,
) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let (known, mask) = (known.data("known")?, mask.data("mask")?);
    let state = floats("state", state.as_slice())?;
    let mut next = Memory::stale("state", state.len())?;
    next.floats()?.copy_from_slice(&state);
    run.set_known(&plan.0, next.floats()?, &known, &mask)?;
    Ok(next.into_binary(env))
}

/// The header after a change that no tensor takes part in.
fn changed<'a>(
    plan: &Plan,
    header: Term<'a>,
    change: impl FnOnce(&mut Run) -> Result<()>,
) -> Reply<Binary<'a>> {
    // In a binary that the VM puts on the process's heap where it is small.
    let mut next = NewBinary::from_slice(header.get_env(), bytes(header)?);
    Run::rewrite(plan, next.as_mut_slice(), change)?;
    Ok(next.into())
}

fn row_steps(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<Vec<usize>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut steps = vec![0; run.rows()];
    run.row_steps(&plan.0, &mut steps)?;
    Ok(steps)
}

fn row_active(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<Vec<bool>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let mut active = vec![false; run.rows()];
    run.row_active(&plan.0, &mut active)?;
    Ok(active)
}

/// `{evals, accepts, rejects}`
fn stats(plan: Handle<PlanRef>, header: Binary<'_>) -> Reply<(u64, u64, u64)> {
    let _fp = FpEnv::enter();
    let counters = Run::decode(&plan.0, header.as_slice())?.counters();
    Ok((counters.evals, counters.accepts, counters.rejects))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_export<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    header: Binary<'a>,
    state: Binary<'a>,
) -> Reply<Binary<'a>> {
    let _fp = FpEnv::enter();
    let run = Run::decode(&plan.0, header.as_slice())?;
    let state = floats("state", state.as_slice())?;
    Ok(Binary::from_owned(copy("run", &run.export(&plan.0, &state)?)?, env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_import<'a>(env: Env<'a>, plan: Handle<PlanRef>, block: Binary<'a>) -> Reply<Parts<'a>> {
    let _fp = FpEnv::enter();
    let (rows, elements) = Run::peek(block.as_slice())?;
    let mut state = Memory::stale("block", plan.0.state_len(rows, elements)?)?;
    let run = Run::import(&plan.0, block.as_slice(), state.floats()?)?;
    let header = header(&plan.0, &run)?;
    Ok((Binary::from_owned(header, env), state.into_binary(env), rows, elements))
}

fn bytes(header: Term<'_>) -> Result<&[u8]> {
    let binary: Binary =
        header.decode().map_err(|_| Error::argument("header", format!("{header:?}"), "a binary"))?;
    Ok(binary.as_slice())
}

pub(crate) fn header(plan: &Plan, run: &Run) -> Result<OwnedBinary> {
    let mut bytes = allocate_bytes("run", Run::header_len(plan, run.rows())?)?;
    run.encode(plan, bytes.as_mut_slice())?;
    Ok(bytes)
}

/// The sub-binary of `state` that holds the floats that `select` picks.
fn view<'a>(state: &Binary<'a>, select: impl FnOnce(&[f32]) -> Result<&[f32]>) -> Reply<Binary<'a>> {
    let floats = floats("state", state.as_slice())?;
    let picked = select(&floats)?;
    let start = picked.as_ptr() as usize - floats.as_ptr() as usize;
    state
        .make_subbinary(start, size_of_val(picked))
        .map_err(|_| Error::Internal("the engine picked memory outside the state".to_string()).into())
}

#[rustfmt::skip]
quick_and_long! {
    run_ask / run_ask_long(plan: Handle<PlanRef>, header: Term<'a>)
        -> Term<'a> = ask(plan, header);
    run_input / run_input_long(plan: Handle<PlanRef>, header: Binary<'a>, state: Binary<'a>)
        -> Binary<'a> = input(plan, header, state);
    run_result / run_result_long(plan: Handle<PlanRef>, header: Binary<'a>, state: Binary<'a>)
        -> Binary<'a> = result(plan, header, state);
    run_times / run_times_long(plan: Handle<PlanRef>, header: Term<'a>)
        -> Binary<'a> = times(plan, header);
    run_stats / run_stats_long(plan: Handle<PlanRef>, header: Binary<'a>)
        -> (u64, u64, u64) = stats(plan, header);
    run_select / run_select_long(plan: Handle<PlanRef>, header: Term<'a>, rows: Vec<bool>)
        -> Binary<'a> = changed(&plan.0, header, |run| run.select(&plan.0, &rows));
    run_finish_rows / run_finish_rows_long(plan: Handle<PlanRef>, header: Term<'a>, rows: Vec<bool>)
        -> Binary<'a> = changed(&plan.0, header, |run| run.finish_rows(&plan.0, &rows));
    run_advance / run_advance_long(plan: Handle<PlanRef>, header: Term<'a>, eval_id: u64)
        -> Binary<'a> = changed(&plan.0, header, |run| run.advance(&plan.0, eval_id));
    run_row_steps / run_row_steps_long(plan: Handle<PlanRef>, header: Binary<'a>)
        -> Vec<usize> = row_steps(plan, header);
    run_row_active / run_row_active_long(plan: Handle<PlanRef>, header: Binary<'a>)
        -> Vec<bool> = row_active(plan, header);
}
