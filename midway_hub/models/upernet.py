"""UperNet for a ViT: a neck that makes four scales of one, and transformers' head as mmsegmentation starts it."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch.nn.functional as F
import transformers
from torch import Tensor, nn

from midway_hub.models._heads import Head

LEAST_GRID = 2
"""Patches that a frame needs along each side before a neck can halve its grid."""


class ConvolutionalHead(Head):
    """A head whose plain convolutions start as mmcv's do: Kaiming normal by fan-out."""

    def initialise_module(self, module: nn.Module) -> None:
        """Draw the weights of one module: classifiers and necks know their own, norms and the rest are torch's."""
        super().initialise_module(module)
        if type(module) is nn.Conv2d:
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class Classifier(nn.Conv2d):
    """Dropout of whole channels and a 1×1 convolution to classes, drawn from N(0, 0.01) without bias (spec B2, B3)."""

    def __init__(self, in_channels: int, classes: int, dropout: float = 0.0) -> None:
        super().__init__(in_channels, classes, kernel_size=1)
        self.dropout = dropout

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.normal_(self.weight, std=0.01)
        nn.init.zeros_(self.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D, h, w) to logits (B, K, h, w)."""
        return super().forward(F.dropout2d(features, self.dropout, self.training))


class AuxiliaryHead(ConvolutionalHead):
    """A second, shallow classifier that keeps UperNet's third map honest in training (FCN, spec B3); never exported.

    Args:
        in_channels: Channels of the map it reads: the encoder's width.
        classes: Number of classes.
        channels: Width of its one 3×3 convolution.
        dropout: Share of the channels that the classifier does not see in training.
    """

    def __init__(self, in_channels: int, classes: int, channels: int = 256, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, channels, kernel_size=3, padding=1, bias=False)
        self.batch_norm = nn.BatchNorm2d(channels)
        self.classifier = Classifier(channels, classes, dropout)
        self.initialise()

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, D, h, w) to logits (B, K, h, w)."""
        return self.classifier(F.relu(self.batch_norm(self.conv(features))))


class PyramidNeck(nn.Module):
    """Maps at 4, 2, 1 and 1/2 times the patch grid by learned upsampling: Feature2Pyramid of MAE, BEiT and iBOT."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.upsample_4x = nn.Sequential(_double(width), nn.BatchNorm2d(width), nn.GELU(), _double(width))
        self.upsample_2x = _double(width)
        self.downsample_2x = nn.MaxPool2d(kernel_size=2, stride=2)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map four (B, D, h, w) to (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w) and (B, D, h/2, w/2)."""
        _check_grid(features[-1])
        first, second, third, fourth = features
        return self.upsample_4x(first), self.upsample_2x(second), third, self.downsample_2x(fourth)


class LateralNeck(nn.Module):
    """Maps at 4, 2, 1 and 1/2 times the patch grid by interpolation between convolutions: mmseg's MultiLevelNeck."""

    scales = (4.0, 2.0, 1.0, 0.5)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(XavierConv2d(width, width, kernel_size=1) for _ in self.scales)
        self.convs = nn.ModuleList(XavierConv2d(width, width, kernel_size=3, padding=1) for _ in self.scales)

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Map four (B, D, h, w) to (B, D, 4h, 4w), (B, D, 2h, 2w), (B, D, h, w) and (B, D, h/2, w/2)."""
        _check_grid(features[-1])
        return tuple(
            conv(F.interpolate(lateral(grid), scale_factor=scale, mode="bilinear", align_corners=False))
            for grid, scale, lateral, conv in zip(features, self.scales, self.lateral_convs, self.convs, strict=True)
        )


class NoNeck(nn.Module):
    """Leaves all maps at the patch grid, as some of mmsegmentation's ViT configurations do."""

    def __init__(self, width: int) -> None:
        super().__init__()

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the maps as they are."""
        return tuple(features)


class XavierConv2d(nn.Conv2d):
    """A convolution that starts as mmsegmentation's MultiLevelNeck starts its own: Xavier uniform, no bias."""

    def reset_parameters(self) -> None:
        """Draw the weights."""
        nn.init.xavier_uniform_(self.weight)
        nn.init.zeros_(self.bias)


NECKS: dict[str, type[nn.Module]] = {"pyramid": PyramidNeck, "lateral": LateralNeck, "none": NoNeck}


def build_upernet(width: int, classes: int, *, channels: int, pool_scales: Sequence[int], dropout: float) -> nn.Module:
    """Build UperNet's head (arXiv 1807.10221): transformers' module, which has mmsegmentation's layout, with dropout.

    Args:
        width: Channels of each of the four maps it reads.
        classes: Number of classes.
        channels: Its own width.
        pool_scales: Grids that the pyramid pooling reduces the coarsest map to.
        dropout: Share of the channels that the classifier does not see in training.

    Returns:
        A module that maps four maps, fine to coarse, to logits at the finest map's size.

    Raises:
        ImportError: The installed transformers has moved its module.
    """
    try:
        from transformers.models.upernet.modeling_upernet import UperNetHead
    except ImportError as error:
        raise ImportError(
            f"UperNet is made of UperNetHead in transformers.models.upernet.modeling_upernet, which transformers "
            f"{transformers.__version__} does not have; install transformers 5.23, or use the linear head"
        ) from error
    numbers = SimpleNamespace(pool_scales=tuple(pool_scales), hidden_size=channels, num_labels=classes)
    head = UperNetHead(numbers, in_channels=[width] * 4)
    head.classifier = Classifier(channels, classes, dropout)
    return head


def check_pooled_batch(head: nn.Module, batch: int) -> None:
    """Refuse to train UperNet on single frames: its pooling to one position leaves BatchNorm one value per channel.

    Raises:
        ValueError: `batch` is 1 and a BatchNorm that is not synchronised over devices would have to learn from it.
    """
    pooled = (block for scale, block in zip(head.pool_scales, head.psp_modules.children(), strict=True) if scale == 1)
    alone = any(type(norm) is nn.BatchNorm2d and norm.training for block in pooled for norm in block.modules())
    if batch == 1 and alone:
        raise ValueError(
            "UperNet trains on at least 2 frames at a time, got 1: its pooling to one position leaves BatchNorm a "
            "single value per channel. Take batches of 2 or more, or call eval() on the head; in a run raise "
            "data.batch_size, lower engine.accumulate, or take several processes, whose BatchNorm is synchronised"
        )


def _double(width: int) -> nn.Module:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _check_grid(features: Tensor) -> None:
    if min(features.shape[-2:]) < LEAST_GRID:
        raise ValueError(
            f"UperNet's neck halves the patch grid, and this one is {features.shape[-2]}×{features.shape[-1]}; frames "
            f"need at least {LEAST_GRID} patches along each side: segment() pads smaller ones"
        )
