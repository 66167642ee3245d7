"""Installs the peers, builds everything, measures, and writes table, plot and JSON.

    make peers-attention ARGS="--quick"          or: python3 benches/peers/run.py attention --quick

Needs Python 3.11 or later with venv, cargo and a C compiler, and some 8 GB of disk, all outside the
checkout: PEERS_VENV (default ~/.cache/dgm-peers/venv). Only the standard library is used here; what
measures runs inside the environment, in a process of its own for each number of threads.
"""

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VENV = os.path.abspath(os.environ.get("PEERS_VENV") or os.path.expanduser("~/.cache/dgm-peers/venv"))
CACHE = os.path.join(VENV, "dgm")  # what is compiled here: the probe, the Rust comparators
PYTHON = os.path.join(VENV, "bin", "python")
# Compiled for this machine, where a wheel is compiled for any.
NATIVE = {"libggml-python": "0.20.2.post1"}
GROUPS = {"sampling": ["step", "noise", "chains", "ode", "door"],
          "forward": ["gemm", "gemv", "tiny", "memory", "dit", "digits"],
          "attention": ["prefill", "causal", "small", "cross", "tiny", "headsize", "decode", "option",
                        "backward", "scaling", "memory"]}
MINUTES = {"attention": 90, "forward": 40, "sampling": 10}


def run(command, **options):
    print("+", " ".join(command), flush=True)
    return subprocess.run(command, check=True, **options)


def install():
    """The environment, unless it holds these versions already."""
    if os.path.commonpath([VENV, ROOT]) == ROOT:
        sys.exit("PEERS_VENV must lie outside the checkout")
    requirements = os.path.join(HERE, "requirements.txt")
    with open(requirements, "rb") as f:
        stamp = hashlib.sha256(f.read() + json.dumps(NATIVE).encode()).hexdigest()
    stamp_file = os.path.join(VENV, "dgm-stamp")
    if os.path.exists(stamp_file) and open(stamp_file).read() == stamp:
        return
    run([sys.executable, "-m", "venv", VENV])
    extra = os.environ.get("PEERS_PIP_ARGS", "").split()  # such as an index with CPU-only builds
    run([PYTHON, "-m", "pip", "install", *extra, "-r", requirements])
    for name, version in NATIVE.items():
        try:
            run([PYTHON, "-m", "pip", "install", *extra, "--no-deps", "--no-binary", name, f"{name}=={version}"],
                env={**os.environ, "CMAKE_ARGS": "-DGGML_NATIVE=ON -DCMAKE_BUILD_TYPE=Release"})
        except subprocess.CalledProcessError:
            print(f"{name} cannot be built here: left out")
    with open(stamp_file, "w") as f:
        f.write(stamp)


def build(rust, doors):
    """libdgm, and the Rust comparators; their library, or None."""
    # In one call, so that all are built with the same features.
    run(["cargo", "build", "--release", "-p", "dgm-capi", *(["-p", "dgm_nif", "-p", "dgm-benches"] if doors else [])],
        cwd=ROOT)
    if not rust:
        return None
    target = os.path.join(CACHE, "rust")
    environment = {**os.environ, "RUSTFLAGS": "-C target-cpu=native", "CARGO_TARGET_DIR": target}
    try:
        run(["cargo", "build", "--release", "--locked"], cwd=os.path.join(HERE, "rust"), env=environment)
    except subprocess.CalledProcessError:
        print("the comparators in Rust cannot be built here: left out")
        return None
    name = {"darwin": "librust_peers.dylib"}.get(sys.platform, "librust_peers.so")
    return os.path.join(target, "release", name)


def site_packages():
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def environment(threads):
    """Every library on the same number of threads; freed memory is kept, since page faults are slow
    and some peers allocate their result; one OpenMP runtime, PyTorch's own."""
    env = {**os.environ, "PYTHONPATH": HERE}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS",
                 "MATMUL_NUM_THREADS", "DGM_NUM_THREADS", "NPROC"):  # NPROC: the pool of XLA
        env[name] = str(threads)
    env["TF_CPP_MIN_LOG_LEVEL"] = "2"
    env.update(MKL_THREADING_LAYER="GNU", MKL_DYNAMIC="FALSE")  # PyTorch's runtime, and as many threads as were asked for
    # An OPENBLAS_CORETYPE of the surroundings would choose a kernel for another processor.
    env.pop("OPENBLAS_CORETYPE", None)
    if sys.platform == "linux":
        torch = os.path.join(site_packages(), "torch", "lib", "libgomp.so.1")
        if os.path.exists(torch):
            env["LD_PRELOAD"] = torch
        # tcmalloc would do the same for PyTorch, but OpenVINO frees with glibc what it got from elsewhere.
        env.update(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(1 << 40), MALLOC_TOP_PAD_=str(64 << 20))
    return env


def measure(args, threads, budget, rows, rust, scaling):
    """One number of threads. A peer that takes the process down costs the case, not the run."""
    command = [PYTHON, "-m", args.what, "--threads", str(threads), "--rows", rows, "--cache", CACHE,
               "--gate", str(args.gate)]
    command += ["--quick"] * args.quick + ["--scaling"] * scaling + ["--match", args.match] * bool(args.match)
    command += (["--rust", rust] if rust else []) + (["--only", *args.only] if args.only else [])
    command += ["--peers", *args.peers] if args.peers else []
    end = time.monotonic() + budget
    for _ in range(20):
        done = subprocess.run([*command, "--budget", str(max(0, end - time.monotonic()))], env=environment(threads))
        if done.returncode == 0:
            return
        if args.what != "attention":
            sys.exit(f"the process ended with {done.returncode}")
        print(f"the process ended with {done.returncode} inside a case; going on with the next one", flush=True)
    sys.exit("too many failures")


def doors(lines, threads):
    """The rows of `make doors`, from every language whose tools are here."""
    program = os.path.join(CACHE, "doors")
    built = os.path.join(ROOT, os.environ.get("CARGO_TARGET_DIR", "target"), "release")
    commands = [
        (ROOT, [os.path.join(built, "doors")]),
        (ROOT, ["sh", "-c", 'sh capi/cc.sh benches/doors/doors.c "$0" && exec "$0"', program]),
        (ROOT, ["julia", "--project=julia", "benches/doors/doors.jl"]),
        (os.path.join(ROOT, "elixir"), ["mix", "run", "../benches/doors/doors.exs"]),
    ]
    with open(lines, "a") as f:
        for folder, command in commands:
            if not shutil.which(command[0]):
                print(f"{command[0]} is not here: its door is left out")
                continue
            library = {"darwin": "dylib"}.get(sys.platform, "so")
            env = {**os.environ, "DGM_NUM_THREADS": str(threads),
                   "DGM_LIBRARY": os.path.join(built, f"libdgm.{library}"),
                   "DGM_NIF_PATH": os.path.join(built, f"libdgm_nif.{library}")}
            done = run(command, cwd=folder, env=env,
                       stdout=subprocess.PIPE, text=True)
            for text in done.stdout.splitlines():
                if text.startswith("{"):
                    r = json.loads(text)
                    print(f"door      {r['case']:44s} {1e6 * r['ours_ms']:14.1f} ns", flush=True)
                    f.write(json.dumps({"key": f"{r['case']} {threads}", "row": r}) + "\n")


def read(path):
    rows, limits = [], []
    for text in open(path) if os.path.exists(path) else []:
        entry = json.loads(text)
        rows += [entry["row"]] if "row" in entry else []
        limits += [entry["limits"]] if "limits" in entry else []
    return rows, limits


def versions():
    """What was measured, on what: written beside the rows."""
    code = ("import importlib.metadata as m, json; print(json.dumps({d.metadata['Name']: d.version "
            "for d in m.distributions()}))")
    found = json.loads(subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout)
    wanted = [line.split("==")[0].strip() for line in open(os.path.join(HERE, "requirements.txt")) if "==" in line]
    chosen = {name: found[name] for name in [*wanted, *NATIVE] if name in found}
    chosen.update({"candle": "0.11.1", "burn-flex": "0.23.0-pre.1", "faer": "0.24.4", "gemm": "0.19.0",
                   "matrixmultiply": "0.3.11", "python": platform.python_version()})
    model = platform.processor() or platform.machine()
    if os.path.exists("/proc/cpuinfo"):
        model = next((s.split(":")[1].strip() for s in open("/proc/cpuinfo") if s.startswith("model name")), model)
    return {"machine": model, "cpus": os.cpu_count(), "system": platform.platform(), "versions": chosen}


def measured(arguments):
    """Without where the results went, which is a path of the machine."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and not argument.startswith("--out"):
            kept.append(argument)
        skip = argument == "--out"
    return kept


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
                                allow_abbrev=False)
    p.add_argument("what", choices=sorted(GROUPS))
    p.add_argument("--quick", action="store_true", help="few cases, two minutes")
    p.add_argument("--only", nargs="*", default=[], metavar="GROUP", help="these groups")
    p.add_argument("--match", default="", help="cases in whose name this regular expression is found")
    p.add_argument("--peers", nargs="*", default=[], help="these peers: torch openvino onnxruntime jax ggml rust")
    p.add_argument("--threads", help="such as 1,2; default: all, then 1")
    p.add_argument("--budget", help="minutes for all (default: attention 90, forward 40, sampling 10, quick 2), or for each number of "
                   "threads, such as 30,8")
    p.add_argument("--gate", type=float, default=0.9, help="share of the clean FMA peak around a sample that counts; 0: all")
    p.add_argument("--no-rust", action="store_true", help="without the comparators in Rust")
    p.add_argument("--out", help="folder of the results (default benches/results; quick: nothing is written there)")
    args = p.parse_args()
    unknown = set(args.only) - set(GROUPS[args.what])
    if unknown:
        p.error(f"no group is called {', '.join(sorted(unknown))}; there are {' '.join(GROUPS[args.what])}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = [int(t) for t in args.threads.split(",")] if args.threads else list(dict.fromkeys([usable, 1]))
    budget = args.budget or ("2" if args.quick else str(MINUTES[args.what]))
    budget = [60 * float(minutes) for minutes in budget.split(",")]
    if len(budget) == 1:
        budget = [budget[0] / len(threads)] * len(threads)
    if len(budget) != len(threads):
        p.error(f"--budget is {args.budget}, expected one number or one for each of {len(threads)} numbers of threads")
    install()
    wants_doors = "door" in GROUPS[args.what] and not args.quick and not args.match \
        and (not args.only or "door" in args.only)
    rust = build(args.what in ("attention", "forward") and not args.no_rust and not args.quick, wants_doors)
    partial = bool(args.quick or args.only or args.match or args.peers)
    out = args.out or (os.path.join(CACHE, "results") if partial else os.path.join(ROOT, "benches", "results"))
    os.makedirs(out, exist_ok=True)
    lines = os.path.join(CACHE, f"{args.what}-{int(time.time())}.jsonl")
    for i, n in enumerate(threads):
        measure(args, n, budget[i], lines, rust, scaling=i == 0)
    if wants_doors:
        doors(lines, threads[0])
    if "memory" in GROUPS[args.what] and sys.platform == "linux" and not args.quick \
            and (not args.only or "memory" in args.only):
        subprocess.run([PYTHON, "-m", f"{args.what}.memory", "--rows", lines, "--cache", CACHE,
                        "--threads", str(threads[0])], env={**os.environ, "PYTHONPATH": HERE}, check=False)
    rows, limits = read(lines)
    with open(lines + ".final", "w") as f:
        json.dump({"rows": rows, "about": {**versions(), "arguments": measured(sys.argv[1:]), "limits": limits, "gate": args.gate}}, f)
    run([PYTHON, "-m", "harness.report", lines + ".final", os.path.join(out, args.what)],
        env={**os.environ, "PYTHONPATH": HERE})


if __name__ == "__main__":
    main()
