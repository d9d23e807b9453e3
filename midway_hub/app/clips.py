"""What the page looks at: a video, or two frames, behind one form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image

from midway_hub.picture_files import read_picture
from midway_hub.video import open_video

SHORT_SIDE = 720
"""Frames with a longer short side are reduced to this many pixels before anything is done with them."""
LONGEST_RATIO = 4
"""Frames may be this many times longer than they are wide, or the other way round."""


class Clip(Protocol):
    """Frames in order.

    Attributes:
        name: What users call it.
        seconds: When each frame is shown; the number of frames is its length.
        own_size: Width and height of the frames in pixels.
        size: Width and height in pixels that they are looked at in.
    """

    name: str
    seconds: Sequence[float]
    own_size: tuple[int, int]
    size: tuple[int, int]

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        """Read frames by their numbers, each of `size`."""
        ...

    def stream(self, start: int, stop: int) -> Iterator[Image.Image]:
        """Read the frames from `start` up to `stop` one after the other, each of `size`."""
        ...


class VideoClip:
    """A video file; every call opens it anew, since a reader belongs to one thread.

    Args:
        path: The file.
        name: What users call it.

    Raises:
        ValueError: It has fewer than two frames, or frames of a shape that is not looked at.
        VideoError: It cannot be read.
    """

    def __init__(self, path: Path, name: str) -> None:
        with open_video(path) as video:
            if len(video) < 2:
                raise ValueError(f"{name} has {len(video)} frame; motion needs at least 2")
            self.seconds: Sequence[float] = [float(second) for second in video.timestamps]
            self.own_size = (video.width, video.height)
            self.fps, self.duration = video.fps, video.duration
        self.path, self.name, self.size = path, name, looked_at(self.own_size, name)

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        """Read frames by their numbers, each of `size`."""
        with open_video(self.path) as video:
            return [_reduced(Image.fromarray(video.get_frames([index])[0]), self.size) for index in indices]

    def stream(self, start: int, stop: int) -> Iterator[Image.Image]:
        """Read the frames from `start` up to `stop` one after the other, each of `size`."""
        with open_video(self.path) as video:
            for _, frames in video.iterate(start, stop, batch=4):
                yield from (_reduced(Image.fromarray(frame), self.size) for frame in frames)


class FramePair:
    """Two pictures, taken for two frames that follow each other.

    Args:
        paths: Two image files.
        names: What users call them.

    Raises:
        ValueError: Not two pictures, of different sizes, or of a shape that is not looked at; a file is damaged.
    """

    def __init__(self, paths: Sequence[Path], names: Sequence[str]) -> None:
        if len(paths) != 2:
            raise ValueError(f"motion is between two frames, got {len(paths)} picture{'s' * (len(paths) != 1)}")
        images = [Image.fromarray(read_picture(path, name)) for path, name in zip(paths, names, strict=True)]
        if images[0].size != images[1].size:
            seen = " and ".join(
                f"{name} {image.width}×{image.height}" for name, image in zip(names, images, strict=True)
            )
            raise ValueError(f"the two frames must be of one size (width×height), got {seen}; resize one of them")
        self.seconds: Sequence[float] = (0.0, 1.0)
        self.name, self.own_size = " → ".join(names), images[0].size
        self.size = looked_at(self.own_size, self.name)
        self._images = [_reduced(image, self.size) for image in images]

    def frames(self, indices: Sequence[int]) -> list[Image.Image]:
        """Return frames by their numbers, 0 or 1, each of `size`."""
        return [self._images[index] for index in indices]

    def stream(self, start: int, stop: int) -> Iterator[Image.Image]:
        """Return the frames from `start` up to `stop` one after the other, each of `size`."""
        yield from self._images[start:stop]


def looked_at(size: tuple[int, int], name: str) -> tuple[int, int]:
    """Return the width and height that frames of a size are looked at in.

    Raises:
        ValueError: They are too narrow.
    """
    if max(size) > LONGEST_RATIO * min(size):
        raise ValueError(
            f"{name} has frames of {size[0]}×{size[1]} pixels (width×height); one side may be at most "
            f"{LONGEST_RATIO} times the other: crop it"
        )
    scale = min(1.0, SHORT_SIDE / min(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _reduced(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    return image if image.size == size else image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3)
