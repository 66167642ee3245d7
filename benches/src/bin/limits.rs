//! Every kernel as a share of the FMA peak, measured in the same run.
//!
//! `make limits`, on one thread and on `DGM_NUM_THREADS` (default: all). Peak and kernel
//! alternate. One thread is timed by the time it was on a processor (Linux; elsewhere wall time),
//! so that other programs disturb the ratio less; several by wall time. Figures under one tenth of
//! a second of work are rough. Prints one JSON object a line in the schema of all benchmark
//! programs; there are no peers here. Names of kernels as arguments leave out the others.

use std::time::Instant;

use dgm_benches::{Case, cases};
use dgm_core::arch::fma_work;
use dgm_core::threads::{num_threads, set_num_threads};

/// Seconds this thread has run.
fn on_processor(start: Instant) -> f64 {
    std::fs::read_to_string("/proc/thread-self/schedstat")
        .ok()
        .and_then(|s| s.split_whitespace().next()?.parse::<f64>().ok())
        .map_or_else(|| start.elapsed().as_secs_f64(), |ns| ns * 1e-9)
}

/// Fused multiply-adds on every thread of the pool at once.
fn peak(threads: usize) -> u64 {
    const ROUNDS: u64 = 8_000_000;
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| fma_work(ROUNDS))).collect();
        fma_work(ROUNDS) + others.into_iter().map(|t| t.join().unwrap_or(0)).sum::<u64>()
    })
}

/// Operations a second beside the peak, over trials that alternate.
fn report(case: &mut Case) {
    let threads = num_threads();
    let start = Instant::now();
    let now = || if threads == 1 { on_processor(start) } else { start.elapsed().as_secs_f64() };
    let (mut kernel_time, mut peak_time, mut peak_work) = (0.0, 0.0, 0);
    let calls = (4_000_000_000 / case.work).max(1);
    for _ in 0..8 {
        let t = now();
        peak_work += peak(threads);
        let u = now();
        for _ in 0..calls {
            (case.call)();
        }
        kernel_time += now() - u;
        peak_time += u - t;
    }
    let (speed, peak) = ((8 * calls * case.work) as f64 / kernel_time, peak_work as f64 / peak_time);
    println!(
        "{{\"case\":\"{} {}\",\"group\":\"kernels\",\"dtype\":\"f32\",\"threads\":{threads},\"ours_ms\":{:.4},\"peers_ms\":{{}},\"best_peer\":null,\"ratio\":null,\"limit\":\"fma_f32\",\"pct_of_limit\":{:.1}}}",
        case.kernel,
        case.name,
        case.work as f64 / speed * 1e3,
        100.0 * speed / peak
    );
}

/// Whether a case was asked for: its kernel is an argument, or there are none.
fn wanted(case: &Case) -> bool {
    let mut kernels = std::env::args().skip(1).peekable();
    kernels.peek().is_none() || kernels.any(|kernel| kernel == case.kernel)
}

fn main() {
    let all = num_threads();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        set_num_threads(threads).expect("the pool can have this size");
        cases().iter_mut().filter(|case| wanted(case)).for_each(report);
    }
}
