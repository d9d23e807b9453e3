"""A run directory: what is in it, and what a run that goes on must agree with.

config.yaml       every resolved value of the configuration
run.json          state, versions, devices, heartbeat, resumes, incidents
data.json         fingerprint of the data, rejected files with reasons
metrics.jsonl     logged values, a line per interval
checkpoints/      step_N/
incidents/        step_N/: batch and random state of steps that were not finite
lock              held while a job runs here
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from midway_hub._stored import damaged, need_keys, read_json
from midway_hub.training.engine.checkpoint import Checkpoints
from midway_hub.training.engine.configuration import Complete, differences, essential, refuse_changes
from midway_hub.training.engine.durable import replace_text
from midway_hub.training.engine.lock import Lock
from midway_hub.training.engine.metrics import drop_lines_after
from midway_hub.training.engine.run_record import RunRecord
from midway_hub.training.engine.settings import MAY_CHANGE, EngineSettings
from midway_hub.training.yaml_text import YamlError, dump_yaml, read_yaml

_log = logging.getLogger("midway_hub")


class RunDirectory:
    """The files of a run; the first process alone opens and writes it.

    Args:
        path: The directory; made if it is not there.
        config: The whole configuration as plain values (`model_dump(mode="json")`).
        settings: Its engine section.
        may_change: Dotted keys, besides the engine's own, that a resumed run may change; a key covers those below it.
    """

    def __init__(
        self,
        path: Path,
        config: Mapping[str, Any],
        settings: EngineSettings,
        *,
        may_change: Iterable[str] = (),
        complete: Complete = dict,
    ) -> None:
        self.path = path
        self.config = json.loads(json.dumps(config))
        self.incidents = path / "incidents"
        self.metrics = path / "metrics.jsonl"
        self._may_change, self._complete = (*MAY_CHANGE, *may_change), complete
        self._lock = Lock(path / "lock")
        self.checkpoints = Checkpoints(
            path / "checkpoints",
            config=self.config,
            keep_last=settings.keep_last,
            keep_every=settings.keep_every_steps,
            complete=complete,
        )

    def open(self, fingerprint: Mapping[str, Any]) -> int:
        """Take the directory, see that configuration and data are those it was made with, and find where to go on.

        Args:
            fingerprint: What identifies the data.

        Returns:
            Optimizer steps done: those of the last whole checkpoint, or 0.

        Raises:
            RunDirectoryInUseError: Another job runs here.
            ConfigurationChangedError: Configuration or data are others; the message lists what differs.
            CheckpointError: There are checkpoints and none is whole.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        try:
            self._adopt_config()
            self._adopt_data(fingerprint)
            step, wrong = self.checkpoints.find_last(self._may_change)
            self.record = RunRecord(self.path / "run.json")
            for reason in wrong:
                self.record.incident("damaged checkpoint", step or 0, {"reason": reason, "went_on_from": step or 0})
            drop_lines_after(self.metrics, step or 0)
        except BaseException:
            self.close()
            raise
        return step or 0

    def close(self) -> None:
        """Let other jobs in."""
        self._lock.release()

    def write_rejected(self, rejected: Sequence[Mapping[str, str]]) -> None:
        """Write which files could not be read so far, each once, beside what earlier jobs of this run found."""
        data = self._read_data()
        known = {(entry["file"], entry["reason"]) for entry in data["rejected"]}
        found = {(entry["file"], entry["reason"]) for entry in rejected} | known
        if found != known:
            data["rejected"] = [{"file": file, "reason": reason} for file, reason in sorted(found)]
            replace_text(self._data, json.dumps(data, indent=2))

    @property
    def _data(self) -> Path:
        return self.path / "data.json"

    def _read_data(self) -> dict[str, Any]:
        remedy = (
            "remove it to go on: it is written anew, without the check that the data are those that the run began with"
        )
        return read_json(self._data, remedy, keys=("fingerprint", "rejected"))

    def _adopt_config(self) -> None:
        file = self.path / "config.yaml"
        if file.exists():
            old = read_config(file)
            differing = differences(self._complete(old), self.config)
            refuse_changes(essential(differing, self._may_change), what="configuration", where=str(self.path))
            for key, (before, now) in differing.items():
                _log.info("%s changed from %s to %s", key, before, now)
            if old == self.config:
                return
        replace_text(file, dump_yaml(self.config))

    def _adopt_data(self, fingerprint: Mapping[str, Any]) -> None:
        fingerprint = json.loads(json.dumps(fingerprint))
        if self._data.exists():
            old = self._read_data()["fingerprint"]
            refuse_changes(differences(old, fingerprint, "data"), what="data set", where=str(self.path))
            return
        replace_text(self._data, json.dumps({"fingerprint": fingerprint, "rejected": []}, indent=2))


def read_config(file: Path) -> dict[str, Any]:
    """Read the `config.yaml` of a run.

    Raises:
        DamagedFileError: It is no configuration.
        OSError: It is not there.
    """
    remedy = (
        f"remove it and give the command that began the run once more, with --run-dir {file.parent}: it goes on from "
        "the last checkpoint, which knows the configuration too"
    )
    try:
        found = read_yaml(file)
    except YamlError as error:
        raise damaged(file, str(error).removeprefix(str(file)).lstrip(" :"), remedy) from None
    return need_keys(found, file, remedy)
