//! The list.

use dgm_core::Result;
use dgm_core::attention::{
    AttentionOptions, KvCache, attention, attention_backward, attention_merge, attention_paged,
    attention_varlen, attention_varlen_backward,
};
use dgm_core::linalg::{Activation, LinearOptions, PackedLinear, Residual, linear};
use dgm_core::nn::{self, Gelu};
use dgm_core::sampling::cfg_combine;
use dgm_core::tensor::FloatsMut;
use ndarray::{
    Array2, Array3, Array4, ArrayView, ArrayViewD, ArrayViewMut, ArrayViewMutD, Axis, Dimension, Ix1, Ix2,
    Ix3, Ix4, IxDyn,
};

use crate::storage::{Output, Stored};
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

/// An input in the type of a case.
fn own<'a, D: Dimension>(x: &'a ArrayViewD<f32>, a: &Args) -> Stored<'a, D> {
    Stored::new(view(x), a.text_or("storage", "f32"))
}

/// An output in the type of a case, widened.
fn into<D: Dimension>(
    out: ArrayViewMutD<f32>,
    a: &Args,
    f: impl FnOnce(FloatsMut<D>) -> Result<()>,
) -> Result<()> {
    let mut to = Output::new(target::<D>(out), a.text_or("storage", "f32"));
    f(to.view_mut())?;
    to.widen();
    Ok(())
}

fn gelu_kind(a: &Args) -> Gelu {
    if a.text("kind") == "erf" { Gelu::Erf } else { Gelu::Tanh }
}

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
        run: |x, a, out| {
            let t = own::<Ix1>(&x[0], a);
            into(out, a, |out| nn::timestep_embedding(t.view(), a.number("max_period"), out))
        },
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
        run: |x, a, out| {
            let t = own::<Ix1>(&x[0], a);
            into(out, a, |out| nn::timestep_embedding(t.view(), a.number("max_period"), out))
        },
    },
    Kernel {
        call: "patchify",
        signature: "x[B,C,H,W] -> out[B,N,K]",
        cases: &[
            case("two", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2"),
            case("threads", "B=4 C=3 H=300 W=304 N=22800 K=12", "patch=2"),
            case("bf16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=bf16"),
            case("f16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=f16"),
        ],
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
        cases: &[
            case("two", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2"),
            case("threads", "B=4 C=3 H=300 W=304 N=22800 K=12", "patch=2"),
            case("bf16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=bf16"),
            case("f16", "B=3 C=3 H=6 W=8 N=12 K=12", "patch=2 storage=f16"),
        ],
        bound: 0.0,
        oracle: oracle::unpatchify,
        run: |x, a, out| {
            let tokens = own::<Ix3>(&x[0], a);
            into(out, a, |out| nn::unpatchify(tokens.view(), a.number("patch"), out))
        },
    },
];
