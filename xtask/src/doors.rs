//! The example programs of the four languages.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Failure, Result};

pub(crate) const DOORS: [&str; 4] = ["rust", "c", "julia", "elixir"];

/// The example of this name behind a door, compiled where that is needed.
pub(crate) fn program(root: &Path, door: &str, example: &str) -> Result<Command> {
    Ok(match door {
        "rust" => {
            let build = ["build", "-q", "--release", "--example", example];
            if !crate::cargo().args(build).current_dir(root).status()?.success() {
                return Err("the Rust example does not build".into());
            }
            Command::new(root.join("target/release/examples").join(example))
        }
        "c" => Command::new(compile_c(root, &root.join(format!("capi/examples/{example}.c")))?),
        "julia" => {
            let mut c = Command::new("julia");
            c.arg("--startup-file=no");
            c.arg(format!("--project={}", root.join("julia").display()))
                .arg(root.join(format!("julia/examples/{example}.jl")));
            c
        }
        _ => {
            let mut c = Command::new("mix");
            c.args(["run", &format!("examples/{example}.exs")]).current_dir(root.join("elixir"));
            c
        }
    })
}

/// Runs the program of a door; returns what it printed.
pub(crate) fn output(door: &str, mut command: Command) -> Result<String> {
    let output = command.output().map_err(|e| missing(door, &command, e))?;
    if !output.status.success() {
        return Err(format!("the {door} example failed:\n{}", String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Compiles a C program against the header and the shared library of this checkout.
pub(crate) fn compile_c(root: &Path, source: &Path) -> Result<PathBuf> {
    let stem = source.file_stem().ok_or("a C source without a name")?;
    let program = root.join("target/c-examples").join(stem);
    let mut command = Command::new("sh");
    command.arg(root.join("capi/cc.sh")).arg(source).arg(&program);
    let output = command.output().map_err(|e| missing("c", &command, e))?;
    if !output.status.success() {
        return Err(format!("{}: {}", source.display(), String::from_utf8_lossy(&output.stderr)).into());
    }
    Ok(program)
}

/// A door whose language is not installed ends the demo with status 3 and the line that helps.
fn missing(door: &str, command: &Command, e: std::io::Error) -> Failure {
    let program = command.get_program().to_string_lossy().into_owned();
    let brew = match door {
        "julia" => "brew install julia",
        "elixir" => "brew install elixir",
        _ => "xcode-select --install",
    };
    let help = if cfg!(target_os = "macos") { brew } else { "make setup" };
    Failure { message: format!("{program}: {e}; the {door} door needs it: {help}"), status: 3 }
}
