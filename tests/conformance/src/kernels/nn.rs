//! What is between products: norms, activations, embeddings, patches, guidance.

use dgm_core::Result;
use dgm_core::nn::{self, Gelu};
use dgm_core::sampling::cfg_combine;
use dgm_core::tensor::FloatsMut;
use ndarray::{ArrayViewD, ArrayViewMutD, Axis, Ix1, Ix2, Ix3, Ix4, IxDyn};

use super::{case, into, own, target, view};
use crate::{Args, CaseSpec, Kernel, oracle};

fn gelu_kind(a: &Args) -> Gelu {
    if a.text("kind") == "erf" { Gelu::Erf } else { Gelu::Tanh }
}

/// For outputs in 16 bits of what is exact but for a rounding: half a unit of bfloat16's last place.
const ROUNDED: f64 = 4e-3;

fn layer_norm(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let (input, [weight, bias]) = (own::<Ix2>(&x[0], a), [1, 2].map(|i| own::<Ix1>(&x[i], a)));
    let (weight, bias) = (Some(weight.view()), Some(bias.view()));
    into(out, a, |out| nn::layer_norm(input.view(), weight, bias, a.number("eps"), out))
}

fn rms_norm(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let (input, weight) = (own::<IxDyn>(&x[0], a), own::<Ix1>(&x[1], a));
    into(out, a, |out| nn::rms_norm(input.view(), Some(weight.view()), a.number("eps"), out))
}

/// The sum and the norm of each row side by side.
fn rms_norm_residual(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let ([input, residual], weight) = ([0, 1].map(|i| own::<Ix2>(&x[i], a)), own::<Ix1>(&x[2], a));
    into(out, a, |out: FloatsMut<Ix2>| {
        let half = out.shape()[1] / 2;
        let (sum, normed) = out.split_at(1, half);
        let weight = Some(weight.view());
        nn::rms_norm_residual(input.view(), residual.view(), weight, a.number("eps"), sum, normed)
    })
}

fn group_norm(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let (input, [weight, bias]) = (own::<Ix4>(&x[0], a), [1, 2].map(|i| own::<Ix1>(&x[i], a)));
    let (weight, bias, silu) = (Some(weight.view()), Some(bias.view()), a.text("silu") == "1");
    into(out, a, |out| {
        nn::group_norm(input.view(), a.number("groups"), weight, bias, a.number("eps"), silu, out)
    })
}

fn modulate(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let (input, [shift, scale]) = (own::<Ix3>(&x[0], a), [1, 2].map(|i| own::<Ix2>(&x[i], a)));
    into(out, a, |out| nn::modulate(input.view(), shift.view(), scale.view(), out))
}

fn layer_norm_modulate(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let (input, [shift, scale]) = (own::<Ix3>(&x[0], a), [1, 2].map(|i| own::<Ix2>(&x[i], a)));
    into(out, a, |out| {
        nn::layer_norm_modulate(input.view(), shift.view(), scale.view(), a.number("eps"), out)
    })
}

fn gate_residual(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let ([residual, y], gate) = ([0, 1].map(|i| own::<Ix3>(&x[i], a)), own::<Ix2>(&x[2], a));
    into(out, a, |out| nn::gate_residual(residual.view(), y.view(), gate.view(), out))
}

fn silu(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let input = own::<Ix2>(&x[0], a);
    into(out, a, |out| nn::silu(input.view(), out))
}

fn gelu(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let input = own::<Ix2>(&x[0], a);
    into(out, a, |out| nn::gelu(input.view(), gelu_kind(a), out))
}

fn swiglu(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let [gate, up] = [0, 1].map(|i| own::<Ix2>(&x[i], a));
    into(out, a, |out| nn::swiglu(gate.view(), up.view(), out))
}

fn geglu(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let [gate, up] = [0, 1].map(|i| own::<Ix2>(&x[i], a));
    into(out, a, |out| nn::geglu(gate.view(), up.view(), gelu_kind(a), out))
}

fn softmax(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let input = own::<Ix2>(&x[0], a);
    into(out, a, |out| nn::softmax(input.view(), out))
}

fn log_softmax(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let input = own::<Ix2>(&x[0], a);
    into(out, a, |out| nn::log_softmax(input.view(), out))
}

fn guided(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let [cond, uncond] = [0, 1].map(|i| own::<Ix2>(&x[i], a));
    into(out, a, |out| cfg_combine(cond.view(), uncond.view(), a.number("scale"), a.number("rescale"), out))
}

fn timestep_embedding(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let t = own::<Ix1>(&x[0], a);
    into(out, a, |out| nn::timestep_embedding(t.view(), a.number("max_period"), out))
}

/// Images and their patches, either way.
const PATCHES: &[CaseSpec] = &[
    case("two", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2"),
    case("threads", "B=4 C=3 H=300 W=304 N=22800 K=12", "patch=2"),
    case("bf16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=bf16"),
    case("f16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=f16"),
];

/// What is listed of them.
pub(super) const KERNELS: &[Kernel] = &[
    Kernel {
        call: "layer_norm",
        signature: "x[R,D] weight[D] bias[D] -> out[R,D]",
        cases: &[case("odd", "R=5 D=37", "eps=1e-5"), case("threads", "R=1001 D=513", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::layer_norm,
        run: layer_norm,
    },
    Kernel {
        call: "layer_norm",
        signature: "x[R,D] weight[D] bias[D] -> out[R,D]",
        cases: &[
            case("bf16", "R=5 D=37", "eps=1e-5 storage=bf16"),
            case("f16", "R=5 D=70", "eps=1e-5 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::layer_norm,
        run: layer_norm,
    },
    Kernel {
        call: "rms_norm",
        signature: "x[R,D] weight[D] -> out[R,D]",
        cases: &[case("odd", "R=5 D=37", "eps=1e-5"), case("threads", "R=1001 D=513", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::rms_norm,
        run: rms_norm,
    },
    Kernel {
        call: "rms_norm",
        signature: "x[R,D] weight[D] -> out[R,D]",
        cases: &[
            case("bf16", "R=5 D=37", "eps=1e-5 storage=bf16"),
            case("f16", "R=5 D=70", "eps=1e-5 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::rms_norm,
        run: rms_norm,
    },
    Kernel {
        call: "rms_norm",
        signature: "x[B,H,L,D] weight[D] -> out[B,H,L,D]",
        cases: &[case("heads", "B=2 H=3 L=5 D=24", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::rms_norm,
        run: rms_norm,
    },
    Kernel {
        call: "rms_norm_residual",
        signature: "x[R,D] residual[R,D] weight[D] -> out[R,E]",
        cases: &[case("odd", "R=5 D=37 E=74", "eps=1e-5"), case("threads", "R=1001 D=257 E=514", "eps=1e-6")],
        bound: 1e-5,
        oracle: oracle::rms_norm_residual,
        run: rms_norm_residual,
    },
    Kernel {
        call: "rms_norm_residual",
        signature: "x[R,D] residual[R,D] weight[D] -> out[R,E]",
        cases: &[
            case("bf16", "R=5 D=37 E=74", "eps=1e-5 storage=bf16"),
            case("f16", "R=5 D=70 E=140", "eps=1e-5 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::rms_norm_residual,
        run: rms_norm_residual,
    },
    Kernel {
        call: "group_norm",
        signature: "x[B,C,H,W] weight[C] bias[C] -> out[B,C,H,W]",
        cases: &[
            case("odd", "B=2 C=6 H=3 W=5", "groups=3 eps=1e-5 silu=0"),
            case("silu", "B=2 C=6 H=3 W=5", "groups=2 eps=1e-5 silu=1"),
            case("threads", "B=2 C=8 H=60 W=61", "groups=2 eps=1e-6 silu=1"),
        ],
        bound: 1e-5,
        oracle: oracle::group_norm,
        run: group_norm,
    },
    Kernel {
        call: "group_norm",
        signature: "x[B,C,H,W] weight[C] bias[C] -> out[B,C,H,W]",
        cases: &[
            case("bf16", "B=2 C=6 H=3 W=5", "groups=3 eps=1e-5 silu=1 storage=bf16"),
            case("f16", "B=2 C=4 H=50 W=51", "groups=2 eps=1e-5 silu=0 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::group_norm,
        run: group_norm,
    },
    Kernel {
        call: "modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", ""), case("threads", "B=8 T=257 D=513", "")],
        bound: 1e-6,
        oracle: oracle::modulate,
        run: modulate,
    },
    Kernel {
        call: "modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[case("bf16", "B=3 T=5 D=37", "storage=bf16"), case("f16", "B=3 T=5 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::modulate,
        run: modulate,
    },
    Kernel {
        call: "layer_norm_modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", "eps=1e-6"), case("threads", "B=8 T=257 D=513", "eps=1e-5")],
        bound: 1e-5,
        oracle: oracle::layer_norm_modulate,
        run: layer_norm_modulate,
    },
    Kernel {
        call: "layer_norm_modulate",
        signature: "x[B,T,D] shift[B,D] scale[B,D] -> out[B,T,D]",
        cases: &[
            case("bf16", "B=3 T=5 D=37", "eps=1e-6 storage=bf16"),
            case("f16", "B=3 T=5 D=70", "eps=1e-6 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::layer_norm_modulate,
        run: layer_norm_modulate,
    },
    Kernel {
        call: "gate_residual",
        signature: "residual[B,T,D] y[B,T,D] gate[B,D] -> out[B,T,D]",
        cases: &[case("odd", "B=3 T=5 D=37", ""), case("threads", "B=8 T=257 D=513", "")],
        bound: 1e-6,
        oracle: oracle::gate_residual,
        run: gate_residual,
    },
    Kernel {
        call: "gate_residual",
        signature: "residual[B,T,D] y[B,T,D] gate[B,D] -> out[B,T,D]",
        cases: &[case("bf16", "B=3 T=5 D=37", "storage=bf16"), case("f16", "B=3 T=5 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::gate_residual,
        run: gate_residual,
    },
    Kernel {
        call: "silu",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("odd", "R=3 D=37", ""), case("threads", "R=257 D=4097", "")],
        bound: 1e-6,
        oracle: oracle::silus,
        run: silu,
    },
    Kernel {
        call: "silu",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("bf16", "R=3 D=37", "storage=bf16"), case("f16", "R=3 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::silus,
        run: silu,
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
        oracle: oracle::gelus,
        run: gelu,
    },
    Kernel {
        call: "gelu",
        signature: "x[R,D] -> out[R,D]",
        cases: &[
            case("bf16", "R=3 D=37", "kind=tanh storage=bf16"),
            case("f16", "R=3 D=70", "kind=erf storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::gelus,
        run: gelu,
    },
    Kernel {
        call: "swiglu",
        signature: "gate[R,D] up[R,D] -> out[R,D]",
        cases: &[case("odd", "R=3 D=37", ""), case("threads", "R=257 D=1025", "")],
        bound: 1e-6,
        oracle: oracle::swiglu,
        run: swiglu,
    },
    Kernel {
        call: "swiglu",
        signature: "gate[R,D] up[R,D] -> out[R,D]",
        cases: &[case("bf16", "R=3 D=37", "storage=bf16"), case("f16", "R=3 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::swiglu,
        run: swiglu,
    },
    Kernel {
        call: "geglu",
        signature: "gate[R,D] up[R,D] -> out[R,D]",
        cases: &[case("tanh", "R=3 D=37", "kind=tanh"), case("erf", "R=3 D=37", "kind=erf")],
        bound: 1e-6,
        oracle: oracle::geglu,
        run: geglu,
    },
    Kernel {
        call: "geglu",
        signature: "gate[R,D] up[R,D] -> out[R,D]",
        cases: &[
            case("bf16", "R=3 D=37", "kind=tanh storage=bf16"),
            case("f16", "R=3 D=70", "kind=erf storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::geglu,
        run: geglu,
    },
    Kernel {
        call: "softmax",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("odd", "R=3 D=37", ""), case("threads", "R=65 D=4097", "")],
        bound: 1e-6,
        oracle: oracle::softmax,
        run: softmax,
    },
    Kernel {
        call: "softmax",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("bf16", "R=3 D=37", "storage=bf16"), case("f16", "R=3 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::softmax,
        run: softmax,
    },
    Kernel {
        call: "log_softmax",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("odd", "R=3 D=37", ""), case("threads", "R=65 D=4097", "")],
        bound: 1e-6,
        oracle: oracle::log_softmax,
        run: log_softmax,
    },
    Kernel {
        call: "log_softmax",
        signature: "x[R,D] -> out[R,D]",
        cases: &[case("bf16", "R=3 D=37", "storage=bf16"), case("f16", "R=3 D=70", "storage=f16")],
        bound: ROUNDED,
        oracle: oracle::log_softmax,
        run: log_softmax,
    },
    Kernel {
        call: "embedding",
        signature: "table[V,D] -> out[N,D]",
        cases: &[
            case("rows", "V=9 D=37 N=6", "indices=3,0,8,3,1,7"),
            case("bf16", "V=9 D=37 N=2", "indices=8,0 storage=bf16"),
            case("f16", "V=3 D=70 N=2", "indices=2,2 storage=f16"),
        ],
        bound: 0.0,
        oracle: oracle::embedding,
        run: |x, a, out| {
            let table = own::<Ix2>(&x[0], a);
            into(out, a, |out| nn::embedding(table.view(), &a.list::<i64>("indices"), out))
        },
    },
    Kernel {
        call: "cfg_combine",
        signature: "cond[R,D] uncond[R,D] -> out[R,D]",
        cases: &[
            case("plain", "R=3 D=37", "scale=4.5 rescale=0"),
            case("rescaled", "R=3 D=2500", "scale=7.5 rescale=0.7"),
        ],
        bound: 4e-6,
        oracle: oracle::cfg_combine,
        run: guided,
    },
    Kernel {
        call: "cfg_combine",
        signature: "cond[R,D] uncond[R,D] -> out[R,D]",
        cases: &[
            case("bf16", "R=3 D=37", "scale=4.5 rescale=0.7 storage=bf16"),
            case("f16", "R=3 D=70", "scale=1.5 rescale=0 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::cfg_combine,
        run: guided,
    },
    Kernel {
        call: "rope_axial_tables",
        signature: "positions[T,A] -> cos[T,E]",
        cases: &[
            case("two", "T=12 A=2 E=10", "dims=4,6 theta=100"),
            case("three", "T=65 A=3 E=128", "dims=16,56,56 theta=10000"),
        ],
        bound: 1e-6,
        oracle: oracle::rope_axial_tables,
        run: |x, a, cos| {
            // Cosines, then sines.
            let cos = target::<Ix2>(cos);
            let half = cos.ncols() / 2;
            let (cos, sin) = cos.split_at(Axis(1), half);
            nn::rope_axial_tables(view(&x[0]), &a.list::<usize>("dims"), a.number("theta"), cos, sin)
        },
    },
    Kernel {
        call: "timestep_embedding",
        signature: "t[B] -> out[B,D]",
        cases: &[case("two", "B=5 D=2", "max_period=10000"), case("wide", "B=65 D=128", "max_period=10000")],
        bound: 1e-6,
        oracle: oracle::timestep_embedding,
        run: timestep_embedding,
    },
    Kernel {
        call: "timestep_embedding",
        signature: "t[B] -> out[B,D]",
        cases: &[
            case("bf16", "B=5 D=10", "max_period=10000 storage=bf16"),
            case("f16", "B=5 D=10", "max_period=10000 storage=f16"),
        ],
        bound: ROUNDED,
        oracle: oracle::timestep_embedding,
        run: timestep_embedding,
    },
    Kernel {
        call: "patchify",
        signature: "x[B,C,H,W] -> out[B,N,K]",
        cases: PATCHES,
        bound: 0.0,
        oracle: oracle::patchify,
        run: |x, a, out| {
            let images = own::<Ix4>(&x[0], a);
            into(out, a, |out| nn::patchify(images.view(), a.number("patch"), out))
        },
    },
    Kernel {
        call: "unpatchify",
        signature: "x[B,N,K] -> out[B,C,H,W]",
        cases: PATCHES,
        bound: 0.0,
        oracle: oracle::unpatchify,
        run: |x, a, out| {
            let tokens = own::<Ix3>(&x[0], a);
            into(out, a, |out| nn::unpatchify(tokens.view(), a.number("patch"), out))
        },
    },
];
