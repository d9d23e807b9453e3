"""First weights that help small networks on little data: alike tokens attend to each other, places are told apart."""

from __future__ import annotations

import math

import torch
from midway_hub.training.settings import Settings
from pydantic import Field
from torch import Tensor

from midway_hub import MidwayNetwork
from midway_hub.models.dynamics import Dynamics


class InitialSettings(Settings):
    """Where first weights differ from the paper's; the defaults are the paper's."""

    matching_std: float = Field(0.0, ge=0)
    """Queries and keys of the midway path start equal, with weights of this standard deviation (1 / sqrt(motion_dim)
    is a good one): a token then attends to the tokens like it, in the other frame too, instead of to any. Small
    networks begin to compare frames some hundred steps earlier. 0: drawn apart, as in the paper."""

    position_amplitude: float = Field(0.0, ge=0)
    """Position embeddings of encoder and dynamics start as sines and cosines of this amplitude, as in MAE and CroCo,
    and go on being learned. 0: as in the paper, small random numbers in the encoder and zeros in the dynamics."""


@torch.no_grad()
def initialise_encoder(network: MidwayNetwork, settings: InitialSettings) -> None:
    """Set the encoder's first position embeddings, in both copies where there are two."""
    if settings.position_amplitude:
        config = network.config
        positions = settings.position_amplitude * sinusoids(config.grid_size, config.embed_dim)
        network.student.pos_embed[0, -len(positions) :] = positions
        network.copy_source_to_target()


@torch.no_grad()
def initialise_dynamics(network: MidwayNetwork, settings: InitialSettings) -> None:
    """Set the dynamics' first position embeddings, queries and keys."""
    dynamics, config = network.dynamics, network.config
    if settings.position_amplitude:
        positions = settings.position_amplitude * sinusoids(config.grid_size, config.motion_dim)
        for half in dynamics.position_embedding[0].chunk(2):
            half[1:] = positions
    if settings.matching_std:
        attend_to_alike(dynamics, settings.matching_std)


@torch.no_grad()
def attend_to_alike(dynamics: Dynamics, std: float) -> None:
    """Make queries and keys of every midway block equal: q · k is then largest for tokens that are alike.

    After Trockman & Kolter (2023), who find products of queries and keys near the identity in trained networks.
    """
    for level in dynamics.levels.values():
        for block in level.midway:
            query, key, _ = block.attn.qkv.weight.chunk(3)
            torch.nn.init.normal_(query, std=std)
            key.copy_(query)


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
