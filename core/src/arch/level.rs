//! Which instruction set runs: detection, the `DGM_ISA` override, dispatch.

use std::sync::atomic::{AtomicU8, Ordering};

use super::out_of_line::Portable;
use super::simd::Simd;
use crate::error::{Error, Result};

/// An instruction set level. All give the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Level {
    /// Plain Rust with a correctly rounded `mul_add` (slow without FMA hardware).
    Portable = 1,
    /// AArch64 NEON, four lanes.
    Neon = 2,
    /// AVX2 with FMA and F16C, eight lanes.
    Avx2 = 3,
    /// AVX-512 (F, BW, CD, DQ, VL), sixteen lanes.
    Avx512 = 4,
}

impl Level {
    /// The name that `DGM_ISA` accepts.
    pub fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            Level::Neon => "neon",
            Level::Avx2 => "avx2",
            Level::Avx512 => "avx512",
        }
    }

    fn from_name(name: &str) -> Option<Level> {
        [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512].into_iter().find(|l| l.name() == name)
    }

    fn is_available(self) -> bool {
        match self {
            Level::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => super::avx2::Avx2::new().is_some(),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => super::avx512::Avx512::<false>::new().is_some(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => true,
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

/// The levels this processor has, slowest first.
pub fn available_levels() -> Vec<Level> {
    [Level::Portable, Level::Neon, Level::Avx2, Level::Avx512]
        .into_iter()
        .filter(|l| l.is_available())
        .collect()
}

/// 0 until first use; then a `Level`. Relaxed is enough: the value is all that is shared, and
/// two threads that race compute the same one.
static ACTIVE: AtomicU8 = AtomicU8::new(0);

/// The level in use: the best the processor has, unless `DGM_ISA` or [`set_level`] chose another.
///
/// An unknown or unavailable `DGM_ISA` is ignored.
pub fn level() -> Level {
    match ACTIVE.load(Ordering::Relaxed) {
        1 => Level::Portable,
        2 => Level::Neon,
        3 => Level::Avx2,
        4 => Level::Avx512,
        _ => {
            let forced = std::env::var("DGM_ISA").ok().and_then(|v| Level::from_name(v.trim()));
            let best = *available_levels().last().unwrap_or(&Level::Portable);
            let chosen = forced.filter(|l| l.is_available()).unwrap_or(best);
            ACTIVE.store(chosen as u8, Ordering::Relaxed);
            chosen
        }
    }
}

/// Chooses the level for the whole process. Results do not depend on it.
///
/// # Errors
/// [`Error::Argument`] when the processor lacks it.
pub fn set_level(level: Level) -> Result<()> {
    if !level.is_available() {
        let names: Vec<_> = available_levels().iter().map(|l| l.name()).collect();
        return Err(Error::argument("level", level.name(), names.join(", ")));
    }
    ACTIVE.store(level as u8, Ordering::Relaxed);
    Ok(())
}

/// A computation written once for every level.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;
    /// Whether it spends its time in products of pairs of bfloat16.
    const DOTS: bool = false;
    /// Whether it spends its time in them, or in rounding to bfloat16.
    // Only x86-64 has faster instructions for that.
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    const BF16: bool = Self::DOTS;
    /// The body. Implementations are `#[inline(always)]`, as is everything they call.
    fn run<S: Simd>(self, s: S) -> Self::Output;
}

/// Whether [`Simd::DOTS`] holds where [`dispatch_at`] runs a kernel of [dots](Kernel::DOTS) at `level`.
pub(crate) fn dots_at(level: Level) -> bool {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => super::avx512::Avx512::<true>::new().is_some() && !super::avx512::dots_are_slow(),
        _ => false,
    }
}

/// Runs `kernel` at the active level.
#[inline]
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    dispatch_at(level(), kernel)
}

/// Runs `kernel` at `level`, or portably where the processor lacks it.
#[inline]
pub(crate) fn dispatch_at<K: Kernel>(level: Level, kernel: K) -> K::Output {
    match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 if K::BF16 && !(K::DOTS && super::avx512::dots_are_slow()) => {
            super::avx512::run_bf16(kernel)
        }
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => super::avx512::run(kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => super::avx2::run(kernel),
        #[cfg(target_arch = "aarch64")]
        Level::Neon => super::neon::run(kernel),
        _ => portably(kernel),
    }
}

/// Runs `kernel` without an instruction set. One copy serves every level's way out: kernels are large.
#[inline(never)]
pub(super) fn portably<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Portable)
}
