"""Seeded, untrained weights: what a network is before training, as a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from pydantic import Field

from midway_hub._durable import need_empty
from midway_hub.config import MidwayConfig
from midway_hub.models.network import MidwayNetwork
from midway_hub.registry import get_entry
from midway_hub.training.configuration import validate
from midway_hub.training.recipes import kind_of, list_recipes, read_recipe
from midway_hub.training.settings import Settings
from midway_hub.verify import save_golden


class InitConfig(Settings):
    """A recipe of kind `init`."""

    recipe: str
    """Where it came from."""

    description: str = ""
    """One line on what the weights are for."""

    model: str
    """Registry name whose architecture is made."""

    seed: int = Field(default=0, ge=0)
    """Seed of the weights."""

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    """Precision that they are stored in."""


def initialise(recipe: str, out: Path) -> MidwayNetwork:
    """Make the untrained network that a recipe describes and save it with processor and golden outputs.

    Args:
        recipe: Name or file of a recipe of kind `init`, or of kind `pretrain`: the network that its training begins
            with; its data are not read.
        out: Folder to write; it must not hold anything yet.

    Returns:
        The network as it was saved.

    Raises:
        ConfigError: The recipe is not well made.
        FileExistsError: `out` holds files already.
        ValueError: There is no such recipe, or it is of a kind that begins with other weights.
    """
    need_empty(out)
    net = _untrained(recipe)
    net.save_pretrained(out)
    save_golden(MidwayNetwork.from_pretrained(out), out)
    return net


def _untrained(recipe: str) -> MidwayNetwork:
    kind = kind_of(recipe)
    if kind == "init":
        wanted = validate(InitConfig, read_recipe(recipe, kind=kind), "the recipe cannot be carried out")
        torch.manual_seed(wanted.seed)
        net = MidwayNetwork(MidwayConfig(**get_entry(wanted.model).architecture)).eval()
        return net.to(getattr(torch, wanted.dtype))
    if kind == "pretrain":
        from midway_hub.training.pretraining import rebuild

        values = {key: value for key, value in read_recipe(recipe).items() if key != "data"}
        return rebuild(values).export().eval()
    names = ", ".join(sorted({*list_recipes("init"), *list_recipes("pretrain")}))
    raise ValueError(
        f"{recipe} is a recipe of kind {kind!r}, which begins with the weights of another run; init makes the "
        f"untrained network of {names}"
    )
