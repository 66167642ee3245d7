"""This engine. A new entry of the C ABI is one more function in FORWARD or BACKWARD."""

import torch

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
    if case.kv_dtype:
        raise LeftOut("needs an int8 cache")
    out = torch.zeros_like(inputs.sets[0][0])
    chosen = options(engine, case, inputs)
    calls = [engine.bind("attention", q, k, v, chosen, out, None) for q, k, v in inputs.sets]
    return walk(calls, out)


def make(engine, case, inputs):
    if case.backward:
        needed = "attention_backward"
    elif case.paged or case.kv_dtype:
        needed = "attention_paged"
    else:
        needed = "attention"
    if not engine.has(needed) or needed not in ENTRIES:
        raise LeftOut(f"this build has no dgm_{needed}")
    return ENTRIES[needed](engine, case, inputs)


ENTRIES = {"attention": contiguous}
