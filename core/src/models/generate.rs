//! From a loaded network and a plan to images.

use ndarray::{ArrayView4, ArrayViewMut4};

use super::config::option;
use super::dit::Dit;
use crate::error::{Error, Result, check_shape, zeros};
use crate::sampling::{Guidance, Plan, PlanOptions, Prediction, Process, Role, Solver, sample};

impl Dit {
    /// The sampler that the weights file asks for in its metadata (`process`, `prediction`,
    /// `sampler.solver`, `sampler.steps`, `sampler.guidance`, `sampler.shift`); what it does
    /// not say keeps its default.
    ///
    /// # Errors
    /// [`Error::Format`] when a value is unknown.
    pub fn plan_options(&self) -> Result<PlanOptions> {
        let m = self.metadata();
        let named = |key: &str, e: Error| Error::Format {
            what: "weights".to_string(),
            message: format!("metadata {key}: {e}"),
        };
        let mut options = PlanOptions::default();
        if let Some(name) = m.get("process") {
            options.process = Process::from_name(name).map_err(|e| named("process", e))?;
        }
        if let Some(name) = m.get("prediction") {
            options.prediction = Prediction::from_name(name).map_err(|e| named("prediction", e))?;
        }
        if let Some(name) = m.get("sampler.solver") {
            options.solver = Solver::from_name(name).map_err(|e| named("sampler.solver", e))?;
        }
        if let Some(steps) = option(m, "sampler.steps")? {
            options.steps = steps;
        }
        if let Some(guidance) = option(m, "sampler.guidance")? {
            options.guidance = guidance;
        }
        if let Some(shift) = option(m, "sampler.shift")? {
            options.shift = shift;
        }
        Ok(options)
    }
}

/// Draws one image a label.
///
/// * `seeds` `[B]`: the noise of image r is a function of `seeds[r]` alone.
/// * `labels` `[B]`: class of each image.
/// * `out` `[B, C, H, W]`, row-major contiguous: the final states.
///
/// Allocates the state and the workspace of the run; a caller that wants to own them, watch
/// the steps or stop half-way drives [`Run`](crate::sampling::Run) itself.
///
/// # Errors
/// [`Error::Shape`] or [`Error::Range`] naming the argument, [`Error::Argument`] for autoguidance (which needs
/// a second model), or what the plan reports.
pub fn generate(
    model: &Dit,
    plan: &Plan,
    seeds: &[u64],
    labels: &[i64],
    mut out: ArrayViewMut4<'_, f32>,
) -> Result<()> {
    let c = model.config();
    let shape = (seeds.len(), c.channels, c.height, c.width);
    check_shape("labels", &[labels.len()], &[seeds.len()])?;
    check_shape("out", out.shape(), &[shape.0, shape.1, shape.2, shape.3])?;
    let out = out.as_slice_mut().ok_or_else(|| Error::Stride {
        arg: "out",
        got: "not contiguous".to_string(),
        expected: "row-major contiguous memory".to_string(),
    })?;
    if c.out_channels != c.channels {
        return Err(Error::argument(
            "model",
            format!("a network with {} output channels", c.out_channels),
            format!("one with {}, whose output is the prediction itself", c.channels),
        ));
    }
    let o = plan.options();
    if o.guidance_weak != 1.0 {
        let expected = "1: autoguidance needs a second model, sample with both of them";
        return Err(Error::argument("guidance_weak", o.guidance_weak, expected));
    }
    if o.guidance != 1.0 && o.guidance_mode == Guidance::Auto {
        let expected = "another mode: autoguidance needs a second model, sample with both of them";
        return Err(Error::argument("guidance_mode", o.guidance_mode.name(), expected));
    }
    let elements = c.channels * c.height * c.width;
    let mut state = zeros("seeds", plan.state_len(seeds.len(), elements)?)?;
    let mut workspace = zeros("seeds", model.workspace_len(seeds.len())?)?;
    let null = vec![c.num_classes as i64; labels.len()];
    let run = sample(plan, seeds, elements, &mut state, |request, x, t, y| {
        let labels = if request.role == Role::Uncond { &null } else { labels };
        let x = ArrayView4::from_shape(shape, x).map_err(|e| Error::Internal(e.to_string()))?;
        let y = ArrayViewMut4::from_shape(shape, y).map_err(|e| Error::Internal(e.to_string()))?;
        model.forward(x, t, labels, &mut workspace, y)
    })?;
    out.copy_from_slice(run.result(plan, &state)?);
    Ok(())
}
