"""This engine. A new entry of the C ABI is one more function in ENTRIES."""

import ctypes

import torch

from harness.library import Tensor
from harness.measure import Timed

from .inputs import LeftOut


def options(engine, case, inputs):
    fields = {"causal": int(case.causal), "soft_cap": case.soft_cap, "window_left": case.window_left}
    optional = {"kv_lengths": inputs.lengths, "alibi_slopes": inputs.slopes, "sinks": inputs.sinks,
                "bias": inputs.bias, "mask": inputs.mask}
    return engine.attention_options(**fields, **{k: v for k, v in optional.items() if v is not None})


def walk(calls, out):
    """One call after the other over the sets; a sample continues where the last one stopped."""
    state = {"next": 0}

    def run(n):
        for _ in range(n):
            calls[state["next"]]()
            state["next"] = (state["next"] + 1) % len(calls)

    def last():
        calls[-1]()
        return out

    return Timed("ours", last, run=run)


def contiguous(engine, case, inputs):
    """dgm_attention()"""
    out = torch.zeros_like(inputs.sets[0][0])
    chosen = options(engine, case, inputs)
    calls = [engine.bind("attention", q, k, v, chosen, out, None) for q, k, v in inputs.sets]
    return walk(calls, out)


class KvCache(ctypes.Structure):
    """dgm_kv_cache; every field but the first is an address."""

    _fields_ = [("struct_size", ctypes.c_size_t)] + [(name, ctypes.c_void_p) for name in
                                                     ("k", "v", "k_scale", "v_scale", "block_table", "lengths")]

    @classmethod
    def of(cls, lengths, **tensors):
        cache = cls(ctypes.sizeof(cls), lengths=lengths.data_ptr())
        cache.owners = [lengths]
        for name, t in tensors.items():
            cache.owners.append(Tensor.of(t))
            setattr(cache, name, ctypes.addressof(cache.owners[-1]))
        return cache


PAGE = 128


def pages(t, order):
    """[B, Hkv, T, ...] cut into pages of PAGE tokens that lie in the given order: [P, Hkv, PAGE, ...]."""
    b, h, tokens, *rest = t.shape
    cut = t.view(b, h, tokens // PAGE, PAGE, *rest).transpose(1, 2).reshape(-1, h, PAGE, *rest)
    out = torch.empty_like(cut)
    out[order.flatten().long()] = cut
    return out


def paged(engine, case, inputs):
    """dgm_attention_paged(): caches in shuffled pages, and int8 caches, those contiguous too."""
    out = torch.zeros_like(inputs.sets[0][0])
    chosen = options(engine, case, inputs)
    lengths = torch.full((case.batch,), case.keys)
    calls = []
    for q, k, v in inputs.sets:
        named = dict(zip(("k", "k_scale", "v", "v_scale"), (*k, *v))) if case.kv_dtype else {"k": k, "v": v}
        if case.paged:
            count = case.batch * case.keys // PAGE
            table = torch.randperm(count, generator=torch.Generator().manual_seed(2)).view(case.batch, -1).int()
            named = {name: pages(t, table) for name, t in named.items()}
            named["block_table"] = table
        calls.append(engine.bind("attention_paged", q, KvCache.of(lengths, **named), chosen, out, None))
    return walk(calls, out)


def backward(engine, case, inputs):
    """dgm_attention_backward() from the saved result and lse of the forward pass."""
    q, k, v = inputs.sets[0]
    chosen = options(engine, case, inputs)
    out, lse = torch.empty_like(q), torch.empty(q.shape[:3])
    engine.attention(q, k, v, chosen, out, lse)
    gradients = [torch.empty_like(t) for t in (q, k, v)]
    call = engine.bind("attention_backward", q, k, v, out, lse, inputs.grad, chosen, *gradients, None)

    def last():
        call()
        return gradients

    return Timed("ours", last)


def make(engine, case, inputs):
    if case.backward:
        needed = "attention_backward"
    elif case.paged or case.kv_dtype:
        needed = "attention_paged"
    else:
        needed = "attention"
    if not engine.has(needed):
        raise LeftOut(f"this build has no dgm_{needed}")
    return ENTRIES[needed](engine, case, inputs)


ENTRIES = {"attention": contiguous, "attention_paged": paged, "attention_backward": backward}
