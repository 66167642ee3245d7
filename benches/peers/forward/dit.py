"""Whole networks: DiT of the published sizes with random weights, and the digits network of this repository."""

import copy
import ctypes
import io
import itertools
import os
import sys
import tempfile

import torch
from safetensors.torch import save_file

from harness import rust
from harness.library import ROOT, Tensor
from harness.measure import LeftOut, Timed
from harness.openvino import compile_model, share

from .case import NAMES, Case, Made

sys.path.insert(0, os.path.join(ROOT, "models"))
from dit import DiT, load_dit  # noqa: E402

DIGITS = os.path.join(ROOT, "models", "digits.safetensors")
# Peebles & Xie 2023, table 1: width, blocks, heads; patches of 2 on latents of 4 channels.
SIZES = {"S/2": (384, 12, 6), "B/2": (768, 12, 12), "L/2": (1024, 24, 16), "XL/2": (1152, 28, 16)}
# Side of the latents, whose quarter square is the number of tokens, and batch; with the time for it.
SHAPES = {"S/2": [(32, 1), (32, 2), (32, 8), (64, 1), (64, 2), (64, 8)], "B/2": [(32, 1), (32, 2), (32, 8), (64, 1)],
          "L/2": [(32, 1), (32, 2), (64, 1)], "XL/2": [(32, 1), (32, 2), (32, 8), (64, 1), (64, 2)]}
# A protocol buffer holds less than 2 GiB.
MOST_OF_ONNX = 1.9e9


class Ours:
    """A network by libdgm."""

    def __init__(self, engine, path):
        self.engine, self.model = engine, ctypes.c_void_p()
        engine.model_load(path.encode(), ctypes.byref(self.model))

    def forward(self, x, t, labels):
        """A function that fills and returns one output tensor."""
        needed = ctypes.c_size_t()
        self.engine.model_workspace_len(self.model, ctypes.c_size_t(len(x)), ctypes.byref(needed))
        workspace, out = torch.empty(needed.value), torch.empty_like(x)
        address = lambda tensor: ctypes.c_void_p(tensor.data_ptr())
        call = self.engine.bind("model_forward", self.model, Tensor.of(x), address(t), address(labels),
                                address(workspace), needed, Tensor.of(out))

        def run():
            call()
            return out

        run.owners = (t, labels, workspace)
        return run

    def free(self):
        self.engine.lib.dgm_model_free(self.model)


def flops(net):
    """Of one image."""
    width, blocks, tokens = net.pos_embed.shape[-1], len(net.blocks), net.pos_embed.shape[1]
    hidden = net.blocks[0].mlp.fc1.weight.shape[0]
    return 2 * blocks * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width + 6 * width**2)


def _random(size, side):
    """A network whose gates are not 0, as after training."""
    width, depth, heads = SIZES[size]
    net = DiT(input_size=side, in_channels=4, out_channels=4, width=width, depth=depth, num_heads=heads,
              num_classes=1000).eval()
    with torch.no_grad():
        for p in net.parameters():
            if p is not net.pos_embed and not p.any():
                p.normal_(std=0.02)
    return net


def _openvino(net, inputs, threads, bf16):
    import openvino as ov

    model = ov.convert_model(net, example_input=inputs)
    model.reshape({i: list(t.shape) for i, t in enumerate(inputs)})
    request = compile_model(model, threads, bf16).create_infer_request()
    out = torch.empty_like(inputs[0])
    for i, t in enumerate(inputs):
        request.set_input_tensor(i, share(t))
    request.set_output_tensor(share(out))

    def call():
        request.infer()
        return out

    return call


def _ort(net, inputs, threads):
    import onnxruntime as ort

    with tempfile.NamedTemporaryFile(suffix=".onnx") as f:
        torch.onnx.export(net, inputs, f.name, dynamo=False, opset_version=18, input_names=["x", "t", "y"],
                          output_names=["out"])
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        session = ort.InferenceSession(f.name, options, providers=["CPUExecutionProvider"])
    binding, out = session.io_binding(), torch.empty_like(inputs[0])
    for name, t in zip(("x", "t", "y"), inputs):
        kind = "int64" if t.dtype == torch.int64 else "float32"
        binding.bind_input(name, "cpu", 0, kind, list(t.shape), t.data_ptr())
    binding.bind_output("out", "cpu", 0, "float32", list(out.shape), out.data_ptr())

    def call():
        session.run_with_iobinding(binding)
        return out

    return call


class _Config(ctypes.Structure):
    _fields_ = [(n, ctypes.c_size_t) for n in ("width", "blocks", "heads", "hidden", "patch", "channels", "out_channels", "side",
                                              "classes", "frequencies")] + [
        ("time_scale", ctypes.c_double), ("batch", ctypes.c_size_t)]


def _candle(library, net, path, inputs, shape):
    x, t, labels = inputs
    config = _Config(net.pos_embed.shape[-1], len(net.blocks), net.num_heads, net.blocks[0].mlp.fc1.weight.shape[0],
                     net.patch_size, net.in_channels, net.out_channels, net.input_size, net.num_classes,
                     net.frequency_embedding_size, net.time_scale, len(x))
    lib = rust.load(library)
    pointers = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (x, t, labels))
    peer = rust.Peer(lib, "candle", lib.rust_dit_new(path.encode(), ctypes.byref(config), *pointers), shape)

    def call():
        peer.run()
        return peer.output()

    def run(n):
        for _ in range(n):
            peer.run()

    return Timed("candle", call, run=run)


def _make(engine, probe, threads, compile_too, candle, load, batch, dtype):
    net, path, keep = load()
    inputs = torch.randn(batch, net.in_channels, net.input_size, net.input_size), torch.rand(batch), \
        torch.arange(batch) % net.num_classes
    ours = Ours(engine, path)
    expected = net(*inputs)
    timed = [Timed("ours", ours.forward(*inputs))]
    work = flops(net) * batch
    if candle:
        left_out = {}
        try:
            timed.append(_candle(candle, net, path, inputs, expected.shape))
        except LeftOut as e:
            left_out["candle"] = str(e)
        keep.close()
        return Made(timed, expected, 1e-3, limit_ms=lambda: 1e3 * work / probe.clean, left_out=left_out,
                    free=ours.free)
    keep.close()
    bf16, left_out = dtype == torch.bfloat16, {}
    peers = {"openvino": _openvino(net, inputs, threads, bf16)}
    if bf16:
        left_out["onnxruntime"] = "no bf16 arithmetic"
    elif 4 * sum(p.numel() for p in net.parameters()) > MOST_OF_ONNX:
        left_out["onnxruntime"] = "the weights do not fit into one ONNX file"
    else:
        peers["onnxruntime"] = _ort(net, inputs, threads)
    if bf16:
        net = copy.deepcopy(net).bfloat16()
    x, t, labels = inputs
    own = x.to(dtype), t, labels
    peers["torch eager"] = lambda: net(*own)
    if compile_too:
        compiled = torch.compile(net, dynamic=False, options={"freezing": True})
        peers["torch compile, frozen"] = lambda: compiled(*own)
    timed += [Timed(name, call) for name, call in peers.items()]
    peak = (lambda: probe.clean_bf16) if bf16 else (lambda: probe.clean)
    return Made(timed, expected, 0.2 if bf16 else 1e-3, limit_ms=lambda: 1e3 * work / peak(), left_out=left_out,
                free=ours.free)


def cases(engine, probe, threads, compile_too, library):
    for size, shapes in SHAPES.items():
        for (side, batch), dtype in itertools.product(shapes, (torch.float32, torch.bfloat16)):
            def load(size=size, side=side, dtype=dtype):
                net = _random(size, side)
                if dtype == torch.bfloat16:
                    # What both compute with.
                    net = net.bfloat16().float()
                f = tempfile.NamedTemporaryFile(suffix=".safetensors")
                save_file({name: p.to(dtype) for name, p in net.state_dict().items()}, f.name, net.metadata())
                return net, f.name, f

            yield Case(f"DiT-{size}, {side * side // 4} tokens, batch {batch}", "dit", NAMES[dtype],
                       f"fma_{NAMES[dtype]}", lambda load=load, batch=batch, dtype=dtype:
                       _make(engine, probe, threads, compile_too, None, load, batch, dtype), 4.0)
            # By itself: candle's threads look out for work between calls.
            if library and dtype == torch.float32 and side == 32 and batch < 8:
                yield Case(f"DiT-{size}, {side * side // 4} tokens, batch {batch}, beside candle", "dit", "f32", "fma_f32",
                           lambda load=load, batch=batch:
                           _make(engine, probe, threads, compile_too, library, load, batch, torch.float32), 2.0)
    for batch in (1, 8, 64):
        load = lambda: (load_dit(DIGITS)[0].eval(), DIGITS, io.BytesIO())
        yield Case(f"digits, batch {batch}", "digits", "f32", "fma_f32", lambda load=load, batch=batch:
                   _make(engine, probe, threads, compile_too, None, load, batch, torch.float32))
