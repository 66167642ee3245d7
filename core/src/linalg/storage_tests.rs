//! Linear layers of every mix of types.

use half::{bf16, f16};
use ndarray::{Array1, Array2, ArrayView2, s};

use super::tests::noise;
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::tensor::Element;
use crate::threads;

fn matrix<T: Element>(seed: u64, rows: usize, cols: usize) -> Array2<T> {
    Array2::from_shape_vec((rows, cols), noise(seed, rows * cols)).unwrap().mapv(T::from_f32)
}

fn wide<T: Element>(x: &Array2<T>) -> Array2<f32> {
    x.mapv(T::to_f32)
}

/// The definition, before the output is rounded.
fn define(x: ArrayView2<f32>, w: ArrayView2<f32>, bias: &Array1<f32>, pairs: bool) -> Array2<f32> {
    Array2::from_shape_fn((x.nrows(), w.nrows()), |(m, n)| {
        let at = |k: usize| if k < x.ncols() { (x[[m, k]], w[[n, k]]) } else { (0.0, 0.0) };
        let mut acc = 0.0f32;
        if pairs {
            for k in (0..x.ncols()).step_by(2) {
                for (a, b) in [at(k + 1), at(k)] {
                    acc = a.mul_add(b, acc);
                }
            }
        } else {
            for k in 0..x.ncols() {
                let (a, b) = at(k);
                acc = a.mul_add(b, acc);
            }
        }
        acc + bias[n]
    })
}

/// `x` and weights of two types, outputs of all three, for shapes that cross the parts a panel is
/// read by.
macro_rules! check_mix {
    ($x:ident, $w:ident, $shapes:expr) => {
        for (m, k, n) in $shapes {
            let (x, w) = (matrix::<$x>(1, m, k), matrix::<$w>(2, n, k));
            let bias = Array1::from(noise(3, n));
            let pairs = stringify!($x) == "bf16" && stringify!($w) == "bf16";
            let want = define(wide(&x).view(), wide(&w).view(), &bias, pairs);
            let packed = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
            // The same weights as [in, out], every second of a wider array; x with its rows in columns
            // and with gaps between rows.
            let turned = w.t().as_standard_layout().into_owned();
            let turned = PackedLinear::pack(turned.t(), Some(bias.view().into())).unwrap();
            let columns = x.t().as_standard_layout().into_owned();
            let mut gaps = matrix::<$x>(9, m, k + 3);
            gaps.slice_mut(s![.., ..k]).assign(&x);
            for (threads, w) in [(1, &packed), (3, &turned)] {
                threads::set_num_threads(threads).unwrap();
                check_out!(f32, x.view(), w, want);
                check_out!(f16, columns.t(), w, want);
                check_out!(bf16, gaps.slice(s![.., ..k]), w, want);
                check_out!(bf16, x.view(), w, want);
                check_out!(f16, x.slice(s![..1, ..]), w, want.slice(s![..1, ..]));
                check_out!(f32, columns.slice(s![.., m - 1..]).t(), w, want.slice(s![m - 1.., ..]));
            }
        }
    };
}

/// A plain output, one with its columns far apart, and one after an activation.
macro_rules! check_out {
    ($t:ident, $x:expr, $w:expr, $want:expr) => {{
        let want = $want.mapv(<$t as Element>::from_f32);
        let (m, n) = want.dim();
        let mut y = Array2::from_elem((m, n), <$t as Element>::from_f32(5.0));
        linear($x, $w, Activation::None, y.view_mut()).unwrap();
        assert_eq!(y, want, "{m} {n}");
        let mut far = Array2::from_elem((2 * n, m), <$t as Element>::from_f32(5.0));
        linear($x, $w, Activation::None, far.slice_mut(s![..;2, ..]).reversed_axes()).unwrap();
        assert_eq!(far.slice(s![..;2, ..]).t(), want, "{m} {n}");
        assert!(far.slice(s![1..;2, ..]).iter().all(|v| v.to_f32() == 5.0), "gaps stay untouched");
        let mut silu = $want.iter().copied().collect::<Vec<f32>>();
        crate::nn::silu_inplace(&mut silu[..]).unwrap();
        linear($x, $w, Activation::Silu, y.view_mut()).unwrap();
        let same = y.iter().zip(silu).all(|(&y, v)| y == <$t as Element>::from_f32(v));
        assert!(same, "{m} {n} silu");
    }};
}

const SHAPES: [(usize, usize, usize); 5] = [(1, 1, 1), (3, 7, 33), (2, 64, 32), (17, 130, 40), (14, 300, 65)];

fn every_level(test: impl Fn()) {
    let first = level();
    for l in available_levels() {
        set_level(l).unwrap();
        test();
    }
    set_level(first).unwrap();
}

#[test]
fn every_mix_equals_the_definition_at_every_level_thread_count_and_stride() {
    every_level(|| {
        check_mix!(bf16, bf16, SHAPES);
        check_mix!(f16, f16, SHAPES);
        check_mix!(f32, bf16, SHAPES);
        check_mix!(bf16, f32, SHAPES);
    });
}

#[test]
fn the_other_mixes_equal_the_definition() {
    check_mix!(f32, f32, SHAPES);
    check_mix!(f32, f16, SHAPES);
    check_mix!(f16, f32, SHAPES);
    check_mix!(f16, bf16, SHAPES);
    check_mix!(bf16, f16, SHAPES);
}

#[test]
fn depths_of_several_parts_continue_the_chain() {
    let deep = [(2, 2049, 33), (13, 1537, 34), (13, 3075, 34), (1, 4099, 31)];
    check_mix!(f32, f32, deep);
    check_mix!(bf16, bf16, deep);
    check_mix!(f32, f16, deep);
}

#[test]
fn nothing_to_sum_is_the_bias_and_nothing_to_write_is_no_error() {
    let empty = matrix::<bf16>(1, 3, 0);
    let w = PackedLinear::pack(
        matrix::<bf16>(1, 2, 0).view(),
        Some(Array1::from(vec![1.5f32, -2.0]).view().into()),
    )
    .unwrap();
    let mut y = matrix::<bf16>(2, 3, 2);
    linear(empty.view(), &w, Activation::None, y.view_mut()).unwrap();
    assert!(y.rows().into_iter().all(|r| r[0].to_f32() == 1.5 && r[1].to_f32() == -2.0));
    let w = PackedLinear::pack(matrix::<f16>(1, 0, 5).view(), None).unwrap();
    linear(matrix::<f16>(1, 3, 5).view(), &w, Activation::None, matrix::<f32>(1, 3, 0).view_mut()).unwrap();
}

#[test]
fn every_type_of_bias_is_widened_exactly() {
    let (x, w) = (matrix::<f16>(1, 2, 5), matrix::<f16>(2, 40, 5));
    let bias = Array1::from(noise(3, 40)).mapv(f16::from_f32);
    let narrow = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
    let float = PackedLinear::pack(w.view(), Some(bias.mapv(f16::to_f32).view().into())).unwrap();
    let mut out = [Array2::<f32>::zeros((2, 40)), Array2::zeros((2, 40))];
    linear(x.view(), &narrow, Activation::None, out[0].view_mut()).unwrap();
    linear(x.view(), &float, Activation::None, out[1].view_mut()).unwrap();
    assert_eq!(out[0], out[1]);
    assert_eq!((narrow.dtype().name(), narrow.out_features()), ("f16", 40));
    // Two bytes a weight, 64 outputs after padding, four bytes a bias, one cache line.
    assert_eq!(narrow.bytes(), 64 * 5 * 2 + 64 * 4 + 64);
}

/// Half a unit in the last place of the type, relative.
fn roundoff<T: Element>() -> f64 {
    match T::row(&[]) {
        crate::tensor::Row::F32(_) => f64::from(f32::EPSILON) / 2.0,
        crate::tensor::Row::F16(_) => f64::from(f16::EPSILON) / 2.0,
        crate::tensor::Row::Bf16(_) => f64::from(bf16::EPSILON) / 2.0,
    }
}

fn within_the_bound<X: Element, W: Element, Y: Element>()
where
    for<'a> ndarray::ArrayView2<'a, X>: Into<crate::tensor::Floats<'a, ndarray::Ix2>>,
    for<'a> ndarray::ArrayView2<'a, W>: Into<crate::tensor::Floats<'a, ndarray::Ix2>>,
    for<'a> ndarray::ArrayViewMut2<'a, Y>: Into<crate::tensor::FloatsMut<'a, ndarray::Ix2>>,
{
    let (m, k, n) = (9, 257, 31);
    let (x, w) = (matrix::<X>(6, m, k), matrix::<W>(7, n, k));
    let packed = PackedLinear::pack(w.view(), None).unwrap();
    let mut y = Array2::from_elem((m, n), Y::from_f32(0.0));
    linear(x.view(), &packed, Activation::None, y.view_mut()).unwrap();
    for ((i, j), got) in y.indexed_iter() {
        let (mut want, mut size) = (0.0f64, 0.0f64);
        for l in 0..k {
            let p = f64::from(x[[i, l]].to_f32()) * f64::from(w[[j, l]].to_f32());
            want += p;
            size += p.abs();
        }
        // k roundings of partial sums no larger than `size`, then that of the output.
        let sum = (k + 1) as f64 * (f64::from(f32::EPSILON) / 2.0) * size;
        let bound = sum + roundoff::<Y>() * (want.abs() + sum);
        assert!((f64::from(got.to_f32()) - want).abs() <= bound, "{i} {j}");
    }
}

#[test]
fn every_type_is_within_the_bound_of_the_f64_product() {
    within_the_bound::<bf16, bf16, f32>();
    within_the_bound::<bf16, bf16, bf16>();
    within_the_bound::<f16, f16, f16>();
    within_the_bound::<f16, f16, f32>();
    within_the_bound::<f32, bf16, f32>();
    within_the_bound::<bf16, f16, bf16>();
}

#[test]
fn wrong_arguments_leave_sixteen_bit_outputs_alone() {
    let w = PackedLinear::pack(matrix::<bf16>(1, 4, 3).view(), None).unwrap();
    let x = matrix::<bf16>(2, 2, 3);
    let mut y = Array2::from_elem((2, 4), bf16::from_f32(5.0));
    let e = linear(matrix::<f16>(2, 2, 5).view(), &w, Activation::None, y.view_mut()).unwrap_err();
    assert_eq!(e.to_string(), "x has shape [2, 5], expected [rows, 3]");
    let e = linear(x.slice(s![..;-1, ..]), &w, Activation::None, y.view_mut()).unwrap_err();
    assert_eq!(e.code(), -201);
    let same = y.slice_mut(s![.., ..;-1]);
    assert_eq!(linear(x.view(), &w, Activation::None, same).unwrap_err().code(), -201);
    let bias = Array1::from(vec![bf16::ONE]);
    let e = PackedLinear::pack(x.view(), Some(bias.view().into())).unwrap_err();
    assert_eq!(e.to_string(), "bias has shape [1], expected [2]");
    assert!(y.iter().all(|v| v.to_f32() == 5.0));
}
