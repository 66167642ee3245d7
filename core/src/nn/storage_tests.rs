//! 16-bit numbers: the bits of the same call in f32 on widened inputs, rounded once; whatever the strides.

use half::slice::HalfFloatSliceExt;
use ndarray::{Array1, Array2, Array3, Array4, ArrayD, ArrayView1, ArrayView3, Axis, Dimension, IxDyn, s};

use super::tests::{bits, everywhere, noise, noise2, noise3};
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::tensor::{Element, Floats, FloatsMut, bf16, f16};
use crate::threads;

fn rounded<T: Element, D: Dimension>(x: &ndarray::Array<f32, D>) -> ndarray::Array<T, D> {
    x.mapv(T::from_f32)
}

fn widened<T: Element, D: Dimension>(x: &ndarray::Array<T, D>) -> ndarray::Array<f32, D> {
    x.mapv(T::to_f32)
}

/// A kernel of three tensors `[B, T, d]` and two `[B, d]`, whatever it does with them.
type Call = for<'a> fn([Floats<'a, ndarray::Ix3>; 2], [Floats<'a, ndarray::Ix2>; 2], FloatsMut<ndarray::Ix3>);

fn first(p: &Floats<ndarray::Ix2>) -> Option<Floats<'static, ndarray::Ix1>> {
    // A parameter of its own, so that its type is another than that of the input in half of the calls.
    let row: Vec<f32> = match p {
        Floats::F32(p) => p.row(0).to_vec(),
        Floats::F16(p) => p.row(0).iter().map(|x| x.to_f32()).collect(),
        Floats::Bf16(p) => p.row(0).iter().map(|x| x.to_f32()).collect(),
    };
    let row: &'static [f32] = Vec::leak(row);
    Some(row.into())
}

const CALLS: [(&str, Call); 14] = [
    ("layer_norm", |[x, _], [w, b], o| layer_norm(x, first(&w), first(&b), 1e-5, o).unwrap()),
    ("rms_norm", |[x, _], [w, _], o| rms_norm(x, first(&w), 1e-5, o).unwrap()),
    ("layer_norm_modulate", |[x, _], [a, b], o| layer_norm_modulate(x, a, b, 1e-5, o).unwrap()),
    ("modulate", |[x, _], [a, b], o| modulate(x, a, b, o).unwrap()),
    ("gate_residual", |[x, y], [g, _], o| gate_residual(x, y, g, o).unwrap()),
    ("silu", |[x, _], _, o| silu(x, o).unwrap()),
    ("gelu", |[x, _], _, o| gelu(x, Gelu::Tanh, o).unwrap()),
    ("gelu_erf", |[x, _], _, o| gelu(x, Gelu::Erf, o).unwrap()),
    ("swiglu", |[x, y], _, o| swiglu(x, y, o).unwrap()),
    ("geglu", |[x, y], _, o| geglu(x, y, Gelu::Tanh, o).unwrap()),
    ("softmax", |[x, _], _, o| softmax(x, o).unwrap()),
    ("log_softmax", |[x, _], _, o| log_softmax(x, o).unwrap()),
    ("group_norm", |[x, _], _, o| {
        let (w, b) = ([0.5, 2.0, 1.0, -1.0, 0.25, 3.0], [1.0, 0.0, -1.0, 2.0, 0.5, 0.25]);
        group_norm(x, 3, Some((&w[..]).into()), Some((&b[..]).into()), 1e-5, true, o).unwrap();
    }),
    ("group_norm_plain", |[x, _], _, o| group_norm(x, 2, None, None, 1e-5, false, o).unwrap()),
];

/// Every call with inputs of type `T` and an output of type `U`.
fn mix<T: Element, U: Element>()
where
    for<'a> Floats<'a, ndarray::Ix3>: From<ArrayView3<'a, T>>,
    for<'a> Floats<'a, ndarray::Ix2>: From<ndarray::ArrayView2<'a, T>>,
    for<'a> FloatsMut<'a, ndarray::Ix3>: From<ndarray::ArrayViewMut3<'a, U>>,
{
    // Of the last more rows than are looked at before they are filled, and some over.
    for (b, t, d) in [(2, 6, 37), (1, 6, 1), (3, 6, 2500), (2, 6, 64), (4, 6, 96)] {
        let tensors = [1, 2].map(|seed| rounded::<T, _>(&(noise3([b, t, d], seed) * 3.0)));
        let parameters = [3, 4].map(|seed| rounded::<T, _>(&noise2([b, d], seed)));
        let (wide, wide_parameters) = (tensors.each_ref().map(widened), parameters.each_ref().map(widened));
        for (name, call) in CALLS {
            let mut want = Array3::<f32>::zeros((b, t, d));
            call(
                wide.each_ref().map(|x| x.view().into()),
                wide_parameters.each_ref().map(|x| x.view().into()),
                want.view_mut().into(),
            );
            let want: Array3<f32> = widened(&rounded::<U, _>(&want));
            let best = level();
            for l in available_levels() {
                set_level(l).unwrap();
                let mut out = Array3::from_elem((b, t, d), U::from_f32(7.0));
                call(
                    tensors.each_ref().map(|x| x.view().into()),
                    parameters.each_ref().map(|x| x.view().into()),
                    out.view_mut().into(),
                );
                assert_eq!(bits(&widened(&out)), bits(&want), "{name} {b} {t} {d} {l:?}");
            }
            set_level(best).unwrap();
            // Elements apart, tokens outermost, and an output with gaps.
            let apart = tensors.each_ref().map(|x| {
                let mut far =
                    Array3::from_elem((t, b, 2 * d), T::from_f32(f32::NAN)).permuted_axes([1, 0, 2]);
                far.slice_mut(s![.., .., ..;2]).assign(x);
                far
            });
            let mut far = Array3::from_elem((b, d, 3 * t), U::from_f32(5.0)).permuted_axes([0, 2, 1]);
            call(
                apart.each_ref().map(|x| x.slice(s![.., .., ..;2]).into()),
                parameters.each_ref().map(|x| x.view().into()),
                far.slice_mut(s![.., ..;3, ..]).into(),
            );
            let got = widened(&far.slice(s![.., ..;3, ..]).to_owned());
            assert!(got == want, "{name} {b} {t} {d}: strides");
            assert!(far.slice(s![.., 1..;3, ..]).iter().all(|x| x.to_f32() == 5.0), "{name}: gaps");
        }
    }
}

#[test]
fn every_mix_of_types_has_the_bits_of_f32_rounded_once() {
    mix::<bf16, bf16>();
    mix::<f16, f16>();
    mix::<bf16, f32>();
    mix::<f32, f16>();
    mix::<f32, bf16>();
    mix::<f32, f32>();
}

#[test]
fn in_place_has_the_bits_of_apart() {
    let x: Array3<bf16> = rounded(&noise3([2, 5, 1100], 1));
    let y: Array3<f16> = rounded(&noise3([2, 5, 1100], 2));
    let (p, q): (Array2<bf16>, Array2<f32>) = (rounded(&noise2([2, 1100], 3)), noise2([2, 1100], 4));
    let check = |apart: &dyn Fn(&mut Array3<bf16>), place: &dyn Fn(&mut Array3<bf16>)| {
        let mut want = Array3::from_elem(x.dim(), bf16::ZERO);
        apart(&mut want);
        let mut got = x.clone();
        place(&mut got);
        assert_eq!(got, want);
        // Elements apart.
        let mut wide = Array3::from_elem((2, 5, 2200), bf16::ONE);
        wide.slice_mut(s![.., .., ..;2]).assign(&x);
        let mut inner = wide.slice(s![.., .., ..;2]).to_owned();
        place(&mut inner);
        assert_eq!(inner, want);
    };
    check(&|o| silu(x.view(), o.view_mut()).unwrap(), &|x| silu_inplace(x.view_mut()).unwrap());
    check(&|o| gelu(x.view(), Gelu::Erf, o.view_mut()).unwrap(), &|x| {
        gelu_inplace(x.view_mut(), Gelu::Erf).unwrap();
    });
    check(&|o| modulate(x.view(), p.view(), q.view(), o.view_mut()).unwrap(), &|x| {
        modulate_inplace(x.view_mut(), p.view(), q.view()).unwrap();
    });
    check(&|o| gate_residual(x.view(), y.view(), p.view(), o.view_mut()).unwrap(), &|x| {
        gate_residual_inplace(x.view_mut(), y.view(), p.view()).unwrap();
    });
    check(&|o| gate_residual(y.view(), x.view(), q.view(), o.view_mut()).unwrap(), &|x| {
        gate_residual_onto_y(Some(y.view().into()), x.view_mut(), q.view()).unwrap();
    });
    check(&|o| gate_residual(x.view(), x.view(), q.view(), o.view_mut()).unwrap(), &|x| {
        gate_residual_onto_y(None, x.view_mut(), q.view()).unwrap();
    });
}

#[test]
fn a_gap_in_a_strided_tensor_stays() {
    let x: Array2<f16> = rounded(&noise2([4, 33], 1));
    let mut wide = Array2::from_elem((4, 66), f16::from_f32(7.0));
    wide.slice_mut(s![.., ..;2]).assign(&x);
    silu_inplace(wide.slice_mut(s![.., ..;2])).unwrap();
    let mut want = x.clone();
    silu(x.view(), want.view_mut()).unwrap();
    assert_eq!(wide.slice(s![.., ..;2]), want);
    assert!(wide.slice(s![.., 1..;2]).iter().all(|x| x.to_f32() == 7.0));
}

/// `x` of type `T`, residual and sum of type `U`, the norm of either.
fn fused_residual<T: Element, U: Element + PartialEq + std::fmt::Debug>()
where
    for<'a> Floats<'a, ndarray::Ix2>: From<ndarray::ArrayView2<'a, T>> + From<ndarray::ArrayView2<'a, U>>,
    for<'a> FloatsMut<'a, ndarray::Ix2>:
        From<ndarray::ArrayViewMut2<'a, T>> + From<ndarray::ArrayViewMut2<'a, U>>,
{
    // Parts of a vector, of a block, and of two blocks whose sums are made side by side.
    for d in [1, 40, 4100, 9000] {
        let (x, r): (Array2<T>, Array2<U>) = (rounded(&noise2([7, d], 1)), rounded(&noise2([7, d], 2)));
        let w: Array1<f16> = rounded(&noise(&[d], 3).into_dimensionality().unwrap());
        let sum: Array2<U> =
            ndarray::Zip::from(&x).and(&r).map_collect(|x, r| U::from_f32(x.to_f32() + r.to_f32()));
        let mut want = Array2::from_elem((7, d), T::from_f32(0.0));
        rms_norm(sum.view(), Some(w.view().into()), 1e-6, want.view_mut()).unwrap();
        let got = everywhere(|| {
            let (mut total, mut out) = (sum.clone(), want.clone());
            total.fill(U::from_f32(1.0));
            out.fill(T::from_f32(1.0));
            let w = Some(w.view().into());
            rms_norm_residual(x.view(), r.view(), w, 1e-6, total.view_mut(), out.view_mut()).unwrap();
            assert_eq!(total, sum);
            widened(&out)
        });
        assert_eq!(got, widened(&want));
        let got = everywhere(|| {
            let (mut place, mut out) = (r.clone(), want.clone());
            out.fill(T::from_f32(1.0));
            let w = Some(w.view().into());
            rms_norm_residual_inplace(x.view(), place.view_mut(), w, 1e-6, out.view_mut()).unwrap();
            assert_eq!(place, sum);
            widened(&out)
        });
        assert_eq!(got, widened(&want));
    }
}

#[test]
fn the_fused_residual_has_the_bits_of_its_parts() {
    fused_residual::<f32, f32>();
    fused_residual::<bf16, bf16>();
    fused_residual::<f16, f16>();
    fused_residual::<bf16, f32>();
    fused_residual::<f32, f16>();
}

#[test]
fn heads_in_any_order_are_normed_alike() {
    // [B, L, H, D] memory seen as [B, H, L, D], and five axes that no common step joins.
    let x = noise(&[2, 5, 3, 24], 1).into_dimensionality::<ndarray::Ix4>().unwrap();
    let weight = noise(&[24], 2).into_dimensionality::<ndarray::Ix1>().unwrap();
    let mut want = Array4::<f32>::zeros((2, 3, 5, 24));
    let heads = x.view().permuted_axes([0, 2, 1, 3]);
    let w = || Some(weight.view().into());
    rms_norm(heads.as_standard_layout().view(), w(), 1e-6, want.view_mut()).unwrap();
    let mut out = Array4::<f32>::zeros((2, 5, 3, 24)).permuted_axes([0, 2, 1, 3]);
    rms_norm(heads, w(), 1e-6, out.view_mut()).unwrap();
    assert_eq!(out, want);

    let x = noise(&[4, 3, 4, 2, 6, 5], 3);
    let mut want = ArrayD::<f32>::zeros(IxDyn(&[2, 3, 2, 2, 3, 5]));
    let part = x.slice(s![..;2, .., ..;2, .., ..;2, ..]);
    let mut out = ArrayD::<f32>::zeros(IxDyn(&[4, 3, 4, 2, 6, 5]));
    softmax(part.as_standard_layout().into_dyn().view(), want.view_mut()).unwrap();
    softmax(part.into_dyn(), out.slice_mut(s![..;2, .., ..;2, .., ..;2, ..]).into_dyn()).unwrap();
    assert_eq!(out.slice(s![..;2, .., ..;2, .., ..;2, ..]).into_dyn(), want);
    let mut whole = ArrayD::<f32>::zeros(x.shape());
    softmax(x.view(), whole.view_mut()).unwrap();
    assert_eq!(whole.slice(s![..;2, .., ..;2, .., ..;2, ..]).into_dyn(), want);
}

#[test]
fn channels_last_images_are_grouped_alike() {
    let x = noise(&[2, 6, 5, 7], 1).into_dimensionality::<ndarray::Ix4>().unwrap();
    let mut want = Array4::<f32>::zeros(x.dim());
    group_norm(x.view(), 3, None, None, 1e-6, true, want.view_mut()).unwrap();
    let mut last = Array4::<f32>::zeros((2, 5, 7, 6)).permuted_axes([0, 3, 1, 2]);
    let mut out = last.clone();
    last.assign(&x);
    group_norm(last.view(), 3, None, None, 1e-6, true, out.view_mut()).unwrap();
    assert_eq!(out, want);
}

#[test]
fn copies_and_embeddings_take_every_type() {
    let image: Array4<bf16> = rounded(&noise(&[2, 3, 4, 6], 1).into_dimensionality().unwrap());
    let mut wide = Array3::<f32>::zeros((2, 6, 12));
    patchify(widened(&image).view(), 2, wide.view_mut()).unwrap();
    let mut tokens = Array3::from_elem((2, 6, 12), bf16::ZERO);
    patchify(image.view(), 2, tokens.view_mut()).unwrap();
    assert_eq!(widened(&tokens), wide);
    let mut half = Array4::from_elem((2, 3, 4, 6), f16::ZERO);
    unpatchify(tokens.view(), 2, half.view_mut()).unwrap();
    let mut back = Array4::<f32>::zeros((2, 3, 4, 6));
    unpatchify(wide.view(), 2, back.view_mut()).unwrap();
    assert_eq!(half, rounded::<f16, _>(&back));

    let t: Array1<f16> = rounded(&ndarray::arr1(&[0.0, 0.3, 999.0]));
    let (mut wide, mut narrow) = (Array2::<f32>::zeros((3, 8)), Array2::from_elem((3, 8), bf16::ZERO));
    timestep_embedding(widened(&t).view(), 1e4, wide.view_mut()).unwrap();
    timestep_embedding(t.view(), 1e4, narrow.view_mut()).unwrap();
    assert_eq!(narrow, rounded::<bf16, _>(&wide));

    let table: Array2<bf16> = rounded(&noise2([9, 1500], 2));
    let indices: Vec<i64> = (0..40).map(|i| (i * 7) % 9).collect();
    let mut out = Array2::from_elem((40, 1500), bf16::ZERO);
    embedding(table.view(), &indices, out.view_mut()).unwrap();
    let mut half = Array2::from_elem((40, 1500), f16::ZERO);
    embedding(table.view(), &indices, half.view_mut()).unwrap();
    let columns = table.t().as_standard_layout().into_owned();
    let mut apart = Array2::from_elem((1500, 40), 0.0f32);
    embedding(columns.t(), &indices, apart.view_mut().reversed_axes()).unwrap();
    for (n, &i) in indices.iter().enumerate() {
        let want = table.row(i as usize);
        assert_eq!(out.row(n), want);
        assert_eq!(half.row(n), rounded::<f16, _>(&widened(&want.to_owned())));
        assert_eq!(apart.index_axis(Axis(1), n), widened(&want.to_owned()));
    }
}

#[test]
fn rounding_is_that_of_the_crate_at_every_level() {
    let x: Vec<f32> = (0..40_000u32)
        .map(|i| f32::from_bits(i.wrapping_mul(0x9e37_79b1)))
        .filter(|x| !x.is_nan())
        .chain([f32::INFINITY, 0.0, -0.0, 65_519.9, 65_520.0, 1e-45])
        .collect();
    let one = [1.0f32];
    let ones = ndarray::ArrayView2::from_shape((1, 1), &one).unwrap();
    let zero = ndarray::arr2(&[[-0.0f32]]);
    let x = Array3::from_shape_vec((1, x.len(), 1), x).unwrap();
    // x * 1 + (-0), that is x.
    let best = level();
    for l in available_levels() {
        set_level(l).unwrap();
        let (mut b, mut h) = (x.mapv(bf16::from_f32), x.mapv(f16::from_f32));
        b.fill(bf16::ONE);
        h.fill(f16::ONE);
        let minus_zero = zero.view();
        let _ = ones;
        modulate(x.view(), minus_zero, ndarray::arr2(&[[0.0f32]]).view(), b.view_mut()).unwrap();
        modulate(x.view(), minus_zero, ndarray::arr2(&[[0.0f32]]).view(), h.view_mut()).unwrap();
        assert_eq!(
            b.as_slice().unwrap().reinterpret_cast(),
            x.mapv(|x| bf16::from_f32(x).to_bits()).as_slice().unwrap()
        );
        assert_eq!(
            h.as_slice().unwrap().reinterpret_cast(),
            x.mapv(|x| f16::from_f32(x).to_bits()).as_slice().unwrap()
        );
    }
    set_level(best).unwrap();
}

/// Outputs that go past the caches, from the middle of a line on, against the same rows a few at a time. The beginnings of
/// rows of an odd width walk through the places of a line.
fn past_the_caches<T: Element>(width: usize, ops: std::ops::Range<usize>)
where
    for<'a> Floats<'a, ndarray::Ix1>: From<ArrayView1<'a, T>>,
    for<'a> Floats<'a, ndarray::Ix3>: From<ArrayView3<'a, T>>,
    for<'a> FloatsMut<'a, ndarray::Ix3>: From<ndarray::ArrayViewMut3<'a, T>>,
{
    let rows = (32 << 20) / size_of::<T>() / width + 1;
    let period: Vec<T> = noise(&[10_007], 1).iter().map(|&x| T::from_f32(x)).collect();
    let mut x: Vec<T> = Vec::with_capacity(rows * width);
    x.extend(period.iter().cycle().take(rows * width));
    let x = ArrayView3::from_shape((1, rows, width), &x).unwrap();
    let (scale, shift) = (noise2([1, width], 2), noise2([1, width], 3));
    let (weight, own) = (scale.row(0), scale.row(0).mapv(T::from_f32));
    let mut memory = vec![T::from_f32(7.0); rows * width + 2];
    let mut few = Array3::from_elem((1, 64, width), T::from_f32(0.0));
    let best = level();
    for l in available_levels() {
        set_level(l).unwrap();
        for op in ops.clone() {
            let mut sums = vec![T::from_f32(7.0); if (2..4).contains(&op) { x.len() + 3 } else { 0 }];
            let mut call = |x: ArrayView3<T>, out: ndarray::ArrayViewMut3<T>| match op {
                0 => rms_norm(x, Some(own.view().into()), 1e-6, out).unwrap(),
                1 => modulate(x, shift.view(), scale.view(), out).unwrap(),
                4 => rms_norm(x, Some(weight.into()), 1e-6, out).unwrap(),
                _ => {
                    let inner = &mut sums[2..2 + x.len()];
                    let mut sum = ndarray::ArrayViewMut3::from_shape(x.dim(), inner).unwrap();
                    sum.fill(T::from_f32(1.0));
                    let (w, residual) = (Some(weight.into()), sum.to_owned());
                    match op {
                        2 => rms_norm_residual_inplace(x, sum.view_mut(), w, 1e-6, out).unwrap(),
                        _ => rms_norm_residual(x, residual.view(), w, 1e-6, sum.view_mut(), out).unwrap(),
                    }
                    let one = |x: &T| T::from_f32(x.to_f32() + 1.0).to_f32().to_bits();
                    assert!(x.iter().map(one).eq(sum.iter().map(|y| y.to_f32().to_bits())), "{l:?}");
                    assert!([sums[1], sums[2 + x.len()]].iter().all(|x| x.to_f32() == 7.0));
                    sums.fill(T::from_f32(7.0));
                }
            };
            let inner = &mut memory[1..=rows * width];
            let mut out = ndarray::ArrayViewMut3::from_shape((1, rows, width), inner).unwrap();
            call(x, out.view_mut());
            for (x, out) in x.axis_chunks_iter(Axis(1), 64).zip(out.axis_chunks_iter(Axis(1), 64)) {
                let mut few = few.slice_mut(s![.., ..x.len_of(Axis(1)), ..]);
                call(x, few.view_mut());
                assert!(
                    few.iter().zip(&out).all(|(a, b)| a.to_f32().to_bits() == b.to_f32().to_bits()),
                    "{l:?}"
                );
            }
            assert!([memory[0], memory[rows * width + 1]].iter().all(|x| x.to_f32() == 7.0));
        }
    }
    set_level(best).unwrap();
}

#[test]
fn outputs_past_the_caches_have_the_same_bits() {
    // Of 2 KiB and more; then of two blocks whose sums are made side by side.
    past_the_caches::<f32>(1031, 0..4);
    past_the_caches::<bf16>(1031, 0..5);
    past_the_caches::<f32>(9001, 2..4);
}

/// Groups that go past the caches, from the middle of a line on, in runs, against an image at a time.
fn groups_past_the_caches<T: Element>()
where
    for<'a> Floats<'a, ndarray::Ix3>: From<ArrayView3<'a, T>>,
    for<'a> FloatsMut<'a, ndarray::Ix3>: From<ndarray::ArrayViewMut3<'a, T>>,
{
    const CHANNELS: usize = 22;
    let space = (32 << 20) / size_of::<T>() / (2 * CHANNELS) + 3;
    let shape = (2, CHANNELS, space);
    let len = 2 * CHANNELS * space;
    let period: Vec<T> = noise(&[10_007], 1).iter().map(|&x| T::from_f32(x)).collect();
    let x: Vec<T> = period.iter().cycle().take(len).copied().collect();
    let x = ArrayView3::from_shape(shape, &x).unwrap();
    let (weight, bias) = (noise(&[CHANNELS], 2), noise(&[CHANNELS], 3));
    let (weight, bias) = (weight.as_slice().unwrap(), bias.as_slice().unwrap());
    let mut memory = vec![T::from_f32(7.0); len + 2];
    let mut one = Array3::from_elem((1, CHANNELS, space), T::from_f32(0.0));
    let best = level();
    for l in available_levels() {
        set_level(l).unwrap();
        for silu in [false, true] {
            let call = |x: ArrayView3<T>, out: ndarray::ArrayViewMut3<T>| {
                group_norm(x, 11, Some(weight.into()), Some(bias.into()), 1e-5, silu, out).unwrap();
            };
            let mut out = ndarray::ArrayViewMut3::from_shape(shape, &mut memory[1..=len]).unwrap();
            threads::set_num_threads(1).unwrap();
            call(x, out.view_mut());
            for (x, out) in x.axis_chunks_iter(Axis(0), 1).zip(out.axis_chunks_iter(Axis(0), 1)) {
                call(x, one.view_mut());
                assert!(
                    one.iter().zip(&out).all(|(a, b)| a.to_f32().to_bits() == b.to_f32().to_bits()),
                    "{l:?}"
                );
            }
            assert!([memory[0], memory[len + 1]].iter().all(|x| x.to_f32() == 7.0));
        }
    }
    set_level(best).unwrap();
}

#[test]
fn groups_past_the_caches_have_the_same_bits() {
    groups_past_the_caches::<f32>();
    groups_past_the_caches::<bf16>();
}

/// Runs of four, four and three groups whose elements lie side by side or apart.
#[test]
fn runs_of_groups_have_the_bits_of_images_alone() {
    threads::set_num_threads(1).unwrap();
    let all = Array3::from_shape_fn((3, 33, 14), |(b, c, i)| ((b * 31 + c * 17 + i * 7) % 23) as f32 - 9.0);
    let weight = noise(&[33], 2);
    let weight = weight.as_slice().unwrap();
    let normed = |x: ArrayView3<f32>, out: ndarray::ArrayViewMut3<f32>| {
        group_norm(x, 11, Some(weight.into()), None, 1e-5, true, out).unwrap();
    };
    for (from, to) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        let x = all.slice(s![.., .., ..;from]);
        let x = x.slice(s![.., .., ..7]);
        let mut out = Array3::<f32>::from_elem((3, 33, 14), 7.0);
        let mut want = Array3::<f32>::zeros((3, 33, 7));
        normed(x, out.slice_mut(s![.., .., ..;to]).slice_mut(s![.., .., ..7]));
        for (x, want) in x.axis_chunks_iter(Axis(0), 1).zip(want.axis_chunks_iter_mut(Axis(0), 1)) {
            normed(x, want);
        }
        assert_eq!(out.slice(s![.., .., ..;to]).slice(s![.., .., ..7]), want, "{from} {to}");
        assert_eq!(out.iter().filter(|&&y| y == 7.0).count(), 3 * 33 * 7, "{from} {to}");
    }
}

/// Patches by squares of vectors, past the caches and not, where rows of patches end within a square.
fn patches<T: Element>()
where
    for<'a> Floats<'a, ndarray::Ix4>: From<ndarray::ArrayView4<'a, T>>,
    for<'a> FloatsMut<'a, ndarray::Ix3>: From<ndarray::ArrayViewMut3<'a, T>>,
{
    const COLUMNS: usize = 5 * 16 + 3;
    let best = level();
    for channels in [1, 2, 3, 4, 8, 9, 16] {
        for bytes in [1 << 16, 32 << 20] {
            let rows = bytes / size_of::<T>() / (4 * channels * COLUMNS) + 1;
            let mut next = 0u32;
            let whole = Array4::from_shape_simple_fn((1, channels, 2 * rows + 1, 2 * COLUMNS + 3), || {
                next = next.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                match next >> 20 {
                    0 => T::from_f32(f32::NAN),
                    1 => T::from_f32(-0.0),
                    2 => T::from_f32(1e-40),
                    n => T::from_f32(n as f32),
                }
            });
            // A part of each channel, or images whose lines follow each other.
            let part = whole.slice(s![.., .., 1.., 2..2 * COLUMNS + 2]);
            let x = part.to_owned();
            for (l, x) in available_levels().into_iter().flat_map(|l| [(l, part), (l, x.view())]) {
                set_level(l).unwrap();
                let mut out = Array3::from_elem((1, rows * COLUMNS, 4 * channels), T::from_f32(-1.0));
                patchify(x, 2, out.view_mut()).unwrap();
                for (t, token) in out.outer_iter().next().unwrap().outer_iter().enumerate() {
                    let (i, j) = (t / COLUMNS, t % COLUMNS);
                    let patch = x.slice(s![0, .., 2 * i..2 * i + 2, 2 * j..2 * j + 2]);
                    assert!(
                        token.iter().zip(patch).all(|(a, b)| a.to_f32().to_bits() == b.to_f32().to_bits()),
                        "{channels} {t} {l:?}"
                    );
                }
            }
        }
    }
    set_level(best).unwrap();
}

#[test]
fn patches_of_two_by_two_are_where_they_belong() {
    patches::<f32>();
    patches::<bf16>();
}

/// Rows that many tasks look up, past the caches, in any order and again and again.
fn looked_up<T: Element>()
where
    for<'a> Floats<'a, ndarray::Ix2>: From<ndarray::ArrayView2<'a, T>>,
    for<'a> FloatsMut<'a, ndarray::Ix2>: From<ndarray::ArrayViewMut2<'a, T>>,
{
    const WIDTH: usize = 1031;
    let table = Array2::from_shape_fn((500, WIDTH), |(r, c)| T::from_f32((r * WIDTH + c) as f32));
    let rows = (32 << 20) / size_of::<T>() / WIDTH + 1;
    let indices: Vec<i64> = (0..rows).map(|n| (n * n * 7 % 500) as i64).collect();
    let best = level();
    for l in available_levels() {
        set_level(l).unwrap();
        let mut out = Array2::from_elem((rows, WIDTH), T::from_f32(-1.0));
        embedding(table.view(), &indices, out.view_mut()).unwrap();
        for (out, &index) in out.outer_iter().zip(&indices) {
            let row = table.row(index as usize);
            assert!(out.iter().zip(row).all(|(a, b)| a.to_f32() == b.to_f32()), "{index} {l:?}");
        }
    }
    set_level(best).unwrap();
}

#[test]
fn rows_past_the_caches_are_those_of_the_table() {
    looked_up::<f32>();
    looked_up::<bf16>();
}
