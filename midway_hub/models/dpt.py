"""DPT: one dense map out of four maps of a ViT (Ranftl et al. 2021), in the sizes that CroCo v2 reads flow with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midway_hub._tensors import sizes_are_free

Size = tuple[int, ...]


def resize(maps: Tensor, size: Size) -> Tensor:
    """Resize maps (B, C, h, w) bilinearly, corner to corner."""
    if not sizes_are_free() and maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=True)


class ResidualUnit(nn.Sequential):
    """Two 3×3 convolutions, an activation before each, around which the input is carried."""

    def __init__(self, dim: int) -> None:
        super().__init__(nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1), nn.ReLU(), nn.Conv2d(dim, dim, 3, padding=1))

    def forward(self, maps: Tensor) -> Tensor:
        """Return maps of the same shape."""
        return maps + super().forward(maps)


class Fusion(nn.Module):
    """Adds a finer map to what the coarser ones came to, and enlarges the sum; the coarsest has nothing to add to."""

    def __init__(self, dim: int, *, coarsest: bool) -> None:
        super().__init__()
        self.skip = None if coarsest else ResidualUnit(dim)
        self.unit = ResidualUnit(dim)
        self.project = nn.Conv2d(dim, dim, 1)

    def forward(self, maps: Tensor, coarser: Tensor | None, size: Size) -> Tensor:
        """Fuse maps (B, C, h, w) with the coarser ones of the same shape; returns (B, C, *size)."""
        if self.skip is not None and coarser is not None:
            maps = coarser + self.skip(maps)
        return self.project(resize(self.unit(maps), size))


class OutputLayers(nn.Module):
    """Brings fused maps to the size of the frame and to the channels of the output, in fp32 or better."""

    def __init__(self, dim: int, last_dim: int, channels: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, dim // 2, 3, padding=1)
        self.refine = nn.Conv2d(dim // 2, last_dim, 3, padding=1)
        self.project = nn.Conv2d(last_dim, channels, 1)

    def forward(self, maps: Tensor, size: Size) -> Tensor:
        """Map (B, C, h, w) to (B, channels, *size)."""
        maps = F.relu(self.refine(resize(self.reduce(maps), size)))
        # bfloat16 knows 100 pixels only to half a pixel.
        precise = torch.promote_types(maps.dtype, torch.float32)
        with torch.autocast(maps.device.type, enabled=False):
            weights = {name: each.to(precise) for name, each in self.project.named_parameters()}
            return F.conv2d(maps.to(precise), **weights)


class DPT(nn.Module):
    """Reassembles four maps of a patch grid at 4, 2, 1 and ½ times its size and fuses them, coarse to fine.

    Args:
        in_dims: Channels of the four maps, in the order of `layer_dims`.
        layer_dims: Channels of the reassembled maps, fine to coarse.
        feature_dim: Channels of the fused maps, at least 2.
        last_dim: Channels before the output layer.
        channels: Channels of the output.
        patch_size: Pixels of the output per cell of the grid.
    """

    def __init__(
        self,
        in_dims: Sequence[int],
        *,
        layer_dims: Sequence[int] = (96, 192, 384, 768),
        feature_dim: int = 256,
        last_dim: int = 32,
        channels: int = 3,
        patch_size: int = 16,
    ) -> None:
        super().__init__()
        self.patch_size = patch_size
        scales = (
            lambda dim: nn.ConvTranspose2d(dim, dim, 4, stride=4),
            lambda dim: nn.ConvTranspose2d(dim, dim, 2, stride=2),
            lambda dim: nn.Identity(),
            lambda dim: nn.Conv2d(dim, dim, 3, stride=2, padding=1),
        )
        self.reassemble = nn.ModuleList(
            nn.Sequential(nn.Conv2d(in_dim, dim, 1), scale(dim), nn.Conv2d(dim, feature_dim, 3, padding=1, bias=False))
            for in_dim, dim, scale in zip(in_dims, layer_dims, scales, strict=True)
        )
        self.fusions = nn.ModuleList(Fusion(feature_dim, coarsest=index == 3) for index in range(4))
        self.output = OutputLayers(feature_dim, last_dim, channels)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Make a dense map of four coarse ones.

        Args:
            maps: Four (B, C_i, h, w), the first for the finest scale; h and w may be odd.

        Returns:
            (B, channels, h · patch_size, w · patch_size) in fp32 or better.

        Raises:
            ValueError: There are not four maps, or their grids differ.
        """
        if len(maps) != 4 or any(each.shape[-2:] != maps[0].shape[-2:] for each in maps[1:]):
            raise ValueError(f"a DPT head reads four maps on one grid, got {[tuple(each.shape) for each in maps]}")
        height, width = (side * self.patch_size for side in maps[0].shape[-2:])
        levels = [reassemble(each) for reassemble, each in zip(self.reassemble, maps, strict=True)]
        # Each fusion doubles, or meets the next finer map where an odd grid was halved.
        sizes = [(max(1, height // 2), max(1, width // 2)), *(each.shape[-2:] for each in levels[:-1])]
        fused = None
        for fusion, level, size in reversed(list(zip(self.fusions, levels, sizes, strict=True))):
            fused = fusion(level, fused, size)
        return self.output(fused, (height, width))
