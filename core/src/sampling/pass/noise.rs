//! Normals of a pass.

use super::super::table::{Draw, Operand};
use crate::arch::{Kernel, Simd, dispatch};
use crate::random::{Purpose, normal_chunk, normal_rows};

/// Where the normals come from: those of one row, or of several short ones.
pub(super) struct Noise<'a> {
    pub seeds: &'a [u64],
    /// Elements of a row.
    pub elements: usize,
    pub step: u32,
    pub draws: &'a [Draw],
}

/// Normals of a draw from an element on, which is the first of its row where there are several. A kernel of its own:
/// their many constants are no burden of passes without.
struct Normals<'a> {
    seeds: &'a [u64],
    elements: usize,
    purpose: Purpose,
    number: u32,
    first: usize,
    out: &'a mut [f32],
}

impl Kernel for Normals<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Normals { seeds, elements, purpose, number, first, out } = self;
        match seeds {
            [seed] => normal_chunk(s, *seed, purpose as u32, number, first, out),
            _ => normal_rows(s, &seeds[first / elements..], purpose as u32, number, elements, out),
        }
    }
}

impl Noise<'_> {
    /// Fills `out` with normals from `first` on; `part` is scratch of the same length.
    #[inline(never)]
    pub(super) fn fill(&self, operand: Operand, first: usize, out: &mut [f32], part: &mut [f32]) {
        let (seeds, elements) = (self.seeds, self.elements);
        let draw = match operand {
            Operand::Draw(i) => &self.draws[i as usize],
            _ => &Draw::One { purpose: Purpose::Step, number: self.step },
        };
        match draw {
            &Draw::One { purpose, number } => {
                dispatch(Normals { seeds, elements, purpose, number, first, out })
            }
            Draw::Path(parts) => {
                out.fill(0.0);
                for &(number, weight) in parts {
                    let purpose = Purpose::Brownian;
                    dispatch(Normals { seeds, elements, purpose, number, first, out: &mut *part });
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
