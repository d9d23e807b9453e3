"""The recurrent update of flow at 1/8 of a frame, and its refinement at 1/4."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from midway_hub.heads import CorrelationHeadConfig
from midway_hub.models.correlation.layers import conv, output
from midway_hub.models.correlation.sampling import upsample_convex, warp
from midway_hub.models.correlation.volume import local_correlation

MASK_SCALE = 0.25  # of upsampling weights, which otherwise learn too fast (RAFT)


class Update(nn.Module):
    """One step: correlations around the estimate, the estimate and the context go through a convolutional GRU."""

    def __init__(self, config: CorrelationHeadConfig) -> None:
        super().__init__()
        windows = config.levels * (2 * config.radius + 1) ** 2
        self.correlation1, self.correlation2 = conv(windows, 96, 1), conv(96, 64)
        self.flow1, self.flow2 = conv(2, 32, 7), conv(32, 32)
        self.motion = conv(96, config.motion_dim - 2)
        inputs = config.hidden_dim + config.context_dim + config.motion_dim
        self.gates = nn.Conv2d(inputs, 2 * config.hidden_dim, 3, padding=1)
        self.candidate = nn.Conv2d(inputs, config.hidden_dim, 3, padding=1)
        self.inner = conv(config.hidden_dim, 96)
        self.change = output(96, 2, std=5e-3)

    def forward(self, hidden: Tensor, context: Tensor, correlations: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Return the next hidden state, and what is to be added to flow (B, 2, h, w), in fp32."""
        seen = F.relu(self.correlation2(F.relu(self.correlation1(correlations.to(hidden.dtype)))))
        moved = F.relu(self.flow2(F.relu(self.flow1(flow.to(hidden.dtype)))))
        motion = F.relu(self.motion(torch.cat([seen, moved], 1)))
        inputs = torch.cat([context, motion, flow.to(motion.dtype)], 1)
        update, reset = self.gates(torch.cat([hidden, inputs], 1)).sigmoid().chunk(2, 1)
        candidate = self.candidate(torch.cat([reset * hidden, inputs], 1)).tanh()
        hidden = torch.lerp(hidden, candidate, update)
        return hidden, self.change(F.relu(self.inner(hidden))).float()


class FineState(NamedTuple):
    """What refinement reads of a pair at 1/4: features of both frames, and context of the source and the update."""

    source: Tensor
    target: Tensor
    context: Tensor


class Refinement(nn.Module):
    """One step at 1/4: the target's details warped along the estimate, compared within a small window (PWC-Net)."""

    def __init__(self, config: CorrelationHeadConfig) -> None:
        super().__init__()
        detail, dim = config.pyramid_dims[1], config.refine_dim
        self.radius = config.refine_radius
        self.features, self.context = conv(detail, 32, 1), conv(detail, 32, 1)
        self.hidden = conv(config.hidden_dim, 32 * 4, 1)
        self.join = conv(64 + (2 * self.radius + 1) ** 2 + 1 + 2, dim)
        self.inner1, self.inner2 = conv(dim, dim), conv(dim, dim)
        self.change = output(dim, 3, std=1e-2)
        self.weights = nn.Sequential(conv(dim, dim), nn.ReLU(), nn.Conv2d(dim, 9 * 16, 1))

    def prepare(self, source: Tensor, target: Tensor, hidden: Tensor) -> FineState:
        """Read both frames' details (B, C, h, w) at 1/4 and the hidden state at 1/8."""
        context = [F.relu(self.context(source)), F.relu(F.pixel_shuffle(self.hidden(hidden), 2))]
        return FineState(self.features(source), self.features(target), torch.cat(context, 1))

    def forward(self, state: FineState, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Map flow (B, 2, h, w) at 1/4 to a better one, and to the estimate (B, 3, 4h, 4w) in pixels, both in fp32."""
        warped = warp(state.target, flow).to(state.source.dtype)
        correlations = local_correlation(state.source, warped, self.radius)
        difference = (state.source - warped).abs().mean(1, keepdim=True)
        seen = [state.context, correlations, difference, flow / 8]
        inner = F.relu(self.join(torch.cat([part.to(state.context.dtype) for part in seen], 1)))
        inner = inner + F.relu(self.inner2(F.relu(self.inner1(inner))))
        found = self.change(inner).float()
        flow = flow + found[:, :2]
        fine = upsample_convex(flow, MASK_SCALE * self.weights(inner), 4)
        scale = F.interpolate(found[:, 2:], scale_factor=4, mode="bilinear", align_corners=False)
        return flow, torch.cat([fine, scale], 1)
