"""Losses of optical flow (CroCo v2): Laplacian likelihoods whose scale the network predicts, and plain L1.

All compare an estimate (B, 3, H, W), flow in pixels and the raw scale s, with the true flow (B, 2, H, W) where it is
known. They are means, in fp32, over the batch's pixels whose true flow is valid, finite and shorter than `max_flow`
pixels; without any such pixel they are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from midway_hub.models.flow import bounded_scale
from midway_hub.training.losses import at_least_float32

MAX_FLOW = 10_000.0

FlowLoss = Callable[..., Tensor]


def bounded_laplacian(
    estimate: Tensor,
    flow: Tensor,
    valid: Tensor,
    *,
    max_flow: float = MAX_FLOW,
    bounds: tuple[float, float] = (0.25, 4.0),
) -> Tensor:
    """Mean of |e|₁ / d + log d, the scale being d = (b - a) · sigmoid(s) + a: what CroCo v2 trains flow with.

    Args:
        estimate: (B, 3, H, W).
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        max_flow: Pixels; longer true flow does not count.
        bounds: a and b in pixels.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    error, raw, counted = _compare(estimate, flow, valid, max_flow, channels=(3,))
    scale = bounded_scale(raw, bounds)
    return _mean(error / scale + scale.log(), counted)


def bounded_log_laplacian(
    estimate: Tensor,
    flow: Tensor,
    valid: Tensor,
    *,
    max_flow: float = MAX_FLOW,
    limit: float = 3.0,
    softness: float = 3.0,
) -> Tensor:
    """Mean of |e|₁ / exp(c) + c, the log-scale being c = 2a · (sigmoid(s / b) - ½): CroCo v2's for stereo.

    Args:
        estimate: (B, 3, H, W).
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        max_flow: Pixels; longer true flow does not count.
        limit: a, which bounds the log-scale on both sides.
        softness: b.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    error, raw, counted = _compare(estimate, flow, valid, max_flow, channels=(3,))
    log_scale = 2 * limit * ((raw / softness).sigmoid() - 0.5)
    return _mean(error * (-log_scale).exp() + log_scale, counted)


def laplacian(estimate: Tensor, flow: Tensor, valid: Tensor, *, max_flow: float = MAX_FLOW) -> Tensor:
    """Mean of |e|₁ / exp(s) + s, the scale unbounded.

    Args:
        estimate: (B, 3, H, W).
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        max_flow: Pixels; longer true flow does not count.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    error, raw, counted = _compare(estimate, flow, valid, max_flow, channels=(3,))
    return _mean(error * (-raw).exp() + raw, counted)


def l1(estimate: Tensor, flow: Tensor, valid: Tensor, *, max_flow: float = MAX_FLOW) -> Tensor:
    """Mean of |e|₁ over pixels; teaches the scale nothing.

    Args:
        estimate: (B, 2, H, W), or (B, 3, H, W) whose third channel is not read.
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        max_flow: Pixels; longer true flow does not count.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    error, _, counted = _compare(estimate, flow, valid, max_flow, channels=(2, 3))
    return _mean(error, counted)


def sequence_l1(
    estimates: Sequence[Tensor],
    flow: Tensor,
    valid: Tensor,
    *,
    gamma: float = 0.8,
    max_flow: float = MAX_FLOW,
    weights: Tensor | None = None,
) -> Tensor:
    """Sum of |e|_1 of every estimate on the way, each `gamma` times as much as the next one (RAFT, equation 7).

    Args:
        estimates: (B, 2, H, W) each, first to last.
        flow: (B, 2, H, W) in pixels.
        valid: (B, H, W) bool.
        gamma: How much less an estimate counts than the one that follows it.
        max_flow: Pixels; longer true flow does not count.
        weights: (B, H, W), how much each pixel counts; default: all alike.

    Raises:
        ValueError: Shapes that do not belong together.
    """
    total = flow.new_zeros(())
    for index, estimate in enumerate(estimates):
        error, _, counted = _compare(estimate, flow, valid, max_flow, channels=(2,))
        error = error if weights is None else error * weights
        total = total + gamma ** (len(estimates) - 1 - index) * _mean(error, counted)
    return total


FLOW_LOSSES: Mapping[str, FlowLoss] = {
    function.__name__: function for function in (bounded_laplacian, bounded_log_laplacian, laplacian, l1)
}


def _compare(
    estimate: Tensor, flow: Tensor, valid: Tensor, max_flow: float, channels: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return |du| + |dv|, the raw scale and what counts, each (B, H, W); the first two are constant where not."""
    batch, _, *size = estimate.shape
    if (
        estimate.shape[1] not in channels
        or flow.shape != (batch, 2, *size)
        or valid.shape != (batch, *size)
        or valid.dtype != torch.bool
    ):
        raise ValueError(
            f"wanted an estimate (B, {' or '.join(map(str, channels))}, H, W), flow (B, 2, H, W) and valid (B, H, W) "
            f"bool, got {tuple(estimate.shape)}, {tuple(flow.shape)} and {tuple(valid.shape)} {valid.dtype}"
        )
    estimate, flow = at_least_float32(estimate), at_least_float32(flow)
    counted = valid & flow.isfinite().all(1) & (torch.hypot(flow[:, 0], flow[:, 1]) < max_flow)
    # Replaced before anything is computed: the gradient of 0 · NaN would be NaN.
    estimate, flow = (torch.where(counted[:, None], values, 0.0) for values in (estimate, flow))
    return (estimate[:, :2] - flow).abs().sum(1), estimate[:, -1], counted


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
