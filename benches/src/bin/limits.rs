//! Every kernel as a share of its limit, measured in the same run: the FMA peak, or the read
//! bandwidth where reading is what costs.
//!
//! `make limits [CASE=text]`, on one thread and on `DGM_NUM_THREADS` (default: all). Limit and kernel
//! alternate. One thread is timed by the time it was on a processor (Linux; elsewhere wall time),
//! so that other programs disturb the ratio less; several by wall time. Figures under one tenth of
//! a second of work are rough. Prints one JSON object a line in the schema of all benchmark
//! programs; there are no peers here.

use std::time::Instant;

use dgm_benches::{Case, cases};
use dgm_core::arch::{fma_work, read_work};
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

/// Reads `memory` once, a part on every thread at once; returns its bytes.
fn read(threads: usize, memory: &[f32]) -> u64 {
    std::thread::scope(|scope| {
        let (own, rest) = memory.split_at(memory.len() / threads);
        let part = rest.len().div_ceil(threads.max(2) - 1).max(1);
        let others: Vec<_> = rest.chunks(part).map(|part| scope.spawn(|| read_work(part))).collect();
        read_work(own) + others.into_iter().map(|t| t.join().unwrap_or(0)).sum::<u64>()
    })
}

/// Operations (or bytes) a second beside the limit, over trials that alternate.
fn report(case: &mut Case, memory: &[f32]) {
    let threads = num_threads();
    let start = Instant::now();
    let by_bytes = case.bytes.is_some();
    let now = || if threads == 1 { on_processor(start) } else { start.elapsed().as_secs_f64() };
    let (mut kernel_time, mut peak_time, mut peak_work) = (0.0, 0.0, 0);
    let work = case.bytes.unwrap_or(case.work);
    let calls = (if by_bytes { 1 << 29 } else { 4_000_000_000 } / work).max(1);
    (case.call)();
    for _ in 0..8 {
        let t = now();
        peak_work += if by_bytes { read(threads, memory) } else { peak(threads) };
        let u = now();
        for _ in 0..calls {
            (case.call)();
        }
        kernel_time += now() - u;
        peak_time += u - t;
    }
    let (speed, peak) = ((8 * calls * work) as f64 / kernel_time, peak_work as f64 / peak_time);
    println!(
        "{{\"case\":\"{} {}\",\"group\":\"{}\",\"dtype\":\"{}\",\"threads\":{threads},\"ours_ms\":{:.4},\"peers_ms\":{{}},\"best_peer\":null,\"ratio\":null,\"limit\":\"{}\",\"pct_of_limit\":{:.1}}}",
        case.kernel,
        case.name,
        if by_bytes { "decode" } else { "kernels" },
        case.name.rsplit(' ').next().filter(|_| by_bytes).unwrap_or("f32"),
        work as f64 / speed * 1e3,
        if by_bytes { "read" } else { "fma_f32" },
        100.0 * speed / peak
    );
}

fn main() {
    let all = num_threads();
    // More than four times any cache.
    let memory = vec![1.0f32; 1 << 27];
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        set_num_threads(threads).expect("the pool can have this size");
        for mut case in cases() {
            if format!("{} {}", case.kernel, case.name).contains(&wanted) {
                report(&mut case, &memory);
            }
        }
    }
}
