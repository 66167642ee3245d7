//! Logarithm, sine and cosine in f64, almost always the double next to the exact value.
//!
//! PyTorch and NumPy take theirs from the platform's C library. Those of glibc are the nearest double in
//! all but about one case of a thousand; of the results of the `libm` crate (FreeBSD's functions) one in 14
//! is another double. Here sums are carried in two doubles (T. J. Dekker, Numer. Math. 18, 1971), with
//! relative errors below 2^-64 before the one rounding at the end. Tables are computed at first use by
//! the series that define them.

use std::sync::LazyLock;

/// A number as an unevaluated sum, the second part below half an ulp of the first.
#[derive(Clone, Copy, Debug)]
struct Double(f64, f64);

#[inline(always)]
fn two_sum(a: f64, b: f64) -> Double {
    let s = a + b;
    let t = s - a;
    Double(s, (a - (s - t)) + (b - t))
}

/// [`two_sum`] where `|a| >= |b|` or `a` is 0.
#[inline(always)]
fn quick_sum(a: f64, b: f64) -> Double {
    let s = a + b;
    Double(s, b - (s - a))
}

impl Double {
    #[inline(always)]
    fn add(self, b: Double) -> Double {
        let s = two_sum(self.0, b.0);
        quick_sum(s.0, s.1 + (self.1 + b.1))
    }

    #[inline(always)]
    fn mul(self, b: Double) -> Double {
        let p = self.0 * b.0;
        let e = self.0.mul_add(b.0, -p);
        quick_sum(p, self.0.mul_add(b.1, self.1.mul_add(b.0, e)))
    }

    /// Division by a number whose product with a double of the quotient is exact under FMA.
    fn div(self, b: f64) -> Double {
        let q = self.0 / b;
        quick_sum(q, ((-q).mul_add(b, self.0) + self.1) / b)
    }

    #[inline(always)]
    fn neg(self) -> Double {
        Double(-self.0, -self.1)
    }

    #[inline(always)]
    fn value(self) -> f64 {
        self.0 + self.1
    }
}

/// First and last of the `j` for which `j / 64` can be nearest to a number in [sqrt 1/2, sqrt 2].
const LOG_FIRST: usize = 45;
const LOG_LAST: usize = 91;

/// `ln(j / 64)` by the series of the inverse hyperbolic tangent of `(j - 64) / (j + 64)`.
static LOGS: LazyLock<[Double; LOG_LAST - LOG_FIRST + 1]> = LazyLock::new(|| {
    std::array::from_fn(|i| {
        let j = (i + LOG_FIRST) as f64;
        let s = Double(j - 64.0, 0.0).div(j + 64.0);
        let square = s.mul(s);
        let (mut power, mut sum) = (s, s);
        for k in 1..28 {
            power = power.mul(square);
            sum = sum.add(power.div(f64::from(2 * k + 1)));
        }
        Double(2.0 * sum.0, 2.0 * sum.1)
    })
});

/// ln 2: the upper part has trailing zeros, so that its product with an exponent is exact.
const LN2_HIGH: f64 = 6.931_471_803_691_238e-1;
const LN2_LOW: f64 = 1.908_214_929_270_587_7e-10;

/// The tables that [`log`] and [`sincos`] read.
#[derive(Clone, Copy)]
pub(super) struct Tables {
    logs: &'static [Double; LOG_LAST - LOG_FIRST + 1],
    sines: &'static [(Double, Double); SINES],
}

impl Tables {
    pub(super) fn get() -> Self {
        Tables { logs: &LOGS, sines: &SINE_TABLE }
    }

    /// `ln x` of a positive normal number: `x = 2^e m`, `m = c (1 + r)`, `c` a multiple of 1/64.
    #[inline(always)]
    pub(super) fn log(self, x: f64) -> f64 {
        debug_assert!(x.is_normal() && x > 0.0);
        let offset = x.to_bits().wrapping_sub(SQRT_HALF);
        let e = ((offset as i64) >> 52) as f64;
        let m = f64::from_bits((offset & ((1 << 52) - 1)).wrapping_add(SQRT_HALF));
        let j = (m * 64.0 + 0.5) as usize;
        let c = j as f64 * (1.0 / 64.0);
        let d = m - c;
        let r = d / c;
        let r = Double(r, (-r).mul_add(c, d) / c);
        let half = Double(-0.5 * r.0, -0.5 * r.1).mul(r);
        let z = r.0;
        let mut tail = -1.0 / 12.0;
        for k in (3..12).rev() {
            let term = if k % 2 == 1 { 1.0 } else { -1.0 };
            tail = z.mul_add(tail, term / f64::from(k));
        }
        let tail = tail * z * z * z;
        let log_c = self.logs[j - LOG_FIRST];
        // Near 1 all that is left is r, of which the rest is a small part.
        let sum = two_sum(e * LN2_HIGH, log_c.0).add(r).add(half).add(two_sum(e * LN2_LOW, log_c.1));
        sum.add(Double(tail, 0.0)).value()
    }

    /// `(sin x, cos x)` for `x` in [0, 2 pi], rounded up or down to a double.
    #[inline(always)]
    pub(super) fn sincos(self, x: f64) -> (f64, f64) {
        debug_assert!((0.0..=6.284).contains(&x));
        let k = (x * std::f64::consts::FRAC_2_PI + 0.5) as i64;
        let n = k as f64;
        // n times the first and second part are exact.
        let r = two_sum(x - n * PIO2_1, -n * PIO2_2);
        let r = quick_sum(r.0, r.1 - n * PIO2_3);
        let negative = r.0 < 0.0;
        let r = if negative { r.neg() } else { r };
        let j = (r.0 * 64.0 + 0.5) as usize;
        let d = two_sum(r.0 - j as f64 * (1.0 / 64.0), r.1);
        let (sin_a, cos_a) = self.sines[j];
        let (sin_d, cos_d) = small(d);
        let sin = sin_a.add(cos_a.mul(sin_d).add(sin_a.mul(cos_d))).value();
        let cos = cos_a.add(cos_a.mul(cos_d).add(sin_a.mul(sin_d).neg())).value();
        let sin = if negative { -sin } else { sin };
        match k & 3 {
            0 => (sin, cos),
            1 => (cos, -sin),
            2 => (-sin, -cos),
            _ => (-cos, sin),
        }
    }
}

/// The bits of sqrt(1/2) rounded down.
const SQRT_HALF: u64 = 0x3fe6_a09e_667f_3bcc;

/// pi/2 in two parts of 33 bits and a double.
const PIO2_1: f64 = 1.570_796_326_734_125_6;
const PIO2_2: f64 = 6.077_100_506_303_966e-11;
const PIO2_3: f64 = 2.022_266_248_795_950_6e-21;

/// Entries of the table of sines: multiples of 1/64 up to pi/4.
const SINES: usize = 52;

/// `(sin, cos)` of `j / 64` by their Taylor series.
static SINE_TABLE: LazyLock<[(Double, Double); SINES]> = LazyLock::new(|| {
    std::array::from_fn(|j| {
        let a = Double(j as f64 / 64.0, 0.0);
        let (mut term, mut sums) = (Double(1.0, 0.0), [Double(0.0, 0.0); 2]);
        for k in 0..28 {
            let signed = if k % 4 < 2 { term } else { term.neg() };
            sums[k % 2] = sums[k % 2].add(signed);
            term = term.mul(a).div((k + 1) as f64);
        }
        (sums[1], sums[0])
    })
});

/// `(sin d, cos d - 1)` for |d| <= 1/128 and a little.
#[inline(always)]
fn small(d: Double) -> (Double, Double) {
    let z = d.0 * d.0;
    let s = z.mul_add(-1.0 / 39_916_800.0, 1.0 / 362_880.0);
    let s = z.mul_add(s, -1.0 / 5_040.0);
    let s = z.mul_add(s, 1.0 / 120.0);
    let s = z.mul_add(s, -1.0 / 6.0);
    let sin = quick_sum(d.0, (s * z).mul_add(d.0, d.1));
    let half = Double(-0.5 * d.0, -0.5 * d.1).mul(d);
    let c = z.mul_add(1.0 / 3_628_800.0, -1.0 / 40_320.0);
    let c = z.mul_add(-c, -1.0 / 720.0);
    let c = z.mul_add(c, 1.0 / 24.0);
    (sin, quick_sum(half.0, (c * z).mul_add(z, half.1)))
}
