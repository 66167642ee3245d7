//! Versions, threads, processor.

use dgm_core::arch::FpEnv;
use dgm_core::threads;

use crate::failure::Reply;

#[rustler::nif]
fn version() -> &'static str {
    let _fp = FpEnv::enter();
    env!("CARGO_PKG_VERSION")
}

#[rustler::nif]
fn numerics_version() -> i32 {
    let _fp = FpEnv::enter();
    dgm_core::info::NUMERICS_VERSION
}

#[rustler::nif]
fn isa() -> &'static str {
    let _fp = FpEnv::enter();
    dgm_core::arch::level().name()
}

#[rustler::nif(schedule = "DirtyCpu")]
fn cpu_info() -> String {
    let _fp = FpEnv::enter();
    dgm_core::info::cpu_info()
}

#[rustler::nif]
fn num_threads() -> usize {
    let _fp = FpEnv::enter();
    threads::num_threads()
}

/// Starts or replaces the pool, hence not on a normal scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn set_num_threads(count: usize) -> Reply<usize> {
    let _fp = FpEnv::enter();
    threads::set_num_threads(count)?;
    Ok(threads::num_threads())
}
