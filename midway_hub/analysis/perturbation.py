"""Forward feature perturbation: where a patch of the source frame goes in the target frame (paper section 4.4)."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from midway_hub.models.network import MidwayNetwork
from midway_hub.outputs import Motion


@torch.no_grad()
def perturbation_heatmaps(
    net: MidwayNetwork,
    motion: Motion,
    tokens: Sequence[int],
    *,
    level: int | None = None,
    draws: int = 16,
    seed: int = 0,
    chunk: int = 8,
) -> Tensor:
    """Heatmaps of where source patches go: the forward predictor's response to a perturbed patch.

    A random direction r is attached as tangent to one source token, motion latents held fixed, and pushed through the
    level's forward predictor by forward-mode differentiation; a target token's score is the cosine similarity of r and
    that token's tangent, averaged over draws.

    Args:
        net: A network with dynamics.
        motion: What it inferred for one pair of frames: `net.infer_motion(source, target)` with a batch of 1.
        tokens: Source patches, row by row from 0 (the CLS token does not count).
        level: Encoder block whose prediction is asked; default: the finest.
        draws: Random directions per patch.
        seed: Seed of the directions.
        chunk: Directions pushed through at once; bounds memory.

    Returns:
        (len(tokens), h, w), between -1 and 1.

    Raises:
        ValueError: A level, token or number is out of range, or the motion is not of one pair.
    """
    if motion.target_context.ndim != 3 or motion.target_context.shape[0] != 1:
        shape = tuple(motion.target_context.shape)
        raise ValueError(f"motion must be that of one pair of frames, got target_context of shape {shape}")
    level = motion.levels[-1] if level is None else level
    if level not in motion.levels:
        raise ValueError(f"level {level} is not one of the network's levels {motion.levels}")
    patches = motion.grid[0] * motion.grid[1]
    if not tokens or not all(0 <= token < patches for token in tokens):
        raise ValueError(
            f"tokens must be patches from 0 to {patches - 1} of the {motion.grid} grid, got {list(tokens)}"
        )
    if draws < 1 or chunk < 1:
        raise ValueError(f"draws and chunk must be at least 1, got {draws} and {chunk}")

    index = motion.levels.index(level)
    refined = motion.source[index]
    motion_tokens = net.dynamics.motion_proj(motion.latents[index])
    predictor = net.dynamics.levels[str(level)]

    def response(token: Tensor, direction: Tensor) -> Tensor:
        """Cosine of the direction and every predicted patch's tangent, (N,)."""
        tangent = torch.zeros_like(refined).index_copy(1, token[None] + 1, direction[None, None])
        _, moved = jvp(lambda tokens: predictor.predict(motion_tokens, tokens), (refined,), (tangent,))
        return torch.cosine_similarity(moved[0, 1:], direction[None], dim=-1)

    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(draws, refined.shape[-1], generator=generator).to(refined).repeat(len(tokens), 1)
    repeated = torch.tensor(tokens, device=refined.device).repeat_interleave(draws)
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():  # fused kernels have no forward-mode derivative
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)  # torch's own use of it
        scores = vmap(response, chunk_size=chunk)(repeated, directions)
    return scores.unflatten(0, (len(tokens), draws)).mean(dim=1).unflatten(1, motion.grid)
