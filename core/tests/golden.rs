//! The golden vectors that all languages share (tests/golden, made with PyTorch).

mod common;

use std::path::Path;

use common::{Golden, close, folder};
use dgm_core::attention::{AttentionOptions, attention};
use dgm_core::linalg::{Activation, PackedLinear, linear};
use dgm_core::models::{Dit, generate};
use dgm_core::nn;
use dgm_core::random::row_seeds;
use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Role, Run, Solver, Spacing, drive};
use ndarray::{Array2, Array3, Array4, ArrayD, ArrayView4, ArrayViewMut4};

#[test]
fn attention_cases() {
    let g = Golden::open();
    let mut cases: Vec<&str> =
        g.index.keys().filter_map(|k| k.strip_prefix("attention.")?.strip_suffix(".q")).collect();
    cases.sort_unstable();
    assert!(cases.len() >= 8, "{cases:?}");
    for case in cases {
        let get = |part: &str| g.four(&format!("attention.{case}.{part}"));
        let (q, k, v, want) = (get("q"), get("k"), get("v"), get("out"));
        let lengths_name = format!("attention.{case}.kv_lengths");
        let lengths: Option<Vec<usize>> = g
            .index
            .contains_key(&lengths_name)
            .then(|| g.i64(&lengths_name).iter().map(|&n| n as usize).collect());
        let options = AttentionOptions {
            causal: case.starts_with("causal"),
            kv_lengths: lengths.as_deref(),
            ..AttentionOptions::default()
        };
        let mut out = Array4::<f32>::zeros(want.raw_dim());
        let mut lse = Array3::zeros((q.dim().0, q.dim().1, q.dim().2));
        attention(q.view(), k.view(), v.view(), &options, out.view_mut(), Some(lse.view_mut())).unwrap();
        close(&out, &want, 3e-6, case);
        close(&lse, &g.three(&format!("attention.{case}.lse")), 3e-6, case);
    }
}

#[test]
fn linear_cases() {
    let g = Golden::open();
    for case in ["small", "odd", "wide"] {
        let get = |part: &str| g.two(&format!("linear.{case}.{part}"));
        let (x, w, b) = (get("x"), get("weight"), g.one(&format!("linear.{case}.bias")));
        for (bias, part) in [(Some(b.view().into()), "out"), (None, "nobias_out")] {
            let packed = PackedLinear::pack(w.view(), bias).unwrap();
            let want = get(part);
            let mut out = Array2::<f32>::zeros(want.raw_dim());
            linear(x.view(), &packed, Activation::None, out.view_mut()).unwrap();
            close(&out, &want, 1e-5, case);
        }
    }
    let (x, w, b) =
        (g.two("linear.activation.x"), g.two("linear.activation.weight"), g.one("linear.activation.bias"));
    let packed = PackedLinear::pack(w.view(), Some(b.view().into())).unwrap();
    for (activation, name) in
        [(Activation::Silu, "linear.silu.out"), (Activation::GeluTanh, "linear.gelu_tanh.out")]
    {
        let want = g.two(name);
        let mut out = Array2::<f32>::zeros(want.raw_dim());
        linear(x.view(), &packed, activation, out.view_mut()).unwrap();
        close(&out, &want, 1e-5, name);
    }
}

#[test]
fn norms_and_modulation() {
    let g = Golden::open();
    let x = g.two("layer_norm.x");
    let mut out = Array2::zeros(x.raw_dim());
    let (w, b) = (g.one("layer_norm.weight"), g.one("layer_norm.bias"));
    nn::layer_norm(x.view(), None, None, 1e-6, out.view_mut()).unwrap();
    close(&out, &g.two("layer_norm.out"), 2e-6, "layer_norm");
    nn::layer_norm(x.view(), Some(w.view().into()), Some(b.view().into()), 1e-6, out.view_mut()).unwrap();
    close(&out, &g.two("layer_norm.affine_out"), 2e-6, "layer_norm affine");
    let x = g.two("rms_norm.x");
    let w = g.one("rms_norm.weight");
    let mut out = Array2::zeros(x.raw_dim());
    nn::rms_norm(x.view(), None, 1e-6, out.view_mut()).unwrap();
    close(&out, &g.two("rms_norm.out"), 2e-6, "rms_norm");
    nn::rms_norm(x.view(), Some(w.view().into()), 1e-6, out.view_mut()).unwrap();
    close(&out, &g.two("rms_norm.affine_out"), 2e-6, "rms_norm affine");
    let x = g.three("modulate.x");
    let mut out = Array3::zeros(x.raw_dim());
    nn::modulate(x.view(), g.two("modulate.shift").view(), g.two("modulate.scale").view(), out.view_mut())
        .unwrap();
    close(&out, &g.three("modulate.out"), 1e-6, "modulate");
    let (res, y) = (g.three("gate_residual.res"), g.three("gate_residual.y"));
    let mut out = Array3::zeros(res.raw_dim());
    nn::gate_residual(res.view(), y.view(), g.two("gate_residual.gate").view(), out.view_mut()).unwrap();
    close(&out, &g.three("gate_residual.out"), 1e-6, "gate_residual");
}

#[test]
fn activations_and_embeddings() {
    let g = Golden::open();
    let x = g.f32("activation.x");
    let mut out = ArrayD::zeros(x.raw_dim());
    nn::silu(x.view(), out.view_mut()).unwrap();
    close(&out, &g.f32("silu.out"), 1e-6, "silu");
    nn::gelu(x.view(), nn::Gelu::Tanh, out.view_mut()).unwrap();
    close(&out, &g.f32("gelu_tanh.out"), 1e-6, "gelu_tanh");
    nn::gelu(x.view(), nn::Gelu::Erf, out.view_mut()).unwrap();
    close(&out, &g.f32("gelu_erf.out"), 1e-6, "gelu_erf");
    let t = g.one("timestep_embedding.t");
    for name in ["timestep_embedding.out", "timestep_embedding.small_out"] {
        let want = g.two(name);
        let mut out = Array2::<f32>::zeros(want.raw_dim());
        nn::timestep_embedding(t.view(), 10_000.0, out.view_mut()).unwrap();
        close(&out, &want, 1e-4, name);
    }
}

fn load(path: &Path) -> Dit {
    Dit::load(path).unwrap()
}

fn digits() -> Dit {
    load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/digits.safetensors"))
}

#[test]
fn dit_forward() {
    let g = Golden::open();
    for (model, name) in [(digits(), "digits"), (load(&folder().join("tiny_dit.safetensors")), "tiny")] {
        let get = |part: &str| format!("dit.{name}.{part}");
        let (x, t, labels, want) =
            (g.four(&get("x")), g.one(&get("t")), g.i64(&get("labels")), g.four(&get("out")));
        let mut out = Array4::<f32>::zeros(want.raw_dim());
        let mut workspace = vec![0.0; model.workspace_len(t.len()).unwrap()];
        model.forward(x.view(), t.as_slice().unwrap(), &labels, &mut workspace, out.view_mut()).unwrap();
        close(&out, &want, 3e-5, name);
    }
}

/// The file's own sampler from PyTorch's starting noise, through the engine's plan and model.
#[test]
fn dit_sample() {
    let g = Golden::open();
    let model = digits();
    let (noise, want) = (g.four("dit.digits.noise"), g.four("dit.digits.sample"));
    let labels = g.i64("dit.digits.sample_labels");
    let plan = Plan::compile(&model.plan_options().unwrap()).unwrap();
    let n = labels.len();
    let mut state = vec![0.0; plan.state_len(n, 64).unwrap()];
    let mut workspace = vec![0.0; model.workspace_len(n).unwrap()];
    let null = vec![10i64; n];
    let start = noise.as_slice().unwrap();
    let mut run = Run::start(&plan, &row_seeds(0, n), 64, Some(start), &mut state).unwrap();
    drive(&plan, &mut run, &mut state, |request, x, t, y| {
        let labels = if request.role == Role::Uncond { &null } else { &labels };
        let shape = (n, 1, 8, 8);
        let x = ArrayView4::from_shape(shape, x).unwrap();
        model.forward(x, t, labels, &mut workspace, ArrayViewMut4::from_shape(shape, y).unwrap())
    })
    .unwrap();
    let got = Array4::from_shape_vec(want.raw_dim(), run.result(&plan, &state).unwrap().to_vec()).unwrap();
    close(&got, &want, 2e-3, "dit sample");
}

#[test]
fn generate_reads_its_own_settings() {
    let model = digits();
    let plan = Plan::compile(&model.plan_options().unwrap()).unwrap();
    let (seeds, labels) = (row_seeds(3, 5), [0, 1, 2, 3, 10]);
    let mut all = Array4::<f32>::zeros((5, 1, 8, 8));
    generate(&model, &plan, &seeds, &labels, all.view_mut()).unwrap();
    assert!(all.iter().all(|v| v.is_finite() && v.abs() < 3.0));
    let mut one = Array4::<f32>::zeros((1, 1, 8, 8));
    generate(&model, &plan, &seeds[3..4], &labels[3..4], one.view_mut()).unwrap();
    assert_eq!(one.index_axis(ndarray::Axis(0), 0), all.index_axis(ndarray::Axis(0), 3));
    assert!(generate(&model, &plan, &seeds, &labels[..4], all.view_mut()).is_err());
}

/// The trajectories of the exact model of N(0.3, 0.5^2).
#[test]
fn sampler_trajectories() {
    let g = Golden::open();
    let (mu, var) = (0.3f64, 0.25f64);
    let x0 = |a: f64, s: f64, x: f64| mu + a * var * (x - a * mu) / (a * a * var + s * s);
    let eps = |a: f64, s: f64, x: f64| s * (x - a * mu) / (a * a * var + s * s);
    let start = g.two("sampler.x_T");
    let run = |options: &PlanOptions, name: &str| {
        let plan = Plan::compile(options).unwrap();
        let mut state = vec![0.0; plan.state_len(2, 6).unwrap()];
        let mut run = Run::start(&plan, &[1, 2], 6, start.as_slice(), &mut state).unwrap();
        drive(&plan, &mut run, &mut state, |request, x, _, y| {
            for (y, &x) in y.iter_mut().zip(x) {
                let (a, s, x) = (request.alpha, request.sigma, f64::from(x));
                *y = match options.prediction {
                    Prediction::Velocity => eps(a, s, x) - x0(a, s, x),
                    _ => eps(a, s, x),
                } as f32;
            }
            Ok(())
        })
        .unwrap();
        let got = Array2::from_shape_vec((2, 6), run.result(&plan, &state).unwrap().to_vec()).unwrap();
        close(&got, &g.two(name), 1e-5, name);
    };
    for (solver, name) in [
        (Solver::Euler, "euler"),
        (Solver::Midpoint, "midpoint"),
        (Solver::Heun, "heun"),
        (Solver::Rk4, "rk4"),
    ] {
        for shift in [1.0, 3.0] {
            let options = PlanOptions { solver, shift, steps: 10, ..PlanOptions::default() };
            run(&options, &format!("sampler.flow.{name}.shift{shift}"));
        }
    }
    let vp = |solver, spacing| PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        solver,
        spacing,
        steps: 10,
        beta_start: 1e-4,
        beta_end: 0.02,
        ..PlanOptions::default()
    };
    run(&vp(Solver::Ddim, Spacing::Leading), "sampler.ddim.leading.out");
    run(&vp(Solver::Ddim, Spacing::Trailing), "sampler.ddim.trailing.out");
    // Multistep schedulers of diffusers spread n + 1 points; the golden file says where.
    for (solver, name) in [(Solver::DpmPP2M, "sampler.dpmpp_2m"), (Solver::UniPC, "sampler.unipc_bh2")] {
        let visited = g.i64(&format!("{name}.timesteps"));
        let times = visited.iter().map(|&t| t as f64).chain([-1.0]).collect();
        let options = PlanOptions { times: Some(times), ..vp(solver, Spacing::Uniform) };
        run(&options, &format!("{name}.out"));
    }
}
