//! Pictures are well-formed, show what they should, and samples arrive at the data.

use std::process::Command;

use dgm_core::random::row_seeds;
use dgm_core::sampling::{Plan, PlanOptions, Prediction, Process, Solver, Spacing};
use dgm_plots::{gallery, grid, trajectories, walk};

fn plan(process: Process, solver: Solver) -> Plan {
    let prediction = if process == Process::Flow { Prediction::Velocity } else { Prediction::V };
    let base = PlanOptions { process, prediction, solver, steps: 30, ..Default::default() };
    let options = match process {
        Process::VpTrained => PlanOptions { betas: Some(vec![0.02; 200]), train_steps: 200, ..base },
        Process::VpContinuous | Process::SubVp => PlanOptions { beta_start: 0.1, beta_end: 20.0, ..base },
        Process::Ve | Process::Edm => PlanOptions { spacing: Spacing::Karras, ..base },
        _ => base,
    };
    Plan::compile(&options).unwrap()
}

/// Coordinates of the circles, with their colour. Panics where the text is no XML.
fn circles(svg: &str) -> Vec<(f64, f64, String)> {
    let xml = roxmltree::Document::parse(svg).expect("well-formed XML");
    let size = |name| xml.root_element().attribute(name).unwrap().parse::<f64>().unwrap();
    let (width, height) = (size("width"), size("height"));
    let found: Vec<_> = xml
        .descendants()
        .filter(|n| n.has_tag_name("circle"))
        .map(|n| {
            let number = |name| n.attribute(name).unwrap().parse::<f64>().unwrap();
            (number("cx"), number("cy"), n.attribute("fill").unwrap().to_string())
        })
        .collect();
    assert!(found.iter().all(|c| (0.0..=width).contains(&c.0) && (0.0..=height).contains(&c.1)));
    assert!(xml.descendants().any(|n| n.has_tag_name("polyline")), "there are lines");
    found
}

#[test]
fn grids_show_every_level() {
    let levels = Process::ALL.iter().filter(|p| !matches!(p, Process::Ode | Process::Sde | Process::Target));
    for &process in levels {
        let plan = plan(process, Solver::Euler);
        let shown = circles(&grid(&plan).unwrap());
        let mixed = plan.grid().iter().filter(|n| n.alpha > 0.0 && n.sigma > 0.0).count();
        let times = plan.grid().iter().filter(|n| n.t > -50.0).count();
        assert_eq!(shown.len(), mixed + times, "{}", process.name());
        // Noise falls: on the right half the later circles are lower, and more to the right.
        let right = &shown[times..];
        assert!(right.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1), "{}", process.name());
    }
}

#[test]
fn samples_arrive_at_the_data() {
    let seeds = row_seeds(3, 40);
    for (process, solver) in [
        (Process::Flow, Solver::Heun),
        (Process::Flow, Solver::Bosh3),
        (Process::VpLinear, Solver::DpmPP2M),
        (Process::VpCosine, Solver::Ddpm),
        (Process::VpContinuous, Solver::Ddim),
        (Process::Ve, Solver::DpmPP2MSde),
        (Process::Edm, Solver::UniPC),
        (Process::TrigFlow, Solver::DpmPP),
    ] {
        let plan = plan(process, solver);
        for dims in [1, 2] {
            let paths = walk(&plan, &seeds, dims).unwrap();
            for path in &paths {
                let x = path.last().unwrap();
                let near = match dims {
                    1 => [-1.0, 0.2, 1.1].iter().any(|c: &f64| (x[0] - c).abs() < 0.45),
                    _ => (x[0] * x[0] + x[1] * x[1] - 1.0).abs() < 0.8,
                };
                assert!(near, "{} {}: {x:?}", process.name(), solver.name());
            }
            let shown = circles(&trajectories(&plan, &paths).unwrap());
            assert_eq!(shown.len(), 80);
            assert_eq!(shown.iter().filter(|c| c.2 == "#C83C28").count(), 40);
        }
    }
}

#[test]
fn the_gallery_shows_every_sampler_on_every_shape() {
    let (picture, page) = gallery(40, 1, None).unwrap();
    let xml = roxmltree::Document::parse(&picture).expect("well-formed XML");
    let count = |name: &str| xml.descendants().filter(|n| n.has_tag_name(name)).count();
    let panels: Vec<_> = xml.descendants().filter(|n| n.has_tag_name("path")).collect();
    assert_eq!(panels.len(), 4 * 13, "twelve samplers and the data itself");
    assert_eq!(count("svg"), 1 + panels.len());
    for panel in panels {
        assert_eq!(panel.attribute("d").unwrap().matches('M').count(), 40);
    }
    assert!(page.contains("gallery.svg") && page.contains("`hmc`"));
    assert_eq!(picture, gallery(40, 1, None).unwrap().0, "the same seed, the same picture");
    assert_ne!(picture, gallery(40, 2, None).unwrap().0);
    assert!(gallery(0, 1, None).is_err());
}

#[test]
fn what_cannot_be_drawn_is_an_error() {
    let plan = plan(Process::Flow, Solver::Euler);
    assert!(walk(&plan, &[1], 3).unwrap_err().to_string().contains("dims"));
    assert!(walk(&plan, &[], 1).unwrap_err().to_string().contains("rows"));
    let raw = PlanOptions {
        process: Process::Edm,
        prediction: Prediction::Consistency,
        solver: Solver::Consistency,
        ..Default::default()
    };
    assert!(walk(&Plan::compile(&raw).unwrap(), &[1], 1).unwrap_err().to_string().contains("prediction"));
    for (process, solver) in [(Process::Ode, Solver::Tsit5), (Process::Target, Solver::Ula)] {
        let prediction = if process == Process::Ode { Prediction::Velocity } else { Prediction::Score };
        let bare = PlanOptions { process, solver, prediction, ..Default::default() };
        let bare = Plan::compile(&bare).unwrap();
        let message = walk(&bare, &[1], 1).unwrap_err().to_string();
        assert!(message.contains(process.name()), "{message}");
        assert!(grid(&bare).is_err());
    }
    for bad in [vec![], vec![vec![]], vec![vec![vec![1.0], vec![1.0, 2.0]]], vec![vec![vec![f64::NAN]]]] {
        assert!(trajectories(&plan, &bad).is_err());
    }
    assert!(trajectories(&plan, &[vec![vec![1.0]]]).is_ok());
}

#[test]
fn the_program_writes_files_and_names_mistakes() {
    let folder = std::env::temp_dir().join(format!("dgm-plots-{}", std::process::id()));
    let call = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_dgm-plots")).args(args).output().unwrap();
        (out.status.success(), String::from_utf8(out.stderr).unwrap())
    };
    let file = folder.join("deep").join("a.svg");
    let name = file.to_str().unwrap();
    assert!(call(&["grid", name, "preset=sdxl", "steps=12"]).0);
    assert!(!circles(&std::fs::read_to_string(&file).unwrap()).is_empty());
    assert!(call(&["plane", name, "solver=rk4", "steps=6", "guidance=2", "rows=5"]).0);
    assert_eq!(circles(&std::fs::read_to_string(&file).unwrap()).len(), 10);
    let stored = folder.join("plan");
    std::fs::write(&stored, plan(Process::Ve, Solver::Heun).to_bytes()).unwrap();
    assert!(call(&["line", name, &format!("plan={}", stored.display()), "rows=3"]).0);
    assert!(call(&["grid", name, "sigmas=3,1,0.5,0", "process=ve", "prediction=x0"]).0);
    for (args, word) in [
        (&["grid"][..], "usage"),
        (&["pie", name], "usage"),
        (&["grid", name, "solver"], "usage"),
        (&["grid", name, "solver=best"], "solver"),
        (&["grid", name, "speed=3"], "speed"),
        (&["grid", name, "rows=0"], "rows"),
        (&["grid", name, "rows=many"], "rows"),
        (&["grid", name, "plan=/nowhere/plan"], "/nowhere/plan"),
    ] {
        let (ok, text) = call(args);
        assert!(!ok && text.contains(word), "{args:?}: {text}");
    }
    std::fs::remove_dir_all(folder).unwrap();
}
