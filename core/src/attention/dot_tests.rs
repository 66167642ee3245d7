//! Queries, keys and values of bfloat16: products of pairs, against the definition in scalars and
//! against f64.

use std::ops::Range;

use ndarray::{Array3, Array4, s};

use super::tests::{bits, serial, tensor};
use super::*;
use crate::arch::{Kernel, Simd, available_levels, dispatch, level, set_level};
use crate::math::{Powers, exp2_above};
use crate::tensor::bf16;
use crate::threads;

struct Inputs {
    q: Array4<bf16>,
    k: Array4<bf16>,
    v: Array4<bf16>,
}

/// Shapes `[B, H, Hkv, Lq, Lk, D, Dv]`.
fn inputs([b, h, g, lq, lk, d, e]: [usize; 7]) -> Inputs {
    let half = |seed, shape| tensor(seed, shape).mapv(bf16::from_f32);
    Inputs { q: half(1, [b, h, lq, d]), k: half(2, [b, g, lk, d]), v: half(3, [b, g, lk, e]) }
}

fn attend(x: &Inputs, o: &AttentionOptions) -> (Array4<f32>, Array3<f32>) {
    let (b, h, l, _) = x.q.dim();
    let mut out = Array4::from_elem((b, h, l, x.v.dim().3), 77.0);
    let mut lse = Array3::from_elem((b, h, l), 77.0);
    attention(x.q.view(), x.k.view(), x.v.view(), o, out.view_mut(), Some(lse.view_mut())).unwrap();
    (out, lse)
}

pub(super) struct Exp2(pub f32, pub Powers);

impl Kernel for Exp2 {
    type Output = f32;
    #[inline(always)]
    fn run<S: Simd>(self, s: S) -> f32 {
        let mut lanes = [0.0; 16];
        s.store(exp2_above(s, s.splat(self.0), self.1), &mut lanes);
        lanes[0]
    }
}

pub(super) fn exp2(x: f32) -> f32 {
    dispatch(Exp2(x, Powers::EXACT))
}

/// A chain of pairs `(lower, upper)`, the upper product first.
pub(super) fn dot(pairs: impl Iterator<Item = [(f32, f32); 2]>) -> f32 {
    pairs.fold(0.0, |acc, [lower, upper]| lower.0.mul_add(lower.1, upper.0.mul_add(upper.1, acc)))
}

/// The sum of chains of `length` products, from left to right.
pub(super) fn in_parts(n: usize, length: usize, terms: impl Fn(usize) -> [f32; 2]) -> f32 {
    let chain = |range: Range<usize>| range.map(&terms).fold(0.0f32, |sum, [a, b]| a.mul_add(b, sum));
    (0..n).step_by(length).map(|from| chain(from..n.min(from + length))).fold(0.0, |sum, x| sum + x)
}

/// One row by the definition; `seen` says which keys take part.
fn definition(
    q: &[f32],
    k: &[Vec<f32>],
    v: &[Vec<f32>],
    seen: impl Fn(usize) -> bool,
    factor: f32,
) -> (Vec<f32>, f32) {
    let at = |x: &[f32], i: usize| x.get(i).copied().unwrap_or(0.0);
    let finite = |m: f32| if m == f32::NEG_INFINITY { 0.0 } else { m };
    let dims = v[0].len();
    let (mut m, mut l, mut o) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; dims]);
    for split in (0..k.len()).step_by(SPLIT) {
        let (mut sm, mut sl, mut so) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; dims]);
        for tile in (split..k.len().min(split + SPLIT)).step_by(KEY_TILE) {
            let keys = tile..k.len().min(tile + KEY_TILE);
            let scores: Vec<f32> = keys
                .clone()
                .map(|j| {
                    let pairs = (0..q.len().div_ceil(2))
                        .map(|i| [2 * i, 2 * i + 1].map(|d| (at(&k[j], d), at(q, d))));
                    if seen(j) { dot(pairs) * factor } else { f32::NEG_INFINITY }
                })
                .collect();
            let next = scores.iter().fold(sm, |m, &x| if x > m { x } else { m });
            let alpha = exp2(sm - finite(next));
            let p: Vec<f32> =
                scores.iter().map(|x| x - finite(next)).map(|x| dispatch(Exp2(x, Powers::SHORT))).collect();
            sl = sl.mul_add(alpha, in_parts(p.len(), KEY_TILE / 2, |j| [p[j], 1.0]));
            let p: Vec<f32> = p.iter().map(|&p| bf16::from_f32(p).to_f32()).collect();
            for (d, o) in so.iter_mut().enumerate() {
                let value = |i: usize| {
                    let j = keys.start + i;
                    if j < keys.end && seen(j) { (v[j][d], p[i]) } else { (0.0, 0.0) }
                };
                let sum = dot((0..p.len().div_ceil(2)).map(|i| [value(2 * i), value(2 * i + 1)]));
                *o = o.mul_add(alpha, sum);
            }
            sm = next;
        }
        let next = if m > sm { m } else { sm };
        let (a, b) = (exp2(m - finite(next)), exp2(sm - finite(next)));
        l = sl.mul_add(b, l * a);
        for (o, so) in o.iter_mut().zip(so) {
            *o = so.mul_add(b, *o * a);
        }
        m = next;
    }
    let out = o.iter().map(|o| if l == 0.0 { 0.0 } else { o.mul_add(1.0 / l, 0.0) }).collect();
    let lse = (f64::from(m) + libm::log2(f64::from(l))) * std::f64::consts::LN_2;
    (out, if l == 0.0 { f32::NEG_INFINITY } else { lse as f32 })
}

fn rows(x: &Array4<bf16>, b: usize, h: usize) -> Vec<Vec<f32>> {
    x.slice(s![b, h, .., ..]).outer_iter().map(|r| r.iter().map(|x| x.to_f32()).collect()).collect()
}

/// Every row of a call by the definition.
fn by_definition(x: &Inputs, o: &AttentionOptions) -> (Array4<f32>, Array3<f32>) {
    let (batch, heads, lq, dim) = x.q.dim();
    let (_, kv_heads, lk, value_dim) = x.v.dim();
    let (factor, _) = o.factors(dim);
    let mut out = Array4::zeros((batch, heads, lq, value_dim));
    let mut lse = Array3::zeros((batch, heads, lq));
    for (b, h) in (0..batch * heads).map(|n| (n / heads, n % heads)) {
        let (k, v) = (rows(&x.k, b, h / (heads / kv_heads)), rows(&x.v, b, h / (heads / kv_heads)));
        for (i, q) in rows(&x.q, b, h).iter().enumerate() {
            let keys = o.kv_lengths.map_or(lk, |n| n[b]);
            let position = i as i64 + keys as i64 - lq as i64;
            let seen = |j: usize| {
                let j64 = j as i64;
                j < keys
                    && (!o.causal || j64 <= position)
                    && o.window_left.is_none_or(|w| position - j64 <= w as i64)
                    && o.mask.as_ref().is_none_or(|m| m[[0, 0, i, j]] != 0)
            };
            let (row, l) = definition(q, &k, &v, seen, factor);
            out.slice_mut(s![b, h, i, ..]).assign(&ndarray::arr1(&row));
            lse[[b, h, i]] = l;
        }
    }
    (out, lse)
}

const SHAPES: [[usize; 7]; 10] = [
    [1, 1, 1, 1, 1, 1, 1],
    [2, 4, 2, 3, 7, 9, 5],
    [1, 2, 1, 70, 301, 40, 17],
    [1, 1, 1, 64, 129, 64, 64],
    [1, 2, 2, 17, 1030, 6, 33],
    [1, 1, 1, 5, 513, 65, 16],
    [2, 2, 1, 33, 128, 32, 48],
    [1, 3, 1, 130, 131, 16, 8],
    // Few rows against many keys: decoded.
    [1, 4, 1, 2, 700, 33, 20],
    [2, 2, 2, 1, 301, 16, 40],
];

#[test]
fn bits_are_those_of_the_definition_at_every_level_and_thread_count() {
    let _guard = serial();
    let first = level();
    let lengths = [[120usize, 3], [7, 6]];
    for shape in SHAPES {
        let mut x = inputs(shape);
        let mask = Array4::from_shape_fn((1, 1, shape[3], shape[4]), |(_, _, i, j)| {
            u8::from((i * 7 + j * 5) % 3 != 0)
        });
        let lengths: Vec<usize> = lengths.concat().iter().take(shape[0]).map(|n| shape[4].min(*n)).collect();
        for (n, o) in [
            AttentionOptions::default(),
            AttentionOptions { causal: true, scale: Some(0.7), ..Default::default() },
            AttentionOptions { causal: true, window_left: Some(140), ..Default::default() },
            AttentionOptions { mask: Some(mask.view()), ..Default::default() },
            AttentionOptions { kv_lengths: Some(&lengths), window_left: Some(9), ..Default::default() },
        ]
        .into_iter()
        .enumerate()
        {
            if n == 3 {
                // What a mask hides has no say, whatever it holds.
                x.v[[0, 0, 0, 0]] = bf16::NAN;
                if let Some(last) = x.v.last_mut() {
                    *last = bf16::INFINITY;
                }
            }
            let (want, want_lse) = by_definition(&x, &o);
            for l in available_levels() {
                set_level(l).unwrap();
                for t in [1, 3] {
                    threads::set_num_threads(t).unwrap();
                    let (out, lse) = attend(&x, &o);
                    assert_eq!(bits(&out), bits(&want), "{shape:?} options {n} {l:?} {t}");
                    assert_eq!(bits(&lse), bits(&want_lse), "{shape:?} options {n} {l:?} {t}");
                }
            }
            set_level(first).unwrap();
        }
    }
}

/// Softmax and average with every result rounded to bfloat16: what a program of unfused bfloat16
/// operations (each accumulating in f32) computes.
fn naive(q: &[f32], k: &[Vec<f32>], v: &[Vec<f32>], scale: f32) -> Vec<f32> {
    let round = |x: f32| bf16::from_f32(x).to_f32();
    let scores: Vec<f32> =
        k.iter().map(|k| round(round(k.iter().zip(q).map(|(a, b)| a * b).sum::<f32>()) * scale)).collect();
    let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f32> = scores.iter().map(|s| libm::expf(s - m)).collect();
    let sum: f32 = e.iter().sum();
    let p: Vec<f32> = e.iter().map(|e| round(e / sum)).collect();
    (0..v[0].len()).map(|d| round(p.iter().zip(v).map(|(p, v)| p * v[d]).sum())).collect()
}

#[test]
fn error_is_at_most_twice_that_of_unfused_bfloat16() {
    for shape in [[1, 2, 1, 40, 77, 64, 64], [1, 1, 1, 65, 1024, 72, 72], [1, 1, 1, 9, 300, 128, 40]] {
        let x = inputs(shape);
        let (out, _) = attend(&x, &AttentionOptions::default());
        let scale = 1.0 / (shape[5] as f64).sqrt();
        let (mut worst, mut worst_naive) = (0.0f64, 0.0f64);
        for h in 0..shape[1] {
            let (k, v) = (rows(&x.k, 0, 0), rows(&x.v, 0, 0));
            for (i, q) in rows(&x.q, 0, h).iter().enumerate() {
                let score = |k: &Vec<f32>| -> f64 {
                    k.iter().zip(q).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>() * scale
                };
                let scores: Vec<f64> = k.iter().map(score).collect();
                let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let e: Vec<f64> = scores.iter().map(|s| libm::exp(s - m)).collect();
                let sum: f64 = e.iter().sum();
                let plain = naive(q, &k, &v, scale as f32);
                for d in 0..shape[6] {
                    let want: f64 = e.iter().zip(&v).map(|(e, v)| e / sum * f64::from(v[d])).sum();
                    let rounded = bf16::from_f32(out[[0, h, i, d]]).to_f64();
                    worst = worst.max((rounded - want).abs());
                    worst_naive = worst_naive.max((f64::from(plain[d]) - want).abs());
                }
            }
        }
        assert!(worst <= 2.0 * worst_naive, "{shape:?}: {worst:e} against {worst_naive:e}");
    }
}
