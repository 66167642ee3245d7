//! The Elixir door: NIFs that check, view the caller's binaries and call `dgm-core`.
//!
//! No arithmetic lives here. A NIF returns `{:ok, value}` or `{:error, {code, message}}`;
//! `lib/dgm/native.ex` turns the latter into a raise or an error tuple. Work that may take
//! longer than a millisecond runs on the dirty CPU schedulers.

mod attention;
mod cache;
mod chain;
mod compat;
mod dit;
mod failure;
mod flux;
mod linear;
mod llama;
mod memory;
mod mixture;
mod nn;
mod operations;
mod plan;
mod random;
mod rbm;
mod run;
mod sd3;
mod spare;
mod system;
mod tensor;
mod typed;
mod varlen;

use rustler::{Env, Term};

/// Refuses a library of another version than the Elixir code that loads it.
fn load(_env: Env, version: Term) -> bool {
    version.decode::<&str>().is_ok_and(|v| v == env!("CARGO_PKG_VERSION"))
}

rustler::init!("Elixir.DGM.Native", load = load);
