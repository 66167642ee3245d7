//! MM-DiT: against diffusers, against itself in every batch, and with everything wrong.

mod common;

use common::{Golden, Saved, close, folder};
use dgm_core::Error;
use dgm_core::arch::{available_levels, level, set_level};
use dgm_core::models::Sd3;
use dgm_core::threads;
use ndarray::{Array2, Array3, Array4, ArrayView4, s};

fn load() -> Sd3 {
    Sd3::load(&folder().join("tiny_sd3")).unwrap()
}

struct Inputs {
    x: Array4<f32>,
    t: Vec<f32>,
    text: Array3<f32>,
    pooled: Array2<f32>,
}

impl Inputs {
    fn golden(g: &Golden) -> Self {
        let t = g.one("sd3.t").to_vec();
        Inputs { x: g.four("sd3.x"), t, text: g.three("sd3.text"), pooled: g.two("sd3.pooled") }
    }

    fn forward(&self, model: &Sd3) -> Array4<f32> {
        let (_, _, h, w) = self.x.dim();
        let mut workspace = vec![f32::NAN; model.workspace_len(h, w, self.text.dim().1).unwrap()];
        let mut out = Array4::zeros(self.x.raw_dim());
        let (text, pooled) = (self.text.view(), self.pooled.view());
        model.forward(self.x.view(), &self.t, text, pooled, &mut workspace, out.view_mut()).unwrap();
        out
    }
}

#[test]
fn outputs_are_those_of_diffusers() {
    let g = Golden::named("sd3");
    let (model, inputs) = (load(), Inputs::golden(&g));
    close(&inputs.forward(&model), &g.four("sd3.out"), 2e-6, "sd3");
    let c = model.config();
    assert_eq!((c.channels, c.patch, c.hidden, c.depth, c.heads), (4, 2, 24, 2, 3));
    assert_eq!((c.text, c.pooled, c.positions, c.qk_norm), (20, 12, 6, true));
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_on_any_level_with_any_threads() {
    let (model, inputs) = (load(), Inputs::golden(&Golden::named("sd3")));
    let want = inputs.forward(&model);
    let (first, before) = (level(), threads::num_threads());
    for l in available_levels() {
        set_level(l).unwrap();
        for n in [1, 3] {
            threads::set_num_threads(n).unwrap();
            assert_eq!(inputs.forward(&model), want, "{} {n}", l.name());
        }
    }
    set_level(first).unwrap();
    threads::set_num_threads(before).unwrap();
    let one = Inputs {
        x: inputs.x.slice(s![1.., .., .., ..]).to_owned(),
        t: inputs.t[1..].to_vec(),
        text: inputs.text.slice(s![1.., .., ..]).to_owned(),
        pooled: inputs.pooled.slice(s![1.., ..]).to_owned(),
    };
    assert_eq!(one.forward(&model), want.slice(s![1.., .., .., ..]));
}

#[test]
fn strides_are_free_and_text_may_be_absent() {
    let (model, inputs) = (load(), Inputs::golden(&Golden::named("sd3")));
    let want = inputs.forward(&model);
    // Channels last in memory, on both sides.
    let last = |x: ArrayView4<f32>| x.permuted_axes([0, 2, 3, 1]).as_standard_layout().into_owned();
    let (x, mut out) = (last(inputs.x.view()), last(want.view()));
    out.fill(0.0);
    let mut workspace = vec![0.0; model.workspace_len(8, 6, 7).unwrap()];
    let to = out.view_mut().permuted_axes([0, 3, 1, 2]);
    let from = x.view().permuted_axes([0, 3, 1, 2]);
    let text = inputs.text.view();
    model.forward(from, &inputs.t, text, inputs.pooled.view(), &mut workspace, to).unwrap();
    assert_eq!(out.permuted_axes([0, 3, 1, 2]), want);
    let none = Inputs { text: Array3::zeros((2, 0, 20)), ..inputs };
    assert!(none.forward(&model).iter().all(|y| y.is_finite()));
}

#[test]
fn wrong_arguments_are_named_and_leave_the_output_alone() {
    let (model, good) = (load(), Inputs::golden(&Golden::named("sd3")));
    let len = model.workspace_len(8, 6, 7).unwrap();
    let fails = |change: &dyn Fn(&mut Inputs), w: usize, text: &str| {
        let Inputs { x, t, text: tokens, pooled } = &good;
        let mut bad = Inputs { x: x.clone(), t: t.clone(), text: tokens.clone(), pooled: pooled.clone() };
        change(&mut bad);
        let mut out = Array4::from_elem((bad.x.dim().0, 4, bad.x.dim().2, bad.x.dim().3), 7.0);
        let (tokens, pooled) = (bad.text.view(), bad.pooled.view());
        let e = model.forward(bad.x.view(), &bad.t, tokens, pooled, &mut vec![0.0; w], out.view_mut());
        let e = e.unwrap_err().to_string();
        assert!(e.starts_with(text), "{e} is not {text}");
        assert!(out.iter().all(|&y| y == 7.0));
    };
    fails(&|i| i.x = Array4::zeros((2, 3, 8, 6)), len, "x has shape [2, 3, 8, 6], expected [2, 4, 8, 6]");
    fails(&|i| i.x = Array4::zeros((2, 4, 7, 6)), len, "height is 7, expected a multiple of 2 up to 12");
    fails(&|i| i.x = Array4::zeros((2, 4, 8, 14)), len, "width is 14");
    fails(&|i| i.x = Array4::zeros((2, 4, 0, 6)), len, "height is 0");
    fails(&|i| i.t.truncate(1), len, "t has shape [1], expected [2]");
    fails(&|i| i.t[1] = f32::NAN, len, "t is NaN in row 1");
    fails(&|i| i.text = Array3::zeros((2, 7, 19)), len, "text has shape [2, 7, 19], expected [2, 7, 20]");
    fails(&|i| i.text = Array3::zeros((1, 7, 20)), len, "text has shape");
    fails(&|i| i.pooled = Array2::zeros((2, 13)), len, "pooled has shape");
    fails(&|i| i.text.invert_axis(ndarray::Axis(1)), len, "text has strides");
    fails(&|i| i.pooled.invert_axis(ndarray::Axis(1)), len, "pooled has strides");
    fails(&|_| (), len - 1, "workspace has shape");
    assert!(model.workspace_len(8, 6, usize::MAX / 8).is_err());
}

#[test]
fn hostile_files_are_refused() {
    let saved = Saved::open("tiny_sd3");
    let refuse = |key: &str, value: &str, text: &str| saved.refuse(Sd3::from_bytes, [key, value, text]);
    assert!(Sd3::from_bytes(&saved.weights, &saved.config).is_ok());
    refuse("_class_name", "\"FluxTransformer2DModel\"", "_class_name is \"FluxTransformer2DModel\"");
    refuse("dual_attention_layers", "[0]", "dual_attention_layers is [0], expected []");
    refuse("qk_norm", "\"layer_norm\"", "qk_norm is \"layer_norm\", expected rms_norm");
    refuse("num_layers", "3", "transformer_blocks.1.attn.to_add_out.weight is missing");
    refuse("num_layers", "1", "transformer_blocks.0.norm1_context.linear.weight has shape");
    refuse("attention_head_dim", "7", "caption_projection_dim is 24, expected 21");
    refuse("attention_head_dim", "1025", "attention_head_dim is 1025, expected 1 to 1024");
    refuse("num_attention_heads", "18446744073709551615", "num_attention_heads");
    refuse("caption_projection_dim", "25", "caption_projection_dim is 25, expected 24");
    for key in
        ["in_channels", "patch_size", "joint_attention_dim", "pooled_projection_dim", "pos_embed_max_size"]
    {
        refuse(key, "0", &format!("{key} is 0, expected a whole number from 1"));
        refuse(key, "null", &format!("{key} is missing"));
        refuse(key, "9", "has shape");
        refuse(key, "18446744073709551615", "");
    }
    assert!(matches!(Sd3::from_bytes(&saved.weights[..999], &saved.config), Err(Error::Format { .. })));
    assert!(matches!(Sd3::load("no/such/folder".as_ref()), Err(Error::Io { .. })));
}
