//! `config.json` and indexes of shards from arbitrary bytes: an error, or a network that works.
#![no_main]

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dgm_core::attention::KvCacheMut;
use dgm_core::models::{Flux, FluxInputs, Llama, Sd3};
use ndarray::{Array2, Array3, Array4};
use serde_json::Value;

macro_rules! golden {
    ($file:literal) => {
        include_bytes!(concat!("../../tests/golden/", $file))
    };
}

const INDEX: &str = "diffusion_pytorch_model.safetensors.index.json";

/// `text` as it is, or its members in the place of those of the object `good`.
fn merged(good: &[u8], within: Option<&str>, whole: bool, text: &[u8]) -> Option<String> {
    if whole {
        return String::from_utf8(text.to_vec()).ok();
    }
    let mut good: Value = serde_json::from_slice(good).expect("a good file");
    let Ok(Value::Object(members)) = serde_json::from_slice(text) else { return None };
    let object = match within {
        Some(key) => &mut good[key],
        None => &mut good,
    };
    object.as_object_mut().expect("an object").extend(members);
    Some(good.to_string())
}

fn llama(config: &str) {
    let Ok(model) = Llama::from_bytes(golden!("tiny_llama/model.safetensors"), config) else { return };
    let c = model.config();
    let mut k = Array4::<f32>::zeros((1, c.cache_heads(), 4, c.head_dim));
    let (mut v, mut lengths) = (k.clone(), [0]);
    let mut cache = KvCacheMut {
        k: k.view_mut().into(),
        v: v.view_mut().into(),
        k_scale: None,
        v_scale: None,
        block_table: None,
        lengths: &mut lengths,
    };
    let tokens = Array2::zeros((1, 3));
    let mut logits = Array3::zeros((1, 1, c.vocab));
    let mut workspace = vec![0.0; model.workspace_len(1, 3).expect("a size")];
    model.forward(tokens.view(), &mut cache, &mut workspace, logits.view_mut()).expect("a forward pass");
}

fn sd3(config: &str) {
    let weights = golden!("tiny_sd3/diffusion_pytorch_model.safetensors");
    let Ok(model) = Sd3::from_bytes(weights, config) else { return };
    let (c, side) = (model.config(), model.config().patch);
    let (x, text) = (Array4::ones((1, c.channels, side, side)), Array3::ones((1, 2, c.text)));
    let pooled = Array2::ones((1, c.pooled));
    let mut out = Array4::zeros((1, c.out_channels, side, side));
    let mut workspace = vec![0.0; model.workspace_len(side, side, 2).expect("a size")];
    let (text, pooled) = (text.view(), pooled.view());
    model.forward(x.view(), &[500.0], text, pooled, &mut workspace, out.view_mut()).expect("a forward pass");
}

/// The output for some input.
fn flux(model: &Flux) -> Array3<f32> {
    let c = model.config();
    let (x, text) = (Array3::ones((1, 3, c.channels)), Array3::ones((1, 2, c.text)));
    let (pooled, ids) = (Array2::ones((1, c.pooled)), Array2::ones((3, c.axes.len())));
    let inputs = FluxInputs {
        x: x.view(),
        t: &[0.5],
        guidance: c.guidance.then_some(&[3.5]),
        text: text.view(),
        pooled: pooled.view(),
        ids: ids.view(),
        text_ids: None,
    };
    let mut out = Array3::zeros((1, 3, c.out_channels));
    let mut workspace = vec![0.0; model.workspace_len(3, 2).expect("a size")];
    model.forward(&inputs, &mut workspace, out.view_mut()).expect("a forward pass");
    out
}

/// A folder with shards, where each input's index is put, and the output of what the right index gives.
fn folder() -> &'static (PathBuf, Array3<f32>) {
    static FOLDER: OnceLock<(PathBuf, Array3<f32>)> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/tiny_flux_dev");
        let folder = std::env::temp_dir().join(format!("dgm-fuzz-configs-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in std::fs::read_dir(&golden).expect("the golden folder") {
            let file = file.expect("a file");
            std::fs::copy(file.path(), folder.join(file.file_name())).expect("a copy");
        }
        (folder, flux(&Flux::load(&golden).expect("a good folder")))
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&kind, rest)) = data.split_first() else { return };
    let (good, within): (&[u8], _) = match kind % 4 {
        0 => (golden!("tiny_llama/config.json"), None),
        1 => (golden!("tiny_sd3/config.json"), None),
        2 => (golden!("tiny_flux/config.json"), None),
        _ => (golden!("tiny_flux_dev/diffusion_pytorch_model.safetensors.index.json"), Some("weight_map")),
    };
    let Some(text) = merged(good, within, kind & 4 != 0, rest) else { return };
    match kind % 4 {
        0 => llama(&text),
        1 => sd3(&text),
        2 => {
            let weights = golden!("tiny_flux/diffusion_pytorch_model.safetensors");
            if let Ok(model) = Flux::from_bytes(weights, &text) {
                flux(&model);
            }
        }
        _ => {
            let (folder, want) = folder();
            std::fs::write(folder.join(INDEX), text).expect("an index");
            // An index that is taken says what is so: the network is the same.
            if let Ok(model) = Flux::load(folder) {
                assert_eq!(flux(&model), *want);
            }
        }
    }
});
