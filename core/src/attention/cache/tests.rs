//! Caches against attention over contiguous arrays, the definition, and exact arithmetic.

use ndarray::{Array2, Array3, Array4, ArrayView4, Axis, s};

use super::super::tests::{bits, run, tensor};
use super::super::{AttentionOptions, attention, attention_merge};
use super::*;
use crate::linalg::tests::noise;
use crate::nn::{Rope, rope, rope_tables};
use crate::tensor::{bf16, f16};

/// A cache that owns its memory: `B` sequences cut into pages in a scrambled order, the pages that
/// nobody uses and the rows behind the last token full of `poison`.
struct Paged<T> {
    k: Array4<T>,
    v: Array4<T>,
    table: Array2<i32>,
    lengths: Vec<usize>,
}

impl<T: Copy> Paged<T> {
    /// `k` and `v` are `[B, Hkv, Lk, D]`. `tokens_first`: pages are `[P, T, Hkv, D]` in memory.
    fn new(
        k: &Array4<T>,
        v: &Array4<T>,
        lengths: &[usize],
        page_len: usize,
        tokens_first: bool,
        poison: T,
    ) -> Self {
        let (batch, heads, keys, dim) = k.dim();
        let most = keys.div_ceil(page_len);
        let pages = batch * most + 3;
        let empty = |dim: usize| match tokens_first {
            false => Array4::from_elem((pages, heads, page_len, dim), poison),
            true => Array4::from_elem((pages, page_len, heads, dim), poison).permuted_axes([0, 2, 1, 3]),
        };
        let (mut own_k, mut own_v) = (empty(dim), empty(v.dim().3));
        let mut table = Array2::from_elem((batch, most), -1);
        for b in 0..batch {
            for n in 0..lengths[b].div_ceil(page_len) {
                // 7 is coprime with none of the page counts used here but divides none either.
                let page = (0..pages).map(|i| (7 * (b * most + n) + 3 + i) % pages);
                let page = page.into_iter().find(|&p| table.iter().all(|&t| t != p as i32)).unwrap();
                table[[b, n]] = page as i32;
                let tokens = n * page_len..lengths[b].min((n + 1) * page_len);
                let rows = ..tokens.len();
                own_k.slice_mut(s![page, .., rows, ..]).assign(&k.slice(s![b, .., tokens.clone(), ..]));
                own_v.slice_mut(s![page, .., rows, ..]).assign(&v.slice(s![b, .., tokens, ..]));
            }
        }
        Paged { k: own_k, v: own_v, table, lengths: lengths.to_vec() }
    }

    fn cache(&self) -> KvCache<'_>
    where
        for<'a> Pages<'a>: From<ArrayView4<'a, T>>,
    {
        KvCache {
            k: self.k.view().into(),
            v: self.v.view().into(),
            k_scale: None,
            v_scale: None,
            block_table: Some(self.table.view()),
            lengths: &self.lengths,
        }
    }
}

pub(super) fn run_paged(
    q: ArrayView4<f32>,
    cache: &KvCache,
    o: &AttentionOptions,
) -> (Array4<f32>, Array3<f32>) {
    let (b, h, l, _) = q.dim();
    let mut out = Array4::from_elem((b, h, l, cache.v.shape()[3]), 77.0);
    let mut lse = Array3::from_elem((b, h, l), 77.0);
    attention_paged(q, cache, o, out.view_mut(), Some(lse.view_mut())).unwrap();
    (out, lse)
}

/// Options of every kind, some at a time.
pub(super) fn with_options(set: usize, heads: usize, keys: usize, check: impl Fn(&AttentionOptions)) {
    let on = |n: usize| set >> n & 1 == 1;
    let (slopes, sinks) = (noise(4, heads), noise(5, heads));
    let bias = Array4::from_shape_vec((1, heads, 1, keys), noise(6, heads * keys)).unwrap();
    let mask = bias.mapv(|x| u8::from(x > -0.5));
    check(&AttentionOptions {
        causal: on(0),
        window_left: on(1).then_some(90),
        soft_cap: on(2).then_some(2.5),
        alibi_slopes: on(3).then_some(&slopes),
        sinks: on(4).then_some(&sinks),
        bias: on(5).then_some(bias.view()),
        mask: on(6).then_some(mask.view()),
        ..Default::default()
    });
}

macro_rules! check_paged {
    ($t:ty, $from:expr, $poison:expr) => {{
        for (n, page_len) in [1, 3, 16, 64, 128, 300].into_iter().enumerate() {
            let (queries, keys) = ([1, 2, 16][n % 3], 1100);
            let lengths = [keys, 517, 0];
            let q = tensor(1, [3, 4, queries, 40]);
            let k = tensor(2, [3, 2, keys, 40]).mapv($from);
            let v = tensor(3, [3, 2, keys, 24]).mapv($from);
            for tokens_first in [false, true] {
                let paged = Paged::<$t>::new(&k, &v, &lengths, page_len, tokens_first, $poison);
                let capacity = keys.div_ceil(page_len) * page_len;
                for set in [0, 1, 2, 28, 127, 96, 5] {
                    with_options(set, 4, capacity, |o| {
                        let cut = |x: &ArrayView4<f32>| x.slice(s![.., .., .., ..keys]).to_owned();
                        let bias = o.bias.as_ref().map(cut);
                        let mask = o.mask.as_ref().map(|x| x.slice(s![.., .., .., ..keys]).to_owned());
                        let contiguous = AttentionOptions {
                            kv_lengths: Some(&lengths),
                            bias: bias.as_ref().map(|x| x.view()),
                            mask: mask.as_ref().map(|x| x.view()),
                            ..*o
                        };
                        let mut want = Array4::from_elem((3, 4, queries, 24), 7.0);
                        let mut want_lse = Array3::from_elem((3, 4, queries), 7.0);
                        attention(
                            q.view(),
                            k.view(),
                            v.view(),
                            &contiguous,
                            want.view_mut(),
                            Some(want_lse.view_mut()),
                        )
                        .unwrap();
                        let (out, lse) = run_paged(q.view(), &paged.cache(), o);
                        assert!(bits(&out) == bits(&want), "page {page_len}, options {set}");
                        assert!(bits(&lse) == bits(&want_lse), "page {page_len}, options {set}");
                    });
                }
            }
        }
    }};
}

#[test]
fn pages_of_any_size_and_layout_give_the_bits_of_a_contiguous_cache() {
    check_paged!(f32, |x| x, f32::NAN);
    check_paged!(f16, f16::from_f32, f16::NAN);
    check_paged!(bf16, bf16::from_f32, bf16::NAN);
}

/// An int8 cache of pages.
pub(super) struct Quantised {
    pub k: Array4<i8>,
    pub v: Array4<i8>,
    pub scales: [Array3<f32>; 2],
    pub table: Array2<i32>,
    pub lengths: Vec<usize>,
}

impl Quantised {
    pub(super) fn new(k: &Array4<f32>, v: &Array4<f32>, page_len: usize) -> Self {
        let (batch, heads, keys, dim) = k.dim();
        let most = keys.div_ceil(page_len);
        let mut x = Quantised {
            k: Array4::from_elem((batch * most, heads, page_len, dim), 99),
            v: Array4::from_elem((batch * most, heads, page_len, v.dim().3), 99),
            scales: [1, 2].map(|_| Array3::from_elem((batch * most, heads, page_len), f32::NAN)),
            table: Array2::from_shape_fn((batch, most), |(b, n)| (n * batch + b) as i32),
            lengths: vec![0; batch],
        };
        cache_append(k.view(), v.view(), None, None, &mut x.cache_mut()).unwrap();
        x
    }

    pub(super) fn cache(&self) -> KvCache<'_> {
        KvCache {
            k: self.k.view().into(),
            v: self.v.view().into(),
            k_scale: Some(self.scales[0].view()),
            v_scale: Some(self.scales[1].view()),
            block_table: Some(self.table.view()),
            lengths: &self.lengths,
        }
    }

    fn cache_mut(&mut self) -> KvCacheMut<'_> {
        let [k_scale, v_scale] = &mut self.scales;
        KvCacheMut {
            k: self.k.view_mut().into(),
            v: self.v.view_mut().into(),
            k_scale: Some(k_scale.view_mut()),
            v_scale: Some(v_scale.view_mut()),
            block_table: Some(self.table.view()),
            lengths: &mut self.lengths,
        }
    }

    /// Numbers and scale of key (0) or value (1) `j`.
    pub(super) fn row(&self, which: usize, b: usize, h: usize, j: usize) -> (Vec<f32>, f32) {
        let page_len = self.k.dim().2;
        let (page, row) = (self.table[[b, j / page_len]] as usize, j % page_len);
        let x = [&self.k, &self.v][which].slice(s![page, h, row, ..]);
        (x.iter().map(|&x| f32::from(x)).collect(), self.scales[which][[page, h, row]])
    }
}

/// A prompt whole, in chunks and token by token, appended to caches of every kind.
#[test]
fn prefill_chunks_and_decode_over_growing_caches_give_the_same_bits() {
    const TOKENS: usize = 530;
    let (mut cos, mut sin) = (Array2::zeros((TOKENS, 8)), Array2::zeros((TOKENS, 8)));
    rope_tables(0, 10_000.0, cos.view_mut(), sin.view_mut()).unwrap();
    let tables = Rope { cos: cos.view(), sin: sin.view(), interleaved: false };
    let (q, k, v) =
        (tensor(1, [2, 4, TOKENS, 24]), tensor(2, [2, 2, TOKENS, 24]), tensor(3, [2, 2, TOKENS, 16]));
    let causal = AttentionOptions { causal: true, ..Default::default() };
    let turned = |x: &Array4<f32>| {
        let mut out = Array4::zeros(x.dim());
        rope(x.view(), &[0, 0], &tables, out.view_mut()).unwrap();
        out
    };
    let (want, want_lse) = run(turned(&q).view(), turned(&k).view(), v.view(), &causal);
    for (page_len, steps) in [
        (64, vec![TOKENS]),
        (16, vec![500, 16, 14]),
        (7, vec![300, 100, 128, 1, 1]),
        (TOKENS, vec![515, 1, 3, 11]),
    ] {
        let most = TOKENS.div_ceil(page_len);
        let mut keys = Array4::from_elem((2 * most, 2, page_len, 24), f32::NAN);
        let mut values = Array4::from_elem((2 * most, 2, page_len, 16), f32::NAN);
        let table = Array2::from_shape_fn((2, most), |(b, n)| (2 * (most - 1 - n) + b) as i32);
        let contiguous = page_len == TOKENS;
        let mut lengths = vec![0, 0];
        for n in steps {
            let from = lengths[0];
            let new = s![.., .., from..from + n, ..];
            let mut cache = KvCacheMut {
                k: keys.view_mut().into(),
                v: values.view_mut().into(),
                k_scale: None,
                v_scale: None,
                block_table: (!contiguous).then_some(table.view()),
                lengths: &mut lengths,
            };
            cache_append(k.slice(new), v.slice(new), None, Some(&tables), &mut cache).unwrap();
            let mut new_q = Array4::zeros((2, 4, n, 24));
            rope(q.slice(new), &[from, from], &tables, new_q.view_mut()).unwrap();
            let cache = KvCache {
                k: keys.view().into(),
                v: values.view().into(),
                k_scale: None,
                v_scale: None,
                block_table: (!contiguous).then_some(table.view()),
                lengths: &lengths,
            };
            let (out, lse) = run_paged(new_q.view(), &cache, &causal);
            assert_eq!(bits(&out), bits(want.slice(new)), "page {page_len}, {from} + {n}");
            assert_eq!(bits(&lse), bits(want_lse.slice(s![.., .., from..from + n])));
        }
    }
}

#[test]
fn forks_copy_one_page_and_only_it() {
    let (k, v) = (tensor(1, [2, 2, 32, 8]), tensor(2, [2, 2, 32, 8]));
    let mut cache = Quantised::new(&k, &v, 8);
    let before = Quantised {
        k: cache.k.clone(),
        v: cache.v.clone(),
        scales: cache.scales.clone(),
        table: cache.table.clone(),
        lengths: cache.lengths.clone(),
    };
    cache_fork(&mut cache.cache_mut(), 6, 1).unwrap();
    for page in 0..8 {
        let from = if page == 1 { 6 } else { page };
        assert_eq!(cache.k.index_axis(Axis(0), page), before.k.index_axis(Axis(0), from));
        assert_eq!(cache.v.index_axis(Axis(0), page), before.v.index_axis(Axis(0), from));
        for n in 0..2 {
            assert_eq!(cache.scales[n].index_axis(Axis(0), page), before.scales[n].index_axis(Axis(0), from));
        }
    }
    // A shared page is refused until it is forked; then both branches go their own way.
    cache.table.row_mut(1).assign(&ndarray::arr1(&[0, 2, 4, 6]));
    cache.table.row_mut(0).assign(&ndarray::arr1(&[0, 2, 4, 6]));
    cache_truncate(&mut cache.lengths, &[30, 30]).unwrap();
    let new = tensor(3, [2, 2, 1, 8]);
    let e = cache_append(new.view(), new.view(), None, None, &mut cache.cache_mut()).unwrap_err();
    assert_eq!(e.code(), -101);
    assert!(
        e.to_string().starts_with("block_table is page 6 to be written for batch entries 0 and 1"),
        "{e}"
    );
    assert_eq!(cache.lengths, [30, 30]);
    cache_append(new.view(), new.view(), Some(&[0, 1]), None, &mut cache.cache_mut()).unwrap();
    assert_eq!(cache.lengths, [30, 31]);
    cache_fork(&mut cache.cache_mut(), 6, 7).unwrap();
    cache.table[[0, 3]] = 7;
    cache_append(new.view(), new.view(), None, None, &mut cache.cache_mut()).unwrap();
    assert_eq!(cache.lengths, [31, 32]);
}

#[test]
fn merged_results_are_those_of_all_keys() {
    let (q, k, v) = (tensor(1, [2, 2, 3, 16]), tensor(2, [2, 2, 90, 16]), tensor(3, [2, 2, 90, 16]));
    let plain = AttentionOptions::default();
    let part = |keys: std::ops::Range<usize>| {
        run(q.view(), k.slice(s![.., .., keys.clone(), ..]), v.slice(s![.., .., keys, ..]), &plain)
    };
    let (want, want_lse) = part(0..90);
    for cut in [0, 1, 40, 90] {
        let ((a, la), (b, lb)) = (part(0..cut), part(cut..90));
        let (mut out, mut lse) = (Array4::<f32>::zeros(want.dim()), Array3::zeros(want_lse.dim()));
        attention_merge(a.view(), la.view(), b.view(), lb.view(), out.view_mut(), Some(lse.view_mut()))
            .unwrap();
        assert!(out.iter().zip(&want).all(|(x, y)| (x - y).abs() < 2e-6), "{cut}");
        assert!(lse.iter().zip(&want_lse).all(|(x, y)| (x - y).abs() < 2e-6), "{cut}");
        if cut % 90 == 0 {
            assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)));
        }
        let half = |x: &Array4<f32>| x.mapv(f16::from_f32);
        let mut narrow = half(&out);
        attention_merge(half(&a).view(), la.view(), b.view(), lb.view(), narrow.view_mut(), None).unwrap();
        assert!(narrow.iter().zip(&want).all(|(x, y)| (x.to_f32() - y).abs() < 4e-3));
    }
    // Nothing on both sides; poison on a side without keys.
    let (none, poison) =
        (Array3::from_elem((2, 2, 3), f32::NEG_INFINITY), Array4::from_elem(want.dim(), f32::NAN));
    let mut out = Array4::<f32>::ones(want.dim());
    let mut lse = Array3::zeros((2, 2, 3));
    attention_merge(
        poison.view(),
        none.view(),
        want.view(),
        want_lse.view(),
        out.view_mut(),
        Some(lse.view_mut()),
    )
    .unwrap();
    assert_eq!((bits(&out), bits(&lse)), (bits(&want), bits(&want_lse)));
    attention_merge(
        poison.view(),
        none.view(),
        poison.view(),
        none.view(),
        out.view_mut(),
        Some(lse.view_mut()),
    )
    .unwrap();
    assert!(out.iter().all(|x| x.to_bits() == 0) && lse == none);
    let bad = Array3::zeros((2, 2, 4));
    let e =
        attention_merge(want.view(), bad.view(), want.view(), bad.view(), out.view_mut(), None).unwrap_err();
    assert_eq!(e.to_string(), "lse1 has shape [2, 2, 4], expected [2, 2, 3]");
}

#[test]
fn wrong_caches_are_named_and_nothing_is_written() {
    let q = tensor(1, [2, 4, 1, 8]);
    let (k, v) = (tensor(2, [5, 2, 4, 8]), tensor(3, [5, 2, 4, 6]));
    let mut out = Array4::from_elem((2, 4, 1, 6), 5.0f32);
    let scale = Array3::zeros((5, 2, 4));
    let mut run = |table: &Array2<i32>, lengths: &[usize], v: &Array4<f32>, scaled: bool| {
        let cache = KvCache {
            k: k.view().into(),
            v: v.view().into(),
            k_scale: scaled.then_some(scale.view()),
            v_scale: None,
            block_table: Some(table.view()),
            lengths,
        };
        attention_paged(q.view(), &cache, &AttentionOptions::default(), out.view_mut(), None)
    };
    let table = ndarray::arr2(&[[0, 1, 2], [3, 4, -1]]);
    let wrong = ndarray::arr2(&[[0, 5, 2], [3, 4, -1]]);
    let single = table.slice(s![..1, ..]).to_owned();
    for (table, lengths, v, scaled, text) in [
        (&table, &[12, 9][..], &v, false, "block_table is -1 at [1, 2], expected pages of 5 that exist"),
        (&wrong, &[5, 8], &v, false, "block_table is 5 at [0, 1]"),
        (&table, &[13, 8], &v, false, "lengths is 13, expected 0 to 12"),
        (&table, &[12], &v, false, "lengths has shape [1], expected [2]"),
        (&single, &[12], &v, false, "q has shape [2, 4, 1, 8], expected [1, 4, 1, 8]"),
        (&table, &[1, 1], &q, false, "v has shape [2, 4, 1, 8]"),
        (&table, &[1, 1], &v, true, "k_scale is given"),
    ] {
        let e = run(table, lengths, v, scaled).unwrap_err().to_string();
        assert!(e.starts_with(text), "{e}");
    }
    assert!(out.iter().all(|&x| x == 5.0));
    // Entries behind the last token are not read.
    let mut run = |table: &Array2<i32>, lengths: &[usize]| {
        let (k, v) = (k.view().into(), v.view().into());
        let cache = KvCache { k, v, k_scale: None, v_scale: None, block_table: Some(table.view()), lengths };
        attention_paged(q.view(), &cache, &AttentionOptions::default(), out.view_mut(), None)
    };
    run(&table, &[12, 8]).unwrap();
    run(&wrong, &[4, 8]).unwrap();

    let ints = Array4::<i8>::zeros((5, 2, 4, 8));
    let mut cache = KvCache {
        k: ints.view().into(),
        v: ints.view().into(),
        k_scale: None,
        v_scale: Some(scale.view()),
        block_table: Some(table.view()),
        lengths: &[1, 1],
    };
    let mut out = Array4::from_elem((2, 4, 1, 8), 5.0f32);
    let o = AttentionOptions::default();
    let message = |c: &KvCache, o: &AttentionOptions, out: &mut Array4<f32>| {
        attention_paged(q.view(), c, o, out.view_mut(), None).unwrap_err().to_string()
    };
    assert!(message(&cache, &o, &mut out).starts_with("k_scale is absent"));
    let short = Array3::zeros((5, 2, 3));
    cache.k_scale = Some(short.view());
    assert!(message(&cache, &o, &mut out).starts_with("k_scale has shape [5, 2, 3], expected [5, 2, 4]"));
    cache.k_scale = Some(scale.view());
    let lengths = AttentionOptions { kv_lengths: Some(&[1, 1]), ..o };
    assert!(message(&cache, &lengths, &mut out).starts_with("kv_lengths is given"));
    cache.v = v.view().into();
    assert!(message(&cache, &o, &mut out).starts_with("v has dtype f32, expected i8"));
    let far = Array4::<i8>::zeros((8, 5, 2, 4));
    cache.v = far.view().permuted_axes([1, 2, 3, 0]).into();
    assert!(message(&cache, &o, &mut out).starts_with("v has strides"));
    cache.v = ints.view().into();
    attention_paged(q.view(), &cache, &o, out.view_mut(), None).unwrap();
    assert!(out.iter().all(|&x| x == 0.0));
}

#[test]
fn wrong_appends_are_named_and_nothing_is_written() {
    let mut cache = Quantised::new(&tensor(1, [2, 2, 6, 8]), &tensor(2, [2, 2, 6, 4]), 4);
    let before = (cache.k.clone(), cache.v.clone(), cache.lengths.clone());
    let (k, v) = (tensor(3, [2, 2, 2, 8]), tensor(4, [2, 2, 2, 4]));
    let (cos, sin) = (Array2::ones((7, 4)), Array2::zeros((7, 4)));
    let short = Rope { cos: cos.view(), sin: sin.view(), interleaved: true };
    let wide = Rope { cos: cos.view(), sin: cos.slice(s![.., ..3]), interleaved: true };
    let mut fails =
        |k: &Array4<f32>, v: &Array4<f32>, counts: Option<&[usize]>, rope: Option<&Rope>, text: &str| {
            let e = cache_append(k.view(), v.view(), counts, rope, &mut cache.cache_mut())
                .unwrap_err()
                .to_string();
            assert!(e.starts_with(text), "{e}");
        };
    fails(&v, &v, None, None, "k_new has shape [2, 2, 2, 4], expected [2, 2, 2, 8]");
    fails(&k, &k, None, None, "v_new has shape");
    fails(&k, &v, Some(&[1]), None, "counts has shape [1], expected [2]");
    fails(&k, &v, Some(&[1, 3]), None, "counts is 3, expected 0 to 2");
    let (many_k, many_v) = (tensor(3, [2, 2, 3, 8]), tensor(4, [2, 2, 3, 4]));
    fails(&many_k, &many_v, None, None, "lengths is 9, expected 0 to 8");
    fails(&k, &v, None, Some(&short), "cos has shape [7, 4], expected 8 positions or more");
    fails(&k, &v, None, Some(&wide), "sin has shape [7, 3], expected [7, 4]");
    assert_eq!((&cache.k, &cache.v, &cache.lengths), (&before.0, &before.1, &before.2));
    let e = cache_fork(&mut cache.cache_mut(), 0, 4).unwrap_err().to_string();
    assert!(e.starts_with("to is 4, expected a page below 4"), "{e}");
    let e = cache_fork(&mut cache.cache_mut(), 1, 1).unwrap_err().to_string();
    assert!(e.starts_with("to is 1"), "{e}");
    let e = cache_truncate(&mut cache.lengths, &[7, 0]).unwrap_err().to_string();
    assert!(e.starts_with("keep is 7, expected 0 to 6"), "{e}");
    cache.table[[1, 1]] = 9;
    let e = cache_append(k.view(), v.view(), None, None, &mut cache.cache_mut()).unwrap_err().to_string();
    assert!(e.starts_with("block_table is 9 at [1, 1]"), "{e}");
}
