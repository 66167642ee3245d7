//! Attention and linear layers as a share of the FMA peak, measured in the same run.
//!
//! `cargo bench -p dgm-benches`, on one thread and on `DGM_NUM_THREADS` (default: all). Peak and
//! kernel alternate. One thread is timed by the time it was on a processor (Linux; elsewhere wall
//! time), so that other programs disturb the ratio less; several by wall time.
//! Figures under one tenth of a second of work are rough. Prints one JSON object a line in the
//! schema of all benchmark programs; there are no peers here.

use std::time::Instant;

use dgm_core::arch::fma_work;
use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::threads::{num_threads, set_num_threads};
use ndarray::{Array2, Array4};

fn wave(i: usize) -> f32 {
    ((i * 7919) % 1009) as f32 / 504.5 - 1.0
}

/// Seconds this thread has run.
fn now(start: Instant) -> f64 {
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

/// Operations a second of `f` beside the peak, over trials that alternate.
fn report(name: &str, work: u64, mut f: impl FnMut()) {
    let threads = num_threads();
    let start = Instant::now();
    let now = |start: Instant| if threads == 1 { now(start) } else { start.elapsed().as_secs_f64() };
    let (mut kernel_time, mut peak_time, mut peak_work) = (0.0, 0.0, 0);
    let calls = (4_000_000_000 / work).max(1);
    for _ in 0..8 {
        let t = now(start);
        peak_work += peak(threads);
        let u = now(start);
        for _ in 0..calls {
            f();
        }
        kernel_time += now(start) - u;
        peak_time += u - t;
    }
    let (best, peak) = ((8 * calls * work) as f64 / kernel_time, peak_work as f64 / peak_time);
    println!(
        "{{\"case\":\"{name}\",\"group\":\"kernels\",\"dtype\":\"f32\",\"threads\":{threads},\"ours_ms\":{:.4}, \"peers_ms\":{{}},\"best_peer\":null,\"ratio\":null,\"limit\":\"fma_f32\",\"pct_of_limit\":{:.1}}}",
        work as f64 / best * 1e3,
        100.0 * best / peak
    );
}

fn main() {
    let all = num_threads();
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        set_num_threads(threads).expect("a pool of this size ran before");
        kernels();
    }
}

fn kernels() {
    for (heads, tokens, dim, causal) in [
        (8, 16, 64, false),
        (8, 64, 64, false),
        (8, 256, 64, false),
        (2, 1024, 64, false),
        (2, 1024, 64, true),
        (2, 1024, 72, false),
        (2, 1024, 128, false),
    ] {
        let tensor = |seed: usize| {
            Array4::from_shape_fn((1, heads, tokens, dim), |(_, h, l, d)| {
                wave(seed + (h * tokens + l) * dim + d)
            })
        };
        let (q, k, v) = (tensor(1), tensor(2), tensor(3));
        let mut out = Array4::zeros((1, heads, tokens, dim));
        let options = AttentionOptions { causal, ..Default::default() };
        let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
        report(
            &format!("attention h{heads} l{tokens} d{dim} causal {causal}"),
            (4 * heads * pairs * dim) as u64,
            || attention(q.view(), k.view(), v.view(), &options, out.view_mut(), None).expect("valid"),
        );
    }
    for (rows, inputs, outputs, act) in [
        (1, 384, 1152, Activation::None),
        (16, 128, 384, Activation::None),
        (64, 384, 1152, Activation::None),
        (256, 384, 1536, Activation::None),
        (256, 384, 1536, Activation::GeluTanh),
        (256, 1536, 384, Activation::None),
        (512, 1024, 1024, Activation::None),
    ] {
        let x = Array2::from_shape_fn((rows, inputs), |(i, j)| wave(i * inputs + j));
        let weight = Array2::from_shape_fn((outputs, inputs), |(i, j)| wave(1 + i * inputs + j));
        let packed = PackedLinear::pack(weight.view(), None).expect("shapes fit");
        let mut out = Array2::zeros((rows, outputs));
        report(
            &format!("linear m{rows} k{inputs} n{outputs} {act:?}"),
            (2 * rows * inputs * outputs) as u64,
            || linear(x.view(), &packed, act, out.view_mut()).expect("valid"),
        );
    }
}
