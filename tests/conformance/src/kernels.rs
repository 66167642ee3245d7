//! The list.

use dgm_core::Result;
use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::nn::{self, Gelu};
use dgm_core::tensor::{bf16, f16};
use ndarray::{ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Dimension, Ix1, Ix2, Ix4};

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
