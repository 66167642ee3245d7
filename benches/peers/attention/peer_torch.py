"""PyTorch: scaled_dot_product_attention by its flash and its math kernel, and flex_attention compiled."""

import functools

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.measure import Timed

from .inputs import DTYPES, LeftOut


class Walk:
    """Calls f(set) for one set after the other."""

    def __init__(self, name, f, sets, context=None):
        self.f, self.sets, self.context, self.next = f, sets, context, 0
        self.timed = Timed(name, self.last, run=self.run)

    def run(self, n):
        with torch.inference_mode(), self.context() if self.context else torch.inference_mode():
            for _ in range(n):
                self.f(*self.sets[self.next])
                self.next = (self.next + 1) % len(self.sets)

    def last(self):
        with torch.inference_mode(), self.context() if self.context else torch.inference_mode():
            return self.f(*self.sets[-1])


FLASH = functools.partial(sdpa_kernel, SDPBackend.FLASH_ATTENTION)
MATH = functools.partial(sdpa_kernel, SDPBackend.MATH)


def _fused(case, inputs):
    """One call of scaled_dot_product_attention, whatever has to be a mask made before."""
    if case.soft_cap:
        raise LeftOut("scaled_dot_product_attention has no soft-cap")
    only_causal = case.causal and case.queries == case.keys and inputs.bias is None and not case.alibi \
        and not case.lengths and inputs.mask is None and case.window_left < 0
    mask = None if only_causal else inputs.additive(DTYPES[case.dtype])
    grouped = case.kv != case.heads
    return lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=only_causal,
                                                          scale=inputs.scale, enable_gqa=grouped)


def _folded(case, inputs):
    """One query a head: the heads of a group as queries of one, so that the cache is read once."""
    shape = (case.batch, case.kv, case.heads // case.kv, case.dim)

    def f(q, k, v):
        out = F.scaled_dot_product_attention(q.view(shape), k, v, scale=inputs.scale)
        return out.reshape(case.batch, case.heads, 1, case.dim)

    return f


def _sinks(case, inputs):
    """The flash kernel with its log-sum-exp, the sink merged afterwards."""
    flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    sink = inputs.sinks[None, :, None]

    def f(q, k, v):
        out, lse = flash(q, k, v, 0.0, case.causal, scale=inputs.scale)
        return out * torch.sigmoid(lse - sink)[..., None].to(out.dtype)

    return f


def _lengths(case, inputs):
    """A call for each batch with its own keys: less work than a mask."""
    def f(q, k, v):
        return torch.cat([F.scaled_dot_product_attention(q[b:b + 1], k[b:b + 1, :, :n], v[b:b + 1, :, :n],
                                                         scale=inputs.scale) for b, n in enumerate(case.lengths)])

    return f


def _flex(case, inputs):
    """flex_attention, compiled: the way to windows, soft-caps and slopes."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    slopes, cap, left = inputs.slopes, case.soft_cap, case.window_left

    def score(s, b, h, i, j):
        if cap:
            s = cap * torch.tanh(s / cap)
        return s - slopes[h] * (i - j) if slopes is not None else s

    def seen(b, h, i, j):
        return (i >= j) & (i - j <= left) if left >= 0 else i >= j

    block = create_block_mask(seen, None, None, case.queries, case.keys, device="cpu") if case.causal else None
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(q, k, v, score_mod=score if cap or slopes is not None else None,
                                    block_mask=block, scale=inputs.scale, enable_gqa=case.kv != case.heads)


def _backward(name, case, inputs, context):
    q, k, v = (t.clone().requires_grad_() for t in inputs.sets[0])
    with context():
        out = F.scaled_dot_product_attention(q, k, v, is_causal=case.causal, scale=inputs.scale)

    def call():
        return torch.autograd.grad(out, (q, k, v), inputs.grad, retain_graph=True)

    return Timed(name, call)


def make(case, inputs, flex=False):
    if case.kv_dtype or case.paged:
        raise LeftOut("PyTorch has no such cache on the CPU")
    if case.backward:
        return [_backward("torch flash", case, inputs, FLASH), _backward("torch math", case, inputs, MATH)]
    if case.sinks:
        return [Walk("torch flash + sinks", _sinks(case, inputs), inputs.sets).timed]
    peers = []
    if case.lengths:
        peers.append(Walk("torch flash, a call a batch", _lengths(case, inputs), inputs.sets, FLASH).timed)
    elif not case.soft_cap:
        f = _fused(case, inputs)
        peers.append(Walk("torch flash", f, inputs.sets, FLASH).timed)
        # It keeps all scores; where they are many it is never the best, but counted in `memory`.
        if case.batch * case.heads * case.queries * case.keys <= 1 << 28 or case.group == "memory":
            peers.append(Walk("torch math", f, inputs.sets, MATH).timed)
    if case.queries == 1 and case.kv != case.heads:
        peers.append(Walk("torch flash, heads folded", _folded(case, inputs), inputs.sets, FLASH).timed)
    if flex and (case.soft_cap or case.alibi or case.window_left >= 0):
        peers.append(Walk("torch flex", _flex(case, inputs), inputs.sets).timed)
    return peers
