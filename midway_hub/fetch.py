"""Files from the web: streamed, and refused as soon as they are too large, too slow or not what was asked for."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import requests
from urllib3.exceptions import HTTPError, ProtocolError
from urllib3.exceptions import TimeoutError as SocketTimeout

from midway_hub._progress import download_watcher
from midway_hub.file_names import fitting
from midway_hub.signatures import HEAD_BYTES, signature_of

MAX_BYTES = 64 * 2**20
MAX_REDIRECTS = 5
_SOCKET_TIMEOUT = 10.0
_CHUNK_BYTES = 64 * 2**10
_ANY_FILE_TYPES = ("", "application/octet-stream", "binary/octet-stream", "application/x-binary")


_NOT_MODIFIED = 304


class FetchError(OSError):
    """A URL did not give the file that was asked for; the message says why, and leaves out passwords and queries."""


class UnreachableError(FetchError):
    """There was no answer: no connection, or none in time."""


@dataclass(frozen=True)
class Fetched:
    """What came of a conditional transfer.

    Attributes:
        changed: Whether the file was written; else it is as the server last said.
        headers: Of the answer, by their names in small letters.
    """

    changed: bool
    headers: Mapping[str, str]


@dataclass(frozen=True)
class _Transfer:
    headers: Mapping[str, str]
    chunks: Iterator[bytes] = field(repr=False)
    changed: bool = True


def fetch(url: str, *, max_bytes: int = MAX_BYTES, timeout: float = 60.0, accept: Sequence[str] = ("image/",)) -> bytes:
    """Returns what an http or https URL holds.

    Args:
        url: Address of the file itself.
        max_bytes: Largest body taken, counted on the bytes that arrive.
        timeout: Seconds that the whole transfer may take. A silent server is given up after 10 seconds.
        accept: Beginnings of the content types taken, such as `"image/"`. The first bytes are judged, not what the
            server says of them; what they do not tell is for the decoder to judge, unless it is text.

    Returns:
        The body, complete.

    Raises:
        ValueError: The URL is not http or https, or a limit is not positive.
        FetchError: No connection, an error status, a web page or another wrong type, a body that is too large, too
            slow, cut short or empty, or too many redirects.
    """
    with _transfer(url, max_bytes=max_bytes, timeout=timeout, accept=accept) as transfer:
        return b"".join(transfer.chunks)


def fetch_to(
    url: str,
    path: str | os.PathLike[str],
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = 600.0,
    accept: Sequence[str] = ("video/", "image/"),
) -> Path:
    """Streams what a URL holds to a file, which appears only once it is complete.

    The bytes go to a `*.part` file beside `path` that takes its name at the end, so that an interrupted transfer leaves
    an earlier file as it was.

    Args:
        url: Address of the file itself.
        path: File to write. Its folder must exist.
        max_bytes: As in `fetch`.
        timeout: As in `fetch`.
        accept: As in `fetch`.

    Returns:
        `path`.

    Raises:
        ValueError: As `fetch`.
        FetchError: As `fetch`.
        OSError: The file cannot be written (no such folder, disk full).
    """
    fetch_changed(url, path, {}, max_bytes=max_bytes, timeout=timeout, accept=accept)
    return Path(path)


def fetch_changed(
    url: str,
    path: str | os.PathLike[str],
    conditions: Mapping[str, str],
    *,
    max_bytes: int = MAX_BYTES,
    timeout: float = 600.0,
    accept: Sequence[str] = ("video/", "image/"),
) -> Fetched:
    """Streams what a URL holds to a file as `fetch_to` does, unless the server says that it has not changed.

    Args:
        url: As in `fetch_to`.
        path: As in `fetch_to`.
        conditions: Headers under which nothing is sent, such as `{"If-None-Match": '"1a2b"'}`.
        max_bytes: As in `fetch`.
        timeout: As in `fetch`.
        accept: As in `fetch`.

    Returns:
        Whether the file was written, and the headers of the answer.

    Raises:
        ValueError: As `fetch`.
        FetchError: As `fetch`.
        OSError: As `fetch_to`.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot write {path}: the folder {path.parent} does not exist")
    part = path.with_name(fitting(path.name, f".{uuid4().hex[:8]}.part", path.parent))
    try:
        watcher = download_watcher(path.name)
        with (
            part.open("xb") as file,
            _transfer(url, max_bytes=max_bytes, timeout=timeout, accept=accept, conditions=conditions) as transfer,
        ):
            for chunk in transfer.chunks:
                file.write(chunk)
                if watcher is not None:
                    watcher(file.tell(), 0)
        if transfer.changed:
            part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return Fetched(transfer.changed, transfer.headers)


@contextmanager
def _transfer(
    url: str, *, max_bytes: int, timeout: float, accept: Sequence[str], conditions: Mapping[str, str] | None = None
) -> Iterator[_Transfer]:
    if not isinstance(url, str):
        raise TypeError(f"url must be text, got {type(url).__name__}")
    if max_bytes <= 0 or timeout <= 0:
        raise ValueError(f"max_bytes and timeout must be positive, got {max_bytes} and {timeout}")
    _check_address(url)
    shown = without_secrets(url)
    patience = min(_SOCKET_TIMEOUT, timeout)
    deadline = time.monotonic() + timeout
    asked = _request_headers(accept, conditions or {})
    try:
        with requests.Session() as session, _open(session, url, patience, deadline, asked) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            if conditions and response.status_code == _NOT_MODIFIED:
                yield _Transfer(headers, iter(()), changed=False)
                return
            _check_headers(response, shown, max_bytes)
            yield _Transfer(headers, _body(response, shown, max_bytes, deadline, accept))
    except _DeadlinePassed:
        raise UnreachableError(f"{shown} did not arrive within {timeout:g} seconds") from None
    except (requests.Timeout, SocketTimeout):
        raise UnreachableError(f"{shown} was silent for {patience:g} seconds") from None
    except ProtocolError as error:
        raise FetchError(f"{shown} was cut short: {_root(error)}") from None
    except requests.ConnectionError as error:
        raise UnreachableError(f"{shown} could not be fetched: {_root(error)}") from None
    except (requests.RequestException, HTTPError) as error:
        raise FetchError(f"{shown} could not be fetched: {_root(error)}") from None


def _request_headers(accept: Sequence[str], conditions: Mapping[str, str]) -> dict[str, str]:
    return {
        "User-Agent": "midway-hub",
        "Accept": ", ".join([*(f"{kind}*" if kind.endswith("/") else kind for kind in accept), "*/*;q=0.5"]),
        "Accept-Encoding": "identity",
        **conditions,
    }


def _open(
    session: requests.Session, url: str, patience: float, deadline: float, headers: Mapping[str, str]
) -> requests.Response:
    """Follows redirects by hand, so that every address is checked and no redirect's body is read."""
    start = without_secrets(url)
    for _ in range(MAX_REDIRECTS + 1):
        _check_address(url)
        _check_deadline(deadline)
        response = session.get(url, headers=headers, stream=True, timeout=patience, allow_redirects=False)
        target = session.get_redirect_target(response)
        if target is None:
            return response
        response.close()
        session.close()  # connect anew: the server may be about to close the connection that it kept
        url = urljoin(url, target)
    raise FetchError(f"{start} redirects more than {MAX_REDIRECTS} times, at last to {without_secrets(url)}")


def _check_headers(response: requests.Response, shown: str, max_bytes: int) -> None:
    if response.status_code != 200:
        raise FetchError(f"{shown} answered {response.status_code} {response.reason or ''}".rstrip())
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise FetchError(f"{shown} holds {int(length):,} bytes; at most {max_bytes:,} are taken")


def _body(
    response: requests.Response, shown: str, max_bytes: int, deadline: float, accept: Sequence[str]
) -> Iterator[bytes]:
    """Yields what each read of the socket brings: waiting for full chunks would let a trickle outlast the deadline."""
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    total, head = 0, b""
    while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
        judged = total >= HEAD_BYTES
        total += len(chunk)
        if total > max_bytes:
            raise FetchError(f"{shown} holds more than the {max_bytes:,} bytes that are taken")
        _check_deadline(deadline)
        if judged:
            yield chunk
            continue
        head += chunk
        if total >= HEAD_BYTES:
            _judge(head, kind, shown, accept)
            yield head
    if total == 0:
        raise FetchError(f"{shown} is empty")
    if total < HEAD_BYTES:
        _judge(head, kind, shown, accept)
        yield head


def _judge(head: bytes, kind: str, shown: str, accept: Sequence[str]) -> None:
    """Refuses what the first bytes tell to be something else, and text that the server calls something else."""
    found = signature_of(head)
    if found is not None:
        if not found.kind.startswith(tuple(accept)):
            raise FetchError(f"{shown} is {found.kind} by its first bytes; {_wanted(accept)}")
    elif head.lstrip()[:14].lower().startswith((b"<!doctype html", b"<html")):
        raise _web_page(shown, accept)
    elif _is_text(head) and kind not in _ANY_FILE_TYPES and not kind.startswith(tuple(accept)):
        raise _web_page(shown, accept) if "html" in kind else FetchError(f"{shown} is {kind}; {_wanted(accept)}")


def _is_text(head: bytes) -> bool:
    """Whether bytes are those of text: no control characters but those that part lines and columns."""
    return all(byte >= 32 or byte in b"\t\n\f\r" for byte in head)


def _check_address(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme.lower() not in ("http", "https"):
        advice = "pass the path itself" if parts.scheme == "file" else "download the file and pass its path"
        raise ValueError(f"cannot fetch {without_secrets(url)}: the address must be http or https; {advice}")
    if not parts.hostname:
        raise ValueError(f"cannot fetch {url!r}: the address names no host")


def _check_deadline(deadline: float) -> None:
    if time.monotonic() > deadline:
        raise _DeadlinePassed


class _DeadlinePassed(Exception):  # noqa: N818
    pass


def _web_page(shown: str, accept: Sequence[str]) -> FetchError:
    return FetchError(
        f"{shown} is a web page (HTML); {_wanted(accept)}. Open it in a browser and copy the address of the file itself"
    )


def _wanted(accept: Sequence[str]) -> str:
    return "wanted " + " or ".join(kind.rstrip("/") for kind in accept)


def without_secrets(url: str) -> str:
    """The address without user, password and query, fit for messages."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _root(error: BaseException) -> str:
    """The innermost cause: the outer messages repeat the address, with its query."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return str(error) or type(error).__name__
