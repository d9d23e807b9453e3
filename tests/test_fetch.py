"""Fetching files over HTTP, against a real server on loopback."""

import contextlib
import gzip
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway_hub.fetch import FetchError, fetch, fetch_to
from midway_hub.processing import MidwayImageProcessor, load_frame

ROOT = Path(__file__).resolve().parents[1]
BODY = bytes(range(256)) * 40
MP4_START = b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + bytes(1000)


def png(height: int, width: int) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


class Site(BaseHTTPRequestHandler):
    """Each path is one kind of server that people meet."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            getattr(self, "serve_" + self.path.split("?")[0].strip("/").replace(".", "_"))()
        self.close_connection = True

    def send(self, body: bytes, kind: str | None = "image/png", status: int = 200, **headers: object) -> None:
        self.send_response(status)
        if kind is not None:
            self.send_header("Content-Type", kind)
        headers.setdefault("Content_Length", len(body))
        for name, value in headers.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)

    def serve_good(self) -> None:
        self.send(BODY)

    def serve_picture_png(self) -> None:
        self.send(png(20, 30))

    def serve_noise_png(self) -> None:
        self.send(BODY)

    def serve_huge_png(self) -> None:
        self.send(png(100, 100))

    def serve_octets(self) -> None:
        self.send(BODY, "application/octet-stream")

    def serve_untyped(self) -> None:
        self.send(BODY, None)

    def serve_page(self) -> None:
        self.send(b"<html>log in first</html>", "text/html; charset=utf-8")

    def serve_disguised_page(self) -> None:
        self.send(b"\n<!DOCTYPE html><html>log in first</html>")

    def serve_json(self) -> None:
        self.send(b"{}", "application/json")

    def serve_text(self) -> None:
        self.send(b"camera offline\r\n", "text/plain")

    def serve_png_as_text(self) -> None:
        self.send(png(20, 30), "text/plain")

    def serve_png_as_page(self) -> None:
        self.send(png(20, 30), "text/html; charset=utf-8")

    def serve_png_as_json(self) -> None:
        self.send(png(20, 30), "application/json")

    def serve_png_in_drops(self) -> None:
        self.send(b"", "text/plain", Content_Length=len(png(20, 30)))
        for byte in png(20, 30)[:40]:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
        self.wfile.write(png(20, 30)[40:])

    def serve_mp4(self) -> None:
        self.send(MP4_START, "application/mp4")

    def serve_mp4_as_picture(self) -> None:
        self.send(MP4_START, "image/jpeg")

    def serve_unknown_as_mp4(self) -> None:
        self.send(BODY, "application/mp4")

    def serve_missing(self) -> None:
        self.send(b"gone", status=404)

    def serve_broken(self) -> None:
        self.send(b"oops", status=500)

    def serve_empty(self) -> None:
        self.send(b"")

    def serve_claims_terabyte(self) -> None:
        self.send(b"", Content_Length=10**12)

    def serve_endless(self) -> None:
        self.send(b"", Content_Length=None)
        while True:
            self.wfile.write(BODY)

    def serve_cut(self) -> None:
        self.send(BODY[:5000], Content_Length=len(BODY))

    def serve_cut_chunked(self) -> None:
        self.send(b"%x\r\n" % len(BODY) + BODY[:5000], Content_Length=None, Transfer_Encoding="chunked")

    def serve_gzipped(self) -> None:
        self.send(gzip.compress(BODY), Content_Encoding="gzip")

    def serve_gzip_bomb(self) -> None:
        self.send(gzip.compress(bytes(10**7)), Content_Encoding="gzip")

    def serve_silent(self) -> None:
        time.sleep(3)

    def serve_trickle(self) -> None:
        self.send(b"", Content_Length=10**5)
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.05)

    def serve_moved(self) -> None:
        self.send(b"", status=302, Location="/moved_again")

    def serve_moved_again(self) -> None:
        self.send(b"", status=301, Location="good")

    def serve_loop(self) -> None:
        self.send(b"", status=302, Location="/loop")

    def serve_to_file(self) -> None:
        self.send(b"", status=302, Location="file:///etc/hostname")


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("path", ["good", "octets", "untyped", "moved", "gzipped"])
def test_the_whole_body_arrives(site: str, path: str) -> None:
    assert fetch(f"{site}/{path}") == BODY


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "answered 404 Not Found"),
        ("broken", "answered 500"),
        ("page", r"is a web page \(HTML\); wanted image.*copy the address of the file itself"),
        ("disguised_page", r"is a web page \(HTML\)"),
        ("json", "is application/json; wanted image"),
        ("text", "is text/plain; wanted image"),
        ("mp4", "is video/mp4 by its first bytes; wanted image"),
        ("mp4_as_picture", "is video/mp4 by its first bytes; wanted image"),
        ("empty", "is empty"),
        ("cut", "was cut short"),
        ("cut_chunked", "was cut short"),
        ("loop", "redirects more than 5 times"),
    ],
)
def test_what_is_not_the_file_is_an_error_that_says_what_it_is(site: str, path: str, message: str) -> None:
    with pytest.raises(FetchError, match=f"/{path} {message}"):
        fetch(f"{site}/{path}")


@pytest.mark.parametrize("path", ["png_as_text", "png_as_page", "png_as_json", "png_in_drops", "picture.png"])
def test_the_first_bytes_count_whatever_the_server_says(site: str, path: str) -> None:
    assert fetch(f"{site}/{path}") == png(20, 30)


@pytest.mark.parametrize("path", ["mp4", "mp4_as_picture"])
def test_a_video_is_a_video_whatever_the_server_says(site: str, tmp_path: Path, path: str) -> None:
    assert fetch_to(f"{site}/{path}", tmp_path / "clip").read_bytes() == MP4_START


def test_what_the_first_bytes_do_not_tell_is_left_to_the_decoder(site: str) -> None:
    assert fetch(f"{site}/unknown_as_mp4") == BODY


def test_a_body_that_claims_to_be_too_large_is_refused_before_it_is_read(site: str) -> None:
    with pytest.raises(FetchError, match="holds 1,000,000,000,000 bytes; at most 67,108,864 are taken"):
        fetch(f"{site}/claims_terabyte")


@pytest.mark.parametrize("path", ["endless", "gzip_bomb"])
def test_the_size_limit_counts_the_bytes_that_arrive(site: str, path: str) -> None:
    with pytest.raises(FetchError, match="holds more than the 100,000 bytes"):
        fetch(f"{site}/{path}", max_bytes=100_000)


def test_a_body_of_exactly_the_limit_passes(site: str) -> None:
    assert fetch(f"{site}/good", max_bytes=len(BODY)) == BODY


def test_a_silent_server_is_given_up(site: str) -> None:
    with pytest.raises(FetchError, match=r"was silent for 0\.3 seconds"):
        fetch(f"{site}/silent", timeout=0.3)


def test_a_trickle_does_not_outlast_the_time_limit(site: str) -> None:
    start = time.monotonic()
    with pytest.raises(FetchError, match=r"did not arrive within 0\.4 seconds"):
        fetch(f"{site}/trickle", timeout=0.4)
    assert time.monotonic() - start < 2


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x.png", "s3://bucket/x.png", "x.png"])
def test_only_http_addresses_are_fetched(url: str) -> None:
    with pytest.raises(ValueError, match="must be http or https"):
        fetch(url)


def test_a_redirect_to_another_scheme_is_not_followed(site: str) -> None:
    with pytest.raises(ValueError, match="cannot fetch file:///etc/hostname"):
        fetch(f"{site}/to_file")


def test_an_address_without_a_host_is_refused() -> None:
    with pytest.raises(ValueError, match="names no host"):
        fetch("http:///x.png")


def test_a_host_that_does_not_answer_is_an_error_with_the_cause() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(FetchError, match=r"could not be fetched: .*refused"):
        fetch(f"http://127.0.0.1:{port}/x.png")


def test_messages_leave_out_passwords_and_queries(site: str) -> None:
    address = site.replace("http://", "http://user:secret@")
    with pytest.raises(FetchError) as caught:
        fetch(f"{address}/missing?token=secret")
    assert "secret" not in str(caught.value)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(FetchError) as caught:
        fetch(f"http://127.0.0.1:{port}/x?token=secret")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("limits", [{"max_bytes": 0}, {"timeout": -1}])
def test_limits_must_be_positive(site: str, limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="max_bytes and timeout must be positive"):
        fetch(f"{site}/good", **limits)


def test_an_address_must_be_text() -> None:
    with pytest.raises(TypeError, match="url must be text, got int"):
        fetch(3)


def test_a_file_is_written_whole_and_leaves_nothing_else(site: str, tmp_path: Path) -> None:
    assert fetch_to(f"{site}/good", tmp_path / "clip.mp4") == tmp_path / "clip.mp4"
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("clip.mp4", BODY)]


@pytest.mark.parametrize("path", ["cut", "missing", "page"])
def test_a_failed_transfer_leaves_the_earlier_file_alone(site: str, tmp_path: Path, path: str) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"earlier")
    with pytest.raises(FetchError):
        fetch_to(f"{site}/{path}", tmp_path / "clip.mp4")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("clip.mp4", b"earlier")]


def test_a_killed_transfer_leaves_no_file_of_that_name(site: str, tmp_path: Path) -> None:
    code = f"from midway_hub.fetch import fetch_to; fetch_to({site + '/trickle'!r}, {str(tmp_path / 'clip.mp4')!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)})
    deadline = time.monotonic() + 60
    while process.poll() is None and not list(tmp_path.glob("*.part")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on file size")
def test_a_full_disk_is_an_error_that_leaves_nothing(site: str, tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        f"from midway_hub.fetch import fetch_to; fetch_to({site + '/good'!r}, {str(tmp_path / 'clip.mp4')!r})"
    )
    run = subprocess.run(
        [sys.executable, "-B", "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "File too large" in run.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_folder_to_write_to_must_exist(site: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the folder .*nowhere does not exist"):
        fetch_to(f"{site}/good", tmp_path / "nowhere" / "clip.mp4")


def test_an_image_url_gives_the_pixels_of_the_file(site: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(png(20, 30))
    torch.testing.assert_close(load_frame(f"{site}/picture.png"), load_frame(tmp_path / "picture.png"))


def test_the_processor_takes_urls_and_files_side_by_side(site: str, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(png(20, 30))
    inputs = MidwayImageProcessor()([f"{site}/picture.png", str(tmp_path / "picture.png")])
    torch.testing.assert_close(inputs.pixel_values[0], inputs.pixel_values[1])


def test_a_url_of_another_scheme_is_not_taken_for_a_path() -> None:
    with pytest.raises(ValueError, match="must be http or https; pass the path itself"):
        load_frame("file:///tmp/picture.png")


def test_a_url_that_calls_itself_an_image_and_is_none_is_refused(site: str) -> None:
    with pytest.raises(ValueError, match=r"noise\.png\) is not an image that Pillow can read"):
        load_frame(f"{site}/noise.png")


@pytest.mark.parametrize("limit", [9_000, 4_000])
def test_a_picture_of_too_many_pixels_is_refused(
    site: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, limit: int
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"huge\.png\).*(more than PIL\.Image\.MAX_IMAGE_PIXELS|exceeds limit)"):
        load_frame(f"{site}/huge.png")
