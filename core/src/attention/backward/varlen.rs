//! The gradients of packed sequences.

use ndarray::{ArrayView2, Ix3};

use super::super::AttentionOptions;
use super::super::varlen::Packed;
use super::run;
use super::tasks::Gradients;
use super::tile::Call;
use crate::error::{Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut};

/// Gradients of [`attention_varlen`](super::super::attention_varlen): those of
/// [`attention_backward`](super::attention_backward) for each sequence, to the same bits.
///
/// | argument | shape |
/// |---|---|
/// | `q`, `k`, `v` | what `attention_varlen` got: `[Tq, H, D]`, `[Tk, Hkv, D]`, `[Tk, Hkv, Dv]` |
/// | `out`, `lse` | what it gave: `[Tq, H, Dv]`, `[H, Tq]` |
/// | `dout` | `[Tq, H, Dv]` |
/// | `q_offsets`, `kv_offsets`, `options` | what it got |
/// | `dq`, `dk`, `dv` | the shapes of `q`, `k` and `v` |
///
/// # Errors
/// Those of `attention_varlen` and `attention_backward`; outputs are untouched.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention_varlen, attention_varlen_backward};
/// use ndarray::{Array2, Array3};
/// let (q, k, v) = (Array3::<f32>::ones((3, 1, 4)), Array3::<f32>::ones((5, 1, 4)), Array3::<f32>::ones((5, 1, 1)));
/// let (mut out, mut lse) = (Array3::<f32>::zeros((3, 1, 1)), Array2::zeros((1, 3)));
/// let (offsets, o) = ([[0, 1, 3], [0, 2, 5]], AttentionOptions::default());
/// attention_varlen(
///     q.view(), k.view(), v.view(), &offsets[0], &offsets[1], &o, out.view_mut(), Some(lse.view_mut()),
/// )?;
/// let dout = Array3::<f32>::ones(out.dim());
/// let (mut dq, mut dk, mut dv) = (Array3::<f32>::zeros(q.dim()), Array3::<f32>::zeros(k.dim()), Array3::<f32>::zeros(v.dim()));
/// attention_varlen_backward(
///     q.view(), k.view(), v.view(), out.view(), lse.view(), dout.view(), &offsets[0], &offsets[1], &o,
///     dq.view_mut(), dk.view_mut(), dv.view_mut(),
/// )?;
/// // One query shares its weight between two values, two queries among three.
/// let expected = [0.5, 0.5, 2.0 / 3.0, 2.0 / 3.0, 2.0 / 3.0];
/// assert!(dv.iter().zip(expected).all(|(x, e): (&f32, f32)| (x - e).abs() < 1e-6));
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[allow(clippy::too_many_arguments)]
pub fn attention_varlen_backward<'a>(
    q: impl Into<Floats<'a, Ix3>>,
    k: impl Into<Floats<'a, Ix3>>,
    v: impl Into<Floats<'a, Ix3>>,
    out: impl Into<Floats<'a, Ix3>>,
    lse: ArrayView2<'a, f32>,
    dout: impl Into<Floats<'a, Ix3>>,
    q_offsets: &[usize],
    kv_offsets: &[usize],
    options: &AttentionOptions,
    dq: impl Into<FloatsMut<'a, Ix3>>,
    dk: impl Into<FloatsMut<'a, Ix3>>,
    dv: impl Into<FloatsMut<'a, Ix3>>,
) -> Result<()> {
    let (q, k, v, out, dout) = (q.into(), k.into(), v.into(), out.into(), dout.into());
    let (dq, dk, dv) = (dq.into(), dk.into(), dv.into());
    let packed = Packed { q_offsets, kv_offsets };
    Arguments { q, k, v, out, lse, dout, packed, options, dq, dk, dv }.run()
}

/// The arguments of a call.
pub(super) struct Arguments<'a, 'r, 'o> {
    pub q: Floats<'a, Ix3>,
    pub k: Floats<'a, Ix3>,
    pub v: Floats<'a, Ix3>,
    pub out: Floats<'a, Ix3>,
    pub lse: ArrayView2<'a, f32>,
    pub dout: Floats<'a, Ix3>,
    pub packed: Packed<'r>,
    pub options: &'r AttentionOptions<'o>,
    pub dq: FloatsMut<'a, Ix3>,
    pub dk: FloatsMut<'a, Ix3>,
    pub dv: FloatsMut<'a, Ix3>,
}

impl Arguments<'_, '_, '_> {
    fn check(&self) -> Result<()> {
        let Arguments { q, k, v, out, lse, dout, packed, options, dq, dk, dv } = self;
        packed.check([q, k, v], options, out.shape())?;
        check_strides("out", out.shape(), out.strides(), false)?;
        check_shape("lse", lse.shape(), &[q.shape()[1], q.shape()[0]])?;
        check_strides("lse", lse.shape(), lse.strides(), false)?;
        check_shape("dout", dout.shape(), out.shape())?;
        check_strides("dout", dout.shape(), dout.strides(), false)?;
        for (arg, to, of) in [("dq", dq, q), ("dk", dk, k), ("dv", dv, v)] {
            check_shape(arg, to.shape(), of.shape())?;
            check_strides(arg, to.shape(), to.strides(), true)?;
        }
        Ok(())
    }

    pub(super) fn run(self) -> Result<()> {
        self.check()?;
        let Arguments { q, k, v, out, lse, dout, packed, options, dq, dk, dv } = self;
        let dim = q.shape()[2];
        let scale = options.scale(dim);
        let given = packed.queries(out).zip(packed.queries(lse)).zip(packed.queries(dout));
        let calls = packed
            .problems(q, k, v, options, options.factors(dim))
            .zip(given)
            .map(|(problem, ((out, lse), dout))| Call { problem, out, lse, dout, scale });
        let gradients = packed
            .queries(dq)
            .zip(packed.keys(dk))
            .zip(packed.keys(dv))
            .map(|((dq, dk), dv)| Gradients { dq, dk, dv, dbias: None });
        run(calls.zip(gradients).collect(), None);
        Ok(())
    }
}
