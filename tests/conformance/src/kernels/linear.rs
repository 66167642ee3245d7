//! Linear layers.

use dgm_core::Result;
use dgm_core::linalg::{Activation, LinearOptions, PackedLinear, Residual, linear};
use ndarray::{ArrayViewD, ArrayViewMutD, Ix1, Ix2};

use super::{case, own, target, view};
use crate::{Args, Kernel, oracle};

fn activation(a: &Args) -> Activation {
    match a.text("activation") {
        "silu" => Activation::Silu,
        "gelu_tanh" => Activation::GeluTanh,
        _ => Activation::None,
    }
}

/// `residual + gate * act(x weight^T + bias)`
fn gate_and_residual(x: &[ArrayViewD<f32>], a: &Args, out: ArrayViewMutD<f32>) -> Result<()> {
    let [input, weight, gate, residual] = [0, 1, 3, 4].map(|i| own::<Ix2>(&x[i], a));
    let packed = PackedLinear::pack(weight.view(), Some(view::<Ix1>(&x[2]).into()))?;
    let (gate, residual) = (Some(gate.view()), Residual::Rows(residual.view()));
    let options = LinearOptions { activation: activation(a), gate, residual };
    linear(input.view(), &packed, options, target::<Ix2>(out))
}

/// What is listed of linear layers.
pub(super) const KERNELS: &[Kernel] = &[
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
            let [input, weight] = [0, 1].map(|i| own::<Ix2>(&x[i], a));
            let packed = PackedLinear::pack(weight.view(), Some(view::<Ix1>(&x[2]).into()))?;
            linear(input.view(), &packed, activation(a), target::<Ix2>(out))
        },
    },
    Kernel {
        call: "linear",
        signature: "x[R,I] weight[O,I] bias[O] gate[R,O] residual[R,O] -> out[R,O]",
        cases: &[
            case("gate_residual", "R=7 I=37 O=19", "activation=none"),
            case("gate_residual_silu", "R=5 I=40 O=64", "activation=silu"),
            case("gate_residual_bf16", "R=14 I=139 O=70", "activation=none storage=bf16"),
            case("gate_residual_f16", "R=3 I=70 O=33", "activation=gelu_tanh storage=f16"),
        ],
        bound: 2e-5,
        oracle: oracle::linear_gate_residual,
        run: gate_and_residual,
    },
    Kernel {
        call: "linear",
        signature: "x[R,I] weight[O,I] bias[O] gate[G,O] residual[P,O] -> out[R,O]",
        cases: &[
            // Of a number of rows for each of the gate's, and with a residual that repeats.
            case("gate_of_groups", "R=6 I=37 O=40 G=2 P=3", "activation=none groups_of_rows=2"),
            case("gate_for_all", "R=150 I=130 O=195 G=1 P=1", "activation=silu groups_of_rows=1"),
            case(
                "gate_of_groups_bf16",
                "R=12 I=64 O=64 G=3 P=6",
                "activation=none groups_of_rows=3 storage=bf16",
            ),
        ],
        bound: 2e-5,
        oracle: oracle::linear_gate_residual,
        run: gate_and_residual,
    },
    Kernel {
        call: "linear",
        signature: "x[R,I] gate[O,I] up[O,I] gate_bias[O] up_bias[O] -> out[R,O]",
        cases: &[
            case("swiglu", "R=7 I=37 O=19", "activation=silu gated=1"),
            case("geglu_threads", "R=131 I=150 O=195", "activation=gelu_tanh gated=1"),
            case("bilinear", "R=1 I=3 O=33", "activation=none gated=1"),
            case("swiglu_bf16", "R=14 I=139 O=70", "activation=silu gated=1 storage=bf16"),
            case("swiglu_f16", "R=5 I=70 O=16", "activation=silu gated=1 storage=f16"),
        ],
        // Sums of 150 terms times each other.
        bound: 2e-4,
        oracle: oracle::linear_gated,
        run: |x, a, out| {
            let [input, gate, up] = [0, 1, 2].map(|i| own::<Ix2>(&x[i], a));
            let [gate_bias, up_bias] = [3, 4].map(|i| Some(view::<Ix1>(&x[i]).into()));
            let packed = PackedLinear::pack_gated(gate.view(), up.view(), gate_bias, up_bias)?;
            linear(input.view(), &packed, activation(a), target::<Ix2>(out))
        },
    },
];
