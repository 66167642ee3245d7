"""Measures linear layers, memory-bound kernels and whole networks on a fixed number of threads. Started by ../run.py."""

import argparse
import gc
import json
import re

import torch

from harness.library import Engine
from harness.measure import LeftOut, alternate
from harness.probe import Probe
from harness.report import line, row

from . import dit, linear, memory
from .case import rms_error


def measure(case, threads, probe, seconds):
    made = case.make()
    errors, left_out = {}, dict(made.left_out)
    for t in made.timed:
        try:
            errors[t.name] = rms_error(t.call(), made.expected)
        except LeftOut as e:
            left_out[t.name] = str(e)
    wrong = {n: e for n, e in errors.items() if not e < made.most}
    if "ours" in wrong:
        raise AssertionError(f"{case.name}: off by {wrong}")
    left_out.update({n: f"off by {e:.2g}" for n, e in wrong.items()})
    timed = [t for t in made.timed if t.name not in left_out]
    result = alternate(timed + made.streams, probe, seconds)
    if made.streams:
        limit_ms = min(result.ms[s.name] for s in made.streams) * made.share
    else:
        limit_ms = made.limit_ms()
    made.free()
    return row(case.name, case.group, case.dtype, threads, result, case.limit, limit_ms, max_error=errors,
               left_out=left_out)


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
    p.add_argument("--rust", help="the library of the Rust comparators")
    args, _ = p.parse_known_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    engine, probe = Engine(args.threads), Probe(args.cache, args.threads, args.gate)
    common = engine, probe, args.threads, not args.quick
    cases = [c for c in (*linear.cases(*common, args.rust), *memory.cases(*common), *dit.cases(*common, args.rust))
             if (not args.only or c.group in args.only) and re.search(args.match, c.name)]
    whole = sum(c.weight for c in cases)
    with torch.inference_mode(), open(args.rows, "a") as f:
        for case in cases:
            r = measure(case, args.threads, probe, args.budget * case.weight / whole)
            print(line(r), flush=True)
            f.write(json.dumps({"key": f"{case.name} {case.dtype} {args.threads}", "row": r}) + "\n")
            f.flush()
            torch._dynamo.reset()
            gc.collect()
        limits = {**probe.limits(), "isa": engine.lib.dgm_isa().decode()}
        f.write(json.dumps({"key": f"limits {args.threads}", "limits": limits}) + "\n")


if __name__ == "__main__":
    main()
