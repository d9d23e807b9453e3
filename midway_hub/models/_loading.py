"""Strictness on top of transformers' loading: keys that do not fit are an error, and a report says what was loaded."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers.utils import logging as hf_logging

from midway_hub.config import MidwayConfig
from midway_hub.sizes import Shape, contradictions

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from midway_hub.hub import Resolved

SHOWN_KEYS = 12
ALIGNMENT = 64
"""Bytes that the start of a tensor's memory is a multiple of, as torch's own allocator has it."""

_MOST_BLOCKS = 256  # whose tensors an error names; building more takes seconds


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


def check_numbers(
    build: type[PreTrainedModel],
    config: MidwayConfig,
    shapes: Mapping[str, Shape],
    *,
    source: str,
    strict: bool,
    encoder_alone: bool,
) -> None:
    """Refuse a configuration that contradicts the weights, before a network of its sizes is built.

    Args:
        build: What is to be built.
        config: What it is to be made of.
        shapes: Shape of every tensor of the weights, by its name.
        source: Where the weights came from, for the error.
        strict: Whether missing and unexpected keys are refused; shapes always have to agree.
        encoder_alone: Whether an encoder is all that is built.

    Raises:
        ValueError: A number is none that a network has.
        WeightsMismatchError: Numbers contradict the weights; they are listed, and the keys too.
    """
    config.check_numbers()
    numbers = contradictions(config, shapes, encoder_alone=encoder_alone, strict=strict)
    if not numbers:
        return
    keys = []
    levels = len(config.levels) if config.dynamics else 0
    if config.depth + levels * (config.midway_depth + config.predictor_depth) <= _MOST_BLOCKS:
        with torch.device("meta"):  # without memory
            wanted = {key: tuple(value.shape) for key, value in build(config).state_dict().items()}
        ignored = getattr(build, "_keys_to_ignore_on_load_unexpected", None) or ()
        extra = {key for key in shapes.keys() - wanted.keys() if not any(re.search(each, key) for each in ignored)}
        other = [(key, shapes[key], wanted[key]) for key in shapes.keys() & wanted.keys() if shapes[key] != wanted[key]]
        info = {"missing_keys": wanted.keys() - shapes.keys(), "unexpected_keys": extra, "mismatched_keys": other}
        keys = _problems(info, strict=strict)
    raise _mismatch(source, [f"  numbers that contradict the weights ({len(numbers)}):", *_indented(numbers), *keys])


def check_keys(info: Mapping[str, Any], *, source: str, strict: bool) -> None:
    """Refuse weights that do not fit the architecture.

    Args:
        info: transformers' loading information.
        source: Where the weights came from, for the error.
        strict: Whether missing and unexpected keys are refused; shapes always have to agree.

    Raises:
        WeightsMismatchError: Keys are missing, unexpected, or of another shape; they are listed.
    """
    problems = _problems(info, strict=strict)
    if problems:
        raise _mismatch(source, problems)


@torch.no_grad()
def align(model: PreTrainedModel) -> None:
    """Move weights that start anywhere in memory, as safetensors maps a file, to where torch's allocator puts tensors.

    The bits stay. Kernels for vectors take the ends of a row that starts askew one by one and round them differently,
    so that the same weights would give other results when loaded than when made.

    Args:
        model: Its parameters and buffers on the CPU are moved; those that lie well, or elsewhere, stay.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type == "cpu" and tensor.data_ptr() % ALIGNMENT:
            tensor.data = tensor.data.clone()


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from warning about keys, and from drawing a bar, while local weights are read."""
    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(_errors_only)
    try:
        with without_bars():
            yield
    finally:
        logger.removeFilter(_errors_only)


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing bars over what takes a moment."""
    bars = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        if bars:
            hf_logging.enable_progress_bar()


def _errors_only(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


def _problems(info: Mapping[str, Any], *, strict: bool) -> list[str]:
    problems = []
    if strict:
        problems += [_listed("missing from the file", info["missing_keys"])]
        problems += [_listed("unexpected in the file", info["unexpected_keys"])]
    shapes = [f"{key}: file {tuple(seen)}, network {tuple(want)}" for key, seen, want in info["mismatched_keys"]]
    return list(filter(None, [*problems, _listed("of another shape", shapes)]))


def _mismatch(source: str, problems: list[str]) -> WeightsMismatchError:
    return WeightsMismatchError(
        f"the weights from {source} do not fit the architecture in their config.json:\n"
        + "\n".join(problems)
        + "\nEither is from another model: check the pair, correct config.json or fetch it again, or pass strict=False "
        "to load what fits in name."
    )


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"    {line}" for line in lines]


def _listed(what: str, keys: Iterable[str]) -> str:
    keys = sorted(keys, key=lambda key: (key.count("."), key))  # the shortest names tell most
    if not keys:
        return ""
    more = f"\n    ... and {len(keys) - SHOWN_KEYS} more" if len(keys) > SHOWN_KEYS else ""
    return f"  {len(keys)} {what}:\n    " + "\n    ".join(keys[:SHOWN_KEYS]) + more
