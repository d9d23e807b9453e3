"""Base of every section of a run's configuration: typed, frozen, and unknown keys are errors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator

from midway_hub.training.typed import is_number, is_path


class Settings(BaseModel):
    """A section of the configuration. Each room defines its own beside the code that reads it.

    Numbers are finite, a truth value is no number, and `~` at the start of a path is the home folder.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )

    @field_validator("*", mode="before")
    @classmethod
    def _is_of_its_kind(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if _holds_truth(value) and is_number(annotation):
            raise ValueError("a truth value is no number")
        if isinstance(value, str) and not value.strip() and is_path(annotation):
            raise ValueError("the path is empty; write . for the folder that you are in")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _from_home(cls, value: Any) -> Any:
        return _expanded(value)

    @classmethod
    def variant(cls, section: str, values: Mapping[str, Any]) -> type[Settings] | None:
        """Return the class that a section has in these values, where they decide it; None: its annotation tells."""
        return None


def from_home(path: Path) -> Path:
    """Return a path with `~` or `~NAME` at its start replaced by that home folder.

    Raises:
        ValueError: There is no such user.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path} begins with the home folder of a user that this machine does not know") from None


def _expanded(value: Any) -> Any:
    if isinstance(value, Path):
        return from_home(value)
    if type(value) is dict:
        return {key: _expanded(inner) for key, inner in value.items()}
    return type(value)(map(_expanded, value)) if type(value) in (list, tuple) else value


def _holds_truth(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_truth, value)))
