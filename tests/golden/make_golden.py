"""Make golden.bin, golden.txt and tiny_dit.safetensors: reference values from PyTorch.

    pip install -r ../../models/requirements.txt
    python make_golden.py

Inputs are drawn in float32 from one seed. References are computed from exactly those
inputs in float64 and stored as float32, so what a test sees is the rounding of the code
under test and one final rounding here. The format is described in README.md.
"""

import math
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
MODELS = os.path.join(HERE, "..", "..", "models")
sys.path.insert(0, MODELS)

from dit import DiT, flow_grid, flow_sample, load_dit, patchify, timestep_embedding, unpatchify  # noqa: E402

torch.set_num_threads(1)
RNG = torch.Generator().manual_seed(20260101)
ALIGN = 64
DTYPES = {"float32": "f32", "float64": "f64", "int64": "i64", "uint64": "u64"}
ENTRIES = []


def add(name, value):
    """Store a tensor; a float64 torch tensor is a reference and is rounded to float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        value = (value.float() if value.dtype == torch.float64 else value).numpy()
    assert name not in {n for n, _ in ENTRIES}, name
    ENTRIES.append((name, np.ascontiguousarray(value)))


def normal(*shape):
    return torch.randn(*shape, generator=RNG)


def write():
    blob = bytearray()
    lines = ["# dgm golden 1"]
    for name, value in ENTRIES:
        blob.extend(b"\0" * (-len(blob) % ALIGN))
        dims = "x".join(str(d) for d in value.shape)
        lines.append(f"{name} {DTYPES[str(value.dtype)]} {dims} {len(blob)}")
        blob.extend(value.astype(value.dtype.newbyteorder("<")).tobytes())
    with open(os.path.join(HERE, "golden.bin"), "wb") as f:
        f.write(blob)
    with open(os.path.join(HERE, "golden.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")
    print(f"{len(ENTRIES)} tensors, {len(blob)} bytes")


def attention(name, q_shape, k_shape, dv=None, causal=False, lengths=None):
    """softmax(q k^T / sqrt(D)) v and its natural-log sum of exponentials, both from scratch."""
    b, h, lq, d = q_shape
    kv_heads, lk = k_shape[1], k_shape[2]
    q, k = normal(*q_shape), normal(*k_shape)
    v = normal(b, kv_heads, lk, dv or d)
    kk = k.double().repeat_interleave(h // kv_heads, dim=1)
    vv = v.double().repeat_interleave(h // kv_heads, dim=1)
    keep = torch.ones(b, 1, lq, lk, dtype=torch.bool)
    if causal:
        # Bottom-right aligned: the last query sees every key.
        i, j = torch.arange(lq)[:, None], torch.arange(lk)[None, :]
        keep &= j <= i + (lk - lq)
    if lengths is not None:
        keep &= torch.arange(lk) < torch.tensor(lengths)[:, None, None, None]
    scores = (q.double() @ kk.transpose(-1, -2) / math.sqrt(d)).masked_fill(~keep, -math.inf)
    lse = torch.logsumexp(scores, dim=-1)
    empty = torch.isinf(lse)
    weights = torch.exp(scores - lse.masked_fill(empty, 0.0)[..., None])
    out = weights @ vv
    # An independent check by PyTorch's own kernel, where it is defined.
    mask = keep.expand(b, h, lq, lk)
    theirs = F.scaled_dot_product_attention(q.double(), kk, vv, attn_mask=mask)
    rows = ~empty
    assert (out[rows] - theirs[rows]).abs().max() < 1e-12
    assert (out[empty] == 0).all()
    for key, value in (("q", q), ("k", k), ("v", v), ("out", out), ("lse", lse)):
        add(f"attention.{name}.{key}", value)
    if lengths is not None:
        add(f"attention.{name}.kv_lengths", np.array(lengths, dtype=np.int64))


def attentions():
    attention("plain", (2, 3, 17, 24), (2, 3, 17, 24))
    attention("causal", (2, 2, 17, 24), (2, 2, 17, 24), causal=True)
    attention("causal_tall", (1, 2, 19, 16), (1, 2, 13, 16), causal=True)
    attention("causal_wide", (1, 2, 5, 16), (1, 2, 21, 16), causal=True)
    attention("cross", (2, 2, 11, 32), (2, 2, 29, 32))
    attention("gqa", (2, 6, 15, 16), (2, 2, 18, 16))
    attention("dv", (1, 2, 9, 24), (1, 2, 14, 24), dv=40)
    attention("lengths", (4, 2, 7, 16), (4, 2, 33, 16), lengths=[0, 1, 20, 33])
    attention("one_query", (2, 2, 1, 64), (2, 2, 77, 64))
    attention("longer_than_split", (1, 1, 3, 32), (1, 1, 1100, 32))


def layers():
    x, w, b = 3 * normal(5, 96) + 0.5, normal(96), normal(96)
    add("layer_norm.x", x)
    add("layer_norm.weight", w)
    add("layer_norm.bias", b)
    add("layer_norm.out", F.layer_norm(x.double(), (96,), eps=1e-6))
    add("layer_norm.affine_out", F.layer_norm(x.double(), (96,), w.double(), b.double(), eps=1e-6))
    x, w = 2 * normal(5, 77), normal(77)
    add("rms_norm.x", x)
    add("rms_norm.weight", w)
    inverse = torch.rsqrt(x.double().square().mean(-1, keepdim=True) + 1e-6)
    add("rms_norm.out", x.double() * inverse)
    add("rms_norm.affine_out", x.double() * inverse * w.double())

    x, scale, shift = normal(3, 5, 24), normal(3, 24), normal(3, 24)
    for key, value in (("x", x), ("scale", scale), ("shift", shift)):
        add(f"modulate.{key}", value)
    add("modulate.out", x.double() * (1 + scale.double()[:, None]) + shift.double()[:, None])
    res, gate, y = normal(3, 5, 24), normal(3, 24), normal(3, 5, 24)
    for key, value in (("res", res), ("gate", gate), ("y", y)):
        add(f"gate_residual.{key}", value)
    add("gate_residual.out", res.double() + gate.double()[:, None] * y.double())

    for name, (rows, k, n) in {"small": (3, 8, 16), "odd": (7, 37, 53), "wide": (5, 96, 384)}.items():
        x, w, b = normal(rows, k), normal(n, k) / math.sqrt(k), normal(n)
        for key, value in (("x", x), ("weight", w), ("bias", b)):
            add(f"linear.{name}.{key}", value)
        add(f"linear.{name}.out", F.linear(x.double(), w.double(), b.double()))
        add(f"linear.{name}.nobias_out", F.linear(x.double(), w.double()))
    x, w, b = normal(6, 40), normal(29, 40) / math.sqrt(40), normal(29)
    for key, value in (("x", x), ("weight", w), ("bias", b)):
        add(f"linear.activation.{key}", value)
    y = F.linear(x.double(), w.double(), b.double())
    add("linear.silu.out", F.silu(y))
    add("linear.gelu_tanh.out", F.gelu(y, approximate="tanh"))

    # Dense near zero, then magnitudes up to where the functions are exactly 0 or x.
    x = torch.cat([torch.linspace(-12, 12, 241), 3 * normal(100),
                   torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e-4, -1e-4, 30.0, -30.0, 87.0, -87.0,
                                 100.0, -100.0, 1e4, -1e4, 1e30, -1e30])])
    add("activation.x", x)
    add("silu.out", F.silu(x.double()))
    # The cube inside GELU-tanh is taken in float64, where 1e30 cubed is still finite.
    add("gelu_tanh.out", F.gelu(x.double(), approximate="tanh"))
    # erfc keeps the relative accuracy of the negative tail, which 1 + erf loses.
    add("gelu_erf.out", 0.5 * x.double() * torch.special.erfc(-x.double() / math.sqrt(2)))

    t = torch.tensor([0.0, 0.001, 0.5, 1.0, 17.0, 250.0, 999.0, 1000.0])
    add("timestep_embedding.t", t)
    add("timestep_embedding.out", timestep_embedding(t.double(), 256))
    add("timestep_embedding.small_out", timestep_embedding(t.double(), 32))

    x = normal(2, 3, 6, 10)
    tokens = patchify(x, 2)
    add("patchify.x", x)
    add("patchify.out", tokens)
    # The inverse in the same (c, ph, pw) order, then the official DiT head order (ph, pw, c).
    add("unpatchify.tokens", tokens)
    add("unpatchify.out", x)
    head = normal(2, 15, 12)
    add("unpatchify_head.tokens", head)
    add("unpatchify_head.out", unpatchify(head, 2, 3, 6, 10))


def tiny_dit():
    """Random weights, every gate and the head open, so that each tensor matters."""
    torch.manual_seed(7)
    model = DiT(input_size=12, patch_size=2, in_channels=3, out_channels=6, width=32, depth=2,
                num_heads=2, mlp_ratio=3, num_classes=5, frequency_embedding_size=64,
                time_scale=1.0)
    for name, p in model.named_parameters():
        if name == "pos_embed":
            continue
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.5 if "embedding_table" in name
                                  else 1 / math.sqrt(p[0].numel()))
        else:
            torch.nn.init.normal_(p, std=0.2)
    meta = model.metadata()
    meta.update({"process": "vp", "prediction": "eps", "class_names": "a,b,c,d,e"})
    save_file({k: v.contiguous() for k, v in model.state_dict().items()},
              os.path.join(HERE, "tiny_dit.safetensors"), metadata=meta)


@torch.no_grad()
def dits():
    # Flow times exactly representable, so that t * 1000 has no rounding of its own.
    model, meta = load_dit(os.path.join(MODELS, "digits.safetensors"))
    x, t = normal(4, 1, 8, 8), torch.tensor([1.0, 0.6875, 0.3125, 0.03125])
    labels = torch.tensor([3, 7, 10, 0])
    for key, value in (("x", x), ("t", t), ("labels", labels)):
        add(f"dit.digits.{key}", value)
    model = model.double()
    add("dit.digits.out", model(x.double(), t.double(), labels))
    # A whole generation at the model's own settings: rounding grows along the path.
    noise, labels = normal(4, 1, 8, 8), torch.tensor([2, 5, 8, 9])
    add("dit.digits.noise", noise)
    add("dit.digits.sample_labels", labels)
    add("dit.digits.sample", flow_sample(
        model, noise.double(), labels, int(meta["sampler.steps"]), meta["sampler.solver"],
        float(meta["sampler.guidance"]), float(meta["sampler.shift"])))
    add("dit.digits.guided_sample", flow_sample(
        model, noise.double(), labels, 16, "euler", 2.0, 1.5))

    tiny_dit()
    model, _ = load_dit(os.path.join(HERE, "tiny_dit.safetensors"))
    x, t = normal(3, 3, 12, 12), torch.tensor([999.0, 500.0, 3.0])
    labels = torch.tensor([4, 0, 5])
    for key, value in (("x", x), ("t", t), ("labels", labels)):
        add(f"dit.tiny.{key}", value)
    add("dit.tiny.out", model.double()(x.double(), t.double(), labels))


# Analytic model: data ~ N(MU, STD^2) in every element, x_t = a x0 + sigma noise.
MU, STD = 0.3, 0.5


def exact_eps(x, a, sigma):
    """E[noise | x_t = x]."""
    return sigma * (x - a * MU) / (a * a * STD * STD + sigma * sigma)


def exact_x0(x, a, sigma):
    """E[x0 | x_t = x]."""
    return MU + a * STD * STD * (x - a * MU) / (a * a * STD * STD + sigma * sigma)


def exact_velocity(x, t):
    return exact_eps(x, 1 - t, t) - exact_x0(x, 1 - t, t)


def flow_solve(x, steps, shift, solver):
    grid = flow_grid(steps, shift)
    u = exact_velocity
    for t, t_next in zip(grid[:-1], grid[1:]):
        h = t_next - t
        k1 = u(x, t)
        if solver == "euler":
            x = x + h * k1
        elif solver == "midpoint":
            x = x + h * u(x + h / 2 * k1, t + h / 2)
        elif solver == "heun":
            x = x + h / 2 * (k1 + u(x + h * k1, t_next))
        else:
            k2 = u(x + h / 2 * k1, t + h / 2)
            k3 = u(x + h / 2 * k2, t + h / 2)
            k4 = u(x + h * k3, t_next)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def samplers():
    from diffusers import (DDIMScheduler, DPMSolverMultistepScheduler,
                           FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler)

    start = normal(2, 6)
    x_start = start.double()
    add("sampler.x_T", start)
    add("sampler.mu_std", np.array([MU, STD]))
    for shift in (1.0, 3.0):
        for solver in ("euler", "midpoint", "heun", "rk4"):
            add(f"sampler.flow.{solver}.shift{shift:g}", flow_solve(x_start, 10, shift, solver))

    # diffusers builds its tables in float32; the same tables in float64 take their place.
    betas = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    bar = torch.cumprod(1 - betas, 0)
    add("sampler.vp.alphas_cumprod", bar.numpy())

    def run(name, scheduler, steps=10):
        scheduler.betas, scheduler.alphas, scheduler.alphas_cumprod = betas, 1 - betas, bar
        scheduler.set_timesteps(steps)
        if hasattr(scheduler, "final_alpha_cumprod"):
            scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)
        else:
            exact = ((1 - bar) / bar).sqrt()[scheduler.timesteps]
            assert (scheduler.sigmas[:-1] - exact).abs().max() < 1e-4 * exact.max()
            assert scheduler.sigmas[-1] == 0
            scheduler.sigmas = torch.cat([exact, torch.zeros(1, dtype=torch.float64)])
        x = x_start
        for t in scheduler.timesteps:
            eps = exact_eps(x, bar[t].sqrt(), (1 - bar[t]).sqrt())
            x = scheduler.step(eps, t, x, return_dict=False)[0]
            assert x.dtype == torch.float64
        add(f"sampler.{name}.timesteps", scheduler.timesteps.long())
        add(f"sampler.{name}.out", x)

    vp = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear",
              prediction_type="epsilon")
    for spacing in ("leading", "trailing"):
        run(f"ddim.{spacing}", DDIMScheduler(
            **vp, clip_sample=False, set_alpha_to_one=True, steps_offset=0,
            timestep_spacing=spacing))
    run("dpmpp_2m", DPMSolverMultistepScheduler(
        **vp, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint",
        lower_order_final=True, final_sigmas_type="zero", timestep_spacing="linspace"))
    run("unipc_bh2", UniPCMultistepScheduler(
        **vp, solver_order=2, solver_type="bh2", predict_x0=True, lower_order_final=True,
        final_sigmas_type="zero", timestep_spacing="linspace"))

    # This scheduler works in float32; the same Euler steps over its sigmas in float64.
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=3.0)
    scheduler.set_timesteps(10)
    sigmas = scheduler.sigmas.double()
    x, x32 = x_start, start
    for i, t in enumerate(scheduler.timesteps):
        x32 = scheduler.step(exact_velocity(x32, sigmas[i].float()), t, x32, return_dict=False)[0]
        x = x + (sigmas[i + 1] - sigmas[i]) * exact_velocity(x, sigmas[i])
    assert (x - x32).abs().max() < 1e-5
    add("sampler.flow_match_euler.sigmas", sigmas.numpy())
    add("sampler.flow_match_euler.out", x)


def main():
    attentions()
    layers()
    dits()
    samplers()
    write()


if __name__ == "__main__":
    main()
