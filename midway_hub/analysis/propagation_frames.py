"""Frames as encoders take them, read and encoded one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.processing import IMAGENET, Normalisation, load_frame

Encoder = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class FrameEncoder:
    """Turns frames into features, and says how frames are made for it.

    Attributes:
        encode: Normalised frames (1, 3, H, W) to features (1, D, h, w).
        normalisation: By what its frames are normalised.
        multiple: What both sides of its frames must be multiples of: a protocol's size is rounded down to it.
        size: (height, width) of the only frames that it takes, in place of a protocol's; None: it takes others.
    """

    encode: Encoder
    normalisation: Normalisation = IMAGENET
    multiple: int = 1
    size: tuple[int, int] | None = None

    def __call__(self, frames: Tensor) -> Tensor:
        """Encode frames (1, 3, H, W)."""
        return self.encode(frames)

    def size_for(self, wanted: tuple[int, int]) -> tuple[int, int]:
        """Return the (height, width) that it takes in place of the one that a protocol wants."""
        rounded = [max(side // self.multiple, 1) * self.multiple for side in wanted]
        return self.size or (rounded[0], rounded[1])

    def described(self) -> dict[str, Any]:
        """Return what it asks of frames, JSON-able."""
        return {"multiple": self.multiple, "size": None if self.size is None else list(self.size)}


def fitted_protocol(protocol: PropagationProtocol, encode: Encoder) -> PropagationProtocol:
    """Return a protocol with the normalisation that an encoder's frames get under it.

    Args:
        protocol: As it is published.
        encode: A `FrameEncoder`; any other function gets frames as the protocol says.
    """
    if not isinstance(encode, FrameEncoder) or not protocol.own_normalisation:
        return protocol
    return replace(protocol, image_mean=encode.normalisation.mean, image_std=encode.normalisation.std)


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
        protocol: How frames are resized and normalised, where `encode` does not say so; see `fitted_protocol`.
        device: Where `encode` gets its frames.
        size: (height, width) that the frames must have; default: those of the first one.

    Raises:
        ValueError: A frame of another size, or features of the wrong shape.
    """
    protocol = fitted_protocol(protocol, encode)
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
    wanted = protocol.size.of(*own)
    size = encode.size_for(wanted) if isinstance(encode, FrameEncoder) else wanted
    resized = F.interpolate(picture[None], size, mode="bilinear", align_corners=False)
    features = encode(Normalisation(protocol.image_mean, protocol.image_std)(resized))
    if not isinstance(features, Tensor) or features.ndim != 4 or len(features) != 1:
        seen = tuple(features.shape) if isinstance(features, Tensor) else type(features).__name__
        raise ValueError(f"encode must turn frames (1, 3, {size[0]}, {size[1]}) into features (1, D, h, w), got {seen}")
    return EncodedFrame(features[0], own, size)


def chained(first: EncodedFrame, rest: Iterator[EncodedFrame]) -> Iterator[EncodedFrame]:
    """Put the first frame back before the others."""
    yield first
    yield from rest
