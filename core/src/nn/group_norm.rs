//! Group norm (Y. Wu and K. He, arXiv:1803.08494).

use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Dimension, Ix1, IxDyn};

use super::lanes::{Lanes, Operand, Target, ask, fill};
use super::norm::{Affine, check_eps, inverse_deviation, shape_of};
use super::rows::{SHORT, TASKS_A_THREAD, goes_past};
use super::sum::{Plain, Squares, row_sum};
use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result, check_shape};
use crate::math::silu;
use crate::tensor::{Element, Floats, FloatsMut, Row, RowMut, each};
use crate::threads;

/// Group norm of `x` `[B, C, ...]`: the channels are cut into `groups` runs, and each run of each batch
/// entry, over all that follows the channel axis, becomes
/// `(x - mean) / sqrt(variance + eps) * weight + bias`, weight and bias `[C]` or absent; with `silu`, SiLU of
/// that. `out` has the shape of `x`; each array is f32, f16 or bf16.
///
/// The sums are those of [`layer_norm`](super::layer_norm) over the run in row-major order (channel, then
/// the rest).
///
/// ```
/// use ndarray::{Array3, array};
/// let x = array![[[1.0, 3.0], [5.0, 5.0]]];
/// let mut out = Array3::<f32>::zeros((1, 2, 2));
/// dgm_core::nn::group_norm(x.view(), 2, None, None, 0.0001, false, out.view_mut())?;
/// assert!((out[[0, 0, 1]] - 1.0f32).abs() < 1e-4);
/// assert_eq!(out[[0, 1, 0]], 0.0);
/// # Ok::<(), dgm_core::Error>(())
/// ```
///
/// # Errors
/// [`Error::Shape`] when `x` has less than two axes or its channels are no multiple of `groups`, or `out`,
/// `weight` or `bias` does not fit; [`Error::Range`] for no groups or an `eps` that is negative or not finite.
pub fn group_norm<'a, 'o, D: Dimension>(
    x: impl Into<Floats<'a, D>>,
    groups: usize,
    weight: Option<Floats<Ix1>>,
    bias: Option<Floats<Ix1>>,
    eps: f32,
    silu: bool,
    out: impl Into<FloatsMut<'o, D>>,
) -> Result<()> {
    let parameters = [("weight", weight.map(Floats::reborrow)), ("bias", bias.map(Floats::reborrow))];
    of_groups(x.into().into_dyn(), groups, parameters, eps, silu, out.into().into_dyn())
}

fn of_groups(
    x: Floats<IxDyn>,
    groups: usize,
    parameters: [(&'static str, Option<Floats<Ix1>>); 2],
    eps: f32,
    silu: bool,
    mut out: FloatsMut<IxDyn>,
) -> Result<()> {
    check_eps(eps)?;
    if groups == 0 {
        return Err(Error::range("groups", groups, "at least 1"));
    }
    let channels = match *x.shape() {
        [_, channels, ..] if channels % groups == 0 => channels,
        _ => {
            return Err(Error::shape(
                "x",
                x.shape(),
                format!("[B, C, ...] with C a multiple of groups {groups}"),
            ));
        }
    };
    check_shape("out", out.shape(), x.shape())?;
    for (name, parameter) in &parameters {
        if let Some(shape) = shape_of(parameter) {
            check_shape(name, shape, &[channels])?;
        }
    }
    let [weight, bias] = parameters.map(|(_, parameter)| parameter);
    let past = goes_past(&out);
    let options = Options { channels: channels / groups, weight, bias, eps, silu };
    each!(Floats, &x, x => each!(FloatsMut, &mut out, out => {
        if !x.is_empty() {
            run(x.view(), &options, out.view_mut(), past);
        }
    }));
    Ok(())
}

struct Options<'a> {
    /// Channels of a group.
    channels: usize,
    weight: Option<Floats<'a, Ix1>>,
    bias: Option<Floats<'a, Ix1>>,
    eps: f32,
    silu: bool,
}

/// Every group of a tensor that is not empty.
fn run<T: Element, U: Element>(x: ArrayViewD<T>, o: &Options, mut out: ArrayViewMutD<U>, past: bool) {
    let work = 12 * x.len() as u64 * if o.silu { 4 } else { 1 };
    let groups = x.shape()[1] / o.channels;
    // Of groups that follow each other the next is asked for while one is written.
    let run = groups.min(x.shape()[0] * groups / (TASKS_A_THREAD * threads::num_threads())).max(1);
    let mut images = x.outer_iter().zip(out.outer_iter_mut());
    let mut rest = None;
    let tasks = std::iter::from_fn(|| {
        let (first, x, out) = match rest.take() {
            Some(rest) => rest,
            None => images.next().map(|(x, out)| (0, x, out))?,
        };
        let channels = (run * o.channels).min(out.shape()[0]);
        let (some, after) = out.split_at(Axis(0), channels);
        let next = first + channels;
        rest = (!after.is_empty()).then(|| (next, x.clone(), after));
        Some((first, x.slice_axis_move(Axis(0), (first..next).into()), some))
    });
    threads::for_each(tasks, work, |(first, x, out)| run_groups(x, o, first, out, past));
}

/// Groups that follow each other, from channel `first` on.
fn run_groups<T: Element, U: Element>(
    x: ArrayViewD<T>,
    o: &Options,
    first: usize,
    mut out: ArrayViewMutD<U>,
    past: bool,
) {
    let n = o.channels * x.shape()[1..].iter().product::<usize>();
    let space = n / o.channels;
    let past = past && space * size_of::<U>() >= SHORT;
    // The parameters, and a copy of the group where its elements lie apart.
    let copied = !(x.is_standard_layout() && out.is_standard_layout());
    let copies = if copied { n.next_multiple_of(16) } else { 0 };
    threads::with_scratch(2 * copies + 2 * o.channels, |scratch| {
        let (from, rest) = scratch.split_at_mut(copies);
        let (to, parameters) = rest.split_at_mut(copies);
        let (weight, bias) = parameters.split_at_mut(o.channels);
        let whole = x.to_slice();
        let groups = x.axis_chunks_iter(Axis(0), o.channels);
        for (i, (x, mut out)) in groups.zip(out.axis_chunks_iter_mut(Axis(0), o.channels)).enumerate() {
            let first = first + i * o.channels;
            let weight = parameter(&o.weight, first, weight);
            let bias = parameter(&o.bias, first, bias);
            let group = Group { space, weight, bias, eps: o.eps, silu: o.silu };
            match (x.to_slice(), out.as_slice_mut()) {
                (Some(x), Some(out)) => {
                    let next = whole.and_then(|x| x.get((i + 1) * n..)).unwrap_or_default();
                    let next = &next[..next.len().min(n)];
                    let out = Target { row: U::row_mut(out), past };
                    dispatch(Run { group, x: T::row(x), next: T::row(next), out });
                }
                _ => {
                    let (from, to) = (&mut from[..n], &mut to[..n]);
                    from.iter_mut().zip(&x).for_each(|(to, x)| *to = x.to_f32());
                    let target = Target { row: RowMut::F32(to), past: false };
                    dispatch(Run { group, x: Row::F32(from), next: Row::F32(&[]), out: target });
                    out.iter_mut().zip(&*to).for_each(|(out, &y)| *out = U::from_f32(y));
                }
            }
        }
    });
}

/// The parameters of a group, widened.
fn parameter<'b>(p: &Option<Floats<Ix1>>, first: usize, to: &'b mut [f32]) -> Option<&'b [f32]> {
    let p = p.as_ref()?;
    each!(Floats, p, p => to.iter_mut().zip(p.iter().skip(first)).for_each(|(to, p)| *to = Element::to_f32(*p)));
    Some(to)
}

#[derive(Clone, Copy)]
struct Group<'a> {
    /// Elements of a channel.
    space: usize,
    weight: Option<&'a [f32]>,
    bias: Option<&'a [f32]>,
    eps: f32,
    silu: bool,
}

/// One group.
struct Run<'a> {
    group: Group<'a>,
    x: Row<'a>,
    /// The group after it, empty where there is none.
    next: Row<'a>,
    out: Target<'a>,
}

/// Elements of the next group that are asked for before about as many are written.
const PIECE: usize = 1024;

impl Kernel for Run<'_> {
    type Output = ();
    const BF16: bool = true;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Run { group, x, next, mut out } = self;
        let mean = row_sum(s, x, Plain) / x.len() as f32;
        let inverse = inverse_deviation(row_sum(s, x, Squares(mean)), x.len(), group.eps);
        // -0 added to a weight is the weight, of either sign of 0.
        let affine = Affine { mean, inverse, one: -0.0 };
        let past = out.past;
        for channel in 0..x.len() / group.space {
            // What is missing changes no bit: 1 as a factor, -0 as a summand.
            let weight = group.weight.map_or(1.0, |w| w[channel]);
            let bias = group.bias.map_or(-0.0, |b| b[channel]);
            let (mut at, end) = (channel * group.space, (channel + 1) * group.space);
            while at < end {
                // Pieces after the first begin with a line.
                let mut to = out.slice(at, end - at);
                let len = match past {
                    true => (to.row.before_a_line() + PIECE).min(end - at),
                    false => end - at,
                };
                if past && at < next.len() {
                    ask(s, next.slice(at, len.min(next.len() - at)));
                }
                let from = [Operand::Row(x.slice(at, len)), Operand::Same(weight), Operand::Same(bias)];
                let mut to = to.slice(0, len);
                if group.silu {
                    fill(s, AffineSilu(affine), from, &mut to)
                } else {
                    fill(s, affine, from, &mut to)
                }
                at += len;
            }
        }
        if past {
            s.settle();
        }
    }
}

/// SiLU of [`Affine`].
#[derive(Clone, Copy)]
struct AffineSilu(Affine);

impl Lanes<3> for AffineSilu {
    const COST: u64 = 44;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, x: [[S::F; K]; 3]) -> [S::F; K] {
        silu(s, self.0.eval(s, x))
    }
}
