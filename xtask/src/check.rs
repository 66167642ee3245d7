//! `xtask check`: the promises about the repository itself.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{Result, readme};

/// Where unsafe code may live: the instruction sets and the foreign interfaces.
const UNSAFE_ALLOWED: [&str; 4] = ["core/src/arch", "capi/src", "elixir/native", "benches/peers/rust"];
const RUST_FOLDERS: [&str; 5] = ["core", "capi", "elixir/native", "xtask/src", "benches"];

pub(crate) fn run(root: &Path) -> Result<()> {
    type Check = fn(&Path) -> Result<()>;
    let checks: [(&str, Check); 10] = [
        ("dgm.h, the Julia bindings and docs/SAMPLERS.md are what the source says", |root| {
            crate::generated(root, true)
        }),
        ("unsafe code stays in its places", layering),
        ("README.ja.md shows the commands and programs of README.md", readme::translations_agree),
        ("the repository names no machine", no_machine_paths),
        ("NUMERICS.md defines every listed kernel and this version", numerics),
        ("the C names in the documents exist", names_exist),
        ("the workspaces beside this one lock the engine's crates", lock_files_agree),
        ("the NIF and the whole workspace share one build of the engine", one_build),
        ("the gallery is the same from every language", crate::gallery::agrees),
        ("the programs of the README and the guides run", readme::run_blocks),
    ];
    let mut failed = 0;
    for (name, check) in checks {
        match check(root) {
            Ok(()) => println!("ok      {name}"),
            Err(e) => {
                failed += 1;
                println!("FAILED  {name}: {}", e.message);
            }
        }
    }
    println!("docs: {} passed, {failed} failed", checks.len() - failed);
    if failed == 0 { Ok(()) } else { Err("the checks above failed".into()) }
}

/// `unsafe` appears only below [`UNSAFE_ALLOWED`], and each block gives its reason (clippy's
/// `undocumented_unsafe_blocks` sees to that).
fn layering(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    for file in RUST_FOLDERS.iter().flat_map(|f| files(&root.join(f), "rs")) {
        let relative = file.strip_prefix(root).unwrap_or(&file);
        if UNSAFE_ALLOWED.iter().any(|a| relative.starts_with(a)) {
            continue;
        }
        for (number, line) in fs::read_to_string(&file)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or("");
            // Spelled so that this line is not a find of its own.
            let word = concat!("un", "safe");
            if code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|w| w == word)
                && !code.contains('"')
            {
                wrong.push(format!("{}:{}", relative.display(), number + 1));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ").into()) }
}

/// `docs/NUMERICS.md` has a section for every kernel of the conformance cases, and speaks of the
/// engine's numerics version.
fn numerics(root: &Path) -> Result<()> {
    let page = fs::read_to_string(root.join("docs/NUMERICS.md"))?;
    let info = fs::read_to_string(root.join("core/src/info.rs"))?;
    let cases = fs::read_to_string(root.join("tests/conformance/cases.txt"))?;
    let mut missing = missing_definitions(&page, &info, &cases);
    let mut source = String::new();
    for folder in ["core/src/math", "core/src/random"] {
        for file in files(&root.join(folder), "rs") {
            source += &fs::read_to_string(file)?;
        }
    }
    missing.extend(foreign_tables(&page, &source));
    if missing.is_empty() { Ok(()) } else { Err(format!("missing: {}", missing.join(", ")).into()) }
}

/// What `page` ought to say and does not.
fn missing_definitions(page: &str, info: &str, cases: &str) -> Vec<String> {
    let version = info
        .lines()
        .find_map(|line| line.strip_prefix("pub const NUMERICS_VERSION: i32 = ")?.strip_suffix(';'))
        .unwrap_or("of core/src/info.rs");
    let mut calls: Vec<&str> = cases.lines().filter_map(|line| line.strip_prefix("call ")).collect();
    calls.push("numerics_version");
    calls.sort_unstable();
    calls.dedup();
    let has_section = |name: &str| {
        let heading = format!("`{name}`");
        page.lines().any(|line| line.starts_with('#') && line.trim_start_matches('#').trim() == heading)
    };
    let sections = calls.into_iter().filter(|name| !has_section(name));
    let mut missing: Vec<_> = sections.map(|name| format!("a section `{name}`")).collect();
    let sentence = format!("numerics version {version}");
    if !page.contains(&format!("**{sentence}**")) {
        missing.push(format!("the words **{sentence}**"));
    }
    missing
}

/// The tables of constants of `page` (a name, then f32 bits) that do not stand in `source` as
/// literals in the same order.
fn foreign_tables(page: &str, source: &str) -> Vec<String> {
    use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI, FRAC_PI_2, LN_2, LOG2_E, TAU};
    // The source names these instead of writing them out.
    let named = [LN_2, LOG2_E, FRAC_2_PI, FRAC_PI_2, FRAC_1_SQRT_2, TAU / 4_294_967_296.0].map(f32::to_bits);
    let code =
        source.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let number = |word: &str| word.replace('_', "").parse::<f32>().ok().map(f32::to_bits);
    let written: Vec<u32> =
        code.split(|c: char| !c.is_ascii_alphanumeric() && !"._-".contains(c)).filter_map(number).collect();
    let mut tables = 0;
    let mut foreign = Vec::new();
    for line in page.lines() {
        let Some((name, row)) = line.strip_prefix("| `").and_then(|l| l.split_once("` | 0x")) else {
            continue;
        };
        let bits = row.trim_end_matches(" |").split(" 0x").map(|b| u32::from_str_radix(b, 16).unwrap_or(0));
        let bits: Vec<u32> = bits.skip_while(|b| named.contains(b)).collect();
        tables += 1;
        if !bits.is_empty() && !written.windows(bits.len()).any(|w| w == bits) {
            foreign.push(format!("the constants {name} in the source"));
        }
    }
    if tables == 0 {
        foreign.push("tables of constants".to_string());
    }
    foreign
}

/// The workspaces that `cargo build` never reads have lock files of their own, which are used with `--locked`.
fn lock_files_agree(root: &Path) -> Result<()> {
    let manifest = fs::read_to_string(root.join("core/Cargo.toml"))?;
    let dev = manifest.split_once("[dev-dependencies]\n").map_or("", |(_, rest)| rest);
    let dev = dev.lines().take_while(|line| !line.starts_with('['));
    // As a lock file lists them; only the engine's own has those of its tests.
    let dev: Vec<String> =
        dev.filter_map(|line| line.split(['.', ' ']).next()).map(|n| format!("\"{n}\",")).collect();
    let needs = |lock: &str| -> Option<Vec<String>> {
        let (_, rest) = lock.split_once("name = \"dgm-core\"\n")?;
        let lines = rest.split("[[package]]").next()?.trim().lines().map(|line| line.trim().to_string());
        Some(lines.filter(|line| !dev.contains(line)).collect())
    };
    let own = needs(&fs::read_to_string(root.join("Cargo.lock"))?);
    let mut stale = Vec::new();
    for folder in ["fuzz", "julia/jlrs"] {
        let theirs = needs(&fs::read_to_string(root.join(folder).join("Cargo.lock"))?);
        if own.is_none() || theirs != own {
            stale.push(format!("{folder}/Cargo.lock is stale: cargo metadata there"));
        }
    }
    if stale.is_empty() { Ok(()) } else { Err(stale.join(", ").into()) }
}

/// What `cargo build -p dgm_nif` builds, as mix does, is a part of what `cargo build` builds: no crate has fewer
/// features, so the engine is not compiled twice.
fn one_build(root: &Path) -> Result<()> {
    let crates = |of: &[&str]| -> Result<Vec<String>> {
        let args = ["tree", "--offline", "--edges", "normal", "--prefix", "none", "--format", "{p} [{f}]"];
        let output = crate::cargo().args(args).args(of).current_dir(root).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(|l| l.replace(" (*)", "")).collect())
    };
    let all = crates(&[])?;
    let twice: Vec<String> =
        crates(&["--package", "dgm_nif"])?.into_iter().filter(|c| !all.contains(c)).collect();
    if twice.is_empty() { Ok(()) } else { Err(format!("with other features: {}", twice.join(", ")).into()) }
}

/// Every `dgm_...` name in a Markdown file of `docs` or the root is one of `dgm.h`.
fn names_exist(root: &Path) -> Result<()> {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_').map(str::to_string).collect()
    };
    let known = words(&fs::read_to_string(root.join("include/dgm.h"))?);
    let readmes = ["README.md", "README.ja.md"].map(|name| root.join(name));
    let mut wrong = Vec::new();
    for file in files(&root.join("docs"), "md").into_iter().chain(readmes) {
        for word in words(&fs::read_to_string(&file)?) {
            // The crates are named alike.
            if word.starts_with("dgm_") && word != "dgm_core" && word != "dgm_nif" && !known.contains(&word) {
                wrong.push(format!("{word} in {}", file.strip_prefix(root).unwrap_or(&file).display()));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ").into()) }
}

/// No file carries an absolute path of somebody's machine, that of this checkout among them.
fn no_machine_paths(root: &Path) -> Result<()> {
    let mut wrong = Vec::new();
    let kinds = ["rs", "c", "h", "jl", "ex", "exs", "md", "py", "sh", "toml", "json", "svg"];
    let own = format!("{}/", fs::canonicalize(root)?.display());
    for folder in
        ["core", "capi", "julia", "elixir", "xtask", "docs", "models", "tests", "benches", "include"]
    {
        for file in kinds.iter().flat_map(|k| files(&root.join(folder), k)) {
            let text = fs::read_to_string(&file)?;
            if ["/home/", "/Users/", "/root/", &own].iter().any(|p| text.contains(p))
                && !file.ends_with("xtask/src/check.rs")
            {
                wrong.push(file.strip_prefix(root).unwrap_or(&file).display().to_string());
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join(", ").into()) }
}

/// Files with an extension below a folder, build outputs left out, in a fixed order.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if !["target", "_build", "deps"].iter().any(|skip| name == *skip) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|e| e == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::{foreign_tables, missing_definitions};

    #[test]
    fn a_kernel_without_a_section_is_found() {
        let info = "pub const NUMERICS_VERSION: i32 = 3;\n";
        let page = "# `numerics_version`\nThis is **numerics version 3**.\n### `linear`\n";
        assert!(missing_definitions(page, info, "call linear\n").is_empty());
        assert_eq!(missing_definitions(page, info, "call linear\ncall gelu\n"), ["a section `gelu`"]);
        assert_eq!(
            missing_definitions(page, "pub const NUMERICS_VERSION: i32 = 4;", ""),
            ["the words **numerics version 4**"]
        );
        assert_eq!(missing_definitions("**numerics version 3**", info, "").len(), 1);
    }

    #[test]
    fn a_changed_constant_is_found() {
        let page = "| `exp.q` | 0x40000000 0xbf000000 |\n| `exp.ln2` | 0x3f317218 0x3a83126f |\n";
        let source = "s.splat(2.0); // 3.0\ns.splat(-0.5); const LO: f32 = 1.0e-3;";
        assert!(foreign_tables(page, source).is_empty());
        assert_eq!(
            foreign_tables(page, &source.replace("-0.5", "-0.500_000_1")),
            ["the constants exp.q in the source"]
        );
        assert_eq!(foreign_tables("", source), ["tables of constants"]);
    }
}
