"""Worlds for people to look at: frames, flow, occlusion and classes side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import flow_to_image

from midway_hub.training.data.synthetic.classes import PALETTE
from midway_hub.training.data.synthetic.settings import WorldSettings
from midway_hub.training.data.synthetic.worlds import WorldPairs, render_pairs

GAP = 4


def world_sheet(settings: WorldSettings, seeds: Sequence[int], *, columns: int = 2, zoom: int = 1) -> Image.Image:
    """Draw a contact sheet of worlds.

    Args:
        settings: What worlds are made of.
        seeds: The worlds, in reading order.
        columns: Worlds side by side.
        zoom: Pixels of the sheet per pixel of a frame.

    Returns:
        Per world its first and second frame, flow (hue for direction, saturation for length, of the longest of the
        world), what is hidden in the second frame or out of it (white), and classes in the colours of `PALETTE`.
    """
    pairs = render_pairs(settings, seeds)
    rows = torch.cat(_panels(pairs), dim=3)  # (B, 3, H, 5 W)
    rows = torch.nn.functional.pad(rows, (0, GAP, 0, GAP), value=255)
    blank = rows.new_full((-len(rows) % columns, *rows.shape[1:]), 255)
    sheet = torch.cat([rows, blank]).unflatten(0, (-1, columns)).permute(0, 3, 1, 4, 2).flatten(2, 3).flatten(0, 1)
    picture = Image.fromarray(sheet.numpy())
    return picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST)


def _panels(pairs: WorldPairs) -> list[Tensor]:
    """Pictures (B, 3, H, W) uint8 of each kind."""
    classes = torch.tensor(PALETTE, dtype=torch.uint8)[pairs.labels.long()].permute(0, 3, 1, 2)
    hidden = (pairs.occluded[:, None] * 255).to(torch.uint8).expand_as(classes)
    flow = torch.stack([flow_to_image(one) for one in pairs.flow])
    return [pairs.first, pairs.second, flow, hidden, classes]
