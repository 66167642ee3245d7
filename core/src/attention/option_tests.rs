//! The options against a textbook in f64, and the promises they must keep.

use ndarray::{Array4, s};

use super::tests::{bits, run, serial, tensor};
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::threads;

/// Shapes `[B, H, Hkv, Lq, Lk, D, Dv]`.
pub(super) type Shape = [usize; 7];

pub(super) struct Inputs {
    pub q: Array4<f32>,
    pub k: Array4<f32>,
    pub v: Array4<f32>,
}

pub(super) fn inputs([b, h, g, lq, lk, d, e]: Shape) -> Inputs {
    Inputs { q: tensor(1, [b, h, lq, d]), k: tensor(2, [b, g, lk, d]), v: tensor(3, [b, g, lk, e]) }
}

pub(super) fn attend(x: &Inputs, o: &AttentionOptions) -> (Array4<f32>, ndarray::Array3<f32>) {
    run(x.q.view(), x.k.view(), x.v.view(), o)
}

/// Bias and mask at an element, with 1 for "repeats".
fn at<T: Copy>(x: &ndarray::ArrayView4<T>, i: [usize; 4]) -> T {
    let n = x.shape();
    x[std::array::from_fn::<_, 4, _>(|d| if n[d] == 1 { 0 } else { i[d] })]
}

/// Whether query `i` sees key `j`, one rule after the other.
fn sees(o: &AttentionOptions, lq: usize, lk: usize, [b, h, i, j]: [usize; 4]) -> bool {
    let keys = o.kv_lengths.map_or(lk, |n| n[b]);
    let (position, key) = (i as i128 + keys as i128 - lq as i128, j as i128);
    j < keys
        && (!o.causal || key <= position)
        && o.window_left.is_none_or(|w| position - key <= w as i128)
        && o.window_right.is_none_or(|w| key - position <= w as i128)
        && o.mask.as_ref().is_none_or(|m| at(m, [b, h, i, j]) != 0)
        && o.bias.as_ref().is_none_or(|m| at(m, [b, h, i, j]) != f32::NEG_INFINITY)
}

/// Softmax and average in one precision: scores and values of the visible keys, and a sink.
macro_rules! softmax {
    ($t:ty, $exp:path, $scores:expr, $values:expr, $sink:expr) => {{
        let (scores, sink): (&[$t], Option<$t>) = ($scores, $sink);
        let m = scores.iter().copied().chain(sink).fold(<$t>::NEG_INFINITY, <$t>::max);
        let e: Vec<$t> = scores.iter().map(|s| $exp(s - m)).collect();
        let sum = e.iter().sum::<$t>() + sink.map_or(0.0, |s| $exp(s - m));
        let dims = $values.first().map_or(0, |v: &Vec<f32>| v.len());
        let out = (0..dims).map(|d| e.iter().zip($values).map(|(e, v)| e / sum * v[d] as $t).sum::<$t>());
        (
            out.collect::<Vec<$t>>(),
            m as f64 + libm::log(sum as f64),
            e.iter().map(|e| e / sum).collect::<Vec<$t>>(),
        )
    }};
}

/// Gate A: over the call, at most twice the error of the same formulas in f32 (and one ulp of
/// the largest value). Gate B of [`errors`].
pub(super) fn check(shape: Shape, o: &AttentionOptions) {
    let (worst, naive) = errors(shape, o);
    let slack = 2.0 * f64::from(f32::EPSILON);
    assert!(worst <= 2.0 * naive + slack, "{shape:?} {o:?}: {worst:e} against {naive:e}");
}

/// Gate B: each element within the bound of its roundings. Returns the largest error of the call,
/// and that of the same formulas in f32.
pub(super) fn errors(shape: Shape, o: &AttentionOptions) -> (f64, f64) {
    let x = inputs(shape);
    let [batch, heads, kv_heads, lq, lk, dim, value_dim] = shape;
    let (out, lse) = attend(&x, o);
    let scale = o.scale.unwrap_or((1.0 / (dim as f64).sqrt()) as f32);
    let (mut worst, mut worst_naive) = (0.0f64, 0.0f64);
    let unit = f64::from(f32::EPSILON);
    for (b, h, i) in (0..batch * heads * lq).map(|n| (n / lq / heads, n / lq % heads, n % lq)) {
        let g = h / (heads / kv_heads);
        let keys = o.kv_lengths.map_or(lk, |n| n[b]);
        let seen: Vec<usize> = (0..lk).filter(|&j| sees(o, lq, lk, [b, h, i, j])).collect();
        let sink = o.sinks.map(|s| s[h]).filter(|s| s.is_finite());
        let row = out.slice(s![b, h, i, ..]);
        if seen.is_empty() {
            assert!(row.iter().all(|x| x.to_bits() == 0), "{o:?}");
            let want = f64::from(sink.unwrap_or(f32::NEG_INFINITY));
            assert!(
                f64::from(lse[[b, h, i]]) == want
                    || (f64::from(lse[[b, h, i]]) - want).abs() < 1e-6 * want.abs()
            );
            continue;
        }
        // The largest magnitude that meets a rounding, in units of the score.
        let mut size = sink.map_or(0.0, |s| f64::from(s.abs()));
        let mut exact = Vec::new();
        let mut naive = Vec::new();
        for &j in &seen {
            let products = || (0..dim).map(|d| (x.q[[b, h, i, d]], x.k[[b, g, j, d]]));
            let mut s64: f64 =
                f64::from(scale) * products().map(|(a, b)| f64::from(a) * f64::from(b)).sum::<f64>();
            let mut s32: f32 = scale * products().map(|(a, b)| a * b).sum::<f32>();
            let mut mass = f64::from(scale) * products().map(|(a, b)| f64::from(a * b).abs()).sum::<f64>();
            if let Some(cap) = o.soft_cap {
                s64 = f64::from(cap) * libm::tanh(s64 / f64::from(cap));
                s32 = cap * libm::tanhf(s32 / cap);
            }
            if let Some(slopes) = o.alibi_slopes {
                let distance = (i as i64 + keys as i64 - lq as i64 - j as i64).abs();
                s64 -= f64::from(slopes[h]) * distance as f64;
                s32 -= slopes[h] * distance as f32;
                mass += f64::from(slopes[h].abs()) * distance as f64;
            }
            if let Some(bias) = &o.bias {
                let bias = at(bias, [b, h, i, j]);
                s64 += f64::from(bias);
                s32 += bias;
                mass += f64::from(bias.abs());
            }
            size = size.max(mass);
            exact.push(s64);
            naive.push(s32);
        }
        let values: Vec<Vec<f32>> = seen.iter().map(|&j| x.v.slice(s![b, g, j, ..]).to_vec()).collect();
        let (want, want_lse, weights) = softmax!(f64, libm::exp, &exact, &values, sink.map(f64::from));
        let (plain, _, _) = softmax!(f32, libm::expf, &naive, &values, sink);
        // A score has D + 2 roundings, and at most 4 more for cap, distance and bias, each of at
        // most half an ulp of `size`; numerator and denominator see them alike. The rest as
        // for the plain kernel.
        let relative = unit * ((2 * (dim + 8)) as f64 * size + seen.len() as f64 + 20.0);
        for d in 0..value_dim {
            let error = (f64::from(row[d]) - want[d]).abs();
            let mass: f64 = weights.iter().zip(&values).map(|(w, v)| w * f64::from(v[d]).abs()).sum();
            assert!(error <= relative * mass, "{o:?} {:?} dim {d}: {error:e}", [b, h, i]);
            worst = worst.max(error);
            worst_naive = worst_naive.max((f64::from(plain[d]) - want[d]).abs());
        }
        let error = (f64::from(lse[[b, h, i]]) - want_lse).abs();
        assert!(error <= relative + unit * want_lse.abs(), "{o:?} {:?} lse: {error:e}", [b, h, i]);
    }
    (worst, worst_naive)
}

pub(super) fn mask(seed: u64, shape: [usize; 4]) -> Array4<u8> {
    tensor(seed, shape).mapv(|x| u8::from(x > -0.5))
}

/// Bias with a quarter of -inf.
pub(super) fn bias(seed: u64, shape: [usize; 4]) -> Array4<f32> {
    tensor(seed, shape).mapv(|x| if x > 1.0 { f32::NEG_INFINITY } else { 3.0 * x })
}

#[test]
fn windows() {
    for (lq, lk) in [(1, 1), (5, 9), (9, 5), (70, 70), (65, 200), (20, 300), (130, 700)] {
        for left in [None, Some(0), Some(3), Some(64), Some(usize::MAX)] {
            for (causal, right) in [(false, None), (false, Some(0)), (false, Some(17)), (true, Some(5))] {
                let o =
                    AttentionOptions { causal, window_left: left, window_right: right, ..Default::default() };
                check([1, 2, 1, lq, lk, 5, 3], &o);
            }
        }
    }
    let o = AttentionOptions { kv_lengths: Some(&[150, 31, 0]), window_left: Some(20), ..Default::default() };
    check([3, 2, 2, 40, 150, 8, 8], &o);
}

#[test]
fn caps_slopes_and_sinks() {
    let slopes = [0.5, 0.25, -0.125, 0.0];
    let sinks = [0.5, -3.0, f32::NEG_INFINITY, 4.0];
    for (lq, lk) in [(1, 7), (9, 5), (33, 140), (70, 600)] {
        for causal in [false, true] {
            let base = AttentionOptions { causal, ..Default::default() };
            let shape = [1, 4, 2, lq, lk, 16, 9];
            check(shape, &AttentionOptions { soft_cap: Some(0.7), scale: Some(0.3), ..base });
            check(shape, &AttentionOptions { soft_cap: Some(30.0), ..base });
            check(shape, &AttentionOptions { alibi_slopes: Some(&slopes), ..base });
            check(shape, &AttentionOptions { sinks: Some(&sinks), ..base });
            let all = AttentionOptions {
                soft_cap: Some(5.0),
                alibi_slopes: Some(&slopes),
                sinks: Some(&sinks),
                window_left: Some(40),
                ..base
            };
            check(shape, &all);
        }
    }
}

#[test]
fn biases_and_masks_of_every_broadcast() {
    let (lq, lk) = (21, 150);
    for code in 0..16 {
        let dim = |bit: usize, n| if code >> bit & 1 == 0 { n } else { 1 };
        let shape = [dim(0, 2), dim(1, 4), dim(2, lq), dim(3, lk)];
        let (bias, mask) = (bias(7, shape), mask(8, shape));
        let o = AttentionOptions { bias: Some(bias.view()), ..Default::default() };
        check([2, 4, 2, lq, lk, 8, 5], &o);
        let o = AttentionOptions { mask: Some(mask.view()), causal: true, ..Default::default() };
        check([2, 4, 2, lq, lk, 8, 5], &o);
        let o = AttentionOptions { mask: Some(mask.view()), ..o };
        check([2, 4, 2, lq, lk, 8, 5], &AttentionOptions { bias: Some(bias.view()), ..o });
    }
    let (bias, mask) = (bias(7, [1, 2, 70, 600]), mask(8, [1, 1, 70, 600]));
    let o = AttentionOptions { bias: Some(bias.view()), mask: Some(mask.view()), ..Default::default() };
    check([1, 2, 1, 70, 600, 8, 8], &o);
}

/// Every option at once, for a shape `[2, 4, .., 90, 650]`.
struct Everything {
    bias: Array4<f32>,
    mask: Array4<u8>,
}

impl Everything {
    fn new() -> Self {
        Everything { bias: bias(7, [1, 4, 90, 650]), mask: mask(8, [2, 1, 90, 650]) }
    }

    fn options(&self) -> AttentionOptions<'_> {
        AttentionOptions {
            causal: true,
            window_left: Some(400),
            soft_cap: Some(4.0),
            alibi_slopes: Some(&[0.5, 0.25, 0.125, 0.01]),
            sinks: Some(&[0.5, -3.0, f32::NEG_INFINITY, 4.0]),
            bias: Some(self.bias.view()),
            mask: Some(self.mask.view()),
            ..Default::default()
        }
    }
}

#[test]
fn same_bits_for_any_level_threads_and_chunks() {
    let _guard = serial();
    let shape = [2, 4, 2, 90, 650, 20, 24];
    let (x, everything) = (inputs(shape), Everything::new());
    let o = everything.options();
    check(shape, &o);
    let (want, want_lse) = attend(&x, &o);
    let first = level();
    for l in available_levels() {
        set_level(l).unwrap();
        for t in [1, 2, 3] {
            threads::set_num_threads(t).unwrap();
            let (out, lse) = attend(&x, &o);
            assert_eq!(bits(&out), bits(&want), "{l:?} {t}");
            assert_eq!(bits(&lse), bits(&want_lse), "{l:?} {t}");
        }
    }
    set_level(first).unwrap();
    // A prompt in chunks: rows `from..to` with the keys there are by then.
    for (from, to) in [(89, 90), (80, 90), (10, 17), (0, 64), (64, 90)] {
        let keys = 650 - 90 + to;
        let o = AttentionOptions {
            bias: Some(everything.bias.slice(s![.., .., from..to, ..keys])),
            mask: Some(everything.mask.slice(s![.., .., from..to, ..keys])),
            ..o
        };
        let (out, lse) = run(
            x.q.slice(s![.., .., from..to, ..]),
            x.k.slice(s![.., .., ..keys, ..]),
            x.v.slice(s![.., .., ..keys, ..]),
            &o,
        );
        assert_eq!(bits(&out), bits(want.slice(s![.., .., from..to, ..])), "{from}..{to}");
        assert_eq!(bits(&lse), bits(want_lse.slice(s![.., .., from..to])), "{from}..{to}");
    }
    // Strides: keys of bias and mask far apart, and one entry of the batch alone.
    let far = everything.bias.view().permuted_axes([3, 2, 1, 0]).as_standard_layout().into_owned();
    let masks = everything.mask.view().permuted_axes([3, 2, 1, 0]).as_standard_layout().into_owned();
    let o2 = AttentionOptions {
        bias: Some(far.view().permuted_axes([3, 2, 1, 0])),
        mask: Some(masks.view().permuted_axes([3, 2, 1, 0])),
        ..o
    };
    assert_eq!(bits(&attend(&x, &o2).0), bits(&want));
    let one = |a: &Array4<f32>| a.slice(s![1..2, .., .., ..]).to_owned();
    let o1 = AttentionOptions { mask: Some(everything.mask.slice(s![1..2, .., .., ..])), ..o };
    let (out, _) = run(one(&x.q).view(), one(&x.k).view(), one(&x.v).view(), &o1);
    assert_eq!(bits(&out), bits(want.slice(s![1..2, .., .., ..])));
}

#[test]
fn hidden_elements_never_leak() {
    let mut x = inputs([1, 2, 1, 80, 300, 8, 8]);
    let hidden = [0usize, 77, 130, 299];
    let mut mask = Array4::<u8>::ones((1, 1, 1, 300));
    let mut bias = Array4::<f32>::zeros((1, 1, 1, 300));
    for j in hidden {
        mask[[0, 0, 0, j]] = 0;
        bias[[0, 0, 0, j]] = f32::NEG_INFINITY;
    }
    let by_mask = AttentionOptions { mask: Some(mask.view()), ..Default::default() };
    let by_bias = AttentionOptions { bias: Some(bias.view()), ..Default::default() };
    let window = AttentionOptions { window_left: Some(100), causal: true, ..Default::default() };
    let (want, want_lse) = attend(&x, &by_mask);
    let (want_window, _) = attend(&x, &window);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38] {
        for j in hidden {
            x.k.slice_mut(s![.., .., j, ..]).fill(poison);
            x.v.slice_mut(s![.., .., j, ..]).fill(poison);
        }
        for o in [&by_mask, &by_bias] {
            let (out, lse) = attend(&x, o);
            assert_eq!(bits(&out), bits(&want), "{poison}");
            assert_eq!(bits(&lse), bits(&want_lse), "{poison}");
        }
        // Row 20 stands at key 240 and sees 140..=240: none of the poisoned ones.
        let (out, _) = attend(&x, &window);
        assert_eq!(bits(out.slice(s![.., .., 20, ..])), bits(want_window.slice(s![.., .., 20, ..])));
        if poison.is_nan() {
            assert!(out.slice(s![.., .., 5, ..]).iter().all(|x| x.is_nan()), "a used NaN gives NaN");
        }
    }
}

/// Where keys are cut between the beginning and the middle of a tile, by prefill and by decoding.
#[test]
fn hidden_elements_on_both_sides_of_the_middle_of_a_cut_tile_never_leak() {
    let hidden = [150usize, 170, 191, 192, 200];
    let mut mask = Array4::<u8>::ones((1, 1, 1, 300));
    hidden.iter().for_each(|&j| mask[[0, 0, 0, j]] = 0);
    for (queries, window) in [(80, 60), (4, 150)] {
        let mut x = inputs([1, 2, 1, queries, 300, 40, 24]);
        let o = AttentionOptions {
            mask: Some(mask.view()),
            window_left: Some(window),
            causal: true,
            ..Default::default()
        };
        let (want, want_lse) = attend(&x, &o);
        for j in hidden {
            x.k.slice_mut(s![.., .., j, ..]).fill(f32::NAN);
            x.v.slice_mut(s![.., .., j, ..]).fill(f32::INFINITY);
        }
        let (out, lse) = attend(&x, &o);
        assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)), "{queries} queries");
    }
}

#[test]
fn options_that_do_nothing_change_no_bit() {
    let x = inputs([1, 2, 1, 70, 300, 8, 8]);
    let plain = AttentionOptions { causal: true, ..Default::default() };
    let (want, want_lse) = attend(&x, &plain);
    let (ones, zeros) = (Array4::<u8>::ones((1, 1, 1, 1)), Array4::<f32>::zeros((1, 1, 1, 1)));
    for o in [
        AttentionOptions { window_left: Some(299), window_right: Some(0), causal: false, ..plain },
        AttentionOptions { window_left: Some(usize::MAX), window_right: Some(usize::MAX), ..plain },
        AttentionOptions { alibi_slopes: Some(&[0.0, 0.0]), ..plain },
        AttentionOptions { sinks: Some(&[f32::NEG_INFINITY; 2]), ..plain },
        AttentionOptions { mask: Some(ones.view()), ..plain },
        AttentionOptions { bias: Some(zeros.view()), ..plain },
    ] {
        let (out, lse) = attend(&x, &o);
        assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)), "{o:?}");
    }
}

#[test]
fn wrong_options_are_named() {
    let x = inputs([2, 4, 2, 3, 5, 8, 8]);
    let mut out = Array4::from_elem((2, 4, 3, 8), 5.0f32);
    let (bias, mask) = (Array4::<f32>::zeros((2, 4, 3, 4)), Array4::<u8>::zeros((1, 2, 3, 5)));
    let nan = f32::NAN;
    for (o, message) in [
        (AttentionOptions { soft_cap: Some(0.0), ..Default::default() }, "soft_cap is 0"),
        (AttentionOptions { soft_cap: Some(nan), ..Default::default() }, "soft_cap is NaN"),
        (AttentionOptions { alibi_slopes: Some(&[1.0]), ..Default::default() }, "alibi_slopes has shape [1]"),
        (AttentionOptions { alibi_slopes: Some(&[nan; 4]), ..Default::default() }, "alibi_slopes is NaN"),
        (
            AttentionOptions { sinks: Some(&[1.0; 5]), ..Default::default() },
            "sinks has shape [5], expected [4]",
        ),
        (AttentionOptions { sinks: Some(&[f32::INFINITY; 4]), ..Default::default() }, "sinks is inf"),
        (AttentionOptions { bias: Some(bias.view()), ..Default::default() }, "bias has shape [2, 4, 3, 4]"),
        (AttentionOptions { mask: Some(mask.view()), ..Default::default() }, "mask has shape [1, 2, 3, 5]"),
        (
            AttentionOptions { mask: Some(mask.slice(s![.., ..1, ..;-1, ..])), ..Default::default() },
            "mask has strides",
        ),
    ] {
        let e =
            attention(x.q.view(), x.k.view(), x.v.view(), &o, out.view_mut(), None).unwrap_err().to_string();
        assert!(e.starts_with(message), "{e}");
    }
    assert!(out.iter().all(|&x| x == 5.0));
}
