//! Restricted Boltzmann machines.

use dgm_core::Result;
use dgm_core::models::Rbm;
use ndarray::{ArrayView2, ArrayViewMut2, Ix2};

use crate::fence::entry;
use crate::memory::{free_handle, handle, put_handle, separate, slice, slice_mut};
use crate::tensor::{Tensor, dgm_tensor};

/// A restricted Boltzmann machine of units that are 0 or 1, packed for both directions. Immutable.
pub struct dgm_rbm(Rbm);

/// Makes the machine with the energy E(v, h) = -b v - c h - v W h.
///
/// @param weights      W, [visible, hidden]
/// @param visible_bias b, [visible]
/// @param visible      its floats
/// @param hidden_bias  c, [hidden]
/// @param hidden       its floats
/// @param out          receives the machine (NULL on failure); release with dgm_rbm_free()
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_create(
    weights: *const dgm_tensor,
    visible_bias: *const f32,
    visible: usize,
    hidden_bias: *const f32,
    hidden: usize,
    out: *mut *mut dgm_rbm,
) -> i32 {
    // SAFETY: the caller gives a valid descriptor, arrays of the sizes said and a valid place, or NULL.
    entry(|| unsafe {
        put_handle("out", out, || {
            let weights = Tensor::read("weights", weights, Some(2), "[visible, hidden]")?;
            let visible_bias = slice("visible_bias", visible_bias, visible)?;
            let hidden_bias = slice("hidden_bias", hidden_bias, hidden)?;
            Rbm::new(weights.view::<Ix2>()?, visible_bias, hidden_bias).map(dgm_rbm)
        })
    })
}

/// Releases a machine; NULL does nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_free(rbm: *mut dgm_rbm) {
    // SAFETY: the caller gives a handle of dgm_rbm_create() for the last time, or NULL.
    unsafe { free_handle(rbm) }
}

type Probabilities = fn(&Rbm, ArrayView2<'_, f32>, ArrayViewMut2<'_, f32>) -> Result<()>;

unsafe fn probabilities(
    rbm: *const dgm_rbm,
    (arg, names): (&'static str, &'static str),
    x: *const dgm_tensor,
    out: *mut dgm_tensor,
    f: Probabilities,
) -> Result<()> {
    // SAFETY: the caller's promise, passed on.
    unsafe {
        let rbm = &handle("rbm", rbm)?.0;
        let x = Tensor::read(arg, x, Some(2), names)?;
        let out = Tensor::read("out", out, Some(2), "[rows, units]")?;
        f(rbm, x.view::<Ix2>()?, out.output::<Ix2>(&[&x])?)
    }
}

/// The probabilities that hidden units are on, p(h = 1 | v).
///
/// @param v   [rows, visible], numbers from 0 to 1, contiguous
/// @param out [rows, hidden], contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_hidden_probabilities(
    rbm: *const dgm_rbm,
    v: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid descriptors, or NULL.
    entry(|| unsafe { probabilities(rbm, ("v", "[rows, visible]"), v, out, Rbm::hidden_probabilities) })
}

/// The probabilities that visible units are on, p(v = 1 | h).
///
/// @param h   [rows, hidden], numbers from 0 to 1, contiguous
/// @param out [rows, visible], contiguous
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_visible_probabilities(
    rbm: *const dgm_rbm,
    h: *const dgm_tensor,
    out: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle and valid descriptors, or NULL.
    entry(|| unsafe { probabilities(rbm, ("h", "[rows, hidden]"), h, out, Rbm::visible_probabilities) })
}

/// The free energy F(v) of every row: p(v) is in proportion to exp(-F(v)).
///
/// @param v           [rows, visible], numbers from 0 to 1, contiguous
/// @param free_energy receives a number a row
/// @param len         rows
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_free_energy(
    rbm: *const dgm_rbm,
    v: *const dgm_tensor,
    free_energy: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, a valid descriptor and `len` numbers, or NULL.
    entry(|| unsafe {
        let rbm = &handle("rbm", rbm)?.0;
        let v = Tensor::read("v", v, Some(2), "[rows, visible]")?;
        let out = slice_mut("free_energy", free_energy, len)?;
        v.check_separate("free_energy", out)?;
        rbm.free_energy(v.view::<Ix2>()?, out)
    })
}

/// The energy E(v, h) of every row; its negative is the log density that dgm_replica_exchange() reads.
///
/// @param v      [rows, visible], numbers from 0 to 1, contiguous
/// @param h      [rows, hidden], numbers from 0 to 1, contiguous
/// @param energy receives a number a row
/// @param len    rows
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_energy(
    rbm: *const dgm_rbm,
    v: *const dgm_tensor,
    h: *const dgm_tensor,
    energy: *mut f64,
    len: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and `len` numbers, or NULL.
    entry(|| unsafe {
        let rbm = &handle("rbm", rbm)?.0;
        let v = Tensor::read("v", v, Some(2), "[rows, visible]")?;
        let h = Tensor::read("h", h, Some(2), "[rows, hidden]")?;
        let out = slice_mut("energy", energy, len)?;
        v.check_separate("energy", out)?;
        h.check_separate("energy", out)?;
        rbm.energy(v.view::<Ix2>()?, h.view::<Ix2>()?, out)
    })
}

/// Walks Gibbs chains in place: a step draws h given v, then v given h. Step n of a row is a function of its seed, n,
/// its v and its temperature alone, so 3 and then 4 steps are 7. CD-k takes k steps from the data, PCD goes on with
/// the chains of the last update, at the next steps.
///
/// @param v                    [rows, visible], 0 or 1, contiguous; a chain a row
/// @param seeds                one 64-bit seed for each row
/// @param rows                 number of seeds
/// @param first_step           number of the first step
/// @param steps                how many; they end at 2^31 at most
/// @param inverse_temperatures not negative: row r is drawn from p^beta, beta that at r mod temperatures, which scales
///                             weights and both biases; NULL for 1 everywhere
/// @param temperatures         how many, a divisor of rows; 0 for none
/// @param hidden               [rows, hidden], contiguous, receives the h from which the last v was drawn; NULL for none
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_gibbs(
    rbm: *const dgm_rbm,
    v: *mut dgm_tensor,
    seeds: *const u64,
    rows: usize,
    first_step: u32,
    steps: u32,
    inverse_temperatures: *const f64,
    temperatures: usize,
    hidden: *mut dgm_tensor,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let rbm = &handle("rbm", rbm)?.0;
        let v = Tensor::read("v", v, Some(2), "[rows, visible]")?;
        let hidden = Tensor::read_optional("hidden", hidden, 2, "[rows, hidden]")?;
        let seeds = slice("seeds", seeds, rows)?;
        let betas = slice("inverse_temperatures", inverse_temperatures, temperatures)?;
        for output in std::iter::once(&v).chain(&hidden) {
            output.check_separate("seeds", seeds)?;
            output.check_separate("inverse_temperatures", betas)?;
        }
        let hidden = hidden.map(|h| h.output::<Ix2>(&[&v])).transpose()?;
        rbm.gibbs(v.output::<Ix2>(&[])?, seeds, first_step, steps, betas, hidden)
    })
}

/// The gradient of the mean log likelihood of the data, the expectations under the machine being those of chains:
/// mean of v p(h | v) over the data less that over the chains, and of v and of p for the biases. Adding it, times a
/// learning rate, raises the likelihood.
///
/// @param v_data       [rows, visible], numbers from 0 to 1, contiguous, at least one row
/// @param v_chain      [rows, visible], as many rows or not
/// @param weights      [visible, hidden], contiguous, receives the gradient
/// @param visible_bias receives [visible]
/// @param visible      its floats
/// @param hidden_bias  receives [hidden]
/// @param hidden       its floats
#[unsafe(no_mangle)]
pub unsafe extern "C" fn dgm_rbm_cd_gradient(
    rbm: *const dgm_rbm,
    v_data: *const dgm_tensor,
    v_chain: *const dgm_tensor,
    weights: *mut dgm_tensor,
    visible_bias: *mut f32,
    visible: usize,
    hidden_bias: *mut f32,
    hidden: usize,
) -> i32 {
    // SAFETY: the caller gives a live handle, valid descriptors and arrays of the sizes said, or NULL.
    entry(|| unsafe {
        let rbm = &handle("rbm", rbm)?.0;
        let data = Tensor::read("v_data", v_data, Some(2), "[rows, visible]")?;
        let chain = Tensor::read("v_chain", v_chain, Some(2), "[rows, visible]")?;
        let weights = Tensor::read("weights", weights, Some(2), "[visible, hidden]")?;
        separate("visible_bias", visible_bias, visible, "hidden_bias", hidden_bias, hidden)?;
        let visible_bias = slice_mut("visible_bias", visible_bias, visible)?;
        let hidden_bias = slice_mut("hidden_bias", hidden_bias, hidden)?;
        for tensor in [&data, &chain, &weights] {
            tensor.check_separate("visible_bias", visible_bias)?;
            tensor.check_separate("hidden_bias", hidden_bias)?;
        }
        let out = weights.output::<Ix2>(&[&data, &chain])?;
        rbm.cd_gradient(data.view::<Ix2>()?, chain.view::<Ix2>()?, out, visible_bias, hidden_bias)
    })
}
