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
from torch.utils._pytree import register_pytree_node


@dataclass(frozen=True)
class TensorRecord:
    """Base of all outputs: the same operation on every tensor of a record.

    Every record is a node of torch's trees (`torch.utils._pytree`), so that `torch.export` takes what returns it.
    """

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        register_pytree_node(
            cls,
            lambda record: ([getattr(record, field.name) for field in fields(record)], None),
            lambda values, _: cls(*values),
            serialized_type_name=f"{cls.__module__}.{cls.__qualname__}",
        )

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


@dataclass(frozen=True)
class Features(TensorRecord):
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
class Motion(TensorRecord):
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
class ClipOutput(TensorRecord):
    """What `MidwayNetwork.forward` returns for clips of T frames.

    Attributes:
        features: Teacher features of all frames, as a grid, (B, T, ...).
        motion: Motion of consecutive frames, (B, T-1, ...).
    """

    features: Features
    motion: Motion


@dataclass(frozen=True)
class FlowOutput(TensorRecord):
    """Optical flow from source to target frame, at the size of the frames that came in.

    Attributes:
        flow: (B, 2, H, W) in pixels; x to the right, then y downwards.
        uncertainty: (B, H, W), the Laplacian's log-scale: larger is less certain.
    """

    flow: Tensor
    uncertainty: Tensor


@dataclass(frozen=True)
class SegmentationOutput(TensorRecord):
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


__all__ = ["ClipOutput", "Features", "FlowOutput", "Motion", "SegmentationOutput", "TensorRecord"]
