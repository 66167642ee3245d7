//! What models were trained with and are sampled with, each with its source. What could not be
//! checked against one is left out.

use super::options::*;
use super::spacing::dynamic_shift;
use crate::error::{Error, Result};

/// A preset: its name, what it is for, where the numbers stand.
struct Preset {
    name: &'static str,
    about: &'static str,
    options: fn() -> PlanOptions,
}

fn latent_diffusion(solver: Solver) -> PlanOptions {
    PlanOptions {
        process: Process::VpScaledLinear,
        prediction: Prediction::Epsilon,
        beta_start: 0.00085,
        beta_end: 0.012,
        spacing: Spacing::Leading,
        steps_offset: 1,
        solver,
        ..Default::default()
    }
}

fn pixart() -> PlanOptions {
    PlanOptions {
        process: Process::VpLinear,
        prediction: Prediction::Epsilon,
        // What that scheduler calls linspace; it rounds the times, this plan does not.
        spacing: Spacing::SgmUniform,
        solver: Solver::DpmPP2M,
        steps: 20,
        ..Default::default()
    }
}

fn flow(shift: f64, steps: usize) -> PlanOptions {
    PlanOptions { shift, steps, ..Default::default() }
}

fn dynamic(shift: f64, shift_terminal: f64, steps: usize) -> PlanOptions {
    PlanOptions { shift_type: ShiftType::Exponential, shift_terminal, ..flow(shift, steps) }
}

const PRESETS: &[Preset] = &[
    Preset {
        name: "sd15",
        about: "Stable Diffusion 1.5: scaled linear betas 0.00085 to 0.012, epsilon, leading with offset 1 (its scheduler_config.json)",
        options: || PlanOptions { steps: 50, ..latent_diffusion(Solver::Plms) },
    },
    Preset {
        name: "sdxl",
        about: "Stable Diffusion XL: the same table, Euler, leading with offset 1 (its scheduler_config.json)",
        options: || PlanOptions { steps: 50, ..latent_diffusion(Solver::Euler) },
    },
    Preset {
        name: "pixart_alpha",
        about: "PixArt-alpha: linear betas 0.0001 to 0.02, epsilon (of an output with learned variance the first half), DPM-Solver++ 2M, 20 steps (the defaults of DPMSolverMultistepScheduler, with which scripts/convert_pixart_alpha_to_diffusers.py makes its pipeline; its pipeline)",
        options: pixart,
    },
    Preset {
        name: "pixart_sigma",
        about: "PixArt-Sigma: as pixart_alpha (tools/convert_pixart_to_diffusers.py and scripts/inference.py of its repository; its pipeline)",
        options: pixart,
    },
    Preset {
        name: "svd",
        about: "Stable Video Diffusion: sigma 0.002 to 700, v of the scaled state, Karras, Euler, 25 steps (its scheduler_config.json)",
        options: || PlanOptions {
            process: Process::Edm,
            prediction: Prediction::EdmV,
            sigma_min: 0.002,
            sigma_max: 700.0,
            sigma_data: 1.0,
            spacing: Spacing::Karras,
            steps: 25,
            ..Default::default()
        },
    },
    Preset {
        name: "sd3",
        about: "Stable Diffusion 3: flow, shift 3, 28 steps (its scheduler_config.json)",
        options: || flow(3.0, 28),
    },
    Preset {
        name: "flux_schnell",
        about: "FLUX.1 schnell: flow without shift, 4 steps (its scheduler_config.json)",
        options: || flow(1.0, 4),
    },
    Preset {
        name: "flux_dev",
        about: "FLUX.1 dev at 1024 x 1024 (4096 tokens): exponential shift 1.15; other sizes by dynamic_shift from 0.5 at 256 tokens (its pipeline)",
        options: || dynamic(dynamic_shift(4096.0, (256.0, 0.5), (4096.0, 1.15)), 0.0, 28),
    },
    Preset {
        name: "ltx_video",
        about: "LTX-Video at 4096 tokens: exponential shift 2.05, stretched to 0.1; other sizes by dynamic_shift from 0.95 at 1024 tokens (its pipeline)",
        options: || dynamic(dynamic_shift(4096.0, (1024.0, 0.95), (4096.0, 2.05)), 0.1, 50),
    },
    Preset {
        name: "mochi",
        about: "Mochi 1: flow, linear-quadratic with threshold 0.025, 64 steps (its pipeline)",
        options: || PlanOptions { spacing: Spacing::LinearQuadratic, ..flow(1.0, 64) },
    },
    Preset {
        name: "wan21_480p",
        about: "Wan 2.1 at 480p: flow, shift 3, UniPC, 50 steps (its pipeline's documentation)",
        options: || PlanOptions { solver: Solver::UniPC, ..flow(3.0, 50) },
    },
    Preset {
        name: "wan21_720p",
        about: "Wan 2.1 at 720p: flow, shift 5, UniPC, 50 steps (its pipeline's documentation)",
        options: || PlanOptions { solver: Solver::UniPC, ..flow(5.0, 50) },
    },
    Preset {
        name: "hunyuan_video",
        about: "HunyuanVideo: flow, shift 7, 50 steps (its scheduler_config.json)",
        options: || flow(7.0, 50),
    },
    Preset {
        name: "sana",
        about: "Sana at 1024 x 1024: flow, shift 3, 20 steps (its scheduler_config.json)",
        options: || flow(3.0, 20),
    },
];

impl PlanOptions {
    /// The names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|p| p.name)
    }

    /// The options that a published model is sampled with; `docs/SAMPLERS.md` gives the sources.
    ///
    /// ```
    /// use dgm_core::sampling::PlanOptions;
    /// assert_eq!(PlanOptions::preset("sd3")?.shift, 3.0);
    /// # Ok::<(), dgm_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Argument`] for an unknown name.
    pub fn preset(name: &str) -> Result<PlanOptions> {
        PRESETS.iter().find(|p| p.name == name).map(|p| (p.options)()).ok_or_else(|| {
            let all: Vec<_> = PlanOptions::presets().collect();
            Error::argument("preset", format!("{name:?}"), all.join(", "))
        })
    }
}

/// Names and descriptions, for the catalogue.
pub(super) fn listed() -> impl Iterator<Item = (&'static str, &'static str)> {
    PRESETS.iter().map(|p| (p.name, p.about))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sampling::Plan;

    #[test]
    fn presets_compile_to_what_they_say() {
        for name in PlanOptions::presets() {
            let options = PlanOptions::preset(name).unwrap();
            let plan = Plan::compile(&options).unwrap();
            assert_eq!(plan.steps(), options.steps, "{name}");
        }
        let t = |name| Plan::compile(&PlanOptions::preset(name).unwrap()).unwrap().grid().to_vec();
        assert_eq!((t("sdxl")[0].t, t("sdxl")[49].t), (981.0, 1.0));
        let pixart = t("pixart_sigma");
        assert_eq!((pixart[0].t, pixart.len()), (999.0, 21));
        assert!((pixart[19].t - 49.95).abs() < 1e-9 && pixart[20].sigma == 0.0);
        assert!((t("svd")[0].sigma - 700.0).abs() < 1e-9);
        assert!((t("ltx_video")[49].t - 0.1).abs() < 1e-12);
        assert!(PlanOptions::preset("sd9").is_err());
    }
}
