"""Objects of a video's first frame followed through it: colours over the frames as a video, and label maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import tee
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from midway_hub._durable import no_empty_folder
from midway_hub.analysis.propagation import propagate_labels
from midway_hub.analysis.propagation_frames import Encoder
from midway_hub.analysis.propagation_pictures import object_legend_names, object_palette, overlay_objects
from midway_hub.analysis.propagation_protocols import PropagationProtocol
from midway_hub.dense.clips import Clip
from midway_hub.dense.label_files import LISTED, LabelLook
from midway_hub.dense.writing import Progress, check_places, folder_of_one_run, no_progress, save_picture
from midway_hub.drawing import inset
from midway_hub.extraction.sources import IMAGE_SUFFIXES
from midway_hub.frame_names import one_series
from midway_hub.label_maps import object_numbers, read_binary_mask, read_label_map
from midway_hub.label_pictures import LINE, class_legend, label_map
from midway_hub.picture_files import read_picture
from midway_hub.video import open_video
from midway_hub.video.writer import write_video

FOLDER_FPS = 24.0
"""Frames per second of a folder of pictures, as DAVIS has them."""
BATCH = 4
OVERLAY, MAPS = "overlay.mp4", "labels"
DEFAULT_LOOK = LabelLook()


@dataclass(frozen=True)
class FrameSource:
    """Frames to follow objects through.

    Attributes:
        frames: (H, W, 3) uint8 each, read one after the other.
        names: What each frame's label map is called.
        fps: Frames per second.
        note: What users should know of the video: where it was cut off; usually empty.
    """

    frames: Iterable[np.ndarray]
    names: Sequence[str]
    fps: float
    note: str = ""


def write_propagated(
    encode: Encoder,
    source: str | Path,
    labels: str | Path,
    out: str | Path,
    *,
    protocol: PropagationProtocol,
    binary_masks: bool = False,
    start: int = 0,
    every: int = 1,
    fps: float | None = None,
    reader: str = "auto",
    look: LabelLook = DEFAULT_LOOK,
    device: torch.device | str = "cpu",
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Follow the objects of one frame through a video, and write them as colours over it.

    Args:
        encode: As for `propagate_labels`, such as `network_features(net)`.
        source: A video, or a folder of pictures, in the order of the numbers in their names.
        labels: The objects of the frame `start`: a .png of the frame's size, indexed or grey, whose pixels are the
            objects' numbers; 0 is the background, 255 unknown.
        out: An .mp4; or a folder, for overlay.mp4 and labels/, a label map per frame: indexed .png, in DAVIS' naming.
            Its labels/ may hold no other .png than those that are written over.
        protocol: How objects are followed.
        binary_masks: Whether `labels` is a mask of one object, white on black; its soft edges are cut at half.
        start: Number of the frame that the labels belong to; earlier ones are left out.
        every: Take every k-th frame.
        fps: Frames per second of what is written; default: those of the video.
        reader: Video reader, or "auto".
        look: How the pictures look; the legend lists the objects.
        device: Where it is computed.
        progress: Called with what is being done, and how much of it.

    Returns:
        What was written, the objects, and how much of the last frame each covers.

    Raises:
        ValueError: Not an .mp4, labels of another size than the frames, no such frame, a folder with maps of another
            run; and as `read_label_map`, `object_numbers` and `propagate_labels`.
        VideoError: The video cannot be read.
        OSError: A file cannot be read or written.
    """
    first_labels = read_binary_mask(labels) if binary_masks else read_label_map(labels)
    ids = object_numbers(first_labels, labels)
    video, maps = _places(Path(out), (source, labels))
    legend = _legend(ids, first_labels.shape)
    with no_empty_folder(maps or video.parent), open_frames(source, start=start, every=every, reader=reader) as found:
        if maps is not None:
            maps.parent.mkdir(exist_ok=True)
            folder_of_one_run(maps, (f"{name}.png" for name in found.names))
        ahead, behind = tee(found.frames)
        followed = propagate_labels(encode, ahead, first_labels, protocol, device=device)
        last = first_labels

        def pictures() -> Iterator[np.ndarray]:
            nonlocal last
            for name, frame, last in zip(found.names, behind, followed, strict=True):
                if maps is not None:
                    save_picture(label_map(last, object_palette()), maps / f"{name}.png")
                drawn = overlay_objects(frame, last, opacity=look.opacity)
                yield np.asarray(inset(drawn, legend) if look.legend else drawn)

        total, rate = len(found.names), fps or found.fps / every
        done = write_video(video, pictures(), fps=rate, progress=lambda done: progress("frames", done, total))
    return {
        "out": str(video),
        "labels": None if maps is None else str(maps),
        "frames": done,
        "fps": round(rate, 3),
        "protocol": protocol.name,
        "share_of_last_frame": {f"object {label}": round(float((last == label).mean()), 4) for label in ids},
    }


@contextmanager
def open_frames(source: str | Path, *, start: int, every: int, reader: str) -> Iterator[FrameSource]:
    """Open a video, or a folder of pictures.

    Raises:
        ValueError: No pictures in the folder, pictures that are not the frames of one video, or no such frame.
        VideoError: The video cannot be read.
    """
    if every < 1 or start < 0:
        raise ValueError(f"every must be at least 1 and start at least 0, got {every} and {start}")
    if Path(source).is_dir():
        files = _numbered_pictures(Path(source))
        _check_start(source, start, len(files))
        kept = files[start::every]
        frames = (read_picture(path, "frame") for path in kept)
        yield FrameSource(frames, [path.stem for path in kept], FOLDER_FPS)
        return
    with open_video(source, reader=reader) as video:
        _check_start(source, start, len(video))
        numbers = range(start, len(video), every)
        frames = (frame for _, batch in video.iterate(start, len(video), every, BATCH) for frame in batch)
        note = Clip(video, every).notes.get("note", "")
        yield FrameSource(frames, [f"{number:05d}" for number in numbers], video.fps, note)


def _numbered_pictures(folder: Path) -> list[Path]:
    found = [path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    if not found:
        raise ValueError(f"folder {folder} holds no pictures; wanted frames such as 00000.jpg, 00001.jpg")
    try:
        return [folder / name for name in one_series(found).names]
    except ValueError as error:
        raise ValueError(f"the pictures in folder {folder} are not the frames of one video: {error}") from None


def _check_start(source: str | Path, start: int, frames: int) -> None:
    if start >= frames:
        raise ValueError(
            f"{source} has {frames} frames that can be read, from 0; there is no frame {start} to start at"
        )


def _places(out: Path, inputs: Iterable[str | Path]) -> tuple[Path, Path | None]:
    if out.suffix.lower() == ".mp4":
        check_places(inputs, [out])
        return out, None
    if out.suffix and not out.is_dir():
        raise ValueError(f"-o must be an .mp4, or a folder for {OVERLAY} and {MAPS}/, got {out}")
    check_places(inputs, [out])
    return out / OVERLAY, out / MAPS


def _legend(ids: Sequence[int], shape: tuple[int, ...]) -> Image.Image:
    font_size = max(10, min(shape) // 36)
    room = max(1, min(LISTED, int(0.5 * shape[0] / (LINE * font_size))))
    return class_legend(object_legend_names(ids), object_palette(), ids[:room], font_size=font_size)
