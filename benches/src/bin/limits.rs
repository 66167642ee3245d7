//! Every kernel as a share of the FMA peak, measured in the same run.
//!
//! `make limits` (`CASES="d64 causal,linear"`: those whose name contains a part), on one thread and
//! on `DGM_NUM_THREADS` (default: all). Peak and kernel alternate; medians of 25 trials, so that
//! other programs disturb the ratio less. Prints one JSON object a line in the schema of all
//! benchmark programs; there are no peers here.

use std::time::Instant;

use dgm_benches::{Case, cases};
use dgm_core::arch::{dot_work, fma_work};
use dgm_core::threads::{num_threads, set_num_threads};

/// Fused multiply-adds, or products of bfloat16 pairs, on every thread of the pool at once.
fn peak(threads: usize, dtype: &str) -> u64 {
    const ROUNDS: u64 = 3_000_000;
    let work = if dtype == "bf16" { dot_work } else { fma_work };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| work(ROUNDS))).collect();
        work(ROUNDS) + others.into_iter().map(|t| t.join().unwrap_or(0)).sum::<u64>()
    })
}

fn timed<R>(f: impl FnOnce() -> R) -> (R, f64) {
    let start = Instant::now();
    let result = f();
    (result, start.elapsed().as_secs_f64())
}

/// The median over trials of kernel speed by peak speed, both measured in each trial.
fn report(case: &mut Case) {
    const TRIALS: usize = 25;
    let threads = num_threads();
    let calls = (1_500_000_000 * threads as u64 / case.work).max(1);
    let (mut shares, mut times) = ([0.0; TRIALS], [0.0; TRIALS]);
    (case.call)();
    for (share, time) in shares.iter_mut().zip(&mut times) {
        let (before, first) = timed(|| peak(threads, case.dtype));
        let ((), seconds) = timed(|| (0..calls).for_each(|_| (case.call)()));
        let (after, second) = timed(|| peak(threads, case.dtype));
        let peak = (before + after) as f64 / (first + second);
        *time = seconds / calls as f64;
        *share = case.work as f64 / *time / peak;
    }
    let median = |x: &mut [f64; TRIALS]| {
        x.sort_by(f64::total_cmp);
        x[TRIALS / 2]
    };
    println!(
        "{{\"case\":\"{} {}\",\"group\":\"kernels\",\"dtype\":\"{}\",\"threads\":{threads},\"ours_ms\":{:.4},\"peers_ms\":{{}},\"best_peer\":null,\"ratio\":null,\"limit\":\"fma_{}\",\"pct_of_limit\":{:.1}}}",
        case.kernel,
        case.name,
        case.dtype,
        1e3 * median(&mut times),
        if case.dtype == "bf16" { "bf16" } else { "f32" },
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
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        set_num_threads(threads).expect("the pool can have this size");
        cases().iter_mut().filter(|c| chosen(c)).for_each(report);
    }
}
