//! Coefficients mode: a plan as data, a run beside tensors that the engine never sees.

use std::ffi::c_void;

use dgm_core::Error;
use dgm_core::sampling::{Measure, Operation, OperationTerm, Run, Source, Target};

use crate::fence::{entry, guarded};
use crate::memory::{handle, place, separate, slice, slice_mut};
use crate::plan::dgm_plan;
use crate::run::check_size;

/// A state tensor [rows, elements]; 0 is x.
pub const DGM_SOURCE_STATE: i32 = 0;
/// A scratch tensor of the same shape, written before it is read in every list anew; there are 4.
pub const DGM_SOURCE_REGISTER: i32 = 1;
/// The model's output.
pub const DGM_SOURCE_OUTPUT: i32 = 2;
/// dgm_random_normal() of the seeds of the rows, with the term's purpose and draw.
pub const DGM_SOURCE_NOISE: i32 = 3;

/// target = sum of coefficient * source, one fma a term from +0 in their order (none: 0); then limited to [-clip, clip] if clip is not 0; then, if mask is not -1, m * sum + (1 - m) * target with the state tensor m.
pub const DGM_OPERATION_COMBINE: i32 = 0;
/// Measures number 0 of every row: (1 - p1) + p1 * std(a) / std(p0 * a + (1 - p0) * b), the quotient 1 where the lower deviation is 0; a and b are the two terms.
pub const DGM_OPERATION_RESCALE: i32 = 1;
/// Measures number 0 of every row: <a, b> / (|b|^2 + 1e-8).
pub const DGM_OPERATION_PROJECT: i32 = 2;
/// Measures numbers 0 and 1 of every row: with k = min(1, p2 / |a|), or 1 if p2 is 0, (p0 - 1) * k and 1 - (p0 - 1) * (1 - p1) * k * <a, b> / |b|^2, the quotient 0 where b is 0.
pub const DGM_OPERATION_ADAPTIVE: i32 = 3;
/// In every row of target: b = the quantile p0 of the magnitudes (linear between order statistics), at least 1, at most p1; every element is limited to [-b, b] and divided by b.
pub const DGM_OPERATION_THRESHOLD: i32 = 4;
/// target = target + exp(p0 + p1 * w) * noise, w the second half of the model's output, noise the one term.
pub const DGM_OPERATION_LEARNED_NOISE: i32 = 5;
/// Measures numbers 0 and 1 of every row: q = min(2 p0^2 n / |a|^2, 1), n the number of its elements, and sqrt(2 q); a is both terms.
pub const DGM_OPERATION_LANGEVIN: i32 = 6;

/// One term of an operation.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_term {
    /// DGM_SOURCE_...
    pub source: i32,
    /// Which state tensor or register.
    pub index: i32,
    /// Noise: its purpose, DGM_PURPOSE_...
    pub purpose: u32,
    /// Noise: its draw.
    pub draw: u32,
    /// What multiplies the source; rounded to f32 once it gives the bits of dgm_run_tell().
    pub coefficient: f64,
    /// The number measured last that multiplies coefficient, 0 or 1; -1 for none.
    pub measured: i32,
    /// 0.
    pub reserved: i32,
}

/// One operation on whole tensors.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct dgm_operation {
    /// DGM_OPERATION_...
    pub kind: i32,
    /// Where the result goes: DGM_SOURCE_STATE or DGM_SOURCE_REGISTER; -1 for numbers.
    pub target: i32,
    /// Which state tensor or register.
    pub index: i32,
    /// State tensor of the mask; -1 for none.
    pub mask: i32,
    /// First of its terms.
    pub first_term: usize,
    /// Number of its terms.
    pub terms: usize,
    /// Bound of every element; 0 for none.
    pub clip: f64,
    /// First parameter.
    pub p0: f64,
    /// Second parameter.
    pub p1: f64,
    /// Third parameter.
    pub p2: f64,
}

impl From<Source> for dgm_term {
    fn from(source: Source) -> Self {
        let (source, index, purpose, draw) = match source {
            Source::State(i) => (DGM_SOURCE_STATE, i, 0, 0),
            Source::Register(i) => (DGM_SOURCE_REGISTER, i, 0, 0),
            Source::Output => (DGM_SOURCE_OUTPUT, 0, 0, 0),
            Source::Noise { purpose, draw } => (DGM_SOURCE_NOISE, 0, purpose as u32, draw),
        };
        dgm_term { source, index: index as i32, purpose, draw, coefficient: 1.0, measured: -1, reserved: 0 }
    }
}

impl From<&OperationTerm> for dgm_term {
    fn from(t: &OperationTerm) -> Self {
        let measured = t.measured.map_or(-1, |i| i as i32);
        dgm_term { coefficient: t.coefficient, measured, ..t.source.into() }
    }
}

/// Appends an operation and its terms.
fn append(operation: &Operation, terms: &mut Vec<dgm_term>) -> dgm_operation {
    let mut o = dgm_operation {
        kind: DGM_OPERATION_COMBINE,
        target: -1,
        index: 0,
        mask: -1,
        first_term: terms.len(),
        terms: 0,
        clip: 0.0,
        p0: 0.0,
        p1: 0.0,
        p2: 0.0,
    };
    match *operation {
        Operation::Combine { target, terms: ref sum, clip, mask } => {
            let (kind, index) = match target {
                Target::State(i) => (DGM_SOURCE_STATE, i),
                Target::Register(i) => (DGM_SOURCE_REGISTER, i),
            };
            (o.target, o.index) = (kind, index as i32);
            o.mask = mask.map_or(-1, |i| i as i32);
            o.clip = clip.map_or(0.0, f64::from);
            terms.extend(sum.iter().map(dgm_term::from));
        }
        Operation::Measure { what, a, b } => {
            (o.kind, o.p0, o.p1, o.p2) = match what {
                Measure::Rescale { g, phi } => (DGM_OPERATION_RESCALE, g, phi, 0.0),
                Measure::Project => (DGM_OPERATION_PROJECT, 0.0, 0.0, 0.0),
                Measure::Langevin { snr } => (DGM_OPERATION_LANGEVIN, snr, 0.0, 0.0),
                Measure::Adaptive { g, eta, norm } => (DGM_OPERATION_ADAPTIVE, g, eta, norm),
            };
            terms.extend([dgm_term::from(a), b.into()]);
        }
        Operation::Threshold { state, ratio, most } => {
            (o.kind, o.target, o.index) = (DGM_OPERATION_THRESHOLD, DGM_SOURCE_STATE, state as i32);
            (o.p0, o.p1) = (ratio, most);
        }
        Operation::LearnedNoise { base, slope, noise } => {
            (o.kind, o.target, o.p0, o.p1) = (DGM_OPERATION_LEARNED_NOISE, DGM_SOURCE_STATE, base, slope);
            terms.push(noise.into());
        }
    }
    o.terms = terms.len() - o.first_term;
    o
}

/// Coefficients mode: what dgm_run_tell() does with the output of an evaluation, as scalars and keys of
/// noise, so that the tensors may stay on another device. The lists depend on nothing but the plan; the
/// run beside them is that of dgm_run_start_detached(). Solvers with adaptive steps have
/// none: their scalars follow from an error that is summed over the elements of each row.
///
/// Called with both arrays NULL and both caps 0 it only asks for the numbers, which are written too when
/// a cap is too small.
///
/// @param eval_id        an evaluation, from 1 as in dgm_request; 0 for what comes before the first
/// @param operations     receives the operations, to be done in their order
/// @param operations_cap its length
/// @param operations_len receives the number of operations
/// @param terms          receives the terms of all of them
/// @param terms_cap      its length
/// @param terms_len      receives the number of terms
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_plan_operations(
    plan: *const dgm_plan,
    eval_id: u64,
    operations: *mut dgm_operation,
    operations_cap: usize,
    operations_len: *mut usize,
    terms: *mut dgm_term,
    terms_cap: usize,
    terms_len: *mut usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, arrays of the sizes said and valid places, or NULL.
    entry(|| unsafe {
        let list = handle("plan", plan)?.0.operations(eval_id)?;
        let (n, m) = (place("operations_len", operations_len)?, place("terms_len", terms_len)?);
        separate("operations", operations, operations_cap, "terms", terms, terms_cap)?;
        let mut flat = Vec::new();
        let list: Vec<dgm_operation> = list.iter().map(|o| append(o, &mut flat)).collect();
        n.write(list.len());
        m.write(flat.len());
        if operations.is_null() && operations_cap == 0 && terms.is_null() && terms_cap == 0 {
            return Ok(());
        }
        let operations = slice_mut("operations", operations, operations_cap)?;
        let terms = slice_mut("terms", terms, terms_cap)?;
        for (cap, got, need) in
            [("operations_cap", operations.len(), list.len()), ("terms_cap", terms.len(), flat.len())]
        {
            if got < need {
                return Err(Error::range(cap, got, format!("at least {need}")));
            }
        }
        operations[..list.len()].copy_from_slice(&list);
        terms[..flat.len()].copy_from_slice(&flat);
        Ok(())
    })
}

/// Starts a run whose tensors the caller keeps, on any device: dgm_plan_slots() of [rows, elements], the
/// first one dgm_random_normal() with purpose DGM_PURPOSE_INITIAL and draw 0 times the sigma of the first
/// request, the rest 0. Apply dgm_plan_operations() of 0; then ask, evaluate, apply those of the eval_id,
/// and call dgm_run_advance(). With the tensors beside it such a run can be told and exported like any.
///
/// @param plan     from dgm_plan_compile()
/// @param seeds    one seed for each row
/// @param rows     samples in the batch
/// @param elements numbers in one sample
/// @param run      receives the run
/// @param run_size its size, at least that of dgm_plan_run_size()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_start_detached(
    plan: *const dgm_plan,
    seeds: *const u64,
    rows: usize,
    elements: usize,
    run: *mut c_void,
    run_size: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    entry(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        plan.state_len(rows, elements)?;
        check_size(plan, rows, run_size)?;
        separate("run", run.cast::<u8>(), run_size, "seeds", seeds, rows)?;
        let seeds = slice("seeds", seeds, rows)?;
        let bytes = slice_mut("run", run.cast::<u8>(), run_size)?;
        Run::start_detached(plan, seeds, elements)?.encode(plan, bytes).map(|_| ())
    })
}

/// Says that the caller has applied dgm_plan_operations() of eval_id to tensors of its own, and carries
/// the run to its next request. On failure the run is unchanged.
///
/// @param eval_id that of the current request
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_run_advance(
    plan: *const dgm_plan,
    run: *mut c_void,
    run_size: usize,
    eval_id: u64,
) -> i32 {
    // SAFETY: the caller gives a live handle and memory of the sizes said, or NULL.
    guarded(|| unsafe {
        let plan = &handle("plan", plan)?.0;
        let run = slice_mut("run", run.cast::<u8>(), run_size)?;
        Run::rewrite(plan, run, |run| run.advance(plan, eval_id))
    })
}
