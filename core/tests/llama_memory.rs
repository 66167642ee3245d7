//! What a decoder takes of the heap: while it loads, and in a call.

use std::collections::HashMap;

use dgm_core::attention::KvCacheMut;
use dgm_core::models::Llama;
use dgm_core::threads;
use ndarray::{Array2, Array3, Array4};
use peak_alloc::PeakAlloc;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const CONFIG: &str = r#"{"model_type": "llama", "vocab_size": 2000, "hidden_size": 256, "intermediate_size": 640,
    "num_hidden_layers": 6, "num_attention_heads": 8, "num_key_value_heads": 2, "tie_word_embeddings": true}"#;

/// A folder with a model of some size in shards, all weights 1/64.
fn folder() -> std::path::PathBuf {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("llama_memory");
    std::fs::create_dir_all(&folder).unwrap();
    let mut shapes = vec![
        ("model.embed_tokens.weight".to_string(), vec![2000, 256]),
        ("model.norm.weight".to_string(), vec![256]),
    ];
    for i in 0..6 {
        for (name, shape) in [
            ("input_layernorm", vec![256]),
            ("post_attention_layernorm", vec![256]),
            ("self_attn.q_proj", vec![256, 256]),
            ("self_attn.k_proj", vec![64, 256]),
            ("self_attn.v_proj", vec![64, 256]),
            ("self_attn.o_proj", vec![256, 256]),
            ("mlp.gate_proj", vec![640, 256]),
            ("mlp.up_proj", vec![640, 256]),
            ("mlp.down_proj", vec![256, 640]),
        ] {
            shapes.push((format!("model.layers.{i}.{name}.weight"), shape));
        }
    }
    let numbers: Vec<u8> = (0..2000 * 256).flat_map(|_| (1.0f32 / 64.0).to_le_bytes()).collect();
    let tensors: HashMap<_, _> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let bytes = 4 * shape.iter().product::<usize>();
            (name, TensorView::new(Dtype::F32, shape, &numbers[..bytes]).unwrap())
        })
        .collect();
    // Most tensors in one shard, which is as hard for a reader as one file.
    let (ends, layers): (Vec<_>, Vec<_>) = tensors.into_iter().partition(|(name, _)| name.contains(".norm"));
    let mut map = serde_json::Map::new();
    for (file, shard) in [("ends.safetensors", ends), ("layers.safetensors", layers)] {
        map.extend(shard.iter().map(|(name, _)| (name.clone(), file.into())));
        serialize_to_file(shard, None, &folder.join(file)).unwrap();
    }
    let index = serde_json::json!({ "weight_map": map });
    std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::write(folder.join("config.json"), CONFIG).unwrap();
    folder
}

#[test]
fn loading_takes_the_packed_weights_and_the_largest_layer_and_a_call_takes_nothing() {
    let folder = folder();
    threads::set_num_threads(2).unwrap();
    let before = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let model = Llama::load(&folder).unwrap();
    let (kept, most) = (HEAP.current_usage() - before, HEAP.peak_usage() - before);
    let largest = 4 * 2000 * 256;
    println!("packed {}, kept {kept}, most {most}, largest layer {largest}", model.bytes());
    assert!(kept <= model.bytes() + model.bytes() / 100 + 4096);
    assert!(most <= model.bytes() + largest + model.bytes() / 10);

    let c = model.config();
    let mut k = Array4::<f32>::zeros((1, c.cache_heads(), 400, c.head_dim));
    let (mut v, mut lengths) = (k.clone(), [0]);
    let mut cache = KvCacheMut {
        k: k.view_mut().into(),
        v: v.view_mut().into(),
        k_scale: None,
        v_scale: None,
        block_table: None,
        lengths: &mut lengths,
    };
    let prompt = Array2::from_shape_fn((1, 300), |(_, i)| i as i64);
    let mut workspace = vec![0.0; model.workspace_len(1, 300).unwrap()];
    let mut logits = Array3::zeros((1, 1, c.vocab));
    // What threads keep for their tiles comes with the first calls.
    for _ in 0..2 {
        cache.lengths[0] = 0;
        model.forward(prompt.view(), &mut cache, &mut workspace, logits.view_mut()).unwrap();
        let token = prompt.slice(ndarray::s![.., ..1]);
        model.forward(token, &mut cache, &mut workspace, logits.view_mut()).unwrap();
    }
    let growth = |tokens: ndarray::ArrayView2<i64>, cache: &mut KvCacheMut, workspace: &mut [f32]| {
        let mut logits = Array3::zeros((1, 1, 2000));
        let now = HEAP.current_usage();
        HEAP.reset_peak_usage();
        model.forward(tokens, cache, workspace, logits.view_mut()).unwrap();
        let most = HEAP.peak_usage() - now;
        println!("{:?}: most {most}", tokens.dim());
        assert_eq!(HEAP.current_usage(), now);
        most
    };
    // Lists of tasks, however many tokens: less than a row of activations.
    let decoding = growth(prompt.slice(ndarray::s![.., ..1]), &mut cache, &mut workspace);
    cache.lengths[0] = 0;
    let prefill = growth(prompt.view(), &mut cache, &mut workspace);
    let row = 4 * model.workspace_len(1, 1).unwrap();
    assert!(decoding <= row && prefill <= row, "{decoding} and {prefill} of {row}");
}
