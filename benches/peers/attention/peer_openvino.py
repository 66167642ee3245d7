"""OpenVINO: its ScaledDotProductAttention node, compiled for the CPU. Buffers are shared."""

import numpy as np
import openvino as ov
import torch
from openvino import opset13 as op

from harness.measure import Timed
from harness.openvino import compile_model, share

from .inputs import LeftOut

TYPES = {"f32": ov.Type.f32, "bf16": ov.Type.bf16}


def _compile(case, inputs, q_shape, k_shape, threads, io, mask):
    q, k, v = (op.parameter(list(s), io) for s in (q_shape, k_shape, k_shape))
    extra = [] if mask is None else [op.parameter(list(mask.shape), io)]
    scale = op.constant(np.array(inputs.scale, np.float32))
    if io != ov.Type.f32:
        scale = op.convert(scale, io)
    causal = case.causal and mask is None
    if extra:
        node = op.scaled_dot_product_attention(q, k, v, extra[0], scale, causal=False)
    elif causal:
        zero = op.constant(np.zeros((), np.float32))
        node = op.scaled_dot_product_attention(q, k, v, op.convert(zero, io), scale, causal=True)
    else:
        zero = op.constant(np.zeros((), np.float32))
        node = op.scaled_dot_product_attention(q, k, v, op.convert(zero, io), scale, causal=False)
    model = ov.Model([node], [q, k, v, *extra])
    return compile_model(model, threads, case.dtype == "bf16")


def _timed(name, case, inputs, threads, io, mask):
    """io: the type of inputs and outputs; bf16 arithmetic may prefer f32 there."""
    fold = case.queries == 1 and case.kv != case.heads
    q_shape = (case.batch, case.kv, case.heads // case.kv, case.dim) if fold \
        else (case.batch, case.heads, case.queries, case.dim)
    k_shape = (case.batch, case.kv if fold else case.heads, case.keys, case.dim)
    compiled = _compile(case, inputs, q_shape, k_shape, threads, io, mask)
    dtype = torch.float32 if io == ov.Type.f32 else torch.bfloat16
    out = torch.empty(q_shape, dtype=dtype)
    owners, requests = [], []
    for q, k, v in inputs.sets:
        if not fold and case.kv != case.heads:
            k, v = (t.repeat_interleave(case.heads // case.kv, 1) for t in (k, v))
        tensors = [q.reshape(q_shape), k, v] + ([] if mask is None else [mask])
        tensors = [t.to(dtype).contiguous() for t in tensors]
        owners.append(tensors)
        request = compiled.create_infer_request()
        for i, t in enumerate(tensors):
            request.set_input_tensor(i, share(t))
        request.set_output_tensor(share(out))
        requests.append(request)
    state = {"next": 0, "owners": owners}

    def run(n):
        for _ in range(n):
            requests[state["next"]].infer()
            state["next"] = (state["next"] + 1) % len(requests)

    def last():
        requests[-1].infer()
        return out.view(case.batch, case.heads, case.queries, case.dim)

    return Timed(name, last, run=run)


def make(case, inputs, threads):
    if case.dtype not in TYPES or case.kv_dtype or case.paged or case.backward:
        raise LeftOut("OpenVINO's node has no such thing")
    if case.soft_cap or case.sinks:
        raise LeftOut("OpenVINO's node has neither soft-cap nor sinks")
    plain_causal = case.causal and not case.alibi and case.window_left < 0 and inputs.bias is None
    mask = None if plain_causal else inputs.additive()
    peers = [_timed("openvino", case, inputs, threads, TYPES[case.dtype], mask)]
    if case.dtype == "bf16" and case.cache_bytes() < 1 << 29:
        peers.append(_timed("openvino, f32 in and out", case, inputs, threads, ov.Type.f32, mask))
    return peers
