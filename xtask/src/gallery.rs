//! `make gallery`: the page of pictures, of samples that any language draws.

use std::fs;
use std::path::Path;

use dgm_plots::{gallery, gallery_cases};

use crate::Result;
use crate::doors::{self, DOORS};

const ROWS: usize = 500;
const SEED: u64 = 1;

/// Writes `docs/GALLERY.md` and its picture; `DOOR` of the environment says who draws the samples.
pub(crate) fn run(root: &Path) -> Result<()> {
    let door = std::env::var("DOOR").ok().filter(|d| !d.trim().is_empty());
    let door = door.as_deref().unwrap_or("rust").trim();
    if !DOORS.contains(&door) {
        return Err(format!("DOOR is {door:?}, expected one of {}", DOORS.join(", ")).into());
    }
    let points = if door == "rust" { None } else { Some(draw(root, door, ROWS, SEED)?) };
    let (picture, page) = gallery(ROWS, SEED, points.as_deref()).map_err(|e| e.to_string())?;
    for (name, text) in [("docs/gallery.svg", picture), ("docs/GALLERY.md", page)] {
        fs::write(root.join(name), text)?;
        println!("{name}");
    }
    Ok(())
}

/// Whether every language draws the same picture, of a few samples.
pub(crate) fn agrees(root: &Path) -> Result<()> {
    const FEW: usize = 5;
    let picture = |points: Option<&[f32]>| gallery(FEW, SEED, points).map_err(|e| e.to_string());
    let (expected, _) = picture(None)?;
    for door in DOORS.into_iter().filter(|d| *d != "rust") {
        let points = draw(root, door, FEW, SEED)?;
        if picture(Some(&points))?.0 != expected {
            return Err(format!("{door} draws another picture").into());
        }
    }
    Ok(())
}

/// The samples that a program in another language draws.
fn draw(root: &Path, door: &str, rows: usize, seed: u64) -> Result<Vec<f32>> {
    let out = root.join("out");
    fs::create_dir_all(&out)?;
    let (cases, points) = (out.join("gallery.txt"), out.join(format!("gallery-{door}.f32")));
    fs::write(&cases, gallery_cases(rows, seed).map_err(|e| e.to_string())?)?;
    let mut command = doors::program(root, door, "gallery")?;
    command.arg(&cases).arg(&points);
    doors::output(door, command)?;
    let bytes = fs::read(&points)?;
    Ok(bytes.as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b)).collect())
}
