"""What a type annotation admits."""

from __future__ import annotations

import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin


def arms(annotation: Any) -> tuple[Any, ...]:
    """Return what a union is of, without None; of any other annotation that alone."""
    if get_origin(annotation) is Annotated:
        return arms(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return tuple(inner for arm in get_args(annotation) for inner in arms(arm))
    return () if annotation is types.NoneType or annotation is None else (annotation,)


def is_text(annotation: Any) -> bool:
    """Return whether values are text and nothing else: a string, a path, or one of some words."""
    found = arms(annotation)
    return bool(found) and all(_is_text(arm) for arm in found)


def is_path(annotation: Any) -> bool:
    """Return whether values are paths."""
    return any(isinstance(arm, type) and issubclass(arm, Path) for arm in arms(annotation))


def is_optional(annotation: Any) -> bool:
    """Return whether a value may be None."""
    if get_origin(annotation) is Annotated:
        return is_optional(get_args(annotation)[0])
    unions = (Union, types.UnionType)
    return annotation is types.NoneType or (
        get_origin(annotation) in unions and any(map(is_optional, get_args(annotation)))
    )


def is_number(annotation: Any) -> bool:
    """Return whether values, or those in a list of them, are numbers and never truth values."""
    kinds = set(_leaves(annotation))
    return bool(kinds & {int, float}) and not kinds & {bool, Any, object}


def _is_text(arm: Any) -> bool:
    if get_origin(arm) is Literal:
        return all(isinstance(word, str) for word in get_args(arm))
    return isinstance(arm, type) and issubclass(arm, str | Path)


def _leaves(annotation: Any) -> Iterator[Any]:
    for arm in arms(annotation):
        if get_origin(arm) is Literal:
            yield from map(type, get_args(arm))
        elif get_origin(arm) is None:
            yield arm
        else:
            for inner in get_args(arm):
                yield from _leaves(inner)
