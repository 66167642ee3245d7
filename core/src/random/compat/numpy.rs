//! NumPy's `Generator` on PCG64 and Philox: uniform numbers, and normal numbers by the ziggurat method.
//!
//! G. Marsaglia, W. W. Tsang, "The ziggurat method for generating random variables", J. Stat. Softw. 5
//! (2000), in the form of NumPy: 256 layers, 52 bits of a word for f64, 23 for f32.

use super::bits64::Bits;
use super::ziggurat::{INVERSE_R, R, Ziggurat};

/// A `numpy.random.Generator` on the bit generator `B`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NumpyGenerator<B> {
    pub(super) bits: B,
}

// Only bit generators of this module have the trait.
#[allow(private_bounds)]
impl<B: Bits> NumpyGenerator<B> {
    /// `random(n, dtype=float32)`: 24 bits each, of the halves of words.
    pub fn uniform(&mut self, out: &mut [f32]) {
        out.iter_mut().for_each(|o| *o = self.bits.next_f32());
    }

    /// `random(n)`: 53 bits of a word each.
    pub fn uniform_f64(&mut self, out: &mut [f64]) {
        out.iter_mut().for_each(|o| *o = self.bits.next_f64());
    }

    /// `standard_normal(n, dtype=float32)`.
    pub fn normal(&mut self, out: &mut [f32]) {
        let tables = Ziggurat::get();
        out.iter_mut().for_each(|o| *o = self.next_normal(tables));
    }

    /// `standard_normal(n)`.
    pub fn normal_f64(&mut self, out: &mut [f64]) {
        let tables = Ziggurat::get();
        out.iter_mut().for_each(|o| *o = self.next_normal_f64(tables));
    }

    #[inline]
    fn next_normal_f64(&mut self, tables: &Ziggurat) -> f64 {
        loop {
            let word = self.bits.next_u64();
            let layer = (word & 0xff) as usize;
            let magnitude = word >> 9 & ((1 << 52) - 1);
            let x = magnitude as f64 * tables.width[layer];
            let x = if word >> 8 & 1 == 1 { -x } else { x };
            if magnitude < tables.accept[layer] {
                return x;
            }
            if layer == 0 {
                loop {
                    let far = -INVERSE_R * libm::log1p(-self.bits.next_f64());
                    let near = -libm::log1p(-self.bits.next_f64());
                    if near + near > far * far {
                        return if magnitude >> 8 & 1 == 1 { -(R + far) } else { R + far };
                    }
                }
            }
            let (below, above) = (tables.height[layer], tables.height[layer - 1]);
            if (above - below) * self.bits.next_f64() + below < libm::exp(-0.5 * x * x) {
                return x;
            }
        }
    }

    #[inline]
    fn next_normal(&mut self, tables: &Ziggurat) -> f32 {
        loop {
            let word = self.bits.next_u32();
            let layer = (word & 0xff) as usize;
            let magnitude = word >> 9;
            let x = magnitude as f32 * tables.width_f32[layer];
            let x = if word >> 8 & 1 == 1 { -x } else { x };
            if magnitude < tables.accept_f32[layer] {
                return x;
            }
            if layer == 0 {
                loop {
                    let far = -INVERSE_R as f32 * libm::log1pf(-self.bits.next_f32());
                    let near = -libm::log1pf(-self.bits.next_f32());
                    if near + near > far * far {
                        let x = R as f32 + far;
                        return if magnitude >> 8 & 1 == 1 { -x } else { x };
                    }
                }
            }
            let (below, above) = (tables.height_f32[layer], tables.height_f32[layer - 1]);
            let height = (above - below) * self.bits.next_f32() + below;
            if f64::from(height) < libm::exp(-0.5 * f64::from(x) * f64::from(x)) {
                return x;
            }
        }
    }
}
