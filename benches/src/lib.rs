//! The machine's floating-point limit, which benchmarks are compared with.

/// Fused multiply-adds a thread can do: runs `rounds` rounds of independent chains, enough to fill
/// the pipelines, and returns how many floating-point operations (two an FMA) that was.
pub fn fma_work(rounds: u64) -> u64 {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f") {
            // SAFETY: the processor has AVX-512F.
            return unsafe { avx512(rounds) };
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: the processor has AVX2 and FMA.
            return unsafe { avx2(rounds) };
        }
    }
    portable(rounds)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512(rounds: u64) -> u64 {
    use std::arch::x86_64::*;
    const CHAINS: usize = 16;
    let mut acc = [_mm512_set1_ps(1.0); CHAINS];
    let (x, y) = (_mm512_set1_ps(std::hint::black_box(0.5)), _mm512_set1_ps(std::hint::black_box(0.5)));
    for _ in 0..rounds {
        for a in &mut acc {
            *a = _mm512_fmadd_ps(*a, x, y);
        }
    }
    std::hint::black_box(acc);
    rounds * CHAINS as u64 * 16 * 2
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2(rounds: u64) -> u64 {
    use std::arch::x86_64::*;
    const CHAINS: usize = 12;
    let mut acc = [_mm256_set1_ps(1.0); CHAINS];
    let (x, y) = (_mm256_set1_ps(std::hint::black_box(0.5)), _mm256_set1_ps(std::hint::black_box(0.5)));
    for _ in 0..rounds {
        for a in &mut acc {
            *a = _mm256_fmadd_ps(*a, x, y);
        }
    }
    std::hint::black_box(acc);
    rounds * CHAINS as u64 * 8 * 2
}

/// Sixty-four scalars in independent chains, which the compiler turns into vectors where the
/// target has FMA (AArch64).
fn portable(rounds: u64) -> u64 {
    const CHAINS: usize = 64;
    let mut acc = [1.0f32; CHAINS];
    let (x, y) = (std::hint::black_box(0.5f32), std::hint::black_box(0.5f32));
    for _ in 0..rounds {
        for a in &mut acc {
            *a = a.mul_add(x, y);
        }
    }
    std::hint::black_box(acc);
    rounds * CHAINS as u64 * 2
}
