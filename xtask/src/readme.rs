//! The README and the guides are tested: its programs are extracted and run, its translation kept in step.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::{Failure, Result, doors};

/// A fenced block of a Markdown file.
struct Block {
    language: String,
    code: String,
    line: usize,
}

fn blocks(root: &Path, file: &str) -> Result<Vec<Block>> {
    let text = fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"))?;
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(Block {
                    language: language.trim().to_string(),
                    code: String::new(),
                    line: number + 1,
                });
            }
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some(block), None) => {
                block.code.push_str(line);
                block.code.push('\n');
            }
            (None, None) => {}
        }
    }
    Ok(found)
}

/// Every code block of README.md stands in README.ja.md, to the letter and in order.
pub(crate) fn translations_agree(root: &Path) -> Result<()> {
    let (ours, theirs) = (blocks(root, "README.md")?, blocks(root, "README.ja.md")?);
    for (a, b) in ours.iter().zip(&theirs) {
        if a.language != b.language || a.code != b.code {
            return Err(format!("README.md line {} and README.ja.md line {} differ", a.line, b.line).into());
        }
    }
    if ours.len() != theirs.len() {
        return Err(format!("{} blocks in README.md, {} in README.ja.md", ours.len(), theirs.len()).into());
    }
    Ok(())
}

/// Runs the rust, c, julia and elixir blocks of the README and of the guides from the root of the checkout.
pub(crate) fn run_blocks(root: &Path) -> Result<()> {
    ["README.md", "docs/NOISE.md", "docs/MODELS.md"]
        .into_iter()
        .try_for_each(|file| run_blocks_of(root, file))
}

fn run_blocks_of(root: &Path, file: &str) -> Result<()> {
    let folder = root.join("target/readme");
    fs::create_dir_all(&folder)?;
    let mut ran = 0;
    for block in blocks(root, file)? {
        let mut command = match block.language.as_str() {
            "rust" => rust(root, &folder, &block)?,
            "c" => {
                let source = folder.join(format!("readme_{}.c", block.line));
                fs::write(&source, &block.code)?;
                Command::new(doors::compile_c(root, &source)?)
            }
            "julia" => {
                let source = folder.join("readme.jl");
                fs::write(&source, &block.code)?;
                let mut c = Command::new("julia");
                c.arg("--startup-file=no")
                    .arg(format!("--project={}", root.join("julia").display()))
                    .arg(source);
                c
            }
            "elixir" => {
                let source = folder.join("readme.exs");
                // mix runs in elixir/, the README speaks from the root.
                fs::write(&source, format!("File.cd!({:?})\n{}", root.display().to_string(), block.code))?;
                let mut c = Command::new("mix");
                c.arg("run").arg(source).current_dir(root.join("elixir"));
                c
            }
            _ => continue,
        };
        if block.language != "elixir" {
            command.current_dir(root);
        }
        let output = command.output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
        if !output.status.success() {
            return Err(Failure::from(format!(
                "the {} block at {file} line {} failed:\n{}{}",
                block.language,
                block.line,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            )));
        }
        ran += 1;
    }
    if ran < 4 { Err(format!("{ran} programs in {file}, expected one a language").into()) } else { Ok(()) }
}

/// A crate of one file that depends on the checkout, built into the checkout's target folder.
fn rust(root: &Path, folder: &Path, block: &Block) -> Result<Command> {
    let name = format!("readme_{}", block.line);
    let krate = folder.join(&name);
    fs::create_dir_all(krate.join("src"))?;
    fs::write(krate.join("src/main.rs"), &block.code)?;
    let manifest = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.0.0\"\nedition = \"2024\"\n\n[workspace]\n\n[dependencies]\n\
         dgm-core = {{ path = {:?} }}\nndarray = \"0.17\"\n",
        root.join("core").display().to_string()
    );
    fs::write(krate.join("Cargo.toml"), manifest)?;
    // The same versions as the checkout, and no look at the registry for newer ones.
    fs::copy(root.join("Cargo.lock"), krate.join("Cargo.lock"))?;
    let mut command = crate::cargo();
    command.args(["run", "-q", "--release", "--manifest-path"]).arg(krate.join("Cargo.toml"));
    command.arg("--target-dir").arg(folder.join("target"));
    Ok(command)
}
