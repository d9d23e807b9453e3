"""Copies of what URLs hold: as old as their servers allow, and named by what they are. Real servers on loopback."""

import io
import os
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from midway_hub._options import fetched
from midway_hub.extraction import find_sources
from midway_hub.fetch import FetchError, UnreachableError
from midway_hub.url_cache import cached_download


def picture(grey: int, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (8, 8), grey).save(buffer, form)
    return buffer.getvalue()


class Camera(BaseHTTPRequestHandler):
    """A server of one thing, whatever the address; it answers conditional requests as it should."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        held = self.server.held
        self.server.seen.append(dict(self.headers))
        same = any(
            said in held["headers"] and self.headers.get(asked) == held["headers"][said]
            for said, asked in (("ETag", "If-None-Match"), ("Last-Modified", "If-Modified-Since"))
        )
        status = held.get("status", 304 if same else 200)
        body = b"" if status == 304 else held["body"]
        self.send_response_only(status)  # with no date of its own
        for name, value in {"Content-Length": str(len(body)), **held["headers"]}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True


class Site:
    """A camera, and what it was asked."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.server, self.address = server, f"http://127.0.0.1:{server.server_port}"
        server.seen = []

    def holds(self, body: bytes, status: int | None = None, **headers: str) -> None:
        self.server.held = {"body": body, "headers": {name.replace("_", "-"): text for name, text in headers.items()}}
        if status is not None:
            self.server.held["status"] = status

    @property
    def requests(self) -> int:
        return len(self.server.seen)

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Site]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_ASSETS_CACHE", str(tmp_path / "cache"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Camera)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    found = Site(server)
    yield found
    found.stop()


def grey_of(path: Path) -> int:
    return int(np.asarray(Image.open(path))[0, 0])


OLD, NEW = picture(10), picture(200)


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache_Control": "no-store"},
        {"Cache_Control": "no-cache, no-store, must-revalidate"},
        {"Cache_Control": "no-cache"},
        {"Cache_Control": "max-age=0"},
        {"Cache_Control": "private, max-age=60", "Age": "61"},
        {"Pragma": "no-cache"},
        {"Expires": "0"},
        {"Expires": formatdate(time.time() - 60, usegmt=True)},
        {"Cache_Control": "max-age=soon"},
        {"Cache_Control": "max-age=600", "Vary": "*"},
        {"Cache_Control": "no-cache", "ETag": '"the same for ever"'},
        {},
    ],
)
def test_a_camera_gives_what_it_shows_now(site: Site, headers: dict[str, str]) -> None:
    site.holds(OLD, **headers)
    assert grey_of(cached_download(f"{site.address}/cam.png")) == 10
    site.holds(NEW, **{**headers, **({"ETag": '"another"'} if "ETag" in headers else {})})
    path = cached_download(f"{site.address}/cam.png")
    assert grey_of(path) == 200
    assert sorted(item.name for item in path.parent.iterdir()) == ["about.json", "cam.png"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Cache_Control": "max-age=600"},
        {"Cache_Control": 'public, Max-Age="600", immutable'},
        {"Expires": formatdate(time.time() + 600, usegmt=True)},
        {"Expires": formatdate(time.time() - 10**6 + 600), "Date": formatdate(time.time() - 10**6)},
        {"Cache_Control": "max-age=600", "Expires": "0", "Age": "10"},
    ],
)
def test_what_may_be_kept_is_asked_for_once(site: Site, headers: dict[str, str]) -> None:
    site.holds(OLD, **headers)
    first = cached_download(f"{site.address}/cam.png")
    site.holds(NEW, **headers)
    assert cached_download(f"{site.address}/cam.png") == first
    assert (grey_of(first), site.requests) == (10, 1)


@pytest.mark.parametrize(
    ("headers", "asked"),
    [
        ({"ETag": '"1"'}, {"If-None-Match": '"1"'}),
        ({"ETag": 'W/"1"', "Cache_Control": "no-cache"}, {"If-None-Match": 'W/"1"'}),
        ({"Last_Modified": "Tue, 01 Apr 2025 10:00:00 GMT"}, {"If-Modified-Since": "Tue, 01 Apr 2025 10:00:00 GMT"}),
    ],
)
def test_what_has_not_changed_is_not_sent_again(site: Site, headers: dict[str, str], asked: dict[str, str]) -> None:
    site.holds(OLD, **headers)
    path = cached_download(f"{site.address}/cam.png")
    before = path.stat().st_mtime_ns
    for _ in range(2):
        assert cached_download(f"{site.address}/cam.png") == path
        assert asked.items() <= site.server.seen[-1].items()
    assert (path.stat().st_mtime_ns, grey_of(path), site.requests) == (before, 10, 3)


def test_an_answer_that_nothing_changed_may_prolong_the_life_of_a_copy(site: Site) -> None:
    site.holds(OLD, ETag='"1"')
    cached_download(f"{site.address}/cam.png")
    site.holds(OLD, ETag='"1"', Cache_Control="max-age=600")
    for _ in range(3):
        cached_download(f"{site.address}/cam.png")
    assert site.requests == 2


def test_what_was_sent_again_and_is_the_same_keeps_its_time(site: Site) -> None:
    site.holds(OLD, Cache_Control="no-store")
    path = cached_download(f"{site.address}/cam.png")
    os.utime(path, (1, 1))
    cached_download(f"{site.address}/cam.png")
    assert (path.stat().st_mtime, site.requests) == (1, 2)


@pytest.mark.parametrize("headers", [{}, {"ETag": '"1"'}, {"Cache_Control": "max-age=0"}])
def test_a_copy_serves_with_a_warning_where_its_server_is_gone(
    site: Site, caplog: pytest.LogCaptureFixture, headers: dict[str, str]
) -> None:
    site.holds(OLD, **headers)
    path = cached_download(f"{site.address}/cam.png")
    site.stop()
    assert cached_download(f"{site.address}/cam.png") == path
    assert "could not be fetched" in caplog.text
    assert "; the copy of 2" in caplog.text


@pytest.mark.parametrize("rule", ["no-store", "no-cache", "max-age=0, must-revalidate"])
def test_a_copy_that_may_not_be_stale_does_not_serve(site: Site, rule: str) -> None:
    site.holds(OLD, Cache_Control=rule)
    cached_download(f"{site.address}/cam.png")
    site.stop()
    with pytest.raises(UnreachableError, match="could not be fetched"):
        cached_download(f"{site.address}/cam.png")


@pytest.mark.parametrize("status", [404, 410, 500])
def test_a_server_that_answers_with_an_error_is_believed(site: Site, status: int) -> None:
    site.holds(OLD)
    cached_download(f"{site.address}/cam.png")
    site.holds(b"gone", status=status)
    with pytest.raises(FetchError, match=f"answered {status}"):
        cached_download(f"{site.address}/cam.png")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"name": "cam.png"}', '{"name": "other.png", "time": 0}'])
def test_a_damaged_note_costs_one_transfer(site: Site, text: str) -> None:
    site.holds(OLD, Cache_Control="max-age=600")
    path = cached_download(f"{site.address}/cam.png")
    (path.parent / "about.json").write_text(text)
    assert cached_download(f"{site.address}/cam.png") == path
    assert (cached_download(f"{site.address}/cam.png"), site.requests) == (path, 2)


# -- names -------------------------------------------------------------------------------------------------------------

MP4 = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(100)


@pytest.mark.parametrize(
    ("address", "kind", "body", "name"),
    [
        ("snapshot", "text/plain", OLD, "snapshot.png"),
        ("cgi/snap.cgi?user=me&camera=3.jpg", "image/jpeg", picture(1, "JPEG"), "snap.cgi.jpg"),
        ("", "application/octet-stream", OLD, "download.png"),
        ("clip", "application/mp4", MP4, "clip.mp4"),
        ("clip.MOV", "text/plain", MP4, "clip.MOV"),
        ("still.jpg", "image/jpeg", MP4, "still.jpg.mp4"),
        ("clip.mp4", "video/mp4", OLD, "clip.mp4.png"),
        ("photo.jpg", "image/jpeg", OLD, "photo.jpg"),
        ("%2e%2e", "image/png", OLD, "...png"),
        ("a%3Ab%5Cc.png", "image/png", OLD, "a_b_c.png"),
        ("%E8%B5%B0" * 100 + ".png", "image/png", OLD, None),
    ],
)
def test_a_copy_is_named_by_its_address_and_by_what_it_is(
    site: Site, address: str, kind: str, body: bytes, name: str | None
) -> None:
    site.holds(body, Content_Type=kind)
    path = Path(fetched([f"{site.address}/{address}"])[0])
    assert path.read_bytes() == body
    assert name is None or path.name == name
    assert find_sources(path).items[0].kind == ("video" if body == MP4 else "image")


@pytest.mark.parametrize(
    ("address", "kind", "body", "message"),
    [
        ("page", "text/html", b"<html>log in", "is a web page"),
        ("state", "application/json", b"{}", "is application/json; wanted video or image"),
        ("list.m3u8", "application/vnd.apple.mpegurl", b"#EXTM3U\n", "is application/vnd.apple.mpegurl; wanted"),
        ("data", "application/octet-stream", bytes(range(256)) * 3, "no image and no video that its first bytes or"),
    ],
)
def test_what_is_no_picture_and_no_video_is_refused_and_not_kept(
    site: Site, tmp_path: Path, address: str, kind: str, body: bytes, message: str
) -> None:
    site.holds(body, Content_Type=kind)
    with pytest.raises(FetchError, match=message):
        cached_download(f"{site.address}/{address}")
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


def test_a_camera_that_shows_a_video_after_a_picture_leaves_one_file(site: Site) -> None:
    site.holds(OLD, Cache_Control="no-store")
    assert cached_download(f"{site.address}/live").name == "live.png"
    site.holds(MP4, Cache_Control="no-store")
    path = cached_download(f"{site.address}/live")
    assert sorted(item.name for item in path.parent.iterdir()) == ["about.json", "live.mp4"]
