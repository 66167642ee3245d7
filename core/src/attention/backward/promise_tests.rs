//! What must not change a bit, what must not leak, and what is refused.

use ndarray::{Array3, Array4, ArrayView4, Ix4, s};

use super::super::option_tests::{bias, mask};
use super::super::tests::{bits, serial};
use super::super::{AttentionOptions, attention};
use super::attention_backward;
use super::oracle::{Grads, Inputs, forward};
use super::tests::{backward, inputs, scheduled};
use super::{Arguments, Schedule};
use crate::arch::{available_levels, level, set_level};
use crate::tensor::{Floats, FloatsMut, f16};
use crate::threads;

fn all_bits(g: &Grads<f32>) -> [Vec<u32>; 4] {
    [bits(&g.dq), bits(&g.dk), bits(&g.dv), bits(&g.dbias)]
}

#[test]
fn same_bits_for_any_level_threads_and_schedule() {
    let _guard = serial();
    let first = level();
    // Work enough for the pool.
    let shape = [2, 4, 2, 150, 400, 33, 24];
    let x = inputs(shape);
    let (mask, full, some) = (mask(8, [2, 1, 150, 400]), bias(7, [2, 4, 150, 400]), bias(6, [1, 4, 1, 400]));
    let o = AttentionOptions {
        causal: true,
        window_left: Some(300),
        soft_cap: Some(4.0),
        alibi_slopes: Some(&[0.5, 0.25, 0.125, 0.01]),
        sinks: Some(&[0.5, -3.0, f32::NEG_INFINITY, 4.0]),
        kv_lengths: Some(&[400, 333]),
        mask: Some(mask.view()),
        ..Default::default()
    };
    for o in [
        AttentionOptions::default(),
        AttentionOptions { bias: Some(full.view()), ..o },
        AttentionOptions { bias: Some(some.view()), ..o },
    ] {
        let (out, lse) = forward(&x, &o);
        let want = all_bits(&backward(&x, &o));
        for l in available_levels() {
            set_level(l).unwrap();
            for t in [1, 2, 3, 7] {
                threads::set_num_threads(t).unwrap();
                for schedule in
                    [None, Some(Schedule::Heads), Some(Schedule::Tiles(1)), Some(Schedule::Tiles(3))]
                {
                    // Portable arithmetic without FMA hardware takes its time.
                    if l != *available_levels().last().unwrap() && (t > 2 || schedule.is_none()) {
                        continue;
                    }
                    let got = scheduled(&x, out.view(), &lse, &o, schedule);
                    assert!(all_bits(&got) == want, "{l:?} {t} {schedule:?} {o:?}");
                }
            }
        }
        set_level(first).unwrap();
    }
}

#[test]
fn same_bits_in_a_batch_and_alone() {
    let x = inputs([3, 4, 2, 70, 200, 20, 12]);
    let bias = bias(7, [3, 4, 70, 200]);
    let o = AttentionOptions { causal: true, bias: Some(bias.view()), ..Default::default() };
    let want = backward(&x, &o);
    for b in 0..3 {
        let one = |x: &Array4<f32>| x.slice(s![b..b + 1, .., .., ..]).to_owned();
        let alone = Inputs { q: one(&x.q), k: one(&x.k), v: one(&x.v), dout: one(&x.dout), bias: None };
        let o = AttentionOptions { bias: Some(bias.slice(s![b..b + 1, .., .., ..])), ..o };
        let got = backward(&alone, &o);
        for (got, want) in
            [(&got.dq, &want.dq), (&got.dk, &want.dk), (&got.dv, &want.dv), (&got.dbias, &want.dbias)]
        {
            assert_eq!(bits(got), bits(&one(want)));
        }
    }
}

/// The same numbers with the axes of memory in another order.
fn strided<T: Clone>(x: &Array4<T>, order: [usize; 4]) -> Array4<T> {
    let mut back = [0; 4];
    order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
    x.view().permuted_axes(order).as_standard_layout().into_owned().permuted_axes(back)
}

#[test]
fn same_bits_for_any_strides() {
    let x = inputs([2, 4, 2, 37, 150, 24, 17]);
    let bias = bias(7, [2, 1, 37, 150]);
    let o = AttentionOptions { causal: true, bias: Some(bias.view()), ..Default::default() };
    let want = all_bits(&backward(&x, &o));
    let (out, lse) = forward(&x, &o);
    for order in [[0, 2, 1, 3], [3, 0, 1, 2], [2, 3, 0, 1]] {
        let far = |x: &Array4<f32>| strided(x, order);
        let lse =
            lse.view().permuted_axes([2, 0, 1]).as_standard_layout().into_owned().permuted_axes([1, 2, 0]);
        let [mut dq, mut dk, mut dv, mut dbias] =
            [&x.q, &x.k, &x.v, &bias].map(|x| far(x).mapv_into(|_| f32::NAN));
        let far_bias = far(&bias);
        attention_backward(
            far(&x.q).view(),
            far(&x.k).view(),
            far(&x.v).view(),
            far(&out).view(),
            lse.view(),
            far(&x.dout).view(),
            &AttentionOptions { bias: Some(far_bias.view()), ..o },
            dq.view_mut(),
            dk.view_mut(),
            dv.view_mut(),
            Some(dbias.view_mut()),
        )
        .unwrap();
        assert!(all_bits(&Grads { dq, dk, dv, dbias }) == want, "{order:?}");
    }
}

fn call<'a, T>(
    [q, k, v, out, dout]: [&'a Array4<T>; 5],
    lse: &'a Array3<f32>,
    options: &AttentionOptions,
    [dq, dk, dv]: [FloatsMut<'a, Ix4>; 3],
    schedule: Schedule,
) where
    Floats<'a, Ix4>: From<ArrayView4<'a, T>>,
{
    let [q, k, v, out, dout] = [q, k, v, out, dout].map(|x| x.view().into());
    let arguments = Arguments { q, k, v, out, lse: lse.view(), dout, options, dq, dk, dv, dbias: None };
    arguments.run(Some(schedule)).unwrap();
}

#[test]
fn half_precision_is_widened_exactly_and_rounded_once() {
    for shape in [[2, 4, 2, 70, 300, 40, 17], [1, 2, 1, 1, 1, 1, 1], [1, 1, 1, 65, 129, 9, 33]] {
        let x = inputs(shape);
        let [q, k, v, dout] = [&x.q, &x.k, &x.v, &x.dout].map(|x| x.mapv(f16::from_f32));
        let [wide_q, wide_k, wide_v, wide_dout] = [&q, &k, &v, &dout].map(|x| x.mapv(|x| x.to_f32()));
        let x = Inputs { q: wide_q, k: wide_k, v: wide_v, dout: wide_dout, bias: None };
        let o = AttentionOptions { causal: true, ..Default::default() };
        let mut out = Array4::from_elem(dout.dim(), f16::ONE);
        let mut lse = Array3::zeros((shape[0], shape[1], shape[3]));
        attention(q.view(), k.view(), v.view(), &o, out.view_mut(), Some(lse.view_mut())).unwrap();
        let want = scheduled(&x, out.mapv(|x| x.to_f32()).view(), &lse, &o, None);
        for schedule in [Schedule::Heads, Schedule::Tiles(2)] {
            let [mut dq, mut dk, mut dv] = [&q, &k, &v].map(|x| x.mapv(|_| f16::NAN));
            let (mut wide_dk, mut plain_dq) = (x.k.clone(), x.q.clone());
            let from = [&q, &k, &v, &out, &dout];
            let to = [dq.view_mut().into(), dk.view_mut().into(), dv.view_mut().into()];
            call(from, &lse, &o, to, schedule);
            for (got, want) in [(&dq, &want.dq), (&dk, &want.dk), (&dv, &want.dv)] {
                let same = |(a, &b): (&f16, &f32)| a.to_bits() == f16::from_f32(b).to_bits();
                assert!(got.iter().zip(want).all(same));
            }
            // Mixed: some of the results in f32.
            let to = [plain_dq.view_mut().into(), wide_dk.view_mut().into(), dv.view_mut().into()];
            call(from, &lse, &o, to, schedule);
            assert_eq!((bits(&plain_dq), bits(&wide_dk)), (bits(&want.dq), bits(&want.dk)));
        }
    }
}

#[test]
fn hidden_elements_never_leak() {
    let clean = inputs([1, 2, 1, 80, 300, 8, 8]);
    let (keys, rows) = ([0usize, 77, 130, 170, 200, 299], [0usize, 33, 79]);
    let mut mask = Array4::<u8>::ones((1, 1, 80, 300));
    keys.iter().for_each(|&j| mask.slice_mut(s![.., .., .., j]).fill(0));
    rows.iter().for_each(|&i| mask.slice_mut(s![.., .., i, ..]).fill(0));
    let mut bias = mask.mapv(|x| if x == 0 { f32::NEG_INFINITY } else { 0.0 });
    bias.slice_mut(s![.., .., 5, 7]).fill(0.25);
    let by_mask = AttentionOptions { mask: Some(mask.view()), soft_cap: Some(5.0), ..Default::default() };
    let by_bias = AttentionOptions { bias: Some(bias.view()), ..Default::default() };
    // Cuts a tile of keys before its middle, with hidden ones on both sides of that.
    let by_window = AttentionOptions { window_left: Some(60), ..by_mask };
    for o in [&by_mask, &by_bias, &by_window] {
        let (out, lse) = forward(&clean, o);
        let want = scheduled(&clean, out.view(), &lse, o, None);
        let poisons = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 3e38];
        // With rows in order the products take another way.
        for (poison, rows_too) in poisons.into_iter().flat_map(|x| [(x, true), (x, false)]) {
            let mut x = clean.clone();
            for j in keys {
                x.k.slice_mut(s![.., .., j, ..]).fill(poison);
                x.v.slice_mut(s![.., .., j, ..]).fill(poison);
            }
            for i in rows.into_iter().filter(|_| rows_too) {
                x.q.slice_mut(s![.., .., i, ..]).fill(poison);
                x.dout.slice_mut(s![.., .., i, ..]).fill(poison);
            }
            for schedule in [Schedule::Heads, Schedule::Tiles(1)] {
                let got = scheduled(&x, out.view(), &lse, o, Some(schedule));
                assert!(all_bits(&got) == all_bits(&want), "{poison} {schedule:?}");
            }
        }
        for j in keys {
            assert!(want.dk.slice(s![.., .., j, ..]).iter().all(|x| x.to_bits() == 0));
            assert!(want.dv.slice(s![.., .., j, ..]).iter().all(|x| x.to_bits() == 0));
        }
        for i in rows {
            assert!(want.dq.slice(s![.., .., i, ..]).iter().all(|x| x.to_bits() == 0));
        }
        assert!(want.dq.iter().chain(&want.dk).chain(&want.dv).all(|x| x.is_finite()));
    }
    // A NaN that is used stays with the queries that see it and the keys that those see.
    let o = AttentionOptions { causal: true, window_left: Some(10), ..Default::default() };
    let want = backward(&clean, &o);
    let mut x = clean.clone();
    x.k.slice_mut(s![.., .., 250, ..]).fill(f32::NAN);
    let got = backward(&x, &o);
    // Query i stands at key i + 220.
    for i in 0..80 {
        let [got, want] = [&got.dq, &want.dq].map(|x| x.slice(s![.., .., i, ..]).to_owned());
        match (30..=40).contains(&i) {
            true => assert!(got.iter().all(|x| x.is_nan()), "{i}"),
            false => assert_eq!(bits(&got), bits(&want), "{i}"),
        }
    }
    for j in 0..300 {
        for (got, want) in [(&got.dk, &want.dk), (&got.dv, &want.dv)] {
            let [got, want] = [got, want].map(|x| x.slice(s![.., .., j, ..]).to_owned());
            match (240..=260).contains(&j) {
                true => assert!(got.iter().all(|x| x.is_nan()), "{j}"),
                false => assert_eq!(bits(&got), bits(&want), "{j}"),
            }
        }
    }
}

#[test]
fn options_that_do_nothing_change_no_bit() {
    let x = inputs([1, 2, 1, 70, 300, 8, 8]);
    let plain = AttentionOptions { causal: true, ..Default::default() };
    let want = backward(&x, &plain);
    let (ones, zeros) = (Array4::<u8>::ones((1, 1, 1, 1)), Array4::<f32>::zeros((1, 1, 1, 1)));
    for o in [
        AttentionOptions { window_left: Some(299), window_right: Some(0), causal: false, ..plain },
        AttentionOptions { alibi_slopes: Some(&[0.0, 0.0]), ..plain },
        AttentionOptions { sinks: Some(&[f32::NEG_INFINITY; 2]), ..plain },
        AttentionOptions { mask: Some(ones.view()), ..plain },
        AttentionOptions { bias: Some(zeros.view()), ..plain },
        AttentionOptions { kv_lengths: Some(&[300]), ..plain },
    ] {
        let got = backward(&x, &o);
        assert!(all_bits(&got)[..3] == all_bits(&want)[..3], "{o:?}");
    }
}

#[test]
fn sums_of_nothing_are_zero() {
    for shape in [[0, 2, 1, 3, 5, 4, 4], [2, 0, 0, 3, 5, 4, 4], [2, 2, 1, 0, 5, 4, 4], [2, 2, 1, 3, 0, 4, 4]]
    {
        let x = inputs(shape);
        let bias = Array4::<f32>::ones((1, 1, 1, 1));
        let o = AttentionOptions { bias: Some(bias.view()), ..Default::default() };
        let (out, lse) = forward(&x, &o);
        for schedule in [None, Some(Schedule::Heads), Some(Schedule::Tiles(1))] {
            let g = scheduled(&x, out.view(), &lse, &o, schedule);
            assert!(
                [&g.dq, &g.dk, &g.dv, &g.dbias].into_iter().flatten().all(|x| x.to_bits() == 0),
                "{shape:?}"
            );
        }
    }
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let x = inputs([2, 4, 2, 3, 5, 8, 6]);
    let bias = Array4::<f32>::zeros((1, 4, 1, 5));
    let o = AttentionOptions { bias: Some(bias.view()), ..Default::default() };
    let (out, lse) = forward(&x, &o);
    let [mut dq, mut dk, mut dv, mut dbias] = [&x.q, &x.k, &x.v, &bias].map(|x| x.mapv(|_| 5.0f32));
    macro_rules! refused {
        ($message:expr, $($field:ident: $value:expr),+) => {{
            #[allow(unused_mut)]
            let mut a = Arguments {
                q: x.q.view().into(),
                k: x.k.view().into(),
                v: x.v.view().into(),
                out: out.view().into(),
                lse: lse.view(),
                dout: x.dout.view().into(),
                options: &o,
                dq: dq.view_mut().into(),
                dk: dk.view_mut().into(),
                dv: dv.view_mut().into(),
                dbias: Some(dbias.view_mut()),
            };
            $(a.$field = $value;)+
            let e = a.run(None).unwrap_err().to_string();
            assert!(e.starts_with($message), "{e}");
        }};
    }
    let mut other = Array4::from_elem((2, 4, 3, 7), 5.0f32);
    refused!("q has shape [2, 4, 3, 0]", q: x.q.slice(s![.., .., .., ..0]).into());
    refused!("k has shape [2, 2, 5, 7], expected [2, 2, 5, 8]", k: x.k.slice(s![.., .., .., ..7]).into());
    refused!("v has shape [2, 2, 4, 6]", v: x.v.slice(s![.., .., ..4, ..]).into());
    refused!("out has shape [2, 4, 3, 5], expected [2, 4, 3, 6]", out: out.slice(s![.., .., .., ..5]).into());
    refused!("lse has shape [1, 4, 3], expected [2, 4, 3]", lse: lse.slice(s![..1, .., ..]));
    refused!("lse has strides", lse: lse.slice(s![.., .., ..;-1]));
    refused!("dout has shape [2, 4, 2, 6], expected [2, 4, 3, 6]", dout: x.dout.slice(s![.., .., ..2, ..]).into());
    refused!("dout has strides", dout: x.dout.slice(s![.., .., ..;-1, ..]).into());
    refused!("dq has shape [2, 4, 3, 7], expected [2, 4, 3, 8]", dq: other.view_mut().into());
    refused!("dk has shape [2, 4, 3, 7], expected [2, 2, 5, 8]", dk: other.view_mut().into());
    refused!("dv has shape [2, 4, 3, 7], expected [2, 2, 5, 6]", dv: other.view_mut().into());
    refused!("dbias has shape [2, 4, 3, 7], expected [1, 4, 1, 5]", dbias: Some(other.view_mut()));
    let plain = AttentionOptions::default();
    refused!("dbias is given, expected none without a bias", options: &plain);
    let capped = AttentionOptions { soft_cap: Some(-1.0), ..o };
    refused!("soft_cap is -1", options: &capped);
    let half = x.v.mapv(f16::from_f32);
    refused!("v has dtype f16, expected f32", v: half.view().into());
    let mut flipped = x.q.mapv(|_| 5.0f32);
    refused!("dq has strides", dq: flipped.slice_mut(s![.., .., ..;-1, ..]).into());
    let all = [&dq, &dk, &dv, &dbias, &other, &flipped];
    assert!(all.into_iter().flatten().all(|&x| x == 5.0));
}
