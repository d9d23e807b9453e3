"""Points tracked through a video file, written as a video over its frames and as numbers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from midway_hub.analysis.track_options import TrackOptions
from midway_hub.analysis.track_places import checked_points, grid_points
from midway_hub.analysis.tracking import track_points
from midway_hub.analysis.tracks import TrackedFrame, Tracks, checked_tracks_file
from midway_hub.dense.clips import Clip
from midway_hub.dense.writing import Progress, check_places, no_progress
from midway_hub.models.network import MidwayNetwork
from midway_hub.tracks.drawing import DEFAULT_LOOK, TrackLook
from midway_hub.video import open_video
from midway_hub.video.writer import write_video


def write_video_tracks(
    net: MidwayNetwork,
    video: str | Path,
    out: str | Path | None,
    *,
    points: Sequence[Sequence[float]] | np.ndarray | None = None,
    grid: int | None = None,
    tracks_out: str | Path | None = None,
    every: int = 1,
    size: int | None = 224,
    reader: str = "auto",
    look: TrackLook = DEFAULT_LOOK,
    progress: Progress = no_progress,
    **options: Any,
) -> dict[str, Any]:
    """Track points through a video and write where they are.

    Args:
        net: A network.
        video: A video file.
        out: An .mp4 of the tracks over the frames, if any.
        points: x and y in pixels of the first frame.
        grid: In place of points: how many there are across in an even grid of them.
        tracks_out: Where to write the numbers, if anywhere: .npz or .json, which `Tracks.load` reads.
        every: Take every k-th frame.
        size: Short side in pixels that the network sees frames at; None: as they are.
        reader: Video reader, or "auto".
        look: How the tracks look.
        progress: Called with what is being done, and how much of it.
        **options: As for `TrackOptions`.

    Returns:
        What was written, how many points end lost, and the mean confidence.

    Raises:
        ValueError: Nothing to write, other endings, no points or both kinds; and as `track_points`.
        VideoError: The video cannot be read.
        OSError: It cannot be written.
    """
    if out is None and tracks_out is None:
        raise ValueError("there is nothing to write: name a video (.mp4), or a file for the numbers (.npz, .json)")
    if (points is None) == (grid is None):
        raise ValueError(f"pass either points or a grid of them, got {'neither' if points is None else 'both'}")
    place = None if tracks_out is None else checked_tracks_file(tracks_out)
    check_places([video], (out, place))
    chosen = TrackOptions(**options)
    with open_video(video, reader=reader) as opened:
        clip = Clip(opened, every)
        total = len(clip.indices)
        frame_size = (opened.height, opened.width)
        start = checked_points(points) if grid is None else grid_points(frame_size, grid)
        steps: list[TrackedFrame] = []

        def tracked() -> Iterator[np.ndarray]:
            """Yield frames once it is known where the points are in them."""
            shown: deque[np.ndarray] = deque(maxlen=1)
            for step in track_points(net, _kept(clip.frames(), shown), start, size=size, **asdict(chosen)):
                steps.append(step)
                yield shown[0]

        if out is None:
            for done, _ in enumerate(tracked(), start=1):
                progress("tracks", done, total)
        else:
            pictures = _pictures(tracked(), steps, look, chosen, clip, every)
            write_video(out, pictures, fps=clip.fps, progress=lambda done: progress("tracks", done, total))
    about = {"video": Path(video).name, "height": frame_size[0], "width": frame_size[1], "fps": clip.fps, "size": size}
    tracks = Tracks.collect(steps, every=every, about={**about, **_model(net), "options": asdict(chosen)})
    if place is not None:
        tracks.save(place)
    return {
        "out": None if out is None else str(out),
        "tracks": None if place is None else str(place),
        "frames": len(tracks.frames),
        "points": len(start),
        "lost_at_the_end": int(tracks.lost[-1].sum()),
        "mean_confidence": round(float(tracks.confidence.mean()), 3),
        "fps": round(clip.fps, 3),
        **clip.notes,
    }


def _kept(frames: Iterator[np.ndarray], shown: deque[np.ndarray]) -> Iterator[np.ndarray]:
    for frame in frames:
        shown.append(frame)
        yield frame


def _pictures(
    frames: Iterator[np.ndarray],
    steps: list[TrackedFrame],
    look: TrackLook,
    options: TrackOptions,
    clip: Clip,
    every: int,
) -> Iterator[np.ndarray]:
    for frame in frames:
        number = steps[-1].number
        caption = [f"frame {number * every}, {number / clip.fps:.2f} s", f"tracked by {options.method}"]
        if every > 1:
            caption.append(f"every {every} frames")
        yield np.asarray(look.picture(frame, steps[-1 - look.trail :], caption))


def _model(net: MidwayNetwork) -> dict[str, Any]:
    return {} if net.load_report is None else {"model": net.load_report.source}
