//! The limits that benchmarks are compared with.

use std::hint::black_box;

use super::level::{Kernel, dispatch};
use super::simd::Simd;

/// Does nothing but fused multiply-adds at the active level and returns how many
/// floating-point operations (two an FMA and lane) that was.
///
/// `rounds` rounds of independent chains, enough of them to fill the pipelines: the time it
/// takes gives the thread's peak.
pub fn fma_work(rounds: u64) -> u64 {
    dispatch(Chains(rounds))
}

/// The same with products of pairs of bfloat16 (four operations a lane), as fast as the level has
/// them.
pub fn dot_work(rounds: u64) -> u64 {
    dispatch(Dots(rounds))
}

struct Dots(u64);

impl Kernel for Dots {
    type Output = u64;
    const DOTS: bool = true;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        const CHAINS: usize = 16;
        let half = s.splat(black_box(0.5));
        // Pairs of small numbers: the sums stay finite.
        let pair = s.isplat(black_box(0x3c00_3c00));
        let mut acc = [half; CHAINS];
        for _ in 0..self.0 {
            for a in &mut acc {
                *a = s.dot_bf16(*a, pair, pair);
            }
        }
        for a in acc {
            let mut lanes = [0.0; 16];
            s.store(a, &mut lanes);
            black_box(lanes);
        }
        self.0 * (CHAINS * S::LANES * 4) as u64
    }
}

struct Chains(u64);

impl Kernel for Chains {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> u64 {
        const CHAINS: usize = 12;
        let half = s.splat(black_box(0.5));
        let mut acc = [half; CHAINS];
        for _ in 0..self.0 {
            for a in &mut acc {
                *a = s.fma(*a, half, half);
            }
        }
        for a in acc {
            let mut lanes = [0.0; 16];
            s.store(a, &mut lanes);
            black_box(lanes);
        }
        self.0 * (CHAINS * S::LANES * 2) as u64
    }
}

/// Does nothing but read `memory` and returns how many bytes that was: the time it takes gives the
/// thread's read bandwidth.
pub fn read_work(memory: &[f32]) -> u64 {
    dispatch(Read(memory));
    size_of_val(memory) as u64
}

struct Read<'a>(&'a [f32]);

impl Kernel for Read<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        const CHAINS: usize = 8;
        let mut acc = [s.splat(0.0); CHAINS];
        for block in self.0.chunks_exact(CHAINS * S::LANES) {
            for (n, a) in acc.iter_mut().enumerate() {
                *a = s.max(s.load(&block[n * S::LANES..]), *a);
            }
        }
        for a in acc {
            let mut lanes = [0.0; 16];
            s.store(a, &mut lanes);
            black_box(lanes);
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn bytes_are_counted() {
        assert_eq!(super::read_work(&[1.0; 1000]), 4000);
    }

    #[test]
    fn work_is_counted_in_whole_rounds() {
        let one = super::fma_work(1);
        assert!(one > 0);
        assert_eq!(super::fma_work(1000), 1000 * one);
        assert_eq!(super::dot_work(10), 10 * super::dot_work(1));
    }
}
