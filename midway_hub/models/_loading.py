"""Strictness on top of transformers' loading: keys that do not fit are an error, and a report says what was loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging as hf_logging

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from midway_hub.hub import Resolved

SHOWN_KEYS = 12


class WeightsMismatchError(ValueError):
    """Weights and architecture do not fit; the message lists the keys."""


@dataclass(frozen=True)
class LoadReport:
    """Where the weights of a network came from.

    Attributes:
        source: Registry name, Hub repo, directory or file, in words.
        directory: The local folder that was read.
        commit: Commit of the Hub repo, if it came from one.
        sha256: Checksum of each weights file, by file name.
        dtype: Precision the weights have now.
        missing: Keys the network has and the file lacks (empty unless `strict=False`).
        unexpected: Keys the file has and the network lacks (likewise).
        seconds: Time from the call to the network being ready.
    """

    source: str
    directory: Path
    commit: str | None
    sha256: Mapping[str, str]
    dtype: torch.dtype
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    seconds: float

    @classmethod
    def of(cls, model: PreTrainedModel, resolved: Resolved, info: Mapping[str, Any], *, seconds: float) -> LoadReport:
        """Gather the report from what was resolved and from transformers' loading information."""
        return cls(
            source=resolved.source,
            directory=resolved.directory,
            commit=resolved.commit,
            sha256=resolved.sha256,
            dtype=model.dtype,
            missing=tuple(sorted(info["missing_keys"])),
            unexpected=tuple(sorted(info["unexpected_keys"])),
            seconds=seconds,
        )


def check_keys(info: Mapping[str, Any], *, source: str, strict: bool) -> None:
    """Refuse weights that do not fit the architecture.

    Args:
        info: transformers' loading information.
        source: Where the weights came from, for the error.
        strict: Whether missing and unexpected keys are refused; shapes always have to agree.

    Raises:
        WeightsMismatchError: Keys are missing, unexpected, or of another shape; they are listed.
    """
    problems = []
    if strict:
        problems += [_listed("missing from the file", info["missing_keys"])]
        problems += [_listed("unexpected in the file", info["unexpected_keys"])]
    shapes = [f"{key}: file {tuple(seen)}, network {tuple(want)}" for key, seen, want in info["mismatched_keys"]]
    problems += [_listed("of another shape", shapes)]
    if any(problems):
        raise WeightsMismatchError(
            f"the weights from {source} do not fit the architecture in their config.json:\n"
            + "\n".join(filter(None, problems))
            + "\nEither is from another model: check the pair, or pass strict=False to load what fits in name."
        )


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from warning about keys, and from drawing a bar, while local weights are read."""
    logger = logging.getLogger("transformers.modeling_utils")
    bars = hf_logging.is_progress_bar_enabled()
    logger.addFilter(_errors_only)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        logger.removeFilter(_errors_only)
        if bars:
            hf_logging.enable_progress_bar()


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _listed(what: str, keys: Iterable[str]) -> str:
    keys = sorted(keys, key=lambda key: (key.count("."), key))  # the shortest names tell most
    if not keys:
        return ""
    more = f"\n    ... and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"  {len(keys)} {what}:\n    " + "\n    ".join(keys[:SHOWN_KEYS]) + more
