//! What follows the sums of a linear layer, as the caller says it.

use ndarray::Ix2;

use crate::error::{Error, Result};
use crate::tensor::Floats;

/// What follows the bias of a linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activation {
    /// Nothing.
    #[default]
    None,
    /// `x * sigmoid(x)` (arXiv 1702.03118).
    Silu,
    /// GELU with the tanh approximation (arXiv 1606.08415).
    GeluTanh,
    /// GELU with the error function.
    GeluErf,
}

/// What a linear layer adds to.
#[derive(Debug, Clone, Default)]
pub enum Residual<'a> {
    /// Nothing.
    #[default]
    None,
    /// `[R, out]`, f32, f16 or bf16, any strides: row `m` is added to by row `m mod R`, and `R` divides the
    /// rows. `R` = rows is a residual stream, fewer are positions that every batch entry repeats.
    Rows(Floats<'a, Ix2>),
    /// What the output holds: the layer adds onto it.
    Out,
}

/// What becomes of the sums of a [`linear`](super::linear()) layer, in this order: bias, activation (of a
/// [gated](super::PackedLinear::pack_gated) layer times the other half), gate, residual, one rounding.
///
/// An [`Activation`] or a [`Residual`] becomes such options by `into()`.
///
/// ```
/// use dgm_core::linalg::{Activation, LinearOptions, PackedLinear, Residual, linear};
/// use ndarray::array;
/// let w = PackedLinear::pack(array![[1.0f32, 2.0]].view(), None)?;
/// let (gate, mut stream) = (array![[0.5f32]], array![[10.0f32], [20.0]]);
/// let options = LinearOptions { gate: Some(gate.view().into()), residual: Residual::Out, ..Default::default() };
/// linear(array![[1.0f32, 1.0], [2.0, 2.0]].view(), &w, options, stream.view_mut())?;
/// assert_eq!(stream, array![[11.5], [23.0]]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct LinearOptions<'a> {
    /// After the bias.
    pub activation: Activation,
    /// `[G, out]`, f32, f16 or bf16, any strides, multiplies the result: `G` divides the rows, and each row of
    /// it is for `rows / G` rows after one another. One row is for all; a row for each batch entry is the gate of
    /// adaLN-Zero (arXiv 2212.09748).
    pub gate: Option<Floats<'a, Ix2>>,
    /// Added in the end, in one fused multiply-add with the gate.
    pub residual: Residual<'a>,
}

impl From<Activation> for LinearOptions<'_> {
    fn from(activation: Activation) -> Self {
        LinearOptions { activation, ..Default::default() }
    }
}

impl<'a> From<Residual<'a>> for LinearOptions<'a> {
    fn from(residual: Residual<'a>) -> Self {
        LinearOptions { residual, ..Default::default() }
    }
}

impl LinearOptions<'_> {
    /// Whether they fit an output of this shape.
    pub(super) fn check(&self, rows: usize, outputs: usize) -> Result<()> {
        let check = |arg, x: &Floats<Ix2>| match *x.shape() {
            [n, cols] if cols == outputs && rows.checked_rem(n).unwrap_or(rows) == 0 => Ok(()),
            _ => Err(Error::shape(arg, x.shape(), format!("[a divisor of {rows}, {outputs}]"))),
        };
        if let Some(gate) = &self.gate {
            check("gate", gate)?;
        }
        match &self.residual {
            Residual::Rows(x) => check("residual", x),
            Residual::None | Residual::Out => Ok(()),
        }
    }
}
