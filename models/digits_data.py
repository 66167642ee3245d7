"""The digits data set: scikit-learn's 1,797 handwritten 8x8 digits and its fixed split."""

import numpy as np
from sklearn.datasets import load_digits

SPLIT_SEED = 20
HELD_OUT = 0.22


def load_split():
    """Returns train x, train y, held-out x, held-out y; x [N, 64] f32 in [-1, 1], y [N] i64.

    The split is stratified: 22 % of every class is held out. No gradient ever sees these
    images; they served to choose the checkpoint and the guidance.
    """
    data = load_digits()
    x = (data.data / 8.0 - 1.0).astype(np.float32)
    y = data.target.astype(np.int64)
    rng = np.random.RandomState(SPLIT_SEED)
    held = np.zeros(len(y), dtype=bool)
    for label in range(10):
        rows = rng.permutation(np.flatnonzero(y == label))
        held[rows[: round(HELD_OUT * len(rows))]] = True
    return x[~held], y[~held], x[held], y[held]
