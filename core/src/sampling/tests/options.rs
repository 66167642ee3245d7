//! Options: every bad value is named; the grids and the printed plan are right.

use super::*;
use crate::Error;

fn refused(options: PlanOptions, arg: &str) {
    let error = Plan::compile(&options).expect_err(arg);
    assert!(error.to_string().starts_with(arg), "{error}");
    assert!(matches!(error.code(), -101 | -200 | -500));
}

#[test]
fn bad_options_are_named() {
    let d = PlanOptions::default;
    let vp = || PlanOptions { process: Process::VpLinear, prediction: Prediction::Epsilon, ..d() };
    refused(PlanOptions { steps: 0, ..d() }, "steps");
    refused(PlanOptions { steps: 1_000_000_000, ..d() }, "steps");
    refused(PlanOptions { steps: 1001, ..vp() }, "steps");
    refused(PlanOptions { spacing: Spacing::Leading, ..d() }, "spacing");
    for shift in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        refused(PlanOptions { shift, ..d() }, "shift");
    }
    refused(PlanOptions { shift: 3.0, ..vp() }, "shift");
    refused(PlanOptions { eta: 0.5, ..d() }, "eta");
    refused(PlanOptions { eta: 1.5, solver: Solver::Ddim, ..vp() }, "eta");
    refused(PlanOptions { guidance: f64::NAN, ..d() }, "guidance");
    refused(PlanOptions { clip: Some(0.0), ..d() }, "clip");
    refused(PlanOptions { clip: Some(f64::NAN), ..d() }, "clip");
    refused(PlanOptions { beta_start: 0.0, ..vp() }, "beta_start");
    refused(PlanOptions { beta_end: 1.0, ..vp() }, "beta_end");
    // Betas that leave no signal at all.
    refused(PlanOptions { beta_start: 0.5, beta_end: 0.9, ..vp() }, "beta_end");
    refused(PlanOptions { train_steps: 0, ..vp() }, "train_steps");
    // Not used by the flow process and Euler, and wrong all the same.
    for v in [f64::NAN, f64::INFINITY] {
        refused(PlanOptions { beta_start: v, ..d() }, "beta_start");
        refused(PlanOptions { beta_end: v, ..d() }, "beta_end");
        refused(PlanOptions { rtol: v, ..d() }, "rtol");
        refused(PlanOptions { atol: v, ..d() }, "atol");
        refused(PlanOptions { h_init: v, ..d() }, "h_init");
    }
    refused(PlanOptions { train_steps: 1 << 40, ..vp() }, "train_steps");
    refused(PlanOptions { solver: Solver::Bosh3, ..vp() }, "process");
    let bosh = || PlanOptions { solver: Solver::Bosh3, ..d() };
    refused(PlanOptions { rtol: 0.0, atol: 0.0, ..bosh() }, "rtol");
    refused(PlanOptions { atol: -1.0, ..bosh() }, "atol");
    refused(PlanOptions { h_init: 2.0, ..bosh() }, "h_init");
    refused(PlanOptions { max_evals: 1, ..bosh() }, "max_evals");
    refused(PlanOptions { non_finite: NonFinite::Propagate, ..bosh() }, "non_finite");
    refused(
        PlanOptions { non_finite: NonFinite::Propagate, solver: Solver::Mala, ..base(Process::Target) },
        "non_finite",
    );
    for times in [
        vec![],
        vec![0.5],
        vec![0.5, 0.5],
        vec![0.2, 0.5],
        vec![1.5, 0.0],
        vec![1.0, -1.0],
        vec![f64::NAN, 0.0],
    ] {
        refused(PlanOptions { times: Some(times), ..d() }, "times");
    }
    for times in [vec![1000.0, 0.0], vec![10.0, -0.5], vec![-1.0, -2.0], vec![5.0, -1.0, -1.0]] {
        refused(PlanOptions { times: Some(times), ..vp() }, "times");
    }
    refused(PlanOptions { order: 2, ..d() }, "order");
    refused(PlanOptions { order: 5, solver: Solver::Lms, ..d() }, "order");
    refused(PlanOptions { betas: Some(vec![0.1; 10]), ..vp() }, "betas");
    refused(PlanOptions { process: Process::VpTrained, ..vp() }, "betas");
    refused(PlanOptions { process: Process::VpTrained, betas: Some(vec![0.1; 7]), ..vp() }, "betas");
    refused(PlanOptions { zero_snr: true, ..d() }, "zero_snr");
    refused(PlanOptions { sigma_min: 2.0, sigma_max: 1.0, ..base(Process::Edm) }, "sigma_min");
    refused(PlanOptions { sigma_max: 1.5, ..d() }, "sigma_max");
    refused(PlanOptions { steps_offset: 1, ..vp() }, "steps_offset");
    refused(PlanOptions { steps_offset: 500, spacing: Spacing::Leading, steps: 2, ..vp() }, "steps_offset");
    refused(PlanOptions { spacing: Spacing::LinearQuadratic, ..vp() }, "spacing");
    refused(PlanOptions { spacing: Spacing::Leading, ..base(Process::Ve) }, "spacing");
    refused(PlanOptions { spacing: Spacing::AysSd15, ..base(Process::TrigFlow) }, "spacing");
    refused(PlanOptions { spacing: Spacing::Lambda, ..d() }, "sigma_max");
    refused(PlanOptions { shift_terminal: 0.1, ..vp() }, "shift_terminal");
    refused(PlanOptions { times: Some(vec![1.0, 0.0]), sigmas: Some(vec![1.0, 0.0]), ..d() }, "sigmas");
    refused(PlanOptions { sigmas: Some(vec![1.0, 2.0]), ..d() }, "sigmas");
    refused(PlanOptions { s_churn: 1.0, solver: Solver::Ddim, ..vp() }, "s_churn");
    refused(PlanOptions { sde_eta: 0.5, ..d() }, "sde_eta");
    refused(PlanOptions { start_step: 16, ..d() }, "start_step");
    refused(PlanOptions { start_sigma: 2.0, ..d() }, "start_sigma");
    refused(PlanOptions { start_sigma: 0.5, start_step: 1, ..d() }, "start_sigma");
    refused(PlanOptions { restart: Some(vec![0.1, 2.0, 1.0]), ..d() }, "restart");
    refused(PlanOptions { restart: Some(vec![0.5, 2.0, 1.0, 0.1]), ..d() }, "restart");
    refused(PlanOptions { guidance_rescale: 0.5, guidance_mode: Guidance::Apg, ..d() }, "guidance_rescale");
    refused(
        PlanOptions { guidance_mode: Guidance::CfgPlusPlus, solver: Solver::Heun, ..d() },
        "guidance_mode",
    );
    refused(PlanOptions { guidance_end: 0.2, guidance_start: 0.5, ..d() }, "guidance_end");
    refused(PlanOptions { threshold_ratio: 0.9, clip: Some(1.0), ..d() }, "threshold_ratio");
    refused(PlanOptions { variance: Variance::FixedLarge, ..d() }, "variance");
    refused(PlanOptions { solver: Solver::Scm, ..d() }, "process");
    refused(PlanOptions { solver: Solver::FlowMap, ..vp() }, "process");
    refused(PlanOptions { solver: Solver::FlowMap, prediction: Prediction::X0, ..d() }, "prediction");
    refused(PlanOptions { solver: Solver::Lcm, steps: 51, ..vp() }, "steps");
    refused(PlanOptions { inpaint: true, ..bosh() }, "inpaint");
    refused(PlanOptions { inpaint: true, solver: Solver::DpmPPInverse, ..d() }, "inpaint");
    refused(PlanOptions { snr: 0.2, ..d() }, "snr");
    let cascade = PlanOptions { process: Process::VpCascade, prediction: Prediction::V, ..d() };
    refused(PlanOptions { shift: 1.5, shift_type: ShiftType::Linear, ..cascade.clone() }, "shift");
    // Two times beyond the bound are one level.
    refused(PlanOptions { times: Some(vec![1.0, 0.999, 0.5]), solver: Solver::DpmPP, ..cascade }, "times");
    refused(PlanOptions { corrector_steps: 2, ..d() }, "corrector_steps");
    let corrected = PlanOptions { solver: Solver::PredictorCorrector, ..d() };
    refused(PlanOptions { corrector_steps: 101, ..corrected.clone() }, "corrector_steps");
    refused(PlanOptions { snr: -0.1, ..corrected }, "snr");
    let guidance_weak = 2.0;
    refused(PlanOptions { guidance_weak, guidance_mode: Guidance::Auto, ..d() }, "guidance_weak");
    refused(PlanOptions { guidance_weak, guidance_rescale: 0.5, ..d() }, "guidance_weak");
    // What a prediction does not determine at a level a solver must evaluate.
    for solver in [
        Solver::Euler,
        Solver::Rk4,
        Solver::Ddim,
        Solver::Ddpm,
        Solver::DpmPP2M,
        Solver::UniPC,
        Solver::Bosh3,
    ] {
        refused(PlanOptions { prediction: Prediction::Epsilon, solver, ..d() }, "prediction is epsilon");
    }
    refused(PlanOptions { prediction: Prediction::X0, ..bosh() }, "prediction is x0");
    // 1 / sigma leaves f32.
    let times = Some(vec![0.5, 1e-40]);
    refused(PlanOptions { prediction: Prediction::X0, times, ..bosh() }, "prediction is x0");
    refused(PlanOptions { clip: Some(1.0), ..bosh() }, "prediction is x0");
}

#[test]
fn codes_and_names_are_stable() {
    for &s in Solver::ALL {
        assert_eq!(Solver::from_code(s.code()).unwrap(), s);
        assert_eq!(Solver::from_name(s.name()).unwrap(), s);
    }
    assert_eq!(Solver::Bosh3.code(), 8);
    assert_eq!(Process::VpCosine.code(), 3);
    assert_eq!(Prediction::Velocity.code(), 3);
    assert_eq!(Spacing::Trailing.code(), 2);
    assert_eq!(Solver::FlowMap.code(), 41);
    assert_eq!(Solver::PredictorCorrector.code(), 43);
    assert_eq!(Process::TrigFlow.code(), 9);
    assert_eq!(Process::VpCascade.code(), 11);
    assert_eq!(Spacing::Gits.code(), 17);
    assert_eq!(Prediction::TrigFlow.code(), 7);
    assert_eq!(Spacing::DdimUniform.code(), 16);
    assert!(matches!(Process::from_code(99), Err(Error::Argument { arg: "process", .. })));
    assert!(matches!(Spacing::from_name("even"), Err(Error::Argument { arg: "spacing", .. })));
}

#[test]
fn grids() {
    let times = |o: PlanOptions| compile(o).grid().iter().map(|n| n.t).collect::<Vec<_>>();
    assert_eq!(times(PlanOptions { steps: 4, ..Default::default() }), [1.0, 0.75, 0.5, 0.25, 0.0]);
    assert_eq!(times(PlanOptions { steps: 2, shift: 3.0, ..Default::default() }), [1.0, 0.75, 0.0]);
    let vp = |spacing, steps| {
        times(PlanOptions {
            process: Process::VpLinear,
            prediction: Prediction::V,
            spacing,
            steps,
            ..Default::default()
        })
    };
    assert_eq!(vp(Spacing::Uniform, 4), [999.0, 666.0, 333.0, 0.0, -1.0]);
    assert_eq!(vp(Spacing::Uniform, 1), [999.0, -1.0]);
    assert_eq!(vp(Spacing::Leading, 4), [750.0, 500.0, 250.0, 0.0, -1.0]);
    assert_eq!(vp(Spacing::Trailing, 4), [999.0, 749.0, 499.0, 249.0, -1.0]);
    for spacing in [Spacing::Uniform, Spacing::Leading, Spacing::Trailing] {
        for steps in [1, 7, 333, 999, 1000] {
            let t = vp(spacing, steps);
            assert!(t.len() == steps + 1 && t.windows(2).all(|w| w[1] < w[0]), "{spacing:?} {steps}");
        }
    }
    // alpha^2 after 1000 steps of the usual betas: 4.0358e-5 (Ho 2020's schedule).
    let node =
        compile(PlanOptions { process: Process::VpLinear, prediction: Prediction::V, ..Default::default() })
            .start();
    assert!((node.alpha * node.alpha - 4.0358e-5).abs() < 1e-8);
    assert!((node.alpha * node.alpha + node.sigma * node.sigma - 1.0).abs() < 1e-15);
}

#[test]
fn long_plans_compile_and_print_briefly() {
    let options = PlanOptions { steps: MAX_STEPS, solver: Solver::Rk4, guidance: 2.0, ..Default::default() };
    let plan = compile(options);
    assert_eq!((plan.steps(), plan.max_evals()), (100_000, 800_000));
    assert!(plan.describe().len() < 40_000);
}

#[test]
fn plans_print_readably() {
    let plan = compile(PlanOptions { steps: 2, guidance: 4.0, ..Default::default() });
    let text = plan.describe();
    let expected = "     0  eval s0 step 0 stage 0 cond t 1.000000 alpha 0.000000 sigma 1.000000
     1  s1 = +1.000000000 y
     2  eval s0 step 0 stage 0 uncond t 1.000000 alpha 0.000000 sigma 1.000000
     3  r0 = +4.000000000 s1 -3.000000000 y
     4  s0 = +1.000000000 s0 -0.500000000 r0
";
    assert!(text.contains(expected), "{text}");
    let head = "flow euler, predicts velocity, 2 steps, 4 evaluations, guidance 4, 2 state tensors (s0 = x)";
    assert!(text.lines().next().unwrap().ends_with(head), "{text}");
    assert!(text.ends_with("done, result s0"));
    let adaptive = compile(PlanOptions { solver: Solver::Bosh3, ..Default::default() }).describe();
    assert!(adaptive.contains("accept if |r1|") && adaptive.contains("go to 3"), "{adaptive}");
}

/// Options by name: what is read is what was set, and unknown names and wrong kinds are errors.
#[test]
fn options_by_name() {
    let mut o = PlanOptions::default();
    for &name in PlanOptions::NAMES {
        let value = o.get(name).unwrap();
        o.set(name, value).unwrap();
    }
    assert_eq!(o, PlanOptions::default());
    let list = OptionValue::List(vec![1.0, 0.5]);
    o.set("times", list.clone()).unwrap();
    assert_eq!(o.get("times").unwrap(), list);
    for (name, value) in [
        ("tempo", OptionValue::None),
        ("steps", OptionValue::Number(1.5)),
        ("steps", OptionValue::Number(-1.0)),
        ("zero_snr", OptionValue::Number(1.0)),
        ("solver", OptionValue::Name("magic".into())),
        ("clip", OptionValue::Flag(true)),
        ("sigmas", OptionValue::Number(1.0)),
    ] {
        assert!(matches!(o.set(name, value), Err(Error::Argument { .. })), "{name}");
    }
}

/// A plan that uses none of the later options is written as before; with one it carries it.
#[test]
fn later_options_travel() {
    let old = compile(PlanOptions::default()).to_bytes();
    assert_eq!((old[4], old.len()), (1, 4 + 4 + 16 + 8 + 48 + 8 + 24 + 8 + 8 + 8));
    let options = PlanOptions {
        sigmas: Some(vec![0.9, 0.4, 0.0]),
        solver: Solver::SaSolver,
        sde_eta: 0.5,
        order: 3,
        noise: NoiseKind::Brownian,
        inpaint: true,
        guidance_weak: 1.5,
        ..Default::default()
    };
    let plan = compile(options.clone());
    let bytes = plan.to_bytes();
    assert_eq!(bytes[4], 2);
    let again = Plan::from_bytes(&bytes).unwrap();
    assert_eq!((again.options(), again.hash()), (&options, plan.hash()));
    for len in 0..bytes.len() {
        assert!(matches!(Plan::from_bytes(&bytes[..len]), Err(Error::Format { .. })));
    }
}
