"""What is measured: every case is one line. Shapes are [batch, heads, length, dim]."""

from dataclasses import dataclass, replace

GROUPS = ["prefill", "causal", "small", "cross", "tiny", "headsize", "decode", "option", "backward", "scaling", "memory"]


@dataclass(frozen=True)
class Case:
    name: str
    group: str
    batch: int
    heads: int
    queries: int
    keys: int
    dim: int
    kv_heads: int = 0  # 0: heads
    dtype: str = "f32"  # of q, k, v and the result
    kv_dtype: str = ""  # where the cache has another: "int8"
    causal: bool = False
    window_left: int = -1
    lengths: tuple = ()  # keys used of each batch
    soft_cap: float = 0.0
    alibi: bool = False
    sinks: bool = False
    bias: bool = False  # dense f32 [1, heads, queries, keys]
    mask: bool = False  # boolean [1, 1, queries, keys]
    backward: bool = False
    paged: bool = False
    quick: bool = False  # also measured by --quick

    @property
    def kv(self):
        return self.kv_heads or self.heads

    @property
    def title(self):
        return f"{self.name} B{self.batch} H{self.heads}{'/' + str(self.kv) if self.kv != self.heads else ''} " \
               f"{self.queries}x{self.keys} D{self.dim}"

    @property
    def storage(self):
        """The dtype column: that of q and, where it differs, of the cache."""
        return self.dtype if not self.kv_dtype else f"{self.dtype}/{self.kv_dtype}"

    def pairs(self):
        """Query-key pairs that count, of one head, summed over the batch."""
        total = 0
        for length in self.lengths or (self.keys,) * self.batch:
            for i in range(self.queries):
                position = i + length - self.queries
                last = min(position, length - 1) if self.causal else length - 1
                first = max(0, position - self.window_left) if self.window_left >= 0 else 0
                total += max(0, last + 1 - first)
        return total

    def flops(self):
        """A fused multiply-add is two. Forward 2 products, backward the 5 that are necessary."""
        return 2 * (5 if self.backward else 2) * self.pairs() * self.heads * self.dim

    def cache_bytes(self):
        """Bytes of keys and values that one call reads (with the scales of an int8 cache)."""
        size = {"f32": 4, "f16": 2, "bf16": 2, "int8": 1}[self.kv_dtype or self.dtype]
        tokens = sum(self.lengths) if self.lengths else self.batch * self.keys
        return 2 * tokens * self.kv * (self.dim * size + (4 if self.kv_dtype == "int8" else 0))

    @property
    def limit(self):
        if self.group == "decode":
            return "read"
        return "fma_bf16" if self.dtype == "bf16" else "fma_f32"


def _long():
    """Prefill of at least 1024 tokens: the shapes of the published comparisons, and one a head size."""
    return [
        Case("L1024", "prefill", 1, 16, 1024, 1024, 64, quick=True),
        Case("DiT-XL/2 512 CFG", "prefill", 2, 16, 1024, 1024, 72),
        Case("L1024", "prefill", 1, 16, 1024, 1024, 128),
        Case("L2048", "prefill", 1, 32, 2048, 2048, 64),
        Case("L2048", "prefill", 1, 16, 2048, 2048, 128),
        Case("SD3-like", "prefill", 1, 24, 4096, 4096, 64),
        Case("L8192", "prefill", 1, 8, 8192, 8192, 64),
    ]


def _decode():
    cases = []
    for keys in (4096, 32768):
        for batch in (1, 8):
            base = Case("decode GQA", "decode", batch, 32, 1, keys, 128, kv_heads=8)
            cases += [replace(base, quick=keys == 4096 and batch == 1), replace(base, dtype="bf16"),
                      replace(base, dtype="f16"), replace(base, kv_dtype="int8")]
    cases += [replace(c, name="decode GQA paged", paged=True, quick=False) for c in cases
              if c.batch == 8 and c.keys == 32768]
    return cases


def _options():
    plain = Case("plain", "option", 1, 16, 2048, 2048, 64)
    long = Case("causal", "option", 1, 8, 8192, 8192, 64, causal=True)
    return [
        plain,
        replace(plain, name="dense bias", bias=True),
        replace(plain, name="mask", mask=True),
        replace(plain, name="soft-cap", soft_cap=30.0),
        replace(plain, name="causal", causal=True),
        replace(plain, name="causal soft-cap", causal=True, soft_cap=30.0),
        replace(plain, name="ALiBi causal", alibi=True, causal=True),
        replace(plain, name="sinks causal", sinks=True, causal=True),
        replace(plain, name="GQA", kv_heads=4),
        replace(plain, name="GQA causal", kv_heads=4, causal=True),
        replace(plain, name="lengths", batch=4, heads=8, lengths=(2048, 1500, 1024, 300)),
        long,
        replace(long, name="window 512", window_left=511, quick=True),
    ]


def _backward():
    base = Case("backward", "backward", 1, 16, 1024, 1024, 64, backward=True)
    return [base, replace(base, causal=True), replace(base, dim=128),
            replace(base, queries=2048, keys=2048), replace(base, queries=2048, keys=2048, causal=True)]


def with_bf16(cases):
    return cases + [replace(c, dtype="bf16") for c in cases]


def all_cases():
    prefill = _long()
    head_sizes = [Case("head size", "headsize", 1, 16, 1024, 1024, d) for d in (40, 64, 72, 80, 128, 160, 256)]
    scaling = Case("plain", "scaling", 1, 8, 2048, 2048, 64)
    window = replace(scaling, name="window 512", window_left=511, causal=True)
    longest = Case("L8192", "memory", 1, 8, 8192, 8192, 64)
    return [
        *with_bf16(prefill),
        *with_bf16([replace(c, group="causal", causal=True) for c in prefill]),
        *with_bf16([Case("DiT-XL/2 256", "small", 1, 16, 256, 256, 72, quick=True)]),
        *with_bf16([Case("cross", "cross", 1, 20, 4096, 77, 64, quick=True)]),
        *with_bf16([Case("tiny", "tiny", 64, 6, 49, 49, 32, quick=True), Case("tiny", "tiny", 64, 8, 16, 16, 64)]),
        *with_bf16(head_sizes),
        replace(head_sizes[1], dtype="f16"),
        *_decode(),
        *_options(),
        *with_bf16(_backward()),
        scaling,
        replace(scaling, queries=4096, keys=4096),
        window,
        replace(window, queries=4096, keys=4096),
        longest,
        replace(longest, dim=128),
        replace(longest, dim=512, heads=2),
        replace(longest, dtype="bf16"),
    ]
