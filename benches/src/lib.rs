//! What is timed: every kernel at the shapes that matter, listed once.
//!
//! `benches/kernels.rs` gives the list to criterion (statistics, comparison with the last run);
//! `src/bin/limits.rs` measures it beside the FMA peak of the same run.

use dgm_core::attention::{AttentionOptions, attention, attention_backward};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use ndarray::{Array2, Array3, Array4};

/// One kernel on one shape.
pub struct Case {
    /// The kernel: criterion's group.
    pub kernel: &'static str,
    /// Shape and options.
    pub name: String,
    /// Floating-point operations a call cannot do without (a fused multiply-add is two).
    pub work: u64,
    /// One call.
    pub call: Box<dyn FnMut()>,
}

fn wave(i: usize) -> f32 {
    ((i * 7919) % 1009) as f32 / 504.5 - 1.0
}

/// Every case.
#[must_use]
pub fn cases() -> Vec<Case> {
    let mut cases = attention_cases();
    cases.extend(backward_cases());
    cases.extend(linear_cases());
    cases
}

fn attention_cases() -> Vec<Case> {
    [
        (8, 16, 64, false),
        (8, 64, 64, false),
        (8, 256, 64, false),
        (2, 1024, 64, false),
        (2, 1024, 64, true),
        (2, 1024, 72, false),
        (2, 1024, 128, false),
    ]
    .into_iter()
    .map(|(heads, tokens, dim, causal)| {
        let tensor = |seed: usize| {
            Array4::from_shape_fn((1, heads, tokens, dim), |(_, h, l, d)| {
                wave(seed + (h * tokens + l) * dim + d)
            })
        };
        let (q, k, v) = (tensor(1), tensor(2), tensor(3));
        let mut out = Array4::<f32>::zeros((1, heads, tokens, dim));
        let options = AttentionOptions { causal, ..Default::default() };
        let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
        Case {
            kernel: "attention",
            name: format!("h{heads} l{tokens} d{dim}{}", if causal { " causal" } else { "" }),
            work: (4 * heads * pairs * dim) as u64,
            call: Box::new(move || {
                attention(q.view(), k.view(), v.view(), &options, out.view_mut(), None).expect("valid");
            }),
        }
    })
    .collect()
}

/// Five products of a pair of tiles are necessary, whatever the schedule does.
fn backward_cases() -> Vec<Case> {
    [
        (8, 64, 64, false),
        (8, 256, 64, false),
        (2, 1024, 64, false),
        (2, 1024, 64, true),
        (2, 1024, 72, false),
        (2, 1024, 128, false),
        (1, 1024, 64, false),
    ]
    .into_iter()
    .map(|(heads, tokens, dim, causal)| {
        let shape = (1, heads, tokens, dim);
        let tensor = |seed: usize| {
            Array4::from_shape_fn(shape, |(_, h, l, d)| wave(seed + (h * tokens + l) * dim + d))
        };
        let (q, k, v, dout) = (tensor(1), tensor(2), tensor(3), tensor(4));
        let (mut out, mut lse) = (Array4::<f32>::zeros(shape), Array3::zeros((1, heads, tokens)));
        let options = AttentionOptions { causal, ..Default::default() };
        attention(q.view(), k.view(), v.view(), &options, out.view_mut(), Some(lse.view_mut()))
            .expect("valid");
        let [mut dq, mut dk, mut dv] = [(); 3].map(|()| Array4::<f32>::zeros(shape));
        let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
        Case {
            kernel: "attention_backward",
            name: format!("h{heads} l{tokens} d{dim}{}", if causal { " causal" } else { "" }),
            work: (10 * heads * pairs * dim) as u64,
            call: Box::new(move || {
                attention_backward(
                    q.view(),
                    k.view(),
                    v.view(),
                    out.view(),
                    lse.view(),
                    dout.view(),
                    &options,
                    dq.view_mut(),
                    dk.view_mut(),
                    dv.view_mut(),
                    None,
                )
                .expect("valid");
            }),
        }
    })
    .collect()
}

fn linear_cases() -> Vec<Case> {
    [
        (1, 384, 1152, Activation::None),
        (16, 128, 384, Activation::None),
        (64, 384, 1152, Activation::None),
        (256, 384, 1536, Activation::None),
        (256, 384, 1536, Activation::GeluTanh),
        (256, 1536, 384, Activation::None),
        (512, 1024, 1024, Activation::None),
    ]
    .into_iter()
    .map(|(rows, inputs, outputs, act)| {
        let x = Array2::from_shape_fn((rows, inputs), |(i, j)| wave(i * inputs + j));
        let weight = Array2::from_shape_fn((outputs, inputs), |(i, j)| wave(1 + i * inputs + j));
        let packed = PackedLinear::pack(weight.view(), None).expect("shapes fit");
        let mut out = Array2::zeros((rows, outputs));
        Case {
            kernel: "linear",
            name: format!("m{rows} k{inputs} n{outputs} {act:?}"),
            work: (2 * rows * inputs * outputs) as u64,
            call: Box::new(move || linear(x.view(), &packed, act, out.view_mut()).expect("valid")),
        }
    })
    .collect()
}
