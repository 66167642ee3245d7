//! The gradients of attention, from its result and log-sum-exp (arXiv 2205.14135, B.4), without
//! a matrix of scores in memory.
//!
//! Definition, with scores `s`, hidden elements, chains and sums `in parts` as in the forward pass:
//!
//! * `p[i][j] = exp2(fma(lse[i], -fl(log2 e), s[i][j]))`; 0 for a hidden element and in a row whose lse
//!   is -inf. Where all is of bfloat16, `exp2` is that of the forward pass.
//! * `delta[i] = dout[i][e] * out[i][e] over e, in parts`; `dp[i][j] = v[j][e] * dout[i][e] over e, in parts`.
//! * `db[i][j] = p * (dp - delta)`, 0 where `p` is: the gradient of the bias. A soft-cap makes
//!   `ds = db * fma(-t, t, 1)` of it, `t` the tanh of the score; else `ds = db`.
//! * Keys are cut into tiles of [`KEY_TILE`](super::KEY_TILE), the queries of a head into tiles of
//!   64, both at absolute positions. In each pair of tiles the chains over the tile's keys or
//!   queries leave out the steps where `p` is 0.
//! * `dq[i] = (0 + k[j] * ds[i][j] over j, in parts, for each key tile in order) * scale`.
//! * `dv[j] = 0 + chain over i of dout[i] * p[i][j]` for each head of the group in order and each of
//!   its query tiles in order; `dk[j]` likewise of `q[i] * ds[i][j]`, and then times `scale`.
//! * A gradient of a bias that repeats is summed: over the keys first, from zero in rising order;
//!   then over batch entries, heads and queries, the last the fastest, likewise.
//! * Results end with +0 in the place of -0.

mod bias;
#[cfg(test)]
mod dot_tests;
mod kernel;
#[cfg(test)]
mod oracle;
mod products;
#[cfg(test)]
mod promise_tests;
mod skipping;
mod tasks;
#[cfg(test)]
mod tests;
mod tile;
mod varlen;
#[cfg(test)]
mod varlen_tests;
mod work;

use ndarray::{ArrayView3, ArrayViewMut4, Ix4};

use super::tiles::Problem;
use super::{AttentionOptions, check_forward};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut};
use crate::threads;
use tasks::{Gradients, Schedule};
use tile::Call;
pub use varlen::attention_varlen_backward;

/// Gradients of [`attention`](super::attention): with `dout` the gradient of a loss with respect to
/// `out`, fills those with respect to `q`, `k` and `v`.
///
/// | argument | shape |
/// |---|---|
/// | `q`, `k`, `v` | what `attention` got: `[B, H, Lq, D]`, `[B, Hkv, Lk, D]`, `[B, Hkv, Lk, Dv]` |
/// | `out`, `lse` | what `attention` gave: `[B, H, Lq, Dv]`, `[B, H, Lq]` |
/// | `dout` | `[B, H, Lq, Dv]` |
/// | `options` | what `attention` got |
/// | `dq`, `dk`, `dv` | the shapes of `q`, `k` and `v` |
/// | `dbias` | the shape of the bias, which must be there; summed where the bias repeats |
///
/// Each of them is f32, f16 or bf16 (`lse` and `dbias` f32, `v` as `k`): 16-bit numbers are widened
/// exactly, everything is computed in f32, and results are rounded once. Where `q`, `k`, `v` and `dout` are all
/// bf16, probabilities and gradients of scores are rounded to bf16 and products are of pairs, summed in f32, as
/// in [`attention`](super::attention). Strides are free but not negative.
///
/// Queries without a key, and elements that are hidden, add nothing, whatever `k`, `v`, `q` and
/// `dout` hold there. The bits depend neither on the number of threads nor on the rest of the batch.
///
/// # Errors
/// [`Error::Shape`], [`Error::Dtype`], [`Error::Stride`], [`Error::Range`] and [`Error::Argument`]
/// name the argument that does not fit; outputs are untouched.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention, attention_backward};
/// use ndarray::{Array3, Array4};
/// let (q, k) = (Array4::<f32>::ones((1, 2, 3, 8)), Array4::<f32>::ones((1, 1, 5, 8)));
/// let v = Array4::from_shape_fn((1, 1, 5, 4), |(_, _, j, _)| j as f32);
/// let (mut out, mut lse) = (Array4::<f32>::zeros((1, 2, 3, 4)), Array3::zeros((1, 2, 3)));
/// let o = AttentionOptions::default();
/// attention(q.view(), k.view(), v.view(), &o, out.view_mut(), Some(lse.view_mut()))?;
/// let dout = Array4::<f32>::ones(out.dim());
/// let (mut dq, mut dk, mut dv) = (Array4::<f32>::zeros(q.dim()), Array4::<f32>::zeros(k.dim()), Array4::<f32>::zeros(v.dim()));
/// attention_backward(
///     q.view(), k.view(), v.view(), out.view(), lse.view(), dout.view(), &o,
///     dq.view_mut(), dk.view_mut(), dv.view_mut(), None,
/// )?;
/// assert!(dv.iter().all(|x: &f32| (x - 6.0 / 5.0).abs() < 1e-6)); // six queries, a fifth each
/// assert!(dq.iter().all(|x: &f32| x.abs() < 1e-5)); // equal keys: no query moves the mean
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[allow(clippy::too_many_arguments)]
pub fn attention_backward<'a>(
    q: impl Into<Floats<'a, Ix4>>,
    k: impl Into<Floats<'a, Ix4>>,
    v: impl Into<Floats<'a, Ix4>>,
    out: impl Into<Floats<'a, Ix4>>,
    lse: ArrayView3<'a, f32>,
    dout: impl Into<Floats<'a, Ix4>>,
    options: &AttentionOptions,
    dq: impl Into<FloatsMut<'a, Ix4>>,
    dk: impl Into<FloatsMut<'a, Ix4>>,
    dv: impl Into<FloatsMut<'a, Ix4>>,
    dbias: Option<ArrayViewMut4<'a, f32>>,
) -> Result<()> {
    let (q, k, v, out, dout) = (q.into(), k.into(), v.into(), out.into(), dout.into());
    let (dq, dk, dv) = (dq.into(), dk.into(), dv.into());
    Arguments { q, k, v, out, lse, dout, options, dq, dk, dv, dbias }.run(None)
}

/// The arguments of a call.
struct Arguments<'a, 'r, 'o> {
    q: Floats<'a, Ix4>,
    k: Floats<'a, Ix4>,
    v: Floats<'a, Ix4>,
    out: Floats<'a, Ix4>,
    lse: ArrayView3<'a, f32>,
    dout: Floats<'a, Ix4>,
    options: &'r AttentionOptions<'o>,
    dq: FloatsMut<'a, Ix4>,
    dk: FloatsMut<'a, Ix4>,
    dv: FloatsMut<'a, Ix4>,
    dbias: Option<ArrayViewMut4<'a, f32>>,
}

impl Arguments<'_, '_, '_> {
    fn check(&self) -> Result<()> {
        let Arguments { q, k, v, out, lse, dout, options, dq, dk, dv, dbias } = self;
        check_forward(q, k, v, out.shape())?;
        check_strides("out", out.shape(), out.strides(), false)?;
        let shape = [q.shape()[0], q.shape()[1], q.shape()[2], k.shape()[2]];
        check_shape("lse", lse.shape(), &shape[..3])?;
        check_strides("lse", lse.shape(), lse.strides(), false)?;
        check_shape("dout", dout.shape(), out.shape())?;
        check_strides("dout", dout.shape(), dout.strides(), false)?;
        options.check(shape)?;
        for (arg, to, of) in [("dq", dq, q), ("dk", dk, k), ("dv", dv, v)] {
            check_shape(arg, to.shape(), of.shape())?;
            check_strides(arg, to.shape(), to.strides(), true)?;
        }
        let Some(dbias) = dbias else { return Ok(()) };
        let Some(bias) = &options.bias else {
            return Err(Error::argument("dbias", "given", "none without a bias"));
        };
        check_shape("dbias", dbias.shape(), bias.shape())?;
        check_strides("dbias", dbias.shape(), dbias.strides(), true)
    }

    /// By a schedule that fits unless one is given.
    fn run(self, schedule: Option<Schedule>) -> Result<()> {
        self.check()?;
        let Arguments { q, k, v, out, lse, dout, options, dq, dk, dv, dbias } = self;
        let dim = q.shape()[3];
        let ((factor, cap), scale) = (options.factors(dim), options.scale(dim));
        let call = Call { problem: Problem { q, k, v, factor, cap, options }, out, lse, dout, scale };
        run(vec![(call, Gradients { dq, dk, dv, dbias })], schedule);
        Ok(())
    }
}

/// Runs validated calls side by side.
fn run(mut calls: Vec<(Call, Gradients)>, schedule: Option<Schedule>) {
    // Five to seven products instead of two.
    let work =
        calls.iter().fold(0u64, |w, (call, _)| w.saturating_add(call.problem.work())).saturating_mul(3);
    let threads = if threads::is_parallel(work) { threads::num_threads() } else { 1 };
    let heads = calls.iter().map(|(call, _)| call.problem.k.shape()[..2].iter().product::<usize>()).sum();
    let mut summed = Vec::new();
    for (n, (call, gradients)) in calls.iter_mut().enumerate() {
        if gradients.dbias.as_ref().is_some_and(|x| x.shape() != call.full()) {
            summed.extend(gradients.dbias.take().map(|dbias| (n, dbias)));
        }
    }
    let (calls, gradients): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
    let tasks = calls.iter().zip(gradients).flat_map(|(call, gradients)| {
        let schedule = schedule.unwrap_or_else(|| Schedule::new(call, &gradients, heads, threads));
        tasks::tasks(call, schedule, gradients).into_iter().map(move |task| (call, task))
    });
    threads::for_each(tasks, work, |(call, task)| tasks::run(call, task));
    for (n, dbias) in summed {
        bias::run(&calls[n], dbias, work);
    }
}
