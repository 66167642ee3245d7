"""Make tiny_flux, tiny_flux_dev, flux.bin and flux.txt: Flux transformers with random weights, and their outputs by diffusers.

    pip install torch==2.15.0 diffusers==0.42.1 transformers==5.24.0 safetensors
    python make_flux.py

`FluxTransformer2DModel` computes in float64 from the weights as stored; what it would compute in float32 whatever
the weights are (embeddings of times, rotary tables and turning by them) is in float64 too. The second model has an
embedding of guidance, weights of bfloat16 in shards, and places of text. The format is described in README.md.
"""

import json
import math
import os

import torch
from diffusers import FluxTransformer2DModel
from diffusers.models import embeddings
from diffusers.models.transformers import transformer_flux

import make_llama
from make_sd3 import time_embedding

HERE = os.path.dirname(os.path.abspath(__file__))


def tables(self, ids):
    """Cosines and sines, each twice side by side."""
    ids = ids.double()
    angles = []
    for axis, dim in enumerate(self.axes_dim):
        rates = self.theta ** -(torch.arange(0, dim, 2).double() / dim)
        angles.append(torch.outer(ids[:, axis], rates).repeat_interleave(2, dim=1))
    angles = torch.cat(angles, dim=1)
    return angles.cos(), angles.sin()


def turn(x, tables, sequence_dim):
    assert sequence_dim == 1
    cos, sin = (t[None, :, None, :] for t in tables)
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-b, a], dim=-1).flatten(3) * sin


@torch.no_grad()
def make(name, seed, dtype, shards, text_places, **sizes):
    torch.manual_seed(seed)
    model = FluxTransformer2DModel(in_channels=16, attention_head_dim=8, num_attention_heads=3, joint_attention_dim=20,
                                   pooled_projection_dim=12, axes_dims_rope=(2, 2, 4), **sizes)
    for key, p in model.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=1 / math.sqrt(p[0].numel()))
        else:
            # Norms around 1, biases around 0.
            torch.nn.init.normal_(p, mean=1.0 if "norm_" in key and "linear" not in key else 0.0, std=0.2)
    folder = os.path.join(HERE, name)
    model.to(dtype).save_pretrained(folder, max_shard_size=shards)
    path = os.path.join(folder, "config.json")
    with open(path) as f:
        config = json.load(f)
    config.pop("_name_or_path", None)
    with open(path, "w") as f:
        json.dump(config, f, indent=2, sort_keys=True)
        f.write("\n")
    for file in os.listdir(folder):
        os.chmod(os.path.join(folder, file), 0o644)
    model = FluxTransformer2DModel.from_pretrained(folder, torch_dtype=torch.float32)

    x, text, pooled = torch.randn(2, 12, 16), torch.randn(2, 5, 20), torch.randn(2, 12)
    t = torch.tensor([0.875, 0.3])
    guidance = torch.tensor([3.5, 1.2]) if sizes["guidance_embeds"] else None
    # Four rows of three, far from the corner; or of an image beside the image, as Kontext has it.
    ids = torch.tensor([[int(text_places), 40.0 + y, 9.0 + x] for y in range(4) for x in range(3)])
    text_ids = torch.tensor([[float(i), 0.0, -i] for i in range(5)]) if text_places else torch.zeros(5, 3)

    def run(dtype):
        to = lambda v: v if v is None else v.to(dtype)
        return model.to(dtype)(hidden_states=to(x), encoder_hidden_states=to(text), pooled_projections=to(pooled),
                               timestep=to(t), img_ids=ids, txt_ids=text_ids, guidance=to(guidance),
                               return_dict=False)[0]

    rough = run(torch.float32)
    kept = (embeddings.get_timestep_embedding, transformer_flux.apply_rotary_emb,
            transformer_flux.FluxPosEmbed.forward)
    (embeddings.get_timestep_embedding, transformer_flux.apply_rotary_emb,
     transformer_flux.FluxPosEmbed.forward) = time_embedding, turn, tables
    out = run(torch.float64)
    (embeddings.get_timestep_embedding, transformer_flux.apply_rotary_emb,
     transformer_flux.FluxPosEmbed.forward) = kept
    assert out.dtype == torch.float64 and (out - rough).abs().max() < 1e-4
    print(name, f"float32 of diffusers is within {(out - rough).abs().max():.2e}, largest {out.abs().max():.2f}")
    named = {"x": x, "text": text, "pooled": pooled, "t": t, "guidance": guidance, "ids": ids, "text_ids": text_ids,
             "out": out.float()}
    for key, value in named.items():
        if value is not None:
            make_llama.add(f"{name}.{key}", value)


def main():
    make("tiny_flux", 31, torch.float32, "10GB", False, num_layers=2, num_single_layers=3, guidance_embeds=False)
    make("tiny_flux_dev", 32, torch.bfloat16, "60KB", True, num_layers=1, num_single_layers=2, out_channels=8,
         guidance_embeds=True)
    make_llama.write("flux")


if __name__ == "__main__":
    main()
