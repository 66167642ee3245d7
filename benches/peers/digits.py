"""The digits network: this engine beside PyTorch eager and compiled, alternating in one run.

    pip install -r models/requirements.txt        # outside the checkout
    cargo build --release -p dgm-capi
    python benches/peers/digits.py [--threads 2] [--json benches/results/digits.json]

Medians of alternating samples. The limit is the f32 FMA peak measured by the engine's own
bench (`cargo bench -p dgm-benches -- peak`); pass it with --peak to get percentages.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys
import time

import torch

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "models"))
from dit import load_dit  # noqa: E402

FLOAT, KDLCPU = 2, 1


class Tensor(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
                ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8),
                ("lanes", ctypes.c_uint16), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("strides", ctypes.POINTER(ctypes.c_int64)), ("byte_offset", ctypes.c_uint64)]


def describe(t):
    """A dgm_tensor that borrows the memory of a contiguous torch tensor."""
    shape = (ctypes.c_int64 * t.ndim)(*t.shape)
    return Tensor(t.data_ptr(), KDLCPU, 0, t.ndim, FLOAT, 32, 1, shape, None, 0)


class Engine:
    def __init__(self, path, threads):
        name = {"darwin": "libdgm.dylib"}.get(sys.platform, "libdgm.so")
        self.lib = ctypes.CDLL(os.path.join(ROOT, "target", "release", name))
        self.lib.dgm_last_error.restype = ctypes.c_char_p
        self.lib.dgm_isa.restype = ctypes.c_char_p
        self.check(self.lib.dgm_set_num_threads(threads))
        self.model = ctypes.c_void_p()
        self.check(self.lib.dgm_model_load(path.encode(), ctypes.byref(self.model)))

    def check(self, status):
        if status != 0:
            raise RuntimeError(self.lib.dgm_last_error().decode())

    def forward(self, x, t, labels):
        """Returns a function that fills and returns one output tensor."""
        needed = ctypes.c_size_t()
        self.check(self.lib.dgm_model_workspace_len(self.model, ctypes.c_size_t(len(x)), ctypes.byref(needed)))
        workspace, out = torch.empty(needed.value), torch.empty_like(x)
        xt, ot = describe(x), describe(out)

        def call():
            self.check(self.lib.dgm_model_forward(
                self.model, ctypes.byref(xt), ctypes.c_void_p(t.data_ptr()), ctypes.c_void_p(labels.data_ptr()),
                ctypes.c_void_p(workspace.data_ptr()), needed, ctypes.byref(ot)))
            return out

        return call


def alternate(functions, seconds):
    """Median milliseconds of each function, sampled in turn so that all see the same machine."""
    for f in functions.values():
        for _ in range(5):
            f()
    start = time.perf_counter()
    repeats = {}
    for name, f in functions.items():  # about 10 ms a sample
        begin = time.perf_counter()
        f()
        repeats[name] = max(1, int(0.01 / max(time.perf_counter() - begin, 1e-6)))
    samples = {name: [] for name in functions}
    while time.perf_counter() - start < seconds:
        for name, f in functions.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                f()
            samples[name].append((time.perf_counter() - begin) / repeats[name] * 1e3)
    return {name: statistics.median(s) for name, s in samples.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--peak", type=float, help="f32 FMA peak in GFLOP/s, measured just before")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    path = os.path.join(ROOT, "models", "digits.safetensors")
    engine = Engine(path, args.threads)
    net, _ = load_dit(path)
    net.eval()
    compiled = None if args.no_compile else torch.compile(net)
    width = net.pos_embed.shape[-1]
    blocks = len(net.blocks)
    tokens = net.pos_embed.shape[1]
    hidden = net.blocks[0].mlp.fc1.weight.shape[0]
    flops_image = 2 * blocks * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width + 6 * width**2)

    rows = []
    with torch.inference_mode():
        for batch in (1, 8, 64):
            x, t = torch.randn(batch, 1, 8, 8), torch.rand(batch)
            labels = torch.arange(batch) % 10
            ours = engine.forward(x, t, labels)
            error = (ours() - net(x, t, labels)).abs().max().item()
            assert error < 1e-4, f"outputs differ by {error}"
            functions = {"ours": ours, "torch eager": lambda: net(x, t, labels)}
            if compiled is not None:
                functions["torch compile"] = lambda: compiled(x, t, labels)
            ms = alternate(functions, args.seconds)
            best = min((n for n in ms if n != "ours"), key=ms.get)
            row = {"case": f"digits DiT batch {batch}", "group": "digits", "dtype": "f32", "threads": args.threads,
                   "ours_ms": ms["ours"], "peers_ms": {n: m for n, m in ms.items() if n != "ours"},
                   "best_peer": best, "ratio": ms[best] / ms["ours"], "limit": "fma_f32",
                   "pct_of_limit": None if not args.peak else
                   100 * flops_image * batch / (ms["ours"] * 1e6) / args.peak}
            rows.append(row)
            figures = "  ".join(f"{n} {m:.3f} ms ({m / batch:.4f} an image)" for n, m in ms.items())
            print(f"{row['case']}: {figures}  eager/ours {ms['torch eager'] / ms['ours']:.2f}x  max error {error:.1e}",
                  flush=True)
    print(f"torch {torch.__version__}, engine on {engine.lib.dgm_isa().decode()}")
    if args.json:
        os.makedirs(os.path.dirname(os.path.abspath(args.json)), exist_ok=True)
        with open(args.json, "w") as f:
            json.dump(rows, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
