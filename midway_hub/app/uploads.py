"""What users hand in: taken within limits, kept in a folder of its own, deleted when it has served."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import av
import numpy as np
from PIL import Image

from midway_hub.app.clips import FramePair, VideoClip
from midway_hub.dense.writing import Progress
from midway_hub.extraction.sources import IMAGE_SUFFIXES
from midway_hub.video import VideoError, open_video
from midway_hub.video.writer import write_video

PREVIEW_SIDE = 360
PLAYED = {"h264": "mp4", "av1": "mp4", "libdav1d": "mp4", "vp8": "webm", "vp9": "webm"}
"""Codecs that browsers play, and the container that they do it from."""


@dataclass(frozen=True)
class Limits:
    """How much is taken.

    Attributes:
        megabytes: Of all files together.
        seconds: Of a video.
    """

    megabytes: float = 100
    seconds: float = 60


class Uploads:
    """The files of one user.

    Args:
        folder: Made when there is something to keep, and removed by `clear`. The page may serve what lies in it.
        limits: How much is taken.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits

    def take(self, files: Sequence[str | Path], progress: Progress) -> tuple[VideoClip | FramePair, Path | None]:
        """Make a clip of uploaded files; they are gone from where they were, whether it works or not.

        Args:
            files: One video, or two pictures.
            progress: Called with what is being done, and how much of it.

        Returns:
            The clip, and of a video a file that browsers play.

        Raises:
            ValueError: Neither one video nor two pictures, or more than the limits allow.
            VideoError: The video is broken.
            OSError: A file cannot be read.
        """
        kept = self.folder / uuid4().hex
        try:
            paths = self._move([Path(file) for file in files], kept)
            return self._clip(paths, [Path(file).name for file in files], progress)
        except BaseException:
            shutil.rmtree(kept, ignore_errors=True)
            raise

    def fresh_folder(self, name: str) -> Path:
        """Return an empty folder for results, which `clear` deletes like uploads; what it held before is gone."""
        for old in self.folder.glob(f"{name}_*"):
            shutil.rmtree(old, ignore_errors=True)
        # A new name each time, so that browsers do not show what they kept of an earlier result.
        fresh = self.folder / f"{name}_{uuid4().hex}"
        fresh.mkdir(parents=True)
        return fresh

    def clear(self, *, keep: Path | None = None) -> None:
        """Delete what was taken, except the clip that lies at `keep`."""
        for folder in self.folder.glob("*"):
            if keep is None or folder not in keep.parents:
                shutil.rmtree(folder, ignore_errors=True)
        if keep is None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _move(self, files: Sequence[Path], kept: Path) -> list[Path]:
        kept.mkdir(parents=True)
        # The page serves this folder: a file's own ending could make a browser run it.
        return [Path(shutil.move(file, kept / f"upload_{number}.bin")) for number, file in enumerate(files)]

    def _clip(
        self, paths: Sequence[Path], names: Sequence[str], progress: Progress
    ) -> tuple[VideoClip | FramePair, Path | None]:
        taken = sum(path.stat().st_size for path in paths) / 1e6
        if taken > self.limits.megabytes:
            raise ValueError(f"{', '.join(names)}: {taken:.0f} MB; at most {self.limits.megabytes:g} MB are taken")
        pictures = [Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names]
        if len(paths) == 2 and all(pictures):
            return FramePair(paths, names), None
        if len(paths) != 1 or any(pictures):
            raise ValueError(f"wanted one video, or two pictures of one size; got {', '.join(names) or 'nothing'}")
        try:
            clip = VideoClip(paths[0], names[0])
        except VideoError as error:  # users know the file by another name
            raise VideoError(str(error).replace(str(paths[0]), names[0])) from None
        if clip.duration > self.limits.seconds:
            raise ValueError(
                f"{clip.name} lasts {clip.duration:.1f} s; at most {self.limits.seconds:g} s are taken: cut it shorter"
            )
        return clip, playable(clip, progress)


def playable(clip: VideoClip, progress: Progress) -> Path:
    """Return a file beside the clip's that browsers play: the clip's own, which is renamed, or a small copy."""
    with av.open(str(clip.path)) as container:
        stream = container.streams.video[0].codec_context
        kind = PLAYED.get(stream.name)
        plays = stream.pix_fmt == "yuv420p" and kind in container.format.name.split(",")
    if not plays:
        return _small_copy(clip, progress)
    clip.path = clip.path.rename(clip.path.with_suffix(f".{kind}"))
    return clip.path


def _small_copy(clip: VideoClip, progress: Progress) -> Path:
    scale, total = min(1.0, PREVIEW_SIDE / min(clip.own_size)), len(clip.seconds)
    size = round(clip.own_size[0] * scale), round(clip.own_size[1] * scale)
    out = clip.path.with_name("plays.mp4")
    with open_video(clip.path) as video:
        small = (np.asarray(Image.fromarray(frame).resize(size)) for _, some in video.iterate() for frame in some)
        write_video(out, small, fps=clip.fps, progress=lambda done: progress("copy to play", done, total))
    return out
