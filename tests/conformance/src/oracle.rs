//! The kernels in f64 with obvious loops.

// Compared within a bound, never by bits: the functions of the platform will do.
#![allow(clippy::disallowed_methods)]

use dgm_core::tensor::{bf16, f16};
use ndarray::ArrayD;

use crate::Args;

pub fn silu(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

pub fn gelu(v: f64, erf: bool) -> f64 {
    if erf {
        return 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt()));
    }
    0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v)).tanh())
}

pub fn attention(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let (q, k, v) = (&x[0], &x[1], &x[2]);
    let (dim, groups, keys) = (q.shape()[3], k.shape()[1], k.shape()[2]);
    let mut out = Vec::new();
    for b in 0..o[0] {
        for h in 0..o[1] {
            let g = h / (o[1] / groups);
            for i in 0..o[2] {
                let seen = if a.text("causal") == "1" { (i + 1 + keys - o[2]).min(keys) } else { keys };
                let score = |j| (0..dim).map(|d| q[[b, h, i, d]] * k[[b, g, j, d]]).sum::<f64>();
                let weights: Vec<f64> = (0..seen).map(|j| (score(j) / (dim as f64).sqrt()).exp()).collect();
                let total: f64 = weights.iter().sum();
                for e in 0..o[3] {
                    out.push((0..seen).map(|j| weights[j] * v[[b, g, j, e]]).sum::<f64>() / total);
                }
            }
        }
    }
    out
}

pub fn linear(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    // Inputs are f32. (From f64 the crate rounds some neighbours of a tie the wrong way.)
    let stored = |x: &ArrayD<f64>| match a.text_or("storage", "f32") {
        "bf16" => x.mapv(|v| bf16::from_f32(v as f32).to_f64()),
        "f16" => x.mapv(|v| f16::from_f32(v as f32).to_f64()),
        _ => x.clone(),
    };
    let x = [stored(&x[0]), stored(&x[1]), x[2].clone()];
    let mut out = Vec::new();
    for r in 0..o[0] {
        for c in 0..o[1] {
            let sum = (0..x[0].shape()[1]).map(|i| x[0][[r, i]] * x[1][[c, i]]).sum::<f64>() + x[2][[c]];
            out.push(match a.text("activation") {
                "none" => sum,
                "silu" => silu(sum),
                "gelu_tanh" => gelu(sum, false),
                other => panic!("no activation {other}"),
            });
        }
    }
    out
}

pub fn layer_norm(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let eps: f64 = a.number("eps");
    let n = o[1] as f64;
    let mut out = Vec::new();
    for row in x[0].outer_iter() {
        let mean = row.sum() / n;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        for (d, v) in row.iter().enumerate() {
            out.push((v - mean) / (variance + eps).sqrt() * x[1][[d]] + x[2][[d]]);
        }
    }
    out
}

pub fn rms_norm(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let eps: f64 = a.number("eps");
    let mut out = Vec::new();
    for row in x[0].outer_iter() {
        let square = row.iter().map(|v| v * v).sum::<f64>() / o[1] as f64;
        out.extend(row.iter().enumerate().map(|(d, v)| v / (square + eps).sqrt() * x[1][[d]]));
    }
    out
}

pub fn modulate(x: &[ArrayD<f64>], _: &Args, _: &[usize]) -> Vec<f64> {
    x[0].indexed_iter().map(|(i, v)| v * (1.0 + x[2][[i[0], i[2]]]) + x[1][[i[0], i[2]]]).collect()
}

pub fn gate_residual(x: &[ArrayD<f64>], _: &Args, _: &[usize]) -> Vec<f64> {
    x[0].indexed_iter().map(|(i, v)| v + x[2][[i[0], i[2]]] * x[1][[i[0], i[1], i[2]]]).collect()
}

pub fn timestep_embedding(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let (period, half): (f64, usize) = (a.number("max_period"), o[1] / 2);
    let angle = |t: f64, i: usize| t * period.powf(-((i % half) as f64) / half as f64);
    let one = |t: f64, i: usize| if i < half { angle(t, i).cos() } else { angle(t, i).sin() };
    x[0].iter().flat_map(|&t| (0..o[1]).map(move |i| one(t, i))).collect()
}

pub fn patchify(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let (p, columns): (usize, usize) = (a.number("patch"), x[0].shape()[3] / a.number::<usize>("patch"));
    let at = |b, n, k| x[0][[b, k / (p * p), n / columns * p + k / p % p, n % columns * p + k % p]];
    let mut out = Vec::new();
    for b in 0..o[0] {
        for n in 0..o[1] {
            out.extend((0..o[2]).map(|k| at(b, n, k)));
        }
    }
    out
}

pub fn unpatchify(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let p: usize = a.number("patch");
    let mut out = Vec::new();
    for b in 0..o[0] {
        for c in 0..o[1] {
            for i in 0..o[2] {
                for j in 0..o[3] {
                    out.push(x[0][[b, i / p * (o[3] / p) + j / p, (i % p * p + j % p) * o[1] + c]]);
                }
            }
        }
    }
    out
}
