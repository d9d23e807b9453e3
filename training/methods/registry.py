"""Methods by name. A method is known once it is registered, from this package or from outside of it."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from midway_hub.training.compat import Oddities
from midway_hub.training.data.needs import Views
from midway_hub.training.methods.base import Architecture, Method
from midway_hub.training.methods.optimisation import MethodSettings
from midway_hub.training.timeline import Timeline

M = TypeVar("M", bound=type[Method])

METHODS: dict[str, type[Method]] = {}
"""Every registered method by its name."""


def register(method: M) -> M:
    """Make a method known by its name; a class decorator.

    Raises:
        ValueError: Another one has that name, or the default of its settings is another.
    """
    known = METHODS.setdefault(method.name, method)
    if (known.__module__, known.__qualname__) != (method.__module__, method.__qualname__):
        raise ValueError(f"there is a method {method.name!r} already, {known.__module__}.{known.__qualname__}")
    said = method.settings.model_fields["name"].default
    if said != method.name:
        raise ValueError(f"method {method.name} has settings of the name {said!r}; make its default the method's own")
    METHODS[method.name] = method
    return method


def method_class(name: object) -> type[Method]:
    """Return the method of a name.

    Raises:
        ValueError: There is none; near ones, or all, are named.
    """
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(str(name), METHODS, n=2)
    hint = f"did you mean {' or '.join(near)}? There are" if near else "methods"
    raise ValueError(f"there is no method {name!r}; {hint}: {', '.join(sorted(METHODS))}")


def make_method(
    name: str,
    settings: MethodSettings | Mapping[str, Any] | None,
    model: Architecture,
    timeline: Timeline,
    compat: Oddities | None = None,
    *,
    views: Views | None = None,
    lr_batch_size: int | None = None,
) -> Method:
    """Make a method by its name; the other arguments are those of `Method`.

    Raises:
        ValueError: There is no such method; those that there are get listed.
    """
    return method_class(name)(settings, model, timeline, compat, views=views, lr_batch_size=lr_batch_size)
