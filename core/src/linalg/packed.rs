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
/// floats of bias.
#[derive(Debug)]
pub struct PackedLinear {
    in_features: usize,
    out_features: usize,
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
        let weight: Floats<Ix2> = weight.into();
        let [out_features, in_features] = *weight.shape() else { unreachable!("two axes") };
        check_strides("weight", weight.shape(), weight.strides(), false)?;
        if let Some(bias) = &bias {
            check_shape("bias", bias.shape(), &[out_features])?;
            check_strides("bias", bias.shape(), bias.strides(), false)?;
        }
        let overflow = || Error::Overflow { arg: "weight", got: format!("{:?}", weight.shape()) };
        let outputs = out_features.checked_next_multiple_of(PANEL).ok_or_else(overflow)?;
        let panels = match &weight {
            Floats::F32(w) => pack_panels(w, 1, 0.0, |to, _, x| *to = x).map(Panels::F32),
            Floats::F16(w) => pack_panels(w, 1, 0, |to, _, x: f16| *to = x.to_bits()).map(Panels::F16),
            Floats::Bf16(w) => {
                let join = |to: &mut f32, k: usize, x: bf16| {
                    *to = f32::from_bits(to.to_bits() | u32::from(x.to_bits()) << (k % 2 * 16));
                };
                pack_panels(w, 2, 0.0, join).map(Panels::Bf16)
            }
        }
        .ok_or_else(overflow)?;
        let mut padded = zeros("weight", outputs)?;
        if let Some(bias) = bias {
            each!(Floats, bias, bias => padded.iter_mut().zip(bias).for_each(|(to, x)| *to = x.to_f32()));
        }
        Ok(PackedLinear { in_features, out_features, panels, bias: padded, plain: OnceLock::new() })
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

    /// Weights of f32 as `[out, in]`, unpacked once.
    pub(super) fn plain(&self) -> Option<&[f32]> {
        let Panels::F32(panels) = &self.panels else { return None };
        let (panels, size) = (panels.all(), self.in_features * PANEL);
        Some(self.plain.get_or_init(|| {
            let element = |n: usize, k: usize| panels[n / PANEL * size + k * PANEL + n % PANEL];
            let rows = (0..self.out_features).flat_map(|n| (0..self.in_features).map(move |k| (n, k)));
            rows.map(|(n, k)| element(n, k)).collect()
        }))
    }

    pub(super) fn panels(&self) -> usize {
        self.out_features.div_ceil(PANEL)
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

/// Calls `put` for every element `(n, k)` with its place in the panels, which `together` neighbours
/// along `k` share, and `k`. `None` where the panels leave the address space.
fn pack_panels<T: Element, P: Copy>(
    weight: &ArrayView2<T>,
    together: usize,
    zero: P,
    put: impl Fn(&mut P, usize, T),
) -> Option<Aligned<P>> {
    /// Inputs a step: what is written stays in L1, whichever way the weights lie.
    const STEP: usize = 64;
    let (outputs, inputs) = weight.dim();
    let size = inputs.div_ceil(together).checked_mul(PANEL);
    let mut packed = Aligned::new(size.and_then(|n| n.checked_mul(outputs.div_ceil(PANEL))), zero)?;
    let size = size?;
    if size == 0 {
        // However many outputs: nothing to visit.
        return Some(packed);
    }
    for (p, rows) in weight.axis_chunks_iter(Axis(0), PANEL).enumerate() {
        let panel = &mut packed.all_mut()[p * size..][..size];
        for first in (0..inputs).step_by(STEP) {
            let end = inputs.min(first + STEP);
            for (n, row) in rows.outer_iter().enumerate() {
                for (k, &x) in (first..end).zip(row.slice(s![first..end])) {
                    put(&mut panel[k / together * PANEL + n], k, x);
                }
            }
        }
    }
    Some(packed)
}
