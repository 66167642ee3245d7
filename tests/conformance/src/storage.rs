//! Tensors of a case in the type that its arguments name. Case files hold f32 alone.

use dgm_core::tensor::{Floats, FloatsMut, bf16, f16};
use ndarray::{Array, ArrayView, ArrayViewMut, Dimension};

/// A tensor rounded to a type; f32 stays where it is.
pub enum Stored<'a, D: Dimension> {
    F32(ArrayView<'a, f32, D>),
    F16(Array<f16, D>),
    Bf16(Array<bf16, D>),
}

impl<'a, D: Dimension> Stored<'a, D> {
    /// `x` as `f32`, `f16` or `bf16`.
    pub fn new(x: ArrayView<'a, f32, D>, dtype: &str) -> Self {
        match dtype {
            "f32" => Self::F32(x),
            "f16" => Self::F16(x.mapv(f16::from_f32)),
            "bf16" => Self::Bf16(x.mapv(bf16::from_f32)),
            other => panic!("no type {other}"),
        }
    }

    pub fn view(&self) -> Floats<'_, D> {
        match self {
            Self::F32(x) => x.view().into(),
            Self::F16(x) => x.view().into(),
            Self::Bf16(x) => x.view().into(),
        }
    }
}

/// The output of a case in a type.
pub enum Output<'a, D: Dimension> {
    F32(ArrayViewMut<'a, f32, D>),
    F16(ArrayViewMut<'a, f32, D>, Array<f16, D>),
    Bf16(ArrayViewMut<'a, f32, D>, Array<bf16, D>),
}

impl<'a, D: Dimension> Output<'a, D> {
    pub fn new(out: ArrayViewMut<'a, f32, D>, dtype: &str) -> Self {
        let shape = out.raw_dim();
        match dtype {
            "f32" => Self::F32(out),
            "f16" => Self::F16(out, Array::from_elem(shape, f16::NAN)),
            "bf16" => Self::Bf16(out, Array::from_elem(shape, bf16::NAN)),
            other => panic!("no type {other}"),
        }
    }

    pub fn view_mut(&mut self) -> FloatsMut<'_, D> {
        match self {
            Self::F32(out) => out.view_mut().into(),
            Self::F16(_, narrow) => narrow.view_mut().into(),
            Self::Bf16(_, narrow) => narrow.view_mut().into(),
        }
    }

    /// Widens what was computed into the f32 output.
    pub fn widen(self) {
        match self {
            Self::F32(_) => {}
            Self::F16(mut out, narrow) => out.zip_mut_with(&narrow, |to, x| *to = x.to_f32()),
            Self::Bf16(mut out, narrow) => out.zip_mut_with(&narrow, |to, x| *to = x.to_f32()),
        }
    }
}

/// A number rounded to a type. (From f64 the crate rounds some neighbours of a tie the wrong way; inputs are f32.)
pub fn rounded(x: f64, dtype: &str) -> f64 {
    match dtype {
        "f16" => f16::from_f32(x as f32).to_f64(),
        "bf16" => bf16::from_f32(x as f32).to_f64(),
        _ => x,
    }
}
