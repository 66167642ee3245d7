//! What is no kernel from tensors to a tensor: random numbers, walks of every solver, models. Row
//! `r` of such a case is a function of `r` alone, so every test may pick rows as it likes.

use std::fmt::Write;
use std::path::Path;

use dgm_core::models::Dit;
use dgm_core::random;
use dgm_core::random::compat::jax::{self, Layout};
use dgm_core::random::compat::{Algorithm, BrownianTree, Generator};
use dgm_core::sampling::{
    Ask, Guidance, NoiseKind, OptionValue, Plan, PlanOptions, Prediction, Process, Request, Role, Run,
    Solver, Spacing,
};
use ndarray::{Array2, ArrayView4, ArrayViewMut4};
use sha2::{Digest, Sha256};

use crate::{Tensor, values};

/// What computes the rows.
pub enum Source {
    /// [`random::uniform`], purpose 0, draw 3.
    Uniform,
    /// [`random::normal`], purpose 0, draw 3.
    Normal,
    /// [`random::categorical`], purpose 9, draw 3, from logits of [`values`] times 4.
    Categorical,
    /// [`random::row_seeds`]: the low word, then the high word.
    RowSeeds,
    /// The first tensor of a generator of another system, normal or uniform, from seed `7 + r`.
    Compat(Algorithm, bool),
    /// Normal or uniform numbers of JAX or Nx from the key of seed `7 + r`.
    Jax(Layout, bool),
    /// torchsde's tree of seed `7 + r` on [0.03, 14.6], from 5 to 0.7, normalised.
    Brownian,
    /// A walk under [`model`]: what every evaluation reads, then the result. (Adaptive solvers: the result
    /// alone, because rows of a batch wait for each other and the last one decides when to end.)
    Plan(Box<PlanOptions>),
    /// The forward pass of the network in this file.
    Model(&'static str),
}

/// One case of `runs.txt`.
pub struct RunCase {
    /// Unique name.
    pub name: String,
    /// What computes it.
    pub source: Source,
    /// Numbers in a row (of a model: given by its file).
    pub elements: usize,
}

/// Rows a published hash covers.
pub const ROWS: usize = 3;

/// The seed from which [`random::row_seeds`] makes those of the rows.
const SEED: u64 = 7;

/// The model of the walks: `x / 2 + 1/4`, unconditional `x / 2 - 1/8`. Halving is exact, so one
/// rounding remains and every language gets the same bits with and without contraction.
fn model(role: Role, x: &[f32]) -> Vec<f32> {
    let bias = if role == Role::Uncond { -0.125 } else { 0.25 };
    x.iter().map(|x| 0.5 * x + bias).collect()
}

/// The second output of a row, where there is one: `x / 4 + 1/2`.
fn second(x: &[f32]) -> Vec<f32> {
    x.iter().map(|x| 0.25 * x + 0.5).collect()
}

fn plans() -> Vec<(String, PlanOptions)> {
    let mut all = Vec::new();
    for &solver in Solver::ALL {
        let mut flow = PlanOptions { solver, steps: 5, ..Default::default() };
        let mut shift = 3.0;
        if solver.solves_sdes() {
            flow.process = Process::Sde;
            all.push((format!("plan/{}", solver.name()), flow));
            continue;
        }
        if solver.walks_targets() {
            (flow.process, flow.prediction) = (Process::Target, Prediction::Score);
            if solver == Solver::Ula {
                all.push((format!("plan/{}", solver.name()), flow));
            }
            continue;
        }
        if solver == Solver::Scm {
            (flow.process, flow.prediction, shift) = (Process::TrigFlow, Prediction::TrigFlow, 1.0);
        }
        let guided = PlanOptions { guidance: 2.5, shift, ..flow.clone() };
        let eta = if matches!(solver, Solver::Ddim | Solver::Tcd) { 0.5 } else { 0.0 };
        let (process, prediction) = (Process::VpCosine, Prediction::Epsilon);
        let vp = PlanOptions { process, prediction, eta, clip: Some(1.0), shift: 1.0, ..flow.clone() };
        let kind = flow.process.name();
        all.push((format!("plan/{}_{kind}", solver.name()), flow));
        all.push((format!("plan/{}_{kind}_guided", solver.name()), guided));
        let flows_only = [Solver::Scm, Solver::FlowMap, Solver::EulerAncestralRf];
        if !flows_only.contains(&solver) && !solver.is_adaptive() {
            all.push((format!("plan/{}_vp_clip", solver.name()), vp));
        }
    }
    let edm = || PlanOptions {
        process: Process::Edm,
        prediction: Prediction::Edm,
        spacing: Spacing::Karras,
        steps: 5,
        ..Default::default()
    };
    let vp = |process| PlanOptions { process, prediction: Prediction::V, steps: 5, ..Default::default() };
    let ode = |t_start, t_end| PlanOptions { process: Process::Ode, t_start, t_end, ..Default::default() };
    let more = [
        ("edm", edm()),
        ("edm_churn", PlanOptions { solver: Solver::Heun, s_churn: 1.0, s_noise: 1.01, ..edm() }),
        (
            "edm_restart",
            PlanOptions { solver: Solver::Heun, restart: Some(vec![0.1, 2.0, 1.0, 1.0]), steps: 8, ..edm() },
        ),
        ("edm_threshold", PlanOptions { threshold_ratio: 0.8, threshold_max: 2.0, ..edm() }),
        (
            "ve_beta",
            PlanOptions { process: Process::Ve, spacing: Spacing::Beta, prediction: Prediction::X0, ..edm() },
        ),
        ("vp_sigmoid", vp(Process::VpSigmoid)),
        ("vp_continuous", PlanOptions { beta_start: 0.1, beta_end: 20.0, ..vp(Process::VpContinuous) }),
        (
            "zero_snr",
            PlanOptions { zero_snr: true, spacing: Spacing::Trailing, ..vp(Process::VpScaledLinear) },
        ),
        (
            "ays",
            PlanOptions { spacing: Spacing::AysSdxl, solver: Solver::DpmPP2M, ..vp(Process::VpScaledLinear) },
        ),
        ("brownian", PlanOptions { noise: NoiseKind::Brownian, solver: Solver::DpmPP2MSde, ..edm() }),
        (
            "apg",
            PlanOptions {
                guidance: 4.0,
                guidance_mode: Guidance::Apg,
                apg_norm: 2.0,
                apg_momentum: -0.5,
                ..edm()
            },
        ),
        (
            "cfg_zero",
            PlanOptions {
                guidance: 4.0,
                guidance_mode: Guidance::CfgZero,
                zero_init_steps: 1,
                steps: 4,
                ..Default::default()
            },
        ),
        (
            "cfg_pp",
            PlanOptions { guidance: 0.6, guidance_mode: Guidance::CfgPlusPlus, ..vp(Process::VpLinear) },
        ),
        (
            "rescaled",
            PlanOptions { guidance: 4.0, guidance_rescale: 0.7, guidance_end: 0.6, ..vp(Process::VpLinear) },
        ),
        (
            "linear_quadratic",
            PlanOptions {
                spacing: Spacing::LinearQuadratic,
                shift_terminal: 0.1,
                steps: 6,
                ..Default::default()
            },
        ),
        ("lms_order_2", PlanOptions { solver: Solver::Lms, order: 2, ..edm() }),
        (
            "predictor_corrector_twice",
            PlanOptions {
                process: Process::Ve,
                prediction: Prediction::Epsilon,
                solver: Solver::PredictorCorrector,
                spacing: Spacing::Exponential,
                corrector_steps: 2,
                snr: 0.1,
                steps: 4,
                ..Default::default()
            },
        ),
        ("vp_laplace", vp(Process::VpLaplace)),
        ("vp_cascade", PlanOptions { shift: 2.0, ..vp(Process::VpCascade) }),
        ("gits", PlanOptions { spacing: Spacing::Gits, ..vp(Process::VpScaledLinear) }),
        (
            "two_guidances",
            PlanOptions { guidance: 4.0, guidance_weak: 1.5, solver: Solver::Heun, steps: 3, ..edm() },
        ),
        // Whole batches here; the bits do not depend on when a row moves, see `rows_at_their_own_times`.
        ("per_row", PlanOptions { per_row: true, solver: Solver::Heun, guidance: 2.0, ..Default::default() }),
        (
            "per_row_noise",
            PlanOptions { per_row: true, solver: Solver::DpmPPSde, ..vp(Process::VpScaledLinear) },
        ),
        (
            "ode_saved",
            PlanOptions { solver: Solver::Dopri5, save_at: Some(vec![0.0, 0.3, 0.9]), ..ode(0.0, 1.0) },
        ),
        (
            "ode_back",
            PlanOptions { solver: Solver::Tsit5, controller: Some(vec![0.25, 0.5, 0.25]), ..ode(2.0, -1.0) },
        ),
        (
            "ode_stops",
            PlanOptions { solver: Solver::Dopri5, stop_at: Some(vec![0.25, 0.5]), ..ode(0.0, 1.0) },
        ),
        (
            "dpm_23_vp",
            PlanOptions { solver: Solver::Dpm23, clip: Some(1.0), guidance: 2.0, ..vp(Process::VpLinear) },
        ),
        ("dpm_12_ve", PlanOptions { stop_at: Some(vec![3.0]), solver: Solver::Dpm12, ..vp(Process::Ve) }),
        ("ode_rk4", PlanOptions { solver: Solver::Rk4, steps: 3, ..ode(-1.0, 0.5) }),
        ("unipc_order_3", PlanOptions { solver: Solver::UniPC, order: 3, ..vp(Process::VpLinear) }),
    ];
    all.extend(more.map(|(name, options)| (format!("plan/{name}"), options)));
    all
}

/// The options that differ from the defaults, `name value`, lists with commas.
fn changed(o: &PlanOptions) -> String {
    let default = PlanOptions::default();
    let mut text = String::new();
    for name in PlanOptions::NAMES {
        let value = o.get(name).expect("a listed name");
        if value == default.get(name).expect("a listed name") {
            continue;
        }
        let value = match value {
            OptionValue::List(list) => list.iter().map(f64::to_string).collect::<Vec<_>>().join(","),
            other => other.to_string(),
        };
        write!(text, " {name} {value}").unwrap();
    }
    text
}

/// Every case. A new solver of the engine joins by itself.
pub fn run_cases() -> Vec<RunCase> {
    let case = |name: &str, source, elements| RunCase { name: name.to_string(), source, elements };
    let mut all = vec![
        case("uniform/odd", Source::Uniform, 37),
        case("uniform/threads", Source::Uniform, 60_001),
        case("normal/odd", Source::Normal, 37),
        case("normal/threads", Source::Normal, 30_001),
        case("categorical/odd", Source::Categorical, 37),
        case("categorical/threads", Source::Categorical, 30_001),
        case("row_seeds/three", Source::RowSeeds, 1),
        case("compat/brownian", Source::Brownian, 37),
        case("compat/torch_cpu_threads", Source::Compat(Algorithm::TorchCpu, true), 300_001),
        case("model/tiny_dit", Source::Model("tests/golden/tiny_dit.safetensors"), 0),
        case("model/digits", Source::Model("models/digits.safetensors"), 0),
    ];
    for normal in [true, false] {
        let kind = kind(normal);
        for &algorithm in Algorithm::ALL {
            if normal || algorithm != Algorithm::TorchCuda {
                let name = format!("compat/{}_{kind}", algorithm.name());
                all.push(case(&name, Source::Compat(algorithm, normal), 37));
            }
        }
        for &layout in Layout::ALL {
            all.push(case(&format!("compat/jax_{}_{kind}", layout.name()), Source::Jax(layout, normal), 37));
        }
    }
    all.extend(plans().into_iter().map(|(name, options)| RunCase {
        name,
        source: Source::Plan(Box::new(options)),
        elements: 37,
    }));
    all
}

fn kind(normal: bool) -> &'static str {
    if normal { "normal" } else { "uniform" }
}

fn generated(seed: usize, elements: usize) -> Vec<f32> {
    let t = Tensor { name: "x", symbols: vec!["N"], shape: vec![elements], seed: seed as u32 };
    values(&t).into_iter().collect()
}

fn seeds(rows: &[usize]) -> Vec<u64> {
    rows.iter().flat_map(|&r| random::row_seeds(SEED.wrapping_add(r as u64), 1)).collect()
}

fn by_row(x: &[f32], elements: usize) -> Vec<Vec<u32>> {
    x.chunks(elements).map(|row| row.iter().map(|v| v.to_bits()).collect()).collect()
}

impl RunCase {
    /// The words of each of `rows`. With `resumed`, a walk is exported before every evaluation and
    /// goes on from the block alone, in fresh memory and under a plan read from its own bytes.
    ///
    /// # Panics
    /// When the engine refuses the case.
    pub fn run(&self, rows: &[usize], resumed: bool) -> Vec<Vec<u32>> {
        let (n, seeds) = (self.elements, seeds(rows));
        let mut out = Array2::from_elem((rows.len(), n), f32::NAN);
        match &self.source {
            Source::Uniform => random::uniform(&seeds, 0, 3, out.view_mut()).unwrap(),
            Source::Normal => random::normal(&seeds, 0, 3, out.view_mut()).unwrap(),
            Source::Categorical => {
                for (mut row, r) in out.outer_iter_mut().zip(rows) {
                    row.iter_mut().zip(generated(100 + r, n)).for_each(|(o, v)| *o = 4.0 * v);
                }
                let mut classes = vec![-1; rows.len()];
                random::categorical(out.view(), &seeds, 9, 3, &mut classes).unwrap();
                return classes.iter().map(|&c| vec![c as u32]).collect();
            }
            Source::RowSeeds => return seeds.iter().map(|&s| vec![s as u32, (s >> 32) as u32]).collect(),
            Source::Compat(algorithm, normal) => {
                for (mut row, &r) in out.outer_iter_mut().zip(rows) {
                    let mut g = Generator::new(*algorithm, SEED + r as u64).unwrap();
                    let row = row.as_slice_mut().expect("contiguous");
                    if *normal { g.normal(row) } else { g.uniform(row) }.unwrap();
                }
            }
            Source::Jax(layout, normal) => {
                for (mut row, &r) in out.outer_iter_mut().zip(rows) {
                    let (key, row) = (jax::key(SEED + r as u64), row.as_slice_mut().expect("contiguous"));
                    if *normal { jax::normal(key, *layout, row) } else { jax::uniform(key, *layout, row) }
                        .unwrap();
                }
            }
            Source::Brownian => {
                let seeds: Vec<u64> = rows.iter().map(|&r| SEED + r as u64).collect();
                let tree = BrownianTree::new(0.03, 14.6).unwrap();
                tree.noise(&seeds, 5.0, 0.7, out.view_mut()).unwrap();
            }
            Source::Plan(options) => return walk(options, &seeds, n, resumed),
            Source::Model(file) => return forward(file, rows),
        }
        by_row(out.as_slice().expect("contiguous"), n)
    }

    /// SHA-256 of the words of the first [`ROWS`] rows, little-endian.
    pub fn sha256(&self) -> String {
        let rows: Vec<usize> = (0..ROWS).collect();
        let words = self.run(&rows, false).concat();
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        Sha256::digest(&bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
    }
}

fn walk(options: &PlanOptions, seeds: &[u64], n: usize, resumed: bool) -> Vec<Vec<u32>> {
    let mut plan = Plan::compile(options).unwrap();
    let mut state = vec![0.0; plan.state_len(seeds.len(), n).unwrap()];
    let mut run = Run::start(&plan, seeds, n, None, &mut state).unwrap();
    let mut trace = vec![Vec::new(); seeds.len()];
    let mut keep = |x: &[f32]| trace.iter_mut().zip(by_row(x, n)).for_each(|(t, row)| t.extend(row));
    loop {
        if resumed {
            let block = run.export(&plan, &state).unwrap();
            plan = Plan::from_bytes(&plan.to_bytes()).unwrap();
            state.fill(f32::NAN);
            run = Run::import(&plan, &block, &mut state).unwrap();
        }
        let Ask::Eval(Request { eval_id, role, .. }) = run.ask(&plan).unwrap() else { break };
        let x = run.input(&plan, &state).unwrap();
        let mut y = model(role, x);
        if plan.outputs() == 2 {
            y = x.chunks(n).zip(y.chunks(n)).flat_map(|(x, y)| [y.to_vec(), second(x)]).flatten().collect();
        }
        if !options.solver.is_adaptive() {
            keep(x);
        }
        run.tell(&plan, &mut state, eval_id, &y).unwrap();
    }
    keep(run.result(&plan, &state).unwrap());
    trace
}

/// The result of a case whose rows walk at their own times: row `r` moves in the rounds that `moves` says,
/// until all are done. The same words as the last of [`RunCase::run`].
///
/// # Panics
/// When the case has no plan with `per_row`, or the engine refuses it.
pub fn at_own_times(case: &RunCase, rows: &[usize], moves: impl Fn(usize, usize) -> bool) -> Vec<Vec<u32>> {
    let Source::Plan(options) = &case.source else { panic!("{} is no plan", case.name) };
    let (seeds, n) = (seeds(rows), case.elements);
    let plan = Plan::compile(options).unwrap();
    let mut state = vec![0.0; plan.state_len(rows.len(), n).unwrap()];
    let mut run = Run::start(&plan, &seeds, n, None, &mut state).unwrap();
    let mut steps = vec![0; rows.len()];
    for round in 0.. {
        let chosen: Vec<bool> = (0..rows.len()).map(|r| moves(round, r)).collect();
        run.row_steps(&plan, &mut steps).unwrap();
        if steps.iter().all(|&s| s == plan.steps()) {
            break;
        }
        if !chosen.iter().zip(&steps).any(|(c, &s)| *c && s < plan.steps()) {
            continue;
        }
        run.select(&plan, &chosen).unwrap();
        let mut moved = false;
        while !moved {
            let Ask::Eval(Request { eval_id, role, .. }) = run.ask(&plan).unwrap() else { break };
            let mut y = model(role, run.input(&plan, &state).unwrap());
            let mut active = vec![false; rows.len()];
            run.row_active(&plan, &mut active).unwrap();
            // Rows that do not move may be told anything.
            y.chunks_mut(n).zip(&active).filter(|(_, a)| !**a).for_each(|(y, _)| y.fill(f32::NAN));
            run.tell(&plan, &mut state, eval_id, &y).unwrap();
            let mut now = vec![0; rows.len()];
            run.row_steps(&plan, &mut now).unwrap();
            moved = (0..rows.len())
                .all(|r| now[r] == steps[r] + usize::from(chosen[r] && steps[r] < plan.steps()));
        }
    }
    by_row(run.result(&plan, &state).unwrap(), n)
}

/// Image `r` is [`values`] with seed `200 + r`, its time `(r mod 5) / 4`, its label `r mod (classes + 1)`.
fn forward(file: &str, rows: &[usize]) -> Vec<Vec<u32>> {
    let net = Dit::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)).unwrap();
    let c = net.config();
    let (image, result) = (c.channels * c.height * c.width, c.out_channels * c.height * c.width);
    let x: Vec<f32> = rows.iter().flat_map(|r| generated(200 + r, image)).collect();
    let t: Vec<f32> = rows.iter().map(|r| (r % 5) as f32 / 4.0).collect();
    let labels: Vec<i64> = rows.iter().map(|r| (r % (c.num_classes + 1)) as i64).collect();
    let mut workspace = vec![f32::NAN; net.workspace_len(rows.len()).unwrap()];
    let mut y = vec![f32::NAN; rows.len() * result];
    let x = ArrayView4::from_shape((rows.len(), c.channels, c.height, c.width), &x).expect("the shape");
    let out = ArrayViewMut4::from_shape((rows.len(), c.out_channels, c.height, c.width), &mut y);
    net.forward(x, &t, &labels, &mut workspace, out.expect("the shape")).unwrap();
    by_row(&y, result)
}

/// The text of `tests/conformance/runs.txt`.
pub fn runs_text() -> String {
    let mut text = String::from(
        "# Generated by `cargo run -p dgm-conformance`. Do not edit.\n\
         # Seeds: the first three of row_seeds(7). Model of a plan: x/2 + 1/4, unconditional x/2 - 1/8\n\
         # (of an sde the drift, the diffusion x/4 + 1/2);\n\
         # hashed (32-bit words, little-endian) row by row: what each evaluation reads, then the result;\n\
         # for adaptive solvers the result alone. A plan has the options that are not the default. Lines\n\
         # `compat`: random numbers of other systems, row r the first tensor of a generator with seed 7 + r.\n",
    );
    for case in run_cases() {
        writeln!(text, "run {}", case.name).unwrap();
        match &case.source {
            Source::Uniform => writeln!(text, "random uniform purpose 0 draw 3 elements {}", case.elements),
            Source::Normal => writeln!(text, "random normal purpose 0 draw 3 elements {}", case.elements),
            Source::Categorical => {
                writeln!(
                    text,
                    "random categorical purpose 9 draw 3 elements {} logits 100 times 4",
                    case.elements
                )
            }
            Source::RowSeeds => writeln!(text, "random row_seeds"),
            Source::Compat(algorithm, normal) => {
                writeln!(text, "compat {} {} elements {}", algorithm.name(), kind(*normal), case.elements)
            }
            Source::Jax(layout, normal) => {
                writeln!(text, "compat jax {} {} elements {}", layout.name(), kind(*normal), case.elements)
            }
            Source::Brownian => {
                writeln!(text, "compat brownian 0.03 14.6 5.0 0.7 elements {}", case.elements)
            }
            Source::Model(file) => writeln!(text, "model {file} images 200"),
            Source::Plan(o) => writeln!(text, "plan elements {}{}", case.elements, changed(o)),
        }
        .unwrap();
        writeln!(text, "sha256 {}\nend", case.sha256()).unwrap();
    }
    text
}
