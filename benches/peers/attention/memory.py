"""The group `memory`: what one call allocates above its inputs and output. Counted, not timed, by an
allocator that is preloaded (glibc); a process of its own, so that nothing has been kept before.

Ours: the first call at a shape after a tiny one, so that what a thread keeps is counted, the pool of
threads not. PyTorch: the second call. The others bring allocators of their own, which are not counted."""

import argparse
import ctypes
import json
import os
import sys

from harness.probe import compile_c


def peak(heap, call):
    heap.heap_reset()
    call()
    return heap.heap_peak()


def measure(case, threads, heap):
    import torch

    from harness.library import Engine
    from harness.report import memory_row

    from . import ours, peer_torch
    from .inputs import Inputs

    torch.set_num_threads(threads)
    engine = Engine(threads)
    tiny = torch.randn(1, 2 * threads, 16, 8)
    engine.attention(tiny, tiny, tiny, None, torch.empty_like(tiny), None)
    inputs = Inputs(case, 0)
    function = ours.make(engine, case, inputs)
    own = peak(heap, function.call)
    errors = {"ours": inputs.check("ours", function.call())[0]}
    output = inputs.sets[0][0].numel() * inputs.sets[0][0].element_size()
    peers = {}
    for peer in peer_torch.make(case, inputs):
        peer.call()
        peers[peer.name] = max(0, peak(heap, peer.call) - output) / 1024  # it allocates its output, too
    return memory_row(case.title, "memory", case.storage, threads, own / 1024, peers, max_error=errors)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--rows", required=True)
    p.add_argument("--cache", required=True)
    p.add_argument("--threads", type=int, required=True)
    p.add_argument("--case", type=int, help="used by the program itself: measure this one")
    args = p.parse_args()
    library = compile_c("heap", args.cache)
    from .cases import all_cases

    cases = [c for c in all_cases() if c.group == "memory"]
    if args.case is None:
        # OMP_NUM_THREADS and the like: set by the caller for everything else, here for the children.
        env = {**os.environ, "LD_PRELOAD": library, "OMP_NUM_THREADS": str(args.threads), "NPROC": str(args.threads)}
        for i in range(len(cases)):
            os.spawnve(os.P_WAIT, sys.executable, [sys.executable, "-m", "attention.memory", *sys.argv[1:],
                                                   "--case", str(i)], env)
        return
    heap = ctypes.CDLL(library)
    heap.heap_peak.restype = ctypes.c_long
    row = measure(cases[args.case], args.threads, heap)
    print(f"memory    {row['case']:44s} {row['dtype']:9s} ours {row['ours_kib']:.0f} KiB  "
          + ", ".join(f"{n} {k:.0f}" for n, k in row["peers_kib"].items()), flush=True)
    with open(args.rows, "a") as f:
        f.write(json.dumps({"key": f"memory {args.case}", "row": row}) + "\n")


if __name__ == "__main__":
    main()
