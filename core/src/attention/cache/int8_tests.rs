//! int8 caches against the definition word by word and against exact arithmetic.

use ndarray::{Array4, s};

use super::super::dot_tests::{exp2, in_parts};
use super::super::tests::{bits, serial, tensor};
use super::super::{AttentionOptions, KEY_TILE, SPLIT, chain_length};
use super::tests::{Quantised, run_paged, with_options};
use crate::arch::{available_levels, level, set_level};
use crate::threads;

/// NUMERICS word by word for one row of a causal query at position `n - 1`.
fn defined(q: &[f32], cache: &Quantised, b: usize, h: usize, n: usize) -> (Vec<f32>, f32) {
    let scale = (1.0 / (q.len() as f64).sqrt()) as f32;
    let factor = (f64::from(scale) * std::f64::consts::LOG2_E) as f32;
    let dims = cache.v.dim().3;
    let mut total: Option<(f32, f32, Vec<f32>)> = None;
    for split in (0..n).step_by(SPLIT) {
        let (mut m, mut l, mut o) = (f32::NEG_INFINITY, 0.0f32, vec![0.0f32; dims]);
        for tile in (split..n.min(split + SPLIT)).step_by(KEY_TILE) {
            let keys = tile..n.min(tile + KEY_TILE);
            let scores: Vec<f32> = keys
                .clone()
                .map(|j| {
                    let (k, k_scale) = cache.row(0, b, h, j);
                    in_parts(q.len(), chain_length(q.len()), |d| [k[d], q[d] * factor]) * k_scale
                })
                .collect();
            let next = scores.iter().fold(m, |m, &s| if s > m { s } else { m });
            let a = exp2(m - next);
            let p: Vec<f32> = scores.iter().map(|s| exp2(s - next)).collect();
            l = l.mul_add(a, in_parts(p.len(), KEY_TILE / 2, |j| [p[j], 1.0]));
            let values: Vec<_> = keys.map(|j| cache.row(1, b, h, j)).collect();
            for (e, o) in o.iter_mut().enumerate() {
                let t = in_parts(p.len(), KEY_TILE / 2, |j| [values[j].0[e], p[j] * values[j].1]);
                *o = if tile == split { t } else { o.mul_add(a, t) };
            }
            m = next;
        }
        total = Some(match total {
            None => (m, l, o),
            Some((m1, l1, o1)) => {
                let next = if m1 > m { m1 } else { m };
                let (a1, a2) = (exp2(m1 - next), exp2(m - next));
                let o = o1.iter().zip(&o).map(|(o1, o2)| o2.mul_add(a2, o1 * a1)).collect();
                (next, l.mul_add(a2, l1 * a1), o)
            }
        });
    }
    let (m, l, o) = total.unwrap();
    let lse = ((f64::from(m) + libm::log2(f64::from(l))) * std::f64::consts::LN_2) as f32;
    (o.iter().map(|o| o.mul_add(1.0 / l, 0.0)).collect(), lse)
}

#[test]
fn int8_caches_follow_the_definition_to_the_bit() {
    let _guard = serial();
    let first = level();
    let (q, k, v) = (tensor(1, [2, 4, 2, 40]), tensor(2, [2, 2, 700, 40]), tensor(3, [2, 2, 700, 33]));
    let causal = AttentionOptions { causal: true, ..Default::default() };
    for page_len in [5, 128, 700] {
        let cache = Quantised::new(&k, &v, page_len);
        let (want, want_lse) = run_paged(q.view(), &cache.cache(), &causal);
        for ((b, h, i), &lse) in want_lse.indexed_iter() {
            let (row, row_lse) = defined(&q.slice(s![b, h, i, ..]).to_vec(), &cache, b, h / 2, 699 + i);
            assert_eq!(bits(want.slice(s![b, h, i, ..])), bits(&row));
            assert_eq!(lse.to_bits(), row_lse.to_bits());
        }
        for l in available_levels() {
            set_level(l).unwrap();
            for t in [1, 3] {
                threads::set_num_threads(t).unwrap();
                let (out, lse) = run_paged(q.view(), &cache.cache(), &causal);
                assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)), "{l:?} {t}");
            }
        }
        set_level(first).unwrap();
    }
    // Every option at once runs, and what is hidden stays hidden.
    let mut cache = Quantised::new(&k, &v, 16);
    with_options(127, 4, cache.table.ncols() * 16, |o| {
        let (want, _) = run_paged(q.view(), &cache.cache(), o);
        assert!(want.iter().all(|x| x.is_finite()) && want.iter().any(|&x| x != 0.0));
    });
    cache.scales.iter_mut().for_each(|s| s.slice_mut(s![cache.table[[0, 3]], .., 5..7]).fill(f32::NAN));
    let mask = Array4::from_shape_fn((1, 1, 1, 44 * 16), |(.., j)| u8::from(!(53..55).contains(&j)));
    let o = AttentionOptions { mask: Some(mask.view()), ..Default::default() };
    assert!(run_paged(q.view(), &cache.cache(), &o).0.iter().all(|x| x.is_finite()));
    assert!(run_paged(q.view(), &cache.cache(), &AttentionOptions::default()).0.iter().any(|x| x.is_nan()));
}

#[test]
fn int8_caches_are_near_the_exact_result() {
    // The error of rounding to int8, scale/2 an element, dominates: a score moves by at most
    // |q| max|k| sqrt(D)/254, the values by their scale/2.
    let (q, k, v) = (tensor(1, [1, 2, 1, 64]), tensor(2, [1, 1, 900, 64]), tensor(3, [1, 1, 900, 64]));
    let cache = Quantised::new(&k, &v, 32);
    let (out, _) = run_paged(q.view(), &cache.cache(), &AttentionOptions::default());
    for h in 0..2 {
        let score = |j: usize| -> f64 {
            (0..64).map(|d| f64::from(q[[0, h, 0, d]]) * f64::from(k[[0, 0, j, d]])).sum::<f64>() / 8.0
        };
        let weights: Vec<f64> = (0..900).map(|j| libm::exp(score(j))).collect();
        let sum: f64 = weights.iter().sum();
        for d in 0..64 {
            let want: f64 = (0..900).map(|j| weights[j] * f64::from(v[[0, 0, j, d]])).sum::<f64>() / sum;
            let error = (f64::from(out[[0, h, 0, d]]) - want).abs();
            assert!(error < 0.02, "{error}");
        }
    }
}

#[test]
fn quantising_keeps_each_token_within_half_a_step() {
    let special = [0.0, 1e-45, 2e-43, f32::MIN_POSITIVE, 1e-3, 1.0, 127.0, f32::MAX];
    for size in special {
        let x = Array4::from_shape_fn((1, 1, 1, 9), |(.., d)| size * ((d as f32 - 4.0) / 4.0));
        let cache = Quantised::new(&x, &x, 1);
        let (numbers, scale) = cache.row(0, 0, 0, 0);
        let most = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
        assert_eq!(scale.to_bits(), (most / 127.0).to_bits());
        for (n, &x) in numbers.iter().zip(&x) {
            assert!(n.abs() <= 127.0);
            if scale >= f32::MIN_POSITIVE {
                let error = (f64::from(*n) * f64::from(scale) - f64::from(x)).abs();
                assert!(error <= 0.50001 * f64::from(scale), "{size} {error}");
            }
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let cache = Quantised::new(&Array4::from_elem((1, 1, 1, 3), bad), &Array4::zeros((1, 1, 1, 3)), 1);
        let (numbers, scale) = cache.row(0, 0, 0, 0);
        assert!(scale.is_nan() && numbers.iter().all(|&n| n == 0.0));
    }
}
