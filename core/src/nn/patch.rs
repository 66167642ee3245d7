//! Images to sequences of patches and back (A. Dosovitskiy et al., arXiv:2010.11929).

use ndarray::{ArrayView3, ArrayView4, ArrayViewMut3, ArrayViewMut4, Axis, Ix3, Ix4};

use crate::error::{Error, Result, check_shape};
use crate::tensor::{Element, Floats, FloatsMut, each};
use crate::threads;

/// Patch rows, patch columns and the shape `[B, T, C*p*p]` of the patches of an image batch.
fn patch_shape(arg: &'static str, image: &[usize], patch: usize) -> Result<([usize; 2], [usize; 3])> {
    if patch == 0 {
        return Err(Error::range("patch", patch, "at least 1"));
    }
    let [b, c, h, w] = *image else { return Err(Error::shape(arg, image, "[B, C, H, W]")) };
    if h % patch != 0 || w % patch != 0 {
        return Err(Error::shape(
            arg,
            image,
            format!("[B, C, H, W] with H and W multiples of patch {patch}"),
        ));
    }
    let overflow = || Error::Overflow { arg, got: format!("{image:?} with patch {patch}") };
    let features = patch.checked_mul(patch).and_then(|p| p.checked_mul(c)).ok_or_else(overflow)?;
    let (rows, columns) = (h / patch, w / patch);
    let tokens = rows.checked_mul(columns).ok_or_else(overflow)?;
    Ok(([rows, columns], [b, tokens, features]))
}

/// Cuts images `x` `[B, C, H, W]` into patches `out` `[B, T, C*p*p]`.
///
/// Token `t` is the patch at row `t / (W/p)`, column `t % (W/p)`; its features run over
/// (channel, row, column), the order of a convolution's weights. Both are f32, f16 or bf16 each.
///
/// ```
/// use ndarray::{Array, Array3};
/// let x = Array::from_iter((0..8).map(|i| i as f32)).into_shape_with_order((1, 1, 2, 4)).unwrap();
/// let mut out = Array3::<f32>::zeros((1, 2, 4));
/// dgm_core::nn::patchify(x.view(), 2, out.view_mut())?;
/// assert_eq!(out, ndarray::array![[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when `patch` is 0; [`Error::Shape`] when H or W is no multiple of it or
/// `out` does not fit; [`Error::Overflow`] when its size cannot be represented.
pub fn patchify<'a, 'o>(
    x: impl Into<Floats<'a, Ix4>>,
    patch: usize,
    out: impl Into<FloatsMut<'o, Ix3>>,
) -> Result<()> {
    let (x, mut out) = (x.into(), out.into());
    let ([_, columns], shape) = patch_shape("x", x.shape(), patch)?;
    check_shape("out", out.shape(), &shape)?;
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => cut(x, columns, patch, out)));
    Ok(())
}

fn cut<T: Element, U: Element>(x: &ArrayView4<T>, columns: usize, patch: usize, out: &mut ArrayViewMut3<U>) {
    if out.is_empty() {
        return; // the other dimensions may be anything
    }
    let work = 4 * out.len() as u64;
    threads::for_each(x.outer_iter().zip(out.axis_iter_mut(Axis(0))), work, |(x, mut out)| {
        for (c, channel) in x.outer_iter().enumerate() {
            for (i, row) in channel.outer_iter().enumerate() {
                let first = c * patch * patch + i % patch * patch;
                for (j, &v) in row.iter().enumerate() {
                    out[[i / patch * columns + j / patch, first + j % patch]] = U::from_f32(v.to_f32());
                }
            }
        }
    });
}

/// Puts patches `x` `[B, T, p*p*C]` together to images `out` `[B, C, H, W]`.
///
/// Tokens are ordered as in [`patchify`], but the features of a token run over (row, column,
/// channel), the order of DiT's last layer. Both are f32, f16 or bf16 each.
///
/// ```
/// use ndarray::{Array4, array};
/// let x = array![[[0.0, 1.0, 4.0, 5.0], [2.0, 3.0, 6.0, 7.0]]];
/// let mut out = Array4::<f32>::zeros((1, 1, 2, 4));
/// dgm_core::nn::unpatchify(x.view(), 2, out.view_mut())?;
/// assert_eq!(out, array![[[[0.0, 1.0, 2.0, 3.0], [4.0, 5.0, 6.0, 7.0]]]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Range`] when `patch` is 0; [`Error::Shape`] when the H or W of `out` is no multiple
/// of it or `x` does not fit; [`Error::Overflow`] when its size cannot be represented.
pub fn unpatchify<'a, 'o>(
    x: impl Into<Floats<'a, Ix3>>,
    patch: usize,
    out: impl Into<FloatsMut<'o, Ix4>>,
) -> Result<()> {
    let (x, mut out) = (x.into(), out.into());
    let ([_, columns], shape) = patch_shape("out", out.shape(), patch)?;
    check_shape("x", x.shape(), &shape)?;
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => join(x, columns, patch, out)));
    Ok(())
}

fn join<T: Element, U: Element>(x: &ArrayView3<T>, columns: usize, patch: usize, out: &mut ArrayViewMut4<U>) {
    if out.is_empty() {
        return; // the other dimensions may be anything
    }
    let work = 4 * out.len() as u64;
    let channels = out.len_of(Axis(1));
    threads::for_each(x.outer_iter().zip(out.axis_iter_mut(Axis(0))), work, |(x, mut out)| {
        for (c, mut channel) in out.outer_iter_mut().enumerate() {
            for (i, mut row) in channel.outer_iter_mut().enumerate() {
                for (j, v) in row.iter_mut().enumerate() {
                    let feature = (i % patch * patch + j % patch) * channels + c;
                    *v = U::from_f32(x[[i / patch * columns + j / patch, feature]].to_f32());
                }
            }
        }
    });
}
