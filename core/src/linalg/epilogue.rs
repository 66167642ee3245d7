//! What follows the sums of a linear layer: bias, activation, rounding.

use super::linear::Activation;
use super::packed::{PANEL, PackedLinear};
use super::rows::store;
use crate::arch::{Kernel, MatrixMut, Simd};
use crate::math::slice::{Function, GeluErf, GeluTanh, Silu};
use crate::tensor::Element;

/// Sums of 32 outputs a row become what the layer gives, in place.
#[inline(always)]
pub(super) fn bias_and_activation<S: Simd>(s: S, act: Activation, bias: &[f32], tile: &mut [f32]) {
    match act {
        Activation::None => map(s, bias, tile, Same),
        Activation::Silu => map(s, bias, tile, Silu),
        Activation::GeluTanh => map(s, bias, tile, GeluTanh),
        Activation::GeluErf => map(s, bias, tile, GeluErf),
    }
}

/// No activation.
#[derive(Clone, Copy)]
struct Same;

impl Function for Same {
    const COST: u64 = 0;
    #[inline(always)]
    fn eval<S: Simd>(self, _: S, x: S::F) -> S::F {
        x
    }
}

#[inline(always)]
fn map<S: Simd>(s: S, bias: &[f32], tile: &mut [f32], f: impl Function) {
    for row in tile.chunks_exact_mut(PANEL) {
        let mut i = 0;
        while i < PANEL {
            let y = s.add(s.load(&row[i..]), s.load(&bias[i..]));
            s.store(f.eval(s, y), &mut row[i..]);
            i += S::LANES;
        }
    }
}

/// Writes the first `cols` of each row of 32 to columns of `out` from `first` on, rounded to its type.
#[inline(always)]
pub(super) fn put_tile<S: Simd, T: Element>(
    s: S,
    tile: &[f32],
    out: &mut MatrixMut<T>,
    first: usize,
    cols: usize,
) {
    for (r, row) in tile.chunks_exact(PANEL).enumerate() {
        let mut i = 0;
        while i < cols {
            store(s, s.load(&row[i..]), out, r, first + i);
            i += S::LANES;
        }
    }
}

/// Bias and activation of a product that lies in `out`.
pub(super) struct Finish<'a> {
    pub w: &'a PackedLinear,
    pub act: Activation,
    pub out: MatrixMut<'a>,
}

impl Kernel for Finish<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let mut tile = [0.0; PANEL];
        for panel in 0..self.w.panels() {
            let first = panel * PANEL;
            let cols = PANEL.min(self.out.cols() - first);
            for r in 0..self.out.rows() {
                for (i, to) in tile[..cols].iter_mut().enumerate() {
                    *to = self.out.get(r, first + i);
                }
                bias_and_activation(s, self.act, self.w.bias(panel), &mut tile);
                for (i, &y) in tile[..cols].iter().enumerate() {
                    self.out.set(r, first + i, y);
                }
            }
        }
    }
}
