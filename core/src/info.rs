//! What this build is and what it runs on.

use crate::{arch, linalg, threads};

/// Version of the numeric definitions: it changes when the bits of any result may.
///
/// Equal versions give equal bits on any machine, so a stored hash should name it.
pub const NUMERICS_VERSION: i32 = 7;

/// One line that says what runs: `version`, `numerics`, `isa` in use, `available` levels,
/// `threads`, `backend`, `target`; `name=value` separated by single spaces.
///
/// ```
/// assert!(dgm_core::info::cpu_info().contains("isa="));
/// ```
pub fn cpu_info() -> String {
    let available: Vec<_> = arch::available_levels().iter().map(|l| l.name()).collect();
    format!(
        "version={} numerics={NUMERICS_VERSION} isa={} available={} threads={} backend={} target={}-{}",
        env!("CARGO_PKG_VERSION"),
        arch::level().name(),
        available.join(","),
        threads::num_threads(),
        linalg::described(),
        std::env::consts::ARCH,
        std::env::consts::OS,
    )
}
