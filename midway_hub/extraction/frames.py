"""The frames of an image, a pair of images or a video, as batches of model input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from midway_hub.extraction.sources import Source
from midway_hub.processing import MidwayImageProcessor, load_frame
from midway_hub.video import FrameReader, open_video
from midway_hub.video.reader import BaseReader

IMAGE_READER = "pillow"


class Batch(NamedTuple):
    """Some frames in a row.

    Attributes:
        indices: (n,) int64, their numbers in the video.
        timestamps: (n,) float64, seconds; 0 for images.
        pixel_values: (n, 3, H, W), normalised.
    """

    indices: np.ndarray
    timestamps: np.ndarray
    pixel_values: Tensor


@dataclass
class Frames:
    """The kept frames of one source; reading them fills in the sizes.

    Attributes:
        reader: Name of what reads them.
        indices: (T,) int64, the numbers of the kept frames.
        timestamps: (T,) float64, their times in seconds; 0 for images.
        note: What the user should know of the source; empty for a whole file.
        frame_size: (height, width) in pixels as decoded.
        input_size: (height, width) in pixels of the model input.
    """

    reader: str
    indices: np.ndarray
    timestamps: np.ndarray
    _read: Callable[[int], Iterable[Tensor]] = field(repr=False)
    _processor: MidwayImageProcessor = field(repr=False)
    note: str = ""
    frame_size: tuple[int, int] | None = field(default=None, init=False)
    input_size: tuple[int, int] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.indices)

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all frames in order, `size` at a time; only one batch is in memory."""
        start = 0
        for pixels in self._read(size):
            inputs = self._processor(pixels)
            self.frame_size, self.input_size = inputs.geometry.sizes[0], inputs.geometry.model_size
            rows = slice(start, start + len(pixels))
            start = rows.stop
            yield Batch(self.indices[rows], self.timestamps[rows], inputs["pixel_values"])
        if start != len(self):
            raise ValueError(f"{len(self)} frames were announced, {start} could be read")

    def windows(self, size: int) -> Iterator[Batch]:
        """Yield runs of at most `size` + 1 frames that overlap by one: every pair of neighbours is in one of them."""
        last: Batch | None = None
        for batch in self.batches(size):
            if last is not None:
                batch = Batch(
                    np.concatenate([last.indices, batch.indices]),
                    np.concatenate([last.timestamps, batch.timestamps]),
                    torch.cat([last.pixel_values, batch.pixel_values]),
                )
            if len(batch.indices) > 1:
                yield batch
            last = Batch(*(part[-1:] for part in batch))


@contextmanager
def open_frames(
    source: Source, *, every: int, reader: str, processor: MidwayImageProcessor, device: torch.device
) -> Iterator[Frames]:
    """Open a source for reading.

    Args:
        source: An image, a pair of images or a video.
        every: Of a video, keep every k-th frame, from the first.
        reader: Video reader, or "auto".
        processor: What turns frames into model input.
        device: Where that happens.

    Yields:
        The kept frames.

    Raises:
        VideoError: The video cannot be opened.
        OSError: An image cannot be read.
        ValueError: Not an image, or the images of a pair differ in size.
    """
    if source.kind != "video":
        yield _pictures(source.paths, processor, device)
        return
    with open_video(source.paths[0], reader=reader) as video:
        indices = np.arange(0, len(video), every, dtype=np.int64)

        def read(size: int) -> Iterator[Tensor]:
            for _, frames in video.iterate(0, len(video), every, size):
                yield torch.from_numpy(frames).to(device).movedim(-1, 1)

        timestamps = np.asarray(video.timestamps, dtype=np.float64)[indices]
        yield Frames(video.name, indices, timestamps, read, processor, note=_note(video))


def _note(video: FrameReader) -> str:
    cut = video.index.cut if isinstance(video, BaseReader) else None
    return f"only the first {len(video)} frames can be read: {cut}" if cut else ""


def _pictures(paths: tuple[Path, ...], processor: MidwayImageProcessor, device: torch.device) -> Frames:
    pictures = [load_frame(path, name="image") for path in paths]
    sizes = [f"{path} {picture.shape[-2]}×{picture.shape[-1]}" for path, picture in zip(paths, pictures, strict=True)]
    if any(picture.shape != pictures[0].shape for picture in pictures):
        raise ValueError(f"the two images must be of one size (height×width): {', '.join(sizes)}; resize one of them")
    stacked = torch.stack(pictures).to(device)
    return Frames(IMAGE_READER, np.arange(len(paths), dtype=np.int64), np.zeros(len(paths)), stacked.split, processor)
