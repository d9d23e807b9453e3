"""What the network returns: dataclasses of named tensors.

Letters in the shapes: B batch, T frames, D encoder width, N = h·w patches of an h×w grid, M motion tokens, Dm motion
width, H×W pixels, K classes. `[,T]` stands for an axis that is there when a clip went in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any, Self

import torch
from torch import Tensor
from transformers.utils import ModelOutput


@dataclass(frozen=True)
class TensorRecord:
    """Base of all outputs: the same operation on every tensor of a record."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Return a copy in which `function` was applied to every tensor, nested records and tuples included."""

        def apply(value: Any) -> Any:
            if isinstance(value, Tensor):
                return function(value)
            if isinstance(value, TensorRecord):
                return value.map(function)
            if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                return tuple(map(function, value))
            return value

        return replace(self, **{field.name: apply(getattr(self, field.name)) for field in fields(self)})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return a copy with every tensor on `device` and in `dtype`."""
        return self.map(lambda tensor: tensor.to(device=device, dtype=dtype))

    def detach(self) -> Self:
        """Return a copy cut off from the autograd graph."""
        return self.map(Tensor.detach)

    def cpu(self) -> Self:
        """Return a copy in main memory."""
        return self.map(Tensor.cpu)


class NetworkOutput(TensorRecord, ModelOutput):
    """Base of what the network returns: a record that is also transformers' `ModelOutput`.

    Fields are read by name (`output.last`), by key (`output["last"]`) or by position (`output[0]`), those that are None
    left out of keys and positions; pipelines, `torch.export` and `DataParallel` know what to do with it.
    """

    def __post_init__(self) -> None:
        # Of transformers' own __post_init__ only the filling of the mapping: its other half guesses at fields that
        # are not there, and allows one required field alone.
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None:
                self[field.name] = value


@dataclass(frozen=True)
class Features(NetworkOutput):
    """Encoder features of frames, each through the encoder's final norm.

    Attributes:
        last: Features of the last block. As a grid: (B[,T], D, h, w); as tokens: (B[,T], 1+N, D), CLS first.
        cls: CLS token of the last block, (B[,T], D).
        layers: Features of the blocks that were asked for, in the order asked, shaped like `last`.
        grid: Patch grid (h, w).
    """

    last: Tensor
    cls: Tensor
    layers: tuple[Tensor, ...]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Motion(NetworkOutput):
    """What the dynamics infer between a source and a target frame; every tuple runs over `levels`, coarse to fine.

    From a clip of T frames, all tensors have shape (B, T-1, ...): one entry per pair of consecutive frames.

    Attributes:
        levels: Encoder blocks whose features are predicted, e.g. (8, 5, 2).
        grid: Patch grid (h, w).
        latents: Motion latents m, each (B, M, Dm).
        source: Backward (top-down refined) features v of the source frame, each (B, 1+N, D), CLS first.
        target: Backward features of the target frame, each (B, 1+N, D).
        predicted: Predicted target features, each (B, 1+N, D).
        target_context: Target tokens after the top midway path, (B, 1+N, Dm).
    """

    levels: tuple[int, ...]
    grid: tuple[int, int]
    latents: tuple[Tensor, ...]
    source: tuple[Tensor, ...]
    target: tuple[Tensor, ...]
    predicted: tuple[Tensor, ...]
    target_context: Tensor

    def pair(self, index: int) -> Motion:
        """Return the motion of one pair of a clip, frames `index` → `index + 1`, with tensors of shape (B, ...)."""
        if self.target_context.ndim != 4:
            raise ValueError("pair() picks from the motion of a clip; this motion is not of a clip, use it as it is")
        return self.map(lambda tensor: tensor[:, index])


@dataclass(frozen=True)
class ClipOutput(NetworkOutput):
    """What `MidwayNetwork.forward` returns for images, or for clips of T frames.

    Attributes:
        last_hidden_state: Teacher tokens after the last block, through the final norm, (B[,T], 1+N, D), CLS first.
        pooler_output: Of these the CLS token, (B[,T], D).
        feature_map: Of these the patches as a grid, (B[,T], D, h, w).
        motion: Motion of consecutive frames, (B, T-1, ...); None for images.
    """

    last_hidden_state: Tensor
    pooler_output: Tensor
    feature_map: Tensor
    motion: Motion | None = None

    @property
    def features(self) -> Features:
        """The teacher's features of all frames, as `encode` returns them."""
        grid = (self.feature_map.shape[-2], self.feature_map.shape[-1])
        return Features(last=self.feature_map, cls=self.pooler_output, layers=(), grid=grid)


@dataclass(frozen=True)
class FlowOutput(NetworkOutput):
    """Optical flow from source to target frame, at the size of the frames that came in.

    Attributes:
        flow: (B, 2, H, W) in pixels; x to the right, then y downwards.
        uncertainty: (B, H, W), the Laplacian's log-scale: larger is less certain.
        backward: (B, 2, H, W) from target to source, where both were asked for.
        occluded: (B, H, W) bool, pixels of the source that the target does not show, by the disagreement of both.
        backward_occluded: (B, H, W) bool, pixels of the target that the source does not show.
    """

    flow: Tensor
    uncertainty: Tensor
    backward: Tensor | None = None
    occluded: Tensor | None = None
    backward_occluded: Tensor | None = None


@dataclass(frozen=True)
class SegmentationOutput(NetworkOutput):
    """Semantic segmentation, at the size of the frames that came in.

    Attributes:
        logits: (B, K, H, W).
        labels: (B, H, W), the most likely class.
        classes: Names of the K classes.
        palette: Red, green and blue of each class, 0 to 255.
    """

    logits: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    palette: tuple[tuple[int, int, int], ...]


__all__ = [
    "ClipOutput",
    "Features",
    "FlowOutput",
    "Motion",
    "NetworkOutput",
    "SegmentationOutput",
    "TensorRecord",
]
