"""ggml: ggml_flash_attn_ext, from its shared libraries compiled for this machine."""

import ctypes
import glob
import os

import torch

from harness.measure import Timed

from .inputs import LeftOut

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
OF_TORCH = {torch.float32: F32, torch.float16: F16, torch.bfloat16: BF16}


class InitParams(ctypes.Structure):
    _fields_ = [("size", ctypes.c_size_t), ("buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


class Tensor(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int), ("buffer", ctypes.c_void_p), ("ne", ctypes.c_int64 * 4),
                ("nb", ctypes.c_size_t * 4), ("op", ctypes.c_int), ("op_params", ctypes.c_int32 * 16),
                ("flags", ctypes.c_int32), ("src", ctypes.c_void_p * 10), ("view_src", ctypes.c_void_p),
                ("view_offs", ctypes.c_size_t), ("data", ctypes.c_void_p)]


class Plan(ctypes.Structure):
    _fields_ = [("work_size", ctypes.c_size_t), ("work_data", ctypes.c_void_p), ("threads", ctypes.c_int),
                ("threadpool", ctypes.c_void_p), ("abort", ctypes.c_void_p), ("abort_data", ctypes.c_void_p),
                ("use_ref", ctypes.c_bool)]


class PoolParams(ctypes.Structure):
    _fields_ = [("cpumask", ctypes.c_bool * 512), ("threads", ctypes.c_int), ("prio", ctypes.c_int),
                ("poll", ctypes.c_uint32), ("strict", ctypes.c_bool), ("paused", ctypes.c_bool)]


class Ggml:
    """The few functions of ggml that are needed, and one pool of threads."""

    def __init__(self, threads):
        try:
            import libggml
        except ImportError:
            raise LeftOut("ggml is not installed") from None
        found = glob.glob(os.path.join(os.path.dirname(libggml.__file__), "lib*", "libggml-*.so"))
        libraries = sorted(found, key=lambda p: "base" not in p)  # base first: the other needs it
        self.libs = [ctypes.CDLL(p, mode=ctypes.RTLD_GLOBAL) for p in libraries]
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        self.function("ggml_cpu_init", None)()
        self.init = self.function("ggml_init", pointer, InitParams)
        self.free = self.function("ggml_free", None, pointer)
        self.tensor_4d = self.function("ggml_new_tensor_4d", ctypes.POINTER(Tensor), pointer, ctypes.c_int,
                                       *[ctypes.c_int64] * 4)
        self.flash = self.function("ggml_flash_attn_ext", ctypes.POINTER(Tensor), pointer, *[ctypes.POINTER(Tensor)] * 4,
                                   *[ctypes.c_float] * 3)
        self.add_sinks = self.function("ggml_flash_attn_ext_add_sinks", None, *[ctypes.POINTER(Tensor)] * 2)
        self.graph = self.function("ggml_new_graph", pointer, pointer)
        self.expand = self.function("ggml_build_forward_expand", None, pointer, ctypes.POINTER(Tensor))
        self.plan = self.function("ggml_graph_plan", Plan, pointer, ctypes.c_int, pointer)
        self.compute = self.function("ggml_graph_compute", ctypes.c_int, pointer, ctypes.POINTER(Plan))
        self.quantize = self.function("ggml_quantize_chunk", size, ctypes.c_int, pointer, pointer,
                                      *[ctypes.c_int64] * 3, pointer)
        self.threads = threads
        params = self.function("ggml_threadpool_params_default", PoolParams, ctypes.c_int)(threads)
        self.pool = self.function("ggml_threadpool_new", pointer, ctypes.POINTER(PoolParams))(params)

    def function(self, name, result, *arguments):
        for lib in self.libs:
            if hasattr(lib, name):
                f = getattr(lib, name)
                f.restype, f.argtypes = result, arguments
                return f
        raise LeftOut(f"this ggml has no {name}")

    def q8_0(self, t):
        """t quantised in blocks of 32."""
        out = torch.empty(t.numel() // 32 * 34, dtype=torch.uint8)
        self.quantize(Q8_0, t.data_ptr(), out.data_ptr(), 0, t.numel() // t.shape[-1], t.shape[-1], None)
        return out


class Graph:
    """One attention over given buffers."""

    def __init__(self, ggml, case, inputs, q, k, v, cache, mask, max_bias, out):
        self.ggml, self.owners = ggml, [q, k, v, mask, out]
        # Room for a handful of tensor headers and one graph; the data lies in torch tensors.
        self.context = ggml.init(InitParams(1 << 20, None, True))
        q, mask, sinks = self._of(q), self._of(mask), self._of(inputs.sinks)
        shape = (case.dim, case.keys, case.kv, case.batch)
        k, v = (self._tensor(cache, shape, t) for t in (k, v))
        result = ggml.flash(self.context, q, k, v, mask, inputs.scale, max_bias, case.soft_cap)
        if sinks:
            ggml.add_sinks(result, sinks)
        result.contents.data = out.data_ptr()
        self.graph = ggml.graph(self.context)
        ggml.expand(self.graph, result)
        self.plan = ggml.plan(self.graph, ggml.threads, ggml.pool)
        self.work = torch.empty(max(1, self.plan.work_size), dtype=torch.uint8)
        self.plan.work_data = self.work.data_ptr()

    def _of(self, t):
        if t is None:
            return None
        return self._tensor(OF_TORCH[t.dtype], ([*reversed(t.shape)] + [1, 1, 1])[:4], t)

    def _tensor(self, kind, shape, t):
        tensor = self.ggml.tensor_4d(self.context, kind, *shape)
        tensor.contents.data = t.data_ptr()
        return tensor

    def run(self):
        if self.ggml.compute(self.graph, ctypes.byref(self.plan)) != 0:
            raise RuntimeError("ggml_graph_compute fails")

    def __del__(self):
        self.ggml.free(self.context)


def _mask(case, inputs):
    """The f16 mask, and ggml's own slopes for ALiBi."""
    if not case.alibi:
        mask = inputs.additive(torch.float16)
        return (None if mask is None else mask.expand(-1, -1, case.queries, -1).contiguous()), 0.0
    distance = torch.arange(case.keys)[None, :] - torch.arange(case.queries)[:, None] - (case.keys - case.queries)
    hidden = ~inputs.visible(list(range(case.queries)), 0)
    return (-distance.abs()).float().masked_fill(hidden, -torch.inf).half()[None, None].contiguous(), 8.0


def _timed(ggml, name, case, inputs, cache):
    mask, max_bias = _mask(case, inputs)
    out = torch.empty(case.batch, case.queries, case.heads, case.dim)
    to = {F32: lambda t: t.float(), F16: lambda t: t.half(), BF16: lambda t: t.bfloat16(), Q8_0: ggml.q8_0}[cache]
    wide = lambda t: t[0].float() * t[1][..., None] if isinstance(t, tuple) else t
    graphs = [Graph(ggml, case, inputs, q.float(), to(wide(k)), to(wide(v)), cache, mask, max_bias, out)
              for q, k, v in inputs.sets]
    state = {"next": 0}

    def run(n):
        for _ in range(n):
            graphs[state["next"]].run()
            state["next"] = (state["next"] + 1) % len(graphs)

    def last():
        graphs[-1].run()
        return out.transpose(1, 2)

    # Its masks and its 16-bit caches are rounded; blocks of 8 bits a little more.
    return Timed(name, last, run=run, tolerance={F32: 2e-2, F16: 2e-2, BF16: 8e-2, Q8_0: 5e-2}[cache])


def make(case, inputs, ggml):
    if ggml is None:
        raise LeftOut("ggml is not there")
    if case.paged or case.backward or case.mask:
        raise LeftOut("ggml is not measured on that")
    if case.kv_dtype == "int8":
        return [_timed(ggml, "ggml, q8_0 cache", case, inputs, Q8_0)]
    if case.dtype == "f32":
        return [_timed(ggml, "ggml", case, inputs, F32)]
    peers = [_timed(ggml, "ggml, f16 cache", case, inputs, F16)]
    if case.dtype == "bf16" and case.group == "decode":
        peers.append(_timed(ggml, "ggml, bf16 cache", case, inputs, BF16))
    return peers
