//! Against an oracle in f64; bits.

mod refusals;

use ndarray::{Array2, ArrayView2, s};

use super::Rbm;
use crate::arch::{available_levels, level, set_level};
use crate::random::{normal, row_seeds, uniform};
use crate::sampling::replica_exchange;
use crate::threads::set_num_threads;

/// A machine and its numbers.
pub(super) struct Known {
    pub rbm: Rbm,
    pub w: Array2<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
}

/// Normal weights, of which `scale` is the deviation.
pub(super) fn machine(visible: usize, hidden: usize, scale: f32) -> Known {
    let mut all = Array2::zeros((3, visible * hidden));
    normal(&row_seeds(visible as u64, 3), 9, 0, all.view_mut()).unwrap();
    let all = all * scale;
    let w = all.row(0).to_owned().into_shape_with_order((visible, hidden)).unwrap();
    let (b, c) = (all.row(1).to_vec()[..visible].to_vec(), all.row(2).to_vec()[..hidden].to_vec());
    Known { rbm: Rbm::new(w.view(), &b, &c).unwrap(), w, b, c }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + libm::exp(-x))
}

impl Known {
    /// What the hidden units sum up.
    pub(super) fn sums(&self, v: &[f32]) -> Vec<f64> {
        let column = |j: usize| {
            let terms = v.iter().enumerate().map(|(i, x)| f64::from(*x) * f64::from(self.w[[i, j]]));
            f64::from(self.c[j]) + terms.sum::<f64>()
        };
        (0..self.c.len()).map(column).collect()
    }

    fn visible_part(&self, v: &[f32]) -> f64 {
        v.iter().zip(&self.b).map(|(x, b)| f64::from(*x) * f64::from(*b)).sum()
    }

    /// The logarithm of the sum over h of `exp(-beta E(v, h))`.
    pub(super) fn log_weight(&self, v: &[f32], beta: f64) -> f64 {
        let hidden = self.sums(v).into_iter().map(|x| libm::log1p(libm::exp(beta * x)));
        beta * self.visible_part(v) + hidden.sum::<f64>()
    }

    /// Mean of `v p(h | v)`, of v, of p.
    fn means(&self, v: ArrayView2<f32>) -> (Array2<f64>, Vec<f64>, Vec<f64>) {
        let mut all = (Array2::zeros(self.w.raw_dim()), vec![0.0; self.b.len()], vec![0.0; self.c.len()]);
        for v in v.rows() {
            let p: Vec<f64> = self.sums(&v.to_vec()).into_iter().map(logistic).collect();
            for (i, x) in v.iter().enumerate() {
                all.1[i] += f64::from(*x);
                for (j, p) in p.iter().enumerate() {
                    all.0[[i, j]] += f64::from(*x) * p;
                }
            }
            all.2.iter_mut().zip(&p).for_each(|(sum, p)| *sum += p);
        }
        let n = v.nrows() as f64;
        (all.0 / n, all.1.iter().map(|x| x / n).collect(), all.2.iter().map(|x| x / n).collect())
    }
}

pub(super) fn levels(seed: u64, rows: usize, width: usize) -> Array2<f32> {
    let mut x = Array2::zeros((rows, width));
    uniform(&row_seeds(seed, rows), 9, 0, x.view_mut()).unwrap();
    x
}

pub(super) fn on_or_off(seed: u64, rows: usize, width: usize) -> Array2<f32> {
    levels(seed, rows, width).mapv(|x| if x < 0.5 { 1.0 } else { 0.0 })
}

type Gradient = (Array2<f32>, Vec<f32>, Vec<f32>);

pub(super) fn gradient(rbm: &Rbm, data: ArrayView2<f32>, chain: ArrayView2<f32>) -> Gradient {
    let mut out = (
        Array2::from_elem((rbm.visible(), rbm.hidden()), 7.0),
        vec![7.0; rbm.visible()],
        vec![7.0; rbm.hidden()],
    );
    rbm.cd_gradient(data, chain, out.0.view_mut(), &mut out.1, &mut out.2).unwrap();
    out
}

#[test]
fn probabilities_and_energies_are_what_they_are_defined_as() {
    for (visible, hidden, scale) in [(1, 1, 1.0), (6, 4, 2.0), (37, 45, 0.4), (300, 70, 0.2)] {
        let known = machine(visible, hidden, scale);
        let (v, h) = (levels(1, 29, visible), levels(2, 29, hidden));
        let (mut up, mut down) = (Array2::zeros((29, hidden)), Array2::zeros((29, visible)));
        known.rbm.hidden_probabilities(v.view(), up.view_mut()).unwrap();
        known.rbm.visible_probabilities(h.view(), down.view_mut()).unwrap();
        let (mut free, mut energy) = ([0.0; 29], [0.0; 29]);
        known.rbm.free_energy(v.view(), &mut free).unwrap();
        known.rbm.energy(v.view(), h.view(), &mut energy).unwrap();
        for row in 0..29 {
            let (v, h) = (v.row(row).to_vec(), h.row(row).to_vec());
            let sums = known.sums(&v);
            for (p, x) in up.row(row).iter().zip(&sums) {
                assert!((f64::from(*p) - logistic(*x)).abs() < 1e-6, "{p} {x}");
            }
            for (i, p) in down.row(row).iter().enumerate() {
                let x = f64::from(known.b[i])
                    + h.iter().zip(known.w.row(i)).map(|(h, w)| f64::from(*h) * f64::from(*w)).sum::<f64>();
                assert!((f64::from(*p) - logistic(x)).abs() < 1e-6, "{p} {x}");
            }
            let want = -known.log_weight(&v, 1.0);
            assert!((free[row] - want).abs() < 1e-6 * (hidden as f64 + want.abs()), "{} {want}", free[row]);
            let want =
                -known.visible_part(&v) - sums.iter().zip(&h).map(|(x, h)| x * f64::from(*h)).sum::<f64>();
            assert!(
                (energy[row] - want).abs() < 1e-6 * (hidden as f64 + want.abs()),
                "{} {want}",
                energy[row]
            );
        }
    }
}

#[test]
fn the_gradient_is_the_difference_of_the_means() {
    for (visible, hidden, n, m) in [(1, 1, 1, 1), (6, 4, 40, 700), (53, 70, 700, 300), (25, 32, 256, 257)] {
        let known = machine(visible, hidden, 0.5);
        let (data, chain) = (levels(3, n, visible), on_or_off(4, m, visible));
        let (w, b, c) = gradient(&known.rbm, data.view(), chain.view());
        let (plus, minus) = (known.means(data.view()), known.means(chain.view()));
        let near = |got: f32, want: f64| assert!((f64::from(got) - want).abs() < 5e-7, "{got} not {want}");
        w.iter().zip(&plus.0 - &minus.0).for_each(|(got, want)| near(*got, want));
        b.iter().enumerate().for_each(|(i, got)| near(*got, plus.1[i] - minus.1[i]));
        c.iter().enumerate().for_each(|(j, got)| near(*got, plus.2[j] - minus.2[j]));
        // Chains that are the data leave nothing to learn.
        let (w, b, c) = gradient(&known.rbm, data.view(), data.view());
        assert!(w.iter().chain(&b).chain(&c).all(|x| *x == 0.0));
    }
}

#[test]
fn far_beyond_the_bend_units_are_certain() {
    let rbm = Rbm::new(ndarray::array![[1e30f32, -1e30]].view(), &[0.0], &[0.0, 0.0]).unwrap();
    let v = Array2::ones((3, 1));
    let mut p = Array2::zeros((3, 2));
    rbm.hidden_probabilities(v.view(), p.view_mut()).unwrap();
    assert_eq!(p.row(0).to_vec(), [1.0, 0.0]);
    let mut free = [0.0; 3];
    rbm.free_energy(v.view(), &mut free).unwrap();
    assert_eq!(free[0], -f64::from(1e30f32));
    let mut chains = Array2::ones((3, 1));
    let mut h = p.clone();
    rbm.gibbs(chains.view_mut(), &[1, 2, 3], 0, 1, &[1e20], Some(h.view_mut())).unwrap();
    assert_eq!((h, chains), (p, v));
}

/// A step by the definition, in the numbers of the streams.
#[test]
fn a_step_draws_a_layer_after_the_other() {
    for (visible, hidden, step) in [(6, 4, 0), (40, 33, 5), (1500, 20, (1u32 << 31) - 1)] {
        let known = machine(visible, hidden, 0.3);
        let (seeds, mut v) = (row_seeds(8, 21), on_or_off(5, 21, visible));
        let start = v.clone();
        let mut h = Array2::zeros((21, hidden));
        known.rbm.gibbs(v.view_mut(), &seeds, step, 1, &[], Some(h.view_mut())).unwrap();
        let draw = |p: &Array2<f32>, draw: u32| {
            let mut u = Array2::zeros(p.raw_dim());
            uniform(&seeds, 1, draw, u.view_mut()).unwrap();
            ndarray::Zip::from(&u).and(p).map_collect(|u, p| if u < p { 1.0f32 } else { 0.0 })
        };
        let (mut p, mut q) = (h.clone(), v.clone());
        known.rbm.hidden_probabilities(start.view(), p.view_mut()).unwrap();
        assert_eq!(h, draw(&p, 2 * step));
        known.rbm.visible_probabilities(h.view(), q.view_mut()).unwrap();
        assert_eq!(v, draw(&q, 2 * step + 1));
    }
}

#[test]
fn chains_do_not_depend_on_their_neighbours() {
    let betas = [1.0, 0.6, 0.0];
    for (visible, hidden) in [(6, 4), (50, 37)] {
        let known = machine(visible, hidden, 0.7);
        let (seeds, start) = (row_seeds(9, 402), on_or_off(6, 402, visible));
        let walk = |pieces: &[(u32, u32)]| {
            let mut v = start.clone();
            for (first, steps) in pieces {
                known.rbm.gibbs(v.view_mut(), &seeds, *first, *steps, &betas, None).unwrap();
            }
            v
        };
        let whole = walk(&[(2, 7)]);
        assert_eq!(whole, walk(&[(2, 3), (5, 4)]));
        assert_eq!(whole, walk(&[(2, 7), (9, 0)]));
        assert_ne!(whole, walk(&[(3, 7)]));
        for threads in [1, 2, 5] {
            set_num_threads(threads).unwrap();
            assert_eq!(whole, walk(&[(2, 7)]), "{threads} threads");
        }
        set_num_threads(2).unwrap();
        for row in (0..402).step_by(29) {
            let mut alone = start.slice(s![row..=row, ..]).to_owned();
            let seeds = &seeds[row..=row];
            known.rbm.gibbs(alone.view_mut(), seeds, 2, 7, &betas[row % 3..=row % 3], None).unwrap();
            assert_eq!(alone.row(0), whole.row(row), "row {row}");
        }
    }
}

#[test]
fn every_level_and_number_of_threads_gives_the_same_bits() {
    let known = machine(45, 37, 0.6);
    let (data, start, seeds) = (levels(7, 601, 45), on_or_off(8, 601, 45), row_seeds(3, 601));
    let all = || {
        let mut v = start.clone();
        known.rbm.gibbs(v.view_mut(), &seeds, 0, 5, &[], None).unwrap();
        let (w, b, c) = gradient(&known.rbm, data.view(), v.view());
        let mut free = vec![0.0; 601];
        known.rbm.free_energy(data.view(), &mut free).unwrap();
        let mut p = Array2::zeros((601, 37));
        known.rbm.hidden_probabilities(data.view(), p.view_mut()).unwrap();
        let floats = w.iter().chain(&b).chain(&c).chain(&p).chain(&v).map(|x| u64::from(x.to_bits()));
        floats.chain(free.iter().map(|x| x.to_bits())).collect::<Vec<_>>()
    };
    let (before, want) = (level(), all());
    for isa in available_levels() {
        set_level(isa).unwrap();
        for threads in [1, 3] {
            set_num_threads(threads).unwrap();
            assert!(all() == want, "{} {threads}", isa.name());
        }
    }
    set_level(before).unwrap();
    set_num_threads(2).unwrap();
}

/// The bits that every language must give: FNV-1a of the results' bytes, little-endian.
#[test]
fn results_have_their_published_bits() {
    let (visible, hidden, rows) = (20, 12, 300);
    let part = |n: usize, m: usize| (n % m) as f32;
    let w = Array2::from_shape_fn((visible, hidden), |(i, j)| (part(7 * i + 3 * j, 11) - 5.0) / 8.0);
    let b: Vec<f32> = (0..visible).map(|i| (part(5 * i, 7) - 3.0) / 8.0).collect();
    let c: Vec<f32> = (0..hidden).map(|j| (part(3 * j, 5) - 2.0) / 8.0).collect();
    let rbm = Rbm::new(w.view(), &b, &c).unwrap();
    let seeds = row_seeds(7, rows);
    let data = Array2::from_shape_fn((rows, visible), |(r, i)| part(r + i, 2));
    let fnv = |bytes: &mut dyn Iterator<Item = u8>| {
        let hash =
            bytes.fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        format!("{hash:016x}")
    };
    let floats = |x: &[f32]| fnv(&mut x.iter().flat_map(|x| x.to_le_bytes()));
    let mut v = data.clone();
    rbm.gibbs(v.view_mut(), &seeds, 0, 20, &[], None).unwrap();
    let mut p = Array2::zeros((rows, hidden));
    rbm.hidden_probabilities(v.view(), p.view_mut()).unwrap();
    let mut free = vec![0.0; rows];
    rbm.free_energy(v.view(), &mut free).unwrap();
    let (dw, db, dc) = gradient(&rbm, data.view(), v.view());
    let got = [
        ("gibbs", floats(v.as_slice().unwrap())),
        ("hidden_probabilities", floats(p.as_slice().unwrap())),
        ("free_energy", fnv(&mut free.iter().flat_map(|x| x.to_le_bytes()))),
        ("weights", floats(dw.as_slice().unwrap())),
        ("visible_bias", floats(&db)),
        ("hidden_bias", floats(&dc)),
        ("tempered", floats(tempered(&rbm, data, &seeds).as_slice().unwrap())),
    ];
    let lines = include_str!("../../../../tests/golden/rbm.txt").lines().filter(|l| !l.starts_with('#'));
    let want: Vec<_> = lines.map(|l| l.split_once(' ').unwrap()).collect();
    let got: Vec<_> = got.iter().map(|(name, hash)| (*name, hash.as_str())).collect();
    assert_eq!(got, want);
}

/// Ten steps of ladders of three temperatures.
fn tempered(rbm: &Rbm, mut v: Array2<f32>, seeds: &[u64]) -> Array2<f32> {
    let rows = v.nrows();
    let mut h = Array2::zeros((rows, rbm.hidden()));
    let (mut log_density, mut accepted, betas) =
        (vec![0.0; rows], vec![false; rows / 3 * 2], [1.0, 0.75, 0.25]);
    for step in 0..10 {
        rbm.gibbs(v.view_mut(), seeds, step, 1, &betas, Some(h.view_mut())).unwrap();
        rbm.energy(v.view(), h.view(), &mut log_density).unwrap();
        log_density.iter_mut().for_each(|e| *e = -*e);
        replica_exchange(v.view_mut(), &mut log_density, &betas, seeds, step, &mut accepted).unwrap();
    }
    v
}
