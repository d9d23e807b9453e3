"""Files behind URLs, kept as long as their servers allow (RFC 9111), and named by what they are."""

from __future__ import annotations

import filecmp
import hashlib
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from email.utils import parsedate_to_datetime
from pathlib import Path, PurePosixPath
from typing import Self
from urllib.parse import unquote, urlsplit
from uuid import uuid4

from huggingface_hub import constants

from midway_hub._durable import whole_file
from midway_hub.extraction.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from midway_hub.fetch import FetchError, UnreachableError, fetch_changed, without_secrets
from midway_hub.file_names import fitting
from midway_hub.signatures import HEAD_BYTES, signature_of

logger = logging.getLogger("midway_hub")

MAX_CACHED_BYTES = 2 * 2**30
RECORD = "about.json"
NAMELESS = "download"
UNSAFE = re.compile(r'[\x00-\x1f<>:"/\\|?*]')
"""What some file systems have no room for in a name."""
_VALIDATORS = {"etag": "If-None-Match", "last-modified": "If-Modified-Since"}


def cached_download(url: str, *, max_bytes: int = MAX_CACHED_BYTES) -> Path:
    """Return a local copy of what a URL holds now.

    A copy is used again as long as the server says that it may be (`Cache-Control`, `Expires`); after that the server
    is asked whether it has changed (`ETag`, `Last-Modified`). What it forbids to store is fetched each time. Where it
    cannot be reached, a copy is used with a warning, unless the server forbids that too.

    Args:
        url: http(s) address of an image or a video.
        max_bytes: Largest file taken.

    Returns:
        A file of the cache, named as the URL's last part; with the ending of what it is, where that says another thing.

    Raises:
        ValueError: Not an http(s) URL.
        FetchError: As `midway_hub.fetch.fetch`; or it is no image and no video that is known.
        OSError: The cache cannot be written.
    """
    key = hashlib.sha256(url.encode()).hexdigest()[:16]
    folder = Path(constants.HF_ASSETS_CACHE) / "midway_hub" / "downloads" / key
    record = _Record.read(folder)
    if record is not None and time.time() < record.fresh_until:
        return folder / record.name
    folder.mkdir(parents=True, exist_ok=True)
    incoming = folder / f"{uuid4().hex}.incoming"
    try:
        answer = fetch_changed(url, incoming, record.validators if record else {}, max_bytes=max_bytes)
        if record is None or answer.changed:
            name = _adopt(incoming, folder, url)
            _Record.of(name, answer.headers).write(folder)
            if record is not None and record.name != name:
                (folder / record.name).unlink(missing_ok=True)
            return folder / name
        record.revalidated(answer.headers).write(folder)
    except UnreachableError as error:
        if record is None or not record.may_be_stale:
            raise
        logger.warning(
            "%s; the copy of %s is used", error, time.strftime("%Y-%m-%d %H:%M", time.localtime(record.time))
        )
    finally:
        incoming.unlink(missing_ok=True)
    return folder / record.name


@dataclass(frozen=True)
class _Record:
    """What is known of a copy.

    Attributes:
        name: Of the file.
        time: When the server last said that it is what the URL holds, in seconds since 1970.
        fresh_until: Until when it may be used without asking.
        may_be_stale: Whether it may be used after that where the server cannot be reached.
        validators: Headers under which the server says whether it has changed.
    """

    name: str
    time: float
    fresh_until: float
    may_be_stale: bool
    validators: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, headers: Mapping[str, str]) -> Self:
        """Read what a server's answer allows."""
        rules = _directives(headers)
        stored, now = "no-store" not in rules, time.time()
        validators = {asked: headers[said] for said, asked in _VALIDATORS.items() if stored and said in headers}
        may_be_stale = not rules.keys() & {"no-store", "no-cache", "must-revalidate"}
        return cls(name, now, now + _lifetime(headers, rules), may_be_stale, validators)

    def revalidated(self, headers: Mapping[str, str]) -> Self:
        """Return what holds after the server has said that nothing changed."""
        new = self.of(self.name, headers)
        return replace(new, validators={**self.validators, **new.validators})

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Read what is known; None where there is no copy, or nothing is known of it."""
        try:
            record = cls(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
            return record if (folder / record.name).is_file() else None
        except (OSError, ValueError, TypeError):
            return None

    def write(self, folder: Path) -> None:
        """Write it beside the copy."""
        with whole_file(folder / RECORD) as beside:
            beside.write_text(json.dumps(asdict(self)), encoding="utf-8")


def _directives(headers: Mapping[str, str]) -> dict[str, str]:
    """Read `Cache-Control`, or what stood for it in HTTP/1.0."""
    text = headers.get("cache-control") or headers.get("pragma", "")
    parts = (part.partition("=") for part in text.lower().split(","))
    return {name.strip(): value.strip().strip('"') for name, _, value in parts if name.strip()}


def _lifetime(headers: Mapping[str, str], rules: Mapping[str, str]) -> float:
    """Seconds that an answer may be used without asking again; 0 where the server does not say."""
    if rules.keys() & {"no-store", "no-cache"} or headers.get("vary", "").strip() == "*":
        return 0.0
    try:
        if "max-age" in rules:
            life = float(int(rules["max-age"]))
        else:
            ends = parsedate_to_datetime(headers["expires"]).timestamp()
            life = ends - (parsedate_to_datetime(headers["date"]).timestamp() if "date" in headers else time.time())
        return max(0.0, life - int(headers.get("age", "0")))
    except (KeyError, ValueError, TypeError, OverflowError):  # not said, or no date or number: `Expires: 0`
        return 0.0


def _adopt(incoming: Path, folder: Path, url: str) -> str:
    """Give what has arrived its name; a copy that is the same to the byte stays, with its time."""
    with incoming.open("rb") as file:
        found = signature_of(file.read(HEAD_BYTES))
    name = UNSAFE.sub("_", PurePosixPath(unquote(urlsplit(url).path)).name) or NAMELESS
    named = _kind_of_suffix(PurePosixPath(name).suffix)
    if found is None and named is None:
        raise FetchError(f"{without_secrets(url)} is no image and no video that its first bytes or its name tell")
    right = found is None or named == found.kind.partition("/")[0]
    name = fitting(name, "" if right or found is None else found.suffix, folder)
    if (folder / name).is_file() and filecmp.cmp(incoming, folder / name, shallow=False):
        return name
    incoming.replace(folder / name)
    return name


def _kind_of_suffix(suffix: str) -> str | None:
    if suffix.lower() in IMAGE_SUFFIXES:
        return "image"
    return "video" if suffix.lower() in VIDEO_SUFFIXES else None
