//! Random numbers as pure functions of (seed, purpose, draw, element).
//!
//! Every row of a batch has its own 64-bit seed, the key of a Philox4x32-10 generator. Block
//! `b` of a row's stream is the generator at the counter `[b, draw, purpose, 0]` and serves
//! elements `4b .. 4b + 4` in row-major order inside the row. So a number never depends on the
//! batch, the order of calls, the threads, the language or the machine.

mod categorical;
pub mod compat;
mod lanes;
mod philox;
#[cfg(test)]
mod tests;

use ndarray::{ArrayViewMut1, ArrayViewMut2, Axis};

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::threads;

pub use categorical::categorical;
use lanes::{Distribution, Normal, Uniform};
pub(crate) use lanes::{SHORT, normal_chunk, normal_rows, uniform_chunk, uniform_rows};
use philox::Stream;
pub use philox::philox4x32_10;

/// What a stream of random numbers is for; each purpose is a separate stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// The noise a sampler starts from.
    Initial = 0,
    /// Noise added by a step of a stochastic sampler.
    Step = 1,
    /// Noise that raises the noise level before a step (EDM churn, restart).
    Churn = 2,
    /// Noise for the known region in inpainting.
    Inpaint = 3,
    /// Acceptance tests (speculative decoding, Metropolis).
    Accept = 4,
    /// Gumbel noise of token samplers.
    Gumbel = 5,
    /// Draft tokens of speculative decoding.
    Draft = 6,
    /// Tokens redrawn from the residual distribution.
    Residual = 7,
    /// Brownian increments.
    Brownian = 8,
    /// Free for the caller.
    User = 9,
    /// Probe vectors of stochastic traces.
    Probe = 10,
    /// Exchanges between neighbouring temperatures.
    Exchange = 11,
}

/// Largest number of elements in a row: block indices are 32-bit.
pub(crate) const MAX_ELEMENTS: u64 = 1 << 34;

/// Elements a task fills at a time; a multiple of four.
const CHUNK: usize = 16 * 1024;

/// Uniform numbers in (0, 1): `out[r, e]` from `seeds[r]`, `out` being `[rows, elements]` with
/// any strides.
///
/// Element `e` is word `e % 4` of block `e / 4`: `u = (w + 1/2) / 2^32` rounded to f32, at most
/// `1 - 2^-24`.
///
/// ```
/// use dgm_core::random::{self, Purpose};
/// let mut u = ndarray::Array2::zeros((2, 5));
/// random::uniform(&[1, 2], Purpose::User as u32, 0, u.view_mut())?;
/// assert!(u.iter().all(|&u| 0.0 < u && u < 1.0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `seeds` and `out` disagree about the rows; [`Error::Overflow`] beyond
/// 2^34 elements a row.
pub fn uniform(seeds: &[u64], purpose: u32, draw: u32, out: ArrayViewMut2<f32>) -> Result<()> {
    generate(Uniform, seeds, purpose, draw, out)
}

/// Normal numbers of mean 0 and variance 1: `out[r, e]` from `seeds[r]`, `out` being
/// `[rows, elements]` with any strides.
///
/// Words 0 and 1 of a block give its elements 0 and 1, words 2 and 3 its elements 2 and 3
/// (Box and Muller): `r = sqrt(-2 ln u(w0))`, `r cos(2 pi w1 / 2^32)`, `r sin(2 pi w1 / 2^32)`.
/// Magnitudes reach 6.77.
///
/// ```
/// use dgm_core::random::{self, Purpose};
/// let mut batch = ndarray::Array2::zeros((2, 6));
/// random::normal(&[1, 2], Purpose::Initial as u32, 0, batch.view_mut())?;
/// let mut alone = ndarray::Array2::zeros((1, 6));
/// random::normal(&[2], Purpose::Initial as u32, 0, alone.view_mut())?;
/// assert_eq!(batch.row(1), alone.row(0));
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// As [`uniform`].
pub fn normal(seeds: &[u64], purpose: u32, draw: u32, out: ArrayViewMut2<f32>) -> Result<()> {
    generate(Normal, seeds, purpose, draw, out)
}

/// The first uniform number of a stream, with all 32 bits: `(w + 1/2) / 2^32`.
pub(crate) fn one_uniform(seed: u64, purpose: u32, draw: u32) -> f64 {
    let [w, ..] = Stream { seed, purpose, draw }.words(0);
    (f64::from(w) + 0.5) / 4_294_967_296.0
}

/// Seeds of the rows of a batch from one seed: row `r` gets `seed + r` (wrapping) passed
/// through the finaliser of SplitMix64, a bijection.
///
/// Batches whose seeds differ by less than their number of rows therefore share rows.
///
/// G. L. Steele, D. Lea, C. H. Flood, "Fast splittable pseudorandom number generators",
/// OOPSLA 2014 (finaliser: D. Stafford's mix 13).
///
/// ```
/// let seeds = dgm_core::random::row_seeds(7, 3);
/// assert_eq!(seeds[1..], dgm_core::random::row_seeds(8, 2));
/// ```
pub fn row_seeds(seed: u64, rows: usize) -> Vec<u64> {
    (0..rows as u64).map(|r| splitmix64_finaliser(seed.wrapping_add(r))).collect()
}

fn splitmix64_finaliser(z: u64) -> u64 {
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) fn check_seeds(seeds: &[u64], rows: usize) -> Result<()> {
    if seeds.len() == rows {
        return Ok(());
    }
    Err(Error::shape("seeds", &[seeds.len()], format!("[{rows}], one for each row")))
}

fn generate<D: Distribution>(
    d: D,
    seeds: &[u64],
    purpose: u32,
    draw: u32,
    mut out: ArrayViewMut2<f32>,
) -> Result<()> {
    let (rows, elements) = out.dim();
    check_seeds(seeds, rows)?;
    if elements as u64 > MAX_ELEMENTS {
        return Err(Error::Overflow { arg: "out", got: format!("{elements} elements a row, at most 2^34") });
    }
    let work = D::COST.saturating_mul(out.len() as u64);
    if (1..=SHORT).contains(&elements)
        && let Some(out) = out.as_slice_mut()
    {
        let rows = CHUNK / elements;
        let tasks = seeds.chunks(rows).zip(out.chunks_mut(rows * elements));
        threads::for_each(tasks, work, |(seeds, out)| {
            dispatch(FillRows { d, seeds, stream: [purpose, draw], elements, out });
        });
        return Ok(());
    }
    threads::for_each(Pieces::new(out), work, |(row, first_element, out)| {
        let stream = Stream { seed: seeds[row], purpose, draw };
        dispatch(Fill { d, stream, first_element, out });
    });
    Ok(())
}

/// Cuts a `[rows, elements]` view into stretches of a row: (row, first element, stretch).
struct Pieces<'a> {
    /// Rows not yet begun.
    rows: ArrayViewMut2<'a, f32>,
    /// What is left of the current row, `[1, n]`.
    current: Option<ArrayViewMut2<'a, f32>>,
    row: usize,
    element: usize,
}

impl<'a> Pieces<'a> {
    fn new(out: ArrayViewMut2<'a, f32>) -> Self {
        Pieces { rows: out, current: None, row: 0, element: 0 }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (usize, usize, ArrayViewMut1<'a, f32>);

    fn next(&mut self) -> Option<Self::Item> {
        let empty = || ArrayViewMut2::from_shape((0, 0), &mut []).ok();
        let current = match self.current.take() {
            Some(rest) => rest,
            None if self.rows.nrows() == 0 => return None,
            None => {
                let rows = std::mem::replace(&mut self.rows, empty()?);
                let (first, rest) = rows.split_at(Axis(0), 1);
                self.rows = rest;
                first
            }
        };
        let (row, element) = (self.row, self.element);
        let len = current.ncols().min(CHUNK);
        let (piece, rest) = current.split_at(Axis(1), len);
        if rest.ncols() > 0 {
            self.current = Some(rest);
            self.element += len;
        } else {
            (self.row, self.element) = (row + 1, 0);
        }
        Some((row, element, piece.index_axis_move(Axis(0), 0)))
    }
}

/// Rows of few elements, adjacent.
struct FillRows<'a, D> {
    d: D,
    seeds: &'a [u64],
    stream: [u32; 2],
    elements: usize,
    out: &'a mut [f32],
}

impl<D: Distribution> Kernel for FillRows<'_, D> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        lanes::fill_rows(s, self.d, self.seeds, self.stream, self.elements, self.out);
    }
}

struct Fill<'a, D> {
    d: D,
    stream: Stream,
    first_element: usize,
    out: ArrayViewMut1<'a, f32>,
}

impl<D: Distribution> Kernel for Fill<'_, D> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        if let Some(out) = self.out.as_slice_mut() {
            return lanes::fill(s, self.d, self.stream, self.first_element, out);
        }
        let mut buffer = [0.0; 256];
        let mut first = self.first_element;
        for mut out in self.out.axis_chunks_iter_mut(Axis(0), buffer.len()) {
            let numbers = &mut buffer[..out.len()];
            lanes::fill(s, self.d, self.stream, first, numbers);
            out.iter_mut().zip(numbers).for_each(|(o, n)| *o = *n);
            first += out.len();
        }
    }
}
