"""Segmentation heads, linear and UperNet, and what they say of whole frames or in a sliding window."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midway_hub._tensors import need_finite
from midway_hub.config import MidwayConfig
from midway_hub.heads import SegmentationHeadConfig
from midway_hub.models._checks import normalise_layers
from midway_hub.models.tiling import pad_to, predict_in_windows, round_up, stepped_windows
from midway_hub.models.upernet import (
    LEAST_GRID,
    NECKS,
    Classifier,
    ConvolutionalHead,
    build_upernet,
    check_pooled_batch,
)
from midway_hub.outputs import SegmentationOutput

FRAMES_AT_ONCE = 8
"""Windows, over all frames of a batch, that go through the network together in sliding inference."""


class LinearReadout(nn.Module):
    """One linear layer on the layers' joint channels: optional BatchNorm (DINOv2's), dropout, classifier (spec B2)."""

    def __init__(self, width: int, classes: int, *, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        self.batch_norm = nn.BatchNorm2d(width) if batch_norm else nn.Identity()
        self.classifier = Classifier(width, classes, dropout)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Map grids, each (B, D, h, w), to logits (B, K, h, w)."""
        return self.classifier(self.batch_norm(torch.cat(list(features), dim=1)))


class SegmentationHead(ConvolutionalHead):
    """Reads classes off encoder blocks or backward features: one linear layer, or UperNet (paper App. B.4, spec B).

    Args:
        config: What the head is made of.
        network: The network whose features it reads.

    Raises:
        ValueError: The network has no such features.
        ImportError: UperNet is wanted, and the installed transformers has moved its module.
    """

    def __init__(self, config: SegmentationHeadConfig, network: MidwayConfig) -> None:
        super().__init__()
        _check_features(config, network)
        self.config = config
        width, classes = network.embed_dim, len(config.classes)
        if config.name == "linear":
            self.decoder: nn.Module = LinearReadout(
                width * len(config.layers), classes, batch_norm=config.batch_norm, dropout=config.dropout
            )
        else:
            self.neck = NECKS[config.neck](width)
            self.decoder = build_upernet(
                width, classes, channels=config.channels, pool_scales=config.pool_scales, dropout=config.dropout
            )

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Tell classes apart.

        Args:
            features: (B, D, h, w) of every layer of the configuration, in its order.

        Returns:
            Logits (B, K, h', w'): on the patch grid, or four times as fine with one of UperNet's necks.

        Raises:
            ValueError: UperNet is trained on a single frame, or a frame is less than two patches high or wide.
        """
        return self.decode(self.pyramid(features))

    def pyramid(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return UperNet's four maps (B, D, ., .), fine to coarse; the linear head's features as they are.

        The third is what an `AuxiliaryHead` reads in training.
        """
        return self.neck(features) if self.config.name == "upernet" else tuple(features)

    def decode(self, maps: Sequence[Tensor]) -> Tensor:
        """Return the logits (B, K, h', w') of what `pyramid` returned."""
        if self.config.name == "upernet":
            check_pooled_batch(self.decoder, maps[-1].shape[0])
        return self.decoder(list(maps))


def segment_frames(
    predict: Callable[[Tensor], Tensor],
    head: SegmentationHeadConfig,
    network: MidwayConfig,
    images: Tensor,
    slide: tuple[int, int] | None,
) -> SegmentationOutput:
    """Segment frames of any size, whole or in a sliding window (mmsegmentation's rule, spec B3).

    Args:
        predict: Maps frames whose sides are multiples of the patch size to logits of any resolution.
        head: The head behind `predict`.
        network: The network behind `predict`.
        images: (B, 3, H, W), normalised.
        slide: Side of the window and step between windows in pixels; None: the whole frame at once.

    Returns:
        Logits in fp32 and labels at the frames' own size. Logits of overlapping windows are averaged.

    Raises:
        ValueError: `slide` is no pair of whole numbers, its step leaves pixels out, or logits are not finite.
    """
    least = LEAST_GRID * network.patch_size if head.name == "upernet" else network.patch_size

    def at_pixels(frames: Tensor) -> Tensor:
        height, width = frames.shape[-2:]
        padded = pad_to(frames, round_up((max(height, least), max(width, least)), network.patch_size))
        logits = F.interpolate(predict(padded).float(), size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return logits[..., :height, :width]

    if slide is None:
        logits = at_pixels(images)
    else:
        side, step = _checked_slide(slide)
        frame = (images.shape[-2], images.shape[-1])
        window = (min(side, frame[0]), min(side, frame[1]))
        offsets = stepped_windows(frame, window, (min(step, window[0]), min(step, window[1])))
        logits = predict_in_windows(at_pixels, [images], offsets, window, at_once=FRAMES_AT_ONCE)
    need_finite(logits, "the segmentation")  # argmax would hide it
    return SegmentationOutput(logits=logits, labels=logits.argmax(dim=1), classes=head.classes, palette=head.palette)


def _checked_slide(slide: object) -> tuple[int, int]:
    pair = tuple(slide) if isinstance(slide, tuple | list) else ()
    if len(pair) != 2 or not all(isinstance(number, int) and not isinstance(number, bool) for number in pair):
        raise ValueError(
            "slide must be the side of the window and the step between windows in pixels, such as (512, 341), or None "
            f"for whole frames; got {slide!r}"
        )
    side, step = pair
    if side < 1:
        raise ValueError(f"slide needs windows of at least 1 pixel, got {side}")
    if not 1 <= step <= side:
        raise ValueError(
            f"slide must step by 1 to {side} pixels, the side of its window, got {step}; larger steps miss pixels"
        )
    return side, step


def _check_features(config: SegmentationHeadConfig, network: MidwayConfig) -> None:
    """Refuse a head that reads what the network does not have."""
    if config.features == "encoder":
        normalise_layers(config.layers, network.depth)
        return
    if not network.dynamics or not network.backward:
        missing = "dynamics" if not network.dynamics else "backward layers"
        raise ValueError(
            f"the segmentation head reads backward features, and this network has no {missing}; "
            "read the encoder's blocks: features='encoder'"
        )
    wrong = [level for level in config.layers if level not in (*network.levels, -1)]
    if wrong:
        raise ValueError(
            f"the segmentation head reads backward features of levels {wrong}; the dynamics have levels "
            f"{', '.join(map(str, network.levels))} (or -1 for the last of them)"
        )
