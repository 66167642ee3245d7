//! The kernels in f64 with obvious loops.

// Compared within a bound, never by bits: the functions of the platform will do.
#![allow(clippy::disallowed_methods)]

use dgm_core::tensor::{bf16, f16};
use ndarray::{ArrayD, Axis, Dimension, IxDyn};

use crate::Args;
use crate::kernels::{block_table, firsts};

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
    let scale = a.optional("scale").unwrap_or(1.0 / (dim as f64).sqrt());
    let cap = a.optional::<f64>("soft_cap");
    let per_head = |name: &str, h: usize| a.find(name).map(|_| a.list::<f64>(name)[h]);
    let right = if a.text("causal") == "1" { Some(0) } else { a.optional::<i64>("window_right") };
    let left = a.optional::<i64>("window_left");
    let mut out = Vec::new();
    for b in 0..o[0] {
        for h in 0..o[1] {
            let g = h / (o[1] / groups);
            let slope = per_head("alibi_slopes", h).unwrap_or(0.0);
            for i in 0..o[2] {
                // The last query stands at the last key.
                let position = (i + keys) as i64 - o[2] as i64;
                let behind = |j: usize| position - j as i64;
                let seen: Vec<usize> = (0..keys)
                    .filter(|&j| right.is_none_or(|n| -behind(j) <= n) && left.is_none_or(|n| behind(j) <= n))
                    .collect();
                let score = |j: usize| {
                    let dot = (0..dim).map(|d| q[[b, h, i, d]] * k[[b, g, j, d]]).sum::<f64>() * scale;
                    let capped = cap.map_or(dot, |cap| cap * (dot / cap).tanh());
                    capped - slope * behind(j).abs() as f64 + x.get(3).map_or(0.0, |bias| bias[[0, h, i, j]])
                };
                let weights: Vec<f64> = seen.iter().map(|&j| score(j).exp()).collect();
                let sink = per_head("sinks", h).map_or(0.0, f64::exp);
                let total = weights.iter().sum::<f64>() + sink;
                for e in 0..o[3] {
                    out.push(
                        seen.iter().zip(&weights).map(|(&j, w)| w * v[[b, g, j, e]]).sum::<f64>() / total,
                    );
                }
            }
        }
    }
    out
}

pub fn attention_paged(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let (k, v) = (&x[1], &x[2]);
    let (table, lengths) = block_table(k.shape()[0], k.shape()[2], a);
    let side_by_side = |x: &ArrayD<f64>| {
        let (page_len, shape) = (x.shape()[2], [o[0], x.shape()[1], lengths[0], x.shape()[3]]);
        ArrayD::from_shape_fn(IxDyn(&shape), |i| {
            x[[table[[i[0], i[2] / page_len]] as usize, i[1], i[2] % page_len, i[3]]]
        })
    };
    attention(&[x[0].clone(), side_by_side(k), side_by_side(v)], a, o)
}

pub fn attention_merge(x: &[ArrayD<f64>], _: &Args, _: &[usize]) -> Vec<f64> {
    x[0].indexed_iter()
        .map(|(i, v)| {
            let row = IxDyn(&i.slice()[..3]);
            let (a, b) = (x[1][&row].exp(), x[3][&row].exp());
            (v * a + x[2][&i] * b) / (a + b)
        })
        .collect()
}

pub fn rope(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let (half, first) = (x[1].shape()[1], firsts(a));
    let interleaved = a.text("interleaved") == "1";
    x[0].indexed_iter()
        .map(|(i, v)| {
            let (row, d) = (first[i[0]] + i[2], i[3]);
            if d >= 2 * half {
                return *v;
            }
            // The other of the pair, its angle, and whether this is the second.
            let (other, angle, second) = if interleaved {
                (d ^ 1, d / 2, d % 2 == 1)
            } else {
                ((d + half) % (2 * half), d % half, d >= half)
            };
            let partner = x[0][[i[0], i[1], i[2], other]] * x[2][[row, angle]];
            v * x[1][[row, angle]] + if second { partner } else { -partner }
        })
        .collect()
}

pub fn attention_backward(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let (q, k, v, dout) = (&x[0], &x[1], &x[2], &x[3]);
    let [batch, heads, queries, dim] = *q.shape() else { panic!("four axes") };
    let (groups, keys, value_dim) = (k.shape()[1], k.shape()[2], v.shape()[3]);
    let scale = 1.0 / (dim as f64).sqrt();
    let (mut dq, mut dk, mut dv) = (0.0 * q, 0.0 * k, 0.0 * v);
    for b in 0..batch {
        for h in 0..heads {
            let g = h / (heads / groups);
            for i in 0..queries {
                let seen = if a.text("causal") == "1" { (i + 1 + keys - queries).min(keys) } else { keys };
                let score = |j| (0..dim).map(|d| q[[b, h, i, d]] * k[[b, g, j, d]]).sum::<f64>();
                let weights: Vec<f64> = (0..seen).map(|j| (score(j) * scale).exp()).collect();
                let total: f64 = weights.iter().sum();
                let p = |j: usize| weights[j] / total;
                let dp = |j| (0..value_dim).map(|e| v[[b, g, j, e]] * dout[[b, h, i, e]]).sum::<f64>();
                let delta: f64 = (0..seen).map(|j| p(j) * dp(j)).sum();
                for j in 0..seen {
                    let ds = p(j) * (dp(j) - delta) * scale;
                    for d in 0..dim {
                        dq[[b, h, i, d]] += ds * k[[b, g, j, d]];
                        dk[[b, g, j, d]] += ds * q[[b, h, i, d]];
                    }
                    for e in 0..value_dim {
                        dv[[b, g, j, e]] += p(j) * dout[[b, h, i, e]];
                    }
                }
            }
        }
    }
    let entry = |b| [&dq, &dk, &dv].into_iter().flat_map(move |x| x.index_axis(Axis(0), b).to_owned());
    (0..batch).flat_map(entry).collect()
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

pub fn layer_norm_modulate(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let eps: f64 = a.number("eps");
    let n = o[2] as f64;
    let mut out = Vec::new();
    for (b, image) in x[0].outer_iter().enumerate() {
        for row in image.outer_iter() {
            let mean = row.sum() / n;
            let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            for (d, v) in row.iter().enumerate() {
                out.push((v - mean) / (variance + eps).sqrt() * (1.0 + x[2][[b, d]]) + x[1][[b, d]]);
            }
        }
    }
    out
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
