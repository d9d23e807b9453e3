"""Choose points in the source frame and follow them through the frames that come after."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from midway_hub.analysis.tracking import track_points
from midway_hub.analysis.tracks import TrackedFrame
from midway_hub.app import look
from midway_hub.app.clips import Clip, VideoClip
from midway_hub.app.context import LONG, Context, cancel_button
from midway_hub.app.networks import Chosen
from midway_hub.app.pair import Place
from midway_hub.app.picker import frame_picker, picked, picker_html
from midway_hub.app.session import Session
from midway_hub.app.tabs.heatmaps import frame_name
from midway_hub.dense.writing import Progress
from midway_hub.tracks import TrackLook, point_colours
from midway_hub.video.writer import write_video

KIND = "tracks"
MOST_POINTS = 12
MOST_FRAMES = 240
SHORT_SIDE = 360
METHODS = [("Dynamics: heatmap, then features (the paper's rule)", "dynamics"), ("Features alone", "similarity")]

HELP = (
    "**Click points in the source frame** (or type X and Y and press “Add point”), then press “Track”: the points are "
    "followed through the frames after it. A faint cross marks where a lost point was last seen."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Tracks", id="tracks"):
        gr.Markdown(HELP)
        with gr.Row():
            with gr.Column():
                source = frame_picker("mw-track-source")
                with gr.Row():
                    x = gr.Number(0, label="X, pixels from the left", precision=0, minimum=0)
                    y = gr.Number(0, label="Y, pixels from the top", precision=0, minimum=0)
                with gr.Row():
                    add = gr.Button("Add point")
                    clear = gr.Button("Remove all points")
            with gr.Column():
                method = gr.Radio(METHODS, value="dynamics", label="Method")
                length = gr.Slider(2, MOST_FRAMES, value=24, step=1, buttons=[], label="Frames to follow them through")
                track = gr.Button("Track", variant="primary", elem_id="mw-track-button")
                cancel = cancel_button(KIND)
                shown = gr.HTML(
                    look.note("Choose points, then press “Track”."), elem_id="mw-tracks", min_height=look.WAITING
                )

    def show(request: gr.Request) -> str:
        session = context.session(request)
        with session.lock:
            try:
                return _points(session)
            except look.FAILURES as trouble:
                return look.wrong(trouble)

    def click(request: gr.Request, event: gr.EventData) -> str:
        session, where = context.session(request), picked(event)
        if isinstance(where[0], float) and len(session.points) < MOST_POINTS:
            session.points.append((where[0], where[1]))
        return show(request)

    def add_typed(across: float | None, down: float | None, request: gr.Request) -> str:
        session = context.session(request)
        width, height = session.clip.size
        if len(session.points) < MOST_POINTS:
            place = (((across or 0) + 0.5) / width, ((down or 0) + 0.5) / height)
            session.points.append((min(place[0], 1 - 0.5 / width), min(place[1], 1 - 0.5 / height)))
        return show(request)

    def remove(request: gr.Request) -> str:
        context.session(request).points.clear()
        return show(request)

    def run(method: str, length: float, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return context.work(KIND, request, progress, lambda session, told: _tracked(session, method, int(length), told))

    def renew(request: gr.Request) -> tuple[Any, ...]:
        return show(request), look.note("Choose points, then press “Track”.")

    source.select(click, None, source, show_progress="hidden")
    add.click(add_typed, [x, y], source, show_progress="hidden")
    clear.click(remove, None, source, show_progress="hidden")
    context.cancels(cancel, KIND, [track.click(run, [method, length], shown, **LONG)], shown)
    context.changed.change(renew, None, [source, shown], show_progress="hidden")


def _points(session: Session) -> str:
    """Show the source frame with the points that were chosen."""
    frame, count = _shown(session.pair.frames[0]), len(session.points)
    size = np.array(frame.size, dtype=np.float32)
    positions = np.array(session.points, dtype=np.float32).reshape(-1, 2) * size - 0.5
    now = TrackedFrame(0, positions, np.ones(count, np.float32), np.zeros(count, bool))
    drawn = TrackLook().picture(np.asarray(frame), [now]).crop((0, 0, *frame.size))
    width, height = session.clip.size
    places = "; ".join(f"{int(x * width)}, {int(y * height)}" for x, y in session.points) or "none yet"
    caption = f"Source frame {frame_name(session, session.source)}. Points: {places}"
    return picker_html(drawn, f"{caption}. Click to add a point.", caption) + _list(count)


def _list(count: int) -> str:
    return look.legend([f"point {number + 1}" for number in range(count)], point_colours(count))


def _tracked(session: Session, method: str, length: int, progress: Progress) -> str:
    """Track the points and show the video of it."""
    if not session.points:
        raise ValueError("there are no points to track: click some in the source frame, or add them by X and Y")
    with session.lock:
        start, clip, chosen, points = session.source, session.clip, session.chosen, list(session.points)
    stop = min(start + length, len(clip.seconds))
    folder = session.uploads.fresh_folder("tracks")
    out, seen = folder / "tracks.mp4", list[TrackedFrame]()
    fps = clip.fps if isinstance(clip, VideoClip) else 2.0
    progress("tracks", 0, stop - start)
    try:
        frames = _drawn(clip, chosen, points, method, start, stop, seen)
        write_video(out, frames, fps=fps, progress=lambda done: progress("tracks", done, stop - start))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return _player(out, seen, start)


def _drawn(
    clip: Clip, chosen: Chosen, points: list[Place], method: str, start: int, stop: int, seen: list[TrackedFrame]
) -> Iterator[np.ndarray]:
    """Yield frames with the points drawn over them."""
    shown: list[Image.Image] = []

    def frames() -> Iterator[Image.Image]:
        for frame in clip.stream(start, stop):
            shown[:] = [_shown(frame)]
            yield shown[0]

    size = np.array(_size_shown(clip.size))
    places = np.clip(np.array(points) * size - 0.5, 0, size - 1)
    for tracked in track_points(chosen.net, frames(), places, method=method):
        seen.append(tracked)
        caption = (f"frame {start + tracked.number}", f"by {method}", chosen.name)
        yield np.asarray(TrackLook().picture(np.asarray(shown[0]), seen, caption))


def _player(out: Path, seen: list[TrackedFrame], start: int) -> str:
    followed = int((~seen[-1].lost).sum())
    words = (
        f"Frames {start} to {start + len(seen) - 1}: {followed} of {len(seen[-1].lost)} points still followed at the "
        f"end, mean confidence {float(np.mean([step.confidence.mean() for step in seen])):.2f}."
    )
    return look.says(words) + f'<div class="mw-film">{look.film(out, f"Video of the tracked points. {words}")}</div>'


def _shown(frame: Image.Image) -> Image.Image:
    """Reduce a frame to what tracks are made and shown at."""
    return frame.resize(_size_shown(frame.size))


def _size_shown(size: tuple[int, int]) -> tuple[int, int]:
    """Reduce width and height; both are even, as videos' are."""
    scale = min(1.0, SHORT_SIDE / min(size))
    width, height = (max(2, round(side * scale / 2) * 2) for side in size)
    return width, height
