"""The digits network: this engine beside PyTorch eager and compiled, alternating in one run.

    make peers-digits          installs the peers, builds, and writes benches/results/digits.*
"""

import argparse
import ctypes
import json
import os
import sys

import torch

from harness.library import ROOT, Engine, Tensor
from harness.measure import Timed, alternate
from harness.probe import Probe
from harness.report import line, row

sys.path.insert(0, os.path.join(ROOT, "models"))
from dit import load_dit  # noqa: E402

WEIGHTS = os.path.join(ROOT, "models", "digits.safetensors")


class Digits:
    """The network by libdgm."""

    def __init__(self, engine):
        self.engine, self.model = engine, ctypes.c_void_p()
        engine.model_load(WEIGHTS.encode(), ctypes.byref(self.model))

    def forward(self, x, t, labels):
        """A function that fills and returns one output tensor."""
        needed = ctypes.c_size_t()
        self.engine.model_workspace_len(self.model, ctypes.c_size_t(len(x)), ctypes.byref(needed))
        workspace, out = torch.empty(needed.value), torch.empty_like(x)
        address = lambda tensor: ctypes.c_void_p(tensor.data_ptr())
        call = self.engine.bind("model_forward", self.model, Tensor.of(x), address(t), address(labels),
                                address(workspace), needed, Tensor.of(out))
        owners = (t, labels, workspace)

        def run():
            call()
            return out

        run.owners = owners
        return run


def flops_an_image(net):
    width, blocks, tokens = net.pos_embed.shape[-1], len(net.blocks), net.pos_embed.shape[1]
    hidden = net.blocks[0].mlp.fc1.weight.shape[0]
    return 2 * blocks * (tokens * (4 * width**2 + 2 * width * hidden) + 2 * tokens**2 * width + 6 * width**2)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--rows", required=True)
    p.add_argument("--cache", required=True)
    p.add_argument("--budget", type=float, required=True)
    p.add_argument("--gate", type=float, default=0.9)
    p.add_argument("--quick", action="store_true", help="without torch.compile")
    args, _ = p.parse_known_args()
    torch.set_num_threads(args.threads)
    engine, probe = Engine(args.threads), Probe(args.cache, args.threads, args.gate)
    ours = Digits(engine)
    net, _ = load_dit(WEIGHTS)
    net.eval()
    compiled = None if args.quick else torch.compile(net)
    batches = (1, 8, 64)
    with torch.inference_mode(), open(args.rows, "a") as f:
        for batch in batches:
            x, t = torch.randn(batch, 1, 8, 8), torch.rand(batch)
            labels = torch.arange(batch) % 10
            call = ours.forward(x, t, labels)
            error = (call() - net(x, t, labels)).abs().max().item()
            if not error < 1e-4:
                raise AssertionError(f"outputs differ by {error}")
            functions = [Timed("ours", call), Timed("torch eager", lambda: net(x, t, labels))]
            if compiled is not None:
                functions.append(Timed("torch compile", lambda: compiled(x, t, labels)))
            result = alternate(functions, probe, args.budget / len(batches))
            r = row(f"digits DiT batch {batch}", "digits", "f32", args.threads, result, "fma_f32",
                    1e3 * flops_an_image(net) * batch / probe.clean, max_error={"ours": error})
            print(line(r), flush=True)
            f.write(json.dumps({"key": r["case"], "row": r}) + "\n")
        limits = {**probe.limits(), "isa": engine.lib.dgm_isa().decode()}
        f.write(json.dumps({"key": "limits", "limits": limits}) + "\n")


if __name__ == "__main__":
    main()
