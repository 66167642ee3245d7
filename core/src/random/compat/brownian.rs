//! torchsde's Brownian tree on the CPU, the noise of k-diffusion's SDE samplers.

use ndarray::ArrayViewMut2;

use super::seed_sequence::SeedSequence;
use super::torch_cpu::TorchCpu;
use crate::error::{Error, Result, zeros};

/// Words of the pool from which torchsde seeds the nodes of a tree.
const POOL: usize = 24;

/// Times up to here are told apart at the tree's resolution of 1e-6 in f64.
const LATEST: f64 = 1e6;

/// A path between two times, halved again and again down to 1e-6.
///
/// `torchsde.BrownianTree(t0, w0, t1, entropy=seed)` for an f32 tensor `w0` on the CPU (pool of 24 words,
/// tolerance 1e-6): a value, which every query reads and none changes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BrownianTree {
    start: f64,
    end: f64,
    /// `end - start` before rounding.
    length: f64,
}

/// A node: what torchsde calls its spawn key, and its depth.
#[derive(Clone, Copy)]
struct Node {
    start: f64,
    end: f64,
    key: u64,
    depth: u64,
}

/// To six decimals, ties to even, as Python's `round(x, 6)`.
fn round6(x: f64) -> f64 {
    // The decimal of an f64 that is exact enough always reads back.
    format!("{x:.6}").parse().unwrap_or(x)
}

fn seeds<const N: usize>(entropy: u64, spawn_key: &[u64]) -> [u32; N] {
    SeedSequence::new(entropy, spawn_key, POOL).words()
}

fn check_time(arg: &'static str, t: f64) -> Result<()> {
    if t.is_finite() && t.abs() <= LATEST {
        return Ok(());
    }
    Err(Error::range(arg, t, "a time between -1e6 and 1e6"))
}

impl BrownianTree {
    /// A tree between `t0` and `t1`, which may stand in either order, as in k-diffusion.
    ///
    /// # Errors
    /// [`Error::Range`] for times beyond 1e6 or not finite, and where both are the same.
    pub fn new(t0: f64, t1: f64) -> Result<Self> {
        check_time("t0", t0)?;
        check_time("t1", t1)?;
        let (low, high) = if t0 < t1 { (t0, t1) } else { (t1, t0) };
        let (start, end) = (round6(low), round6(high));
        if start >= end {
            return Err(Error::range(
                "t1",
                t1,
                format!("a time that differs from t0 = {t0} by 1e-6 or more"),
            ));
        }
        Ok(BrownianTree { start, end, length: high - low })
    }

    /// The increment `W(tb) - W(ta)` of each row's path, `out` being `[rows, elements]` and contiguous.
    ///
    /// Row `r` is `BrownianTree(t0, zeros(shape), t1, entropy=seeds[r])(ta, tb)` for a shape of as many
    /// elements: k-diffusion's `BatchedBrownianTree` with a list of seeds. With a single seed for a batch,
    /// the whole batch is one row. Times outside the tree are moved to its ends, as torchsde does;
    /// `ta > tb` gives the increment times -1. Work and memory: about
    /// `2 log2((t1 - t0) / 1e-6)` draws of a row.
    ///
    /// # Errors
    /// [`Error::Shape`] where seeds and rows differ; [`Error::Range`] for times beyond 1e6 or not finite;
    /// [`Error::Stride`] where rows are not contiguous; [`Error::Overflow`] where memory lacks.
    pub fn increment(&self, seeds: &[u64], ta: f64, tb: f64, out: ArrayViewMut2<f32>) -> Result<()> {
        self.fill(seeds, ta, tb, out, 1.0)
    }

    /// The noise that k-diffusion's `BrownianTreeNoiseSampler` returns between two noise levels: the increment
    /// over the square root of the distance, which is taken in f32.
    ///
    /// # Errors
    /// As [`increment`](BrownianTree::increment), and [`Error::Range`] where `ta` and `tb` are the same in f32.
    pub fn noise(&self, seeds: &[u64], ta: f64, tb: f64, out: ArrayViewMut2<f32>) -> Result<()> {
        check_time("ta", ta)?;
        check_time("tb", tb)?;
        let scale = (tb as f32 - ta as f32).abs().sqrt();
        if scale == 0.0 {
            return Err(Error::range("tb", tb, format!("another time than ta = {ta}")));
        }
        self.fill(seeds, ta, tb, out, scale)
    }

    fn fill(&self, seeds: &[u64], ta: f64, tb: f64, mut out: ArrayViewMut2<f32>, scale: f32) -> Result<()> {
        let (rows, elements) = out.dim();
        crate::random::check_seeds(seeds, rows)?;
        check_time("ta", ta)?;
        check_time("tb", tb)?;
        if elements > 1 && out.strides()[1] != 1 {
            let (arg, got) = ("out", format!("{:?}", out.strides()));
            return Err(Error::Stride { arg, got, expected: "contiguous rows".into() });
        }
        let inside = |t: f64| round6(t.max(self.start).min(self.end));
        let (from, to) = (inside(ta.min(tb)), inside(ta.max(tb)));
        let sign = if ta > tb { -1.0 } else { 1.0 };
        for (mut row, &entropy) in out.outer_iter_mut().zip(seeds) {
            let row = row.as_slice_mut().expect("rows are contiguous");
            row.fill(0.0);
            if from < to && elements > 0 {
                Walk { entropy, noise: zeros("out", elements)?, out: row, parts: 0 }.start(self, from, to)?;
            }
            row.iter_mut().for_each(|w| *w = *w * sign / scale);
        }
        Ok(())
    }
}

/// The sum of the increments of the nodes that make up an interval, from left to right.
struct Walk<'a> {
    entropy: u64,
    noise: Vec<f32>,
    out: &'a mut [f32],
    /// Nodes that `out` sums.
    parts: usize,
}

impl Walk<'_> {
    fn start(mut self, tree: &BrownianTree, from: f64, to: f64) -> Result<()> {
        let [seed, ..] = seeds::<3>(self.entropy, &[]);
        let mut w = zeros("out", self.out.len())?;
        TorchCpu::new(u64::from(seed)).normal(&mut w);
        let scale = tree.length.sqrt() as f32;
        w.iter_mut().for_each(|w| *w *= scale);
        self.visit(Node { start: tree.start, end: tree.end, key: 0, depth: 0 }, w, from, to)
    }

    /// `w` is the increment over the node, in which the interval lies.
    fn visit(&mut self, node: Node, mut w: Vec<f32>, from: f64, to: f64) -> Result<()> {
        if from == node.start && to == node.end {
            match self.parts {
                0 => self.out.copy_from_slice(&w),
                _ => self.out.iter_mut().zip(&w).for_each(|(o, w)| *o += w),
            }
            self.parts += 1;
            return Ok(());
        }
        if node.depth > 60 {
            return Err(Error::Internal(format!("no node of the tree ends at {from} or {to}")));
        }
        let middle = round6(0.5 * (node.end + node.start));
        let left = Node { end: middle, key: 2 * node.key, depth: node.depth + 1, ..node };
        let right = Node { start: middle, key: 2 * node.key + 1, depth: node.depth + 1, ..node };
        let [seed, ..] = seeds::<4>(self.entropy, &[node.key, node.depth]);
        TorchCpu::new(u64::from(seed)).normal(&mut self.noise);
        let reciprocal = 1.0 / (node.end - node.start);
        let (a, b) = (middle - node.start, node.end - middle);
        let spread = (a * b * reciprocal).sqrt() as f32;
        let (a, reciprocal) = (a as f32, reciprocal as f32);
        let left_of = |w: f32, n: f32| a * w * reciprocal + spread * n;
        if to <= middle {
            w.iter_mut().zip(&self.noise).for_each(|(w, n)| *w = left_of(*w, *n));
            return self.visit(left, w, from, to);
        }
        if from >= middle {
            w.iter_mut().zip(&self.noise).for_each(|(w, n)| *w -= left_of(*w, *n));
            return self.visit(right, w, from, to);
        }
        let mut first = zeros("out", w.len())?;
        for ((w, n), first) in w.iter_mut().zip(&self.noise).zip(&mut first) {
            *first = left_of(*w, *n);
            *w -= *first;
        }
        self.visit(left, first, from, middle)?;
        self.visit(right, w, middle, to)
    }
}
