"""The hub as a user's process sees it: huggingface_hub reads its environment when it is imported, so tests start one.

Run as a script it answers requests, one line of JSON each, until its input ends.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

QUIET = {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_XET": "1"}
_FROM_OUTSIDE = (
    "HF_",
    "HUGGING",
    "TRANSFORMERS_OFFLINE",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http",
    "all_proxy",
)


class RemoteError(Exception):
    """An error in the client's process: the names of its classes, and its message."""

    def __init__(self, kinds: list[str], message: str) -> None:
        super().__init__(f"{kinds[0]}: {message}")
        self.kinds, self.message = kinds, message


class Client:
    """One process with its own environment.

    Args:
        url: The Hub's address.
        home: Its HF_HOME.
        **environment: Further variables.
    """

    def __init__(self, url: str, home: Path, **environment: str) -> None:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(_FROM_OUTSIDE)}
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # What this process can import, that one can: the package need not be installed.
            env={
                **kept,
                **QUIET,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "HF_ENDPOINT": url,
                "HF_HOME": str(home),
                **environment,
            },
        )

    def send(self, function: str, *args: Any, **kwargs: Any) -> None:
        """Start `function` of the hub module, or of this one."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"function": function, "args": args, "kwargs": kwargs}) + "\n")
        self.process.stdin.flush()

    def receive(self) -> dict[str, Any]:
        """Wait for its result: `value`, `log` and the number of files that were `hashed`."""
        assert self.process.stdout is not None
        answer = json.loads(self.process.stdout.readline())
        if "error" in answer:
            raise RemoteError(answer["error"], answer["message"])
        return answer

    def call(self, function: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Run a function and wait for its result."""
        self.send(function, *args, **kwargs)
        return self.receive()

    def resolve(self, name: str, **kwargs: Any) -> dict[str, Any]:
        """Run `hub.resolve` and give the fields of its result, with `log` and `hashed`."""
        answer = self.call("resolve", name, **kwargs)
        return {**answer["value"], "log": answer["log"], "hashed": answer["hashed"]}

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait(timeout=10)


class Cache:
    """One cache folder, used by one process."""

    def __init__(self, process: Client, folder: Path) -> None:
        self.process, self.folder = process, folder

    def resolve(self, name: str, **kwargs: Any) -> dict[str, Any]:
        """Run `Client.resolve` on this cache."""
        return self.process.resolve(name, cache_dir=str(self.folder), **kwargs)

    def refused(self, name: str, **kwargs: Any) -> RemoteError:
        """Run `resolve`, which must fail, and give the error."""
        try:
            found = self.resolve(name, **kwargs)
        except RemoteError as error:
            return error
        raise AssertionError(f"{name} was found: {found}")

    def blob(self, name: str) -> Path:
        """Find the file in the cache that a file of a snapshot is a link to."""
        return next(self.folder.glob(f"models--*/snapshots/*/{name}")).resolve()


def register(**fields: Any) -> None:
    """Add an entry to this process's registry."""
    from midway_hub import registry

    defaults = {"summary": "A test.", "task": ("features",), "architecture": {}}
    registry._ENTRIES[fields["name"]] = registry.RegistryEntry(**{**defaults, **fields})


def unregister() -> None:
    """Leave no entry but the package's own in this process's registry."""
    from midway_hub import registry

    registry._ENTRIES = {entry.name: entry for entry in registry._ALL}


def never_wait() -> None:
    """Make it an error of this process to sleep for as long as who tries again and again does."""
    import time

    def impatient(seconds: float, sleep: Any = time.sleep) -> None:
        if seconds >= 0.5:
            raise AssertionError(f"it waits {seconds} s")
        sleep(seconds)

    time.sleep = impatient  # type: ignore[assignment]


def push_network(repo_id: str, **kwargs: Any) -> str:
    """Push a very small network that has nothing but an encoder."""
    from midway_hub.config import MidwayConfig
    from midway_hub.models.network import MidwayNetwork

    config = MidwayConfig(embed_dim=12, depth=2, image_size=32, dynamics=False, target_network="shared")
    return MidwayNetwork(config).push_to_hub(repo_id, **kwargs)


def push_again(name: str, repo_id: str, *, cache_dir: str, **kwargs: Any) -> str:
    """Load a network and push it elsewhere."""
    from midway_hub.models.network import MidwayNetwork

    return MidwayNetwork.from_pretrained(name, cache_dir=cache_dir).push_to_hub(repo_id, **kwargs)


def load_network(name: str, **kwargs: Any) -> dict[str, Any]:
    """Load a network, and give its report and the number of its weights."""
    from midway_hub.models.network import MidwayNetwork

    net = MidwayNetwork.from_pretrained(name, **kwargs)
    assert net.load_report is not None
    return {**dataclasses.asdict(net.load_report), "weights": sum(weight.numel() for weight in net.parameters())}


def describe(name: str, **kwargs: Any) -> dict[str, Any]:
    """Say what a checkpoint is."""
    from midway_hub.hub.description import describe

    found = describe(name, **kwargs)
    return {**dataclasses.asdict(found), "config": found.config.to_dict()}


def _answer(request: dict[str, Any], lines: list[str], hashed: list[str]) -> dict[str, Any]:
    from midway_hub import hub

    lines.clear()
    hashed.clear()
    function = globals().get(request["function"]) or getattr(hub, request["function"])
    try:
        value = function(*request["args"], **request["kwargs"])
    except Exception as error:
        return {"error": [kind.__name__ for kind in type(error).__mro__], "message": str(error)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = dataclasses.asdict(value)
    return {"value": value, "log": lines, "hashed": len(hashed)}


def _serve() -> None:
    from midway_hub.hub import checksums

    lines: list[str] = []
    hashed: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname}: {record.getMessage()}")  # type: ignore[method-assign]
    logging.getLogger("midway_hub").addHandler(handler)
    logging.getLogger("midway_hub").setLevel(logging.INFO)
    really_hash = checksums.hash_file

    def counted(path: Path, algorithm: Any = "sha256") -> str:
        hashed.append(str(path))
        return really_hash(path, algorithm)

    checksums.hash_file = counted
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_answer(json.loads(line), lines, hashed), default=str) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
