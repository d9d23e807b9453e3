"""What everything in the source frame is: classes over the frame, with a legend."""

from __future__ import annotations

from typing import Any

import gradio as gr

from midway_hub.app import look
from midway_hub.app.context import LONG, Context, cancel_button
from midway_hub.app.session import Session
from midway_hub.app.tabs.heatmaps import frame_name
from midway_hub.app.work import counted
from midway_hub.class_notes import WORLD_HEADING, classes_note
from midway_hub.dense.estimates import labels_of
from midway_hub.dense.writing import Progress, no_progress
from midway_hub.label_pictures import most_common, overlay_labels

SHORT_SIDE = 384
LISTED = 20
KIND = "segment"

HELP = (
    "**The class of every pixel** of the source frame. This needs a model that was finetuned with a segmentation head."
)


def build(context: Context) -> None:
    """Build the tab."""
    with gr.Tab("Segmentation", id="segmentation"):
        gr.Markdown(HELP)
        opacity = gr.Slider(0, 1, value=0.6, step=0.1, buttons=[], label="Opacity of the classes' colours")
        button = gr.Button("Show classes", variant="primary", elem_id="mw-segment-button")
        cancel = cancel_button(KIND)
        shown = gr.HTML(look.note("Press “Show classes”."), elem_id="mw-segment", min_height=look.WAITING)

    def show(opacity: float, request: gr.Request, progress: gr.Progress = gr.Progress()) -> Any:  # noqa: B008
        return context.work(KIND, request, progress, lambda session, told: _classes(session, opacity, told))

    def renew(request: gr.Request) -> str:
        lacking = context.session(request).chosen.lacks("segmentation")
        return look.note(lacking, "warn") if lacking else look.note("Press “Show classes” for this frame.")

    context.cancels(cancel, KIND, [button.click(show, opacity, shown, **LONG)], shown)
    context.changed.change(renew, None, shown, show_progress="hidden")


def _classes(session: Session, opacity: float, progress: Progress = no_progress) -> str:
    with session.lock:
        net, frame = session.chosen.net, session.pair.frames[0]
    with counted(getattr(net, "segmentation_head", net), progress, "windows"):
        labels = labels_of(net, frame, size=min(SHORT_SIDE, *frame.size))
    head = net.segmentation_head.config
    note, covers = classes_note(head.classes), most_common(labels, LISTED)
    what = WORLD_HEADING.capitalize() if note else "Classes"
    names = [f"{head.classes[label]} {(labels == label).mean():.0%}" for label in covers]
    figures = [
        look.figure(frame, f"Source frame {frame_name(session, session.source)}"),
        look.figure(overlay_labels(frame, labels, head.palette, opacity=opacity), f"{what} over the frame"),
    ]
    words = f"Of {len(head.classes)} {what.lower()}, those that cover most: {', '.join(names)}."
    warning = look.note(note, "warn") if note else ""
    legend = look.legend(names, [head.palette[label] for label in covers])
    return warning + look.says(words) + look.grid(figures) + legend
