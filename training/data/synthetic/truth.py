"""What is known exactly about two frames: where every pixel goes, whether it is seen there, and what it is."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.synthetic.lens import Lens
from midway_hub.training.data.synthetic.looks import Looks
from midway_hub.training.data.synthetic.view import Camera, Places, grid, layer_of, locate


@dataclass(frozen=True)
class Moment:
    """B worlds at one moment.

    Attributes:
        to_pixel: (B, K, 3, 3) float64 homographies from layers to pixels.
        looks: The layers.
        seen: The same homographies, inverted, on the device.
        places: What is where in the frame.
        lens: What the frame is seen through; None: nothing.
    """

    to_pixel: np.ndarray
    looks: Looks
    seen: Camera
    places: Places
    lens: Lens | None = None

    @cached_property
    def visible(self) -> Tensor:
        """The nearest layer that covers more than half of each pixel, (B, H, W) int64."""
        return layer_of((self.places.order() * (self.places.cover > 0.5)).amax(dim=1))

    def labels(self) -> Tensor:
        """Return the class of each pixel, (B, H, W) uint8."""
        return self.looks.label.gather(1, self.visible.flatten(1)).view(self.visible.shape)


def correspondence(source: Moment, target: Moment) -> tuple[Tensor, Tensor]:
    """Follow every pixel of one moment's frame into another's.

    Returns:
        Flow (B, 2, H, W) in pixels, x then y; and (B, H, W) bool, whether the point is hidden or outside there.
    """
    worlds, height, width = source.visible.shape
    layer = source.visible
    x, y = (axis[:, 0].expand(worlds, height, width) for axis in grid((height, width), layer.device))
    from_x, from_y = (x, y) if source.lens is None else source.lens.seen(x, y)
    maps = torch.from_numpy(target.to_pixel @ np.linalg.inv(source.to_pixel)).float().to(layer.device)
    first_row = torch.arange(worlds, device=layer.device)[:, None] * maps.shape[1]
    rows = maps.reshape(-1, 9).index_select(0, (first_row + layer.flatten(1)).view(-1)).view(worlds, height, width, 9)
    right, down, depth = (rows[..., i] * from_x + rows[..., i + 1] * from_y + rows[..., i + 2] for i in (0, 3, 6))
    in_front = depth > 0
    depth = depth.clamp_(min=1e-6)
    right, down = right / depth, down / depth
    hidden = _hidden(locate(target.looks, target.seen, right[:, None], down[:, None]), layer)
    if target.lens is not None:
        right, down = target.lens.shown(right, down)
    inside = in_front & (right >= -0.5) & (right <= width - 0.5) & (down >= -0.5) & (down <= height - 0.5)
    return torch.stack([right - x, down - y], dim=1), hidden | ~inside


def _hidden(places: Places, layer: Tensor) -> Tensor:
    """Whether some other layer covers the place and is nearer there than the layer (B, H, W) that goes to it."""
    order = places.order()
    own = order.gather(1, layer[:, None])
    covering = (order * (places.cover > 0.5)).scatter_(1, layer[:, None], 0)
    return covering.amax(dim=1) > own[:, 0]
