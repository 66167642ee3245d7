//! Values from the fuzzer's bytes.

/// The fuzzer's bytes, read one value after the other; zeros when they are used up.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    pub fn u8(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(std::array::from_fn(|_| self.u8()))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.u8()) % n
    }

    /// True for one byte in `n`, and not for 0: an exhausted input changes nothing more.
    pub fn rarely(&mut self, n: u8) -> bool {
        self.u8() % n == n - 1
    }

    /// A dimension, stride or count: mostly small, sometimes at an edge, sometimes anything.
    pub fn number(&mut self) -> i64 {
        const EDGES: [i64; 16] = [
            i64::MIN,
            -(1 << 62),
            -(1 << 32),
            i32::MIN as i64,
            -1,
            1 << 10,
            1 << 16,
            i32::MAX as i64,
            1 << 32,
            1 << 34,
            1_000_000_000,
            1 << 40,
            1 << 60,
            1 << 61,
            1 << 62,
            i64::MAX,
        ];
        match self.u8() {
            n @ 0..=127 => i64::from(n % 20),
            n @ 128..=159 => -i64::from(n % 16),
            n @ 160..=191 => i64::from(n) * 3 - 470,
            192..=239 => EDGES[self.below(16)],
            _ => self.u64() as i64,
        }
    }

    /// A float: mostly ordinary, sometimes special.
    pub fn float(&mut self) -> f64 {
        const SPECIAL: [f64; 12] = [
            0.0,
            -0.0,
            1.0,
            -1.0,
            f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            5e-324,
            1e-40,
            3.4e38,
            f64::MAX,
        ];
        match self.u8() {
            n @ 0..=127 => f64::from(n) / 16.0,
            n @ 128..=191 => -f64::from(n - 128) / 16.0,
            192..=239 => SPECIAL[self.below(12)],
            _ => f64::from_bits(self.u64()),
        }
    }
}
