//! NumPy's legacy `RandomState`.

use super::float64::Tables;
use super::mt19937::Mt19937;
use crate::arch::{Kernel, Simd, dispatch};

/// `numpy.random.RandomState(seed)`, and `numpy.random` itself after `numpy.random.seed(seed)`: MT19937, and the
/// second number of a pair of normal numbers.
#[derive(Clone, Debug, PartialEq)]
pub struct NumpyRandomState {
    pub(super) bits: Mt19937,
    pub(super) cached: Option<f64>,
}

impl NumpyRandomState {
    /// As `RandomState(seed)`.
    pub fn new(seed: u32) -> Self {
        NumpyRandomState { bits: Mt19937::new(seed), cached: None }
    }

    /// `random_sample(n)`: 27 bits of a word, 26 of the next.
    pub fn uniform_f64(&mut self, out: &mut [f64]) {
        out.iter_mut().for_each(|o| *o = unit(&mut self.bits));
    }

    /// `random_sample(n).astype(float32)`.
    pub fn uniform(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|o| *o = unit(&mut self.bits) as f32);
    }

    /// `randn(n)`: the polar method (G. Marsaglia, T. A. Bray, SIAM Review 6, 1964), the second number of a
    /// pair first.
    pub fn normal_f64(&mut self, out: &mut [f64]) {
        dispatch(Fill(self, out, |x| x));
    }

    /// `randn(n).astype(float32)`.
    pub fn normal(&mut self, out: &mut [f32]) {
        dispatch(Fill(self, out, |x| x as f32));
    }

    #[inline(always)]
    fn next_normal(&mut self) -> f64 {
        if let Some(first) = self.cached.take() {
            return first;
        }
        loop {
            let x = 2.0 * unit(&mut self.bits) - 1.0;
            let y = 2.0 * unit(&mut self.bits) - 1.0;
            let square = x * x + y * y;
            if square < 1.0 && square != 0.0 {
                let f = (-2.0 * Tables::get().log(square) / square).sqrt();
                self.cached = Some(f * x);
                return f * y;
            }
        }
    }
}

/// Normal numbers. A kernel, because the logarithm needs FMA, which is a function call without its instruction.
struct Fill<'a, T, F>(&'a mut NumpyRandomState, &'a mut [T], F);

impl<T, F: Fn(f64) -> T> Kernel for Fill<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for out in self.1 {
            *out = (self.2)(self.0.next_normal());
        }
    }
}

fn unit(bits: &mut Mt19937) -> f64 {
    let (high, low) = (bits.next_u32() >> 5, bits.next_u32() >> 6);
    (f64::from(high) * 67_108_864.0 + f64::from(low)) / 9_007_199_254_740_992.0
}
