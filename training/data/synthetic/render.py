"""Making pictures of worlds: the nearest layer's colour at every pixel, with smooth edges."""

from __future__ import annotations

import torch
from torch import Tensor

from midway_hub.training.data.synthetic.atlas import Atlas
from midway_hub.training.data.synthetic.looks import DENSITY, GAIN, LIGHT, OFFSET, TEXTURE, TILE, Looks
from midway_hub.training.data.synthetic.view import LAYER_MASK, Camera, Places


def render(looks: Looks, seen: Camera, places: Places, atlas: Atlas) -> Tensor:
    """Render one moment.

    Args:
        looks: B worlds.
        seen: Where their layers are.
        places: What that makes of the pixels.
        atlas: Their textures.

    Returns:
        (3, B, H, W) colours in [0, 1].
    """
    paint = looks.paint.clone()
    paint[..., DENSITY] *= seen.per_pixel
    paint = paint.flatten(0, 1)
    order = places.order().mul_(places.cover > 0)
    first = order.amax(dim=1)
    second = order.mul_(order != first[:, None]).amax(dim=1)
    row, index = _flat(first, places)
    colours = _colours(places, paint, atlas, row, index)
    # Through a partly covered pixel the next layer shows.
    cover = places.cover.view(-1).index_select(0, index)
    edge = (cover < 1).nonzero()[:, 0]
    row, index = (numbers[edge] for numbers in _flat(second, places))
    behind = _colours(places, paint, atlas, row, index)
    colours[:, edge] = torch.lerp(behind, colours[:, edge], cover[edge])
    return colours.clamp_(0, 1).view(3, *first.shape)


def _flat(order: Tensor, places: Places) -> tuple[Tensor, Tensor]:
    """Number the layer that `order` (B, H, W) names at every pixel, among (B, K), and its place, among (B, K, H, W)."""
    worlds, layers, height, width = places.u.shape
    world = torch.arange(0, worlds * layers, layers, dtype=torch.int32, device=order.device)
    pixel = torch.arange(height * width, dtype=torch.int32, device=order.device)
    row = (order.flatten(1) & LAYER_MASK).add_(world[:, None])
    return row.view(-1), torch.add(pixel, row, alpha=height * width).view(-1)


def _colours(places: Places, paint: Tensor, atlas: Atlas, row: Tensor, index: Tensor) -> Tensor:
    """Colours (3, M) of places on layers, given as `_flat` does."""
    u, v, near, radius = (
        values.view(-1).index_select(0, index) for values in (places.u, places.v, places.near, places.radius)
    )
    rows = paint.index_select(0, row)
    x, y = (rows[:, i] * u + rows[:, i + 1] * v + rows[:, i + 2] for i in (TEXTURE.start, TEXTURE.start + 3))
    footprint = rows[:, DENSITY] / near.sqrt().mul_(near)
    texture = atlas.sample(rows[:, TILE].int(), torch.stack([x, y], dim=1), footprint)
    colours = torch.addcmul(rows[:, OFFSET].T, rows[:, GAIN].T, texture)
    return colours.mul_(_shade(rows[:, LIGHT], u.div_(radius), v.div_(radius)))


def _shade(light: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Brightness of a bulging layer, 1 where it faces the camera; x and y are 0 at its centre and 1 at its rim."""
    along_u, along_v, ahead, bulge = light.unbind(1)
    x, y = x.mul_(bulge), y.mul_(bulge)
    facing = torch.addcmul(x * x, y, y).neg_().add_(1).clamp_(min=0).sqrt_()
    return x.mul_(along_u).addcmul_(along_v, y).addcmul_(ahead, facing.sub_(1)).add_(1)
