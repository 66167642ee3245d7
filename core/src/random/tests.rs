//! Known answers, distributions, and independence of batch, layout, threads and level.

use ndarray::{Array2, ArrayViewMut2, s};

use super::lanes::{Normal, Uniform};
use super::*;
use crate::arch::{available_levels, dispatch_at};

const USER: u32 = Purpose::User as u32;

#[test]
fn philox_known_answers() {
    let pi = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344, 0xa409_3822, 0x299f_31d0];
    let cases = [
        ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
        ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
        ([pi[0], pi[1], pi[2], pi[3]], [pi[4], pi[5]], [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]),
    ];
    for (counter, key, words) in cases {
        assert_eq!(philox4x32_10(counter, key), words);
    }
}

/// The definition, one element at a time in f64, from the scalar generator.
fn oracle(normal: bool, stream: Stream, element: usize) -> f64 {
    let w = stream.words((element / 4) as u32);
    let unit = |w: u32| (f64::from(w) + 0.5) / 4_294_967_296.0;
    if !normal {
        return unit(w[element % 4]);
    }
    let (w0, w1) = if element % 4 < 2 { (w[0], w[1]) } else { (w[2], w[3]) };
    let r = libm::sqrt(-2.0 * libm::log(f64::from(unit(w0) as f32)));
    let (sin, cos) = libm::sincos(std::f64::consts::TAU * f64::from(w1) / 4_294_967_296.0);
    r * if element.is_multiple_of(2) { cos } else { sin }
}

fn draw(normal: bool, seeds: &[u64], purpose: u32, draw: u32, out: ArrayViewMut2<f32>) {
    let f = if normal { super::normal } else { super::uniform };
    f(seeds, purpose, draw, out).unwrap();
}

#[test]
fn numbers_follow_the_definition() {
    for normal in [false, true] {
        let stream = Stream { seed: 0x0123_4567_89ab_cdef, purpose: USER, draw: 3 };
        let mut out = Array2::zeros((1, 100_003));
        draw(normal, &[stream.seed], USER, 3, out.view_mut());
        for (e, &x) in out.iter().enumerate() {
            let exact = oracle(normal, stream, e);
            let error = (f64::from(x) - exact).abs();
            assert!(
                error <= 6e-8 * exact.abs().max(1.0) * if normal { 8.0 } else { 1.0 },
                "{e}: {x} {exact}"
            );
        }
    }
}

#[test]
fn levels_give_equal_bits() {
    for len in [1, 3, 4, 5, 63, 64, 65, 1000] {
        for first_element in [0, 4, 4 * 0xffff_fff0usize] {
            let stream = Stream { seed: 99, purpose: 1, draw: 2 };
            let run = |level, normal: bool| {
                let mut out = Array2::zeros((1, len));
                let row = out.row_mut(0);
                if normal {
                    dispatch_at(level, Fill { d: Normal, stream, first_element, out: row });
                } else {
                    dispatch_at(level, Fill { d: Uniform, stream, first_element, out: row });
                }
                out.mapv(f32::to_bits)
            };
            for normal in [false, true] {
                let levels = available_levels();
                let first = run(levels[0], normal);
                assert!(levels.iter().all(|&l| run(l, normal) == first));
            }
        }
    }
}

#[test]
fn rows_do_not_depend_on_batch_layout_or_threads() {
    let seeds = row_seeds(5, 7);
    let elements = CHUNK + 77;
    for normal in [false, true] {
        let mut batch = Array2::zeros((7, elements));
        draw(normal, &seeds, USER, 0, batch.view_mut());
        for (r, row) in batch.outer_iter().enumerate() {
            let mut alone = Array2::zeros((1, elements));
            draw(normal, &seeds[r..=r], USER, 0, alone.view_mut());
            assert_eq!(row, alone.row(0));
        }
        // Columns apart, then rows apart in memory, must not matter.
        let mut wide = Array2::zeros((7, 2 * elements));
        draw(normal, &seeds, USER, 0, wide.slice_mut(s![.., ..;2]));
        assert_eq!(wide.slice(s![.., ..;2]), batch);
        assert!(wide.slice(s![.., 1..;2]).iter().all(|&x| x == 0.0));
        let mut turned = Array2::zeros((elements, 7));
        draw(normal, &seeds, USER, 0, turned.view_mut().reversed_axes());
        assert_eq!(turned.t(), batch);
        // A shorter row is a prefix.
        let mut short = Array2::zeros((7, 10));
        draw(normal, &seeds, USER, 0, short.view_mut());
        assert_eq!(short, batch.slice(s![.., ..10]));
        for threads in [1, 3] {
            crate::threads::set_num_threads(threads).unwrap();
            let mut again = Array2::zeros((7, elements));
            draw(normal, &seeds, USER, 0, again.view_mut());
            assert_eq!(again, batch);
        }
    }
}

#[test]
fn streams_differ_by_seed_purpose_and_draw() {
    let row = |seed, purpose, draw| {
        let mut out = Array2::zeros((1, 64));
        super::uniform(&[seed], purpose, draw, out.view_mut()).unwrap();
        out.mapv(f32::to_bits).into_raw_vec_and_offset().0
    };
    let mut seen = std::collections::HashSet::new();
    for seed in [0, 1, 1 << 32] {
        for purpose in 0..10 {
            for draw in [0, 1, 1000] {
                assert!(seen.insert(row(seed, purpose, draw)));
            }
        }
    }
}

/// Kolmogorov-Smirnov distance of a sorted sample from a distribution function.
fn ks(sample: &mut [f32], cdf: impl Fn(f64) -> f64) -> f64 {
    sample.sort_by(f32::total_cmp);
    let n = sample.len() as f64;
    let distance = |(i, &x): (usize, &f32)| {
        let f = cdf(f64::from(x));
        (f - i as f64 / n).abs().max((f - (i + 1) as f64 / n).abs())
    };
    sample.iter().enumerate().map(distance).fold(0.0, f64::max)
}

#[test]
fn moments_and_distribution_functions() {
    const N: usize = 1 << 18;
    let n = N as f64;
    for seed in [0, 42] {
        let mut u = Array2::zeros((1, N));
        uniform(&[seed], USER, 0, u.view_mut()).unwrap();
        let mut g = Array2::zeros((1, N));
        normal(&[seed], USER, 0, g.view_mut()).unwrap();
        let moment = |a: &Array2<f32>, c: f64, p: i32| {
            let power = |x: f32| (0..p).fold(1.0, |y, _| y * (f64::from(x) - c));
            a.iter().map(|&x| power(x)).sum::<f64>() / n
        };
        // Five standard deviations of each estimate.
        assert!((moment(&u, 0.0, 1) - 0.5).abs() < 5.0 * libm::sqrt(1.0 / 12.0 / n));
        assert!((moment(&u, 0.5, 2) - 1.0 / 12.0).abs() < 5.0 * libm::sqrt(1.0 / 180.0 / n));
        assert!(moment(&g, 0.0, 1).abs() < 5.0 / libm::sqrt(n));
        assert!((moment(&g, 0.0, 2) - 1.0).abs() < 5.0 * libm::sqrt(2.0 / n));
        assert!(moment(&g, 0.0, 3).abs() < 5.0 * libm::sqrt(15.0 / n));
        assert!((moment(&g, 0.0, 4) - 3.0).abs() < 5.0 * libm::sqrt(96.0 / n));
        let products = g.as_slice().unwrap().windows(2).map(|w| f64::from(w[0]) * f64::from(w[1]));
        assert!((products.sum::<f64>() / n).abs() < 5.0 / libm::sqrt(n));
        // Beyond 2.2 / sqrt(n) with probability 1e-4.
        let limit = 2.2 / libm::sqrt(n);
        assert!(ks(u.as_slice_mut().unwrap(), |x| x) < limit);
        let phi = |x: f64| 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        assert!(ks(g.as_slice_mut().unwrap(), phi) < limit);
    }
}

#[test]
fn categorical_frequencies() {
    const ROWS: usize = 20_000;
    let p = [0.1f64, 0.0, 0.25, 0.6, 0.05];
    let logits: Vec<f32> = p.iter().map(|&p| libm::log(p) as f32 + 50.0).collect();
    let logits = Array2::from_shape_fn((ROWS, p.len()), |(_, i)| logits[i]);
    let mut out = vec![0; ROWS];
    categorical(logits.view(), &row_seeds(1, ROWS), USER, 0, &mut out).unwrap();
    for (i, p) in p.iter().enumerate() {
        let share = out.iter().filter(|&&c| c == i as i64).count() as f64 / ROWS as f64;
        assert!((share - p).abs() <= 5.0 * libm::sqrt(p * (1.0 - p) / ROWS as f64), "{i}: {share} {p}");
    }
}

#[test]
fn categorical_rows_are_independent_and_strides_do_not_matter() {
    let logits = Array2::from_shape_fn((50, 33), |(r, i)| ((r * 31 + i * 17) % 13) as f32 * 0.7);
    let seeds = row_seeds(3, 50);
    let mut out = [0; 50];
    categorical(logits.view(), &seeds, USER, 4, &mut out).unwrap();
    let columns = logits.t().as_standard_layout().into_owned();
    let mut other = [0; 50];
    categorical(columns.t(), &seeds, USER, 4, &mut other).unwrap();
    assert_eq!(out, other);
    for r in 0..50 {
        let mut one = [0];
        categorical(logits.slice(s![r..=r, ..]), &seeds[r..=r], USER, 4, &mut one).unwrap();
        assert_eq!(one[0], out[r]);
    }
}

#[test]
fn categorical_errors_name_the_row() {
    let inf = f32::INFINITY;
    for (bad, text) in [
        ([f32::NAN, 0.0], "NaN at row 1, class 0"),
        ([0.0, inf], "inf at row 1, class 1"),
        ([-inf, -inf], "-infinity for every class of row 1"),
    ] {
        let logits = ndarray::arr2(&[[0.0, 0.0], bad]);
        let mut out = [-7; 2];
        let error = categorical(logits.view(), &[1, 2], USER, 0, &mut out).unwrap_err();
        assert_eq!((error.code(), out), (-500, [-7; 2]));
        assert!(error.to_string().contains(text), "{error}");
    }
    let logits = Array2::zeros((2, 3));
    assert_eq!(categorical(logits.view(), &[1], USER, 0, &mut [0; 2]).unwrap_err().code(), -200);
    assert_eq!(categorical(logits.view(), &[1, 2], USER, 0, &mut [0; 3]).unwrap_err().code(), -200);
    let empty = Array2::zeros((2, 0));
    assert_eq!(categorical(empty.view(), &[1, 2], USER, 0, &mut [0; 2]).unwrap_err().code(), -200);
}

#[test]
fn shapes_are_checked_and_empty_is_fine() {
    let mut out = Array2::zeros((2, 3));
    assert_eq!(normal(&[1], USER, 0, out.view_mut()).unwrap_err().code(), -200);
    normal(&[1, 2], USER, 0, Array2::zeros((2, 0)).view_mut()).unwrap();
    normal(&[], USER, 0, Array2::zeros((0, 5)).view_mut()).unwrap();
}

#[test]
fn row_seeds_known_answers() {
    // The finaliser applied to multiples of the golden ratio is the SplitMix64 sequence of seed 0.
    assert_eq!(row_seeds(0x9e37_79b9_7f4a_7c15, 1), [0xe220_a839_7b1d_cdaf]);
    assert_eq!(row_seeds(u64::MAX, 2)[1], 0);
    assert_eq!(row_seeds(7, 0), Vec::<u64>::new());
}
