//! Decoders: against transformers, against themselves in every cut, and with everything wrong.

mod common;

use std::collections::HashMap;
use std::sync::Mutex;

use common::{Golden, close, folder};
use dgm_core::Error;
use dgm_core::arch::{available_levels, level, set_level};
use dgm_core::attention::{KvCacheMut, PagesMut, cache_truncate};
use dgm_core::models::{Llama, RopeScaling};
use dgm_core::tensor::{bf16, f16};
use dgm_core::threads;
use ndarray::{Array2, Array3, Array4, ArrayView2, s};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};

const BOTH: [&str; 2] = ["tiny_llama", "tiny_llama_3"];

fn load(name: &str) -> Llama {
    Llama::load(&folder().join(name)).unwrap()
}

/// Instruction set and threads belong to the process.
fn serial() -> std::sync::MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// A cache that owns its memory.
struct Cache<T> {
    k: Array4<T>,
    v: Array4<T>,
    /// For int8.
    scales: Option<[Array3<f32>; 2]>,
    table: Option<Array2<i32>>,
    lengths: Vec<usize>,
}

impl<T: Clone + Default> Cache<T> {
    /// Room for `tokens` in pages of `page_len`, mixed up between the batch entries, or in one page each.
    fn new(model: &Llama, batch: usize, tokens: usize, page_len: Option<usize>, scaled: bool) -> Self {
        let c = model.config();
        let len = page_len.unwrap_or(tokens);
        let each = tokens.div_ceil(len);
        let shape = (batch * each, c.cache_heads(), len, c.head_dim);
        let scales = Array3::zeros((shape.0, shape.1, shape.2));
        Cache {
            k: Array4::from_elem(shape, T::default()),
            v: Array4::from_elem(shape, T::default()),
            scales: scaled.then(|| [scales.clone(), scales]),
            table: page_len
                .map(|_| Array2::from_shape_fn((batch, each), |(b, i)| (i * batch + batch - 1 - b) as i32)),
            lengths: vec![0; batch],
        }
    }

    fn view<'a>(&'a mut self) -> KvCacheMut<'a>
    where
        ndarray::ArrayViewMut4<'a, T>: Into<PagesMut<'a>>,
    {
        let [k_scale, v_scale] = match &mut self.scales {
            Some(scales) => scales.each_mut().map(|s| Some(s.view_mut())),
            None => [None, None],
        };
        KvCacheMut {
            k: self.k.view_mut().into(),
            v: self.v.view_mut().into(),
            k_scale,
            v_scale,
            block_table: self.table.as_ref().map(|t| t.view()),
            lengths: &mut self.lengths,
        }
    }
}

fn forward(model: &Llama, tokens: ArrayView2<i64>, cache: &mut KvCacheMut, last: usize) -> Array3<f32> {
    let (batch, new) = tokens.dim();
    let mut workspace = vec![f32::NAN; model.workspace_len(batch, new).unwrap()];
    let mut logits = Array3::from_elem((batch, last, model.config().vocab), f32::NAN);
    model.forward(tokens, cache, &mut workspace, logits.view_mut()).unwrap();
    logits
}

/// All logits of `tokens` in chunks of `chunk`.
macro_rules! in_chunks {
    ($model:expr, $tokens:expr, $cache:expr, $chunk:expr) => {{
        let (batch, n) = $tokens.dim();
        let mut logits = Array3::zeros((batch, n, $model.config().vocab));
        for from in (0..n).step_by($chunk) {
            let to = n.min(from + $chunk);
            let part = forward($model, $tokens.slice(s![.., from..to]), &mut $cache.view(), to - from);
            logits.slice_mut(s![.., from..to, ..]).assign(&part);
        }
        assert_eq!($cache.lengths, vec![n; batch]);
        logits
    }};
}

/// `[batch, n]` tokens without a pattern.
fn tokens(model: &Llama, batch: usize, n: usize) -> Array2<i64> {
    Array2::from_shape_fn((batch, n), |(b, i)| {
        let x = (b * 7919 + i * 104_729 + 13) as u64;
        (x.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33) as i64 % model.config().vocab as i64
    })
}

#[test]
fn logits_are_those_of_transformers() {
    let g = Golden::named("llama");
    for name in BOTH {
        let model = load(name);
        let tokens = Array2::from_shape_vec((2, 40), g.i64(&format!("{name}.tokens"))).unwrap();
        let want = g.three(&format!("{name}.logits"));
        let mut cache = Cache::<f32>::new(&model, 2, 40, None, false);
        // The float32 of transformers itself is within 1e-5 of these.
        let logits = forward(&model, tokens.view(), &mut cache.view(), 40);
        close(&logits, &want, 1e-5, name);
        // The same bits in every language.
        let bytes = logits.iter().flat_map(|x| x.to_le_bytes());
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        let hashes = std::fs::read_to_string(folder().join("llama.fnv")).unwrap();
        let line = format!("{name} {hash:016x}");
        assert!(hashes.lines().any(|l| l == line), "{line}");
        // Int8 keys and values are near.
        let mut cache = Cache::<i8>::new(&model, 2, 40, Some(16), true);
        close(&forward(&model, tokens.view(), &mut cache.view(), 40), &want, 0.3, name);
    }
}

#[test]
fn configurations_are_read() {
    let model = load("tiny_llama");
    let c = model.config();
    assert_eq!((c.vocab, c.hidden, c.mlp_hidden, c.depth), (64, 48, 80, 2));
    assert_eq!((c.heads, c.kv_heads, c.head_dim, c.cache_heads()), (4, 2, 12, 4));
    assert_eq!((c.norm_eps, c.rope_theta, c.tied, c.max_positions), (1e-5, 1e4, true, 64));
    assert_eq!((c.rope_scaling, c.attention_bias, c.mlp_bias), (RopeScaling::None, false, false));
    // Weights in panels of 32 outputs: a table, which is the head, and the layers of two blocks.
    let panels = |n: usize, inputs: usize| n.next_multiple_of(32) * (inputs + 1) + 16;
    let block = panels(96, 48) + panels(48, 48) + panels(160, 48) + panels(48, 80) + 2 * 48;
    assert_eq!(model.bytes(), 4 * (2 * block + panels(64, 48) + 48 + 6));
    let c = load("tiny_llama_3").config().clone();
    assert_eq!((c.head_dim, c.tied, c.attention_bias, c.mlp_bias), (16, false, true, true));
    assert_eq!(c.rope_scaling, RopeScaling::Llama3 { factor: 8.0, low: 1.0, high: 4.0, positions: 32.0 });
}

#[test]
fn whole_in_chunks_and_token_by_token_have_the_same_bits() {
    let _guard = serial();
    for name in BOTH {
        let model = load(name);
        // Past a split of the keys, so that both kernels of attention take part.
        let tokens = tokens(&model, 2, 600);
        macro_rules! check {
            ($kind:ty, $scaled:expr) => {{
                let mut cache = Cache::<$kind>::new(&model, 2, 600, None, $scaled);
                let want = in_chunks!(&model, tokens, cache, 600);
                for (chunk, page_len) in
                    [(1, None), (7, None), (129, Some(600)), (512, Some(16)), (50, Some(33))]
                {
                    let mut again = Cache::<$kind>::new(&model, 2, 600, page_len, $scaled);
                    assert_eq!(in_chunks!(&model, tokens, again, chunk), want, "{name} {chunk} {page_len:?}");
                    if page_len.is_none() {
                        assert_eq!((&again.k, &again.v), (&cache.k, &cache.v));
                    }
                }
            }};
        }
        check!(f32, false);
        check!(f16, false);
        check!(bf16, false);
        check!(i8, true);
    }
}

#[test]
fn a_sequence_has_the_same_bits_in_any_batch_on_any_level_with_any_threads() {
    let _guard = serial();
    let (first, threads_before) = (level(), threads::num_threads());
    for name in BOTH {
        let model = load(name);
        let tokens = tokens(&model, 5, 60);
        let mut cache = Cache::<f32>::new(&model, 5, 60, None, false);
        let want = in_chunks!(&model, tokens, cache, 60);
        for l in available_levels() {
            set_level(l).unwrap();
            for n in [1, 3] {
                threads::set_num_threads(n).unwrap();
                let mut cache = Cache::<f32>::new(&model, 5, 60, Some(9), false);
                assert_eq!(in_chunks!(&model, tokens, cache, 31), want, "{name} {} {n}", l.name());
            }
        }
        set_level(first).unwrap();
        threads::set_num_threads(threads_before).unwrap();
        for b in [0, 4] {
            let alone = tokens.slice(s![b..b + 1, ..]);
            let mut cache = Cache::<f32>::new(&model, 1, 60, None, false);
            assert_eq!(in_chunks!(&model, alone, cache, 8), want.slice(s![b..b + 1, .., ..]));
        }
    }
}

#[test]
fn entries_of_different_lengths_and_a_way_back() {
    let model = load("tiny_llama");
    let tokens = tokens(&model, 2, 20);
    let mut whole = Cache::<f32>::new(&model, 2, 20, None, false);
    let want = in_chunks!(&model, tokens, whole, 20);
    let mut cache = Cache::<f32>::new(&model, 2, 20, Some(4), false);
    forward(&model, tokens.slice(s![.., ..9]), &mut cache.view(), 0);
    // The second entry alone goes back by four tokens.
    cache_truncate(&mut cache.lengths, &[9, 5]).unwrap();
    let next = ndarray::stack![ndarray::Axis(0), tokens.slice(s![0, 9..14]), tokens.slice(s![1, 5..10])];
    let got = forward(&model, next.view(), &mut cache.view(), 2);
    assert_eq!(cache.lengths, [14, 10]);
    assert_eq!(got.slice(s![0, .., ..]), want.slice(s![0, 12..14, ..]));
    assert_eq!(got.slice(s![1, .., ..]), want.slice(s![1, 8..10, ..]));
}

#[test]
fn strides_are_free() {
    let model = load("tiny_llama");
    let tokens = tokens(&model, 2, 12);
    let mut cache = Cache::<f32>::new(&model, 2, 12, None, false);
    let want = in_chunks!(&model, tokens, cache, 12);
    // Tokens first in memory, both of the cache and of the logits; every second token.
    let spread = Array2::from_shape_fn((2, 24), |(b, i)| tokens[[b, i / 2]]);
    let c = model.config();
    let mut k = Array4::<f32>::zeros((2, 12, c.cache_heads(), c.head_dim));
    let (mut v, mut lengths) = (k.clone(), [0, 0]);
    let mut view = KvCacheMut {
        k: k.view_mut().permuted_axes([0, 2, 1, 3]).into(),
        v: v.view_mut().permuted_axes([0, 2, 1, 3]).into(),
        k_scale: None,
        v_scale: None,
        block_table: None,
        lengths: &mut lengths,
    };
    let mut workspace = vec![0.0; model.workspace_len(2, 12).unwrap()];
    let mut logits = Array3::zeros((12, 2, c.vocab));
    let to = logits.view_mut().permuted_axes([1, 0, 2]);
    model.forward(spread.slice(s![.., ..;2]), &mut view, &mut workspace, to).unwrap();
    assert_eq!(logits.permuted_axes([1, 0, 2]), want);
}

#[test]
fn wrong_arguments_are_named_and_nothing_is_written() {
    let model = load("tiny_llama");
    let c = model.config();
    let mut cache = Cache::<f32>::new(&model, 2, 8, None, false);
    forward(&model, tokens(&model, 2, 5).view(), &mut cache.view(), 0);
    let before = (cache.k.clone(), cache.v.clone(), cache.lengths.clone());
    let mut logits = Array3::from_elem((2, 1, c.vocab), 7.0);
    let mut workspace = vec![0.0; model.workspace_len(2, 3).unwrap()];
    let mut fails = |tokens: &[[i64; 3]], cache: &mut KvCacheMut, w: usize, text: &str| {
        let tokens = Array2::from(tokens.to_vec());
        let e = model.forward(tokens.view(), cache, &mut workspace[..w], logits.view_mut()).unwrap_err();
        assert!(e.to_string().starts_with(text), "{e} is not {text}");
        assert!(logits.iter().all(|&x| x == 7.0));
    };
    let (good, w) = ([[1, 2, 3], [4, 5, 6]], model.workspace_len(2, 3).unwrap());
    fails(&[[1, 2, 3], [4, 64, 6]], &mut cache.view(), w, "tokens is 64 at [1, 1], expected 0 to 63");
    fails(&[[-1, 2, 3], [4, 5, 6]], &mut cache.view(), w, "tokens is -1 at [0, 0]");
    fails(&[[1, 2, 3]], &mut cache.view(), w, "tokens has shape [1, 3], expected [2, 3]");
    fails(&good, &mut cache.view(), w - 1, "workspace has shape");
    // Full: one place too few, then none at all.
    cache.lengths[1] = 6;
    fails(&good, &mut cache.view(), w, "lengths is 9, expected 0 to 8");
    cache.lengths[1] = 8;
    fails(&good, &mut cache.view(), w, "lengths is 11, expected 0 to 8");
    cache.lengths[1] = 5;
    let mut other = Cache::<f32>::new(&load("tiny_llama_3"), 2, 8, None, false);
    fails(&good, &mut other.view(), w, "k has shape [2, 4, 8, 16], expected [P, 4, T, 12]");
    let mut shared = Cache::<f32>::new(&model, 2, 8, Some(8), false);
    shared.table = Some(ndarray::array![[0], [0]]);
    fails(&good, &mut shared.view(), w, "block_table is page 0 to be written for batch entries 0 and 1");
    shared.table = Some(ndarray::array![[0], [7]]);
    fails(&good, &mut shared.view(), w, "block_table is 7 at [1, 0]");
    for shape in [(2, 4, c.vocab), (1, 1, c.vocab), (2, 1, c.vocab + 1)] {
        let mut logits = Array3::zeros(shape);
        let tokens = Array2::from(good.to_vec());
        let e =
            model.forward(tokens.view(), &mut cache.view(), &mut workspace, logits.view_mut()).unwrap_err();
        assert!(e.to_string().starts_with("logits has shape"), "{e}");
    }
    assert_eq!((cache.k, cache.v, cache.lengths), before);
    assert!(model.workspace_len(usize::MAX, 2).is_err() && model.workspace_len(1 << 40, 1 << 20).is_err());
    // Nothing new is no error.
    let mut cache = Cache::<f32>::new(&model, 2, 8, None, false);
    assert_eq!(forward(&model, Array2::zeros((2, 0)).view(), &mut cache.view(), 0).len(), 0);
}

/// A model's files to change.
struct Files {
    config: serde_json::Value,
    tensors: HashMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Files {
    fn new(name: &str) -> Self {
        let folder = folder().join(name);
        let bytes = std::fs::read(folder.join("model.safetensors")).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = tensors
            .iter()
            .map(|(name, t)| (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec())))
            .collect();
        let config = std::fs::read_to_string(folder.join("config.json")).unwrap();
        Files { config: serde_json::from_str(&config).unwrap(), tensors }
    }

    fn load(&self) -> Result<Llama, Error> {
        let views = self.tensors.iter();
        let views = views.map(|(n, (t, shape, data))| (n, TensorView::new(*t, shape.clone(), data).unwrap()));
        Llama::from_bytes(&serialize(views, None).unwrap(), &self.config.to_string())
    }
}

#[test]
fn hostile_files_are_refused() {
    let refuse = |change: &dyn Fn(&mut Files), text: &str| {
        let mut files = Files::new("tiny_llama_3");
        files.load().unwrap();
        change(&mut files);
        let e = files.load().unwrap_err();
        assert!(matches!(e, Error::Format { .. }), "{e:?}");
        assert!(e.to_string().contains(text), "{e} lacks {text}");
    };
    for name in [
        "model.embed_tokens.weight",
        "model.layers.1.self_attn.k_proj.weight",
        "model.layers.0.self_attn.o_proj.bias",
        "model.layers.1.mlp.up_proj.bias",
        "model.layers.1.post_attention_layernorm.weight",
        "model.norm.weight",
        "lm_head.weight",
    ] {
        refuse(&|f| drop(f.tensors.remove(name)), &format!("tensor {name} is missing"));
        refuse(&|f| f.tensors.get_mut(name).unwrap().1.push(1), &format!("tensor {name} has shape"));
        refuse(&|f| f.tensors.get_mut(name).unwrap().0 = Dtype::I16, &format!("tensor {name} has dtype I16"));
    }
    let set =
        |key: &'static str, value: serde_json::Value| move |f: &mut Files| f.config[key] = value.clone();
    let json = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
    for key in ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"]
    {
        refuse(&set(key, json("null")), &format!("{key} is missing"));
        for bad in ["0", "-1", "1.5", "\"8\"", "[]", "18446744073709551616"] {
            refuse(&set(key, json(bad)), &format!("{key} is"));
        }
        // Larger than what the file has.
        refuse(&set(key, json("18446744073709551615")), "");
        refuse(&set(key, json("4611686018427387904")), "");
    }
    refuse(&set("num_hidden_layers", json("3")), "model.layers.2");
    refuse(&set("num_key_value_heads", json("4")), "num_key_value_heads is 4, expected a divisor of 6");
    refuse(&set("head_dim", json("7")), "head_dim is 7, expected an even number from 2 to 1024");
    refuse(&set("head_dim", json("2048")), "head_dim is 2048");
    refuse(&set("rms_norm_eps", json("-1.0")), "rms_norm_eps is -1");
    refuse(&set("hidden_act", json("\"gelu\"")), "hidden_act is \"gelu\", expected silu");
    refuse(&set("model_type", json("\"gpt2\"")), "model_type is \"gpt2\", expected llama");
    refuse(&set("attention_bias", json("1")), "attention_bias is 1, expected true or false");
    let rope = |key: &'static str, value: serde_json::Value| {
        move |f: &mut Files| f.config["rope_parameters"][key] = value.clone()
    };
    refuse(
        &rope("rope_type", json("\"yarn\"")),
        "rope_parameters.rope_type is \"yarn\", expected default, linear",
    );
    refuse(&rope("rope_theta", json("0")), "rope_theta is 0");
    refuse(&rope("factor", json("null")), "rope_parameters.factor is missing");
    refuse(
        &rope("rope_type", json("null")),
        "rope_parameters.rope_type is missing, expected default, linear",
    );
    refuse(&rope("partial_rotary_factor", json("0.5")), "partial_rotary_factor is 0.5, expected 1");
    refuse(&rope("factor", json("1e-300")), "frequencies are finite");
    refuse(&set("rope_parameters", json("8")), "rope_parameters is 8, expected an object or null");
    refuse(&set("partial_rotary_factor", json("0.25")), "partial_rotary_factor is 0.25, expected 1");
    refuse(&rope("low_freq_factor", json("4")), "low_freq_factor is 4, expected below high_freq_factor");
    // Fields of older versions, and what they leave to defaults.
    let mut files = Files::new("tiny_llama");
    for key in ["rope_parameters", "head_dim", "model_type", "hidden_act", "attention_bias", "mlp_bias"] {
        files.config.as_object_mut().unwrap().remove(key);
    }
    files.config["rope_theta"] = json("100000");
    files.config["rope_scaling"] = json("{\"type\": \"linear\", \"factor\": 2}");
    let model = files.load().unwrap();
    assert_eq!(model.config().rope_theta, 100_000.0);
    assert_eq!(model.config().rope_scaling, RopeScaling::Linear { factor: 2.0 });
    for text in ["", "{", "[]", "null", "3"] {
        assert!(matches!(Llama::from_bytes(&[], text), Err(Error::Format { .. })), "{text}");
    }
    assert!(matches!(Llama::load("no/such/folder".as_ref()), Err(Error::Io { .. })));
}
