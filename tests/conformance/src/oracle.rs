//! The kernels in f64 with obvious loops.

// Compared within a bound, never by bits: the functions of the platform will do.
#![allow(clippy::disallowed_methods)]

use ndarray::{ArrayD, Axis, Dimension, IxDyn, Slice};

use crate::Args;
use crate::kernels::{block_table, firsts, seen};
use crate::storage::rounded;

pub fn silu(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

pub fn gelu(v: f64, erf: bool) -> f64 {
    if erf {
        return 0.5 * v * (1.0 + libm::erf(v / 2f64.sqrt()));
    }
    0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (v + 0.044715 * v * v * v)).tanh())
}

/// The keys that every query sees, and their scores: the call's `f(batch entry, head, keys and scores)`.
fn every_query(x: &[ArrayD<f64>], a: &Args, mut f: impl FnMut(usize, usize, Vec<(usize, f64)>)) {
    let (q, k) = (&x[0], &x[1]);
    let [batch, heads, queries, dim] = *q.shape() else { panic!("four axes") };
    let group = heads / k.shape()[1];
    let scale = a.optional("scale").unwrap_or(1.0 / (dim as f64).sqrt());
    let cap = a.optional::<f64>("soft_cap");
    let right = if a.text("causal") == "1" { Some(0) } else { a.optional::<i64>("window_right") };
    let left = a.optional::<i64>("window_left");
    for b in 0..batch {
        let keys = a.find("kv_lengths").map_or(k.shape()[2], |_| a.list("kv_lengths")[b]);
        for h in 0..heads {
            let slope = per_head(a, "alibi_slopes", h).unwrap_or(0.0);
            for i in 0..queries {
                // The last query stands at the last key.
                let position = (i + keys) as i64 - queries as i64;
                let behind = |j: usize| position - j as i64;
                let seen = (0..keys).filter(|&j| {
                    right.is_none_or(|n| -behind(j) <= n) && left.is_none_or(|n| behind(j) <= n)
                });
                let score = |j: usize| {
                    let dot =
                        (0..dim).map(|d| q[[b, h, i, d]] * k[[b, h / group, j, d]]).sum::<f64>() * scale;
                    let capped = cap.map_or(dot, |cap| cap * (dot / cap).tanh());
                    let bias = |bias: &ArrayD<f64>| bias[[b % bias.shape()[0], h % bias.shape()[1], i, j]];
                    capped - slope * behind(j).abs() as f64 + x.get(3).map_or(0.0, bias)
                };
                f(b, h, seen.map(|j| (j, score(j))).collect());
            }
        }
    }
}

fn per_head(a: &Args, name: &str, h: usize) -> Option<f64> {
    a.find(name).map(|_| a.list::<f64>(name)[h])
}

/// The inputs as their types hold them.
fn as_stored(x: &[ArrayD<f64>], a: &Args) -> Vec<ArrayD<f64>> {
    let own = a.text_or("storage", "f32");
    let dtype = |i| if i == 0 { own } else { a.text_or("kv_storage", own) };
    x.iter().enumerate().map(|(i, x)| x.mapv(|v| if i < 3 { rounded(v, dtype(i)) } else { v })).collect()
}

pub fn attention(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = as_stored(x, a);
    let (v, heads) = (&x[2], x[0].shape()[1]);
    let mut out = Vec::new();
    every_query(&x, a, |b, h, scores| {
        let g = h / (heads / v.shape()[1]);
        let total =
            scores.iter().map(|(_, s)| s.exp()).sum::<f64>() + per_head(a, "sinks", h).map_or(0.0, f64::exp);
        let sum = |e: usize| scores.iter().map(|&(j, s)| s.exp() * v[[b, g, j, e]]).sum::<f64>();
        // Without a key there is nothing to weigh: 0.
        out.extend((0..o[3]).map(|e| if total == 0.0 { 0.0 } else { sum(e) / total }));
    });
    out
}

pub fn attention_lse(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let mut out = Vec::new();
    every_query(&as_stored(x, a), a, |_, h, scores| {
        let sink = per_head(a, "sinks", h).map_or(0.0, f64::exp);
        out.push((scores.iter().map(|(_, s)| s.exp()).sum::<f64>() + sink).ln());
    });
    out
}

pub fn attention_masked(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let mut x = x.to_vec();
    x[3].mapv_inplace(|v| if seen(v) { 0.0 } else { f64::NEG_INFINITY });
    attention(&x, a, o)
}

/// The rows of each packed sequence: of queries, and of keys and values.
fn sequences(a: &Args) -> impl Iterator<Item = [Slice; 2]> {
    let [q, kv] = ["q_offsets", "kv_offsets"].map(|name| a.list::<usize>(name));
    (1..q.len()).map(move |n| [&q, &kv].map(|x| Slice::from(x[n - 1]..x[n])))
}

/// Rows of `[T, H, D]` as `[1, H, T, D]`.
fn entry(x: &ArrayD<f64>, rows: Slice) -> ArrayD<f64> {
    x.slice_axis(Axis(0), rows).permuted_axes(IxDyn(&[1, 0, 2])).insert_axis(Axis(0)).to_owned()
}

/// The way back, from the numbers in order.
fn set_entry(to: &mut ArrayD<f64>, rows: Slice, numbers: &[f64]) {
    let mut to = to.slice_axis_mut(Axis(0), rows).permuted_axes(IxDyn(&[1, 0, 2]));
    to.iter_mut().zip(numbers).for_each(|(to, &x)| *to = x);
}

pub fn attention_varlen(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let mut out = ArrayD::zeros(IxDyn(o));
    for [queries, keys] in sequences(a) {
        let own = [entry(&x[0], queries), entry(&x[1], keys), entry(&x[2], keys)];
        let shape = [1, o[1], own[0].shape()[2], o[2]];
        set_entry(&mut out, queries, &attention(&own, a, &shape));
    }
    out.into_raw_vec_and_offset().0
}

pub fn attention_varlen_backward(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let mut gradients = [0, 1, 2].map(|i| 0.0 * &x[i]);
    for [queries, keys] in sequences(a) {
        let rows = [queries, keys, keys, queries];
        let own: Vec<_> = x.iter().zip(rows).map(|(x, rows)| entry(x, rows)).collect();
        let all = attention_backward(&own, a, &[]);
        let mut all = &all[..];
        for (to, (x, rows)) in gradients.iter_mut().zip(own.iter().zip(rows)) {
            set_entry(to, rows, &all[..x.len()]);
            all = &all[x.len()..];
        }
    }
    gradients.iter().flatten().copied().collect()
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
    let x: Vec<_> = x.iter().map(|x| x.mapv(|v| rounded(v, a.text_or("storage", "f32")))).collect();
    let (q, k, v, dout) = (&x[0], &x[1], &x[2], &x[3]);
    let [batch, heads, queries, dim] = *q.shape() else { panic!("four axes") };
    let (group, value_dim) = (heads / k.shape()[1], v.shape()[3]);
    let (scale, cap) = (1.0 / (dim as f64).sqrt(), a.optional::<f64>("soft_cap"));
    let (mut dq, mut dk, mut dv) = (0.0 * q, 0.0 * k, 0.0 * v);
    let mut rows = 0..;
    every_query(&x[..3], a, |b, h, scores| {
        let (g, i) = (h / group, rows.next().expect("endless") % queries);
        let total: f64 = scores.iter().map(|(_, s)| s.exp()).sum();
        let dp = |j| (0..value_dim).map(|e| v[[b, g, j, e]] * dout[[b, h, i, e]]).sum::<f64>();
        let delta: f64 = scores.iter().map(|&(j, s)| s.exp() / total * dp(j)).sum();
        for (j, s) in scores {
            let p = s.exp() / total;
            let dot = (0..dim).map(|d| q[[b, h, i, d]] * k[[b, g, j, d]]).sum::<f64>() * scale;
            let slope = cap.map_or(1.0, |cap| 1.0 - (dot / cap).tanh().powi(2));
            let ds = p * (dp(j) - delta) * scale * slope;
            for d in 0..dim {
                dq[[b, h, i, d]] += ds * k[[b, g, j, d]];
                dk[[b, g, j, d]] += ds * q[[b, h, i, d]];
            }
            for e in 0..value_dim {
                dv[[b, g, j, e]] += p * dout[[b, h, i, e]];
            }
        }
    });
    let entry = |b| [&dq, &dk, &dv].into_iter().flat_map(move |x| x.index_axis(Axis(0), b).to_owned());
    (0..batch).flat_map(entry).collect()
}

/// `x weight^T + bias`, row-major.
fn sums(x: &ArrayD<f64>, weight: &ArrayD<f64>, bias: &ArrayD<f64>, a: &Args) -> Vec<f64> {
    let stored = |x: &ArrayD<f64>| x.mapv(|v| rounded(v, a.text_or("storage", "f32")));
    let (x, weight) = (stored(x), stored(weight));
    let mut out = Vec::new();
    for r in 0..x.shape()[0] {
        for c in 0..weight.shape()[0] {
            out.push((0..x.shape()[1]).map(|i| x[[r, i]] * weight[[c, i]]).sum::<f64>() + bias[[c]]);
        }
    }
    out
}

fn activated(x: f64, a: &Args) -> f64 {
    match a.text("activation") {
        "none" => x,
        "silu" => silu(x),
        "gelu_tanh" => gelu(x, false),
        other => panic!("no activation {other}"),
    }
}

pub fn linear(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    sums(&x[0], &x[1], &x[2], a).into_iter().map(|y| activated(y, a)).collect()
}

pub fn linear_gate_residual(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let y = linear(x, a, o);
    let x = own(x, a);
    let (gate, residual) = (&x[3], &x[4]);
    let group = o[0] / gate.shape()[0];
    let mut out = Vec::new();
    for r in 0..o[0] {
        for c in 0..o[1] {
            let base = residual[[r % residual.shape()[0], c]];
            out.push(base + gate[[r / group, c]] * y[r * o[1] + c]);
        }
    }
    out
}

pub fn linear_gated(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let (gate, up) = (sums(&x[0], &x[1], &x[3], a), sums(&x[0], &x[2], &x[4], a));
    gate.into_iter().zip(up).map(|(gate, up)| activated(gate, a) * up).collect()
}

/// All inputs as the type of the case holds them.
fn own(x: &[ArrayD<f64>], a: &Args) -> Vec<ArrayD<f64>> {
    x.iter().map(|x| x.mapv(|v| rounded(v, a.text_or("storage", "f32")))).collect()
}

pub fn layer_norm(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
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
    let x = own(x, a);
    let eps: f64 = a.number("eps");
    let mut out = Vec::new();
    for row in x[0].rows() {
        let square = row.iter().map(|v| v * v).sum::<f64>() / o[o.len() - 1] as f64;
        out.extend(row.iter().enumerate().map(|(d, v)| v / (square + eps).sqrt() * x[1][[d]]));
    }
    out
}

pub fn modulate(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    x[0].indexed_iter().map(|(i, v)| v * (1.0 + x[2][[i[0], i[2]]]) + x[1][[i[0], i[2]]]).collect()
}

pub fn layer_norm_modulate(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
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

pub fn gate_residual(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    x[0].indexed_iter().map(|(i, v)| v + x[2][[i[0], i[2]]] * x[1][[i[0], i[1], i[2]]]).collect()
}

pub fn timestep_embedding(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    let (period, half): (f64, usize) = (a.number("max_period"), o[1] / 2);
    let angle = |t: f64, i: usize| t * period.powf(-((i % half) as f64) / half as f64);
    let one = |t: f64, i: usize| if i < half { angle(t, i).cos() } else { angle(t, i).sin() };
    x[0].iter().flat_map(|&t| (0..o[1]).map(move |i| one(t, i))).collect()
}

pub fn patchify(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
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
    let x = own(x, a);
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

/// The sum and the norm of each row side by side; the norm sees the sum as it is stored.
pub fn rms_norm_residual(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    let dtype = a.text_or("storage", "f32");
    // The sum of two numbers of 16 bits is exact in f32, which the rounding begins with.
    let sum = (&x[0] + &x[1]).mapv(|v| rounded(v, dtype));
    let normed = rms_norm(&[sum.clone(), x[2].clone()], a, &[o[0], o[1] / 2]);
    let normed = normed.chunks(o[1] / 2);
    sum.rows()
        .into_iter()
        .zip(normed)
        .flat_map(|(s, n)| s.iter().chain(n).copied().collect::<Vec<_>>())
        .collect()
}

pub fn group_norm(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    let (eps, groups): (f64, usize) = (a.number("eps"), a.number("groups"));
    let channels = o[1] / groups;
    let mut out = Vec::new();
    for b in 0..o[0] {
        for g in 0..groups {
            let image = x[0].index_axis(Axis(0), b);
            let group = image.slice_axis(Axis(0), Slice::from(g * channels..(g + 1) * channels));
            let n = group.len() as f64;
            let mean = group.sum() / n;
            let variance = group.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
            for (i, v) in group.indexed_iter() {
                let channel = g * channels + i[0];
                let y = (v - mean) / (variance + eps).sqrt() * x[1][[channel]] + x[2][[channel]];
                out.push(if a.text("silu") == "1" { silu(y) } else { y });
            }
        }
    }
    out
}

pub fn silus(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    own(x, a)[0].iter().map(|&v| silu(v)).collect()
}

pub fn gelus(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    own(x, a)[0].iter().map(|&v| gelu(v, a.text("kind") == "erf")).collect()
}

pub fn swiglu(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    x[0].iter().zip(&x[1]).map(|(&gate, up)| silu(gate) * up).collect()
}

pub fn geglu(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    x[0].iter().zip(&x[1]).map(|(&gate, up)| gelu(gate, a.text("kind") == "erf") * up).collect()
}

pub fn softmax(x: &[ArrayD<f64>], a: &Args, o: &[usize]) -> Vec<f64> {
    log_softmax(x, a, o).into_iter().map(f64::exp).collect()
}

pub fn log_softmax(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let mut out = Vec::new();
    for row in own(x, a)[0].rows() {
        let total = row.iter().map(|v| v.exp()).sum::<f64>();
        out.extend(row.iter().map(|v| v - total.ln()));
    }
    out
}

pub fn embedding(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let table = &own(x, a)[0];
    a.list::<usize>("indices").into_iter().flat_map(|i| table.index_axis(Axis(0), i).to_owned()).collect()
}

pub fn cfg_combine(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let x = own(x, a);
    let (scale, rescale): (f64, f64) = (a.number("scale"), a.number("rescale"));
    let deviation = |row: &[f64]| {
        let mean = row.iter().sum::<f64>() / row.len() as f64;
        row.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>().sqrt()
    };
    let mut out = Vec::new();
    for (cond, uncond) in x[0].rows().into_iter().zip(x[1].rows()) {
        let guided: Vec<f64> = cond.iter().zip(uncond).map(|(c, u)| u + scale * (c - u)).collect();
        let ratio = deviation(&cond.to_vec()) / deviation(&guided);
        out.extend(guided.iter().map(|g| g * (1.0 - rescale + rescale * ratio)));
    }
    out
}

/// Cosines, then sines.
pub fn rope_axial_tables(x: &[ArrayD<f64>], a: &Args, _: &[usize]) -> Vec<f64> {
    let (dims, theta): (Vec<usize>, f64) = (a.list("dims"), a.number("theta"));
    let mut out = Vec::new();
    for position in x[0].rows() {
        let angle = |(p, d): (&f64, &usize)| -> Vec<f64> {
            (0..d / 2).map(|i| p * theta.powf(-(i as f64) / (d / 2) as f64)).collect()
        };
        let angles: Vec<f64> = position.iter().zip(&dims).flat_map(angle).collect();
        out.extend(angles.iter().map(|a| a.cos()));
        out.extend(angles.iter().map(|a| a.sin()));
    }
    out
}
