"""Inputs of a case, the f64 reference for some of its rows, and the check against it."""

import math

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.measure import LeftOut

DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
# Largest error (of gradients their root mean square) as a share of the root mean square of the reference. Wrong masks, scales or
# layouts are off by 0.5 and more.
TOLERANCE = {"f32": 2e-3, "f16": 2e-2, "bf16": 8e-2}


class Inputs:
    """`sets` is a list of (q, k, v); more than one where calls must not find their cache in the
    processor's. `f32_kv(i)` of an int8 case is what its numbers stand for."""

    def __init__(self, case, rotate_bytes):
        self.case = case
        generator = torch.Generator().manual_seed(1)
        dtype = DTYPES[case.dtype]

        def normal(*shape, to=dtype):
            return torch.randn(*shape, generator=generator).to(to)

        count = 1
        if case.group == "decode":
            count = max(1, math.ceil(rotate_bytes / case.cache_bytes()))
        q = (case.batch, case.heads, case.queries, case.dim)
        k = (case.batch, case.kv, case.keys, case.dim)
        if case.kv_dtype == "int8":
            quantised = lambda: (torch.randint(-127, 128, k, generator=generator, dtype=torch.int8),
                                 0.005 + 0.01 * torch.rand(*k[:3], generator=generator))
            self.sets = [(normal(*q), quantised(), quantised()) for _ in range(count)]
        else:
            self.sets = [(normal(*q), normal(*k), normal(*k)) for _ in range(count)]
        self.scale = 1 / math.sqrt(case.dim)
        self.bias = normal(1, case.heads, case.queries, case.keys, to=torch.float32) if case.bias else None
        self.mask = torch.rand(1, 1, case.queries, case.keys, generator=generator) < 0.8 if case.mask else None
        self.slopes = torch.tensor([2 ** (-8 * (h + 1) / case.heads) for h in range(case.heads)]) if case.alibi else None
        self.sinks = torch.randn(case.heads, generator=generator) if case.sinks else None
        self.lengths = torch.tensor(case.lengths) if case.lengths else None
        self.grad = normal(*q) if case.backward else None
        self._reference = self._gradients = None

    def visible(self, rows, batch):
        """[rows, keys], True where a query may look."""
        case = self.case
        length = case.lengths[batch] if case.lengths else case.keys
        key = torch.arange(case.keys)[None, :]
        position = torch.tensor(rows)[:, None] + length - case.queries
        seen = (key < length).expand(len(rows), -1)
        if case.causal:
            seen = seen & (key <= position)
        if case.window_left >= 0:
            seen = seen & (key >= position - case.window_left)
        if self.mask is not None:
            seen = seen & self.mask[0, 0, rows]
        return seen

    def additive(self, dtype=torch.float32):
        """All masks, slopes and biases as one [1 or B, 1 or H, queries, keys] to add, or None: what
        a peer gets that has no option of its own."""
        case = self.case
        if self.bias is None and not case.alibi and not case.lengths and self.mask is None \
                and case.window_left < 0:
            return None if not case.causal else self._hide(torch.zeros(1, 1, 1, 1), dtype)
        total = torch.zeros(1, 1, 1, 1)
        if self.bias is not None:
            total = total + self.bias
        if case.alibi:
            distance = (torch.arange(case.keys)[None, :] - torch.arange(case.queries)[:, None]
                        - (case.keys - case.queries)).abs()
            total = total - self.slopes[None, :, None, None] * distance
        return self._hide(total, dtype)

    def _hide(self, total, dtype):
        rows = list(range(self.case.queries))
        batches = range(self.case.batch if self.case.lengths else 1)
        seen = torch.stack([self.visible(rows, b) for b in batches])[:, None]
        return total.masked_fill(~seen, -math.inf).to(dtype)

    def places(self):
        """Some (batch, head, rows) to check: first and last of everything, and between."""
        case = self.case
        spread = lambda n, count: sorted({round(i * (n - 1) / max(1, count - 1)) for i in range(min(n, count))})
        rows = sorted(set(spread(case.queries, 12)) | {min(case.queries - 1, case.queries // 3 + 1)})
        return [(b, h, rows) for b in spread(case.batch, 2) for h in spread(case.heads, 3)]

    def reference(self):
        """f64 results at `places()` for the last set (the one a call that walks all sets ends with)."""
        if self._reference is None:
            self._reference = [self._rows(*place) for place in self.places()]
        return self._reference

    def _rows(self, b, h, rows):
        case = self.case
        q, k, v = self.sets[-1]
        g = h // (case.heads // case.kv)
        wide = lambda t: (t[0][b, g].double() * t[1][b, g].double()[:, None]) if isinstance(t, tuple) else t[b, g].double()
        scores = q[b, h, rows].double() @ wide(k).T * self.scale
        if case.soft_cap:
            scores = case.soft_cap * torch.tanh(scores / case.soft_cap)
        if case.alibi:
            position = torch.tensor(rows)[:, None] + case.keys - case.queries
            scores = scores - self.slopes[h].double() * (torch.arange(case.keys)[None, :] - position).abs()
        if self.bias is not None:
            scores = scores + self.bias[0, h, rows].double()
        scores = scores.masked_fill(~self.visible(rows, b), -math.inf)
        if case.sinks:
            scores = torch.cat([scores, self.sinks[h].double().expand(len(rows), 1)], 1)
            return scores.softmax(-1)[:, :-1] @ wide(v)
        return scores.softmax(-1) @ wide(v)

    def check_gradients(self, name, gradients):
        """The errors of dq, dk, dv of the first and the last key head beside f64, as shares of the gradient's root
        mean square: their largest, and their root mean square (of the worst gradient each); raises where one is
        wrong."""
        case, group = self.case, self.case.heads // self.case.kv
        if self._gradients is None:
            self._gradients = [(b, g, self._gradients_of(b, g, group)) for b, g in ((0, 0), (case.batch - 1, case.kv - 1))]
        shares = []
        for b, g, wanted in self._gradients:
            for got, want, size in zip(gradients, wanted, (group, 1, 1)):
                shares.append(error_shares(got[b, g * size:(g + 1) * size].double(), want[0]))
        if not all(mean <= TOLERANCE[case.dtype] for _, mean in shares):
            raise AssertionError(f"{name}: gradients are off by {max(m for _, m in shares):.2g} of their size")
        return tuple(map(max, zip(*shares)))

    def _gradients_of(self, b, g, group):
        q, k, v = self.sets[-1]
        heads = slice(g * group, (g + 1) * group)
        q, k, v = (t.double().requires_grad_() for t in (q[b:b + 1, heads], k[b:b + 1, g:g + 1], v[b:b + 1, g:g + 1]))
        with sdpa_kernel(SDPBackend.MATH):
            out = torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=self.case.causal, scale=self.scale, enable_gqa=group > 1)
        return torch.autograd.grad(out, (q, k, v), self.grad[b:b + 1, heads].double())

    def check(self, name, out, tolerance=None):
        """The errors of `out` [B, H, queries, dim] beside the reference, as shares of its root mean square: their
        largest and their root mean square; raises where it is wrong."""
        shares = [error_shares(out[b, h, rows].double(), reference)
                  for (b, h, rows), reference in zip(self.places(), self.reference())]
        if not all(worst <= (tolerance or TOLERANCE[self.case.dtype]) for worst, _ in shares):
            raise AssertionError(f"{name}: error {max(w for w, _ in shares):.2g} of the results' size")
        return max(w for w, _ in shares), math.sqrt(sum(m * m for _, m in shares) / len(shares))


def error_shares(got, want):
    size = want.square().mean().sqrt().item()
    error = got - want
    return error.abs().max().item() / size, error.square().mean().sqrt().item() / size
