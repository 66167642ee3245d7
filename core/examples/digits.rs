//! Draws handwritten digits: a trained diffusion transformer sampled by ask and tell.
//!
//! cargo run --release -p dgm-core --example digits -- --n 10 --out digits.f32
//!
//! --model PATH --seed N --steps N --n N --labels 0,1,2 --out FILE
//! --stop-at STEP --export FILE   stop there and write the run, to be finished elsewhere

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::path::Path;
use std::time::Instant;

use dgm_core::models::Dit;
use dgm_core::random::row_seeds;
use dgm_core::sampling::{Ask, Plan, Role, Run};
use ndarray::{ArrayView4, ArrayViewMut4};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: HashMap<&str, &str> =
        args.chunks(2).map(|c| (c[0].as_str(), c.get(1).map_or("", |v| v))).collect();
    let model = Dit::load(Path::new(args.get("--model").unwrap_or(&"models/digits.safetensors")))?;

    // The weights file says how the network wants to be sampled; a plan is that, compiled.
    let mut options = model.plan_options()?;
    if let Some(steps) = args.get("--steps") {
        options.steps = steps.parse()?;
    }
    let plan = Plan::compile(&options)?;

    let n: usize = args.get("--n").unwrap_or(&"64").parse()?;
    let labels: Vec<i64> = match args.get("--labels") {
        Some(list) => list.split(',').map(str::parse).collect::<Result<_, _>>()?,
        None => (0..n as i64).map(|r| r % 10).collect(),
    };
    // One seed a row: an image never depends on the other images of its batch.
    let seeds = row_seeds(args.get("--seed").unwrap_or(&"351").parse()?, n);

    // All memory is ours: the state of the run, the network's workspace, its output.
    let c = model.config();
    let (shape, elements) = ((n, c.channels, c.height, c.width), c.channels * c.height * c.width);
    let null = vec![c.num_classes as i64; n];
    let mut state = vec![0.0; plan.state_len(n, elements)?];
    let mut workspace = vec![0.0; model.workspace_len(n)?];
    let (mut t, mut y) = (vec![0.0; n], vec![0.0; n * elements]);

    let start = Instant::now();
    let mut run = Run::start(&plan, &seeds, elements, None, &mut state)?;
    // The plan asks for the network's output, we tell it, until nothing is left to ask.
    while let Ask::Eval(request) = run.ask(&plan)? {
        if args.get("--stop-at").is_some_and(|s| s.parse() == Ok(request.step)) {
            let file = args.get("--export").ok_or("--stop-at needs --export FILE")?;
            fs::write(file, run.export(&plan, &state)?)?;
            return Ok(());
        }
        run.row_times(&plan, &mut t)?;
        // Classifier-free guidance asks twice a step: with the class and without.
        let labels = if request.role == Role::Uncond { &null } else { &labels };
        let x = ArrayView4::from_shape(shape, run.input(&plan, &state)?)?;
        model.forward(x, &t, labels, &mut workspace, ArrayViewMut4::from_shape(shape, &mut y)?)?;
        run.tell(&plan, &mut state, request.eval_id, &y)?;
    }
    println!("rust  images={n} steps={} seconds={:.3}", options.steps, start.elapsed().as_secs_f64());

    if let Some(file) = args.get("--out") {
        let images = run.result(&plan, &state)?;
        fs::write(file, images.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    Ok(())
}
