"""Optical flow by matching and recurrent updates (after RAFT, Teed and Deng 2020, and PWC-Net, Sun et al. 2018).

Both frames go through a light pyramid of the head's own at their full size. The encoder's tokens, which say what is
where, and what Midway's dynamics make of the pair join it at 1/8 of the frame, from whatever grid they are on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midway_hub.config import MidwayConfig
from midway_hub.heads import CorrelationHeadConfig
from midway_hub.models._heads import Head
from midway_hub.models.correlation.layers import DetailPyramid, conv
from midway_hub.models.correlation.sampling import places, resize_flow, upsample_convex
from midway_hub.models.correlation.update import MASK_SCALE, Refinement, Update
from midway_hub.models.correlation.volume import Correlations
from midway_hub.outputs import Motion

STRIDE = 8
"""Pixels of a cell that correlations are computed for; frames are multiples of it."""
FIRST_SCALE = 4.0


@dataclass(frozen=True)
class SeenFrame:
    """What the head keeps of a frame, as source and as target alike.

    Attributes:
        detail: (B, C, H/4, W/4).
        match: (B, Cm, H/8, W/8), what is correlated.
        context: (B, hidden + context, H/8, W/8), what the update knows of a source.
    """

    detail: Tensor
    match: Tensor
    context: Tensor


@dataclass(frozen=True)
class FlowSequence:
    """Every estimate on the way to the last one.

    Attributes:
        coarse: Of each update, (B, 2, H/8, W/8) in cells of 8 pixels.
        fine: What upsampling alone, then each refinement makes of the last of them, (B, 3, H, W): flow in pixels and
            the raw scale of the Laplacian, 0 before any refinement.
    """

    coarse: tuple[Tensor, ...]
    fine: tuple[Tensor, ...]


class CorrelationHead(Head):
    """Flow between frames of any size, multiples of 8, with as many updates as are wanted."""

    def __init__(self, config: CorrelationHeadConfig, network: MidwayConfig) -> None:
        super().__init__()
        self.config = config
        eighth, state = config.pyramid_dims[2], config.hidden_dim + config.context_dim
        self.pyramid = DetailPyramid(network.num_channels, config.pyramid_dims, config.depth)
        self.match = nn.Conv2d(eighth, config.match_dim, 1)
        self.match_tokens = nn.Conv2d(network.embed_dim, config.match_dim, 1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(FIRST_SCALE)))
        self.context = nn.Conv2d(eighth, state, 1)
        self.context_tokens = nn.Conv2d(network.embed_dim, state, 1)
        if config.dynamics:
            self.context_motion = nn.Conv2d(2 * network.embed_dim, state, 1)
            self.context_latents = nn.Linear(network.motion_dim, state)
        self.update = Update(config)
        self.weights = nn.Sequential(conv(config.hidden_dim, 64), nn.ReLU(), nn.Conv2d(64, 9 * 4, 1))
        self.refine = Refinement(config)

    def initialise_module(self, module: nn.Module) -> None:
        """Leave the weights as they were drawn: every layer says itself how."""

    def see(self, frames: Tensor, tokens: Tensor) -> SeenFrame:
        """Read what flow needs of frames, once for all pairs that they are in.

        Args:
            frames: (B, 3, H, W), normalised; H and W multiples of 8.
            tokens: (B, D, h, w) of the encoder's last block, of these frames at whatever size.
        """
        detail, eighth = self.pyramid(frames)
        size = (eighth.shape[-2], eighth.shape[-1])
        match = self.match(eighth) + _spread(self.match_tokens(tokens), size)
        context = self.context(eighth) + _spread(self.context_tokens(tokens), size)
        return SeenFrame(detail, match, context)

    def forward(
        self,
        source: SeenFrame,
        target: SeenFrame,
        motion: Motion | None,
        proj: nn.Module | None,
        *,
        updates: int,
        initial: Tensor | None = None,
    ) -> FlowSequence:
        """Estimate flow.

        Args:
            source: From `see`.
            target: From `see`, of frames of the same size.
            motion: From source to target, at the size the encoder saw; None where the head does without.
            proj: Brings the motion width to the encoder's.
            updates: How many, at least 1.
            initial: (B, 2, H', W') flow to start from, in pixels of H' and W'; None: as `config.first` says.
        """
        lookup, first = self._matching(source, target)
        state = source.context
        if self.config.dynamics and motion is not None and proj is not None:
            state = state + self._of_motion(motion, proj, (state.shape[-2], state.shape[-1]))
        hidden, context = state.split([self.config.hidden_dim, self.config.context_dim], 1)
        hidden, context = hidden.tanh(), F.relu(context)
        here = places(state)
        flow = first if initial is None else resize_flow(initial.float(), (state.shape[-2], state.shape[-1]))
        coarse = []
        for _ in range(updates):
            flow = flow.detach()
            hidden, change = self.update(hidden, context, lookup(here + flow), flow)
            flow = flow + change
            coarse.append(flow)
        fine = upsample_convex(flow, MASK_SCALE * self.weights(hidden), 2)
        return FlowSequence(tuple(coarse), self._refined(source, target, hidden, fine))

    def _matching(self, source: SeenFrame, target: SeenFrame) -> tuple[Correlations, Tensor]:
        mean = (source.match.mean((2, 3), keepdim=True) + target.match.mean((2, 3), keepdim=True)).float() / 2
        ours = unit(source.match.float() - mean) * self.log_scale.exp()
        theirs = unit(target.match.float() - mean)
        lookup = Correlations(ours, theirs, levels=self.config.levels, radius=self.config.radius)
        if self.config.first == "matching":
            return lookup, global_matching(ours, theirs)
        return lookup, torch.zeros(len(ours), 2, *ours.shape[-2:], device=ours.device)

    def _of_motion(self, motion: Motion, proj: nn.Module, size: tuple[int, int]) -> Tensor:
        read = torch.cat([proj(motion.target_context), motion.predicted[-1]], -1)[:, 1:]
        grid = read.transpose(1, 2).unflatten(2, motion.grid)
        whole = self.context_latents(motion.latents[-1].mean(1))
        return _spread(self.context_motion(grid), size) + whole[:, :, None, None]

    def _refined(self, source: SeenFrame, target: SeenFrame, hidden: Tensor, flow: Tensor) -> tuple[Tensor, ...]:
        plain = F.interpolate(4 * flow, scale_factor=4, mode="bilinear", align_corners=False)
        found = [torch.cat([plain, torch.zeros_like(plain[:, :1])], 1)]
        state = self.refine.prepare(source.detail, target.detail, hidden)
        for _ in range(self.config.refinements):
            flow, estimate = self.refine(state, flow.detach() if len(found) > 1 else flow)
            found.append(estimate)
        return tuple(found)


def global_matching(source: Tensor, target: Tensor) -> Tensor:
    """Estimate flow as where each place's best matches lie in the mean, at half the resolution (GMFlow, equation 2).

    Args:
        source: (B, C, h, w), scaled so that its products with the target are the softmax's inputs.
        target: (B, C, h, w), of unit length.

    Returns:
        (B, 2, h, w) in cells.
    """
    size = (source.shape[-2], source.shape[-1])
    ours, theirs = (F.avg_pool2d(maps, 2, ceil_mode=True, count_include_pad=False) for maps in (source, target))
    here = places(ours)
    where = here.expand(len(ours), -1, -1, -1).flatten(2).transpose(1, 2)
    found = F.scaled_dot_product_attention(
        ours.flatten(2).transpose(1, 2), theirs.flatten(2).transpose(1, 2), where, scale=4.0
    )
    return resize_flow(found.transpose(1, 2).unflatten(2, (ours.shape[-2], ours.shape[-1])) - here, size)


def unit(maps: Tensor) -> Tensor:
    """Scale the vectors of maps (B, C, h, w) to length 1; those near 0 stay near it."""
    return maps * (maps * maps).sum(1, keepdim=True).clamp_min(1e-12).rsqrt()  # F.normalize is slow over this axis


def _spread(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps of the encoder's grid to that of the correlations."""
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps.float(), size=size, mode="bilinear", align_corners=False).to(maps.dtype)
