"""Adaptive solvers: 1,000 points carried from noise to a mixture of eight Gaussians in the plane, as one system.

Both sides call the same field in torch and control the root mean square over the whole system, so the number of calls
is what differs. Over a sweep of tolerances the logarithm of the calls is a line in that of the error (of the points,
against order 8 at 1e-11 in f64); `evals` are the calls of both lines at `TARGET`, and what is timed has the loosest
tolerance of the sweep that reaches it. The limit is the field itself, called as often as ours.
"""

import math

import numpy as np
import torch
import torchdiffeq

from harness.measure import Timed

from .chains import MEANS, VARIANCE
from .ours import Run

POINTS, TARGET = 1_000, 1e-4
TOLERANCES = [10 ** (-k / 4) for k in range(8, 25)]


class Field:
    """`E[x0 - eps | x]` of `x = t x0 + (1 - t) eps`; counts its calls."""

    def __init__(self, dtype=torch.float32):
        self.means, self.calls = torch.tensor(MEANS, dtype=dtype), 0

    def __call__(self, t, x):
        self.calls += 1
        alpha, sigma = t, 1 - t
        s = alpha * alpha * VARIANCE + sigma * sigma
        d = x[:, None, :] - alpha * self.means
        p = torch.softmax((d * d).sum(-1) * (-0.5 / s), dim=1)[:, :, None]
        return (p * (self.means + d * ((alpha * VARIANCE - sigma) / s))).sum(1)


def start(dtype=torch.float32):
    return torch.randn(POINTS, 2, generator=torch.Generator().manual_seed(1)).to(dtype)


def exact():
    times = torch.tensor([0.0, 1.0], dtype=torch.float64)
    x = torchdiffeq.odeint(Field(torch.float64), start(torch.float64), times, rtol=1e-11, atol=1e-11, method="dopri8")
    return x[-1]


class Ours:
    def __init__(self, engine, solver, tolerance):
        self.field = Field()
        self.run = Run(engine, start().reshape(-1), 16, "ode", "velocity", solver, in_place=True, rtol=tolerance,
                       atol=tolerance)

    def __call__(self):
        run, n = self.run, 2 * POINTS
        run.start()
        while True:
            run.asked()
            if run.request.done:
                return run.x.view(POINTS, 2)
            slot = run.request.slot
            run.tell(self.field(run.request.t, run.state[slot * n:(slot + 1) * n].view(POINTS, 2)))


class Theirs:
    def __init__(self, method, tolerance):
        self.field, self.start, self.times = Field(), start(), torch.tensor([0.0, 1.0])
        self.method, self.tolerance = method, tolerance

    def __call__(self):
        return torchdiffeq.odeint(self.field, self.start, self.times, rtol=self.tolerance, atol=self.tolerance,
                                  method=self.method)[-1]


def tried(walk, truth):
    """Calls and error of a walk."""
    walk.field.calls = 0
    error = (walk().double() - truth).square().mean().sqrt().item()
    return walk.field.calls, error


def sweep(make, truth):
    """The calls at TARGET, and a walk that reaches it."""
    results = [(*tried(walk, truth), walk) for walk in map(make, TOLERANCES)]
    # Where f32 shows no order any more nothing is learned.
    calls, errors = np.array([(calls, error) for calls, error, _ in results if 3e-6 < error < 1e-2]).T
    slope, level = np.polyfit(np.log(errors), np.log(calls), 1)
    good = next(r for r in results if r[1] <= TARGET)
    return math.exp(level + slope * math.log(TARGET)), good[2], good[0]


def check(solver):
    return lambda engine: tried(Ours(engine, solver, 1e-6), exact())[1]


def case(solver, method):
    def make(engine, probe, n, compile_too):
        truth = exact()
        own, ours, calls = sweep(lambda tolerance: Ours(engine, solver, tolerance), truth)
        other, theirs, _ = sweep(lambda tolerance: Theirs(method, tolerance), truth)
        name, field, x = f"torchdiffeq {method}", Field(), start()

        def alone():
            for _ in range(calls):
                field(0.5, x)

        evals = {"ours": round(own, 1), name: round(other, 1)}
        print(f"{solver}: {evals} at an error of {TARGET}")
        if own > other:
            raise AssertionError(f"{solver} needs more evaluations than its peer: {evals}")
        return [Timed("ours", ours), Timed(name, theirs)], [Timed("limit evaluations", alone)], {"evals": evals}

    return make
