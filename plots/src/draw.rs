//! The drawing itself.

use dgm_core::sampling::{Node, Plan};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use crate::{Path, Result};

const SIZE: (u32, u32) = (960, 420);
const SQUARE: (u32, u32) = (640, 660);
const INK: RGBColor = RGBColor(31, 78, 140);
const START: RGBColor = RGBColor(150, 150, 150);
const END: RGBColor = RGBColor(200, 60, 40);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One line about the plan.
fn title(plan: &Plan) -> String {
    let o = plan.options();
    let steps = if plan.steps() == 0 { "adaptive".to_string() } else { format!("{} steps", plan.steps()) };
    format!("{} {}, {}, {steps}", o.process.name(), o.solver.name(), o.spacing.name())
}

/// Draws on a fresh picture and returns its text.
fn picture(size: (u32, u32), paint: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, size).into_drawing_area();
        area.fill(&WHITE)?;
        paint(&area)?;
        area.present()?;
    }
    Ok(text)
}

/// A little more than the values span; something where they are all equal or none.
fn span(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    if low > high {
        return 0.0..1.0;
    }
    let more = if low == high { 1.0 } else { 0.05 * (high - low) };
    low - more..high + more
}

/// Points and the line through them.
fn series<Y>(area: &Area<'_>, name: &str, points: &[(f64, f64)], last: usize, y: Y) -> Result<()>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let x = -0.3..last as f64 + 0.3;
    let mut chart = ChartBuilder::on(area)
        .caption(name, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(36)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_desc("step")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| number(*v))
        .light_line_style(WHITE)
        .draw()?;
    chart.draw_series(LineSeries::new(points.iter().copied(), INK.stroke_width(1)))?;
    chart.draw_series(points.iter().map(|p| Circle::new(*p, 3, INK.filled())))?;
    Ok(())
}

/// A number for an axis.
fn number(v: f64) -> String {
    if v != 0.0 && !(0.01..10_000.0).contains(&v.abs()) {
        return format!("{v:.0e}");
    }
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The levels of a plan: model time on the left, `sigma / alpha` on a logarithmic scale on the right.
/// Levels where the quotient is 0 or infinite (clean data, pure noise) are left out there, and the time of clean
/// data on the left where the process puts it far away (edm).
///
/// # Errors
/// A sentence, where the picture cannot be made.
pub fn grid(plan: &Plan) -> Result<String> {
    if !plan.grid().iter().any(|n| n.alpha > 0.0) {
        let process = plan.options().process.name();
        return Err(format!("process is {process}, expected one with noise levels").into());
    }
    let nodes = plan.grid();
    let last = nodes.len() - 1;
    let at = |value: &dyn Fn(&Node) -> f64| -> Vec<(f64, f64)> {
        nodes.iter().enumerate().map(|(i, n)| (i as f64, value(n))).collect()
    };
    let mut times = at(&|n| n.t);
    times.retain(|(_, t)| *t > -50.0);
    let mut levels = at(&|n| n.sigma / n.alpha);
    levels.retain(|(_, v)| *v > 0.0 && v.is_finite());
    picture(SIZE, |area| {
        let area = area.titled(&title(plan), ("sans-serif", 20))?;
        let halves = area.split_evenly((1, 2));
        series(&halves[0], "model time", &times, last, span(times.iter().map(|p| p.1)))?;
        let (low, high) = levels.iter().fold((f64::INFINITY, 0.0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
        let (low, high) = if low > high { (0.1, 10.0) } else { (low / 1.3, high * 1.3) };
        series(&halves[1], "sigma / alpha", &levels, last, (low..high).log_scale())
    })
}

/// Paths of samples: over the steps where a point is one number, in the plane where it is two. Starts are
/// grey, ends red. [`walk`](crate::walk) makes paths; those of a model of your own are drawn as well.
///
/// # Errors
/// A sentence for no paths, points of other sizes, or numbers that are not finite.
pub fn trajectories(plan: &Plan, paths: &[Path]) -> Result<String> {
    let dims = paths.first().and_then(|p| p.first()).map_or(0, Vec::len);
    if !(1..=2).contains(&dims) || paths.iter().any(|p| p.is_empty() || p.iter().any(|x| x.len() != dims)) {
        return Err("paths must have points, all of one or all of two numbers".into());
    }
    if paths.iter().flatten().flatten().any(|v| !v.is_finite()) {
        return Err("paths must have finite numbers".into());
    }
    let place = |(i, x): (usize, &Vec<f64>)| if dims == 1 { (i as f64, x[0]) } else { (x[0], x[1]) };
    let lines: Vec<Vec<(f64, f64)>> =
        paths.iter().map(|p| p.iter().enumerate().map(place).collect()).collect();
    let all = || lines.iter().flatten().copied();
    let (size, x_name, y_name) = match dims {
        1 => (SIZE, "step", "x / sqrt(alpha^2 + sigma^2)"),
        _ => (SQUARE, "x1 / sqrt(alpha^2 + sigma^2)", "x2 / sqrt(alpha^2 + sigma^2)"),
    };
    picture(size, |area| {
        let mut chart = ChartBuilder::on(area)
            .caption(title(plan), ("sans-serif", 20))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(span(all().map(|p| p.0)), span(all().map(|p| p.1)))?;
        let mut mesh = chart.configure_mesh();
        mesh.x_desc(x_name).y_desc(y_name).light_line_style(WHITE);
        mesh.x_label_formatter(&|v| number(*v)).y_label_formatter(&|v| number(*v)).draw()?;
        for line in &lines {
            chart.draw_series(LineSeries::new(line.iter().copied(), INK.mix(0.45).stroke_width(1)))?;
        }
        for (end, color) in [(0, START), (1, END)] {
            let at = |line: &Vec<(f64, f64)>| line[end * (line.len() - 1)];
            chart.draw_series(lines.iter().map(|line| Circle::new(at(line), 3, color.filled())))?;
        }
        Ok(())
    })
}
