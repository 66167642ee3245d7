//! Plans and runs through the C interface: arbitrary options, sizes, overlaps, orders of calls and
//! damaged runs. A status, no crash, and nothing changed by an error.
#![no_main]

use std::ffi::c_void;
use std::ptr::null_mut;

use dgm::options::dgm_plan_options;
use dgm::plan::*;
use dgm::rows::*;
use dgm::run::*;
use dgm::sample::dgm_sample;
use dgm_core::sampling::PlanOptions;
use dgm_fuzz::{Bytes, check_status, plans};

/// Floats of state up to which runs are made.
const MOST: usize = 1 << 14;

/// Options as C has them; `times` must outlive them.
fn raw(b: &mut Bytes, o: &PlanOptions) -> dgm_plan_options {
    let mut raw = dgm_plan_options::from(o);
    if let Some(times) = &o.times {
        (raw.times, raw.times_len) = (times.as_ptr(), times.len());
    }
    for _ in 0..b.below(3) {
        match b.below(12) {
            0 => raw.process = b.number() as i32,
            1 => raw.prediction = b.number() as i32,
            2 => raw.solver = b.number() as i32,
            3 => raw.spacing = b.number() as i32,
            4 => raw.steps = b.number(),
            5 => raw.train_steps = b.number(),
            6 => raw.max_evals = b.number(),
            7 => raw.clip = b.float(),
            // An older caller, or nonsense.
            8 => raw.struct_size = (b.number() as usize).min(size_of::<dgm_plan_options>()),
            9 => raw.times_len = raw.times_len.min(b.below(8)),
            _ => {}
        }
    }
    raw
}

/// A run in memory of exactly the sizes that the plan asks for.
struct Live {
    plan: *mut dgm_plan,
    seeds: Vec<u64>,
    elements: usize,
    run: Vec<u8>,
    state: Vec<f32>,
}

impl Live {
    fn len(&self) -> usize {
        self.seeds.len() * self.elements
    }

    /// The pointers of a call, some of them wrong.
    fn pointers(&mut self, b: &mut Bytes) -> (*mut c_void, usize, *mut f32, usize) {
        let (mut run, mut run_size) = (self.run.as_mut_ptr().cast(), self.run.len());
        let (mut state, mut state_len) = (self.state.as_mut_ptr(), self.state.len());
        match b.u8() {
            248 => run = null_mut(),
            249 => run_size = b.below(run_size + 1),
            250 => state = null_mut(),
            251 => state_len = b.below(state_len + 1),
            // Sizes that no memory has must be refused before it is touched.
            252 => state_len = usize::MAX - b.below(9),
            // The run over the state.
            253 => (run, run_size) = (state.cast(), (state_len * 4).min(run_size)),
            254 => state = state.cast::<u8>().wrapping_add(1).cast(),
            _ => {}
        }
        (run, run_size, state, state_len)
    }

    /// Runs a call that may change run and state only when it succeeds.
    fn guarded(&mut self, call: impl FnOnce() -> i32) -> i32 {
        let (run, state) = (self.run.clone(), self.state.clone());
        let status = call();
        check_status(status);
        if status != 0 {
            assert!(run == self.run, "a run changed although the status is {status}");
            let same = state.iter().zip(&self.state).all(|(a, b)| a.to_bits() == b.to_bits());
            assert!(same, "a state changed although the status is {status}");
        }
        status
    }
}

/// Live handles, and memory of the sizes said unless the entry must refuse the sizes or the NULL.
unsafe fn step(b: &mut Bytes, live: &mut Live, saved: &mut Vec<u8>) {
    let plan = if b.u8() == 255 { null_mut() } else { live.plan };
    let (run, run_size, state, state_len) = live.pointers(b);
    let len = live.len();
    // SAFETY: see above.
    unsafe {
        match b.below(14) {
            0..=2 => {
                let mut request = std::mem::zeroed::<dgm_request>();
                request.struct_size = if b.rarely(16) { b.below(97) } else { size_of::<dgm_request>() };
                check_status(dgm_run_ask(plan, run, run_size, &mut request));
                let mut x = null_mut();
                let status = dgm_run_input(plan, run, run_size, state, state_len, &mut x);
                check_status(status);
                assert_eq!(status == 0, !x.is_null());
                let mut y = vec![0.0; if b.rarely(16) { b.below(len + 2) } else { len }];
                let input = live.state[..len].to_vec();
                plans::answer(b, &input, &mut y);
                let (y, y_len) = match b.u8() {
                    // The answer over the state.
                    255 => (live.state.as_ptr(), len),
                    254 => (std::ptr::null(), len),
                    _ => (y.as_ptr(), y.len()),
                };
                let id = if b.rarely(16) { b.u64() } else { request.eval_id };
                live.guarded(|| dgm_run_tell(plan, run, run_size, state, state_len, id, y, y_len));
            }
            3 => {
                let rows = if b.rarely(8) { b.below(9) } else { live.seeds.len() };
                let mut t = vec![0.0f32; rows];
                check_status(dgm_run_times(plan, run, run_size, t.as_mut_ptr(), rows));
            }
            4 => {
                let mut x = std::ptr::null();
                let status = dgm_run_result(plan, run, run_size, state, state_len, &mut x);
                check_status(status);
                assert_eq!(status == 0, !x.is_null());
            }
            5 | 6 => {
                let mut size = 0;
                if dgm_run_export_size(plan, run, run_size, &mut size) != 0 || size > 1 << 20 {
                    return;
                }
                let cap = if b.rarely(8) { b.below(size + 9) } else { size };
                let mut block = vec![0u8; cap];
                let mut written = 0;
                let buf = block.as_mut_ptr().cast();
                let status = live.guarded(|| {
                    dgm_run_export(plan, run, run_size, state, state_len, buf, cap, &mut written)
                });
                if status == 0 {
                    assert_eq!(written, size);
                    *saved = block;
                }
            }
            7 | 8 => {
                let mut block = saved.clone();
                if b.rarely(4) && !block.is_empty() {
                    let at = b.u32() as usize % block.len();
                    block[at] ^= 1 << b.below(8);
                }
                let (mut rows, mut elements) = (0, 0);
                check_status(dgm_run_peek(block.as_ptr().cast(), block.len(), &mut rows, &mut elements));
                let buf = block.as_ptr().cast();
                let n = block.len();
                live.guarded(|| dgm_run_import(plan, buf, n, run, run_size, state, state_len));
            }
            // Bytes of the run changed by somebody.
            9 => {
                let at = b.u32() as usize % live.run.len();
                live.run[at] = b.u8();
            }
            10 => {
                let seeds = live.seeds.clone();
                let (rows, elements) =
                    (if b.rarely(8) { b.below(9).min(seeds.len()) } else { seeds.len() }, live.elements);
                let x: Vec<f32> =
                    (0..len).map(|_| if b.rarely(30) { b.float() as f32 } else { 0.5 }).collect();
                let x = if b.rarely(2) { x.as_ptr() } else { std::ptr::null() };
                live.guarded(|| {
                    dgm_run_start(plan, seeds.as_ptr(), rows, elements, x, run, run_size, state, state_len)
                });
            }
            11 => {
                let rows = if b.rarely(8) { b.below(9) } else { live.seeds.len() };
                let flags: Vec<u8> =
                    (0..rows).map(|_| if b.rarely(16) { b.u8() } else { b.u8() % 2 }).collect();
                let flags = if b.rarely(16) { std::ptr::null() } else { flags.as_ptr() };
                let finish = b.rarely(4);
                live.guarded(|| {
                    if finish {
                        dgm_run_finish_rows(plan, run, run_size, flags, rows)
                    } else {
                        dgm_run_select(plan, run, run_size, flags, rows)
                    }
                });
            }
            12 => {
                let rows = if b.rarely(8) { b.below(9) } else { live.seeds.len() };
                let (mut steps, mut active) = (vec![-1i64; rows], vec![7u8; rows]);
                let status = dgm_run_row_steps(plan, run, run_size, steps.as_mut_ptr(), rows);
                check_status(status);
                assert!(steps.iter().all(|s| (*s == -1) == (status != 0)));
                let status = dgm_run_row_active(plan, run, run_size, active.as_mut_ptr(), rows);
                check_status(status);
                assert!(active.iter().all(|a| (*a == 7) == (status != 0)));
            }
            _ => sample(b, live),
        }
    }
}

/// dgm_sample() with a model that may stop it.
fn sample(b: &mut Bytes, live: &mut Live) {
    struct Model {
        len: usize,
        left: usize,
    }
    unsafe extern "C" fn model(
        ctx: *mut c_void,
        _: *const dgm_request,
        x: *const f32,
        _: *const f32,
        y: *mut f32,
    ) -> i32 {
        // SAFETY: the context of the call below; x and y have as many floats.
        unsafe {
            let model = &mut *ctx.cast::<Model>();
            if model.left == 0 {
                return 77;
            }
            model.left -= 1;
            std::ptr::copy_nonoverlapping(x, y, model.len);
        }
        0
    }
    let (rows, len) = (live.seeds.len(), live.len());
    let (mut y, mut t) = (vec![0.0f32; len], vec![0.0f32; rows]);
    let mut context = Model { len, left: b.below(64) };
    let (run, state) = (live.run.as_mut_ptr().cast(), live.state.as_mut_ptr());
    let y = if b.u8() == 255 { state } else { y.as_mut_ptr() };
    // SAFETY: a live plan and memory of the sizes said, or an overlap that must be refused.
    let status = unsafe {
        dgm_sample(
            live.plan,
            live.seeds.as_ptr(),
            rows,
            live.elements,
            std::ptr::null(),
            run,
            live.run.len(),
            state,
            live.state.len(),
            y,
            t.as_mut_ptr(),
            Some(model),
            (&raw mut context).cast(),
        )
    };
    assert!(status == 77 && context.left == 0 || status != 77);
    if status != 77 {
        check_status(status);
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut b = Bytes(data);
    let options = plans::options(&mut b);
    let raw = raw(&mut b, &options);
    let mut plan = null_mut();
    // SAFETY: options of their own size; places and handles that live.
    unsafe {
        let status = dgm_plan_compile(&raw, &mut plan);
        check_status(status);
        assert_eq!(status == 0, !plan.is_null());
        if status != 0 {
            return;
        }
        let (rows, elements) = (b.below(4), b.below(30));
        let (mut floats, mut bytes) = (0, 0);
        let sized = dgm_plan_state_len(plan, rows, elements, &mut floats);
        check_status(sized);
        check_status(dgm_plan_run_size(plan, rows, &mut bytes));
        if sized == 0 && floats <= MOST {
            let seeds = (0..rows).map(|_| b.u64()).collect();
            let mut live = Live { plan, seeds, elements, run: vec![0; bytes], state: vec![0.0; floats] };
            let mut saved = Vec::new();
            let (run, state) = (live.run.as_mut_ptr().cast(), live.state.as_mut_ptr());
            let seeds = live.seeds.as_ptr();
            let started =
                dgm_run_start(plan, seeds, rows, elements, std::ptr::null(), run, bytes, state, floats);
            assert_eq!(started, 0, "a run of a plan");
            for _ in 0..40 {
                if b.is_empty() {
                    break;
                }
                step(&mut b, &mut live, &mut saved);
            }
        }
        dgm_plan_free(plan);
    }
});
