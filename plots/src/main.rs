//! `dgm-plots gallery FOLDER [rows=N] [seed=N]` writes `GALLERY.md` and `gallery.svg` there;
//! `dgm-plots KIND FILE [rows=N] [seed=N] [plan=FILE | preset=NAME] [OPTION=VALUE ...]`
//!
//! KIND is `grid` (where the steps lie), `line` or `plane` (trajectories of one or two numbers under an
//! exact model). Options are those of a plan, lists with commas: `solver=heun steps=10 sigmas=10,3,1,0`.
//! `plan` is a file with a serialised plan of any language.

use std::process::ExitCode;

use dgm_core::random::row_seeds;
use dgm_core::sampling::{OptionValue, Plan, PlanOptions};
use dgm_plots::{Result, gallery, grid, trajectories, walk};

const USAGE: &str = "usage: dgm-plots gallery FOLDER [rows=N] [seed=N], or dgm-plots grid|line|plane FILE.svg [rows=N] [seed=N] [plan=FILE | preset=NAME] [OPTION=VALUE ...]";

/// A value as it is written on a command line.
fn value(text: &str) -> OptionValue {
    let number = |s: &str| s.trim().parse::<f64>().ok();
    match (text, number(text)) {
        ("true" | "false", _) => OptionValue::Flag(text == "true"),
        (_, Some(v)) => OptionValue::Number(v),
        _ if text.contains(',') => {
            let list: Option<Vec<f64>> = text.split(',').filter(|s| !s.is_empty()).map(number).collect();
            list.map_or_else(|| OptionValue::Name(text.to_string()), OptionValue::List)
        }
        _ => OptionValue::Name(text.to_string()),
    }
}

fn count(name: &str, text: &str) -> Result<u64> {
    text.parse().map_err(|_| format!("{name} is {text}, expected a whole number").into())
}

fn run(args: &[String]) -> Result<()> {
    let [kind, file, settings @ ..] = args else { return Err(USAGE.into()) };
    let (mut rows, mut seed, mut stored) = (if kind == "gallery" { 500 } else { 48 }, 1, None);
    let mut options = PlanOptions::default();
    for setting in settings {
        let (name, text) = setting.split_once('=').ok_or_else(|| format!("{setting}: {USAGE}"))?;
        match name {
            "rows" => rows = count(name, text)?,
            "seed" => seed = count(name, text)?,
            "plan" => stored = Some(std::fs::read(text).map_err(|e| format!("{text}: {e}"))?),
            "preset" => options = PlanOptions::preset(text)?,
            _ => options.set(name, value(text))?,
        }
    }
    if !(1..=10_000).contains(&rows) {
        return Err(format!("rows is {rows}, expected 1 to 10000").into());
    }
    if kind == "gallery" {
        let (picture, page) = gallery(rows as usize, seed, None)?;
        for (name, text) in [("gallery.svg", picture), ("GALLERY.md", page)] {
            write(&std::path::Path::new(file).join(name), &text)?;
        }
        return Ok(());
    }
    let plan = match stored {
        Some(bytes) => Plan::from_bytes(&bytes)?,
        None => Plan::compile(&options)?,
    };
    let seeds = row_seeds(seed, rows as usize);
    let text = match kind.as_str() {
        "grid" => grid(&plan)?,
        "line" => trajectories(&plan, &walk(&plan, &seeds, 1)?)?,
        "plane" => trajectories(&plan, &walk(&plan, &seeds, 2)?)?,
        other => return Err(format!("{other}: {USAGE}").into()),
    };
    write(std::path::Path::new(file), &text)
}

fn write(file: &std::path::Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    println!("{}", file.display());
    Ok(())
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("dgm-plots: {e}");
            ExitCode::FAILURE
        }
    }
}
