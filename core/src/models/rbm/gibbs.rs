//! Block Gibbs sampling.

use ndarray::ArrayViewMut2;

use super::kernel::Draw;
use super::{Rbm, Units, apart, block_rows, check_units, share};
use crate::arch::dispatch;
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, linear_rows};
use crate::random::check_seeds;
use crate::threads;

/// Steps end here: each has two draws of a stream, one a layer.
const LAST_STEP: u64 = 1 << 31;

/// Some rows and what belongs to them.
struct Block<'a> {
    v: &'a mut [f32],
    seeds: &'a [u64],
    hidden: Option<&'a mut [f32]>,
}

impl Rbm {
    /// Walks chains: a step draws `h` given `v`, then `v` given `h`.
    ///
    /// * `v` `[rows, V]`, 0 or 1, row-major contiguous, in place: a chain a row.
    /// * `seeds` `[rows]`: step `n` of a row is a function of its seed, n, its v and its temperature alone, so 3 and
    ///   then 4 steps are 7, a row alone is the row among thousands, and chains that go on with another machine (PCD)
    ///   go on with the next steps.
    /// * `first_step`, `steps`: their sum is at most 2^31.
    /// * `inverse_temperatures` `[T]`, finite in f32, not negative: row `r` is drawn from `p^beta`, normalised, with
    ///   `beta = inverse_temperatures[r mod T]`, that is with weights and both biases times beta; T divides the rows.
    ///   None of them means 1 for all. Rows that belong together, `[ladders, T, V]`, are the ladders of parallel
    ///   tempering (G. Desjardins et al., AISTATS 2010; K. Cho et al., IJCNN 2010).
    /// * `hidden` `[rows, H]`, row-major contiguous, receives the `h` from which the last v was drawn; then `steps` is
    ///   at least 1.
    ///
    /// ```
    /// use dgm_core::{models::Rbm, random::row_seeds, sampling::replica_exchange};
    /// use ndarray::{Array2, array};
    /// // Two ladders of three temperatures, coldest first.
    /// let rbm = Rbm::new(array![[3.0f32, -1.0], [3.0, 2.0]].view(), &[-2.0, -2.0], &[-1.0, 0.0])?;
    /// let (betas, seeds) = ([1.0, 0.5, 0.0], row_seeds(1, 6));
    /// let (mut v, mut h) = (Array2::zeros((6, 2)), Array2::zeros((6, 2)));
    /// let (mut log_density, mut accepted) = ([0.0; 6], [false; 4]);
    /// for step in 0..20 {
    ///     rbm.gibbs(v.view_mut(), &seeds, step, 1, &betas, Some(h.view_mut()))?;
    ///     rbm.energy(v.view(), h.view(), &mut log_density)?;
    ///     log_density.iter_mut().for_each(|e| *e = -*e);
    ///     replica_exchange(v.view_mut(), &mut log_density, &betas, &seeds, step, &mut accepted)?;
    /// }
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`] or [`Error::Range`] naming the argument; nothing is then changed.
    pub fn gibbs(
        &self,
        mut v: ArrayViewMut2<f32>,
        seeds: &[u64],
        first_step: u32,
        steps: u32,
        inverse_temperatures: &[f64],
        hidden: Option<ArrayViewMut2<f32>>,
    ) -> Result<()> {
        let rows = v.nrows();
        if v.ncols() != self.visible() {
            return Err(Error::shape("v", v.shape(), format!("[rows, {}]", self.visible())));
        }
        let v = v.as_slice_mut().ok_or_else(|| apart("v"))?;
        check_seeds(seeds, rows)?;
        if u64::from(first_step) + u64::from(steps) > LAST_STEP {
            let got = format!("{steps} after the first {first_step}");
            return Err(Error::range("steps", got, "steps that end at 2^31"));
        }
        check_ladder(inverse_temperatures, rows)?;
        let mut hidden = hidden;
        let hidden = match &mut hidden {
            None => None,
            Some(_) if steps == 0 => {
                return Err(Error::range("steps", 0, "at least 1 where hidden is wanted"));
            }
            Some(h) => {
                check_shape("hidden", h.shape(), &[rows, self.hidden()])?;
                Some(h.as_slice_mut().ok_or_else(|| apart("hidden"))?)
            }
        };
        check_units("v", v, self.visible(), Units::OnOrOff)?;
        let ladder: Vec<f32> = match inverse_temperatures {
            [] => vec![1.0],
            all => all.iter().map(|b| *b as f32).collect(),
        };
        let units = self.hidden();
        let size = block_rows(rows, units);
        let mut all_hidden = hidden.map(|h| h.chunks_mut(size * units));
        let blocks = v.chunks_mut(size * self.visible()).zip(seeds.chunks(size));
        let blocks = blocks.map(|(v, seeds)| {
            let hidden = all_hidden.as_mut().and_then(|h| h.next());
            Block { v, seeds, hidden }
        });
        let work = (rows as u64)
            .saturating_mul(4 * self.visible() as u64 + 64)
            .saturating_mul(units as u64)
            .saturating_mul(u64::from(steps));
        share(rows <= size, blocks.enumerate(), work, |(block, Block { v, seeds, hidden })| {
            let first = block * size % ladder.len();
            match hidden {
                Some(h) => self.walk(v, h, seeds, first_step, steps, &ladder, first),
                None => threads::with_scratch(seeds.len() * units, |h| {
                    self.walk(v, h, seeds, first_step, steps, &ladder, first);
                }),
            }
        });
        Ok(())
    }

    /// All steps of some rows, the first of which has temperature `first` of the ladder.
    #[allow(clippy::too_many_arguments)] // what a block has, and what all have
    fn walk(
        &self,
        v: &mut [f32],
        h: &mut [f32],
        seeds: &[u64],
        first_step: u32,
        steps: u32,
        ladder: &[f32],
        first: usize,
    ) {
        let rows = seeds.len();
        // A step may be the last one: its end is 2^31.
        for draw in (2 * u64::from(first_step)..2 * (u64::from(first_step) + u64::from(steps))).step_by(2) {
            let draw = draw as u32;
            linear_rows(v, rows, &self.up, Activation::None, h);
            dispatch(Draw { units: h, width: self.hidden(), seeds, draw, ladder, first });
            linear_rows(h, rows, &self.down, Activation::None, v);
            dispatch(Draw { units: v, width: self.visible(), seeds, draw: draw + 1, ladder, first });
        }
    }
}

/// Inverse temperatures that divide some rows into ladders; there may be none.
fn check_ladder(inverse_temperatures: &[f64], rows: usize) -> Result<()> {
    let count = inverse_temperatures.len();
    if count > 0 && !rows.is_multiple_of(count) {
        return Err(Error::shape(
            "inverse_temperatures",
            &[count],
            format!("[a divisor of {rows}, the rows]"),
        ));
    }
    crate::sampling::check_inverse_temperatures(inverse_temperatures)
}
