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
import types
from pathlib import Path

import diffusers as d
import torch

# DPMSolverSDE asks for it at import; its noise is replaced by ours before anything is drawn.
sys.modules.setdefault("torchsde", types.ModuleType("torchsde"))
from diffusers.schedulers.scheduling_dpmsolver_sde import DPMSolverSDEScheduler  # noqa: E402

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


def walk_sde(name, scheduler, options, steps=6):
    """DPMSolverSDE: the increments of its Brownian path, divided by their deviation, are our noise."""
    scheduler.set_timesteps(steps)
    draws = iter(range(2 * steps))
    scheduler.noise_sampler = lambda *_: noise(next(draws))
    x = START * float(scheduler.init_noise_sigma)
    xs, times = [x[0].tolist()], []
    for t in scheduler.timesteps:
        x = scheduler.step(model(scheduler.scale_model_input(x, t), t), t, x).prev_sample.to(torch.float64)
        times.append(float(t))
        xs.append(x[0].tolist())
    return {"name": name, "options": options | {"steps": steps}, "ve": True, "noisy": True, "t": times, "x": xs}


# Times of vp_continuous that the cases of walk_ipndm step over; pure noise, where their alpha is 0, is left out.
IPNDM_TIMES = [0.95, 0.85, 0.7, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05]


def walk_ipndm(name):
    """IPNDM on levels of ours, in float64. Its eps is that of v; the model is given our time."""
    scheduler = d.IPNDMScheduler()
    scheduler.set_timesteps(len(IPNDM_TIMES) - 1)
    t = torch.tensor(IPNDM_TIMES, dtype=torch.float64)
    bars = torch.exp(-t * (0.1 + 0.5 * t * (20.0 - 0.1)))
    scheduler.alphas, scheduler.betas = bars.sqrt(), (1 - bars).sqrt()
    scheduler.set_begin_index(0)
    x, xs = START, [START[0].tolist()]
    for time in IPNDM_TIMES[:-1]:
        x = scheduler.step(model(x, time), time, x).prev_sample
        xs.append(x[0].tolist())
    options = {"process": "vp_continuous", "beta_start": 0.1, "beta_end": 20, "prediction": "v", "solver": "ipndm", "times": IPNDM_TIMES}
    return {"name": name, "options": options, "ve": False, "noisy": False, "t": IPNDM_TIMES[:-1], "x": xs}


CASCADE_TIMES = [1.0, 0.9, 0.75, 0.6, 0.45, 0.3, 0.2, 0.1, 0.05]


def walk_cascade(name):
    """Stable Cascade's scheduler, in float64."""
    scheduler = d.DDPMWuerstchenScheduler()
    scheduler.s = scheduler.s.to(torch.float64)
    scheduler._init_alpha_cumprod = torch.cos(scheduler.s / (1 + scheduler.s) * torch.pi * 0.5) ** 2
    scheduler.set_timesteps(timesteps=torch.tensor(CASCADE_TIMES, dtype=torch.float64))
    x, xs = START, [START[0].tolist()]
    for i, t in enumerate(scheduler.timesteps[:-1]):
        sys.modules[type(scheduler).__module__].randn_tensor = lambda *_, **__: noise(i)
        x = scheduler.step(model(x, t), t.reshape(1), x).prev_sample
        xs.append(x[0].tolist())
    options = {"process": "vp_cascade", "prediction": "epsilon", "solver": "ddpm", "times": CASCADE_TIMES}
    return {"name": name, "options": options, "ve": False, "noisy": True, "t": CASCADE_TIMES[:-1], "x": xs}


def walk_corrected(name, corrections, steps=5, least=0.05, most=8.0, snr=0.2):
    """ScoreSdeVe as its pipeline has it: corrections, a prediction; the result is the last mean.

    All noise has the norm that is expected of it, sqrt(N), which stands in our step size for its own."""
    scheduler = d.ScoreSdeVeScheduler(num_train_timesteps=steps, snr=snr, sigma_min=least, sigma_max=most)
    scheduler.discrete_sigmas = torch.exp(torch.linspace(math.log(least), math.log(most), steps, dtype=torch.float64))
    module = sys.modules[type(scheduler).__module__]
    x = START * most
    xs, times = [], []

    def output(sigma):
        i = len(times)
        z = noise(i)
        module.randn_tensor = lambda *_, **__: z * (math.sqrt(N) / z.norm())
        xs.append(x[0].tolist())
        times.append(sigma)
        return -model(x, sigma) / sigma  # the score of an eps

    for i, t in enumerate(scheduler.timesteps):
        sigma = float(scheduler.discrete_sigmas[steps - 1 - i])
        for _ in range(corrections):
            x = scheduler.step_correct(output(sigma), x).prev_sample
        result = scheduler.step_pred(output(sigma), t, x)
        x = result.prev_sample
    xs.append(result.prev_sample_mean[0].tolist())
    options = {"process": "ve", "prediction": "epsilon", "solver": "predictor_corrector", "spacing": "exponential", "snr": snr,
               "corrector_steps": corrections, "sigma_min": least, "sigma_max": most, "steps": steps}
    return {"name": name, "options": options, "ve": False, "noisy": True, "t": times, "x": xs}


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
    # From data to noise: their timesteps rise, and the noisiest level follows the last.
    inverse = d.DPMSolverMultistepInverseScheduler
    for order in (1, 2, 3):
        yield walk(f"dpmpp_inverse_{order}", inverse(**LATENT, solver_order=order, lower_order_final=False),
                   LATENT_OPTIONS | {"solver": "dpmpp_inverse", "order": order, "times": TIMES_MIN})
    yield walk("dpmpp_inverse_v", inverse(**LATENT, **V, lower_order_final=False),
               LATENT_OPTIONS | {"solver": "dpmpp_inverse", "prediction": "v", "times": TIMES_MIN})
    yield walk_sde("dpmpp_sde", DPMSolverSDEScheduler(**LATENT), LATENT_OPTIONS | {"solver": "dpmpp_sde", "spacing": "linspace"})
    yield walk_sde("dpmpp_sde_karras_v", DPMSolverSDEScheduler(**LATENT, **V, use_karras_sigmas=True),
                   LATENT_OPTIONS | {"solver": "dpmpp_sde", "spacing": "karras", "prediction": "v"})
    yield walk_ipndm("ipndm")
    yield walk("laplace", d.DDPMScheduler(num_train_timesteps=1000, beta_schedule="laplace", clip_sample=False),
               {"process": "vp_laplace", "prediction": "epsilon", "solver": "ddpm", "spacing": "leading"}, noisy=True, drawn=True)
    yield walk_cascade("cascade")
    for corrections in (1, 2):
        yield walk_corrected(f"predictor_corrector_{corrections}", corrections)


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
