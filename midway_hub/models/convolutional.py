"""Convolutional encoders of timm, trained by methods whose papers have them, behind the hub's `encode`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import timm
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from midway_hub.outputs import Features

OUTPUT_STRIDES = (8, 16, 32)


class ConvConfig(PreTrainedConfig):
    """Architecture of a convolutional encoder.

    Args:
        timm: Name of a timm model that gives feature maps, such as `resnet50`.
        output_stride: Stride of the last map, by dilation where it is below 32.
        **kwargs: What every transformers configuration takes.

    Raises:
        ValueError: timm has no such model, or another stride.
    """

    model_type = "midway_conv"

    def __init__(self, *, timm: str = "resnet50", output_stride: int = 32, **kwargs: Any) -> None:
        check_timm_name(timm)
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride must be one of {OUTPUT_STRIDES}, got {output_stride!r}")
        self.timm, self.output_stride = timm, output_stride
        super().__init__(**kwargs)

    @property
    def patch_size(self) -> int:
        """Side in pixels of a cell of the last map."""
        return self.output_stride

    @property
    def dynamics(self) -> bool:
        """Whether there are dynamics: never."""
        return False


class ConvNetwork(PreTrainedModel):
    """A timm encoder without its classifier.

    Args:
        config: Which one.

    Attributes:
        dims: Channels of the maps, fine to coarse.
        strides: Their strides in pixels.
    """

    config_class = ConvConfig

    def __init__(self, config: ConvConfig) -> None:
        super().__init__(config)
        self.body = timm.create_model(
            config.timm, pretrained=False, features_only=True, output_stride=config.output_stride
        )
        self.dims = tuple(self.body.feature_info.channels())
        self.strides = tuple(self.body.feature_info.reduction())
        self.all_tied_weights_keys: dict[str, str] = {}

    def maps(self, images: Tensor) -> list[Tensor]:
        """Map images (B, 3, H, W), normalised, to maps (B, D, h, w), fine to coarse."""
        return self.body(images)

    def encode(self, images: Tensor, *, layers: Sequence[int] | None = None) -> Features:
        """Encode images.

        Args:
            images: (B, 3, H, W), normalised by ImageNet's numbers.
            layers: Maps to return as well, from 0; negatives count from the last.

        Returns:
            `last` (B, D, h, w), the coarsest map; `cls` (B, D), its mean; `layers`.
        """
        maps = self.maps(images)
        last = maps[-1]
        chosen = tuple(maps[index] for index in layers or ())
        return Features(last=last, cls=last.mean(dim=(2, 3)), layers=chosen, grid=(last.shape[2], last.shape[3]))

    def forward(self, pixel_values: Tensor) -> Features:
        """Encode images; see `encode`."""
        return self.encode(pixel_values)

    @torch.no_grad()
    def _init_weights(self, module: torch.nn.Module) -> None:
        """Leave weights as timm draws them."""


def check_timm_name(name: object) -> None:
    """Raise a ValueError where timm has no such model."""
    if isinstance(name, str) and timm.is_model(name):
        return
    import difflib

    near = difflib.get_close_matches(str(name), timm.list_models(), n=2)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    raise ValueError(f"timm has no model {name!r}{hint}")
