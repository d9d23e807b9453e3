"""What estimates flow between two frames, whatever it is made of; and one that looks at smaller frames."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


class Estimator(Protocol):
    """Something that estimates optical flow.

    Attributes:
        name: What tables call it.
        settings: Everything that its numbers depend on, JSON-able: weights, resolution, tiles, precision, device.
    """

    @property
    def name(self) -> str: ...

    @property
    def settings(self) -> Mapping[str, Any]: ...

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Estimate flow.

        Args:
            first: (H, W, 3) uint8 RGB, the source.
            second: (H, W, 3) uint8 RGB, the target.

        Returns:
            (2, H, W) float32 in pixels, source to target, x to the right, then y down.
        """
        ...


class ZeroMotion:
    """The estimate that nothing moves: what every other one has to beat."""

    name = "zero"

    def __init__(self) -> None:
        self.settings: dict[str, Any] = {"kind": "zero motion"}

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return zeros (2, H, W)."""
        return np.zeros((2, *first.shape[:2]), dtype=np.float32)


class Resized:
    """Estimates flow on frames of another size and brings it back: resampled, and scaled to the frames' own pixels.

    Args:
        estimator: What looks at the resized frames.
        short_side: Their short side in pixels; the aspect ratio is kept.

    Raises:
        ValueError: A short side below 1.
    """

    def __init__(self, estimator: Estimator, short_side: int) -> None:
        if short_side < 1:
            raise ValueError(f"short_side must be at least 1 pixel, got {short_side}")
        self.estimator, self.short_side = estimator, short_side
        self.name = estimator.name
        self.settings = {**estimator.settings, "short_side": short_side}

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Return flow (2, H, W) of the frames as they came."""
        height, width = first.shape[:2]
        factor = self.short_side / min(height, width)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in (first, second)]
        return resize_flow(self.estimator(*small), (height, width))


def resize_flow(flow: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resample flow bilinearly to another size and scale its vectors to that size's pixels.

    Args:
        flow: (2, h, w) in pixels.
        size: Height and width that are wanted.

    Returns:
        (2, H, W) float32.
    """
    scale = np.array([size[1] / flow.shape[2], size[0] / flow.shape[1]], dtype=np.float32)
    resampled = F.interpolate(torch.from_numpy(flow)[None].float(), size, mode="bilinear", align_corners=False)
    return resampled[0].numpy() * scale[:, None, None]
