//! What is timed: every kernel at the shapes that matter, listed once.
//!
//! `benches/kernels.rs` gives the list to criterion (statistics, comparison with the last run);
//! `src/bin/limits.rs` measures it beside the FMA peak of the same run.

use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::tensor::{Floats, FloatsMut, bf16, f16};
use ndarray::{Array2, Array4, ArrayView2, ArrayView4, ArrayViewMut2, ArrayViewMut4, Ix2, Ix4};

/// One kernel on one shape.
pub struct Case {
    /// The kernel: criterion's group.
    pub kernel: &'static str,
    /// What inputs and outputs are stored as.
    pub dtype: &'static str,
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
    cases.extend(linear_cases());
    cases
}

fn attention_cases() -> Vec<Case> {
    let shapes = [
        (8, 16, 16, 64, false),
        (8, 64, 64, 64, false),
        (384, 49, 49, 32, false),
        (8, 256, 256, 64, false),
        (16, 256, 256, 72, false),
        (4, 4096, 77, 64, false),
        (2, 1024, 1024, 64, false),
        (2, 1024, 1024, 64, true),
        (2, 1024, 1024, 72, false),
        (2, 1024, 1024, 72, true),
        (2, 1024, 1024, 128, false),
        (2, 1024, 1024, 128, true),
        (2, 1024, 1024, 40, false),
        (2, 1024, 1024, 80, false),
        (2, 1024, 1024, 160, false),
        (2, 1024, 1024, 256, false),
    ];
    let mut cases = attention_of::<f32>("f32", &shapes, |x| x);
    cases.extend(attention_of("bf16", &shapes, bf16::from_f32));
    cases.extend(attention_of("f16", &shapes[6..9], f16::from_f32));
    cases
}

/// Queries, keys, values and output of one type.
fn attention_of<T: Copy + Default + 'static>(
    dtype: &'static str,
    shapes: &[(usize, usize, usize, usize, bool)],
    number: fn(f32) -> T,
) -> Vec<Case>
where
    for<'a> ArrayView4<'a, T>: Into<Floats<'a, Ix4>>,
    for<'a> ArrayViewMut4<'a, T>: Into<FloatsMut<'a, Ix4>>,
{
    let case = |&(heads, tokens, keys, dim, causal): &(usize, usize, usize, usize, bool)| {
        let tensor = |seed: usize, tokens: usize| {
            Array4::from_shape_fn((1, heads, tokens, dim), |(_, h, l, d)| {
                number(wave(seed + (h * tokens + l) * dim + d))
            })
        };
        let (q, k, v) = (tensor(1, tokens), tensor(2, keys), tensor(3, keys));
        let mut out = Array4::from_elem((1, heads, tokens, dim), T::default());
        let options = AttentionOptions { causal, ..Default::default() };
        let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * keys };
        Case {
            kernel: "attention",
            dtype,
            name: format!("h{heads} l{tokens}x{keys} d{dim}{}", if causal { " causal" } else { "" }),
            work: (4 * heads * pairs * dim) as u64,
            call: Box::new(move || {
                attention(q.view(), k.view(), v.view(), &options, out.view_mut(), None).expect("valid");
            }),
        }
    };
    shapes.iter().map(case).collect()
}

fn linear_cases() -> Vec<Case> {
    let shapes = [
        (1, 384, 1152, Activation::None),
        (1, 4096, 4096, Activation::None),
        (16, 4096, 4096, Activation::None),
        (16, 128, 384, Activation::None),
        (64, 384, 1152, Activation::None),
        (256, 384, 1536, Activation::None),
        (256, 384, 1536, Activation::GeluTanh),
        (256, 1536, 384, Activation::None),
        (512, 1024, 1024, Activation::None),
    ];
    let mut cases = linear_of::<f32, f32>("f32", &shapes, |x| x, |x| x);
    cases.extend(linear_of("bf16", &shapes, bf16::from_f32, bf16::from_f32));
    cases.extend(linear_of("f16", &shapes[1..6], f16::from_f32, f16::from_f32));
    cases.extend(linear_of("f32 x bf16", &shapes[1..6], |x| x, bf16::from_f32));
    cases
}

/// `x` and output of one type, weights of another.
fn linear_of<T: Copy + Default + 'static, W: Copy>(
    dtype: &'static str,
    shapes: &[(usize, usize, usize, Activation)],
    number: fn(f32) -> T,
    weight: fn(f32) -> W,
) -> Vec<Case>
where
    for<'a> ArrayView2<'a, T>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayView2<'a, W>: Into<Floats<'a, Ix2>>,
    for<'a> ArrayViewMut2<'a, T>: Into<FloatsMut<'a, Ix2>>,
{
    let case = |&(rows, inputs, outputs, act): &(usize, usize, usize, Activation)| {
        let x = Array2::from_shape_fn((rows, inputs), |(i, j)| number(wave(i * inputs + j)));
        let weights = Array2::from_shape_fn((outputs, inputs), |(i, j)| weight(wave(1 + i * inputs + j)));
        let packed = PackedLinear::pack(weights.view(), None).expect("shapes fit");
        let mut out = Array2::from_elem((rows, outputs), T::default());
        Case {
            kernel: "linear",
            dtype,
            name: format!("m{rows} k{inputs} n{outputs} {act:?}"),
            work: (2 * rows * inputs * outputs) as u64,
            call: Box::new(move || linear(x.view(), &packed, act, out.view_mut()).expect("valid")),
        }
    };
    shapes.iter().map(case).collect()
}
