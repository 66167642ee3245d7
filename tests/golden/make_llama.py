"""Make tiny_llama, tiny_llama_3 (once more in shards), llama.bin and llama.txt: decoders with random weights, and their
logits by transformers.

    pip install torch==2.15.0 transformers==5.24.0 safetensors
    python make_llama.py

`LlamaForCausalLM` computes in float64 from the weights as stored; its norms and rotary positions, which it
would compute in float32 whatever the weights are, do so too. The format is described in README.md.
"""

import math
import os

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

HERE = os.path.dirname(os.path.abspath(__file__))
ALIGN = 64
ENTRIES = []

torch.set_num_threads(1)


def norm(self, x):
    return self.weight * (x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon))


def rotary(self, x, position_ids):
    angle = position_ids[:, :, None].to(x.dtype) * self.inv_freq.to(x.dtype)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos() * self.attention_scaling, angle.sin() * self.attention_scaling


def add(name, value):
    ENTRIES.append((name, np.ascontiguousarray(value.numpy())))


@torch.no_grad()
def make(name, seed, dtype, shards=None, **sizes):
    torch.manual_seed(seed)
    config = LlamaConfig(**sizes)
    model = LlamaForCausalLM(config)
    for key, p in model.named_parameters():
        if "embed_tokens" in key:
            torch.nn.init.normal_(p)
        elif p.ndim > 1:
            torch.nn.init.normal_(p, std=1 / math.sqrt(p.shape[1]))
        else:
            # Norms around 1, biases around 0.
            torch.nn.init.normal_(p, mean=1.0 if "norm" in key else 0.0, std=0.2)
    folder = os.path.join(HERE, name)
    model.to(dtype).save_pretrained(folder)
    os.remove(os.path.join(folder, "generation_config.json"))
    if shards:
        model.save_pretrained(f"{folder}_shards", max_shard_size=shards)
        os.remove(os.path.join(f"{folder}_shards", "generation_config.json"))

    tokens = torch.randint(0, config.vocab_size, (2, 40))
    plain = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    rough = plain(tokens).logits
    originals = modeling_llama.LlamaRMSNorm.forward, modeling_llama.LlamaRotaryEmbedding.forward
    modeling_llama.LlamaRMSNorm.forward = norm
    modeling_llama.LlamaRotaryEmbedding.forward = rotary
    # The frequencies stay the float32 numbers that they are.
    logits = plain.double()(tokens).logits
    modeling_llama.LlamaRMSNorm.forward, modeling_llama.LlamaRotaryEmbedding.forward = originals
    assert logits.dtype == torch.float64
    assert (logits - rough).abs().max() < 1e-4, (logits - rough).abs().max()
    add(f"{name}.tokens", tokens)
    add(f"{name}.logits", logits.float())
    print(name, f"float32 of transformers is within {(logits - rough).abs().max():.2e}")


def write(name):
    blob = bytearray()
    lines = ["# dgm golden 1"]
    for entry, value in ENTRIES:
        blob.extend(b"\0" * (-len(blob) % ALIGN))
        dims = "x".join(str(d) for d in value.shape)
        dtype = {"float32": "f32", "int64": "i64"}[str(value.dtype)]
        lines.append(f"{entry} {dtype} {dims} {len(blob)}")
        blob.extend(value.astype(value.dtype.newbyteorder("<")).tobytes())
    with open(os.path.join(HERE, f"{name}.bin"), "wb") as f:
        f.write(blob)
    with open(os.path.join(HERE, f"{name}.txt"), "w") as f:
        f.write("\n".join(lines) + "\n")


def main():
    make("tiny_llama", 11, torch.float32, vocab_size=64, hidden_size=48, intermediate_size=80, num_hidden_layers=2,
         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5,
         tie_word_embeddings=True)
    # Everything else that a file may ask for. A head is wider than its share of the residual stream.
    make("tiny_llama_3", 12, torch.bfloat16, shards="40KB", vocab_size=50, hidden_size=42, intermediate_size=73, num_hidden_layers=2,
         num_attention_heads=6, num_key_value_heads=2, head_dim=16, max_position_embeddings=128, rms_norm_eps=1e-6,
         attention_bias=True, mlp_bias=True, tie_word_embeddings=False,
         rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                          "high_freq_factor": 4.0, "original_max_position_embeddings": 32})
    write("llama")


if __name__ == "__main__":
    main()
