//! A generator as bytes: little-endian, of one length, with a checksum.

use super::bits64::{Pcg64, Philox4x64};
use super::mt19937::{Mt19937, WORDS};
use super::{Algorithm, Generator, NumpyGenerator, NumpyRandomState, TorchCpu, TorchCuda};
use crate::error::{Error, Result};

/// Length of every state in bytes.
pub const STATE_BYTES: usize = 2560;

const MAGIC: [u8; 4] = *b"DGMG";
const VERSION: u16 = 1;
const CHECKSUM: usize = STATE_BYTES - 4;

struct Writer<'a>(&'a mut [u8]);

impl Writer<'_> {
    fn put(&mut self, bytes: &[u8]) {
        let (now, rest) = std::mem::take(&mut self.0).split_at_mut(bytes.len());
        now.copy_from_slice(bytes);
        self.0 = rest;
    }

    fn option(&mut self, value: Option<u64>) {
        self.put(&u64::from(value.is_some()).to_le_bytes());
        self.put(&value.unwrap_or(0).to_le_bytes());
    }

    fn mt(&mut self, bits: &Mt19937) {
        let (words, used) = bits.parts();
        self.put(&(used as u64).to_le_bytes());
        words.iter().for_each(|w| self.put(&w.to_le_bytes()));
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        // A payload never reaches the end of the block.
        let (now, rest) = self.0.split_first_chunk().expect("the block is longer than any payload");
        self.0 = rest;
        *now
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    fn u128(&mut self) -> u128 {
        u128::from_le_bytes(self.take())
    }

    fn option(&mut self) -> Result<Option<u64>> {
        match (self.u64(), self.u64()) {
            (0, 0) => Ok(None),
            (1, value) => Ok(Some(value)),
            (flag, _) => Err(bad(format!("flag {flag} where 0 or 1 is expected"))),
        }
    }

    fn half(&mut self) -> Result<Option<u32>> {
        let word = |w| u32::try_from(w).map_err(|_| bad("a half of a word has more than 32 bits"));
        self.option()?.map(word).transpose()
    }

    fn number(&mut self) -> Result<Option<f64>> {
        let value = self.option()?.map(f64::from_bits);
        if value.is_some_and(|v| !v.is_finite()) {
            return Err(bad("the number kept for later is not finite"));
        }
        Ok(value)
    }

    fn mt(&mut self) -> Result<Mt19937> {
        let used = usize::try_from(self.u64()).unwrap_or(usize::MAX);
        let words = std::array::from_fn::<u32, WORDS, _>(|_| u32::from_le_bytes(self.take()));
        Mt19937::from_parts(words, used)
    }
}

fn bad(message: impl Into<String>) -> Error {
    Error::Format { what: "state".into(), message: message.into() }
}

impl Generator {
    /// The state as bytes, the same on every machine.
    pub fn to_bytes(&self) -> [u8; STATE_BYTES] {
        let mut bytes = [0; STATE_BYTES];
        let mut to = Writer(&mut bytes);
        to.put(&MAGIC);
        to.put(&VERSION.to_le_bytes());
        to.put(&(self.algorithm() as u16).to_le_bytes());
        match self {
            Generator::TorchCpu(TorchCpu { bits, cached })
            | Generator::NumpyRandomState(NumpyRandomState { bits, cached }) => {
                to.option(cached.map(f64::to_bits));
                to.mt(bits);
            }
            Generator::TorchCuda(g) => {
                to.put(&g.seed.to_le_bytes());
                to.put(&g.draw.to_le_bytes());
            }
            Generator::NumpyPcg64(g) => {
                to.option(g.bits.half.map(u64::from));
                to.put(&g.bits.state.to_le_bytes());
                to.put(&g.bits.increment.to_le_bytes());
            }
            Generator::NumpyPhilox(g) => {
                to.option(g.bits.half.map(u64::from));
                g.bits.key.iter().chain(&g.bits.counter).for_each(|w| to.put(&w.to_le_bytes()));
                to.put(&(g.bits.used as u64).to_le_bytes());
            }
        }
        let sum = crc32fast::hash(&bytes[..CHECKSUM]);
        bytes[CHECKSUM..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The generator whose [`to_bytes`](Generator::to_bytes) are `bytes`.
    ///
    /// # Errors
    /// [`Error::Format`] for bytes of another length, format or version, a wrong checksum, and values that no
    /// generator has.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let bytes: &[u8; STATE_BYTES] =
            bytes.try_into().map_err(|_| bad(format!("{} bytes, expected {STATE_BYTES}", bytes.len())))?;
        let mut from = Reader(bytes);
        if from.take() != MAGIC {
            return Err(bad("does not begin as the state of a generator"));
        }
        let version = u16::from_le_bytes(from.take());
        if version != VERSION {
            return Err(bad(format!("version {version}, expected {VERSION}")));
        }
        let algorithm = u16::from_le_bytes(from.take());
        let sum = u32::from_le_bytes(std::array::from_fn(|i| bytes[CHECKSUM + i]));
        if sum != crc32fast::hash(&bytes[..CHECKSUM]) {
            return Err(bad("the checksum does not fit"));
        }
        let algorithm = Algorithm::from_number(algorithm.into()).map_err(|e| bad(e.to_string()))?;
        Ok(match algorithm {
            Algorithm::TorchCpu => {
                let cached = from.number()?;
                Generator::TorchCpu(TorchCpu { bits: from.mt()?, cached })
            }
            Algorithm::NumpyRandomState => {
                let cached = from.number()?;
                Generator::NumpyRandomState(NumpyRandomState { bits: from.mt()?, cached })
            }
            Algorithm::TorchCuda => Generator::TorchCuda(TorchCuda { seed: from.u64(), draw: from.u64() }),
            Algorithm::NumpyPcg64 => {
                let half = from.half()?;
                let (state, increment) = (from.u128(), from.u128());
                if increment % 2 == 0 {
                    return Err(bad("an even increment"));
                }
                Generator::NumpyPcg64(NumpyGenerator { bits: Pcg64 { state, increment, half } })
            }
            Algorithm::NumpyPhilox => {
                let half = from.half()?;
                let key = [from.u64(), from.u64()];
                let counter = std::array::from_fn(|_| from.u64());
                let used = usize::try_from(from.u64()).ok().filter(|&used| used <= 4);
                let used = used.ok_or_else(|| bad("more words used than a counter gives"))?;
                Generator::NumpyPhilox(NumpyGenerator { bits: Philox4x64::at(counter, key, used, half) })
            }
        })
    }
}
