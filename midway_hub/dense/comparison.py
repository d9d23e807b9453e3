"""Flow by several estimators side by side: the frame, then every one's colours under one scale, named and timed."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from midway_hub.dense.colour_scale import ColourScale
from midway_hub.dense.estimates import FlowEstimate, clip_flow
from midway_hub.dense.flow_files import as_pixels, common_scale, load_pair, scale_facts
from midway_hub.dense.propagated_files import open_frames
from midway_hub.dense.writing import Progress, check_places, checked_picture, no_progress, save_picture
from midway_hub.drawing import strip
from midway_hub.flow_io import flow_picture
from midway_hub.flow_peers import FlowPeer
from midway_hub.models.network import MidwayNetwork
from midway_hub.video.writer import check_video_ending, write_video

Estimators = Mapping[str, tuple[MidwayNetwork | FlowPeer, Mapping[str, Any]]]
"""By name: what estimates flow, and the options of `clip_flow` that it takes."""


class _Timed:
    """The flow of a clip by one estimator, and what it took: neither the others nor reading frames count.

    Args:
        estimator: What estimates flow.
        options: Of `clip_flow`.
    """

    def __init__(self, estimator: MidwayNetwork | FlowPeer, options: Mapping[str, Any]) -> None:
        self._waiting: deque[Any] = deque()
        self._flows = clip_flow(estimator, self._frames(), **options)
        self.seconds: list[float] = []

    def _frames(self) -> Iterator[Any]:
        while self._waiting:
            yield self._waiting.popleft()

    def between(self, *frames: Any) -> FlowEstimate:
        """Estimate the flow to the last of the frames: two at first, then the one that follows."""
        self._waiting.extend(frames)
        started = time.perf_counter()
        estimate = next(self._flows)
        self.seconds.append(time.perf_counter() - started)
        return estimate

    @property
    def usual(self) -> float:
        """Median seconds of a pair; of one alone its own, with what is done once."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")


def compare_pair(
    estimators: Estimators, images: Sequence[str | Path], out: str | Path, *, largest: float | None = None
) -> dict[str, Any]:
    """Write one picture of two images and of the flow between them by every estimator.

    Args:
        estimators: What estimates flow, by name.
        images: Two image files of one size.
        out: A .png, .jpg or .webp.
        largest: Pixels of motion that get the full colours; default: what 99% of all the estimates stay below.

    Returns:
        What was written, and of every estimator its seconds, mean flow and mean distance to the first one's.

    Raises:
        ValueError: Another ending, or images of two sizes; and as `clip_flow`.
        OSError: An image cannot be read, or the picture not written.
    """
    picture = checked_picture(out)
    check_places(images, (out,))
    frames = load_pair(images)
    timed = {name: _Timed(net, options) for name, (net, options) in estimators.items()}
    flows = {name: flow.between(*frames).flow for name, flow in timed.items()}
    full = common_scale(list(flows.values())) if largest is None else largest
    panels = [(f"image {index + 1}", Image.fromarray(as_pixels(frame))) for index, frame in enumerate(frames)]
    save_picture(strip([*panels, *_drawn(flows, timed, full)]), picture)
    return {"out": str(out), "colours_full_at": float(f"{full:.4g}"), "compared": _figures(flows, timed)}


def compare_video(
    estimators: Estimators,
    video: str | Path,
    out: str | Path,
    *,
    every: int = 1,
    reader: str = "auto",
    largest: float | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Write a video of a clip's frames beside its flow by every estimator, in one pass.

    Args:
        estimators: As for `compare_pair`.
        video: A video file, or a folder of pictures named by their numbers.
        out: An .mp4, .webm or .gif.
        every: Take every k-th frame.
        reader: Video reader, or "auto".
        largest: As for `compare_pair`; default: as `ColourScale` says of all estimates.
        progress: Called with what is being done, and how much of it.

    Returns:
        As `compare_pair`, of the last pair.

    Raises:
        ValueError: Another ending, fewer than two frames; and as `clip_flow`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    check_video_ending(Path(out))
    check_places([video], [out])
    with open_frames(video, start=0, every=every, reader=reader) as clip:
        total, fps = len(clip.names) - 1, clip.fps / every
        if total < 1:
            raise ValueError(f"{video} has too few frames: every {every} of them gives one; flow needs two")
        timed = {name: _Timed(net, options) for name, (net, options) in estimators.items()}
        scale = ColourScale(largest)
        flows: dict[str, np.ndarray] = {}

        def pictures() -> Iterator[np.ndarray]:
            nonlocal flows
            for number, (frame, following) in enumerate(pairwise(clip.frames)):
                new = (following,) if number else (frame, following)
                flows = {name: each.between(*new).flow for name, each in timed.items()}
                full = scale.of(np.concatenate(list(flows.values())))
                yield np.asarray(strip([("frame", Image.fromarray(frame)), *_drawn(flows, timed, full)]))

        done = write_video(out, pictures(), fps=fps, progress=lambda done: progress("flow", done, total))
    return {"out": str(out), "pairs": done, **scale_facts(scale), "compared": _figures(flows, timed)}


def _drawn(
    flows: Mapping[str, np.ndarray], timed: Mapping[str, _Timed], largest: float
) -> list[tuple[str, Image.Image]]:
    return [(f"{name}, {timed[name].usual:.2f} s", flow_picture(flow, largest=largest)) for name, flow in flows.items()]


def _figures(flows: Mapping[str, np.ndarray], timed: Mapping[str, _Timed]) -> dict[str, dict[str, float]]:
    first = next(iter(flows.values()))
    return {
        name: {
            "seconds": round(timed[name].usual, 4),
            "mean_flow": round(float(np.linalg.norm(flow, axis=-1).mean()), 3),
            "distance_to_first": round(float(np.linalg.norm(flow - first, axis=-1).mean()), 3),
        }
        for name, flow in flows.items()
    }
