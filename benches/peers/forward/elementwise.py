"""Kernels that are bound by memory: norms and activations."""

import ctypes

import torch
import torch.nn.functional as F

from harness.measure import Timed


def _norm(engine, x, out):
    w, b = torch.randn(x.shape[-1]), torch.randn(x.shape[-1])
    return engine.bind("layer_norm", x, w, b, ctypes.c_float(1e-5), out), \
        lambda t: F.layer_norm(t, t.shape[-1:], w.to(t.dtype), b.to(t.dtype), 1e-5)


def _rms(engine, x, out):
    w = torch.randn(x.shape[-1])
    return engine.bind("rms_norm", x, w, ctypes.c_float(1e-5), out), \
        lambda t: F.rms_norm(t, t.shape[-1:], w.to(t.dtype), 1e-5)


def _gelu(kind, approximate):
    return lambda engine, x, out: (engine.bind("gelu", x, ctypes.c_int32(kind), out),
                                   lambda t: F.gelu(t, approximate=approximate))


# Input and output together are more than four times a last cache of 32 MiB.
CASES = [("LayerNorm", (16384, 1152), _norm), ("RMSNorm", (16384, 1152), _rms),
         ("GELU tanh", (4096, 4608), _gelu(0, "tanh")), ("GELU erf", (4096, 4608), _gelu(1, "none"))]


def cases(engine, probe, threads, compile_too):
    """As linear.cases()."""
    for name, shape, make in CASES:
        x = torch.randn(shape)
        out = torch.empty_like(x)
        run, f = make(engine, x, out)

        def ours(run=run, out=out):
            run()
            return out

        timed = [Timed("ours", ours), Timed("torch eager", lambda: f(x))]
        if compile_too:
            compiled = torch.compile(f, dynamic=False)
            timed.append(Timed("torch compile", lambda: compiled(x)))
        scratch = torch.empty_like(x)
        limits = [Timed(f"limit mix {kind}", probe.mix([x], [scratch], streaming))
                  for kind, streaming in (("cached", False), ("streaming", True))]
        yield f"{name} {shape[0]}x{shape[1]}", "elementwise", timed, f(x.double()), 1e-4, "copy", limits, None
