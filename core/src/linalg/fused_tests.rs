//! Gate, residual and gated layers have the bits of the kernels they stand for.

use ndarray::{Array1, Array2, Array3, ArrayView2, Axis, Ix2, s};

use super::tests::noise;
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::nn::{self, Gelu};
use crate::tensor::{Element, Floats, FloatsMut, bf16, f16};
use crate::threads;

fn matrix<T: Element>(seed: u64, rows: usize, cols: usize) -> Array2<T> {
    let all = noise(seed, rows * cols).into_iter().map(T::from_f32).collect();
    Array2::from_shape_vec((rows, cols), all).unwrap()
}

fn wide<T: Element>(x: &Array2<T>) -> Array2<f32> {
    x.mapv(T::to_f32)
}

const ACTIVATIONS: [Activation; 4] =
    [Activation::None, Activation::Silu, Activation::GeluTanh, Activation::GeluErf];

/// `gate_residual` on the f32 result of the layer, row by row; `1 * y` and `-0 + y` are `y`.
fn composed(
    y: &Array2<f32>,
    gate: Option<ArrayView2<f32>>,
    residual: Option<ArrayView2<f32>>,
) -> Array2<f32> {
    let (m, n) = y.dim();
    let mut out = Array2::zeros((m, n));
    for r in 0..m {
        let gate = match &gate {
            Some(gate) => gate.row(r / (m / gate.nrows())).to_owned(),
            None => Array1::ones(n),
        };
        let residual = match &residual {
            Some(residual) => residual.row(r % residual.nrows()).to_owned(),
            None => Array1::from_elem(n, -0.0),
        };
        let three = |x: ndarray::ArrayView1<f32>| x.insert_axis(Axis(0)).insert_axis(Axis(0)).to_owned();
        let mut row = Array3::<f32>::zeros((1, 1, n));
        let gate = gate.insert_axis(Axis(0));
        nn::gate_residual(three(residual.view()).view(), three(y.row(r)).view(), gate.view(), row.view_mut())
            .unwrap();
        out.row_mut(r).assign(&row.slice(s![0, 0, ..]));
    }
    out
}

/// The layer alone, its output in f32: of a gated one by `swiglu`, `geglu`, or a product.
fn alone<X: Element, W: Element>(
    x: &Array2<X>,
    halves: &[(Array2<W>, Array1<f32>)],
    act: Activation,
) -> Array2<f32>
where
    for<'a> ArrayView2<'a, X>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayView2<'a, W>: Into<Floats<'a, Ix2>>,
{
    let half = |i: usize, act: Activation| {
        let (w, bias) = &halves[i];
        let packed = PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap();
        let mut y = Array2::<f32>::zeros((x.nrows(), w.nrows()));
        linear(x.view(), &packed, act, y.view_mut()).unwrap();
        y
    };
    if halves.len() == 1 {
        return half(0, act);
    }
    let (gate, up) = (half(0, Activation::None), half(1, Activation::None));
    let mut y = gate.clone();
    match act {
        Activation::None => y *= &up,
        Activation::Silu => nn::swiglu(gate.view(), up.view(), y.view_mut()).unwrap(),
        Activation::GeluTanh => nn::geglu(gate.view(), up.view(), Gelu::Tanh, y.view_mut()).unwrap(),
        Activation::GeluErf => nn::geglu(gate.view(), up.view(), Gelu::Erf, y.view_mut()).unwrap(),
    }
    y
}

fn packed<W: Element>(halves: &[(Array2<W>, Array1<f32>)]) -> PackedLinear
where
    for<'a> ArrayView2<'a, W>: Into<Floats<'a, Ix2>>,
{
    match halves {
        [(w, bias)] => PackedLinear::pack(w.view(), Some(bias.view().into())).unwrap(),
        [(gate, gate_bias), (up, up_bias)] => {
            // One of the halves lies the other way round in memory.
            let turned = up.t().as_standard_layout().into_owned();
            let (a, b) = (Some(gate_bias.view().into()), Some(up_bias.view().into()));
            PackedLinear::pack_gated(gate.view(), turned.t(), a, b).unwrap()
        }
        _ => unreachable!(),
    }
}

/// Every combination of gate and residual for one mix of types.
fn check<X: Element, W: Element, G: Element, R: Element, Y: Element + PartialEq + std::fmt::Debug>(
    (m, k, n): (usize, usize, usize),
    halves: usize,
    act: Activation,
) where
    for<'a> ArrayView2<'a, X>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayView2<'a, W>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayView2<'a, G>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayView2<'a, R>: Into<Floats<'a, Ix2>>,
    for<'a> ndarray::ArrayViewMut2<'a, Y>: Into<FloatsMut<'a, Ix2>>,
{
    let x = matrix::<X>(1, m, k);
    let halves: Vec<_> =
        (0..halves as u64).map(|i| (matrix::<W>(2 + i, n, k), Array1::from(noise(5 + i, n)))).collect();
    let layer = packed(&halves);
    let y = alone(&x, &halves, act);
    let held = matrix::<Y>(9, m, n);
    let per_row = |x: &Array2<R>, r: usize| x.slice(s![r % x.nrows()..=r % x.nrows(), ..]).to_owned();
    for groups in [0, 1, 2, m / 3, m] {
        let gate = (groups > 0 && m % groups == 0).then(|| matrix::<G>(7, groups, n));
        for period in [0, 1, m / 2, m, m + 1] {
            let own = period == m + 1;
            let rows = (!own && period > 0 && m % period == 0).then(|| matrix::<R>(8, period, n));
            let base = if own { Some(wide(&held)) } else { rows.as_ref().map(wide) };
            let want = composed(
                &y,
                gate.as_ref().map(wide).as_ref().map(|g| g.view()),
                base.as_ref().map(|b| b.view()),
            );
            let want = want.mapv(Y::from_f32);
            let what = format!("{m} {k} {n} {act:?} groups {groups} period {period}");

            let mut got = held.clone();
            let residual = match &rows {
                Some(rows) => Residual::Rows(rows.view().into()),
                None if own => Residual::Out,
                None => Residual::None,
            };
            let plain =
                LinearOptions { activation: act, gate: gate.as_ref().map(|g| g.view().into()), residual };
            linear(x.view(), &layer, plain, got.view_mut()).unwrap();
            assert_eq!(got, want, "{what}");

            // The same with every array the other way round in memory, the output with gaps.
            let turned_gate = gate.as_ref().map(|g| g.t().as_standard_layout().into_owned());
            let turned_rows = rows.as_ref().map(|r| r.t().as_standard_layout().into_owned());
            let mut far = Array2::from_elem((2 * n, m), Y::from_f32(5.0));
            far.slice_mut(s![..;2, ..]).assign(&held.t());
            let residual = match &turned_rows {
                Some(rows) => Residual::Rows(rows.t().into()),
                None if own => Residual::Out,
                None => Residual::None,
            };
            let turned =
                LinearOptions { activation: act, gate: turned_gate.as_ref().map(|g| g.t().into()), residual };
            linear(x.view(), &layer, turned, far.slice_mut(s![..;2, ..]).reversed_axes()).unwrap();
            assert_eq!(far.slice(s![..;2, ..]).t(), want, "{what}, turned");
            assert!(far.slice(s![1..;2, ..]).iter().all(|v| v.to_f32() == 5.0), "{what}: gaps");

            // A row alone.
            for r in [0, m - 1] {
                let gate = gate.as_ref().map(|g| {
                    let i = r / (m / g.nrows());
                    g.slice(s![i..=i, ..]).to_owned()
                });
                let row = rows.as_ref().map(|x| per_row(x, r));
                let mut got = held.slice(s![r..=r, ..]).to_owned();
                let residual = match &row {
                    Some(row) => Residual::Rows(row.view().into()),
                    None if own => Residual::Out,
                    None => Residual::None,
                };
                let one =
                    LinearOptions { activation: act, gate: gate.as_ref().map(|g| g.view().into()), residual };
                linear(x.slice(s![r..=r, ..]), &layer, one, got.view_mut()).unwrap();
                assert_eq!(got, want.slice(s![r..=r, ..]), "{what}, row {r} alone");
            }
        }
    }
}

const SHAPES: [(usize, usize, usize); 4] = [(1, 1, 1), (6, 7, 33), (12, 70, 64), (3, 0, 18)];

fn every_level(test: impl Fn()) {
    let first = level();
    for (i, l) in available_levels().into_iter().enumerate() {
        set_level(l).unwrap();
        threads::set_num_threads(1 + 2 * (i % 2)).unwrap();
        test();
    }
    set_level(first).unwrap();
}

#[test]
fn every_mix_equals_the_composition_at_every_level() {
    every_level(|| {
        for (shape, act) in SHAPES.into_iter().zip(ACTIVATIONS) {
            for halves in [1, 2] {
                check::<f32, f32, f32, f32, f32>(shape, halves, act);
                check::<bf16, bf16, f32, bf16, bf16>(shape, halves, act);
                check::<f32, f16, f16, f32, f16>(shape, halves, act);
                check::<bf16, f32, bf16, f16, f32>(shape, halves, act);
            }
        }
        // Blocks of rows that share a gate, and one whose rows have two.
        check::<f32, f32, f32, f32, f32>((60, 70, 72), 1, Activation::None);
    });
}

#[test]
fn every_activation_equals_the_composition() {
    for act in ACTIVATIONS {
        for halves in [1, 2] {
            check::<f32, f32, f32, f32, f32>((6, 20, 96), halves, act);
            check::<f16, bf16, f32, f32, bf16>((6, 20, 50), halves, act);
        }
    }
}

#[test]
fn depths_of_several_parts_and_many_blocks_equal_the_composition() {
    threads::set_num_threads(3).unwrap();
    for halves in [1, 2] {
        check::<f32, f32, f32, f32, f32>((2, 2049, 33), halves, Activation::None);
        check::<bf16, bf16, bf16, bf16, bf16>((3, 3075, 32), halves, Activation::Silu);
        // Two blocks of rows of a long depth; rows that share a set of the cache.
        check::<f32, f32, f32, f32, f32>((60, 2731, 33), halves, Activation::None);
        check::<f32, f32, f32, f32, f32>((24, 1024, 40), halves, Activation::None);
        check::<bf16, bf16, bf16, bf16, bf16>((24, 2048, 40), halves, Activation::None);
        check::<f32, f32, f32, f32, f32>((252, 130, 320), halves, Activation::None);
        check::<f32, f32, f32, f32, f32>((252, 130, 320), halves, Activation::Silu);
        // More rows than outputs: the other order.
        check::<f32, f32, f32, f32, f32>((600, 130, 200), halves, Activation::Silu);
        check::<f16, bf16, f32, f32, bf16>((600, 130, 200), halves, Activation::None);
        // The last strip of blocks is cut finer.
        check::<f32, f32, f32, f32, f32>((302, 130, 200), halves, Activation::None);
        // Nothing to sum, for more rows than are finished at a time.
        check::<f32, f32, f32, f32, f32>((60, 0, 40), halves, Activation::Silu);
        check::<bf16, bf16, f32, f32, bf16>((60, 0, 40), halves, Activation::None);
    }
}

/// Half a unit in the last place of f32, relative.
const UNIT: f64 = f32::EPSILON as f64 / 2.0;

#[test]
fn is_within_the_bound_of_f64() {
    let (m, k, n) = (8, 257, 31);
    let (x, gate_w, up_w) = (matrix::<f32>(1, m, k), matrix::<f32>(2, n, k), matrix::<f32>(3, n, k));
    let (gate, residual) = (matrix::<f32>(4, 2, n), matrix::<f32>(5, 4, n));
    let layer = PackedLinear::pack_gated(gate_w.view(), up_w.view(), None, None).unwrap();
    let options = LinearOptions {
        activation: Activation::Silu,
        gate: Some(gate.view().into()),
        residual: Residual::Rows(residual.view().into()),
    };
    let mut y = Array2::<f32>::zeros((m, n));
    linear(x.view(), &layer, options, y.view_mut()).unwrap();
    for ((i, j), &got) in y.indexed_iter() {
        let dot = |w: &Array2<f32>| {
            (0..k).fold((0.0, 0.0), |(sum, size), l| {
                let p = f64::from(x[[i, l]]) * f64::from(w[[j, l]]);
                (sum + p, size + p.abs())
            })
        };
        let ((a, a_size), (b, b_size)) = (dot(&gate_w), dot(&up_w));
        let silu = a / (1.0 + libm::exp(-a));
        let (g, r) = (f64::from(gate[[i / 4, j]]), f64::from(residual[[i % 4, j]]));
        let want = g * silu * b + r;
        // k roundings of each sum; the slope of SiLU is below 1.1; four more units for SiLU, the products
        // and the last addition.
        let (da, db) = (k as f64 * UNIT * a_size, k as f64 * UNIT * b_size);
        let product = 1.1 * da * (b.abs() + db) + silu.abs() * db + 8.0 * UNIT * (silu * b).abs();
        let bound = g.abs() * product * (1.0 + 8.0 * UNIT) + 2.0 * UNIT * want.abs().max(r.abs());
        assert!((f64::from(got) - want).abs() <= bound, "{i} {j}");
    }
}

#[test]
fn wrong_options_are_named_and_nothing_is_written() {
    let layer = PackedLinear::pack(matrix::<f32>(1, 4, 3).view(), None).unwrap();
    let x = matrix::<f32>(2, 6, 3);
    let mut y = Array2::from_elem((6, 4), 5.0f32);
    for (shape, fits) in [((3, 4), true), ((4, 4), false), ((0, 4), false), ((12, 4), false), ((6, 3), false)]
    {
        let wrong = Array2::<f32>::zeros(shape);
        for (arg, options) in [
            ("gate", LinearOptions { gate: Some(wrong.view().into()), ..Default::default() }),
            (
                "residual",
                LinearOptions { residual: Residual::Rows(wrong.view().into()), ..Default::default() },
            ),
        ] {
            let mut out = y.clone();
            match linear(x.view(), &layer, options, out.view_mut()) {
                Ok(()) => assert!(fits, "{arg} {shape:?}"),
                Err(e) => {
                    let (n, c) = shape;
                    let text = format!("{arg} has shape [{n}, {c}], expected [a divisor of 6, 4]");
                    assert!(!fits && e.to_string() == text, "{e}");
                    assert_eq!(out, y);
                }
            }
        }
    }
    let options = LinearOptions { gate: Some(x.view().into()), ..Default::default() };
    assert!(linear(x.slice(s![..;-1, ..]), &layer, options, y.view_mut()).is_err());
    assert!(y.iter().all(|&v| v == 5.0));
    // No rows: any number of rows of the gate, none too.
    for n in [0, 2] {
        let none = Array2::<f32>::zeros((n, 4));
        let options = LinearOptions { gate: Some(none.view().into()), ..Default::default() };
        linear(x.slice(s![..0, ..]), &layer, options, y.slice_mut(s![..0, ..])).unwrap();
    }

    let (a, b) = (matrix::<f32>(1, 4, 3), matrix::<f32>(1, 5, 3));
    let e = PackedLinear::pack_gated(a.view(), b.view(), None, None).unwrap_err();
    assert_eq!(e.to_string(), "up has shape [5, 3], expected [4, 3], as gate");
    let e = PackedLinear::pack_gated(a.view(), matrix::<f16>(1, 4, 3).view(), None, None).unwrap_err();
    assert_eq!(e.to_string(), "up has dtype f16, expected f32, as gate");
    let bias = Array1::<f32>::zeros(3);
    let e = PackedLinear::pack_gated(a.view(), a.view(), None, Some(bias.view().into())).unwrap_err();
    assert_eq!(e.to_string(), "up_bias has shape [3], expected [4]");
    let e = PackedLinear::pack_gated(a.slice(s![..;-1, ..]), a.view(), None, None).unwrap_err();
    assert!(e.to_string().starts_with("gate has strides"), "{e}");
}

/// Sixteen outputs of each half a panel, and the bias of both.
#[test]
fn gated_layers_say_their_size() {
    let w = matrix::<f16>(1, 17, 5);
    let layer = PackedLinear::pack_gated(w.view(), w.view(), None, None).unwrap();
    assert!(layer.is_gated() && !packed(&[(w, Array1::zeros(17))]).is_gated());
    assert_eq!((layer.in_features(), layer.out_features(), layer.dtype().name()), (5, 17, "f16"));
    assert_eq!(layer.bytes(), 64 * 5 * 2 + 64 * 4 + 64);
    let empty = Array2::<f32>::zeros((1 << 46, 0));
    assert_eq!(PackedLinear::pack_gated(empty.view(), empty.view(), None, None).unwrap_err().code(), -501);
}
