"""Measures steps and noise on a fixed number of threads. Started by ../run.py."""

import argparse
import json
import re

import torch

from harness.library import Engine
from harness.measure import alternate
from harness.probe import Probe
from harness.report import line, row

from .cases import CASES

ELEMENTS = 16_000_000
# Groups of whole walks, and what bounds them.
LIMITS = {"chains": "normals", "ode": "evaluations"}


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
    cases = [c for c in CASES if (not args.only or c[1] in args.only) and re.search(args.match, c[0])]
    with torch.inference_mode(), open(args.rows, "a") as f:
        for name, group, make, check, most in cases:
            error = check(engine)
            if not error < most:
                raise AssertionError(f"{name}: off by {error}")
            # The third, where there is one: further fields of the row.
            timed, limits, *extra = make(engine, probe, ELEMENTS, not args.quick)
            result = alternate(timed + limits, probe, args.budget / len(cases))
            limit = LIMITS.get(group, "mix")
            r = row(name if group in LIMITS else f"{name} {ELEMENTS // 1_000_000}M", group, "f32", args.threads, result,
                    limit, min(result.ms[t.name] for t in limits), max_error={"ours": error}, **(extra[0] if extra else {}))
            print(line(r), flush=True)
            f.write(json.dumps({"key": f"{name} {args.threads}", "row": r}) + "\n")
            f.flush()
        limits = {**probe.limits(), "isa": engine.lib.dgm_isa().decode()}
        f.write(json.dumps({"key": f"limits {args.threads}", "limits": limits}) + "\n")


if __name__ == "__main__":
    main()
