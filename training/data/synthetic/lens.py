"""Non-rigid motion: frames after the first are seen through a smooth displacement that grows with time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.settings import MotionSettings

WAVES = 3
WAVELENGTHS = (0.5, 2.0)  # in frame sides
STEPS = 16  # of the inversion, each of which makes the error less by the displacement's slope, at most 0.63


@dataclass(frozen=True)
class Lens:
    """Displacements of B worlds: at pixel x the place x + b(x) of the undistorted frame is seen.

    Attributes:
        height: (B, WAVES, 2) in pixels, x then y.
        number: (B, WAVES, 2) radians per pixel along x and y.
        phase: (B, WAVES) radians.
    """

    height: Tensor
    number: Tensor
    phase: Tensor

    def at(self, passed: Tensor, rows: Tensor | slice = slice(None)) -> Lens:
        """Return the displacement at a moment, `passed` (B,) times that of frame 1, in some of the worlds."""
        return Lens((self.height * passed[:, None, None])[rows], self.number[rows], self.phase[rows])

    def displacement(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return b at pixels, each (B, H, W)."""
        number, phase = self.number[..., None, None], self.phase[..., None, None]
        wave = torch.sin(number[:, :, 0] * x[:, None] + number[:, :, 1] * y[:, None] + phase)
        height = self.height[..., None, None]
        return (height[:, :, 0] * wave).sum(1), (height[:, :, 1] * wave).sum(1)

    def seen(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return what places of the undistorted frame pixels show, each (B, H, W)."""
        along, down = self.displacement(x, y)
        return x + along, y + down

    def shown(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the pixels that show places of the undistorted frame: the inverse of `seen`, by fixed-point steps."""
        right, lower = x, y
        for _ in range(STEPS):
            along, down = self.displacement(right, lower)
            right, lower = x - along, y - down
        return right, lower


def draw_lens(settings: MotionSettings, draws: Draws, side: int, device: torch.device) -> Lens:
    """Draw the displacements of worlds whose frames have a shorter side of `side` pixels."""
    bent = draws.happens(settings.warp_probability, 1, 1)
    shares = draws.between(0.2, 1, WAVES, 1)
    direction = draws.between(0, 2 * np.pi, WAVES)
    strength = draws.between(0.1, 1, 1, 1) * settings.warp * side
    height = bent * strength * shares / shares.sum(axis=1, keepdims=True)
    turn, length = draws.between(0, 2 * np.pi, WAVES), draws.log_between(*WAVELENGTHS, WAVES) * side
    number = 2 * np.pi / length[..., None] * np.stack([np.cos(turn), np.sin(turn)], axis=-1)
    vectors = height * np.stack([np.cos(direction), np.sin(direction)], axis=-1)
    phase = draws.between(0, 2 * np.pi, WAVES)
    return Lens(*(torch.from_numpy(part).float().to(device) for part in (vectors, number, phase)))
