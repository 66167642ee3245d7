//! The loops of diffusers' own scheduler tests, with the accidents that they contain: tables in f32
//! (`compat`), samples that a test overwrites with the scaled ones, torch's random numbers. The
//! figures are sums of |x| at the end, as observed in f64; upstream asserts them to 1e-2 or 1e-3.

use super::published::start;
use super::*;
use crate::sampling::table::{Operand, Row};

/// torch's CPU generator: MT19937, and its normals for 16 numbers or more.
struct Torch {
    state: [u32; 624],
    next: usize,
}

impl Torch {
    fn new(seed: u32) -> Torch {
        let mut state = [seed; 624];
        for i in 1..624 {
            let before: u32 = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Torch { state, next: 624 }
    }

    fn word(&mut self) -> u32 {
        if self.next == 624 {
            for i in 0..624 {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % 624] & 0x7fff_ffff);
                let twist = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + 397) % 624] ^ (y >> 1) ^ twist;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `n` normals, a multiple of 16.
    fn normals(&mut self, n: usize) -> Vec<f64> {
        let u: Vec<f64> = (0..n).map(|_| f64::from(self.word() & 0xff_ffff) / 16_777_216.0).collect();
        let mut out = vec![0.0; n];
        for block in (0..n).step_by(16) {
            for j in 0..8 {
                let radius = libm::sqrt(-2.0 * libm::log(1.0 - u[block + j]));
                let angle = std::f64::consts::TAU * u[block + j + 8];
                out[block + j] = radius * libm::cos(angle);
                out[block + j + 8] = radius * libm::sin(angle);
            }
        }
        out
    }
}

#[test]
fn torch_normals() {
    let z = Torch::new(0).normals(16);
    for (z, e) in z.iter().zip([-1.1258, -1.1524, -0.2506, -0.4339]) {
        assert!((z - e).abs() < 1e-4, "{z} {e}");
    }
}

/// What a loop does around the engine.
#[derive(Clone, Copy, Default)]
struct Loop {
    /// The test hands the scaled sample to the step too: x of a VE state is overwritten with it.
    overwritten: bool,
    /// The model is given x as it is where a pipeline would scale it.
    unscaled: bool,
    /// Times torch draws noise: never, at every evaluation, or only where noise is added.
    draws: Draws,
    /// The model time is this many times ours.
    time: f64,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Draws {
    #[default]
    Never,
    Always,
    Needed,
}

/// Coefficient of the noise that the segment after each evaluation adds, when it is added.
fn noise_weights(options: &PlanOptions) -> Vec<f64> {
    let plan = compile(PlanOptions { s_noise: 1.0, ..options.clone() });
    let mut weights = Vec::new();
    for row in &plan.table().rows {
        match row {
            Row::Eval(_) => weights.push(0.0),
            Row::Lin(lin) => {
                for term in plan.table().terms(lin) {
                    if matches!(term.operand, Operand::Noise) {
                        assert_eq!(lin.dst, Operand::Slot(0));
                        *weights.last_mut().unwrap() = term.coefficient;
                    }
                }
            }
            _ => {}
        }
    }
    weights
}

fn run(options: PlanOptions, x: &[f64], how: Loop) -> f64 {
    walked(options, x, how).iter().map(|x| x.abs()).sum()
}

fn walked(options: PlanOptions, x: &[f64], how: Loop) -> Vec<f64> {
    let options = PlanOptions { compat: Compat::Diffusers, s_noise: 0.0, ..options };
    let weights = noise_weights(&options);
    let plan = compile(options);
    let mut torch = Torch::new(0);
    let n = x.len();
    let mut state = vec![0.0; plan.state_len(4, n / 4).unwrap()];
    let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
    let mut run = Run::start(&plan, &[0; 4], n / 4, Some(&x), &mut state).unwrap();
    let mut index = 0;
    while let Ask::Eval(r) = run.ask(&plan).unwrap() {
        let node = Node { t: r.t, alpha: r.alpha, sigma: r.sigma };
        let t = if how.time == 0.0 { r.t } else { how.time * r.t };
        let read = &mut state[r.slot * n..(r.slot + 1) * n];
        let scale = if how.unscaled { 1.0 / input_scale(plan.options().prediction, &node) } else { 1.0 };
        let y: Vec<f32> = read.iter().map(|x| (f64::from(*x) * scale * t / (t + 1.0)) as f32).collect();
        if how.overwritten {
            // Our state is alpha times theirs; theirs becomes what ours was.
            read.iter_mut().for_each(|x| *x *= r.alpha as f32);
        }
        run.tell(&plan, &mut state, r.eval_id, &y).unwrap();
        if how.draws == Draws::Always || (how.draws == Draws::Needed && weights[index] != 0.0) {
            let z = torch.normals(n);
            // Their rows and channels lie as ours do.
            for (x, z) in state[..n].iter_mut().zip(z) {
                *x = (f64::from(*x) + weights[index] * z) as f32;
            }
            // What the model reads scaled was made from x without that noise.
            if let Ask::Eval(next) = run.ask(&plan).unwrap()
                && plan.options().prediction.reads_scaled()
            {
                let node = Node { t: next.t, alpha: next.alpha, sigma: next.sigma };
                let scale = input_scale(plan.options().prediction, &node) as f32;
                let (x, read) = state.split_at_mut(next.slot * n);
                read[..n].iter_mut().zip(&x[..n]).for_each(|(r, x)| *r = x * scale);
            }
        }
        index += 1;
    }
    state[..n].iter().map(|x| f64::from(*x)).collect()
}

fn sample() -> Vec<f64> {
    start().iter().map(|x| f64::from(*x)).collect()
}

/// Their sample times `a` plus their deterministic noise times `b`.
fn mixed(a: f64, b: f64) -> Vec<f64> {
    sample().iter().map(|x| a * x + b * (767.0 / 768.0 - x)).collect()
}

struct Failures(Vec<String>);

impl Failures {
    fn check(&mut self, name: &str, found: f64, expected: f64, tolerance: f64) {
        println!("{name}: {found} expected {expected} ({:.1e})", (found / expected - 1.0).abs());
        if (found / expected - 1.0).abs() > tolerance {
            self.0.push(format!("{name}: {found} not {expected}"));
        }
    }
}

fn linear() -> PlanOptions {
    PlanOptions { process: Process::VpLinear, prediction: Prediction::Epsilon, ..Default::default() }
}

/// Eleven rounded points of [0, 999].
fn integers() -> Option<Vec<f64>> {
    Some((0..=10).map(|i| (99.9 * f64::from(10 - i)).round_ties_even()).collect())
}

fn start_of(options: &PlanOptions) -> Node {
    compile(PlanOptions { compat: Compat::Diffusers, ..options.clone() }).start()
}

#[test]
fn steps_between_vp_levels() {
    let mut f = Failures(Vec::new());
    let plain = Loop::default();
    let x = sample();
    let ddim = PlanOptions { solver: Solver::Ddim, spacing: Spacing::Leading, steps: 10, ..linear() };
    f.check("ddim", run(ddim.clone(), &x, plain), 172.0067, 1e-5);
    f.check(
        "ddim v",
        run(PlanOptions { prediction: Prediction::V, ..ddim.clone() }, &x, plain),
        52.53021,
        1e-5,
    );
    let late = PlanOptions { start_step: 8, ..ddim.clone() };
    let n = start_of(&late);
    f.check("ddim with noise", run(late, &mixed(n.alpha, n.sigma), plain), 354.5418, 1e-5);
    let inverse = PlanOptions { solver: Solver::DdimInverse, clip: Some(1.0), ..ddim };
    f.check(
        "ddim_inverse v",
        run(PlanOptions { prediction: Prediction::V, ..inverse.clone() }, &x, plain),
        1394.219,
        1e-4,
    );
    f.check("ddim_inverse", run(inverse.clone(), &x, plain), 671.6817, 1e-4);
    let steep = PlanOptions { beta_start: 0.01, ..inverse };
    f.check("ddim_inverse from alpha 1", run(steep.clone(), &x, plain), 539.9622, 1e-4);
    let descending: Vec<_> = (0..10).map(|i| f64::from(900 - 100 * i)).collect();
    let times = Some(descending.clone());
    f.check(
        "ddim_inverse from alpha 0",
        run(PlanOptions { times: times.clone(), ..steep }, &x, plain),
        542.6722,
        1e-4,
    );
    for (name, solver, order, eps, v) in [
        ("dpmpp_2m", Solver::DpmPP2M, 0, 253.5514, 172.874),
        ("dpmpp", Solver::DpmPP, 2, 253.5514, 172.874),
        ("dpmpp_single", Solver::DpmPPSingle, 2, 214.3612, 111.5982),
        ("unipc", Solver::UniPC, 2, 189.2318, 77.87248),
    ] {
        let o = PlanOptions { solver, order, times: integers(), ..linear() };
        f.check(name, run(o.clone(), &x, plain), eps, 1e-5);
        f.check(
            &format!("{name} v"),
            run(PlanOptions { prediction: Prediction::V, ..o }, &x, plain),
            v,
            1e-5,
        );
    }
    // Their last step is of order 1, as is one without history.
    let deis = |prediction, start_step, x: &[f64]| {
        let times = integers().unwrap();
        let o = PlanOptions { solver: Solver::Deis, order: 2, prediction, ..linear() };
        let first = PlanOptions { times: Some(times[..10].to_vec()), start_step, ..o.clone() };
        run(PlanOptions { times: Some(times[9..].to_vec()), ..o }, &walked(first, x, plain), plain)
    };
    f.check("deis", deis(Prediction::Epsilon, 0, &x), 183.6766, 1e-5);
    f.check("deis v", deis(Prediction::V, 0, &x), 69.94378, 1e-5);
    let n = start_of(&PlanOptions { times: integers(), start_step: 8, ..linear() });
    f.check("deis with noise", deis(Prediction::Epsilon, 8, &mixed(n.alpha, n.sigma)), 315.3017, 1e-5);
    for (name, solver, times, start_step, sum) in [
        ("dpmpp with noise", Solver::DpmPP, integers(), 5, 318.4111),
        ("unipc with noise", Solver::UniPC, integers(), 8, 315.5757),
    ] {
        let o = PlanOptions { solver, order: 2, times, start_step, ..linear() };
        let n = start_of(&o);
        f.check(name, run(o, &mixed(n.alpha, n.sigma), plain), sum, 1e-5);
    }
    let thresholded = PlanOptions {
        solver: Solver::DpmPP,
        times: integers(),
        threshold_ratio: 0.87,
        threshold_max: 0.5,
        ..linear()
    };
    f.check("dpmpp thresholded", run(thresholded, &x, plain), 872.7271, 1e-5);
    // Their last step goes from the least level to itself: ours has one step less.
    for (name, spacing, sum) in [("karras", Spacing::Karras, 160.6642), ("lu", Spacing::Lambda, 119.3648)] {
        let final_sigma = FinalSigma::Min;
        let o = PlanOptions {
            solver: Solver::DpmPP,
            prediction: Prediction::V,
            spacing,
            final_sigma,
            steps: 9,
            ..linear()
        };
        f.check(&format!("dpmpp {name} v"), run(o, &x, plain), sum, 1e-5);
    }
    // Towards noise; of their Karras steps, whose last goes nowhere, ours has one less.
    let inverse = PlanOptions { solver: Solver::DpmPPInverse, times: integers(), ..linear() };
    f.check("dpmpp_inverse", run(inverse.clone(), &x, plain), 541.1994, 1e-5);
    let v = PlanOptions { prediction: Prediction::V, ..inverse.clone() };
    f.check("dpmpp_inverse v", run(v.clone(), &x, plain), 1166.873, 1e-5);
    let (spacing, final_sigma) = (Spacing::Karras, FinalSigma::Min);
    let karras = PlanOptions { times: None, spacing, final_sigma, steps: 9, ..v };
    f.check("dpmpp_inverse karras v", run(karras, &x, plain), 1368.284, 1e-4);
    let bounded = PlanOptions { threshold_ratio: 0.87, threshold_max: 0.5, ..inverse };
    f.check("dpmpp_inverse thresholded", run(bounded, &x, plain), 15278.1, 1e-4);
    let pndm = PlanOptions { solver: Solver::Pndm, times: times.clone(), ..linear() };
    f.check("pndm", run(pndm.clone(), &x, plain), 198.1318, 1e-5);
    // Their v is mixed over levels before it becomes eps: not reproduced.
    f.check("pndm steep", run(PlanOptions { beta_start: 0.01, ..pndm.clone() }, &x, plain), 186.9482, 1e-5);
    let clean = Some(descending.into_iter().chain([-1.0]).collect());
    f.check(
        "pndm to alpha 1",
        run(PlanOptions { beta_start: 0.01, times: clean, ..pndm }, &x, plain),
        230.0399,
        1e-5,
    );
    assert!(f.0.is_empty(), "{}", f.0.join("\n"));
}

#[test]
fn steps_between_sigmas() {
    let mut f = Failures(Vec::new());
    let how = |draws| Loop { overwritten: true, draws, ..Default::default() };
    // Their LMS, started late, weighs as if it had a history: not reproduced.
    for (name, solver, draws, sums) in [
        ("euler", Solver::Euler, Draws::Never, [Some(10.08068), Some(124.5226), Some(57062.93), None]),
        (
            "euler_ancestral",
            Solver::EulerAncestral,
            Draws::Always,
            [Some(152.3193), None, Some(56163.05), Some(108.4439)],
        ),
        ("heun", Solver::Heun, Draws::Never, [Some(0.1233307), None, Some(75074.9), None]),
        ("dpm2", Solver::Dpm2, Draws::Never, [Some(20.41249), None, Some(70408.41), None]),
        (
            "dpm2_ancestral",
            Solver::Dpm2Ancestral,
            Draws::Needed,
            [Some(13979.94), None, Some(93087.34), Some(331.8133)],
        ),
        ("lms", Solver::Lms, Draws::Never, [Some(1006.388), Some(3812.993), None, Some(0.001741534)]),
    ] {
        let o = PlanOptions { solver, train_steps: 1100, spacing: Spacing::Linspace, steps: 10, ..linear() };
        let n = start_of(&o);
        // Theirs starts at sigma_max times the sample: alpha times that is ours.
        let from = |n: &Node| mixed(n.sigma, 0.0);
        let [plain, karras, late, v] = sums;
        if let Some(sum) = plain {
            f.check(name, run(o.clone(), &from(&n), how(draws)), sum, 1e-4);
        }
        if let Some(sum) = karras {
            let o = PlanOptions { spacing: Spacing::Karras, ..o.clone() };
            f.check(&format!("{name} karras"), run(o.clone(), &from(&start_of(&o)), how(draws)), sum, 1e-4);
        }
        if let Some(sum) = v {
            let o = PlanOptions { prediction: Prediction::V, ..o.clone() };
            f.check(&format!("{name} v"), run(o, &from(&n), how(draws)), sum, 1e-4);
        }
        if let Some(sum) = late {
            let late = PlanOptions { start_step: 8, ..o };
            let m = start_of(&late);
            // Their sample is scaled by the first sigma before the noise of the later level is added.
            let x = mixed(m.alpha * n.sigma / n.alpha, m.sigma);
            f.check(&format!("{name} with noise"), run(late, &x, how(draws)), sum, 1e-4);
        }
    }
    assert!(f.0.is_empty(), "{}", f.0.join("\n"));
}

#[test]
fn preconditioned_models() {
    let mut f = Failures(Vec::new());
    let edm = PlanOptions { spacing: Spacing::Karras, steps: 10, ..base(Process::Edm) };
    let scaled = |s: f64| mixed(s, 0.0);
    f.check("edm euler", run(edm.clone(), &scaled(libm::sqrt(6401.0)), Loop::default()), 34.18554, 1e-4);
    let unscaled = Loop { unscaled: true, ..Default::default() };
    let multi = PlanOptions { solver: Solver::DpmPP, final_sigma: FinalSigma::Min, steps: 9, ..edm.clone() };
    f.check("edm dpmpp", run(multi.clone(), &scaled(1.0), unscaled), 0.1076062, 1e-3);
    let v = PlanOptions { prediction: Prediction::EdmV, ..multi.clone() };
    f.check("edm dpmpp v", run(v, &scaled(1.0), unscaled), 7.110179, 1e-4);
    let bounded = PlanOptions { threshold_ratio: 0.87, threshold_max: 0.5, ..multi.clone() };
    f.check("edm dpmpp thresholded", run(bounded, &scaled(1.0), unscaled), 6.209977, 1e-4);
    let late = PlanOptions { start_step: 5, ..multi };
    let x = mixed(1.0, start_of(&late).sigma);
    f.check("edm dpmpp with noise", run(late, &x, unscaled), 8.165701, 1e-4);
    let model = |draws| Loop { draws, time: 1000.0, ..Default::default() };
    let consistency = |sigmas: &[f64]| PlanOptions {
        solver: Solver::Consistency,
        prediction: Prediction::Consistency,
        clip: Some(1.0),
        sigmas: Some(sigmas.to_vec()),
        ..edm.clone()
    };
    let one = consistency(&[80.0, 0.002]);
    f.check("consistency, one step", run(one, &scaled(80.0), model(Draws::Never)), 192.7613, 1e-4);
    let two = consistency(&[80.0, 1.9128435850143433, 0.002]);
    f.check("consistency, two steps", run(two, &scaled(80.0), model(Draws::Always)), 347.6356, 1e-4);
    let late = consistency(&[0.08508720248937607, 0.01672075316309929, 0.002]);
    let x = mixed(80.0, 0.08508720248937607);
    f.check("consistency with noise", run(late, &x, model(Draws::Always)), 763.9186, 1e-4);
    assert!(f.0.is_empty(), "{}", f.0.join("\n"));
}

#[test]
fn distilled_models() {
    let mut f = Failures(Vec::new());
    let base = PlanOptions {
        process: Process::VpScaledLinear,
        prediction: Prediction::Epsilon,
        beta_start: 0.00085,
        beta_end: 0.012,
        ..Default::default()
    };
    let needed = Loop { draws: Draws::Needed, ..Default::default() };
    for (solver, steps, sum) in [
        (Solver::Lcm, 10, 197.7616),
        (Solver::Lcm, 1, 18.70968),
        (Solver::Tcd, 10, 181.204),
        (Solver::Tcd, 1, 29.87154),
    ] {
        let mut o = PlanOptions { solver, steps, ..base.clone() };
        if solver == Solver::Tcd {
            // Theirs ends at the first training step, not at clean data.
            let mut times: Vec<f64> = compile(o.clone()).grid().iter().map(|n| n.t).collect();
            *times.last_mut().unwrap() = 0.0;
            o.times = Some(times);
        }
        f.check(&format!("{} {steps}", solver.name()), run(o, &sample(), needed), sum, 2e-5);
    }
    assert!(f.0.is_empty(), "{}", f.0.join("\n"));
}

#[test]
fn ancestral_sampling_of_all_steps() {
    let mut f = Failures(Vec::new());
    let needed = Loop { draws: Draws::Needed, ..Default::default() };
    let all = PlanOptions { solver: Solver::Ddpm, steps: 1000, clip: Some(1.0), ..linear() };
    f.check("ddpm", run(all.clone(), &sample(), needed), 258.9611, 1e-4);
    f.check(
        "ddpm v",
        run(PlanOptions { prediction: Prediction::V, ..all.clone() }, &sample(), needed),
        202.0299,
        1e-4,
    );
    let late = PlanOptions { start_step: 998, ..all.clone() };
    let n = start_of(&late);
    f.check("ddpm with noise", run(late, &mixed(n.alpha, n.sigma), needed), 387.9466, 1e-4);
    // Its table ends where f32 has no digits left.
    let cosine = PlanOptions { process: Process::VpCosine, ..all };
    f.check("unclip", run(cosine.clone(), &sample(), needed), 252.2693, 1e-3);
    f.check("unclip, 25 steps", run(PlanOptions { steps: 25, ..cosine }, &sample(), needed), 258.2045, 1e-3);
    assert!(f.0.is_empty(), "{}", f.0.join("\n"));
}
