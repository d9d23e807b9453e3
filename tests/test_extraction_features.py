"""The numbers that `extract_features` stores, and that nothing but the frames and the request decides them."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import make_tiny_net
from PIL import Image
from safetensors.numpy import load_file

from midway_hub import MidwayImageProcessor
from midway_hub.extraction import Progress, extract_features, read_metadata

SMALL = {"processor": MidwayImageProcessor(fit="resize", size=(64, 96))}


def make_video(path: Path, frames: int = 7, size: tuple[int, int] = (64, 96), seed: int = 0) -> Path:
    """Write a video of random blobs; every frame differs from every other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "10", "preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = (*size, "yuv420p")
        for _ in range(frames):
            coarse = random.integers(0, 256, (size[0] // 16, size[1] // 16, 3), dtype=np.uint8)
            picture = np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def extract(net, source: Path, output: Path, **options) -> dict[str, np.ndarray]:
    """Extract one source and read its output."""
    result = extract_features(net, source, output, **options)
    assert not result.failed, result.failed
    (written,) = result.done
    if written.output.suffix == ".npz":
        with np.load(written.output) as archive:
            return {name: archive[name] for name in archive.files if name != "metadata"}
    return load_file(written.output)


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype
        np.testing.assert_allclose(found[name], values, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.fixture
def clip(tmp_path) -> Path:
    return make_video(tmp_path / "clip.mp4")


def test_features_of_a_video_are_those_of_its_frames_encoded_at_once(tiny_net, clip, tmp_path):
    found = extract(tiny_net, clip, tmp_path / "out", layers=[2, -4], batch=3)
    with torch.inference_mode():
        features = tiny_net.encode(MidwayImageProcessor()(decode(clip))["pixel_values"], layers=[2, 8])
    assert found["last"].shape == (7, 48, 4, 6)
    assert_same(
        found,
        {
            "last": features.last.numpy(),
            "cls": features.cls.numpy(),
            "layer_2": features.layers[0].numpy(),
            "layer_8": features.layers[1].numpy(),
            "frame_indices": np.arange(7),
            "timestamps": np.arange(7) / 10,
        },
    )


def test_the_output_is_named_after_the_source_with_its_extension(tiny_net, clip, tmp_path):
    (written,) = extract_features(tiny_net, clip, tmp_path / "out", format="npz").done
    assert written.output == tmp_path / "out" / "clip.mp4.npz"
    assert written.count == 7


@pytest.mark.parametrize("batch", [3, 8])
def test_batch_size_changes_nothing(tiny_net, clip, tmp_path, batch):
    one = extract(tiny_net, clip, tmp_path / "one", batch=1)
    assert_same(extract(tiny_net, clip, tmp_path / "more", batch=batch), one)


def test_safetensors_and_npz_hold_the_same(tiny_net, clip, tmp_path):
    one = extract(tiny_net, clip, tmp_path, format="safetensors", layers=[5])
    other = extract(tiny_net, clip, tmp_path, format="npz", layers=[5])
    assert_same(other, one)
    held = [read_metadata(tmp_path / f"clip.mp4.{format}") for format in ("safetensors", "npz")]
    assert held[0] == held[1]


def test_every_kth_frame_is_kept_with_its_own_time(tiny_net, clip, tmp_path):
    whole = extract(tiny_net, clip, tmp_path / "all")
    found = extract(tiny_net, clip, tmp_path / "third", every=3, batch=2)
    assert_same(found, {name: values[::3] for name, values in whole.items()})
    assert found["frame_indices"].tolist() == [0, 3, 6]
    np.testing.assert_allclose(found["timestamps"], [0, 0.3, 0.6])


def test_tokens_are_the_class_token_and_the_grid(tiny_net, clip, tmp_path):
    grid = extract(tiny_net, clip, tmp_path / "grid", layers=[2])
    tokens = extract(tiny_net, clip, tmp_path / "tokens", layers=[2], output_format="tokens")
    assert tokens["layer_2"].shape == (7, 1 + 24, 48)
    np.testing.assert_allclose(tokens["last"][:, 0], tokens["cls"], rtol=1e-6)
    patches = tokens["last"][:, 1:].transpose(0, 2, 1).reshape(grid["last"].shape)
    np.testing.assert_allclose(patches, grid["last"], rtol=1e-5, atol=1e-6)


def test_only_what_is_asked_for_is_stored(tiny_net, clip, tmp_path):
    times = {"timestamps", "frame_indices"}
    assert extract(tiny_net, clip, tmp_path / "cls", keep=["cls"]).keys() == {"cls"} | times
    assert extract(tiny_net, clip, tmp_path / "one", keep=[], layers=[11, -1]).keys() == {"layer_11"} | times


def test_student_and_teacher_give_their_own_features(tiny_net, clip, tmp_path):
    teacher = extract(tiny_net, clip, tmp_path / "teacher")
    student = extract(tiny_net, clip, tmp_path / "student", network="student")
    with torch.inference_mode():
        frames = MidwayImageProcessor()(decode(clip))["pixel_values"]
        wanted = tiny_net.encode(frames, network="student").cls.numpy()
    np.testing.assert_allclose(student["cls"], wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(student["cls"] - teacher["cls"]).max() > 0.1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_stored_as_float16_and_is_close(clip, tmp_path, dtype):
    full = extract(make_tiny_net(), clip, tmp_path / "full")
    half = extract(make_tiny_net().to(dtype), clip, tmp_path / "half", layers=[3])
    assert {half[name].dtype.name for name in ("last", "cls", "layer_3")} == {"float16"}
    assert half["timestamps"].dtype == np.float64
    assert np.abs(half["last"] - full["last"]).mean() < 0.03 * np.abs(full["last"]).mean()


def test_an_image_is_one_frame_at_time_zero(tiny_net, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    found = extract(tiny_net, tmp_path / "photo.png", tmp_path / "out")
    with torch.inference_mode():
        features = tiny_net.encode(MidwayImageProcessor()(pixels)["pixel_values"])
    assert_same(
        found,
        {
            "last": features.last.numpy(),
            "cls": features.cls.numpy(),
            "timestamps": np.zeros(1),
            "frame_indices": np.zeros(1, np.int64),
        },
    )


def test_an_output_says_what_it_was_made_from_and_how(tiny_net, clip, tmp_path):
    extract(tiny_net, clip, tmp_path, layers=[2, -1], every=2, reader="pyav", **SMALL)
    held = read_metadata(tmp_path / "clip.mp4.safetensors")
    assert {name: held[name] for name in ("kind", "network", "dtype", "output_format", "every", "reader", "model")} == {
        "kind": "features",
        "network": "teacher",
        "dtype": "float32",
        "output_format": "grid",
        "every": "2",
        "reader": "pyav",
        "model": "built in memory",
    }
    assert json.loads(held["layers"]) == [2, 11]
    assert json.loads(held["source_name"]) == ["clip.mp4"]
    assert json.loads(held["frame_size"]) == [64, 96]
    assert json.loads(held["source"]) == [{"bytes": clip.stat().st_size, "modified_ns": clip.stat().st_mtime_ns}]
    assert json.loads(held["processor"])["size"] == [64, 96]
    assert len(held["fingerprint"]) == 64


def test_an_output_of_saved_weights_names_them_and_their_checksum(tiny_net, clip, tmp_path):
    tiny_net.save_pretrained(tmp_path / "weights")
    net = type(tiny_net).from_pretrained(tmp_path / "weights")
    extract(net, clip, tmp_path)
    held = read_metadata(tmp_path / "clip.mp4.safetensors")
    assert "weights" in held["model"]
    assert json.loads(held["weights_sha256"]) == dict(net.load_report.sha256)


def test_only_one_batch_of_frames_is_in_memory(tiny_net, tmp_path):
    class Watching(MidwayImageProcessor):
        seen: list[int] = []  # noqa: RUF012

        def __call__(self, images=None, **kwargs):
            self.seen.append(len(images))
            return super().__call__(images, **kwargs)

    clip = make_video(tmp_path / "long.mp4", frames=20)
    extract(tiny_net, clip, tmp_path / "out", batch=4, processor=Watching())
    assert Watching.seen == [4, 4, 4, 4, 4]


def test_progress_counts_files_and_frames(tiny_net, clip, tmp_path):
    make_video(tmp_path / "videos" / "a.mp4", frames=3)
    make_video(tmp_path / "videos" / "b.mp4", frames=5)
    told: list[Progress] = []
    extract_features(tiny_net, tmp_path / "videos", tmp_path / "out", batch=2, progress=told.append)
    assert [(p.source.name, p.file, p.files, p.done, p.total, p.state) for p in told] == [
        ("a.mp4", 1, 2, 0, 3, "working"),
        ("a.mp4", 1, 2, 2, 3, "working"),
        ("a.mp4", 1, 2, 3, 3, "working"),
        ("a.mp4", 1, 2, 3, 3, "done"),
        ("b.mp4", 2, 2, 0, 5, "working"),
        ("b.mp4", 2, 2, 2, 5, "working"),
        ("b.mp4", 2, 2, 4, 5, "working"),
        ("b.mp4", 2, 2, 5, 5, "working"),
        ("b.mp4", 2, 2, 5, 5, "done"),
    ]


@pytest.mark.parametrize("name", ["udacity_highway_720p.mp4", "derived_vfr_cockatoo.mp4", "rotation_90.mov"])
def test_real_clips_give_the_same_whatever_the_reader_and_batch(tiny_net, sample_videos, tmp_path, name):
    pytest.importorskip("decord")
    options = {"every": 9, "layers": [5], **SMALL}
    pyav = extract(tiny_net, sample_videos / name, tmp_path / "pyav", reader="pyav", batch=1, **options)
    decord = extract(tiny_net, sample_videos / name, tmp_path / "decord", reader="decord", batch=8, **options)
    assert_same(decord, pyav)
