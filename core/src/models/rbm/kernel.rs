//! The arithmetic of units: probabilities, draws, energies.

use crate::arch::{Kernel, Simd};
use crate::math;
use crate::random::{Purpose, SHORT, uniform_chunk, uniform_rows};

/// Uniform numbers at a time: whole rows of them where rows are short, and a multiple of four.
const NOISE: usize = 1024;

/// What the units of a layer sum up becomes the probability that they are on, in place.
pub(super) struct Probabilities<'a>(pub &'a mut [f32]);

impl Kernel for Probabilities<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for x in self.0.chunks_mut(S::LANES) {
            s.store_partial(math::sigmoid(s, s.load_partial(x, 0.0)), x);
        }
    }
}

/// What the units of a layer sum up, `[rows, width]`, becomes units drawn on or off, in place.
pub(super) struct Draw<'a> {
    pub units: &'a mut [f32],
    pub width: usize,
    /// A seed a row.
    pub seeds: &'a [u64],
    pub draw: u32,
    /// Inverse temperatures of a ladder, and which of them is the first row's.
    pub ladder: &'a [f32],
    pub first: usize,
}

impl Kernel for Draw<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Draw { units, width, seeds, draw, ladder, first } = self;
        let purpose = Purpose::Step as u32;
        let mut noise = [0.0; NOISE];
        let mut betas = ladder.iter().cycle().skip(first);
        if width <= SHORT {
            let rows = NOISE / width;
            for (units, seeds) in units.chunks_mut(rows * width).zip(seeds.chunks(rows)) {
                let noise = &mut noise[..units.len()];
                uniform_rows(s, seeds, purpose, draw, width, noise);
                for (units, noise) in units.chunks_exact_mut(width).zip(noise.chunks_exact(width)) {
                    switch(s, next(&mut betas), noise, units);
                }
            }
            return;
        }
        for (units, seed) in units.chunks_exact_mut(width).zip(seeds) {
            let beta = next(&mut betas);
            let mut first = 0;
            for units in units.chunks_mut(NOISE) {
                let noise = &mut noise[..units.len()];
                uniform_chunk(s, *seed, purpose, draw, first, noise);
                switch(s, beta, noise, units);
                first += NOISE;
            }
        }
    }
}

#[inline(always)]
fn next<'a>(betas: &mut impl Iterator<Item = &'a f32>) -> f32 {
    // A ladder has a temperature at least.
    *betas.next().unwrap_or(&1.0)
}

/// Units are on where their uniform number is below their probability.
#[inline(always)]
fn switch<S: Simd>(s: S, beta: f32, noise: &[f32], units: &mut [f32]) {
    for (u, x) in noise.chunks(S::LANES).zip(units.chunks_mut(S::LANES)) {
        let p = math::sigmoid(s, s.mul(s.load_partial(x, 0.0), s.splat(beta)));
        let on = s.lt(s.load_partial(u, 0.0), p);
        s.store_partial(s.select(on, s.splat(1.0), s.splat(0.0)), x);
    }
}

/// `sum_i bias_i units_i`, in rising i.
fn biased(bias: &[f32], units: &[f32]) -> f64 {
    bias.iter().zip(units).fold(0.0, |sum, (b, x)| sum + f64::from(*b) * f64::from(*x))
}

/// `-b v - sum_j ln(1 + e^x_j)`, x what the hidden units sum up.
pub(super) fn free_energy(bias: &[f32], visible: &[f32], sums: &[f32]) -> f64 {
    let mut total = biased(bias, visible);
    for x in sums {
        let x = f64::from(*x);
        // Of a large x e^x would be infinite.
        total += if x > 0.0 { x + libm::log1p(libm::exp(-x)) } else { libm::log1p(libm::exp(x)) };
    }
    -total
}

/// `-b v - sum_j h_j x_j`.
pub(super) fn energy(bias: &[f32], visible: &[f32], sums: &[f32], hidden: &[f32]) -> f64 {
    let linear = biased(bias, visible);
    -(linear + biased(sums, hidden))
}
