"""ONNX Runtime: the Attention operator of ONNX, and the contributed MultiHeadAttention and
GroupQueryAttention. Inputs and outputs are bound once to the same buffers."""

import onnxruntime as ort
import torch
from onnx import TensorProto, helper

from harness.measure import Timed

from .inputs import LeftOut

TYPES = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16,
         torch.int32: TensorProto.INT32, torch.bool: TensorProto.BOOL}


def _session(node, inputs, outputs, threads):
    info = lambda name, t: helper.make_tensor_value_info(name, TYPES[t.dtype], list(t.shape))
    graph = helper.make_graph([node], "attention", [info(*i) for i in inputs.items()],
                              [info(*o) for o in outputs.items()])
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _bind(session, inputs, outputs):
    binding = session.io_binding()
    for name, t in inputs.items():
        binding.bind_input(name, "cpu", 0, TYPES[t.dtype], list(t.shape), t.data_ptr())
    for name, t in outputs.items():
        binding.bind_output(name, "cpu", 0, TYPES[t.dtype], list(t.shape), t.data_ptr())
    return binding


def _timed(name, node, sets, outputs, threads, result):
    """sets: the named inputs of each call. `outputs(set)` gives the named output buffers of a set."""
    bound = [(s, outputs(s)) for s in sets]
    session = _session(node, bound[0][0], bound[0][1], threads)
    bindings = [_bind(session, s, o) for s, o in bound]
    state = {"next": 0, "owners": bound}

    def run(n):
        for _ in range(n):
            session.run_with_iobinding(bindings[state["next"]])
            state["next"] = (state["next"] + 1) % len(bindings)

    def last():
        session.run_with_iobinding(bindings[-1])
        return result(bound[-1][1])

    return Timed(name, last, run=run)


def _attention(case, inputs, threads):
    """ONNX Attention-23; [batch, heads, length, dim]."""
    mask = None
    plain_causal = case.causal and not case.alibi and case.window_left < 0 and inputs.bias is None
    if not plain_causal:
        mask = inputs.additive(inputs.sets[0][0].dtype)
    if mask is not None:
        mask = mask.expand(case.batch, -1, case.queries, -1).contiguous() if case.lengths else mask.contiguous()
    names = ["q", "k", "v"] + (["m"] if mask is not None else [])
    node = helper.make_node("Attention", names, ["y"], is_causal=int(plain_causal), scale=inputs.scale,
                            softcap=case.soft_cap)
    sets = [dict(zip(names, (q, k, v, mask))) for q, k, v in inputs.sets]
    out = torch.empty_like(inputs.sets[0][0])
    return _timed("onnxruntime Attention", node, sets, lambda _: {"y": out}, threads, lambda o: o["y"])


def _multi_head(case, inputs, threads):
    """MultiHeadAttention; [batch, length, heads * dim]."""
    node = helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft",
                            num_heads=case.heads, unidirectional=int(case.causal), scale=inputs.scale)
    flat = lambda t: t.transpose(1, 2).reshape(t.shape[0], t.shape[2], -1).contiguous()
    sets = [dict(zip("qkv", map(flat, s))) for s in inputs.sets]
    out = torch.empty_like(sets[0]["q"])
    back = lambda o: o["y"].view(case.batch, case.queries, case.heads, case.dim).transpose(1, 2)
    return _timed("onnxruntime MultiHeadAttention", node, sets, lambda _: {"y": out}, threads, back)


def _grouped(case, inputs, threads):
    """GroupQueryAttention with its cache shared between past and present, as decoders use it: the
    last key and value are the new token's, the others lie in the cache already."""
    past = case.keys - case.queries
    flat = lambda t: t.transpose(1, 2).reshape(t.shape[0], t.shape[2], -1).contiguous()
    lengths = torch.full((case.batch,), case.keys - 1, dtype=torch.int32)
    total = torch.tensor([case.keys], dtype=torch.int32)
    options = {"num_heads": case.heads, "kv_num_heads": case.kv, "scale": inputs.scale, "softcap": case.soft_cap,
               "local_window_size": case.window_left + 1 if case.window_left >= 0 else -1}
    names = ["q", "k", "v", "past_k", "past_v", "seqlens", "total"]
    given = list(names)
    if case.sinks:
        given += ["", "", "", "", "sinks"]
    node = helper.make_node("GroupQueryAttention", given, ["y", "now_k", "now_v"], domain="com.microsoft", **options)
    sets = []
    for q, k, v in inputs.sets:
        # A prompt starts from an empty cache of the full length; a new token finds the others there.
        cache = (k, v) if past else (torch.zeros_like(k), torch.zeros_like(v))
        new = (flat(q), flat(k[:, :, past:]), flat(v[:, :, past:]))
        one = dict(zip(names, (*new, *cache, lengths, total)))
        if case.sinks:
            one["sinks"] = inputs.sinks.to(q.dtype)
        sets.append(one)
    out = torch.empty_like(sets[0]["q"])
    back = lambda o: o["y"].view(case.batch, case.queries, case.heads, case.dim).transpose(1, 2)
    return _timed("onnxruntime GroupQueryAttention", node, sets,
                  lambda s: {"y": out, "now_k": s["past_k"], "now_v": s["past_v"]}, threads, back)


def make(case, inputs, threads):
    if case.dtype == "bf16":
        raise LeftOut("ONNX Runtime has no bf16 attention for the CPU")
    if case.kv_dtype or case.paged or case.backward:
        raise LeftOut("not an operator of ONNX Runtime for the CPU")
    peers = []
    if not case.sinks and case.batch * case.heads * case.queries * case.keys <= 1 << 31:
        peers.append(_attention(case, inputs, threads))
    masked = inputs.bias is not None or inputs.mask is not None or case.alibi or case.lengths
    plain = not masked and not case.sinks and not case.soft_cap and case.window_left < 0
    if plain and case.kv == case.heads and case.dtype == "f32":
        peers.append(_multi_head(case, inputs, threads))
    if not masked and (case.causal or case.queries == 1):
        if case.sinks or case.soft_cap or case.window_left >= 0 or case.kv != case.heads:
            peers.append(_grouped(case, inputs, threads))
    return peers
