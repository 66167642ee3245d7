"""Measure the widths of the layers of NumPy's ziggurat, for core/src/random/compat/ziggurat.rs.

    python measure_ziggurat.py

PCG64 is invertible, so a state can be chosen that gives any next word: with a layer and a power of two as magnitude,
`standard_normal` returns the width times that power. Prints the bits of the widths.
"""

import random
import struct

import numpy as np

MULTIPLIER = 0x2360ED051FC65DA44385DF649FCCF645
MODULUS = 2**128
INVERSE = pow(MULTIPLIER, -1, MODULUS)
BITS = np.random.PCG64(0)
GENERATOR = np.random.Generator(BITS)
INCREMENT = BITS.state["state"]["inc"]


def draw(word, upper=0):
    """A normal number whose first word is `word`, and the state after it."""
    turn = upper >> 58
    turned = (word << turn | word >> (64 - turn)) % 2**64 if turn else word
    state = upper << 64 | (upper ^ turned)
    before = (state - INCREMENT) * INVERSE % MODULUS
    BITS.state = {"bit_generator": "PCG64", "state": {"state": before, "inc": INCREMENT}, "has_uint32": 0, "uinteger": 0}
    x = GENERATOR.standard_normal()
    return x, BITS.state["state"]["state"]


def width(layer):
    random.seed(layer)
    for power in range(51, 30, -1):
        word = layer | 1 << (9 + power)
        # Accepted at once by its magnitude, or after one more word by its height (layer 1 always).
        for _ in range(200):
            upper = random.getrandbits(64)
            x, after = draw(word, upper)
            turn = upper >> 58
            turned = (word << turn | word >> (64 - turn)) % 2**64 if turn else word
            first = upper << 64 | (upper ^ turned)
            if after in (first, (first * MULTIPLIER + INCREMENT) % MODULUS):
                return x / 2.0**power
    raise ValueError(layer)


words = [f"0x{b[0:4]}_{b[4:8]}_{b[8:12]}_{b[12:16]}" for b in (struct.pack(">d", width(i)).hex() for i in range(256))]
for i in range(0, 256, 4):
    print("    " + ", ".join(words[i : i + 4]) + ",")
