"""Pipes and devices given as files are refused by name, before anything waits for what they never give."""

import os
from pathlib import Path

import pytest

from midway_hub._regular import IrregularFileError, refuse_irregular
from midway_hub.analysis.tracks import Tracks
from midway_hub.extraction import find_sources
from midway_hub.flow_io import read_flow
from midway_hub.label_maps import read_label_map
from midway_hub.processing import load_frame
from midway_hub.training.data.clip import SampleError
from midway_hub.training.data.flow.frames import read_frame, read_mask
from midway_hub.training.evaluation.propagation.matfile import read_mat_array
from midway_hub.training.recipes import read_recipe
from midway_hub.video import VideoError, open_video

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")

DOORS = {
    "flow.flo": read_flow,
    "flow.npy": read_flow,
    "flow.png": read_flow,
    "picture.png": load_frame,
    "labels.png": read_label_map,
    "tracks.json": Tracks.load,
    "tracks.npz": Tracks.load,
    "clips.txt": lambda path: find_sources([path]),
    "clip.mp4": lambda path: find_sources([path]),
    "frame.png": read_frame,
    "mask.npy": read_mask,
    "mask.png": read_mask,
    "pose.mat": lambda path: read_mat_array(path, "pos_img"),
    "recipe.yaml": lambda path: read_recipe(path, kind="pretrain"),
}


@pytest.mark.parametrize("name", DOORS)
def test_a_pipe_is_refused_at_every_door(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises((IrregularFileError, SampleError), match=r"is a named pipe \(FIFO\); wanted a regular file"):
        DOORS[name](tmp_path / name)


def test_a_pipe_is_no_video(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "clip.mp4")
    with pytest.raises(VideoError, match="is a directory or device, not a video file"):
        open_video(tmp_path / "clip.mp4")


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/stdin"])
def test_a_link_to_a_device_is_refused(tmp_path: Path, device: str) -> None:
    if Path(device).is_file() or not Path(device).exists():
        pytest.skip(f"{device} is a file here, or not there")
    (tmp_path / "flow.flo").symlink_to(device)
    with pytest.raises(IrregularFileError, match=r"wanted a regular file\. Write what it gives to a file"):
        read_flow(tmp_path / "flow.flo")


def test_files_folders_and_what_is_not_there_are_for_others_to_judge(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path, tmp_path / "nothing", tmp_path / "file" / "below", "a\0b"):
        refuse_irregular(path)
