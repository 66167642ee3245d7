//! Oracles in f64, the definition in scalar f32, and independence of strides, batch, threads
//! and level.

use ndarray::{Array1, Array2, Array3, Array4, ArrayD, Axis, Ix3, IxDyn, s};

use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::threads::set_num_threads;

/// Normal numbers, the same on every machine.
pub(super) fn noise(shape: &[usize], seed: u64) -> ArrayD<f32> {
    let len = shape.iter().product();
    let mut a = Array2::<f32>::zeros((1, len));
    crate::random::normal(&[seed], 9, 0, a.view_mut()).unwrap();
    ArrayD::from_shape_vec(IxDyn(shape), a.into_raw_vec_and_offset().0).unwrap()
}

pub(super) fn noise2(shape: [usize; 2], seed: u64) -> Array2<f32> {
    noise(&shape, seed).into_dimensionality().unwrap()
}

pub(super) fn noise3(shape: [usize; 3], seed: u64) -> Array3<f32> {
    noise(&shape, seed).into_dimensionality().unwrap()
}

pub(super) fn bits<D: ndarray::Dimension>(a: &ndarray::Array<f32, D>) -> Vec<u32> {
    a.iter().map(|x| x.to_bits()).collect()
}

/// Runs `f` at every level and with 1 and 3 threads; all results must have equal bits.
pub(super) fn everywhere<D: ndarray::Dimension>(
    f: impl Fn() -> ndarray::Array<f32, D>,
) -> ndarray::Array<f32, D> {
    let expected = f();
    at_every_level(|at| assert_eq!(bits(&f()), bits(&expected), "{at}"));
    expected
}

/// Calls `f` at every level, on one thread and on three, with words for where it is.
pub(super) fn at_every_level(mut f: impl FnMut(&str)) {
    let best = level();
    for l in available_levels() {
        for threads in [1, 3] {
            set_level(l).unwrap();
            set_num_threads(threads).unwrap();
            f(&format!("{l:?}, {threads} threads"));
        }
    }
    set_level(best).unwrap();
}

/// The order of a row sum, in scalars.
pub(super) fn row_sum(terms: &[f32], square: bool) -> f32 {
    let mut total = 0.0f32;
    for block in terms.chunks(4096) {
        let mut lanes = [0.0f32; 32];
        for (i, &t) in block.iter().enumerate() {
            lanes[i % 32] = if square { t.mul_add(t, lanes[i % 32]) } else { lanes[i % 32] + t };
        }
        for half in [16, 8, 4, 2, 1] {
            for i in 0..half {
                lanes[i] += lanes[i + half];
            }
        }
        total += lanes[0];
    }
    total
}

pub(super) fn layer_norm_definition(x: &[f32], eps: f32) -> Vec<f32> {
    let n = x.len() as f32;
    let mean = row_sum(x, false) / n;
    let deviations: Vec<f32> = x.iter().map(|x| x - mean).collect();
    let inverse = 1.0 / (row_sum(&deviations, true) / n + eps).sqrt();
    deviations.iter().map(|d| d * inverse).collect()
}

fn layer_norm_oracle(x: &[f32], eps: f32) -> Vec<f64> {
    let x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let variance = x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n;
    x.iter().map(|x| (x - mean) / libm::sqrt(variance + f64::from(eps))).collect()
}

#[test]
fn layer_norm_follows_definition_and_oracle() {
    for d in [1, 2, 7, 31, 32, 33, 64, 100, 4096, 4097, 9000] {
        let x = noise2([3, d], d as u64) + 2.0;
        let out = everywhere(|| {
            let mut out = Array2::<f32>::zeros((3, d));
            layer_norm(x.view(), None, None, 1e-5, out.view_mut()).unwrap();
            out
        });
        for (x, out) in x.outer_iter().zip(out.outer_iter()) {
            let x = x.to_vec();
            assert_eq!(out.to_vec(), layer_norm_definition(&x, 1e-5), "d = {d}");
            for (o, e) in out.iter().zip(layer_norm_oracle(&x, 1e-5)) {
                // |x| is up to three times |x - mean| here; a few roundings of x, mean, inverse. With
                // two elements or one the difference to the mean may be a small part of x.
                let tolerance = if d > 2 { 2e-6 } else { 1e-4 };
                assert!((f64::from(*o) - e).abs() <= tolerance * e.abs().max(1.0), "d = {d}: {o} {e}");
            }
        }
    }
}

#[test]
fn affine_maps_are_one_operation_each() {
    // More rows than are looked at before they are filled, and some over.
    let (x, w, b) = (noise2([21, 37], 1), noise(&[37], 2), noise(&[37], 3));
    let (w, b): (Array1<f32>, Array1<f32>) =
        (w.into_dimensionality().unwrap(), b.into_dimensionality().unwrap());
    let norm = |w: Option<&Array1<f32>>, b: Option<&Array1<f32>>| {
        everywhere(|| {
            let mut out = Array2::<f32>::zeros(x.dim());
            layer_norm(
                x.view(),
                w.map(|w| w.view().into()),
                b.map(|b| b.view().into()),
                1e-6,
                out.view_mut(),
            )
            .unwrap();
            out
        })
    };
    let (plain, weighted, shifted, both) =
        (norm(None, None), norm(Some(&w), None), norm(None, Some(&b)), norm(Some(&w), Some(&b)));
    for ((r, c), &y) in plain.indexed_iter() {
        assert_eq!(weighted[[r, c]], y * w[c]);
        assert_eq!(shifted[[r, c]], y + b[c]);
        assert_eq!(both[[r, c]], y.mul_add(w[c], b[c]));
    }
}

#[test]
fn rms_norm_follows_definition_and_oracle() {
    for d in [1, 5, 32, 77, 5000] {
        let (x, w) = (noise2([19, d], 4), noise(&[d], 5).into_dimensionality::<ndarray::Ix1>().unwrap());
        let norm = |w: Option<&Array1<f32>>| {
            everywhere(|| {
                let mut out = Array2::<f32>::zeros(x.dim());
                rms_norm(x.view(), w.map(|w| w.view().into()), 1e-6, out.view_mut()).unwrap();
                out
            })
        };
        let (out, plain) = (norm(Some(&w)), norm(None));
        for ((r, c), &y) in plain.indexed_iter() {
            assert_eq!(out[[r, c]], y * w[c]);
        }
        for (x, out) in x.outer_iter().zip(out.outer_iter()) {
            let x = x.to_vec();
            let inverse = 1.0 / (row_sum(&x, true) / d as f32 + 1e-6).sqrt();
            let square = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / d as f64;
            for i in 0..d {
                assert_eq!(out[i], x[i] * inverse * w[i]);
                let exact = f64::from(x[i]) / libm::sqrt(square + f64::from(1e-6f32)) * f64::from(w[i]);
                assert!((f64::from(out[i]) - exact).abs() <= 1e-6 * exact.abs());
            }
        }
    }
}

#[test]
fn fused_modulation_has_the_bits_of_its_parts() {
    let (x, shift, scale) = (noise3([3, 50, 70], 6), noise2([3, 70], 7), noise2([3, 70], 8));
    let fused = everywhere(|| {
        let mut out = Array3::<f32>::zeros(x.dim());
        layer_norm_modulate(x.view(), shift.view(), scale.view(), 1e-6, out.view_mut()).unwrap();
        out
    });
    let mut normed = Array3::<f32>::zeros(x.dim());
    for (x, out) in x.outer_iter().zip(normed.outer_iter_mut()) {
        layer_norm(x, None, None, 1e-6, out).unwrap();
    }
    let parts = everywhere(|| {
        let mut out = Array3::<f32>::zeros(x.dim());
        modulate(normed.view(), shift.view(), scale.view(), out.view_mut()).unwrap();
        out
    });
    assert_eq!(bits(&fused), bits(&parts));
    for ((b, t, c), &y) in fused.indexed_iter() {
        assert_eq!(y, normed[[b, t, c]].mul_add(1.0 + scale[[b, c]], shift[[b, c]]));
    }
}

#[test]
fn modulation_in_place_has_the_same_bits() {
    let (x, shift, scale) = (noise3([3, 50, 70], 16), noise2([3, 70], 17), noise2([3, 70], 18));
    let mut expected = Array3::<f32>::zeros(x.dim());
    modulate(x.view(), shift.view(), scale.view(), expected.view_mut()).unwrap();
    let inplace = everywhere(|| {
        let mut x = x.clone();
        modulate_inplace(x.view_mut(), shift.view(), scale.view()).unwrap();
        x
    });
    assert_eq!(bits(&inplace), bits(&expected));
    for mut x in layouts(&x) {
        modulate_inplace(x.view_mut(), shift.view(), scale.view()).unwrap();
        assert_eq!(x, expected);
    }
}

#[test]
fn gated_residual_is_one_fma_in_place_or_not() {
    let (x, y, gate) = (noise3([2, 20, 45], 9), noise3([2, 20, 45], 10), noise2([2, 45], 11));
    let out = everywhere(|| {
        let mut out = Array3::<f32>::zeros(x.dim());
        gate_residual(x.view(), y.view(), gate.view(), out.view_mut()).unwrap();
        out
    });
    for ((b, t, c), &o) in out.indexed_iter() {
        assert_eq!(o, gate[[b, c]].mul_add(y[[b, t, c]], x[[b, t, c]]));
    }
    let inplace = everywhere(|| {
        let mut x = x.clone();
        gate_residual_inplace(x.view_mut(), y.view(), gate.view()).unwrap();
        x
    });
    assert_eq!(bits(&inplace), bits(&out));
    let onto_y = everywhere(|| {
        let mut y = y.clone();
        gate_residual_onto_y(Some(x.view().into()), y.view_mut(), gate.view()).unwrap();
        y
    });
    assert_eq!(bits(&onto_y), bits(&out));
    let mut alone = x.clone();
    gate_residual_onto_y(None, alone.view_mut(), gate.view()).unwrap();
    for ((b, t, c), &o) in alone.indexed_iter() {
        assert_eq!(o, gate[[b, c]].mul_add(x[[b, t, c]], x[[b, t, c]]));
    }
    // Rows with gaps, and a broadcast gate.
    let mut wide = Array3::from_elem((2, 20, 90), 7.0);
    wide.slice_mut(s![.., .., ..;2]).assign(&x);
    gate_residual_inplace(wide.slice_mut(s![.., .., ..;2]), y.view(), gate.view()).unwrap();
    assert_eq!(wide.slice(s![.., .., ..;2]), out);
    assert!(wide.slice(s![.., .., 1..;2]).iter().all(|&x| x == 7.0));
}

/// The same values in memory orders and gaps that a caller may hand over.
fn layouts(x: &Array3<f32>) -> Vec<Array3<f32>> {
    let (b, t, d) = x.dim();
    let mut permuted = Array3::<f32>::zeros((d, b, t)).permuted_axes([1, 2, 0]);
    permuted.assign(x);
    let mut middle = Array3::<f32>::zeros((t, b, d)).permuted_axes([1, 0, 2]);
    middle.assign(x);
    let gaps = Array3::from_shape_fn((b, t, 3 * d), |(b, t, c)| x[[b, t, c / 3]]);
    vec![permuted, middle, gaps.slice_move(s![.., .., ..;3]), {
        let mut reversed = x.clone();
        reversed.invert_axis(Axis(2));
        let mut reversed = reversed.as_standard_layout().into_owned();
        reversed.invert_axis(Axis(2));
        reversed
    }]
}

#[test]
fn strides_do_not_matter() {
    let (x, shift, scale) = (noise3([2, 9, 50], 12), noise2([2, 50], 13), noise2([2, 50], 14));
    let mut expected = Array3::<f32>::zeros(x.dim());
    layer_norm_modulate(x.view(), shift.view(), scale.view(), 1e-6, expected.view_mut()).unwrap();
    let mut active = ArrayD::<f32>::zeros(x.shape());
    silu(x.view().into_dyn(), active.view_mut()).unwrap();
    let columns = scale.t().as_standard_layout().into_owned();
    for x in layouts(&x) {
        for mut out in layouts(&Array3::<f32>::zeros(x.dim())) {
            layer_norm_modulate(x.view(), shift.view(), columns.t(), 1e-6, out.view_mut()).unwrap();
            assert_eq!(out, expected);
            silu(x.view().into_dyn(), out.view_mut().into_dyn()).unwrap();
            assert_eq!(out, active.view().into_dimensionality::<Ix3>().unwrap());
        }
    }
    // One row of parameters for the whole batch.
    let row = scale.slice(s![..1, ..]);
    let broadcast = row.broadcast((2, 50)).unwrap();
    let mut out = Array3::<f32>::zeros(x.dim());
    modulate(x.view(), broadcast, broadcast, out.view_mut()).unwrap();
    assert_eq!(out[[1, 3, 4]], x[[1, 3, 4]].mul_add(1.0 + row[[0, 4]], row[[0, 4]]));
}

#[test]
fn rows_do_not_depend_on_the_batch() {
    let x = noise2([700, 96], 15);
    let mut all = Array2::<f32>::zeros(x.dim());
    layer_norm(x.view(), None, None, 1e-6, all.view_mut()).unwrap();
    for r in [0, 1, 169, 170, 171, 699] {
        let mut one = Array2::<f32>::zeros((1, 96));
        layer_norm(x.slice(s![r..=r, ..]), None, None, 1e-6, one.view_mut()).unwrap();
        assert_eq!(one.row(0), all.row(r));
    }
}

#[test]
fn activations_match_their_formulas() {
    let x = noise(&[4, 33, 5], 16) * 4.0;
    let oracle = |kind: Option<Gelu>, x: f64| match kind {
        None => x / (1.0 + libm::exp(-x)),
        Some(Gelu::Tanh) => {
            0.5 * x * (1.0 + libm::tanh(0.797_884_560_802_865_4 * (x + 0.044_715 * x * x * x)))
        }
        Some(Gelu::Erf) => 0.5 * x * (1.0 + libm::erf(x * std::f64::consts::FRAC_1_SQRT_2)),
    };
    for kind in [None, Some(Gelu::Tanh), Some(Gelu::Erf)] {
        let out = everywhere(|| {
            let mut out = ArrayD::<f32>::zeros(x.shape());
            match kind {
                None => silu(x.view(), out.view_mut()).unwrap(),
                Some(kind) => gelu(x.view(), kind, out.view_mut()).unwrap(),
            }
            out
        });
        for (&x, &y) in x.iter().zip(&out) {
            let exact = oracle(kind, f64::from(x));
            assert!((f64::from(y) - exact).abs() <= 3e-7 * exact.abs().max(1.0), "{kind:?} {x}: {y} {exact}");
        }
        let mut same: Vec<f32> = x.iter().copied().collect();
        match kind {
            None => silu_inplace(&mut same[..]).unwrap(),
            Some(kind) => gelu_inplace(&mut same[..], kind).unwrap(),
        }
        assert_eq!(same, out.iter().copied().collect::<Vec<_>>());
        // Elements apart: those between stay as they are.
        let mut wide = Array2::from_elem((x.len(), 2), 7.0);
        wide.column_mut(0).iter_mut().zip(&x).for_each(|(w, x)| *w = *x);
        match kind {
            None => silu_inplace(wide.column_mut(0)).unwrap(),
            Some(kind) => gelu_inplace(wide.column_mut(0), kind).unwrap(),
        }
        assert!(wide.column(0).iter().eq(&out) && wide.column(1).iter().all(|&v| v == 7.0));
        // Columns as rows of three axes, and nothing at all.
        let cube: Vec<f32> = x.iter().copied().take(6 * 50).collect();
        let mut cube = Array3::from_shape_vec((2, 3, 50), cube).unwrap();
        match kind {
            None => silu_inplace(cube.slice_mut(s![.., .., ..;-2])).unwrap(),
            Some(kind) => gelu_inplace(cube.slice_mut(s![.., .., ..;-2]), kind).unwrap(),
        }
        for (i, &v) in cube.iter().enumerate() {
            let flat = |a: &ArrayD<f32>| *a.iter().nth(i).unwrap();
            assert_eq!(v, if i % 2 == 1 { flat(&out) } else { flat(&x) });
        }
        silu_inplace(Array2::<f32>::zeros((0, 3)).view_mut()).unwrap();
    }
}

#[test]
fn embedding_follows_its_formula() {
    let t = ndarray::arr1(&[0.0, 0.5, 1.0, 999.0, 123_456.0, -3.0]);
    let out = everywhere(|| {
        let mut out = Array2::<f32>::zeros((6, 10));
        timestep_embedding(t.view(), 10_000.0, out.view_mut()).unwrap();
        out
    });
    for (r, &t) in t.iter().enumerate() {
        for i in 0..5 {
            let argument = f64::from(t) * libm::pow(10_000.0, -(i as f64) / 5.0);
            // The rounded frequency moves the argument by half an ULP.
            let tolerance = 6e-8 * argument.abs().max(1.0);
            assert!((f64::from(out[[r, i]]) - libm::cos(argument)).abs() <= tolerance);
            assert!((f64::from(out[[r, 5 + i]]) - libm::sin(argument)).abs() <= tolerance);
        }
    }
}

#[test]
fn patches_follow_their_index_formulas() {
    for (b, c, h, w, p) in
        [(2, 3, 6, 4, 2), (1, 4, 5, 3, 1), (2, 1, 6, 9, 3), (1, 3, 28, 14, 14), (3, 2, 16, 48, 16)]
    {
        let x: Array4<f32> = noise(&[b, c, h, w], 17).into_dimensionality().unwrap();
        let tokens_of = (h / p) * (w / p);
        let mut tokens = Array3::<f32>::zeros((b, tokens_of, c * p * p));
        patchify(x.view(), p, tokens.view_mut()).unwrap();
        let patches = noise3([b, tokens_of, p * p * c], 18);
        let mut image = Array4::<f32>::zeros((b, c, h, w));
        unpatchify(patches.view(), p, image.view_mut()).unwrap();
        for ((n, ch, i, j), &v) in x.indexed_iter() {
            let (t, ph, pw) = ((i / p) * (w / p) + j / p, i % p, j % p);
            assert_eq!(tokens[[n, t, (ch * p + ph) * p + pw]], v);
            assert_eq!(image[[n, ch, i, j]], patches[[n, t, (ph * p + pw) * c + ch]]);
        }
        // A part of an image.
        let mut larger = Array4::from_elem((b, c, h + 1, w + 2), 9.0f32);
        let mut part = larger.slice_mut(s![.., .., 1.., 1..=w]);
        part.assign(&x);
        let mut cut = Array3::<f32>::zeros((b, tokens_of, c * p * p));
        patchify(part.view(), p, cut.view_mut()).unwrap();
        assert_eq!(cut, tokens);
        // Elements apart, and an image with its channels last.
        let mut last = Array4::<f32>::zeros((b, h, w, c)).permuted_axes([0, 3, 1, 2]);
        last.assign(&x);
        let mut wide = Array3::from_elem((b, tokens_of, 2 * c * p * p), 7.0f32);
        patchify(last.view(), p, wide.slice_mut(s![.., .., ..;2])).unwrap();
        assert_eq!(wide.slice(s![.., .., ..;2]), tokens);
        assert!(wide.slice(s![.., .., 1..;2]).iter().all(|x| *x == 7.0));
        wide.slice_mut(s![.., .., ..;2]).assign(&patches);
        unpatchify(wide.slice(s![.., .., ..;2]), p, last.view_mut()).unwrap();
        assert_eq!(last, image);
    }
}

#[test]
fn wrong_arguments_are_errors_and_leave_the_output() {
    let (x, p) = (Array3::<f32>::zeros((2, 3, 4)), Array2::<f32>::zeros((2, 4)));
    let mut out = Array3::from_elem((2, 3, 4), 7.0);
    let wrong = Array2::<f32>::zeros((1, 4));
    let error = modulate(x.view(), wrong.view(), p.view(), out.view_mut()).unwrap_err();
    assert_eq!(error.to_string(), "shift has shape [1, 4], expected [2, 4]");
    assert_eq!(modulate(x.view(), p.view(), wrong.view(), out.view_mut()).unwrap_err().code(), -200);
    let short = Array3::<f32>::zeros((2, 2, 4));
    assert_eq!(gate_residual(x.view(), short.view(), p.view(), out.view_mut()).unwrap_err().code(), -200);
    assert_eq!(gate_residual_inplace(out.view_mut(), short.view(), p.view()).unwrap_err().code(), -200);
    assert_eq!(
        gate_residual_onto_y(Some(short.view().into()), out.view_mut(), p.view()).unwrap_err().code(),
        -200
    );
    assert_eq!(gate_residual_onto_y(None, out.view_mut(), wrong.view()).unwrap_err().code(), -200);
    let error = modulate_inplace(out.view_mut(), p.view(), wrong.view()).unwrap_err();
    assert_eq!(error.to_string(), "scale has shape [1, 4], expected [2, 4]");
    for eps in [-1.0, f32::NAN, f32::INFINITY] {
        let error = layer_norm_modulate(x.view(), p.view(), p.view(), eps, out.view_mut()).unwrap_err();
        assert_eq!(error.code(), -500);
    }
    assert!(out.iter().all(|&x| x == 7.0));

    let x = Array2::<f32>::zeros((2, 4));
    let w = Array1::<f32>::zeros(3);
    let mut out = Array2::<f32>::zeros((2, 4));
    assert_eq!(
        layer_norm(x.view(), Some(w.view().into()), None, 0.0, out.view_mut()).unwrap_err().code(),
        -200
    );
    assert_eq!(
        layer_norm(x.view(), None, Some(w.view().into()), 0.0, out.view_mut()).unwrap_err().code(),
        -200
    );
    assert_eq!(rms_norm(x.view(), None, 0.0, out.slice_mut(s![..1, ..])).unwrap_err().code(), -200);
    assert_eq!(silu(x.view().into_dyn(), out.slice_mut(s![..1, ..]).into_dyn()).unwrap_err().code(), -200);

    let t = Array1::<f32>::zeros(2);
    let mut odd = Array2::<f32>::zeros((2, 3));
    assert_eq!(timestep_embedding(t.view(), 1e4, odd.view_mut()).unwrap_err().code(), -200);
    assert_eq!(timestep_embedding(t.view(), 0.0, out.view_mut()).unwrap_err().code(), -500);

    let image = Array4::<f32>::zeros((1, 2, 4, 6));
    let mut tokens = Array3::<f32>::zeros((1, 6, 8));
    assert_eq!(patchify(image.view(), 0, tokens.view_mut()).unwrap_err().code(), -500);
    assert_eq!(patchify(image.view(), 4, tokens.view_mut()).unwrap_err().code(), -200);
    patchify(image.view(), 2, tokens.view_mut()).unwrap();
    assert_eq!(patchify(image.view(), 1, tokens.view_mut()).unwrap_err().code(), -200);
}

#[test]
fn empty_views_are_fine() {
    let empty = |shape: (usize, usize, usize)| {
        let p = Array2::<f32>::zeros((shape.0, shape.2));
        let (x, mut out) = (Array3::<f32>::zeros(shape), Array3::<f32>::zeros(shape));
        layer_norm_modulate(x.view(), p.view(), p.view(), 1e-6, out.view_mut()).unwrap();
        silu(x.view().into_dyn(), out.view_mut().into_dyn()).unwrap();
    };
    empty((0, 3, 4));
    empty((2, 0, 4));
    empty((2, 3, 0));
    timestep_embedding(Array1::<f32>::zeros(2).view(), 1e4, Array2::<f32>::zeros((2, 0)).view_mut()).unwrap();
    // Dimensions of nothing cost nothing, neither memory nor time.
    const HUGE: usize = 1 << 46;
    let nothing = ArrayD::<f32>::zeros(IxDyn(&[HUGE, 0, 4]));
    silu(nothing.view(), ArrayD::<f32>::zeros(IxDyn(&[HUGE, 0, 4])).view_mut()).unwrap();
    empty((0, HUGE, 4));
    empty((0, 4, HUGE));
    timestep_embedding(Array1::<f32>::zeros(0).view(), 1e4, Array2::<f32>::zeros((0, HUGE)).view_mut())
        .unwrap();
    patchify(Array4::<f32>::zeros((HUGE, 1, 0, 0)).view(), 2, Array3::<f32>::zeros((HUGE, 0, 4)).view_mut())
        .unwrap();
    patchify(
        Array4::<f32>::zeros((1, HUGE, 0, 4)).view(),
        2,
        Array3::<f32>::zeros((1, 0, 4 * HUGE)).view_mut(),
    )
    .unwrap();
    unpatchify(
        Array3::<f32>::zeros((HUGE, 0, 4)).view(),
        2,
        Array4::<f32>::zeros((HUGE, 1, 0, 0)).view_mut(),
    )
    .unwrap();
    patchify(Array4::<f32>::zeros((0, 2, 4, 4)).view(), 2, Array3::<f32>::zeros((0, 4, 8)).view_mut())
        .unwrap();
}
