"""Linear layers with constant weights: y = x w^T + b."""

import ctypes
import functools

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as op

from harness.measure import LeftOut, Timed
from harness.openvino import compile_model, share
from harness.probe import last_level_cache

from . import products
from .case import NAMES, Case, Made

# group, rows, inputs, outputs
SHAPES = [("gemm", 1024, 1024, 1024), ("gemm", 256, 1152, 1152), ("gemm", 256, 1152, 4608), ("gemm", 4096, 1152, 1152),
          ("gemm", 256, 256, 256), ("tiny", 64, 192, 192), ("gemv", 1, 4096, 4096)]
# Bytes of the weights that a matrix-vector product walks through in turn: more than four times a last cache of 32 MiB,
# twice a larger one.
ROTATED = max(160 << 20, 2 * last_level_cache())


def _rotate(calls):
    """One function that makes the calls in turn."""
    at = [0]

    def call():
        at[0] = (at[0] + 1) % len(calls)
        return calls[at[0]]()

    return call


def _timed(name, calls):
    turn = _rotate(calls)
    if not hasattr(calls[0], "output"):
        return Timed(name, turn)

    def run(n):
        for _ in range(n):
            turn()

    return Timed(name, lambda: turn().output(), run=run)


def _ours(engine, x, w, b):
    layer, out = ctypes.c_void_p(), torch.empty(len(x), len(w), dtype=x.dtype)
    engine.linear_pack(w, b, ctypes.byref(layer))
    run = engine.bind("linear_forward", layer, x, ctypes.c_int32(0), out)

    def call():
        run()
        return out

    call.layer = layer
    return call


def _torch(x, w, b):
    return lambda: F.linear(x, w, b)


def _torch_packed(x, w, b):
    """What a frozen, compiled model calls: oneDNN with weights packed for these rows."""
    packed = torch.ops.mkldnn._reorder_linear_weight(w, len(x))
    fused = torch.ops.mkldnn._linear_pointwise
    return lambda: fused(x, packed, b, "none", [], "")


def _torch_compiled(x, w, b):
    layer = torch.nn.Linear(w.shape[1], w.shape[0])
    layer.weight.data, layer.bias.data = w, b
    compiled = torch.compile(layer.eval(), options={"freezing": True, "max_autotune": False})
    return lambda: compiled(x)


def _numpy(x, w, b):
    """The OpenBLAS of numpy."""
    x, b = x.numpy(), b.numpy()
    w, out = np.asfortranarray(w.numpy().T), np.empty((len(x), len(w)), np.float32)
    result = torch.from_numpy(out)

    def call():
        np.matmul(x, w, out=out)
        np.add(out, b, out=out)
        return result

    return call


def _openvino(x, w, b, threads):
    bf16 = x.dtype == torch.bfloat16
    io = ov.Type.bf16 if bf16 else ov.Type.f32
    p = op.parameter(list(x.shape), io)
    constant = lambda t: op.convert(op.constant(t.float().numpy()), io) if bf16 else op.constant(t.numpy())
    y = op.add(op.matmul(p, constant(w), False, True), constant(b))
    request = compile_model(ov.Model([y], [p]), threads, bf16).create_infer_request()
    out = torch.empty(len(x), len(w), dtype=x.dtype)
    request.set_input_tensor(share(x))
    request.set_output_tensor(share(out))

    def call():
        request.infer()
        return out

    return call


def _ort(x, w, b, threads):
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)
    info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape))
    weights = [numpy_helper.from_array(np.ascontiguousarray(t.numpy()), name) for name, t in (("w", w), ("b", b))]
    graph = helper.make_graph([node], "linear", [info("x", x.shape)], [info("y", (len(x), len(w)))], weights)
    model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding, out = session.io_binding(), torch.empty(len(x), len(w))
    binding.bind_input("x", "cpu", 0, TensorProto.FLOAT, list(x.shape), x.data_ptr())
    binding.bind_output("y", "cpu", 0, TensorProto.FLOAT, list(out.shape), out.data_ptr())

    def call():
        session.run_with_iobinding(binding)
        return out

    return call


def _frameworks(threads, compile_too, dtype):
    peers = {"torch eager": _torch}
    if torch.backends.mkldnn.is_available():
        peers["torch oneDNN, packed"] = _torch_packed
    if compile_too:
        peers["torch compile, frozen"] = _torch_compiled
    peers["openvino"] = lambda x, w, b: _openvino(x, w, b, threads)
    if dtype == torch.float32:
        peers["onnxruntime"] = lambda x, w, b: _ort(x, w, b, threads)
        peers["numpy"] = _numpy
    return peers


def _make(engine, probe, threads, compile_too, peers, group, rows, inputs, outputs, dtype):
    x = torch.randn(rows, inputs).to(dtype)
    size = 2 if dtype == torch.bfloat16 else 4
    count = -(-ROTATED // (size * inputs * outputs)) if group == "gemv" else 1
    layers = [((torch.randn(outputs, inputs) / inputs**0.5).to(dtype), torch.randn(outputs).to(dtype))
              for _ in range(count)]
    ours = [_ours(engine, x, w, b) for w, b in layers]
    peers = peers() if peers else _frameworks(threads, compile_too and group != "gemv", dtype)
    timed = [Timed("ours", _rotate(ours))]
    left_out = {}
    for name, make in peers.items():
        try:
            timed.append(_timed(name, [make(x, w, b) for w, b in layers]))
        except LeftOut as e:
            left_out[name] = str(e)
    # Every function is called once to be checked, and begins at the second layer.
    w, b = layers[1 % count]
    expected = x.double() @ w.double().T + b.double()

    def free():
        for call in ours:
            engine.lib.dgm_linear_free(call.layer)

    made = Made(timed, expected, 1e-4 if dtype == torch.float32 else 0.05, left_out=left_out, free=free)
    if group == "gemv":
        buffer = torch.empty(ROTATED, dtype=torch.uint8).fill_(1)
        made.streams = [Timed("limit read", lambda: probe.read(buffer.data_ptr(), ROTATED))]
        made.share = size * inputs * outputs / ROTATED
    else:
        peak = (lambda: probe.clean_bf16) if dtype == torch.bfloat16 else (lambda: probe.clean)
        made.limit_ms = lambda: 1e3 * 2 * rows * inputs * outputs / peak()
    return made


def cases(engine, probe, threads, compile_too, rust):
    for group, rows, inputs, outputs in SHAPES:
        for dtype in (torch.float32, torch.bfloat16):
            limit = "read" if group == "gemv" else f"fma_{NAMES[dtype]}"
            yield Case(f"{rows}x{inputs}x{outputs}", group, NAMES[dtype], limit,
                       lambda g=group, r=rows, i=inputs, o=outputs, d=dtype:
                       _make(engine, probe, threads, compile_too, None, g, r, i, o, d))
    # By themselves: threads that look out for work between the calls of one library take time from the next.
    peers = functools.cache(lambda: products.peers(threads, rust))
    for group, rows, inputs, outputs in SHAPES if rust else []:
        limit = "read" if group == "gemv" else "fma_f32"
        yield Case(f"{rows}x{inputs}x{outputs}, beside libraries of products", group, "f32", limit,
                   lambda g=group, r=rows, i=inputs, o=outputs:
                   _make(engine, probe, threads, compile_too, peers, g, r, i, o, torch.float32))
