//! `make demo`: draws digits through every door and compares the bytes.

use std::fs;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use dgm_core::models::Dit;
use dgm_core::random::row_seeds;
use dgm_core::sampling::{Ask, Plan, Role, Run};
use ndarray::{ArrayView4, ArrayViewMut4};
use sha2::{Digest, Sha256};

use crate::doors::{self, DOORS};
use crate::render::{self, Digits};
use crate::{Failure, Result};

/// The step at which the resumed run changes its language.
const HANDOVER_STEP: usize = 7;

/// What the environment asks for: `SEED`, `STEPS`, `LABELS`, `N`, `DOORS`.
struct Wish {
    seed: u64,
    steps: usize,
    labels: Vec<i64>,
    doors: Vec<String>,
}

impl Wish {
    fn read(model: &Dit) -> Result<Self> {
        let classes = model.config().num_classes as i64;
        let pattern: Vec<i64> = match set("LABELS") {
            None => (0..classes).collect(),
            Some(text) => text
                .split([',', ' '])
                .filter(|s| !s.is_empty())
                .map(|s| s.parse().ok().filter(|l| (0..=classes).contains(l)))
                .collect::<Option<_>>()
                .ok_or_else(|| {
                    Failure::from(format!(
                        "LABELS is {text:?}, expected numbers 0 to {classes}, separated by commas"
                    ))
                })?,
        };
        if pattern.is_empty() {
            return Err("LABELS names no class".into());
        }
        let n: usize = number("N", 64)?;
        if !(1..=4096).contains(&n) {
            return Err(format!("N is {n}, expected 1 to 4096").into());
        }
        let steps = number("STEPS", model.plan_options()?.steps)?;
        let doors = match set("DOORS") {
            None => DOORS.map(String::from).to_vec(),
            Some(text) => text.split([',', ' ']).filter(|s| !s.is_empty()).map(String::from).collect(),
        };
        if let Some(unknown) = doors.iter().find(|d| !DOORS.contains(&d.as_str())) {
            return Err(format!("DOORS names {unknown:?}, expected some of {}", DOORS.join(", ")).into());
        }
        let labels = pattern.iter().copied().cycle().take(n).collect();
        Ok(Wish { seed: number("SEED", 351)?, steps, labels, doors })
    }
}

fn set(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.trim().is_empty())
}

fn number<T: std::str::FromStr>(name: &str, default: T) -> Result<T> {
    match set(name) {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse()
            .map_err(|_| Failure::from(format!("{name} is {text:?}, expected a whole number"))),
    }
}

pub(crate) fn run(root: &Path) -> Result<()> {
    let model_path = root.join("models/digits.safetensors");
    let model = Dit::load(&model_path)?;
    let wish = Wish::read(&model)?;
    let out = root.join("out");
    fs::create_dir_all(&out)?;

    let frames = draw(&model, &wish)?;
    let png = out.join("digits.png");
    render::write_animation(&png, &frames)?;
    let last = frames.last().ok_or("no frame was drawn")?;
    let expected = hash(&bytes(&last.pixels));

    let args = Args { model: model_path, wish: &wish };
    let mut agree = true;
    for door in &wish.doors {
        let file = out.join(format!("{door}.f32"));
        let said = call(root, door, &args, &["--out".as_ref(), file.as_ref()])?;
        let found = hash(&fs::read(&file)?);
        agree &= found == expected;
        report(door, &wish, &said, &found)?;
    }
    let both = ["rust", "elixir"].iter().all(|d| wish.doors.iter().any(|w| w == d));
    if both && wish.steps > HANDOVER_STEP {
        let block = out.join("stopped.run");
        let file = out.join("resumed.f32");
        let stop = HANDOVER_STEP.to_string();
        call(
            root,
            "rust",
            &args,
            &["--stop-at".as_ref(), stop.as_ref(), "--export".as_ref(), block.as_ref()],
        )?;
        let said = call(
            root,
            "elixir",
            &args,
            &["--resume".as_ref(), block.as_ref(), "--out".as_ref(), file.as_ref()],
        )?;
        let found = hash(&fs::read(&file)?);
        agree &= found == expected;
        report(&format!("rust, stopped at step {HANDOVER_STEP} -> elixir"), &wish, &said, &found)?;
    }
    println!("{}", png.strip_prefix(root).unwrap_or(&png).display());
    if agree { Ok(()) } else { Err("the hashes differ: the doors did not produce the same bytes".into()) }
}

/// Samples in this process and shows every step; the frames become the picture.
fn draw(model: &Dit, wish: &Wish) -> Result<Vec<Digits>> {
    let c = model.config();
    let (n, elements) = (wish.labels.len(), c.channels * c.height * c.width);
    let shape = (n, c.channels, c.height, c.width);
    let mut options = model.plan_options()?;
    options.steps = wish.steps;
    let plan = Plan::compile(&options)?;
    let mut state = vec![0.0; plan.state_len(n, elements)?];
    let mut run = Run::start(&plan, &row_seeds(wish.seed, n), elements, None, &mut state)?;
    let mut workspace = vec![0.0; model.workspace_len(n)?];
    let (mut t, mut y) = (vec![0.0; n], vec![0.0; n * elements]);
    let null = vec![c.num_classes as i64; n];

    let frame = |run: &Run, state: &[f32]| -> Result<Digits> {
        Ok(Digits {
            pixels: run.result(&plan, state)?.to_vec(),
            labels: wish.labels.clone(),
            height: c.height,
            width: c.width,
        })
    };
    let mut frames = vec![frame(&run, &state)?];
    let mut screen = Screen::new();
    screen.show(&frames[0], 0)?;
    let mut step = 0;
    while let Ask::Eval(request) = run.ask(&plan)? {
        if request.step != step {
            step = request.step;
            frames.push(frame(&run, &state)?);
            screen.show(&frames[frames.len() - 1], step as usize)?;
        }
        run.row_times(&plan, &mut t)?;
        let labels = if request.role == Role::Uncond { &null } else { &wish.labels };
        let x = ArrayView4::from_shape(shape, run.input(&plan, &state)?)?;
        model.forward(x, &t, labels, &mut workspace, ArrayViewMut4::from_shape(shape, &mut y)?)?;
        run.tell(&plan, &mut state, request.eval_id, &y)?;
    }
    frames.push(frame(&run, &state)?);
    screen.finish(&frames[frames.len() - 1], wish.steps)?;
    Ok(frames)
}

/// A terminal that redraws in place, or a log that gets the last frame only.
struct Screen {
    interactive: bool,
    lines: usize,
}

impl Screen {
    fn new() -> Self {
        Screen { interactive: std::io::stdout().is_terminal(), lines: 0 }
    }

    fn show(&mut self, digits: &Digits, step: usize) -> Result<()> {
        if self.interactive {
            let (columns, rows) = (number("COLUMNS", 80)?, number("LINES", 24)?);
            let text = render::half_blocks(digits, columns, usize::saturating_sub(rows, 3));
            let mut stdout = std::io::stdout().lock();
            if self.lines > 0 {
                write!(stdout, "\x1b[{}A", self.lines)?;
            }
            writeln!(stdout, "{text}step {step}\x1b[K")?;
            stdout.flush()?;
            self.lines = text.lines().count() + 1;
            // Slow enough for the eye to follow.
            std::thread::sleep(std::time::Duration::from_millis(90));
        }
        Ok(())
    }

    fn finish(&mut self, digits: &Digits, step: usize) -> Result<()> {
        if self.interactive {
            return self.show(digits, step);
        }
        print!("{}", render::plain(digits, 80));
        Ok(())
    }
}

struct Args<'a> {
    model: PathBuf,
    wish: &'a Wish,
}

/// Runs the example program of a door; returns what it printed.
fn call(root: &Path, door: &str, args: &Args<'_>, extra: &[&std::ffi::OsStr]) -> Result<String> {
    let mut command = doors::program(root, door, "digits")?;
    let labels: Vec<String> = args.wish.labels.iter().map(i64::to_string).collect();
    command
        .arg("--model")
        .arg(&args.model)
        .args(["--seed", &args.wish.seed.to_string()])
        .args(["--steps", &args.wish.steps.to_string()])
        .args(["--n", &args.wish.labels.len().to_string()])
        .args(["--labels", &labels.join(",")])
        .args(extra);
    doors::output(door, command)
}

/// One line a door: the seconds it measured itself, the hash we computed over its bytes.
fn report(door: &str, wish: &Wish, said: &str, hash: &str) -> Result<()> {
    let seconds = said
        .split_whitespace()
        .find_map(|word| word.strip_prefix("seconds="))
        .ok_or_else(|| Failure::from(format!("{door} printed no seconds=: {said:?}")))?;
    println!("{door:<7} images={} steps={} seconds={seconds} sha256={hash}", wish.labels.len(), wish.steps);
    Ok(())
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
