//! Coefficients mode: a plan as terms of Elixir, a run beside tensors that the engine never sees.

use dgm_core::arch::FpEnv;
use dgm_core::random::Purpose;
use dgm_core::sampling::{Measure, Operation, OperationTerm, Run, Source, Target};
use rustler::{Atom, Binary, Encoder, Env, NifStruct, Term};

use crate::failure::{Handle, Reply};
use crate::plan::PlanRef;
use crate::run::header;

mod atoms {
    rustler::atoms! {
        state, register, output, noise,
        combine, rescale, project, adaptive, langevin, threshold, learned_noise,
        initial, step, churn, inpaint, accept, gumbel, draft, residual, brownian, user, probe, exchange,
    }
}

/// One operation on whole tensors.
#[derive(NifStruct)]
#[module = "DGM.Operation"]
struct Row<'a> {
    kind: Atom,
    target: Option<Term<'a>>,
    terms: Vec<Term<'a>>,
    clip: Option<f64>,
    mask: Option<usize>,
    parameters: Vec<f64>,
}

fn purpose(purpose: Purpose) -> Atom {
    match purpose {
        Purpose::Initial => atoms::initial(),
        Purpose::Step => atoms::step(),
        Purpose::Churn => atoms::churn(),
        Purpose::Inpaint => atoms::inpaint(),
        Purpose::Accept => atoms::accept(),
        Purpose::Gumbel => atoms::gumbel(),
        Purpose::Draft => atoms::draft(),
        Purpose::Residual => atoms::residual(),
        Purpose::Brownian => atoms::brownian(),
        Purpose::User => atoms::user(),
        Purpose::Probe => atoms::probe(),
        Purpose::Exchange => atoms::exchange(),
    }
}

fn source(env: Env<'_>, source: Source) -> Term<'_> {
    match source {
        Source::State(i) => (atoms::state(), i).encode(env),
        Source::Register(i) => (atoms::register(), i).encode(env),
        Source::Output => atoms::output().encode(env),
        Source::Noise { purpose: p, draw } => (atoms::noise(), purpose(p), draw).encode(env),
    }
}

fn row(env: Env<'_>, operation: Operation) -> Row<'_> {
    let bare = |s: Source| (source(env, s), 1.0, None::<usize>).encode(env);
    let term = |t: &OperationTerm| (source(env, t.source), t.coefficient, t.measured).encode(env);
    let blank =
        |kind: Atom| Row { kind, target: None, terms: vec![], clip: None, mask: None, parameters: vec![] };
    match operation {
        Operation::Combine { target, terms, clip, mask } => {
            let target = match target {
                Target::State(i) => Source::State(i),
                Target::Register(i) => Source::Register(i),
            };
            Row {
                target: Some(source(env, target)),
                terms: terms.iter().map(term).collect(),
                clip: clip.map(f64::from),
                mask,
                ..blank(atoms::combine())
            }
        }
        Operation::Measure { what, a, b } => {
            let (kind, parameters) = match what {
                Measure::Rescale { g, phi } => (atoms::rescale(), vec![g, phi]),
                Measure::Project => (atoms::project(), vec![]),
                Measure::Langevin { snr } => (atoms::langevin(), vec![snr]),
                Measure::Adaptive { g, eta, norm } => (atoms::adaptive(), vec![g, eta, norm]),
            };
            Row { terms: vec![bare(a), bare(b)], parameters, ..blank(kind) }
        }
        Operation::Threshold { state, ratio, most } => Row {
            target: Some(source(env, Source::State(state))),
            parameters: vec![ratio, most],
            ..blank(atoms::threshold())
        },
        Operation::LearnedNoise { base, slope, noise } => Row {
            target: Some(source(env, Source::State(0))),
            terms: vec![bare(noise)],
            parameters: vec![base, slope],
            ..blank(atoms::learned_noise())
        },
    }
}

#[rustler::nif(schedule = "DirtyCpu")]
fn plan_operations<'a>(env: Env<'a>, plan: Handle<PlanRef>, eval_id: u64) -> Reply<Term<'a>> {
    let _fp = FpEnv::enter();
    let rows: Vec<Row> = plan.0.operations(eval_id)?.into_iter().map(|o| row(env, o)).collect();
    Ok(rows.encode(env))
}

#[rustler::nif(schedule = "DirtyCpu")]
fn run_start_detached<'a>(
    env: Env<'a>,
    plan: Handle<PlanRef>,
    seeds: Vec<u64>,
    elements: usize,
) -> Reply<(Binary<'a>, usize, usize)> {
    let _fp = FpEnv::enter();
    let run = Run::start_detached(&plan.0, &seeds, elements)?;
    Ok((Binary::from_owned(header(&plan.0, &run)?, env), seeds.len(), elements))
}
