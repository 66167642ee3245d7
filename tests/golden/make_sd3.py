"""Make tiny_sd3, sd3.bin and sd3.txt: an MM-DiT with random weights, and its outputs by diffusers.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 safetensors
    python make_sd3.py

`SD3Transformer2DModel` computes in float64 from the weights as stored; its embedding of time, which it would
compute in float32 whatever the weights are, does so too. The format is described in README.md.
"""

import json
import math
import os

import torch
from diffusers import SD3Transformer2DModel
from diffusers.models import embeddings

import make_llama

HERE = os.path.dirname(os.path.abspath(__file__))


def time_embedding(t, size, **_):
    angle = t.double()[:, None] * torch.exp(-math.log(10000.0) * torch.arange(size // 2).double() / (size // 2))
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


@torch.no_grad()
def main():
    torch.manual_seed(21)
    model = SD3Transformer2DModel(sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
                                  attention_head_dim=8, num_attention_heads=3, joint_attention_dim=20,
                                  caption_projection_dim=24, pooled_projection_dim=12, pos_embed_max_size=6,
                                  qk_norm="rms_norm")
    for key, p in model.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))
        else:
            # Norms around 1, biases around 0.
            torch.nn.init.normal_(p, mean=1.0 if "norm_" in key and "linear" not in key else 0.0, std=0.2)
    folder = os.path.join(HERE, "tiny_sd3")
    model.save_pretrained(folder)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config.pop("_name_or_path", None)
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    model = SD3Transformer2DModel.from_pretrained(folder)
    x, text, pooled = torch.randn(2, 4, 8, 6), torch.randn(2, 7, 20), torch.randn(2, 12)
    t = torch.tensor([875.0, 31.25])

    def run(dtype):
        return model.to(dtype)(x.to(dtype), text.to(dtype), pooled.to(dtype), t.to(dtype), return_dict=False)[0]

    rough = run(torch.float32)
    embeddings.get_timestep_embedding = time_embedding
    out = run(torch.float64)
    assert (out - rough).abs().max() < 1e-4
    print(f"float32 of diffusers is within {(out - rough).abs().max():.2e}")
    for name, value in (("x", x), ("text", text), ("pooled", pooled), ("t", t), ("out", out.float())):
        make_llama.add(f"sd3.{name}", value)
    make_llama.write("sd3")


if __name__ == "__main__":
    main()
