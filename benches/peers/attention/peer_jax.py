"""JAX: dot_product_attention, jitted by XLA for the CPU. Layout [batch, length, heads, dim]."""

import jax
import jax.numpy as jnp
import torch

from harness.measure import Timed

from .inputs import LeftOut


def _in(t):
    return jax.dlpack.from_dlpack(t.contiguous())


def make(case, inputs):
    if case.kv_dtype or case.paged or case.backward or case.soft_cap or case.sinks:
        raise LeftOut("jax.nn.dot_product_attention has no such option")
    if case.batch * case.heads * case.queries * case.keys > 1 << 28:
        raise LeftOut("XLA for the CPU keeps all scores in memory: measured up to 1 GiB of them")
    bias = None
    if inputs.bias is not None or case.alibi or inputs.mask is not None:
        bias = _in(inputs.additive())
    lengths = None if inputs.lengths is None else jnp.asarray(inputs.lengths.numpy(), jnp.int32)
    window = None if case.window_left < 0 else (case.window_left, 0)
    causal = case.causal and bias is None

    @jax.jit
    def attend(q, k, v):
        return jax.nn.dot_product_attention(q, k, v, bias=bias, is_causal=causal, scale=inputs.scale,
                                            key_value_seq_lengths=lengths, local_window_size=window)

    sets = [tuple(_in(t.transpose(1, 2)) for t in s) for s in inputs.sets]
    state = {"next": 0}

    def run(n):
        for _ in range(n):
            attend(*sets[state["next"]]).block_until_ready()
            state["next"] = (state["next"] + 1) % len(sets)

    def last():
        return torch.from_dlpack(attend(*sets[-1]).block_until_ready()).transpose(1, 2)

    return [Timed("jax", last, run=run)]
