//! Attention whose two products a BLAS computes, against the native kernel.

use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::linalg::{Backend, backend, set_backend};
use half::f16;
use ndarray::{Array3, Array4, ArrayView4, s};

fn tensor(shape: [usize; 4], seed: usize) -> Array4<f32> {
    let n = |i: usize| ((i * 31 + 1) * seed % 1999) as f32 / 999.5 - 1.0;
    Array4::from_shape_vec(shape, (0..shape.iter().product()).map(n).collect()).unwrap()
}

type Result = (Array4<f32>, Array3<f32>);

/// One call with a back end; what lies between the rows of the result stays as it is.
fn run(
    b: Backend,
    q: ArrayView4<f32>,
    k: ArrayView4<f32>,
    v: ArrayView4<f32>,
    o: &AttentionOptions,
) -> Result {
    set_backend(b).unwrap();
    let (batch, heads, queries, _) = q.dim();
    let mut wide = Array4::from_elem((batch, queries, heads, 2 * v.dim().3), 7.0f32);
    let mut lse = Array3::from_elem((batch, heads, queries), f32::NAN);
    let out = wide.slice_mut(s![.., .., .., ..;2]).permuted_axes([0, 2, 1, 3]);
    attention(q, k, v, o, out, Some(lse.view_mut())).unwrap();
    assert!(wide.slice(s![.., .., .., 1..;2]).iter().all(|&x| x == 7.0));
    let out = wide.slice(s![.., .., .., ..;2]).permuted_axes([0, 2, 1, 3]).to_owned();
    let mut plain = Array4::from_elem(out.dim(), f32::NAN);
    attention(q, k, v, o, plain.view_mut(), None).unwrap();
    assert_eq!(out, plain, "strides and log-sum-exp change nothing");
    (out, lse)
}

/// Both round differently; each error is a few roundings of sums of magnitude 1.
fn near(got: &Result, want: &Result, what: &str) {
    let close = |a: &f32, b: &f32| a == b || (a - b).abs() <= 1e-5 * (1.0 + b.abs());
    assert!(got.0.iter().zip(&want.0).all(|(a, b)| close(a, b)), "{what}");
    assert!(got.1.iter().zip(&want.1).all(|(a, b)| close(a, b)), "{what}: log-sum-exp");
}

#[test]
#[ignore = "run in a process of its own"]
fn a_blas_multiplies_large_tiles() {
    assert_eq!(backend(), Backend::Blas);
    // Two query blocks and two key blocks, both with an end; grouped heads; a value size of its own.
    let (q, k, v) = (tensor([2, 2, 300, 16], 7), tensor([2, 1, 1100, 16], 13), tensor([2, 1, 1100, 12], 17));
    let q = q.mapv(|x| 4.0 * x);
    let bias = tensor([1, 2, 300, 1100], 11);
    let mut mask = tensor([2, 1, 300, 1100], 19).mapv(|x| u8::from(x < 0.5));
    mask.slice_mut(s![1, .., 5, ..]).fill(0);
    let mut hiding = bias.slice(s![.., .., ..1, ..]).to_owned();
    hiding.slice_mut(s![.., 1, .., 700..]).fill(f32::NEG_INFINITY);
    let plain = AttentionOptions::default();
    let cases = [
        ("plain", plain),
        ("scale", AttentionOptions { scale: Some(0.1), ..plain }),
        ("causal", AttentionOptions { causal: true, ..plain }),
        ("lengths", AttentionOptions { kv_lengths: Some(&[1100, 3]), ..plain }),
        ("no keys", AttentionOptions { kv_lengths: Some(&[0, 600]), ..plain }),
        ("causal lengths", AttentionOptions { causal: true, kv_lengths: Some(&[200, 600]), ..plain }),
        ("soft-cap", AttentionOptions { soft_cap: Some(2.0), ..plain }),
        ("slopes", AttentionOptions { alibi_slopes: Some(&[0.5, 0.01]), ..plain }),
        ("sinks", AttentionOptions { sinks: Some(&[f32::NEG_INFINITY, 9.0]), ..plain }),
        ("bias", AttentionOptions { bias: Some(bias.view()), ..plain }),
        ("bias that hides", AttentionOptions { bias: Some(hiding.view()), ..plain }),
        ("mask", AttentionOptions { mask: Some(mask.view()), ..plain }),
        (
            "all",
            AttentionOptions {
                causal: true,
                kv_lengths: Some(&[1100, 900]),
                soft_cap: Some(3.0),
                alibi_slopes: Some(&[0.5, 0.0625]),
                sinks: Some(&[0.5, 3.0]),
                bias: Some(hiding.view()),
                mask: Some(mask.view()),
                ..plain
            },
        ),
    ];
    for (name, o) in cases {
        let want = run(Backend::Native, q.view(), k.view(), v.view(), &o);
        let got = run(Backend::Blas, q.view(), k.view(), v.view(), &o);
        near(&got, &want, name);
        // Sums in double differ in some last bit: the library was called.
        assert_ne!(got.0, want.0, "{name}");
    }
    // [B, L, H, D] memory, and more queries than keys: the first see none.
    let apart = |x: &Array4<f32>| x.view().permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned();
    let (qa, ka, va) = (apart(&q), apart(&k), apart(&v));
    let got = run(
        Backend::Blas,
        qa.view().permuted_axes([0, 2, 1, 3]),
        ka.view().permuted_axes([0, 2, 1, 3]),
        va.view().permuted_axes([0, 2, 1, 3]),
        &plain,
    );
    assert_eq!(got, run(Backend::Blas, q.view(), k.view(), v.view(), &plain));
    let long = tensor([1, 2, 1400, 16], 23);
    let causal = AttentionOptions { causal: true, ..plain };
    let (k1, v1) = (k.slice(s![..1, .., .., ..]), v.slice(s![..1, .., .., ..]));
    let want = run(Backend::Native, long.view(), k1, v1, &causal);
    let got = run(Backend::Blas, long.view(), k1, v1, &causal);
    near(&got, &want, "without keys");
    assert!(got.0.slice(s![.., .., ..300, ..]).iter().all(|&x| x == 0.0));
    assert!(got.1.slice(s![.., .., ..300]).iter().all(|&x| x == f32::NEG_INFINITY));
    // A NaN that is used is seen.
    let mut k2 = k.clone();
    k2[[0, 0, 1099, 3]] = f32::NAN;
    let got = run_nan(q.view(), k2.view(), v.view());
    assert!(got.slice(s![0, .., .., ..]).iter().all(|x| x.is_nan()));
    assert!(got.slice(s![1, .., .., ..]).iter().all(|x| x.is_finite()));
}

fn run_nan(q: ArrayView4<f32>, k: ArrayView4<f32>, v: ArrayView4<f32>) -> Array4<f32> {
    set_backend(Backend::Blas).unwrap();
    let mut out = Array4::zeros((q.dim().0, q.dim().1, q.dim().2, v.dim().3));
    attention(q, k, v, &AttentionOptions::default(), out.view_mut(), None).unwrap();
    out
}

#[test]
#[ignore = "run in a process of its own"]
fn other_calls_stay_native_to_the_bit() {
    let (q, k, v) = (tensor([1, 2, 300, 16], 7), tensor([1, 2, 600, 16], 13), tensor([1, 2, 600, 16], 17));
    let plain = AttentionOptions::default();
    let causal = AttentionOptions { causal: true, ..plain };
    let same =
        |q: ArrayView4<f32>, k: ArrayView4<f32>, v: ArrayView4<f32>, o: &AttentionOptions, what: &str| {
            let native = run(Backend::Native, q, k, v, o);
            assert_eq!(run(Backend::Blas, q, k, v, o), native, "{what}");
        };
    let (few, short) = (s![.., .., ..255, ..], s![.., .., ..255, ..]);
    same(q.slice(few), k.view(), v.view(), &plain, "few queries");
    same(q.view(), k.slice(short), v.slice(short), &plain, "few keys");
    same(q.view(), k.view(), v.view(), &causal, "causal with fewer keys than 1024");
    let left = AttentionOptions { window_left: Some(64), ..plain };
    let right = AttentionOptions { window_right: Some(64), ..plain };
    same(q.view(), k.view(), v.view(), &left, "window");
    same(q.view(), k.view(), v.view(), &right, "window");
    let columns = tensor([1, 2, 600, 32], 13);
    same(q.view(), columns.slice(s![.., .., .., ..;2]), v.view(), &plain, "columns apart");
    same(q.view(), k.view(), columns.slice(s![.., .., .., ..;2]), &plain, "columns apart");
    // What hidden elements hold never reaches the result.
    let mut mask = Array4::from_elem((1, 1, 1, 600), 1u8);
    mask[[0, 0, 0, 77]] = 0;
    let masked = AttentionOptions { mask: Some(mask.view()), ..plain };
    let mut wild = v.clone();
    wild.slice_mut(s![.., .., 77, ..]).fill(f32::NAN);
    same(q.view(), k.view(), wild.view(), &masked, "a NaN behind a mask");
    // 16 bits.
    let half = k.mapv(f16::from_f32);
    let mut out = [Backend::Native, Backend::Blas].map(|b| {
        set_backend(b).unwrap();
        let mut out = Array4::<f32>::zeros((1, 2, 300, 16));
        attention(q.view(), half.view(), half.view(), &plain, out.view_mut(), None).unwrap();
        out
    });
    assert_eq!(out[0], out[1]);
    // And the same values as f32 do not.
    let wide = half.mapv(f32::from);
    attention(q.view(), wide.view(), wide.view(), &plain, out[1].view_mut(), None).unwrap();
    assert_ne!(out[0], out[1]);
}

/// Called where `DGM_BACKEND=blas` names a library that is not there.
pub fn without_a_blas_the_native_kernel_runs() {
    assert_eq!(backend(), Backend::Native);
    let (q, k) = (tensor([1, 1, 300, 16], 7), tensor([1, 1, 600, 16], 13));
    let mut asked = Array4::from_elem((1, 1, 300, 16), f32::NAN);
    attention(q.view(), k.view(), k.view(), &AttentionOptions::default(), asked.view_mut(), None).unwrap();
    let native = run(Backend::Native, q.view(), k.view(), k.view(), &AttentionOptions::default());
    assert_eq!(asked, native.0);
}
