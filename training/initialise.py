"""Seeded, untrained weights: what a network is before training, as a checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch
from midway_hub.training.recipes import load_recipe

from midway_hub.config import MidwayConfig
from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import get_entry
from midway_hub.verify import save_golden


def initialise(recipe: str, out: Path) -> MidwayNetwork:
    """Make the untrained network that a recipe describes and save it with processor and golden outputs.

    Args:
        recipe: Name of a recipe with `model` (a registry name), `seed` and `dtype`.
        out: Folder to write; it must not hold anything yet.

    Returns:
        The network as it was saved.

    Raises:
        FileExistsError: `out` holds files already.
        ValueError: There is no such recipe.
    """
    settings = load_recipe(recipe)
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; choose another folder or remove it first")
    torch.manual_seed(settings["seed"])
    net = MidwayNetwork(MidwayConfig(**get_entry(settings["model"]).architecture)).eval()
    net = net.to(getattr(torch, settings["dtype"]))
    net.save_pretrained(out)
    save_golden(MidwayNetwork.from_pretrained(out), out)
    return net
