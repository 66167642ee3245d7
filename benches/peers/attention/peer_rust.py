"""candle and burn-flex, through the C interface of benches/peers/rust."""

import ctypes

from harness.measure import Timed
from harness.rust import Peer, load

from .inputs import LeftOut

DTYPES = {"f32": 0, "f16": 1, "bf16": 2}


class Case(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in
                ("batch", "heads", "kv_heads", "queries", "keys", "dim", "value_dim")] + \
               [("dtype", ctypes.c_int32), ("causal", ctypes.c_int32), ("scale", ctypes.c_float),
                ("soft_cap", ctypes.c_float)]


def _peer(lib, name, case, q, k, v):
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (q, k, v))
    shape = (case.batch, case.heads, case.queries, case.value_dim)
    return Peer(lib, name, lib.rust_peer_new(name.encode(), ctypes.byref(case), *pointers), shape)


def _timed(lib, name, case, inputs, fold):
    heads, queries = (case.kv, case.heads // case.kv) if fold else (case.heads, case.queries)
    shape = Case(case.batch, heads, case.kv, queries, case.keys, case.dim, case.dim, DTYPES[case.dtype],
                 case.causal, inputs.scale, case.soft_cap)
    handles = [_peer(lib, name, shape, *s) for s in inputs.sets]
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
    lib = load(library)
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
