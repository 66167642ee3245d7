//! Errors beside those of PyTorch on the same inputs (tests/golden/make_attention_errors.py).

use ndarray::{Array2, Array3, Array4, ArrayView2, ArrayView4, ArrayViewMut4, Axis, s};
use serde_json::Value;

use super::*;
use crate::random;
use crate::tensor::{Element, bf16, f16};

const ERRORS: &str = include_str!("../../../tests/golden/attention_errors.json");

/// Tensors `[1, heads, rows, head size]`: queries, keys, values and gradients of the output.
type Tensors<T> = [Array4<T>; 4];

/// The cases of a part of the file with their inputs.
fn cases(part: &str) -> Vec<(Value, Tensors<f32>)> {
    let mut file: Value = serde_json::from_str(ERRORS).unwrap();
    let seed = file["seed"].as_u64().unwrap();
    let Value::Array(cases) = file[part].take() else { panic!("{part} is a list") };
    let inputs = |case: &Value| {
        let number = |name: &str| case[name].as_u64().unwrap() as usize;
        [(0, "queries"), (1, "keys"), (2, "keys"), (3, "queries")].map(|(stream, rows)| {
            let shape = (1, number("heads"), number(rows), number("dim"));
            let mut x = Array2::zeros((1, shape.1 * shape.2 * shape.3));
            random::normal(&[seed], stream, 0, x.view_mut()).unwrap();
            let x = Array4::from_shape_vec(shape, x.into_raw_vec_and_offset().0).unwrap();
            match case["type"].as_str().unwrap() {
                "f32" => x,
                "f16" => x.mapv(|x| f16::from_f32(x).to_f32()),
                "bf16" => x.mapv(|x| bf16::from_f32(x).to_f32()),
                other => panic!("type {other}"),
            }
        })
    };
    cases.into_iter().map(|case| (case.clone(), inputs(&case))).collect()
}

/// The engine's output or gradients for inputs of type `T`.
fn run_as<T: Element>(inputs: &Tensors<f32>, o: &AttentionOptions, part: &str) -> Vec<Array4<f32>>
where
    for<'a> ArrayView4<'a, T>: Into<Floats<'a, Ix4>>,
    for<'a> ArrayViewMut4<'a, T>: Into<FloatsMut<'a, Ix4>>,
{
    let [q, k, v, dout] = inputs.each_ref().map(|x| x.mapv(T::from_f32));
    let mut lse = Array3::zeros((1, q.dim().1, q.dim().2));
    let [mut out, mut dq, mut dk, mut dv] = [&q, &q, &k, &v].map(|x| x.mapv(|_| T::from_f32(7.0)));
    attention(q.view(), k.view(), v.view(), o, out.view_mut(), Some(lse.view_mut())).unwrap();
    let mut results = vec![out];
    if part == "backward" {
        attention_backward(
            q.view(),
            k.view(),
            v.view(),
            results[0].view(),
            lse.view(),
            dout.view(),
            o,
            dq.view_mut(),
            dk.view_mut(),
            dv.view_mut(),
            None,
        )
        .unwrap();
        results = vec![dq, dk, dv];
    }
    results.iter().map(|x| x.mapv(Element::to_f32)).collect()
}

fn run(case: &Value, inputs: &Tensors<f32>, part: &str) -> Vec<Array4<f32>> {
    let o = AttentionOptions { causal: case["causal"].as_bool().unwrap(), ..Default::default() };
    match case["type"].as_str().unwrap() {
        "f16" => run_as::<f16>(inputs, &o, part),
        "bf16" => run_as::<bf16>(inputs, &o, part),
        _ => run_as::<f32>(inputs, &o, part),
    }
}

/// The same by the textbook in f64.
fn exactly(case: &Value, inputs: &Tensors<f32>, part: &str) -> Vec<Array4<f64>> {
    let inputs = inputs.each_ref().map(|x| x.mapv(f64::from));
    let [q, k, v, _] = &inputs;
    let like = if part == "backward" { vec![q, k, v] } else { vec![q] };
    let mut results: Vec<_> = like.into_iter().map(|x| Array4::zeros(x.dim())).collect();
    let scale = 1.0 / (q.dim().3 as f64).sqrt();
    for h in 0..q.dim().1 {
        let [q, k, v, dout]: [ArrayView2<f64>; 4] = inputs.each_ref().map(|x| x.slice(s![0, h, .., ..]));
        let mut p = q.dot(&k.t()) * scale;
        if case["causal"].as_bool().unwrap() {
            p.indexed_iter_mut().filter(|((i, j), _)| j > i).for_each(|(_, x)| *x = f64::NEG_INFINITY);
        }
        for mut row in p.rows_mut() {
            let most = row.fold(f64::NEG_INFINITY, |m, &x| m.max(x));
            row.mapv_inplace(|x| libm::exp(x - most));
            row /= row.sum();
        }
        let out = p.dot(&v);
        let mut of_head = vec![out];
        if part == "backward" {
            let delta = (&of_head[0] * &dout).sum_axis(Axis(1)).insert_axis(Axis(1));
            let ds = &p * &(dout.dot(&v.t()) - delta) * scale;
            of_head = vec![ds.dot(&k), ds.t().dot(&q), p.t().dot(&dout)];
        }
        for (to, x) in results.iter_mut().zip(of_head) {
            to.slice_mut(s![0, h, .., ..]).assign(&x);
        }
    }
    results
}

/// Result `index` of a case is as near to exact as that of PyTorch's scaled_dot_product_attention, which has two ways:
/// `flash`, which it takes by itself, and `math`, slower, which keeps probabilities of 16-bit inputs in f32.
///
/// The mean error is at most that of the first, in f32 that of both; in f16 it is within a fiftieth of the second too,
/// for ties of the last rounding and since gradients are those of the output as it was rounded. The largest of a
/// million is chance: it is at most a quarter above the larger of both ways.
fn compare(case: &Value, index: usize, found: &Array4<f32>, exactly: &Array4<f64>) {
    let (mut squares, mut most) = (0.0f64, 0.0f64);
    for (found, exactly) in found.iter().zip(exactly) {
        let error = f64::from(*found) - exactly;
        (squares, most) = (squares + error * error, most.max(error.abs()));
    }
    let mean = (squares / found.len() as f64).sqrt();
    let peer = |name: &str| [0, 1].map(|i| case["peers"][name][index][i].as_f64().unwrap());
    let ([flash, flash_most], [math, math_most]) = (peer("flash"), peer("math"));
    let mean_bound = match case["type"].as_str().unwrap() {
        "f32" => flash.min(math),
        "f16" => flash.min(1.02 * math),
        _ => flash,
    };
    let most_bound = 1.25 * flash_most.max(math_most);
    assert!(mean <= mean_bound, "mean error {mean:e} of result {index} in {case}");
    assert!(most <= most_bound, "largest error {most:e} of result {index} in {case}");
}

fn compare_all(part: &str) {
    for (case, inputs) in cases(part) {
        let (found, exactly) = (run(&case, &inputs, part), exactly(&case, &inputs, part));
        found.iter().zip(&exactly).enumerate().for_each(|(i, (a, b))| compare(&case, i, a, b));
    }
}

#[test]
fn outputs_are_as_near_to_exact_as_those_of_pytorch() {
    compare_all("forward");
}

#[test]
fn gradients_are_as_near_to_exact_as_those_of_pytorch() {
    compare_all("backward");
}
