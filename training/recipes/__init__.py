"""Recipes: YAML files that say how weights are made, by name."""

from __future__ import annotations

import difflib
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from midway_hub._regular import refuse_irregular
from midway_hub.training.overrides import merged
from midway_hub.training.yaml_text import parse_yaml, read_yaml


def list_recipes(kind: str | None = None) -> list[str]:
    """Return the names of all recipes, sorted.

    Args:
        kind: `"init"` for recipes of untrained weights, `"pretrain"`, `"flow"`, `"segmentation"`, `"chain"` of these;
            default: all.
    """
    names = sorted(_found(files(__name__), ""))
    return [name for name in names if kind is None or load_recipe(name).get("kind", "pretrain") == kind]


def load_recipe(name: str) -> dict[str, Any]:
    """Read a recipe of the package as it is written.

    Raises:
        ValueError: There is no recipe of that name; near ones, or all, are named.
    """
    found = _found(files(__name__), "")
    if name not in found:
        near = difflib.get_close_matches(name, found, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(sorted(found))}"
        raise ValueError(f"unknown recipe {name!r}; {hint}")
    return parse_yaml(found[name].read_text(encoding="utf-8"), f"recipe {name}")


def read_recipe(recipe: str | Path, *, kind: str = "pretrain") -> dict[str, Any]:
    """Read a recipe of a kind by name or path, with what it is based on (`base: NAME`) filled in.

    Args:
        recipe: A recipe's name, or the path of a YAML file; an existing file wins.
        kind: Kind of the recipe; a file that does not say is one of pretraining.

    Raises:
        ValueError: There is no such recipe, the file is not a recipe, or it is one of another kind.
    """
    values = _read(recipe)
    found = values.pop("kind", "pretrain")
    if found != kind:
        raise ValueError(
            f"{recipe} is a recipe of kind {found!r}, wanted {kind!r}; there are: {', '.join(list_recipes(kind))}"
        )
    base = values.pop("base", None)
    values.setdefault("recipe", str(recipe))
    return merged(read_recipe(base, kind=kind), values) if base else values


def kind_of(recipe: str | Path) -> str:
    """Return the kind of a recipe, by name or path: `pretrain` where it does not say."""
    return str(_read(recipe).get("kind", "pretrain"))


def _read(recipe: str | Path) -> dict[str, Any]:
    path = Path(recipe)
    refuse_irregular(path)
    values = read_yaml(path) if path.is_file() else load_recipe(str(recipe))
    if not isinstance(values, dict):
        raise ValueError(f"{recipe} holds {type(values).__name__}; a recipe is a YAML mapping of sections")
    return values


def _found(folder: Traversable, prefix: str) -> dict[str, Traversable]:
    found: dict[str, Traversable] = {}
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found.update(_found(entry, f"{prefix}{entry.name}/"))
        elif entry.name.endswith(".yaml"):
            found[prefix + entry.name.removesuffix(".yaml")] = entry
    return found
