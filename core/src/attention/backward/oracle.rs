//! The gradients by the textbook: in f64 as the oracle, in f32 as what an unfused program computes.

use ndarray::{Array3, Array4, ArrayView4};

use super::super::AttentionOptions;

/// The arrays of a call; the bias has an element for every score.
#[derive(Clone)]
pub(super) struct Inputs<T> {
    pub q: Array4<T>,
    pub k: Array4<T>,
    pub v: Array4<T>,
    pub dout: Array4<T>,
    pub bias: Option<Array4<T>>,
}

impl<T> Inputs<T> {
    /// `[B, H, Hkv, Lq, Lk, D, Dv]`
    pub(super) fn shape(&self) -> [usize; 7] {
        let ((b, h, lq, d), (_, g, lk, e)) = (self.q.dim(), self.v.dim());
        [b, h, g, lq, lk, d, e]
    }

    pub(super) fn map<U>(&self, f: impl Fn(&T) -> U + Copy) -> Inputs<U> {
        let Inputs { q, k, v, dout, bias } = self;
        Inputs {
            q: q.map(f),
            k: k.map(f),
            v: v.map(f),
            dout: dout.map(f),
            bias: bias.as_ref().map(|x| x.map(f)),
        }
    }

    /// Every (batch, head, query).
    pub(super) fn rows(&self) -> impl Iterator<Item = [usize; 3]> + use<T> {
        let [b, h, _, l, ..] = self.shape();
        (0..b * h * l).map(move |n| [n / l / h, n / l % h, n % l])
    }
}

/// Gradients; that of the bias has an element for every score.
pub(super) struct Grads<T> {
    pub dq: Array4<T>,
    pub dk: Array4<T>,
    pub dv: Array4<T>,
    pub dbias: Array4<T>,
}

/// One query: what each key gets, 0 where it is hidden.
pub(super) struct Row<T> {
    pub p: Vec<T>,
    /// Derivatives of the cap.
    pub slope: Vec<T>,
    pub lse: T,
    pub out: Vec<T>,
}

fn at<T: Copy>(x: &ArrayView4<T>, i: [usize; 4]) -> T {
    let n = x.shape();
    x[std::array::from_fn::<_, 4, _>(|d| if n[d] == 1 { 0 } else { i[d] })]
}

/// Whether query `i` sees key `j`, one rule after the other.
pub(super) fn sees(o: &AttentionOptions, lq: usize, lk: usize, [b, h, i, j]: [usize; 4]) -> bool {
    let keys = o.kv_lengths.map_or(lk, |n| n[b]);
    let (position, key) = (i as i128 + keys as i128 - lq as i128, j as i128);
    j < keys
        && (!o.causal || key <= position)
        && o.window_left.is_none_or(|w| position - key <= w as i128)
        && o.window_right.is_none_or(|w| key - position <= w as i128)
        && o.mask.as_ref().is_none_or(|m| at(m, [b, h, i, j]) != 0)
        && o.bias.as_ref().is_none_or(|m| at(m, [b, h, i, j]) != f32::NEG_INFINITY)
}

macro_rules! textbook {
    ($name:ident, $t:ty, $exp:path, $tanh:path, $ln:path) => {
        pub(super) mod $name {
            use super::*;

            pub(in super::super) fn scale(o: &AttentionOptions, dim: usize) -> $t {
                o.scale.unwrap_or((1.0 / (dim as f64).sqrt()) as f32) as $t
            }

            /// The forward pass of one query.
            pub(in super::super) fn row(
                x: &Inputs<$t>,
                o: &AttentionOptions,
                [b, h, i]: [usize; 3],
            ) -> Row<$t> {
                let [_, heads, kv_heads, lq, lk, dim, value_dim] = x.shape();
                let g = h / (heads / kv_heads);
                let keys = o.kv_lengths.map_or(lk, |n| n[b]);
                let mut scores: Vec<$t> = vec![<$t>::NEG_INFINITY; lk];
                let mut slope: Vec<$t> = vec![1.0; lk];
                for j in (0..lk).filter(|&j| sees(o, lq, lk, [b, h, i, j])) {
                    let dot: $t = (0..dim).map(|d| x.q[[b, h, i, d]] * x.k[[b, g, j, d]]).sum();
                    let mut s = scale(o, dim) * dot;
                    if let Some(cap) = o.soft_cap {
                        let t = $tanh(s / cap as $t);
                        s = cap as $t * t;
                        slope[j] = 1.0 - t * t;
                    }
                    if let Some(slopes) = o.alibi_slopes {
                        s -= slopes[h] as $t * (i as i64 + keys as i64 - lq as i64 - j as i64).abs() as $t;
                    }
                    if let Some(bias) = &x.bias {
                        s += bias[[b, h, i, j]];
                    }
                    scores[j] = s;
                }
                let sink = o.sinks.map_or(<$t>::NEG_INFINITY, |s| s[h] as $t);
                let m = scores.iter().copied().fold(sink, <$t>::max);
                if m == <$t>::NEG_INFINITY {
                    return Row { p: vec![0.0; lk], slope, lse: m, out: vec![0.0; value_dim] };
                }
                let e: Vec<$t> = scores.iter().map(|s| $exp(s - m)).collect();
                let sum = e.iter().sum::<$t>() + $exp(sink - m);
                let p: Vec<$t> = e.iter().map(|e| e / sum).collect();
                let out = (0..value_dim)
                    .map(|e| (0..lk).filter(|&j| p[j] != 0.0).map(|j| p[j] * x.v[[b, g, j, e]]).sum());
                Row { out: out.collect(), p, slope, lse: m + $ln(sum) }
            }

            /// The sum of `out * dout`.
            #[allow(dead_code)]
            pub(in super::super) fn loss(x: &Inputs<$t>, o: &AttentionOptions) -> $t {
                let of_row = |at: [usize; 3]| -> $t {
                    let out = row(x, o, at).out;
                    out.iter().enumerate().map(|(e, y)| y * x.dout[[at[0], at[1], at[2], e]]).sum()
                };
                x.rows().map(of_row).sum()
            }

            /// The backward pass.
            pub(in super::super) fn gradients(x: &Inputs<$t>, o: &AttentionOptions) -> Grads<$t> {
                let [batch, heads, kv_heads, lq, lk, dim, value_dim] = x.shape();
                let mut to = Grads {
                    dq: Array4::zeros(x.q.dim()),
                    dk: Array4::zeros(x.k.dim()),
                    dv: Array4::zeros(x.v.dim()),
                    dbias: Array4::zeros((batch, heads, lq, lk)),
                };
                let scale = scale(o, dim);
                for [b, h, i] in x.rows() {
                    let g = h / (heads / kv_heads);
                    let row = row(x, o, [b, h, i]);
                    let delta: $t = (0..value_dim).map(|e| x.dout[[b, h, i, e]] * row.out[e]).sum();
                    for j in (0..lk).filter(|&j| row.p[j] != 0.0) {
                        let dp: $t = (0..value_dim).map(|e| x.dout[[b, h, i, e]] * x.v[[b, g, j, e]]).sum();
                        let db = row.p[j] * (dp - delta);
                        let ds = db * row.slope[j] * scale;
                        to.dbias[[b, h, i, j]] = db;
                        for d in 0..dim {
                            to.dq[[b, h, i, d]] += ds * x.k[[b, g, j, d]];
                            to.dk[[b, g, j, d]] += ds * x.q[[b, h, i, d]];
                        }
                        for e in 0..value_dim {
                            to.dv[[b, g, j, e]] += row.p[j] * x.dout[[b, h, i, e]];
                        }
                    }
                }
                to
            }
        }
    };
}

textbook!(exact, f64, libm::exp, libm::tanh, libm::log);
textbook!(naive, f32, libm::expf, libm::tanhf, libm::logf);

/// Sums over the axes along which a bias of `shape` repeats.
pub(super) fn reduced<T: Copy + Default + std::ops::AddAssign>(
    full: &Array4<T>,
    shape: &[usize],
) -> Array4<T> {
    let mut sum = Array4::from_elem([shape[0], shape[1], shape[2], shape[3]], T::default());
    for ((b, h, i, j), &x) in full.indexed_iter() {
        let at = [b, h, i, j];
        sum[std::array::from_fn::<_, 4, _>(|d| if shape[d] == 1 { 0 } else { at[d] })] += x;
    }
    sum
}

/// How far each gradient may be off, element by element, and the sums of magnitudes that meet a
/// rounding: those of the terms, with `p (|dp| + |delta|)` for the gradient of a score.
///
/// In units of an ulp of 1, with `size` the largest magnitude that the scores of a row meet:
/// a score is off by `(D + 8) size` and lse by that, its own ulp and a sum of `Lk` terms (see the
/// forward tests), so a probability by `R = 2 (D + 8) size + Lk + 20 + 4 |lse|` of itself; `out` by
/// as much. `dp` has `Dv` roundings of at most `M = sum |v dout|`, `delta` as many and the error of
/// `out`, relative to `N = sum of p M`. So `db` is off by `p (M + N)` times `2 R + 2 Dv + 4`, and
/// `ds` by the error of the slope more: `2 ((D + 8) size / cap + 4)`. Sums of n products add
/// `n + 3` of the sum of magnitudes.
pub(super) fn bounds(x: &Inputs<f64>, o: &AttentionOptions) -> (Grads<f64>, Grads<f64>) {
    let [batch, heads, kv_heads, lq, lk, dim, value_dim] = x.shape();
    let unit = f64::from(f32::EPSILON);
    let zeros = || Grads::<f64> {
        dq: Array4::zeros(x.q.dim()),
        dk: Array4::zeros(x.k.dim()),
        dv: Array4::zeros(x.v.dim()),
        dbias: Array4::zeros((batch, heads, lq, lk)),
    };
    let (mut to, mut mass) = (zeros(), zeros());
    let scale = exact::scale(o, dim).abs();
    let group = heads / kv_heads;
    let terms = (lq * group + 3) as f64 * unit;
    for [b, h, i] in x.rows() {
        let g = h / group;
        let row = exact::row(x, o, [b, h, i]);
        if row.lse == f64::NEG_INFINITY {
            continue;
        }
        let mut size = o.sinks.map_or(0.0, |s| f64::from(s[h])).abs();
        if size.is_infinite() {
            size = 0.0;
        }
        let mut products = 0.0f64;
        for j in (0..lk).filter(|&j| sees(o, lq, lk, [b, h, i, j])) {
            let dot: f64 = (0..dim).map(|d| (x.q[[b, h, i, d]] * x.k[[b, g, j, d]]).abs()).sum();
            products = products.max(scale * dot);
            let keys = o.kv_lengths.map_or(lk, |n| n[b]) as i64;
            let distance = (i as i64 + keys - lq as i64 - j as i64).abs() as f64;
            let alibi = o.alibi_slopes.map_or(0.0, |s| f64::from(s[h]).abs() * distance);
            size = size.max(scale * dot + alibi + x.bias.as_ref().map_or(0.0, |x| x[[b, h, i, j]].abs()));
        }
        let r = (2 * (dim + 8)) as f64 * size + lk as f64 + 20.0 + 4.0 * row.lse.abs();
        let slope = o.soft_cap.map_or(0.0, |cap| 2.0 * ((dim + 8) as f64 * products / f64::from(cap) + 4.0));
        let m: Vec<f64> = (0..lk)
            .map(|j| (0..value_dim).map(|e| (x.v[[b, g, j, e]] * x.dout[[b, h, i, e]]).abs()).sum())
            .collect();
        let n: f64 = row.p.iter().zip(&m).filter(|(p, _)| **p != 0.0).map(|(p, m)| p * m).sum();
        let delta: f64 = (0..value_dim).map(|e| x.dout[[b, h, i, e]] * row.out[e]).sum();
        for j in (0..lk).filter(|&j| row.p[j] != 0.0) {
            let dp: f64 = (0..value_dim).map(|e| x.v[[b, g, j, e]] * x.dout[[b, h, i, e]]).sum();
            let size = row.p[j] * (dp.abs() + delta.abs());
            mass.dbias[[b, h, i, j]] = size;
            let db = row.p[j] * (m[j] + n);
            let off = unit * (2.0 * r + (2 * value_dim + 4) as f64);
            to.dbias[[b, h, i, j]] = db * off;
            for d in 0..dim {
                let ds = scale * db * (off + unit * slope);
                let (k, q) = (x.k[[b, g, j, d]].abs(), x.q[[b, h, i, d]].abs());
                to.dq[[b, h, i, d]] += k * (ds + scale * db * unit * (lk + 3) as f64);
                to.dk[[b, g, j, d]] += q * (ds + scale * db * terms);
                mass.dq[[b, h, i, d]] += k * scale * size * row.slope[j];
                mass.dk[[b, g, j, d]] += q * scale * size * row.slope[j];
            }
            for e in 0..value_dim {
                to.dv[[b, g, j, e]] += row.p[j] * x.dout[[b, h, i, e]].abs() * (unit * r + terms);
                mass.dv[[b, g, j, e]] += row.p[j] * x.dout[[b, h, i, e]].abs();
            }
        }
    }
    (to, mass)
}

/// The forward pass, for a call.
pub(super) fn forward(x: &Inputs<f32>, o: &AttentionOptions) -> (Array4<f32>, Array3<f32>) {
    super::super::tests::run(x.q.view(), x.k.view(), x.v.view(), o)
}
