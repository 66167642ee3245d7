"""Compares the reimplementation with libdgm itself where no hash is published: random numbers,
long attention rows, every solver. `make check-numerics` runs it after a build."""

import ctypes
import sys
from pathlib import Path

import numpy as np
from models import categorical, dit, plan_block, plan_hash, safetensors, started_run
from reimplement import F, ROOT, attention_row, gelu, norm, normal, row_seeds, silu, uniform, values
from samplers import DEFAULTS, Levels, grid, sample

NAMES = {
    "process": ["flow", "vp_linear", "vp_scaled_linear", "vp_cosine"],
    "prediction": ["epsilon", "x0", "v", "velocity"],
    "solver": ["euler", "midpoint", "heun", "rk4", "ddpm", "ddim", "dpmpp_2m", "unipc", "bosh3"],
    "spacing": ["uniform", "leading", "trailing"],
}


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device", ctypes.c_int32 * 2), ("ndim", ctypes.c_int32),
                ("dtype", ctypes.c_uint8 * 4), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.c_void_p), ("byte_offset", ctypes.c_uint64)]  # fmt: skip


class AttentionOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("scale", ctypes.c_float), ("causal", ctypes.c_int32),
                ("kv_lengths", ctypes.c_void_p), ("window_left", ctypes.c_int64), ("window_right", ctypes.c_int64)] + \
        [(n, ctypes.c_void_p) for n in ("alibi_slopes", "sinks", "bias", "mask")] + \
        [("soft_cap", ctypes.c_float), ("reserved", ctypes.c_int32)]  # fmt: skip


class PlanOptions(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + \
        [(n, ctypes.c_int32) for n in NAMES] + [("steps", ctypes.c_int64)] + \
        [(n, ctypes.c_double) for n in ("shift", "eta", "guidance", "clip", "beta_start", "beta_end")] + \
        [("train_steps", ctypes.c_int64)] + [(n, ctypes.c_double) for n in ("rtol", "atol", "h_init")] + \
        [("times", ctypes.c_void_p), ("times_len", ctypes.c_size_t), ("max_evals", ctypes.c_int64)]  # fmt: skip


class Request(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("done", ctypes.c_int32), ("role", ctypes.c_int32)]


MODEL = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.POINTER(Request), *[ctypes.POINTER(ctypes.c_float)] * 3)


def pointer(a):
    return a.ctypes.data_as(ctypes.c_void_p)


def tensor(a):
    code = 2 if a.dtype == F else 1
    t = Tensor(a.ctypes.data, (1, 0), a.ndim, (code, 8 * a.itemsize, 1, 0), (ctypes.c_int64 * a.ndim)(*a.shape))
    t.keep = a
    return ctypes.byref(t)


class Library:
    def __init__(self, path):
        self.lib = ctypes.CDLL(str(path))
        self.lib.dgm_last_error.restype = ctypes.c_char_p

    def call(self, name, *args):
        if getattr(self.lib, name)(*args) != 0:
            raise RuntimeError(self.lib.dgm_last_error().decode())

    def random(self, name, seeds, purpose, draw, elements):
        out = np.empty((len(seeds), elements), F)
        seeds = np.array(seeds, np.uint64)
        self.call(name, pointer(seeds), ctypes.c_size_t(len(seeds)), purpose, draw, tensor(out))
        return out

    def attention(self, q, k, v, **changes):
        """The rows with their lse in the last column."""
        o, size = AttentionOptions(), ctypes.sizeof(AttentionOptions)
        self.call("dgm_attention_options_init", ctypes.byref(o), ctypes.c_size_t(size))
        kept = []
        for name, value in changes.items():
            if isinstance(value, np.ndarray):
                kept.append(tensor(value) if name in ("bias", "mask") else value.ctypes)
                value = ctypes.addressof(kept[-1]._obj) if name in ("bias", "mask") else value.ctypes.data
            setattr(o, name, value)
        out, lse = np.empty((1, 1, len(q), v.shape[1]), F), np.empty((1, 1, len(q)), F)
        q, k, v = (tensor(a[None, None]) for a in (q, k, v))
        self.call("dgm_attention", q, k, v, ctypes.byref(o), tensor(out), tensor(lse))
        return np.concatenate([out, lse[..., None]], -1)[0, 0]

    def rows(self, name, x, *args):
        out = np.empty_like(x)
        self.call(name, tensor(x), *args, tensor(out))
        return out

    def plan(self, options):
        c, plan = PlanOptions(ctypes.sizeof(PlanOptions)), ctypes.c_void_p()
        self.call("dgm_plan_options_init", ctypes.byref(c), ctypes.c_size_t(ctypes.sizeof(c)))
        for name, value in {**DEFAULTS, **options}.items():
            if name == "times":
                kept = np.array(value or [], np.float64)
                c.times, c.times_len = (kept.ctypes.data, len(kept)) if value else (None, 0)
            else:
                setattr(c, name, NAMES[name].index(value) if name in NAMES else value or 0)
        self.call("dgm_plan_compile", ctypes.byref(c), ctypes.byref(plan))
        return plan

    def export(self, plan, seeds, elements):
        """The export of a run that has just started."""
        sizes, rows = [ctypes.c_size_t() for _ in range(3)], ctypes.c_size_t(len(seeds))
        elements = ctypes.c_size_t(elements)
        self.call("dgm_plan_run_size", plan, rows, ctypes.byref(sizes[0]))
        self.call("dgm_plan_state_len", plan, rows, elements, ctypes.byref(sizes[1]))
        run, state = np.zeros(sizes[0].value, np.uint8), np.zeros(sizes[1].value, F)
        start = pointer(run), sizes[0], pointer(state), sizes[1]
        self.call("dgm_run_start", plan, pointer(np.array(seeds, np.uint64)), rows, elements, None, *start)
        self.call("dgm_run_export_size", plan, *start[:2], ctypes.byref(sizes[2]))
        block = ctypes.create_string_buffer(sizes[2].value)
        self.call("dgm_run_export", plan, *start, block, sizes[2], ctypes.byref(sizes[2]))
        return block.raw

    def forward(self, path, x, t, labels, shape):
        model, size, batch = ctypes.c_void_p(), ctypes.c_size_t(), ctypes.c_size_t(len(t))
        self.call("dgm_model_load", str(path).encode(), ctypes.byref(model))
        self.call("dgm_model_workspace_len", model, batch, ctypes.byref(size))
        out, work = np.empty(shape, F), np.empty(size.value, F)
        t, labels = np.array(t, F), np.array(labels, np.int64)
        self.call("dgm_model_forward", model, tensor(x), pointer(t), pointer(labels), pointer(work), size, tensor(out))
        self.lib.dgm_model_free(model)
        return out

    def categorical(self, logits, seeds, purpose, draw):
        out, rows = np.empty(len(seeds), np.int64), ctypes.c_size_t(len(seeds))
        seeds = np.array(seeds, np.uint64)
        self.call("dgm_random_categorical", tensor(logits), pointer(seeds), rows, purpose, draw, pointer(out))
        return out

    def sample(self, options, seeds, elements, model):
        plan, size = self.plan(options), ctypes.c_size_t()
        rows = ctypes.c_size_t(len(seeds))
        self.call("dgm_plan_run_size", plan, rows, ctypes.byref(size))
        run = np.zeros(size.value, np.uint8)
        self.call("dgm_plan_state_len", plan, rows, ctypes.c_size_t(elements), ctypes.byref(size))
        state, shape = np.zeros(size.value, F), (len(seeds), elements)
        y, t, seeds = np.zeros(shape, F), np.zeros(len(seeds), F), np.array(seeds, np.uint64)

        def callback(_, request, x, t, y):
            x, y = (np.ctypeslib.as_array(p, shape) for p in (x, y))
            for r in range(shape[0]):
                y[r] = model(x[r], F(t[r]), request[0].role)
            return 0

        self.call("dgm_sample", plan, pointer(seeds), rows, ctypes.c_size_t(elements), None, pointer(run),
                  ctypes.c_size_t(len(run)), pointer(state), ctypes.c_size_t(len(state)), pointer(y), pointer(t),
                  MODEL(callback), None)  # fmt: skip
        self.lib.dgm_plan_free(plan)
        return state[: shape[0] * elements].reshape(shape)


def model(x, t, role):
    return x * F(0.25 if role == 0 else 0.125) + t * F(0.0078125)


def stiff(x, t, role):
    """Makes an adaptive solver reject steps."""
    return x * F(40) + t


def plans():
    fixed = NAMES["solver"][:-1]
    for solver in fixed:
        for prediction in ("velocity", "v"):
            yield dict(solver=solver, prediction=prediction, steps=7, shift=3.0, guidance=2.5)
            yield dict(solver=solver, prediction=prediction, steps=5, clip=1.5)
        for process, spacing in (("vp_linear", "leading"), ("vp_scaled_linear", "trailing"), ("vp_cosine", "uniform")):
            for prediction in ("epsilon", "x0", "v", "velocity"):
                yield dict(solver=solver, process=process, spacing=spacing, prediction=prediction, steps=6)
        yield dict(solver=solver, process="vp_linear", prediction="epsilon", times=[900.5, 500.0, 100.25, 0.0], clip=2.0)
    yield dict(solver="ddim", process="vp_linear", prediction="v", steps=9, eta=0.7, guidance=3.0)
    yield dict(solver="bosh3", rtol=1e-5, atol=1e-6)
    yield dict(solver="bosh3", prediction="v", h_init=0.5, guidance=1.5, times=[0.9, 0.1])
    yield dict(solver="bosh3", prediction="v", clip=1.0, times=[0.95, 0.05])


def attention_checks(lib):
    rows = 40
    for keys in (127, 513, 1300):
        q, k, v = values((rows, 24), 1) * F(9), values((keys, 24), 2), values((keys, 20), 3)
        position, j = np.arange(rows)[:, None] + keys - rows, np.arange(keys)
        bias, mask = values((1, 1, rows, keys), 4) * F(3), values((1, 1, rows, keys), 5) > 0.2
        bias[..., ::5] = -np.inf
        v[mask[0, 0].sum(0).argmin()] = np.nan
        slope, sink = np.array([0.3], F), np.array([1.7], F)
        finite = np.where(np.isnan(v), F(1), v)
        causal, near = j <= position, (j >= position - 200) & (j <= position + 3)
        row_bias, shown = bias[0, 0], mask[0, 0]
        for name, v, given, each in (
            ("plain", finite, {}, lambda i: {}),
            ("causal, capped", finite, dict(causal=1, soft_cap=5.0), lambda i: dict(seen=causal[i], soft_cap=5.0)),
            ("window, ALiBi", finite, dict(window_left=200, window_right=3, alibi_slopes=slope),
             lambda i: dict(seen=near[i], slope=slope[0])),
            ("bias, sink", finite, dict(bias=bias, sinks=sink, scale=0.5),
             lambda i: dict(seen=row_bias[i] > -np.inf, bias=row_bias[i], sink=sink[0], scale=0.5)),
            ("mask over NaN", v, dict(mask=mask.astype(np.uint8)), lambda i: dict(seen=shown[i])),
            ("all", finite, dict(mask=mask.astype(np.uint8), bias=bias, causal=1, sinks=sink, alibi_slopes=slope, soft_cap=3.0),
             lambda i: dict(seen=shown[i] & causal[i] & (row_bias[i] > -np.inf), bias=row_bias[i], sink=sink[0],
                            slope=slope[0], soft_cap=3.0)),
        ):  # fmt: skip
            ours = [attention_row(q[i], k, v, position[i, 0], **each(i)) for i in range(rows)]
            ours = np.stack([np.append(row, lse) for row, lse in ours])
            yield f"attention over {keys} keys, {name}", ours, lib.attention(q, k, v, **given)


def model_checks(lib):
    digits = values((2, 1, 8, 8), 8) * F(2), [0.75, 0.5], [3, 10], (2, 1, 8, 8)
    tiny = values((2, 3, 12, 12), 9), [17.0, 3.5], [0, 1], (2, 6, 12, 12)
    for path, (x, t, labels, shape) in (
        ("models/digits.safetensors", digits),
        ("tests/golden/tiny_dit.safetensors", tiny),
    ):
        ours = np.stack([dit(*safetensors(ROOT / path), *row) for row in zip(x, t, labels)])
        yield f"forward of {path}", ours, lib.forward(ROOT / path, x, t, labels, shape)


def block_checks(lib, seeds):
    logits = np.where(values((3, 50), 6) > 0.7, F(-np.inf), values((3, 50), 7) * F(4)).astype(F)
    for draw in range(20):
        ours = np.array([categorical(row, 9, draw, s) for row, s in zip(logits, seeds)])
        yield f"categorical, draw {draw}", ours, lib.categorical(logits, seeds, 9, draw)
    for options in (dict(steps=4), dict(process="vp_linear", prediction="v", solver="ddim", eta=0.5, times=[9.0, 2.5])):
        o = {**DEFAULTS, "max_evals": 10_000, **options}
        plan, got = lib.plan(options), ctypes.c_uint64()
        lib.call("dgm_plan_hash", plan, ctypes.byref(got))
        hash_ = plan_hash(plan_block(o, [NAMES[n].index(o[n]) for n in NAMES]))
        yield f"hash of plan {options}", np.array([hash_], np.uint64), np.array([got.value], np.uint64)
        sigma = F(Levels(o).at(grid(o)[0])[2])
        state = np.stack([normal(6, 0, 0, s) * sigma for s in seeds])
        bytes_ = [started_run(hash_, 6, seeds, state), lib.export(plan, seeds, 6)]
        ours, want = (np.frombuffer(b, np.uint8) for b in bytes_)
        yield f"export of plan {options}", ours, want


def checks(lib):
    seeds = row_seeds(7, 3)
    for name, ours in (("dgm_random_uniform", uniform), ("dgm_random_normal", normal)):
        want = lib.random(name, seeds, 9, 5, 10_001)
        yield name, np.stack([ours(10_001, 5, 9, s) for s in seeds]), want
    yield from attention_checks(lib)
    yield from model_checks(lib)
    yield from block_checks(lib, seeds)
    x, eps = values((2, 9001), 4), F(1e-5)
    one = np.ones(9001, F)
    want = lib.rows("dgm_rms_norm", x, tensor(one), ctypes.c_float(eps))
    yield "rms_norm of 9001 elements", norm(x, one, None, eps, False), want
    wide = np.ascontiguousarray(values((1 << 20, 1), 5) * F(120))
    yield "silu of wide inputs", silu(wide), lib.rows("dgm_silu", wide)
    yield "gelu (erf) of wide inputs", gelu(wide / F(8), "erf"), lib.rows("dgm_gelu", wide / F(8), 1)
    for options in plans():
        name = "sample " + " ".join(f"{k}={v}" for k, v in options.items())
        ours = sample(options, seeds, 1030, model)
        yield name, ours, lib.sample(options, seeds, 1030, model)
    options = dict(solver="bosh3", h_init=0.5)
    yield "sample with rejected steps", sample(options, seeds, 1030, stiff), lib.sample(options, seeds, 1030, stiff)


def same_bits(a, b):
    """Equal but for the bits of a NaN."""
    return a.shape == b.shape and a.dtype == b.dtype and bool(np.all((bits(a) == bits(b)) | (a != a) & (b != b)))


def bits(a):
    return a.view(f"u{a.itemsize}")


def main():
    names = {"darwin": "libdgm.dylib"}
    lib = Library(sys.argv[1] if sys.argv[1:] else ROOT / "target/release" / names.get(sys.platform, "libdgm.so"))
    np.seterr(all="ignore")
    passed = failed = 0
    for name, ours, want in checks(lib):
        good = same_bits(ours, want)
        passed, failed = passed + good, failed + (not good)
        print("ok     " if good else "FAILED ", name)
    print(f"library: {passed} passed, {failed} failed")
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
