"""Frames as encoders take them, read and encoded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.processing import load_frame

Encoder = Callable[[Tensor], Tensor]


class EncodedFrame(NamedTuple):
    """A frame's features (D, h, w), its own (height, width) and that of the network's input."""

    features: Tensor
    own_size: tuple[int, int]
    size: tuple[int, int]


def encoded_frames(
    encode: Encoder,
    frames: Iterable[Any],
    protocol: PropagationProtocol,
    *,
    device: torch.device | str = "cpu",
    size: tuple[int, int] | None = None,
) -> Iterator[EncodedFrame]:
    """Read, resize, normalise and encode frames one by one, as `propagate_labels` does.

    Args:
        encode: As for `propagate_labels`.
        frames: As for `propagate_labels`.
        protocol: How frames are resized and normalised.
        device: Where `encode` gets its frames.
        size: (height, width) that the frames must have; default: those of the first one.

    Raises:
        ValueError: A frame of another size, or features of the wrong shape.
    """
    for number, frame in enumerate(frames):
        picture = load_frame(frame, name=f"frame {number}")
        own = (int(picture.shape[-2]), int(picture.shape[-1]))
        if own != (size := size or own):
            raise ValueError(
                f"frame {number} has {own[0]}×{own[1]} pixels (height×width); wanted {size[0]}×{size[1]}, the size of "
                "the first frame's labels, or of the first frame"
            )
        yield _encode_frame(encode, picture.to(device), own, protocol)


@torch.no_grad()
def _encode_frame(
    encode: Encoder, picture: Tensor, own: tuple[int, int], protocol: PropagationProtocol
) -> EncodedFrame:
    size = protocol.size.of(*own)
    resized = F.interpolate(picture[None], size, mode="bilinear", align_corners=False)
    mean, std = (resized.new_tensor(values).view(3, 1, 1) for values in (protocol.image_mean, protocol.image_std))
    features = encode((resized - mean) / std)
    if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != 1:
        seen = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"encode must turn frames (1, 3, {size[0]}, {size[1]}) into features (1, D, h, w), got {seen}")
    return EncodedFrame(features[0], own, size)


def chained(first: EncodedFrame, rest: Iterator[EncodedFrame]) -> Iterator[EncodedFrame]:
    """Put the first frame back before the others."""
    yield first
    yield from rest
