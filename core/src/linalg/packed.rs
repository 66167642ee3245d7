//! Weights in the order the microkernel reads them.

use std::sync::OnceLock;

use half::{bf16, f16};
use ndarray::{ArrayView2, Axis, Ix1, Ix2, s};

use super::check_strides;
use crate::error::{Error, Result, check_shape, zeros};
use crate::tensor::{Dtype, Element, Floats, each};

/// Output columns a panel.
pub(super) const PANEL: usize = 32;

/// A vector that begins at a cache line: a panel row read across two lines costs two loads.
#[derive(Debug)]
struct Aligned<T> {
    data: Vec<T>,
    start: usize,
}

impl<T: Copy> Aligned<T> {
    const LINE: usize = 64;

    /// `None` where `len` elements leave the address space, or are more than can be had.
    fn new(len: Option<usize>, fill: T) -> Option<Self> {
        let line = Self::LINE / size_of::<T>();
        let len = len?.checked_add(line)?;
        let mut data = Vec::new();
        data.try_reserve_exact(len).ok()?;
        data.resize(len, fill);
        let start = data.as_ptr().align_offset(Self::LINE).min(line);
        Some(Aligned { data, start })
    }

    fn all(&self) -> &[T] {
        &self.data[self.start..]
    }

    fn all_mut(&mut self) -> &mut [T] {
        &mut self.data[self.start..]
    }

    fn bytes(&self) -> usize {
        size_of_val(&self.data[..])
    }
}

/// Panels of 32 outputs, padded with zeros.
#[derive(Debug)]
enum Panels {
    /// `[out / 32][in][32]`.
    F32(Aligned<f32>),
    /// `[out / 32][in][32]`.
    F16(Aligned<u16>),
    /// `[out / 32][in / 2][32]` pairs of neighbours along `in`, the first in the lower half of a
    /// float's bits, a zero after an odd end.
    Bf16(Aligned<f32>),
}

/// Some rows of a panel.
#[derive(Clone, Copy)]
pub(super) enum Panel<'a> {
    F32(&'a [f32]),
    F16(&'a [u16]),
    /// Pairs as bits.
    Bf16(&'a [f32]),
}

/// The weights of a linear layer, packed once and read by every call.
///
/// Memory: `ceil(out / 32) * 32 * in` elements of the weights' own type and `ceil(out / 32) * 32`
/// floats of bias; of a gated layer `ceil(out / 16) * 32` in place of `ceil(out / 32) * 32`.
#[derive(Debug)]
pub struct PackedLinear {
    in_features: usize,
    out_features: usize,
    /// Outputs a panel: all of it, or half where the other half multiplies.
    columns: usize,
    panels: Panels,
    /// Padded with zeros, zeros where there is none.
    bias: Vec<f32>,
    /// `[out, in]` for a BLAS, from its first product on.
    plain: OnceLock<Vec<f32>>,
}

impl PackedLinear {
    /// Packs `weight` `[out, in]` (the layout of PyTorch's `nn.Linear`; `[in, out]` in memory is a
    /// transposed view) and `bias` `[out]`.
    ///
    /// Each is f32, f16 or bf16. Weights stay what they are in memory, the bias becomes f32.
    ///
    /// # Errors
    /// [`Error::Shape`] when the bias does not fit, [`Error::Stride`] for negative strides,
    /// [`Error::Overflow`] when the packed size leaves the address space.
    ///
    /// ```
    /// use dgm_core::linalg::PackedLinear;
    /// use dgm_core::tensor::bf16;
    /// use ndarray::array;
    /// let weight = array![[1.0f32, 2.0, 3.0], [4.0, 5.0, 6.0]];
    /// let w = PackedLinear::pack(weight.view(), Some(array![0.5f32, 1.0].view().into()))?;
    /// assert_eq!((w.in_features(), w.out_features()), (3, 2));
    /// let narrow = PackedLinear::pack(weight.mapv(bf16::from_f32).view(), None)?;
    /// assert!(narrow.bytes() < w.bytes());
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn pack<'a>(weight: impl Into<Floats<'a, Ix2>>, bias: Option<Floats<'a, Ix1>>) -> Result<Self> {
        Self::of(&[("weight", weight.into())], &[("bias", bias)])
    }

    /// Packs the two halves of a gated layer, whose output is `act(x gate^T + gate_bias) * (x up^T + up_bias)`:
    /// SwiGLU where the [activation](super::LinearOptions::activation) is SiLU, GEGLU where it is a GELU, a
    /// bilinear layer without one (N. Shazeer, arXiv 2002.05202).
    ///
    /// `gate` and `up` are `[out, in]`, of one type and shape, the biases `[out]`; the halves of one matrix
    /// are two views. Sixteen outputs of each lie side by side, so that one pass makes both and their product.
    ///
    /// # Errors
    /// As [`PackedLinear::pack`]; [`Error::Dtype`] when `up` is not of the type of `gate`.
    ///
    /// ```
    /// use dgm_core::linalg::{Activation, PackedLinear, linear};
    /// use ndarray::{Array2, array};
    /// let (gate, up) = (array![[1.0f32, 2.0]], array![[3.0f32, -1.0]]);
    /// let w = PackedLinear::pack_gated(gate.view(), up.view(), None, None)?;
    /// assert_eq!((w.in_features(), w.out_features()), (2, 1));
    /// let mut y = Array2::<f32>::zeros((1, 1));
    /// linear(array![[1.0f32, 1.0]].view(), &w, Activation::None, y.view_mut())?;
    /// assert_eq!(y, array![[6.0]]);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn pack_gated<'a>(
        gate: impl Into<Floats<'a, Ix2>>,
        up: impl Into<Floats<'a, Ix2>>,
        gate_bias: Option<Floats<'a, Ix1>>,
        up_bias: Option<Floats<'a, Ix1>>,
    ) -> Result<Self> {
        let (gate, up) = (gate.into(), up.into());
        if up.shape() != gate.shape() {
            return Err(Error::shape("up", up.shape(), format!("{:?}, as gate", gate.shape())));
        }
        if up.dtype() != gate.dtype() {
            let (got, expected) = (up.dtype().to_string(), format!("{}, as gate", gate.dtype()));
            return Err(Error::Dtype { arg: "up", got, expected });
        }
        Self::of(&[("gate", gate), ("up", up)], &[("gate_bias", gate_bias), ("up_bias", up_bias)])
    }

    /// Matrices of one type and shape that share the panels, and a bias for each.
    fn of(weights: &[Named<Floats<Ix2>>], biases: &[Named<Option<Floats<Ix1>>>]) -> Result<Self> {
        let [out_features, in_features] = *weights[0].1.shape() else { unreachable!("two axes") };
        for (arg, weight) in weights {
            check_strides(arg, weight.shape(), weight.strides(), false)?;
        }
        for (arg, bias) in biases {
            if let Some(bias) = bias {
                check_shape(arg, bias.shape(), &[out_features])?;
                check_strides(arg, bias.shape(), bias.strides(), false)?;
            }
        }
        let (arg, first) = &weights[0];
        let overflow = || Error::Overflow { arg, got: format!("{:?}", first.shape()) };
        let columns = PANEL / weights.len();
        let outputs = out_features.div_ceil(columns).checked_mul(PANEL).ok_or_else(overflow)?;
        macro_rules! panels {
            ($kind:ident, $together:expr, $zero:expr, $put:expr) => {{
                let views = weights.iter().filter_map(|(_, w)| match w {
                    Floats::$kind(w) => Some(w),
                    _ => None,
                });
                pack_panels(&views.collect::<Vec<_>>(), $together, $zero, $put).map(Panels::$kind)
            }};
        }
        let panels = match first {
            Floats::F32(_) => panels!(F32, 1, 0.0, |to, _, x| *to = x),
            Floats::F16(_) => panels!(F16, 1, 0, |to, _, x: f16| *to = x.to_bits()),
            Floats::Bf16(_) => panels!(Bf16, 2, 0.0, |to: &mut f32, k: usize, x: bf16| {
                *to = f32::from_bits(to.to_bits() | u32::from(x.to_bits()) << (k % 2 * 16));
            }),
        }
        .ok_or_else(overflow)?;
        let mut padded = zeros(arg, outputs)?;
        for (half, (_, bias)) in biases.iter().enumerate() {
            let Some(bias) = bias else { continue };
            let places = padded.chunks_exact_mut(PANEL).flat_map(|p| &mut p[half * columns..][..columns]);
            each!(Floats, bias, bias => places.zip(bias).for_each(|(to, x)| *to = x.to_f32()));
        }
        let plain = OnceLock::new();
        Ok(PackedLinear { in_features, out_features, columns, panels, bias: padded, plain })
    }

    /// Length of an input row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Length of an output row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// What the weights are stored as.
    pub fn dtype(&self) -> Dtype {
        match self.panels {
            Panels::F32(_) => Dtype::F32,
            Panels::F16(_) => Dtype::F16,
            Panels::Bf16(_) => Dtype::Bf16,
        }
    }

    /// Bytes the packed weights occupy.
    pub fn bytes(&self) -> usize {
        let weights = match &self.panels {
            Panels::F32(w) | Panels::Bf16(w) => w.bytes(),
            Panels::F16(w) => w.bytes(),
        };
        weights + size_of_val(&self.bias[..])
    }

    /// Weights of f32 as `[out, in]`, unpacked once; none of a gated layer.
    pub(super) fn plain(&self) -> Option<&[f32]> {
        if self.is_gated() || self.dtype() != Dtype::F32 {
            return None;
        }
        Some(self.plain.get_or_init(|| {
            let mut plain = vec![0.0; self.out_features * self.in_features];
            if self.in_features > 0 {
                plain.chunks_exact_mut(self.in_features).enumerate().for_each(|(n, row)| self.row(n, row));
            }
            plain
        }))
    }

    /// Row `n` of the weights of a layer that is not gated, widened.
    pub(crate) fn row(&self, n: usize, to: &mut [f32]) {
        let (panel, n) = (n / PANEL, n % PANEL);
        match self.panel(panel, 0, self.in_features) {
            Panel::F32(w) => to.iter_mut().zip(w[n..].iter().step_by(PANEL)).for_each(|(to, &x)| *to = x),
            Panel::F16(w) => {
                let numbers = w[n..].iter().step_by(PANEL);
                to.iter_mut().zip(numbers).for_each(|(to, &x)| *to = f16::from_bits(x).to_f32());
            }
            Panel::Bf16(w) => {
                for (to, x) in to.chunks_mut(2).zip(w[n..].iter().step_by(PANEL)) {
                    // A bfloat16 is the upper half of a float.
                    to[0] = f32::from_bits(x.to_bits() << 16);
                    if let Some(to) = to.get_mut(1) {
                        *to = f32::from_bits(x.to_bits() & 0xffff_0000);
                    }
                }
            }
        }
    }

    /// Whether it was made by [`PackedLinear::pack_gated`].
    pub fn is_gated(&self) -> bool {
        self.columns < PANEL
    }

    /// Outputs a panel; of a gated layer what multiplies them lies behind them.
    #[inline(always)]
    pub(super) fn columns(&self) -> usize {
        self.columns
    }

    pub(super) fn panels(&self) -> usize {
        self.out_features.div_ceil(self.columns)
    }

    /// Inputs `first .. first + len` of panel `p`; with pairs `first` is even.
    pub(super) fn panel(&self, p: usize, first: usize, len: usize) -> Panel<'_> {
        let range = |depth: usize, first: usize, len: usize| {
            let start = (p * depth + first) * PANEL;
            start..start + len * PANEL
        };
        match &self.panels {
            Panels::F32(w) => Panel::F32(&w.all()[range(self.in_features, first, len)]),
            Panels::F16(w) => Panel::F16(&w.all()[range(self.in_features, first, len)]),
            Panels::Bf16(w) => {
                Panel::Bf16(&w.all()[range(self.in_features.div_ceil(2), first / 2, len.div_ceil(2))])
            }
        }
    }

    /// The bias of panel `p`, zero where there is none.
    pub(super) fn bias(&self, p: usize) -> &[f32] {
        &self.bias[p * PANEL..][..PANEL]
    }
}

/// An argument with its name.
type Named<T> = (&'static str, T);

/// Calls `put` for every element `(n, k)` of each weight with its place in the panels, which `together`
/// neighbours along `k` share, and `k`. Each weight has its part of the columns of every panel. `None` where
/// the panels leave the address space.
fn pack_panels<T: Element, P: Copy>(
    weights: &[&ArrayView2<T>],
    together: usize,
    zero: P,
    put: impl Fn(&mut P, usize, T),
) -> Option<Aligned<P>> {
    /// Inputs a step: what is written stays in L1, whichever way the weights lie.
    const STEP: usize = 64;
    let (outputs, inputs) = weights[0].dim();
    let columns = PANEL / weights.len();
    let size = inputs.div_ceil(together).checked_mul(PANEL);
    let mut packed = Aligned::new(size.and_then(|n| n.checked_mul(outputs.div_ceil(columns))), zero)?;
    let size = size?;
    if size == 0 {
        // However many outputs: nothing to visit.
        return Some(packed);
    }
    for (part, weight) in weights.iter().enumerate() {
        for (p, rows) in weight.axis_chunks_iter(Axis(0), columns).enumerate() {
            let panel = &mut packed.all_mut()[p * size..][..size];
            for first in (0..inputs).step_by(STEP) {
                let end = inputs.min(first + STEP);
                for (n, row) in (part * columns..).zip(rows.outer_iter()) {
                    for (k, &x) in (first..end).zip(row.slice(s![first..end])) {
                        put(&mut panel[k / together * PANEL + n], k, x);
                    }
                }
            }
        }
    }
    Some(packed)
}
