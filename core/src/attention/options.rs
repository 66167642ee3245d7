//! The options of attention and what is checked before anything is written.

use std::ops::Range;

use ndarray::ArrayView4;

use crate::error::{Error, Result, check_shape};
use crate::linalg::check_strides;

/// What [`attention`](super::attention) does beside the plain product.
///
/// The scores of a query go through the options in this order: `scale`, `soft_cap`,
/// `alibi_slopes`, `bias`; then `causal`, `window_left`, `window_right`, `kv_lengths`, `mask` and
/// a `bias` of -inf hide elements, and `sinks` join the softmax. The *position* of query `i` is
/// `i + n - Lq`, with `n` the number of keys of its batch entry: the last query stands at the last
/// key.
#[derive(Debug, Clone, Copy, Default)]
pub struct AttentionOptions<'a> {
    /// Factor on the scores; `None` is `1 / sqrt(D)`.
    pub scale: Option<f32>,
    /// A query sees no key behind its position.
    pub causal: bool,
    /// A query sees no key more than this many before its position.
    pub window_left: Option<usize>,
    /// A query sees no key more than this many behind its position.
    pub window_right: Option<usize>,
    /// `[B]`: how many keys of each batch entry exist; the rest are padding.
    pub kv_lengths: Option<&'a [usize]>,
    /// Scores become `cap * tanh(score / cap)`; above 0 (Gemma 2, arXiv 2408.00118).
    pub soft_cap: Option<f32>,
    /// `[H]`: a score loses `slope` times the distance of its key from the query's position
    /// (arXiv 2108.12409). The distance is counted in f32.
    pub alibi_slopes: Option<&'a [f32]>,
    /// `[H]`: a score that takes part in every softmax of the head and has no value
    /// (arXiv 2309.17453; gpt-oss). -inf is no sink.
    pub sinks: Option<&'a [f32]>,
    /// Added to the scores, `[B | 1, H | 1, Lq | 1, Lk | 1]`; -inf hides the element.
    pub bias: Option<ArrayView4<'a, f32>>,
    /// `[B | 1, H | 1, Lq | 1, Lk | 1]`: 0 hides the element.
    pub mask: Option<ArrayView4<'a, u8>>,
}

impl AttentionOptions<'_> {
    /// Checks everything against `[B, H, Lq, Lk]`.
    pub(super) fn check(&self, shape: [usize; 4]) -> Result<()> {
        let [batch, heads, _, keys] = shape;
        if let Some(scale) = self.scale.filter(|s| !s.is_finite()) {
            return Err(Error::range("scale", scale, "a finite number"));
        }
        if let Some(lengths) = self.kv_lengths {
            check_shape("kv_lengths", &[lengths.len()], &[batch])?;
            if let Some(&n) = lengths.iter().find(|&&n| n > keys) {
                return Err(Error::range("kv_lengths", n, format!("0 to {keys}, the number of keys")));
            }
        }
        if let Some(cap) = self.soft_cap.filter(|c| !(c.is_finite() && *c > 0.0)) {
            return Err(Error::range("soft_cap", cap, "a finite number above 0"));
        }
        if let Some(slopes) = self.alibi_slopes {
            check_shape("alibi_slopes", &[slopes.len()], &[heads])?;
            if let Some(x) = slopes.iter().find(|x| !x.is_finite()) {
                return Err(Error::range("alibi_slopes", x, "finite numbers"));
            }
        }
        if let Some(sinks) = self.sinks {
            check_shape("sinks", &[sinks.len()], &[heads])?;
            if let Some(x) = sinks.iter().find(|x| x.is_nan() || **x == f32::INFINITY) {
                return Err(Error::range("sinks", x, "numbers below infinity"));
            }
        }
        if let Some(bias) = &self.bias {
            check_broadcast("bias", bias, shape)?;
        }
        if let Some(mask) = &self.mask {
            check_broadcast("mask", mask, shape)?;
        }
        Ok(())
    }

    /// Whether scores stay as they are and nothing but them takes part in the softmax.
    pub(super) fn keep_scores(&self) -> bool {
        let AttentionOptions { soft_cap, alibi_slopes, sinks, bias, mask, .. } = self;
        soft_cap.is_none() && alibi_slopes.is_none() && sinks.is_none() && bias.is_none() && mask.is_none()
    }

    /// The keys that a query at `position` may see of `keys`.
    pub(super) fn range(&self, keys: usize, position: i64) -> Range<usize> {
        // A window beyond i64 is as good as none.
        let reach = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let right = if self.causal { Some(0) } else { self.window_right.map(reach) };
        let to = right.map_or(keys, |n| position.saturating_add(n).saturating_add(1).max(0) as usize);
        let to = to.min(keys);
        let from = self.window_left.map_or(0, |n| position.saturating_sub(reach(n)).max(0) as usize);
        from.min(to)..to
    }

    /// The factor on the scores for a head size.
    pub(super) fn scale(&self, dim: usize) -> f32 {
        self.scale.unwrap_or((1.0 / (dim as f64).sqrt()) as f32)
    }

    /// The factor on the queries and the one on the capped scores, as rounded for a head size.
    ///
    /// Without a cap the scores come out times `log2 e`; with one, divided by the cap.
    pub(super) fn factors(&self, dim: usize) -> (f32, Option<f32>) {
        let scale = f64::from(self.scale(dim));
        match self.soft_cap.map(f64::from) {
            None => ((scale * std::f64::consts::LOG2_E) as f32, None),
            Some(cap) => ((scale / cap) as f32, Some((cap * std::f64::consts::LOG2_E) as f32)),
        }
    }
}

/// The key position query `i` of `queries` stands at, where there are `keys`; negative before the
/// first key.
pub(super) fn position(keys: usize, queries: usize, i: usize) -> i64 {
    i as i64 + keys as i64 - queries as i64
}

fn check_broadcast<T>(arg: &'static str, x: &ArrayView4<T>, full: [usize; 4]) -> Result<()> {
    if x.shape().iter().zip(full).any(|(&n, want)| n != want && n != 1) {
        return Err(Error::shape(arg, x.shape(), format!("{full:?}, or 1 where it repeats")));
    }
    check_strides(arg, x.shape(), x.strides(), false)
}
