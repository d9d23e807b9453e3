"""Features of images as a picture and of videos as a video, in colours that mean the same throughout."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub.analysis_pictures.feature_look import FeatureLook
from midway_hub.analysis_pictures.sheets import stacked
from midway_hub.dense.clips import Clip
from midway_hub.dense.writing import check_places, checked_picture, save_picture
from midway_hub.models.network import MidwayNetwork
from midway_hub.processing import load_frame
from midway_hub.video import open_video
from midway_hub.video.writer import write_video

SAMPLES = 12
"""Frames of a video that the colours are found on."""

Progress = Callable[[str, int, int], None]


def write_image_features(
    net: MidwayNetwork,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    progress: Progress = lambda what, done, total: None,
    **look: Any,
) -> dict[str, Any]:
    """Write the features of images as colours that mean the same in all of them.

    Args:
        net: Any network.
        images: Image files; sizes may differ.
        out: A picture (.png .jpg .webp), a row per image.
        progress: Called with what is being done, and how much of it.
        **look: `layer`, `attention` and `size`, as for `FeatureLook`.

    Returns:
        What was written.

    Raises:
        ValueError: No images, an unknown ending; and as `FeatureLook`.
        OSError: An image cannot be read, or the picture cannot be written.
    """
    if not images:
        raise ValueError("no images to colour; give at least one")
    place, shown = checked_picture(out), FeatureLook(net, **look)
    check_places(images, [out])
    pictures, found = [], []
    for done, path in enumerate(images):
        progress("features", done, len(images))
        frame = load_frame(path, name=f"image {path}")
        pictures.append(Image.fromarray((frame.movedim(0, -1).numpy() * 255).round().astype(np.uint8)))
        found.append(shown.read(frame))
    progress("features", len(images), len(images))
    facts = shown.settle(found)
    rows = [
        shown.panels(picture, features, Path(path).name)
        for picture, features, path in zip(pictures, found, images, strict=True)
    ]
    save_picture(shown.explained(stacked(rows)), place)
    return {"out": str(out), "images": len(images), **facts}


def write_video_features(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    reader: str = "auto",
    progress: Progress = lambda what, done, total: None,
    **look: Any,
) -> dict[str, Any]:
    """Write the features of a video as a video of colours that mean the same throughout.

    Args:
        net: Any network.
        video: A video file.
        out: An .mp4.
        every: Take every k-th frame.
        reader: Video reader, or "auto".
        progress: Called with what is being done, and how much of it.
        **look: As for `write_image_features`.

    Returns:
        What was written.

    Raises:
        ValueError: Not an .mp4; and as `FeatureLook`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    check_places([video], [out])
    shown = FeatureLook(net, **look)
    with open_video(video, reader=reader) as opened:
        clip = Clip(opened, every)
        total, sampled = len(clip.indices), []
        for _, frame in clip.sample_frames(SAMPLES):
            sampled.append(shown.read(frame))
            progress("colours", len(sampled), min(SAMPLES, total))
        facts = shown.settle(sampled)

        def pictures() -> Iterator[np.ndarray]:
            for number, frame in zip(clip.indices, clip.frames(), strict=True):
                caption = f"frame at {opened.timestamps[number]:.2f} s"
                yield np.asarray(shown.explained(shown.panels(Image.fromarray(frame), shown.read(frame), caption)))

        done = write_video(out, pictures(), fps=clip.fps, progress=lambda done: progress("features", done, total))
    return {"out": str(out), "frames": done, "fps": round(clip.fps, 3), **facts, **clip.notes}
