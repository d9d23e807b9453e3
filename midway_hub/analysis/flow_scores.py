"""Scores of a coarse flow against dense ground truth: end-point error and hit rates at the patches' centres."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

HIT_RADII = (0.5, 1.0, 2.0)
Over = Literal["centre", "patch"]


@dataclass(frozen=True)
class FlowScores:
    """How far a coarse flow is from the truth.

    Attributes:
        epe: Mean distance in pixels between estimated and true displacement; NaN where no patch counts.
        hits: Share of patches whose estimate is at most 0.5, 1 and 2 patches off, keyed by that number.
        patches: How many patches counted.
    """

    epe: float
    hits: dict[float, float]
    patches: int

    def as_dict(self, prefix: str = "") -> dict[str, float]:
        """Return the scores as flat numbers: `epe`, `hit_0.5`, `hit_1`, `hit_2`."""
        return {f"{prefix}epe": self.epe, **{f"{prefix}hit_{radius:g}": rate for radius, rate in self.hits.items()}}


def flow_scores(
    flow: Tensor, truth: Tensor, *, valid: Tensor | None = None, patch_size: int = 16, over: Over = "centre"
) -> FlowScores:
    """Score a coarse flow against dense ground truth; all patches of a batch count alike.

    Args:
        flow: (B, 2, h, w) in pixels, one vector per patch.
        truth: (B, 2, H, W) in pixels, H = h·patch_size and W = w·patch_size.
        valid: (B, H, W), true where the truth is known and the pixel counts (say, is not occluded); default: where
            the truth is finite.
        patch_size: Side of a patch in pixels.
        over: What a patch's true flow is, see `truth_at_patches`.

    Returns:
        End-point error and hit rates.

    Raises:
        ValueError: The shapes do not fit.
    """
    sampled, counts = truth_at_patches(truth, valid=valid, patch_size=patch_size, over=over)
    if flow.shape != sampled.shape:
        raise ValueError(
            f"flow must be {tuple(sampled.shape)} to go with a truth of {tuple(truth.shape)} and patches of "
            f"{patch_size} pixels, got {tuple(flow.shape)}"
        )
    errors = torch.linalg.vector_norm(flow.double() - sampled.double(), dim=1)[counts]
    hits = {radius: (errors <= radius * patch_size).double().mean().item() for radius in HIT_RADII}
    return FlowScores(epe=errors.mean().item(), hits=hits, patches=errors.numel())


def truth_at_patches(
    truth: Tensor, *, valid: Tensor | None = None, patch_size: int = 16, over: Over = "centre"
) -> tuple[Tensor, Tensor]:
    """Sample dense flow once per patch.

    Args:
        truth: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool; default: where the truth is finite. Flow that is not finite never counts.
        patch_size: Side of a patch in pixels.
        over: `"centre"`: the mean of the four pixels around the centre (of the one pixel there, if the side is odd),
            all of which must be valid. `"patch"`: the mean of the patch's valid pixels, at least half of all.

    Returns:
        (B, 2, h, w) in pixels, 0 where it does not count, and (B, h, w) bool, where it counts.

    Raises:
        ValueError: The truth is not (B, 2, H, W) of whole patches, or `valid` has another shape.
    """
    if truth.ndim != 4 or truth.shape[1] != 2 or truth.shape[2] % patch_size or truth.shape[3] % patch_size:
        shape = tuple(truth.shape)
        raise ValueError(f"truth must be (B, 2, H, W) with H and W multiples of {patch_size}, got {shape}")
    if over not in ("centre", "patch"):
        raise ValueError(f"over must be 'centre' or 'patch', got {over!r}")
    known = truth.isfinite().all(dim=1)
    if valid is not None:
        if valid.shape != known.shape:
            raise ValueError(f"valid must be {tuple(known.shape)}, got {tuple(valid.shape)}")
        known = known & valid.bool()
    weight = known[:, None].to(truth.dtype)
    patches = truth.masked_fill(~known[:, None], 0)
    window, needed = patch_size, 0.5
    if over == "centre":
        window, needed = 2 - patch_size % 2, 1.0
        margin = (patch_size - window) // 2
        inside = _centres(truth.shape[-2:], patch_size, margin, window, truth.device)
        patches, weight = (values[..., inside[0], :][..., inside[1]] for values in (patches, weight))
    share = F.avg_pool2d(weight, window)
    mean = F.avg_pool2d(patches, window) / share.clamp_min(1e-12)
    counts = share[:, 0] >= needed - 1e-6
    return mean * counts[:, None], counts


def _centres(
    size: torch.Size, patch_size: int, margin: int, window: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rows and columns of the pixels at the patches' centres, `window` of them per patch."""
    rows, columns = (
        (torch.arange(0, side, patch_size)[:, None] + margin + torch.arange(window)).flatten().to(device)
        for side in size
    )
    return rows, columns
