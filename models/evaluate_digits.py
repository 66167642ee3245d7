"""Measure the quality of generated digits and fail if a gate is missed.

    python evaluate_digits.py                       # sample models/digits.safetensors
    python evaluate_digits.py --png grid.png        # and draw a 10 x 10 grid
    python evaluate_digits.py --samples x.f32 --labels y.txt   # judge someone else's samples

Samples from elsewhere are raw little-endian float32 [N, 1, 8, 8] in [-1, 1]; the labels
are N integers in a text file, separated by white space or commas.

Gates, all on the same samples (by default 100 per class):
  1. a k-NN classifier (k = 5) on the real training digits reads at least 97 % of them as
     the class asked for;
  2. they are not copies: the distance to the nearest training image, at the median and the
     5 % and 1 % quantiles, is at least 0.8 of what held-out real digits have;
  3. they are not a few prototypes: manifold recall (Kynkaanniemi et al. 2019, k = 5) of
     held-out real digits is at least 0.8 in every class. Per class, as many generated as
     held-out digits are used; the mean over 50 seeded draws of that many is reported.
"""

import argparse
import os
import sys

import numpy as np

from digits_data import load_split

HERE = os.path.dirname(os.path.abspath(__file__))


def distances(a, b):
    """Euclidean distances [len(a), len(b)] in float64."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return np.sqrt(((a[:, None, :] - b[None, :, :]) ** 2).sum(-1))


def knn_read(train_x, train_y, x, k=5):
    """Majority class of the k nearest training digits; the nearest wins a tie."""
    order = np.argsort(distances(x, train_x), axis=1, kind="stable")[:, :k]
    read = np.empty(len(x), dtype=np.int64)
    for row, near in enumerate(train_y[order]):
        votes = np.bincount(near, minlength=10)
        best = np.flatnonzero(votes == votes.max())
        read[row] = next(label for label in near if label in best)
    return read


def covered(points, support, k):
    """Share of points that lie in the union of k-NN balls around the support."""
    inner = np.sort(distances(support, support), axis=1)
    radius = inner[:, k]  # column 0 is the distance of each point to itself
    return (distances(points, support) <= radius[None, :]).any(axis=1).mean()


def manifold(points, support, k, draws=50, seed=0):
    """Mean of `covered` over draws of len(points) support points (equal sample counts)."""
    rng = np.random.RandomState(seed)
    n = min(len(points), len(support))
    return float(np.mean([
        covered(points, support[rng.permutation(len(support))[:n]], k) for _ in range(draws)]))


def measure(x, labels, k=5, draws=50):
    """All figures for generated x [N, 64] with the labels asked for."""
    train_x, train_y, held_x, held_y = load_split()
    read = knn_read(train_x, train_y, x)
    near = distances(x, train_x).min(axis=1)
    near_held = distances(held_x, train_x).min(axis=1)
    quantiles = (0.01, 0.05, 0.5, 0.95)
    out = {
        "accuracy": float((read == labels).mean()),
        "accuracy_per_class": [float((read[labels == c] == c).mean()) for c in range(10)],
        "accuracy_held": float((knn_read(train_x, train_y, held_x) == held_y).mean()),
        "near": np.quantile(near, quantiles),
        "near_held": np.quantile(near_held, quantiles),
        "recall": [], "precision": [], "recall_real": [], "count": [],
    }
    for c in range(10):
        generated, held, train = x[labels == c], held_x[held_y == c], train_x[train_y == c]
        out["count"].append((len(generated), len(held)))
        out["recall"].append(manifold(held, generated, k, draws))
        out["recall_real"].append(manifold(held, train, k, draws))
        out["precision"].append(float(covered(generated, train, k)))
    return out


def gates(m):
    ratio = m["near"] / m["near_held"]
    return {
        "k-NN accuracy >= 0.97": m["accuracy"] >= 0.97,
        "distance ratio >= 0.8": bool((ratio[:3] >= 0.8).all()),
        "recall >= 0.8 per class": min(m["recall"]) >= 0.8,
    }


def report(m, k):
    print(f"k-NN (k=5, real training digits) reads as asked: {m['accuracy']:.4f}"
          f"   (held-out real digits: {m['accuracy_held']:.4f})")
    print("distance to nearest training image     1 %     5 %  median    95 %")
    print("  generated                        " + "".join(f"{v:8.3f}" for v in m["near"]))
    print("  held-out real                    " + "".join(f"{v:8.3f}" for v in m["near_held"]))
    print("  ratio                            "
          + "".join(f"{v:8.3f}" for v in m["near"] / m["near_held"]))
    print(f"class  generated  held-out  k-NN   recall (k={k})  recall by real  precision")
    for c in range(10):
        print(f"{c:5d}  {m['count'][c][0]:9d}  {m['count'][c][1]:8d}"
              f"  {m['accuracy_per_class'][c]:.3f}  {m['recall'][c]:12.3f}"
              f"  {m['recall_real'][c]:14.3f}  {m['precision'][c]:9.3f}")
    print(f" mean  {'':9s}  {'':8s}  {np.mean(m['accuracy_per_class']):.3f}"
          f"  {np.mean(m['recall']):12.3f}  {np.mean(m['recall_real']):14.3f}"
          f"  {np.mean(m['precision']):9.3f}")
    for name, ok in gates(m).items():
        print(f"{'pass' if ok else 'FAIL'}  {name}")


def write_grid(path, x, labels, zoom=8):
    """A 10 x 10 grid, row = class asked for, first ten samples of each class."""
    from PIL import Image

    cell = 8 * zoom + 4
    grid = np.full((10 * cell, 10 * cell), 40, dtype=np.uint8)
    for c in range(10):
        for j, image in enumerate(x[labels == c][:10]):
            pixels = np.clip((image.reshape(8, 8) + 1) * 127.5, 0, 255).astype(np.uint8)
            pixels = np.kron(pixels, np.ones((zoom, zoom), dtype=np.uint8))
            grid[c * cell + 2:c * cell + 2 + 8 * zoom, j * cell + 2:j * cell + 2 + 8 * zoom] = pixels
    Image.fromarray(grid).save(path)


def sample(path, per_class, seed, **override):
    """Digits from a model file at the sampler settings in its metadata."""
    import torch

    from dit import flow_sample, load_dit

    model, meta = load_dit(path)
    settings = {
        "steps": int(meta["sampler.steps"]),
        "solver": meta["sampler.solver"],
        "guidance": float(meta["sampler.guidance"]),
        "shift": float(meta["sampler.shift"]),
    }
    settings.update({key: value for key, value in override.items() if value is not None})
    print(f"{os.path.basename(path)}: {settings}, {per_class} digits per class, seed {seed}")
    labels = torch.arange(10).repeat_interleave(per_class)
    noise = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    x = flow_sample(model, noise, labels, **settings)
    return x.flatten(1).numpy(), labels.numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(HERE, "digits.safetensors"))
    parser.add_argument("--samples", help="raw f32 file to judge instead of sampling")
    parser.add_argument("--labels", help="text file with the labels of --samples")
    parser.add_argument("--per-class", type=int, default=100)
    parser.add_argument("--seed", type=int, default=2)
    parser.add_argument("--k", type=int, default=5, help="neighbours of the recall balls")
    parser.add_argument("--solver", choices=["euler", "midpoint", "heun"])
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--shift", type=float)
    parser.add_argument("--png", help="write a 10 x 10 grid here")
    args = parser.parse_args()

    if args.samples:
        if not args.labels:
            parser.error("--samples needs --labels")
        x = np.fromfile(args.samples, dtype="<f4")
        with open(args.labels) as f:
            labels = np.array([int(v) for v in f.read().replace(",", " ").split()])
        if x.size != 64 * len(labels):
            parser.error(f"--samples holds {x.size} values; {len(labels)} labels need "
                         f"{64 * len(labels)} (64 a digit)")
        x = x.reshape(-1, 64)
    else:
        x, labels = sample(args.model, args.per_class, args.seed, solver=args.solver,
                           steps=args.steps, guidance=args.guidance, shift=args.shift)
    if not np.isfinite(x).all():
        print("FAIL  samples are not all finite")
        sys.exit(1)
    short = [c for c in range(10) if (labels == c).sum() <= args.k]
    if short:
        parser.error(f"each class needs more than {args.k} samples; too few of {short}")
    m = measure(x, labels, args.k)
    report(m, args.k)
    if args.png:
        write_grid(args.png, x, labels)
    sys.exit(0 if all(gates(m).values()) else 1)


if __name__ == "__main__":
    main()
