//! Generation, checks and the demo: what needs more than cargo.
//!
//! `cargo run -p xtask -- demo | gallery | header [--check] | check | readme`

mod check;
mod demo;
mod doors;
mod gallery;
mod header;
mod julia_bindings;
mod readme;
mod render;
mod samplers;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// Every task reports its failure as one readable message.
type Result<T> = std::result::Result<T, Failure>;

/// Why a task failed, and the exit status that says so.
#[derive(Debug)]
struct Failure {
    message: String,
    status: u8,
}

impl<E: std::fmt::Display> From<E> for Failure {
    fn from(e: E) -> Self {
        Failure { message: e.to_string(), status: 1 }
    }
}

/// The root of the checkout.
fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The cargo that runs this, or else the one on PATH.
fn cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The header, the Julia bindings that are made from it, and the catalogue of the samplers.
fn generated(root: &Path, check: bool) -> Result<()> {
    header::run(root, check)?;
    julia_bindings::run(root, check)?;
    samplers::run(root, check)?;
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args[..] {
        ["demo"] => demo::run(&root()),
        ["gallery"] => gallery::run(&root()),
        ["header"] => generated(&root(), false),
        ["header", "--check"] => generated(&root(), true),
        ["check"] => check::run(&root()),
        ["readme"] => readme::run_blocks(&root()),
        _ => Err("usage: cargo run -p xtask -- demo | gallery | header [--check] | check | readme".into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {}", failure.message);
            ExitCode::from(failure.status)
        }
    }
}
