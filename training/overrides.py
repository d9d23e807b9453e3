"""Dotted overrides: `section.key=value` is laid over plain data, `~section.key` takes a key out.

What stands after `=` is text, as it was typed, where the key holds text: a path, a name, a pattern. Elsewhere it is
YAML if it begins with `[`, `{` or a quote; else a number, a truth value, `null`, or text. A value that holds a list
or a mapping is read as in a recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from midway_hub.training.fields import type_at
from midway_hub.training.settings import Settings
from midway_hub.training.typed import is_optional, is_path, is_text
from midway_hub.training.yaml_text import YamlError, parse_scalar, parse_yaml


class ConfigError(ValueError):
    """A configuration that cannot be run; the message names every key, what it holds and what it should."""


def overridden(values: Mapping[str, Any], overrides: Sequence[str], root: type[Settings] | None) -> dict[str, Any]:
    """Lay overrides over plain data; a later one wins.

    Args:
        values: What they are laid over; it stays as it is.
        overrides: `section.key=value`, or `~section.key`, which are carried out first.
        root: Settings that the data will become, which say where a value is text; None: nowhere.

    Raises:
        ConfigError: One of them cannot be read, or names what is not there.
    """
    changed = _copied(values)
    for override in overrides:
        if override.startswith("~"):
            _remove(changed, override[1:])
    for override in overrides:
        if not override.startswith("~"):
            key, text = _split(override)
            _assign(changed, key.split("."), _read(key, text, root, changed))
    return changed


def read_value(text: str) -> Any:
    """Read what stands after `=` where nothing says that it is text.

    Raises:
        YamlError: It begins as a list, a mapping or quoted text and is none.
    """
    return parse_yaml(text, repr(text)) if text.lstrip()[:1] in ("[", "{", '"', "'") else parse_scalar(text)


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Lay one mapping over another, section by section; one of another `name` takes the place of the one below."""
    result = dict(under)
    for key, value in over.items():
        below = result.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            same = value.get("name", below.get("name")) == below.get("name")
            value = merged(below, value) if same else value
        result[key] = value
    return result


def _split(override: str) -> tuple[str, str]:
    key, equals, text = override.partition("=")
    if not equals or not all(part.strip() for part in key.split(".")):
        raise ConfigError(f"{override!r} is not an override; write section.key=value, e.g. engine.precision=bf16")
    return key.strip(), text


def _read(key: str, text: str, root: type[Settings] | None, values: Mapping[str, Any]) -> Any:
    annotation = None if root is None else type_at(root, key.split("."), values)
    if is_text(annotation):
        nothing = text == "null" and is_optional(annotation) and not (is_path(annotation) and Path(text).exists())
        return None if nothing else text
    try:
        return read_value(text)
    except YamlError as error:
        raise ConfigError(f"cannot read the override {key}={text}: {error}") from None


def _assign(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    section = values
    for depth, name in enumerate(path[:-1], 1):
        inner = section.setdefault(name, {})
        if inner is None:
            inner = section[name] = {}
        if not isinstance(inner, dict):
            raise ConfigError(
                f"{'.'.join(path)} lies below {'.'.join(path[:depth])}, which is {inner!r} and no section; "
                f"give {'.'.join(path[:depth])} as a whole"
            )
        section = inner
    name, below = path[-1], section.get(path[-1])
    both = isinstance(value, dict) and isinstance(below, dict)
    section[name] = merged({name: below}, {name: value})[name] if both else value


def _remove(values: dict[str, Any], path: str) -> None:
    *sections, key = path.split(".")
    parent: Any = values
    for name in sections:
        parent = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(parent, dict) or key not in parent:
        raise ConfigError(f"~{path} takes a key out that the recipe does not have")
    del parent[key]


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copied(inner) for key, inner in value.items()}
    return list(map(_copied, value)) if isinstance(value, list) else value
