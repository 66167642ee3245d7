"""Whole runs: unadjusted Langevin on a mixture of eight Gaussians in the plane, 10,000 chains of 1,000 steps each.

Every peer does what a program in it would do: NumPy by whole arrays, PyTorch compiled a step at a time, JAX the whole
walk in one compiled loop. Ours is dgm_mixture_sample(). The limit is the time in which dgm_random_normal() draws
as many normals, 20 million, in rows of a thousand.
"""

import ctypes
import math

import numpy as np
import torch

from harness.measure import Timed

from .ours import PREDICTION, PROCESS, SOLVER, PlanOptions

CHAINS, STEPS, COMPONENTS, H = 10_000, 1_000, 8, 0.01
ANGLES = np.arange(COMPONENTS) * (2 * math.pi / COMPONENTS)
MEANS = np.stack([2 * np.cos(ANGLES), 2 * np.sin(ANGLES)], axis=1)
VARIANCE = 0.25


class Ours:
    """A run of many chains that starts again where it ends."""

    def __init__(self, engine, chains, steps):
        options = PlanOptions()
        engine.plan_options_init(options, ctypes.c_size_t(ctypes.sizeof(options)))
        options.process, options.prediction = PROCESS["target"], PREDICTION["score"]
        options.solver, options.steps = SOLVER["ula"], steps
        # The step size lies behind the fields that PlanOptions names: the plan is scaled to its default instead.
        self.plan, self.mixture = ctypes.c_void_p(), ctypes.c_void_p()
        engine.plan_compile(ctypes.byref(options), ctypes.byref(self.plan))
        doubles = lambda v: np.ascontiguousarray(v, np.float64)
        weights, means = doubles(np.ones(COMPONENTS)), doubles(MEANS * SCALE)
        variances = doubles(np.full(COMPONENTS, VARIANCE * SCALE**2))
        pointer = lambda a: ctypes.c_void_p(a.ctypes.data)
        size = ctypes.c_size_t
        engine.mixture_create(pointer(weights), pointer(means), pointer(variances), size(COMPONENTS), size(COMPONENTS),
                              size(2), ctypes.byref(self.mixture))
        floats, bytes_ = size(), size()
        engine.plan_state_len(self.plan, size(chains), size(2), ctypes.byref(floats))
        engine.plan_run_size(self.plan, size(chains), ctypes.byref(bytes_))
        self.state, self.run = torch.zeros(floats.value), ctypes.create_string_buffer(bytes_.value)
        seeds = (ctypes.c_uint64 * chains)()
        engine.row_seeds(ctypes.c_uint64(1), size(chains), seeds)
        state = ctypes.c_void_p(self.state.data_ptr())
        self.start = engine.bind("run_start", self.plan, seeds, size(chains), size(2), None, self.run, bytes_, state, floats)
        self.finish = engine.bind("mixture_sample", self.mixture, self.plan, self.run, bytes_, state, floats)
        self.x = self.state[:2 * chains].view(chains, 2)

    def __call__(self):
        self.start()
        self.finish()
        return self.x


# The default step size of a plan is 0.1: in units of sqrt(10) the target has steps of H.
SCALE = math.sqrt(0.1 / H)


def _moments(x):
    """How far the deviation along both axes is from the mixture's (steps of H widen it by less than a hundredth)."""
    want = math.sqrt((VARIANCE + 2.0) * SCALE**2)
    return max(abs(s / want - 1) for s in x.double().std(dim=0).tolist())


def check_chains(engine):
    return _moments(Ours(engine, CHAINS, 2000)())


def _numpy():
    rng = np.random.default_rng(1)
    means, h, root = MEANS.astype(np.float32), np.float32(H), np.float32(math.sqrt(2 * H))

    def walk():
        x = rng.standard_normal((CHAINS, 2), dtype=np.float32)
        for _ in range(STEPS):
            d = means - x[:, None, :]
            logits = (d * d).sum(-1) * np.float32(-0.5 / VARIANCE)
            p = np.exp(logits - logits.max(1, keepdims=True))
            score = (p[:, :, None] * d).sum(1) / p.sum(1, keepdims=True) / np.float32(VARIANCE)
            x = x + h * score + root * rng.standard_normal((CHAINS, 2), dtype=np.float32)
        return x

    return walk


def _torch():
    means = torch.tensor(MEANS, dtype=torch.float32)

    def step(x):
        d = means - x[:, None, :]
        p = torch.softmax((d * d).sum(-1) * (-0.5 / VARIANCE), dim=1)
        score = (p[:, :, None] * d).sum(1) / VARIANCE
        return x + H * score + math.sqrt(2 * H) * torch.randn_like(x)

    compiled = torch.compile(step, dynamic=False)

    def walk():
        x = torch.randn(CHAINS, 2)
        for _ in range(STEPS):
            x = compiled(x)
        return x

    return walk


def _jax():
    import jax
    import jax.numpy as jnp

    means = jnp.asarray(MEANS, jnp.float32)

    @jax.jit
    def walk(key):
        def step(i, carry):
            x, key = carry
            key, own = jax.random.split(key)
            d = means - x[:, None, :]
            p = jax.nn.softmax((d * d).sum(-1) * (-0.5 / VARIANCE), axis=1)
            score = (p[:, :, None] * d).sum(1) / VARIANCE
            return x + H * score + math.sqrt(2 * H) * jax.random.normal(own, x.shape), key

        key, own = jax.random.split(key)
        return jax.lax.fori_loop(0, STEPS, step, (jax.random.normal(own, (CHAINS, 2)), key))[0]

    key = jax.random.PRNGKey(1)
    return lambda: walk(key).block_until_ready()


def chains(engine, probe, n, compile_too):
    ours = Ours(engine, CHAINS, STEPS)
    timed = [Timed("ours", ours), Timed("numpy", _numpy())]
    if compile_too:
        timed.append(Timed("torch compile", _torch()))
    try:
        timed.append(Timed("jax", _jax()))
    except ImportError:
        print("jax is not installed: left out")
    for peer in timed[1:]:
        error = _moments(torch.as_tensor(np.array(peer.call())) * SCALE)
        if not error < 0.1:
            raise AssertionError(f"{peer.name}: off by {error}")
    out, seeds = torch.empty(CHAINS * 2 * STEPS // 1000, 1000), (ctypes.c_uint64 * (CHAINS * 2 * STEPS // 1000))()
    engine.row_seeds(ctypes.c_uint64(1), ctypes.c_size_t(len(seeds)), seeds)
    draw = engine.bind("random_normal", seeds, ctypes.c_size_t(len(seeds)), ctypes.c_uint32(9), ctypes.c_uint32(0), out)
    return timed, [Timed("limit normals", draw)]
