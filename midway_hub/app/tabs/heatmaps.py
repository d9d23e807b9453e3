"""Touch a point in the source frame, see which places of the target frame feel it, at every level."""

from __future__ import annotations

from typing import Any

import gradio as gr

from midway_hub.analysis_pictures.overlays import overlay_heat
from midway_hub.app import look
from midway_hub.app.context import Context, at_most, cancel_button
from midway_hub.app.pair import Pair
from midway_hub.app.picker import frame_picker, mark_style, picked, picker_html
from midway_hub.app.session import Session
from midway_hub.dense.writing import Progress, no_progress

PICKER = "mw-source"
WIDTH = 640
PANEL = 480
KIND = "heatmaps"

HELP = (
    "**Click a point in the source frame** (or move the mark with the arrow keys, or type X and Y). The pictures "
    "below show, over the target frame, how much the network's prediction of every place there changes when that "
    "patch is touched: forward feature perturbation, at each level of the dynamics."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Where it went", id="heatmaps"):
        gr.Markdown(HELP)
        with gr.Row():
            with gr.Column():
                source = frame_picker(PICKER)
                with gr.Row():
                    x = gr.Number(label="X, pixels from the left", precision=0, minimum=0, elem_id="mw-x")
                    y = gr.Number(label="Y, pixels from the top", precision=0, minimum=0, elem_id="mw-y")
            target = gr.HTML()
        felt = gr.HTML(elem_id="mw-felt", min_height=look.WAITING)
        cancel = cancel_button(KIND)

    def show_frames(request: gr.Request) -> tuple[Any, ...]:
        session = context.session(request)
        with session.lock:
            try:
                return (*_frames(session), *_numbers(session))
            except look.FAILURES as trouble:
                return look.wrong(trouble), "", 0, 0

    def pick(request: gr.Request, event: gr.EventData) -> tuple[Any, ...]:
        session = context.session(request)
        with session.lock:
            where = picked(event)
            if isinstance(where[0], int) and isinstance(where[1], int):
                session.step_place(where[0], where[1])
            else:
                session.put_place(where)
            return _numbers(session)

    def type_in(across: float | None, down: float | None, request: gr.Request) -> None:
        session = context.session(request)
        with session.lock:
            width, height = session.clip.size
            session.put_place((((across or 0) + 0.5) / width, ((down or 0) + 0.5) / height))

    def feel(request: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return context.work(KIND, request, progress, _felt)

    context.changed.change(show_frames, None, [source, target, x, y], show_progress="minimal")
    moved = [
        source.select(pick, None, [x, y], show_progress="hidden", trigger_mode="multiple"),
        gr.on([x.input, y.input], type_in, [x, y], None, show_progress="hidden", trigger_mode="always_last"),
    ]
    # Several at a time: the newest ends those before it, which would otherwise keep it waiting.
    felts = [
        begin(feel, None, felt, trigger_mode="multiple", **at_most(4, KIND))
        for begin in (context.changed.change, *(event.then for event in moved))
    ]
    context.cancels(cancel, KIND, felts, felt)


def _frames(session: Session) -> tuple[str, str]:
    """Show source and target frame."""
    width, height = session.clip.size
    size = (min(WIDTH, width), round(height * min(WIDTH, width) / width))
    pictures = [frame.resize(size) for frame in session.pair.frames]
    captions = [f"{name} frame {frame_name(session, number)}" for name, number in _numbered(session)]
    label = f"{captions[0]}. Click a point, or move the mark by one patch with the arrow keys."
    return picker_html(pictures[0], label, captions[0]), look.grid([look.figure(pictures[1], captions[1])])


def _numbered(session: Session) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("Source", session.source), ("Target", session.target)


def frame_name(session: Session, number: int) -> str:
    """Say which frame it is, and when it is shown."""
    timed = hasattr(session.clip, "path")
    return f"{number} ({session.clip.seconds[number]:.2f} s)" if timed else str(number + 1)


def _numbers(session: Session) -> tuple[int, int]:
    width, height = session.clip.size
    return min(int(session.place[0] * width), width - 1), min(int(session.place[1] * height), height - 1)


def _felt(session: Session, progress: Progress = no_progress) -> str:
    """Show the heatmaps of the session's point, all on one scale, and say where each is hottest."""
    pair = session.pair
    heatmaps = pair.heatmaps(session.place, progress)
    top = max(0.01, *(float(heat.max()) for heat in heatmaps.values()))
    size = (PANEL, round(PANEL * pair.size[1] / pair.size[0]))
    frame = pair.frames[1].resize(size)
    figures, peaks = [], []
    for order, (level, heat) in enumerate(heatmaps.items()):
        peak = _pixels(pair, pair.peak_of(heat))
        what = f"Level {level}{_of_scale(order, len(heatmaps))}"
        caption = f"{what}: hottest at {peak[0]}, {peak[1]}, {float(heat.max()):.2f}"
        picture = overlay_heat(frame, pair.at_size(heat, size), top=top)
        figures.append(look.figure(picture, caption, alt=f"Heatmap over the target frame. {caption}"))
        peaks.append(f"level {level} at {peak[0]}, {peak[1]}")
    x, y = _numbers(session)
    words = f"Point {x}, {y} (pixels from the left and the top) is felt most: {'; '.join(peaks)}."
    mark = mark_style(PICKER, pair.box_of(pair.patch_at(session.place)))
    return mark + look.says(words) + look.grid(figures) + look.heat_bar(top, "Felt (mean cosine), all levels alike")


def _of_scale(order: int, levels: int) -> str:
    """Say of the first and the last of several levels which end of the scale they are; a single one is neither."""
    ends = {0: " (coarse)", levels - 1: " (fine)"} if levels > 1 else {}
    return ends.get(order, "")


def _pixels(pair: Pair, patch: tuple[int, int]) -> tuple[int, int]:
    """Return the pixel in the middle of a patch."""
    x, y = pair.centre_of(patch)
    return int(x * pair.size[0]), int(y * pair.size[1])
