//! The golden vectors that all languages share (tests/golden).

// Each test program uses a part of it.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ndarray::{Array1, Array2, Array3, Array4, ArrayD};

/// Tensors of a golden file by name.
pub struct Golden {
    bytes: Vec<u8>,
    pub index: HashMap<String, (String, Vec<usize>, usize)>,
}

/// A network as diffusers saves it.
pub struct Saved {
    pub weights: Vec<u8>,
    pub config: String,
}

impl Saved {
    pub fn open(name: &str) -> Self {
        let file = |name: &str, file| std::fs::read(folder().join(name).join(file)).unwrap();
        let config = String::from_utf8(file(name, "config.json")).unwrap();
        Saved { weights: file(name, "diffusion_pytorch_model.safetensors"), config }
    }

    /// Checks that it is refused once a setting is changed, with a message that has `text` in it.
    pub fn refuse<T: std::fmt::Debug>(
        &self,
        load: impl Fn(&[u8], &str) -> dgm_core::Result<T>,
        [key, value, text]: [&str; 3],
    ) {
        let mut config: serde_json::Value = serde_json::from_str(&self.config).unwrap();
        config[key] = serde_json::from_str(value).unwrap();
        let e = load(&self.weights, &config.to_string()).unwrap_err().to_string();
        assert!(e.contains(text), "{key} {value}: {e} lacks {text}");
    }
}

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

impl Golden {
    pub fn open() -> Self {
        Self::named("golden")
    }

    pub fn named(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.txt"))).unwrap();
        let index = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                let dims = words[2].split('x').map(|d| d.parse().unwrap()).collect();
                (words[0].to_string(), (words[1].to_string(), dims, words[3].parse().unwrap()))
            })
            .collect();
        Golden { bytes: std::fs::read(folder().join(format!("{name}.bin"))).unwrap(), index }
    }

    fn raw<const N: usize>(&self, name: &str, dtype: &str) -> (Vec<usize>, Vec<[u8; N]>) {
        let (found, dims, offset) = self.index.get(name).unwrap_or_else(|| panic!("no golden {name}"));
        assert_eq!(found, dtype, "{name}");
        let n: usize = dims.iter().product();
        let words = self.bytes[*offset..*offset + n * N].as_chunks::<N>().0.to_vec();
        (dims.clone(), words)
    }

    pub fn f32(&self, name: &str) -> ArrayD<f32> {
        let (dims, words) = self.raw::<4>(name, "f32");
        ArrayD::from_shape_vec(dims, words.into_iter().map(f32::from_le_bytes).collect()).unwrap()
    }

    pub fn i64(&self, name: &str) -> Vec<i64> {
        self.raw::<8>(name, "i64").1.into_iter().map(i64::from_le_bytes).collect()
    }

    pub fn one(&self, name: &str) -> Array1<f32> {
        self.f32(name).into_dimensionality().unwrap()
    }

    pub fn two(&self, name: &str) -> Array2<f32> {
        self.f32(name).into_dimensionality().unwrap()
    }

    pub fn three(&self, name: &str) -> Array3<f32> {
        self.f32(name).into_dimensionality().unwrap()
    }

    pub fn four(&self, name: &str) -> Array4<f32> {
        self.f32(name).into_dimensionality().unwrap()
    }
}

#[track_caller]
pub fn close<D: ndarray::Dimension>(
    got: &ndarray::Array<f32, D>,
    want: &ndarray::Array<f32, D>,
    tolerance: f32,
    name: &str,
) {
    assert_eq!(got.shape(), want.shape(), "{name}");
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        let same = a == b || (a - b).abs() <= tolerance * b.abs().max(1.0);
        assert!(same, "{name}: element {i} is {a}, expected {b}");
    }
}
