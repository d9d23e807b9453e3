"""Two frames as the network sees them: places to patches and back, heatmaps of a place, coarse flow."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from midway_hub.analysis.coarse_flow import coarse_flow
from midway_hub.analysis.perturbation import heatmaps_to_pixels, perturbation_heatmaps
from midway_hub.dense.writing import Progress, no_progress
from midway_hub.models.network import MidwayNetwork
from midway_hub.outputs import Motion

SHORT_SIDE = 224
DRAWS = 6
FLOW_DRAWS = 4

Place = tuple[float, float]
"""Shares of a frame's width and height, from its top left corner."""


class Pair:
    """A source and a target frame of one size.

    Args:
        net: The network that looks at them.
        frames: Source and target.

    Attributes:
        size: Width and height of the frames in pixels.
        grid: Rows and columns of the patches that cover them.
    """

    def __init__(self, net: MidwayNetwork, frames: Sequence[Image.Image]) -> None:
        self.net, self.frames, self.size = net, list(frames), frames[0].size
        self._patch = net.config.patch_size
        inputs = net.image_processor.with_short_side(SHORT_SIDE, multiple=self._patch)(self.frames)
        self._pixels = inputs["pixel_values"]
        self._fitted, self._model_size = inputs.geometry.placements[0].resized, inputs.geometry.model_size
        self.grid = (-(-self._fitted[0] // self._patch), -(-self._fitted[1] // self._patch))
        self._columns = self._model_size[1] // self._patch

    @functools.cached_property
    def motion(self) -> Motion:
        """What the network infers between the two.

        Raises:
            ValueError: The network has no dynamics.
        """
        source, target = self._pixels.to(self.net.device).split(1)
        with torch.no_grad():
            return self.net.infer_motion(source, target)

    def patch_at(self, place: Place) -> tuple[int, int]:
        """Return row and column of the patch at a place of the source frame."""
        row, column = place[1] * self._fitted[0] / self._patch, place[0] * self._fitted[1] / self._patch
        return min(max(0, int(row)), self.grid[0] - 1), min(max(0, int(column)), self.grid[1] - 1)

    def centre_of(self, patch: tuple[int, int]) -> Place:
        """Return the middle of a patch, or of what the frame has of it."""
        left, top, right, bottom = self.box_of(patch)
        return (left + right) / 2, (top + bottom) / 2

    def box_of(self, patch: tuple[int, int]) -> tuple[float, float, float, float]:
        """Return left, top, right and bottom of a patch as shares of the frame."""
        steps = self._patch / self._fitted[1], self._patch / self._fitted[0]
        left, top = patch[1] * steps[0], patch[0] * steps[1]
        return left, top, min(1.0, left + steps[0]), min(1.0, top + steps[1])

    def heatmaps(self, place: Place, progress: Progress = no_progress) -> dict[int, Tensor]:
        """Touch a patch of the source frame.

        Args:
            place: Where.
            progress: Called with what is being done, and how much of it.

        Returns:
            Per level, coarse to fine, how much every target patch, (rows, columns), feels it.

        Raises:
            ValueError: The network has no dynamics.
        """
        row, column = self.patch_at(place)
        token, levels = row * self._columns + column, self.motion.levels
        heatmaps = {}
        for number, level in enumerate(levels):
            told = _part_of(progress, "heatmaps", number, len(levels))
            felt = perturbation_heatmaps(self.net, self.motion, [token], level=level, draws=DRAWS, progress=told)
            heatmaps[level] = felt[0].cpu()
        return heatmaps

    def peak_of(self, heatmap: Tensor) -> tuple[int, int]:
        """Return row and column of the hottest patch that lies in the frame."""
        inside = heatmap[: self.grid[0], : self.grid[1]]
        row, column = np.unravel_index(int(inside.argmax()), inside.shape)
        return int(row), int(column)

    def at_size(self, heatmaps: Tensor, size: tuple[int, int]) -> np.ndarray:
        """Enlarge heatmaps (..., h, w) to a frame of (width, height) pixels; returns (..., height, width)."""
        whole = heatmaps_to_pixels(heatmaps, self._model_size)[..., : self._fitted[0], : self._fitted[1]]
        flat = whole.reshape(-1, 1, *whole.shape[-2:])
        fitted = F.interpolate(flat, size=size[::-1], mode="bilinear", align_corners=False)
        return fitted.reshape(*heatmaps.shape[:-2], *size[::-1]).numpy()

    def coarse_flow(self, level: int, progress: Progress) -> np.ndarray:
        """Read the flow of every patch off its heatmap.

        Args:
            level: Encoder block whose prediction is asked.
            progress: Called with what is being done, and how much of it.

        Returns:
            (height, width, 2) in pixels of the frame, the same for all pixels of a patch.

        Raises:
            ValueError: The network has no dynamics.
        """
        told = _part_of(progress, "directions")
        heatmaps = perturbation_heatmaps(self.net, self.motion, level=level, draws=FLOW_DRAWS, progress=told)
        flow = coarse_flow(heatmaps.cpu(), patch_size=self._patch, rule="soft")
        pixels = F.interpolate(flow[None], scale_factor=self._patch, mode="nearest")
        pixels = pixels[..., : self._fitted[0], : self._fitted[1]]
        field = F.interpolate(pixels, size=self.size[::-1], mode="nearest")[0].movedim(0, -1).numpy()
        return field * (np.array(self.size) / np.array(self._fitted[::-1])).astype(np.float32)


def _part_of(progress: Progress, what: str, number: int = 0, parts: int = 1) -> Callable[[int, int], None]:
    """Return what tells of one of several parts of equal length."""
    return lambda done, total: progress(what, number * total + done, parts * total)
