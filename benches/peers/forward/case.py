"""What a case is."""

from dataclasses import dataclass, field
from typing import Callable

import torch


@dataclass
class Made:
    """Functions that are timed, in turn, and what they must return."""

    timed: list
    # A tensor; `most` is the largest error as a share of its root mean square.
    expected: torch.Tensor
    most: float
    # Milliseconds, by peaks measured in this run; or streams timed beside the functions, of which the faster counts.
    limit_ms: Callable = None
    streams: list = field(default_factory=list)
    # What a call moves, as a share of what a stream does.
    share: float = 1.0
    left_out: dict = field(default_factory=dict)
    free: Callable = lambda: None


@dataclass
class Case:
    name: str
    group: str
    dtype: str
    limit: str
    make: Callable
    # Share of the time beside other cases.
    weight: float = 1.0


NAMES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def rms_error(found, expected):
    """The largest error as a share of the root mean square."""
    expected = expected.double()
    return ((found.double() - expected).abs().max() / expected.square().mean().sqrt()).item()
