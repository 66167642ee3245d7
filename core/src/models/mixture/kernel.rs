//! The arithmetic of a mixture, row by row.

use super::level::Level;
use crate::arch::{Kernel, Simd, dispatch};
use crate::math;

/// Lanes of the widest vector.
const WIDE: usize = 16;
/// Dimensions that are columns at a time, so that a row may have any number of them.
const TILE: usize = 64;
/// Terms smaller than the greatest by this power of e: a million of them are less than 5e-12 of it.
const FAR: f64 = -40.0;

/// Scratch of the evaluations of one thread.
#[derive(Debug, Default)]
pub(super) struct Kernels {
    floats: Vec<f32>,
    logits: Vec<f64>,
}

impl Kernels {
    /// Answers rows `[rows, D]`.
    pub(super) fn predict(&mut self, level: &Level, x: &[f32], out: &mut [f32]) {
        let len = scratch_len(level.heights.len());
        if self.floats.len() < len {
            self.floats.resize(len, 0.0);
        }
        dispatch(Answer { level, x, out, scratch: &mut self.floats[..len] });
    }

    /// The log density of every row, in f64: components in order, the greatest first found.
    pub(super) fn log_density(&mut self, level: &Level, x: &[f32], out: &mut [f64]) {
        for (x, out) in x.chunks_exact(level.dims).zip(out) {
            self.logits.clear();
            for (height, parts) in level.log_heights.iter().zip(level.exact.chunks_exact(level.dims)) {
                let mut square = 0.0;
                for (x, [mean, inverse]) in x.iter().zip(parts) {
                    let d = f64::from(*x) - mean;
                    square += d * d * inverse;
                }
                self.logits.push(height - 0.5 * square);
            }
            let most =
                self.logits.iter().fold(f64::NEG_INFINITY, |most, l| if *l > most { *l } else { most });
            let mut sum = 0.0;
            for logit in &self.logits {
                let below = logit - most;
                // Also where it is no number: then the sum must be none.
                if below.is_nan() || below > FAR {
                    sum += libm::exp(below);
                }
            }
            *out = most + libm::log(sum);
        }
    }
}

/// Floats of scratch: columns of a vector of rows, those of the answers, the components' shares.
fn scratch_len(components: usize) -> usize {
    (2 * TILE + components) * WIDE
}

struct Answer<'a> {
    level: &'a Level,
    x: &'a [f32],
    out: &'a mut [f32],
    scratch: &'a mut [f32],
}

impl Kernel for Answer<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Answer { level, x, out, scratch } = self;
        let dims = level.dims;
        let size = S::LANES * dims;
        for (x, out) in x.chunks(size).zip(out.chunks_mut(size)) {
            answer(s, level, x, out, scratch);
        }
    }
}

/// `width` dimensions from `first` on of some rows `[rows, D]`, at most a vector of them, become columns, `WIDE`
/// elements apart. Lanes beyond the last row hold it again: numbers like the others.
#[inline(always)]
fn to_columns<S: Simd>(s: S, dims: usize, rows: &[f32], first: usize, width: usize, columns: &mut [f32]) {
    if rows.len() == S::LANES * dims && dims == 1 {
        return s.store(s.load(rows), columns);
    }
    if rows.len() == S::LANES * dims && dims == 2 {
        let [a, b] = s.load_twos(rows);
        s.store(a, columns);
        return s.store(b, &mut columns[WIDE..]);
    }
    let last = rows.len() / dims - 1;
    for lane in 0..S::LANES {
        let row = &rows[lane.min(last) * dims + first..][..width];
        for (d, x) in row.iter().enumerate() {
            columns[d * WIDE + lane] = *x;
        }
    }
}

/// The other way, of as many rows as there are.
#[inline(always)]
fn to_rows<S: Simd>(s: S, dims: usize, columns: &[f32], first: usize, width: usize, rows: &mut [f32]) {
    if rows.len() == S::LANES * dims && dims == 1 {
        return s.store(s.load(columns), rows);
    }
    if rows.len() == S::LANES * dims && dims == 2 {
        return s.store_twos([s.load(columns), s.load(&columns[WIDE..])], rows);
    }
    for (lane, row) in rows.chunks_exact_mut(dims).enumerate() {
        for (d, x) in row[first..first + width].iter_mut().enumerate() {
            *x = columns[d * WIDE + lane];
        }
    }
}

/// A vector of rows, tiles of dimensions after one another: the components' logarithms in base 2, their shares, then
/// every dimension.
#[inline(always)]
fn answer<S: Simd>(s: S, level: &Level, x: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    let dims = level.dims;
    let (columns, scratch) = scratch.split_at_mut(TILE * WIDE);
    let (answers, shares) = scratch.split_at_mut(TILE * WIDE);
    for (height, share) in level.heights.iter().zip(shares.chunks_exact_mut(WIDE)) {
        s.store(s.splat(*height), share);
    }
    let mut first = 0;
    while first < dims {
        let width = TILE.min(dims - first);
        to_columns(s, dims, x, first, width, columns);
        let components = level.parts.chunks_exact(dims).zip(shares.chunks_exact_mut(WIDE));
        for (parts, share) in components {
            let mut logit = s.load(share);
            for (part, x) in parts[first..first + width].iter().zip(columns.chunks_exact(WIDE)) {
                let u = s.mul(s.sub(s.load(x), s.splat(part.mean)), s.splat(part.scale));
                logit = s.fma(s.neg(u), u, logit);
            }
            s.store(logit, share);
        }
        first += width;
    }
    let mut most = s.splat(f32::NEG_INFINITY);
    for share in shares.chunks_exact(WIDE) {
        most = s.max(s.load(share), most);
    }
    let mut sum = s.splat(0.0);
    for share in shares.chunks_exact_mut(WIDE) {
        let p = math::exp2(s, s.sub(s.load(share), most));
        s.store(p, share);
        sum = s.add(sum, p);
    }
    let mut first = 0;
    while first < dims {
        let width = TILE.min(dims - first);
        // Of one tile they still stand there.
        if dims > TILE {
            to_columns(s, dims, x, first, width, columns);
        }
        for (d, (x, answer)) in
            columns.chunks_exact(WIDE).zip(answers.chunks_exact_mut(WIDE)).take(width).enumerate()
        {
            let x = s.load(x);
            let mut y = s.splat(0.0);
            let mut at = first + d;
            for share in shares.chunks_exact(WIDE) {
                let part = &level.parts[at];
                let v = s.fma(s.sub(x, s.splat(part.mean)), s.splat(part.slope), s.splat(part.offset));
                y = s.fma(s.load(share), v, y);
                at += dims;
            }
            s.store(s.div(y, sum), answer);
        }
        to_rows(s, dims, answers, first, width, out);
        first += width;
    }
}

#[cfg(test)]
mod tests {
    use super::super::GaussianMixture;
    use super::*;
    use crate::arch::{available_levels, dispatch_at};
    use crate::sampling::Prediction;

    #[test]
    fn every_level_gives_the_same_bits() {
        for dims in [1, 2, 3, 5, 2 * TILE + 1] {
            let means: Vec<f64> = (0..7 * dims).map(|i| libm::sin(i as f64 * 1.7) * 3.0).collect();
            let mixture =
                GaussianMixture::new(&[1.0, 2.0, 3.0, 0.1, 1.0, 1.0, 0.5], &means, &[0.3; 7]).unwrap();
            let mut level = Level::default();
            level.set(&mixture, Prediction::V, 0.6, 0.8, 1.0).unwrap();
            let x: Vec<f32> = (0..53 * dims).map(|i| (i as f32 * 0.37).rem_euclid(9.0) - 4.5).collect();
            let mut all = available_levels().into_iter().map(|isa| {
                let (mut out, mut scratch) = (vec![0.0; x.len()], vec![0.0; scratch_len(7)]);
                dispatch_at(isa, Answer { level: &level, x: &x, out: &mut out, scratch: &mut scratch });
                out.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
            });
            let first = all.next().unwrap();
            assert!(all.all(|other| other == first));
        }
    }
}
