"""A recipe as it will be carried out, every key with its value and what it means."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from midway_hub.training.fields import keywords_in, section_at, type_at
from midway_hub.training.settings import Settings
from midway_hub.training.typed import arms
from midway_hub.training.yaml_text import flow_yaml

WIDTH = 100


def shown(root: type[Settings], values: Mapping[str, Any]) -> str:
    """Write what a recipe says, and the defaults of what it does not, as YAML with comments: a recipe itself.

    Args:
        root: What the recipe will become.
        values: What it says, with what it is based on filled in; it is not validated.

    Returns:
        Lines of YAML; what the recipe sets itself is marked.
    """
    return "\n".join(_lines(root, values, values, {}, ())) + "\n"


def _lines(
    root: type[Settings],
    whole: Mapping[str, Any],
    values: Mapping[str, Any],
    defaults: Mapping[str, Any],
    path: Sequence[str],
) -> Iterator[str]:
    """Yield the lines of a section: `values` are the recipe's, `defaults` are for what it says nothing of."""
    margin = "  " * len(path)
    for name, field in section_at(root, path, whole).model_fields.items():
        text, keywords = " ".join((field.description or "").split()), keywords_in(field)
        text += f" There are: {', '.join(keywords.section.model_fields)}." if keywords else ""
        yield from textwrap.wrap(text, WIDTH, initial_indent=f"{margin}# ", subsequent_indent=f"{margin}# ")
        if name not in values and name not in defaults and field.is_required():
            yield f"{margin}# {name} has to be given"
            continue
        value = values[name] if name in values else defaults.get(name, _default(field))
        below = not keywords and any(map(_is_section, arms(type_at(root, [*path, name], whole))))
        if below and isinstance(value, Mapping):
            yield f"{margin}{name}:"
            yield from _lines(root, whole, values.get(name) or {}, {} if name in values else value, [*path, name])
        else:
            yield f"{margin}{name}: {flow_yaml(value)}{'  # set by the recipe' if name in values else ''}"


def _default(field: FieldInfo) -> Any:
    return None if field.is_required() else to_jsonable_python(field.get_default(call_default_factory=True))


def _is_section(arm: Any) -> bool:
    return isinstance(arm, type) and issubclass(arm, BaseModel)
