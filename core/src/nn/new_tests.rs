//! Softmax, gated activations, group norm, embedding and axial tables: oracle and definition.

use ndarray::{Array1, Array2, Array3, Array4, ArrayD, IxDyn, s};

use super::tests::{everywhere, layer_norm_definition, noise, noise2, row_sum};
use super::*;
use crate::math::slice;

#[test]
fn softmax_follows_definition_and_oracle() {
    for d in [1, 2, 31, 33, 100, 4097, 9000] {
        // Of short rows more than are looked at before they are filled, and some over.
        let rows = if d <= 100 { 19 } else { 3 };
        let x = noise2([rows, d], d as u64) * 5.0;
        let [plain, logs] = [false, true].map(|log| {
            everywhere(|| {
                let mut out = Array2::zeros((rows, d));
                if log { log_softmax(x.view(), out.view_mut()) } else { softmax(x.view(), out.view_mut()) }
                    .unwrap();
                out
            })
        });
        for r in 0..rows {
            let x = x.row(r).to_vec();
            let most = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let (mut e, mut log) = (vec![0.0; d], [0.0]);
            let shifted: Vec<f32> = x.iter().map(|x| x - most).collect();
            slice::exp(&shifted, &mut e).unwrap();
            let sum = row_sum(&e, false);
            slice::log(&[sum], &mut log).unwrap();
            let exact: Vec<f64> = x.iter().map(|&x| libm::exp(f64::from(x) - f64::from(most))).collect();
            let total: f64 = exact.iter().sum();
            for i in 0..d {
                assert_eq!(plain[[r, i]], e[i] * (1.0 / sum), "d = {d}");
                assert_eq!(logs[[r, i]], shifted[i] - log[0], "d = {d}");
                let want = exact[i] / total;
                // The difference to the largest is rounded before it is an exponent.
                let tolerance = 1e-6 + 1e-7 * f64::from(shifted[i].abs());
                assert!((f64::from(plain[[r, i]]) - want).abs() <= tolerance * want + 1e-38);
                let want = f64::from(x[i]) - f64::from(most) - libm::log(total);
                assert!((f64::from(logs[[r, i]]) - want).abs() <= 1e-6 * want.abs().max(1.0));
            }
        }
    }
}

#[test]
fn softmax_of_special_rows() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [[-inf, -inf, -inf], [1.0, nan, 2.0], [inf, 0.0, 1.0], [-inf, 3.0, 3.0], [1e38, -1e38, 0.0]];
    let x = Array2::from_shape_fn((5, 3), |(r, i)| rows[r][i]);
    let (mut p, mut l) = (Array2::<f32>::zeros((5, 3)), Array2::<f32>::zeros((5, 3)));
    softmax(x.view(), p.view_mut()).unwrap();
    log_softmax(x.view(), l.view_mut()).unwrap();
    assert_eq!(p.row(0).to_vec(), [0.0; 3]);
    assert_eq!(l.row(0).to_vec(), [-inf; 3]);
    assert!(p.row(1).iter().chain(l.row(1)).chain(p.row(2)).chain(l.row(2)).all(|x| x.is_nan()));
    assert_eq!(p.row(3).to_vec(), [0.0, 0.5, 0.5]);
    assert_eq!(p.row(4).to_vec(), [1.0, 0.0, 0.0]);
    assert_eq!(l.row(4).to_vec(), [0.0, -2e38, -1e38]);
    // No axis has no rows; no element is fine.
    let mut none = ndarray::arr0(0.0f32);
    assert_eq!(softmax(ndarray::arr0(1.0f32).view(), none.view_mut()).unwrap_err().code(), -200);
    softmax(Array2::<f32>::zeros((3, 0)).view(), Array2::<f32>::zeros((3, 0)).view_mut()).unwrap();
    let error = softmax(Array2::<f32>::zeros((3, 2)).view(), Array2::<f32>::zeros((3, 1)).view_mut());
    assert_eq!(error.unwrap_err().to_string(), "out has shape [3, 1], expected [3, 2]");
}

#[test]
fn gated_activations_are_a_product() {
    let both = noise2([7, 90], 1) * 3.0;
    let (gate, up) = (both.slice(s![.., ..45]), both.slice(s![.., 45..]));
    for kind in [None, Some(Gelu::Tanh), Some(Gelu::Erf)] {
        let mut act = Array2::<f32>::zeros((7, 45));
        match kind {
            None => silu(gate, act.view_mut()).unwrap(),
            Some(kind) => gelu(gate, kind, act.view_mut()).unwrap(),
        }
        let out = everywhere(|| {
            let mut out = Array2::<f32>::zeros((7, 45));
            match kind {
                None => swiglu(gate, up, out.view_mut()).unwrap(),
                Some(kind) => geglu(gate, up, kind, out.view_mut()).unwrap(),
            }
            out
        });
        for ((i, &o), a) in out.indexed_iter().zip(&act) {
            assert_eq!(o, a * up[i]);
        }
    }
    let mut out = Array2::<f32>::from_elem((7, 45), 7.0);
    let error = swiglu(gate, both.slice(s![.., 46..]), out.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "up has shape [7, 44], expected [7, 45], as gate");
    assert_eq!(geglu(gate, up, Gelu::Erf, out.slice_mut(s![..3, ..])).unwrap_err().code(), -200);
    assert!(out.iter().all(|&x| x == 7.0));
}

#[test]
fn group_norm_follows_definition_and_oracle() {
    for (c, h, w, groups) in [(6, 5, 7, 3), (4, 1, 1, 2), (4, 50, 50, 1), (8, 3, 33, 8), (6, 70, 70, 2)] {
        let x = noise(&[2, c, h, w], (c * h) as u64).into_dimensionality::<ndarray::Ix4>().unwrap() + 0.5;
        let [weight, bias] =
            [1, 2].map(|seed| noise(&[c], seed).into_dimensionality::<ndarray::Ix1>().unwrap());
        let run = |weight: Option<&Array1<f32>>, bias: Option<&Array1<f32>>, silu| {
            everywhere(|| {
                let mut out = Array4::<f32>::zeros(x.dim());
                let [weight, bias] = [weight, bias].map(|p| p.map(|p| p.view().into()));
                group_norm(x.view(), groups, weight, bias, 1e-5, silu, out.view_mut()).unwrap();
                out
            })
        };
        let (plain, both) = (run(None, None, false), run(Some(&weight), Some(&bias), false));
        let (scaled, moved) = (run(Some(&weight), None, false), run(None, Some(&bias), false));
        let active = run(Some(&weight), Some(&bias), true);
        let mut want = both.clone();
        silu_inplace(want.view_mut()).unwrap();
        assert_eq!(active, want);
        let per = c / groups;
        for b in 0..2 {
            for g in 0..groups {
                let group = |a: &Array4<f32>| -> Vec<f32> {
                    a.slice(s![b, g * per..(g + 1) * per, .., ..]).iter().copied().collect()
                };
                let x = group(&x);
                let n = x.len() as f32;
                let mean = row_sum(&x, false) / n;
                let centred: Vec<f32> = x.iter().map(|x| x - mean).collect();
                let inverse = 1.0 / (row_sum(&centred, true) / n + 1e-5).sqrt();
                let m = x.iter().map(|&x| f64::from(x)).sum::<f64>() / f64::from(n);
                let v =
                    x.iter().map(|&x| (f64::from(x) - m) * (f64::from(x) - m)).sum::<f64>() / f64::from(n);
                let parts = [&plain, &scaled, &moved, &both].map(group);
                for (i, d) in centred.iter().enumerate() {
                    let channel = g * per + i / (h * w);
                    let (y, w, c) = (d * inverse, weight[channel], bias[channel]);
                    assert_eq!([0, 1, 2, 3].map(|k| parts[k][i]), [y, y * w, y + c, y.mul_add(w, c)]);
                    let exact = (f64::from(x[i]) - m) / libm::sqrt(v + f64::from(1e-5f32));
                    // Two elements may lie close together, far from 0.
                    let tolerance = if x.len() > 4 { 3e-6 } else { 1e-4 };
                    assert!((f64::from(y) - exact).abs() <= tolerance * exact.abs().max(1.0), "{y} {exact}");
                }
            }
        }
    }
}

#[test]
fn wrong_groups_are_errors() {
    let x = Array3::<f32>::zeros((2, 6, 5));
    let mut out = Array3::<f32>::from_elem((2, 6, 5), 7.0);
    let mut code = |groups, eps, w: Option<&Array1<f32>>| {
        let w = w.map(|w| w.view().into());
        group_norm(x.view(), groups, w, None, eps, false, out.view_mut()).unwrap_err().code()
    };
    assert_eq!(code(0, 1e-5, None), -500);
    assert_eq!(code(4, 1e-5, None), -200);
    assert_eq!(code(3, -1.0, None), -500);
    assert_eq!(code(3, 1e-5, Some(&Array1::zeros(5))), -200);
    assert!(out.iter().all(|&x| x == 7.0));
    let short = group_norm(x.view(), 2, None, None, 1e-5, false, out.slice_mut(s![..1, .., ..]));
    assert_eq!(short.unwrap_err().code(), -200);
    let flat = Array1::<f32>::zeros(6);
    let error = group_norm(flat.view(), 2, None, None, 1e-5, false, flat.clone().view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "x has shape [6], expected [B, C, ...] with C a multiple of groups 2");
    for shape in [[0, 6, 5], [2, 6, 0], [2, 0, 5]] {
        let (x, mut out) = (ArrayD::<f32>::zeros(IxDyn(&shape)), ArrayD::<f32>::zeros(IxDyn(&shape)));
        group_norm(x.view(), 3, None, None, 1e-5, false, out.view_mut()).unwrap();
    }
}

#[test]
fn wrong_residuals_and_indices_are_errors() {
    let x = Array2::<f32>::zeros((2, 4));
    let short = Array2::<f32>::zeros((2, 3));
    let (mut sum, mut out) = (Array2::<f32>::from_elem((2, 4), 7.0), Array2::<f32>::from_elem((2, 4), 7.0));
    let error = rms_norm_residual(x.view(), short.view(), None, 0.0, sum.view_mut(), out.view_mut());
    assert_eq!(error.unwrap_err().to_string(), "residual has shape [2, 3], expected [2, 4]");
    let error = rms_norm_residual(x.view(), x.view(), None, 0.0, sum.slice_mut(s![..1, ..]), out.view_mut());
    assert_eq!(error.unwrap_err().to_string(), "sum has shape [1, 4], expected [2, 4]");
    let error = rms_norm_residual_inplace(x.view(), sum.slice_mut(s![..1, ..]), None, 0.0, out.view_mut());
    assert_eq!(error.unwrap_err().to_string(), "residual has shape [1, 4], expected [2, 4]");
    for index in [-1, 2, i64::MAX, i64::MIN] {
        let error = embedding(x.view(), &[0, index], out.view_mut()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("indices is {index} (element 1), expected numbers of rows, 0 to 1")
        );
    }
    assert_eq!(embedding(x.view(), &[0], out.view_mut()).unwrap_err().code(), -200);
    assert!(sum.iter().chain(&out).all(|&x| x == 7.0));
    embedding(x.view(), &[], Array2::<f32>::zeros((0, 4)).view_mut()).unwrap();
}

#[test]
fn axial_tables_are_those_of_each_axis() {
    let positions = Array2::from_shape_fn((12, 3), |(n, a)| [2.0, (n / 4) as f32, (n % 4) as f32][a]);
    let dims = [4, 6, 2];
    let (mut cos, mut sin) = (Array2::zeros((12, 6)), Array2::zeros((12, 6)));
    rope_axial_tables(positions.view(), &dims, 100.0, cos.view_mut(), sin.view_mut()).unwrap();
    let mut at = 0;
    for (a, dim) in dims.into_iter().enumerate() {
        let half = dim / 2;
        let (mut c, mut s) = (Array2::zeros((4, half)), Array2::zeros((4, half)));
        rope_tables(0, 100.0, c.view_mut(), s.view_mut()).unwrap();
        for n in 0..12 {
            for i in 0..half {
                let p = positions[[n, a]] as usize;
                assert_eq!((cos[[n, at + i]], sin[[n, at + i]]), (c[[p, i]], s[[p, i]]));
            }
        }
        at += half;
    }
    let fail = |dims: &[usize], theta, columns| {
        let (mut c, mut s) = (Array2::zeros((12, columns)), Array2::zeros((12, columns)));
        rope_axial_tables(positions.view(), dims, theta, c.view_mut(), s.view_mut()).unwrap_err().to_string()
    };
    assert_eq!(fail(&[4, 6], 1e4, 5), "dims has shape [2], expected [3]");
    assert_eq!(fail(&[4, 5, 2], 1e4, 5), "dims is 5, expected even numbers");
    assert_eq!(fail(&[4, 6, 2], 1e4, 5), "cos has shape [12, 5], expected [12, 6]");
    assert_eq!(fail(&[4, 6, 2], 0.0, 6), "theta is 0, expected a finite positive number");
    assert!(fail(&[usize::MAX - 1, usize::MAX - 1, 4], 1e4, 6).starts_with("dims is too large"));
}

#[test]
fn norms_of_rows_with_gaps_backwards_and_the_same_again() {
    let wide = noise2([19, 90], 9);
    let rows = wide.slice(s![.., 3..53]);
    let same = wide.slice(s![4, 3..53]);
    for x in [rows, rows.slice(s![..;-1, ..]), same.broadcast((19, 50)).unwrap()] {
        let out = everywhere(|| {
            let mut out = Array2::<f32>::zeros(x.dim());
            layer_norm(x, None, None, 1e-5, out.view_mut()).unwrap();
            out
        });
        for (x, out) in x.outer_iter().zip(out.outer_iter()) {
            assert_eq!(out.to_vec(), layer_norm_definition(&x.to_vec(), 1e-5));
        }
    }
}
