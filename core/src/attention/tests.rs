use std::sync::{Mutex, MutexGuard, PoisonError};

use ndarray::{Array3, Array4, ArrayView4, s};

use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::linalg::tests::noise;
use crate::threads;

/// Tests that choose levels and threads run one after the other, so that each really runs at
/// the level it asked for.
pub(super) fn serial() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn tensor(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    let x = noise(seed, shape.iter().product()).into_iter().map(|x| 2.0 * x).collect();
    Array4::from_shape_vec(shape, x).unwrap()
}

#[derive(Clone, Copy, Debug, Default)]
struct Case {
    batch: usize,
    heads: usize,
    kv_heads: usize,
    queries: usize,
    keys: usize,
    dim: usize,
    value_dim: usize,
    causal: bool,
}

impl Case {
    fn new(heads: [usize; 2], queries: usize, keys: usize, dim: usize) -> Self {
        let [heads, kv_heads] = heads;
        Case { batch: 1, heads, kv_heads, queries, keys, dim, value_dim: dim, causal: false }
    }

    fn inputs(&self) -> [Array4<f32>; 3] {
        [
            tensor(1, [self.batch, self.heads, self.queries, self.dim]),
            tensor(2, [self.batch, self.kv_heads, self.keys, self.dim]),
            tensor(3, [self.batch, self.kv_heads, self.keys, self.value_dim]),
        ]
    }
}

pub(super) fn run(
    q: ArrayView4<f32>,
    k: ArrayView4<f32>,
    v: ArrayView4<f32>,
    o: &AttentionOptions,
) -> (Array4<f32>, Array3<f32>) {
    let (b, h, l, _) = q.dim();
    let mut out = Array4::from_elem((b, h, l, v.dim().3), 77.0);
    let mut lse = Array3::from_elem((b, h, l), 77.0);
    attention(q, k, v, o, out.view_mut(), Some(lse.view_mut())).unwrap();
    (out, lse)
}

pub(super) fn bits<'a>(x: impl IntoIterator<Item = &'a f32>) -> Vec<u32> {
    // Bits of a NaN are not promised.
    x.into_iter().map(|x| if x.is_nan() { f32::NAN.to_bits() } else { x.to_bits() }).collect()
}

/// One row by the textbook, in f64: output, lse, and the sums that the error bound needs.
struct Row {
    out: Vec<f64>,
    lse: f64,
    weights: Vec<f64>,
    /// Largest `scale * sum of |q_d k_d|` over the keys.
    size: f64,
}

fn textbook(q: &[f32], k: &[Vec<f32>], v: &[Vec<f32>], scale: f64) -> Row {
    let dot = |key: &Vec<f32>, f: fn(f64) -> f64| -> f64 {
        key.iter().zip(q).map(|(&a, &b)| f(f64::from(a) * f64::from(b))).sum()
    };
    let scores: Vec<f64> = k.iter().map(|key| scale * dot(key, |x| x)).collect();
    let size = k.iter().map(|key| scale * dot(key, f64::abs)).fold(0.0, f64::max);
    let m = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let e: Vec<f64> = scores.iter().map(|s| libm::exp(s - m)).collect();
    let sum: f64 = e.iter().sum();
    let weights: Vec<f64> = e.iter().map(|e| e / sum).collect();
    let dims = v.first().map_or(0, Vec::len);
    let out = (0..dims).map(|d| weights.iter().zip(v).map(|(w, v)| w * f64::from(v[d])).sum()).collect();
    Row { out, lse: m + libm::log(sum), weights, size }
}

/// The same row with every operation rounded to f32: what an unfused program computes.
fn naive(q: &[f32], k: &[Vec<f32>], v: &[Vec<f32>], scale: f32) -> Vec<f32> {
    let scores: Vec<f32> =
        k.iter().map(|key| scale * key.iter().zip(q).map(|(&a, &b)| a * b).sum::<f32>()).collect();
    let m = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let e: Vec<f32> = scores.iter().map(|s| libm::expf(s - m)).collect();
    let sum: f32 = e.iter().sum();
    let dims = v.first().map_or(0, Vec::len);
    (0..dims).map(|d| e.iter().zip(v).map(|(e, v)| e / sum * v[d]).sum()).collect()
}

/// Gate A: over the call, the error is at most twice that of the unfused f32 program (plus one
/// ulp of the largest value, 2, since small calls have few rows to find a worst one in). Gate B: every element obeys
/// the bound derived below.
fn check(c: Case) {
    let [q, k, v] = c.inputs();
    let options = AttentionOptions { causal: c.causal, ..Default::default() };
    let (out, lse) = run(q.view(), k.view(), v.view(), &options);
    let scale = 1.0 / (c.dim as f64).sqrt();
    let (mut worst, mut worst_naive) = (0.0f64, 0.0f64);
    let rows = |x: &Array4<f32>, b: usize, h: usize, n: usize| -> Vec<Vec<f32>> {
        (0..n).map(|j| x.slice(s![b, h, j, ..]).to_vec()).collect()
    };
    for b in 0..c.batch {
        for h in 0..c.heads {
            for i in 0..c.queries {
                let n =
                    if c.causal { (i + 1 + c.keys).saturating_sub(c.queries).min(c.keys) } else { c.keys };
                let kv = h / (c.heads / c.kv_heads);
                let row = out.slice(s![b, h, i, ..]);
                if n == 0 {
                    assert!(row.iter().all(|x| x.to_bits() == 0), "{c:?}");
                    assert_eq!(lse[[b, h, i]], f32::NEG_INFINITY);
                    continue;
                }
                let query = q.slice(s![b, h, i, ..]).to_vec();
                let (keys, values) = (rows(&k, b, kv, n), rows(&v, b, kv, n));
                let want = textbook(&query, &keys, &values, scale);
                let plain = naive(&query, &keys, &values, scale as f32);
                // Roundings in units of eps/2: a score of D + 2 operations is off by at most
                // (D + 2) * size, numerator and denominator alike; p by its exp2 and the
                // subtraction (absorbed in 2 * size + 8); sums of n terms by n each; splits,
                // rescales and the division by 16 more.
                let unit = f64::from(f32::EPSILON);
                let relative = unit * ((2 * (c.dim + 4)) as f64 * want.size + n as f64 + 16.0);
                for d in 0..c.value_dim {
                    let error = (f64::from(row[d]) - want.out[d]).abs();
                    let mass: f64 =
                        want.weights.iter().zip(&values).map(|(w, v)| w * f64::from(v[d]).abs()).sum();
                    assert!(error <= relative * mass, "{c:?} row {i} dim {d}: {error:e}");
                    worst = worst.max(error);
                    worst_naive = worst_naive.max((f64::from(plain[d]) - want.out[d]).abs());
                }
                let error = (f64::from(lse[[b, h, i]]) - want.lse).abs();
                assert!(error <= relative + unit * want.lse.abs(), "{c:?} row {i} lse: {error:e}");
            }
        }
    }
    assert!(
        worst <= 2.0 * worst_naive + 2.0 * f64::from(f32::EPSILON),
        "{c:?}: {worst:e} against {worst_naive:e}"
    );
}

#[test]
fn head_sizes() {
    for dim in [1, 2, 3, 5, 8, 15, 16, 31, 32, 40, 59, 64, 72, 80, 96, 111, 128, 160] {
        check(Case::new([1, 1], 33, 49, dim));
        check(Case { value_dim: dim % 7 + 1, ..Case::new([1, 1], 5, 21, dim) });
    }
}

#[test]
fn lengths() {
    for queries in [0, 1, 15, 16, 17, 63, 64, 65, 113] {
        for keys in [0, 1, 15, 17, 63, 65, 127, 129, 203] {
            for causal in [false, true] {
                check(Case { causal, ..Case::new([2, 2], queries, keys, 8) });
            }
        }
    }
}

#[test]
fn long_keys_cross_splits() {
    for keys in [511, 512, 513, 1025] {
        for causal in [false, true] {
            check(Case { causal, ..Case::new([1, 1], 70, keys, 24) });
        }
    }
    check(Case { causal: true, ..Case::new([1, 1], 1025, 1025, 8) });
    check(Case { causal: true, ..Case::new([1, 1], 513, 65, 8) });
}

#[test]
fn few_queries_against_many_keys() {
    for (heads, queries, keys, dim) in
        [([1, 1], 1, 256, 64), ([4, 1], 1, 700, 40), ([8, 2], 4, 1100, 128), ([2, 2], 16, 515, 33)]
    {
        for causal in [false, true] {
            check(Case { causal, batch: 2, ..Case::new(heads, queries, keys, dim) });
        }
    }
}

#[test]
fn grouped_heads() {
    for heads in [[4, 1], [4, 2], [8, 2], [7, 7], [14, 2], [96, 1]] {
        for queries in [1, 3, 20, 65] {
            let c = Case { batch: 2, causal: true, ..Case::new(heads, queries, 70, 12) };
            check(c);
        }
    }
}

#[test]
fn same_bits_at_every_level_and_thread_count() {
    let _lock = serial();
    let first = level();
    for c in [
        Case { batch: 2, causal: true, ..Case::new([4, 2], 70, 600, 33) },
        Case { value_dim: 19, ..Case::new([2, 2], 130, 260, 40) },
        Case { batch: 3, ..Case::new([6, 2], 3, 140, 17) },
        Case { causal: true, ..Case::new([1, 1], 200, 150, 64) },
    ] {
        let [q, k, v] = c.inputs();
        let options = AttentionOptions { causal: c.causal, ..Default::default() };
        let (want, want_lse) = run(q.view(), k.view(), v.view(), &options);
        for l in available_levels() {
            set_level(l).unwrap();
            for t in [1, 2, 3, 7] {
                threads::set_num_threads(t).unwrap();
                let (out, lse) = run(q.view(), k.view(), v.view(), &options);
                assert_eq!(bits(&out), bits(&want), "{c:?} {l:?} {t}");
                assert_eq!(bits(&lse), bits(&want_lse), "{c:?} {l:?} {t}");
            }
        }
        set_level(first).unwrap();
    }
}

#[test]
fn same_bits_alone_in_chunks_and_in_a_batch() {
    let c = Case { batch: 3, causal: true, ..Case::new([4, 2], 90, 650, 20) };
    let [q, k, v] = c.inputs();
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let (want, _) = run(q.view(), k.view(), v.view(), &causal);
    for b in 0..3 {
        let one = |x: &Array4<f32>| x.slice(s![b..b + 1, .., .., ..]).to_owned();
        let (out, _) = run(one(&q).view(), one(&k).view(), one(&v).view(), &causal);
        assert_eq!(bits(&out), bits(want.slice(s![b..b + 1, .., .., ..])));
    }
    // The last queries, as if decoded after the others; and rows 10..17 with the keys they see.
    for (from, to) in [(89, 90), (80, 90), (10, 17), (0, 64)] {
        let keys = 650 - 90 + to;
        let (out, _) = run(
            q.slice(s![.., .., from..to, ..]),
            k.slice(s![.., .., ..keys, ..]),
            v.slice(s![.., .., ..keys, ..]),
            &causal,
        );
        assert_eq!(bits(&out), bits(want.slice(s![.., .., from..to, ..])), "{from}..{to}");
    }
}

#[test]
fn same_bits_for_any_strides() {
    let c = Case { batch: 2, causal: true, ..Case::new([4, 2], 37, 65, 24) };
    let [q, k, v] = c.inputs();
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let (want, want_lse) = run(q.view(), k.view(), v.view(), &causal);
    // [B, L, H, D] memory, and the head dimension outermost.
    for order in [[0, 2, 1, 3], [3, 0, 1, 2], [2, 3, 0, 1]] {
        let mut back = [0; 4];
        order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
        let strided = |x: &Array4<f32>| {
            x.view().permuted_axes(order).as_standard_layout().into_owned().permuted_axes(back)
        };
        let mut out = strided(&Array4::zeros(want.dim()));
        let mut lse = Array3::zeros((2, 37, 4)).permuted_axes([0, 2, 1]);
        attention(
            strided(&q).view(),
            strided(&k).view(),
            strided(&v).view(),
            &causal,
            out.view_mut(),
            Some(lse.view_mut()),
        )
        .unwrap();
        assert_eq!(bits(&out), bits(&want));
        assert_eq!(bits(&lse), bits(&want_lse));
    }
    // A broadcast batch.
    let k1 = k.slice(s![..1, .., .., ..]);
    let (a, _) = run(q.view(), k1.broadcast(k.dim()).unwrap(), v.view(), &causal);
    let (b, _) = run(q.view(), k1.broadcast(k.dim()).unwrap().to_owned().view(), v.view(), &causal);
    assert_eq!(bits(&a), bits(&b));
}

#[test]
fn padding_keys_take_no_part() {
    let c = Case { batch: 3, ..Case::new([2, 1], 21, 300, 16) };
    let [q, mut k, mut v] = c.inputs();
    let lengths = [300, 131, 0];
    for causal in [false, true] {
        let options = AttentionOptions { causal, kv_lengths: Some(&lengths), ..Default::default() };
        for poison in [f32::NAN, f32::INFINITY, 1e30] {
            for (b, &n) in lengths.iter().enumerate() {
                k.slice_mut(s![b, .., n.., ..]).fill(poison);
                v.slice_mut(s![b, .., n.., ..]).fill(poison);
            }
            let (out, lse) = run(q.view(), k.view(), v.view(), &options);
            for (b, &n) in lengths.iter().enumerate() {
                let (want, want_lse) = run(
                    q.slice(s![b..b + 1, .., .., ..]),
                    k.slice(s![b..b + 1, .., ..n, ..]),
                    v.slice(s![b..b + 1, .., ..n, ..]),
                    &AttentionOptions { causal, ..Default::default() },
                );
                assert_eq!(bits(out.slice(s![b, .., .., ..])), bits(&want));
                assert_eq!(bits(lse.slice(s![b, .., ..])), bits(&want_lse));
                assert!(want.iter().all(|x| x.is_finite()));
            }
        }
    }
}

#[test]
fn causally_masked_values_never_leak() {
    let c = Case { causal: true, ..Case::new([1, 1], 150, 150, 8) };
    let [q, mut k, mut v] = c.inputs();
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let (want, _) = run(q.view(), k.view(), v.view(), &causal);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        k.slice_mut(s![.., .., 100, ..]).fill(poison);
        v.slice_mut(s![.., .., 100, ..]).fill(poison);
        let (out, _) = run(q.view(), k.view(), v.view(), &causal);
        assert_eq!(bits(out.slice(s![.., .., ..100, ..])), bits(want.slice(s![.., .., ..100, ..])));
        if poison.is_nan() {
            assert!(out.slice(s![.., .., 100.., ..]).iter().all(|x| x.is_nan()), "used NaN gives NaN");
        }
    }
}

#[test]
fn special_rows() {
    let c = Case::new([1, 1], 4, 5, 2);
    let [mut q, k, v] = c.inputs();
    q.slice_mut(s![0, 0, 1, ..]).fill(f32::NAN);
    let (out, lse) = run(q.view(), k.view(), v.view(), &AttentionOptions::default());
    assert!(out.slice(s![0, 0, 1, ..]).iter().all(|x| x.is_nan()) && lse[[0, 0, 1]].is_nan());
    assert!(out.slice(s![0, 0, 0, ..]).iter().all(|x| x.is_finite()));
    // Scores of +-1e4 neither overflow nor lose the largest key.
    let q = Array4::from_elem((1, 1, 1, 1), 1e4);
    let k = Array4::from_shape_vec((1, 1, 3, 1), vec![-1.0, 1.0, 0.5]).unwrap();
    let v = Array4::from_shape_vec((1, 1, 3, 1), vec![1.0, 2.0, 3.0]).unwrap();
    let (out, lse) = run(q.view(), k.view(), v.view(), &AttentionOptions::default());
    assert_eq!((out[[0, 0, 0, 0]], lse[[0, 0, 0]]), (2.0, 1e4));
    // Every score -inf counts as no key.
    let k = Array4::from_elem((1, 1, 3, 1), f32::NEG_INFINITY);
    let (out, lse) = run(q.view(), k.view(), v.view(), &AttentionOptions::default());
    assert_eq!((out[[0, 0, 0, 0]], lse[[0, 0, 0]]), (0.0, f32::NEG_INFINITY));
    // A scale of 0 takes the mean.
    let zero = AttentionOptions { scale: Some(0.0), ..Default::default() };
    let (out, _) = run(q.view(), v.view(), v.view(), &zero);
    assert_eq!(out[[0, 0, 0, 0]], 2.0);
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let c = Case { batch: 2, ..Case::new([4, 2], 3, 5, 8) };
    let [q, k, v] = c.inputs();
    let mut out = Array4::from_elem((2, 4, 3, 8), 5.0);
    let mut lse = Array3::from_elem((2, 4, 3), 5.0);
    let o = AttentionOptions::default();
    let message = |r: Result<()>| r.unwrap_err().to_string();
    let (kb, vb) = (tensor(1, [2, 3, 5, 8]), tensor(1, [2, 2, 5, 0]));
    let m = message(attention(q.slice(s![.., .., .., ..0]), k.view(), v.view(), &o, out.view_mut(), None));
    assert!(m.starts_with("q has shape [2, 4, 3, 0]"), "{m}");
    let m = message(attention(q.view(), k.slice(s![.., .., .., ..7]), v.view(), &o, out.view_mut(), None));
    assert_eq!(m, "k has shape [2, 2, 5, 7], expected [2, 2, 5, 8]");
    let m = message(attention(q.view(), kb.view(), kb.view(), &o, out.view_mut(), None));
    assert!(m.starts_with("k has shape [2, 3, 5, 8], expected a number of heads"), "{m}");
    let m = message(attention(q.view(), k.view(), vb.view(), &o, out.view_mut(), None));
    assert!(m.starts_with("v has shape [2, 2, 5, 0]"), "{m}");
    let m = message(attention(q.view(), k.view(), v.slice(s![.., .., ..4, ..]), &o, out.view_mut(), None));
    assert!(m.starts_with("v has shape [2, 2, 4, 8]"), "{m}");
    let m = message(attention(q.view(), k.view(), v.view(), &o, out.slice_mut(s![.., .., ..2, ..]), None));
    assert!(m.starts_with("out has shape"), "{m}");
    let m = message(attention(
        q.view(),
        k.view(),
        v.view(),
        &o,
        out.view_mut(),
        Some(lse.slice_mut(s![..1, .., ..])),
    ));
    assert!(m.starts_with("lse has shape"), "{m}");
    let m = message(attention(q.slice(s![.., .., ..;-1, ..]), k.view(), v.view(), &o, out.view_mut(), None));
    assert!(m.starts_with("q has strides"), "{m}");
    let m = message(attention(q.view(), k.view(), v.view(), &o, out.slice_mut(s![.., .., .., ..;-1]), None));
    assert!(m.starts_with("out has strides"), "{m}");
    let bad = AttentionOptions { scale: Some(f32::NAN), ..Default::default() };
    let m = message(attention(q.view(), k.view(), v.view(), &bad, out.view_mut(), None));
    assert!(m.starts_with("scale is NaN"), "{m}");
    let bad = AttentionOptions { kv_lengths: Some(&[1]), ..Default::default() };
    let m = message(attention(q.view(), k.view(), v.view(), &bad, out.view_mut(), None));
    assert!(m.starts_with("kv_lengths has shape [1]"), "{m}");
    let bad = AttentionOptions { kv_lengths: Some(&[1, 6]), ..Default::default() };
    let m = message(attention(q.view(), k.view(), v.view(), &bad, out.view_mut(), None));
    assert!(m.starts_with("kv_lengths is 6"), "{m}");
    assert!(out.iter().chain(lse.iter()).all(|&x| x == 5.0));
}

#[test]
fn empty_calls_do_nothing() {
    for shape in [[0, 2, 3, 4], [2, 0, 3, 4], [2, 2, 0, 4]] {
        let q = Array4::zeros(shape);
        let k = Array4::zeros([shape[0], shape[1], 5, 4]);
        let (out, _) = run(q.view(), k.view(), k.view(), &AttentionOptions::default());
        assert!(out.is_empty());
    }
}
