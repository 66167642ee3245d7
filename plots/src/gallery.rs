//! A page of pictures: what a dozen samplers make of toy data in the plane whose score is known.

use std::fmt::Write;

use dgm_core::models::GaussianMixture;
use dgm_core::random::{self, Purpose, row_seeds};
use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Run, Solver, Spacing, drive_rows};
use ndarray::Array2;

use crate::Result;

/// Half the side of a panel, in units of the data.
const REACH: f64 = 2.6;
/// Deviation of the components that draw a line, and of those that fill an area.
const FINE: f64 = 0.06;

/// Toy data: a name, means, and the deviation of every component.
type Shape = (&'static str, Vec<[f64; 2]>, f64);

fn shapes() -> Vec<Shape> {
    let pi = std::f64::consts::PI;
    let polar = |r: f64, a: f64| [r * libm::cos(a), r * libm::sin(a)];
    let part = |i: usize, n: usize| i as f64 / n as f64;
    let moons = (0..64).map(|i| {
        let [x, y] = polar(1.2, pi * part(i / 2, 32));
        if i % 2 == 0 { [x - 0.6, y - 0.3] } else { [0.6 - x, 0.3 - y] }
    });
    let board = (0..8).flat_map(|i| {
        let (row, column) = (i / 2, 2 * (i % 2) + (i / 2) % 2);
        (0..16).map(move |j| {
            let at = |cell: usize, k: usize| cell as f64 - 2.0 + (k as f64 + 0.5) / 4.0;
            [at(column, j % 4), at(row, j / 4)]
        })
    });
    let roll = (0..96).map(|i| {
        let t = part(i, 95);
        // Even steps along the curve, not along the angle.
        polar(0.3 + 1.7 * libm::sqrt(t), 1.5 * pi * (0.3 + 2.0 * libm::sqrt(t)))
    });
    let rings = (0..96).map(|i| {
        if i < 32 { polar(0.7, 2.0 * pi * part(i, 32)) } else { polar(1.8, 2.0 * pi * part(i, 64)) }
    });
    vec![
        ("moons", moons.collect(), FINE),
        ("checkerboard", board.collect(), 0.1),
        ("swiss roll", roll.collect(), FINE),
        ("rings", rings.collect(), FINE),
    ]
}

/// A sampler: its options, and what to look for.
type Sampler = (PlanOptions, &'static str);

fn samplers() -> Vec<Sampler> {
    let flow = |solver, steps| PlanOptions { solver, steps, ..Default::default() };
    let vp = |solver, steps| PlanOptions {
        process: Process::VpCosine,
        prediction: Prediction::V,
        ..flow(solver, steps)
    };
    let karras = |process, prediction, solver, steps| PlanOptions {
        process,
        prediction,
        spacing: Spacing::Karras,
        sigma_max: 20.0,
        sigma_min: 0.01,
        ..flow(solver, steps)
    };
    let target = |solver, steps, step_size| PlanOptions {
        process: Process::Target,
        prediction: Prediction::Score,
        step_size,
        ..flow(solver, steps)
    };
    let tested = |solver, steps| PlanOptions { warmup: steps / 2, ..target(solver, steps, 0.01) };
    vec![
        (flow(Solver::Euler, 4), "four steps: too few, samples fall short of the data"),
        (flow(Solver::Euler, 64), "sixty-four do"),
        (flow(Solver::Heun, 10), "a second evaluation a step is worth more than twice the steps"),
        (flow(Solver::Dopri5, 1), "chooses its steps by an error bound"),
        (vp(Solver::Ddim, 16), "deterministic, first order"),
        (vp(Solver::Ddpm, 100), "ancestral: fresh noise at every step"),
        (
            vp(Solver::DpmPP2M, 12),
            "extrapolates from the step before: with few even steps it overshoots data this sharp",
        ),
        (vp(Solver::UniPC, 8), "eight evaluations, of which data this sharp needs more"),
        (karras(Process::Edm, Prediction::Edm, Solver::Heun, 12), "the raw network of Karras 2022"),
        (
            PlanOptions {
                corrector_steps: 20,
                step_size: 0.1,
                ..karras(Process::Ve, Prediction::Score, Solver::AnnealedLangevin, 30)
            },
            "Langevin steps at falling noise levels",
        ),
        (
            target(Solver::Ula, 500, 0.0005),
            "no noise levels: chains stay in the part where they begin, so the weights are wrong",
        ),
        (
            tested(Solver::Hmc, 200),
            "tested proposals of ten leapfrog steps: exact inside a part, as slow between parts",
        ),
    ]
}

/// What a sampler is called.
fn caption(plan: &Plan) -> String {
    let o = plan.options();
    let steps = if plan.steps() == 0 { "adaptive".to_string() } else { format!("{} steps", plan.steps()) };
    format!("{} {}, {steps}", o.process.name(), o.solver.name())
}

/// Points of a panel in thousandths of its side; those outside lie on its edge.
fn dots(x: &[f32]) -> String {
    let mut text = String::new();
    let place = |v: f32, sign: f64| ((sign * f64::from(v) / REACH + 1.0) * 500.0).clamp(0.0, 1000.0) as u32;
    for point in x.chunks_exact(2) {
        let _ = write!(text, "M{} {}h0", place(point[0], 1.0), place(point[1], -1.0));
    }
    text
}

/// Draws of the data itself.
fn data(shape: &Shape, seeds: &[u64]) -> Result<Vec<f32>> {
    let (_, means, deviation) = shape;
    let (mut part, mut noise) = (Array2::zeros((seeds.len(), 1)), Array2::zeros((seeds.len(), 2)));
    random::uniform(seeds, Purpose::User as u32, 0, part.view_mut())?;
    random::normal(seeds, Purpose::User as u32, 1, noise.view_mut())?;
    let mut points = Vec::new();
    for (part, noise) in part.iter().zip(noise.rows()) {
        let mean = means[((f64::from(*part) * means.len() as f64) as usize).min(means.len() - 1)];
        points.extend(mean.iter().zip(noise).map(|(m, z)| (m + deviation * f64::from(*z)) as f32));
    }
    Ok(points)
}

/// What a program in another language draws the samples of, a word after the other: `rows`, `seed`, the shapes
/// (`shape COUNT DEVIATION`, then the means) and the plans (`plan COUNT`, then as many options, of choices the name
/// and the number in C). It writes the samples of every shape of every plan, f32 `[plans, shapes, rows, 2]`.
///
/// # Errors
/// None today.
pub fn gallery_cases(rows: usize, seed: u64) -> Result<String> {
    let mut text = format!("rows {rows} seed {seed} shapes {}\n", shapes().len());
    for (_, means, deviation) in shapes() {
        let _ = writeln!(text, "shape {} {deviation:?}", means.len());
        for [x, y] in means {
            let _ = writeln!(text, "{x:?} {y:?}");
        }
    }
    let _ = writeln!(text, "plans {}", samplers().len());
    for (o, _) in samplers() {
        let choices = [
            ("process", o.process.name(), o.process.code()),
            ("prediction", o.prediction.name(), o.prediction.code()),
            ("solver", o.solver.name(), o.solver.code()),
            ("spacing", o.spacing.name(), o.spacing.code()),
        ];
        let mut words: Vec<String> =
            choices.iter().map(|(option, name, code)| format!("{option} {name} {code}")).collect();
        let unset = PlanOptions::default();
        for option in ["steps", "warmup", "corrector_steps", "sigma_min", "sigma_max", "step_size"] {
            let value = o.get(option)?;
            if value != unset.get(option)? {
                words.push(format!("{option} {value} 0"));
            }
        }
        let _ = writeln!(text, "plan {} {}", words.len(), words.join(" "));
    }
    Ok(text)
}

/// The picture as SVG and the page as Markdown: every sampler on every shape, `rows` samples each. `points` are
/// those that another program drew of [`gallery_cases`]; without them they are drawn here.
///
/// # Errors
/// A sentence for 0 rows and for points of another number, and those of the engine.
pub fn gallery(rows: usize, seed: u64, points: Option<&[f32]>) -> Result<(String, String)> {
    let (seeds, shapes) = (row_seeds(seed, rows), shapes());
    let expected = samplers().len() * shapes.len() * rows * 2;
    if let Some(points) = points
        && points.len() != expected
    {
        return Err(format!("points has {} numbers, expected {expected}", points.len()).into());
    }
    let plans: Vec<(Plan, &str)> = samplers()
        .iter()
        .map(|(options, what)| Ok((Plan::compile(options)?, *what)))
        .collect::<Result<_>>()?;
    let (side, head, label) = (150, 24, 190);
    let (width, height) = (label + side * shapes.len(), head + side * (plans.len() + 1));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    for (i, (name, ..)) in shapes.iter().enumerate() {
        let x = label + side * i + side / 2;
        let _ = writeln!(svg, "<text x=\"{x}\" y=\"16\" text-anchor=\"middle\">{name}</text>");
    }
    let mut page = format!(
        "<!-- Written by `make gallery`. Do not edit. -->\n# Gallery\n\nWhat samplers make of toy data in the plane: mixtures of 64 to 128 \
         narrow Gaussians (`GaussianMixture`), whose exact score is the model at every noise level. So what differs \
         from the data in the first row is the sampler's doing. {rows} samples a panel, of the row seeds of {seed}; the same in \
         every language.\n\n![samplers on toy data](gallery.svg)\n\n| sampler | prediction | evaluations of a sample, at most | what to see |\n|---|---|---|---|\n"
    );
    for row in 0..=plans.len() {
        let y = head + side * row;
        let name = if row == 0 { "the data".to_string() } else { caption(&plans[row - 1].0) };
        let _ = writeln!(svg, "<text x=\"8\" y=\"{}\">{name}</text>", y + side / 2);
        if row > 0 {
            let (plan, what) = &plans[row - 1];
            let o = plan.options();
            let evals =
                if plan.steps() == 0 { "as it needs".to_string() } else { plan.max_evals().to_string() };
            let _ = writeln!(
                page,
                "| `{}` `{}`, {} | `{}` | {evals} | {what} |",
                o.process.name(),
                o.solver.name(),
                if plan.steps() == 0 { "adaptive".to_string() } else { format!("{} steps", plan.steps()) },
                o.prediction.name()
            );
        }
        for (i, shape) in shapes.iter().enumerate() {
            let points = match (row.checked_sub(1), points) {
                (None, _) => data(shape, &seeds)?,
                (Some(plan), None) => draw(&plans[plan].0, shape, &seeds)?,
                (Some(plan), Some(points)) => {
                    points[(plan * shapes.len() + i) * rows * 2..][..rows * 2].to_vec()
                }
            };
            let (x, inner) = (label + side * i + 4, side - 8);
            let colour = if row == 0 { "#969696" } else { "#1f4e8c" };
            let _ = writeln!(
                svg,
                "<svg x=\"{x}\" y=\"{}\" width=\"{inner}\" height=\"{inner}\" viewBox=\"0 0 1000 1000\">\
                 <rect width=\"1000\" height=\"1000\" fill=\"none\" stroke=\"#ccc\" stroke-width=\"8\"/>\
                 <path stroke=\"{colour}\" stroke-width=\"14\" stroke-linecap=\"round\" d=\"{}\"/></svg>",
                y + 4,
                dots(&points)
            );
        }
    }
    svg += "</svg>\n";
    Ok((svg, page))
}

fn draw(plan: &Plan, (_, means, deviation): &Shape, seeds: &[u64]) -> Result<Vec<f32>> {
    let count = means.len();
    let mixture =
        GaussianMixture::new(&vec![1.0; count], &means.concat(), &vec![deviation * deviation; count])?;
    let mut state = vec![0.0; plan.state_len(seeds.len(), 2)?];
    let mut run = Run::start(plan, seeds, 2, None, &mut state)?;
    drive_rows(plan, &mut run, &mut state, &mixture)?;
    Ok(run.result(plan, &state)?.to_vec())
}
