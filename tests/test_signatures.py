"""What files are by their first bytes: real ones, written by the libraries that read them."""

import io

import av
import numpy as np
import pytest
from PIL import Image

from midway_hub.extraction.sources import IMAGE_SUFFIXES, VIDEO_SUFFIXES
from midway_hub.signatures import HEAD_BYTES, signature_of


@pytest.mark.parametrize(
    ("form", "kind"),
    [
        ("JPEG", "image/jpeg"),
        ("PNG", "image/png"),
        ("BMP", "image/bmp"),
        ("TIFF", "image/tiff"),
        ("WEBP", "image/webp"),
        ("GIF", "image/gif"),
        ("PPM", "image/x-portable-pixmap"),
    ],
)
def test_pictures_of_pillow_are_told(form, kind):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 30), (1, 2, 3)).save(buffer, form)
    assert signature_of(buffer.getvalue()[:HEAD_BYTES]).kind == kind


@pytest.mark.parametrize(
    ("container", "codec", "kind"),
    [
        ("mp4", "mpeg4", "video/mp4"),
        ("mov", "mpeg4", "video/quicktime"),
        ("matroska", "mpeg4", "video/x-matroska"),
        ("webm", "libvpx", "video/webm"),
        ("avi", "mpeg4", "video/x-msvideo"),
        ("flv", "flv", "video/x-flv"),
        ("asf", "mpeg4", "video/x-ms-wmv"),
        ("mpegts", "mpeg2video", "video/mp2t"),
        ("mpeg", "mpeg2video", "video/mpeg"),
    ],
)
def test_videos_of_ffmpeg_are_told(tmp_path, container, codec, kind):
    with av.open(str(tmp_path / "clip.bin"), "w", format=container) as file:
        try:
            stream = file.add_stream(codec, rate=25)
        except av.codec.codec.UnknownCodecError:
            pytest.skip(f"this PyAV has no {codec}")
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(4):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode())
    assert signature_of((tmp_path / "clip.bin").read_bytes()[:HEAD_BYTES]).kind == kind


def test_real_pictures_and_videos_are_what_their_endings_say(shared):
    seen = 0
    for path in sorted((shared / "data").rglob("*")):
        kinds = {"image": IMAGE_SUFFIXES, "video": VIDEO_SUFFIXES}
        wanted = next((kind for kind, suffixes in kinds.items() if path.suffix.lower() in suffixes), None)
        if wanted is not None and path.is_file():
            found = signature_of(path.read_bytes()[:HEAD_BYTES])
            assert found is not None, path
            assert found.kind.startswith(wanted), path
            seen += 1
    assert seen > 30


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"B",
        b"BM is no bitmap",
        b"P5",
        b"PK\3\4",
        b"RIFF\0\0\0\0WAVE",
        b"<html>",
        b"#EXTM3U\n",
        b"G" * 3,
        bytes(512),
    ],
)
def test_anything_else_is_nothing(head):
    assert signature_of(head) is None
