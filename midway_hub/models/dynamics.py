"""Dynamics between two frames (paper section 3.2): midway path, backward layers and gated forward predictors."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from midway_hub.config import MidwayConfig
from midway_hub.models.blocks import CrossBlock, GatingUnit, SelfAttentionBlock
from midway_hub.models.encoder import resize_position_embedding
from midway_hub.outputs import Motion


class DynamicsLevel(nn.Module):
    """The networks of one prediction level; the EMA copy of the backward layer serves the target frame."""

    def __init__(self, config: MidwayConfig) -> None:
        super().__init__()
        dim, ratio = config.embed_dim, config.mlp_ratio
        self.midway = nn.ModuleList(
            SelfAttentionBlock(config.motion_dim, config.midway_heads, ratio) for _ in range(config.midway_depth)
        )
        backward_depth = 1 if config.backward else 0
        self.backward, self.backward_ema = (
            nn.ModuleList(CrossBlock(dim, config.backward_heads, ratio) for _ in range(backward_depth))
            for _ in ("source", "target")
        )
        self.predictor = nn.ModuleList(
            SelfAttentionBlock(dim, config.predictor_heads, ratio) for _ in range(config.predictor_depth)
        )
        self.gates = nn.ModuleList(GatingUnit(dim) for _ in range(config.predictor_depth - 1 if config.gating else 0))
        self.gradient_checkpointing = False  # set by transformers' gradient_checkpointing_enable()

    def _run(self, block: nn.Module, *inputs: Tensor | None) -> Tensor:
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def exchange(self, tokens: Tensor) -> Tensor:
        """Run the midway path over motion, source and target tokens together, (B, M + 2(1+N), Dm)."""
        for block in self.midway:
            tokens = self._run(block, tokens)
        return tokens

    def refine_source(self, lateral: Tensor, higher: Tensor) -> Tensor:
        """Return the source's backward features (B, 1+N, D) of this level: `lateral` where there are no such layers."""
        for block in self.backward:
            lateral = self._run(block, lateral, higher)
        return lateral

    def refine_target(self, lateral: Tensor, higher: Tensor) -> Tensor:
        """Return the target's backward features (B, 1+N, D) of this level, likewise."""
        for block in self.backward_ema:
            lateral = self._run(block, lateral, higher)
        return lateral

    def predict(self, motion: Tensor, source: Tensor) -> Tensor:
        """Predict target features from motion tokens and the source's backward features.

        The gate of a block is computed from what entered the block before it. Motion tokens are never gated.

        Args:
            motion: (B, M, D), motion latents brought to the encoder's width.
            source: (B, 1+N, D).

        Returns:
            (B, 1+N, D).
        """
        num_motion = motion.shape[1]
        ungated = torch.ones_like(motion)
        tokens = torch.cat([motion, source], dim=1)
        gate: Tensor | None = None
        for index, block in enumerate(self.predictor):
            entered = tokens
            tokens = self._run(block, tokens, gate)
            if index < len(self.gates):
                gate = torch.cat([ungated, self._run(self.gates[index], entered[:, num_motion:])], dim=1)
        return tokens[:, num_motion:]


class Dynamics(nn.Module):
    """Motion latents between two frames, and the target's features predicted from the source's (paper Figure 2)."""

    def __init__(self, config: MidwayConfig) -> None:
        super().__init__()
        self.stored_grid = config.grid_size
        self.target_gradient = config.target_network == "shared"
        self.refinement = config.refinement
        half = 1 + config.grid_size**2
        self.source_embed = nn.Linear(config.embed_dim, config.motion_dim)
        self.target_embed = nn.Linear(config.embed_dim, config.motion_dim)
        self.position_embedding = nn.Parameter(torch.zeros(1, 2 * half, config.motion_dim))
        self.motion_tokens = nn.Parameter(torch.zeros(1, config.num_motion_tokens, config.motion_dim))
        self.motion_proj = nn.Linear(config.motion_dim, config.embed_dim)
        self.levels = nn.ModuleDict({str(level): DynamicsLevel(config) for level in config.levels})
        self.top = config.depth - 1

    def target_side(self) -> dict[nn.Module, nn.Module]:
        """Map each module of the target's side to the source's module that it is the EMA copy of."""
        copies: dict[nn.Module, nn.Module] = {self.target_embed: self.source_embed}
        copies.update({level.backward_ema: level.backward for level in self.levels.values()})
        return copies

    def _target_context(self) -> AbstractContextManager:
        return nullcontext() if self.target_gradient else torch.no_grad()

    def _positions(self, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        both = self.position_embedding.unflatten(1, (2, -1))[0]
        source, target = resize_position_embedding(both, self.stored_grid, grid).split(1)
        return source, target

    def forward(self, source: Mapping[int, Tensor], target: Mapping[int, Tensor], grid: tuple[int, int]) -> Motion:
        """Infer the motion from source to target and predict the target's features.

        Args:
            source: Student tokens (B, 1+N, D) of the source frame, by encoder block: every level's and the last.
            target: Teacher tokens of the target frame, likewise.
            grid: Patch grid (h, w).

        Returns:
            The motion of every level, coarse to fine.
        """
        source_position, target_position = self._positions(grid)
        stream = backward_source = source[self.top]
        context = backward_target = target[self.top]
        initial, above = self.motion_tokens.expand(stream.shape[0], -1, -1), None
        latents, sources, targets, predictions = [], [], [], []
        target_context = None
        for name, level in self.levels.items():
            with self._target_context():
                embedded_target = self.target_embed(context)
            entering = initial if above is None else above
            mixed = level.exchange(
                torch.cat([entering, self.source_embed(stream) + source_position, embedded_target + target_position], 1)
            )
            found = mixed[:, : initial.shape[1]]
            motion = found if above is None else found + above
            if target_context is None:
                target_context = mixed[:, initial.shape[1] + stream.shape[1] :]
            backward_source = level.refine_source(source[int(name)], backward_source)
            with self._target_context():
                backward_target = level.refine_target(target[int(name)], backward_target)
            prediction = level.predict(self.motion_proj(motion), backward_source)
            if self.refinement:
                above, stream, context = motion, prediction, backward_target
            latents.append(motion)
            sources.append(backward_source)
            targets.append(backward_target)
            predictions.append(prediction)
        return Motion(
            levels=tuple(map(int, self.levels)),
            grid=grid,
            latents=tuple(latents),
            source=tuple(sources),
            target=tuple(targets),
            predicted=tuple(predictions),
            target_context=target_context,
        )

    def backward_features(self, target: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """Refine a frame's tokens top down, as the target's side does; returns (B, 1+N, D) by level."""
        higher, found = target[self.top], {}
        for name, level in self.levels.items():
            with self._target_context():
                higher = found[int(name)] = level.refine_target(target[int(name)], higher)
        return found

    def predict(self, source: Mapping[int, Tensor], latents: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Apply motion latents (one (B, M, Dm) per level) to a source frame; returns one (B, 1+N, D) per level."""
        backward_source = source[self.top]
        predictions = []
        for (name, level), motion in zip(self.levels.items(), latents, strict=True):
            backward_source = level.refine_source(source[int(name)], backward_source)
            predictions.append(level.predict(self.motion_proj(motion), backward_source))
        return tuple(predictions)
