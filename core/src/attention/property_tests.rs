//! Many small calls: a grid of shapes, and shapes, options, types and strides at random.

use ndarray::Array4;

use super::option_tests::{Shape, attend, bias, check, errors, inputs, mask};
use super::tests::{bits, serial};
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::tensor::{bf16, f16};
use crate::threads;

#[test]
fn grid_of_shapes() {
    let mut cases = 0;
    for dim in [1, 8, 16, 31, 32, 40, 59, 64, 72, 80, 96, 111, 128, 160, 256] {
        for queries in [0, 1, 2, 15, 16, 17, 63, 64, 65, 113] {
            for keys in [0, 1, 47, 48, 49, 95, 96, 97, 127, 128, 129, 203] {
                let groups: &[usize] = if queries <= 17 { &[1, 4] } else { &[1] };
                for &heads in groups {
                    for causal in [false, true] {
                        let o = AttentionOptions { causal, ..Default::default() };
                        check([1, heads, 1, queries, keys, dim, dim], &o);
                        cases += 1;
                    }
                }
            }
        }
    }
    assert!(cases >= 5000, "{cases}");
}

/// A small generator of choices (xorshift).
struct Choices(u64);

impl Choices {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) as usize % n
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// Mostly below `small`, sometimes below `large`.
    fn size(&mut self, small: usize, large: usize) -> usize {
        if self.one_in(60) { self.below(large) } else { self.below(small) }
    }

    fn some<T>(&mut self, value: impl FnOnce(&mut Self) -> T) -> Option<T> {
        self.one_in(4).then(|| value(self))
    }
}

/// A copy with the axes in another order in memory.
fn strided<T: Clone>(x: &Array4<T>, order: [usize; 4]) -> Array4<T> {
    let mut back = [0; 4];
    order.iter().enumerate().for_each(|(i, &o)| back[o] = i);
    x.view().permuted_axes(order).as_standard_layout().into_owned().permuted_axes(back)
}

const ORDERS: [[usize; 4]; 4] = [[0, 1, 2, 3], [0, 2, 1, 3], [3, 0, 1, 2], [2, 3, 0, 1]];

/// Random calls: every element within its bound, errors in sum at most twice those of the same
/// formulas in f32 (a small call has too few rows to compare), and the same bits from other
/// strides, another level, other threads and 16-bit storage of the same numbers.
fn random_calls(seed: u64, count: usize) {
    let mut c = Choices(seed);
    let (mut total, mut total_naive) = (0.0, 0.0);
    let levels = available_levels();
    for n in 0..count {
        let (batch, kv_heads, group) = (1 + c.below(2), 1 + c.below(2), 1 + c.below(3));
        let heads = kv_heads * group;
        let (lq, lk) = (c.size(6, 80), c.size(9, 300));
        let (dim, value_dim) = (1 + c.size(9, 70), 1 + c.size(9, 70));
        let shape: Shape = [batch, heads, kv_heads, lq, lk, dim, value_dim];
        let lengths: Vec<usize> = (0..batch).map(|_| c.below(lk + 1)).collect();
        let slopes: Vec<f32> = (0..heads).map(|_| c.below(9) as f32 / 8.0 - 0.5).collect();
        let sinks: Vec<f32> = (0..heads).map(|_| c.below(9) as f32 - 4.0).collect();
        let broadcast = |c: &mut Choices, n: usize| if c.one_in(2) { 1 } else { n };
        let full = [batch, heads, lq, lk];
        let bias_shape = full.map(|n| broadcast(&mut c, n));
        let mask_shape = full.map(|n| broadcast(&mut c, n));
        let (bias, mask) = (bias(n as u64 + 7, bias_shape), mask(n as u64 + 8, mask_shape));
        let o = AttentionOptions {
            scale: c.some(|c| c.below(20) as f32 / 10.0),
            causal: c.one_in(3),
            window_left: c.some(|c| c.below(7)),
            window_right: c.some(|c| c.below(7)),
            kv_lengths: c.some(|_| &lengths[..]),
            soft_cap: c.some(|c| 1.0 + c.below(9) as f32),
            alibi_slopes: c.some(|_| &slopes[..]),
            sinks: c.some(|_| &sinks[..]),
            bias: c.some(|_| bias.view()),
            mask: c.some(|_| mask.view()),
        };
        let (error, naive) = errors(shape, &o);
        total += error;
        total_naive += naive;

        let mut x = inputs(shape);
        let storage = c.below(3);
        if storage > 0 {
            let round = |x: &mut f32| {
                *x = if storage == 1 { f16::from_f32(*x).to_f32() } else { bf16::from_f32(*x).to_f32() };
            };
            x.k.iter_mut().chain(&mut x.v).for_each(round);
        }
        let (want, want_lse) = attend(&x, &o);
        set_level(levels[c.below(levels.len())]).unwrap();
        // Not for every call: emulators keep what ended threads had.
        if n % 50 == 0 {
            threads::set_num_threads(1 + c.below(3)).unwrap();
        }
        let [q, k, v] = [&x.q, &x.k, &x.v].map(|x| strided(x, ORDERS[c.below(4)]));
        let mut out = strided(&Array4::from_elem(want.dim(), 77.0f32), ORDERS[c.below(4)]);
        let mut lse = ndarray::Array3::from_elem(want_lse.dim(), 77.0);
        let (q, o_view, l_view) = (q.view(), out.view_mut(), Some(lse.view_mut()));
        match storage {
            0 => attention(q, k.view(), v.view(), &o, o_view, l_view).unwrap(),
            1 => {
                let [k, v] = [&k, &v].map(|x| x.mapv(f16::from_f32));
                attention(q, k.view(), v.view(), &o, o_view, l_view).unwrap();
            }
            _ => {
                let [k, v] = [&k, &v].map(|x| x.mapv(bf16::from_f32));
                attention(q, k.view(), v.view(), &o, o_view, l_view).unwrap();
            }
        }
        assert_eq!(bits(&out), bits(&want), "call {n} of seed {seed}: {shape:?} {o:?}");
        assert_eq!(bits(&lse), bits(&want_lse), "call {n} of seed {seed}: {shape:?} {o:?}");
    }
    assert!(total <= 2.0 * total_naive, "{total:e} against {total_naive:e}");
}

#[test]
fn a_hundred_thousand_random_calls() {
    let _guard = serial();
    let first = level();
    random_calls(0x5eed_0001, 100_000);
    set_level(first).unwrap();
}
