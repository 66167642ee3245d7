"""How far PyTorch's attention is from exact, written to attention_errors.json.

pip install torch==2.15.0 numpy; then `python tests/golden/make_attention_errors.py`. Inputs are the engine's own normal
numbers, made by `tests/numerics/reimplement.py` from docs/NUMERICS.md and rounded to the type; exact is float64 on the
same inputs. `core/src/attention/error_tests.rs` holds the engine's errors against these.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/numerics"))
from reimplement import normal  # noqa: E402

SEED = 1
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
TYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}

# (heads, queries, keys, head size, causal, type)
FORWARD = [
    (4, 1024, 1024, 40, False, "f32"),
    (4, 1024, 1024, 64, False, "f32"),
    (4, 1024, 1024, 72, False, "f32"),
    (4, 1024, 1024, 128, False, "f32"),
    (4, 1024, 1024, 256, False, "f32"),
    (4, 1024, 1024, 64, True, "f32"),
    (4, 1024, 1024, 128, True, "f32"),
    (2, 2048, 2048, 64, False, "f32"),
    (8, 256, 256, 72, False, "f32"),
    (4, 1024, 77, 64, False, "f32"),
    (64, 49, 49, 32, False, "f32"),
    (64, 16, 16, 64, False, "f32"),
    (32, 1, 4096, 128, False, "f32"),
    (4, 1024, 1024, 64, False, "f16"),
    (4, 1024, 1024, 64, False, "bf16"),
    (4, 1024, 1024, 128, False, "bf16"),
    (4, 1024, 1024, 128, True, "bf16"),
]
BACKWARD = [
    (2, 512, 512, 64, False, "f32"),
    (2, 512, 512, 128, False, "f32"),
    (2, 512, 512, 64, True, "f32"),
    (2, 512, 512, 64, False, "f16"),
    (2, 512, 512, 64, False, "bf16"),
]


def inputs(case):
    heads, queries, keys, dim, _, kind = case
    shapes = [(1, heads, n, dim) for n in (queries, keys, keys, queries)]
    # Stream `i`, draw 0 for q, k, v and the gradient of the output.
    numbers = [normal(int(np.prod(s)), 0, i, SEED).reshape(s) for i, s in enumerate(shapes)]
    return [torch.from_numpy(x).to(TYPES[kind]) for x in numbers]


def gradients(q, k, v, dout, causal):
    q, k, v = (x.clone().requires_grad_() for x in (q, k, v))
    sdpa(q, k, v, is_causal=causal).backward(dout)
    return [x.grad for x in (q, k, v)]


def errors(found, exact):
    """Of each result the root of the mean square and the largest."""
    pairs = [(f.double() - e) for f, e in zip(found, exact)]
    return [[float((x**2).mean().sqrt()), float(x.abs().max())] for x in pairs]


def rows(cases, compute):
    for case in cases:
        x = inputs(case)
        with sdpa_kernel(SDPBackend.MATH):
            exact = compute(*(t.double() for t in x), case[4])
        peers = {}
        for name, backend in BACKENDS.items():
            with sdpa_kernel(backend):
                peers[name] = errors(compute(*x, case[4]), exact)
        names = ("heads", "queries", "keys", "dim", "causal", "type")
        yield dict(zip(names, case)) | {"peers": peers}


def main():
    torch.set_num_threads(1)
    forward = rows(FORWARD, lambda q, k, v, dout, causal: [sdpa(q, k, v, is_causal=causal)])
    file = {
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "seed": SEED,
        "forward": list(forward),
        "backward": list(rows(BACKWARD, gradients)),
    }
    parts = []
    for name, value in file.items():
        lines = [json.dumps(x) for x in value] if isinstance(value, list) else None
        parts.append(f'"{name}": ' + ("[\n" + ",\n".join(lines) + "\n]" if lines else json.dumps(value)))
    (Path(__file__).parent / "attention_errors.json").write_text("{" + ",\n".join(parts) + "}\n")


if __name__ == "__main__":
    main()
