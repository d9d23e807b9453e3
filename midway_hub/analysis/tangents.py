"""Pushing perturbations of single source tokens through a forward predictor: two ways to the same tangents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from midway_hub.analysis._forward_mode import forward_mode
from midway_hub.analysis.linearised import LinearisedPredictor
from midway_hub.models.dynamics import DynamicsLevel

MATRICES = 6 * 2**30
"""Bytes that a linearised predictor's matrices may take; beyond that, `JvpPush` serves."""


class Push(Protocol):
    """How the predicted tokens move when one source token does, motion held fixed.

    Attributes:
        chunk: How many directions at once are fast.
    """

    chunk: int

    def __call__(self, tokens: Tensor, directions: Tensor) -> Tensor:
        """Move each of the source tokens (T,) int64, 0 for CLS, in each of the directions (K, D).

        Returns:
            (T·K, 1+N, D), the tangents of all predicted tokens, token by token; valid until the next call.
        """
        ...


class JvpPush:
    """By `torch.func.jvp`, for any predictor.

    Args:
        predictor: Has `predict(motion, source) -> (1, 1+N, D)`.
        motion: (1, M, D).
        source: (1, 1+N, D).
    """

    def __init__(self, predictor: nn.Module, motion: Tensor, source: Tensor) -> None:
        self.predictor, self.motion, self.source = predictor, motion, source
        # On a CPU attention maps that stay in its cache; anywhere, maps that fit into memory.
        fast, scores = (8, 2**25) if source.device.type == "cpu" else (128, 2**28)
        self.chunk = max(1, min(fast, scores // (motion.shape[1] + source.shape[1]) ** 2))

    def __call__(self, tokens: Tensor, directions: Tensor) -> Tensor:
        def tangent(token: Tensor, direction: Tensor) -> Tensor:
            moved = torch.zeros_like(self.source).index_copy(1, token[None], direction[None, None])
            return jvp(lambda source: self.predictor.predict(self.motion, source), (self.source,), (moved,))[1][0]

        with forward_mode(), sdpa_kernel(SDPBackend.MATH):  # fused kernels have no forward-mode derivative
            return vmap(tangent)(tokens.repeat_interleave(len(directions)), directions.repeat(len(tokens), 1))


class LinearisedPush:
    """By the predictor's derivative, worked out once: several times faster for many directions.

    Args:
        predictor: A level of the dynamics.
        motion: (1, M, D).
        source: (1, 1+N, D).
    """

    def __init__(self, predictor: DynamicsLevel, motion: Tensor, source: Tensor) -> None:
        self.linearised = LinearisedPredictor(predictor, motion, source)
        self.chunk = 96 if source.device.type == "cpu" else 1024

    def __call__(self, tokens: Tensor, directions: Tensor) -> Tensor:
        return self.linearised.push(tokens, directions)


class CountedPush:
    """Another way of pushing, which tells how many directions it has pushed.

    Args:
        push: The other way.
        total: How many directions are going to be pushed.
        progress: Called with how many were pushed, and `total`.
    """

    def __init__(self, push: Push, total: int, progress: Callable[[int, int], None]) -> None:
        self._push, self._total, self._progress, self._done = push, total, progress, 0
        self.chunk = push.chunk

    def __call__(self, tokens: Tensor, directions: Tensor) -> Tensor:
        moved = self._push(tokens, directions)
        self._done += len(moved)
        self._progress(self._done, self._total)
        return moved


def make_push(predictor: nn.Module, motion: Tensor, source: Tensor, *, directions: int) -> Push:
    """Return the faster way for so many directions, as far as memory allows.

    Args:
        predictor: Has `predict(motion, source)`; only the network's own kind is linearised by hand.
        motion: (1, M, D), motion latents brought to the encoder's width.
        source: (1, 1+N, D), the source's backward features.
        directions: How many are going to be pushed.
    """
    ours = type(predictor) is DynamicsLevel and source.dtype in (torch.float32, torch.float64)
    pays = directions >= source.shape[-1]
    if ours and pays and LinearisedPredictor.matrix_bytes(predictor, motion, source) <= MATRICES:
        return LinearisedPush(predictor, motion, source)
    return JvpPush(predictor, motion, source)
