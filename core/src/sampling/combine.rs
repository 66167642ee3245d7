//! Classifier-free guidance as a function, for loops that do without a plan.

use ndarray::{Dimension, IxDyn};

use super::measure::{self, Numbers};
use super::table::Measure;
use super::validate::within;
use crate::arch::Simd;
use crate::error::{Error, Result, check_shape, zeros};
use crate::nn::lanes::Lanes;
use crate::nn::rows::{for_elements, lend};
use crate::tensor::{Element, Floats, FloatsMut, each};

/// `fma(y, b, fma(x, a, +0))`; a coefficient that is absent has no term.
#[derive(Clone, Copy)]
struct Combine {
    a: Option<f32>,
    b: Option<f32>,
}

impl Lanes<2> for Combine {
    const COST: u64 = 4;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, [x, y]: [[S::F; K]; 2]) -> [S::F; K] {
        let mut sums = [s.splat(0.0); K];
        for k in 0..K {
            if let Some(a) = self.a {
                sums[k] = s.fma(x[k], s.splat(a), sums[k]);
            }
            if let Some(b) = self.b {
                sums[k] = s.fma(y[k], s.splat(b), sums[k]);
            }
        }
        sums
    }
}

/// Classifier-free guidance, `out = scale * cond + (1 - scale) * uncond`, of `[rows, ...]` tensors, f32, f16 or
/// bf16 each: the bits of a plan with `guidance = scale` and `guidance_rescale = rescale`.
///
/// With `rescale` above 0 each row is multiplied by `1 - rescale + rescale * (deviation of cond / deviation of
/// the result)`. J. Ho and T. Salimans, arXiv:2207.12598; S. Lin et al., arXiv:2305.08891, section 3.4.
///
/// ```
/// use ndarray::array;
/// let (cond, uncond) = (array![[2.0, 4.0]], array![[1.0, 1.0]]);
/// let mut out = array![[0.0f32, 0.0]];
/// dgm_core::sampling::cfg_combine(cond.view(), uncond.view(), 3.0, 0.0, out.view_mut())?;
/// assert_eq!(out, array![[4.0, 10.0]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when the shapes differ or there is no axis; [`Error::Range`] unless `scale` lies in
/// -1000..=1000 and `rescale` in 0..=1.
pub fn cfg_combine<'a, 'o, D: Dimension>(
    cond: impl Into<Floats<'a, D>>,
    uncond: impl Into<Floats<'a, D>>,
    scale: f64,
    rescale: f64,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let (cond, uncond, out) = (cond.into().into_dyn(), uncond.into().into_dyn(), out.into().into_dyn());
    within("scale", scale, -1e3, 1e3)?;
    within("rescale", rescale, 0.0, 1.0)?;
    if cond.shape().is_empty() {
        return Err(Error::shape("cond", cond.shape(), "[rows, ...]"));
    }
    check_shape("uncond", uncond.shape(), cond.shape())?;
    check_shape("out", out.shape(), cond.shape())?;
    if out.shape().contains(&0) {
        return Ok(());
    }
    if rescale == 0.0 {
        return combine(cond, uncond, scale, 1.0, out);
    }
    let numbers = measured(&cond, &uncond, Measure::Rescale { g: scale, phi: rescale })?;
    let (mut cond, mut uncond, mut out) = (cond, uncond, out);
    for [factor, _] in numbers {
        let ((c, cs), (u, us), (o, os)) = (cond.split_at(0, 1), uncond.split_at(0, 1), out.split_at(0, 1));
        combine(c, u, scale, factor, o)?;
        (cond, uncond, out) = (cs, us, os);
    }
    Ok(())
}

fn combine(
    cond: Floats<IxDyn>,
    uncond: Floats<IxDyn>,
    scale: f64,
    factor: f64,
    out: FloatsMut<IxDyn>,
) -> Result<()> {
    // As in a plan's table: a term without a coefficient is not there.
    let rounded = |c: f64| (c != 0.0).then_some((c * factor) as f32);
    let op = Combine { a: rounded(scale), b: rounded(1.0 - scale) };
    for_elements(op, [lend(cond), lend(uncond)], out)
}

/// The numbers of every row; 16-bit elements and those that lie apart are copied first.
fn measured(cond: &Floats<IxDyn>, uncond: &Floats<IxDyn>, what: Measure) -> Result<Vec<Numbers>> {
    let elements = cond.shape()[1..].iter().product();
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let (a, b) = (adjacent("cond", cond, &mut a)?, adjacent("uncond", uncond, &mut b)?);
    Ok(measure::rows(what, a, b, elements))
}

fn adjacent<'a>(arg: &'static str, x: &'a Floats<IxDyn>, room: &'a mut Vec<f32>) -> Result<&'a [f32]> {
    if let Floats::F32(x) = x
        && let Some(x) = x.to_slice()
    {
        return Ok(x);
    }
    *room = zeros(arg, x.shape().iter().product())?;
    each!(Floats, x, x => room.iter_mut().zip(x).for_each(|(to, x)| *to = Element::to_f32(*x)));
    Ok(room)
}
