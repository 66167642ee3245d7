//! Weights in shards: the networks of one file, and indexes with everything wrong.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use common::folder;
use dgm_core::Error;
use dgm_core::attention::KvCacheMut;
use dgm_core::models::{Dit, Llama, Sd3};
use ndarray::{Array2, Array3, Array4};
use safetensors::SafeTensors;
use safetensors::tensor::serialize_to_file;
use serde_json::{Value, json};

/// An empty folder of this name.
fn fresh(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shards").join(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// Deals the tensors of a file to shards in `to`, one after the other, and gives the index.
fn split(file: &Path, to: &Path, shards: usize) -> Value {
    let bytes = std::fs::read(file).unwrap();
    let all = SafeTensors::deserialize(&bytes).unwrap();
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let mut map = BTreeMap::new();
    for i in 0..shards {
        let name = format!("part-{i}.safetensors");
        let part: Vec<_> = all.iter().enumerate().filter(|(n, _)| n % shards == i).map(|(_, t)| t).collect();
        map.extend(part.iter().map(|(tensor, _)| (tensor.to_string(), name.clone())));
        serialize_to_file(part, header.metadata().clone(), &to.join(name)).unwrap();
    }
    json!({"metadata": {"total_size": 1}, "weight_map": map})
}

fn index(folder: &Path, single: &str, text: impl ToString) {
    std::fs::write(folder.join(format!("{single}.index.json")), text.to_string()).unwrap();
}

const SD3: &str = "diffusion_pytorch_model.safetensors";

/// `tiny_sd3` in three shards, and its index.
fn sd3_in(name: &str) -> (PathBuf, Value) {
    let (from, to) = (folder().join("tiny_sd3"), fresh(name));
    std::fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let json = split(&from.join(SD3), &to, 3);
    index(&to, SD3, &json);
    (to, json)
}

#[test]
fn what_transformers_writes_in_shards_is_what_it_writes_in_one_file() {
    let logits = |name: &str| {
        let model = Llama::load(&folder().join(name)).unwrap();
        let c = model.config();
        let mut k = Array4::<f32>::zeros((1, c.cache_heads(), 40, c.head_dim));
        let (mut v, mut lengths) = (k.clone(), [0]);
        let mut cache = KvCacheMut {
            k: k.view_mut().into(),
            v: v.view_mut().into(),
            k_scale: None,
            v_scale: None,
            block_table: None,
            lengths: &mut lengths,
        };
        let mut logits = Array3::zeros((1, 40, c.vocab));
        let tokens = Array2::from_shape_fn((1, 40), |(_, i)| (i * 7 % c.vocab) as i64);
        let mut workspace = vec![0.0; model.workspace_len(1, 40).unwrap()];
        model.forward(tokens.view(), &mut cache, &mut workspace, logits.view_mut()).unwrap();
        (model.bytes(), logits)
    };
    let (one, shards) = (logits("tiny_llama_3"), logits("tiny_llama_3_shards"));
    assert_eq!(one, shards);
    assert!(one.1.iter().any(|&x| x != 0.0));
}

#[test]
fn diffusion_transformers_have_the_same_bits_in_shards() {
    let outputs = |model: Sd3| {
        let x = Array4::from_shape_fn((1, 4, 8, 6), |(_, c, h, w)| (c + 3 * h + w) as f32 / 16.0);
        let text = Array3::from_shape_fn((1, 5, 20), |(_, s, i)| (s + i) as f32 / 16.0);
        let mut out = x.clone();
        let mut workspace = vec![0.0; model.workspace_len(8, 6, 5).unwrap()];
        let pooled = Array2::ones((1, 12));
        model
            .forward(x.view(), &[500.0], text.view(), pooled.view(), &mut workspace, out.view_mut())
            .unwrap();
        (model.bytes(), out)
    };
    let one = Sd3::load(&folder().join("tiny_sd3")).unwrap();
    assert_eq!(outputs(Sd3::load(&sd3_in("sd3").0).unwrap()), outputs(one));

    let outputs = |model: Dit| {
        let c = model.config().clone();
        let x = Array4::from_shape_fn((1, c.channels, c.height, c.width), |(_, c, h, w)| {
            (c + h + w) as f32 / 8.0
        });
        let mut out = Array4::zeros((1, c.out_channels, c.height, c.width));
        let mut workspace = vec![0.0; model.workspace_len(1).unwrap()];
        model.forward(x.view(), &[0.5], &[1], &mut workspace, out.view_mut()).unwrap();
        (model.metadata().clone(), model.bytes(), out)
    };
    let (file, to) = (folder().join("tiny_dit.safetensors"), fresh("dit"));
    let json = split(&file, &to, 2);
    index(&to, "dit.safetensors", json);
    let shards = to.join("dit.safetensors");
    assert_eq!(outputs(Dit::load(&shards).unwrap()), outputs(Dit::load(&file).unwrap()));
    // The whole file goes before the index.
    std::fs::write(&shards, [0; 9]).unwrap();
    assert!(Dit::load(&shards).is_err());

    // What one shard says of the network, no other may deny.
    std::fs::remove_file(&shards).unwrap();
    let part = to.join("part-1.safetensors");
    let bytes = std::fs::read(&part).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let other = [("num_heads".to_string(), "1".to_string())].into_iter().collect();
    serialize_to_file(tensors.iter(), Some(other), &part).unwrap();
    let e = Dit::load(&shards).unwrap_err().to_string();
    assert!(e.contains("metadata num_heads is") && e.contains("\"1\""), "{e}");
}

#[test]
fn hostile_indexes_are_refused() {
    let refused = |folder: &Path, text: &[&str]| {
        let e = Sd3::load(folder).unwrap_err();
        assert!(matches!(e, Error::Format { .. } | Error::Io { .. }), "{e}");
        assert!(text.iter().all(|t| e.to_string().contains(t)), "{e} lacks {text:?}");
    };
    let (folder, good) = sd3_in("hostile");
    let bad = |text: &dyn ToString, expected: &[&str]| {
        index(&folder, SD3, text.to_string());
        refused(&folder, expected);
    };
    let name = "diffusion_pytorch_model.safetensors.index.json";
    for text in ["", "{", "null", "3", "{}", "[1]", r#"{"weight_map": null}"#, r#"{"weight_map": {"x": 3}}"#]
    {
        bad(&text, &[name]);
    }
    bad(&r#"{"weight_map": {}}"#, &[name, "tensor pos_embed.proj.weight is missing"]);
    bad(&r#"{"weight_map": {}, "weight_map": {}}"#, &["duplicate field `weight_map`"]);
    bad(&r#"{"weight_map": {"x": "a", "x": "b"}}"#, &["tensor x twice, first in a"]);

    let set = |tensor: &str, file: &str| {
        let mut json = good.clone();
        json["weight_map"][tensor] = json!(file);
        json
    };
    let tensor = "proj_out.bias";
    let home = good["weight_map"][tensor].as_str().unwrap();
    // Paths, though there would be a file.
    let inside = folder.join("inside");
    std::fs::create_dir_all(&inside).unwrap();
    std::fs::copy(folder.join(home), inside.join(home)).unwrap();
    std::fs::copy(folder.join(home), folder.join("../outside.safetensors")).unwrap();
    let absolute = std::fs::canonicalize(folder.join(home)).unwrap();
    for path in [
        "../outside.safetensors",
        "..\\outside.safetensors",
        "c:outside.safetensors",
        "./part-0.safetensors",
        "inside/part-0.safetensors",
        "part-0.safetensors/",
        absolute.to_str().unwrap(),
        "",
        ".",
        "..",
    ] {
        let expected = format!("tensor {tensor} in {path:?}, expected the name of a file in the same folder");
        bad(&set(tensor, path), &[name, &expected]);
    }
    bad(&set(tensor, "part-9.safetensors"), &["part-9.safetensors"]);
    bad(&set(tensor, "inside"), &["inside"]);
    bad(&set(tensor, "config.json"), &["config.json"]);
    bad(&set(tensor, "nul\0byte"), &["nul"]);
    bad(&set("no.such", home), &[name, "tensor no.such is in no shard, expected in part-"]);
    let other = ["part-0.safetensors", "part-1.safetensors"].into_iter().find(|p| *p != home).unwrap();
    bad(&set(tensor, other), &[&format!("{tensor} is in "), home, &format!("expected in {other}")]);
    let mut less = good.clone();
    less["weight_map"].as_object_mut().unwrap().remove(tensor);
    bad(&less, &[&format!("tensor {tensor} of "), home, "is missing in weight_map"]);

    // One tensor in two shards, whatever the index says.
    std::fs::copy(folder.join(home), folder.join("again.safetensors")).unwrap();
    bad(&set("no.such", "again.safetensors"), &["is in ", "again.safetensors", home, "expected in one"]);

    // Shards that are no files of weights, or of other sizes.
    index(&folder, SD3, &good);
    assert!(Sd3::load(&folder).is_ok());
    let shard = folder.join(home);
    let bytes = std::fs::read(&shard).unwrap();
    std::fs::write(&shard, &bytes[..bytes.len() - 1]).unwrap();
    refused(&folder, &[home, "truncated or padded"]);
    std::fs::write(&shard, "").unwrap();
    refused(&folder, &[home]);
    std::fs::remove_file(&shard).unwrap();
    refused(&folder, &[home]);
    std::fs::write(&shard, &bytes).unwrap();
    assert!(Sd3::load(&folder).is_ok());

    // A tensor of the wrong shape is named with its shard.
    let mut config: Value =
        serde_json::from_slice(&std::fs::read(folder.join("config.json")).unwrap()).unwrap();
    config["pooled_projection_dim"] = json!(13);
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let wrong = "time_text_embed.text_embedder.linear_1.weight";
    let home = good["weight_map"][wrong].as_str().unwrap();
    refused(&folder, &[home, wrong, "has shape [24, 12], expected [24, 13]"]);
}
