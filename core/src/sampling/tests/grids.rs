//! Grids against the formulas of their papers, and the defects of other software that they avoid.

use super::*;

fn levels(options: PlanOptions) -> Vec<f64> {
    let plan = compile(options);
    plan.grid().iter().map(|n| plan.levels().level(n)).collect()
}

fn close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{found:?}");
    for (f, e) in found.iter().zip(expected) {
        assert!((f - e).abs() <= tolerance * e.abs().max(1e-3), "{found:?} {expected:?}");
    }
}

fn edm(spacing: Spacing, steps: usize) -> PlanOptions {
    PlanOptions { spacing, steps, sigma_min: 0.1, sigma_max: 10.0, ..base(Process::Edm) }
}

#[test]
fn sigma_spacings() {
    // k-diffusion's get_sigmas_karras(10, 0.1, 10), which is f32.
    let karras = [
        10., 6.8021646, 4.5242038, 2.9341199, 1.8493021, 1.1281819, 0.6628858, 0.3728223, 0.1991410, 0.1, 0.,
    ];
    close(&levels(edm(Spacing::Karras, 10)), &karras, 2e-6);
    close(&levels(edm(Spacing::Exponential, 3)), &[10.0, 1.0, 0.1, 0.0], 1e-12);
    close(&levels(edm(Spacing::Lambda, 3)), &[10.0, 1.0, 0.1, 0.0], 1e-12);
    let poly = levels(PlanOptions { rho: 2.0, ..edm(Spacing::PolyExponential, 3) });
    close(&poly, &[10.0, libm::exp(0.25 * libm::log(100.0) + libm::log(0.1)), 0.1, 0.0], 1e-12);
    close(&levels(edm(Spacing::Beta, 3)), &[10.0, 5.05, 0.1, 0.0], 1e-12);
    let middle = libm::tan(0.5 * (libm::atan(10.0) + libm::atan(0.1)));
    close(&levels(edm(Spacing::KlOptimal, 3)), &[10.0, middle, 0.1, 0.0], 1e-12);
    // One step is finite where a division by n - 1 would not be.
    for spacing in [Spacing::KlOptimal, Spacing::Karras, Spacing::Beta] {
        close(&levels(edm(spacing, 1)), &[10.0, 0.0], 1e-12);
    }
    // A final level instead of 0 is reached exactly.
    let options = PlanOptions { final_sigma: FinalSigma::Min, ..edm(Spacing::Exponential, 2) };
    close(&levels(options), &[10.0, 1.0, 0.1], 1e-12);
    // The model time of EDM is a quarter of the logarithm.
    let plan = compile(edm(Spacing::Exponential, 3));
    assert!((plan.start().t - libm::log(10.0) / 4.0).abs() < 1e-15);
    let ays = levels(PlanOptions { spacing: Spacing::AysSdxl, steps: 10, ..base(Process::Ve) });
    assert!((ays[1] - 6.3184485287).abs() < 1e-12 && ays[10] == 0.0 && ays.len() == 11);
    let twice = levels(PlanOptions { spacing: Spacing::AysSdxl, steps: 20, ..base(Process::Ve) });
    assert!((twice[2] - ays[1]).abs() < 1e-9 && (twice[1] - libm::sqrt(ays[0] * ays[1])).abs() < 1e-9);
}

#[test]
fn flow_grids() {
    let times = |o: PlanOptions| compile(o).grid().iter().map(|n| n.t).collect::<Vec<_>>();
    let flow = |spacing, steps| PlanOptions { spacing, steps, ..Default::default() };
    close(&times(flow(Spacing::Linspace, 3)), &[1.0, 0.5005, 0.001, 0.0], 1e-12);
    // The shift is applied once: the last level at shift 3 is 0.002994, not 0.008929.
    let shifted = PlanOptions { shift: 3.0, ..flow(Spacing::Linspace, 4) };
    assert!((times(shifted.clone())[3] - 0.003 / 1.002).abs() < 1e-12);
    let twice = times(PlanOptions { compat: Compat::Diffusers, ..shifted });
    assert!((twice[3] - 0.008929).abs() < 1e-6, "{twice:?}");
    // A dynamic shift of exp(mu) is the static one of that size.
    let exponential =
        PlanOptions { shift: 1.15, shift_type: ShiftType::Exponential, ..flow(Spacing::Uniform, 8) };
    let same = PlanOptions { shift: libm::exp(1.15), ..flow(Spacing::Uniform, 8) };
    close(&times(exponential), &times(same), 1e-12);
    let linear = PlanOptions { shift: 0.6, shift_type: ShiftType::Linear, ..flow(Spacing::Uniform, 4) };
    close(&times(linear), &[1.0, 0.6 / (0.6 + 1.0 / 3.0), 0.375, 0.6 / 3.6, 0.0], 1e-12);
    // The last noisy time after stretching is the terminal one, the first stays.
    let stretched = times(PlanOptions { shift: 2.0, shift_terminal: 0.1, ..flow(Spacing::Uniform, 5) });
    assert!((stretched[4] - 0.1).abs() < 1e-12 && (stretched[0] - 1.0).abs() < 1e-12 && stretched[5] == 0.0);
    let mochi = times(flow(Spacing::LinearQuadratic, 6));
    close(&mochi[..4], &[1.0, 1.0 - 0.025 / 3.0, 1.0 - 0.05 / 3.0, 0.975], 1e-12);
    assert!(mochi.windows(2).all(|w| w[1] < w[0]) && mochi[6] == 0.0);
    close(&times(flow(Spacing::Simple, 4)), &[1.0, 0.75, 0.5, 0.25, 0.0], 1e-12);
    close(&times(flow(Spacing::SgmUniform, 3)), &[1.0, 0.667, 0.334, 0.0], 1e-12);
    assert!((dynamic_shift(4096.0, (256.0, 0.5), (4096.0, 1.15)) - 1.15).abs() < 1e-15);
    assert!((dynamic_shift(1024.0, (256.0, 0.5), (4096.0, 1.15)) - 0.63).abs() < 1e-15);
}

#[test]
fn table_grids() {
    let vp = |spacing, steps| PlanOptions { spacing, steps, ..base(Process::VpScaledLinear) };
    let times = |o: PlanOptions| compile(o).grid().iter().map(|n| n.t).collect::<Vec<_>>();
    // Values of diffusers: DDIM with offset 1 and 5 steps.
    let leading = PlanOptions { steps_offset: 1, ..vp(Spacing::Leading, 5) };
    assert_eq!(times(leading), [801.0, 601.0, 401.0, 201.0, 1.0, -1.0]);
    assert_eq!(times(vp(Spacing::Linspace, 3)), [999.0, 499.5, 0.0, -1.0]);
    assert_eq!(times(vp(Spacing::Simple, 4)), [999.0, 749.0, 499.0, 249.0, -1.0]);
    assert_eq!(times(vp(Spacing::SgmUniform, 3)), [999.0, 666.0, 333.0, -1.0]);
    assert_eq!(times(vp(Spacing::DdimUniform, 4)), [751.0, 501.0, 251.0, 1.0, -1.0]);
    let lcm = PlanOptions { solver: Solver::Lcm, ..vp(Spacing::Uniform, 4) };
    assert_eq!(times(lcm), [999.0, 759.0, 499.0, 259.0, -1.0]);
    // The last level without signal, and the first untouched.
    let zero = compile(PlanOptions { zero_snr: true, ..vp(Spacing::Trailing, 4) });
    assert_eq!((zero.start().alpha, zero.start().sigma), (0.0, 1.0));
    let plain = compile(vp(Spacing::Trailing, 4));
    let first = |p: &Plan| p.levels().node(0.0).alpha;
    assert!((first(&zero) - first(&plain)).abs() < 1e-12);
    // Levels between table entries invert.
    for process in [
        Process::VpLinear,
        Process::VpCosine,
        Process::VpSigmoid,
        Process::VpContinuous,
        Process::SubVp,
        Process::VpLaplace,
        Process::VpCascade,
        Process::Ve,
        Process::Edm,
    ] {
        let plan = compile(base(process));
        let (low, high) = plan.levels().level_range();
        for f in [0.1, 0.37, 0.8] {
            let u = libm::exp(libm::log(low) + f * (libm::log(high) - libm::log(low)));
            let node = plan.levels().at_ratio(u);
            let again = plan.levels().node(node.t);
            assert!((again.sigma / again.alpha / u - 1.0).abs() < 1e-9, "{} {u}", process.name());
        }
    }
    // cos((t + s)/(1 + s) pi/2)^2 has betas that grow; ports that divide integers have one only.
    let cosine = compile(base(Process::VpCosine));
    let alpha = |t: f64| cosine.levels().node(t).alpha;
    assert!(alpha(499.0) < 0.75 && alpha(499.0) > 0.65, "{}", alpha(499.0));
}

/// Values of diffusers' UniPC with flow levels and Karras spacing, sigma 0.01 to 200, 5 steps: its
/// sigmas s of a variance exploding process become t = s / (1 + s).
#[test]
fn flow_levels_of_karras_ratios() {
    let published = [0.9950248599, 0.9787454605, 0.8774884343, 0.3604971766, 0.0099009862, 0.0];
    let ratios = levels(PlanOptions {
        sigma_min: 0.01,
        sigma_max: 200.0,
        spacing: Spacing::Karras,
        steps: 5,
        ..base(Process::Ve)
    });
    let found: Vec<f64> = ratios.iter().map(|s| s / (1.0 + s)).collect();
    close(&found, &published, 1e-6);
}

/// Levels of compatibility tables: sums in f32 as torch makes them.
#[test]
fn single_precision_tables() {
    let plan =
        |compat| compile(PlanOptions { compat, prediction: Prediction::Epsilon, ..base(Process::VpLinear) });
    let (ours, theirs) = (plan(Compat::None), plan(Compat::Diffusers));
    let mut largest: f64 = 0.0;
    for t in 0..1000 {
        let ratio = |p: &Plan| {
            let n = p.levels().node(f64::from(t));
            n.sigma / n.alpha
        };
        largest = largest.max((ratio(&ours) / ratio(&theirs) - 1.0).abs());
    }
    assert!(largest > 1e-8 && largest < 1e-3, "{largest}");
    // Between entries theirs is linear in the ratio.
    let n = theirs.levels().node(500.5);
    let (a, b) = (theirs.levels().node(500.0), theirs.levels().node(501.0));
    assert!((n.sigma / n.alpha - 0.5 * (a.sigma / a.alpha + b.sigma / b.alpha)).abs() < 1e-12);
}

/// Starting later: by steps, by level.
#[test]
fn walks_start_where_they_are_told() {
    let flow = PlanOptions { steps: 10, shift: 2.0, ..Default::default() };
    let whole = compile(flow.clone());
    let late = compile(PlanOptions { start_step: 4, ..flow.clone() });
    assert_eq!(late.grid(), &whole.grid()[4..]);
    let level = compile(PlanOptions { start_sigma: 0.6, ..flow.clone() });
    assert_eq!(level.start().t, 0.6);
    assert!(level.grid()[1].t < 0.6 && whole.grid().contains(&level.grid()[1]));
    // A level of the grid itself is not visited twice.
    let on = compile(PlanOptions { start_sigma: whole.grid()[3].t, ..flow });
    assert_eq!(on.grid(), &whole.grid()[3..]);
    // Heun counts steps, not evaluations.
    let heun = compile(PlanOptions { solver: Solver::Heun, steps: 10, start_step: 4, ..Default::default() });
    assert_eq!((heun.steps(), heun.max_evals()), (6, 12));
}

/// `ln(alpha^2 / sigma^2) = -sgn(1/2 - t) / 2 ln(1 - 2 |t - 1/2|)` (Hang 2024), up to the start of the table.
#[test]
fn laplace_levels() {
    let plan = compile(base(Process::VpLaplace));
    let square = |t: f64| {
        let n = plan.levels().node(t - 1.0);
        n.alpha * n.alpha
    };
    let paper = |t: f64| {
        let f = t / 1000.0;
        let lambda = -0.5 * (0.5 - f).signum() * libm::log(1.0 - 2.0 * (f - 0.5).abs() + 1e-6);
        1.0 / (1.0 + libm::exp(-lambda))
    };
    for t in [1.0, 100.0, 250.0, 499.0, 600.0, 900.0, 990.0] {
        // The product of 1 - beta starts at 1.
        let expected = paper(t) / paper(0.0);
        assert!((square(t) / expected - 1.0).abs() < 1e-9, "{t}: {} {expected}", square(t));
    }
    // A quarter of the steps from either end the noise-to-signal ratios are 1/sqrt(2) and sqrt(2), nearly.
    assert!((square(500.0) - 0.5).abs() < 2e-3);
}

/// Values of the published code: alpha-bar `cos((t + s)/(1 + s) pi/2)^2 / cos(s/(1 + s) pi/2)^2`, its log
/// odds less `2 ln shift`, then inside [0.0001, 0.9999].
#[test]
fn cascade_levels() {
    for (shift, t, bar) in [
        (1.0, 0.25, 0.8470121613269047),
        (1.0, 0.9, 0.024091724140085854),
        (1.0, 1.0, 0.0001),
        (1.0, 0.001, 0.9999),
        (2.0, 0.25, 0.5805574656437866),
        (2.0, 0.5, 0.19608879267500526),
        (0.5, 0.9, 0.0898714239021607),
        (2.0, 0.999, 0.0001),
    ] {
        let plan = compile(PlanOptions { shift, ..base(Process::VpCascade) });
        let n = plan.levels().node(t);
        assert!((n.alpha * n.alpha - bar).abs() < 1e-12, "{shift} {t}: {} {bar}", n.alpha * n.alpha);
        let back = plan.levels().at_ratio(n.sigma / n.alpha);
        assert!(bar == 0.0001 || bar == 0.9999 || (back.t - t).abs() < 1e-9, "{} {t}", back.t);
    }
    let plan = compile(PlanOptions { steps: 4, ..base(Process::VpCascade) });
    assert!((plan.start().alpha - 0.01).abs() < 1e-12 && plan.start().t > 0.99 && plan.end().sigma == 0.0);
}

/// The published rows, and others between them.
#[test]
fn searched_levels() {
    let gits = |steps| levels(PlanOptions { spacing: Spacing::Gits, steps, ..base(Process::Ve) });
    let ten = [
        14.61464119,
        5.85520077,
        2.84484982,
        1.67050016,
        1.08895338,
        0.74807048,
        0.50118381,
        0.32104823,
        0.19894916,
        0.09824532,
        0.0,
    ];
    close(&gits(10), &ten, 1e-12);
    close(&gits(4), &[14.61464119, 2.36326075, 0.92192322, 0.36617002, 0.0], 1e-12);
    let twenty = gits(20);
    assert_eq!((twenty[1], twenty[10], twenty[19]), (7.49001646, 0.50118381, 0.09824532));
    for steps in 1..=60 {
        let all = gits(steps);
        assert!(all.len() == steps + 1 && all.windows(2).all(|w| w[1] < w[0]) && all[0] == 14.61464119);
    }
    close(&[gits(40)[2]], &[twenty[1]], 1e-9);
    let plan =
        PlanOptions { spacing: Spacing::Gits, final_sigma: FinalSigma::Min, steps: 6, ..base(Process::Ve) };
    close(&levels(plan)[6..], &[0.02916753], 1e-12);
}
