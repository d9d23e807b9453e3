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

from midway_hub.dense.colour_scale import ColourScale, vector_lengths
from midway_hub.dense.estimates import FlowEstimate, as_pixels, clip_flow
from midway_hub.dense.flow_files import common_scale, count_pairs, load_pair, reach_notes, scale_facts
from midway_hub.dense.propagated_files import open_frames
from midway_hub.dense.writing import Progress, check_places, checked_picture, no_progress, save_picture
from midway_hub.drawing import strip
from midway_hub.flow_io import flow_picture
from midway_hub.flow_peers import FlowPeer
from midway_hub.models.network import MidwayNetwork
from midway_hub.video.writer import check_video_ending, write_video

Estimators = Mapping[str, tuple[MidwayNetwork | FlowPeer, Mapping[str, Any]]]
"""By name: what estimates flow, and the options of `clip_flow` that it takes."""


TAKEN = {"dpt": ("size", "tile", "overlap"), "correlation": ("size", "updates")}
"""Options of `clip_flow` by the kind of flow head that takes them."""


def options_by_kind(nets: Mapping[str, MidwayNetwork | FlowPeer], asked: Mapping[str, Any]) -> Estimators:
    """Give every estimator of a comparison those of the options that are for its kind.

    Args:
        nets: What estimates flow, by name.
        asked: Options of `clip_flow`.

    Raises:
        ValueError: An option that none of them takes.
        MissingHeadError: A network has no flow head.
    """
    taken = {name: (net, _taken(net, asked)) for name, net in nets.items()}
    given = (option for option, value in asked.items() if value not in ("default", None))
    if left := [option for option in given if all(option not in options for _, options in taken.values())]:
        raise ValueError(f"none of {', '.join(nets)} takes {' and '.join(left)}; leave it out")
    return taken


def _taken(net: MidwayNetwork | FlowPeer, options: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(net, MidwayNetwork):
        return {}
    net.require_flow_head()
    return {name: value for name, value in options.items() if name in TAKEN[net.flow_head.config.kind]}


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
        self._beyond, self._reach = 0, 0.0

    def _frames(self) -> Iterator[Any]:
        while self._waiting:
            yield self._waiting.popleft()

    def between(self, *frames: Any) -> FlowEstimate:
        """Estimate the flow to the last of the frames: two at first, then the one that follows."""
        self._waiting.extend(frames)
        started = time.perf_counter()
        estimate = next(self._flows)
        self.seconds.append(time.perf_counter() - started)
        self._beyond, self._reach = self._beyond + estimate.out_of_reach, estimate.reach or 0.0
        return estimate

    @property
    def note(self) -> str:
        """Say where motion was probably out of reach; usually empty."""
        return reach_notes(self._beyond, len(self.seconds), self._reach).get("note", "")

    @property
    def usual(self) -> float:
        """Median seconds of a pair; of one alone its own, with what is done once."""
        return float(np.median(self.seconds)) if self.seconds else float("nan")


class _Figures:
    """Means over all pairs of how long the vectors of each estimator are, and how far from those of the first.

    Args:
        timed: The estimators by name.
    """

    def __init__(self, timed: Mapping[str, _Timed]) -> None:
        self._timed = timed
        self._lengths = {name: list[float]() for name in timed}
        self._distances = {name: list[float]() for name in timed}

    def add(self, flows: Mapping[str, np.ndarray]) -> None:
        """Note the flow (H, W, 2) of every estimator between the same two frames."""
        first = next(iter(flows.values()))
        for name, flow in flows.items():
            self._lengths[name].append(float(vector_lengths(flow).mean()))
            self._distances[name].append(float(vector_lengths(flow - first).mean()))

    def facts(self, note: str = "") -> dict[str, Any]:
        """Return them by estimator, and what users should know, beside a note of the clip's."""
        compared = {
            name: {
                "seconds": round(timed.usual, 4),
                "mean_flow": round(float(np.mean(self._lengths[name])), 3),
                "distance_to_first": round(float(np.mean(self._distances[name])), 3),
            }
            for name, timed in self._timed.items()
        }
        notes = [note, *(f"{name}: {timed.note}" for name, timed in self._timed.items() if timed.note)]
        return {"compared": compared, **reach_notes(0, 0, 0.0, *notes)}


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
        What was written, and of every estimator its seconds, mean flow and mean distance to the first one's; a `note`
        where motion was probably out of reach of one.

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
    figures = _Figures(timed)
    figures.add(flows)
    return {"out": str(out), "colours_full_at": float(f"{full:.4g}"), **figures.facts()}


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
        As `compare_pair`: seconds are the median of the pairs, flow and distance the mean of all; a `note` also where
        the video is cut off.

    Raises:
        ValueError: Another ending, fewer than two frames; and as `clip_flow`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    check_video_ending(Path(out))
    check_places([video], [out])
    with open_frames(video, start=0, every=every, reader=reader) as clip:
        total, fps = count_pairs(clip, video, every), clip.fps / every
        timed = {name: _Timed(net, options) for name, (net, options) in estimators.items()}
        scale = ColourScale(largest)
        figures = _Figures(timed)

        def pictures() -> Iterator[np.ndarray]:
            for number, (frame, following) in enumerate(pairwise(clip.frames)):
                new = (following,) if number else (frame, following)
                flows = {name: each.between(*new).flow for name, each in timed.items()}
                figures.add(flows)
                full = scale.of(np.concatenate(list(flows.values())))
                yield np.asarray(strip([("frame", Image.fromarray(frame)), *_drawn(flows, timed, full)]))

        done = write_video(out, pictures(), fps=fps, progress=lambda done: progress("flow", done, total))
    return {"out": str(out), "pairs": done, **scale_facts(scale), **figures.facts(clip.note)}


def _drawn(
    flows: Mapping[str, np.ndarray], timed: Mapping[str, _Timed], largest: float
) -> list[tuple[str, Image.Image]]:
    return [(f"{name}, {timed[name].usual:.2f} s", flow_picture(flow, largest=largest)) for name, flow in flows.items()]
