"""The rules of tracking, on scores of every patch: where a patch went, and how sure that is."""

from __future__ import annotations

import torch
from torch import Tensor


def choose(similarity: Tensor, heatmaps: Tensor | None = None, *, top: int = 5) -> Tensor:
    """Choose one target patch per tracked patch.

    Args:
        similarity: (P, N), cosine similarity of each tracked patch's feature with those of all target patches.
        heatmaps: (P, N), scores of the target patches by the dynamics; without them, similarity alone decides.
        top: The most similar of this many target patches of the highest heatmap score is chosen (paper, section 4.4).

    Returns:
        (P,) int64, target patches.
    """
    if heatmaps is None:
        return similarity.argmax(dim=1)
    highest = heatmaps.topk(min(top, heatmaps.shape[1]), dim=1).indices
    return highest.gather(1, similarity.gather(1, highest).argmax(dim=1, keepdim=True)).squeeze(1)


def agreement(features: Tensor, target: Tensor, back_to: Tensor, grid: tuple[int, int]) -> Tensor:
    """How well the way back agrees with the way there.

    Args:
        features: (N, D), of unit length, of the frame that is gone back to.
        target: (P, D), of unit length: features of the patches that tracked patches went to.
        back_to: (P,) int64, the patches that they came from.
        grid: Patch grid (h, w).

    Returns:
        (P,), exp(-e) where e is the distance in patches between where a patch came from and the patch there that is
        most similar to where it went: 1 where the two are the same, 0.37 where they are neighbours.
    """
    returned = (target @ features.T).argmax(dim=1)
    across = returned % grid[1] - back_to % grid[1]
    down = returned // grid[1] - back_to // grid[1]
    return (-torch.hypot(across.float(), down.float())).exp()


def sub_patch_shift(here: Tensor, there: Tensor, origins: Tensor, chosen: Tensor, grid: tuple[int, int]) -> Tensor:
    """By how much less or more than whole patches something moved, from similarities around both ends.

    Along each axis: the top of the parabola through the similarity where it went and at the two neighbours, less that
    of the same parabola where it was in its own frame, so that what stands still does not move.

    Args:
        here: (P, N), similarity of each tracked patch's feature with all patches of its own frame.
        there: (P, N), with all patches of the target frame.
        origins: (P,) int64, the tracked patches.
        chosen: (P,) int64, the target patches.
        grid: Patch grid (h, w).

    Returns:
        (P, 2), in patches, x to the right, then y downwards, each at most 1; 0 along an axis that leads out of the
        frame from either end.
    """
    (start, start_inside), (end, end_inside) = _summit(here, origins, grid), _summit(there, chosen, grid)
    return (end - start) * (start_inside & end_inside)


def _summit(scores: Tensor, patches: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Where parabolas around patches are highest, (P, 2) between -0.5 and 0.5, and whether both neighbours exist."""
    summits, inside = [], []
    for place, length, step in ((patches % grid[1], grid[1], 1), (patches // grid[1], grid[0], grid[1])):
        has_both = (place > 0) & (place < length - 1)
        near = patches[:, None] + step * torch.tensor([-1, 0, 1])
        before, at, after = scores.gather(1, near.where(has_both[:, None], 0)).unbind(1)
        bend = 2 * at - before - after
        summits.append(torch.where(bend > 0, (after - before) / (2 * bend), 0).clamp(-0.5, 0.5))
        inside.append(has_both)
    return torch.stack(summits, dim=1), torch.stack(inside, dim=1)
