//! The list.

mod attention;
mod linear;
mod nn;

use dgm_core::Result;
use dgm_core::tensor::FloatsMut;
use ndarray::{ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Dimension};

pub(crate) use attention::{block_table, firsts, seen};

use crate::storage::{Output, Stored};
use crate::{Args, CaseSpec, Kernel};

/// Every listed kernel, once.
pub fn kernels() -> impl Iterator<Item = &'static Kernel> {
    [attention::KERNELS, linear::KERNELS, nn::KERNELS].into_iter().flatten()
}

const fn case(name: &'static str, sizes: &'static str, args: &'static str) -> CaseSpec {
    CaseSpec { name, sizes, args }
}

fn view<'a, D: Dimension>(x: &'a ArrayViewD<f32>) -> ArrayView<'a, f32, D> {
    x.view().into_dimensionality().expect("the rank of the signature")
}

fn target<D: Dimension>(out: ArrayViewMutD<f32>) -> ArrayViewMut<f32, D> {
    out.into_dimensionality().expect("the rank of the signature")
}

/// An input in the type of a case.
fn own<'a, D: Dimension>(x: &'a ArrayViewD<f32>, a: &Args) -> Stored<'a, D> {
    Stored::new(view(x), a.text_or("storage", "f32"))
}

/// An output in the type of a case, widened.
fn into<D: Dimension>(
    out: ArrayViewMutD<f32>,
    a: &Args,
    f: impl FnOnce(FloatsMut<D>) -> Result<()>,
) -> Result<()> {
    let mut to = Output::new(target::<D>(out), a.text_or("storage", "f32"));
    f(to.view_mut())?;
    to.widen();
    Ok(())
}
