"""The sampling chapter of docs/NUMERICS.md, written from that page alone.

`sample(options, seeds, elements, model)` walks from noise to the result. Options are the
fields of `PlanOptions`, a guidance other than 1 asks the model twice.
"""

import math

import numpy as np
from reimplement import F, fma, maximum, minimum, normal

INF = math.inf


class Levels:
    """Noise levels (t, alpha, sigma) of a process."""

    def __init__(self, o):
        self.flow, n = o["process"] == "flow", o["train_steps"]
        if self.flow:
            return
        lerp = lambda a, b, i: a if n == 1 else a + (b - a) * i / (n - 1)
        a, b = o["beta_start"], o["beta_end"]
        square = lambda i: math.cos((i / n + 0.008) / 1.008 * (math.pi / 2)) ** 2
        beta = {
            "vp_linear": lambda i: lerp(a, b, i),
            "vp_scaled_linear": lambda i: lerp(math.sqrt(a), math.sqrt(b), i) ** 2,
            "vp_cosine": lambda i: min(1 - square(i + 1) / square(i), 0.999),
        }[o["process"]]
        bar, self.table = 1.0, []
        for i in range(n):
            bar = bar * (1 - beta(i))
            self.table.append(0.5 * (math.log1p(-bar) - math.log(bar)))

    def of_ratio(self, t, ratio):
        norm = math.sqrt(1 + ratio * ratio)
        return t, 1 / norm, ratio / norm

    def at(self, t):
        if self.flow:
            return t, 1 - t, t
        if t < 0:
            return -1.0, 1.0, 0.0
        i = int(t)
        j = min(i + 1, len(self.table) - 1)
        return self.of_ratio(t, math.exp(self.table[i] + (t - i) * (self.table[j] - self.table[i])))

    def coordinate(self, level):
        t, alpha, sigma = level
        return (1.0, t) if self.flow else (alpha, sigma / alpha)

    def at_coordinate(self, c):
        if self.flow:
            return self.at(c)
        log, n = math.log(c), len(self.table)
        j = min(max(sum(r < log for r in self.table), 1), max(n - 1, 1))
        low, high = self.table[j - 1], self.table[min(j, n - 1)]
        fraction = min(max((log - low) / (high - low), 0.0), 1.0) if high > low else 0.0
        return self.of_ratio((j - 1) + fraction, c)


def grid(o):
    if o["times"]:
        return o["times"]
    n, train = (1 if o["solver"] == "bosh3" else o["steps"]), o["train_steps"]
    if o["process"] == "flow":
        s = o["shift"]
        return [s * t / (1 + (s - 1) * t) for t in ((n - i) / n for i in range(n + 1))]
    time = {
        "uniform": lambda i: train - 1 if n == 1 else round((n - 1 - i) * ((train - 1) / (n - 1))),
        "leading": lambda i: (n - 1 - i) * (train // n),
        "trailing": lambda i: round(train - i * (train / n)) - 1,
    }[o["spacing"]]
    return [float(time(i)) for i in range(n)] + [-1.0]


def ratio(a, b):
    if b == 0:
        return math.nan if a == 0 else math.copysign(INF, a)
    return a / b


def data_map(prediction, level):
    _, a, s = level
    q, w = a * a + s * s, a + s
    return {
        "epsilon": lambda: (ratio(1.0, a), ratio(-s, a)),
        "x0": lambda: (0.0, 1.0),
        "v": lambda: (a / q, -s / q),
        "velocity": lambda: (1 / w, -s / w),
    }[prediction]()


def noise_map(prediction, level):
    _, a, s = level
    q, w = a * a + s * s, a + s
    return {
        "epsilon": lambda: (0.0, 1.0),
        "x0": lambda: (ratio(1.0, s), ratio(-a, s)),
        "v": lambda: (s / q, a / q),
        "velocity": lambda: (1 / w, a / w),
    }[prediction]()


def lam(level):
    _, a, s = level
    return INF if s == 0 else -INF if a == 0 else math.log(a) - math.log(s)


def total(*terms):
    """A sum: equal operands merge, zero coefficients are left out."""
    out = {}
    for operand, c in terms:
        out[operand] = out[operand] + c if operand in out else c
    return [(operand, c) for operand, c in out.items() if c != 0]


def times(factor, terms):
    return [(operand, factor * c) for operand, c in terms]


class Walk:
    """The tensors of one row and what a solver may do with them."""

    def __init__(self, o, seed, elements, model):
        self.o, self.model, self.levels = o, model, Levels(o)
        self.seed, self.elements = seed, elements
        self.grid = [self.levels.at(t) for t in grid(o)]
        sigma = F(self.grid[0][2])
        x = normal(elements, 0, 0, seed)
        self.v = {"x": x if sigma == 1 else x * sigma}

    def set(self, dst, terms, clip=None):
        value = np.zeros(self.elements, F)
        for operand, c in terms:
            value = fma(self.v[operand], F(c), value)
        if clip is not None:
            value = maximum(minimum(value, F(clip)), -F(clip))
        self.v[dst] = value

    def evaluate(self, level, state="x"):
        """The name of the (guided) output."""
        g, x, t = self.o["guidance"], self.v[state], F(level[0])
        self.v["y"] = self.model(x, t, 0)
        if g == 1:
            return "y"
        self.set("guide", [("y", 1.0)])
        self.v["y"] = self.model(x, t, 1)
        self.set("r0", total(("guide", g), ("y", 1 - g)))
        return "r0"

    def data(self, level, state, output):
        cx, cy = data_map(self.o["prediction"], level)
        terms = total((state, cx), (output, cy))
        if self.o["clip"] is None:
            return terms
        self.set("r1", terms, self.o["clip"])
        return [("r1", 1.0)]

    def slope_map(self, level):
        source = self.o["prediction"] if self.o["clip"] is None else "x0"
        if not self.levels.flow:
            return noise_map(source, level)
        if source == "velocity":
            return 0.0, 1.0
        (a, b), (c, d) = noise_map(source, level), data_map(source, level)
        return a - c, b - d

    def slope(self, level, state, output):
        cx, cy = self.slope_map(level)
        if self.o["clip"] is not None:
            self.data(level, state, output)
            output = "r1"
        return [(state, cx), (output, cy)]

    def has_slope(self, level):
        with np.errstate(over="ignore"):
            return level[0] >= 0 and all(np.isfinite(F(c)) for c in self.slope_map(level))

    def noise(self, step):
        self.v["noise"] = normal(self.elements, step, 1, self.seed)


TABLEAUS = {
    "euler": ([[]], [1.0], [0.0]),
    "midpoint": ([[], [0.5]], [0.0, 1.0], [0.0, 0.5]),
    "heun": ([[], [1.0]], [0.5, 0.5], [0.0, 1.0]),
    "rk4": ([[], [0.5], [0, 0.5], [0, 0, 1.0]], [1 / 6, 1 / 3, 1 / 3, 1 / 6], [0.0, 0.5, 0.5, 1.0]),
}


def runge_kutta(w, solver):
    a, b, c = TABLEAUS[solver]
    for start, end in zip(w.grid, w.grid[1:]):
        (m0, c0), (m1, c1) = w.levels.coordinate(start), w.levels.coordinate(end)
        h = c1 - c0
        middle = lambda f: end if end[0] < 0 else w.levels.at_coordinate(c0 + f * h)
        levels = [start if f == 0 else end if f == 1 else middle(f) for f in c]
        if len(c) == 1 or end[0] < 0 or not all(map(w.has_slope, levels)):
            y = w.evaluate(start)
            w.set("x", total(("x", m1 / m0), *times(m1 * h, w.slope(start, "x", y))))
            continue
        state = "x"
        for i, level in enumerate(levels):
            y = w.evaluate(level, state)
            w.set(f"k{i}", total(*w.slope(level, state, y)))
            last = i + 1 == len(levels)
            m, weights = (m1, b) if last else (w.levels.coordinate(levels[i + 1])[0], a[i + 1])
            state = "x" if last else "z"
            w.set(state, total(("x", m / m0), *[(f"k{j}", m * h * q) for j, q in enumerate(weights) if q]))


def posterior(start, end):
    (_, a, s), (_, a1, s1) = start, end
    r = a / a1
    return r * (s1 * s1) / (s * s), s * s - r * r * (s1 * s1)


def ancestral(w, solver):
    for step, (start, end) in enumerate(zip(w.grid, w.grid[1:])):
        (_, a, s), (_, a1, s1) = start, end
        data = w.data(start, "x", w.evaluate(start))
        keep, v = posterior(start, end)
        if solver == "ddpm":
            d, factor = math.sqrt(max(v, 0)) * s1 / s, a1 * v / (s * s)
        else:
            d = w.o["eta"] * math.sqrt(max(v, 0)) * s1 / s
            keep = math.sqrt(max(s1 * s1 - d * d, 0)) / s
            factor = a1 - keep * a
        w.noise(step)
        w.set("x", total(("x", keep), *times(factor, data), ("noise", d)))


def dpmpp_2m(w, _):
    for step, (start, end) in enumerate(zip(w.grid, w.grid[1:])):
        w.set("r2", w.data(start, "x", w.evaluate(start)))
        h = lam(end) - lam(start)
        weight, keep = -end[1] * math.expm1(-h), end[2] / start[2]
        if step == 0 or end[2] == 0:
            w.set("x", total(("x", keep), ("r2", weight)))
        else:
            f = 0.5 * h / (lam(start) - lam(w.grid[step - 1]))
            w.set("x", total(("x", keep), ("r2", weight * (1 + f)), ("p", -weight * f)))
        w.set("p", [("r2", 1.0)])


def unipc(w, _):
    n, before = len(w.grid) - 1, None
    w.v["h0"] = w.v["h1"] = np.zeros(w.elements, F)
    for i, (start, end) in enumerate(zip(w.grid, w.grid[1:])):
        new, old = f"h{i % 2}", f"h{(i + 1) % 2}"
        w.set("r2", w.data(start, "x", w.evaluate(start)))
        if before is None:
            w.set("u", [("x", 1.0)])
        else:
            keep, scale, q, b1, b2, order = before
            rho = 0.0 if q == 0 else (b1 - b2) * q / (q - 1)
            e, f = (rho * q, b1 - rho) if order == 2 else (0.0, 0.5)
            terms = [("u", keep), (old, scale)]
            if order == 2:
                terms += [(new, scale * e), (old, -scale * e)]
            w.set("u", total(*terms, ("r2", scale * f), (old, -scale * f)))
        order = min(i + 1, 2, n - i)
        h = lam(end) - lam(start)
        phi = math.expm1(-h)
        p1 = phi / -h - 1
        p2 = p1 / -h - 0.5
        q = h / (lam(w.grid[i - 1]) - lam(start)) if order == 2 else 0.0
        before = end[2] / start[2], -end[1] * phi, q, p1 / phi, 2 * p2 / phi, order
        keep, scale = before[:2]
        weight = scale * 0.5 * q
        second = [(old, weight), ("r2", -weight)] if order == 2 else []
        w.set("x", total(("u", keep), ("r2", scale), *second))
        w.set(new, [("r2", 1.0)])


def bosh3(w, _):
    o, (t, end) = w.o, (w.grid[0][0], w.grid[-1][0])
    h = min(o["h_init"] or (t - end) / 20, t - end)
    last, rejected, names = 1.0, False, ("k1", "k2", "k3", "r2")

    def slope(name, fraction, state):
        following = end if h >= t - end else t - h
        level = w.levels.at(following if fraction == 1 else t - fraction * h)
        y = w.evaluate(level, state)
        w.set(name, [term for term in w.slope(level, state, y) if F(term[1]) != 0])

    def stage(*weights):
        step = (end if h >= t - end else t - h) - t
        w.set("z", [("x", 1.0)] + [(k, c * step) for k, c in zip(names, weights)])

    slope("k1", 0, "x")
    stage(0.5)
    while True:
        slope("k2", 0.5, "z")
        w.set("z", [("x", 1.0), ("k2", 0.75 * ((end if h >= t - end else t - h) - t))])
        slope("k3", 0.75, "z")
        stage(2 / 9, 1 / 3, 4 / 9)
        slope("r2", 1, "z")
        following = end if h >= t - end else t - h
        step = following - t
        w.set("r1", [(k, c * step) for k, c in zip(names, (-5 / 72, 1 / 12, 1 / 9, -0.125))])
        w.set("k2", [("r2", 1.0)])
        error = judge(w, o)
        if error <= 1:
            most = 1.0 if rejected else 5.0
            factor = 0.9 * error ** (-0.7 / 3) * last ** (0.4 / 3)
            t, last, rejected = following, error, False
            w.v["x"], w.v["k1"] = w.v["z"], w.v["k2"]
        else:
            most, factor, rejected = 1.0, 0.9 * error ** (-1 / 3), True
        h = -step * min(max(factor, 0.2), most)
        if t <= end:
            return
        h = min(h, t - end)
        stage(0.5)


def judge(w, o):
    size = np.maximum(np.abs(w.v["x"]), np.abs(w.v["z"])).astype(np.float64)
    squares = (w.v["r1"].astype(np.float64) / np.maximum(o["atol"] + o["rtol"] * size, 2.0**-1022)) ** 2
    whole = 0.0
    for first in range(0, w.elements, 1024):
        acc = np.zeros(32)
        for i in range(first, min(w.elements, first + 1024), 32):
            part = squares[i : min(w.elements, first + 1024)][:32]
            acc[: len(part)] += part
        for half in (16, 8, 4, 2, 1):
            acc[:half] += acc[half : 2 * half]
        whole += acc[0]
    error = math.sqrt(whole / w.elements)
    return max(error, 1e-8) if math.isfinite(error) else np.finfo(np.float64).max


SOLVERS = {
    **dict.fromkeys(TABLEAUS, runge_kutta),
    **dict.fromkeys(("ddpm", "ddim"), ancestral),
    "dpmpp_2m": dpmpp_2m,
    "unipc": unipc,
    "bosh3": bosh3,
}

DEFAULTS = dict(
    process="flow", prediction="velocity", solver="euler", spacing="uniform", steps=16, shift=1.0,
    eta=0.0, guidance=1.0, clip=None, beta_start=1e-4, beta_end=0.02, train_steps=1000,
    rtol=1e-3, atol=1e-4, h_init=0.0, times=None,
)  # fmt: skip


def sample(options, seeds, elements, model):
    """`model(x, t, role)` sees one row; the result is [rows, elements]."""
    o = {**DEFAULTS, **options}
    rows = []
    for seed in seeds:
        w = Walk(o, seed, elements, model)
        SOLVERS[o["solver"]](w, o["solver"])
        rows.append(w.v["x"])
    return np.stack(rows)
