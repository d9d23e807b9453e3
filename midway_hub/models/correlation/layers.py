"""Convolutions as the correlation head uses them, and a pyramid of a frame's own details."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    """Make a convolution that keeps the size up to its stride; it is followed by a ReLU unless weights are redrawn."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def output(inputs: int, outputs: int, *, std: float) -> nn.Conv2d:
    """Make a last convolution whose outputs start small."""
    layer = nn.Conv2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(layer.weight, std=std)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


class SpaceNorm(nn.Module):
    """Instance normalisation over space: takes brightness and contrast out, whatever the size of the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight.to(x.dtype), bias=self.bias.to(x.dtype), eps=1e-4)


class Residual(nn.Module):
    """Two 3x3 convolutions, each normalised over space, beside the identity (RAFT's residual unit)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(channels, channels), SpaceNorm(channels)
        self.conv2, self.norm2 = conv(channels, channels), SpaceNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norm1(self.conv1(x)))
        return x + F.relu(self.norm2(self.conv2(inner)))


class DetailPyramid(nn.Module):
    """A light convolutional stem that sees what a patch embedding does not: features at 1/4 and 1/8 of a frame.

    Args:
        channels: Of the frame.
        dims: Widths at 1/2, 1/4 and 1/8.
        depth: Residual units at 1/8.
    """

    def __init__(self, channels: int, dims: Sequence[int], depth: int) -> None:
        super().__init__()
        half, quarter, eighth = dims
        self.at_half = nn.Sequential(conv(channels, half, 5, 2), SpaceNorm(half), nn.ReLU())
        self.at_quarter = nn.Sequential(conv(half, quarter, 3, 2), SpaceNorm(quarter), nn.ReLU(), Residual(quarter))
        self.at_eighth = nn.Sequential(
            conv(quarter, eighth, 3, 2), SpaceNorm(eighth), nn.ReLU(), *(Residual(eighth) for _ in range(depth))
        )

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames (B, C, H, W), sides multiples of 8, to features at 1/4 and at 1/8."""
        quarter = self.at_quarter(self.at_half(frames))
        return quarter, self.at_eighth(quarter)
