"""torchvision's colour operations on many views at once, each view with its own factors.

Views are float32 of whole grey levels, and are whole again after every operation, cut or rounded where torchvision's
operations on uint8 cut or round.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway_hub.training.data.views.apply import SOLARISE_FROM
from midway_hub.training.data.views.blur import blur
from midway_hub.training.data.views.draw import JITTER_OPERATIONS, ColourDraw

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(len(JITTER_OPERATIONS))


def change_colours(views: Tensor, draw: ColourDraw) -> Tensor:
    """Jitter, lose colours, blur and solarise, as drawn.

    Args:
        views: (N, 3, S, S) float32 of whole grey levels; changed in place.
        draw: What was drawn for these N views.

    Returns:
        `views`.
    """
    _change_some(views, draw.jitter, _jitter, draw)
    _change_some(views, draw.grayscale, _lose_colour)
    _change_some(views, draw.blur > 0, blur, draw.blur)
    _change_some(views, draw.solarise, _solarise)
    return views


def _change_some(views: Tensor, chosen: np.ndarray, change: Callable[..., Tensor], *drawn: Any) -> None:
    """Replace the chosen views by what `change` makes of them and of their part of what was drawn."""
    index = np.flatnonzero(chosen)
    if len(index):
        where = torch.from_numpy(index).to(views.device)
        views.index_copy_(0, where, change(views[where], *(values[index] for values in drawn)))


def _jitter(views: Tensor, draw: ColourDraw) -> Tensor:
    for step in range(len(JITTER_OPERATIONS)):
        operation = draw.order[:, step]
        factors = draw.factors[np.arange(len(draw)), operation]
        views = blend(views, operation, factors)
        _change_some(views, operation == HUE, turn_hue, factors)
    return views


def _lose_colour(views: Tensor) -> Tensor:
    return luma(views).expand_as(views)


def _solarise(views: Tensor) -> Tensor:
    return torch.where(views >= SOLARISE_FROM, 255 - views, views)


def luma(views: Tensor) -> Tensor:
    """Return the grey of (N, 3, S, S) views, (N, 1, S, S)."""
    red, green, blue = views.unbind(1)
    return (red * 0.2989).add_(green * 0.587).add_(blue * 0.114).floor_()[:, None]


def blend(views: Tensor, operation: np.ndarray, factors: np.ndarray) -> Tensor:
    """Mix each view with black (brightness), its mean grey (contrast) or its own grey (saturation).

    Args:
        views: (N, 3, S, S) float32 of whole grey levels.
        operation: (N,) which of these; views with another operation stay as they are.
        factors: (N,) share of the view; above 1 moves away from what it is mixed with.
    """
    share = np.where(operation == HUE, 1.0, factors)
    grey = luma(views)
    mean = grey.sum(dim=(2, 3), keepdim=True, dtype=torch.int64).to(torch.float32) / grey[0].numel()
    of_view, of_grey, of_mean = (
        _per_view(weight, views)
        for weight in (share, (1 - share) * (operation == SATURATION), (1 - share) * (operation == CONTRAST))
    )
    return (views * of_view).add_(grey * of_grey).add_(mean * of_mean).clamp_(0, 255).floor_()


def turn_hue(views: Tensor, turns: np.ndarray) -> Tensor:
    """Turn the hue of each view.

    Args:
        views: (N, 3, S, S) float32 of whole grey levels.
        turns: (N,) -0.5 to 0.5, in full turns.
    """
    views = views / 255
    red, green, blue = views.unbind(1)
    low, high = torch.aminmax(views, dim=1)
    spread = high - low
    divisor = torch.where(spread == 0, 1.0, spread)
    sextant = torch.where(
        high == red,
        (green - blue) / divisor,
        torch.where(high == green, 2 + (blue - red) / divisor, 4 + (red - green) / divisor),
    )
    sextant = torch.remainder(sextant + _per_view(6 * turns, sextant), 6)
    ramps = ((sextant - 3).abs() - 1, 2 - (sextant - 2).abs(), 2 - (sextant - 4).abs())
    turned = [low + spread * ramp.clamp_(0, 1) for ramp in ramps]
    return torch.stack(turned, dim=1).mul_(256 - 1e-3).floor_().clamp_(0, 255)


def _per_view(values: np.ndarray, like: Tensor) -> Tensor:
    """Return one number per view, shaped so that it broadcasts over the rest."""
    return torch.from_numpy(values).to(like.device, torch.float32).view(-1, *[1] * (like.ndim - 1))
