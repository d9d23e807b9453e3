"""What lies at a dotted key of settings, in typed sections and in dictionaries of keywords."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, get_args, get_origin, get_type_hints

from pydantic import BaseModel, GetCoreSchemaHandler, create_model
from pydantic.fields import FieldInfo
from pydantic_core import core_schema

from midway_hub.training.settings import Settings
from midway_hub.training.typed import arms


class KeywordsOf:
    """Beside `dict[str, Any]` in an annotation: keyword arguments of a class, typed as its own annotations say.

    Args:
        target: The class, or several, one of which the keywords are for: then `check` tells which.
        called: What errors call the keywords together, such as `head`.
        without: Keywords that are decided elsewhere, and where: the end of an error.
        check: Called with the typed keywords, to raise a ValueError where they do not go together; default: `target`.
    """

    def __init__(
        self,
        target: type | tuple[type, ...],
        called: str,
        *,
        without: Mapping[str, str] | None = None,
        check: Callable[..., object] | None = None,
    ) -> None:
        self._targets = target if isinstance(target, tuple) else (target,)
        self._called, self._without, self._check = called, without or {}, check or self._targets[0]

    @cached_property
    def section(self) -> type[Settings]:
        """Settings with a field for each keyword."""
        first = self._targets[0]
        if issubclass(first, Settings):
            return first
        fields: dict[str, Any] = {}
        for target in reversed(self._targets):
            hints = get_type_hints(target.__init__)  # type: ignore[misc]  # of this class, no subclass
            for name, parameter in inspect.signature(target).parameters.items():
                if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in self._without:
                    fields[name] = (hints[name], parameter.default)
        return create_model(first.__name__, __base__=Settings, **fields)

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        typed = core_schema.no_info_before_validator_function(self._known, handler.generate_schema(self.section))
        return core_schema.no_info_after_validator_function(
            self._given, typed, serialization=core_schema.plain_serializer_function_ser_schema(lambda value: value)
        )

    def _known(self, values: Any) -> Any:
        if isinstance(values, Mapping):
            for key in [key for key in values if key in self._without]:
                raise ValueError(f"leave {key} out of the {self._called}: {self._without[key]}")
        return values

    def _given(self, section: BaseModel) -> dict[str, Any]:
        given = [name for name in type(section).model_fields if name in section.model_fields_set]
        keywords = {name: getattr(section, name) for name in given}
        self._check(**keywords)
        return keywords


def keywords_in(field: FieldInfo) -> KeywordsOf | None:
    """Return what says that a field holds keywords, if something does."""
    return next((mark for mark in field.metadata if isinstance(mark, KeywordsOf)), None)


def type_at(root: Any, path: Sequence[str], values: Any) -> Any:
    """Return the annotation of what lies at a dotted key, or None where nothing has that key.

    Args:
        root: A class of settings.
        path: The key's parts.
        values: Plain data of the root, which decides between variants of a section.
    """
    found = root
    for name in path:
        found = _inner(found, name, values)
        if found is None:
            return None
    return found


def section_at(root: type[BaseModel], path: Sequence[str], values: Any) -> type[BaseModel]:
    """Return the class of settings that a dotted key leads to, or the last one on the way."""
    for end in range(len(path), -1, -1):
        for arm in arms(type_at(root, path[:end], values)):
            if _is_section(arm):
                return arm
    return root


def _inner(annotation: Any, name: str, values: Any) -> Any:
    for arm in arms(annotation):
        if _is_section(arm):
            if issubclass(arm, Settings) and (variant := arm.variant(name, values)):
                return variant
            if name in arm.model_fields:
                field = arm.model_fields[name]
                keywords = keywords_in(field)
                return keywords.section if keywords else field.annotation
        elif get_origin(arm) is dict:
            return get_args(arm)[1]
    return None


def _is_section(arm: Any) -> bool:
    return isinstance(arm, type) and issubclass(arm, BaseModel)
