"""Tracking points through a video: by the dynamics' heatmaps (paper section 4.4), or by feature similarity alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from midway_hub.analysis.track_options import TrackOptions
from midway_hub.analysis.track_places import PatchPlaces, checked_points
from midway_hub.analysis.tracker import EncodedFrame, Tracker
from midway_hub.analysis.tracks import TrackedFrame
from midway_hub.models.network import MidwayNetwork


def track_points(
    net: MidwayNetwork,
    frames: Iterable[Any],
    points: Sequence[Sequence[float]] | np.ndarray | Tensor,
    *,
    size: int | None = 224,
    **options: Any,
) -> Iterator[TrackedFrame]:
    """Track points of a video's first frame through the frames that follow.

    Frames are read one by one, each is encoded once per network, and no more than two are held at a time. A point keeps
    its place within its patch: it moves by what its patch moves. What moves less than half a patch from frame to frame
    is held in place by whole patches; take every few frames then, or `refine`.

    The confidence of a step is s · exp(-e): s is the cosine similarity of the patch's feature (teacher, last block) in
    the one frame and the feature of where it went in the other, at least 0; e is the distance in patches between where
    it came from and the patch of that frame that is most similar to where it went. A lost point is searched for in the
    same way, between the frame that it was last seen in and the one at hand, by similarity alone.

    Args:
        net: A network; with dynamics for the method `"dynamics"`.
        frames: Frames of one size in order, each as for `MidwayImageProcessor`; may be endless.
        points: (P, 2) x and y in pixels of the first frame.
        size: Short side in pixels that the network sees frames at; None: as they are.
        **options: As for `TrackOptions`.

    Returns:
        An iterator over one `TrackedFrame` per frame; the first holds the points themselves.

    Raises:
        ValueError: An option is out of range, a point outside the frame, a frame unfit or of another size than those
            before, or there are no frames; or the network has no dynamics.
    """
    chosen = TrackOptions(**options)
    if chosen.method == "dynamics":
        _check_dynamics(net, chosen.level)
    return _tracked(net, frames, checked_points(points), size, chosen)


def _tracked(
    net: MidwayNetwork, frames: Iterable[Any], points: np.ndarray, size: int | None, options: TrackOptions
) -> Iterator[TrackedFrame]:
    processor = net.image_processor.with_short_side(size, multiple=net.config.patch_size)
    tracker: Tracker | None = None
    for frame in frames:
        inputs = processor([frame])
        places = PatchPlaces.of(inputs.geometry, net.config.patch_size)
        seen = EncodedFrame(net, inputs["pixel_values"].to(net.device), options.method)
        if tracker is None:
            tracker = Tracker(net, seen, places, points, options)
        else:
            tracker.step(seen, places)
        yield tracker.report()
    if tracker is None:
        raise ValueError("there are no frames to track points in")


def _check_dynamics(net: MidwayNetwork, level: int | None) -> None:
    if not net.config.dynamics:
        raise ValueError(
            "this checkpoint holds an encoder alone, no dynamics; with method='similarity' it can track points"
        )
    if level is not None and level not in net.config.levels:
        raise ValueError(f"level {level} is not one of the network's levels {tuple(net.config.levels)}")
