//! The gradient of the log likelihood, estimated by chains.

use ndarray::{ArrayView2, ArrayViewMut2, s};

use super::kernel::Probabilities;
use super::{Rbm, Units, apart, check_units, units};
use crate::arch::{Kernel, Matrix, Simd, Store, dispatch, multiply};
use crate::error::{Error, Result, check_shape, zeros};
use crate::linalg::{Activation, linear};
use crate::threads;

/// Rows whose products are added up before they enter the mean: part of the definition.
const TILE: usize = 256;
/// Hidden units are padded to this many.
const LANES: usize = 32;
/// Visible units a task, and the numbers of scratch memory (4 MiB) that make it fewer.
const STRIP: usize = 24;
const MOST_SCRATCH: usize = 1 << 20;

/// Rows of data or of chains: some of them, with the probabilities of their hidden units.
struct Side {
    /// `[TILE, padded]`, zeros beyond the hidden units.
    p: Vec<f32>,
    rows: usize,
    /// 1 / rows of all.
    scale: f32,
    /// Sums of visible and of hidden units.
    sums: [Vec<f64>; 2],
}

impl Rbm {
    /// The gradient of the mean log likelihood of `v_data`, the expectations under the machine being those of
    /// `v_chain`: `mean(v p(h | v)) - mean(v' p(h | v'))`, and of v and p alone for the biases. Adding it, times a
    /// learning rate, raises the likelihood.
    ///
    /// With chains of [`gibbs`](Rbm::gibbs) that begin at the data and take k steps it is CD-k (Hinton 2002), with
    /// chains that are kept from one update to the next PCD (T. Tieleman, ICML 2008), with the coldest rows of ladders
    /// that of parallel tempering; the example of [`Rbm`] runs the first.
    ///
    /// * `v_data` `[n, V]`, `v_chain` `[m, V]`: numbers from 0 to 1, row-major contiguous, n and m at least 1.
    /// * `weights` `[V, H]`, row-major contiguous, `visible_bias` `[V]`, `hidden_bias` `[H]` receive the gradient.
    ///
    /// Products are summed 256 rows at a time and these sums in the order of the rows, whatever the number of threads.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`], [`Error::Range`] or [`Error::Overflow`] naming the argument; nothing is
    /// then written.
    pub fn cd_gradient(
        &self,
        v_data: ArrayView2<f32>,
        v_chain: ArrayView2<f32>,
        mut weights: ArrayViewMut2<f32>,
        visible_bias: &mut [f32],
        hidden_bias: &mut [f32],
    ) -> Result<()> {
        let (visible, hidden) = (self.visible(), self.hidden());
        for (arg, v) in [("v_data", v_data), ("v_chain", v_chain)] {
            if v.nrows() == 0 {
                return Err(Error::shape(arg, v.shape(), format!("[rows, {visible}], at least one row")));
            }
            check_units(arg, units(arg, v, visible)?, visible, Units::Any)?;
        }
        check_shape("weights", weights.shape(), &[visible, hidden])?;
        check_shape("visible_bias", &[visible_bias.len()], &[visible])?;
        check_shape("hidden_bias", &[hidden_bias.len()], &[hidden])?;
        let weights = weights.as_slice_mut().ok_or_else(|| apart("weights"))?;
        let padded = hidden.next_multiple_of(LANES);
        let side = |arg, rows: usize| -> Result<Side> {
            let len = padded.checked_mul(TILE.min(rows));
            let len = len.ok_or_else(|| Error::Overflow { arg, got: format!("{hidden} hidden units") })?;
            let sums = [vec![0.0; visible], vec![0.0; hidden]];
            Ok(Side { p: zeros(arg, len)?, rows: 0, scale: (1.0 / rows as f64) as f32, sums })
        };
        let mut sides = [side("v_data", v_data.nrows())?, side("v_chain", v_chain.nrows())?];
        weights.fill(0.0);
        for first in (0..v_data.nrows().max(v_chain.nrows())).step_by(TILE) {
            let part = |v: ArrayView2<'_, f32>| {
                let begin = first.min(v.nrows());
                begin..v.nrows().min(first + TILE)
            };
            let tiles = [v_data.slice_move(s![part(v_data), ..]), v_chain.slice_move(s![part(v_chain), ..])];
            for (side, v) in sides.iter_mut().zip(tiles) {
                self.look(side, v)?;
            }
            let sides = &sides;
            let work = 4 * weights.len() as u64 * tiles[0].nrows().max(tiles[1].nrows()) as u64;
            let size = (MOST_SCRATCH / 2 / padded).clamp(1, STRIP);
            let strips = weights.chunks_mut(size * hidden).enumerate();
            threads::for_each(strips, work, |(strip, out)| {
                threads::with_scratch(2 * size * padded, |room| {
                    dispatch(Products { tiles, sides, first: strip * size, hidden, padded, out, room });
                });
            });
        }
        let counts = [v_data.nrows() as f64, v_chain.nrows() as f64];
        for (layer, out) in [visible_bias, hidden_bias].into_iter().enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                *out = (sides[0].sums[layer][i] / counts[0] - sides[1].sums[layer][i] / counts[1]) as f32;
            }
        }
        Ok(())
    }

    /// The hidden units of a tile, and the sums of both layers.
    fn look(&self, side: &mut Side, v: ArrayView2<f32>) -> Result<()> {
        let padded = self.hidden().next_multiple_of(LANES);
        side.rows = v.nrows();
        let p = &mut side.p[..side.rows * padded];
        let view = ArrayViewMut2::from_shape((side.rows, padded), &mut *p)
            .map_err(|e| Error::Internal(format!("a tile of hidden units: {e}")))?;
        linear(v, &self.up, Activation::None, view.slice_move(s![.., ..self.hidden()]))?;
        for (v, p) in v.rows().into_iter().zip(p.chunks_exact_mut(padded)) {
            let p = &mut p[..self.hidden()];
            dispatch(Probabilities(p));
            side.sums[0].iter_mut().zip(v).for_each(|(sum, x)| *sum += f64::from(*x));
            side.sums[1].iter_mut().zip(p).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        Ok(())
    }
}

/// Adds a tile of data and of chains to the weights of some visible units.
struct Products<'a> {
    tiles: [ArrayView2<'a, f32>; 2],
    sides: &'a [Side; 2],
    /// The first visible unit.
    first: usize,
    hidden: usize,
    padded: usize,
    /// `[strip, hidden]`
    out: &'a mut [f32],
    /// Twice `[strip, padded]`.
    room: &'a mut [f32],
}

impl Kernel for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Products { tiles, sides, first, hidden, padded, out, room } = self;
        let strip = out.len() / hidden;
        let (data, chain) = room.split_at_mut(room.len() / 2);
        product(s, tiles[0], &sides[0], first, strip, padded, data);
        product(s, tiles[1], &sides[1], first, strip, padded, chain);
        let rows = data.chunks_exact(padded).zip(chain.chunks_exact(padded));
        let scales = [s.splat(sides[0].scale), s.splat(sides[1].scale)];
        for ((data, chain), out) in rows.zip(out.chunks_exact_mut(hidden)) {
            let products = data.chunks_exact(S::LANES).zip(chain.chunks_exact(S::LANES));
            for ((data, chain), out) in products.zip(out.chunks_mut(S::LANES)) {
                let (data, chain) = (s.mul(s.load(data), scales[0]), s.mul(s.load(chain), scales[1]));
                s.store_partial(s.add(s.load_partial(out, 0.0), s.sub(data, chain)), out);
            }
        }
    }
}

/// `room[i][j] = sum over the tile's rows of v[row][first + i] p[row][j]`.
#[inline(always)]
fn product<S: Simd>(
    s: S,
    v: ArrayView2<f32>,
    side: &Side,
    first: usize,
    strip: usize,
    padded: usize,
    room: &mut [f32],
) {
    let v = Matrix::new(v).slice_cols(first, strip).transposed();
    multiply(
        s,
        v,
        &side.p[..side.rows * padded],
        padded,
        &mut Store { to: room, width: padded, factor: None },
    );
}
