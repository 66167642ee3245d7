"""A small, plain PyTorch DiT (diffusion transformer) and its flow-matching sampler.

Peebles & Xie, "Scalable Diffusion Models with Transformers", 2023. Tensor names and
layouts are those of the official DiT checkpoints, so a file written here has the same
keys as a file written there. Everything works in float32 and, for references, float64.

Flow convention: x_t = (1 - t) * x0 + t * noise, t from 1 (noise) to 0 (data); the
network predicts the velocity u = dx/dt = noise - x0.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn


def sincos_2d(width, grid):
    """Fixed 2-D sin-cos position table [1, grid*grid, width] (official DiT order).

    The first half of the channels encodes the column, the second half the row; each half
    is [sin, cos].
    """

    def table_1d(pos, dim):
        omega = 1.0 / 10000 ** (torch.arange(dim // 2, dtype=torch.float64) / (dim / 2))
        angle = pos[:, None] * omega[None, :]
        return torch.cat([angle.sin(), angle.cos()], dim=1)

    rows, cols = torch.meshgrid(
        torch.arange(grid, dtype=torch.float64),
        torch.arange(grid, dtype=torch.float64),
        indexing="ij",
    )
    half = width // 2
    table = torch.cat([table_1d(cols.flatten(), half), table_1d(rows.flatten(), half)], dim=1)
    return table[None].float()


def timestep_embedding(t, dim):
    """Sinusoidal embedding [B, dim] of t [B]: cosines first, then sines."""
    half = dim // 2
    i = torch.arange(half, dtype=t.dtype)
    freqs = torch.exp(-math.log(10000.0) * i / half)
    args = t[:, None] * freqs[None, :]
    return torch.cat([args.cos(), args.sin()], dim=1)


def patchify(x, p):
    """[B, C, H, W] -> [B, (H/p)*(W/p), C*p*p]; a token is one patch in (c, ph, pw) order."""
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // p, p, w // p, p)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(b, (h // p) * (w // p), c * p * p)


def unpatchify(tokens, p, channels, height, width):
    """[B, T, p*p*C] with tokens in (ph, pw, c) order (official DiT head) -> [B, C, H, W]."""
    b = tokens.shape[0]
    x = tokens.reshape(b, height // p, width // p, p, p, channels)
    return x.permute(0, 5, 1, 3, 2, 4).reshape(b, channels, height, width)


def modulate(x, shift, scale):
    return x * (1 + scale[:, None, :]) + shift[:, None, :]


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        b, t, d = x.shape
        q, k, v = self.qkv(x).reshape(b, t, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, t, d))


class Mlp(nn.Module):
    def __init__(self, width, hidden, dropout):
        super().__init__()
        self.dropout = dropout
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x):
        x = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return F.dropout(x, self.dropout, self.training)


def norm(x):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6)


class Block(nn.Module):
    """Transformer block with adaLN-Zero conditioning."""

    def __init__(self, width, heads, hidden, dropout):
        super().__init__()
        self.attn = Attention(width, heads)
        self.mlp = Mlp(width, hidden, dropout)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))

    def forward(self, x, c):
        sh1, sc1, g1, sh2, sc2, g2 = self.adaLN_modulation(c).chunk(6, dim=1)
        x = x + g1[:, None, :] * self.attn(modulate(norm(x), sh1, sc1))
        return x + g2[:, None, :] * self.mlp(modulate(norm(x), sh2, sc2))


class FinalLayer(nn.Module):
    def __init__(self, width, patch, out_channels):
        super().__init__()
        self.linear = nn.Linear(width, patch * patch * out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, c):
        shift, scale = self.adaLN_modulation(c).chunk(2, dim=1)
        return self.linear(modulate(norm(x), shift, scale))


class PatchEmbed(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.patch = patch
        # Stored as a convolution, as the official files do; applied as a linear layer.
        self.proj = nn.Conv2d(channels, width, kernel_size=patch, stride=patch)

    def forward(self, x):
        return F.linear(patchify(x, self.patch), self.proj.weight.flatten(1), self.proj.bias)


class TimestepEmbedder(nn.Module):
    def __init__(self, width, frequencies):
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(nn.Linear(frequencies, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, t):
        return self.mlp(timestep_embedding(t, self.frequencies).to(self.mlp[0].weight.dtype))


class LabelEmbedder(nn.Module):
    def __init__(self, num_classes, width):
        super().__init__()
        # The extra last row is the null class of classifier-free guidance.
        self.embedding_table = nn.Embedding(num_classes + 1, width)

    def forward(self, y):
        return self.embedding_table(y)


class DiT(nn.Module):
    def __init__(self, input_size=8, patch_size=2, in_channels=1, out_channels=1, width=96,
                 depth=5, num_heads=3, mlp_ratio=4, num_classes=10,
                 frequency_embedding_size=256, time_scale=1000.0, dropout=0.0):
        super().__init__()
        self.input_size = input_size
        self.patch_size = patch_size
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_heads = num_heads
        self.num_classes = num_classes
        self.frequency_embedding_size = frequency_embedding_size
        self.time_scale = time_scale
        self.x_embedder = PatchEmbed(in_channels, width, patch_size)
        self.t_embedder = TimestepEmbedder(width, frequency_embedding_size)
        self.y_embedder = LabelEmbedder(num_classes, width)
        self.pos_embed = nn.Parameter(sincos_2d(width, input_size // patch_size),
                                      requires_grad=False)
        self.blocks = nn.ModuleList(
            Block(width, num_heads, int(width * mlp_ratio), dropout) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch_size, out_channels)
        self.initialize()

    def initialize(self):
        """Initial weights of the DiT paper: Xavier linears, zero gates and zero head."""
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.xavier_uniform_(m.weight)
                nn.init.zeros_(m.bias)
        nn.init.xavier_uniform_(self.x_embedder.proj.weight.data.flatten(1))
        nn.init.zeros_(self.x_embedder.proj.bias)
        nn.init.normal_(self.y_embedder.embedding_table.weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[0].weight, std=0.02)
        nn.init.normal_(self.t_embedder.mlp[2].weight, std=0.02)
        for block in self.blocks:
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            nn.init.zeros_(block.adaLN_modulation[1].bias)
        nn.init.zeros_(self.final_layer.adaLN_modulation[1].weight)
        nn.init.zeros_(self.final_layer.adaLN_modulation[1].bias)
        nn.init.zeros_(self.final_layer.linear.weight)
        nn.init.zeros_(self.final_layer.linear.bias)

    def forward(self, x, t, y):
        """x [B, C, H, W], t [B] (flow time in [0, 1] when time_scale is 1000), y [B] labels."""
        h = self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(t * self.time_scale) + self.y_embedder(y)
        for block in self.blocks:
            h = block(h, c)
        tokens = self.final_layer(h, c)
        return unpatchify(tokens, self.patch_size, self.out_channels, x.shape[2], x.shape[3])

    def metadata(self):
        """The model part of the safetensors metadata; all values are strings."""
        return {
            "dgm.format": "dit",
            "dgm.version": "1",
            "num_heads": str(self.num_heads),
            "patch_size": str(self.patch_size),
            "in_channels": str(self.in_channels),
            "out_channels": str(self.out_channels),
            "input_size": str(self.input_size),
            "num_classes": str(self.num_classes),
            "time_scale": format(self.time_scale, "g"),
            "frequency_embedding_size": str(self.frequency_embedding_size),
        }


def load_dit(path):
    """A DiT and its metadata from a safetensors file; sizes come from the tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as f:
        meta = f.metadata()
        state = {key: f.get_tensor(key) for key in f.keys()}
    width = state["x_embedder.proj.weight"].shape[0]
    model = DiT(
        input_size=int(meta["input_size"]),
        patch_size=int(meta["patch_size"]),
        in_channels=int(meta["in_channels"]),
        out_channels=int(meta["out_channels"]),
        width=width,
        depth=len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        num_heads=int(meta["num_heads"]),
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        num_classes=int(meta["num_classes"]),
        frequency_embedding_size=int(meta["frequency_embedding_size"]),
        time_scale=float(meta["time_scale"]),
    )
    model.load_state_dict(state)
    return model.eval(), meta


def flow_grid(steps, shift):
    """Times t[0] = 1 .. t[steps] = 0, pulled towards the noise end when shift > 1."""
    t = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    return (shift * t / (1 + (shift - 1) * t)).tolist()


@torch.no_grad()
def flow_sample(model, noise, labels, steps=16, solver="euler", guidance=1.0, shift=1.0):
    """Integrate the model's ODE from noise at t = 1 to data at t = 0.

    Guidance is u_null + g * (u_label - u_null); at g = 1 the null branch is not evaluated.
    """

    def velocity(x, t):
        times = torch.full((len(x),), t, dtype=x.dtype)
        if guidance == 1.0:
            return model(x, times, labels)
        null = torch.full_like(labels, model.num_classes)
        both = model(torch.cat([x, x]), torch.cat([times, times]), torch.cat([labels, null]))
        cond, uncond = both.chunk(2)
        return uncond + guidance * (cond - uncond)

    x = noise
    grid = flow_grid(steps, shift)
    for t, t_next in zip(grid[:-1], grid[1:]):
        h = t_next - t
        u = velocity(x, t)
        if solver == "euler":
            x = x + h * u
        elif solver == "midpoint":
            x = x + h * velocity(x + 0.5 * h * u, t + 0.5 * h)
        elif solver == "heun":
            x = x + 0.5 * h * (u + velocity(x + h * u, t_next))
        else:
            raise ValueError(f"solver is {solver!r}; it should be euler, midpoint or heun")
    return x
