//! Every kernel as a share of its limit, measured in the same run: the FMA peak, or the read
//! bandwidth where reading is what costs.
//!
//! `make limits` (`CASES="d64 causal,linear"`: those whose name contains a part), on one thread and
//! on `DGM_NUM_THREADS` (default: all). Limit and kernel alternate; medians of 25 trials, so that
//! other programs disturb the ratio less. Prints one JSON object a line in the schema of all
//! benchmark programs; there are no peers here.

use std::time::Instant;

use dgm_benches::{Case, cases};
use dgm_core::arch::{dot_work, fma_work, read_work};
use dgm_core::threads::{num_threads, set_num_threads};

/// Calls `f` with the number of each thread on as many threads at once; returns the sum.
fn on_all(threads: usize, f: impl Fn(usize) -> u64 + Sync) -> u64 {
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads)
            .map(|i| {
                scope.spawn({
                    let f = &f;
                    move || f(i)
                })
            })
            .collect();
        f(0) + others.into_iter().map(|t| t.join().unwrap_or(0)).sum::<u64>()
    })
}

/// Fused multiply-adds, products of bfloat16 pairs, or reads of `memory`; returns how many
/// operations or bytes.
fn limit(case: &Case, threads: usize, memory: &[f32]) -> u64 {
    const ROUNDS: u64 = 3_000_000;
    match case.limit() {
        "read" => {
            let part = memory.len() / threads;
            on_all(threads, |i| read_work(&memory[i * part..(i + 1) * part]))
        }
        "fma_bf16" => on_all(threads, |_| dot_work(ROUNDS)),
        _ => on_all(threads, |_| fma_work(ROUNDS)),
    }
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let start = Instant::now();
    let result = f();
    (result, start.elapsed().as_secs_f64())
}

/// The median over trials of the kernel's speed by the limit, both measured in each trial.
fn report(case: &mut Case, memory: &[f32]) {
    const TRIALS: usize = 25;
    let threads = num_threads();
    let work = case.bytes.unwrap_or(case.work);
    let enough = if case.bytes.is_some() { 1 << 28 } else { 1_500_000_000 * threads as u64 };
    let calls = (enough / work).max(1);
    let (mut shares, mut times) = ([0.0; TRIALS], [0.0; TRIALS]);
    (case.call)();
    for (share, time) in shares.iter_mut().zip(&mut times) {
        let (before, first) = timed(|| limit(case, threads, memory));
        let ((), seconds) = timed(|| (0..calls).for_each(|_| (case.call)()));
        let (after, second) = timed(|| limit(case, threads, memory));
        *time = seconds / calls as f64;
        *share = work as f64 / *time * (first + second) / (before + after) as f64;
    }
    let median = |x: &mut [f64; TRIALS]| {
        x.sort_by(f64::total_cmp);
        x[TRIALS / 2]
    };
    println!(
        "{{\"case\":\"{} {}\",\"group\":\"{}\",\"dtype\":\"{}\",\"threads\":{threads},\"ours_ms\":{:.4},\"peers_ms\":{{}},\"best_peer\":null,\"ratio\":null,\"limit\":\"{}\",\"pct_of_limit\":{:.1}}}",
        case.kernel,
        case.name,
        case.kernel,
        case.dtype,
        1e3 * median(&mut times),
        case.limit(),
        100.0 * median(&mut shares)
    );
}

/// Whether a word of `CASES` is part of the name; without `CASES` every case is.
fn chosen(case: &Case) -> bool {
    let name = format!("{} {} {}", case.kernel, case.dtype, case.name);
    std::env::var("CASES").map_or(true, |words| words.split(',').any(|w| name.contains(w.trim())))
}

fn main() {
    let all = num_threads();
    // More than four times any cache.
    let memory = vec![1.0f32; 1 << 26];
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        set_num_threads(threads).expect("the pool can have this size");
        for mut case in cases().into_iter().filter(chosen) {
            report(&mut case, &memory);
        }
    }
}
