//! Writes `cases.txt`, `runs.txt` and `docs/HASHES.md`; the tests say whether they are up to date.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::write(here.join("cases.txt"), dgm_conformance::cases_text())?;
    std::fs::write(here.join("runs.txt"), dgm_conformance::runs_text())?;
    std::fs::write(here.join("../../docs/HASHES.md"), dgm_conformance::hashes_text())
}
