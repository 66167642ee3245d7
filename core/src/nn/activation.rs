//! Activation functions, element by element.

use ndarray::{ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, Dimension};

use crate::error::{Result, check_shape};
use crate::math::slice::{Function, GeluErf, GeluTanh, Silu, map, map_in_place};
use crate::threads;

/// Which GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gelu {
    /// `x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))`
    Tanh,
    /// `x/2 (1 + erf(x / sqrt 2))`
    Erf,
}

/// `x / (1 + e^-x)` for every element; any shape, any strides.
///
/// ```
/// use ndarray::{Array, arr1};
/// let mut out = arr1(&[0.0; 2]).into_dyn();
/// dgm_core::nn::silu(arr1(&[0.0, -200.0]).into_dyn().view(), out.view_mut())?;
/// assert_eq!(out, arr1(&[0.0, 0.0]).into_dyn());
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn silu(x: ArrayViewD<f32>, out: ArrayViewMutD<f32>) -> Result<()> {
    elementwise(Silu, x, out)
}

/// GELU for every element; any shape, any strides.
///
/// ```
/// use dgm_core::nn::{Gelu, gelu};
/// use ndarray::arr1;
/// let mut out = arr1(&[0.0]).into_dyn();
/// gelu(arr1(&[1.0]).into_dyn().view(), Gelu::Tanh, out.view_mut())?;
/// assert!((out[0] - 0.841_192f32).abs() < 1e-6);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the shapes differ.
pub fn gelu(x: ArrayViewD<f32>, kind: Gelu, out: ArrayViewMutD<f32>) -> Result<()> {
    match kind {
        Gelu::Tanh => elementwise(GeluTanh, x, out),
        Gelu::Erf => elementwise(GeluErf, x, out),
    }
}

/// [`silu`] in place: a slice, or a view with any strides.
///
/// ```
/// let mut x = [0.0, -200.0];
/// dgm_core::nn::silu_inplace(&mut x);
/// assert_eq!(x, [0.0, 0.0]);
/// ```
pub fn silu_inplace<'a, D: Dimension>(x: impl Into<ArrayViewMut<'a, f32, D>>) {
    in_place(Silu, x.into().into_dyn());
}

/// [`gelu`] in place: a slice, or a view with any strides.
///
/// ```
/// let mut x = [0.0, -40.0];
/// dgm_core::nn::gelu_inplace(&mut x, dgm_core::nn::Gelu::Erf);
/// assert_eq!(x, [0.0, 0.0]);
/// ```
pub fn gelu_inplace<'a, D: Dimension>(x: impl Into<ArrayViewMut<'a, f32, D>>, kind: Gelu) {
    match kind {
        Gelu::Tanh => in_place(GeluTanh, x.into().into_dyn()),
        Gelu::Erf => in_place(GeluErf, x.into().into_dyn()),
    }
}

fn in_place<U: Function>(f: U, mut x: ArrayViewMutD<f32>) {
    if let Some(x) = x.as_slice_memory_order_mut() {
        return map_in_place(f, x);
    }
    let work = U::COST.saturating_mul(x.len() as u64);
    threads::for_each(x.rows_mut().into_iter(), work, |mut x| match x.as_slice_mut() {
        Some(x) => map_in_place(f, x),
        None => {
            let mut values = [0.0; 256];
            for mut x in x.axis_chunks_iter_mut(Axis(0), values.len()) {
                let values = &mut values[..x.len()];
                values.iter_mut().zip(&x).for_each(|(v, x)| *v = *x);
                map_in_place(f, values);
                x.iter_mut().zip(&*values).for_each(|(x, v)| *x = *v);
            }
        }
    });
}

fn elementwise<U: Function>(f: U, x: ArrayViewD<f32>, mut out: ArrayViewMutD<f32>) -> Result<()> {
    check_shape("out", out.shape(), x.shape())?;
    if out.is_empty() {
        return Ok(()); // the other dimensions may be anything
    }
    // Equal strides without gaps: the elements correspond in memory order, whatever it is.
    if x.strides() == out.strides()
        && let (Some(x), Some(out)) = (x.as_slice_memory_order(), out.as_slice_memory_order_mut())
    {
        map(f, x, out);
        return Ok(());
    }
    let work = U::COST.saturating_mul(out.len() as u64);
    threads::for_each(x.rows().into_iter().zip(out.rows_mut()), work, |(x, mut out)| {
        if let (Some(x), Some(out)) = (x.as_slice(), out.as_slice_mut()) {
            return map(f, x, out);
        }
        let mut values = [0.0; 256];
        let chunks = (x.axis_chunks_iter(Axis(0), 256)).zip(out.axis_chunks_iter_mut(Axis(0), 256));
        for (x, mut out) in chunks {
            let values = &mut values[..x.len()];
            values.iter_mut().zip(&x).for_each(|(v, x)| *v = *x);
            map_in_place(f, values);
            out.iter_mut().zip(&*values).for_each(|(o, v)| *o = *v);
        }
    });
    Ok(())
}
