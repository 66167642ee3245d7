"""The cases. Each is two functions: one gives ours, the peers on tensors of the same size and streams that
read and write what has to be; one checks ours against the formula of the paper on a small tensor."""

import ctypes
import functools
import math

import numpy as np
import torch

from harness.measure import Timed

from . import ode
from .chains import chains, check_chains
from .ours import Run

DT = -1e-3


def _euler(x, v):
    return x + DT * v


def _guided(x, c, u):
    return x + DT * (u + 7.5 * (c - u))


def _multistep(x, y, m1):
    """One step of DPM-Solver++(2M) from a prediction of the noise; coefficients of some step."""
    m0 = (x - 0.6 * y) * 1.25
    return 0.97 * x + (0.05 * m0 - 0.02 * m1), m0


def _limits(probe, ins, outs):
    """Streams of the same mix, with and without stores around the cache; the faster is the limit."""
    return [Timed(f"limit mix {kind}", probe.mix(ins, outs, streaming))
            for kind, streaming in (("cached", False), ("streaming", True))]


def _compiled(f):
    return torch.compile(f, dynamic=False)


def euler(engine, probe, n, compile_too, **options):
    x, v = torch.randn(n), torch.randn(n)
    run = Run(engine, x, 1000, "flow", "velocity", "euler", **options)

    def ours():
        run.ask()
        run.tell(v)

    timed = [Timed("ours", ours), Timed("torch eager", lambda: _euler(x, v)),
             Timed("torch eager, in place", lambda: torch.add(x, v, alpha=DT, out=x))]
    if compile_too:
        f = _compiled(_euler)
        timed.append(Timed("torch compile", lambda: f(x, v)))
    return timed, _limits(probe, [x, v], [x if options.get("in_place") else torch.empty(n)])


def check_euler(engine, **options):
    x, v = torch.randn(1000), torch.randn(1000)
    run = Run(engine, x, 10, "flow", "velocity", "euler", **options)
    t0 = run.ask().t
    run.tell(v)
    return (run.x - (x + (run.ask().t - t0) * v)).abs().max().item()


def guided(engine, probe, n, compile_too, together=True, **options):
    x, both = torch.randn(n), torch.randn(2, n)
    c, u = both
    run = Run(engine, x, 1000, "flow", "velocity", "euler", guidance=7.5, **options)

    def ours():
        for y in [both] if together else both:
            run.ask()
            run.tell(y)

    timed = [Timed("ours", ours), Timed("torch eager", lambda: _guided(x, c, u)),
             Timed("torch eager, in place", lambda: torch.add(x, torch.lerp(u, c, 7.5), alpha=DT, out=x))]
    if compile_too:
        f = _compiled(_guided)
        timed.append(Timed("torch compile", lambda: f(x, c, u)))
    return timed, _limits(probe, [x, c, u], [x if options.get("in_place") else torch.empty(n)])


def check_guided(engine, together=True, **options):
    x, both = torch.randn(1000), torch.randn(2, 1000)
    run = Run(engine, x, 10, "flow", "velocity", "euler", guidance=7.5, **options)
    t0 = run.ask().t
    for y in [both] if together else both:
        run.tell(y)
        t1 = run.ask().t
    c, u = both
    return (run.x - (x + (t1 - t0) * (u + 7.5 * (c - u)))).abs().max().item()


def multistep(engine, probe, n, compile_too, **options):
    x, y, m1, m2 = (torch.randn(n) for _ in range(4))
    run = Run(engine, x, 900, "vp", "epsilon", "dpmpp_2m", **options)

    def ours():
        run.ask()
        run.tell(y)

    def in_place():
        torch.add(x, y, alpha=-0.6, out=m2).mul_(1.25)
        x.mul_(0.97).add_(m2, alpha=0.05).add_(m1, alpha=-0.02)

    timed = [Timed("ours", ours), Timed("torch eager", lambda: _multistep(x, y, m1)),
             Timed("torch eager, in place", in_place)]
    if compile_too:
        f = _compiled(_multistep)
        timed.append(Timed("torch compile", lambda: f(x, y, m1)))
    return timed, _limits(probe, [x, y, m1], [x if options.get("in_place") else torch.empty(n), m2])


def check_multistep(engine, **options):
    """The second and third step against arXiv 2211.01095, algorithm 2."""
    x, ys = torch.randn(1000).double(), [torch.randn(1000) for _ in range(4)]
    run = Run(engine, x.float(), 10, "vp", "epsilon", "dpmpp_2m", **options)
    last, history = None, []
    worst = 0.0
    for i, y in enumerate(ys[:3]):
        r = run.ask()
        s = (r.alpha, r.sigma)
        m = (x - s[1] * y.double()) / s[0]
        run.tell(y)
        r = run.ask()
        t = (r.alpha, r.sigma)
        lam = lambda node: math.log(node[0] / node[1])
        h = lam(t) - lam(s)
        d = m
        if i > 0:
            ratio = (lam(s) - lam(last)) / h
            d = (1 + 1 / (2 * ratio)) * m - 1 / (2 * ratio) * history[-1]
        x = t[1] / s[1] * x - t[0] * math.expm1(-h) * d
        history.append(m)
        last = s
        # Early predictions of x0 divide by a small alpha: the error is a share of their size.
        worst = max(worst, ((run.x.double() - x).abs().max() / m.abs().max()).item())
    return worst


def normals(engine, probe, n, compile_too):
    out, theirs = torch.empty(1, n), torch.empty(n)
    seed, draw = (ctypes.c_uint64 * 1)(7), [0]

    def ours():
        draw[0] += 1
        engine.random_normal(seed, ctypes.c_size_t(1), ctypes.c_uint32(9), ctypes.c_uint32(draw[0]), out)

    fast = np.random.Generator(np.random.SFC64(1))
    array = theirs.numpy()
    return [Timed("ours", ours), Timed("torch.randn", lambda: torch.randn(n, out=theirs)),
            Timed("numpy SFC64 (one thread)", lambda: fast.standard_normal(dtype=np.float32, out=array))], \
        _limits(probe, [], [theirs])


def check_normals(engine):
    """The first four moments of a million numbers."""
    out = torch.empty(1, 1 << 20)
    seed = (ctypes.c_uint64 * 1)(7)
    engine.random_normal(seed, ctypes.c_size_t(1), ctypes.c_uint32(9), ctypes.c_uint32(0), out)
    z = out.double()
    moments = [z.mean(), z.square().mean() - 1, (z**3).mean() / 4, (z**4).mean() / 10 - 0.3]
    return max(abs(m.item()) for m in moments)


def _in_place(f):
    return functools.partial(f, in_place=True)


def _unseen(f):
    return functools.partial(f, non_finite="propagate", in_place=True)


def _apart(f):
    return functools.partial(f, together=False, in_place=True)


# Name, group, the two functions, and what the second may return.
CASES = [
    ("Euler step", "step", euler, check_euler, 1e-5),
    ("Euler step with CFG", "step", guided, check_guided, 1e-5),
    ("DPM++2M step", "step", multistep, check_multistep, 1e-5),
    ("Euler step, in place", "step", _in_place(euler), _in_place(check_euler), 1e-5),
    ("Euler step with CFG, in place", "step", _in_place(guided), _in_place(check_guided), 1e-5),
    ("DPM++2M step, in place", "step", _in_place(multistep), _in_place(check_multistep), 1e-5),
    ("Euler step with CFG, one output told after the other", "step", _apart(guided), _apart(check_guided), 1e-5),
    ("Euler step, outputs unseen", "step", _unseen(euler), _unseen(check_euler), 1e-5),
    ("Euler step with CFG, outputs unseen", "step", _unseen(guided), _unseen(check_guided), 1e-5),
    ("normals", "noise", normals, check_normals, 1e-2),
    ("ULA, 10,000 chains, 1,000 steps", "chains", chains, check_chains, 0.1),
    # torchdiffeq has no Tsit5: its best of that order stands beside it.
    *((f"{name}, 1,000 points in the plane", "ode", ode.case(solver, method), ode.check(solver), 1e-4)
      for name, solver, method in [("Bosh3", "bosh3", "bosh3"), ("Dopri5", "dopri5", "dopri5"), ("Tsit5", "tsit5", "dopri5")]),
]
