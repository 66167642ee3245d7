//! Writes `cases.txt`, `runs.txt` and `docs/HASHES.md`; with `--check`, says whether they are up to date.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let check = std::env::args().any(|a| a == "--check");
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = [
        (here.join("cases.txt"), dgm_conformance::cases_text()),
        (here.join("runs.txt"), dgm_conformance::runs_text()),
        (here.join("../../docs/HASHES.md"), dgm_conformance::hashes_text()),
    ];
    for (path, text) in files {
        if !check {
            std::fs::write(&path, text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        } else if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            eprintln!("{} is out of date: cargo run -p dgm-conformance", path.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
