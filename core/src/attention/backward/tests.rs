//! The gradients against the textbook, and the textbook against differences.

use ndarray::{Array3, Array4, ArrayView4, Zip};

use super::super::AttentionOptions;
use super::super::tests::tensor;
use super::oracle::{Grads, Inputs, bounds, exact, forward, naive, reduced, sees};
use super::{Arguments, Schedule};

/// Shapes `[B, H, Hkv, Lq, Lk, D, Dv]`.
pub(super) type Shape = [usize; 7];

pub(super) fn inputs([b, h, g, lq, lk, d, e]: Shape) -> Inputs<f32> {
    Inputs {
        q: tensor(1, [b, h, lq, d]),
        k: tensor(2, [b, g, lk, d]),
        v: tensor(3, [b, g, lk, e]),
        dout: tensor(4, [b, h, lq, e]),
        bias: None,
    }
}

/// The engine's gradients; the bias's has the bias's shape.
pub(super) fn backward(x: &Inputs<f32>, o: &AttentionOptions) -> Grads<f32> {
    let (out, lse) = forward(x, o);
    backward_of(x, out.view(), &lse, o)
}

pub(super) fn backward_of(
    x: &Inputs<f32>,
    out: ArrayView4<f32>,
    lse: &Array3<f32>,
    o: &AttentionOptions,
) -> Grads<f32> {
    scheduled(x, out, lse, o, None)
}

/// By a schedule.
pub(super) fn scheduled(
    x: &Inputs<f32>,
    out: ArrayView4<f32>,
    lse: &Array3<f32>,
    o: &AttentionOptions,
    schedule: Option<Schedule>,
) -> Grads<f32> {
    let shape = o.bias.map_or([1; 4], |x| [x.dim().0, x.dim().1, x.dim().2, x.dim().3]);
    // What is in the outputs must not matter.
    let mut to = Grads {
        dq: Array4::from_elem(x.q.dim(), 77.0),
        dk: Array4::from_elem(x.k.dim(), f32::NAN),
        dv: Array4::from_elem(x.v.dim(), f32::INFINITY),
        dbias: Array4::from_elem(shape, f32::NAN),
    };
    let arguments = Arguments {
        q: x.q.view().into(),
        k: x.k.view().into(),
        v: x.v.view().into(),
        out: out.into(),
        lse: lse.view(),
        dout: x.dout.view().into(),
        options: o,
        dq: to.dq.view_mut().into(),
        dk: to.dk.view_mut().into(),
        dv: to.dv.view_mut().into(),
        dbias: o.bias.map(|_| to.dbias.view_mut()),
    };
    arguments.run(schedule).unwrap();
    if o.bias.is_none() {
        to.dbias.fill(0.0);
    }
    to
}

/// With the bias of the options, one element for every score.
fn with_bias(x: &Inputs<f32>, o: &AttentionOptions) -> Inputs<f32> {
    let [b, h, _, lq, lk, ..] = x.shape();
    Inputs { bias: o.bias.map(|x| x.broadcast((b, h, lq, lk)).unwrap().to_owned()), ..x.clone() }
}

/// Gate A: over each result, the error is at most twice that of the unfused f32 program, and an
/// ulp of the largest sum of magnitudes, since small calls have few elements to find a worst one
/// in, and what the rounding of lse, which that program does not need, does to it. Gate B: every element is within [`bounds`].
pub(super) fn check(shape: Shape, o: &AttentionOptions) {
    let x = inputs(shape);
    let got = backward(&x, o);
    let x = with_bias(&x, o);
    let wide = x.map(|&x| f64::from(x));
    let (want, plain, (bound, mass)) =
        (exact::gradients(&wide, o), naive::gradients(&x, o), bounds(&wide, o));
    let finite = |at| exact::row(&wide, o, at).lse.abs();
    let lse = x.rows().map(finite).filter(|x| x.is_finite()).fold(0.0, f64::max);
    let gate = |name: &str,
                got: &Array4<f32>,
                want: &Array4<f64>,
                plain: &Array4<f32>,
                limit: [&Array4<f64>; 2]| {
        let (mut worst, mut worst_plain) = (0.0f64, 0.0f64);
        Zip::indexed(got).and(want).and(plain).and(limit[0]).for_each(|at, &got, &want, &plain, &bound| {
            let error = (f64::from(got) - want).abs();
            assert!(error <= bound, "{shape:?} {o:?} {name} {at:?}: {got:e} for {want:e}, bound {bound:e}");
            assert!(got != 0.0 || got.is_sign_positive(), "{name} {at:?} is -0");
            worst = worst.max(error);
            worst_plain = worst_plain.max((f64::from(plain) - want).abs());
        });
        let largest = limit[1].iter().copied().fold(0.0, f64::max);
        let most = 2.0 * worst_plain + f64::from(f32::EPSILON) * (1.0 + lse) * largest;
        assert!(worst <= most, "{shape:?} {o:?} {name}: {worst:e} against {worst_plain:e} at {largest}");
    };
    gate("dq", &got.dq, &want.dq, &plain.dq, [&bound.dq, &mass.dq]);
    gate("dk", &got.dk, &want.dk, &plain.dk, [&bound.dk, &mass.dk]);
    gate("dv", &got.dv, &want.dv, &plain.dv, [&bound.dv, &mass.dv]);
    if let Some(bias) = &o.bias {
        let n = bias.shape();
        // Sums of more terms have more roundings, of at most the sum of magnitudes.
        let terms = (want.dbias.len() / bias.len().max(1)) as f64 * f64::from(f32::EPSILON);
        let bound = reduced(&bound.dbias, n) + reduced(&want.dbias.mapv(f64::abs), n) * terms;
        let (want, plain) = (reduced(&want.dbias, n), reduced(&plain.dbias, n));
        gate("dbias", &got.dbias, &want, &plain, [&bound, &reduced(&mass.dbias, n)]);
    }
}

/// The oracle's derivatives against central differences of its own forward pass.
#[test]
fn the_oracle_agrees_with_differences() {
    let shape = [2, 4, 2, 5, 7, 3, 4];
    let (mask, bias) = (super::super::option_tests::mask(8, [2, 1, 5, 7]), tensor(9, [1, 4, 1, 7]));
    let all = AttentionOptions {
        scale: Some(0.7),
        window_left: Some(4),
        kv_lengths: Some(&[7, 5]),
        soft_cap: Some(1.5),
        alibi_slopes: Some(&[0.5, 0.25, 0.0, -0.1]),
        sinks: Some(&[0.5, -3.0, f32::NEG_INFINITY, 1.0]),
        bias: Some(bias.view()),
        mask: Some(mask.view()),
        ..Default::default()
    };
    for o in [
        AttentionOptions::default(),
        AttentionOptions { causal: true, ..Default::default() },
        AttentionOptions { bias: Some(bias.view()), ..Default::default() },
        AttentionOptions { soft_cap: Some(0.8), ..Default::default() },
        all,
    ] {
        let x = with_bias(&inputs(shape), &o).map(|&x| f64::from(x));
        let g = exact::gradients(&x, &o);
        let check = |name: &str, grad: &Array4<f64>, get: fn(&mut Inputs<f64>) -> &mut Array4<f64>| {
            for n in 0..grad.len() {
                let difference = |by: f64| {
                    let mut x = x.clone();
                    *get(&mut x).iter_mut().nth(n).unwrap() += by;
                    exact::loss(&x, &o)
                };
                const STEP: f64 = 1e-4;
                // Fourth order: the error is about STEP^4 and 1e-16 / STEP.
                let d = (8.0 * (difference(STEP) - difference(-STEP)) - difference(2.0 * STEP)
                    + difference(-2.0 * STEP))
                    / (12.0 * STEP);
                let got = *grad.iter().nth(n).unwrap();
                assert!((d - got).abs() <= 1e-10 * (1.0 + got.abs()), "{o:?} {name} {n}: {got} for {d}");
            }
        };
        check("dq", &g.dq, |x| &mut x.q);
        check("dk", &g.dk, |x| &mut x.k);
        check("dv", &g.dv, |x| &mut x.v);
        if o.bias.is_some() {
            check("dbias", &g.dbias, |x| x.bias.as_mut().unwrap());
        }
        assert!(x.rows().any(|[b, h, i]| (0..7).any(|j| sees(&o, 5, 7, [b, h, i, j]))));
    }
}

#[test]
fn head_sizes() {
    for dim in [1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 40, 64, 72, 80, 96, 111, 128] {
        check([1, 1, 1, 33, 49, dim, dim], &AttentionOptions::default());
        check([1, 1, 1, 5, 21, dim, dim % 7 + 1], &AttentionOptions::default());
        check([1, 1, 1, 5, 21, dim % 5 + 1, dim], &AttentionOptions::default());
    }
}

#[test]
fn lengths() {
    for queries in [1, 15, 16, 17, 63, 64, 65, 130] {
        for keys in [1, 15, 17, 127, 128, 129, 260] {
            for causal in [false, true] {
                let o = AttentionOptions { causal, ..Default::default() };
                check([1, 2, 2, queries, keys, 8, 8], &o);
            }
        }
    }
}

#[test]
fn long_sums() {
    check([1, 1, 1, 600, 700, 8, 8], &AttentionOptions { causal: true, ..Default::default() });
    check([1, 2, 1, 70, 1100, 24, 8], &AttentionOptions::default());
}

#[test]
fn grouped_heads() {
    for heads in [[4, 1], [4, 2], [7, 7], [14, 2]] {
        for queries in [1, 3, 65] {
            let o = AttentionOptions { causal: true, ..Default::default() };
            check([2, heads[0], heads[1], queries, 70, 12, 9], &o);
        }
    }
}

#[test]
fn each_option() {
    let shape = [2, 4, 2, 70, 200, 12, 9];
    let slopes = [0.5, 0.25, 0.125, 0.01];
    let sinks = [0.5, -3.0, f32::NEG_INFINITY, 4.0];
    for o in [
        AttentionOptions { scale: Some(0.5), ..Default::default() },
        AttentionOptions { window_left: Some(20), window_right: Some(3), ..Default::default() },
        AttentionOptions { causal: true, window_left: Some(130), ..Default::default() },
        AttentionOptions { kv_lengths: Some(&[131, 0]), ..Default::default() },
        AttentionOptions { causal: true, kv_lengths: Some(&[40, 200]), ..Default::default() },
        AttentionOptions { soft_cap: Some(1.0), ..Default::default() },
        AttentionOptions { alibi_slopes: Some(&slopes), causal: true, ..Default::default() },
        AttentionOptions { sinks: Some(&sinks), ..Default::default() },
        AttentionOptions { sinks: Some(&sinks), causal: true, soft_cap: Some(3.0), ..Default::default() },
    ] {
        check(shape, &o);
    }
    for mask_shape in [[1, 1, 1, 200], [2, 1, 70, 200], [1, 4, 70, 1], [2, 4, 70, 200], [1, 1, 1, 1]] {
        let mask = super::super::option_tests::mask(7, mask_shape);
        check(shape, &AttentionOptions { mask: Some(mask.view()), causal: true, ..Default::default() });
    }
}

#[test]
fn a_bias_of_any_shape() {
    let shape = [2, 4, 2, 70, 200, 12, 9];
    for n in 0..16 {
        let full = [2, 4, 70, 200];
        let some: [usize; 4] = std::array::from_fn(|d| if n >> d & 1 == 1 { full[d] } else { 1 });
        let bias = super::super::option_tests::bias(n as u64, some);
        for o in [
            AttentionOptions::default(),
            AttentionOptions {
                causal: true,
                soft_cap: Some(2.0),
                kv_lengths: Some(&[150, 200]),
                ..Default::default()
            },
        ] {
            check(shape, &AttentionOptions { bias: Some(bias.view()), ..o });
        }
    }
}

/// Shapes and options drawn at random. `DGM_CASES` asks for more than the usual number.
#[test]
fn drawn_cases() {
    let cases = std::env::var("DGM_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200);
    let mut state = 1u64;
    let mut draw = move |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % n
    };
    for case in 0..cases {
        let (batch, kv_heads, group) = (1 + draw(2), 1 + draw(2), 1 + draw(3));
        let heads = kv_heads * group;
        let (queries, keys) = (1 + draw(90), 1 + draw(150));
        let shape = [batch, heads, kv_heads, queries, keys, 1 + draw(20), 1 + draw(20)];
        let full = [batch, heads, queries, keys];
        let some = |n: usize| std::array::from_fn(|d| if n >> d & 1 == 1 { full[d] } else { 1 });
        let mask = super::super::option_tests::mask(case, some(draw(16)));
        let bias = super::super::option_tests::bias(case, some(draw(16)));
        let numbers: Vec<f32> = (0..heads).map(|_| draw(100) as f32 * 0.02 - 1.0).collect();
        let lengths: Vec<usize> = (0..batch).map(|_| draw(keys + 1)).collect();
        let o = AttentionOptions {
            scale: (draw(3) == 0).then_some(0.4),
            causal: draw(2) == 0,
            window_left: (draw(4) == 0).then(|| draw(80)),
            window_right: (draw(4) == 0).then(|| draw(80)),
            kv_lengths: (draw(4) == 0).then_some(&lengths[..]),
            soft_cap: (draw(4) == 0).then_some(1.5),
            alibi_slopes: (draw(4) == 0).then_some(&numbers[..]),
            sinks: (draw(4) == 0).then_some(&numbers[..]),
            bias: (draw(3) == 0).then_some(bias.view()),
            mask: (draw(4) == 0).then_some(mask.view()),
        };
        check(shape, &o);
    }
}
