"""Walks of k-diffusion, torchdiffeq, torchsde and blackjax, written to walks.json.

pip install torch==2.15.0 torchdiffeq==0.2.5 torchsde==0.2.6 jax==0.10.2 blackjax==1.7.1 scipy numpy and, without what
it depends on, k-diffusion==0.1.1.post1; then `python tests/golden/make_walks.py`. All in float64.

Random numbers are those of the engine's own streams, made by `tests/numerics/reimplement.py` from docs/NUMERICS.md, so
that its walks can be held against these number by number: `core/src/sampling/tests/walks.rs` does.
"""

import importlib.util
import json
import math
import sys
import types
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import blackjax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import torchdiffeq  # noqa: E402
import torchsde  # noqa: E402
from blackjax.mcmc import diffusions, hmc, integrators, mala, metrics, proposal  # noqa: E402
from torchsde._core.methods import srk  # noqa: E402
from torchsde._core.methods.tableaus import srid1  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/numerics"))
from reimplement import normal, philox, row_seeds  # noqa: E402

N = 6
STEP, ACCEPT = 1, 4


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def k_diffusion():
    """Its samplers without the rest of the package, which wants much more."""
    package = types.ModuleType("k_diffusion")
    package.__path__ = list(importlib.util.find_spec("k_diffusion").submodule_search_locations)
    bar = types.ModuleType("tqdm.auto")
    bar.trange, bar.tqdm = None, None
    modules = {"k_diffusion": package, "k_diffusion.utils": types.ModuleType("utils"), "tqdm.auto": bar}
    sys.modules.update(modules | {"tqdm": types.ModuleType("tqdm")})
    return importlib.import_module("k_diffusion.sampling")


def denoiser(x, sigma):
    """What a model of data with structure says, bounded and far from linear."""
    return torch.sin(1.3 * x / (1 + sigma)) + 0.3 * torch.cos(2 * torch.log(sigma)) * x / (1 + sigma**2)


def dpm(solver):
    start = tensor([-1.9, -1.2, -0.4, 0.3, 1.1, 1.8]) * 10
    cases = []
    for order, rtol, atol, h, pid in [
        (2, 0.05, 0.0078, 0.05, (0, 1, 0)),
        # Longer first steps: the error of a tiny one is the rounding of f32, which the steps would then differ by.
        (3, 0.05, 0.0078, 2.0, (0, 1, 0)),
        (2, 1e-3, 1e-4, 0.5, (0, 1, 0)),
        (3, 1e-3, 1e-4, 2.0, (0, 1, 0)),
        (3, 1e-3, 1e-4, 3.0, (0.3, 0.7, 0.1)),
        (2, 3e-3, 1e-3, 1.0, (0.2, 1, 0)),
    ]:
        seen = []
        walk = solver.DPMSolver(
            lambda x, sigma: denoiser(x, sigma),
            info_callback=lambda i: seen.append((float(-i["t"]), i["x"].tolist(), i["n_reject"])),
        )
        ends = [walk.t(tensor(s)) for s in (10.0, 0.02)]
        p, i, d = pid
        x, info = walk.dpm_solver_adaptive(start, *ends, order, rtol, atol, h, p, i, d, noise_sampler=lambda *_: 0)
        options = {"solver": f"dpm_{order - 1}{order}", "rtol": rtol, "atol": atol, "h_init": h}
        options["controller"] = [p + i + d, -(p + 2 * d), d]
        counts = [info["n_accept"], info["n_reject"]]
        # ln sigma and x after every step tried.
        log_sigma, xs, _ = zip(*seen)
        cases.append({"options": options, "log_sigma": log_sigma, "x": xs, "counts": counts})
        print(options["solver"], counts, info["nfe"])
    return {"start": start.tolist(), "cases": cases}


def drift(t, y):
    """Jumps at 0.7 and 1.5."""
    return torch.where(t < 0.7, -y, torch.where(t < 1.5, 2 + torch.sin(5 * t) * y, -3 * y + t))


def jumps():
    start, grid = tensor([-1.0, 0.5, 2.0]), tensor([0.0, 0.35, 0.7, 1.0, 1.5, 1.9, 2.5])
    cases = []
    for back in (False, True):
        times = grid.flip(0) if back else grid
        x = torchdiffeq.odeint(
            drift, start, times, rtol=1e-10, atol=1e-10, method="dopri5", options={"jump_t": tensor([0.7, 1.5])}
        )
        cases.append({"times": times.tolist(), "x": x.tolist()})
    return {"start": start.tolist(), "cases": cases}


class Normals:
    """A Brownian motion whose increments are those of the engine: I1 = w z, I10 = w^3 (z + u / sqrt(3)) / 2."""

    levy_area_approximation = "space-time"
    dtype, device = torch.float64, torch.device("cpu")

    def __init__(self, seed, steps, length):
        self.seed, self.h, self.shape = seed, length / steps, (1, N)

    def draw(self, number):
        return tensor(normal(N, number, STEP, self.seed).astype(np.float64)).reshape(1, N)

    def __call__(self, start, end, return_U=False, return_A=False):
        assert abs(float(end - start) - self.h) < 1e-12
        step, w = round(float(start) / self.h), math.sqrt(self.h)
        z, u = self.draw(step), self.draw(step + (1 << 20))
        return (w * z, w**3 * (z + u / math.sqrt(3)) / 2) if return_U else w * z


class Equation(torch.nn.Module):
    def __init__(self, sde_type, noise_type):
        super().__init__()
        self.sde_type, self.noise_type = sde_type, noise_type

    def f(self, t, y):
        return torch.sin(y) + t

    def g(self, t, y):
        if self.noise_type == "additive":
            return ((0.5 + 0.5 * t) * torch.eye(N, dtype=torch.float64)).reshape(1, N, N)
        return 0.4 + 0.3 * torch.cos(y) + 0.2 * t


def sde():
    seed, steps, length = 21, 16, 2.0
    start = torch.linspace(-1.5, 1.5, N, dtype=torch.float64).reshape(1, N)
    srk.srid2 = srid1  # Roessler's SRIW1, which torchsde has beside the method it uses.
    cases = []
    for solver, method, kind, noise in [
        ("euler_maruyama", "euler", "ito", "diagonal"),
        ("milstein", "milstein", "ito", "diagonal"),
        ("stochastic_heun", "heun", "stratonovich", "diagonal"),
        ("sriw1", "srk", "ito", "diagonal"),
        ("sra1", "srk", "ito", "additive"),
    ]:
        options = {"grad_free": True} if method == "milstein" else {}
        times = torch.linspace(0, length, steps + 1, dtype=torch.float64)
        bm = Normals(seed, steps, length)
        x = torchsde.sdeint(
            Equation(kind, noise), start, times, bm=bm, method=method, dt=length / steps, options=options
        )
        cases.append({"solver": solver, "additive": noise == "additive", "x": x.reshape(-1, N).tolist()})
    return {"seed": seed, "t_end": length, "start": start.reshape(-1).tolist(), "cases": cases}


def log_density(x):
    """A curved valley (Rosenbrock's, softened)."""
    return -0.5 * jnp.sum(x**2) - 2 * jnp.sum((x[1:] - 0.7 * x[:-1] ** 2) ** 2)


def chains():
    seeds, dims, steps = row_seeds(5, 8), 3, 12
    start = np.linspace(-1.2, 1.4, len(seeds) * dims).reshape(len(seeds), dims)
    energy = metrics.default_metric(jnp.ones(dims)).kinetic_energy
    verlet = integrators.velocity_verlet(log_density, energy)
    cases = []
    for solver, step, leaps in [("hmc", 0.4, 3), ("mala", 0.15, 1)]:
        states, rates, taken = [start.tolist()], [], []
        x = start
        for number in range(steps):
            rows, p, accepted = [], [], []
            for seed, row in zip(seeds, x):
                z = jnp.asarray(normal(dims, number, STEP, seed).astype(np.float64))
                u = (float(philox([0], number, ACCEPT, seed)[0][0]) + 0.5) / 2**32

                def decide(_, log_p, old, new):
                    p_accept = jnp.exp(jnp.minimum(log_p, 0))
                    return (new if u < p_accept else old), (u < p_accept, p_accept, None)

                row = jnp.asarray(row)
                value, gradient = jax.value_and_grad(log_density)(row)
                if solver == "hmc":
                    walk = hmc.hmc_proposal(verlet, energy, step, leaps, sample_proposal=decide)
                    state, info, _ = walk(None, integrators.IntegratorState(row, z, value, gradient))
                else:
                    diffusions.generate_gaussian_noise = lambda *_: z
                    proposal.static_binomial_sampling = decide
                    state, info = mala.build_kernel()(jax.random.key(0), mala.init(row, log_density), log_density, step)
                rows.append(np.asarray(state.position).tolist())
                p.append(float(info.acceptance_rate))
                accepted.append(bool(info.is_accepted))
            x = np.asarray(rows)
            states.append(rows), rates.append(p), taken.append(accepted)
        options = {"solver": solver, "step_size": step, "steps": steps} | ({"leapfrog": leaps} if solver == "hmc" else {})
        cases.append({"options": options, "x": states, "probability": rates, "accepted": taken})
        print(solver, np.mean(taken))
    return {"seed": 5, "rows": len(seeds), "dims": dims, "cases": cases}


def main():
    versions = {m.__name__: m.__version__ for m in (torch, torchdiffeq, jax, blackjax)} | {"torchsde": "0.2.6"}
    parts = {"versions": versions, "dpm": dpm(k_diffusion()), "jumps": jumps(), "sde": sde(), "chains": chains()}
    lines = ",\n".join(f'"{name}": {json.dumps(part)}' for name, part in parts.items())
    (Path(__file__).parent / "walks.json").write_text("{" + lines + "}\n")


if __name__ == "__main__":
    main()
