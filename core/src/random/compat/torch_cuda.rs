//! PyTorch's generator on CUDA devices.

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::math;
use crate::random::philox;
use crate::threads;

/// `torch.randn(n, device="cuda")` after `torch.manual_seed(seed)`: Philox4x32-10 with the seed as key, a
/// counter `[draw, 0, element, 0]`, one draw a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TorchCuda {
    pub(super) seed: u64,
    /// Calls so far.
    pub(super) draw: u64,
}

const CHUNK: usize = 1 << 14;

impl TorchCuda {
    /// As `torch.cuda.manual_seed(seed)`.
    pub fn new(seed: u64) -> Self {
        TorchCuda { seed, draw: 0 }
    }

    /// Normal numbers in f32.
    ///
    /// Holds for as many numbers as the device runs threads at once (number of multiprocessors times the
    /// threads of one, 221,184 on an A100, 270,336 on an H100); in larger tensors the device
    /// gives a thread a second number, from other words.
    ///
    /// # Errors
    /// [`Error::Overflow`] from 2^32 numbers on.
    pub fn normal(&mut self, out: &mut [f32]) -> Result<()> {
        if out.len() as u64 > 1 << 32 {
            return Err(Error::Overflow { arg: "out", got: format!("{} numbers, at most 2^32", out.len()) });
        }
        let (seed, draw) = (self.seed, self.draw);
        let work = 60 * out.len() as u64;
        let chunks = out.chunks_mut(CHUNK).enumerate();
        threads::for_each(chunks, work, |(i, out)| {
            dispatch(Fill { seed, draw, first: (i * CHUNK) as u32, out })
        });
        self.draw = self.draw.wrapping_add(1);
        Ok(())
    }
}

struct Fill<'a> {
    seed: u64,
    draw: u64,
    first: u32,
    out: &'a mut [f32],
}

impl Kernel for Fill<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let mut first = self.first;
        for out in self.out.chunks_mut(S::LANES) {
            let (low, high) = (s.isplat(self.draw as i32), s.isplat((self.draw >> 32) as i32));
            let counter = [low, high, s.iadd(philox::iota(s), s.isplat(first as i32)), s.isplat(0)];
            let words = philox::rounds(s, counter, key);
            s.store_partial(normal(s, words[0], words[1]), out);
            first = first.wrapping_add(S::LANES as u32);
        }
    }
}

/// The words of 32 bits as f32, rounded once.
#[inline(always)]
fn to_f32<S: Simd>(s: S, w: S::I) -> S::F {
    let low = s.to_f32(s.iand(w, s.isplat(0xffff)));
    s.fma(s.to_f32(s.ishr::<16>(w)), s.splat(65_536.0), low)
}

/// The first of a pair of numbers by the method of Box and Muller: the one with the sine.
#[inline(always)]
fn normal<S: Simd>(s: S, w0: S::I, w1: S::I) -> S::F {
    let u = s.fma(to_f32(s, w0), s.splat(UNIT), s.splat(UNIT / 2.0));
    let v = s.fma(to_f32(s, w1), s.splat(ANGLE), s.splat(ANGLE / 2.0));
    let radius = s.sqrt(s.mul(s.splat(-2.0), math::log(s, u)));
    s.fma(radius, math::sincos(s, v).0, s.splat(0.0))
}

const UNIT: f32 = 1.0 / 4_294_967_296.0;
const ANGLE: f32 = std::f32::consts::TAU * UNIT;
