"""Whole trajectories of diffusers' schedulers, written to trajectories.json.

pip install torch==2.15.0 diffusers==0.42.1, then `python tests/golden/make_trajectories.py`.

The model does not contract and depends on x and t, so that a wrong coefficient anywhere shows at the
end; samples are float64, noise is a function of step and element. `options` are those of our plan that
means the same under `compat diffusers`; `x` has the sample before every step and after the last.
Samples of schedulers that work on sigmas (`ve`) are alpha times theirs on our side.
"""

import json
import math
import sys
from pathlib import Path

import diffusers as d
import torch

N = 6
START = torch.linspace(-1.9, 1.7, N, dtype=torch.float64).reshape(1, N)


def model(x, t):
    t = float(t)
    return (x * x - 0.5 * x + 0.3 * math.cos(t / 50)) / (1 + x * x)


def noise(step):
    i = torch.arange(N, dtype=torch.float64)
    return (torch.sin(1.7 * (step + 1) + 2.3 * i) * 1.2).reshape(1, N)


def walk(name, scheduler, options, steps=8, ve=False, noisy=False, drawn=False, time=1.0, **timesteps):
    if timesteps:
        scheduler.set_timesteps(**timesteps)
    else:
        scheduler.set_timesteps(steps)
    x = START * float(getattr(scheduler, "init_noise_sigma", 1.0))
    xs, times = [x[0].tolist()], []
    for i, t in enumerate(scheduler.timesteps):
        y = model(scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x, float(t) * time)
        extra = {"variance_noise": noise(i)} if noisy and not drawn else {}
        if drawn:  # these draw by themselves
            sys.modules[type(scheduler).__module__].randn_tensor = lambda *_, **__: noise(i)
        x = scheduler.step(y, t, x, **extra).prev_sample.to(torch.float64)
        times.append(float(t) * time)
        xs.append(x[0].tolist())
    return {"name": name, "options": options, "ve": ve, "noisy": noisy, "t": times, "x": xs}


LINEAR = {"num_train_timesteps": 1000, "beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}
LATENT = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LINEAR_OPTIONS = {"process": "vp_linear", "prediction": "epsilon"}
LATENT_OPTIONS = {"process": "vp_scaled_linear", "prediction": "epsilon", "beta_start": 0.00085, "beta_end": 0.012}
V = {"prediction_type": "v_prediction"}
# Their multistep solvers space n + 1 points and leave out the last; ours then takes times.
TIMES = [round(999 * (8 - i) / 8) for i in range(8)] + [-1.0]
TIMES_MIN = TIMES[:-1] + [0.0]


def cases():
    yield walk("ddim", d.DDIMScheduler(**LINEAR, clip_sample=False), LINEAR_OPTIONS | {"solver": "ddim", "spacing": "leading"})
    yield walk("ddim_v_trailing", d.DDIMScheduler(**LATENT, **V, clip_sample=False, timestep_spacing="trailing"),
               LATENT_OPTIONS | {"solver": "ddim", "spacing": "trailing", "prediction": "v"})
    for order in (1, 2, 3):
        yield walk(f"dpmpp_{order}", d.DPMSolverMultistepScheduler(**LATENT, solver_order=order, lower_order_final=False),
                   LATENT_OPTIONS | {"solver": "dpmpp", "order": order, "times": TIMES})
        yield walk(f"dpm_{order}", d.DPMSolverMultistepScheduler(**LATENT, solver_order=order, algorithm_type="dpmsolver",
                   lower_order_final=False, final_sigmas_type="sigma_min"),
                   LATENT_OPTIONS | {"solver": "dpm", "order": order, "times": TIMES_MIN})
    yield walk("dpmpp_heun", d.DPMSolverMultistepScheduler(**LATENT, solver_type="heun", lower_order_final=False),
               LATENT_OPTIONS | {"solver": "res_multistep", "times": TIMES})
    yield walk("dpmpp_karras", d.DPMSolverMultistepScheduler(**LATENT, use_karras_sigmas=True, lower_order_final=False),
               LATENT_OPTIONS | {"solver": "dpmpp", "spacing": "karras"})
    yield walk("dpmpp_2m_sde", d.DPMSolverMultistepScheduler(**LATENT, algorithm_type="sde-dpmsolver++", lower_order_final=False),
               LATENT_OPTIONS | {"solver": "dpmpp_2m_sde", "times": TIMES}, noisy=True)
    yield walk("dpmpp_2m_sde_heun", d.DPMSolverMultistepScheduler(**LATENT, algorithm_type="sde-dpmsolver++", solver_type="heun", lower_order_final=False),
               LATENT_OPTIONS | {"solver": "dpmpp_2m_sde_heun", "times": TIMES}, noisy=True)
    yield walk("dpm_sde", d.DPMSolverMultistepScheduler(**LATENT, algorithm_type="sde-dpmsolver", lower_order_final=False, final_sigmas_type="sigma_min"),
               LATENT_OPTIONS | {"solver": "dpm_sde", "times": TIMES_MIN}, noisy=True)
    for order in (2, 3):
        yield walk(f"dpmpp_single_{order}", d.DPMSolverSinglestepScheduler(**LATENT, solver_order=order, lower_order_final=False, final_sigmas_type="sigma_min"),
                   LATENT_OPTIONS | {"solver": "dpmpp_single", "order": order,
                                     "times": [round(999 * (6 - i) / 6) for i in range(6)] + [0.0]}, steps=6)
    for kind in ("bh1", "bh2"):
        for order in (1, 2, 3):
            solver = "unipc" if kind == "bh2" else "unipc_bh1"
            yield walk(f"{solver}_{order}", d.UniPCMultistepScheduler(**LATENT, solver_order=order, solver_type=kind, final_sigmas_type="sigma_min"),
                       LATENT_OPTIONS | {"solver": solver, "order": order, "times": TIMES_MIN})
    yield walk("unipc_karras", d.UniPCMultistepScheduler(**LATENT, use_karras_sigmas=True),
               LATENT_OPTIONS | {"solver": "unipc", "spacing": "karras"})
    for order in (1, 2, 3):
        # tau 0: the ODE form; the corrector's order counts the new output.
        yield walk(f"sa_solver_{order}", d.SASolverScheduler(**LATENT, predictor_order=order, corrector_order=order,
                   tau_func=lambda t: 0, lower_order_final=False),
                   LATENT_OPTIONS | {"solver": "sa_solver", "order": order, "sde_eta": 0.0, "times": TIMES_MIN})
    yield walk("sa_solver_sde", d.SASolverScheduler(**LATENT, predictor_order=2, corrector_order=2,
               tau_func=lambda t: 1, lower_order_final=False),
               LATENT_OPTIONS | {"solver": "sa_solver", "order": 2, "times": TIMES_MIN}, noisy=True, drawn=True)
    yield walk("ddpm", d.DDPMScheduler(**LINEAR, clip_sample=False), LINEAR_OPTIONS | {"solver": "ddpm", "spacing": "leading"},
               noisy=True, drawn=True)
    yield walk("ddpm_large", d.DDPMScheduler(**LINEAR, clip_sample=False, variance_type="fixed_large"),
               LINEAR_OPTIONS | {"solver": "ddpm", "spacing": "leading", "variance": "fixed_large"}, noisy=True, drawn=True)
    yield walk("euler_ancestral", d.EulerAncestralDiscreteScheduler(**LATENT),
               LATENT_OPTIONS | {"solver": "euler_ancestral", "spacing": "linspace"}, ve=True, noisy=True, drawn=True)
    yield walk("euler", d.EulerDiscreteScheduler(**LATENT), LATENT_OPTIONS | {"solver": "euler", "spacing": "linspace"}, ve=True)
    yield walk("euler_karras_v", d.EulerDiscreteScheduler(**LATENT, **V, use_karras_sigmas=True),
               LATENT_OPTIONS | {"solver": "euler", "spacing": "karras", "prediction": "v"}, ve=True)
    yield walk("euler_exponential", d.EulerDiscreteScheduler(**LATENT, use_exponential_sigmas=True),
               LATENT_OPTIONS | {"solver": "euler", "spacing": "exponential"}, ve=True)
    yield walk("euler_beta", d.EulerDiscreteScheduler(**LATENT, use_beta_sigmas=True),
               LATENT_OPTIONS | {"solver": "euler", "spacing": "beta"}, ve=True)
    yield walk("lms_karras", d.LMSDiscreteScheduler(**LATENT, use_karras_sigmas=True),
               LATENT_OPTIONS | {"solver": "lms", "spacing": "karras"}, ve=True)
    yield walk("edm_euler", d.EDMEulerScheduler(), {"process": "edm", "prediction": "edm", "spacing": "karras"}, ve=True)
    yield walk("edm_dpmpp", d.EDMDPMSolverMultistepScheduler(lower_order_final=False),
               {"process": "edm", "prediction": "edm", "spacing": "karras", "solver": "dpmpp"}, ve=True)
    flow = {"process": "flow", "prediction": "velocity"}
    yield walk("flow_euler", d.FlowMatchEulerDiscreteScheduler(), flow | {"solver": "euler", "spacing": "linspace"}, time=0.001)
    yield walk("flow_euler_shifted_twice", d.FlowMatchEulerDiscreteScheduler(shift=3.0),
               flow | {"solver": "euler", "spacing": "linspace", "shift": 3.0}, time=0.001)
    yield walk("flow_euler_mu", d.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
               flow | {"solver": "euler", "spacing": "linspace", "shift": 1.15, "shift_type": "exponential"},
               time=0.001, num_inference_steps=8, mu=1.15)


def main():
    out = Path(__file__).with_name("trajectories.json")
    all = []
    for case in cases():
        all.append(case)
    versions = {"torch": torch.__version__.split("+")[0], "diffusers": d.__version__}
    lines = ",\n".join(json.dumps(c) for c in all)
    out.write_text(f'{{"versions": {json.dumps(versions)}, "cases": [\n{lines}\n]}}\n')
    print(len(all), "cases")


if __name__ == "__main__":
    main()
