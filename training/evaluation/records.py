"""The folder of an evaluation: what it measures, what was measured so far, and the numbers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub._stored import damaged, need_keys, read_json
from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.versions import versions

CONFIGURATION, RESULTS = "configuration.json", "results.json"
SHOWN = 8
_AGAIN = "remove the folder, or give another one, to measure anew"


class RecordMismatchError(ValueError):
    """The folder holds numbers of another configuration; the message lists the differences."""


class EvaluationRecord:
    """Measurements that outlive an interruption: those that are in the folder need not be taken again.

    Args:
        folder: Where they are kept; made if there is none. None: nowhere.
        items: Name of the file that holds one line per measurement, such as `per_pair.jsonl`.
        protocol: What all numbers in the folder share: task, data, version.
        measured: What is measured, by name, with its settings. Others may be added to a folder later.

    Raises:
        RecordMismatchError: The folder holds numbers of another protocol, or of other settings under the same name.
    """

    def __init__(
        self, folder: Path | None, items: str, *, protocol: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
    ) -> None:
        self.folder = folder
        self.protocol, self.measured = plain(protocol), plain(measured)
        self._items = None if folder is None else folder / items
        self._known: dict[tuple[str, int], dict[str, Any]] = {}
        if folder is not None:
            self.pictures.mkdir(parents=True, exist_ok=True)
            self._agree(folder / CONFIGURATION)
            self._known = {(line["measured"], line["index"]): line for line in self._read()}

    @property
    def pictures(self) -> Path:
        """The folder's folder for pictures.

        Raises:
            ValueError: Nothing is kept.
        """
        if self.folder is None:
            raise ValueError("pictures need a folder to be kept in")
        return self.folder / "pictures"

    def __contains__(self, key: tuple[str, int]) -> bool:
        """Whether something, by name, was already measured on an item, by number."""
        return key in self._known

    def __getitem__(self, key: tuple[str, int]) -> dict[str, Any]:
        """Return what was added."""
        return self._known[key]

    def add(self, measured: str, index: int, **values: Any) -> None:
        """Keep a measurement.

        Args:
            measured: What was measured, by name.
            index: On which item.
            **values: JSON-able data.
        """
        line = {"measured": measured, "index": index, **plain(values)}
        self._known[measured, index] = line
        if self._items is not None:
            with self._items.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")

    def finish(self, results: Mapping[str, Any]) -> None:
        """Write the numbers and the versions of what made them, whole or not at all."""
        if self.folder is not None:
            found = {"protocol": self.protocol, "versions": versions(), **results}
            replace_text(self.folder / RESULTS, dumped(found))

    def _agree(self, file: Path) -> None:
        """Compare the configuration with the folder's, and write both together."""
        before: dict[str, Any] = {"protocol": self.protocol, "measured": {}}
        if file.is_file():
            before = read_json(file, _AGAIN, keys=before)
            need_keys(before["measured"], file, _AGAIN)
        shared = {name: settings for name, settings in self.measured.items() if name in before["measured"]}
        old = {"protocol": before["protocol"], **{name: before["measured"][name] for name in shared}}
        found = list(differences(old, {"protocol": self.protocol, **shared}))
        if found:
            more = f"\n  and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
            raise RecordMismatchError(
                f"{file.parent} holds an evaluation of another configuration; use another folder:\n  "
                + "\n  ".join(found[:SHOWN])
                + more
            )
        replace_text(file, dumped({"protocol": self.protocol, "measured": {**before["measured"], **self.measured}}))

    def _read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines, and cut off one that was torn by an interruption."""
        if self._items is None or not self._items.is_file():
            return
        text = self._items.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:
            replace_text(self._items, whole)
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                found = json.loads(line)
                found["measured"], found["index"]
            except (ValueError, KeyError, TypeError, RecursionError):
                raise damaged(self._items, f"line {number} is no measurement", _AGAIN) from None
            yield found


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """Yield what differs between two plain values, one line each."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            at = f"{path}.{key}" if path else str(key)
            if key not in old or key not in new:
                yield f"{at}: {old.get(key, 'nothing')!r} in the folder, {new.get(key, 'nothing')!r} now"
            else:
                yield from differences(old[key], new[key], at)
    elif old != new:
        yield f"{path}: {old!r} in the folder, {new!r} now"


def dumped(value: Any) -> str:
    """Return strict, readable JSON."""
    return json.dumps(plain(value), indent=2, allow_nan=False) + "\n"


def plain(value: Any) -> Any:
    """Return JSON-able data: tuples become lists, dataclasses mappings, NaN None."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
