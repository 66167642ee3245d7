//! Error bounds against `libm` in f64, special values, and equality of the levels.

use super::Powers;
use super::slice::{Erf, Exp, Exp2, Function, GeluErf, GeluTanh, Log, Silu, Tanh};
use crate::arch::{Kernel, Level, Simd, available_levels, dispatch_at};

/// A function on slices at a level, with its oracle.
struct Case {
    name: &'static str,
    /// Largest error allowed, in ULP of the oracle's result.
    bound: f64,
    /// Absolute error always allowed: for functions that cancel by definition.
    floor: f64,
    oracle: fn(f64) -> f64,
    eval: fn(Level, &[f32], &mut [f32]),
}

struct Apply<'a, U>(U, &'a [f32], &'a mut [f32]);

impl<U: Function> Kernel for Apply<'_, U> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Apply(f, x, out) = self;
        for (x, out) in x.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
            let [y] = f.eval(s, [s.load_partial(x, 0.0)]);
            s.store_partial(y, out);
        }
    }
}

#[derive(Clone, Copy)]
struct Sin;
impl Function for Sin {
    const COST: u64 = 48;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, x: [S::F; K]) -> [S::F; K] {
        x.map(|x| super::sincos(s, x).0)
    }
}

#[derive(Clone, Copy)]
struct Cos;
impl Function for Cos {
    const COST: u64 = 48;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, x: [S::F; K]) -> [S::F; K] {
        x.map(|x| super::sincos(s, x).1)
    }
}

#[derive(Clone, Copy)]
struct Short;
impl Function for Short {
    const COST: u64 = 16;
    #[inline(always)]
    fn eval<S: Simd, const K: usize>(self, s: S, x: [S::F; K]) -> [S::F; K] {
        x.map(|x| super::exp2_above(s, x, Powers::SHORT))
    }
}

fn exp2_short_oracle(x: f64) -> f64 {
    if x < -64.0 { 0.0 } else { libm::exp2(x) }
}

fn exp2_flushed(x: f64) -> f64 {
    if x < -126.0 { 0.0 } else { libm::exp2(x) }
}

fn silu_oracle(x: f64) -> f64 {
    if x == f64::NEG_INFINITY { -0.0 } else { x / (1.0 + libm::exp(-x)) }
}

fn gelu_tanh_oracle(x: f64) -> f64 {
    let u = x * (0.797_884_560_802_865_4 * (1.0 + 0.044_715 * x * x));
    if x == f64::NEG_INFINITY { -0.0 } else { x / (1.0 + libm::exp(-2.0 * u)) }
}

fn gelu_erf_oracle(x: f64) -> f64 {
    if x == f64::NEG_INFINITY { 0.0 } else { 0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2) }
}

const CASES: &[Case] = &[
    Case {
        name: "exp2",
        bound: 0.8,
        floor: 0.0,
        oracle: exp2_flushed,
        eval: |l, x, y| dispatch_at(l, Apply(Exp2, x, y)),
    },
    Case {
        name: "exp2_short",
        bound: 50.0,
        floor: 0.0,
        oracle: exp2_short_oracle,
        eval: |l, x, y| dispatch_at(l, Apply(Short, x, y)),
    },
    Case {
        name: "exp",
        bound: 0.9,
        floor: 0.0,
        oracle: libm::exp,
        eval: |l, x, y| dispatch_at(l, Apply(Exp, x, y)),
    },
    Case {
        name: "log",
        bound: 0.9,
        floor: 0.0,
        oracle: libm::log,
        eval: |l, x, y| dispatch_at(l, Apply(Log, x, y)),
    },
    Case {
        name: "sin",
        bound: 1.7,
        floor: 0.0,
        oracle: libm::sin,
        eval: |l, x, y| dispatch_at(l, Apply(Sin, x, y)),
    },
    Case {
        name: "cos",
        bound: 1.7,
        floor: 0.0,
        oracle: libm::cos,
        eval: |l, x, y| dispatch_at(l, Apply(Cos, x, y)),
    },
    Case {
        name: "tanh",
        bound: 1.4,
        floor: 0.0,
        oracle: libm::tanh,
        eval: |l, x, y| dispatch_at(l, Apply(Tanh, x, y)),
    },
    Case {
        name: "erf",
        bound: 1.0,
        floor: 0.0,
        oracle: libm::erf,
        eval: |l, x, y| dispatch_at(l, Apply(Erf, x, y)),
    },
    Case {
        name: "silu",
        bound: 3.2,
        floor: 1e-43,
        oracle: silu_oracle,
        eval: |l, x, y| dispatch_at(l, Apply(Silu, x, y)),
    },
    Case {
        name: "gelu_tanh",
        bound: 3.0,
        floor: 3e-7,
        oracle: gelu_tanh_oracle,
        eval: |l, x, y| dispatch_at(l, Apply(GeluTanh, x, y)),
    },
    Case {
        name: "gelu_erf",
        bound: 3.0,
        floor: 3e-7,
        oracle: gelu_erf_oracle,
        eval: |l, x, y| dispatch_at(l, Apply(GeluErf, x, y)),
    },
];

/// Distance in units of the last place of `exact` rounded to f32.
fn ulp_error(got: f32, exact: f64) -> f64 {
    let rounded = exact as f32;
    if exact.is_nan() || got.is_nan() {
        return if exact.is_nan() && got.is_nan() { 0.0 } else { f64::INFINITY };
    }
    if got == rounded || rounded.is_infinite() && got.is_infinite() && (got > 0.0) == (rounded > 0.0) {
        return if rounded.is_infinite() { 0.0 } else { (f64::from(got) - exact).abs() / ulp(exact) };
    }
    // A result next to the overflow threshold may round either way.
    let got = if got.is_infinite() {
        340_282_366_920_938_463_463_374_607_431_768_211_456.0_f64.copysign(f64::from(got))
    } else {
        f64::from(got)
    };
    (got - exact).abs() / ulp(exact)
}

/// Spacing of f32 at the binade of `x`.
fn ulp(x: f64) -> f64 {
    let (_, e) = libm::frexp(x);
    libm::ldexp(1.0, (e - 24).clamp(-149, 104))
}

/// Every `stride`-th f32 from `first`, worst error and where, and equality over `levels`.
fn scan(case: &Case, first: u32, last: u32, stride: usize, levels: &[Level]) -> (f64, f32, f64) {
    const N: usize = 4096;
    let (mut worst, mut at, mut absolute) = (0.0f64, 0.0f32, 0.0f64);
    let (mut x, mut y, mut other) = (vec![0.0f32; N], vec![0.0f32; N], vec![0.0f32; N]);
    let mut bits = (u64::from(first)..=u64::from(last)).step_by(stride).peekable();
    while bits.peek().is_some() {
        let n = x.iter_mut().zip(&mut bits).map(|(x, b)| *x = f32::from_bits(b as u32)).count();
        (case.eval)(levels[0], &x[..n], &mut y[..n]);
        for &level in &levels[1..] {
            (case.eval)(level, &x[..n], &mut other[..n]);
            for i in 0..n {
                let same = y[i].to_bits() == other[i].to_bits() || y[i].is_nan() && other[i].is_nan();
                assert!(same, "{}({:e}): {:e} {:e} at {level:?}", case.name, x[i], y[i], other[i]);
            }
        }
        for (&x, &y) in x[..n].iter().zip(&y) {
            let exact = (case.oracle)(f64::from(x));
            let error = ulp_error(y, exact);
            let distance = (f64::from(y) - exact).abs();
            if case.floor > 0.0 && distance <= case.floor * exact.abs().max(1.0) {
                absolute = absolute.max(distance / exact.abs().max(1.0));
            } else if error > worst {
                (worst, at) = (error, x);
            }
        }
    }
    (worst, at, absolute)
}

#[test]
fn errors_stay_within_bounds() {
    let best = *available_levels().last().unwrap();
    for case in CASES {
        // A prime stride visits every exponent and mantissa residue.
        let (worst, at, _) = scan(case, 0, u32::MAX, 8191, &[best]);
        assert!(worst <= case.bound, "{}: {worst} ULP at {at:e}", case.name);
        // And densely where results are ordinary numbers.
        for (lo, hi) in [(0.01f32, 100.0f32), (-100.0, -0.01)] {
            let (lo, hi) = (lo.to_bits().min(hi.to_bits()), lo.to_bits().max(hi.to_bits()));
            let (worst, at, _) = scan(case, lo, hi, 509, &[best]);
            assert!(worst <= case.bound, "{}: {worst} ULP at {at:e}", case.name);
        }
    }
}

#[test]
fn levels_give_equal_bits() {
    for case in CASES {
        scan(case, 0, u32::MAX, 65_521, &available_levels());
    }
}

#[test]
fn position_in_a_slice_does_not_matter() {
    let x: Vec<f32> = (0..37).map(|i| (i as f32 - 18.0) * 0.37).collect();
    for case in CASES {
        for level in available_levels() {
            let mut whole = vec![0.0; 37];
            (case.eval)(level, &x, &mut whole);
            for i in 0..37 {
                let mut one = [0.0];
                (case.eval)(level, &x[i..=i], &mut one);
                let same = one[0].to_bits() == whole[i].to_bits() || one[0].is_nan() && whole[i].is_nan();
                assert!(same, "{} {i} {level:?}", case.name);
            }
        }
    }
}

#[test]
fn special_values() {
    let inf = f32::INFINITY;
    let check = |name: &str, x: f32, want: f32| {
        let case = CASES.iter().find(|c| c.name == name).unwrap();
        for level in available_levels() {
            let mut y = [7.0];
            (case.eval)(level, &[x], &mut y);
            let same = y[0].to_bits() == want.to_bits() || y[0].is_nan() && want.is_nan();
            assert!(same, "{name}({x:e}) = {:e}, expected {want:e} at {level:?}", y[0]);
        }
    };
    for case in CASES {
        check(case.name, f32::NAN, f32::NAN);
        check(case.name, -f32::NAN, f32::NAN);
        check(case.name, f32::from_bits(0x7f80_0001), f32::NAN);
    }
    for n in -64..128 {
        check("exp2_short", n as f32, f32::from_bits(((n + 127) as u32) << 23));
    }
    for n in -126..128 {
        check("exp2", n as f32, f32::from_bits(((n + 127) as u32) << 23));
    }
    for name in ["exp", "exp2", "exp2_short"] {
        check(name, 0.0, 1.0);
        check(name, -0.0, 1.0);
        check(name, inf, inf);
        check(name, -inf, 0.0);
        check(name, f32::MAX, inf);
        check(name, f32::MIN, 0.0);
    }
    check("exp2", 128.0, inf);
    check("exp2", -126.000_01, 0.0);
    check("exp", -103.0, f32::from_bits(1));
    check("log", 1.0, 0.0);
    check("log", 0.0, -inf);
    check("log", -0.0, -inf);
    check("log", -1.0, f32::NAN);
    check("log", -f32::from_bits(1), f32::NAN);
    check("log", -inf, f32::NAN);
    check("log", inf, inf);
    check("log", f32::from_bits(1), -103.278_93);
    for name in ["sin", "cos"] {
        check(name, inf, f32::NAN);
        check(name, -inf, f32::NAN);
    }
    for name in ["sin", "tanh", "erf", "silu", "gelu_tanh", "gelu_erf"] {
        check(name, 0.0, 0.0);
        let odd = ["sin", "tanh", "erf"].contains(&name);
        check(
            name,
            f32::from_bits(1),
            if odd && name != "erf" { f32::from_bits(1) } else { f32::from_bits(u32::from(name == "erf")) },
        );
    }
    for name in ["sin", "tanh", "erf"] {
        check(name, -0.0, -0.0);
    }
    for name in ["tanh", "erf"] {
        check(name, inf, 1.0);
        check(name, -inf, -1.0);
    }
    for name in ["silu", "gelu_tanh", "gelu_erf"] {
        check(name, inf, inf);
    }
    check("silu", -inf, -0.0);
    check("gelu_tanh", -inf, -0.0);
    check("gelu_erf", -inf, 0.0);
    check("cos", 0.0, 1.0);
    check("sin", f32::MAX, libm::sin(f64::from(f32::MAX)) as f32);
    check("cos", 2_097_153.0, libm::cos(2_097_153.0) as f32);
}

#[test]
fn slices_check_lengths() {
    use super::slice;
    assert_eq!(slice::exp(&[0.0; 2], &mut [0.0; 3]).unwrap_err().code(), -200);
    assert_eq!(slice::sincos(&[0.0; 2], &mut [0.0; 2], &mut [0.0; 1]).unwrap_err().code(), -200);
    let x: Vec<f32> = (0..200_000).map(|i| i as f32 * 1e-3).collect();
    let (mut a, mut b) = (vec![0.0; x.len()], vec![0.0; x.len()]);
    slice::tanh(&x, &mut a).unwrap();
    (CASES.iter().find(|c| c.name == "tanh").unwrap().eval)(Level::Portable, &x[199_000..], &mut b[..1000]);
    assert_eq!(a[199_000..], b[..1000]);
}

/// All 2^32 inputs: the worst errors, and equality of every level
/// that has FMA hardware. `DGM_TEST_FUNCTION` picks one function, `DGM_TEST_STRIDE` thins the
/// inputs.
#[test]
#[ignore = "minutes"]
fn exhaustive_errors_and_levels() {
    let only = std::env::var("DGM_TEST_FUNCTION").ok();
    let stride = std::env::var("DGM_TEST_STRIDE").map_or(1, |v| v.parse().expect("a number"));
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
    let mut levels = available_levels();
    levels.retain(|&l| l != Level::Portable);
    levels.reverse();
    if levels.is_empty() {
        levels.push(Level::Portable);
    }
    for case in CASES.iter().filter(|c| only.as_deref().is_none_or(|o| o == c.name)) {
        let slice = u32::MAX / threads;
        let results: Vec<_> = std::thread::scope(|scope| {
            let levels = &levels;
            let run = |i: u32| {
                let last = if i + 1 == threads { u32::MAX } else { (i + 1) * slice - 1 };
                scope.spawn(move || scan(case, i * slice, last, stride, levels))
            };
            let handles: Vec<_> = (0..threads).map(run).collect();
            handles.into_iter().map(|h| h.join().unwrap()).collect()
        });
        let (worst, at, _) =
            results.iter().copied().fold((0.0, 0.0, 0.0), |a, b| if b.0 > a.0 { b } else { a });
        let absolute = results.iter().map(|r| r.2).fold(0.0, f64::max);
        println!("{}: {worst:.4} ULP at {at:e}, within the floor {absolute:e}", case.name);
        assert!(worst <= case.bound, "{}: {worst} ULP at {at:e}", case.name);
    }
}
