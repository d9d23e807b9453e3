"""What is where in a frame: for every pixel, the layers that cover it and the place on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic import structures
from midway_hub.training.data.synthetic.looks import Looks
from midway_hub.training.data.synthetic.silhouettes import silhouettes

LAYER_MASK = 31
LEAST = 1e-6
BEHIND_ALL = 1e-30


@dataclass(frozen=True)
class Camera:
    """The K layers of B worlds as seen at one moment.

    Attributes:
        from_pixel: (B, K, 3, 3) from pixels (x, y, 1) to (u, v, 1) / depth.
        per_pixel: (B, K) side of a pixel on the layer at inverse depth 1, in units of u and v; it grows as depth^1.5.
        sharp: (B, K) what turns distances on a layer at its centre into pixels.
    """

    from_pixel: Tensor
    per_pixel: Tensor
    sharp: Tensor


@dataclass(frozen=True)
class Places:
    """Places of the frame on all layers; each (B, K, H, W).

    Attributes:
        u: Coordinate on the layer.
        v: Likewise.
        near: Inverse depth.
        radius: The outline's radius in the direction of the place; 1 on planes.
        cover: How much of the pixel the layer would cover, 0 to 1, were there no others.
    """

    u: Tensor
    v: Tensor
    near: Tensor
    radius: Tensor
    cover: Tensor

    def order(self) -> Tensor:
        """Numbers that are larger the nearer, and hold the layer in their last five bits; (B, K, H, W) int32.

        Positive floats are ordered as their bits are. The maximum over layers then says which it is.
        """
        near = self.near.clone()
        near[:, 0] = BEHIND_ALL
        layers = torch.arange(near.shape[1], dtype=torch.int32, device=near.device)
        return (near.view(torch.int32) & ~LAYER_MASK) | layers.view(1, -1, 1, 1)


def camera(to_pixel: np.ndarray, device: torch.device) -> Camera:
    """Return the camera of homographies (B, K, 3, 3) from layers to pixels, as float64."""
    inverse = np.linalg.inv(to_pixel)
    per_pixel = np.sqrt(np.abs(np.linalg.det(inverse)))
    depth = np.maximum(to_pixel[..., 2, 2], LEAST)
    packed = np.concatenate(
        [inverse.reshape(*per_pixel.shape, 9), np.stack([per_pixel, 1 / (per_pixel * depth**1.5)], -1)], -1
    )
    moved = torch.from_numpy(packed).float().to(device)
    return Camera(moved[..., :9].unflatten(-1, (3, 3)), moved[..., 9], moved[..., 10])


def grid(size: tuple[int, int], device: torch.device) -> tuple[Tensor, Tensor]:
    """Return x (1, 1, 1, W) and y (1, 1, H, 1) of the pixels' centres."""
    height, width = size
    x = torch.arange(width, device=device, dtype=torch.float32).view(1, 1, 1, -1)
    y = torch.arange(height, device=device, dtype=torch.float32).view(1, 1, -1, 1)
    return x, y


def locate(looks: Looks, seen: Camera, x: Tensor, y: Tensor) -> Places:
    """Find places of the frame on all layers.

    Args:
        looks: The layers.
        seen: Where they are.
        x: In pixels, broadcastable with `y` to (B, 1, H, W).
        y: Likewise.
    """
    planes = looks.planes
    entry = seen.from_pixel[..., None, None]
    u, v, near = (entry[:, :, i, 0] * x + (entry[:, :, i, 1] * y + entry[:, :, i, 2]) for i in range(3))
    slope = torch.hypot(seen.from_pixel[:, :planes, 2, 0], seen.from_pixel[:, :planes, 2, 1]).clamp_(min=LEAST)
    beyond = near[:, :planes] - looks.nearest[:, :planes, None, None]
    near = near.clamp_(min=LEAST)
    depth = near.reciprocal()
    u, v = u.mul_(depth), v.mul_(depth)

    uo, vo = u[:, planes:], v[:, planes:]
    tables = silhouettes(u.device)
    outline = looks.outline[:, planes:, None, None]
    radius, slant = tables.look_up(outline, uo, vo)
    distance = torch.addcmul(uo * uo, vo, vo).sqrt_()
    inside = torch.minimum(radius - distance, distance - tables.hole[outline] * radius).mul_(slant)
    cut = looks.structure[:, planes:] >= 0
    if cut.any():
        edge = structures.distance(looks.structure[:, planes:][cut], uo[cut], vo[cut])
        inside[cut] = torch.minimum(inside[cut], edge)
    inside = inside.mul_(seen.sharp[:, planes:, None, None])
    radius = torch.cat([torch.ones_like(beyond), radius], dim=1)
    cover = torch.cat([beyond.div_(slope[..., None, None]), inside], dim=1).add_(0.5).clamp_(0, 1)
    return Places(u, v, near, radius, cover.mul_(looks.present[..., None, None]))


def layer_of(order: Tensor) -> Tensor:
    """Return the layer that numbers of `Places.order` hold, int64."""
    return (order & LAYER_MASK).long()
