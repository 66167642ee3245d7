"""candle and burn-flex, through the C interface of benches/peers/rust."""

import ctypes

import torch

from harness.measure import Timed

from .inputs import LeftOut

DTYPES = {"f32": 0, "f16": 1, "bf16": 2}


class Case(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in
                ("batch", "heads", "kv_heads", "queries", "keys", "dim", "value_dim")] + \
               [("dtype", ctypes.c_int32), ("causal", ctypes.c_int32), ("scale", ctypes.c_float),
                ("soft_cap", ctypes.c_float)]


class Handle:
    """A peer with its own copy of the inputs; released with the object."""

    def __init__(self, lib, name, case, q, k, v):
        self.lib, self.shape = lib, (case.batch, case.heads, case.queries, case.value_dim)
        self.pointer = lib.rust_peer_new(name.encode(), ctypes.byref(case), *(ctypes.c_void_p(t.data_ptr()) for t in (q, k, v)))
        if not self.pointer:
            raise LeftOut(f"{name} refuses it")

    def run(self):
        if self.lib.rust_peer_run(ctypes.c_void_p(self.pointer)) != 0:
            raise LeftOut("it fails")

    def output(self):
        out = torch.empty(self.shape)
        status = self.lib.rust_peer_output(ctypes.c_void_p(self.pointer), ctypes.c_void_p(out.data_ptr()),
                                           ctypes.c_size_t(out.numel()))
        if status != 0:
            raise LeftOut("it gives no output")
        return out

    def __del__(self):
        if getattr(self, "pointer", None):
            self.lib.rust_peer_free(ctypes.c_void_p(self.pointer))


def _timed(lib, name, case, inputs, fold):
    heads, queries = (case.kv, case.heads // case.kv) if fold else (case.heads, case.queries)
    shape = Case(case.batch, heads, case.kv, queries, case.keys, case.dim, case.dim, DTYPES[case.dtype],
                 case.causal, inputs.scale, case.soft_cap)
    handles = [Handle(lib, name, shape, *s) for s in inputs.sets]
    state = {"next": 0}

    def run(n):
        for _ in range(n):
            handles[state["next"]].run()
            state["next"] = (state["next"] + 1) % len(handles)

    def last():
        handles[-1].run()
        return handles[-1].output().view(case.batch, case.heads, case.queries, case.dim)

    return Timed(name + (", heads folded" if fold else ""), last, run=run)


def make(case, inputs, library):
    if library is None:
        raise LeftOut("candle and burn-flex are not built")
    if case.kv_dtype or case.paged or case.backward or case.alibi or case.sinks or case.lengths \
            or case.window_left >= 0 or case.bias or case.mask:
        raise LeftOut("candle and burn-flex are measured on plain, causal, soft-capped and grouped attention")
    lib = ctypes.CDLL(library)
    lib.rust_peer_new.restype = ctypes.c_void_p
    peers = []
    grouped_decode = case.queries == 1 and case.kv != case.heads
    if case.batch == 1 or case.dtype != "bf16" and not case.soft_cap:
        peers.append(lambda: _timed(lib, "candle flash", case, inputs, False))
    if not case.causal and not case.soft_cap and case.dtype != "bf16" and (grouped_decode or case.kv == case.heads) \
            and case.batch * case.heads * case.queries * case.keys <= 1 << 28:
        peers.append(lambda: _timed(lib, "candle naive", case, inputs, grouped_decode))
    if grouped_decode or case.kv == case.heads:
        peers.append(lambda: _timed(lib, "burn-flex", case, inputs, grouped_decode))
    return peers
