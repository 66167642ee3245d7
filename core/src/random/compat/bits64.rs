//! The bit generators behind NumPy's `Generator`: PCG64 and Philox4x64-10.
//!
//! M. E. O'Neill, "PCG: a family of simple fast space-efficient statistically good algorithms for
//! random number generation", 2014 (XSL RR 128/64); J. K. Salmon et al., SC 2011 (Philox).

use super::seed_sequence::SeedSequence;

/// What gives words of 64 bits.
pub(super) trait Bits {
    fn next_u64(&mut self) -> u64;
    /// The half of a word that a draw of 32 bits has left over.
    fn half(&mut self) -> &mut Option<u32>;

    /// The lower half of a word, then its upper half.
    fn next_u32(&mut self) -> u32 {
        if let Some(word) = self.half().take() {
            return word;
        }
        let word = self.next_u64();
        *self.half() = Some((word >> 32) as u32);
        word as u32
    }

    /// Uniform in [0, 1), 53 bits.
    fn next_f64(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }

    /// Uniform in [0, 1), 24 bits.
    fn next_f32(&mut self) -> f32 {
        (self.next_u32() >> 8) as f32 * (1.0 / 16_777_216.0)
    }
}

/// A linear congruential generator of 128 bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pcg64 {
    pub(super) state: u128,
    pub(super) increment: u128,
    pub(super) half: Option<u32>,
}

const MULTIPLIER: u128 = 0x2360_ed05_1fc6_5da4_4385_df64_9fcc_f645;

impl Pcg64 {
    /// As `numpy.random.PCG64(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let [a, b, c, d] = SeedSequence::new(seed, &[], 4).long_words().map(u128::from);
        let mut new = Pcg64 { state: 0, increment: (c << 64 | d) << 1 | 1, half: None };
        new.step();
        new.state = new.state.wrapping_add(a << 64 | b);
        new.step();
        new
    }

    fn step(&mut self) {
        self.state = self.state.wrapping_mul(MULTIPLIER).wrapping_add(self.increment);
    }
}

impl Bits for Pcg64 {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        self.step();
        let folded = (self.state >> 64) as u64 ^ self.state as u64;
        folded.rotate_right((self.state >> 122) as u32)
    }

    fn half(&mut self) -> &mut Option<u32> {
        &mut self.half
    }
}

/// Philox4x64-10: the words of one counter, then those of the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Philox4x64 {
    pub(super) counter: [u64; 4],
    pub(super) key: [u64; 2],
    /// How many words of `counter` are used up, 4 at first.
    pub(super) used: usize,
    /// The words of `counter`.
    buffer: [u64; 4],
    pub(super) half: Option<u32>,
}

impl Philox4x64 {
    /// As `numpy.random.Philox(seed)`.
    pub(super) fn new(seed: u64) -> Self {
        let [k0, k1, ..] = SeedSequence::new(seed, &[], 4).long_words();
        Self::at([0; 4], [k0, k1], 4, None)
    }

    /// Where it stood.
    pub(super) fn at(counter: [u64; 4], key: [u64; 2], used: usize, half: Option<u32>) -> Self {
        Philox4x64 { counter, key, used, buffer: philox4x64_10(counter, key), half }
    }
}

impl Bits for Philox4x64 {
    #[inline]
    fn next_u64(&mut self) -> u64 {
        if self.used == 4 {
            for word in &mut self.counter {
                *word = word.wrapping_add(1);
                if *word != 0 {
                    break;
                }
            }
            self.buffer = philox4x64_10(self.counter, self.key);
            self.used = 0;
        }
        self.used += 1;
        self.buffer[self.used - 1]
    }

    fn half(&mut self) -> &mut Option<u32> {
        &mut self.half
    }
}

/// Ten rounds on words of 64 bits.
pub(super) fn philox4x64_10(counter: [u64; 4], key: [u64; 2]) -> [u64; 4] {
    let ([mut c0, mut c1, mut c2, mut c3], [mut k0, mut k1]) = (counter, key);
    for _ in 0..10 {
        let p0 = u128::from(c0) * 0xd2e7_470e_e14c_6c93;
        let p1 = u128::from(c2) * 0xca5a_8263_9512_1157;
        (c0, c1, c2, c3) = ((p1 >> 64) as u64 ^ c1 ^ k0, p1 as u64, (p0 >> 64) as u64 ^ c3 ^ k1, p0 as u64);
        k0 = k0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        k1 = k1.wrapping_add(0xbb67_ae85_84ca_a73b);
    }
    [c0, c1, c2, c3]
}
