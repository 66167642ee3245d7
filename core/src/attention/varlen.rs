//! Sequences of different lengths, packed one after the other.

use ndarray::{ArrayView2, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, Ix3, Ix4};

use super::tiles::{self, Problem};
use super::{AttentionOptions, MAX_HEAD_DIM, check_heads, check_memory};
use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;
use crate::tensor::{Floats, FloatsMut};

/// [`attention`](super::attention) of many sequences at once, each within itself. The bits are
/// those of one call a sequence.
///
/// | argument | shape |
/// |---|---|
/// | `q` | `[Tq, H, D]`: the queries of all sequences, one after the other |
/// | `k` | `[Tk, Hkv, D]` |
/// | `v` | `[Tk, Hkv, Dv]` |
/// | `q_offsets` | `[N + 1]`: sequence `n` has the queries `q_offsets[n] .. q_offsets[n + 1]` |
/// | `kv_offsets` | `[N + 1]`, the same for keys and values |
/// | `out` | `[Tq, H, Dv]` |
/// | `lse` | `[H, Tq]` |
///
/// Offsets begin with 0, never fall, and end with `Tq` and `Tk`. `options` may hold neither
/// `kv_lengths` nor `bias` nor `mask`, which belong to a batch.
///
/// # Errors
/// Those of `attention`, and [`Error::Argument`] for offsets or options that do not fit.
///
/// ```
/// use dgm_core::attention::{AttentionOptions, attention_varlen};
/// use ndarray::Array3;
/// let (q, k) = (Array3::<f32>::ones((3, 1, 4)), Array3::<f32>::ones((5, 1, 4)));
/// let v = Array3::from_shape_fn((5, 1, 1), |(j, _, _)| j as f32);
/// let mut out = Array3::<f32>::zeros((3, 1, 1));
/// let options = AttentionOptions::default();
/// attention_varlen(q.view(), k.view(), v.view(), &[0, 1, 3], &[0, 2, 5], &options, out.view_mut(), None)?;
/// assert_eq!(out.into_raw_vec_and_offset().0, [0.5, 3.0, 3.0]); // means of values 0..2 and 2..5
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[allow(clippy::too_many_arguments)]
pub fn attention_varlen<'a>(
    q: impl Into<Floats<'a, Ix3>>,
    k: impl Into<Floats<'a, Ix3>>,
    v: impl Into<Floats<'a, Ix3>>,
    q_offsets: &[usize],
    kv_offsets: &[usize],
    options: &AttentionOptions,
    out: impl Into<FloatsMut<'a, Ix3>>,
    lse: Option<ArrayViewMut2<'a, f32>>,
) -> Result<()> {
    let (q, k, v, out) = (q.into(), k.into(), v.into(), out.into());
    let packed = Packed { q_offsets, kv_offsets };
    packed.check([&q, &k, &v], options, out.shape())?;
    check_strides("out", out.shape(), out.strides(), true)?;
    if let Some(lse) = &lse {
        check_shape("lse", lse.shape(), &[q.shape()[1], q.shape()[0]])?;
        check_strides("lse", lse.shape(), lse.strides(), true)?;
    }
    let (factor, cap) = options.factors(q.shape()[2]);
    let problems = packed.problems(q, k, v, options, (factor, cap));
    let mut lse = lse.map(|x| packed.queries(x));
    let own_lse = std::iter::from_fn(|| Some(lse.as_mut().and_then(Iterator::next)));
    let calls = problems.zip(packed.queries(out)).zip(own_lse).map(|((p, out), lse)| (p, out, lse));
    tiles::run(calls.collect());
    Ok(())
}

/// Where sequences lie in packed arrays.
#[derive(Clone, Copy)]
pub(super) struct Packed<'n> {
    pub q_offsets: &'n [usize],
    pub kv_offsets: &'n [usize],
}

impl<'n> Packed<'n> {
    /// Checks `q`, `k` and `v`, the shape of the output and the options.
    pub(super) fn check(
        self,
        [q, k, v]: [&Floats<Ix3>; 3],
        options: &AttentionOptions,
        out: &[usize],
    ) -> Result<()> {
        let [queries, heads, dim] = *q.shape() else { unreachable!("three axes") };
        let (keys, kv_heads, value_dim) = (k.shape()[0], k.shape()[1], v.shape()[2]);
        if !(1..=MAX_HEAD_DIM).contains(&dim) {
            return Err(Error::shape("q", q.shape(), format!("[Tq, H, D] with D 1 to {MAX_HEAD_DIM}")));
        }
        check_shape("k", k.shape(), &[keys, kv_heads, dim])?;
        check_heads(k.shape(), kv_heads, heads)?;
        if !(1..=MAX_HEAD_DIM).contains(&value_dim) {
            return Err(Error::shape("v", v.shape(), format!("[Tk, Hkv, Dv] with Dv 1 to {MAX_HEAD_DIM}")));
        }
        check_shape("v", v.shape(), &[keys, kv_heads, value_dim])?;
        check_shape("out", out, &[queries, heads, value_dim])?;
        check_memory(q, k, v)?;
        check_offsets("q_offsets", self.q_offsets, queries)?;
        check_offsets("kv_offsets", self.kv_offsets, keys)?;
        check_shape("kv_offsets", &[self.kv_offsets.len()], &[self.q_offsets.len()])?;
        for (arg, given) in [
            ("kv_lengths", options.kv_lengths.is_some()),
            ("bias", options.bias.is_some()),
            ("mask", options.mask.is_some()),
        ] {
            if given {
                return Err(Error::argument(arg, "given", "none for packed sequences"));
            }
        }
        options.check([1, heads, queries, keys])
    }

    /// The sequences of `[Tq, H, D]` or `[H, Tq]`, each as a batch entry, `[1, H, T, D]` or `[1, H, T]`.
    pub(super) fn queries<A: Cut>(self, x: A) -> impl Iterator<Item = A::Entry> + use<'n, A> {
        cut(x, self.q_offsets)
    }

    /// The same of `[Tk, Hkv, D]`.
    pub(super) fn keys<A: Cut>(self, x: A) -> impl Iterator<Item = A::Entry> + use<'n, A> {
        cut(x, self.kv_offsets)
    }

    /// The sequences by themselves.
    pub(super) fn problems<'a, 'r, 'o>(
        self,
        q: Floats<'a, Ix3>,
        k: Floats<'a, Ix3>,
        v: Floats<'a, Ix3>,
        options: &'r AttentionOptions<'o>,
        (factor, cap): (f32, Option<f32>),
    ) -> impl Iterator<Item = Problem<'a, 'r, 'o>> + use<'a, 'r, 'o, 'n> {
        let arrays = self.queries(q).zip(self.keys(k)).zip(self.keys(v));
        arrays.map(move |((q, k), v)| Problem { q, k, v, factor, cap, options })
    }
}

fn check_offsets(arg: &'static str, offsets: &[usize], total: usize) -> Result<()> {
    let fits = offsets.first() == Some(&0) && offsets.last() == Some(&total) && offsets.is_sorted();
    match fits {
        true => Ok(()),
        false => Err(Error::argument(
            arg,
            format!("{:?}{}", &offsets[..offsets.len().min(8)], if offsets.len() > 8 { "..." } else { "" }),
            format!("numbers from 0 to {total} that never fall"),
        )),
    }
}

/// An array that holds sequences one after the other.
pub(super) trait Cut: Sized {
    /// A batch entry.
    type Entry;
    /// The first `n` tokens and the rest.
    fn cut(self, n: usize) -> (Self, Self);
    fn entry(self) -> Self::Entry;
}

macro_rules! cut_tokens {
    ($floats:ident) => {
        impl<'a> Cut for $floats<'a, Ix3> {
            type Entry = $floats<'a, Ix4>;
            fn cut(self, n: usize) -> (Self, Self) {
                self.split_at(0, n)
            }
            fn entry(self) -> $floats<'a, Ix4> {
                self.permuted_axes(ndarray::Dim([1, 0, 2])).insert_axis()
            }
        }
    };
}

cut_tokens!(Floats);
cut_tokens!(FloatsMut);

impl<'a> Cut for ArrayViewMut2<'a, f32> {
    type Entry = ArrayViewMut3<'a, f32>;
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at(Axis(1), n)
    }
    fn entry(self) -> ArrayViewMut3<'a, f32> {
        self.insert_axis(Axis(0))
    }
}

impl<'a> Cut for ArrayView2<'a, f32> {
    type Entry = ArrayView3<'a, f32>;
    fn cut(self, n: usize) -> (Self, Self) {
        self.split_at(Axis(1), n)
    }
    fn entry(self) -> ArrayView3<'a, f32> {
        self.insert_axis(Axis(0))
    }
}

fn cut<A: Cut>(x: A, offsets: &[usize]) -> impl Iterator<Item = A::Entry> + use<'_, A> {
    let mut rest = Some(x);
    offsets.windows(2).map_while(move |ends| {
        let (own, after) = rest.take()?.cut(ends[1] - ends[0]);
        rest = Some(after);
        Some(own.entry())
    })
}
