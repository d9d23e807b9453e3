"""What stands between a world and its frames: how long the shutter is open, how light falls, sensor noise."""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.settings import EffectSettings

NOISE_SIDE = 512
TINTED, SLANTED = 0.2, 0.4  # shares of the lighting's strength that change colours apart, and across the frame


@dataclass(frozen=True)
class Effects:
    """What happens to the frames of B worlds.

    Attributes:
        shutter: (B,) time in frames that the shutter is open, 0 for no motion blur.
        light: (B, 2, 3, 3) at time 0, and what is added by time 1: per colour the factor in the middle, and its growth
            from the left edge to the right and from top to bottom.
        noise: (B,) standard deviation of the noise.
        quality: (B,) int of the JPEG encoder that frames go through, 0 for none.
        noise_start: (B, 2) int64 where in the pool of noise the first frame's begins, and how far apart frames' are.
    """

    shutter: np.ndarray
    light: np.ndarray
    noise: np.ndarray
    noise_start: np.ndarray
    quality: np.ndarray


def draw_effects(settings: EffectSettings, draws: Draws, later: Draws) -> Effects:
    """Draw the effects within the ranges of the settings."""
    blurred, lit, noisy = (
        draws.happens(p) for p in (settings.blur_probability, settings.lighting_probability, settings.noise_probability)
    )
    strength = settings.lighting_strength * lit[:, None, None, None]
    light = strength * np.concatenate(
        [
            (1 - TINTED - SLANTED) * draws.signed(1, 2, 1, 1) + TINTED * draws.signed(1, 2, 3, 1),
            SLANTED * np.broadcast_to(draws.signed(1, 2, 1, 2), (len(lit), 2, 3, 2)),
        ],
        axis=-1,
    )
    light[:, 0, :, 0] += 1
    return Effects(
        shutter=blurred * draws.between(*settings.blur_shutter),
        light=light,
        noise=noisy * draws.between(0.1, 1.0) * settings.noise_strength,
        noise_start=draws.whole(0, NOISE_SIDE**2 - 1, 2),
        quality=later.happens(settings.compression_probability)
        * later.between(*settings.compression_quality).round().astype(int),
    )


def expose(pictures: Tensor, effects: Effects, frame: int, passed: np.ndarray) -> Tensor:
    """Light pictures and turn them into frames.

    Args:
        pictures: (3, B, H, W) in [0, 1].
        effects: Of the B worlds.
        frame: Number of the frame.
        passed: (B,) how far change has come, 0 in frame 0 and 1 in frame 1.

    Returns:
        (B, 3, H, W) uint8.
    """
    *_, height, width = pictures.shape
    device = pictures.device
    light = (effects.light[:, 0] + effects.light[:, 1] * passed[:, None, None]).transpose(2, 1, 0)
    factor = torch.from_numpy(light).float().to(device)[..., None, None]
    x = torch.linspace(-0.5, 0.5, width, device=device)
    y = torch.linspace(-0.5, 0.5, height, device=device)[:, None]
    lit = pictures * (factor[1] * x + (factor[2] * y + factor[0]))
    if effects.noise.any():
        start = (effects.noise_start[:, 0] + frame * effects.noise_start[:, 1]) % NOISE_SIDE**2
        strength = torch.from_numpy(effects.noise).float().to(device)[:, None, None]
        spread = lit.add(0.5).mul_(strength)
        lit = lit.addcmul_(spread, _noise(torch.from_numpy(start).to(device), height, width))
    frames = lit.mul_(255).round_().clamp_(0, 255).to(torch.uint8).transpose(0, 1).contiguous()
    for world in np.flatnonzero(effects.quality):
        frames[world] = compressed(frames[world], int(effects.quality[world]))
    return frames


def compressed(frame: Tensor, quality: int) -> Tensor:
    """Send a frame (3, H, W) uint8 through Pillow's JPEG encoder and back, on the CPU."""
    written = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).cpu().numpy()).save(written, "JPEG", quality=quality)
    read = torch.from_numpy(np.array(Image.open(written)))
    return read.permute(2, 0, 1).to(frame.device)


def _noise(start: Tensor, height: int, width: int) -> Tensor:
    """Gaussian noise (3, B, H, W) out of the pool, from places on."""
    y = (start // NOISE_SIDE)[:, None] + torch.arange(height, device=start.device)
    x = (start % NOISE_SIDE)[:, None] + torch.arange(width, device=start.device)
    place = (y % NOISE_SIDE * NOISE_SIDE)[:, :, None] + (x % NOISE_SIDE)[:, None]
    return _noise_pool(start.device)[:, place]


@lru_cache(maxsize=4)
def _noise_pool(device: torch.device) -> Tensor:
    generator = np.random.Generator(np.random.Philox(key=11))
    return torch.from_numpy(generator.standard_normal((3, NOISE_SIDE**2), dtype=np.float32)).to(device)
