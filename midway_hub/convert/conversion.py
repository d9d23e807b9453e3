"""The conversion: every key accounted for, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midway_hub._regular import refuse_irregular
from midway_hub._version import __version__
from midway_hub.config import MidwayConfig
from midway_hub.convert.archive import DTYPES, TorchArchive, nbytes, numel
from midway_hub.convert.authors_architecture import read_architecture
from midway_hub.convert.authors_layout import (
    TENSOR_ENTRIES,
    TRAINING_STATE,
    expected_shapes,
    is_trained,
    our_name,
    reason_to_drop,
    their_name,
)
from midway_hub.convert.authors_training import read_training
from midway_hub.convert.publish import check_destination, published, write_tensors
from midway_hub.convert.records import ConversionError, Record, StoredTensor, printable
from midway_hub.processing import MidwayImageProcessor

logger = logging.getLogger("midway_hub")

_MOST_LISTED = 40


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did. All but the time it took is also in the converted folder's `conversion.json`.

    Attributes:
        config: The architecture.
        mapped: Our key by the authors' key, the latter with its entry (`student.module.backbone.cls_token`).
        dropped: Reason by the authors' key or entry, for everything that was left out on purpose.
        heads: Where each head count comes from, by its name in `config`.
        parameters: Numbers of parameters: `encoder` (one network), `dynamics` (trained ones only), `stored` (all).
        tensors: sha256 of each tensor's bytes, by our key.
        source: Name, sha256 and size in bytes of the checkpoint: `file`, `sha256`, `bytes`.
        training: What the checkpoint says of its batch, rate, processes and length (`read_training`).
        seconds: Time that the conversion took.
    """

    config: MidwayConfig
    mapped: dict[str, str]
    dropped: dict[str, str]
    heads: dict[str, str]
    parameters: dict[str, int]
    tensors: dict[str, str]
    source: dict[str, str | int]
    training: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class _Plan:
    config: MidwayConfig
    heads: dict[str, str]
    tensors: dict[str, StoredTensor]
    mapped: dict[str, str]
    dropped: dict[str, str]


def convert_checkpoint(
    source_pth: str | os.PathLike[str], out_dir: str | os.PathLike[str], *, overwrite: bool = False
) -> ConversionReport:
    """Convert a checkpoint of the authors to a folder that `MidwayNetwork.from_pretrained` loads.

    Nothing in the checkpoint is run or imported. Every tensor in it is either converted or one of those that are left
    out on purpose (the DINO head and training state). Tensors keep their dtype. A file that holds the teacher alone
    becomes an encoder without dynamics. The folder appears whole or not at all; equal input gives equal bytes.

    Args:
        source_pth: The `.pth` file.
        out_dir: Folder for `config.json`, `preprocessor_config.json`, `model.safetensors` and `conversion.json`. It
            must be empty or not exist.
        overwrite: Replace a converted checkpoint in `out_dir`; files there that are not written anew stay, old weights
            do not.

    Returns:
        What was converted, left out, and read from where.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        IrregularFileError: It is a pipe or a device.
        UnsafePickleError: The checkpoint asks to run something; the message names it, and nothing was run.
        ConversionError: The file is no checkpoint or damaged, its keys or shapes are not those of a Midway Network, a
            tensor holds NaN or infinity, or `out_dir` cannot be written.
    """
    started = time.perf_counter()
    source, folder = Path(source_pth).expanduser(), Path(out_dir).expanduser()
    if not source.exists():
        raise FileNotFoundError(f"There is no file {source}")
    refuse_irregular(source)
    check_destination(folder, overwrite=overwrite)
    with TorchArchive(source) as archive:
        checkpoint = archive.load()
        try:
            plan = _plan(checkpoint)
        except ConversionError as error:
            raise ConversionError(f"{source} cannot be converted: {error}") from error
        if sum(map(nbytes, plan.tensors.values())) > source.stat().st_size:
            raise ConversionError(f"{source} holds fewer numbers than its tensors claim: they share their storages")
        origin = _origin(source)
        with published(folder, overwrite=overwrite) as staging:
            tensors = write_tensors(staging / "model.safetensors", plan.tensors, _metadata(origin), archive.read)
            report = ConversionReport(
                config=plan.config,
                mapped=plan.mapped,
                dropped=plan.dropped,
                heads=plan.heads,
                parameters=_parameters(plan.tensors),
                tensors=dict(sorted(tensors.items())),
                source=origin,
                training=read_training(checkpoint, archive.read),
                seconds=time.perf_counter() - started,
            )
            plan.config.save_pretrained(staging)
            MidwayImageProcessor(multiple=plan.config.patch_size).save_pretrained(staging)
            _write_record(staging / "conversion.json", report)
    logger.info("converted %s: %d tensors in %.1f s", source, len(tensors), report.seconds)
    return report


def _plan(checkpoint: Any) -> _Plan:
    """Account for every entry and key of a checkpoint, or list all that cannot be accounted for."""
    entries = _tensor_entries(checkpoint)
    shared = list(entries) == ["teacher"]
    dropped = {entry: reason for entry, reason in TRAINING_STATE.items() if entry in checkpoint}
    unknown = [(str(entry), "entry") for entry in checkpoint if entry not in (*entries, *dropped)]
    tensors: dict[str, StoredTensor] = {}
    mapped: dict[str, str] = {}
    for entry, key, value in ((entry, key, value) for entry, state in entries.items() for key, value in state.items()):
        theirs, bare = f"{entry}.{key}", str(key).removeprefix("module.")
        name, reason = our_name(entry, bare, shared=shared), reason_to_drop(entry, bare)
        if reason is not None:
            dropped[theirs] = reason
        elif name is None:
            unknown.append((theirs, ""))
        elif name in tensors:
            unknown.append((theirs, "again, with and without `module.`"))
        elif not isinstance(value, StoredTensor) or value.dtype not in DTYPES:
            unknown.append((theirs, f"{_kind(value)}, wanted a tensor of {', '.join(DTYPES)}"))
        else:
            tensors[name], mapped[theirs] = value, name
    config, heads = _check(tensors, mapped, unknown, checkpoint.get("args"), shared)
    return _Plan(config, heads, tensors, mapped, dropped)


def _check(
    tensors: Mapping[str, StoredTensor],
    mapped: Mapping[str, str],
    unknown: list[tuple[str, str]],
    args: Any,
    shared: bool,
) -> tuple[MidwayConfig, dict[str, str]]:
    """Read the architecture and check that the tensors are exactly those of a network of that architecture."""
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    try:
        config, heads = read_architecture(shapes, args, shared=shared)
    except ConversionError as error:
        raise ConversionError("\n".join([*_listing("unknown keys", unknown), str(error)])) from error
    wanted = expected_shapes(config)
    extra = [(theirs, "") for theirs, name in mapped.items() if name not in wanted]
    missing = [(their_name(name, shared=shared), "") for name in wanted if name not in shapes]
    wrong = [
        (theirs, f"{shapes[name]}, wanted {wanted[name]}")
        for theirs, name in mapped.items()
        if shapes[name] != wanted.get(name, shapes[name])
    ]
    problems = [
        *_listing("unknown keys", unknown + extra),
        *_listing("missing keys", missing),
        *_listing("keys of contradicting shape", wrong),
    ]
    if problems:
        raise ConversionError("\n".join(problems))
    dtypes = {tensor.dtype for tensor in tensors.values()}
    config.architectures = ["MidwayNetwork"]
    config.dtype = DTYPES[dtypes.pop()] if len(dtypes) == 1 else None
    return config, heads


def _tensor_entries(checkpoint: Any) -> dict[str, dict[Any, Any]]:
    wanted = f"wanted a dictionary with the entries {', '.join(TENSOR_ENTRIES)}, or with teacher alone"
    if not isinstance(checkpoint, dict):
        raise ConversionError(f"it holds {_kind(checkpoint)}; {wanted}")
    entries = {entry: checkpoint[entry] for entry in TENSOR_ENTRIES if entry in checkpoint}
    if list(entries) not in (["teacher"], list(TENSOR_ENTRIES)):
        seen = ", ".join(printable(key, 40) for key in list(checkpoint)[:20] if isinstance(key, str))
        raise ConversionError(f"it has the entries {seen or '(none)'}; {wanted}")
    for entry, state in entries.items():
        if not isinstance(state, dict):
            raise ConversionError(f"its entry {entry} holds {_kind(state)}; wanted a dictionary of tensors")
    return entries


def _listing(what: str, keys: list[tuple[str, str]]) -> list[str]:
    """List keys and a note on each; those that differ in block numbers only share a line."""
    groups: dict[str, list[str]] = {}
    for key, note in keys:
        groups.setdefault(re.sub(r"\d+", "*", key), []).append(f"{printable(key)} {note}".rstrip())
    lines = [f"{same[0]} (and {len(same) - 1} like it)" if same[1:] else same[0] for same in groups.values()]
    if len(lines) > _MOST_LISTED:
        lines[_MOST_LISTED:] = [f"... and {len(lines) - _MOST_LISTED} more lines"]
    return [f"{what} ({len(keys)}):", *(f"  {line}" for line in lines)] if keys else []


def _kind(value: Any) -> str:
    if isinstance(value, StoredTensor):
        return f"a tensor of {printable(value.dtype, 20)}"
    if isinstance(value, Record):
        return f"an object of {printable(value.type)}"
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def _origin(source: Path) -> dict[str, str | int]:
    with source.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"file": source.name, "sha256": digest, "bytes": source.stat().st_size}


def _metadata(origin: Mapping[str, str | int]) -> dict[str, str]:
    return {
        "format": "pt",
        "source": str(origin["file"]),
        "source_sha256": str(origin["sha256"]),
        "converter": f"midway_hub {__version__}",
    }


def _parameters(tensors: Mapping[str, StoredTensor]) -> dict[str, int]:
    sizes = {name: numel(tensor) for name, tensor in tensors.items()}
    return {
        "encoder": sum(size for name, size in sizes.items() if name.startswith("student.")),
        "dynamics": sum(size for name, size in sizes.items() if name.startswith("dynamics.") and is_trained(name)),
        "stored": sum(sizes.values()),
    }


def _write_record(path: Path, report: ConversionReport) -> None:
    heads = {name: {"value": getattr(report.config, name), "from": origin} for name, origin in report.heads.items()}
    record = {
        "converter": f"midway_hub {__version__}",
        "source": report.source,
        "heads": heads,
        "parameters": report.parameters,
        "training": report.training,
        "mapped": report.mapped,
        "dropped": report.dropped,
        "sha256": report.tensors,
    }
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
