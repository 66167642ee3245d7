//! The list.

use dgm_core::Result;
use dgm_core::attention::{
    AttentionOptions, KvCache, attention, attention_backward, attention_merge, attention_paged,
};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::nn::{self, Gelu};
use dgm_core::tensor::{bf16, f16};
use ndarray::{
    Array2, Array3, Array4, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Dimension, Ix1, Ix2, Ix4,
};

use crate::{Args, CaseSpec, Kernel, oracle};

const fn case(name: &'static str, sizes: &'static str, args: &'static str) -> CaseSpec {
    CaseSpec { name, sizes, args }
}

fn view<'a, D: Dimension>(x: &'a ArrayViewD<f32>) -> ArrayView<'a, f32, D> {
    x.view().into_dimensionality().expect("the rank of the signature")
}

fn target<D: Dimension>(out: ArrayViewMutD<f32>) -> ArrayViewMut<f32, D> {
    out.into_dimensionality().expect("the rank of the signature")
}

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

/// The gradients of the attention of `[q, k, v, dout]`, one after the other for each batch entry.
fn gradients(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let options = AttentionOptions { causal: a.text("causal") == "1", ..Default::default() };
    let [q, k, v, dout] = [0, 1, 2, 3].map(|i| view::<Ix4>(&x[i]));
    let (b, h, l, _) = q.dim();
    let (mut y, mut lse) = (Array4::<f32>::zeros((b, h, l, v.dim().3)), Array3::zeros((b, h, l)));
    attention(q, k, v, &options, y.view_mut(), Some(lse.view_mut()))?;
    let [mut dq, mut dk, mut dv] = [q, k, v].map(|x| Array4::<f32>::zeros(x.dim()));
    let to = (dq.view_mut(), dk.view_mut(), dv.view_mut());
    attention_backward(q, k, v, y.view(), lse.view(), dout, &options, to.0, to.1, to.2, None)?;
    for (b, mut out) in target::<Ix2>(out).outer_iter_mut().enumerate() {
        let all = [&dq, &dk, &dv].into_iter().flat_map(|x| x.index_axis(ndarray::Axis(0), b).to_owned());
        out.iter_mut().zip(all).for_each(|(to, x)| *to = x);
    }
    Ok(())
}

/// Every listed kernel, once.
pub const KERNELS: &[Kernel] = &[
    Kernel {
        call: "attention",
        signature: "q[B,H,L,D] k[B,G,S,D] v[B,G,S,E] -> out[B,H,L,E]",
        cases: &[
            case("gqa", "B=2 H=4 G=2 L=17 S=23 D=40 E=24", "causal=0"),
            case("one_key", "B=1 H=1 G=1 L=1 S=1 D=3 E=5", "causal=0"),
            case("gqa_causal", "B=2 H=4 G=2 L=17 S=17 D=40 E=40", "causal=1"),
            case("causal_longer_keys", "B=3 H=2 G=1 L=65 S=130 D=33 E=64", "causal=1"),
            case("decode", "B=2 H=8 G=2 L=3 S=1100 D=40 E=24", "causal=1"),
        ],
        bound: 4e-6,
        oracle: oracle::attention,
        run: |x, a, out| {
            let options = AttentionOptions { causal: a.text("causal") == "1", ..Default::default() };
            let [q, k, v] = [0, 1, 2].map(|i| view::<Ix4>(&x[i]));
            attention(q, k, v, &options, target::<Ix4>(out), None)
        },
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
            let numbers = |name| a.find(name).map(|_| a.list::<f32>(name));
            let (slopes, sinks) = (numbers("alibi_slopes"), numbers("sinks"));
            let options = AttentionOptions {
                causal: a.text("causal") == "1",
                scale: a.optional("scale"),
                soft_cap: a.optional("soft_cap"),
                window_left: a.optional("window_left"),
                window_right: a.optional("window_right"),
                alibi_slopes: slopes.as_deref(),
                sinks: sinks.as_deref(),
                bias: Some(view(&x[3])),
                ..Default::default()
            };
            let [q, k, v] = [0, 1, 2].map(|i| view::<Ix4>(&x[i]));
            attention(q, k, v, &options, target::<Ix4>(out), None)
        },
    },
    Kernel {
        call: "attention_paged",
        signature: "q[B,H,L,D] k[P,G,T,D] v[P,G,T,E] -> out[B,H,L,E]",
        cases: &[
            case("causal", "B=2 H=4 G=2 L=3 P=8 T=5 D=20 E=12", "batch=2 short=2 causal=1"),
            case("long", "B=2 H=8 G=2 L=1 P=80 T=16 D=64 E=64", "batch=2 short=7 causal=0"),
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
            let options = AttentionOptions { causal: a.text("causal") == "1", ..Default::default() };
            attention_paged(q, &cache, &options, target::<Ix4>(out), None)
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
        ],
        bound: 1e-5,
        oracle: oracle::attention_backward,
        run: gradients,
    },
    Kernel {
        call: "linear",
        signature: "x[R,I] weight[O,I] bias[O] -> out[R,O]",
        cases: &[
            case("odd", "R=7 I=37 O=19", "activation=silu"),
            case("one", "R=1 I=1 O=1", "activation=none"),
            case("threads", "R=131 I=260 O=195", "activation=gelu_tanh"),
            // x and weights rounded to the type.
            case("bf16", "R=14 I=139 O=70", "activation=silu storage=bf16"),
            case("f16", "R=14 I=139 O=70", "activation=none storage=f16"),
        ],
        bound: 2e-5,
        oracle: oracle::linear,
        run: |x, a, out| {
            let [input, weight] = [0, 1].map(|i| view::<Ix2>(&x[i]));
            let bias = Some(view::<Ix1>(&x[2]).into());
            let act = match a.text("activation") {
                "silu" => Activation::Silu,
                "gelu_tanh" => Activation::GeluTanh,
                _ => Activation::None,
            };
            let out = target::<Ix2>(out);
            match a.text_or("storage", "f32") {
                "bf16" => {
                    let packed = PackedLinear::pack(weight.mapv(bf16::from_f32).view(), bias)?;
                    linear(input.mapv(bf16::from_f32).view(), &packed, act, out)
                }
                "f16" => {
                    let packed = PackedLinear::pack(weight.mapv(f16::from_f32).view(), bias)?;
                    linear(input.mapv(f16::from_f32).view(), &packed, act, out)
                }
                _ => linear(input, &PackedLinear::pack(weight, bias)?, act, out),
            }
        },
    },
    Kernel {
        call: "layer_norm",
        signature: "x[R,D] weight[D] bias[D] -> out[R,D]",
        cases: &[case("odd", "R=5 D=37", "eps=1e-5"), case("threads", "R=1001 D=513", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::layer_norm,
        run: |x, a, out| {
            nn::layer_norm(view(&x[0]), Some(view(&x[1])), Some(view(&x[2])), a.number("eps"), target(out))
        },
    },
    Kernel {
        call: "rms_norm",
        signature: "x[R,D] weight[D] -> out[R,D]",
        cases: &[case("odd", "R=5 D=37", "eps=1e-5"), case("threads", "R=1001 D=513", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::rms_norm,
        run: |x, a, out| nn::rms_norm(view(&x[0]), Some(view(&x[1])), a.number("eps"), target(out)),
    },
    Kernel {
        call: "modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", ""), case("threads", "B=8 T=257 D=513", "")],
        bound: 1e-6,
        oracle: oracle::modulate,
        run: |x, _, out| nn::modulate(view(&x[0]), view(&x[1]), view(&x[2]), target(out)),
    },
    Kernel {
        call: "layer_norm_modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", "eps=1e-6"), case("threads", "B=8 T=257 D=513", "eps=1e-5")],
        bound: 1e-5,
        oracle: oracle::layer_norm_modulate,
        run: |x, a, out| {
            let [shift, scale] = [1, 2].map(|i| view(&x[i]));
            nn::layer_norm_modulate(view(&x[0]), shift, scale, a.number("eps"), target(out))
        },
    },
    Kernel {
        call: "gate_residual",
        signature: "residual[B,T,D] y[B,T,D] gate[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", ""), case("threads", "B=8 T=257 D=513", "")],
        bound: 1e-6,
        oracle: oracle::gate_residual,
        run: |x, _, out| nn::gate_residual(view(&x[0]), view(&x[1]), view(&x[2]), target(out)),
    },
    Kernel {
        call: "silu",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("odd", "R=3 D=37", ""), case("threads", "R=257 D=4097", "")],
        bound: 1e-6,
        oracle: |x, _, _| x[0].iter().map(|&v| oracle::silu(v)).collect(),
        run: |x, _, out| nn::silu(x[0].view(), out),
    },
    Kernel {
        call: "gelu",
        signature: "x[R,D] -> out[R,D]",
        cases: &[
            case("tanh", "R=3 D=37", "kind=tanh"),
            case("erf", "R=3 D=37", "kind=erf"),
            case("tanh_threads", "R=257 D=4097", "kind=tanh"),
            case("erf_threads", "R=257 D=4097", "kind=erf"),
        ],
        bound: 1e-6,
        oracle: |x, a, _| x[0].iter().map(|&v| oracle::gelu(v, a.text("kind") == "erf")).collect(),
        run: |x, a, out| {
            nn::gelu(x[0].view(), if a.text("kind") == "erf" { Gelu::Erf } else { Gelu::Tanh }, out)
        },
    },
    Kernel {
        call: "timestep_embedding",
        signature: "t[B] -> out[B,D]",
        cases: &[case("two", "B=5 D=2", "max_period=10000"), case("wide", "B=65 D=128", "max_period=10000")],
        bound: 1e-6,
        oracle: oracle::timestep_embedding,
        run: |x, a, out| nn::timestep_embedding(view(&x[0]), a.number("max_period"), target(out)),
    },
    Kernel {
        call: "patchify",
        signature: "x[B,C,H,W] -> out[B,N,K]",
        cases: &[
            case("two", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2"),
            case("threads", "B=4 C=3 H=300 W=304 N=22800 K=12", "patch=2"),
        ],
        bound: 0.0,
        oracle: oracle::patchify,
        run: |x, a, out| -> Result<()> { nn::patchify(view(&x[0]), a.number("patch"), target(out)) },
    },
    Kernel {
        call: "unpatchify",
        signature: "x[B,N,K] -> out[B,C,H,W]",
        cases: &[
            case("two", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2"),
            case("threads", "B=4 C=3 H=300 W=304 N=22800 K=12", "patch=2"),
        ],
        bound: 0.0,
        oracle: oracle::unpatchify,
        run: |x, a: &Args, out| nn::unpatchify(view(&x[0]), a.number("patch"), target(out)),
    },
];
