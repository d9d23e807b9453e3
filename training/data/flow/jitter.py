"""Colour jitter of frame pairs, alike or apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

OPERATIONS = (
    transforms.adjust_brightness,
    transforms.adjust_contrast,
    transforms.adjust_saturation,
    transforms.adjust_hue,
)
"""In the order that strengths are given in."""

Strengths = tuple[float, float, float, float]


@dataclass(frozen=True)
class Jitter:
    """What happens to a picture's colours.

    Attributes:
        order: In which the operations follow each other, as numbers of `OPERATIONS`.
        factors: Of each operation: 1 changes nothing, but 0 for the hue.
    """

    order: tuple[int, ...]
    factors: tuple[float, ...]


def draw_jitter(strengths: Strengths, generator: np.random.Generator) -> Jitter:
    """Draw as torchvision's `ColorJitter`: factors around 1, hue turns around 0, in any order."""
    order = generator.permutation(len(OPERATIONS))
    signed = generator.uniform(-1, 1, size=len(OPERATIONS)) * strengths
    factors = np.maximum(0, 1 + signed[:3])
    return Jitter(tuple(int(step) for step in order), (*(float(factor) for factor in factors), float(signed[3])))


def change_colours(first: np.ndarray, second: np.ndarray, jitters: tuple[Jitter, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Change the colours of two frames (H, W, 3) uint8: of both at once by one jitter, or of each by its own of two."""
    pair = [torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1) for frame in (first, second)]
    if len(jitters) == 1:  # one above the other, so that contrast refers to the mean of both
        changed = _apply(torch.cat(pair, dim=1), jitters[0]).chunk(2, dim=1)
    else:
        changed = tuple(_apply(frame, jitter) for frame, jitter in zip(pair, jitters, strict=True))
    new_first, new_second = (np.ascontiguousarray(frame.permute(1, 2, 0).numpy()) for frame in changed)
    return new_first, new_second


def _apply(picture: Tensor, jitter: Jitter) -> Tensor:
    for step in jitter.order:
        picture = OPERATIONS[step](picture, jitter.factors[step])
    return picture
