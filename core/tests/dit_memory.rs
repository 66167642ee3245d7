//! What a DiT takes of the heap: its packed weights, the activations of one block, and little else.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use dgm_core::models::Dit;
use dgm_core::threads;
use ndarray::Array4;
use peak_alloc::PeakAlloc;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

const WIDTH: usize = 256;
const BLOCKS: usize = 6;
/// Side of the images, of which a token is two by two.
const SIDE: usize = 64;

/// A network whose numbers are all `number`; how many are weights of layers, and how many others.
fn file(dtype: Dtype, number: &[u8]) -> (PathBuf, [usize; 2]) {
    let d = WIDTH;
    let mut shapes = vec![
        ("x_embedder.proj.weight".to_string(), vec![d, 4, 2, 2]),
        ("x_embedder.proj.bias".to_string(), vec![d]),
        ("pos_embed".to_string(), vec![1, SIDE * SIDE / 4, d]),
        ("y_embedder.embedding_table.weight".to_string(), vec![11, d]),
    ];
    let mut layer = |name: String, outputs: usize, inputs: usize| {
        shapes.push((format!("{name}.weight"), vec![outputs, inputs]));
        shapes.push((format!("{name}.bias"), vec![outputs]));
    };
    layer("t_embedder.mlp.0".into(), d, 256);
    layer("t_embedder.mlp.2".into(), d, d);
    for i in 0..BLOCKS {
        layer(format!("blocks.{i}.adaLN_modulation.1"), 6 * d, d);
        layer(format!("blocks.{i}.attn.qkv"), 3 * d, d);
        layer(format!("blocks.{i}.attn.proj"), d, d);
        layer(format!("blocks.{i}.mlp.fc1"), 4 * d, d);
        layer(format!("blocks.{i}.mlp.fc2"), d, 4 * d);
    }
    layer("final_layer.adaLN_modulation.1".into(), 2 * d, d);
    layer("final_layer.linear".into(), 16, d);
    let numbers = number.repeat(6 * d * d);
    let count = |weights: bool| {
        let some = shapes.iter().filter(|(_, shape)| (shape.len() % 2 == 0) == weights);
        some.map(|(_, shape)| shape.iter().product::<usize>()).sum::<usize>()
    };
    let counts = [count(true), count(false)];
    let tensors = shapes.into_iter().map(|(name, shape)| {
        let bytes = number.len() * shape.iter().product::<usize>();
        (name, TensorView::new(dtype, shape, &numbers[..bytes]).unwrap())
    });
    let metadata = [
        ("dgm.format", "dit".to_string()),
        ("dgm.version", "1".to_string()),
        ("num_heads", "4".to_string()),
        ("patch_size", "2".to_string()),
        ("in_channels", "4".to_string()),
        ("out_channels", "4".to_string()),
        ("input_size", SIDE.to_string()),
        ("num_classes", "10".to_string()),
        ("time_scale", "1000".to_string()),
        ("frequency_embedding_size", "256".to_string()),
    ];
    let metadata: HashMap<_, _> = metadata.map(|(key, value)| (key.to_string(), value)).into();
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("dit_memory_{dtype:?}.safetensors"));
    serialize_to_file(tensors, Some(metadata), &path).unwrap();
    (path, counts)
}

#[test]
fn loading_and_running_take_the_packed_weights_and_the_activations_of_a_block() {
    threads::set_num_threads(2).unwrap();
    for (dtype, number) in [(Dtype::F32, &[0u8, 0, 0x80, 0x3c][..]), (Dtype::BF16, &[0x80, 0x3c])] {
        let (path, [weights, others]) = file(dtype, number);
        let batch = 4;
        let x = Array4::from_elem((batch, 4, SIDE, SIDE), 0.5);
        let mut out = Array4::zeros(x.dim());
        let before = HEAP.current_usage();
        HEAP.reset_peak_usage();
        let model = Dit::load(&path).unwrap();
        let mut workspace = vec![0.0; model.workspace_len(batch).unwrap()];
        for _ in 0..2 {
            model.forward(x.view(), &[0.5; 4], &[3, 10, 0, 9], &mut workspace, out.view_mut()).unwrap();
        }
        // What threads keep for their tiles comes with the first calls, so f32's has it.
        let most = HEAP.peak_usage() - before;
        // The residual stream in f32; of the type that is multiplied, what a layer reads and the hidden layer of the MLP.
        let block = batch * SIDE * SIDE / 4 * WIDTH * (4 + 5 * number.len());
        println!("{dtype:?}: packed {}, block {block}, most {most}", model.bytes());
        assert!(out.iter().all(|x: &f32| x.is_finite()));
        let stored = number.len() * weights + 4 * others;
        assert!(model.bytes() * 100 <= stored * 101, "{} of {stored}", model.bytes());
        assert!(most * 10 <= (model.bytes() + block) * 11, "{most}");
    }
}
