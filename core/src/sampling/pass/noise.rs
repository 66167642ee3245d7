//! Normals of a pass.

use super::super::table::{Draw, Operand};
use crate::arch::{Kernel, Simd, dispatch};
use crate::random::{Purpose, normal_chunk};

/// Where the normals of a row come from.
pub(super) struct Noise<'a> {
    pub seed: u64,
    pub step: u32,
    pub draws: &'a [Draw],
}

/// Normals of a draw from an element on. A kernel of its own: their many constants are no burden of passes without.
struct Normals<'a> {
    seed: u64,
    purpose: Purpose,
    number: u32,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Normals<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        normal_chunk(s, self.seed, self.purpose as u32, self.number, self.first, self.out);
    }
}

impl Noise<'_> {
    /// Fills `out` with normals from `first` on; `part` is scratch of the same length.
    #[inline(never)]
    pub(super) fn fill(&self, operand: Operand, first: usize, out: &mut [f32], part: &mut [f32]) {
        let seed = self.seed;
        let draw = match operand {
            Operand::Draw(i) => &self.draws[i as usize],
            _ => &Draw::One { purpose: Purpose::Step, number: self.step },
        };
        match draw {
            &Draw::One { purpose, number } => dispatch(Normals { seed, purpose, number, first, out }),
            Draw::Path(parts) => {
                out.fill(0.0);
                for &(number, weight) in parts {
                    dispatch(Normals { seed, purpose: Purpose::Brownian, number, first, out: &mut *part });
                    dispatch(Increment { weight: weight as f32, part, out });
                }
            }
        }
    }
}

/// `out += weight part`
struct Increment<'a> {
    weight: f32,
    part: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for Increment<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (o, p) in self.out.iter_mut().zip(self.part) {
            *o = p.mul_add(self.weight, *o);
        }
    }
}
