"""Forward feature perturbation: where a patch of the source frame goes in the target frame (paper section 4.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from midway_hub._tensors import need_finite
from midway_hub.analysis.tangents import CountedPush, Push, make_push
from midway_hub.models.network import MidwayNetwork
from midway_hub.outputs import Motion

Measure = Literal["alignment", "gain"]
Progress = Callable[[int, int], None]
TINY = 1e-30


def _tiny(dtype: torch.dtype) -> float:
    """Return what lengths are divided by at least: in float16, 1e-30 is 0, and nothing over nothing is NaN."""
    return max(TINY, torch.finfo(dtype).tiny)


@torch.no_grad()
def perturbation_heatmaps(
    net: MidwayNetwork,
    motion: Motion,
    tokens: Sequence[int] | None = None,
    *,
    level: int | None = None,
    draws: int = 16,
    seed: int = 0,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Heatmaps of where source patches go: the forward predictor's response to a perturbed patch.

    A random direction r is attached as tangent to one source token, motion latents held fixed, and pushed through the
    level's forward predictor by forward-mode differentiation; a target token's score is the cosine similarity of r and
    that token's tangent, averaged over draws. All patches share the draws.

    Args:
        net: A network with dynamics.
        motion: What it inferred for one pair of frames: `net.infer_motion(source, target)` with a batch of 1.
        tokens: Source patches, row by row from 0 (the CLS token does not count); default: all.
        level: Encoder block whose prediction is asked; default: the finest.
        draws: Random directions per patch.
        seed: Seed of the directions.
        chunk: Directions pushed through at once; bounds memory. Default: what is fast.
        progress: Called after every chunk, and before the first, with how many directions are through, of how many.
            What it raises ends the work.

    Returns:
        (len(tokens), h, w), between -1 and 1.

    Raises:
        ValueError: A level, token or number is out of range, the motion is not of one pair, or heatmaps are not finite.
    """
    tokens, index = _checked(motion, tokens, level, draws=draws, chunk=chunk)
    generator = torch.Generator().manual_seed(seed)
    refined = motion.source[index]
    directions = torch.randn(draws, refined.shape[-1], generator=generator).to(refined)
    push = _push(net, motion, index, directions=len(tokens) * draws, progress=progress)
    maps = []
    for some in _grouped(tokens, refined.device, draws, chunk or push.chunk):
        sums = torch.zeros(len(some), refined.shape[1] - 1, device=refined.device, dtype=refined.dtype)
        for few in directions.split(chunk or push.chunk):
            moved = push(some + 1, few)[:, 1:]
            along = torch.bmm(moved, F.normalize(few, dim=1).repeat(len(some), 1)[..., None]).squeeze(-1)
            cosines = along / torch.linalg.vector_norm(moved, dim=-1).clamp_min(_tiny(refined.dtype))
            sums += cosines.unflatten(0, (len(some), len(few))).sum(dim=1)
        maps.append(sums / draws)
    return _finished(maps, motion)


@torch.no_grad()
def jacobian_heatmaps(
    net: MidwayNetwork,
    motion: Motion,
    tokens: Sequence[int] | None = None,
    *,
    level: int | None = None,
    measure: Measure = "alignment",
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Heatmaps of where source patches go, without random draws: from the predictor's whole Jacobian.

    With J the D×D Jacobian of a target token by a source token and r ~ N(0, I), E[r·Jr] = tr J, E|Jr|² = |J|²_F and
    E|r|² = D, so `"alignment"`, tr J / (√D |J|_F), is what the average cosine of `perturbation_heatmaps` tends to:
    both r·Jr and |Jr| hardly vary at these widths. `"gain"` is |J|_F / √D, how much of a perturbation arrives,
    turned or not. D directions per patch are pushed through, so this costs D / draws times as much.

    Args:
        net: A network with dynamics.
        motion: What it inferred for one pair of frames: `net.infer_motion(source, target)` with a batch of 1.
        tokens: Source patches, row by row from 0 (the CLS token does not count); default: all.
        level: Encoder block whose prediction is asked; default: the finest.
        measure: What is told of each Jacobian.
        chunk: Directions pushed through at once; bounds memory. Default: what is fast.
        progress: Called after every chunk, and before the first, with how many directions are through, of how many.
            What it raises ends the work.

    Returns:
        (len(tokens), h, w); alignment lies between -1 and 1, gain is at least 0.

    Raises:
        ValueError: A level, token, number or name is not there, the motion is not of one pair, or heatmaps are not
            finite.
    """
    if measure not in ("alignment", "gain"):
        raise ValueError(f"measure must be 'alignment' or 'gain', got {measure!r}")
    tokens, index = _checked(motion, tokens, level, draws=1, chunk=chunk)
    refined = motion.source[index]
    dim = refined.shape[-1]
    push = _push(net, motion, index, directions=len(tokens) * dim, progress=progress)
    basis = torch.eye(dim, device=refined.device, dtype=refined.dtype)
    maps = []
    for some in _grouped(tokens, refined.device, dim, chunk or push.chunk):
        trace, square = torch.zeros(2, len(some), refined.shape[1] - 1, device=refined.device, dtype=refined.dtype)
        for few in basis.split(chunk or push.chunk):
            moved = push(some + 1, few)[:, 1:]
            along = torch.bmm(moved, few.repeat(len(some), 1)[..., None]).squeeze(-1)
            trace += along.unflatten(0, (len(some), len(few))).sum(dim=1)
            square += torch.linalg.vector_norm(moved, dim=-1).square().unflatten(0, (len(some), len(few))).sum(dim=1)
        norm = (square / dim).sqrt()
        maps.append(norm if measure == "gain" else trace / (dim * norm).clamp_min(_tiny(refined.dtype)))
    return _finished(maps, motion)


def heatmaps_to_pixels(heatmaps: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge heatmaps to a frame's size, bilinearly between patch centres.

    Args:
        heatmaps: (..., h, w).
        size: Height and width in pixels of what went into the network.

    Returns:
        (..., H, W).
    """
    flat = heatmaps.reshape(-1, 1, *heatmaps.shape[-2:])
    large = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return large.reshape(*heatmaps.shape[:-2], *size)


def _finished(maps: Sequence[Tensor], motion: Motion) -> Tensor:
    """Join maps (t, N) of some tokens each to heatmaps (T, h, w)."""
    heatmaps = torch.cat(list(maps)).unflatten(1, motion.grid)
    need_finite(heatmaps, "a heatmap")
    return heatmaps


def _push(net: MidwayNetwork, motion: Motion, index: int, *, directions: int, progress: Progress | None) -> Push:
    if progress is not None:
        progress(0, directions)
    predictor = net.dynamics.levels[str(motion.levels[index])]
    latents = net.dynamics.motion_proj(motion.latents[index])
    push = make_push(predictor, latents, motion.source[index], directions=directions)
    return push if progress is None else CountedPush(push, directions, progress)


def _grouped(tokens: Sequence[int], device: torch.device, each: int, chunk: int) -> Iterator[Tensor]:
    """Yield tokens in groups of as many as fill a chunk with `each` directions per token, at least one."""
    yield from torch.tensor(list(tokens), device=device).split(max(1, chunk // each))


def _checked(
    motion: Motion, tokens: Sequence[int] | None, level: int | None, *, draws: int, chunk: int | None
) -> tuple[Sequence[int], int]:
    """Return the tokens and the level's place among the motion's, or refuse."""
    if motion.target_context.ndim != 3 or motion.target_context.shape[0] != 1:
        shape = tuple(motion.target_context.shape)
        raise ValueError(f"motion must be that of one pair of frames, got target_context of shape {shape}")
    level = motion.levels[-1] if level is None else level
    if level not in motion.levels:
        raise ValueError(f"level {level} is not one of the network's levels {motion.levels}")
    patches = motion.grid[0] * motion.grid[1]
    tokens = range(patches) if tokens is None else tokens
    if not len(tokens) or not all(0 <= token < patches for token in tokens):
        raise ValueError(
            f"tokens must be patches from 0 to {patches - 1} of the {motion.grid} grid, got {list(tokens)}"
        )
    if draws < 1 or (chunk is not None and chunk < 1):
        raise ValueError(f"draws and chunk must be at least 1, got {draws} and {chunk}")
    return tokens, motion.levels.index(level)
