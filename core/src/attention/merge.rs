//! Two results over different keys, joined.

use ndarray::{ArrayView3, ArrayViewMut3, Ix4, Zip};

use super::MAX_HEAD_DIM;
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Element, Floats, FloatsMut, each};

/// Joins the results of the same queries over two sets of keys (a shared prefix and the rest, two
/// machines) by their log-sum-exps, as if all keys had been seen at once.
///
/// `out1`, `out2` and `out` are `[B, H, Lq, Dv]`, `lse1`, `lse2` and `lse` `[B, H, Lq]`. A result
/// whose share rounds to 0 takes no part, whatever it holds; where both lse are -inf, so is the merged one
/// and `out` is 0. The bits are not
/// those of one call over all keys.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Stride`] name the argument that does not fit.
///
/// ```
/// use dgm_core::attention::attention_merge;
/// use ndarray::{Array3, Array4};
/// let x = |x: f32| Array4::from_elem((1, 1, 1, 2), x);
/// let (mut out, mut lse) = (x(0.0), Array3::zeros((1, 1, 1)));
/// let one = Array3::ones((1, 1, 1));
/// attention_merge(x(1.0).view(), one.view(), x(3.0).view(), one.view(), out.view_mut(), Some(lse.view_mut()))?;
/// assert_eq!(out, x(2.0));
/// assert!((lse[[0, 0, 0]] - (1.0 + 2f32.ln())).abs() < 1e-6);
/// # Ok::<(), dgm_core::Error>(())
/// ```
pub fn attention_merge<'a>(
    out1: impl Into<Floats<'a, Ix4>>,
    lse1: ArrayView3<f32>,
    out2: impl Into<Floats<'a, Ix4>>,
    lse2: ArrayView3<f32>,
    out: impl Into<FloatsMut<'a, Ix4>>,
    lse: Option<ArrayViewMut3<f32>>,
) -> Result<()> {
    merge([out1.into(), out2.into()], [lse1, lse2], out.into(), lse)
}

fn merge(
    [out1, out2]: [Floats<Ix4>; 2],
    [lse1, lse2]: [ArrayView3<f32>; 2],
    mut out: FloatsMut<Ix4>,
    lse: Option<ArrayViewMut3<f32>>,
) -> Result<()> {
    let shape = out1.shape().to_vec();
    if !(1..=MAX_HEAD_DIM).contains(&shape[3]) {
        return Err(Error::shape("out1", &shape, format!("[B, H, Lq, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
    }
    check_shape("out2", out2.shape(), &shape)?;
    check_shape("out", out.shape(), &shape)?;
    check_strides("out1", out1.shape(), out1.strides(), false)?;
    check_strides("out2", out2.shape(), out2.strides(), false)?;
    check_strides("out", out.shape(), out.strides(), true)?;
    for (arg, lse) in [("lse1", &lse1), ("lse2", &lse2)] {
        check_shape(arg, lse.shape(), &shape[..3])?;
        check_strides(arg, lse.shape(), lse.strides(), false)?;
    }
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &shape[..3])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    each!(Floats, &out1, a => each!(Floats, &out2, b => each!(FloatsMut, &mut out, out => {
        for ((((mut to, a), b), &lse1), &lse2) in
            out.rows_mut().into_iter().zip(a.rows()).zip(b.rows()).zip(&lse1).zip(&lse2)
        {
            let (a1, a2, _) = weights(lse1, lse2);
            for ((to, &x), &y) in to.iter_mut().zip(a).zip(b) {
                let x = if a1 == 0.0 { 0.0 } else { Element::to_f32(x) * a1 };
                let y = if a2 == 0.0 { 0.0 } else { Element::to_f32(y) * a2 };
                *to = Element::from_f32((x + y) + 0.0);
            }
        }
    })));
    if let Some(lse) = lse {
        Zip::from(lse).and(&lse1).and(&lse2).for_each(|to, &x, &y| *to = weights(x, y).2);
    }
    Ok(())
}

/// The shares of two results and the joint lse.
fn weights(lse1: f32, lse2: f32) -> (f32, f32, f32) {
    if lse1 == f32::NEG_INFINITY && lse2 == f32::NEG_INFINITY {
        return (0.0, 0.0, f32::NEG_INFINITY);
    }
    let (x, y) = (f64::from(lse1), f64::from(lse2));
    let m = if x > y { x } else { y };
    let (e1, e2) = (libm::exp(x - m), libm::exp(y - m));
    let sum = e1 + e2;
    ((e1 / sum) as f32, (e2 / sum) as f32, (m + libm::log(sum)) as f32)
}
