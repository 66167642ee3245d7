//! The random numbers of PyTorch, NumPy, JAX, Nx and torchsde, so that a pipeline's starting noise
//! can be had again without it.
//!
//! | type | repeats |
//! |---|---|
//! | [`TorchCpu`] | `torch.manual_seed(s)`, `torch.randn`, `torch.rand` on the CPU |
//! | [`TorchCuda`] | `torch.randn(..., device="cuda")` |
//! | [`NumpyGenerator`] | `numpy.random.default_rng(s)` (PCG64), `Generator(Philox(s))` |
//! | [`NumpyRandomState`] | `numpy.random.seed(s)`, `RandomState(s)` |
//! | [`jax`] | `jax.random` (both values of `jax_threefry_partitionable`) and `Nx.Random` |
//! | [`BrownianTree`] | `torchsde.BrownianTree`, k-diffusion's `BrownianTreeNoiseSampler` |
//!
//! A [`Generator`] is any of the first four rows: a value that continues from call to call and that can be
//! written to bytes ([`Generator::to_bytes`]) and read again. Tensors are filled in row-major order. The
//! engine's own noise is [`normal`](crate::random::normal), which does not depend on the order of draws: use
//! these generators to compare with another system, not instead of it.
//!
//! How near the numbers are to the original is said in docs/NUMERICS.md; they are the same at every
//! instruction set here, which the originals do not promise.

mod bits64;
mod brownian;
mod float64;
pub mod jax;
mod mt19937;
mod numpy;
mod random_state;
mod seed_sequence;
mod state;
#[cfg(test)]
mod tests;
mod torch_block;
mod torch_cpu;
mod torch_cuda;
mod ziggurat;

use crate::error::{Error, Result};

pub use brownian::BrownianTree;
pub use numpy::NumpyGenerator;
pub use random_state::NumpyRandomState;
pub use state::STATE_BYTES;
pub use torch_cpu::TorchCpu;
pub use torch_cuda::TorchCuda;

use bits64::{Pcg64, Philox4x64};

/// Which generator of which system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Algorithm {
    /// PyTorch on the CPU.
    TorchCpu = 0,
    /// PyTorch on CUDA devices: normal numbers in f32 only.
    TorchCuda = 1,
    /// NumPy's `default_rng`.
    NumpyPcg64 = 2,
    /// NumPy's `Generator(Philox(seed))`.
    NumpyPhilox = 3,
    /// NumPy's `RandomState` and `numpy.random.seed`: seeds below 2^32.
    NumpyRandomState = 4,
}

impl Algorithm {
    /// Every algorithm.
    pub const ALL: &[Algorithm] = &[
        Algorithm::TorchCpu,
        Algorithm::TorchCuda,
        Algorithm::NumpyPcg64,
        Algorithm::NumpyPhilox,
        Algorithm::NumpyRandomState,
    ];

    /// Its name in the other languages.
    pub fn name(self) -> &'static str {
        match self {
            Algorithm::TorchCpu => "torch_cpu",
            Algorithm::TorchCuda => "torch_cuda",
            Algorithm::NumpyPcg64 => "numpy_pcg64",
            Algorithm::NumpyPhilox => "numpy_philox",
            Algorithm::NumpyRandomState => "numpy_random_state",
        }
    }

    /// The algorithm of a number.
    ///
    /// # Errors
    /// [`Error::Argument`] for a number without an algorithm.
    pub fn from_number(n: u32) -> Result<Self> {
        let found = Self::ALL.iter().find(|a| **a as u32 == n);
        found.copied().ok_or_else(|| Error::argument("algorithm", n, format!("0 to {}", Self::ALL.len() - 1)))
    }

    /// The algorithm of a name.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name without an algorithm.
    pub fn from_name(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|a| a.name() == name);
        let names: Vec<_> = Self::ALL.iter().map(|a| a.name()).collect();
        found.copied().ok_or_else(|| Error::argument("algorithm", name, names.join(", ")))
    }
}

/// A generator of another system, at some place of its stream.
///
/// ```
/// use dgm_core::random::compat::{Algorithm, Generator};
/// // torch.manual_seed(0); torch.randn(4)
/// let mut torch = Generator::new(Algorithm::TorchCpu, 0)?;
/// let mut noise = [0.0; 4];
/// torch.normal(&mut noise)?;
/// assert_eq!(noise, [1.5409961, -0.2934289, -2.1787894, 0.56843126]);
/// # Ok::<(), dgm_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Generator {
    /// See [`TorchCpu`].
    TorchCpu(TorchCpu),
    /// See [`TorchCuda`].
    TorchCuda(TorchCuda),
    /// See [`NumpyGenerator`].
    NumpyPcg64(NumpyPcg64),
    /// See [`NumpyGenerator`].
    NumpyPhilox(NumpyPhilox),
    /// See [`NumpyRandomState`].
    NumpyRandomState(NumpyRandomState),
}

/// `numpy.random.default_rng(seed)`.
pub type NumpyPcg64 = NumpyGenerator<Pcg64>;
/// `numpy.random.Generator(numpy.random.Philox(seed))`.
pub type NumpyPhilox = NumpyGenerator<Philox4x64>;

impl NumpyPcg64 {
    /// As `default_rng(seed)`.
    pub fn new(seed: u64) -> Self {
        NumpyGenerator { bits: Pcg64::new(seed) }
    }
}

impl NumpyPhilox {
    /// As `Generator(Philox(seed))`.
    pub fn new(seed: u64) -> Self {
        NumpyGenerator { bits: Philox4x64::new(seed) }
    }
}

impl Generator {
    /// A generator at the start of the stream of a seed. PyTorch's generator on the CPU uses the lower 32 bits.
    ///
    /// # Errors
    /// [`Error::Range`] for a seed of [`NumpyRandomState`] from 2^32 on, which NumPy refuses.
    pub fn new(algorithm: Algorithm, seed: u64) -> Result<Self> {
        Ok(match algorithm {
            Algorithm::TorchCpu => Generator::TorchCpu(TorchCpu::new(seed)),
            Algorithm::TorchCuda => Generator::TorchCuda(TorchCuda::new(seed)),
            Algorithm::NumpyPcg64 => Generator::NumpyPcg64(NumpyPcg64::new(seed)),
            Algorithm::NumpyPhilox => Generator::NumpyPhilox(NumpyPhilox::new(seed)),
            Algorithm::NumpyRandomState => {
                let seed = u32::try_from(seed)
                    .map_err(|_| Error::range("seed", seed, "below 2^32 for numpy_random_state"))?;
                Generator::NumpyRandomState(NumpyRandomState::new(seed))
            }
        })
    }

    /// Which generator it is.
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Generator::TorchCpu(_) => Algorithm::TorchCpu,
            Generator::TorchCuda(_) => Algorithm::TorchCuda,
            Generator::NumpyPcg64(_) => Algorithm::NumpyPcg64,
            Generator::NumpyPhilox(_) => Algorithm::NumpyPhilox,
            Generator::NumpyRandomState(_) => Algorithm::NumpyRandomState,
        }
    }

    /// The next tensor of normal numbers in f32: `torch.randn(n)`, `standard_normal(n, dtype=float32)`,
    /// `randn(n).astype(float32)` of a `RandomState`.
    ///
    /// # Errors
    /// [`Error::Overflow`] from 2^32 numbers of [`TorchCuda`] on.
    pub fn normal(&mut self, out: &mut [f32]) -> Result<()> {
        match self {
            Generator::TorchCpu(g) => g.normal(out),
            Generator::TorchCuda(g) => return g.normal(out),
            Generator::NumpyPcg64(g) => g.normal(out),
            Generator::NumpyPhilox(g) => g.normal(out),
            Generator::NumpyRandomState(g) => g.normal(out),
        }
        Ok(())
    }

    /// The next tensor of normal numbers in f64.
    ///
    /// # Errors
    /// [`Error::Argument`] for [`TorchCuda`].
    pub fn normal_f64(&mut self, out: &mut [f64]) -> Result<()> {
        match self {
            Generator::TorchCpu(g) => g.normal_f64(out),
            Generator::TorchCuda(_) => return Err(only_f32()),
            Generator::NumpyPcg64(g) => g.normal_f64(out),
            Generator::NumpyPhilox(g) => g.normal_f64(out),
            Generator::NumpyRandomState(g) => g.normal_f64(out),
        }
        Ok(())
    }

    /// The next tensor of uniform numbers in [0, 1) in f32: `torch.rand(n)`, `random(n, dtype=float32)`,
    /// `random_sample(n).astype(float32)` of a `RandomState` (which can round to 1).
    ///
    /// # Errors
    /// [`Error::Argument`] for [`TorchCuda`].
    pub fn uniform(&mut self, out: &mut [f32]) -> Result<()> {
        match self {
            Generator::TorchCpu(g) => g.uniform(out),
            Generator::TorchCuda(_) => return Err(only_f32()),
            Generator::NumpyPcg64(g) => g.uniform(out),
            Generator::NumpyPhilox(g) => g.uniform(out),
            Generator::NumpyRandomState(g) => g.uniform(out),
        }
        Ok(())
    }

    /// The next tensor of uniform numbers in [0, 1) in f64.
    ///
    /// # Errors
    /// [`Error::Argument`] for [`TorchCuda`].
    pub fn uniform_f64(&mut self, out: &mut [f64]) -> Result<()> {
        match self {
            Generator::TorchCpu(g) => g.uniform_f64(out),
            Generator::TorchCuda(_) => return Err(only_f32()),
            Generator::NumpyPcg64(g) => g.uniform_f64(out),
            Generator::NumpyPhilox(g) => g.uniform_f64(out),
            Generator::NumpyRandomState(g) => g.uniform_f64(out),
        }
        Ok(())
    }
}

fn only_f32() -> Error {
    Error::argument("algorithm", "torch_cuda", "one of the others: torch_cuda has normal numbers in f32 only")
}
