"""Measures linear layers and memory-bound kernels on a fixed number of threads. Started by ../run.py."""

import argparse
import json

import torch

from harness.library import Engine
from harness.measure import alternate
from harness.probe import Probe
from harness.report import line, row

from . import elementwise, linear


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--rows", required=True)
    p.add_argument("--cache", required=True)
    p.add_argument("--budget", type=float, required=True)
    p.add_argument("--gate", type=float, default=0.9)
    p.add_argument("--quick", action="store_true", help="without torch.compile")
    p.add_argument("--only", nargs="*", default=[])
    p.add_argument("--match", default="")
    args, _ = p.parse_known_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    engine, probe = Engine(args.threads), Probe(args.cache, args.threads, args.gate)
    count = len(linear.SHAPES) + len(elementwise.CASES)
    with torch.inference_mode(), open(args.rows, "a") as f:
        for module in (linear, elementwise):
            for name, group, timed, expected, most, limit, limits, free in module.cases(
                    engine, probe, args.threads, not args.quick):
                if (args.only and group not in args.only) or args.match not in name:
                    continue
                errors = {t.name: (t.call().double() - expected).abs().max().item() for t in timed}
                wrong = {n: e for n, e in errors.items() if not e < most}
                if wrong:
                    raise AssertionError(f"{name}: off by {wrong}")
                streams = [] if callable(limits) else limits
                result = alternate(timed + streams, probe, args.budget / count)
                limit_ms = limits() if callable(limits) else min(result.ms[t.name] for t in streams)
                r = row(name, group, "f32", args.threads, result, limit, limit_ms, max_error=errors)
                print(line(r), flush=True)
                f.write(json.dumps({"key": f"{name} {args.threads}", "row": r}) + "\n")
                f.flush()
                if free:
                    free()
        limits = {**probe.limits(), "isa": engine.lib.dgm_isa().decode()}
        f.write(json.dumps({"key": f"limits {args.threads}", "limits": limits}) + "\n")


if __name__ == "__main__":
    main()
