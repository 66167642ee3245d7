//! Against the numbers of the original systems, `tests/golden/compat.bin`.

use std::collections::BTreeMap;
use std::path::Path;

use ndarray::Array2;

use super::jax::{self, Layout};
use super::*;
use crate::random::philox4x32_10;

/// A line of the index and its bytes.
struct Entry {
    name: String,
    wide: bool,
    dims: Vec<usize>,
    bytes: Vec<u8>,
}

impl Entry {
    fn f32(&self) -> Vec<f32> {
        assert!(!self.wide);
        self.bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    fn f64(&self) -> Vec<f64> {
        assert!(self.wide);
        self.bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b)).collect()
    }

    fn u64(&self) -> Vec<u64> {
        self.bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b)).collect()
    }
}

fn entries() -> Vec<Entry> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let (index, data) = ("compat.txt", "compat.bin");
    let data = std::fs::read(folder.join(data)).unwrap();
    let index = std::fs::read_to_string(folder.join(index)).unwrap();
    let read = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let [name, dtype, dims, at] = words[..] else { panic!("{line}") };
        let dims: Vec<usize> = dims.split('x').map(|d| d.parse().unwrap()).collect();
        let (wide, at) = (dtype != "f32", at.parse::<usize>().unwrap());
        let len = dims.iter().product::<usize>() * if wide { 8 } else { 4 };
        Entry { name: name.into(), wide, dims, bytes: data[at..at + len].to_vec() }
    };
    index.lines().skip(1).map(read).collect()
}

/// Distance in units in the last place.
fn ulps(a: f32, b: f32) -> u32 {
    let order = |x: f32| if x.is_sign_negative() { -(x.abs().to_bits() as i64) } else { x.to_bits() as i64 };
    (order(a) - order(b)).unsigned_abs() as u32
}

fn ulps_f64(a: f64, b: f64) -> u64 {
    let order = |x: f64| if x.is_sign_negative() { -(x.abs().to_bits() as i64) } else { x.to_bits() as i64 };
    order(a).abs_diff(order(b))
}

#[test]
fn generators_repeat_the_originals() {
    let (mut generators, mut checked) = (BTreeMap::new(), BTreeMap::new());
    for entry in entries() {
        let parts: Vec<&str> = entry.name.split('.').collect();
        let Ok(algorithm) = Algorithm::from_name(parts[0]) else { continue };
        let seed: u64 = parts[1].parse().unwrap();
        let start = || Generator::new(algorithm, seed).unwrap();
        let g = generators.entry((parts[0].to_string(), seed)).or_insert_with(start);
        *checked.entry(parts[0].to_string()).or_insert(0) += 1;
        let uniform = parts[3] == "uniform";
        if entry.wide {
            let (mut out, want) = (vec![f64::NAN; entry.dims[0]], entry.f64());
            if uniform { g.uniform_f64(&mut out) } else { g.normal_f64(&mut out) }.unwrap();
            let differ = out.iter().zip(&want).filter(|(a, b)| a != b).count();
            let far = out.iter().zip(&want).map(|(a, b)| ulps_f64(*a, *b)).max().unwrap();
            let exact = uniform || algorithm == Algorithm::NumpyPcg64 || algorithm == Algorithm::NumpyPhilox;
            assert!(differ <= 1 && far <= 2 && (differ == 0 || !exact), "{}", entry.name);
        } else {
            let (mut out, want) = (vec![f32::NAN; entry.dims[0]], entry.f32());
            if uniform { g.uniform(&mut out) } else { g.normal(&mut out) }.unwrap();
            for (a, b) in out.iter().zip(&want) {
                // Of the formula for CUDA in f64, f32 is as far away as its angle is rounded.
                let near = algorithm == Algorithm::TorchCuda && (a - b).abs() <= 2e-6;
                assert!(a == b || near, "{} {a} {b}", entry.name);
            }
        }
        // A state goes through bytes between any two draws.
        *g = Generator::from_bytes(&g.to_bytes()).unwrap();
    }
    assert_eq!(checked.len(), Algorithm::ALL.len());
    assert!(checked.values().all(|&n| n >= 12));
}

#[test]
fn jax_and_its_keys() {
    let mut checked = 0;
    for entry in entries() {
        let parts: Vec<&str> = entry.name.split('.').collect();
        if parts[0] != "jax" {
            continue;
        }
        let layout = *Layout::ALL.iter().find(|l| l.name() == parts[1]).unwrap();
        let key = jax::key(parts[2].parse().unwrap());
        let words = |keys: &[jax::Key]| keys.concat().into_iter().map(u64::from).collect::<Vec<_>>();
        match parts[3] {
            "fold_in_7" => assert_eq!(words(&[jax::fold_in(key, 7)]), entry.u64()),
            "split" => {
                let mut keys = vec![[0; 2]; entry.dims[0]];
                jax::split(key, layout, &mut keys).unwrap();
                assert_eq!(words(&keys), entry.u64(), "{}", entry.name);
            }
            kind => {
                let (mut out, want) = (vec![f32::NAN; entry.dims[0]], entry.f32());
                let uniform = kind == "uniform";
                if uniform {
                    jax::uniform(key, layout, &mut out)
                } else {
                    jax::normal(key, layout, &mut out)
                }
                .unwrap();
                let far = out.iter().zip(&want).map(|(a, b)| ulps(*a, *b)).max().unwrap();
                assert!(far <= if uniform { 0 } else { 4 }, "{} {far}", entry.name);
            }
        }
        checked += 1;
    }
    assert!(checked >= 40);
}

/// The examples in the documentation of `Nx.Random`.
#[test]
fn nx() {
    assert_eq!(jax::key(999_999_999_999), [232, 3_567_587_327]);
    let mut keys = [[0; 2]; 2];
    jax::split(jax::key(1701), Layout::Nx, &mut keys).unwrap();
    assert_eq!(keys, [[56_197_195, 1_801_093_307], [961_309_823, 1_704_866_707]]);
    let mut keys = [[0; 2]; 4];
    jax::split(jax::key(999_999_999_999), Layout::Nx, &mut keys).unwrap();
    assert_eq!(keys[0], [3_959_978_897, 4_079_927_650]);
    assert_eq!(keys[3], [3_185_556_048, 1_258_545_461]);
    let mut keys = [[0; 2]; 2];
    jax::split(jax::key(12), Layout::Nx, &mut keys).unwrap();
    let mut x = [0.0];
    for (key, want) in [(jax::key(12), 0.303_770_3), (keys[0], 0.153_137_92), (keys[1], 0.769_112_7)] {
        jax::uniform(key, Layout::Nx, &mut x).unwrap();
        assert_eq!(x[0], want);
    }
    jax::normal(jax::key(42), Layout::Nx, &mut x).unwrap();
    assert!((x[0] + 0.184_711_83).abs() < 1e-7, "{}", x[0]);
}

#[test]
fn brownian_trees() {
    let all = entries();
    let find = |name: &str| all.iter().find(|e| e.name == name);
    let seeds = find("torchsde.seeds").unwrap().u64();
    for i in 0.. {
        let Some(times) = find(&format!("torchsde.{i}.times")) else {
            assert!(i >= 6);
            break;
        };
        let times = times.f64();
        let tree = BrownianTree::new(times[0], times[1]).unwrap();
        assert_eq!(tree, BrownianTree::new(times[1], times[0]).unwrap());
        let mut out = Array2::zeros((2, 24));
        tree.increment(&seeds, times[2], times[3], out.view_mut()).unwrap();
        assert_eq!(out.as_slice().unwrap(), find(&format!("torchsde.{i}.increment")).unwrap().f32());
        tree.noise(&seeds, times[2], times[3], out.view_mut()).unwrap();
        // PyTorch's square root is not the nearest number for every argument.
        let want = find(&format!("torchsde.{i}.noise")).unwrap().f32();
        assert!(out.iter().zip(&want).all(|(a, b)| ulps(*a, *b) <= 2), "noise {i}");
    }
}

#[test]
fn a_path_adds_up() {
    let tree = BrownianTree::new(0.0, 1.0).unwrap();
    let query = |a: f64, b: f64| {
        let mut out = Array2::zeros((1, 20));
        tree.increment(&[9], a, b, out.view_mut()).unwrap();
        out
    };
    let (first, second, both) = (query(0.1, 0.4), query(0.4, 0.9), query(0.1, 0.9));
    assert!((first + second - &both).iter().all(|d| d.abs() < 1e-5));
    assert_eq!(query(0.9, 0.1), -&both);
    assert!(query(0.5, 0.5).iter().all(|w| *w == 0.0));
    assert_eq!(query(-3.0, 2.0), query(0.0, 1.0));
    let mut out = Array2::zeros((2, 4));
    assert_eq!(tree.increment(&[1], 0.0, 1.0, out.view_mut()).unwrap_err().code(), -200);
    assert_eq!(tree.increment(&[1, 2], f64::NAN, 1.0, out.view_mut()).unwrap_err().code(), -500);
    assert_eq!(tree.noise(&[1, 2], 0.5, 0.5, out.view_mut()).unwrap_err().code(), -500);
    assert_eq!(BrownianTree::new(1.0, 1.0).unwrap_err().code(), -500);
    assert_eq!(BrownianTree::new(0.0, f64::INFINITY).unwrap_err().code(), -500);
    assert_eq!(
        tree.increment(&[1, 2], 0.0, 1.0, Array2::zeros((4, 2)).view_mut().reversed_axes())
            .unwrap_err()
            .code(),
        -201
    );
}

/// The known answers of the Random123 distribution.
#[test]
fn known_answers() {
    let pi = [0x243f_6a88u32, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
    assert_eq!(
        philox4x32_10(pi, [0xa409_3822, 0x299f_31d0]),
        [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
    );
    assert_eq!(jax::threefry2x32_20([u32::MAX; 2], [u32::MAX; 2]), [0x1cb9_96fc, 0xbb00_2be7]);
    assert_eq!(jax::threefry2x32_20([pi[0], pi[1]], [pi[2], pi[3]]), [0xc492_3a9c, 0x483d_f7a0]);
    let mut mt = TorchCpu::new(5489).bits;
    assert_eq!([mt.next_u32(), mt.next_u32()], [3_499_211_612, 581_869_302]);
    for _ in 2..9_999 {
        mt.next_u32();
    }
    assert_eq!(mt.next_u32(), 4_123_659_995);
}

#[test]
fn long_tensors_are_the_short_ones() {
    // Windows, tasks and blocks of the state do not show.
    let n = (1 << 18) + (1 << 14) + 48;
    for &algorithm in Algorithm::ALL {
        let mut whole = vec![0.0; n];
        Generator::new(algorithm, 3).unwrap().normal(&mut whole).unwrap();
        if algorithm != Algorithm::TorchCuda {
            let mut parts = vec![0.0; n];
            let mut g = Generator::new(algorithm, 3).unwrap();
            parts.chunks_mut(16 * 61).for_each(|part| g.normal(part).unwrap());
            assert!(whole == parts, "{}", algorithm.name());
            let (mut u, mut v) = (vec![0.0; 5_000], vec![0.0; 5_000]);
            Generator::new(algorithm, 3).unwrap().uniform(&mut u).unwrap();
            let mut g = Generator::new(algorithm, 3).unwrap();
            v.chunks_mut(7).for_each(|part| g.uniform(part).unwrap());
            assert!(u == v, "{}", algorithm.name());
        }
        let mut first = vec![0.0; 100];
        Generator::new(algorithm, 3).unwrap().normal(&mut first).unwrap();
        let same = if algorithm == Algorithm::TorchCpu { 84 } else { 100 };
        assert!(whole[..same] == first[..same], "{}", algorithm.name());
    }
}

#[test]
fn corrupt_states_are_refused() {
    for &algorithm in Algorithm::ALL {
        let mut g = Generator::new(algorithm, 11).unwrap();
        g.normal(&mut [0.0; 5]).unwrap();
        let good = g.to_bytes();
        assert_eq!(Generator::from_bytes(&good).unwrap(), g);
        for len in [0, 1, STATE_BYTES - 1] {
            assert_eq!(Generator::from_bytes(&good[..len]).unwrap_err().code(), -601);
        }
        for at in 0..STATE_BYTES {
            let mut bytes = good;
            bytes[at] ^= 0x41;
            assert_eq!(Generator::from_bytes(&bytes).unwrap_err().code(), -601, "byte {at}");
        }
        // With the checksum made to fit: a generator or an error, and then numbers, never a panic.
        for at in 0..160 {
            for value in [0, 1, 0x41, 0x7f, 0xff] {
                let mut bytes = good;
                bytes[at] = value;
                let sum = crc32fast::hash(&bytes[..STATE_BYTES - 4]);
                bytes[STATE_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
                if let Ok(mut g) = Generator::from_bytes(&bytes) {
                    g.normal(&mut [0.0; 40]).unwrap();
                }
            }
        }
        let mut zero = [0; STATE_BYTES];
        zero[..8].copy_from_slice(&good[..8]);
        let sum = crc32fast::hash(&zero[..STATE_BYTES - 4]);
        zero[STATE_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        let stuck = matches!(algorithm, Algorithm::TorchCuda | Algorithm::NumpyPhilox);
        assert_eq!(Generator::from_bytes(&zero).is_ok(), stuck, "{}", algorithm.name());
    }
    assert_eq!(Generator::new(Algorithm::NumpyRandomState, 1 << 32).unwrap_err().code(), -500);
    assert_eq!(Algorithm::from_number(5).unwrap_err().code(), -101);
    assert_eq!(Algorithm::from_name("torch").unwrap_err().code(), -101);
    assert_eq!(Layout::from_number(3).unwrap_err().code(), -101);
    let mut cuda = Generator::new(Algorithm::TorchCuda, 0).unwrap();
    assert_eq!(cuda.normal_f64(&mut [0.0]).unwrap_err().code(), -101);
    assert_eq!(cuda.uniform(&mut [0.0]).unwrap_err().code(), -101);
}
