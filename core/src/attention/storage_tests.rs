//! Sixteen-bit storage and packed sequences give the bits of the plain kernel.

use ndarray::{Array3, Array4, s};

use super::tests::{bits, run, serial, tensor};
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::error::Result;
use crate::tensor::{bf16, f16};
use crate::threads;

fn options() -> AttentionOptions<'static> {
    AttentionOptions {
        causal: true,
        window_left: Some(200),
        sinks: Some(&[0.5, -3.0, f32::NEG_INFINITY, 4.0]),
        ..Default::default()
    }
}

/// `q`, `k`, `v` of many shapes, with some that need the ends of rows.
fn inputs(lq: usize, lk: usize, dim: usize, value_dim: usize) -> [Array4<f32>; 3] {
    [tensor(1, [2, 4, lq, dim]), tensor(2, [2, 2, lk, dim]), tensor(3, [2, 2, lk, value_dim])]
}

macro_rules! check_storage {
    ($t:ident, $widened:expr) => {{
        for (lq, lk, dim, value_dim) in [(1, 1, 1, 1), (70, 300, 40, 17), (3, 600, 65, 64), (65, 129, 9, 33)]
        {
            let x = inputs(lq, lk, dim, value_dim);
            let [q, k, v] = x.each_ref().map(|x| x.mapv($t::from_f32));
            let [wide_q, wide_k, wide_v] = [&q, &k, &v].map(|x| x.mapv(|x| x.to_f32()));
            let (want, want_lse) = run(wide_q.view(), wide_k.view(), wide_v.view(), &options());
            let mut out = Array4::<f32>::zeros(want.dim());
            let mut lse = Array3::<f32>::zeros(want_lse.dim());
            attention(q.view(), k.view(), v.view(), &options(), out.view_mut(), Some(lse.view_mut()))
                .unwrap();
            if $widened {
                assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)));
            }
            let own = out.clone();
            // Output in the same type: rounded once.
            let mut narrow = Array4::from_elem(want.dim(), $t::ONE);
            attention(q.view(), k.view(), v.view(), &options(), narrow.view_mut(), None).unwrap();
            assert!(narrow.iter().zip(&own).all(|(a, &b)| a.to_bits() == $t::from_f32(b).to_bits()));
            // Mixed: f32 queries on 16-bit keys and the other way round.
            attention(wide_q.view(), k.view(), v.view(), &options(), out.view_mut(), None).unwrap();
            assert_eq!(bits(&out), bits(&want));
            attention(q.view(), wide_k.view(), wide_v.view(), &options(), out.view_mut(), None).unwrap();
            assert_eq!(bits(&out), bits(&want));
            // The head dimension outermost: no row lies side by side.
            let [fq, fk, fv] =
                [&q, &k, &v].map(|x| x.view().permuted_axes([3, 0, 1, 2]).as_standard_layout().into_owned());
            let back = [1, 2, 3, 0];
            let mut far = Array4::from_elem((value_dim, 2, 4, lq), $t::ONE);
            attention(
                fq.view().permuted_axes(back),
                fk.view().permuted_axes(back),
                fv.view().permuted_axes(back),
                &options(),
                far.view_mut().permuted_axes(back),
                None,
            )
            .unwrap();
            assert_eq!(far.permuted_axes(back), narrow);
        }
    }};
}

#[test]
fn sixteen_bits_are_widened_exactly_and_rounded_once() {
    let _guard = serial();
    let first = level();
    for l in available_levels() {
        set_level(l).unwrap();
        check_storage!(f16, true);
        // Queries, keys and values that are all of bfloat16 have a definition of their own.
        check_storage!(bf16, false);
    }
    set_level(first).unwrap();
}

#[test]
fn special_sixteen_bit_numbers() {
    // One key: the result is its value, whatever it is.
    let q = Array4::from_elem((1, 1, 1, 1), f16::ONE);
    for x in [f16::MIN_POSITIVE_SUBNORMAL, f16::MAX, f16::INFINITY, f16::NAN, f16::from_bits(0x03ff)] {
        let v = Array4::from_elem((1, 1, 1, 19), x);
        let mut out = Array4::from_elem((1, 1, 1, 19), f16::ONE);
        attention(q.view(), q.view(), v.view(), &AttentionOptions::default(), out.view_mut(), None).unwrap();
        assert!(out.iter().all(|y| y.to_bits() == x.to_bits() || x.is_nan() && y.is_nan()), "{x}");
    }
    // NaN behind a mask.
    let k = Array4::from_elem((1, 1, 2, 1), bf16::ONE);
    let v = Array4::from_shape_vec((1, 1, 2, 1), vec![bf16::ONE, bf16::NAN]).unwrap();
    let (one, mask) = (
        Array4::from_elem((1, 1, 1, 1), 1f32),
        ndarray::arr1(&[1u8, 0]).into_shape_with_order((1, 1, 1, 2)).unwrap(),
    );
    let mut out = Array4::from_elem((1, 1, 1, 1), 5f32);
    let o = AttentionOptions { mask: Some(mask.view()), ..Default::default() };
    attention(one.view(), k.view(), v.view(), &o, out.view_mut(), None).unwrap();
    assert_eq!(out[[0, 0, 0, 0]], 1.0);
    let f = v.mapv(|x| f16::from_f32(x.to_f32()));
    let e = attention(one.view(), k.view(), f.view(), &o, out.view_mut(), None).unwrap_err().to_string();
    assert!(e.starts_with("v has dtype f16, expected bf16"), "{e}");
}

/// `[1, H, T, D]` of a sequence as `[T, H, D]`.
fn packed(x: &Array4<f32>) -> Array3<f32> {
    x.slice(s![0, .., .., ..]).permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
}

#[test]
fn packed_sequences_are_their_own_calls() {
    let _guard = serial();
    let (q_offsets, kv_offsets) = ([0, 3, 3, 93, 94, 100], [0, 5, 9, 309, 309, 320]);
    let [q, k, v] = [tensor(1, [1, 4, 100, 20]), tensor(2, [1, 2, 320, 20]), tensor(3, [1, 2, 320, 12])];
    let (pq, pk, pv) = (packed(&q), packed(&k), packed(&v));
    let o = AttentionOptions { alibi_slopes: Some(&[0.1, 0.2, 0.3, 0.0]), soft_cap: Some(9.0), ..options() };
    for t in [1, 3] {
        threads::set_num_threads(t).unwrap();
        let mut out = Array3::from_elem((100, 4, 12), f32::NAN);
        let mut lse = ndarray::Array2::from_elem((4, 100), f32::NAN);
        attention_varlen(
            pq.view(),
            pk.view(),
            pv.view(),
            &q_offsets,
            &kv_offsets,
            &o,
            out.view_mut(),
            Some(lse.view_mut()),
        )
        .unwrap();
        for n in 0..5 {
            let (a, b) = (q_offsets[n]..q_offsets[n + 1], kv_offsets[n]..kv_offsets[n + 1]);
            let (want, want_lse) = run(
                q.slice(s![.., .., a.clone(), ..]),
                k.slice(s![.., .., b.clone(), ..]),
                v.slice(s![.., .., b, ..]),
                &o,
            );
            let got = out.slice(s![a.clone(), .., ..]);
            assert_eq!(bits(&packed(&want)), bits(got), "sequence {n}");
            assert_eq!(bits(want_lse.slice(s![0, .., ..])), bits(lse.slice(s![.., a])), "sequence {n}");
        }
    }
    let half = |x: &Array3<f32>| x.mapv(f16::from_f32);
    let mut out = half(&Array3::zeros((100, 4, 12)));
    let (hq, hk, hv) = (half(&pq), half(&pk), half(&pv));
    let call = |q_offsets: &[usize],
                kv_offsets: &[usize],
                o: &AttentionOptions,
                out: &mut Array3<f16>|
     -> Result<()> {
        attention_varlen(hq.view(), hk.view(), hv.view(), q_offsets, kv_offsets, o, out.view_mut(), None)
    };
    call(&q_offsets, &kv_offsets, &o, &mut out).unwrap();
    assert!(out.iter().any(|x| x.to_f32() != 0.0) && out.iter().all(|x| x.is_finite()));
    for (a, b, message) in [
        (&[0usize, 99][..], &[0usize, 320][..], "q_offsets is [0, 99], expected numbers from 0 to 100"),
        (&[], &[0, 320], "q_offsets is []"),
        (&[0, 60, 40, 100], &[0, 1, 2, 320], "q_offsets is [0, 60, 40, 100]"),
        (&[0, 100], &[1, 320], "kv_offsets is [1, 320]"),
        (&[0, 100], &[0, 5, 320], "kv_offsets has shape [3], expected [2]"),
    ] {
        let e = call(a, b, &o, &mut out).unwrap_err().to_string();
        assert!(e.starts_with(message), "{e}");
    }
    let bad = AttentionOptions { kv_lengths: Some(&[3]), ..Default::default() };
    let e = call(&[0, 100], &[0, 320], &bad, &mut out).unwrap_err().to_string();
    assert!(e.starts_with("kv_lengths is given"), "{e}");
}
