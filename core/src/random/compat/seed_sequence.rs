//! NumPy's `SeedSequence`: any integer to as many well-mixed words as a generator needs.
//!
//! M. E. O'Neill's `seed_seq` replacement ("Developing a seed_seq alternative", 2015), with the constants
//! and the order of NumPy.

const INIT_A: u32 = 0x43b0_d7e5;
const MULT_A: u32 = 0x931e_8875;
const INIT_B: u32 = 0x8b51_f9dd;
const MULT_B: u32 = 0x58f3_8ded;
const MIX_LEFT: u32 = 0xca01_f9dd;
const MIX_RIGHT: u32 = 0x4973_f715;

/// The pool from which words are made.
pub(super) struct SeedSequence {
    pool: Vec<u32>,
}

/// An integer in words, the lowest first; 0 is one word.
fn words(value: u64, to: &mut Vec<u32>) {
    to.push(value as u32);
    if value >> 32 != 0 {
        to.push((value >> 32) as u32);
    }
}

struct Hash(u32);

impl Hash {
    fn mix(&mut self, value: u32, factor: u32) -> u32 {
        let value = value ^ self.0;
        self.0 = self.0.wrapping_mul(factor);
        let value = value.wrapping_mul(self.0);
        value ^ (value >> 16)
    }
}

fn mix(x: u32, y: u32) -> u32 {
    let value = MIX_LEFT.wrapping_mul(x).wrapping_sub(MIX_RIGHT.wrapping_mul(y));
    value ^ (value >> 16)
}

impl SeedSequence {
    /// `SeedSequence(entropy, spawn_key=spawn_key, pool_size=pool_size)`.
    pub(super) fn new(entropy: u64, spawn_key: &[u64], pool_size: usize) -> Self {
        let mut all = Vec::new();
        words(entropy, &mut all);
        if !spawn_key.is_empty() && all.len() < pool_size {
            all.resize(pool_size, 0);
        }
        for &key in spawn_key {
            words(key, &mut all);
        }
        let mut hash = Hash(INIT_A);
        let mut next = |value| hash.mix(value, MULT_A);
        let word = |i: usize| all.get(i).copied().unwrap_or(0);
        let mut pool: Vec<u32> = (0..pool_size).map(|i| next(word(i))).collect();
        for from in 0..pool_size {
            for to in (0..pool_size).filter(|&to| to != from) {
                pool[to] = mix(pool[to], next(pool[from]));
            }
        }
        for from in pool_size..all.len() {
            for to in &mut pool {
                *to = mix(*to, next(word(from)));
            }
        }
        SeedSequence { pool }
    }

    /// `generate_state(N, uint32)`.
    pub(super) fn words<const N: usize>(&self) -> [u32; N] {
        let mut hash = Hash(INIT_B);
        let mut pool = self.pool.iter().cycle();
        std::array::from_fn(|_| hash.mix(*pool.next().expect("a pool is not empty"), MULT_B))
    }

    /// `generate_state(4, uint64)`.
    pub(super) fn long_words(&self) -> [u64; 4] {
        let words = self.words::<8>();
        std::array::from_fn(|i| u64::from(words[2 * i + 1]) << 32 | u64::from(words[2 * i]))
    }
}
