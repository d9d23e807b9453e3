"""First weights that help small networks on little data: places told apart, frames compared from the start."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from midway_hub import MidwayNetwork
from midway_hub.models.blocks import GatingUnit
from midway_hub.models.dynamics import Dynamics, DynamicsLevel
from midway_hub.training.settings import Settings

PLACE, FRAME, MOTION = 2.0, 3.0, 16.0
"""Amplitudes of what `compare_frames` adds to tokens: where they are, which frame they are of, that they are motion."""


DYNAMICS_KEYS = ("matching_std", "gate")


class EncoderInitial(Settings):
    """Where an encoder's first weights differ from the paper's; the defaults are the paper's."""

    position_amplitude: float = Field(0.0, ge=0)
    """Position embeddings of encoder and dynamics start as sines and cosines of this amplitude, as in MAE and CroCo,
    and go on being learned; the dynamics', unless `matching_std` sets them. 0: as in the paper, small random numbers
    in the encoder and zeros in the dynamics."""

    patch_embedding: Literal["convolution", "normal"] = "convolution"
    """What embeds patches starts as torch starts a convolution, as in the released code: weights and biases uniform
    within 1/√n, n the numbers of a patch. `normal`: like every other matrix, without biases."""

    @model_validator(mode="before")
    @classmethod
    def _without_dynamics(cls, values: Any) -> Any:
        """Leave out what only dynamics read, so that a recipe of theirs can be run without them."""
        if isinstance(values, dict):
            return {k: v for k, v in values.items() if k not in DYNAMICS_KEYS or k in cls.model_fields}
        return values


class InitialSettings(EncoderInitial):
    """Where first weights of encoder and dynamics differ from the paper's; the defaults are the paper's."""

    matching_std: float = Field(0.0, ge=0)
    """The midway path starts as a comparison of the frames, with queries and keys of this standard deviation (0.4 is a
    good one, with 32 numbers to a head): tokens attend to those like them in the other frame, motion tokens to all of
    the target frame's, so that motion can be read off them at once. A small network then learns to infer motion in
    some hundred steps, on its own, where it does not in thousands without. 0: drawn at random, as in the paper."""

    gate: float = GatingUnit.OPEN
    """What gates of the forward predictor start from, before the sigmoid. The paper's 4 lets a patch's identity pass;
    at -4 next to nothing passes, and what is predicted for a place has to be carried there."""


@torch.no_grad()
def initialise_encoder(network: MidwayNetwork, settings: EncoderInitial) -> None:
    """Set the encoder's first patch and position embeddings, in both copies where there are two."""
    if settings.patch_embedding == "convolution":
        network.student.patch_embed.proj.reset_parameters()
    if settings.position_amplitude:
        config = network.config
        positions = settings.position_amplitude * sinusoids(config.grid_size, config.embed_dim)
        network.student.pos_embed[0, -len(positions) :] = positions
    network.copy_source_to_target()


@torch.no_grad()
def initialise_dynamics(network: MidwayNetwork, settings: InitialSettings) -> None:
    """Set the dynamics' first position embeddings, its midway path and gates, in both copies where there are two."""
    dynamics, config = network.dynamics, network.config
    if settings.matching_std:
        compare_frames(dynamics, config.grid_size, settings.matching_std)
        network.copy_source_to_target()
    elif settings.position_amplitude:
        positions = settings.position_amplitude * sinusoids(config.grid_size, config.motion_dim)
        for half in dynamics.position_embedding[0].chunk(2):
            half[1:] = positions
    for level in dynamics.levels.values():
        for unit in level.gates:
            unit.mlp.fc2.bias += settings.gate - GatingUnit.OPEN


@torch.no_grad()
def compare_frames(dynamics: Dynamics, grid: int, std: float) -> None:
    """Make the midway path a comparison of the two frames.

    Motion cannot be read off motion tokens of random weights, and a predictor that cannot carry patches yet asks
    nothing of them: both stay as they are for long. Here a token attends to those like it in the other frame (queries
    and keys are equal on contents and opposite on frames, after Trockman & Kolter 2023, who find products of queries
    and keys near the identity in trained networks) and takes over their places; the mean of what the target's tokens
    took over moves with the motion. Motion tokens attend to all of the target's tokens alike.

    Channels of the path are set aside: the first ones for places, one for the frame, one for motion tokens; tokens of
    the encoder do not write to them, and queries and keys read the last two alone in a channel of their own per head.

    Args:
        dynamics: What is changed in place.
        grid: Patches along a side of the position embedding.
        std: Standard deviation of queries and keys on contents.

    Raises:
        ValueError: The motion tokens are too narrow.
    """
    width = dynamics.motion_tokens.shape[-1]
    places = min(16, width // 16 * 4)
    if not places:
        raise ValueError(f"matching_std needs motion_dim of at least 16, got {width}")
    frame, motion = places, places + 1
    for half, sign in zip(dynamics.position_embedding[0].chunk(2), (1, -1), strict=True):
        half.zero_()
        half[1:, :places] = PLACE * waves(grid, places)
        half[:, frame] = sign * FRAME
    for embed in (dynamics.source_embed, dynamics.target_embed):
        embed.weight[: motion + 1] = 0
    dynamics.motion_tokens[..., motion] = MOTION
    for level in dynamics.levels.values():
        _compare(level, places, std)


def _compare(level: DynamicsLevel, places: int, std: float) -> None:
    for block in level.midway:
        attention = block.attn
        query, key, value = attention.qkv.weight.chunk(3)
        nn.init.normal_(query, std=std)
        reserved = slice(None, None, attention.head_dim)
        query[:, : places + 2] = 0
        query[reserved] = 0
        key.copy_(query)
        query[reserved, places : places + 2] = 1
        key[reserved, places] = -1
        for weight in (value, attention.proj.weight):
            nn.init.normal_(weight, std=value.shape[1] ** -0.5)


def waves(grid: int, width: int) -> Tensor:
    """Return where the places of a square grid are, (grid², width): long waves of x and y, of mean 0."""
    along = torch.linspace(-1, 1, grid)
    y, x = torch.meshgrid(along, along, indexing="ij")
    angles = torch.stack([x.flatten(), y.flatten()], dim=1)[..., None] * math.pi / 4 * 2 ** torch.arange(width // 4)
    found = torch.cat([angles.sin(), angles.cos()], dim=1).flatten(1)
    return found - found.mean(dim=0)


def sinusoids(grid: int, width: int) -> Tensor:
    """Return sines and cosines of the places on a square grid.

    Args:
        grid: Places along a side.
        width: Numbers per place, a multiple of 4.

    Returns:
        (grid², width), row by row: a quarter each of sines and cosines of x, then of y, wavelengths from 4 places up to
        400.

    Raises:
        ValueError: The width is not a multiple of 4.
    """
    if width % 4:
        raise ValueError(f"sinusoidal positions need a width that is a multiple of 4, got {width}")
    quarter = width // 4
    frequencies = math.pi / 2 * torch.exp(-math.log(100) * torch.arange(quarter) / max(1, quarter - 1))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    angles = [places.flatten()[:, None] * frequencies for places in (x, y)]
    return torch.cat([wave for angle in angles for wave in (angle.sin(), angle.cos())], dim=1)
