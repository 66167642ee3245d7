"""Linear layers with constant weights: y = x w^T + b."""

import ctypes

import numpy as np
import onnxruntime as ort
import openvino as ov
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from openvino import opset13 as op

from harness.measure import Timed

# rows, inputs, outputs
SHAPES = [(1024, 1024, 1024), (256, 1152, 1152), (256, 1152, 4608), (4096, 1152, 1152), (64, 192, 192),
          (1, 4096, 4096)]


def _ours(engine, x, w, b):
    layer, out = ctypes.c_void_p(), torch.empty(len(x), len(w))
    engine.linear_pack(w, b, ctypes.byref(layer))
    run = engine.bind("linear_forward", layer, x, ctypes.c_int32(0), out)

    def call():
        run()
        return out

    return [Timed("ours", call)], lambda: engine.lib.dgm_linear_free(layer)


def _torch(x, w, b, compile_too):
    timed = [Timed("torch eager", lambda: F.linear(x, w, b))]
    if torch.backends.mkldnn.is_available():
        # What a frozen, compiled model calls: oneDNN with weights packed for these rows.
        packed = torch.ops.mkldnn._reorder_linear_weight(w, len(x)) if hasattr(
            torch.ops.mkldnn, "_reorder_linear_weight") else w.to_mkldnn()
        fused = torch.ops.mkldnn._linear_pointwise
        timed.append(Timed("torch oneDNN, packed", lambda: fused(x, packed, b, "none", [], "")))
    if compile_too:
        layer = torch.nn.Linear(w.shape[1], w.shape[0])
        layer.weight.data, layer.bias.data = w, b
        compiled = torch.compile(layer.eval(), options={"freezing": True, "max_autotune": False})
        timed.append(Timed("torch compile, frozen", lambda: compiled(x)))
    return timed


def _openvino(x, w, b, threads):
    p = op.parameter(list(x.shape), ov.Type.f32)
    y = op.add(op.matmul(p, op.constant(w.numpy()), False, True), op.constant(b.numpy()))
    compiled = ov.Core().compile_model(ov.Model([y], [p]), "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32", "ENABLE_CPU_PINNING": False})
    request, out = compiled.create_infer_request(), torch.empty(len(x), len(w))
    request.set_input_tensor(ov.Tensor(x.numpy(), shared_memory=True))
    request.set_output_tensor(ov.Tensor(out.numpy(), shared_memory=True))

    def call():
        request.infer()
        return out

    return [Timed("openvino", call)]


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

    return [Timed("onnxruntime", call)]


def cases(engine, probe, threads, compile_too):
    """(name, group, functions, expected, tolerance, limit's name, its functions or milliseconds, clean-up)"""
    for rows, inputs, outputs in SHAPES:
        x, w, b = torch.randn(rows, inputs), torch.randn(outputs, inputs) / inputs**0.5, torch.randn(outputs)
        timed, free = _ours(engine, x, w, b)
        timed += [*_torch(x, w, b, compile_too), *_openvino(x, w, b, threads), *_ort(x, w, b, threads)]
        expected = (x.double() @ w.double().T + b.double())
        limit_ms = lambda: 1e3 * 2 * rows * inputs * outputs / probe.clean
        yield f"{rows}x{inputs}x{outputs}", "linear", timed, expected, 1e-4, "fma_f32", limit_ms, free
