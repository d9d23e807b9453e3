"""Drawing what a world's layers look like: outline, texture, colours and shading."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic.classes import PLANES
from midway_hub.training.data.synthetic.draws import Draws
from midway_hub.training.data.synthetic.placement import Placement
from midway_hub.training.data.synthetic.settings import TextureSettings, WorldSettings
from midway_hub.training.data.synthetic.silhouettes import VARIANTS
from midway_hub.training.data.synthetic.structures import VARIANTS as STRUCTURES

REACH = 40.0  # how far ground and wall are seen, in units of space

# Columns of `Looks.paint`.
TEXTURE = slice(0, 6)  # (u, v, 1) to texels: three numbers for x, three for y
GAIN, OFFSET = slice(6, 9), slice(9, 12)  # what a texture's R, G and B are multiplied by, and what is added
LIGHT = slice(12, 16)  # light along u, along v and towards the camera; and how far the layer bulges, 0 to 1
TILE, DENSITY = 16, 17  # which tile, and texels per unit of u and v


@dataclass(frozen=True)
class Looks:
    """What the K layers of B worlds look like: the planes, then the objects.

    Attributes:
        label: (B, K) uint8 class.
        present: (B, K) whether the layer is there.
        nearest: (B, K) inverse depth below which a layer is not seen.
        outline: (B, K) int32 row of `silhouettes`, of the objects.
        structure: (B, K) int32 row of `structures` that an object is cut out by, -1 for none.
        paint: (B, K, 18) what colours depend on, by the columns above.
        planes: How many of the layers are planes: they come first and have no outline.
    """

    label: Tensor
    present: Tensor
    nearest: Tensor
    outline: Tensor
    structure: Tensor
    paint: Tensor
    planes: int

    def rows(self, index: Tensor) -> Looks:
        """Return some of the worlds."""
        return self._each(lambda tensor: tensor[index])

    def trimmed(self, keep: np.ndarray) -> Looks:
        """Return some of the layers, chosen by (K,) bool."""
        kept = torch.from_numpy(keep)
        return replace(self._each(lambda tensor: tensor[:, kept]), planes=int(keep[: self.planes].sum()))

    def to(self, device: torch.device) -> Looks:
        """Return the same on a device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> Looks:
        names = ("label", "present", "nearest", "outline", "structure", "paint")
        return replace(self, **{name: change(getattr(self, name)) for name in names})


def draw_looks(settings: WorldSettings, draws: Draws, later: Draws, placement: Placement) -> Looks:
    """Draw the looks of placed layers."""
    worlds, layers = placement.present.shape
    objects = layers - len(PLANES)
    label = np.concatenate(
        [np.broadcast_to(np.arange(len(PLANES)), (worlds, 3)), len(PLANES) + placement.shape], axis=1
    )
    nearest = np.full((worlds, layers), -1.0)
    nearest[:, 1 : len(PLANES)] = 1 / REACH
    outline = np.zeros((worlds, layers), dtype=np.int64)
    outline[:, len(PLANES) :] = placement.shape * VARIANTS + draws.whole(0, VARIANTS - 1, objects)
    density = draws.log_between(*settings.textures.sharpness, layers) * placement.scale
    paint = np.concatenate(
        [
            _draw_texture(settings.textures, draws, density),
            _draw_colour(settings.textures.recolour, draws, layers),
            _draw_light(settings.effects.shading, draws, layers),
            draws.whole(0, settings.textures.tiles - 1, layers, 1),
            density[..., None],
        ],
        axis=-1,
    )
    return Looks(
        label=torch.from_numpy(label.astype(np.uint8)),
        present=torch.from_numpy(placement.present),
        nearest=torch.from_numpy(nearest).float(),
        outline=torch.from_numpy(outline.astype(np.int32)),
        structure=torch.from_numpy(_draw_structures(settings, later, objects)),
        paint=torch.from_numpy(paint).float(),
        planes=len(PLANES),
    )


def _draw_structures(settings: WorldSettings, draws: Draws, objects: int) -> np.ndarray:
    """Draw which objects are cut out, and as what: (B, K)."""
    cut, which = draws.happens(settings.structures, objects), draws.whole(0, STRUCTURES - 1, objects)
    planes = np.full((len(cut), len(PLANES)), -1)
    return np.concatenate([planes, np.where(cut, which, -1)], axis=1).astype(np.int32)


def _draw_texture(settings: TextureSettings, draws: Draws, density: np.ndarray) -> np.ndarray:
    """Turn, mirror and move the texture: (B, K, 6)."""
    layers = density.shape[1]
    angle, mirror = draws.between(0, 2 * np.pi, layers), np.where(draws.happens(0.5, layers), 1.0, -1.0)
    start = draws.between(0, settings.tile_size, layers, 2)
    cosine, sine = density * np.cos(angle), density * np.sin(angle)
    return np.stack([cosine, -sine * mirror, start[..., 0], sine, cosine * mirror, start[..., 1]], axis=-1)


def _draw_colour(amount: float, draws: Draws, layers: int) -> np.ndarray:
    """Change contrast, brightness and tint around mid grey: (B, K, 6)."""
    contrast = 1 + amount * (draws.between(-0.4, 0.3, layers, 1) + draws.signed(0.15, layers, 3))
    middle = 0.5 + amount * (draws.signed(0.2, layers, 1) + draws.signed(0.08, layers, 3))
    return np.concatenate([contrast, middle - 0.5 * contrast], axis=-1)


def _draw_light(probability: float, draws: Draws, layers: int) -> np.ndarray:
    """Draw a light for objects that are shaded: (B, K, 4)."""
    shaded = draws.happens(probability, layers) * draws.between(0.3, 0.9, layers)
    shaded[:, : len(PLANES)] = 0
    angle, height = draws.between(0, 2 * np.pi, layers), draws.between(0.3, 0.9, layers)
    aside = shaded * np.sqrt(1 - height**2)
    bulge = draws.between(0.5, 0.98, layers)
    return np.stack([aside * np.cos(angle), aside * np.sin(angle), shaded * height, bulge], axis=-1)
