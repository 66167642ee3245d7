"""Measures the cases on a fixed number of threads; one JSON row a line. Started by ../run.py."""

import argparse
import ctypes
import gc
import json
import re
import sys
import time

import torch

from harness.library import Engine
from harness.measure import Timed, alternate
from harness.probe import Probe, last_level_cache
from harness.report import line, row

from . import ours, peer_ggml, peer_jax, peer_openvino, peer_ort, peer_rust, peer_torch
from .cases import GROUPS, all_cases
from .inputs import Inputs, LeftOut

CHILD_GROUPS = [g for g in GROUPS if g != "memory"]


class Bench:
    def __init__(self, args):
        self.args = args
        torch.set_num_threads(args.threads)
        self.engine = Engine(args.threads)
        self.probe = Probe(args.cache, args.threads, args.gate)
        self.rotate = int(4.2 * last_level_cache())
        self.stream = torch.zeros(self.rotate, dtype=torch.uint8)
        try:
            self.ggml = peer_ggml.Ggml(args.threads)
        except LeftOut as e:
            print(e)
            self.ggml = None

    def makers(self, case, inputs):
        """Every peer, with how to set it up on a case."""
        a = self.args
        return {
            "torch": lambda: peer_torch.make(case, inputs, flex=a.scaling and not a.quick),
            "openvino": lambda: peer_openvino.make(case, inputs, a.threads),
            "onnxruntime": lambda: peer_ort.make(case, inputs, a.threads),
            "jax": lambda: peer_jax.make(case, inputs),
            "ggml": lambda: peer_ggml.make(case, inputs, self.ggml),
            "rust": lambda: peer_rust.make(case, inputs, a.rust),
        }

    def functions(self, case, inputs):
        """What to time, checked against the reference; and why the others are left out."""
        timed, errors, left_out = [], {}, {}

        def add(function):
            result = function.call()
            errors[function.name] = inputs.check_gradients(function.name, result) if case.backward \
                else inputs.check(function.name, result, function.tolerance)
            timed.append(function)

        try:
            add(ours.make(self.engine, case, inputs))
        except LeftOut as e:
            left_out["ours"] = str(e)
        for name, make in self.makers(case, inputs).items():
            if self.args.peers and name not in self.args.peers:
                continue
            try:
                made = make()
                for function in made:
                    begin = time.perf_counter()
                    try:
                        function = function() if not isinstance(function, Timed) else function
                        add(function)
                    except LeftOut as e:
                        left_out[name] = str(e)
                    if time.perf_counter() - begin > 30:
                        print(f"  {name}: {time.perf_counter() - begin:.0f} s to set up", flush=True)
            except LeftOut as e:
                left_out[name] = str(e)
            except Exception as e:  # A peer that fails is a finding, not the end of the run.
                left_out[name] = f"{type(e).__name__}: {str(e).strip().splitlines()[0][:200] if str(e) else ''}"
        return timed, errors, left_out

    def limit(self, case, result):
        """(Milliseconds that the limit allows, name of the limit); None where it is unknown."""
        if case.limit == "read":
            return result.ms["limit read"] * case.cache_bytes() / self.stream.numel(), "read"
        peak = self.probe.clean_bf16 if case.limit == "fma_bf16" else self.probe.clean
        return (1e3 * case.flops() / peak if peak else None), case.limit

    def case(self, case, seconds):
        inputs = Inputs(case, self.rotate)
        timed, errors, left_out = self.functions(case, inputs)
        extra = []
        if case.limit == "read":
            extra = [self.reader()]
        if not timed:
            return None
        result = alternate(timed + extra, self.probe, seconds, sample_seconds=self.args.sample)
        limit_ms, limit = self.limit(case, result)
        return row(case.title + suffix(case), case.group, case.storage, self.args.threads, result, limit, limit_ms,
                   flops=case.flops(), max_error={name: e[0] for name, e in errors.items()},
                   mean_error={name: e[1] for name, e in errors.items()}, left_out=left_out)

    def reader(self):
        """Reading more than four times the last cache and nothing else: the bandwidth of this moment."""
        return Timed("limit read", lambda: self.probe.read(self.stream.data_ptr(), self.stream.numel()))

    def scaling(self, case, seconds):
        """Ours alone on one thread and on all, alternating."""
        inputs = Inputs(case, 0)
        functions = []
        for n in (1, self.args.threads):
            function = ours.make(self.engine, case, inputs)

            def run(times, n=n, inner=function.run):
                self.engine.threads(n)
                inner(times)

            functions.append(Timed(f"{n}", function.call, run=run))
        result = alternate(functions, self.probe, seconds, sample_seconds=self.args.sample)
        self.engine.threads(self.args.threads)
        rows = []
        for n in (1, self.args.threads):
            peak = self.probe.clean * n / self.args.threads
            rows.append(row(case.title + suffix(case), "scaling", case.storage, n, result.only(f"{n}"), case.limit,
                            1e3 * case.flops() / peak, flops=case.flops(), max_error={}, left_out={}))
        return rows


def release():
    """Gives the memory of the last case back; run.py has told glibc to keep it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(ctypes.c_size_t(0))


def suffix(case):
    return (" causal" if case.causal and "causal" not in case.name else "")


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--rows", required=True, help="file that receives one JSON object a line")
    p.add_argument("--cache", required=True)
    p.add_argument("--rust", help="the library of the Rust comparators")
    p.add_argument("--budget", type=float, required=True, help="seconds for all cases")
    p.add_argument("--sample", type=float, default=0.010, help="seconds of one sample, at least one call")
    p.add_argument("--gate", type=float, default=0.9)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--scaling", action="store_true",
                   help="also what needs to be measured with one number of threads only: the group `scaling`, flex_attention")
    p.add_argument("--only", nargs="*", default=[], help="groups")
    p.add_argument("--match", default="", help="a regular expression found in a case's name")
    p.add_argument("--peers", nargs="*", default=[])
    args = p.parse_args()
    groups = args.only or CHILD_GROUPS
    cases = [c for c in all_cases() if c.group in groups and c.group in CHILD_GROUPS
             and (args.scaling or c.group != "scaling") and (c.quick or not args.quick)
             and re.search(args.match, c.title + " " + c.storage)]
    try:
        done = {json.loads(text)["key"] for text in open(args.rows)}
    except FileNotFoundError:
        done = set()
    bench = Bench(args)
    begin = time.perf_counter()
    for i, case in enumerate(cases):
        key = f"{case.title} {case.group} {case.storage} {args.threads}{suffix(case)}"
        if key in done:
            continue
        left = args.budget - (time.perf_counter() - begin)
        if left < 0:
            print(f"time is up: {len(cases) - i} cases left out")
            break
        seconds = min(left / (len(cases) - i), 60)
        with open(args.rows, "a") as f:
            f.write(json.dumps({"key": key, "started": True}) + "\n")
        made = bench.scaling(case, seconds) if case.group == "scaling" else [bench.case(case, seconds)]
        with open(args.rows, "a") as f:
            for r in filter(None, made):
                print(line(r), flush=True)
                f.write(json.dumps({"key": key, "row": r}) + "\n")
        gc.collect()
        release()
    limits = {**bench.probe.limits(), "isa": bench.engine.lib.dgm_isa().decode()}
    print(json.dumps(limits))
    with open(args.rows, "a") as f:
        f.write(json.dumps({"key": f"limits {args.threads}", "limits": limits}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
