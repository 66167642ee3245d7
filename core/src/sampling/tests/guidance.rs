//! Guidance against its formulas, written out in f64.

use super::*;

const N: usize = 1500;

fn cond(i: usize) -> f32 {
    (libm::sin(i as f64 * 0.37) + 0.3) as f32
}

fn uncond(i: usize) -> f32 {
    (0.6 * libm::sin(i as f64 * 0.37 + 0.4) - 0.1) as f32
}

/// One Euler step of a flow from x = 0 at t = 1 to 0 gives minus the guided output.
fn guided(options: PlanOptions) -> Vec<f64> {
    let plan = compile(PlanOptions { steps: 1, ..options });
    let x = walk(&plan, &[0], Some(&[0.0; N]), N, |r, _, _, y| {
        let f = if r.role == Role::Cond { cond } else { uncond };
        y.iter_mut().enumerate().for_each(|(i, y)| *y = f(i));
        Ok(())
    });
    x.iter().map(|x| -f64::from(*x)).collect()
}

fn outputs() -> (Vec<f64>, Vec<f64>) {
    ((0..N).map(|i| f64::from(cond(i))).collect(), (0..N).map(|i| f64::from(uncond(i))).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn near(found: &[f64], expected: impl Fn(usize) -> f64) {
    for (i, f) in found.iter().enumerate() {
        let e = expected(i);
        assert!((f - e).abs() < 3e-6 * e.abs().max(1.0), "{i}: {f} {e}");
    }
}

fn deviation(x: &[f64]) -> f64 {
    let mean = x.iter().sum::<f64>() / x.len() as f64;
    libm::sqrt(x.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (x.len() - 1) as f64)
}

#[test]
fn rescaled_guidance() {
    let (c, u) = outputs();
    let mix: Vec<f64> = c.iter().zip(&u).map(|(c, u)| u + 5.0 * (c - u)).collect();
    let factor = deviation(&c) / deviation(&mix);
    let found = guided(PlanOptions { guidance: 5.0, guidance_rescale: 0.7, ..Default::default() });
    near(&found, |i| 0.7 * factor * mix[i] + 0.3 * mix[i]);
    assert!((factor - 1.0).abs() > 0.1);
}

#[test]
fn combining_has_the_bits_of_a_plan() {
    use crate::tensor::{bf16, f16};
    let rows = |f: fn(usize) -> f32| ndarray::Array2::from_shape_fn((2, N), |(r, i)| f(i) + r as f32);
    let (c, u) = (rows(cond), rows(uncond));
    for (g, phi) in [(5.0, 0.0), (5.0, 0.7), (-0.5, 1.0), (0.0, 0.0), (1.0, 0.0)] {
        let mut out = ndarray::Array2::<f32>::zeros((2, N));
        cfg_combine(c.view(), u.view(), g, phi, out.view_mut()).unwrap();
        let found = guided(PlanOptions { guidance: g, guidance_rescale: phi, ..Default::default() });
        for (i, x) in found.iter().enumerate() {
            assert_eq!(f64::from(out[[0, i]]), *x, "{g} {phi} {i}");
        }
        // Other types and strides: the bits of f32 on what they hold, rounded once.
        let (half, brain) = (c.mapv(f16::from_f32), u.mapv(bf16::from_f32));
        let (wide, wide_u) = (half.mapv(f16::to_f32), brain.mapv(bf16::to_f32));
        cfg_combine(wide.view(), wide_u.view(), g, phi, out.view_mut()).unwrap();
        let mut far = ndarray::Array2::from_elem((N, 2), bf16::ONE);
        let columns = half.t().as_standard_layout().into_owned();
        cfg_combine(columns.t(), brain.view(), g, phi, far.view_mut().reversed_axes()).unwrap();
        assert_eq!(far.t(), out.mapv(bf16::from_f32), "{g} {phi}");
    }
    let mut out = ndarray::Array2::<f32>::from_elem((2, N), 7.0);
    for (g, phi) in [(f64::NAN, 0.0), (2.0, 1.5)] {
        assert_eq!(cfg_combine(c.view(), u.view(), g, phi, out.view_mut()).unwrap_err().code(), -500);
    }
    let less = out.slice_mut(ndarray::s![..1, ..]);
    assert_eq!(cfg_combine(c.view(), u.view(), 2.0, 0.0, less).unwrap_err().code(), -200);
    let short = u.slice(ndarray::s![.., 1..]);
    assert_eq!(cfg_combine(c.view(), short, 2.0, 0.0, out.view_mut()).unwrap_err().code(), -200);
    assert!(out.iter().all(|&x| x == 7.0));
}

#[test]
fn optimised_scale() {
    let (c, u) = outputs();
    let s = dot(&c, &u) / (dot(&u, &u) + 1e-8);
    let mode = Guidance::CfgZero;
    let found = guided(PlanOptions { guidance: 4.0, guidance_mode: mode, ..Default::default() });
    near(&found, |i| s * u[i] + 4.0 * (c[i] - s * u[i]));
    let zero = PlanOptions { guidance: 4.0, guidance_mode: mode, zero_init_steps: 1, ..Default::default() };
    near(&guided(zero), |_| 0.0);
}

/// On x0: at t = 1 of a flow x0 = x - v.
#[test]
fn projected_guidance() {
    let (c, u) = outputs();
    let c: Vec<f64> = c.iter().map(|v| -v).collect();
    let u: Vec<f64> = u.iter().map(|v| -v).collect();
    let d: Vec<f64> = c.iter().zip(&u).map(|(c, u)| c - u).collect();
    for (eta, norm) in [(0.0, 0.0), (0.4, 5.0)] {
        let length = libm::sqrt(dot(&d, &d));
        let k = if norm > 0.0 { (norm / length).min(1.0) } else { 1.0 };
        let along = k * dot(&d, &c) / dot(&c, &c);
        let options = PlanOptions {
            guidance: 6.0,
            guidance_mode: Guidance::Apg,
            apg_eta: eta,
            apg_norm: norm,
            ..Default::default()
        };
        near(&guided(options), |i| -(c[i] + 5.0 * (k * d[i] - (1.0 - eta) * along * c[i])));
    }
}

/// The momentum of APG adds the differences of earlier steps, with its sign.
#[test]
fn momentum_accumulates() {
    let at = |apg_momentum| {
        let plan = compile(PlanOptions {
            guidance: 3.0,
            guidance_mode: Guidance::Apg,
            apg_eta: 1.0,
            apg_momentum,
            times: Some(vec![1.0, 0.5, 0.25]),
            ..Default::default()
        });
        walk(&plan, &[0], Some(&[0.0]), 1, |r, _, _, y| {
            y[0] = if r.role == Role::Cond { 1.0 } else { 0.5 };
            Ok(())
        })[0]
    };
    // Differences of x0 are t (u - c) = -t/2; with eta 1 nothing is projected.
    let (plain, with) = (f64::from(at(0.0)), f64::from(at(-0.5)));
    // The second step at t = 0.5 moves x0 by 2 * (-0.5) * (-0.5), x by half of that.
    assert!((with - plain - 0.5 * 2.0 * 0.25).abs() < 1e-6, "{plain} {with}");
}

#[test]
fn guidance_only_inside_its_interval() {
    let plan = compile(PlanOptions {
        guidance: 3.0,
        guidance_start: 0.25,
        guidance_end: 0.75,
        steps: 8,
        ..Default::default()
    });
    let mut asked = vec![0; 8];
    walk(&plan, &[0], Some(&[0.0]), 1, |r, _, _, y| {
        asked[r.step as usize] += 1;
        y[0] = 1.0;
        Ok(())
    });
    assert_eq!(asked, [1, 1, 2, 2, 2, 2, 1, 1]);
    assert_eq!(plan.max_evals(), 12);
}

/// CFG++: x0 is guided, the noise that is put back is the unconditional one.
#[test]
fn guided_data_and_unconditional_noise() {
    for solver in [Solver::Euler, Solver::Ddim, Solver::EulerAncestral] {
        let plan = compile(PlanOptions {
            guidance: 0.6,
            guidance_mode: Guidance::CfgPlusPlus,
            prediction: Prediction::Epsilon,
            process: Process::VpLinear,
            times: Some(vec![700.0, 400.0]),
            s_noise: 0.0,
            sde_eta: if solver == Solver::EulerAncestral { 0.0 } else { 1.0 },
            solver,
            ..Default::default()
        });
        let x = walk(&plan, &[0], Some(&[0.8]), 1, |r, _, _, y| {
            y[0] = if r.role == Role::Cond { 0.9 } else { 0.2 };
            Ok(())
        })[0];
        let (from, to) = (plan.start(), plan.end());
        let eps = 0.2 + 0.6 * (0.9 - 0.2);
        let x0 = (0.8 - from.sigma * eps) / from.alpha;
        let expected = to.alpha * x0 + to.sigma * 0.2;
        assert!((f64::from(x) - expected).abs() < 2e-6, "{} {x} {expected}", solver.name());
    }
}

/// Dynamic thresholding: the quantile of |x0| with linear interpolation, at least 1.
#[test]
fn dynamic_thresholding() {
    let x0: Vec<f64> = (0..11).map(|i| 0.4 * f64::from(i)).collect();
    for (ratio, most, bound) in
        [(0.85, 10.0, 3.4), (0.875, 10.0, 3.5), (0.1, 10.0, 1.0), (0.85, 2.0, 2.0), (0.9, 0.5, 0.5)]
    {
        let plan = compile(PlanOptions {
            prediction: Prediction::X0,
            threshold_ratio: ratio,
            threshold_max: most,
            solver: Solver::Ddim,
            steps: 1,
            ..Default::default()
        });
        let x = walk(&plan, &[0], Some(&[0.0; 11]), 11, |_, _, _, y| {
            y.iter_mut().zip(&x0).for_each(|(y, x)| *y = *x as f32);
            Ok(())
        });
        for (x, x0) in x.iter().zip(&x0) {
            let expected = x0.min(bound) / bound;
            assert!((f64::from(*x) - expected).abs() < 1e-6, "{ratio} {most}: {x} {expected}");
        }
    }
}

/// Autoguidance asks a weaker model with the same condition, and mixes as plain guidance does.
#[test]
fn autoguidance_asks_the_weaker_model() {
    let auto = PlanOptions { guidance: 2.5, guidance_mode: Guidance::Auto, ..Default::default() };
    for (options, second) in [
        (auto.clone(), Role::Weak),
        (PlanOptions { guidance_mode: Guidance::Cfg, ..auto.clone() }, Role::Uncond),
        (PlanOptions { solver: Solver::Bosh3, ..auto.clone() }, Role::Weak),
    ] {
        let plan = compile(PlanOptions { steps: 3, ..options });
        let mut roles = Vec::new();
        let x = walk(&plan, &[0], Some(&[1.0, 2.0]), 2, |r, _, _, y| {
            roles.push(r.role);
            y.fill(if r.role == Role::Cond { 0.5 } else { 0.25 });
            Ok(())
        });
        assert!(roles.chunks(2).all(|pair| pair == [Role::Cond, second]));
        let v = 0.25 + 2.5 * 0.25;
        assert!((x[0] - (1.0 - v)).abs() < 1e-5 && (x[1] - (2.0 - v)).abs() < 1e-5, "{x:?}");
    }
    let found = guided(PlanOptions { guidance_rescale: 0.7, guidance: 5.0, ..auto.clone() });
    let plain = PlanOptions { guidance_mode: Guidance::Cfg, guidance_rescale: 0.7, guidance: 5.0, ..auto };
    assert_eq!(found, guided(plain));
}

/// Both guidances in one step: three requests, each difference with a weight of its own.
#[test]
fn classifier_free_guidance_and_autoguidance() {
    let (g, w) = (3.0, 1.75);
    let both = |solver| PlanOptions { guidance: g, guidance_weak: w, solver, ..Default::default() };
    let f = [0.5f32, 0.125, 0.25];
    for solver in [Solver::Euler, Solver::Heun, Solver::Bosh3] {
        let plan = compile(PlanOptions { steps: 3, ..both(solver) });
        let mut roles = Vec::new();
        let x = walk(&plan, &[0], Some(&[1.0, 2.0]), 2, |r, _, _, y| {
            roles.push(r.role);
            y.fill(f[r.role as usize]);
            Ok(())
        });
        assert!(roles.chunks(3).all(|three| three == [Role::Cond, Role::Uncond, Role::Weak]));
        let v = (0.125 + g * (0.5 - 0.125) + (w - 1.0) * (0.5 - 0.25)) as f32;
        assert!((x[0] - (1.0 - v)).abs() < 1e-5 && (x[1] - (2.0 - v)).abs() < 1e-5, "{x:?} {v}");
    }
    // Numbers that differ from element to element, by the formula.
    let weak = |i: usize| 0.5 * uncond(i) + 0.125;
    let plan = compile(PlanOptions { steps: 1, ..both(Solver::Euler) });
    let x = walk(&plan, &[0], Some(&[0.0; N]), N, |r, _, _, y| {
        for (i, y) in y.iter_mut().enumerate() {
            *y = match r.role {
                Role::Cond => cond(i),
                Role::Uncond => uncond(i),
                Role::Weak => weak(i),
            };
        }
        Ok(())
    });
    let found: Vec<f64> = x.iter().map(|x| -f64::from(*x)).collect();
    let (c, u) = outputs();
    near(&found, |i| u[i] + g * (c[i] - u[i]) + (w - 1.0) * (c[i] - f64::from(weak(i))));
    // Alone it is autoguidance; in an interval both act or neither.
    let alone = guided(PlanOptions { guidance_weak: 2.5, ..Default::default() });
    let auto = guided(PlanOptions { guidance: 2.5, guidance_mode: Guidance::Auto, ..Default::default() });
    near(&alone, |i| auto[i]);
    let plan = compile(PlanOptions { guidance_start: 0.5, steps: 4, ..both(Solver::Euler) });
    assert_eq!(plan.max_evals(), 2 + 2 * 3);
}
