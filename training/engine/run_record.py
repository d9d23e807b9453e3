"""`run.json`: what a run is doing, on what, and what happened to it."""

from __future__ import annotations

import json
import logging
import socket
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from midway_hub._stored import DamagedFileError, damaged, read_json
from midway_hub.training.engine.durable import replace_text

_log = logging.getLogger("midway_hub")
_MOST_INCIDENTS = 1000


class RunRecord:
    """The content of `run.json`, written anew, whole, with every change.

    `state` is running, finished, interrupted (it will be resumed) or failed (`error` says why); a run whose process was
    killed says running, with a heartbeat that has stopped.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beat = 0.0
        self.facts: dict[str, Any] = {"id": uuid.uuid4().hex, "resumes": [], "incidents": []}
        if path.exists():
            try:
                self.facts = _checked(read_json(path, "a new one is started", keys=self.facts), path)
            except DamagedFileError as error:
                _log.warning("%s", error)

    def start(self, *, step: int, **facts: Any) -> None:
        """Note that the run goes from `step` on, with what it runs on now."""
        if "started" in self.facts:
            self.facts["resumes"].append({"time": _now(), "step": step, "host": socket.gethostname()})
        else:
            self.facts["started"] = _now()
        before, now = self.facts.get("steps"), facts.get("steps")
        if before is not None and now is not None and before != now:
            self.facts.setdefault("lengths", []).append({"time": _now(), "step": step, "from": before, "to": now})
        for old in ("error", "ended"):
            self.facts.pop(old, None)
        self.facts |= {"state": "running", "host": socket.gethostname(), **facts}
        self.heartbeat(step)

    def heartbeat(self, step: int, *, every: float = 0.0) -> None:
        """Note that `step` steps are done, unless that was noted less than `every` seconds ago."""
        if time.monotonic() - self._beat < every:
            return
        self._beat = time.monotonic()
        self.facts["heartbeat"] = {"time": _now(), "step": step}
        self._write()

    def incident(self, kind: str, step: int, facts: Mapping[str, Any]) -> None:
        """Note something that should not have happened; beyond a thousand they are only counted."""
        self.facts["incident_count"] = self.facts.get("incident_count", 0) + 1
        if len(self.facts["incidents"]) < _MOST_INCIDENTS:
            self.facts["incidents"].append({"kind": kind, "step": step, "time": _now(), **facts})
        self._write()

    def end(self, state: Literal["finished", "interrupted", "failed"], step: int, error: str | None = None) -> None:
        """Note how the run ended."""
        self.facts |= {"state": state, "ended": _now()} | ({"error": error} if error else {})
        self.heartbeat(step)

    def _write(self) -> None:
        replace_text(self._path, json.dumps(self.facts, indent=2))


def _checked(facts: dict[str, Any], path: Path) -> dict[str, Any]:
    for name in ("resumes", "incidents"):
        if not isinstance(facts[name], list):
            raise damaged(path, f"its {name} are no list", "a new one is started")
    return facts


def _now() -> str:
    return datetime.now(UTC).isoformat("T", "seconds")
