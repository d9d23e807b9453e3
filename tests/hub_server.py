"""A Hub on loopback: enough of the Hugging Face protocol for the real client, with faults to switch on."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".pth", ".bin")


@dataclass
class Faults:
    """What goes wrong, by file name. A fault holds until it is cleared."""

    cut: dict[str, int] = field(default_factory=dict)  # bytes after which a body ends, its length announced as such
    drop_once: dict[str, int] = field(default_factory=dict)  # bytes after which the connection is dropped, one time
    flip: set[str] = field(default_factory=set)  # bodies whose last byte is inverted
    status: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)  # repo id -> HTTP status and headers


@dataclass
class Repo:
    """Commits (sha -> files) and the branches and tags that point at them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        listing = "".join(f"{name}:{hashlib.sha1(data).hexdigest()};" for name, data in sorted(files.items()))
        sha = hashlib.sha1(f"{len(self.commits)}{listing}".encode()).hexdigest()
        self.commits[sha] = dict(files)
        self.refs[ref] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.refs.get(revision) or (revision if revision in self.commits else None)


class Hub:
    """The server's state: repositories, faults, and a log of (method, path, body bytes sent)."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.faults = Faults()
        self.log: list[tuple[str, str, int]] = []
        self.uploads: dict[str, bytes] = {}
        self.token: str | None = None  # what a writer must present
        self.url = ""

    def put(self, repo_id: str, files: dict[str, bytes], ref: str = "main") -> str:
        """Commit these files, and no others, to a branch or tag; returns the commit."""
        return self.repos.setdefault(repo_id, Repo()).commit(files, ref)

    def bodies(self, name: str) -> int:
        """Count the GETs that sent a file of this name."""
        return sum(method == "GET" and path.endswith(f"/{name}") and sent > 0 for method, path, sent in self.log)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty Hub on a free port of 127.0.0.1."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _git_id(data: bytes) -> str:
    return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()


def _listed(name: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(data), "oid": _git_id(data)}
    if name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 128}
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._dispatch()

    do_GET = do_POST = do_PUT = do_HEAD  # noqa: N815

    # -- routing -------------------------------------------------------------------------------------------------

    def _dispatch(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        routes: list[tuple[str, str, Callable[..., None]]] = [
            ("HEAD|GET", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)", self._file),
            ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)(?:/revision/(?P<rev>.+))?", self._info),
            ("GET", r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/]+).*", self._tree),
            ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/paths-info/(?P<rev>.+)", self._tree),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda: self._json({"errors": [], "warnings": []})),
            ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<branch>.+)", self._branch),
            ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<rev>.+)", self._preupload),
            ("POST", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch", self._batch),
            ("PUT", r"/upload/(?P<oid>[0-9a-f]{64})", self._upload),
            ("POST", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<rev>.+)", self._commit),
        ]
        # The listing routes are longer than the one that shows a repository, so the longest match is the right one.
        for methods, pattern, handler in sorted(routes, key=lambda route: -len(route[1])):
            found = re.fullmatch(pattern, path)
            if found and self.command in methods.split("|"):
                groups = {name: value for name, value in found.groupdict().items() if value is not None}
                fault = self.hub.faults.status.get(groups.get("repo", ""))
                if fault:
                    return self._reply(fault[0], b"{}", fault[1])
                return handler(**groups)
        return self._error(404, "NoSuchRoute")

    # -- reading -------------------------------------------------------------------------------------------------

    def _snapshot(self, repo: str, rev: str) -> tuple[str, dict[str, bytes]] | None:
        if repo not in self.hub.repos:
            self._error(401, "RepoNotFound")  # as the Hub answers an anonymous user, lest it tell what is private
            return None
        sha = self.hub.repos[repo].find(rev)
        if sha is None:
            self._error(404, "RevisionNotFound")
            return None
        return sha, self.hub.repos[repo].commits[sha]

    def _info(self, repo: str, rev: str = "main") -> None:
        found = self._snapshot(repo, rev)
        if found:
            sha, held = found
            siblings = [{"rfilename": name} for name in held]
            self._json({"id": repo, "modelId": repo, "sha": sha, "siblings": siblings, "private": False, "tags": []})

    def _tree(self, repo: str, rev: str) -> None:
        found = self._snapshot(repo, rev)
        if found:
            wanted = parse_qs(self.body.decode())["paths"] if self.body else list(found[1])
            self._json([_listed(name, found[1][name]) for name in wanted if name in found[1]])

    def _file(self, repo: str, rev: str, name: str) -> None:
        found = self._snapshot(repo, rev)
        if found is None:
            return
        sha, held = found
        if name not in held:
            return self._error(404, "EntryNotFound", {"X-Repo-Commit": sha})
        data, faults = held[name], self.hub.faults
        headers = {"X-Repo-Commit": sha, "ETag": f'"{_git_id(data)}"', "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(data).hexdigest()}"'
            headers["X-Linked-Size"] = str(len(data))
        if self.command == "HEAD":
            return self._reply(200, b"", headers, length=len(data))
        if name in faults.flip:
            data = data[:-1] + bytes([data[-1] ^ 0xFF])
        if name in faults.cut:
            return self._reply(200, data[: faults.cut[name]], headers)
        start = int((re.match(r"bytes=(\d+)-", self.headers.get("Range", "")) or [0, 0])[1])
        status = 206 if start else 200
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if name in faults.drop_once:
            self._reply(status, data[start : start + faults.drop_once.pop(name)], headers, length=len(data) - start)
            self.close_connection = True
            return None
        return self._reply(status, data[start:], headers)

    # -- writing -------------------------------------------------------------------------------------------------

    def _may_write(self) -> bool:
        if self.hub.token is None or self.headers.get("Authorization") == f"Bearer {self.hub.token}":
            return True
        self._error(403, "")
        return False

    def _create(self) -> None:
        if self._may_write():
            wanted = json.loads(self.body)
            repo_id = "/".join(filter(None, (wanted.get("organization"), wanted["name"])))
            if repo_id in self.hub.repos:
                return self._json({"url": f"{self.hub.url}/{repo_id}"}, status=409)
            self.hub.put(repo_id, {".gitattributes": b"*.safetensors filter=lfs\n"})
            self._json({"url": f"{self.hub.url}/{repo_id}", "name": repo_id})

    def _branch(self, repo: str, branch: str) -> None:
        refs = self.hub.repos[repo].refs
        refs.setdefault(branch, refs["main"])
        self._json({})

    def _preupload(self, repo: str, rev: str) -> None:
        modes = [
            {"path": f["path"], "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
            for f in json.loads(self.body)["files"]
        ]
        self._json({"files": modes})

    def _batch(self, repo: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.url}/upload/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _upload(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._error(400, "WrongChecksum")
        self.hub.uploads[oid] = self.body
        return self._reply(200, b"", {})

    def _commit(self, repo: str, rev: str) -> None:
        if not self._may_write():
            return
        held = dict(self.hub.repos[repo].commits[self.hub.repos[repo].refs[rev]])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                held[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                held[value["path"]] = self.hub.uploads[value["oid"]]
            elif operation["key"] == "deletedFile":
                del held[value["path"]]
        sha = self.hub.put(repo, held, rev)
        self._json({"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha, "pullRequestUrl": None})

    # -- answers -------------------------------------------------------------------------------------------------

    def _json(self, content: Any, *, status: int = 200) -> None:
        self._reply(status, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        self._reply(status, b"{}", {**(headers or {}), **({"X-Error-Code": code} if code else {})})

    def _reply(self, status: int, body: bytes, headers: dict[str, str], *, length: int | None = None) -> None:
        sent = b"" if self.command == "HEAD" else body
        # Logged first: the client may go on as soon as it has the answer.
        self.hub.log.append((self.command, unquote(urlsplit(self.path).path), len(sent)))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(sent)
