//! Attention, its gradients, and the turning of what it reads.

use dgm_core::Result;
use dgm_core::attention::{
    AttentionOptions, KvCache, attention, attention_backward, attention_merge, attention_paged,
    attention_varlen, attention_varlen_backward,
};
use dgm_core::nn;
use ndarray::{Array2, Array3, Array4, ArrayViewD, ArrayViewMutD, Axis, Ix1, Ix2, Ix3, Ix4};

use super::{case, target, view};
use crate::storage::{Output, Stored};
use crate::{Args, Kernel, oracle};

/// The first positions of a case.
pub(crate) fn firsts(a: &Args) -> Vec<usize> {
    a.text("first").split(',').map(|n| n.parse().expect("a position")).collect()
}

/// The pages of a case: entry `(b, n)` of `batch` rows is page `batch * (most - 1 - n) + b`; every
/// batch entry has all its places but `short` filled.
pub(crate) fn block_table(pages: usize, page_len: usize, a: &Args) -> (Array2<i32>, Vec<usize>) {
    let batch: usize = a.number("batch");
    let most = pages / batch;
    let table = Array2::from_shape_fn((batch, most), |(b, n)| (batch * (most - 1 - n) + b) as i32);
    (table, vec![most * page_len - a.number::<usize>("short"); batch])
}

/// Calls `f` with the options of a case.
fn with_options<T>(a: &Args, f: impl FnOnce(AttentionOptions) -> T) -> T {
    let numbers = |name| a.find(name).map(|_| a.list::<f32>(name));
    let (slopes, sinks) = (numbers("alibi_slopes"), numbers("sinks"));
    let lengths = a.find("kv_lengths").map(|_| a.list::<usize>("kv_lengths"));
    f(AttentionOptions {
        causal: a.text("causal") == "1",
        scale: a.optional("scale"),
        soft_cap: a.optional("soft_cap"),
        window_left: a.optional("window_left"),
        window_right: a.optional("window_right"),
        alibi_slopes: slopes.as_deref(),
        sinks: sinks.as_deref(),
        kv_lengths: lengths.as_deref(),
        ..Default::default()
    })
}

/// What the mask of a case hides: the elements below -0.25.
pub(crate) fn seen(x: f64) -> bool {
    x >= -0.25
}

/// The gradients of the attention of `[q, k, v, dout]`, one after the other for each batch entry.
fn gradients(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    with_options(a, |options| gradients_with(x, a, &options, out))
}

fn gradients_with(
    x: &[ArrayViewD<f32>],
    a: &Args,
    options: &AttentionOptions,
    out: ArrayViewMutD<f32>,
) -> Result<()> {
    let own = a.text_or("storage", "f32");
    let [q, k, v, dout] = [0, 1, 2, 3].map(|i| view::<Ix4>(&x[i]));
    let (b, h, l, _) = q.dim();
    let (mut y, mut lse) = (Array4::<f32>::zeros((b, h, l, v.dim().3)), Array3::zeros((b, h, l)));
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| Array4::<f32>::zeros(x.dim()));
    {
        let [q, k, v, dout] = [q, k, v, dout].map(|x| Stored::new(x, own));
        let mut narrow = Output::new(y.view_mut(), own);
        let lse_of = Some(lse.view_mut());
        attention(q.view(), k.view(), v.view(), options, narrow.view_mut(), lse_of)?;
        narrow.widen();
        let y = Stored::new(y.view(), own);
        let mut to = [&mut dq, &mut dk, &mut dv].map(|x| Output::new(x.view_mut(), own));
        let [dq, dk, dv] = to.each_mut().map(Output::view_mut);
        let (q, k, v, y, dout) = (q.view(), k.view(), v.view(), y.view(), dout.view());
        attention_backward(q, k, v, y, lse.view(), dout, options, dq, dk, dv, None)?;
        to.into_iter().for_each(Output::widen);
    }
    for (b, mut out) in target::<Ix2>(out).outer_iter_mut().enumerate() {
        let all = [&dq, &dk, &dv].into_iter().flat_map(|x| x.index_axis(Axis(0), b).to_owned());
        out.iter_mut().zip(all).for_each(|(to, x)| *to = x);
    }
    Ok(())
}

/// The gradients of [`attention_varlen`] of `[q, k, v, dout]`, one after the other.
fn packed_gradients(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let [q, k, v, dout] = [0, 1, 2, 3].map(|i| view::<Ix3>(&x[i]));
    let [q_offsets, kv_offsets] = ["q_offsets", "kv_offsets"].map(|name| a.list::<usize>(name));
    let (tokens, heads, _) = dout.dim();
    let mut y = Array3::<f32>::zeros(dout.dim());
    let mut lse = Array2::zeros((heads, tokens));
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| Array3::<f32>::zeros(x.dim()));
    with_options(a, |o| {
        attention_varlen(q, k, v, &q_offsets, &kv_offsets, &o, y.view_mut(), Some(lse.view_mut()))?;
        let (y, to) = (y.view(), (dq.view_mut(), dk.view_mut(), dv.view_mut()));
        attention_varlen_backward(q, k, v, y, lse.view(), dout, &q_offsets, &kv_offsets, &o, to.0, to.1, to.2)
    })?;
    let all = [&dq, &dk, &dv].into_iter().flatten();
    target::<Ix1>(out).iter_mut().zip(all).for_each(|(to, &x)| *to = x);
    Ok(())
}

/// For outputs in 16 bits: half a unit of bfloat16's last place, and as much for the weights rounded to it.
const NARROW: f64 = 4e-3;

/// Attention of `[q, k, v]` in the types of a case.
fn attend(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let own = a.text_or("storage", "f32");
    let [q, k, v] = [own, a.text_or("kv_storage", own), a.text_or("kv_storage", own)];
    let [q, k, v] = [(0, q), (1, k), (2, v)].map(|(i, t)| Stored::<Ix4>::new(view(&x[i]), t));
    let mut to = Output::new(target::<Ix4>(out), own);
    with_options(a, |options| attention(q.view(), k.view(), v.view(), &options, to.view_mut(), None))?;
    to.widen();
    Ok(())
}

/// [`attention_varlen`] of `[q, k, v]` in the types of a case.
fn attend_packed(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let own = a.text_or("storage", "f32");
    let [q, k, v] = [0, 1, 2].map(|i| Stored::<Ix3>::new(view(&x[i]), own));
    let [q_offsets, kv_offsets] = ["q_offsets", "kv_offsets"].map(|name| a.list::<usize>(name));
    let mut to = Output::new(target::<Ix3>(out), own);
    with_options(a, |options| {
        let (q, k, v, out) = (q.view(), k.view(), v.view(), to.view_mut());
        attention_varlen(q, k, v, &q_offsets, &kv_offsets, &options, out, None)
    })?;
    to.widen();
    Ok(())
}

/// What is listed of attention.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] -> out[B,H,L,E]",
        cases: &[
            case("gqa", "B=2 H=4 G=2 L=17 S=23 D=40 E=24", "causal=0"),
            case("one_key", "B=1 H=1 G=1 L=1 S=1 D=3 E=5", "causal=0"),
            case("gqa_causal", "B=2 H=4 G=2 L=17 S=17 D=40 E=40", "causal=1"),
            case("causal_longer_keys", "B=3 H=2 G=1 L=65 S=130 D=33 E=64", "causal=1"),
            case("decode", "B=2 H=8 G=2 L=3 S=1100 D=40 E=24", "causal=1"),
            case("lengths", "B=3 H=2 G=2 L=9 S=150 D=12 E=20", "causal=1 kv_lengths=150,4,131"),
            case("f32_queries", "B=2 H=4 G=2 L=5 S=130 D=40 E=25", "causal=0 kv_storage=bf16"),
            case("wide_heads", "B=1 H=1 G=1 L=19 S=150 D=200 E=136", "causal=1 window_left=90"),
        ],
        bound: 4e-6,
        oracle: oracle::attention,
        run: attend,
    },
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] -> out[B,H,L,E]",
        cases: &[
            case("bf16", "B=2 H=4 G=2 L=17 S=301 D=41 E=24", "causal=1 storage=bf16"),
            case("bf16_decode", "B=1 H=4 G=2 L=2 S=700 D=40 E=24", "causal=0 storage=bf16"),
            case("f16", "B=2 H=4 G=2 L=17 S=130 D=40 E=25", "causal=1 storage=f16"),
        ],
        bound: NARROW,
        oracle: oracle::attention,
        run: attend,
    },
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] -> lse[B,H,L]",
        cases: &[
            case("lse", "B=2 H=4 G=2 L=17 S=23 D=40 E=24", "causal=0"),
            case("lse_options", "B=2 H=2 G=1 L=9 S=600 D=33 E=20", "causal=1 soft_cap=5 sinks=1,-0.25"),
            case("lse_bf16", "B=2 H=2 G=1 L=9 S=160 D=33 E=20", "causal=1 storage=bf16"),
        ],
        bound: 4e-6,
        oracle: oracle::attention_lse,
        run: |x, a, lse| {
            let own = a.text_or("storage", "f32");
            let [q, k, v] = [0, 1, 2].map(|i| Stored::<Ix4>::new(view(&x[i]), own));
            let (b, h, l, _) = view::<Ix4>(&x[0]).dim();
            let mut out = Array4::<f32>::zeros((b, h, l, x[2].shape()[3]));
            with_options(a, |options| {
                attention(q.view(), k.view(), v.view(), &options, out.view_mut(), Some(target::<Ix3>(lse)))
            })
        },
    },
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] mask[B,N,L,S] -> out[B,H,L,E]",
        cases: &[
            case("mask", "B=2 H=4 G=2 L=5 S=9 D=8 E=6 N=1", "causal=0"),
            case("mask_causal", "B=2 H=2 G=1 L=17 S=140 D=24 E=16 N=1", "causal=1"),
        ],
        bound: 4e-6,
        oracle: oracle::attention_masked,
        run: |x, a, out| {
            let [q, k, v] = [0, 1, 2].map(|i| view::<Ix4>(&x[i]));
            let mask = view::<Ix4>(&x[3]).mapv(|v| u8::from(seen(v.into())));
            with_options(a, |options| {
                let options = AttentionOptions { mask: Some(mask.view()), ..options };
                attention(q, k, v, &options, target::<Ix4>(out), None)
            })
        },
    },
    Kernel {
        call: "attention_varlen",
        signature: "q[T,H,D] k[S,G,D] v[S,G,E] -> out[T,H,E]",
        cases: &[
            case("three", "T=20 S=29 H=4 G=2 D=40 E=24", "causal=1 q_offsets=0,9,9,20 kv_offsets=0,12,14,29"),
            case("long", "T=200 S=700 H=2 G=1 D=33 E=20", "causal=0 q_offsets=0,3,200 kv_offsets=0,600,700"),
        ],
        bound: 4e-6,
        oracle: oracle::attention_varlen,
        run: attend_packed,
    },
    Kernel {
        call: "attention_varlen",
        signature: "q[T,H,D] k[S,G,D] v[S,G,E] -> out[T,H,E]",
        cases: &[case(
            "bf16",
            "T=20 S=290 H=4 G=2 D=40 E=24",
            "causal=1 q_offsets=0,9,20 kv_offsets=0,150,290 storage=bf16",
        )],
        bound: NARROW,
        oracle: oracle::attention_varlen,
        run: attend_packed,
    },
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] bias[M,H,L,S] -> out[B,H,L,E]",
        cases: &[
            case(
                "bias_sinks",
                "B=2 H=4 G=2 L=5 S=9 D=8 E=6 M=1",
                "causal=0 sinks=0.5,-1,0,2 alibi_slopes=0.5,0.25,0.125,0.0625",
            ),
            case(
                "window_cap",
                "B=2 H=2 G=1 L=17 S=40 D=24 E=16 M=1",
                "causal=0 window_left=9 window_right=3 soft_cap=2.5 scale=0.75",
            ),
            case(
                "all_options",
                "B=2 H=2 G=1 L=65 S=600 D=33 E=20 M=1",
                "causal=1 window_left=530 soft_cap=5 alibi_slopes=0.125,-0.5 sinks=1,-0.25",
            ),
        ],
        bound: 1e-5,
        oracle: oracle::attention,
        run: |x, a, out| {
            let [q, k, v, bias] = [0, 1, 2, 3].map(|i| view::<Ix4>(&x[i]));
            with_options(a, |options| {
                let options = AttentionOptions { bias: Some(bias), ..options };
                attention(q, k, v, &options, target::<Ix4>(out), None)
            })
        },
    },
    Kernel {
        call: "attention_paged",
        signature: "q[B,H,L,D] k[P,G,T,D] v[P,G,T,E] -> out[B,H,L,E]",
        cases: &[
            case("causal", "B=2 H=4 G=2 L=3 P=8 T=5 D=20 E=12", "batch=2 short=2 causal=1"),
            case("long", "B=2 H=8 G=2 L=1 P=80 T=16 D=64 E=64", "batch=2 short=7 causal=0"),
            case("wide_heads", "B=1 H=2 G=1 L=2 P=18 T=16 D=200 E=136", "batch=1 short=5 causal=1"),
        ],
        bound: 4e-6,
        oracle: oracle::attention_paged,
        run: |x, a, out| {
            let [q, k, v] = [0, 1, 2].map(|i| view::<Ix4>(&x[i]));
            let (table, lengths) = block_table(k.dim().0, k.dim().2, a);
            let cache = KvCache {
                k: k.into(),
                v: v.into(),
                k_scale: None,
                v_scale: None,
                block_table: Some(table.view()),
                lengths: &lengths,
            };
            with_options(a, |options| attention_paged(q, &cache, &options, target::<Ix4>(out), None))
        },
    },
    Kernel {
        call: "attention_merge",
        signature: "out1[B,H,L,E] lse1[B,H,L] out2[B,H,L,E] lse2[B,H,L] -> out[B,H,L,E]",
        cases: &[case("odd", "B=2 H=3 L=5 E=7", "")],
        bound: 1e-6,
        oracle: oracle::attention_merge,
        run: |x, _, out| {
            attention_merge(
                view::<Ix4>(&x[0]),
                view(&x[1]),
                view::<Ix4>(&x[2]),
                view(&x[3]),
                target::<Ix4>(out),
                None,
            )
        },
    },
    Kernel {
        call: "rope",
        signature: "x[B,H,L,D] cos[P,R] sin[P,R] -> out[B,H,L,D]",
        cases: &[
            case("halves", "B=2 H=3 L=5 D=10 P=9 R=4", "interleaved=0 first=3,4"),
            case("pairs", "B=1 H=2 L=7 D=8 P=7 R=4", "interleaved=1 first=0"),
            case("wide_halves", "B=2 H=2 L=5 D=80 P=9 R=36", "interleaved=0 first=3,4"),
            case("wide_pairs", "B=1 H=2 L=7 D=72 P=7 R=36", "interleaved=1 first=0"),
        ],
        bound: 1e-6,
        oracle: oracle::rope,
        run: |x, a, out| {
            let tables =
                nn::Rope { cos: view(&x[1]), sin: view(&x[2]), interleaved: a.text("interleaved") == "1" };
            // As many as the batch has, for the cases that are refused too.
            let mut first = firsts(a);
            first.resize(x[0].shape()[0], 0);
            nn::rope(view::<Ix4>(&x[0]), &first, &tables, target::<Ix4>(out))
        },
    },
    Kernel {
        call: "attention_backward",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] dout[B,H,L,E] -> out[B,K]",
        cases: &[
            case("gqa_causal", "B=2 H=4 G=2 L=17 S=23 D=40 E=24 K=5664", "causal=1"),
            case("tiles", "B=1 H=2 G=1 L=70 S=150 D=12 E=20 K=6480", "causal=0"),
            case("wide_heads", "B=1 H=1 G=1 L=10 S=90 D=200 E=136 K=32240", "causal=0"),
            case(
                "options",
                "B=2 H=2 G=1 L=17 S=40 D=12 E=20 K=1688",
                "causal=0 window_left=9 window_right=3 soft_cap=2.5 alibi_slopes=0.125,-0.5 kv_lengths=40,23",
            ),
        ],
        bound: 1e-5,
        oracle: oracle::attention_backward,
        run: gradients,
    },
    Kernel {
        call: "attention_backward",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] dout[B,H,L,E] -> out[B,K]",
        cases: &[case("bf16", "B=1 H=2 G=1 L=69 S=151 D=13 E=20 K=6777", "causal=1 storage=bf16")],
        bound: NARROW,
        oracle: oracle::attention_backward,
        run: gradients,
    },
    Kernel {
        call: "attention_varlen_backward",
        signature: "q[T,H,D] k[S,G,D] v[S,G,E] dout[T,H,E] -> out[K]",
        cases: &[
            case(
                "three",
                "T=20 S=29 H=4 G=2 D=40 E=24 K=6912",
                "causal=1 q_offsets=0,9,9,20 kv_offsets=0,12,14,29",
            ),
            case(
                "long",
                "T=90 S=310 H=2 G=1 D=12 E=20 K=12080",
                "causal=0 window_left=200 soft_cap=2.5 q_offsets=0,3,90 kv_offsets=0,150,310",
            ),
        ],
        bound: 1e-5,
        oracle: oracle::attention_varlen_backward,
        run: packed_gradients,
    },
];
