//! Packed sequences against a call for each.

use ndarray::{Array2, Array3, Array4, Axis, s};

use super::super::tests::{bits, serial, tensor};
use super::super::varlen::Packed;
use super::super::{AttentionOptions, attention_varlen};
use super::attention_varlen_backward;
use super::oracle::Inputs;
use super::tests::backward;
use super::varlen::Arguments;
use crate::tensor::{bf16, f16};
use crate::threads;

const Q: [usize; 6] = [0, 70, 70, 71, 100, 105];
const KV: [usize; 6] = [0, 70, 75, 205, 205, 400];

/// Of the sequence `n`.
fn sequence(x: &Array4<f32>, offsets: &[usize], n: usize) -> Array4<f32> {
    x.slice(s![.., .., offsets[n]..offsets[n + 1], ..]).to_owned()
}

/// `[1, H, T, D]` as `[T, H, D]`.
fn packed(x: &Array4<f32>) -> Array3<f32> {
    x.index_axis(Axis(0), 0).permuted_axes([1, 0, 2]).as_standard_layout().into_owned()
}

fn inputs() -> Inputs<f32> {
    let (tq, tk) = (Q[5], KV[5]);
    let x = [[1, 4, tq, 20], [1, 2, tk, 20], [1, 2, tk, 12], [1, 4, tq, 12]];
    let mut x = (1..).zip(x).map(|(seed, shape)| tensor(seed, shape));
    let mut next = || x.next().unwrap();
    Inputs { q: next(), k: next(), v: next(), dout: next(), bias: None }
}

fn options() -> [AttentionOptions<'static>; 3] {
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let all = AttentionOptions {
        window_left: Some(60),
        soft_cap: Some(4.0),
        alibi_slopes: Some(&[0.5, 0.25, 0.125, 0.01]),
        sinks: Some(&[0.5, -3.0, f32::NEG_INFINITY, 4.0]),
        scale: Some(0.3),
        ..causal
    };
    [AttentionOptions::default(), causal, all]
}

/// What attention gave, and the gradients.
struct Run {
    out: Array3<f32>,
    lse: Array2<f32>,
    to: [Array3<f32>; 3],
}

fn run(x: &Inputs<f32>, o: &AttentionOptions) -> Run {
    let (q, k, v, dout) = (packed(&x.q), packed(&x.k), packed(&x.v), packed(&x.dout));
    let (mut out, mut lse) = (Array3::from_elem(dout.dim(), f32::NAN), Array2::zeros((4, q.dim().0)));
    attention_varlen(q.view(), k.view(), v.view(), &Q, &KV, o, out.view_mut(), Some(lse.view_mut())).unwrap();
    // What is in the outputs must not matter.
    let mut to = [&q, &k, &v].map(|x| Array3::from_elem(x.dim(), f32::NAN));
    let [dq, dk, dv] = &mut to;
    attention_varlen_backward(
        q.view(),
        k.view(),
        v.view(),
        out.view(),
        lse.view(),
        dout.view(),
        &Q,
        &KV,
        o,
        dq.view_mut(),
        dk.view_mut(),
        dv.view_mut(),
    )
    .unwrap();
    Run { out, lse, to }
}

#[test]
fn gradients_of_packed_sequences_are_those_of_their_own_calls() {
    let _guard = serial();
    let x = inputs();
    for o in options() {
        for t in [1, 2, 3, 7] {
            threads::set_num_threads(t).unwrap();
            let [dq, dk, dv] = run(&x, &o).to;
            for n in 0..Q.len() - 1 {
                let (q, kv) = (Q[n]..Q[n + 1], KV[n]..KV[n + 1]);
                let alone = Inputs {
                    q: sequence(&x.q, &Q, n),
                    k: sequence(&x.k, &KV, n),
                    v: sequence(&x.v, &KV, n),
                    dout: sequence(&x.dout, &Q, n),
                    bias: None,
                };
                let want = backward(&alone, &o);
                for (name, got, range, want) in
                    [("dq", &dq, q, &want.dq), ("dk", &dk, kv.clone(), &want.dk), ("dv", &dv, kv, &want.dv)]
                {
                    let got = got.slice(s![range, .., ..]);
                    assert_eq!(bits(got), bits(&packed(want)), "{name} of sequence {n}, {t} threads, {o:?}");
                }
            }
        }
    }
}

#[test]
fn sixteen_bits_are_widened_and_rounded_once() {
    let x = inputs();
    // Numbers that bfloat16 and f16 hold, so that the same is computed.
    let x = Inputs { bias: None, ..x.map(|&x| bf16::from_f32(x).to_f32()) };
    let o = options()[2];
    let Run { out, lse, to } = run(&x, &o);
    macro_rules! narrow {
        ($t:ident) => {{
            let half = |x: &Array4<f32>| packed(x).mapv($t::from_f32);
            let (q, k, v) = (half(&x.q), half(&x.k), half(&x.v));
            let mut got = [&q, &k, &v].map(|x| Array3::from_elem(x.dim(), $t::NAN));
            let [dq, dk, dv] = &mut got;
            attention_varlen_backward(
                q.view(),
                k.view(),
                v.view(),
                out.view(),
                lse.view(),
                packed(&x.dout).view(),
                &Q,
                &KV,
                &o,
                dq.view_mut(),
                dk.view_mut(),
                dv.view_mut(),
            )
            .unwrap();
            for (got, want) in got.iter().zip(&to) {
                assert_eq!(bits(&got.mapv(|x| x.to_f32())), bits(&want.mapv(|x| $t::from_f32(x).to_f32())));
            }
        }};
    }
    narrow!(bf16);
    narrow!(f16);
}

#[test]
fn wrong_packed_arguments_are_named_and_nothing_is_written() {
    let x = inputs();
    let (q, k, v, dout) = (packed(&x.q), packed(&x.k), packed(&x.v), packed(&x.dout));
    let plain = AttentionOptions::default();
    let Run { out, lse, .. } = run(&x, &plain);
    let mut to = [&q, &k, &v].map(|x| Array3::from_elem(x.dim(), 5.0f32));
    let mut other = Array3::from_elem((3, 4, 20), 5.0f32);
    macro_rules! refused {
        ($message:expr, $field:ident: $value:expr) => {{
            let [dq, dk, dv] = to.each_mut().map(|x| x.view_mut().into());
            let mut a = Arguments {
                q: q.view().into(),
                k: k.view().into(),
                v: v.view().into(),
                out: out.view().into(),
                lse: lse.view(),
                dout: dout.view().into(),
                packed: Packed { q_offsets: &Q, kv_offsets: &KV },
                options: &plain,
                dq,
                dk,
                dv,
            };
            a.$field = $value;
            let e = a.run().unwrap_err().to_string();
            assert!(e.starts_with($message), "{e}");
        }};
    }
    refused!("q has shape [105, 4, 0]", q: q.slice(s![.., .., ..0]).into());
    refused!("k has shape [400, 2, 19], expected [400, 2, 20]", k: k.slice(s![.., .., ..19]).into());
    refused!("v has shape [399, 2, 12], expected [400, 2, 12]", v: v.slice(s![..399, .., ..]).into());
    refused!("out has shape [105, 4, 11], expected [105, 4, 12]", out: out.slice(s![.., .., ..11]).into());
    refused!("lse has shape [4, 104], expected [4, 105]", lse: lse.slice(s![.., ..104]));
    refused!("lse has strides", lse: lse.slice(s![.., ..;-1]));
    refused!("dout has shape [104, 4, 12], expected [105, 4, 12]", dout: dout.slice(s![..104, .., ..]).into());
    refused!("dout has strides", dout: dout.slice(s![..;-1, .., ..]).into());
    refused!("dq has shape [3, 4, 20], expected [105, 4, 20]", dq: other.view_mut().into());
    refused!("dk has shape [3, 4, 20], expected [400, 2, 20]", dk: other.view_mut().into());
    refused!("dv has shape [3, 4, 20], expected [400, 2, 12]", dv: other.view_mut().into());
    let packed = |q_offsets, kv_offsets| Packed { q_offsets, kv_offsets };
    refused!("q_offsets is [0, 70, 69", packed: packed(&[0, 70, 69, 71, 100, 105], &KV));
    refused!("kv_offsets is [0, 70, 75, 205, 205, 399]", packed: packed(&Q, &[0, 70, 75, 205, 205, 399]));
    refused!("kv_offsets has shape [2], expected [6]", packed: packed(&Q, &[0, 400]));
    let (bias, lengths) = (Array4::<f32>::zeros((1, 1, 1, 1)), [400]);
    let biased = AttentionOptions { bias: Some(bias.view()), ..plain };
    refused!("bias is given, expected none for packed sequences", options: &biased);
    let short = AttentionOptions { kv_lengths: Some(&lengths), ..plain };
    refused!("kv_lengths is given, expected none for packed sequences", options: &short);
    let half = v.mapv(f16::from_f32);
    refused!("v has dtype f16, expected f32", v: half.view().into());
    assert!(to.iter().flatten().chain(&other).all(|&x| x == 5.0));
}
