"""What the files of a folder were made of and how, so that a later run goes on with them, or is told why it cannot."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from midway_hub._durable import whole_file
from midway_hub.extraction.plan import OutputExistsError

LOOK = "look"
"""The part of a request that concerns pictures alone: a run that draws none has no such part."""
ADVICE = "choose another output folder, or make everything anew with overwrite=True (--overwrite)"


def claim_folder(
    folder: Path, record: str, made_of: Mapping[str, str], request: Mapping[str, Any], *, overwrite: bool
) -> None:
    """Write down what a folder is to hold; refuse one that holds something else.

    Args:
        folder: The output folder.
        record: Name of the file that it is written down in.
        made_of: What the files are made of, a fingerprint by name.
        request: What they depend on beside that, as plain data.
        overwrite: Whether to claim it whatever it holds.

    Raises:
        OutputExistsError: What it holds was made otherwise, of other files, or by something else.
    """
    path, made_of = folder / record, dict(made_of)
    request = json.loads(json.dumps(request))
    if not overwrite and path.exists():
        before, known = _read(path)
        if differing := [*_differences(before, request), *_changes(known, made_of)]:
            raise OutputExistsError(f"{folder} holds what was made otherwise: {'; '.join(differing)}; {ADVICE}")
        request, made_of = {**before, **request}, {**known, **made_of}
    elif not overwrite and (others := sorted(each.name for each in folder.iterdir() if each.name[0] != ".")):
        raise OutputExistsError(f"{folder} holds {others[0]} and no {record}, so something else made it; {ADVICE}")
    with whole_file(path) as beside:
        beside.write_text(json.dumps({"request": request, "sources": made_of}, indent=2) + "\n", encoding="utf-8")


def fingerprint_files(files: Iterable[Path]) -> str:
    """Hash names, sizes and times of files."""
    digest = hashlib.sha256()
    for path in files:
        seen = path.stat()
        digest.update(f"{path.name}\0{seen.st_size}\0{seen.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return dict(held["request"]), dict(held["sources"])
    except (ValueError, KeyError, TypeError) as error:
        raise OutputExistsError(
            f"{path} is damaged ({error}), so that nobody knows how the files beside it were made; {ADVICE}"
        ) from None


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    for name in sorted({*before, *now}):
        drawn_once = name == LOOK and not (name in before and name in now)
        if before.get(name) != now.get(name) and not drawn_once:
            yield f"{name} was {before.get(name, 'unset')!r}, now {now.get(name, 'unset')!r}"


def _changes(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name, found in now.items():
        if before.get(name, found) != found:
            yield f"the files of {name or 'its source'} have changed"


__all__ = ["LOOK", "claim_folder", "fingerprint_files"]
