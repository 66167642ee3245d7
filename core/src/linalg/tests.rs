use ndarray::{Array1, Array2, ArrayView2, array, s};

use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::threads;

/// Numbers in [-1, 1) that look random and depend only on `seed`.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

fn matrix(seed: u64, rows: usize, cols: usize) -> Array2<f32> {
    Array2::from_shape_vec((rows, cols), noise(seed, rows * cols)).unwrap()
}

/// The definition: one chain of f32 FMAs, then the bias.
fn chain(x: ArrayView2<f32>, w: ArrayView2<f32>, bias: &Array1<f32>) -> Array2<f32> {
    Array2::from_shape_fn((x.nrows(), w.nrows()), |(m, n)| {
        let mut acc = 0.0f32;
        for k in 0..x.ncols() {
            acc = x[[m, k]].mul_add(w[[n, k]], acc);
        }
        acc + bias[n]
    })
}

#[test]
fn equals_the_definition_at_every_level_thread_count_and_stride() {
    let first = level();
    for (m, k, n) in
        [(1, 1, 1), (1, 7, 33), (2, 64, 32), (5, 31, 65), (17, 0, 9), (64, 48, 96), (131, 33, 40)]
    {
        let (x, w) = (matrix(1, m, k), matrix(2, n, k));
        let bias = Array1::from(noise(3, n));
        let want = chain(x.view(), w.view(), &bias);
        let packed = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
        for l in available_levels() {
            set_level(l).unwrap();
            for t in [1, 2, 3, 7] {
                threads::set_num_threads(t).unwrap();
                let mut y = Array2::from_elem((m, n), f32::NAN);
                linear(x.view(), &packed, Activation::None, y.view_mut()).unwrap();
                assert_eq!(y, want, "{m} {k} {n} {l:?} {t}");
            }
            let columns = x.t().as_standard_layout().into_owned();
            let mut wide = Array2::from_elem((n, 2 * m), 7.0f32);
            linear(columns.t(), &packed, Activation::None, wide.slice_mut(s![.., ..;2]).reversed_axes())
                .unwrap();
            assert_eq!(wide.slice(s![.., ..;2]).t(), want);
            assert!(wide.slice(s![.., 1..;2]).iter().all(|&v| v == 7.0), "gaps stay untouched");
            for i in 0..m {
                let mut row = vec![0.0; n];
                linear_rows(x.row(i).as_slice().unwrap(), 1, &packed, Activation::None, &mut row);
                assert_eq!(row, want.row(i).to_vec(), "a row alone");
            }
        }
        set_level(first).unwrap();
    }
}

#[test]
fn parallel_blocks_cover_the_output() {
    threads::set_num_threads(3).unwrap();
    let (m, k, n) = (301, 130, 333);
    let (x, w) = (matrix(4, m, k), matrix(5, n, k));
    let packed = PackedLinear::pack(w.view(), None).unwrap();
    let mut y = Array2::from_elem((m, n), f32::NAN);
    linear(x.view(), &packed, Activation::None, y.view_mut()).unwrap();
    assert_eq!(y, chain(x.view(), w.view(), &Array1::zeros(n)));
}

#[test]
fn is_within_the_bound_of_the_f64_product() {
    let (m, k, n) = (9, 257, 31);
    let (x, w) = (matrix(6, m, k), matrix(7, n, k));
    let packed = PackedLinear::pack(w.view(), None).unwrap();
    let mut y = Array2::<f32>::zeros((m, n));
    linear(x.view(), &packed, Activation::None, y.view_mut()).unwrap();
    for ((i, j), &got) in y.indexed_iter() {
        let (mut want, mut size) = (0.0f64, 0.0f64);
        for l in 0..k {
            let p = f64::from(x[[i, l]]) * f64::from(w[[j, l]]);
            want += p;
            size += p.abs();
        }
        // k roundings, each at most half an ulp of a partial sum no larger than `size`.
        let bound = (k + 1) as f64 * f64::from(f32::EPSILON) / 2.0 * size;
        assert!((f64::from(got) - want).abs() <= bound);
    }
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let w = PackedLinear::pack(matrix(1, 4, 3).view(), None).unwrap();
    let x = matrix(2, 2, 3);
    let mut y = Array2::from_elem((2, 4), 5.0f32);
    let e = linear(matrix(2, 2, 5).view(), &w, Activation::None, y.view_mut()).unwrap_err();
    assert_eq!(e.to_string(), "x has shape [2, 5], expected [rows, 3]");
    let e = linear(x.view(), &w, Activation::None, y.slice_mut(s![.., ..3])).unwrap_err();
    assert_eq!(e.to_string(), "out has shape [2, 3], expected [2, 4]");
    let e = linear(x.slice(s![..;-1, ..]), &w, Activation::None, y.view_mut()).unwrap_err();
    assert_eq!(e.code(), -201);
    let e = linear(x.view(), &w, Activation::None, y.slice_mut(s![.., ..;-1])).unwrap_err();
    assert_eq!(e.code(), -201);
    let e = PackedLinear::pack(x.view(), Some(array![1.0f32].view().into())).unwrap_err();
    assert_eq!(e.to_string(), "bias has shape [1], expected [2]");
    assert!(y.iter().all(|&v| v == 5.0));
}

#[test]
fn overlapping_output_strides_are_refused() {
    assert!(check_strides("out", &[2, 3], &[3, 1], true).is_ok());
    assert!(check_strides("out", &[2, 3], &[1, 2], true).is_ok());
    assert!(check_strides("out", &[2, 3], &[2, 1], true).is_err());
    assert!(check_strides("out", &[2, 3], &[0, 1], true).is_err());
    assert!(check_strides("out", &[2, 2], &[1, 1], true).is_err());
    assert!(check_strides("x", &[2, 3], &[0, 1], false).is_ok());
}

#[test]
fn activations_follow_the_bias_for_any_columns_and_strides() {
    let (m, k, n) = (13, 6, 45);
    let (x, w) = (matrix(8, m, k), matrix(9, n, k) * 3.0);
    let bias = Array1::from(noise(10, n));
    let packed = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
    let plain = chain(x.view(), w.view(), &bias);
    let tanh = |u: f64| 0.5 * u * (1.0 + libm::tanh(0.797_884_560_802_865_4 * (u + 0.044715 * u * u * u)));
    let formulas: [(Activation, &dyn Fn(f64) -> f64); 3] = [
        (Activation::Silu, &|u| u / (1.0 + libm::exp(-u))),
        (Activation::GeluTanh, &tanh),
        (Activation::GeluErf, &|u| 0.5 * u * (1.0 + libm::erf(u * std::f64::consts::FRAC_1_SQRT_2))),
    ];
    for (act, formula) in formulas {
        let mut y = Array2::<f32>::zeros((m, n));
        linear(x.view(), &packed, act, y.view_mut()).unwrap();
        for (got, &u) in y.iter().zip(&plain) {
            let want = formula(f64::from(u));
            // The bound of the math module, which tests the functions themselves.
            assert!((f64::from(*got) - want).abs() <= 4e-7 * want.abs().max(1.0), "{act:?} {u} {got}");
        }
        let mut columns = Array2::<f32>::zeros((n, m));
        linear(x.view(), &packed, act, columns.view_mut().reversed_axes()).unwrap();
        assert_eq!(columns.t(), y);
        let mut row = vec![0.0; n];
        linear_rows(x.row(5).as_slice().unwrap(), 1, &packed, act, &mut row);
        assert_eq!(row, y.row(5).to_vec());
    }
}

/// No element, and more output features than any memory holds.
#[test]
fn packing_without_memory_is_an_error() {
    let weight = Array2::<f32>::zeros((1 << 46, 0));
    assert_eq!(PackedLinear::pack(weight.view(), None).unwrap_err().code(), -501);
}
