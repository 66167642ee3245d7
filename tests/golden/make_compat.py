"""Make compat.bin and compat.txt: random numbers of PyTorch, NumPy, JAX and torchsde.

    pip install torch numpy jax torchsde
    python make_compat.py

The format is that of golden.bin (README.md). Entries `ALGORITHM.SEED.STEP.KIND` are draws of one generator in the
order of the file, `normal` or `uniform`, in the type of the entry: a test runs through the lines.
Those of `torch_cuda` come from the formula of the layout in f64, because the script needs no GPU.
"""

import os
import warnings

import jax
import numpy as np
import torch
import torchsde

HERE = os.path.dirname(os.path.abspath(__file__))
DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "uint64": "u64"}
ENTRIES = []
# Short and long tensors, a last block that is drawn anew, a pair cut in two.
DRAWS = [
    ("normal", "f32", 3),
    ("normal", "f32", 16),
    ("normal", "f64", 4),
    ("uniform", "f32", 9),
    ("normal", "f32", 37),
    ("normal", "f64", 41),
    ("uniform", "f64", 9),
    ("normal", "f32", 5),
    ("normal", "f32", 1100),
]
SEEDS = [0, 12345, 2**32 - 1]


def add(name, value):
    ENTRIES.append((name, np.ascontiguousarray(value)))


def draws(name, seed, draw, wanted=DRAWS):
    for step, (kind, dtype, n) in enumerate(wanted):
        value = np.asarray(draw(kind, dtype, n))
        assert DTYPES[str(value.dtype)] == dtype and value.shape == (n,)
        add(f"{name}.{seed}.{step}.{kind}", value)


def torch_cpu(seed):
    g = torch.Generator().manual_seed(seed)
    types = {"f32": torch.float32, "f64": torch.float64}
    functions = {"normal": torch.randn, "uniform": torch.rand}
    return lambda kind, dtype, n: functions[kind](n, dtype=types[dtype], generator=g).numpy()


def numpy_generator(bits):
    g = np.random.Generator(bits)
    types = {"f32": np.float32, "f64": np.float64}
    functions = {"normal": g.standard_normal, "uniform": g.random}
    return lambda kind, dtype, n: functions[kind](n, dtype=types[dtype])


def random_state(seed):
    g = np.random.RandomState(seed)
    types = {"f32": np.float32, "f64": np.float64}
    functions = {"normal": g.randn, "uniform": g.random_sample}
    return lambda kind, dtype, n: functions[kind](n).astype(types[dtype])


def philox4x32(counter, key):
    word = 2**32
    c = [[int(x) for x in column] for column in counter]
    for i in range(len(c)):
        k = list(key)
        for _ in range(10):
            p, q = 0xD2511F53 * c[i][0], 0xCD9E8D57 * c[i][2]
            c[i] = [q // word ^ c[i][1] ^ k[0], q % word, p // word ^ c[i][3] ^ k[1], p % word]
            k = [(k[0] + 0x9E3779B9) % word, (k[1] + 0xBB67AE85) % word]
    return np.array(c, np.float64)


def torch_cuda(seed):
    calls = iter(range(1000))

    def draw(kind, dtype, n):
        call = next(calls)
        words = philox4x32([[call, 0, i, 0] for i in range(n)], [seed % 2**32, seed // 2**32])
        u, angle = (words[:, 0] + 0.5) / 2**32, (words[:, 1] + 0.5) * 2 * np.pi / 2**32
        return (np.sqrt(-2 * np.log(u)) * np.sin(angle)).astype(np.float32)

    return draw


def jax_numbers():
    for layout, partitionable in (("partitionable", True), ("original", False)):
        jax.config.update("jax_threefry_partitionable", partitionable)
        for seed in (0, 42):
            key = jax.random.PRNGKey(seed)
            name = f"jax.{layout}.{seed}"
            add(f"{name}.fold_in_7", np.asarray(jax.random.fold_in(key, 7)).astype(np.uint64))
            for n in (2, 5):
                add(f"{name}.split", np.asarray(jax.random.split(key, n)).astype(np.uint64))
            for n in (1, 6, 37, 1001):
                add(f"{name}.uniform", np.asarray(jax.random.uniform(key, (n,))))
                add(f"{name}.normal", np.asarray(jax.random.normal(key, (n,))))


def brownian():
    t0, t1 = float(np.float32(0.0291675)), float(np.float32(14.614642))
    pairs = [(14.5, 9.7), (0.5, 0.25), (t0, t1), (3.0, 3.1), (5.0, 1.0), (0.125, 0.0078125)]
    seeds = np.array([3, 2**40], np.uint64)
    trees = [torchsde.BrownianTree(t0, torch.zeros(24), t1, entropy=int(s)) for s in seeds]
    add("torchsde.seeds", seeds)
    for i, (ta, tb) in enumerate(pairs):
        ta, tb = float(np.float32(ta)), float(np.float32(tb))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of times outside, which are moved to the ends
            w = torch.stack([tree(min(ta, tb), max(ta, tb)) for tree in trees])
        w = w * (1 if ta < tb else -1)
        add(f"torchsde.{i}.times", np.array([t0, t1, ta, tb]))
        add(f"torchsde.{i}.increment", w.numpy())
        scale = (torch.tensor(tb) - torch.tensor(ta)).abs().sqrt()
        add(f"torchsde.{i}.noise", (w / scale).numpy())


def write():
    blob = bytearray()
    lines = ["# dgm golden 1"]
    for name, value in ENTRIES:
        blob.extend(b"\0" * (-len(blob) % 64))
        dims = "x".join(str(d) for d in value.shape)
        lines.append(f"{name} {DTYPES[str(value.dtype)]} {dims} {len(blob)}")
        blob.extend(value.astype(value.dtype.newbyteorder("<")).tobytes())
    with open(os.path.join(HERE, "compat.bin"), "wb") as f:
        f.write(blob)
    with open(os.path.join(HERE, "compat.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(f"{len(ENTRIES)} tensors, {len(blob)} bytes")
    print("torch", torch.__version__, "numpy", np.__version__, "jax", jax.__version__, "torchsde", torchsde.__version__)


for s in SEEDS:
    draws("torch_cpu", s, torch_cpu(s))
    draws("torch_cuda", s, torch_cuda(s), [d for d in DRAWS if d[:2] == ("normal", "f32") and d[2] < 100])
    draws("numpy_pcg64", s, numpy_generator(np.random.PCG64(s)))
    draws("numpy_philox", s, numpy_generator(np.random.Philox(s)))
    draws("numpy_random_state", s, random_state(s))
jax_numbers()
brownian()
write()
