//! Tests of loading and of the forward pass against loops a student could read.

use std::collections::HashMap;

use half::{bf16, f16};
use ndarray::{Array4, s};
use safetensors::tensor::{Dtype, TensorView, serialize};

use super::{Dit, DitConfig};
use crate::error::Error;
use crate::random::normal;
use crate::{arch, threads};

/// A file of random weights with the given dimensions, and its tensors.
struct Fixture {
    tensors: Vec<(String, Vec<usize>, Vec<f32>)>,
    metadata: HashMap<String, String>,
}

const HEADS: usize = 3;

impl Fixture {
    /// Channels 2 -> 4, 6x6 pixels in patches of 3 (4 tokens), width 24, two blocks, 5 classes.
    fn new() -> Self {
        let (c, c_out, p, d, f, h, tokens, classes) = (2, 4, 3, 24, 16, 40, 4, 5);
        let mut shapes: Vec<(String, Vec<usize>)> = vec![
            ("x_embedder.proj.weight".into(), vec![d, c, p, p]),
            ("x_embedder.proj.bias".into(), vec![d]),
            ("pos_embed".into(), vec![1, tokens, d]),
            ("y_embedder.embedding_table.weight".into(), vec![classes + 1, d]),
        ];
        let mut linear = |name: String, out: usize, inputs: usize| {
            shapes.push((format!("{name}.weight"), vec![out, inputs]));
            shapes.push((format!("{name}.bias"), vec![out]));
        };
        linear("t_embedder.mlp.0".into(), d, f);
        linear("t_embedder.mlp.2".into(), d, d);
        for i in 0..2 {
            linear(format!("blocks.{i}.adaLN_modulation.1"), 6 * d, d);
            linear(format!("blocks.{i}.attn.qkv"), 3 * d, d);
            linear(format!("blocks.{i}.attn.proj"), d, d);
            linear(format!("blocks.{i}.mlp.fc1"), h, d);
            linear(format!("blocks.{i}.mlp.fc2"), d, h);
        }
        linear("final_layer.adaLN_modulation.1".into(), 2 * d, d);
        linear("final_layer.linear".into(), p * p * c_out, d);
        let tensors = shapes
            .into_iter()
            .enumerate()
            .map(|(i, (name, shape))| {
                let n: usize = shape.iter().product();
                let fan_in = if shape.len() > 1 { n / shape[0] } else { 8 };
                let scale = 1.0 / (fan_in as f32).sqrt();
                let mut data = ndarray::Array2::zeros((1, n));
                normal(&[i as u64], 0, 0, data.view_mut()).unwrap();
                (name, shape, data.iter().map(|v| v * scale).collect())
            })
            .collect();
        let metadata = [("num_heads", "3"), ("input_size", "6"), ("time_scale", "1000")];
        Fixture { tensors, metadata: metadata.map(|(k, v)| (k.to_string(), v.to_string())).into() }
    }

    fn bytes(&self) -> Vec<u8> {
        self.bytes_of(Dtype::F32)
    }

    fn bytes_of(&self, dtype: Dtype) -> Vec<u8> {
        self.bytes_with(|_| dtype)
    }

    fn bytes_with(&self, dtype: impl Fn(&str) -> Dtype) -> Vec<u8> {
        let number = |v: f32, dtype| match dtype {
            Dtype::BF16 => bf16::from_f32(v).to_le_bytes().to_vec(),
            Dtype::F16 => f16::from_f32(v).to_le_bytes().to_vec(),
            _ => v.to_le_bytes().to_vec(),
        };
        let data = |t: &(String, _, Vec<f32>)| t.2.iter().flat_map(|v| number(*v, dtype(&t.0))).collect();
        let data: Vec<Vec<u8>> = self.tensors.iter().map(data).collect();
        let views = self.tensors.iter().zip(&data).map(|((name, shape, _), bytes)| {
            (name, TensorView::new(dtype(name), shape.clone(), bytes).unwrap())
        });
        serialize(views, Some(self.metadata.clone())).unwrap()
    }

    /// With weights that the type can hold.
    fn rounded(dtype: Dtype) -> Self {
        let mut fixture = Fixture::new();
        for x in fixture.tensors.iter_mut().flat_map(|t| &mut t.2) {
            *x = if dtype == Dtype::BF16 { bf16::from_f32(*x).to_f32() } else { f16::from_f32(*x).to_f32() };
        }
        fixture
    }

    fn get(&self, name: &str) -> &[f32] {
        &self.tensors.iter().find(|t| t.0 == name).unwrap().2
    }

    /// `y = W x + b` in f64.
    fn linear(&self, name: &str, x: &[f64]) -> Vec<f64> {
        let (w, b) = (self.get(&format!("{name}.weight")), self.get(&format!("{name}.bias")));
        let row = |o: usize| -> f64 {
            x.iter().enumerate().map(|(k, v)| v * f64::from(w[o * x.len() + k])).sum::<f64>()
                + f64::from(b[o])
        };
        (0..b.len()).map(row).collect()
    }

    /// The forward pass of one image, written from the paper.
    fn oracle(&self, c: &DitConfig, x: &Array4<f32>, image: usize, t: f32, label: usize) -> Vec<f64> {
        let (d, p, side) = (c.hidden, c.patch, c.width / c.patch);
        let silu = |v: &Vec<f64>| v.iter().map(|&a| a / (1.0 + libm::exp(-a))).collect::<Vec<f64>>();
        let half = c.frequency_embedding / 2;
        let time = f64::from(t * c.time_scale);
        let angle = |i: usize| time * libm::exp(-libm::log(10_000.0) * i as f64 / half as f64);
        let mut emb: Vec<f64> = (0..half).map(|i| libm::cos(angle(i))).collect();
        emb.extend((0..half).map(|i| libm::sin(angle(i))));
        let mut cond = self.linear("t_embedder.mlp.2", &silu(&self.linear("t_embedder.mlp.0", &emb)));
        let table = self.get("y_embedder.embedding_table.weight");
        cond.iter_mut().enumerate().for_each(|(i, v)| *v += f64::from(table[label * d + i]));
        let cond = silu(&cond);

        let mut tokens: Vec<Vec<f64>> = (0..side * side)
            .map(|n| {
                let (ty, tx) = (n / side * p, n % side * p);
                let mut patch = Vec::new();
                for ch in 0..c.channels {
                    for py in 0..p {
                        patch.extend((0..p).map(|px| f64::from(x[[image, ch, ty + py, tx + px]])));
                    }
                }
                let mut v = self.linear("x_embedder.proj", &patch);
                v.iter_mut().enumerate().for_each(|(i, v)| *v += f64::from(self.get("pos_embed")[n * d + i]));
                v
            })
            .collect();
        let norm = |v: &[f64], shift: &[f64], scale: &[f64]| -> Vec<f64> {
            let mean = v.iter().sum::<f64>() / d as f64;
            let var = v.iter().map(|a| (a - mean) * (a - mean)).sum::<f64>() / d as f64;
            (0..d).map(|i| (v[i] - mean) / (var + 1e-6).sqrt() * (1.0 + scale[i]) + shift[i]).collect()
        };
        for b in 0..c.depth {
            let m = self.linear(&format!("blocks.{b}.adaLN_modulation.1"), &cond);
            let m: Vec<&[f64]> = m.chunks(d).collect();
            let qkv: Vec<Vec<f64>> = tokens
                .iter()
                .map(|v| self.linear(&format!("blocks.{b}.attn.qkv"), &norm(v, m[0], m[1])))
                .collect();
            let size = d / c.heads;
            let mixed: Vec<Vec<f64>> = (0..tokens.len())
                .map(|i| {
                    let mut out = vec![0.0; d];
                    for h in 0..c.heads {
                        let at = |n: usize, which: usize, e: usize| qkv[n][which * d + h * size + e];
                        let scores: Vec<f64> = (0..tokens.len())
                            .map(|j| {
                                (0..size).map(|e| at(i, 0, e) * at(j, 1, e)).sum::<f64>()
                                    / (size as f64).sqrt()
                            })
                            .collect();
                        let max = scores.iter().copied().fold(f64::MIN, f64::max);
                        let weights: Vec<f64> = scores.iter().map(|s| libm::exp(s - max)).collect();
                        let total: f64 = weights.iter().sum();
                        for e in 0..size {
                            out[h * size + e] =
                                weights.iter().enumerate().map(|(j, w)| w * at(j, 2, e)).sum::<f64>() / total;
                        }
                    }
                    self.linear(&format!("blocks.{b}.attn.proj"), &out)
                })
                .collect();
            for (v, y) in tokens.iter_mut().zip(mixed) {
                v.iter_mut().enumerate().for_each(|(i, v)| *v += m[2][i] * y[i]);
                let gelu =
                    |a: &f64| 0.5 * a * (1.0 + libm::tanh(0.7978845608028654 * (a + 0.044715 * a * a * a)));
                let hidden: Vec<f64> = self
                    .linear(&format!("blocks.{b}.mlp.fc1"), &norm(v, m[3], m[4]))
                    .iter()
                    .map(gelu)
                    .collect();
                let y = self.linear(&format!("blocks.{b}.mlp.fc2"), &hidden);
                v.iter_mut().enumerate().for_each(|(i, v)| *v += m[5][i] * y[i]);
            }
        }
        let m = self.linear("final_layer.adaLN_modulation.1", &cond);
        let mut out = vec![0.0; c.out_channels * c.height * c.width];
        for (n, v) in tokens.iter().enumerate() {
            let y = self.linear("final_layer.linear", &norm(v, &m[..d], &m[d..]));
            let (ty, tx) = (n / side * p, n % side * p);
            for (i, value) in y.iter().enumerate() {
                let (py, px, ch) = (i / c.out_channels / p, i / c.out_channels % p, i % c.out_channels);
                out[(ch * c.height + ty + py) * c.width + tx + px] = *value;
            }
        }
        out
    }
}

fn input(batch: usize) -> (Array4<f32>, Vec<f32>, Vec<i64>) {
    let mut x = Array4::zeros((batch, 2, 6, 6));
    let seeds: Vec<u64> = (0..batch as u64).collect();
    let flat = x.view_mut().into_shape_with_order((batch, 72)).unwrap();
    normal(&seeds, 1, 0, flat).unwrap();
    let t = (0..batch).map(|i| i as f32 / batch as f32).collect();
    (x, t, (0..batch as i64).map(|i| i % 6).collect())
}

fn forward(model: &Dit, x: &Array4<f32>, t: &[f32], labels: &[i64]) -> Array4<f32> {
    let mut out = Array4::zeros((t.len(), 4, 6, 6));
    let mut workspace = vec![f32::NAN; model.workspace_len(t.len()).unwrap()];
    model.forward(x.view(), t, labels, &mut workspace, out.view_mut()).unwrap();
    out
}

#[test]
fn forward_equals_the_oracle() {
    let fixture = Fixture::new();
    let model = Dit::from_bytes(&fixture.bytes()).unwrap();
    assert_eq!(model.config().heads, HEADS);
    let (x, t, labels) = input(7);
    let out = forward(&model, &x, &t, &labels);
    for image in 0..7 {
        let want = fixture.oracle(model.config(), &x, image, t[image], labels[image] as usize);
        for (got, want) in out.slice(s![image, .., .., ..]).iter().zip(want) {
            assert!((f64::from(*got) - want).abs() < 2e-5, "image {image}: {got} {want}");
        }
    }
}

/// Root mean square of the difference from the oracle as a share of the oracle's.
fn distance(fixture: &Fixture, model: &Dit) -> f64 {
    let (x, t, labels) = input(7);
    let out = forward(model, &x, &t, &labels);
    let (mut error, mut whole) = (0.0, 0.0);
    for image in 0..7 {
        let want = fixture.oracle(model.config(), &x, image, t[image], labels[image] as usize);
        for (got, want) in out.slice(s![image, .., .., ..]).iter().zip(want) {
            error += (f64::from(*got) - want) * (f64::from(*got) - want);
            whole += want * want;
        }
    }
    (error / whole).sqrt()
}

#[test]
fn sixteen_bit_weights_equal_the_oracle() {
    // Halves are widened: as exact as f32. Where all is bf16, products take numbers of eight bits.
    for (dtype, most) in [(Dtype::F16, 2e-6), (Dtype::BF16, 6e-3)] {
        let fixture = Fixture::rounded(dtype);
        let bytes = fixture.bytes_of(dtype);
        let model = Dit::from_bytes(&bytes).unwrap();
        let wide = Dit::from_bytes(&fixture.bytes()).unwrap();
        assert!(model.bytes() < wide.bytes() * 6 / 10);
        let found = distance(&fixture, &model);
        println!("{dtype:?}: {found:e}");
        assert!(found < most, "{dtype:?}: {found}");
        assert!(dtype == Dtype::F16 || found > 1e-5, "products of bf16 pairs do not round: {found}");
    }
    // A layer in f32 among others: nothing is rounded.
    let fixture = Fixture::rounded(Dtype::BF16);
    let all = fixture.bytes_of(Dtype::BF16);
    let needed = Dit::from_bytes(&all).unwrap().workspace_len(1).unwrap();
    let mixed = fixture
        .bytes_with(|name| if name.starts_with("final_layer.linear") { Dtype::F32 } else { Dtype::BF16 });
    let model = Dit::from_bytes(&mixed).unwrap();
    assert!(distance(&fixture, &model) < 2e-6);
    assert!(model.workspace_len(1).unwrap() > needed);
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_on_any_level_with_any_threads() {
    the_same_bits(&Dit::from_bytes(&Fixture::new().bytes()).unwrap());
}

#[test]
fn an_image_of_a_network_in_bf16_has_the_same_bits_everywhere() {
    the_same_bits(&Dit::from_bytes(&Fixture::rounded(Dtype::BF16).bytes_of(Dtype::BF16)).unwrap());
}

fn the_same_bits(model: &Dit) {
    let (x, t, labels) = input(70);
    let whole = forward(model, &x, &t, &labels);
    for level in arch::available_levels() {
        arch::set_level(level).unwrap();
        for n in [1, 2, 3, 7] {
            threads::set_num_threads(n).unwrap();
            assert_eq!(forward(model, &x, &t, &labels), whole, "{} with {n} threads", level.name());
        }
    }
    for image in [0, 13, 69] {
        let one = x.slice(s![image..image + 1, .., .., ..]).to_owned();
        let alone = forward(model, &one, &t[image..=image], &labels[image..=image]);
        assert_eq!(alone.slice(s![0, .., .., ..]), whole.slice(s![image, .., .., ..]));
    }
}

#[test]
fn strided_input_and_output_give_the_same_bits() {
    let model = Dit::from_bytes(&Fixture::new().bytes()).unwrap();
    let (x, t, labels) = input(3);
    let want = forward(&model, &x, &t, &labels);
    // Channels last in memory.
    let x_last = x.view().permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
    let mut out = Array4::zeros((3, 6, 6, 4));
    let mut workspace = vec![0.0; model.workspace_len(3).unwrap()];
    let view = x_last.view().permuted_axes([0, 3, 1, 2]);
    model.forward(view, &t, &labels, &mut workspace, out.view_mut().permuted_axes([0, 3, 1, 2])).unwrap();
    assert_eq!(out.permuted_axes([0, 3, 1, 2]), want);
}

#[test]
fn wrong_arguments_are_named_and_leave_the_output_alone() {
    let model = Dit::from_bytes(&Fixture::new().bytes()).unwrap();
    let (x, t, labels) = input(2);
    let mut workspace = vec![0.0; model.workspace_len(2).unwrap()];
    let mut out = Array4::from_elem((2, 4, 6, 6), 7.0);
    let mut call = |x: &Array4<f32>, t: &[f32], labels: &[i64], w: usize| {
        let error = model.forward(x.view(), t, labels, &mut workspace[..w], out.view_mut()).unwrap_err();
        assert!(out.iter().all(|&v| v == 7.0));
        error.to_string()
    };
    let w = model.workspace_len(2).unwrap();
    assert!(
        call(&Array4::zeros((2, 3, 6, 6)), &t, &labels, w)
            .contains("x has shape [2, 3, 6, 6], expected [2, 2, 6, 6]")
    );
    assert!(call(&x, &t[..1], &labels, w).contains("t has shape [1], expected [2]"));
    assert!(call(&x, &t, &[1], w).contains("labels has shape [1], expected [2]"));
    assert!(call(&x, &t, &[1, 6], w).contains("labels is 6 in row 1, expected 0 to 5"));
    assert!(call(&x, &t, &[-1, 0], w).contains("labels is -1 in row 0"));
    assert!(call(&x, &[0.0, f32::NAN], &labels, w).contains("t is NaN in row 1"));
    assert!(call(&x, &t, &labels, w - 1).contains("workspace"));
    assert!(model.workspace_len(usize::MAX / 2).is_err());
    let mut empty = Array4::zeros((0, 4, 6, 6));
    model.forward(Array4::zeros((0, 2, 6, 6)).view(), &[], &[], &mut [], empty.view_mut()).unwrap();
}

#[test]
fn hostile_files_are_refused() {
    let fixture = Fixture::new();
    let good = fixture.bytes();
    let refuse = |bytes: &[u8], word: &str| {
        let error = Dit::from_bytes(bytes).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
    };
    refuse(&[], "0 bytes");
    refuse(&good[..good.len() - 4], "truncated");
    refuse(&[good.as_slice(), &[0; 4]].concat(), "padded");
    refuse(&u64::MAX.to_le_bytes(), "header");
    refuse(&[&40u64.to_le_bytes()[..], &[b'{'; 40]].concat(), "weights");

    let broken = |change: fn(&mut Fixture)| {
        let mut fixture = Fixture::new();
        change(&mut fixture);
        fixture.bytes()
    };
    refuse(
        &broken(|f| f.tensors.retain(|t| t.0 != "blocks.1.attn.proj.bias")),
        "blocks.1.attn.proj.bias is missing",
    );
    refuse(&broken(|f| f.tensors.retain(|t| t.0 != "pos_embed")), "pos_embed is missing");
    refuse(&broken(|f| f.metadata.clear()), "num_heads");
    refuse(&broken(|f| drop(f.metadata.insert("num_heads".into(), "5".into()))), "does not divide");
    refuse(&broken(|f| drop(f.metadata.insert("input_size".into(), "9".into()))), "tokens");
    refuse(&broken(|f| drop(f.metadata.insert("time_scale".into(), "-1".into()))), "time_scale");
    refuse(
        &broken(|f| {
            let t = f.tensors.iter_mut().find(|t| t.0 == "blocks.0.attn.qkv.weight").unwrap();
            t.1 = vec![24, 72];
        }),
        "blocks.0.attn.qkv.weight has shape [24, 72], expected [72, 24]",
    );
    refuse(
        &broken(|f| {
            f.metadata.insert("num_heads".into(), "1".into());
            let (c, p, d) = (2, 3, 1026);
            f.tensors[0] = ("x_embedder.proj.weight".into(), vec![d, c, p, p], vec![0.0; d * c * p * p]);
        }),
        "heads of size 1026, expected at most 1024",
    );
    assert!(matches!(Dit::load("no/such/file".as_ref()), Err(Error::Io { .. })));
}

#[test]
fn hostile_headers_are_refused() {
    let tensor = |name: &str, dtype: &str, shape: &str, from: &str, to: &str| {
        format!(r#""{name}":{{"dtype":"{dtype}","shape":[{shape}],"data_offsets":[{from},{to}]}}"#)
    };
    let refuse = |header: &str, data: usize| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &vec![0; data]].concat();
        let error = Dit::from_bytes(&bytes).unwrap_err();
        assert!(matches!(error, Error::Format { .. }), "{error:?}");
    };
    let max = u64::MAX.to_string();
    for (dtype, shape, from, to) in [
        ("F32", "1", "0", "4"),   // no DiT
        ("F32", "1", "0", "400"), // past the end
        ("F32", "2", "0", "4"),
        ("F32", "1", "4", "0"),
        ("F32", "0", "4", "4"),
        ("F32", "1", "-4", "0"),
        ("F32", "1", max.as_str(), max.as_str()),
        ("F32", "18446744073709551615,2", "0", "4"),
        ("F32", "4294967296,4294967296", "0", "4"),
        ("Q7", "1", "0", "4"),
    ] {
        refuse(&format!("{{{}}}", tensor("x", dtype, shape, from, to)), 4);
    }
    let twice = ["x", "y"].map(|name| tensor(name, "F32", "1", "0", "4")).join(",");
    refuse(&format!("{{{twice}}}"), 4);
    refuse(&"[".repeat(100_000), 0);
    let many: Vec<_> = (0..1_000_000)
        .map(|i| tensor(&format!("t{i}"), "F32", "1", &(4 * i).to_string(), &(4 * i + 4).to_string()))
        .collect();
    refuse(&format!("{{{}}}", many.join(",")), 4_000_000);
}
