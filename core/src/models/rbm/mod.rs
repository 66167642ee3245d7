//! Restricted Boltzmann machines: energies, block Gibbs chains, gradients of the likelihood.
//!
//! | file | idea |
//! |---|---|
//! | `gibbs` | chains as rows, a block of rows through all its steps |
//! | `gradient` | what the data say less what the chains say |
//! | `kernel` | probabilities, draws, energies |

#[cfg(test)]
mod distribution_tests;
mod gibbs;
mod gradient;
mod kernel;
#[cfg(test)]
mod tests;

use ndarray::{ArrayView1, ArrayView2, ArrayViewMut2};

use crate::arch::dispatch;
use crate::error::{Error, Result, check_shape};
use crate::linalg::{Activation, PackedLinear, check_strides, linear_rows};
use crate::random::MAX_ELEMENTS;
use crate::threads;
use kernel::Probabilities;

/// A machine of V visible and H hidden units that are on (1) or off (0), with the energy
/// `E(v, h) = -b v - c h - v W h` and `p(v, h)` in proportion to `exp(-E(v, h))`.
///
/// Given one layer the units of the other are independent, `p(h_j = 1 | v) = sigmoid(c_j + sum_i v_i W_ij)`, so Gibbs
/// sampling draws a layer at a time. Immutable, packed once for both directions; shared freely between threads.
///
/// P. Smolensky (1986); G. E. Hinton, "Training products of experts by minimizing contrastive divergence", Neural
/// Computation 14 (2002); A. Fischer and C. Igel, "Training restricted Boltzmann machines: an introduction", Pattern
/// Recognition 47 (2014).
///
/// ```
/// use dgm_core::models::Rbm;
/// use ndarray::{Array2, array};
/// // CD-1 (Hinton 2002): chains of one step from the data.
/// let data = array![[1.0f32, 1.0, 0.0], [0.0, 0.0, 1.0]];
/// let (mut w, mut b, mut c) = (Array2::<f32>::zeros((3, 2)), [0.0f32; 3], [0.0f32; 2]);
/// let seeds = dgm_core::random::row_seeds(1, 2);
/// for step in 0..10 {
///     let rbm = Rbm::new(w.view(), &b, &c)?;
///     let mut chains = data.clone(); // PCD (Tieleman 2008) keeps the chains instead
///     rbm.gibbs(chains.view_mut(), &seeds, step, 1, &[], None)?;
///     let (mut dw, mut db, mut dc) = (w.clone(), [0.0; 3], [0.0; 2]);
///     rbm.cd_gradient(data.view(), chains.view(), dw.view_mut(), &mut db, &mut dc)?;
///     w.scaled_add(0.1, &dw);
///     b.iter_mut().zip(db).for_each(|(b, d)| *b += 0.1 * d);
///     c.iter_mut().zip(dc).for_each(|(c, d)| *c += 0.1 * d);
/// }
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Rbm {
    /// From visible to hidden units, `[H, V]`.
    up: PackedLinear,
    /// From hidden to visible units, `[V, H]`.
    down: PackedLinear,
    visible_bias: Vec<f32>,
}

impl Rbm {
    /// A machine of V visible and H hidden units.
    ///
    /// * `weights` `[V, H]`, any strides that are not negative; V and H at least 1.
    /// * `visible_bias` `[V]`, `hidden_bias` `[H]`.
    ///
    /// All finite, and so small that f32 holds the sum of the magnitudes that meet in a unit.
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`], [`Error::Range`] or [`Error::Overflow`] naming the argument.
    pub fn new(weights: ArrayView2<f32>, visible_bias: &[f32], hidden_bias: &[f32]) -> Result<Rbm> {
        let (visible, hidden) = weights.dim();
        if visible == 0 || hidden == 0 {
            return Err(Error::shape("weights", weights.shape(), "[visible, hidden], both at least 1"));
        }
        if visible.max(hidden) as u64 > MAX_ELEMENTS {
            return Err(Error::Overflow { arg: "weights", got: format!("{:?}", weights.shape()) });
        }
        check_strides("weights", weights.shape(), weights.strides(), false)?;
        check_shape("visible_bias", &[visible_bias.len()], &[visible])?;
        check_shape("hidden_bias", &[hidden_bias.len()], &[hidden])?;
        for (arg, bias) in [("visible_bias", visible_bias), ("hidden_bias", hidden_bias)] {
            if let Some(i) = bias.iter().position(|x| !x.is_finite()) {
                return Err(Error::range(arg, format!("{} at {i}", bias[i]), "finite numbers"));
            }
        }
        if let Some(((i, j), x)) = weights.indexed_iter().find(|(_, x)| !x.is_finite()) {
            return Err(Error::range("weights", format!("{x} at [{i}, {j}]"), "finite numbers"));
        }
        for (units, bias, rows) in
            [("visible", visible_bias, weights), ("hidden", hidden_bias, weights.reversed_axes())]
        {
            for (i, (row, bias)) in rows.rows().into_iter().zip(bias).enumerate() {
                let sum = row.iter().fold(f64::from(bias.abs()), |sum, x| sum + f64::from(x.abs()));
                if sum > f64::from(f32::MAX / 2.0) {
                    let got = format!("{sum:e}, magnitudes and bias of {units} unit {i} added up");
                    return Err(Error::range("weights", got, "sums that f32 can hold"));
                }
            }
        }
        let pack = |weights: ArrayView2<f32>, bias: &[f32]| {
            PackedLinear::pack(weights, Some(ArrayView1::from(bias).into()))
        };
        Ok(Rbm {
            up: pack(weights.reversed_axes(), hidden_bias)?,
            down: pack(weights, visible_bias)?,
            visible_bias: visible_bias.to_vec(),
        })
    }

    /// Number of visible units V.
    pub fn visible(&self) -> usize {
        self.down.out_features()
    }

    /// Number of hidden units H.
    pub fn hidden(&self) -> usize {
        self.up.out_features()
    }

    /// `p(h_j = 1 | v)`: `v` `[rows, V]`, numbers from 0 to 1, gives `out` `[rows, H]`; both row-major contiguous. A
    /// row's bits do not depend on the others.
    ///
    /// ```
    /// use dgm_core::models::Rbm;
    /// use ndarray::array;
    /// let rbm = Rbm::new(array![[200.0f32], [-200.0]].view(), &[0.0, 0.0], &[0.0])?;
    /// let mut p = array![[0.0f32], [0.0], [0.0]];
    /// rbm.hidden_probabilities(array![[1.0f32, 0.0], [1.0, 1.0], [0.0, 1.0]].view(), p.view_mut())?;
    /// assert_eq!(p, array![[1.0], [0.5], [0.0]]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`] or [`Error::Range`] naming the argument; `out` is then untouched.
    pub fn hidden_probabilities(&self, v: ArrayView2<f32>, out: ArrayViewMut2<f32>) -> Result<()> {
        probabilities("v", &self.up, v, out)
    }

    /// `p(v_i = 1 | h)`: `h` `[rows, H]`, numbers from 0 to 1, gives `out` `[rows, V]`; as
    /// [`hidden_probabilities`](Rbm::hidden_probabilities).
    ///
    /// # Errors
    /// As [`hidden_probabilities`](Rbm::hidden_probabilities).
    pub fn visible_probabilities(&self, h: ArrayView2<f32>, out: ArrayViewMut2<f32>) -> Result<()> {
        probabilities("h", &self.down, h, out)
    }

    /// `F(v) = -b v - sum_j ln(1 + exp(c_j + sum_i v_i W_ij))` of every row of `v` `[rows, V]`, numbers from 0 to 1,
    /// row-major contiguous: `p(v)` is in proportion to `exp(-F(v))`. What a hidden unit sums up is f32, the rest f64.
    ///
    /// ```
    /// use dgm_core::models::Rbm;
    /// use ndarray::array;
    /// let rbm = Rbm::new(array![[2.0f32]].view(), &[0.5], &[-1.0])?;
    /// let mut f = [0.0; 2];
    /// rbm.free_energy(array![[0.0f32], [1.0]].view(), &mut f)?;
    /// assert!((f[0] + (1.0 + f64::exp(-1.0)).ln()).abs() < 1e-12);
    /// assert!((f[1] + 0.5 + (1.0 + f64::exp(1.0)).ln()).abs() < 1e-12);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`] or [`Error::Range`] naming the argument; `free_energy` is then untouched.
    pub fn free_energy(&self, v: ArrayView2<f32>, free_energy: &mut [f64]) -> Result<()> {
        let data = units("v", v, self.visible())?;
        check_shape("free_energy", &[free_energy.len()], &[v.nrows()])?;
        check_units("v", data, self.visible(), Units::Any)?;
        self.sums(data, free_energy, |_, v, sums| kernel::free_energy(&self.visible_bias, v, sums));
        Ok(())
    }

    /// `E(v, h)` of every row of `v` `[rows, V]` and `h` `[rows, H]`, numbers from 0 to 1, row-major contiguous. Its
    /// negative is the log density that [`replica_exchange`](crate::sampling::replica_exchange) reads.
    ///
    /// ```
    /// use dgm_core::models::Rbm;
    /// use ndarray::array;
    /// let rbm = Rbm::new(array![[2.0f32]].view(), &[0.5], &[-1.0])?;
    /// let mut energy = [0.0; 2];
    /// rbm.energy(array![[1.0f32], [1.0]].view(), array![[0.0f32], [1.0]].view(), &mut energy)?;
    /// assert_eq!(energy, [-0.5, -1.5]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Shape`], [`Error::Stride`] or [`Error::Range`] naming the argument; `energy` is then untouched.
    pub fn energy(&self, v: ArrayView2<f32>, h: ArrayView2<f32>, energy: &mut [f64]) -> Result<()> {
        let (data, on) = (units("v", v, self.visible())?, units("h", h, self.hidden())?);
        check_shape("h", h.shape(), &[v.nrows(), self.hidden()])?;
        check_shape("energy", &[energy.len()], &[v.nrows()])?;
        check_units("v", data, self.visible(), Units::Any)?;
        check_units("h", on, self.hidden(), Units::Any)?;
        self.sums(data, energy, |row, v, sums| {
            kernel::energy(&self.visible_bias, v, sums, &on[row * self.hidden()..])
        });
        Ok(())
    }

    /// `out = f(row, v, what the hidden units sum up)` of every row.
    fn sums(&self, v: &[f32], out: &mut [f64], f: impl Fn(usize, &[f32], &[f32]) -> f64 + Sync) {
        let (visible, hidden, rows) = (self.visible(), self.hidden(), out.len());
        let size = block_rows(rows, hidden);
        // A logarithm and an exponential in f64 a unit.
        let work = rows as u64 * hidden as u64 * (2 * visible as u64 + 100);
        let blocks = v.chunks(size * visible).zip(out.chunks_mut(size)).enumerate();
        share(rows <= size, blocks, work, |(block, (v, out))| {
            threads::with_scratch(out.len() * hidden, |sums| {
                linear_rows(v, out.len(), &self.up, Activation::None, sums);
                let rows = v.chunks_exact(visible).zip(sums.chunks_exact(hidden)).zip(out);
                for (row, ((v, sums), out)) in (block * size..).zip(rows) {
                    *out = f(row, v, sums);
                }
            });
        });
    }
}

fn probabilities(
    arg: &'static str,
    layer: &PackedLinear,
    x: ArrayView2<f32>,
    mut out: ArrayViewMut2<f32>,
) -> Result<()> {
    let (from, to, rows) = (layer.in_features(), layer.out_features(), x.nrows());
    let x = units(arg, x, from)?;
    check_shape("out", out.shape(), &[rows, to])?;
    let out = out.as_slice_mut().ok_or_else(|| apart("out"))?;
    check_units(arg, x, from, Units::Any)?;
    let size = block_rows(rows, to);
    let work = out.len() as u64 * (2 * from as u64 + 40);
    share(rows <= size, x.chunks(size * from).zip(out.chunks_mut(size * to)), work, |(x, out)| {
        linear_rows(x, out.len() / to, layer, Activation::None, out);
        dispatch(Probabilities(out));
    });
    Ok(())
}

/// Rows a task takes through all that is done with them, and through `width` numbers of scratch memory each.
fn block_rows(rows: usize, width: usize) -> usize {
    const MOST: usize = 96;
    /// 4 MiB.
    const MOST_SCRATCH: usize = 1 << 20;
    let most = (MOST_SCRATCH / width).clamp(1, MOST);
    rows.div_ceil(2 * threads::num_threads()).next_multiple_of(12).clamp(1, most)
}

/// Blocks of rows go to the threads; a `single` one to the layers that it meets.
fn share<T: Send>(single: bool, blocks: impl Iterator<Item = T> + Send, work: u64, f: impl Fn(T) + Sync) {
    if single {
        return blocks.for_each(f);
    }
    threads::for_each(blocks, work, f);
}

/// The memory of `[rows, width]`.
fn units<'a>(arg: &'static str, x: ArrayView2<'a, f32>, width: usize) -> Result<&'a [f32]> {
    if x.ncols() != width {
        return Err(Error::shape(arg, x.shape(), format!("[rows, {width}]")));
    }
    x.to_slice().ok_or_else(|| apart(arg))
}

fn apart(arg: &'static str) -> Error {
    Error::Stride {
        arg,
        got: "not contiguous".to_string(),
        expected: "row-major contiguous memory".to_string(),
    }
}

/// What units may be.
#[derive(Clone, Copy, PartialEq)]
enum Units {
    /// Probabilities too.
    Any,
    OnOrOff,
}

fn check_units(arg: &'static str, x: &[f32], width: usize, kind: Units) -> Result<()> {
    let (bad, expected) = match kind {
        Units::Any => (x.iter().position(|x| !(0.0..=1.0).contains(x)), "numbers from 0 to 1"),
        Units::OnOrOff => (x.iter().position(|x| *x != 0.0 && *x != 1.0), "0 or 1"),
    };
    match bad {
        None => Ok(()),
        Some(i) => {
            let got = format!("{} at row {}, unit {}", x[i], i / width, i % width);
            Err(Error::range(arg, got, expected))
        }
    }
}
