"""Optical flow: a DPT head on the dynamics (paper App. B.4), on whole frames or in tiles."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from midway_hub._tensors import need_finite
from midway_hub.config import MidwayConfig
from midway_hub.heads import AnyFlowHeadConfig, CorrelationHeadConfig, FlowHeadConfig, PairDecoderConfig
from midway_hub.models._heads import Head
from midway_hub.models.dpt import DPT
from midway_hub.models.tiling import Size, overlapping_windows, pad_to, predict_in_windows, round_up
from midway_hub.outputs import FlowOutput, Motion

DEFAULT_OVERLAP = 0.5
CONFIDENCE_SLOPE, CONFIDENCE_SOFTNESS = 10.0, 5.0  # beta and b' of CroCo v2's weights for flow
PIXELS_AT_ONCE = 2**17  # of windows that are one batch: one of 320x384, or 32 of 64x64

Tile = Size | Literal["training", "default"] | None
"""Windows of a height and width in pixels, those of the training crop, what the head takes by default, or None."""


class FlowHead(Head):
    """Reads flow and its uncertainty off four sets of tokens: of the source frame, of the target, and predictions."""

    def __init__(self, config: FlowHeadConfig, network: MidwayConfig) -> None:
        super().__init__()
        self.config = config
        self.dpt = DPT(
            [network.embed_dim, *[_width(config, network)] * 3],
            layer_dims=config.layer_dims,
            feature_dim=config.feature_dim,
            last_dim=config.last_dim,
            patch_size=network.patch_size,
        )

    def forward(self, tokens: tuple[Tensor, ...], grid: tuple[int, int]) -> Tensor:
        """Read flow off tokens.

        Args:
            tokens: Four (B, 1+N, D), CLS first, as `flow_head_inputs` orders them.
            grid: Patch grid (h, w), N = h·w.

        Returns:
            (B, 3, H, W) in fp32: flow in pixels, x then y, and the raw scale s of the Laplacian.

        Raises:
            ValueError: Tokens that the grid does not hold.
        """
        patches = grid[0] * grid[1]
        for each in tokens:
            if each.shape[1] != 1 + patches:
                raise ValueError(
                    f"a grid of {grid} holds {patches} patches and a CLS token before them, got {each.shape[1]} tokens"
                )
        return self.read([each[:, 1:].transpose(1, 2).unflatten(2, grid) for each in tokens])

    def read(self, maps: list[Tensor]) -> Tensor:
        """Read flow off four maps (B, D, h, w); see `forward`."""
        return self.dpt(maps)


def _width(config: FlowHeadConfig, network: MidwayConfig) -> int:
    """Return how wide the maps behind the source's own are."""
    if config.reads == "dynamics":
        return network.embed_dim
    if network.pair_decoder is None:
        raise ValueError("a flow head that reads a decoder needs a network with one (pair_decoder), as croco trains it")
    return PairDecoderConfig.of(network.pair_decoder).dim


def flow_head_inputs(source: Tensor, motion: Motion, motion_proj: nn.Module) -> tuple[Tensor, ...]:
    """Order what the flow head reads as the paper lists it, fine scale of the DPT to coarse.

    Args:
        source: Source frame's tokens after the last encoder block, (B, 1+N, D).
        motion: From that source frame to the target frame.
        motion_proj: Brings the motion width to the encoder's.

    Returns:
        Four (B, 1+N, D): the source's tokens, the target's after the top midway path, and the target's as predicted
        at the coarsest and at the finest level.
    """
    return source, motion_proj(motion.target_context), motion.predicted[0], motion.predicted[-1]


def bounded_scale(raw: Tensor, bounds: tuple[float, float]) -> Tensor:
    """Map the head's raw scale s to a Laplacian's scale (b - a) · sigmoid(s) + a in pixels, in fp32."""
    least, largest = bounds
    return (largest - least) * raw.float().sigmoid() + least


def confidence(estimate: Tensor) -> Tensor:
    """Weigh an estimate (B, 3, H, W) by exp(-2β (sigmoid(s / b') - ½)): 1 at s = 0, less where s is larger (CroCo v2).

    Returns:
        (B, 1, H, W) in fp32, between e^-10 and e^10.
    """
    raw = estimate[:, 2:].float()
    return (-2 * CONFIDENCE_SLOPE * ((raw / CONFIDENCE_SOFTNESS).sigmoid() - 0.5)).exp()


def estimate_flow(
    predict: Callable[[Tensor, Tensor], Tensor],
    head: FlowHeadConfig,
    network: MidwayConfig,
    source: Tensor,
    target: Tensor,
    tile: Tile,
    overlap: float | None,
) -> FlowOutput:
    """Estimate flow between frames of any size, at once or in overlapping windows weighted by confidence.

    Whole frames are padded on the right and at the bottom, by their edge, to multiples of the patch size. Windows keep
    their size, which the network was trained at: frames smaller than a window are padded up to it.

    Args:
        predict: `MidwayNetwork.predict_flow`, or a compiled one.
        head: The flow head's configuration.
        network: The network's configuration.
        source: (B, 3, H, W), normalised.
        target: (B, 3, H, W), normalised.
        tile: As for `flow_window`.
        overlap: Share of a window that the next one covers again; None: 0.5 where there are windows.

    Returns:
        Flow and uncertainty at the frames' size, in fp32.

    Raises:
        ValueError: A tile that is not made of whole patches, an overlap out of range or without a tile, or an estimate
            that is not finite.
    """
    height, width = source.shape[-2:]
    window = flow_window(tile, head, network.patch_size)
    check_overlap(window, overlap)
    if window is None:
        frames = [pad_to(frame, round_up((height, width), network.patch_size)) for frame in (source, target)]
        estimate = predict(*frames).float()
    else:
        frames = [pad_to(frame, window) for frame in (source, target)]
        padded = (frames[0].shape[-2], frames[0].shape[-1])
        offsets = overlapping_windows(padded, window, DEFAULT_OVERLAP if overlap is None else overlap)
        at_once = max(1, PIXELS_AT_ONCE // (window[0] * window[1]))
        estimate = predict_in_windows(predict, frames, offsets, window, weigh=confidence, at_once=at_once)
    estimate = estimate[..., :height, :width]
    need_finite(estimate, "the flow")
    return FlowOutput(flow=estimate[:, :2], uncertainty=torch.log(bounded_scale(estimate[:, 2], head.scale_bounds)))


def check_overlap(window: Size | None, overlap: float | None) -> None:
    """Refuse an overlap that is out of range, or of windows that there are none of, with a ValueError."""
    if overlap is None:
        return
    if window is None:
        raise ValueError(f"overlap={overlap} is that of windows, and there are none: name a tile too")
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap must be at least 0 and below 1, got {overlap}")


def flow_window(tile: Tile, head: AnyFlowHeadConfig, patch_size: int) -> Size | None:
    """Return the windows that flow is estimated in.

    Args:
        tile: Height and width in pixels, `"training"` for `head.tile`, `"default"` for these where `head.tiled` says
            so and whole frames elsewhere, or None for whole frames.
        head: The flow head's configuration.
        patch_size: The network's.

    Returns:
        Height and width in pixels; None: whole frames.

    Raises:
        ValueError: A tile that is not made of whole patches, or any for a correlation head.
    """
    if isinstance(head, CorrelationHeadConfig):
        if tile not in ("default", None):
            raise ValueError(
                f"tile={tile!r}: this checkpoint's flow head sees whole frames of any size and takes no windows; leave "
                "the tile out"
            )
        return None
    if tile == "default":
        tile = "training" if head.tiled else None
    if tile is None:
        return None
    sides = head.tile if tile == "training" else tuple(tile) if isinstance(tile, tuple | list) else ()
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 and side % patch_size == 0 for side in sides):
        raise ValueError(
            f"tile must be 'training', 'default' or (height, width) in multiples of {patch_size} pixels, such as "
            f"{round_up((320, 384), patch_size)}, got {tile!r}"
        )
    return sides[0], sides[1]
