//! Numbers measured over whole rows between two passes: products for guidance, quantiles for
//! thresholding. Everything in f64 and in one fixed order.

use super::pass::CHUNK;
use super::table::Measure;
use crate::arch::{Kernel, Simd, dispatch};
use crate::threads;

/// What [`Scale::Row`](super::table::Scale::Row) picks from.
pub(super) type Numbers = [f64; 2];

/// Sums over a row.
#[derive(Debug, Clone, Copy, Default)]
struct Sums {
    a: f64,
    b: f64,
    aa: f64,
    ab: f64,
    bb: f64,
}

const SUMS: usize = 5;
const LANES: usize = 32;
/// Chunks a task has.
const TASK: usize = 16;

/// The numbers of every row, `a` and `b` being `[rows, elements]`.
pub(super) fn rows(what: Measure, a: &[f32], b: &[f32], elements: usize) -> Vec<Numbers> {
    let chunks = elements.div_ceil(CHUNK);
    let count = a.len() / elements;
    let mut parts = vec![[0.0; SUMS]; count * chunks];
    let tasks = parts.chunks_mut(chunks).enumerate().flat_map(|(row, parts)| {
        parts.chunks_mut(TASK).enumerate().map(move |(i, parts)| (row * elements, i * TASK * CHUNK, parts))
    });
    threads::for_each(tasks, (a.len() as u64).saturating_mul(10), |(row, first, parts)| {
        for (i, part) in parts.iter_mut().enumerate() {
            let at = first + i * CHUNK;
            let range = row + at..row + elements.min(at + CHUNK);
            *part = dispatch(Products { a: &a[range.clone()], b: &b[range] });
        }
    });
    parts.chunks(chunks).map(|parts| numbers(what, &total(parts), elements as f64)).collect()
}

/// The sum of the squares of a row.
pub(super) fn squares(x: &[f32]) -> f64 {
    let parts: Vec<_> = x.chunks(CHUNK).map(|x| dispatch(Products { a: x, b: x })).collect();
    total(&parts).aa
}

/// Chunk sums in rising order.
fn total(parts: &[[f64; SUMS]]) -> Sums {
    let mut t = [0.0; SUMS];
    for part in parts {
        t.iter_mut().zip(part).for_each(|(t, p)| *t += p);
    }
    Sums { a: t[0], b: t[1], aa: t[2], ab: t[3], bb: t[4] }
}

fn numbers(what: Measure, s: &Sums, n: f64) -> Numbers {
    match what {
        Measure::Rescale { g, phi } => {
            let variance = |square: f64, sum: f64| (square - sum * sum / n).max(0.0);
            let guided = g * g * s.aa + 2.0 * g * (1.0 - g) * s.ab + (1.0 - g) * (1.0 - g) * s.bb;
            let (c, m) = (variance(s.aa, s.a), variance(guided, g * s.a + (1.0 - g) * s.b));
            // Outputs without any deviation have nothing to rescale.
            let ratio = if m > 0.0 { libm::sqrt(c / m) } else { 1.0 };
            [1.0 - phi + phi * ratio, 0.0]
        }
        Measure::Project => [s.ab / (s.bb + 1e-8), 0.0],
        Measure::Langevin { snr } => {
            // Longer steps than sigma^2 would leave the level; 1 also where eps is 0.
            let q = (2.0 * snr * snr * n / s.aa).min(1.0);
            let q = if s.aa > 0.0 { q } else { 1.0 };
            [q, libm::sqrt(2.0 * q)]
        }
        Measure::Adaptive { g, eta, norm } => {
            let length = libm::sqrt(s.aa);
            let keep = if norm > 0.0 && length > norm { norm / length } else { 1.0 };
            let along = if s.bb > 0.0 { s.ab / s.bb } else { 0.0 };
            [(g - 1.0) * keep, 1.0 - (g - 1.0) * (1.0 - eta) * keep * along]
        }
    }
}

/// The five sums of a chunk: lane = index mod 32 in rising order, then halving.
struct Products<'a> {
    a: &'a [f32],
    b: &'a [f32],
}

impl Kernel for Products<'_> {
    type Output = [f64; SUMS];

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> [f64; SUMS] {
        let mut lanes = [[0.0f64; LANES]; SUMS];
        for (a, b) in self.a.chunks(LANES).zip(self.b.chunks(LANES)) {
            for (i, (&a, &b)) in a.iter().zip(b).enumerate() {
                let (a, b) = (f64::from(a), f64::from(b));
                lanes[0][i] += a;
                lanes[1][i] += b;
                // Products of two f32 are exact in f64, so contraction changes nothing.
                lanes[2][i] += a * a;
                lanes[3][i] += a * b;
                lanes[4][i] += b * b;
            }
        }
        lanes.map(|mut lane| {
            let mut width = LANES / 2;
            while width > 0 {
                for i in 0..width {
                    lane[i] += lane[i + width];
                }
                width /= 2;
            }
            lane[0]
        })
    }
}

/// `x = clip(x, -s, s) / s` for every row, `s` being the `ratio` quantile of |x| (linear between
/// order statistics), at least 1 and
/// then at most `most` (Saharia 2022).
pub(super) fn threshold(x: &mut [f32], elements: usize, ratio: f64, most: f64, active: &[bool]) {
    let work = (x.len() as u64).saturating_mul(20);
    let rows = x.chunks_mut(elements).enumerate();
    let rows = rows.filter(|(row, _)| active.get(*row).is_none_or(|active| *active));
    threads::for_each(rows, work, |(_, row)| {
        let mut sizes: Vec<f32> = row.iter().map(|v| v.abs()).collect();
        let place = ratio * (elements - 1) as f64;
        let index = (place as usize).min(elements - 1);
        let (_, &mut low, above) = sizes.select_nth_unstable_by(index, f32::total_cmp);
        let high = above.iter().copied().min_by(f32::total_cmp).unwrap_or(low);
        let fraction = place - index as f64;
        let quantile = f64::from(low) + fraction * (f64::from(high) - f64::from(low));
        let bound = quantile.max(1.0).min(most) as f32;
        row.iter_mut().for_each(|v| *v = v.clamp(-bound, bound) / bound);
    });
}
