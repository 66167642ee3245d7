//! PyTorch's generator on the CPU.

use super::float64::Tables;
use super::mt19937::Mt19937;
use super::torch_block::{BLOCK, normal_blocks};
use crate::arch::{Kernel, Simd, dispatch};
use crate::threads;

/// `torch.Generator().manual_seed(seed)`: MT19937 seeded by the lower 32 bits, and the second number of
/// the last pair that [`normal`](TorchCpu::normal) made of a short tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct TorchCpu {
    pub(super) bits: Mt19937,
    pub(super) cached: Option<f64>,
}

/// Numbers whose uniform draws are made before any is transformed; a multiple of [`BLOCK`].
const WINDOW: usize = 1 << 18;

/// Numbers that one task transforms; a multiple of [`BLOCK`].
const CHUNK: usize = 1 << 14;

impl TorchCpu {
    /// As `manual_seed(seed)`; a negative seed of Python is its two's complement.
    pub fn new(seed: u64) -> Self {
        TorchCpu { bits: Mt19937::new(seed as u32), cached: None }
    }

    /// `torch.rand(n)` in f32: the lower 24 bits of a word each.
    pub fn uniform(&mut self, out: &mut [f32]) {
        self.bits.fill(out, unit);
    }

    /// `torch.rand(n, dtype=torch.float64)`: the lower 53 bits of two words each, the first one high.
    pub fn uniform_f64(&mut self, out: &mut [f64]) {
        out.iter_mut().for_each(|o| *o = unit_f64(&mut self.bits));
    }

    /// `torch.randn(n)` in f32.
    ///
    /// 16 numbers or more: uniform numbers are drawn for all, and in blocks of 16 numbers `j` and `j + 8`
    /// become `sqrt(-2 ln(1 - u[j]))` times cosine and sine of `2 pi u[j + 8]`. Where 16 does not divide
    /// `n`, the last 16 numbers are drawn anew from 16 further uniform numbers. Fewer than 16: pairs
    /// in f64, of which the second waits for the next short tensor.
    pub fn normal(&mut self, out: &mut [f32]) {
        if out.len() < BLOCK {
            return out.iter_mut().for_each(|o| *o = self.next_normal() as f32);
        }
        for window in out.chunks_mut(WINDOW) {
            self.bits.fill(window, unit);
            let work = 60 * window.len() as u64;
            threads::for_each(window.chunks_mut(CHUNK), work, normal_blocks);
        }
        let rest = out.len() % BLOCK;
        if rest != 0 {
            let last = out.len() - BLOCK;
            self.bits.fill(&mut out[last..], unit);
            normal_blocks(&mut out[last..]);
        }
    }

    /// `torch.randn(n, dtype=torch.float64)`: as [`normal`](TorchCpu::normal), all in f64.
    pub fn normal_f64(&mut self, out: &mut [f64]) {
        if out.len() < BLOCK {
            return out.iter_mut().for_each(|o| *o = self.next_normal());
        }
        for window in out.chunks_mut(WINDOW) {
            self.uniform_f64(window);
            let work = 200 * window.len() as u64;
            threads::for_each(window.chunks_mut(CHUNK), work, |chunk| dispatch(Blocks(chunk)));
        }
        if !out.len().is_multiple_of(BLOCK) {
            let last = out.len() - BLOCK;
            self.uniform_f64(&mut out[last..]);
            dispatch(Blocks(&mut out[last..]));
        }
    }

    fn next_normal(&mut self) -> f64 {
        if let Some(second) = self.cached.take() {
            return second;
        }
        let (u1, u2) = (unit_f64(&mut self.bits), unit_f64(&mut self.bits));
        let radius = (-2.0 * libm::log1p(-u2)).sqrt();
        let (sin, cos) = Tables::get().sincos(std::f64::consts::TAU * u1);
        self.cached = Some(radius * sin);
        radius * cos
    }
}

#[inline(always)]
fn unit(word: u32) -> f32 {
    (word & 0xff_ffff) as f32 * (1.0 / 16_777_216.0)
}

fn unit_f64(bits: &mut Mt19937) -> f64 {
    (bits.next_u64() & ((1 << 53) - 1)) as f64 * (1.0 / 9_007_199_254_740_992.0)
}

/// Uniform to normal numbers in f64, in blocks of [`BLOCK`]; an incomplete block is left as it is.
struct Blocks<'a>(&'a mut [f64]);

impl Kernel for Blocks<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let tables = Tables::get();
        for block in self.0.chunks_exact_mut(BLOCK) {
            let (first, second) = block.split_at_mut(BLOCK / 2);
            for (a, b) in first.iter_mut().zip(second) {
                let radius = (-2.0 * tables.log(1.0 - *a)).sqrt();
                let (sin, cos) = tables.sincos(std::f64::consts::TAU * *b);
                // Adding +0 makes every zero a +0, as PyTorch's addition of the mean does.
                (*a, *b) = (radius * cos + 0.0, radius * sin + 0.0);
            }
        }
    }
}
