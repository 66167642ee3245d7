//! Weights in the order the microkernel reads them.

use std::sync::OnceLock;

use ndarray::{ArrayView1, ArrayView2};

use super::check_strides;
use crate::error::{Error, Result, zeros};

/// Output columns a panel.
pub(super) const PANEL: usize = 32;

/// Floats a cache line: a panel row read across two lines costs two loads.
const ALIGN: usize = 16;

/// The weights of a linear layer, packed once and read by every call.
///
/// Memory: `ceil(out / 32) * 32 * (in + 1)` floats.
#[derive(Debug)]
pub struct PackedLinear {
    in_features: usize,
    out_features: usize,
    /// From `start`: panels `[out / 32][in][32]`, zero-padded, then the bias, padded likewise.
    data: Vec<f32>,
    start: usize,
    /// `[out, in]` for a BLAS, from its first product on.
    plain: OnceLock<Vec<f32>>,
}

impl PackedLinear {
    /// Packs `weight` `[out, in]` (the layout of PyTorch's `nn.Linear`) and `bias` `[out]`.
    ///
    /// # Errors
    /// [`Error::Shape`] when the bias does not fit, [`Error::Stride`] for negative strides,
    /// [`Error::Overflow`] when the packed size leaves the address space.
    ///
    /// ```
    /// use dgm_core::linalg::PackedLinear;
    /// use ndarray::array;
    /// let w = PackedLinear::pack(array![[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]].view(), None)?;
    /// assert_eq!((w.in_features(), w.out_features()), (3, 2));
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    pub fn pack(weight: ArrayView2<f32>, bias: Option<ArrayView1<f32>>) -> Result<Self> {
        let (out_features, in_features) = weight.dim();
        check_strides("weight", weight.shape(), weight.strides(), false)?;
        if let Some(bias) = &bias {
            crate::error::check_shape("bias", bias.shape(), &[out_features])?;
            check_strides("bias", bias.shape(), bias.strides(), false)?;
        }
        let panels = out_features.div_ceil(PANEL);
        let len = in_features
            .checked_add(1)
            .and_then(|rows| rows.checked_mul(PANEL)?.checked_mul(panels)?.checked_add(ALIGN))
            .filter(|&n| n <= isize::MAX as usize / size_of::<f32>())
            .ok_or_else(|| Error::Overflow { arg: "weight", got: format!("{:?}", weight.shape()) })?;
        let mut data = zeros("weight", len)?;
        let start = data.as_ptr().align_offset(ALIGN * size_of::<f32>()).min(ALIGN);
        let (packed, bias_out) = data[start..].split_at_mut(panels * in_features * PANEL);
        for (n, row) in weight.outer_iter().enumerate() {
            let first = n / PANEL * in_features * PANEL + n % PANEL;
            for (k, &w) in row.iter().enumerate() {
                packed[first + k * PANEL] = w;
            }
        }
        for (to, &from) in bias_out.iter_mut().zip(bias.iter().flatten()) {
            *to = from;
        }
        Ok(PackedLinear { in_features, out_features, data, start, plain: OnceLock::new() })
    }

    /// Length of an input row.
    pub fn in_features(&self) -> usize {
        self.in_features
    }

    /// Length of an output row.
    pub fn out_features(&self) -> usize {
        self.out_features
    }

    /// Bytes the packed weights occupy.
    pub fn bytes(&self) -> usize {
        self.data.len() * size_of::<f32>()
    }

    /// The weights `[out, in]`, unpacked once.
    pub(super) fn plain(&self) -> &[f32] {
        self.plain.get_or_init(|| {
            let element = |n: usize, k: usize| self.panel(n / PANEL)[k * PANEL + n % PANEL];
            let rows = (0..self.out_features).flat_map(|n| (0..self.in_features).map(move |k| (n, k)));
            rows.map(|(n, k)| element(n, k)).collect()
        })
    }

    pub(super) fn panels(&self) -> usize {
        self.out_features.div_ceil(PANEL)
    }

    /// The columns of panel `p`: `[in][32]`.
    pub(super) fn panel(&self, p: usize) -> &[f32] {
        let len = self.in_features * PANEL;
        &self.data[self.start + p * len..][..len]
    }

    /// The bias of panel `p`, zero where there is none.
    pub(super) fn bias(&self, p: usize) -> &[f32] {
        let first = self.panels() * self.in_features * PANEL;
        &self.data[self.start + first + p * PANEL..][..PANEL]
    }
}
