//! Rotary position embedding against its definition: types, strides, widths, and outputs past the caches.

use ndarray::{Array2, Array4, ArrayView4, ArrayViewMut4, Ix4, s};

use super::tests::{at_every_level, noise, noise2};
use super::*;
use crate::tensor::{Element, Floats, FloatsMut, bf16, f16};

/// Head sizes and pairs that are turned: none, fewer than a vector, some vectors, and a part of one more.
const WIDTHS: [(usize, usize); 6] = [(3, 0), (10, 4), (32, 16), (80, 36), (144, 72), (37, 18)];
const BATCH: usize = 2;
const HEADS: usize = 3;
const TOKENS: usize = 21;

/// The definition, a pair after the other.
fn defined<X: Element>(x: &Array4<X>, first: [usize; BATCH], tables: &Rope) -> Array4<f32> {
    let half = tables.cos.ncols();
    let mut out = x.mapv(X::to_f32);
    let (step, apart) = if tables.interleaved { (2, 1) } else { (1, half) };
    for b in 0..BATCH {
        for h in 0..HEADS {
            for t in 0..TOKENS {
                let mut row = out.slice_mut(s![b, h, t, ..]);
                for i in 0..half {
                    let at = [first[b] + t, i];
                    let (cos, sin) = (tables.cos[at], tables.sin[at]);
                    let (a, b) = (row[step * i], row[step * i + apart]);
                    row[step * i] = a * cos - b * sin;
                    row[step * i + apart] = b * cos + a * sin;
                }
            }
        }
    }
    out
}

fn turns<X: Element, Y: Element>()
where
    for<'a> Floats<'a, Ix4>: From<ArrayView4<'a, X>>,
    for<'a> FloatsMut<'a, Ix4>: From<ArrayViewMut4<'a, Y>>,
{
    let first = [4, 1];
    for (dim, half) in WIDTHS {
        // Tables whose rows lie apart in one of the two cases.
        let (cos, sin) = (noise2([TOKENS + 4, 2 * half], 1), noise2([TOKENS + 4, 2 * half], 2));
        let close = [&cos, &sin].map(|table| table.slice(s![.., ..half]));
        let apart = [&cos, &sin].map(|table| table.slice(s![.., ..;2]));
        let x = noise(&[BATCH, HEADS, TOKENS, dim], 3).into_dimensionality::<Ix4>().unwrap();
        let x = x.mapv(X::from_f32);
        let mut doubled = Array4::from_elem((BATCH, HEADS, TOKENS, 2 * dim), X::from_f32(9.0));
        doubled.slice_mut(s![.., .., .., ..;2]).assign(&x);
        let mut by_token = Array4::from_elem((BATCH, TOKENS, HEADS, dim), X::from_f32(9.0));
        by_token.view_mut().permuted_axes([0, 2, 1, 3]).assign(&x);
        let layouts =
            [x.view(), doubled.slice(s![.., .., .., ..;2]), by_token.view().permuted_axes([0, 2, 1, 3])];
        for ([cos, sin], interleaved) in [(close, false), (close, true), (apart, false), (apart, true)] {
            let tables = Rope { cos, sin, interleaved };
            let expected = defined(&x, first, &tables).mapv(Y::from_f32);
            at_every_level(|at| {
                for x in layouts {
                    let same = |out: ArrayView4<Y>| {
                        let bits = |y: &Y| y.to_f32().to_bits();
                        assert!(
                            out.iter().map(bits).eq(expected.iter().map(bits)),
                            "{at}: head size {dim}, {half} pairs, interleaved: {interleaved}"
                        );
                    };
                    let mut out = Array4::from_elem((BATCH, HEADS, TOKENS, dim), Y::from_f32(7.0));
                    rope(x, &first, &tables, out.view_mut()).unwrap();
                    same(out.view());
                    let mut out = Array4::from_elem((BATCH, dim, TOKENS, HEADS), Y::from_f32(7.0));
                    rope(x, &first, &tables, out.view_mut().permuted_axes([0, 3, 2, 1])).unwrap();
                    same(out.view().permuted_axes([0, 3, 2, 1]));
                }
            });
        }
    }
}

#[test]
fn every_pair_is_turned_as_defined() {
    turns::<f32, f32>();
    turns::<bf16, bf16>();
    turns::<f16, f16>();
    turns::<bf16, f32>();
    turns::<f32, f16>();
}

/// Outputs that go past the caches, from the beginning of a line or the element after it on, against the same tokens a
/// few at a time.
fn past_the_caches<T: Element>(dim: usize, after: usize, interleaved: &[bool])
where
    for<'a> Floats<'a, Ix4>: From<ArrayView4<'a, T>>,
    for<'a> FloatsMut<'a, Ix4>: From<ArrayViewMut4<'a, T>>,
{
    let tokens = (32 << 20) / size_of::<T>() / (HEADS * dim) + 1;
    let shape = (1, HEADS, tokens, dim);
    let (mut cos, mut sin) = (Array2::zeros((tokens, dim / 2)), Array2::zeros((tokens, dim / 2)));
    rope_tables(0, 10_000.0, cos.view_mut(), sin.view_mut()).unwrap();
    let period: Vec<T> = noise(&[10_007], 1).iter().map(|&x| T::from_f32(x)).collect();
    let x = Array4::from_shape_vec(shape, period.into_iter().cycle().take(HEADS * tokens * dim).collect())
        .unwrap();
    let line = 64 / size_of::<T>();
    let mut memory = vec![T::from_f32(7.0); x.len() + 2 * line];
    let begin = memory.as_ptr().align_offset(64) + after;
    for &interleaved in interleaved {
        let tables = Rope { cos: cos.view(), sin: sin.view(), interleaved };
        let mut few = Array4::from_elem((1, HEADS, 64, dim), T::from_f32(0.0));
        at_every_level(|at| {
            let inner = &mut memory[begin..][..x.len()];
            let mut out = ArrayViewMut4::from_shape(shape, inner).unwrap();
            rope(x.view(), &[0], &tables, out.view_mut()).unwrap();
            for first in (0..tokens).step_by(64) {
                let range = first..tokens.min(first + 64);
                let mut few = few.slice_mut(s![.., .., ..range.len(), ..]);
                rope(x.slice(s![.., .., range.clone(), ..]), &[first], &tables, few.view_mut()).unwrap();
                let out = out.slice(s![.., .., range, ..]);
                assert!(
                    few.iter().zip(&out).all(|(a, b)| a.to_f32().to_bits() == b.to_f32().to_bits()),
                    "{at}: head size {dim}, {after} elements into a line, interleaved: {interleaved}"
                );
            }
            let around = memory[..begin].iter().chain(&memory[begin + x.len()..]);
            assert!(around.map(|x| x.to_f32()).eq(std::iter::repeat_n(7.0, 2 * line)));
            memory[begin..][..x.len()].fill(T::from_f32(5.0));
        });
    }
}

#[test]
fn outputs_past_the_caches_have_the_same_bits() {
    past_the_caches::<f32>(72, 1, &[false, true]);
    past_the_caches::<bf16>(72, 1, &[false, true]);
    // Rows that are whole lines: as many vectors as fit, and half of one more.
    past_the_caches::<f32>(144, 0, &[false, true]);
    past_the_caches::<f32>(128, 0, &[true]);
}
