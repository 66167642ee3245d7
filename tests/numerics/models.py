"""The networks and blocks of docs/NUMERICS.md, written from that page alone."""

import json
import struct
import zlib

import numpy as np
from reimplement import F, attention, fma, linear, norm, patchify, philox, silu, timestep_embedding, unpatchify


def safetensors(path):
    """The f32 tensors of a file and its metadata."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    metadata = header.pop("__metadata__", {})
    read = lambda t: np.frombuffer(data[8 + size :][slice(*t["data_offsets"])], "<f4").reshape(t["shape"])
    return {name: read(t) for name, t in header.items()}, metadata


def modulated_norm(x, shift, scale):
    zero = np.zeros(x.shape[1], F)
    return fma(norm(x, zero + F(1), None, F(1e-6), True), F(1) + scale, shift)


def dit(weights, metadata, image, t, label):
    """The output [C, H, W] of one image."""

    def layer(x, name, activation="none"):
        w = weights[f"{name}.weight"]
        return linear(x, w.reshape(len(w), -1), weights[f"{name}.bias"], activation)

    patch = weights["x_embedder.proj.weight"].shape[2]
    width = weights["pos_embed"].shape[2]
    frequencies = weights["t_embedder.mlp.0.weight"].shape[1]
    heads = int(metadata["num_heads"])
    c = timestep_embedding([F(t) * F(metadata.get("time_scale", 1))], frequencies, 10000.0)
    c = layer(layer(c, "t_embedder.mlp.0", "silu"), "t_embedder.mlp.2")
    c = silu(c + weights["y_embedder.embedding_table.weight"][label])
    x = layer(patchify(image[None], patch)[0], "x_embedder.proj") + weights["pos_embed"][0]
    block = 0
    while f"blocks.{block}.attn.qkv.weight" in weights:
        name = f"blocks.{block}."
        shift1, scale1, gate1, shift2, scale2, gate2 = np.split(layer(c, name + "adaLN_modulation.1")[0], 6)
        qkv = layer(modulated_norm(x, shift1, scale1), name + "attn.qkv")
        q, k, v = qkv.reshape(len(x), 3, heads, -1).transpose(1, 2, 0, 3)[:, None]
        a = attention({"causal": "0"}, q, k, v)[0][0].transpose(1, 0, 2).reshape(len(x), width)
        x = fma(gate1, layer(a, name + "attn.proj"), x)
        hidden = layer(modulated_norm(x, shift2, scale2), name + "mlp.fc1", "gelu_tanh")
        x = fma(gate2, layer(hidden, name + "mlp.fc2"), x)
        block += 1
    shift, scale = np.split(layer(c, "final_layer.adaLN_modulation.1")[0], 2)
    tokens = layer(modulated_norm(x, shift, scale), "final_layer.linear")
    channels = tokens.shape[1] // patch**2
    return unpatchify(tokens, (1, channels, *image.shape[1:]), patch)[0]


def categorical(logits, purpose, draw, seed):
    logits = logits.astype(np.float64)
    weights = np.exp(logits - logits.max())
    w0, w1 = (int(w) for w in philox([0], draw, purpose, seed)[:2, 0])
    running = np.cumsum(weights)
    target = float(w0 * 2**32 + w1 >> 11) * 2.0**-53 * running[-1]
    chosen = np.flatnonzero((weights > 0) & (running > target))
    return chosen[0] if len(chosen) else np.flatnonzero(weights > 0)[-1]


def sealed(block):
    return block + struct.pack("<Q", zlib.crc32(block))


def plan_block(o, codes):
    """The bytes of a plan; `codes` are the numbers of process, prediction, solver, spacing."""
    times = o["times"] or []
    return sealed(
        b"DGMP"
        + struct.pack("<5I", 1, *codes)
        + struct.pack("<Q", o["steps"])
        + struct.pack("<6d", o["shift"], o["eta"], o["guidance"], o["clip"] or 0.0, o["beta_start"], o["beta_end"])
        + struct.pack("<Q3dQ", o["train_steps"], o["rtol"], o["atol"], o["h_init"], o["max_evals"])
        + struct.pack(f"<Q{len(times)}d", len(times), *times)
    )


def plan_hash(block):
    h = 0xCBF29CE484222325
    for byte in block:
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


def started_run(hash_, elements, seeds, state):
    """The export of a run of fixed steps that has just started."""
    head = b"DGMR" + struct.pack("<I8Q", 1, hash_, len(seeds), elements, 0, 0, 0, 0, 0)
    state = state.astype("<f4").tobytes()
    return sealed(head + struct.pack(f"<{len(seeds)}Q", *seeds)) + sealed(state)
