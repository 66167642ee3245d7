//! What is timed: every kernel at the shapes that matter, listed once.
//!
//! `benches/kernels.rs` gives the list to criterion (statistics, comparison with the last run);
//! `src/bin/limits.rs` measures it beside the FMA peak of the same run.

use dgm_core::attention::{AttentionOptions, KvCache, attention, attention_backward, attention_paged};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::tensor::{Floats, FloatsMut, bf16, f16};
use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView4, ArrayViewMut2, ArrayViewMut4, Ix2, Ix4};

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
    /// Bytes a call has to read, where reading rather than arithmetic is the limit.
    pub bytes: Option<u64>,
    /// One call.
    pub call: Box<dyn FnMut()>,
}

impl Case {
    /// What the speed is compared with, as benchmark results name it.
    #[must_use]
    pub fn limit(&self) -> &'static str {
        match (self.bytes, self.dtype) {
            (Some(_), _) => "read",
            (None, "bf16") => "fma_bf16",
            (None, _) => "fma_f32",
        }
    }
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
    cases.extend(decode_cases());
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
    cases.extend(option_cases());
    cases.extend(attention_of("bf16", &shapes, bf16::from_f32));
    cases.extend(attention_of("f16", &shapes[6..9], f16::from_f32));
    cases
}

/// Every option on the same shape, beside none, but the window on a longer one; work counts the elements that
/// are seen.
fn option_cases() -> Vec<Case> {
    const HEADS: usize = 4;
    const DIM: usize = 64;
    const WINDOW: usize = 511;
    let names = ["plain", "gqa", "lengths", "window", "soft_cap", "alibi", "sinks", "mask", "bias"];
    names
        .into_iter()
        .map(|option| {
            let tokens = if option == "window" { 8192 } else { 1024 };
            let kv_heads = if option == "gqa" { 1 } else { HEADS };
            let tensor = |seed: usize, heads: usize| {
                Array4::from_shape_fn((1, heads, tokens, DIM), |(_, h, l, d)| {
                    wave(seed + (h * tokens + l) * DIM + d)
                })
            };
            let (q, k, v) = (tensor(1, HEADS), tensor(2, kv_heads), tensor(3, kv_heads));
            let square = |name: &str| if option == name { tokens } else { 1 };
            let (n, m) = (square("bias"), square("mask"));
            let bias = Array4::from_shape_fn((1, HEADS, n, n), |(_, h, i, j)| wave(h + i * 3 + j));
            let mask = Array4::from_shape_fn((1, 1, m, m), |(_, _, i, j)| u8::from((i + j) % 3 > 0));
            let mut out = Array4::<f32>::zeros((1, HEADS, tokens, DIM));
            let pairs = match option {
                "lengths" => tokens * 700,
                "window" => (0..tokens).map(|i| (i + 1).min(WINDOW + 1)).sum(),
                _ => tokens * tokens,
            };
            Case {
                kernel: "attention",
                dtype: "f32",
                name: format!("h{HEADS} l{tokens}x{tokens} d{DIM} option {option}"),
                work: (4 * HEADS * pairs * DIM) as u64,
                bytes: None,
                call: Box::new(move || {
                    let options = AttentionOptions {
                        kv_lengths: (option == "lengths").then_some(&[700]),
                        window_left: (option == "window").then_some(WINDOW),
                        causal: option == "window",
                        soft_cap: (option == "soft_cap").then_some(30.0),
                        alibi_slopes: (option == "alibi").then_some(&[0.5, 0.25, 0.125, 0.0625]),
                        sinks: (option == "sinks").then_some(&[1.0, 0.5, 0.0, -1.0]),
                        bias: (option == "bias").then(|| bias.view()),
                        mask: (option == "mask").then(|| mask.view()),
                        ..Default::default()
                    };
                    attention(q.view(), k.view(), v.view(), &options, out.view_mut(), None).expect("valid");
                }),
            }
        })
        .collect()
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
            bytes: None,
            call: Box::new(move || {
                attention(q.view(), k.view(), v.view(), &options, out.view_mut(), None).expect("valid");
            }),
        }
    };
    shapes.iter().map(case).collect()
}

fn backward_cases() -> Vec<Case> {
    let shapes = [
        (8, 64, 64, false),
        (8, 256, 64, false),
        (2, 1024, 64, false),
        (2, 1024, 64, true),
        (2, 1024, 72, false),
        (2, 1024, 128, false),
        (1, 1024, 64, false),
    ];
    let mut cases = backward_of::<f32>("f32", &shapes, |x| x);
    cases.extend(backward_of("bf16", &shapes[2..], bf16::from_f32));
    cases
}

/// Five products of a pair of tiles are necessary, whatever the schedule does.
fn backward_of<T: Copy + Default + 'static>(
    dtype: &'static str,
    shapes: &[(usize, usize, usize, bool)],
    number: fn(f32) -> T,
) -> Vec<Case>
where
    for<'a> ArrayView4<'a, T>: Into<Floats<'a, Ix4>>,
    for<'a> ArrayViewMut4<'a, T>: Into<FloatsMut<'a, Ix4>>,
{
    let case = |&(heads, tokens, dim, causal): &(usize, usize, usize, bool)| {
        let shape = (1, heads, tokens, dim);
        let tensor = |seed: usize| {
            Array4::from_shape_fn(shape, |(_, h, l, d)| number(wave(seed + (h * tokens + l) * dim + d)))
        };
        let (q, k, v, dout) = (tensor(1), tensor(2), tensor(3), tensor(4));
        let zeros = || Array4::from_elem(shape, T::default());
        let (mut out, mut lse) = (zeros(), Array3::zeros((1, heads, tokens)));
        let options = AttentionOptions { causal, ..Default::default() };
        attention(q.view(), k.view(), v.view(), &options, out.view_mut(), Some(lse.view_mut()))
            .expect("valid");
        let (mut dq, mut dk, mut dv) = (zeros(), zeros(), zeros());
        let pairs = if causal { tokens * (tokens + 1) / 2 } else { tokens * tokens };
        Case {
            kernel: "attention_backward",
            dtype,
            name: format!("h{heads} l{tokens} d{dim}{}", if causal { " causal" } else { "" }),
            work: (10 * heads * pairs * dim) as u64,
            bytes: None,
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
            bytes: None,
            call: Box::new(move || linear(x.view(), &packed, act, out.view_mut()).expect("valid")),
        }
    };
    shapes.iter().map(case).collect()
}

/// One new query of 32 heads against caches of 8 kv heads.
fn decode_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for (batch, keys) in [(1, 4096), (8, 4096), (1, 32768), (8, 32768)] {
        cases.push(decode_case::<f32>("f32", batch, keys, |x| x));
        cases.push(decode_case::<f16>("f16", batch, keys, f16::from_f32));
        cases.push(decode_case::<bf16>("bf16", batch, keys, bf16::from_f32));
        cases.push(paged_case(batch, keys));
    }
    cases
}

/// The same against pages of 16 tokens in int8.
fn paged_case(batch: usize, keys: usize) -> Case {
    const DIM: usize = 128;
    const PAGE: usize = 16;
    let q = Array4::from_shape_fn((batch, 32, 1, DIM), |(b, h, _, d)| wave((b * 32 + h) * DIM + d));
    let mut out = Array4::<f32>::zeros((batch, 32, 1, DIM));
    let pages = batch * keys / PAGE;
    // Neighbours in a sequence are no neighbours in memory.
    let table =
        Array2::from_shape_fn((batch, keys / PAGE), |(b, n)| ((n * 7919 % (keys / PAGE)) * batch + b) as i32);
    let lengths = vec![keys; batch];
    let scale = Array3::from_elem((pages, 8, PAGE), 1.0 / 127.0);
    let mut cache = None;
    Case {
        kernel: "decode",
        dtype: "int8",
        name: format!("b{batch} h32/8 l{keys} d{DIM} paged"),
        work: (4 * batch * 32 * keys * DIM) as u64,
        bytes: Some((2 * batch * 8 * keys * (DIM + 4)) as u64),
        call: Box::new(move || {
            let [k, v] = cache.get_or_insert_with(|| {
                [1, 2].map(|seed| {
                    let mut i = seed;
                    Array4::from_shape_simple_fn((pages, 8, PAGE, DIM), || {
                        i += 1;
                        (wave(i) * 127.0) as i8
                    })
                })
            });
            let cache = KvCache {
                k: k.view().into(),
                v: v.view().into(),
                k_scale: Some(scale.view()),
                v_scale: Some(scale.view()),
                block_table: Some(table.view()),
                lengths: &lengths,
            };
            attention_paged(q.view(), &cache, &AttentionOptions::default(), out.view_mut(), None)
                .expect("valid");
        }),
    }
}

fn decode_case<T: Copy + 'static>(dtype: &'static str, batch: usize, keys: usize, from: fn(f32) -> T) -> Case
where
    for<'a> Floats<'a, Ix4>: From<ArrayView4<'a, T>>,
{
    const DIM: usize = 128;
    let q = Array4::from_shape_fn((batch, 32, 1, DIM), |(b, h, _, d)| wave((b * 32 + h) * DIM + d));
    let mut out = Array4::<f32>::zeros((batch, 32, 1, DIM));
    // Made at the first call, so that a list of cases does not hold all their memory.
    let mut cache = None;
    Case {
        kernel: "decode",
        dtype,
        name: format!("b{batch} h32/8 l{keys} d{DIM}"),
        work: (4 * batch * 32 * keys * DIM) as u64,
        bytes: Some((2 * batch * 8 * keys * DIM * size_of::<T>()) as u64),
        call: Box::new(move || {
            let shape = (batch, 8, keys, DIM);
            let [k, v] = cache.get_or_insert_with(|| {
                [1, 2].map(|seed| {
                    let mut i = seed;
                    Array4::from_shape_simple_fn(shape, || {
                        i += 1;
                        from(wave(i))
                    })
                })
            });
            attention(q.view(), k.view(), v.view(), &AttentionOptions::default(), out.view_mut(), None)
                .expect("valid");
        }),
    }
}
