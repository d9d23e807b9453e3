"""Recipes: YAML files that say how weights are made, by name."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import yaml


def list_recipes() -> list[str]:
    """Return the names of all recipes."""
    return sorted(
        entry.name.removesuffix(".yaml") for entry in files(__name__).iterdir() if entry.name.endswith(".yaml")
    )


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe.

    Raises:
        ValueError: There is no recipe of that name; all names are listed.
    """
    if name not in list_recipes():
        raise ValueError(f"unknown recipe {name!r}; there are: {', '.join(list_recipes())}")
    return yaml.safe_load((files(__name__) / f"{name}.yaml").read_text())
