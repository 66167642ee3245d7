//! Image to image, masks, churn, restart, learned variances, Brownian noise.

use super::*;
use crate::Error;
use crate::random::{self, Purpose};

fn normals(seed: u64, purpose: Purpose, draw: u32, n: usize) -> Vec<f32> {
    let mut z = ndarray::Array2::zeros((1, n));
    random::normal(&[seed], purpose as u32, draw, z.view_mut()).unwrap();
    z.into_raw_vec_and_offset().0
}

#[test]
fn starts_from_noised_data() {
    let plan = compile(PlanOptions { start_sigma: 0.6, steps: 10, ..Default::default() });
    let data = [0.5, -1.0, 2.0];
    let mut state = vec![0.0; plan.state_len(1, 3).unwrap()];
    let run = Run::start_from(&plan, &[9], 3, &data, &mut state).unwrap();
    let z = normals(9, Purpose::Initial, 0, 3);
    for ((x, d), z) in run.result(&plan, &state).unwrap().iter().zip(data).zip(z) {
        assert!((x - (0.4 * d + 0.6 * z)).abs() < 1e-6);
    }
    let bad = Run::start_from(&plan, &[9], 3, &[0.0, f32::NAN, 0.0], &mut state);
    assert!(matches!(bad, Err(Error::Range { arg: "data", .. })));
}

/// Where the mask is 1 the model sees the known part with noise of its own stream, and the result is it.
#[test]
fn masks_keep_what_is_known() {
    let n = 40;
    let known: Vec<f32> = (0..n).map(|i| i as f32 / 10.0).collect();
    let mask: Vec<f32> = (0..n)
        .map(|i| {
            if i < 15 {
                1.0
            } else if i == 20 {
                0.25
            } else {
                0.0
            }
        })
        .collect();
    for solver in [
        Solver::Euler,
        Solver::Heun,
        Solver::DpmPP2M,
        Solver::UniPC,
        Solver::EulerAncestral,
        Solver::SaSolver,
    ] {
        let options = PlanOptions { inpaint: true, solver, steps: 6, ..Default::default() };
        let plan = compile(options.clone());
        let free = compile(PlanOptions { inpaint: false, ..options });
        let mut state = vec![0.0; plan.state_len(1, n).unwrap()];
        let mut run = Run::start(&plan, &[5], n, None, &mut state).unwrap();
        run.set_known(&plan, &mut state, &known, &mask).unwrap();
        let mut checked = 0;
        drive(&plan, &mut run, &mut state, |r, x, t, y| {
            if r.step > 0 && r.stage == 0 {
                let z = normals(5, Purpose::Inpaint, r.step, n);
                for i in 0..15 {
                    let expected = r.alpha as f32 * known[i] + r.sigma as f32 * z[i];
                    assert!((x[i] - expected).abs() < 1e-5, "{} {i}", solver.name());
                }
                checked += 1;
            }
            toy(r, x, t, y)
        })
        .unwrap();
        assert_eq!(checked, 5);
        let x = run.result(&plan, &state).unwrap();
        assert_eq!(x[..15], known[..15]);
        let other = walk(&free, &[5], None, n, toy);
        assert_eq!(
            x[25..],
            other[25..],
            "{}: elements without a mask are as without inpainting",
            solver.name()
        );
    }
    let plan = compile(PlanOptions { inpaint: true, ..Default::default() });
    let mut state = vec![0.0; plan.state_len(1, 2).unwrap()];
    let run = Run::start(&plan, &[5], 2, None, &mut state).unwrap();
    let before = state.clone();
    for (known, mask, arg) in [
        ([0.0, f32::NAN], [0.0, 1.0], "known"),
        ([0.0, 1.0], [0.0, 1.5], "mask"),
        ([0.0, 1.0], [-0.1, 0.0], "mask"),
    ] {
        let error = run.set_known(&plan, &mut state, &known, &mask).unwrap_err();
        assert!(matches!(error, Error::Range { arg: a, .. } if a == arg), "{error}");
    }
    assert!(matches!(run.set_known(&plan, &mut state, &[0.0], &[0.0, 0.0]), Err(Error::Shape { .. })));
    assert_eq!(state, before);
    let plain = compile(PlanOptions::default());
    let mut state = vec![0.0; plain.state_len(1, 2).unwrap()];
    let run = Run::start(&plain, &[5], 2, None, &mut state).unwrap();
    assert!(matches!(run.set_known(&plain, &mut state, &[0.0; 2], &[0.0; 2]), Err(Error::State(_))));
}

/// Karras 2022, algorithm 2, lines 5 and 6.
#[test]
fn churn_raises_the_noise() {
    let options = PlanOptions {
        sigmas: Some(vec![4.0, 2.0, 0.5]),
        s_churn: 0.6,
        s_tmin: 1.0,
        s_noise: 1.1,
        prediction: Prediction::X0,
        solver: Solver::Euler,
        ..base(Process::Edm)
    };
    let plan = compile(options.clone());
    let mut seen = Vec::new();
    let n = 9;
    let start = vec![1.0; n];
    let x = walk(&plan, &[3], Some(&start), n, |r, _, _, y| {
        seen.push(r.sigma);
        y.fill(0.0);
        Ok(())
    });
    let gamma: f64 = 0.3;
    assert!((seen[0] - 4.0 * (1.0 + gamma)).abs() < 1e-12 && (seen[1] - 2.0 * (1.0 + gamma)).abs() < 1e-12);
    let (z0, z1) = (normals(3, Purpose::Churn, 1 << 20, n), normals(3, Purpose::Churn, (1 << 20) + 1, n));
    for i in 0..n {
        let added = |s: f64, z: f32| 1.1 * s * libm::sqrt((1.0 + gamma) * (1.0 + gamma) - 1.0) * f64::from(z);
        // x0 is 0, so a step scales by the ratio of the levels.
        let first = (1.0 + added(4.0, z0[i])) * 2.0 / 5.2;
        let second = (first + added(2.0, z1[i])) * 0.5 / 2.6;
        assert!((f64::from(x[i]) - second).abs() < 1e-5, "{i}");
    }
    // Outside of the limits nothing is added, and nothing beyond the greatest level.
    let none = compile(PlanOptions { s_tmax: 1.0, ..options.clone() });
    assert_eq!(none.table().draws.len(), 0);
    let most = compile(PlanOptions { sigmas: Some(vec![80.0, 2.0]), ..options });
    walk(&most, &[3], Some(&[80.0]), 1, |r, _, _, y| {
        assert!(r.sigma <= 80.0);
        y.fill(0.0);
        Ok(())
    });
}

#[test]
fn restarts_go_back() {
    let options = PlanOptions {
        solver: Solver::Heun,
        steps: 8,
        spacing: Spacing::Karras,
        restart: Some(vec![0.1, 3.0, 2.0, 1.0]),
        ..base(Process::Edm)
    };
    let plan = compile(options);
    assert_eq!(plan.steps(), 8 + 2 * 3);
    let mut sigmas = Vec::new();
    let x = walk(&plan, &[1, 2], None, 5, |r, x, t, y| {
        if r.stage == 0 {
            sigmas.push(r.sigma);
        }
        GAUSSIAN.model(&plan)(r, x, t, y)
    });
    let tops = sigmas.iter().filter(|s| (*s - 1.0).abs() < 1e-12).count();
    let turns = sigmas.iter().filter(|s| (*s - plan.grid()[5].sigma).abs() < 1e-12).count();
    assert_eq!((tops, turns, sigmas.len()), (2, 1, plan.steps()), "{sigmas:?}");
    assert!(x.iter().all(|x| x.is_finite()));
    // Restarting keeps the distribution.
    let restart = Some(vec![0.1, 12.0, 2.0, 1.0]);
    let plan = compile(PlanOptions { steps: 30, restart, ..plan.options().clone() });
    let sampled = walk(&plan, &[1, 2, 3, 4], None, 8000, GAUSSIAN.model(&plan));
    let mean = sampled.iter().map(|x| f64::from(*x)).sum::<f64>() / sampled.len() as f64;
    let square = sampled.iter().map(|x| (f64::from(*x) - mean) * (f64::from(*x) - mean)).sum::<f64>();
    let deviation = libm::sqrt(square / sampled.len() as f64);
    assert!((mean - 0.7).abs() < 0.02 && (deviation - 0.5).abs() < 0.02, "{mean} {deviation}");
}

/// The published variances of UnCLIP's scheduler at steps 1, 487 and 999 of its cosine table, for the
/// fraction 0.5, are logarithms: ours are half of them plus what scales the noise.
#[test]
fn learned_variances() {
    let cosine = base(Process::VpCosine);
    for (t, expected) in [(1.0, -10.171279), (487.0, -5.7998052), (999.0, -0.0010011)] {
        let plan = compile(PlanOptions {
            solver: Solver::Ddpm,
            variance: Variance::LearnedRange,
            times: Some(vec![t, t - 1.0]),
            ..cosine.clone()
        });
        assert_eq!(plan.outputs(), 2);
        let n = 7;
        let step = |w: f32| {
            walk(&plan, &[4], Some(&[0.3; 7]), n, |_, _, _, y| {
                y[..n].fill(0.1);
                y[n..].fill(w);
                Ok(())
            })
        };
        let (a, z) = (step(0.5), normals(4, Purpose::Step, 0, n));
        // The mean, by removing the noise of another fraction.
        let b = step(-1.0);
        let small = plan.table().rows.iter().find_map(|r| match r {
            crate::sampling::table::Row::LearnedNoise { base, slope } => Some(base - slope),
            _ => None,
        });
        let small = libm::exp(small.unwrap());
        for i in 0..n {
            let z = f64::from(z[i]);
            let mean = f64::from(b[i]) - small * z;
            let log = 2.0 * libm::log(((f64::from(a[i]) - mean) / z).abs());
            assert!((log - expected).abs() < 2e-3 * expected.abs().max(1.0), "{t}: {log} {expected}");
        }
    }
}

/// The same path whatever the number of steps: the ends of coarse and fine walks are close.
#[test]
fn brownian_noise_does_not_depend_on_the_steps() {
    let at = |solver, noise, steps| {
        let plan = compile(PlanOptions { solver, noise, steps, ..base(Process::Flow) });
        walk(&plan, &[8], None, 400, GAUSSIAN.model(&plan))
    };
    let distance = |a: &[f32], b: &[f32]| {
        let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from((a - b) * (a - b))).sum();
        libm::sqrt(sum / a.len() as f64)
    };
    for solver in [Solver::EulerAncestral, Solver::DpmPP2MSde, Solver::SaSolver, Solver::Seeds2, Solver::Ddpm]
    {
        let far = distance(&at(solver, NoiseKind::Independent, 64), &at(solver, NoiseKind::Independent, 128));
        let near = distance(&at(solver, NoiseKind::Brownian, 64), &at(solver, NoiseKind::Brownian, 128));
        println!("{}: {far} {near}", solver.name());
        assert!(far > 0.3 && near < 0.5 * far, "{}: {far} {near}", solver.name());
    }
}

/// A flow map is told where to land.
#[test]
fn requests_name_the_end_of_the_step() {
    let plan = compile(PlanOptions { solver: Solver::FlowMap, steps: 2, ..Default::default() });
    let mut ends = Vec::new();
    let x = walk(&plan, &[0], Some(&[1.0]), 1, |r, x, _, y| {
        ends.push((r.t, r.t_to));
        y[0] = x[0] / r.t as f32;
        Ok(())
    });
    assert_eq!(ends, [(1.0, 0.5), (0.5, 0.0)]);
    assert_eq!(x, [0.0]);
}
