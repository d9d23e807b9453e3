"""Where a frame lies in the model input: the way there, and the way back for what the model says about it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]

FITS = ("pad", "resize", "shortest", "contain", "crop")
UNDO_MODES = ("bilinear", "bicubic", "nearest")


@dataclass(frozen=True)
class Placement:
    """Where one frame lies in the model input. Sizes and offsets are (height, width) in pixels.

    The frame is resized, a window of `kept` pixels is taken from it at `offset`, and that window fills the top left of
    the model input. What is left on the right and at the bottom repeats the window's edge.

    Attributes:
        source: Size of the frame that came in.
        resized: Its size after resizing.
        offset: Top left corner of the window in the resized frame; (0, 0) unless it is cropped.
        kept: Size of the window; the resized size unless it is cropped.
    """

    source: Size
    resized: Size
    offset: Size
    kept: Size

    @property
    def cropped(self) -> bool:
        """Whether a part of the frame lies outside the model input."""
        return self.kept != self.resized


@dataclass(frozen=True)
class Geometry:
    """Where the frames of a batch lie in the model input; `MidwayImageProcessor.undo` reads it.

    Attributes:
        placements: One per image or clip of the batch.
        model_size: (height, width) of the model input, in pixels.
    """

    placements: tuple[Placement, ...]
    model_size: Size

    def __len__(self) -> int:
        return len(self.placements)

    def __getitem__(self, items: slice) -> Geometry:
        """Return where some of the batch lie, as `[:1]` is the first."""
        return Geometry(self.placements[items], self.model_size)

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The (height, width) that each image or clip came in."""
        return tuple(placement.source for placement in self.placements)


def place(source: Size, fit: str, size: Size | None, multiple: int) -> tuple[Placement, Size]:
    """Decides where a frame goes in the model input, and how large that is.

    Args:
        source: (height, width) of the frame.
        fit: One of `FITS`.
        size: (height, width) that `fit` aims at, None for the frame's own. For "shortest", (side, side).
        multiple: Number that both sides of the model input are multiples of.

    Returns:
        The placement, and the (height, width) of the model input.

    Raises:
        ValueError: Under "pad", the frame is larger than `size`.
    """
    size = size or source
    ratios = (size[0] / source[0], size[1] / source[1])
    if fit == "pad":
        if min(ratios) < 1:
            raise ValueError(
                f"a frame of {by(source)} does not fit into size={size}: fit='pad' never shrinks a frame; "
                f"take a larger size, or fit='contain'"
            )
        placement = Placement(source, source, (0, 0), source)
    elif fit == "resize":
        placement = Placement(source, size, (0, 0), size)
    elif fit == "contain":
        resized = _scaled(source, min(ratios))
        placement = Placement(source, resized, (0, 0), resized)
    else:  # "shortest" and "crop": the frame covers `size`
        resized = _scaled(source, max(ratios))
        kept = size if fit == "crop" else resized
        placement = Placement(source, resized, ((resized[0] - kept[0]) // 2, (resized[1] - kept[1]) // 2), kept)
    height, width = placement.kept if fit == "shortest" else size
    return placement, (_round_up(height, multiple), _round_up(width, multiple))


def to_model(frames: Tensor, placement: Placement, model_size: Size, resample: str) -> Tensor:
    """Resizes, crops and pads frames as their placement says; differentiable.

    Args:
        frames: (..., 3, H, W) float in [0, 1], H and W being `placement.source`.
        placement: Where they go.
        model_size: (height, width) of the model input.
        resample: "bicubic" or "bilinear", antialiased.

    Returns:
        (..., 3, *model_size), in [0, 1].
    """
    (top, left), (height, width) = placement.offset, placement.kept
    if placement.resized != placement.source:
        frames = _interpolate(frames, placement.resized, resample).clamp(0, 1)  # bicubic overshoots at edges
    frames = frames[..., top : top + height, left : left + width]
    return _pad_edges(frames, (0, model_size[1] - width, 0, model_size[0] - height))


def from_model(dense: Tensor, placement: Placement, model_size: Size, mode: str, fill: float) -> Tensor:
    """Brings a dense output back to the size of the frame it belongs to; the inverse of `to_model`.

    Args:
        dense: (..., h, w) over the model input.
        placement: Where the frame lies in it.
        model_size: (height, width) of the model input.
        mode: One of `UNDO_MODES`.
        fill: Value where the frame was cropped away.

    Returns:
        (..., H, W) at `placement.source`.
    """
    if mode == "nearest":
        rows, columns = (_nearest(placement, axis, dense.shape[axis - 2], model_size[axis]) for axis in (0, 1))
        out = dense.index_select(-2, rows.to(dense.device)).index_select(-1, columns.to(dense.device))
    else:
        (top, left), (height, width) = placement.offset, placement.kept
        out = _interpolate(dense, model_size, mode)[..., :height, :width]
        bottom, right = placement.resized[0] - top - height, placement.resized[1] - left - width
        out = _interpolate(_pad_edges(out, (left, right, top, bottom)), placement.source, mode)
    if placement.cropped:
        seen = _seen(placement, 0)[:, None] & _seen(placement, 1)
        out = out.masked_fill(~seen.to(out.device), fill)
    return out


def by(size: Size) -> str:
    """A size as people write it: height×width."""
    return f"{size[0]}×{size[1]}"


def _scaled(size: Size, factor: float) -> Size:
    return max(1, round(size[0] * factor)), max(1, round(size[1] * factor))


def _round_up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple


def _interpolate(images: Tensor, size: Size, mode: str) -> Tensor:
    if images.shape[-2:] == size:
        return images
    planes = images.reshape(1, -1, *images.shape[-2:])
    wide = planes.float() if planes.dtype in (torch.float16, torch.bfloat16) else planes
    wide = F.interpolate(wide, size, mode=mode, align_corners=False, antialias=True)
    return wide.to(images.dtype).reshape(*images.shape[:-2], *size)


def _pad_edges(images: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Repeats the edges; padding is (left, right, top, bottom)."""
    if not any(padding):
        return images
    planes = F.pad(images.reshape(1, -1, *images.shape[-2:]), padding, mode="replicate")
    return planes.reshape(*images.shape[:-2], *planes.shape[-2:])


def _resized_pixel(placement: Placement, axis: int) -> Tensor:
    """Which pixel of the resized frame holds the centre of each pixel of the source, along one axis."""
    source, resized = placement.source[axis], placement.resized[axis]
    return (2 * torch.arange(source) + 1) * resized // (2 * source)


def _seen(placement: Placement, axis: int) -> Tensor:
    pixel = _resized_pixel(placement, axis) - placement.offset[axis]
    return (pixel >= 0) & (pixel < placement.kept[axis])


def _nearest(placement: Placement, axis: int, cells: int, model_length: int) -> Tensor:
    pixel = _resized_pixel(placement, axis) - placement.offset[axis]
    return pixel.clamp(0, placement.kept[axis] - 1) * cells // model_length
