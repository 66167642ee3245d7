"""Kernels that are bound by memory: norms, activations, gates, rotations, gathers."""

import ctypes

import torch
import torch.nn.functional as F

from harness.library import Tensor
from harness.measure import Timed
from harness.probe import last_level_cache

from .case import NAMES, Case, Made

# With them input and output together are more than four times a last cache of 32 MiB. They grow until each is larger than
# the last cache here.
TOKENS, WIDTH = 16384, 1152
GROW = max(1, -(-last_level_cache() // (4 * TOKENS * WIDTH)))


class RopeOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("cos", ctypes.c_void_p), ("sin", ctypes.c_void_p),
                ("interleaved", ctypes.c_int32), ("reserved", ctypes.c_int32)]


def _layer_norm(engine, dtype, out, x):
    w, b = torch.randn(WIDTH), torch.randn(WIDTH)
    return engine.bind("layer_norm", x, w, b, ctypes.c_float(1e-5), out), \
        lambda x: F.layer_norm(x, x.shape[-1:], w.to(x.dtype), b.to(x.dtype), 1e-5)


def _rms_norm(engine, dtype, out, x):
    w = torch.randn(WIDTH)
    return engine.bind("rms_norm", x, w, ctypes.c_float(1e-5), out), \
        lambda x: F.rms_norm(x, x.shape[-1:], w.to(x.dtype), 1e-5)


def _rms_norm_residual(engine, dtype, out, x, residual):
    w, total = torch.randn(WIDTH), torch.empty_like(x)

    def f(x, residual):
        total = x + residual
        return F.rms_norm(total, total.shape[-1:], w.to(x.dtype), 1e-5), total

    return engine.bind("rms_norm_residual", x, residual, w, ctypes.c_float(1e-5), total, out), f


def _conditions(x):
    """Shift, scale or gate of each batch entry."""
    return torch.randn(len(x), x.shape[-1]).to(x.dtype)


def _layer_norm_modulate(engine, dtype, out, x):
    shift, scale = _conditions(x), _conditions(x)

    def f(x):
        a, b = scale.to(x.dtype)[:, None], shift.to(x.dtype)[:, None]
        return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + a) + b

    return engine.bind("layer_norm_modulate", x, shift, scale, ctypes.c_float(1e-6), out), f


def _gate_residual(engine, dtype, out, x, y):
    gate = _conditions(x)
    return engine.bind("gate_residual", x, y, gate, out), lambda x, y: x + gate.to(x.dtype)[:, None] * y


def _group_norm(engine, dtype, out, x):
    w, b = torch.randn(x.shape[1]), torch.randn(x.shape[1])
    call = engine.bind("group_norm", x, ctypes.c_int64(32), w, b, ctypes.c_float(1e-5), ctypes.c_int32(1), out)
    return call, lambda x: F.silu(F.group_norm(x, 32, w.to(x.dtype), b.to(x.dtype), 1e-5))


def _softmax(engine, dtype, out, x):
    return engine.bind("softmax", x, out), lambda x: x.softmax(-1)


def _silu(engine, dtype, out, x):
    return engine.bind("silu", x, out), F.silu


def _gelu(kind, approximate):
    return lambda engine, dtype, out, x: (engine.bind("gelu", x, ctypes.c_int32(kind), out),
                                          lambda x: F.gelu(x, approximate=approximate))


def _swiglu(engine, dtype, out, gate, up):
    return engine.bind("swiglu", gate, up, out), lambda gate, up: F.silu(gate) * up


def _geglu(engine, dtype, out, gate, up):
    return engine.bind("geglu", gate, up, ctypes.c_int32(0), out), \
        lambda gate, up: F.gelu(gate, approximate="tanh") * up


def _cfg(engine, dtype, out, c, u):
    return engine.bind("cfg_combine", c, u, ctypes.c_double(7.5), ctypes.c_double(0), out), \
        lambda c, u: u + 7.5 * (c - u)


def _rope(interleaved):

    def make(engine, dtype, out, x):
        length, dim = x.shape[2:]
        cos, sin = torch.empty(length, dim // 2), torch.empty(length, dim // 2)
        engine.rope_tables(ctypes.c_int64(0), ctypes.c_float(10000), cos, sin)
        options = RopeOptions()
        engine.rope_options_init(options, ctypes.c_size_t(ctypes.sizeof(options)))
        tables = [Tensor.of(t) for t in (cos, sin)]
        options.cos, options.sin = (ctypes.addressof(t) for t in tables)
        options.interleaved = int(interleaved)
        first = (ctypes.c_int64 * len(x))(*[0] * len(x))
        call = engine.bind("rope", x, first, options, out)
        call.owned += [tables, first]

        def f(x):
            c, s = cos.to(x.dtype), sin.to(x.dtype)
            a, b = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
            turned = a * c - b * s, b * c + a * s
            return torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)

        return call, f

    return make


def _patchify(engine, dtype, out, x):
    def f(x):
        b, c, h, w = x.shape
        x = x.reshape(b, c, h // 2, 2, w // 2, 2)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, 4 * c)

    return engine.bind("patchify", x, ctypes.c_int64(2), out), f


def _embedding(engine, dtype, out, table):
    indices = torch.randint(len(table), (len(out),))
    address = ctypes.c_void_p(indices.data_ptr())
    call = engine.bind("embedding", table, address, ctypes.c_size_t(len(out)), out)
    call.owned.append(indices)
    return call, lambda table: F.embedding(indices, table)


ROWS = (TOKENS, WIDTH)
ITEMS = (8, TOKENS // 8, WIDTH)
# Name, shapes of the inputs, shape of the output (None: that of the first input), maker.
CASES = [
    ("LayerNorm", [ROWS], None, _layer_norm),
    ("LayerNorm, modulate", [ITEMS], None, _layer_norm_modulate),
    ("RMSNorm", [ROWS], None, _rms_norm),
    ("RMSNorm with residual", [ROWS, ROWS], None, _rms_norm_residual),
    ("GroupNorm, SiLU", [(8, 320, 96, 80)], None, _group_norm),
    ("softmax", [ROWS], None, _softmax),
    ("gate, residual", [ITEMS, ITEMS], None, _gate_residual),
    ("RoPE, neighbours", [(1, 16, 8192, 144)], None, _rope(True)),
    ("RoPE, halves", [(1, 16, 8192, 144)], None, _rope(False)),
    ("SiLU", [ROWS], None, _silu),
    ("GELU tanh", [ROWS], None, _gelu(0, "tanh")),
    ("GELU erf", [ROWS], None, _gelu(1, "none")),
    ("SwiGLU", [ROWS, ROWS], None, _swiglu),
    ("GEGLU", [ROWS, ROWS], None, _geglu),
    ("CFG combine", [ROWS, ROWS], None, _cfg),
    ("patchify", [(72, 4, 256, 256)], (72, 16384, 16), _patchify),
    ("embedding", [(32768, WIDTH)], ROWS, _embedding),
]


def _make(engine, probe, compile_too, shapes, out_shape, make, dtype):
    # As many bytes whatever the type.
    grow = GROW if dtype == torch.float32 else 2 * GROW
    larger = lambda shape: (grow * shape[0], *shape[1:])
    ins = [torch.randn(larger(s)).to(dtype) for s in shapes]
    out = torch.empty(larger(out_shape or shapes[0]), dtype=dtype)
    run, f = make(engine, dtype, out, *ins)

    def ours():
        run()
        return out

    first = lambda y: y[0] if isinstance(y, tuple) else y
    timed = [Timed("ours", ours), Timed("torch eager", lambda: first(f(*ins)))]
    if compile_too:
        compiled = torch.compile(f, dynamic=False)
        timed.append(Timed("torch compile", lambda: first(compiled(*ins))))
    # The mix of what is read and written: of a gather, the rows that are read. Pages never written would all be one.
    reads = [torch.ones_like(out) for _ in ins]
    writes = [torch.empty_like(out) for _ in range(2 if isinstance(f(*ins), tuple) else 1)]
    streams = [Timed(f"limit mix {kind}", probe.mix(reads, writes, streaming))
               for kind, streaming in (("cached", False), ("streaming", True))]
    expected = first(f(*(x.double() for x in ins)))
    return Made(timed, expected, 2e-4 if dtype == torch.float32 else 0.3, streams=streams)


def cases(engine, probe, threads, compile_too):
    for name, shapes, out_shape, make in CASES:
        for dtype in (torch.float32, torch.bfloat16):
            yield Case(name, "memory", NAMES[dtype], "mix",
                       lambda s=shapes, o=out_shape, m=make, d=dtype: _make(engine, probe, compile_too, s, o, m, d))
