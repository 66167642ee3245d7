"""OpenVINO models on the memory of torch tensors."""

import numpy as np
import openvino as ov
import torch


def share(t):
    """An OpenVINO tensor on the memory of a contiguous torch tensor."""
    if t.dtype == torch.bfloat16:
        return ov.Tensor(t.view(torch.int16).numpy().view(np.uint16), list(t.shape), ov.Type.bf16)
    return ov.Tensor(t.numpy(), shared_memory=True)


def compile_model(model, threads, bf16):
    """For the CPU; arithmetic in f32, or in bf16."""
    return ov.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32", "ENABLE_CPU_PINNING": False})
