//! Gradients of bfloat16: products of pairs, against the definition in scalars and against f64.

use std::f32::consts::LOG2_E;

use ndarray::{Array3, Array4, Zip, s};

use super::super::dot_tests::{Exp2, dot, in_parts};
use super::super::tests::{bits, serial};
use super::super::{AttentionOptions, KEY_TILE, chain_length};
use super::oracle::{Grads, Inputs, bounds, exact, sees};
use super::tests::{Shape, inputs};
use super::{Arguments, Schedule};
use crate::arch::{available_levels, dispatch, level, set_level};
use crate::attention::cut::MAX_ROWS;
use crate::math::Powers;
use crate::tensor::bf16;
use crate::threads;

/// Inputs that bfloat16 holds, as f32.
fn halves(shape: Shape) -> Inputs<f32> {
    inputs(shape).map(|&x| round(x))
}

fn round(x: f32) -> f32 {
    bf16::from_f32(x).to_f32()
}

/// The forward pass in f64, rounded once.
fn forward(x: &Inputs<f32>, o: &AttentionOptions) -> (Array4<f32>, Array3<f32>) {
    let wide = x.map(|&x| f64::from(x));
    let (b, h, l, _) = x.q.dim();
    let (mut out, mut lse) = (Array4::zeros((b, h, l, x.v.dim().3)), Array3::zeros((b, h, l)));
    for [b, h, i] in x.rows() {
        let row = exact::row(&wide, o, [b, h, i]);
        out.slice_mut(s![b, h, i, ..]).iter_mut().zip(row.out).for_each(|(to, x)| *to = x as f32);
        lse[[b, h, i]] = row.lse as f32;
    }
    (out, lse)
}

/// The engine's gradients of inputs in bfloat16.
fn backward(
    x: &Inputs<f32>,
    (out, lse): &(Array4<f32>, Array3<f32>),
    o: &AttentionOptions,
    schedule: Option<Schedule>,
) -> Grads<f32> {
    let [q, k, v, dout] = [&x.q, &x.k, &x.v, &x.dout].map(|x| x.mapv(bf16::from_f32));
    let shape = o.bias.map_or([1; 4], |x| [x.dim().0, x.dim().1, x.dim().2, x.dim().3]);
    let mut to = Grads {
        dq: Array4::from_elem(x.q.dim(), f32::NAN),
        dk: Array4::from_elem(x.k.dim(), f32::NAN),
        dv: Array4::from_elem(x.v.dim(), f32::NAN),
        dbias: Array4::from_elem(shape, f32::NAN),
    };
    let arguments = Arguments {
        q: q.view().into(),
        k: k.view().into(),
        v: v.view().into(),
        out: out.view().into(),
        lse: lse.view(),
        dout: dout.view().into(),
        options: o,
        dq: to.dq.view_mut().into(),
        dk: to.dk.view_mut().into(),
        dv: to.dv.view_mut().into(),
        dbias: o.bias.map(|_| to.dbias.view_mut()),
    };
    arguments.run(schedule).unwrap();
    to
}

/// Probabilities and gradients of scores of a row, for every key; 0 where it is hidden.
fn row(
    x: &Inputs<f32>,
    (out, lse): &(Array4<f32>, Array3<f32>),
    o: &AttentionOptions,
    [b, h, i]: [usize; 3],
) -> (Vec<f32>, Vec<f32>) {
    let [_, heads, kv_heads, lq, lk, dim, value_dim] = x.shape();
    let g = h / (heads / kv_heads);
    let (factor, _) = o.factors(dim);
    let pairs = |a: &Array4<f32>, b: &Array4<f32>, at: [usize; 3], of: [usize; 3], n: usize| {
        let number = |x: &Array4<f32>, [b, h, i]: [usize; 3], d: usize| {
            if d < n { x[[b, h, i, d]] } else { 0.0 }
        };
        dot((0..n.div_ceil(2)).map(|m| [2 * m, 2 * m + 1].map(|d| (number(a, at, d), number(b, of, d)))))
    };
    let delta = in_parts(value_dim, chain_length(value_dim), |e| [x.dout[[b, h, i, e]], out[[b, h, i, e]]]);
    let of_key = |j: usize| {
        if !sees(o, lq, lk, [b, h, i, j]) {
            return (0.0, 0.0);
        }
        let score = pairs(&x.k, &x.q, [b, g, j], [b, h, i], dim) * factor;
        let at = lse[[b, h, i]].mul_add(-LOG2_E, score);
        let p = dispatch(Exp2(at, Powers::SHORT));
        let dp = pairs(&x.v, &x.dout, [b, g, j], [b, h, i], value_dim);
        (p, if p == 0.0 { 0.0 } else { p * (dp - delta) })
    };
    (0..lk).map(of_key).unzip()
}

/// The gradients by the definition.
fn definition(x: &Inputs<f32>, forward: &(Array4<f32>, Array3<f32>), o: &AttentionOptions) -> Grads<f32> {
    let [batch, heads, kv_heads, lq, lk, dim, value_dim] = x.shape();
    let mut to = Grads {
        dq: Array4::zeros(x.q.dim()),
        dk: Array4::zeros(x.k.dim()),
        dv: Array4::zeros(x.v.dim()),
        dbias: Array4::zeros((1, 1, 1, 1)),
    };
    // A chain over the pairs of a range; what has no probability is left out.
    let chain = |range: std::ops::Range<usize>, number: &dyn Fn(usize) -> (f32, f32)| {
        dot((range.start..range.end)
            .step_by(2)
            .map(|n| [n, n + 1].map(|n| if range.contains(&n) { number(n) } else { (0.0, 0.0) })))
    };
    for (b, h) in (0..batch * heads).map(|n| (n / heads, n % heads)) {
        let g = h / (heads / kv_heads);
        let rows: Vec<_> = (0..lq).map(|i| row(x, forward, o, [b, h, i])).collect();
        let p = |i: usize, j: usize| rows[i].0[j];
        let ds = |i: usize, j: usize| round(rows[i].1[j]);
        let or_zero = |p: f32, x: (f32, f32)| if p == 0.0 { (0.0, 0.0) } else { x };
        for tile in (0..lq).step_by(MAX_ROWS) {
            let tile = tile..lq.min(tile + MAX_ROWS);
            for j in 0..lk {
                for e in 0..value_dim {
                    to.dv[[b, g, j, e]] +=
                        chain(tile.clone(), &|i| or_zero(p(i, j), (round(p(i, j)), x.dout[[b, h, i, e]])));
                }
                for d in 0..dim {
                    to.dk[[b, g, j, d]] +=
                        chain(tile.clone(), &|i| or_zero(p(i, j), (ds(i, j), x.q[[b, h, i, d]])));
                }
            }
        }
        for (i, d) in (0..lq * dim).map(|n| (n / dim, n % dim)) {
            for tile in (0..lk).step_by(KEY_TILE) {
                to.dq[[b, h, i, d]] += chain(tile..lk.min(tile + KEY_TILE), &|j| {
                    or_zero(p(i, j), (x.k[[b, g, j, d]], ds(i, j)))
                });
            }
        }
    }
    let scale = o.scale(dim);
    to.dq.mapv_inplace(|x| x * scale + 0.0);
    to.dk.mapv_inplace(|x| x * scale + 0.0);
    to
}

const SHAPES: [Shape; 8] = [
    [1, 1, 1, 1, 1, 1, 1],
    [2, 4, 2, 3, 7, 9, 5],
    [1, 2, 1, 70, 261, 40, 17],
    [1, 1, 1, 64, 129, 64, 64],
    [1, 2, 2, 17, 300, 6, 33],
    [1, 1, 1, 129, 40, 65, 16],
    [2, 2, 1, 33, 128, 32, 48],
    [1, 3, 1, 130, 131, 16, 8],
];

#[test]
fn bits_are_those_of_the_definition_at_every_level_thread_count_and_schedule() {
    let _guard = serial();
    let first = level();
    for shape in SHAPES {
        let mut x = halves(shape);
        let mask = Array4::from_shape_fn((1, 1, shape[3], shape[4]), |(_, _, i, j)| {
            // The first key and the last query are hidden.
            u8::from((i * 7 + j * 5) % 3 != 0 && j != 0 && i + 1 != shape[3])
        });
        let lengths: Vec<usize> = [121, 3].into_iter().take(shape[0]).map(|n| shape[4].min(n)).collect();
        for (n, o) in [
            AttentionOptions::default(),
            AttentionOptions { causal: true, scale: Some(0.7), ..Default::default() },
            AttentionOptions { causal: true, window_left: Some(100), ..Default::default() },
            AttentionOptions { kv_lengths: Some(&lengths), window_left: Some(9), ..Default::default() },
            AttentionOptions { mask: Some(mask.view()), ..Default::default() },
            AttentionOptions { mask: Some(mask.view()), ..Default::default() },
        ]
        .into_iter()
        .enumerate()
        {
            let of = forward(&x, &o);
            if n == 5 {
                // What a mask hides has no say, whatever it holds.
                for x in [&mut x.k, &mut x.v] {
                    x.slice_mut(s![.., .., 0, ..]).fill(f32::NAN);
                }
                for x in [&mut x.q, &mut x.dout] {
                    x.slice_mut(s![.., .., -1, ..]).fill(f32::INFINITY);
                }
            }
            let want = definition(&x, &of, &o);
            assert!([&want.dq, &want.dk, &want.dv].into_iter().flatten().all(|x| x.is_finite()));
            for l in available_levels() {
                set_level(l).unwrap();
                for (t, schedule) in [(1, Schedule::Heads), (3, Schedule::Tiles(1)), (2, Schedule::Tiles(2))]
                {
                    threads::set_num_threads(t).unwrap();
                    let got = backward(&x, &of, &o, Some(schedule));
                    for (name, got, want) in
                        [("dq", &got.dq, &want.dq), ("dk", &got.dk, &want.dk), ("dv", &got.dv, &want.dv)]
                    {
                        assert!(bits(got) == bits(want), "{name} {shape:?} options {n} {l:?} {schedule:?}");
                    }
                }
            }
            set_level(first).unwrap();
        }
    }
}

/// An error of rounding probabilities and gradients of scores to bfloat16, and those of the pass in f32.
#[test]
fn every_gradient_is_within_its_bound_of_f64() {
    let slopes = [0.5, 0.25, 0.0, -0.1];
    let bias = super::super::option_tests::bias(7, [1, 4, 70, 260]);
    let every = super::super::option_tests::bias(8, [2, 4, 70, 260]);
    for shape in [[2, 4, 2, 70, 260, 64, 40], [1, 4, 4, 40, 77, 128, 128]] {
        let x = halves(shape);
        for (n, o) in [
            AttentionOptions::default(),
            AttentionOptions { causal: true, soft_cap: Some(3.0), ..Default::default() },
            AttentionOptions { alibi_slopes: Some(&slopes), window_right: Some(5), ..Default::default() },
            AttentionOptions { bias: Some(bias.view()), ..Default::default() },
            AttentionOptions { bias: Some(every.view()), ..Default::default() },
        ]
        .into_iter()
        .enumerate()
        {
            if n >= 3 && shape[3] != 70 {
                continue;
            }
            let [b, h, _, lq, lk, ..] = x.shape();
            let bias = o.bias.map(|x| x.broadcast((b, h, lq, lk)).unwrap().to_owned());
            let x = Inputs { bias, ..x.clone() };
            let got = backward(&x, &forward(&x, &o), &o, None);
            let wide = x.map(|&x| f64::from(x));
            let (want, (bound, mass)) = (exact::gradients(&wide, &o), bounds(&wide, &o));
            let check = |name: &str,
                         got: &Array4<f32>,
                         want: &Array4<f64>,
                         bound: &Array4<f64>,
                         mass: &Array4<f64>| {
                let mut worst = 0.0f64;
                Zip::from(got).and(want).and(bound).and(mass).for_each(|&got, &want, &bound, &mass| {
                    // Probabilities below 2^-64 are none.
                    let (error, most) = ((f64::from(got) - want).abs(), bound + mass / 256.0 + 1e-18);
                    assert!(error <= most, "{name} options {n}: {got:e} for {want:e}, bound {most:e}");
                    worst = worst.max(error / (mass / 256.0 + f64::from(f32::MIN_POSITIVE)));
                });
                // Rounded indeed: f32 would be far closer.
                assert!(worst > 1e-3, "{name} options {n}: {worst:e} of a half unit");
            };
            check("dq", &got.dq, &want.dq, &bound.dq, &mass.dq);
            check("dk", &got.dk, &want.dk, &bound.dk, &mass.dk);
            check("dv", &got.dv, &want.dv, &bound.dv, &mass.dv);
            if o.bias.is_some() {
                let want = super::oracle::reduced(&want.dbias, got.dbias.shape());
                let [bound, mass] =
                    [&bound.dbias, &mass.dbias].map(|x| super::oracle::reduced(x, got.dbias.shape()));
                Zip::from(&got.dbias).and(&want).and(&bound).and(&mass).for_each(
                    |&got, &want, &bound, &mass| {
                        // Not of rounded numbers.
                        let most = bound + mass * 1e-6;
                        assert!((f64::from(got) - want).abs() <= most, "dbias: {got:e} for {want:e}");
                    },
                );
            }
        }
    }
}

/// One of the four in another type: no pairs, the bits of numbers that were widened before.
#[test]
fn another_type_among_the_four_is_computed_in_f32() {
    let x = halves([2, 4, 2, 70, 130, 17, 24]);
    let o = AttentionOptions { causal: true, ..Default::default() };
    let (out, lse) = forward(&x, &o);
    let want = super::tests::scheduled(&x, out.view(), &lse, &o, None);
    let [q, k, v] = [&x.q, &x.k, &x.v].map(|x| x.mapv(bf16::from_f32));
    let [mut dq, mut dk, mut dv] = [&x.q, &x.k, &x.v].map(|x| Array4::from_elem(x.dim(), f32::NAN));
    let arguments = Arguments {
        q: q.view().into(),
        k: k.view().into(),
        v: v.view().into(),
        out: out.view().into(),
        lse: lse.view(),
        dout: x.dout.view().into(),
        options: &o,
        dq: dq.view_mut().into(),
        dk: dk.view_mut().into(),
        dv: dv.view_mut().into(),
        dbias: None,
    };
    arguments.run(None).unwrap();
    for (got, want) in [(&dq, &want.dq), (&dk, &want.dk), (&dv, &want.dv)] {
        assert_eq!(bits(got), bits(want));
    }
    let pairs = backward(&x, &(out, lse), &o, None);
    assert!(bits(&pairs.dq) != bits(&dq) && bits(&pairs.dk) != bits(&dk) && bits(&pairs.dv) != bits(&dv));
}
