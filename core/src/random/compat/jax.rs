//! The random numbers of JAX and of `Nx.Random`: Threefry2x32-20, pure functions of a key.
//!
//! J. K. Salmon et al., SC 2011 (Threefry); M. Giles, "Approximating the erfinv function", GPU Computing
//! Gems (2012), for the normal numbers.

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};
use crate::math;
use crate::random::philox::iota;
use crate::threads;

/// A key: what `jax.random.key_data` and `Nx.Random.key` hold.
pub type Key = [u32; 2];

/// Which counter gives which number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Layout {
    /// JAX with `jax_threefry_partitionable`, the default since version 0.5.
    Partitionable = 0,
    /// JAX with `jax_threefry_partitionable=False`, the default before.
    Original = 1,
    /// `Nx.Random`: the counters of [`Original`](Layout::Original); normal numbers start from uniform ones in
    /// [-1, 1), where JAX leaves -1 out.
    Nx = 2,
}

impl Layout {
    /// Every layout.
    pub const ALL: &[Layout] = &[Layout::Partitionable, Layout::Original, Layout::Nx];

    /// Its name in the other languages.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Partitionable => "partitionable",
            Layout::Original => "original",
            Layout::Nx => "nx",
        }
    }

    /// The layout of a number.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number without a layout.
    pub fn from_number(n: u32) -> Result<Self> {
        let found = Self::ALL.iter().find(|l| **l as u32 == n);
        found
            .copied()
            .ok_or_else(|| Error::argument("layout", n, "0 (partitionable), 1 (original) or 2 (nx)"))
    }
}

const ROTATIONS: [[u32; 4]; 2] = [[13, 15, 26, 6], [17, 29, 16, 24]];

fn schedule(key: Key) -> [u32; 3] {
    [key[0], key[1], key[0] ^ key[1] ^ 0x1bd1_1bda]
}

/// Two random words from a counter and a key: a bijection of the counter for every key.
///
/// ```
/// // A known answer of the Random123 distribution.
/// let words = dgm_core::random::compat::jax::threefry2x32_20([0; 2], [0; 2]);
/// assert_eq!(words, [0x6b20_0159, 0x99ba_4efe]);
/// ```
pub fn threefry2x32_20(counter: [u32; 2], key: Key) -> [u32; 2] {
    let k = schedule(key);
    let [mut a, mut b] = [counter[0].wrapping_add(k[0]), counter[1].wrapping_add(k[1])];
    for group in 0..5 {
        for r in ROTATIONS[group % 2] {
            a = a.wrapping_add(b);
            b = b.rotate_left(r) ^ a;
        }
        a = a.wrapping_add(k[(group + 1) % 3]);
        b = b.wrapping_add(k[(group + 2) % 3]).wrapping_add(group as u32 + 1);
    }
    [a, b]
}

// A function and no closure: a closure would be compiled without the instruction set.
#[inline(always)]
fn add<S: Simd>(s: S, x: S::I, k: u32) -> S::I {
    s.iadd(x, s.isplat(k as i32))
}

/// [`threefry2x32_20`] of a counter a lane.
#[inline(always)]
fn rounds<S: Simd>(s: S, counter: [S::I; 2], key: Key) -> [S::I; 2] {
    let k = schedule(key);
    let (mut a, mut b) = (add(s, counter[0], k[0]), add(s, counter[1], k[1]));
    macro_rules! four {
        ($group:literal: $($left:literal $right:literal),*) => {
            $(
                a = s.iadd(a, b);
                b = s.ixor(s.ior(s.ishl::<$left>(b), s.ishr::<$right>(b)), a);
            )*
            a = add(s, a, k[($group + 1) % 3]);
            b = add(s, b, k[($group + 2) % 3].wrapping_add($group + 1));
        };
    }
    four!(0: 13 19, 15 17, 26 6, 6 26);
    four!(1: 17 15, 29 3, 16 16, 24 8);
    four!(2: 13 19, 15 17, 26 6, 6 26);
    four!(3: 17 15, 29 3, 16 16, 24 8);
    four!(4: 13 19, 15 17, 26 6, 6 26);
    [a, b]
}

/// `jax.random.PRNGKey(seed)` (and the data of `jax.random.key(seed)`), `Nx.Random.key(seed)`: the upper and
/// the lower word. JAX without 64-bit types takes seeds below 2^32 as they are.
pub fn key(seed: u64) -> Key {
    [(seed >> 32) as u32, seed as u32]
}

/// `jax.random.fold_in(key, data)`.
pub fn fold_in(key: Key, data: u32) -> Key {
    threefry2x32_20([0, data], key)
}

/// `jax.random.split(key, n)`, `Nx.Random.split(key, n)`: new keys into `out`.
///
/// # Errors
/// [`Error::Overflow`] from 2^31 keys on.
pub fn split(parent: Key, layout: Layout, out: &mut [Key]) -> Result<()> {
    let n = out.len();
    if n >= 1 << 31 {
        return Err(Error::Overflow { arg: "out", got: format!("{n} keys, at most 2^31 - 1") });
    }
    for (i, new) in (0..n as u32).zip(out.iter_mut()) {
        *new = match layout {
            Layout::Partitionable => threefry2x32_20([0, i], parent),
            // Words 2 i and 2 i + 1 of the list: first those of all pairs (j, n + j), then the second ones.
            Layout::Original | Layout::Nx => [2 * i, 2 * i + 1].map(|w| {
                let (j, second) = if (w as usize) < n { (w, 0) } else { (w - n as u32, 1) };
                threefry2x32_20([j, n as u32 + j], parent)[second]
            }),
        };
    }
    Ok(())
}

/// `jax.random.uniform(key, (n,))` in f32: 23 bits a number, in [0, 1).
///
/// # Errors
/// [`Error::Overflow`] beyond 2^32 - 2 numbers, but for the partitionable layout.
pub fn uniform(key: Key, layout: Layout, out: &mut [f32]) -> Result<()> {
    generate(key, layout, out, false)
}

/// `jax.random.normal(key, (n,))` in f32: `sqrt 2 erfinv(u)`, `u` uniform in (-1, 1).
///
/// # Errors
/// As [`uniform`].
pub fn normal(key: Key, layout: Layout, out: &mut [f32]) -> Result<()> {
    generate(key, layout, out, true)
}

const CHUNK: usize = 1 << 14;

fn generate(key: Key, layout: Layout, out: &mut [f32], normal: bool) -> Result<()> {
    let n = out.len();
    let job = Job { key, normal, lowest: if layout == Layout::Nx { -1.0 } else { ABOVE_MINUS_ONE } };
    let work = 80 * n as u64;
    if layout == Layout::Partitionable {
        let chunks = out.chunks_mut(CHUNK).enumerate();
        threads::for_each(chunks, work, |(i, out)| dispatch(Single { job, first: (i * CHUNK) as u64, out }));
        return Ok(());
    }
    if n as u64 > u64::from(u32::MAX) - 1 {
        return Err(Error::Overflow { arg: "out", got: format!("{n} numbers, at most 2^32 - 2") });
    }
    let half = n.div_ceil(2);
    let (low, high) = out.split_at_mut(half);
    // Of an odd number the last pair is filled up with the counter 0 and gives one number.
    if n % 2 == 1 {
        let (last, word) = (half - 1, [threefry2x32_20([half as u32 - 1, 0], key)[0]]);
        dispatch(Words { job, words: &word, out: &mut low[last..] });
    }
    let pairs = low[..n / 2].chunks_mut(CHUNK).zip(high.chunks_mut(CHUNK)).enumerate();
    threads::for_each(pairs, work, |(i, (low, high))| {
        dispatch(Pairs { job, first: (i * CHUNK) as u32, half: half as u32, low, high })
    });
    Ok(())
}

/// The number next to -1 towards 0.
const ABOVE_MINUS_ONE: f32 = -1.0 + f32::EPSILON / 2.0;

#[derive(Clone, Copy)]
struct Job {
    key: Key,
    normal: bool,
    lowest: f32,
}

impl Job {
    #[inline(always)]
    fn number<S: Simd>(self, s: S, word: S::I) -> S::F {
        let mantissa = s.ior(s.ishr::<9>(word), s.isplat(0x3f80_0000));
        let u = s.sub(s.bits_to_f32(mantissa), s.splat(1.0));
        if !self.normal {
            return u;
        }
        // The span rounds to 2 for either bound.
        let u = s.max(s.add(s.mul(u, s.splat(2.0)), s.splat(self.lowest)), s.splat(self.lowest));
        s.mul(s.splat(std::f32::consts::SQRT_2), erf_inv(s, u))
    }
}

/// Giles' approximation of the inverse error function in single precision.
#[inline(always)]
fn erf_inv<S: Simd>(s: S, x: S::F) -> S::F {
    let w = s.neg(math::log(s, s.sub(s.splat(1.0), s.mul(x, x))));
    let central = s.lt(w, s.splat(5.0));
    let w = s.select(central, s.sub(w, s.splat(2.5)), s.sub(s.sqrt(w), s.splat(3.0)));
    let mut p = s.select(central, s.splat(CENTRAL[0]), s.splat(TAIL[0]));
    for i in 1..CENTRAL.len() {
        p = s.fma(p, w, s.select(central, s.splat(CENTRAL[i]), s.splat(TAIL[i])));
    }
    let y = s.mul(p, x);
    s.select(s.eq(s.abs(x), s.splat(1.0)), s.mul(x, s.splat(f32::INFINITY)), y)
}

const CENTRAL: [f32; 9] = [
    2.810_226_4e-8,
    3.432_739_4e-7,
    -3.523_387_7e-6,
    -4.391_506_5e-6,
    0.000_218_580_87,
    -0.001_253_725,
    -0.004_177_681_6,
    0.246_640_73,
    1.501_409_4,
];

const TAIL: [f32; 9] = [
    -0.000_200_214_26,
    0.000_100_950_56,
    0.001_349_343_2,
    -0.003_673_428_4,
    0.005_739_507_7,
    -0.007_622_461_3,
    0.009_438_870_5,
    1.001_674,
    2.832_976_8,
];

/// One number of each counter: both words in one.
struct Single<'a> {
    job: Job,
    first: u64,
    out: &'a mut [f32],
}

impl Kernel for Single<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut first = self.first;
        for out in self.out.chunks_mut(S::LANES) {
            // A chunk begins at a multiple of a power of two, so that no carry passes inside a vector.
            let counter = [s.isplat((first >> 32) as i32), s.iadd(iota(s), s.isplat(first as i32))];
            let [a, b] = rounds(s, counter, self.job.key);
            s.store_partial(self.job.number(s, s.ixor(a, b)), out);
            first += S::LANES as u64;
        }
    }
}

/// Two numbers of each counter, half the tensor apart.
struct Pairs<'a> {
    job: Job,
    first: u32,
    half: u32,
    low: &'a mut [f32],
    high: &'a mut [f32],
}

impl Kernel for Pairs<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let mut first = self.first;
        for (low, high) in self.low.chunks_mut(S::LANES).zip(self.high.chunks_mut(S::LANES)) {
            let c0 = s.iadd(iota(s), s.isplat(first as i32));
            let [a, b] = rounds(s, [c0, s.iadd(c0, s.isplat(self.half as i32))], self.job.key);
            s.store_partial(self.job.number(s, a), low);
            s.store_partial(self.job.number(s, b), high);
            first = first.wrapping_add(S::LANES as u32);
        }
    }
}

/// Numbers of words already there.
struct Words<'a> {
    job: Job,
    words: &'a [u32],
    out: &'a mut [f32],
}

impl Kernel for Words<'_> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        for (word, out) in self.words.iter().zip(self.out) {
            let mut lanes = [0.0; 16];
            s.store(self.job.number(s, s.isplat(*word as i32)), &mut lanes);
            *out = lanes[0];
        }
    }
}
