//! The decode schedule gives the bits of the prefill kernel, whatever the call.

use ndarray::{Array3, Array4, ArrayView4, s};

use super::super::cut;
use super::super::tests::{bits, serial, tensor};
use super::*;
use crate::arch::{available_levels, level, set_level};
use crate::linalg::tests::noise;
use crate::tensor::{bf16, f16};

/// Output and lse of one schedule.
type Outcome = (Vec<u32>, Vec<u32>);

fn outcome<'a>(
    [q, k, v]: [Floats<'a, Ix4>; 3],
    options: &AttentionOptions,
    decoded: bool,
    out: &'a mut Array4<f32>,
    lse: &'a mut Array3<f32>,
) {
    let (factor, cap) = options.factors(q.shape()[3]);
    if decoded {
        contiguous([q, k, v], (factor, cap), options, out.view_mut().into(), Some(lse.view_mut()));
    } else {
        let problem = tiles::Problem { q, k, v, factor, cap, options };
        tiles::run(vec![(problem, out.view_mut().into(), Some(lse.view_mut()))]);
    }
}

fn borrow<'s>(x: &'s Floats<Ix4>) -> Floats<'s, Ix4> {
    each!(Floats, x, x => x.view().into())
}

fn run_as(x: &[Floats<Ix4>; 3], options: &AttentionOptions, decoded: bool) -> Outcome {
    let [q, _, v] = x;
    let (b, h, l, dv) = (q.shape()[0], q.shape()[1], q.shape()[2], v.shape()[3]);
    let (mut out, mut lse) = (Array4::from_elem((b, h, l, dv), 77.0), Array3::from_elem((b, h, l), 77.0));
    outcome(x.each_ref().map(borrow), options, decoded, &mut out, &mut lse);
    (bits(&out), bits(&lse))
}

fn same(x: [Floats<Ix4>; 3], options: &AttentionOptions, what: impl std::fmt::Debug) {
    let (want, got) = (run_as(&x, options, false), run_as(&x, options, true));
    assert!(got.0 == want.0, "{what:?}: out");
    assert!(got.1 == want.1, "{what:?}: lse");
}

/// Every option set there is, by number.
struct Options {
    slopes: Vec<f32>,
    sinks: Vec<f32>,
    bias: Array4<f32>,
    mask: Array4<u8>,
    lengths: Vec<usize>,
}

impl Options {
    fn new(seed: u64, [batch, heads, queries, keys]: [usize; 4]) -> Self {
        let pick = |seed: u64, n: usize, below: usize| -> Vec<usize> {
            noise(seed, n).iter().map(|x| ((x + 1.0) / 2.0 * below as f32) as usize).collect()
        };
        let mut bias = Array4::from_shape_vec(
            (batch, heads, queries, keys),
            noise(seed, batch * heads * queries * keys),
        )
        .unwrap();
        let mut mask = bias.mapv(|x| u8::from(x > -0.2));
        bias.mapv_inplace(|x| if x > 0.8 { f32::NEG_INFINITY } else { x });
        // A tile that the mask hides, and a batch entry that sees nothing.
        mask.slice_mut(s![.., .., .., keys.min(128)..keys.min(256)]).fill(0);
        mask.slice_mut(s![batch - 1, heads - 1, .., ..]).fill(0);
        Options {
            slopes: noise(seed + 1, heads),
            sinks: noise(seed + 2, heads)
                .iter()
                .map(|&x| if x > 0.5 { f32::NEG_INFINITY } else { 3.0 * x })
                .collect(),
            bias,
            mask,
            lengths: pick(seed + 3, batch, keys + 1).iter().map(|n| *n.min(&keys)).collect(),
        }
    }

    /// Bit `n` of `set` chooses option `n`.
    fn chosen(&self, set: usize) -> AttentionOptions<'_> {
        let on = |n: usize| set >> n & 1 == 1;
        AttentionOptions {
            scale: on(0).then_some(0.3),
            causal: on(1),
            window_left: on(2).then_some(70),
            window_right: on(3).then_some(1),
            kv_lengths: on(4).then_some(&self.lengths),
            soft_cap: on(5).then_some(2.0),
            alibi_slopes: on(6).then_some(&self.slopes),
            sinks: on(7).then_some(&self.sinks),
            bias: on(8).then_some(self.bias.view()),
            mask: on(9).then_some(self.mask.view()),
        }
    }
}

#[test]
fn same_bits_as_prefill_for_every_shape() {
    for (heads, kv_heads) in [(1, 1), (4, 1), (8, 2), (3, 3), (6, 2), (16, 1)] {
        for queries in [1, 2, 3, 5, 16] {
            for (keys, dim, value_dim) in
                [(1, 1, 1), (17, 64, 3), (128, 40, 64), (300, 128, 128), (1030, 72, 80), (600, 65, 33)]
            {
                if queries * heads / kv_heads > cut::MAX_ROWS {
                    continue;
                }
                let q = tensor(1, [2, heads, queries, dim]);
                let (k, v) = (tensor(2, [2, kv_heads, keys, dim]), tensor(3, [2, kv_heads, keys, value_dim]));
                for causal in [false, true] {
                    let o = AttentionOptions { causal, ..Default::default() };
                    same(
                        [q.view().into(), k.view().into(), v.view().into()],
                        &o,
                        (heads, kv_heads, queries, keys, dim, value_dim, causal),
                    );
                }
            }
        }
    }
}

#[test]
fn same_bits_as_prefill_with_every_set_of_options() {
    for (n, set) in (0..1 << 10).enumerate() {
        let shape = [(2, 4, 2, 1, 270), (3, 2, 1, 3, 140), (1, 6, 2, 5, 700)][n % 3];
        let (batch, heads, kv_heads, queries, keys) = shape;
        let (dim, value_dim) = [(16, 16), (9, 20), (33, 7)][n / 3 % 3];
        let q = tensor(n as u64, [batch, heads, queries, dim]);
        let k = tensor(n as u64 + 1, [batch, kv_heads, keys, dim]);
        let v = tensor(n as u64 + 2, [batch, kv_heads, keys, value_dim]);
        let options = Options::new(n as u64 + 3, [batch, heads, queries, keys]);
        same([q.view().into(), k.view().into(), v.view().into()], &options.chosen(set), (set, shape));
    }
}

#[test]
fn same_bits_as_prefill_with_broadcast_bias_and_mask() {
    let (q, k, v) = (tensor(1, [2, 4, 3, 24]), tensor(2, [2, 2, 400, 24]), tensor(3, [2, 2, 400, 24]));
    let x = [q.view().into(), k.view().into(), v.view().into()];
    for shape in [[1, 1, 1, 400], [2, 1, 3, 1], [1, 4, 1, 400], [1, 1, 1, 1]] {
        let o = Options::new(5, shape);
        let both =
            AttentionOptions { bias: Some(o.bias.view()), mask: Some(o.mask.view()), ..Default::default() };
        same(x.clone(), &both, shape);
        // The keys outermost.
        let far = o.bias.view().permuted_axes([3, 0, 1, 2]).as_standard_layout().into_owned();
        let far =
            AttentionOptions { bias: Some(far.view().permuted_axes([1, 2, 3, 0])), ..Default::default() };
        same(x.clone(), &far, shape);
    }
}

#[test]
fn hidden_numbers_never_leak() {
    let o = Options::new(9, [2, 4, 3, 300]);
    let q = tensor(1, [2, 4, 3, 20]);
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let (mut k, mut v) = (tensor(2, [2, 2, 300, 20]), tensor(3, [2, 2, 300, 20]));
        for j in [0, 120, 200, 298, 299] {
            k.slice_mut(s![.., .., j, ..]).fill(poison);
            v.slice_mut(s![.., .., j, 3..]).fill(poison);
        }
        for set in 0..1 << 10 {
            if set % 7 == 0 || set & 0x31e == set {
                same([q.view().into(), k.view().into(), v.view().into()], &o.chosen(set), (poison, set));
            }
        }
    }
    // Seen infinities stay what they are; a query of NaN makes its row NaN.
    let (mut q, k, mut v) = (q, tensor(2, [2, 2, 300, 20]), tensor(3, [2, 2, 300, 20]));
    v[[0, 0, 5, 3]] = f32::INFINITY;
    q[[1, 2, 1, 0]] = f32::NAN;
    let x = [q.view().into(), k.view().into(), v.view().into()];
    same(x.clone(), &AttentionOptions::default(), "seen");
    same(x, &AttentionOptions { causal: true, ..Default::default() }, "seen");
}

#[test]
fn same_bits_for_any_storage_level_thread_count_and_stride() {
    let _guard = serial();
    let first = level();
    let (q, k, v) = (tensor(1, [2, 4, 2, 72]), tensor(2, [2, 2, 1300, 72]), tensor(3, [2, 2, 1300, 40]));
    let o =
        AttentionOptions { causal: true, window_left: Some(1100), soft_cap: Some(3.0), ..Default::default() };
    // [B, L, H, D] memory.
    let swap = |x: ArrayView4<f32>| x.permuted_axes([0, 2, 1, 3]).as_standard_layout().into_owned();
    for l in available_levels() {
        set_level(l).unwrap();
        for t in [1, 2, 3, 40] {
            threads::set_num_threads(t).unwrap();
            let (k2, v2) = (swap(k.view()), swap(v.view()));
            let far = [k2.view().permuted_axes([0, 2, 1, 3]), v2.view().permuted_axes([0, 2, 1, 3])];
            same([q.view().into(), far[0].into(), far[1].into()], &o, (l, t));
            let (k2, v2) = (k.mapv(f16::from_f32), v.mapv(f16::from_f32));
            same([q.view().into(), k2.view().into(), v2.view().into()], &o, (l, t, "f16"));
            let (k2, v2) = (k.mapv(bf16::from_f32), v.mapv(bf16::from_f32));
            same([q.view().into(), k2.view().into(), v2.view().into()], &o, (l, t, "bf16"));
        }
    }
    set_level(first).unwrap();
}
