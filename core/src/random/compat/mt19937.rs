//! MT19937, the generator of PyTorch on the CPU and of NumPy's `RandomState`.
//!
//! M. Matsumoto, T. Nishimura, "Mersenne Twister: a 623-dimensionally equidistributed uniform
//! pseudo-random number generator", ACM TOMACS 8 (1998); initialisation of 2002.

use crate::arch::{Kernel, Simd, dispatch};
use crate::error::{Error, Result};

/// Words of the state.
pub(super) const WORDS: usize = 624;
/// Distance of the word that is mixed in.
const SHIFT: usize = 397;

/// The state: a block of words and how many of them are used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mt19937 {
    words: [u32; WORDS],
    used: usize,
}

impl Mt19937 {
    /// Initialised by one word (`init_genrand`).
    pub(super) fn new(seed: u32) -> Self {
        let mut words = [seed; WORDS];
        for i in 1..WORDS {
            let last = words[i - 1];
            words[i] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(i as u32);
        }
        Mt19937 { words, used: WORDS }
    }

    /// The state as it was written: `used` at most [`WORDS`], a block that is not all zeros.
    pub(super) fn from_parts(words: [u32; WORDS], used: usize) -> Result<Self> {
        // Of the first word only the top bit counts; a state without any bit stays there for ever.
        let zero = words[0] >> 31 == 0 && words[1..].iter().all(|w| *w == 0);
        if used > WORDS || zero {
            return Err(Error::Format {
                what: "state".into(),
                message: format!("no state of MT19937 ({used} of {WORDS} words used, all zero: {zero})"),
            });
        }
        Ok(Mt19937 { words, used })
    }

    pub(super) fn parts(&self) -> (&[u32; WORDS], usize) {
        (&self.words, self.used)
    }

    pub(super) fn next_u32(&mut self) -> u32 {
        if self.used == WORDS {
            self.twist();
        }
        let word = self.words[self.used];
        self.used += 1;
        temper(word)
    }

    /// Two words, the first one high.
    pub(super) fn next_u64(&mut self) -> u64 {
        let high = self.next_u32();
        u64::from(high) << 32 | u64::from(self.next_u32())
    }

    /// `out[i] = f(word)`, a word each.
    pub(super) fn fill<T>(&mut self, out: &mut [T], f: impl Fn(u32) -> T + Copy) {
        let mut out = out;
        while !out.is_empty() {
            if self.used == WORDS {
                self.twist();
            }
            let (now, later) = out.split_at_mut(out.len().min(WORDS - self.used));
            dispatch(Temper(&self.words[self.used..][..now.len()], &mut *now, f));
            self.used += now.len();
            out = later;
        }
    }

    fn twist(&mut self) {
        dispatch(Twist(&mut self.words));
        self.used = 0;
    }
}

#[inline(always)]
fn temper(y: u32) -> u32 {
    let y = y ^ (y >> 11);
    let y = y ^ ((y << 7) & 0x9d2c_5680);
    let y = y ^ ((y << 15) & 0xefc6_0000);
    y ^ (y >> 18)
}

struct Temper<'a, T, F>(&'a [u32], &'a mut [T], F);

impl<T, F: Fn(u32) -> T> Kernel for Temper<'_, T, F> {
    type Output = ();
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        for (out, word) in self.1.iter_mut().zip(self.0) {
            *out = (self.2)(temper(*word));
        }
    }
}

#[inline(always)]
fn mix(far: u32, this: u32, next: u32) -> u32 {
    let y = (this & 0x8000_0000) | (next & 0x7fff_ffff);
    far ^ (y >> 1) ^ ((next & 1).wrapping_neg() & 0x9908_b0df)
}

struct Twist<'a>(&'a mut [u32; WORDS]);

impl Kernel for Twist<'_> {
    type Output = ();
    // Loops over slices that do not overlap, so that the compiler makes vectors of them.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        const REST: usize = WORDS - SHIFT;
        let old = *self.0;
        let (new, tail) = self.0.split_at_mut(REST);
        for (i, word) in new.iter_mut().enumerate() {
            *word = mix(old[i + SHIFT], old[i], old[i + 1]);
        }
        // The next 227 words need those just made, the last 169 these 227 again.
        let (second, third) = tail.split_at_mut(REST);
        for (i, word) in second.iter_mut().enumerate() {
            *word = mix(new[i], old[i + REST], old[i + REST + 1]);
        }
        let (last, third) = third.split_last_mut().expect("the state is longer");
        for (i, word) in third.iter_mut().enumerate() {
            *word = mix(second[i], old[i + 2 * REST], old[i + 2 * REST + 1]);
        }
        *last = mix(second[third.len()], old[WORDS - 1], new[0]);
    }
}
